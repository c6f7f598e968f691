//! What is written down when a log is sealed: its length, its checksum and its index of lines, two lines of
//! text.

use super::index::LineIndex;
use std::fmt::Write as _;

/// What the seal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seal {
    /// Bytes of the log.
    pub(super) length: u64,
    /// Their SHA-256, hexadecimal.
    pub(super) sha256: String,
    /// The SHA-256 that the runner told, when some of its bytes were blotted.
    pub(super) blotted: Option<String>,
}

impl Seal {
    /// Whether it is the seal of what a runner tells of.
    pub(super) fn is_of(&self, length: u64, sha256: &str) -> bool {
        self.length == length && self.blotted.as_ref().unwrap_or(&self.sha256) == sha256
    }

    /// As it is stored.
    pub(super) fn text(&self, index: &LineIndex) -> String {
        let mut text = format!("{} {}", self.length, self.sha256);
        if let Some(told) = &self.blotted {
            // Writing into a String does not fail.
            let _ = write!(text, " {told}");
        }
        let _ = write!(text, "\n{}", index.lines());
        for start in index.starts() {
            // Writing into a String does not fail.
            let _ = write!(text, " {start}");
        }
        text.push('\n');
        text
    }

    /// Reads its first two lines; without an index if the second one is not there, and `None` when it is no
    /// seal.
    pub(super) fn read(text: &str) -> Option<(Self, Option<LineIndex>)> {
        let (first, rest) = text.split_once('\n')?;
        let mut words = first.split(' ').map(str::to_owned);
        let seal = Self {
            length: words.next()?.parse().ok()?,
            sha256: words.next()?,
            blotted: words.next(),
        };
        let second = rest.lines().next().unwrap_or_default();
        let mut numbers = second.split_whitespace().map(str::parse::<u64>);
        let index = match numbers.next() {
            Some(lines) => {
                let starts: Result<Vec<_>, _> = numbers.collect();
                Some(LineIndex::of(seal.length, lines.ok()?, starts.ok()?))
            }
            None => None,
        };
        Some((seal, index))
    }
}
