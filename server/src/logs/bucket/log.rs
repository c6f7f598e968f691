//! What one server knows of one log in the bucket, and how it finds out more.
//!
//! | objects in the log's folder | the log |
//! |---|---|
//! | `0000/0000000000`, `0000/0000000812`, … | grows: pieces, each named for the offset of its first byte |
//! | as well `0000/0000004096` without a byte, at the end | begins anew in round `0001` |
//! | `packed-….log.zst`, `seal` | is sealed; pieces that are left say nothing any more |
//!
//! A piece is created where the log ends, and no two objects can be created under one name: of two servers that
//! append at once one is told that the place is taken. That is why pieces stay until the seal is there.

use super::cache::Cache;
use super::sealed::{SEAL, Sealed};
use crate::adapters::bucket::{Bucket, Object};
use crate::logs::index::LineIndex;
use crate::logs::{LARGEST_LOG, LogError, LogState};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Pieces that are asked for at once.
const AT_ONCE: usize = 16;
/// A log that is another one at each look so often is under somebody's hands.
const MOST_LOOKS: usize = 4;
/// How the note of a piece begins whose bytes, or bytes before it, were blotted.
const BLOTTED: &str = "blotted";
/// Stores keep 2 KB of such notes with an object.
const LONGEST_NOTE: usize = 1_500;

/// Where a log is.
pub(super) struct Place {
    pub(super) bucket: Bucket,
    /// The log's folder in it.
    pub(super) name: String,
    /// Where caches are.
    pub(super) folder: PathBuf,
}

impl Place {
    pub(super) fn piece(&self, round: u32, offset: u64) -> String {
        format!("{}/{round:04}/{offset:010}", self.name)
    }
}

/// What is known of a log.
pub(super) enum Log {
    /// Nothing yet.
    Unknown,
    /// It grows, or there is none.
    Growing(Growing),
    /// It is sealed.
    Sealed(Arc<Sealed>),
}

/// A log that grows.
pub(super) struct Growing {
    /// How often it began anew.
    pub(super) round: u32,
    pub(super) index: LineIndex,
    pub(super) cache: Cache,
    /// The notes of pieces that have one, by their offsets.
    notes: BTreeMap<u64, String>,
    /// Where pieces begin.
    starts: Vec<u64>,
    /// The last bytes as they were sent, where others are stored, and where they end.
    pub(super) sent: Option<(u64, Zeroizing<Vec<u8>>)>,
}

/// What came of looking for more pieces.
enum More {
    All,
    /// The log is sealed, or gone.
    Over,
}

/// What a piece's note says: which bytes before it were blotted when it came. Where that would be too long,
/// what lies between them is blotted as well.
pub(super) fn note(earlier: &[(u64, Vec<u8>)]) -> String {
    let ranges = earlier
        .iter()
        .map(|(offset, bytes)| *offset..offset + bytes.len() as u64);
    let told = |note: String, range: Range<u64>| format!("{note} {}-{}", range.start, range.end);
    let note = ranges.clone().fold(BLOTTED.to_owned(), told);
    if note.len() <= LONGEST_NOTE {
        return note;
    }
    let start = ranges.clone().map(|range| range.start).min();
    let end = ranges.map(|range| range.end).max();
    told(
        BLOTTED.to_owned(),
        start.unwrap_or_default()..end.unwrap_or_default(),
    )
}

fn blots(note: &str) -> impl Iterator<Item = Range<u64>> {
    note.split(' ').skip(1).filter_map(|range| {
        let (start, end) = range.split_once('-')?;
        Some(start.parse().ok()?..end.parse().ok()?)
    })
}

impl Growing {
    async fn new(place: &Place, round: u32) -> io::Result<Self> {
        Ok(Self {
            round,
            index: LineIndex::default(),
            cache: Cache::new(&place.folder).await?,
            notes: BTreeMap::new(),
            starts: vec![],
            sent: None,
        })
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.index.bytes()
    }

    /// Some of its bytes were blotted, so the runner's checksum is of others.
    pub(super) fn is_blotted(&self) -> bool {
        !self.notes.is_empty()
    }

    /// The piece that is there, or is to come, at the end.
    pub(super) async fn take(&mut self, object: Object) -> io::Result<()> {
        let Object { bytes, note } = object;
        let offset = self.end();
        self.cache.write(offset, bytes.clone()).await?;
        for range in note.iter().flat_map(|note| blots(note)) {
            if range.end <= offset {
                let mut stored = self.cache.read(range.clone()).await?;
                stored
                    .iter_mut()
                    .filter(|byte| **byte != b'\n')
                    .for_each(|byte| *byte = b'*');
                self.cache.write(range.start, stored.into()).await?;
            }
        }
        // From here on nothing waits: whoever stops waiting for this has it taken whole, or not at all.
        self.index.extend(&bytes);
        self.starts.push(offset);
        self.notes.extend(note.map(|note| (offset, note)));
        Ok(())
    }

    /// The pieces that have some of these bytes, with their ends and notes.
    pub(super) fn pieces(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<String>)> {
        let ends = self.starts.iter().skip(1).copied().chain([self.end()]);
        let pieces = self.starts.iter().copied().zip(ends);
        pieces
            .filter(|(start, end)| *start < range.end && *end > range.start)
            .map(|(start, end)| (start..end, self.notes.get(&start).cloned()))
            .collect()
    }

    /// Finds the pieces behind those that are known.
    async fn catch_up(&mut self, place: &Place) -> Result<More, LogError> {
        let after = match self.starts.last() {
            Some(last) => Some(place.piece(self.round, *last)),
            None if self.round > 0 => Some(format!("{}/{:04}", place.name, self.round)),
            None => None,
        };
        let listed = place
            .bucket
            .list(&place.name, after.as_deref(), usize::MAX)
            .await?;
        let (mut round, mut end) = (self.round, self.end());
        let mut wanted = vec![];
        for (name, size) in listed {
            if name == format!("{}/{SEAL}", place.name) {
                return Ok(More::Over);
            }
            // One that does not follow came while this list was made: it is found next time.
            if name != place.piece(round, end) {
                continue;
            }
            if size == 0 {
                (round, end) = (round + 1, 0);
                wanted.clear();
            } else {
                wanted.push(name);
                end += size;
            }
        }
        if end > LARGEST_LOG {
            let message = format!("the pieces of {} are more than a log can be", place.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
        }
        if round != self.round {
            *self = Self::new(place, round).await?;
        }
        let bucket = place.bucket.clone();
        let mut found = stream::iter(wanted)
            .map(|name| {
                let bucket = bucket.clone();
                async move { bucket.get(&name).await }
            })
            .buffered(AT_ONCE);
        while let Some(object) = found.next().await {
            match object? {
                Some(object) => self.take(object).await?,
                None => return Ok(More::Over),
            }
        }
        Ok(More::All)
    }

    /// Looks for what came since the last look.
    async fn look(&mut self, place: &Place) -> Result<More, LogError> {
        let next = place.piece(self.round, self.end());
        match place.bucket.get(&next).await? {
            Some(object) => {
                if object.bytes.is_empty() {
                    *self = Self::new(place, self.round + 1).await?;
                } else {
                    self.take(object).await?;
                }
                self.catch_up(place).await
            }
            None => match self.starts.last() {
                // Pieces go when the log is sealed or removed.
                Some(last) if !place.bucket.has(&place.piece(self.round, *last)).await? => {
                    Ok(More::Over)
                }
                _ if place.bucket.has(&format!("{}/{SEAL}", place.name)).await? => Ok(More::Over),
                _ => Ok(More::All),
            },
        }
    }

    /// Begins the next round: the runner sends all of it once more.
    pub(super) async fn begin_anew(&mut self, place: &Place) -> io::Result<()> {
        *self = Self::new(place, self.round + 1).await?;
        Ok(())
    }
}

impl Log {
    /// Finds out how it is now.
    pub(super) async fn look(&mut self, place: &Place) -> Result<LogState, LogError> {
        for _ in 0..MOST_LOOKS {
            let more = match self {
                Self::Sealed(_) => {
                    let seal = format!("{}/{SEAL}", place.name);
                    if place.bucket.has(&seal).await? {
                        More::All
                    } else {
                        More::Over
                    }
                }
                Self::Growing(growing) => growing.look(place).await?,
                Self::Unknown => match Sealed::read(&place.bucket, &place.name).await? {
                    Some(sealed) => {
                        *self = Self::Sealed(Arc::new(sealed));
                        More::All
                    }
                    None => {
                        let mut growing = Growing::new(place, 0).await?;
                        let more = growing.catch_up(place).await?;
                        *self = Self::Growing(growing);
                        more
                    }
                },
            };
            match more {
                More::All => return Ok(self.state()),
                More::Over => *self = Self::Unknown,
            }
        }
        Err(LogError::Busy)
    }

    /// How it was at the last look.
    pub(super) fn state(&self) -> LogState {
        match self {
            Self::Unknown => LogState::default(),
            Self::Growing(growing) => LogState {
                bytes: growing.end(),
                lines: growing.index.lines(),
                sealed: false,
            },
            Self::Sealed(sealed) => LogState {
                bytes: sealed.index.bytes(),
                lines: sealed.index.lines(),
                sealed: true,
            },
        }
    }

    /// Whether it grows and ends there, as far as is known.
    pub(super) fn ends_at(&self, offset: u64) -> bool {
        matches!(self, Self::Growing(growing) if growing.end() == offset)
    }

    /// Bytes of it, as far as they are known to be there; `None` when they went meanwhile.
    pub(super) async fn read(
        &self,
        place: &Place,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, LogError> {
        match self {
            Self::Unknown => Ok(None),
            Self::Growing(growing) => Ok(Some(growing.cache.read(range).await?.into())),
            Self::Sealed(sealed) => sealed.bytes(&place.bucket, &place.name, range).await,
        }
    }

    /// Where lines are.
    pub(super) fn index(&self) -> Option<&LineIndex> {
        match self {
            Self::Unknown => None,
            Self::Growing(growing) => Some(&growing.index),
            Self::Sealed(sealed) => Some(&sealed.index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_what_was_blotted() {
        let noted = note(&[(12, b"***".to_vec()), (20, b"*".to_vec())]);
        assert_eq!(noted, "blotted 12-15 20-21");
        assert_eq!(blots(&noted).collect::<Vec<_>>(), [12..15, 20..21]);
        assert_eq!(blots(&note(&[])).count(), 0);
        let many: Vec<_> = (0..500).map(|n| (n * 10, b"*".to_vec())).collect();
        assert_eq!(note(&many), "blotted 0-4991");
    }
}
