//! Logs of steps: append-only bytes with a sparse line index, not rows.
//!
//! Bytes are stored as the runner sent them and acknowledged once they are safe, and only at the offset where
//! the log ends, so what is stored is a prefix of what the runner has. A sealed log has its length, its
//! SHA-256 and its index of lines beside it and never changes again. The one other change of a byte is a
//! blot: where a runner sent a secret that it should have masked, `*` stands in the place of each byte
//! ([ADR 11](../../../docs/adr/0011-the-server-blots-secrets.md)).
//!
//! Two forms keep to that: files in a folder ([`folder`]), and objects in a bucket of an S3-compatible store
//! ([`bucket`]). Several servers may share either. Knows nothing of runs, rows or HTTP.

mod bucket;
mod compressor;
mod files;
mod folder;
mod index;
mod lock;
mod packed;
mod seal;
mod text;

use crate::adapters::bucket::{Bucket, BucketError};
use crate::artifacts::ArtifactStore;
use crate::caches::CacheStore;
use bucket::BucketLogs;
use bytes::Bytes;
use files::Files;
pub(crate) use files::UNFINISHED;
use folder::FolderLogs;
use futures_util::stream::BoxStream;
pub use lock::Lock;
pub(crate) use lock::is_lock;
use roadstead_masking::Patterns;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// No log grows beyond this many bytes: 1 GiB, as others have it.
pub const LARGEST_LOG: u64 = 1 << 30;
/// A watched log that cannot be read for so long is left.
const LONGEST_FAILING: Duration = Duration::from_secs(60);
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
    /// The bucket.
    #[error("log storage: {0}")]
    Bucket(#[from] BucketError),
}

/// All bytes of a log as they were at one moment.
pub struct Whole {
    /// How many.
    pub length: u64,
    /// They, from the first one on.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// All logs.
#[derive(Clone)]
pub struct LogStore(Form);

/// Where they are.
#[derive(Clone)]
enum Form {
    Folder(FolderLogs),
    Bucket(BucketLogs),
}

/// Held while logs are taken away: nobody reads them for a backup.
pub struct Removing(#[expect(dead_code, reason = "held, not read")] Option<Lock>);

impl LogStore {
    /// Logs below `folder`, which is made when missing. Several servers may have it at once.
    ///
    /// # Errors
    /// When the folder cannot be made, or a thread.
    pub fn new(folder: &Path) -> io::Result<Self> {
        FolderLogs::new(folder).map(Form::Folder).map(Self)
    }

    /// Logs in a bucket, which several servers may have at once. Copies of those that grow are in `data`, which is
    /// there, in files without a name.
    #[must_use]
    pub fn in_bucket(bucket: Bucket, data: &Path) -> Self {
        Self(Form::Bucket(BucketLogs::new(bucket, data)))
    }

    /// What steps leave to be kept: beside the logs, in the same folder or bucket.
    #[must_use]
    pub fn artifacts(&self) -> ArtifactStore {
        match &self.0 {
            Form::Folder(logs) => ArtifactStore::in_folder(logs.folder()),
            Form::Bucket(logs) => ArtifactStore::in_bucket(logs.bucket(), logs.folder()),
        }
    }

    /// What steps find again: beside the artifacts, in the same folder or bucket.
    #[must_use]
    pub fn caches(&self) -> CacheStore {
        CacheStore::beside(self.artifacts())
    }

    /// Keeps backups from reading logs while some are taken away; `None` while one reads them. Backups do
    /// not read what is in a bucket.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn removing(&self) -> io::Result<Option<Removing>> {
        match &self.0 {
            Form::Folder(logs) => Ok(Lock::exclusive(logs.folder())?.map(|it| Removing(Some(it)))),
            Form::Bucket(_) => Ok(Some(Removing(None))),
        }
    }

    /// Appends bytes at `offset` and returns the new length once they are safe.
    ///
    /// # Errors
    /// [`LogError::Offset`] tells where to go on; [`LogError::Busy`] and [`LogError::Bucket`] may pass; the
    /// others are final or the file system's.
    pub async fn append(&self, key: LogKey, offset: u64, bytes: Bytes) -> Result<u64, LogError> {
        self.append_without(None, key, offset, bytes).await
    }

    /// The same, with what `secrets` find blotted out.
    ///
    /// # Errors
    /// As [`LogStore::append`].
    pub async fn append_without(
        &self,
        secrets: Option<Arc<Patterns>>,
        key: LogKey,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.append(secrets, key, offset, bytes).await,
            Form::Bucket(logs) => logs.append(secrets, &key, offset, bytes).await,
        }
    }

    /// Closes a log whose bytes are all there; again with the same numbers changes nothing.
    ///
    /// # Errors
    /// [`LogError::Seal`] when length or checksum differ; [`LogError::Busy`] and [`LogError::Bucket`] may pass.
    pub async fn seal(&self, key: LogKey, length: u64, sha256: String) -> Result<(), LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.seal(key, length, sha256).await,
            Form::Bucket(logs) => logs.seal(&key, length, sha256).await,
        }
    }

    /// How long a log is now; zeros when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn state(&self, key: LogKey) -> Result<LogState, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.state(key).await,
            Form::Bucket(logs) => logs.state(&key).await,
        }
    }

    /// Hears of every change of a log's length, also of what another server appends.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn watch(&self, key: LogKey) -> Result<watch::Receiver<LogState>, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.watch(key).await,
            Form::Bucket(logs) => logs.watch(&key).await,
        }
    }

    /// At most `count` lines from line `from` (from 1) on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn lines(&self, key: LogKey, from: u64, count: usize) -> Result<Lines, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.lines(key, from, count).await,
            Form::Bucket(logs) => logs.lines(&key, from, count).await,
        }
    }

    /// All bytes of a log, for sending it raw; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Name`] when the key names no log, or when it cannot be read.
    pub async fn whole(&self, key: LogKey) -> Result<Option<Whole>, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.whole(key).await,
            Form::Bucket(logs) => logs.whole(&key).await,
        }
    }

    /// Whether the log's last byte ends a line; true of a log without bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn ends_with_feed(&self, key: LogKey) -> Result<bool, LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.ends_with_feed(key).await,
            Form::Bucket(logs) => logs.ends_with_feed(&key).await,
        }
    }

    /// Removes every log of a run that is over: whole files or objects, whatever their length. Again, or of a
    /// run without logs, does nothing.
    ///
    /// # Errors
    /// When they cannot be removed; some may be gone then.
    pub async fn remove(&self, run: &str) -> Result<(), LogError> {
        match &self.0 {
            Form::Folder(logs) => logs.remove(run).await,
            Form::Bucket(logs) => logs.remove(run).await,
        }
    }
}

/// Looks `every` so often, until `look` says that there is nothing to look for any more. `false` when it failed for
/// a minute, and is left.
async fn follow<F>(every: Duration, look: impl Fn() -> F) -> bool
where
    F: Future<Output = Result<bool, LogError>>,
{
    let mut seen = Instant::now();
    loop {
        tokio::time::sleep(every).await;
        match look().await {
            Ok(true) => seen = Instant::now(),
            Ok(false) => return true,
            Err(error) if seen.elapsed() > LONGEST_FAILING => {
                tracing::warn!(%error, "a watched log cannot be read, and is left");
                return false;
            }
            Err(error) => tracing::debug!(%error, "a watched log cannot be read now"),
        }
    }
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
pub(crate) mod tests;
