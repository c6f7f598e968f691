//! Logs as files below one folder, which several servers may share.
//!
//! `<folder>/<run>/<attempt>/<step>.log` holds the bytes; they are acknowledged after `fdatasync`. A sealed log
//! has its length, its SHA-256 and its index of lines in `<step>.seal`; it is compressed soon after.
//!
//! Whoever changes a log holds the lock of its attempt, a file lock that the kernel takes back from a
//! process that dies, and looks at the files only then; what is kept in memory is an index of bytes that were
//! read, compared with the file before each use.

use super::compressor::Compressor;
use super::files::{Files, Found};
use super::index::LineIndex;
use super::seal::Seal;
use super::text::{blot, lines_of, window};
use super::{
    LARGEST_LOG, Lines, LogError, LogKey, LogState, MOST_BYTES, Whole, follow, names_a_file,
};
use crate::private;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use roadstead_masking::Patterns;
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Between two looks whether a log that somebody watches has grown under another server's hand.
const LOOK: Duration = Duration::from_millis(100);
/// Between two tries to have a log to oneself.
const AGAIN: Duration = Duration::from_millis(5);
/// Bytes of a log that are read at once for whoever wants all of it.
const PIECE: usize = 64 << 10;
/// Longest wait for it: then another server holds it that was stopped, or is cut off.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
struct Open {
    files: Files,
    index: LineIndex,
    /// The file that the index is of.
    of: Option<Found>,
    state: watch::Sender<LogState>,
    /// A task looks for what other servers append.
    followed: bool,
    /// Bytes were blotted, so the runner's checksum is of others. Forgotten with this process, after which
    /// the runner has to send all of it again.
    blotted: bool,
    /// The last bytes as they were sent, where the file has some of them blotted, and where they end: what
    /// follows may make more of them a secret.
    sent: Option<(u64, Zeroizing<Vec<u8>>)>,
}

impl Open {
    fn new(path: PathBuf) -> Self {
        Self {
            files: Files::new(path),
            index: LineIndex::default(),
            of: None,
            state: watch::Sender::default(),
            followed: false,
            blotted: false,
            sent: None,
        }
    }

    /// What is to be stored in the place of `bytes` behind the `length` bytes that are there, if they hold a
    /// secret or the rest of one; its beginning is blotted where it is stored.
    fn blot(
        &mut self,
        patterns: &Patterns,
        length: u64,
        bytes: &Bytes,
    ) -> io::Result<Option<Bytes>> {
        let before = window(patterns, length);
        let mut known = Zeroizing::new(vec![]);
        match self.sent.take() {
            Some((end, sent)) if end == length && sent.len() as u64 >= before => {
                known.extend_from_slice(&sent[sent.len() - before as usize..]);
            }
            _ if before > 0 => {
                let mut stored = self.files.read(length - before)?.take(before);
                stored.read_to_end(&mut known)?;
            }
            _ => {}
        }
        let Some(found) = blot(patterns, length, &known, bytes) else {
            return Ok(None);
        };
        for (offset, changed) in &found.earlier {
            self.files.overwrite(*offset, changed)?;
        }
        self.sent = Some((length + bytes.len() as u64, found.sent));
        self.blotted = true;
        Ok(Some(found.new))
    }

    /// Looks at the files, and reads what was added to them since the last look.
    fn refresh(&mut self) -> io::Result<LogState> {
        let found = self.files.find()?;
        let sealed = match found {
            Found::Nothing => {
                self.begin_anew();
                false
            }
            Found::Sealed => {
                if self.of != Some(Found::Sealed) {
                    // Gone at this very moment: then the log was removed.
                    self.index = self.files.read_seal()?.unwrap_or_default().1;
                }
                true
            }
            Found::Growing { length, .. } => {
                let is_same = self.of.is_some_and(|of| of.is_same_file(found));
                if !is_same || length < self.index.bytes() {
                    self.begin_anew();
                }
                if length > self.index.bytes() {
                    self.files.index_on(&mut self.index, length)?;
                }
                false
            }
        };
        self.of = Some(found);
        Ok(self.tell(sealed))
    }

    /// Forgets a file that is not there any more: another server may have begun the log anew, and what was
    /// blotted in the old one says nothing of the new one.
    fn begin_anew(&mut self) {
        self.index = LineIndex::default();
        self.blotted = false;
        self.sent = None;
    }

    /// Tells those who watch how long the log is.
    fn tell(&self, sealed: bool) -> LogState {
        let state = LogState {
            bytes: self.index.bytes(),
            lines: self.index.lines(),
            sealed,
        };
        self.state
            .send_if_modified(|told| std::mem::replace(told, state) != state);
        state
    }
}

/// All logs below one folder.
#[derive(Clone)]
pub(super) struct FolderLogs {
    root: Arc<PathBuf>,
    open: Arc<Mutex<HashMap<LogKey, Arc<Mutex<Open>>>>>,
    pub(super) compressor: Arc<Compressor>,
}

impl FolderLogs {
    /// Logs below `folder`, which is made when missing. Several servers may have it at once.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        private::folder(folder)?;
        Ok(Self {
            compressor: Arc::new(Compressor::start(folder)?),
            root: Arc::new(folder.to_owned()),
            open: Arc::default(),
        })
    }

    /// The folder of all logs.
    pub(super) fn folder(&self) -> &Path {
        &self.root
    }

    pub(super) async fn append(
        &self,
        secrets: Option<Arc<Patterns>>,
        key: LogKey,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, LogError> {
        let LogKey { run, step, .. } = key.clone();
        self.alone(key, move |open| {
            let state = open.refresh()?;
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
            let blotted = match &secrets {
                Some(secrets) => open.blot(secrets, state.bytes, &bytes)?,
                None => None,
            };
            let bytes = match blotted {
                Some(blotted) => {
                    tracing::warn!(
                        run,
                        step,
                        "a runner sent a secret that it should have masked"
                    );
                    blotted
                }
                None => bytes.clone(),
            };
            open.of = Some(open.files.append(state.bytes, &bytes)?);
            open.index.extend(&bytes);
            open.tell(false);
            Ok(length)
        })
        .await
    }

    pub(super) async fn seal(
        &self,
        key: LogKey,
        length: u64,
        sha256: String,
    ) -> Result<(), LogError> {
        let (compressor, parts) = (Arc::clone(&self.compressor), key.clone());
        self.alone(key, move |open| {
            let state = open.refresh()?;
            let differs = Err(LogError::Seal {
                length: state.bytes,
            });
            if state.bytes != length {
                return differs;
            }
            if state.sealed {
                let stored = open.files.read_seal()?;
                let same = stored.is_some_and(|(stored, _)| stored.is_of(length, &sha256));
                return if same { Ok(()) } else { differs };
            }
            let (found, index) = open.files.examine()?;
            let blotted = open.blotted.then(|| sha256.clone());
            let seal = Seal {
                length,
                sha256: found,
                blotted,
            };
            if !seal.is_of(length, &sha256) {
                // What is stored cannot be trusted: the runner sends all of it once more.
                open.files.begin_anew()?;
                open.refresh()?;
                return Err(LogError::Seal { length: 0 });
            }
            open.files.write_seal(&seal, &index)?;
            open.index = index;
            // Nothing follows, and it holds bytes of secrets.
            open.sent = None;
            open.of = Some(Found::Sealed);
            open.tell(true);
            let attempt = parts.attempt.to_string();
            if let Err(error) = compressor.add([&parts.run, &attempt, &parts.step], length) {
                tracing::warn!(%error, "a log stays uncompressed: {error}");
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn state(&self, key: LogKey) -> Result<LogState, LogError> {
        self.blocking(key, |open| Ok(open.refresh()?)).await
    }

    pub(super) async fn watch(&self, key: LogKey) -> Result<watch::Receiver<LogState>, LogError> {
        let watching = self.blocking(key.clone(), |open| {
            let state = open.refresh()?;
            let follow = !state.sealed && !std::mem::replace(&mut open.followed, !state.sealed);
            Ok((open.state.subscribe(), follow))
        });
        let (watched, is_to_be_followed) = watching.await?;
        if is_to_be_followed {
            let this = self.clone();
            tokio::spawn(async move {
                let look = || {
                    this.blocking(key.clone(), |open| {
                        let sealed = open.refresh()?.sealed;
                        open.followed = !sealed && open.state.receiver_count() > 0;
                        Ok(open.followed)
                    })
                };
                if !follow(LOOK, look).await {
                    // Whoever asks for it next has it looked at again.
                    let left = this.blocking(key.clone(), |open| {
                        open.followed = false;
                        Ok(())
                    });
                    drop(left.await);
                }
            });
        }
        Ok(watched)
    }

    pub(super) async fn lines(
        &self,
        key: LogKey,
        from: u64,
        count: usize,
    ) -> Result<Lines, LogError> {
        self.blocking(key, move |open| {
            let state = open.refresh()?;
            let from = from.max(1);
            if from > state.lines {
                return Ok(Lines {
                    first: from,
                    lines: vec![],
                });
            }
            let (line, offset) = open.index.before(from);
            let mut bytes = vec![];
            open.files
                .read(offset)?
                .take(MOST_BYTES.min(state.bytes - offset))
                .read_to_end(&mut bytes)?;
            Ok(lines_of(&bytes, line, from, count))
        })
        .await
    }

    pub(super) async fn whole(&self, key: LogKey) -> Result<Option<Whole>, LogError> {
        self.blocking(key, |open| {
            let length = open.refresh()?.bytes;
            if !open.files.exist() {
                return Ok(None);
            }
            let bytes = pieces(open.files.read(0)?.take(length)).boxed();
            Ok(Some(Whole { length, bytes }))
        })
        .await
    }

    pub(super) async fn ends_with_feed(&self, key: LogKey) -> Result<bool, LogError> {
        self.blocking(key, |open| {
            open.refresh()?;
            Ok(open.index.ends_with_feed())
        })
        .await
    }

    pub(super) async fn remove(&self, run: &str) -> Result<(), LogError> {
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

    /// Runs `work` while no other server changes the logs of this attempt.
    async fn alone<T: Send + 'static>(
        &self,
        key: LogKey,
        work: impl Fn(&mut Open) -> Result<T, LogError> + Clone + Send + 'static,
    ) -> Result<T, LogError> {
        let end = Instant::now() + LONGEST_WAIT;
        loop {
            let work = work.clone();
            let done = self.blocking(key.clone(), move |open| {
                // Not waited for on this thread: a server that was stopped may hold it for long, and
                // threads are few.
                let Some(_lock) = open.files.try_lock()? else {
                    return Err(LogError::Busy);
                };
                work(open)
            });
            match done.await {
                Err(LogError::Busy) if Instant::now() < end => tokio::time::sleep(AGAIN).await,
                done => return done,
            }
        }
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
                        let slot = Arc::new(Mutex::new(Open::new(path)));
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

/// What is read, piece by piece; a reader that waits holds one of them.
fn pieces(from: impl Read + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(from, |mut from| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let read = from.read(&mut piece)?;
            piece.truncate(read);
            io::Result::Ok((piece, from))
        });
        let (piece, from) = read.await.map_err(io::Error::other)??;
        Ok((!piece.is_empty()).then(|| (Bytes::from(piece), from)))
    })
}
