//! Logs of steps: append-only bytes with a sparse line index, not rows.
//!
//! Bytes are stored as the runner sent them and acknowledged once they are safe, and only at the offset where
//! the log ends, so what is stored is a prefix of what the runner has. A sealed log has its length, its
//! SHA-256 and its index of lines beside it and never changes again. The one other change of a byte is a
//! blot: where a runner sent a secret that it should have masked, `*` stands in the place of each byte
//! ([ADR 11](../../../docs/adr/0011-the-server-blots-secrets.md)).
//!
//! Knows nothing of runs, rows or HTTP.

mod compressor;
mod files;
mod folder;
mod index;
mod lock;

use files::Files;
pub(crate) use files::UNFINISHED;
pub use folder::LogStore;
pub use lock::Lock;
pub(crate) use lock::is_lock;
use std::io::{self, Read};
use std::path::Path;

/// No log grows beyond this many bytes: 1 GiB, as others have it.
pub const LARGEST_LOG: u64 = 1 << 30;
/// No read gives more lines than this.
pub const MOST_LINES: usize = 5_000;
/// No read gives more bytes than this: 2 MiB.
const MOST_BYTES: u64 = 2 << 20;

/// Which log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogKey {
    /// The run's id.
    pub run: String,
    /// The attempt's number.
    pub attempt: u32,
    /// The step's name.
    pub step: String,
}

/// How long a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogState {
    /// Bytes stored.
    pub bytes: u64,
    /// Lines begun; the last one may still grow.
    pub lines: u64,
    /// Nothing more comes.
    pub sealed: bool,
}

/// Consecutive lines of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// Number of the first one, from 1.
    pub first: u64,
    /// The lines without their line feed.
    pub lines: Vec<Vec<u8>>,
}

/// Why a log did not take what was sent.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The bytes do not follow on what is there.
    #[error("the log ends at byte {length}")]
    Offset {
        /// Where it ends.
        length: u64,
    },
    /// Length or checksum differ from what is stored.
    #[error("the log has {length} bytes with another checksum or length than was told")]
    Seal {
        /// Where it ends.
        length: u64,
    },
    /// It is sealed.
    #[error("the log is sealed")]
    Sealed,
    /// Another server has held it for long; it may be free later.
    #[error("another server holds the log")]
    Busy,
    /// It would be larger than [`LARGEST_LOG`].
    #[error("the log is full: {LARGEST_LOG} bytes")]
    Full,
    /// A name that is no file name.
    #[error("`{0}` cannot name a log")]
    Name(String),
    /// The file system.
    #[error("log storage: {0}")]
    Io(#[from] io::Error),
}

/// All bytes of a log as they were at one moment.
pub struct Whole {
    /// How many.
    pub length: u64,
    /// They, from the first one on; more may follow. Reading blocks.
    pub bytes: Box<dyn Read + Send>,
}

/// Whether the log beside a seal has the length and the checksum that the seal says.
///
/// # Errors
/// When one of them cannot be read.
pub fn holds_its_seal(seal: &Path) -> io::Result<bool> {
    Files::new(seal.with_extension("log")).hold_their_seal()
}

/// Nothing that leads out of the logs' folder.
fn names_a_file(part: &str) -> Result<(), LogError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if part.is_empty() || part.starts_with('.') || !part.bytes().all(plain) {
        return Err(LogError::Name(part.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
