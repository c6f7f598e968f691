//! Logs as objects in a bucket of an S3-compatible store, which any number of servers share.
//!
//! `<run>/<attempt>/<step>/` has the objects of one log: pieces while it grows, and one compressed object with
//! its seal afterwards ([`log`]). Bytes are acknowledged once the store has answered that the piece is there.
//! What a server knows of a log is what it has seen in the bucket, and is never relied on for an
//! acknowledgement: the store says whether a place is taken
//! ([ADR 12](../../../docs/adr/0012-logs-in-s3.md)).

mod cache;
mod log;
mod sealed;

use super::text::{blot, lines_of, window};
use super::{
    LARGEST_LOG, Lines, LogError, LogKey, LogState, MOST_BYTES, Whole, follow, names_a_file,
};
use crate::adapters::bucket::{Bucket, Created, Object};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use log::{Log, Place, note};
use roadstead_masking::Patterns;
use sealed::Packed;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// Between two looks whether a log that somebody watches has grown under another server's hand. Each costs
/// three small requests.
const LOOK: Duration = Duration::from_millis(500);
/// More logs than this are kept in mind only while they are in use.
const MOST_KNOWN: usize = 256;
/// So long after its last use a log is no longer in use. Each that grows has a file open.
const IN_USE: Duration = Duration::from_secs(300);
/// Bytes of a growing log that are read at once for whoever wants all of it.
const READ_BYTES: u64 = 256 << 10;

/// One log, as this server knows it.
struct Known {
    place: Place,
    log: tokio::sync::Mutex<Log>,
    /// Held by whoever changes the log, while others may read it.
    change: tokio::sync::Mutex<()>,
    state: watch::Sender<LogState>,
    /// A task looks for what other servers append.
    followed: AtomicBool,
    used: Mutex<Instant>,
}

/// Logs in a bucket.
#[derive(Clone)]
pub(super) struct BucketLogs {
    bucket: Bucket,
    folder: Arc<PathBuf>,
    known: Arc<Mutex<HashMap<LogKey, Arc<Known>>>>,
}

impl Known {
    fn tell(&self, state: LogState) -> LogState {
        self.state
            .send_if_modified(|told| std::mem::replace(told, state) != state);
        state
    }

    async fn look(&self, log: &mut Log) -> Result<LogState, LogError> {
        Ok(self.tell(log.look(&self.place).await?))
    }

    async fn is_to_be_followed(&self) -> Result<bool, LogError> {
        let mut log = self.log.lock().await;
        let sealed = self.look(&mut log).await?.sealed;
        let follow = !sealed && self.state.receiver_count() > 0;
        // Before the log is let go: who comes then has to begin anew.
        self.followed.store(follow, Ordering::Release);
        Ok(follow)
    }

    async fn append(
        &self,
        secrets: Option<Arc<Patterns>>,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, LogError> {
        let _turn = self.change.lock().await;
        let mut log = self.log.lock().await;
        if !log.ends_at(offset) {
            self.look(&mut log).await?;
        }
        let growing = match &mut *log {
            Log::Sealed(_) => return Err(LogError::Sealed),
            Log::Unknown => return Err(LogError::Busy),
            Log::Growing(growing) => growing,
        };
        let (round, end) = (growing.round, growing.end());
        if offset != end {
            return Err(LogError::Offset { length: end });
        }
        let length = end + bytes.len() as u64;
        if length > LARGEST_LOG {
            return Err(LogError::Full);
        }
        if bytes.is_empty() {
            // A piece without a byte would say that the log begins anew.
            return Ok(end);
        }
        let mut piece = Object { bytes, note: None };
        let mut sent = None;
        let mut earlier = vec![];
        if let Some(patterns) = &secrets {
            let before = match &growing.sent {
                Some((at, sent)) if *at == end && sent.len() as u64 >= window(patterns, end) => {
                    let from = sent.len() - window(patterns, end) as usize;
                    Zeroizing::new(sent[from..].to_vec())
                }
                _ => {
                    let from = end - window(patterns, end);
                    Zeroizing::new(growing.cache.read(from..end).await?)
                }
            };
            if let Some(found) = blot(patterns, end, &before, &piece.bytes) {
                for (at, changed) in found.earlier {
                    let stored = growing.cache.read(at..at + changed.len() as u64).await?;
                    if stored != changed {
                        earlier.push((at, changed));
                    }
                }
                if found.new != piece.bytes || !earlier.is_empty() {
                    tracing::warn!(
                        log = self.place.name,
                        "a runner sent a secret that it should have masked"
                    );
                    piece.note = Some(note(&earlier));
                }
                piece.bytes = found.new;
                sent = Some((length, found.sent));
            }
        }
        // Others may read the log, and look for what comes, while the store is waited for.
        drop(log);
        let name = self.place.piece(round, end);
        let created = self
            .place
            .bucket
            .create(&name, piece.bytes.clone(), piece.note.as_deref())
            .await?;
        let mut log = self.log.lock().await;
        match created {
            Created::Made => {
                if let Log::Growing(growing) = &mut *log
                    && growing.round == round
                {
                    // Whoever watches may have seen it come.
                    if growing.end() == end {
                        growing.take(piece).await?;
                    }
                    if growing.end() == length {
                        growing.sent = sent;
                    }
                }
                self.tell(log.state());
                self.blot_earlier(&log, round, &earlier).await;
                Ok(length)
            }
            Created::Taken => {
                self.look(&mut log).await?;
                let growing = match &*log {
                    Log::Sealed(_) => return Err(LogError::Sealed),
                    Log::Unknown => return Err(LogError::Busy),
                    Log::Growing(growing) => growing,
                };
                if growing.round == round && growing.end() == end {
                    // The store has it under way, and did not say so yet.
                    return Err(LogError::Busy);
                }
                // The first answer may have been lost, here or on its way to the runner.
                let is_there = growing.round == round
                    && growing.end() >= length
                    && growing.cache.read(end..length).await? == piece.bytes;
                if is_there {
                    return Ok(length);
                }
                Err(LogError::Offset {
                    length: growing.end(),
                })
            }
        }
    }

    /// Takes the beginnings of secrets, of which the ends came now, out of the pieces that have them. Whoever reads
    /// the log knows of them by the note of the piece that came; this is for who reads the bucket.
    async fn blot_earlier(&self, log: &Log, round: u32, earlier: &[(u64, Vec<u8>)]) {
        let Log::Growing(growing) = log else { return };
        for (at, changed) in earlier {
            let range = *at..at + changed.len() as u64;
            for (piece, note) in growing.pieces(range) {
                let name = self.place.piece(round, piece.start);
                let put = async {
                    let bytes = growing.cache.read(piece).await?.into();
                    let bucket = &self.place.bucket;
                    bucket.put(&name, bytes, note.as_deref()).await?;
                    Ok::<_, LogError>(())
                };
                if let Err(error) = put.await {
                    tracing::warn!(
                        "the beginning of a secret stays in {name} until the log is sealed: {error}"
                    );
                }
            }
        }
    }

    async fn seal(&self, length: u64, sha256: &str) -> Result<(), LogError> {
        let _turn = self.change.lock().await;
        let mut log = self.log.lock().await;
        let state = self.look(&mut log).await?;
        let differs = Err(LogError::Seal {
            length: state.bytes,
        });
        if state.bytes != length {
            return differs;
        }
        let growing = match &mut *log {
            Log::Unknown => return Err(LogError::Busy),
            Log::Sealed(sealed) => {
                if !sealed.seal.is_of(length, sha256) {
                    return differs;
                }
                let sealed = Arc::clone(sealed);
                drop(log);
                // Whoever sealed it may have been stopped before this.
                self.clear(&sealed).await;
                return Ok(());
            }
            Log::Growing(growing) => growing,
        };
        let told = growing.is_blotted().then(|| sha256.to_owned());
        let (cache, round) = (growing.cache.clone(), growing.round);
        // Compressing takes seconds where a log is large; nobody appends meanwhile, others may read it.
        drop(log);
        let packed = Packed::make(&cache, length, told, &self.place.folder).await?;
        if !packed.seal().is_of(length, sha256) {
            return self.begin_anew(round, length).await;
        }
        let sealed = packed.store(&self.place.bucket, &self.place.name).await?;
        if !sealed.seal.is_of(length, sha256) {
            return differs;
        }
        let sealed = Arc::new(sealed);
        let mut log = self.log.lock().await;
        *log = Log::Sealed(Arc::clone(&sealed));
        self.tell(log.state());
        drop(log);
        self.clear(&sealed).await;
        Ok(())
    }

    /// What is stored cannot be trusted: an object without a byte, where the next piece would be, ends this
    /// round for every server.
    async fn begin_anew(&self, round: u32, end: u64) -> Result<(), LogError> {
        let name = self.place.piece(round, end);
        let ended = self.place.bucket.create(&name, Bytes::new(), None).await?;
        let mut log = self.log.lock().await;
        if let (Created::Made, Log::Growing(growing)) = (ended, &mut *log)
            && growing.round == round
        {
            growing.begin_anew(&self.place).await?;
            self.tell(log.state());
        } else {
            self.look(&mut log).await?;
        }
        Err(LogError::Seal {
            length: log.state().bytes,
        })
    }

    /// Removes what a sealed log does not need.
    async fn clear(&self, sealed: &sealed::Sealed) {
        let Place { bucket, name, .. } = &self.place;
        let cleared = async {
            let mut names = vec![];
            for (object, _) in bucket.list(name, None, usize::MAX).await? {
                let own = object.strip_prefix(name.as_str());
                let own = own.and_then(|own| own.strip_prefix('/'));
                if own.is_some_and(|own| !sealed.keeps(own)) {
                    names.push(object);
                }
            }
            if names.is_empty() {
                return Ok(());
            }
            bucket.remove(names).await
        };
        if let Err(error) = cleared.await {
            tracing::warn!(
                "pieces of the sealed log {name} stay until its run is removed: {error}"
            );
        }
    }
}

impl BucketLogs {
    /// Logs in `bucket`; the caches of those that grow are in `folder`, which is there.
    pub(super) fn new(bucket: Bucket, folder: &Path) -> Self {
        Self {
            bucket,
            folder: Arc::new(folder.to_owned()),
            known: Arc::default(),
        }
    }

    /// The bucket of all logs.
    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The folder of what is on its way.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn known(&self, key: &LogKey) -> Result<Arc<Known>, LogError> {
        names_a_file(&key.run)?;
        names_a_file(&key.step)?;
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |known: &Known| {
            let mut used = known.used.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *used, Instant::now())
        };
        if let Some(known) = all.get(key) {
            used(known);
            return Ok(Arc::clone(known));
        }
        if all.len() >= MOST_KNOWN {
            all.retain(|_, known| {
                let used = known.used.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::strong_count(known) > 1 || used.elapsed() < IN_USE
            });
        }
        let known = Arc::new(Known {
            place: Place {
                bucket: self.bucket.clone(),
                name: format!("{}/{}/{}", key.run, key.attempt, key.step),
                folder: self.folder.to_path_buf(),
            },
            log: Log::Unknown.into(),
            change: tokio::sync::Mutex::default(),
            state: watch::Sender::default(),
            followed: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        });
        all.insert(key.clone(), Arc::clone(&known));
        Ok(known)
    }

    pub(super) async fn append(
        &self,
        secrets: Option<Arc<Patterns>>,
        key: &LogKey,
        offset: u64,
        bytes: Bytes,
    ) -> Result<u64, LogError> {
        let known = self.known(key)?;
        // To its end, whether or not the runner waits for it.
        let done = tokio::spawn(async move { known.append(secrets, offset, bytes).await });
        done.await.map_err(io::Error::other)?
    }

    pub(super) async fn seal(
        &self,
        key: &LogKey,
        length: u64,
        sha256: String,
    ) -> Result<(), LogError> {
        let known = self.known(key)?;
        // As with bytes: a runner that waited too long for a large log asks again, and finds it sealed.
        let done = tokio::spawn(async move { known.seal(length, &sha256).await });
        done.await.map_err(io::Error::other)?
    }

    pub(super) async fn state(&self, key: &LogKey) -> Result<LogState, LogError> {
        let known = self.known(key)?;
        let mut log = known.log.lock().await;
        known.look(&mut log).await
    }

    pub(super) async fn watch(&self, key: &LogKey) -> Result<watch::Receiver<LogState>, LogError> {
        let known = self.known(key)?;
        let mut log = known.log.lock().await;
        let sealed = known.look(&mut log).await?.sealed;
        let watched = known.state.subscribe();
        let is_followed = sealed || known.followed.swap(true, Ordering::AcqRel);
        drop(log);
        if !is_followed {
            tokio::spawn(async move {
                if !follow(LOOK, || known.is_to_be_followed()).await {
                    // Whoever asks for it next has it looked at again.
                    known.followed.store(false, Ordering::Release);
                }
            });
        }
        Ok(watched)
    }

    /// The log as it is now; as it was at the last look where a task looks, since it told of no more.
    async fn looked<'a>(
        &self,
        known: &'a Known,
    ) -> Result<tokio::sync::MutexGuard<'a, Log>, LogError> {
        let mut log = known.log.lock().await;
        if !known.followed.load(Ordering::Acquire) || matches!(*log, Log::Unknown) {
            known.look(&mut log).await?;
        }
        Ok(log)
    }

    pub(super) async fn lines(
        &self,
        key: &LogKey,
        from: u64,
        count: usize,
    ) -> Result<Lines, LogError> {
        let known = self.known(key)?;
        let from = from.max(1);
        let mut log = self.looked(&known).await?;
        for _ in 0..2 {
            let state = log.state();
            let Some(index) = log.index().filter(|_| from <= state.lines) else {
                break;
            };
            let (line, offset) = index.before(from);
            let end = state.bytes.min(offset + MOST_BYTES);
            if let Some(bytes) = log.read(&known.place, offset..end).await? {
                return Ok(lines_of(&bytes, line, from, count));
            }
            // Removed at this very moment.
            known.look(&mut log).await?;
        }
        Ok(Lines {
            first: from,
            lines: vec![],
        })
    }

    pub(super) async fn whole(&self, key: &LogKey) -> Result<Option<Whole>, LogError> {
        let known = self.known(key)?;
        let mut log = known.log.lock().await;
        let LogState { bytes: length, .. } = known.look(&mut log).await?;
        if length == 0 {
            return Ok(None);
        }
        let bytes = match &*log {
            Log::Unknown => return Ok(None),
            Log::Growing(growing) => {
                let cache = growing.cache.clone();
                let read = move |at: u64| {
                    let cache = cache.clone();
                    async move {
                        let end = length.min(at + READ_BYTES);
                        Ok(cache.read(at..end).await?.into())
                    }
                };
                pieces(length, read).boxed()
            }
            Log::Sealed(sealed) => {
                let (sealed, known) = (Arc::clone(sealed), Arc::clone(&known));
                let read = move |at: u64| {
                    let (sealed, known) = (Arc::clone(&sealed), Arc::clone(&known));
                    async move {
                        let Place { bucket, name, .. } = &known.place;
                        sealed.next(bucket, name, at).await
                    }
                };
                pieces(length, read).boxed()
            }
        };
        Ok(Some(Whole { length, bytes }))
    }

    pub(super) async fn ends_with_feed(&self, key: &LogKey) -> Result<bool, LogError> {
        let known = self.known(key)?;
        let log = self.looked(&known).await?;
        Ok(log.index().is_none_or(|index| index.ends_with_feed()))
    }

    pub(super) async fn remove(&self, run: &str) -> Result<(), LogError> {
        names_a_file(run)?;
        let objects = self.bucket.list(run, None, usize::MAX).await?;
        let names: Vec<_> = objects.into_iter().map(|(name, _)| name).collect();
        if !names.is_empty() {
            self.bucket.remove(names).await?;
        }
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, _| key.run != run);
        Ok(())
    }
}

/// All bytes up to `length`, as `read` gives them from one offset after the other; a reader that waits holds
/// none.
fn pieces<F>(
    length: u64,
    read: impl Fn(u64) -> F + Send + 'static,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static
where
    F: Future<Output = io::Result<Bytes>> + Send + 'static,
{
    stream::try_unfold((0, read), move |(at, read)| async move {
        if at >= length {
            return Ok(None);
        }
        let bytes = read(at).await?;
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let next = at + bytes.len() as u64;
        Ok(Some((bytes, (next, read))))
    })
}
