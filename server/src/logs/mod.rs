//! Logs of steps: append-only files with a sparse line index, not rows.
//!
//! `<data>/logs/<run>/<attempt>/<step>.log` holds the bytes as the runner sent them. Bytes are
//! acknowledged after `fdatasync`, and only at the offset where the file ends, so what is stored is
//! a prefix of what the runner has. A sealed log has its length, its SHA-256 and its index of lines in
//! `<step>.seal` and never changes again; it is compressed soon after. Knows nothing of runs, rows or
//! HTTP.

mod compressor;
mod files;
mod index;
mod lock;

use crate::private;
use bytes::Bytes;
use compressor::Compressor;
pub(crate) use files::UNFINISHED;
use files::{Files, Seal};
use index::LineIndex;
pub use lock::Lock;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Where they are, below the data folder.
pub const FOLDER: &str = "logs";
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

struct Open {
    files: Files,
    index: LineIndex,
    state: watch::Sender<LogState>,
}

/// All logs below one folder.
#[derive(Clone)]
pub struct LogStore {
    root: Arc<PathBuf>,
    open: Arc<Mutex<HashMap<LogKey, Arc<Mutex<Open>>>>>,
    compressor: Arc<Compressor>,
}

impl LogStore {
    /// Logs below the data folder's `logs`, which is made when missing.
    ///
    /// # Errors
    /// When the folder cannot be made, or a thread.
    pub fn new(data: &Path) -> io::Result<Self> {
        let root = data.join(FOLDER);
        private::folder(&root)?;
        Ok(Self {
            compressor: Arc::new(Compressor::start(data, &root)?),
            root: Arc::new(root),
            open: Arc::default(),
        })
    }

    /// Appends bytes at `offset` and returns the new length once they are on the disk.
    ///
    /// # Errors
    /// [`LogError::Offset`] tells where to go on; the others are final or the file system's.
    pub async fn append(&self, key: LogKey, offset: u64, bytes: Bytes) -> Result<u64, LogError> {
        self.blocking(key, move |open| {
            let state = *open.state.borrow();
            if state.sealed {
                return Err(LogError::Sealed);
            }
            if offset != state.bytes {
                return Err(LogError::Offset {
                    length: state.bytes,
                });
            }
            let length = state.bytes + bytes.len() as u64;
            if length > LARGEST_LOG {
                return Err(LogError::Full);
            }
            open.files.append(state.bytes, &bytes)?;
            open.index.extend(&bytes);
            let lines = open.index.lines();
            open.state.send_replace(LogState {
                bytes: length,
                lines,
                sealed: false,
            });
            Ok(length)
        })
        .await
    }

    /// Closes a log whose bytes are all there; again with the same numbers changes nothing.
    ///
    /// # Errors
    /// [`LogError::Seal`] when length or checksum differ.
    pub async fn seal(&self, key: LogKey, length: u64, sha256: String) -> Result<(), LogError> {
        let (compressor, parts) = (Arc::clone(&self.compressor), key.clone());
        self.blocking(key, move |open| {
            let state = *open.state.borrow();
            let differs = Err(LogError::Seal {
                length: state.bytes,
            });
            if state.bytes != length {
                return differs;
            }
            let seal = Seal { length, sha256 };
            if state.sealed {
                let stored = open.files.read_seal()?;
                let same = stored.is_some_and(|(stored, _)| stored == seal);
                return if same { Ok(()) } else { differs };
            }
            if open.files.checksum()? != seal.sha256 {
                // What is stored cannot be trusted: the runner sends all of it once more.
                open.files.begin_anew()?;
                open.index = LineIndex::default();
                open.state.send_replace(LogState::default());
                return Err(LogError::Seal { length: 0 });
            }
            open.files.write_seal(&seal, &open.index)?;
            open.state.send_replace(LogState {
                sealed: true,
                ..state
            });
            let attempt = parts.attempt.to_string();
            if let Err(error) = compressor.add([&parts.run, &attempt, &parts.step], length) {
                tracing::warn!(%error, "a log stays uncompressed: {error}");
            }
            Ok(())
        })
        .await
    }

    /// How long a log is now; zeros when there is none yet.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn state(&self, key: LogKey) -> Result<LogState, LogError> {
        self.blocking(key, |open| Ok(*open.state.borrow())).await
    }

    /// Hears of every change of a log's length.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn watch(&self, key: LogKey) -> Result<watch::Receiver<LogState>, LogError> {
        self.blocking(key, |open| Ok(open.state.subscribe())).await
    }

    /// At most `count` lines from line `from` (from 1) on.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn lines(&self, key: LogKey, from: u64, count: usize) -> Result<Lines, LogError> {
        self.blocking(key, move |open| {
            let state = *open.state.borrow();
            let from = from.max(1);
            if from > state.lines {
                return Ok(Lines {
                    first: from,
                    lines: vec![],
                });
            }
            let (mut line, offset) = open.index.before(from);
            let wanted = count.min(MOST_LINES);
            let mut bytes = vec![];
            open.files
                .read(offset)?
                .take(MOST_BYTES.min(state.bytes - offset))
                .read_to_end(&mut bytes)?;
            let mut lines = vec![];
            for text in bytes.split_inclusive(|byte| *byte == b'\n') {
                if line >= from {
                    lines.push(text.strip_suffix(b"\n").unwrap_or(text).to_vec());
                }
                line += 1;
                if lines.len() == wanted {
                    break;
                }
            }
            Ok(Lines { first: from, lines })
        })
        .await
    }

    /// All bytes of a log, for sending it raw; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Name`] when the key names no file, or when it cannot be read.
    pub async fn whole(&self, key: LogKey) -> Result<Option<Whole>, LogError> {
        self.blocking(key, |open| {
            if !open.files.exist() {
                return Ok(None);
            }
            Ok(Some(Whole {
                length: open.state.borrow().bytes,
                bytes: open.files.read(0)?,
            }))
        })
        .await
    }

    /// Whether the log's last byte ends a line; true of a log without bytes.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn ends_with_feed(&self, key: LogKey) -> Result<bool, LogError> {
        self.blocking(key, |open| Ok(open.index.ends_with_feed()))
            .await
    }

    /// Removes every log of a run that is over: whole files, whatever their length. Again, or of a run
    /// without logs, does nothing.
    ///
    /// # Errors
    /// When the files cannot be removed; some may be gone then.
    pub async fn remove(&self, run: &str) -> Result<(), LogError> {
        names_a_file(run)?;
        let (this, run) = (self.clone(), run.to_owned());
        let done = tokio::task::spawn_blocking(move || {
            let removed = match std::fs::remove_dir_all(this.root.join(&run)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            let mut open = this.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|key, _| key.run != run);
            removed
        });
        Ok(done
            .await
            .map_err(|error| io::Error::other(error.to_string()))??)
    }

    fn path(&self, key: &LogKey) -> Result<PathBuf, LogError> {
        names_a_file(&key.run)?;
        names_a_file(&key.step)?;
        let folder = self.root.join(&key.run).join(key.attempt.to_string());
        Ok(folder.join(format!("{}.log", key.step)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: LogKey,
        work: impl FnOnce(&mut Open) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let path = self.path(&key)?;
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let slot = {
                let mut all = this.open.lock().unwrap_or_else(PoisonError::into_inner);
                // Logs that nobody watches any more and that are sealed need no place in memory.
                if all.len() > 1_000 {
                    all.retain(|_, slot| Arc::strong_count(slot) > 1);
                }
                match all.get(&key) {
                    Some(slot) => Arc::clone(slot),
                    None => {
                        let slot = Arc::new(Mutex::new(load(path)?));
                        all.insert(key, Arc::clone(&slot));
                        slot
                    }
                }
            };
            let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut open)
        });
        done.await
            .map_err(|error| io::Error::other(error.to_string()))?
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

/// What the files of a log say after a restart.
fn load(path: PathBuf) -> io::Result<Open> {
    let files = Files::new(path);
    let (index, sealed) = match files.read_seal()? {
        Some((_, index)) => (index, true),
        None => (files.index()?, false),
    };
    let state = LogState {
        bytes: index.bytes(),
        lines: index.lines(),
        sealed,
    };
    Ok(Open {
        files,
        index,
        state: watch::Sender::new(state),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::time::Duration;

    fn key() -> LogKey {
        LogKey {
            run: "shop.1".into(),
            attempt: 1,
            step: "test".into(),
        }
    }

    #[tokio::test]
    async fn bytes_are_taken_once_and_in_order_across_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        assert_eq!(
            logs.append(key(), 0, b"one\ntw"[..].into()).await.unwrap(),
            6
        );
        let again = logs.append(key(), 0, b"one\ntw"[..].into()).await;
        assert!(matches!(again, Err(LogError::Offset { length: 6 })));

        let logs = LogStore::new(folder.path()).unwrap();
        assert_eq!(logs.append(key(), 6, b"o\n"[..].into()).await.unwrap(), 8);
        let state = logs.state(key()).await.unwrap();
        assert_eq!(
            state,
            LogState {
                bytes: 8,
                lines: 2,
                sealed: false
            }
        );
        let lines = logs.lines(key(), 2, 10).await.unwrap();
        assert_eq!(
            lines,
            Lines {
                first: 2,
                lines: vec![b"two".to_vec()]
            }
        );
    }

    #[tokio::test]
    async fn a_seal_needs_the_very_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
        let right = hex::encode(Sha256::digest(b"abc"));
        let short = logs.seal(key(), 2, right.clone()).await;
        assert!(matches!(short, Err(LogError::Seal { length: 3 })));
        logs.seal(key(), 3, right.clone()).await.unwrap();
        logs.seal(key(), 3, right).await.unwrap();
        assert!(matches!(
            logs.append(key(), 3, b"d"[..].into()).await,
            Err(LogError::Sealed)
        ));
    }

    #[tokio::test]
    async fn a_wrong_checksum_asks_for_everything_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        logs.append(key(), 0, b"abX"[..].into()).await.unwrap();
        let right = hex::encode(Sha256::digest(b"abc"));
        let answer = logs.seal(key(), 3, right.clone()).await;
        assert!(matches!(answer, Err(LogError::Seal { length: 0 })));
        logs.append(key(), 0, b"abc"[..].into()).await.unwrap();
        logs.seal(key(), 3, right).await.unwrap();
    }

    #[tokio::test]
    async fn names_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        for step in ["..", "../x", "a/b", ""] {
            let bad = LogKey {
                step: step.into(),
                ..key()
            };
            assert!(
                matches!(logs.state(bad).await, Err(LogError::Name(_))),
                "{step}"
            );
        }
    }

    #[tokio::test]
    async fn the_logs_of_a_run_go_as_a_whole_and_only_they() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        let second = LogKey {
            attempt: 2,
            ..key()
        };
        let other = LogKey {
            run: "shop.10".into(),
            ..key()
        };
        for key in [key(), second.clone(), other.clone()] {
            logs.append(key, 0, b"a line\n"[..].into()).await.unwrap();
        }
        for _ in 0..2 {
            logs.remove("shop.1").await.unwrap();
            for key in [key(), second.clone()] {
                assert_eq!(logs.state(key).await.unwrap(), LogState::default());
            }
            assert!(
                !folder.path().join("logs/shop.1").exists(),
                "reading makes nothing"
            );
        }
        assert_eq!(logs.state(other).await.unwrap().bytes, 7);
        assert!(matches!(logs.remove("..").await, Err(LogError::Name(_))));
    }

    #[tokio::test]
    async fn any_line_of_a_long_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
        logs.append(key(), 0, text.into()).await.unwrap();
        for from in [1, 999, 1_000, 1_001, 12_345] {
            let found = logs.lines(key(), from, 1).await.unwrap();
            assert_eq!(found.lines, vec![format!("line {from}").into_bytes()]);
        }
        assert!(logs.lines(key(), 12_346, 1).await.unwrap().lines.is_empty());
    }

    #[tokio::test]
    async fn a_sealed_log_is_compressed_and_shows_the_same_lines_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
        let sum = hex::encode(Sha256::digest(&text));
        let length = text.len() as u64;
        logs.append(key(), 0, text.clone().into()).await.unwrap();
        logs.seal(key(), length, sum.clone()).await.unwrap();
        let raw = folder.path().join("logs/shop.1/1/test.log");
        for _ in 0..600 {
            if !raw.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!raw.exists(), "the compressor takes the raw file away");
        for logs in [logs, LogStore::new(folder.path()).unwrap()] {
            let state = logs.state(key()).await.unwrap();
            let expected = LogState {
                bytes: length,
                lines: 12_345,
                sealed: true,
            };
            assert_eq!(state, expected);
            let found = logs.lines(key(), 7_001, 2).await.unwrap();
            assert_eq!(found.lines, [b"line 7001".to_vec(), b"line 7002".to_vec()]);
            let mut whole = logs.whole(key()).await.unwrap().unwrap();
            let mut bytes = String::new();
            whole.bytes.read_to_string(&mut bytes).unwrap();
            assert!(bytes == text && whole.length == length);
            logs.seal(key(), length, sum.clone()).await.unwrap();
            let late = logs.append(key(), length, b"more"[..].into()).await;
            assert!(matches!(late, Err(LogError::Sealed)));
        }
        assert!(
            !folder
                .path()
                .join("logs/.to-compress/shop.1~1~test")
                .exists()
        );
    }

    #[tokio::test]
    async fn what_was_sealed_before_a_kill_is_compressed_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let text = "the same line again and again\n".repeat(1_000);
        let raw = folder.path().join("logs/shop.1/1/test.log");
        let files = Files::new(raw.clone());
        files.append(0, text.as_bytes()).unwrap();
        let seal = Seal {
            length: text.len() as u64,
            sha256: hex::encode(Sha256::digest(&text)),
        };
        let mut index = LineIndex::default();
        index.extend(text.as_bytes());
        files.write_seal(&seal, &index).unwrap();
        let markers = folder.path().join("logs/.to-compress");
        private::folder(&markers).unwrap();
        private::file(&markers.join("shop.1~1~test")).unwrap();
        let logs = LogStore::new(folder.path()).unwrap();
        for _ in 0..600 {
            if !raw.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!raw.exists());
        assert_eq!(logs.state(key()).await.unwrap().lines, 1_000);
    }
}
