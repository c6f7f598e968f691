//! Sealed logs in a bucket: one compressed object, and the seal, which says where in it lines are.
//!
//! The seal is a text: two lines as every seal has them, and a third one with the compressed object's name and
//! where its frames end, `raw:packed`. A log without a byte has no object and no third line. The object
//! is named for its own SHA-256, so whoever makes the same one again makes no other.

use super::cache::{Cache, on_thread};
use crate::adapters::bucket::{Bucket, Created};
use crate::logs::LogError;
use crate::logs::index::LineIndex;
use crate::logs::packed::{Frame, Frames, pack, unpack};
use crate::logs::seal::Seal;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The seal's name in the log's folder. It is behind all others in the bucket's order: whoever lists them
/// while they are removed sees it, too.
pub(super) const SEAL: &str = "seal";
/// How the compressed object's name begins. Behind all pieces, before the seal.
const PACKED: &str = "packed-";
/// Raw bytes that are read from the bucket at once.
const READ_BYTES: u64 = 4 << 20;
const CHUNK: usize = 256 << 10;

/// What is known of a sealed log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) seal: Seal,
    pub(super) index: LineIndex,
    object: Option<(String, Frames)>,
}

/// A log that was compressed and is not in the bucket yet.
pub(super) struct Packed {
    sealed: Sealed,
    file: Arc<File>,
    length: u64,
}

impl Sealed {
    /// Reads a log's seal; `None` when it has none.
    pub(super) async fn read(bucket: &Bucket, log: &str) -> Result<Option<Self>, LogError> {
        let name = format!("{log}/{SEAL}");
        let Some(object) = bucket.get(&name).await? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&object.bytes).ok();
        let sealed = text.and_then(Self::of).ok_or_else(|| {
            let message = format!("{name} in {} is no seal of a log", bucket.place());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Ok(Some(sealed))
    }

    fn of(text: &str) -> Option<Self> {
        let (seal, index) = Seal::read(text)?;
        let object = match text.lines().nth(2) {
            Some(line) => {
                let mut words = line.split(' ');
                let name = words.next()?.to_owned();
                let frames = words.map(|word| {
                    let (raw, packed) = word.split_once(':')?;
                    Some(Frame {
                        raw: raw.parse().ok()?,
                        packed: packed.parse().ok()?,
                    })
                });
                Some((name, Frames(frames.collect::<Option<_>>()?)))
            }
            None => None,
        };
        Some(Self {
            seal,
            index: index?,
            object,
        })
    }

    fn text(&self) -> String {
        let mut text = self.seal.text(&self.index);
        if let Some((name, frames)) = &self.object {
            text.push_str(name);
            for Frame { raw, packed } in &frames.0 {
                // Writing into a String does not fail.
                let _ = write!(text, " {raw}:{packed}");
            }
            text.push('\n');
        }
        text
    }

    /// Whether an object of the log's folder is one that stays.
    pub(super) fn keeps(&self, name: &str) -> bool {
        name == SEAL
            || self
                .object
                .as_ref()
                .is_some_and(|(object, _)| object == name)
    }

    /// Bytes of the log, from the bucket; `None` when they are not there any more.
    pub(super) async fn bytes(
        &self,
        bucket: &Bucket,
        log: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, LogError> {
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let Some((object, part)) = self
            .object
            .as_ref()
            .and_then(|(name, frames)| Some((name, frames.part(range.clone())?)))
        else {
            let message = format!("the seal of {log} names no bytes {range:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
        };
        let name = format!("{log}/{object}");
        let Some(packed) = bucket.range(&name, part.packed.clone()).await? else {
            return Ok(None);
        };
        let bytes = on_thread(move || {
            let raw = Bytes::from(part.unpack(&packed)?);
            let at =
                |offset: u64| usize::try_from(offset - part.raw.start).map_err(io::Error::other);
            Ok(raw.slice(at(range.start)?..at(range.end)?))
        });
        Ok(Some(bytes.await?))
    }

    /// The same, from byte `at` on, as many as are read at once; none at the end.
    pub(super) async fn next(&self, bucket: &Bucket, log: &str, at: u64) -> io::Result<Bytes> {
        let end = self.seal.length.min(at + READ_BYTES);
        let read = self.bytes(bucket, log, at..end).await;
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the log was removed meanwhile");
        read.map_err(io::Error::other)?.ok_or_else(gone)
    }
}

impl Packed {
    /// Reads the first `length` bytes of a cache, and compresses them into a file in `folder`. With `told`
    /// some of them were blotted, and it is the checksum that the runner tells of.
    pub(super) async fn make(
        cache: &Cache,
        length: u64,
        told: Option<String>,
        folder: &Path,
    ) -> io::Result<Self> {
        let (mut raw, folder) = (cache.reader(length), folder.to_owned());
        on_thread(move || {
            let mut reading = Reading {
                from: &mut raw,
                hasher: Sha256::new(),
                index: LineIndex::default(),
            };
            let mut file = tempfile::tempfile_in(folder)?;
            pack(&mut reading, &mut file)?;
            let Reading { hasher, index, .. } = reading;
            if index.bytes() != length {
                let message = "a log's cache is shorter than the log";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            let seal = Seal {
                length,
                sha256: hex::encode(hasher.finalize()),
                blotted: told,
            };
            let object = match length {
                0 => None,
                _ => Some((name_of(&mut file)?, frames_of(&file)?)),
            };
            Ok(Self {
                length: file.metadata()?.len(),
                file: Arc::new(file),
                sealed: Sealed {
                    seal,
                    index,
                    object,
                },
            })
        })
        .await
    }

    pub(super) fn seal(&self) -> &Seal {
        &self.sealed.seal
    }

    /// Puts the compressed log into the bucket, reads it back whole, and then the seal. Gives the seal that holds,
    /// which may be another server's.
    pub(super) async fn store(self, bucket: &Bucket, log: &str) -> Result<Sealed, LogError> {
        let Self {
            sealed,
            file,
            length,
        } = self;
        if let Some((name, _)) = &sealed.object {
            bucket
                .upload(&format!("{log}/{name}"), &file, length)
                .await?;
            let mut hasher = Sha256::new();
            let mut at = 0;
            while at < sealed.seal.length {
                let bytes = sealed.next(bucket, log, at).await?;
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
            if hex::encode(hasher.finalize()) != sealed.seal.sha256 {
                let message = format!("{log}/{name} does not hold what was put there");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
            }
        }
        let text = Bytes::from(sealed.text());
        let created = bucket.create(&format!("{log}/{SEAL}"), text, None).await?;
        match created {
            Created::Made => Ok(sealed),
            Created::Taken => Self::other(bucket, log).await,
        }
    }

    async fn other(bucket: &Bucket, log: &str) -> Result<Sealed, LogError> {
        Sealed::read(bucket, log).await?.ok_or(LogError::Busy)
    }
}

fn name_of(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            let sum = hex::encode(hasher.finalize());
            return Ok(format!("{PACKED}{}.log.zst", &sum[..16]));
        }
        hasher.update(&chunk[..read]);
    }
}

fn frames_of(file: &File) -> io::Result<Frames> {
    Frames::of(unpack(file.try_clone()?)?.seek_table())
}

/// Takes a sum and an index of what is read.
struct Reading<R> {
    from: R,
    hasher: Sha256,
    index: LineIndex,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.hasher.update(&to[..read]);
        self.index.extend(&to[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_reads_as_it_was_written() {
        let mut index = LineIndex::default();
        index.extend(b"one\ntwo");
        let seal = Seal {
            length: 7,
            sha256: "ab".into(),
            blotted: Some("cd".into()),
        };
        let frames = [(4, 30), (7, 61)].map(|(raw, packed)| Frame { raw, packed });
        for object in [
            None,
            Some(("packed-x.log.zst".to_owned(), Frames(frames.into()))),
        ] {
            let sealed = Sealed {
                seal: seal.clone(),
                index: LineIndex::of(7, 2, vec![0]),
                object,
            };
            assert_eq!(Sealed::of(&sealed.text()).unwrap(), sealed);
            assert!(sealed.keeps(SEAL) && !sealed.keeps("0000/0000000000"));
        }
        for broken in ["", "7 ab\n", "7 ab\n2 0\npacked 4", "7 ab\n2 0\npacked 4:x"] {
            assert_eq!(Sealed::of(broken), None, "{broken}");
        }
    }
}
