//! Logs of steps: append-only files with a sparse line index, not rows.
//!
//! `<root>/<run>/<attempt>/<step>.log` holds the bytes as the runner sent them. Bytes are
//! acknowledged after `fdatasync`, and only at the offset where the file ends, so what is stored is
//! a prefix of what the runner has. A sealed log has its length and SHA-256 in `<step>.seal` and
//! never changes again. Knows nothing of runs, rows or HTTP.

mod index;

use crate::private;
use index::LineIndex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

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

struct Open {
    index: LineIndex,
    state: watch::Sender<LogState>,
}

/// All logs below one folder.
#[derive(Clone)]
pub struct LogStore {
    root: Arc<PathBuf>,
    open: Arc<Mutex<HashMap<LogKey, Arc<Mutex<Open>>>>>,
}

impl LogStore {
    /// Logs below `root`, which is made when missing.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(root: PathBuf) -> io::Result<Self> {
        private::folder(&root)?;
        Ok(Self {
            root: Arc::new(root),
            open: Arc::default(),
        })
    }

    /// Appends bytes at `offset` and returns the new length once they are on the disk.
    ///
    /// # Errors
    /// [`LogError::Offset`] tells where to go on; the others are final or the file system's.
    pub async fn append(&self, key: LogKey, offset: u64, bytes: Vec<u8>) -> Result<u64, LogError> {
        self.blocking(key, move |path, open| {
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
            make_folder(path)?;
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            // A failed earlier append may have left more than was acknowledged.
            if file.metadata()?.len() != state.bytes {
                file.set_len(state.bytes)?;
            }
            file.write_all(&bytes)?;
            file.sync_data()?;
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
        self.blocking(key, move |path, open| {
            let state = *open.state.borrow();
            let differs = Err(LogError::Seal {
                length: state.bytes,
            });
            if state.bytes != length {
                return differs;
            }
            if state.sealed {
                let same = fs::read_to_string(seal_path(path))? == seal_text(length, &sha256);
                return if same { Ok(()) } else { differs };
            }
            make_folder(path)?;
            if checksum(path)? != sha256 {
                // What is stored cannot be trusted: the runner sends all of it once more.
                OpenOptions::new()
                    .create(true)
                    .truncate(true)
                    .write(true)
                    .open(path)?;
                *open = Open {
                    index: LineIndex::default(),
                    state: open.state.clone(),
                };
                open.state.send_replace(LogState::default());
                return Err(LogError::Seal { length: 0 });
            }
            let mut seal = File::create(seal_path(path))?;
            seal.write_all(seal_text(length, &sha256).as_bytes())?;
            seal.sync_all()?;
            open.state.send_replace(LogState {
                sealed: true,
                ..state
            });
            Ok(())
        })
        .await
    }

    /// How long a log is now; zeros when there is none yet.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn state(&self, key: LogKey) -> Result<LogState, LogError> {
        self.blocking(key, |_, open| Ok(*open.state.borrow())).await
    }

    /// Hears of every change of a log's length.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn watch(&self, key: LogKey) -> Result<watch::Receiver<LogState>, LogError> {
        self.blocking(key, |_, open| Ok(open.state.subscribe()))
            .await
    }

    /// At most `count` lines from line `from` (from 1) on.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub async fn lines(&self, key: LogKey, from: u64, count: usize) -> Result<Lines, LogError> {
        self.blocking(key, move |path, open| {
            let state = *open.state.borrow();
            let from = from.max(1);
            if from > state.lines {
                return Ok(Lines {
                    first: from,
                    lines: vec![],
                });
            }
            let (mut line, offset) = open.index.before(from);
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![];
            let wanted = count.min(MOST_LINES);
            file.take(MOST_BYTES.min(state.bytes - offset))
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

    /// Where a log's file is, for sending it raw; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Name`] when the key names no file.
    pub fn file(&self, key: &LogKey) -> Result<Option<PathBuf>, LogError> {
        let path = self.path(key)?;
        Ok(path.exists().then_some(path))
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
            let removed = match fs::remove_dir_all(this.root.join(&run)) {
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
        work: impl FnOnce(&Path, &mut Open) -> Result<T, LogError> + Send + 'static,
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
                        let slot = Arc::new(Mutex::new(load(&path)?));
                        all.insert(key, Arc::clone(&slot));
                        slot
                    }
                }
            };
            let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
            work(&path, &mut open)
        });
        done.await
            .map_err(|error| io::Error::other(error.to_string()))?
    }
}

/// Nothing that leads out of the logs' folder.
fn names_a_file(part: &str) -> Result<(), LogError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if part.is_empty() || part.starts_with('.') || !part.bytes().all(plain) {
        return Err(LogError::Name(part.to_owned()));
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), private::folder)
}

fn seal_path(path: &Path) -> PathBuf {
    path.with_extension("seal")
}

fn seal_text(length: u64, sha256: &str) -> String {
    format!("{length} {sha256}\n")
}

/// Reads what a file holds after a restart: length and lines are derived, never stored.
fn load(path: &Path) -> io::Result<Open> {
    let mut index = LineIndex::default();
    match File::open(path) {
        Ok(mut file) => {
            let mut chunk = vec![0; 1 << 16];
            loop {
                let read = file.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                index.extend(&chunk[..read]);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let sealed = seal_path(path).exists();
    let state = LogState {
        bytes: index.bytes(),
        lines: index.lines(),
        sealed,
    };
    Ok(Open {
        index,
        state: watch::Sender::new(state),
    })
}

fn checksum(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    match File::open(path) {
        Ok(mut file) => {
            let mut chunk = vec![0; 1 << 16];
            loop {
                let read = file.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                hasher.update(&chunk[..read]);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let logs = LogStore::new(folder.path().into()).unwrap();
        assert_eq!(logs.append(key(), 0, b"one\ntw".to_vec()).await.unwrap(), 6);
        let again = logs.append(key(), 0, b"one\ntw".to_vec()).await;
        assert!(matches!(again, Err(LogError::Offset { length: 6 })));

        let logs = LogStore::new(folder.path().into()).unwrap();
        assert_eq!(logs.append(key(), 6, b"o\n".to_vec()).await.unwrap(), 8);
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
        let logs = LogStore::new(folder.path().into()).unwrap();
        logs.append(key(), 0, b"abc".to_vec()).await.unwrap();
        let right = hex::encode(Sha256::digest(b"abc"));
        let short = logs.seal(key(), 2, right.clone()).await;
        assert!(matches!(short, Err(LogError::Seal { length: 3 })));
        logs.seal(key(), 3, right.clone()).await.unwrap();
        logs.seal(key(), 3, right).await.unwrap();
        assert!(matches!(
            logs.append(key(), 3, b"d".to_vec()).await,
            Err(LogError::Sealed)
        ));
    }

    #[tokio::test]
    async fn a_wrong_checksum_asks_for_everything_again() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().into()).unwrap();
        logs.append(key(), 0, b"abX".to_vec()).await.unwrap();
        let right = hex::encode(Sha256::digest(b"abc"));
        let answer = logs.seal(key(), 3, right.clone()).await;
        assert!(matches!(answer, Err(LogError::Seal { length: 0 })));
        logs.append(key(), 0, b"abc".to_vec()).await.unwrap();
        logs.seal(key(), 3, right).await.unwrap();
    }

    #[tokio::test]
    async fn names_stay_below_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().into()).unwrap();
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
        let logs = LogStore::new(folder.path().into()).unwrap();
        let second = LogKey {
            attempt: 2,
            ..key()
        };
        let other = LogKey {
            run: "shop.10".into(),
            ..key()
        };
        for key in [key(), second.clone(), other.clone()] {
            logs.append(key, 0, b"a line\n".to_vec()).await.unwrap();
        }
        for _ in 0..2 {
            logs.remove("shop.1").await.unwrap();
            for key in [key(), second.clone()] {
                assert_eq!(logs.state(key).await.unwrap(), LogState::default());
            }
            assert!(
                !folder.path().join("shop.1").exists(),
                "reading makes nothing"
            );
        }
        assert_eq!(logs.state(other).await.unwrap().bytes, 7);
        assert!(matches!(logs.remove("..").await, Err(LogError::Name(_))));
    }

    #[tokio::test]
    async fn any_line_of_a_long_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().into()).unwrap();
        let text: String = (1..=12_345).map(|n| format!("line {n}\n")).collect();
        logs.append(key(), 0, text.into_bytes()).await.unwrap();
        for from in [1, 999, 1_000, 1_001, 12_345] {
            let found = logs.lines(key(), from, 1).await.unwrap();
            assert_eq!(found.lines, vec![format!("line {from}").into_bytes()]);
        }
        assert!(logs.lines(key(), 12_346, 1).await.unwrap().lines.is_empty());
    }
}
