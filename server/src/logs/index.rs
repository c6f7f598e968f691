//! A sparse index of lines: where every thousandth line begins.

/// One entry per so many lines: a seek and at most so many lines to skip.
const EVERY: u64 = 1_000;

/// Where lines begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LineIndex {
    /// Offset of line `n * EVERY + 1` at index `n`.
    starts: Vec<u64>,
    bytes: u64,
    feeds: u64,
    ends_with_feed: bool,
}

impl LineIndex {
    /// The index of `bytes` bytes in `lines` lines, of which every thousandth begins at `starts`.
    pub(super) fn of(bytes: u64, lines: u64, starts: Vec<u64>) -> Self {
        Self {
            starts,
            bytes,
            feeds: lines,
            // So that `lines` is what was given: nothing is added to it any more.
            ends_with_feed: true,
        }
    }

    /// Where every thousandth line begins.
    pub(super) fn starts(&self) -> &[u64] {
        &self.starts
    }

    /// Takes the bytes that follow.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        for at in memchr::memchr_iter(b'\n', bytes) {
            self.feeds += 1;
            if self.feeds.is_multiple_of(EVERY) {
                self.starts.push(self.bytes + at as u64 + 1);
            }
        }
        if let Some(last) = bytes.last() {
            self.ends_with_feed = *last == b'\n';
        }
        self.bytes += bytes.len() as u64;
    }

    /// All bytes taken.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the last byte ends a line; true of no bytes at all.
    pub(super) fn ends_with_feed(&self) -> bool {
        self.bytes == 0 || self.ends_with_feed
    }

    /// Lines begun.
    pub(super) fn lines(&self) -> u64 {
        if self.ends_with_feed() {
            self.feeds
        } else {
            self.feeds + 1
        }
    }

    /// An indexed line at or before `line` (from 1), with its offset.
    pub(super) fn before(&self, line: u64) -> (u64, u64) {
        let slot = (line.saturating_sub(1)) / EVERY;
        let slot = slot.min(self.starts.len().saturating_sub(1) as u64);
        let offset = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.starts.get(slot))
            .copied();
        (slot * EVERY + 1, offset.unwrap_or(0))
    }
}
