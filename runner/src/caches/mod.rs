//! Caches of a step: brings what earlier runs left into the workspace before its first try, and has kept what it leaves
//! once it succeeded.
//!
//! A cache is a help and never a need: whatever goes wrong is a line in the step's log, no more, and both ways are bounded
//! in time ([`LONGEST`]). What came is compared with length and SHA-256 that were told, unpacked in a folder that no step
//! sees, refused as a whole when anything in it would lead out, and then moved to its place. What lies in the workspace
//! already stays as it is. The server decides what a run may read and store.

mod pack;
mod unpack;

use crate::{
    artifacts::{self, find},
    client::{AttemptClient, CallError, retry},
    logs::StepLog,
    steps::StepRoom,
};
use futures_util::StreamExt;
use pack::Packed;
use roadstead_protocol::{
    CacheFound, CacheKept, CacheSent, CacheWanted, LARGEST_CACHE, Step, StepAction, StepCache,
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Seek},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::{io::ReaderStream, task::TaskTracker};

/// How long all caches of a step may take before it, and again after it.
const LONGEST: Duration = Duration::from_secs(600);
/// How long a server that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that are read at once: 128 KiB.
const PIECE: usize = 128 << 10;

/// What was learned of one cache before the step.
struct Looked<'a> {
    cache: &'a StepCache,
    key: Option<String>,
    /// The one of this very key was found: there is nothing to store.
    exact: bool,
}

/// The caches of one step.
pub(crate) struct Caches<'a> {
    room: &'a StepRoom,
    step: &'a str,
    log: &'a StepLog,
    looked: Vec<Looked<'a>>,
    /// Threads that read or write files.
    threads: TaskTracker,
}

/// Why a cache is not there, for a person; the words follow on its name.
type Missed = String;

impl<'a> Caches<'a> {
    /// Those that `step` names, none of which has been looked for.
    pub(crate) fn of(room: &'a StepRoom, step: &'a Step, log: &'a StepLog) -> Self {
        let named = match &step.action {
            StepAction::Run { files, .. } => files.caches.as_slice(),
            StepAction::Build { .. } => &[],
        };
        let looked = named.iter().map(|cache| Looked {
            cache,
            key: None,
            exact: false,
        });
        Self {
            room,
            step: &step.name,
            log,
            looked: looked.collect(),
            threads: TaskTracker::new(),
        }
    }

    /// Brings them into the workspace as far as there are any.
    pub(crate) async fn restore(&mut self) {
        if self.looked.is_empty() {
            return;
        }
        let Some(client) = self.room.audience.server() else {
            self.say("caches: a run on this machine leaves them out")
                .await;
            return;
        };
        let halt = Halt::new();
        let mut looked = std::mem::take(&mut self.looked);
        let work = async {
            for it in &mut looked {
                let began = Instant::now();
                let told = self.restore_one(client, it, &halt).await;
                let told = told.unwrap_or_else(|missed| missed);
                let seconds = began.elapsed().as_secs_f64();
                self.say(&format!("cache {}: {told}, {seconds:.1} s", it.cache.name))
                    .await;
            }
        };
        self.within(work, &halt, "restored").await;
        self.looked = looked;
    }

    /// Has what the step left kept, which succeeded.
    pub(crate) async fn store(&self) {
        let Some(client) = self.room.audience.server() else {
            return;
        };
        if self.looked.is_empty() {
            return;
        }
        let halt = Halt::new();
        let work = async {
            for it in &self.looked {
                let began = Instant::now();
                let told = self.store_one(client, it, &halt).await;
                let told = told.unwrap_or_else(|missed| format!("not stored: {missed}"));
                let seconds = began.elapsed().as_secs_f64();
                self.say(&format!("cache {}: {told}, {seconds:.1} s", it.cache.name))
                    .await;
            }
        };
        self.within(work, &halt, "stored").await;
    }

    /// Does the work as long as there is time, room on the disk, and anybody who waits for the step.
    async fn within(&self, work: impl Future<Output = ()>, halt: &Halt, what: &str) {
        let why = tokio::select! {
            () = work => return,
            () = tokio::time::sleep(LONGEST) => {
                format!("it took longer than {} s", LONGEST.as_secs())
            }
            _ = self.room.disk.runs_out() => "the disk is nearly full".to_owned(),
            _ = self.room.stop.stopped() => "the run was stopped".to_owned(),
        };
        // What a thread still writes would be in the way of whoever removes it.
        halt.stop();
        self.threads.close();
        self.threads.wait().await;
        self.say(&format!(
            "caches: what is left of them is not {what}: {why}"
        ))
        .await;
    }

    async fn say(&self, line: &str) {
        // A log that cannot take this line shows when it is closed.
        let _ = self.log.line(line).await;
    }

    async fn restore_one(
        &self,
        client: &AttemptClient,
        it: &mut Looked<'_>,
        halt: &Halt,
    ) -> Result<String, Missed> {
        let cache = it.cache;
        let workspace = &self.room.workspace;
        let (key, files) = key_of(workspace, &cache.key)
            .await
            .map_err(|error| format!("the files of its key cannot be read: {error}"))?;
        it.key = Some(key.clone());
        let of_none = match files {
            0 => ", and no file makes its key",
            _ => "",
        };
        if unpack::all_there(workspace, &cache.paths) {
            return Ok(format!("its paths are there already{of_none}"));
        }
        let wanted = wanted(&key);
        let asking = || client.cache_for(self.step, &cache.name, &wanted);
        let answer = retry(PATIENCE, asking).await.map_err(not_there)?;
        let Some(found) = answer.found else {
            return Ok(format!("nothing stored yet{of_none}"));
        };
        let file = self.fetch(client, cache, &wanted, &found).await?;
        let placed = self.unpack(file, cache, halt).await?;
        it.exact = found.key == key;
        let mut told = format!(
            "restored {} of {} of key {}…",
            size(found.length),
            found.of,
            shorten(&found.key)
        );
        if !it.exact {
            told += ", the newest";
        }
        if !placed.is_empty() {
            let there: Vec<_> = placed.iter().map(|path| format!("`{path}`")).collect();
            let _ = write!(told, " without what is there already: {}", there.join(", "));
        }
        Ok(told + of_none)
    }

    /// Brings the bytes here, which are those that were told.
    async fn fetch(
        &self,
        client: &AttemptClient,
        cache: &StepCache,
        wanted: &CacheWanted,
        found: &CacheFound,
    ) -> Result<File, Missed> {
        if found.length > LARGEST_CACHE {
            return Err(format!("{} are too many", size(found.length)));
        }
        let spool = &self.room.spool;
        let fetching = || async move {
            let failed = |error: io::Error| CallError::Unreachable(error.to_string());
            let file = tempfile::tempfile_in(spool).map_err(failed)?;
            let mut file = tokio::fs::File::from_std(file);
            let response = client.cache(self.step, &cache.name, &found.id, wanted);
            let mut pieces = response.await?.bytes_stream();
            let (mut sum, mut length) = (Sha256::new(), 0);
            while let Some(piece) = pieces.next().await {
                let piece = piece
                    .map_err(|error| CallError::Unreachable(error.without_url().to_string()))?;
                length += piece.len() as u64;
                if length > found.length {
                    break;
                }
                sum.update(&piece);
                file.write_all(&piece).await.map_err(failed)?;
            }
            if length < found.length {
                return Err(CallError::Unreachable("the bytes broke off".to_owned()));
            }
            file.flush().await.map_err(failed)?;
            file.rewind().await.map_err(failed)?;
            let right = length == found.length && hex::encode(sum.finalize()) == found.sha256;
            Ok(right.then_some(file.into_std().await))
        };
        let fetched = retry(PATIENCE, fetching).await.map_err(not_there)?;
        fetched.ok_or_else(|| "it came with other bytes than were stored".to_owned())
    }

    /// Unpacks it and moves it to its place; gives the paths that were there.
    async fn unpack(
        &self,
        file: File,
        cache: &StepCache,
        halt: &Halt,
    ) -> Result<Vec<String>, Missed> {
        let spool = self.room.spool.clone();
        let workspace = self.room.workspace.clone();
        let (paths, halt) = (cache.paths.clone(), halt.flag());
        let work = self.threads.spawn_blocking(move || {
            let staging = tempfile::Builder::new()
                .prefix("cache-")
                .tempdir_in(spool)?;
            let unpacked = unpack::unpack(file, staging.path(), &paths, &halt)?;
            unpack::place(&unpacked, &workspace, &paths)
        });
        let unpacked = work.await.map_err(io::Error::other).flatten();
        unpacked.map_err(|error| format!("what is stored is not used: {error}"))
    }

    async fn store_one(
        &self,
        client: &AttemptClient,
        it: &Looked<'_>,
        halt: &Halt,
    ) -> Result<String, Missed> {
        let cache = it.cache;
        let Some(key) = &it.key else {
            return Err("it has no key".to_owned());
        };
        if it.exact {
            return Ok("unchanged, not stored again".to_owned());
        }
        let told = |error: CallError| error.to_string();
        let wanted = wanted(key);
        let asking = || client.cache_for(self.step, &cache.name, &wanted);
        let answer = retry(PATIENCE, asking).await.map_err(told)?;
        if let Some(why) = answer.not_stored {
            return Err(why);
        }
        if answer.found.is_some_and(|found| found.key == *key) {
            return Ok(format!("key {}… is stored already", shorten(key)));
        }
        let Some(packed) = self.pack(cache, halt).await? else {
            return Err("none of its paths is there".to_owned());
        };
        let sent = CacheSent {
            fence: client.fence(),
            key: wanted.key,
            architecture: wanted.architecture,
            length: packed.length,
            sha256: packed.sha256.clone(),
        };
        let sending = || async {
            let failed = |error: io::Error| CallError::Unreachable(error.to_string());
            let mut file = packed.file.try_clone().map_err(failed)?;
            file.rewind().map_err(failed)?;
            let file = tokio::fs::File::from_std(file);
            let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, PIECE));
            client.put_cache(self.step, &cache.name, &sent, body).await
        };
        let kept = retry(PATIENCE, sending).await.map_err(told)?;
        let mut line = match kept {
            CacheKept::Stored => {
                let (packed, bytes) = (size(packed.length), size(packed.bytes));
                format!("stored {packed} of {bytes} as key {}…", shorten(key))
            }
            CacheKept::Taken => format!("another job has stored key {}… first", shorten(key)),
        };
        if packed.left_out > 0 {
            let _ = write!(
                line,
                ", without {} links that lead out of the workspace and the like",
                packed.left_out
            );
        }
        Ok(line)
    }

    async fn pack(&self, cache: &StepCache, halt: &Halt) -> Result<Option<Packed>, Missed> {
        let (spool, workspace) = (self.room.spool.clone(), self.room.workspace.clone());
        let (paths, halt) = (cache.paths.clone(), halt.flag());
        let work = self.threads.spawn_blocking(move || {
            let file = tempfile::tempfile_in(spool)?;
            pack::pack(&workspace, &paths, file, &halt)
        });
        let packed = work.await.map_err(io::Error::other).flatten();
        packed.map_err(|error| error.to_string())
    }
}

fn wanted(key: &str) -> CacheWanted {
    CacheWanted {
        key: key.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

fn not_there(error: CallError) -> Missed {
    match error {
        CallError::Refused { status, .. } if status == reqwest::StatusCode::NOT_FOUND => {
            "it is not there any more".to_owned()
        }
        error => format!("not restored: {error}"),
    }
}

/// Tells a thread to stop when whoever waits for it is gone.
struct Halt(Arc<AtomicBool>);

impl Halt {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads or writes until it is told to stop.
struct Halting<T> {
    inner: T,
    halt: Arc<AtomicBool>,
}

impl<T> Halting<T> {
    fn check(&self) -> io::Result<()> {
        if self.halt.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was broken off"));
        }
        Ok(())
    }
}

impl<T: io::Read> io::Read for Halting<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<T: io::Write> io::Write for Halting<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The key that files make which patterns name, and how many these are: a sum over their names and bytes.
async fn key_of(workspace: &Path, patterns: &[String]) -> io::Result<(String, usize)> {
    let (workspace, patterns) = (workspace.to_owned(), patterns.to_vec());
    let work = tokio::task::spawn_blocking(move || {
        let found = find::find(&workspace, &patterns)?;
        let mut sum = Sha256::new();
        let mut files = 0;
        for name in &found.files {
            // What became a link since counts as any other that is one.
            let Some(mut file) = artifacts::open(&found.folder, name)? else {
                continue;
            };
            let (length, of_bytes) = artifacts::sum_of(&mut file, u64::MAX)?;
            sum.update((name.len() as u64).to_be_bytes());
            sum.update(name);
            sum.update(length.to_be_bytes());
            sum.update(of_bytes);
            files += 1;
        }
        Ok((hex::encode(sum.finalize()), files))
    });
    work.await.map_err(io::Error::other)?
}

/// For people: `118.0 MB`, of 10⁶ bytes.
fn size(bytes: u64) -> String {
    if bytes < 1_000_000 {
        return format!("{:.1} kB", bytes as f64 / 1e3);
    }
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// As much of a key as people compare.
fn shorten(key: &str) -> &str {
    key.get(..8).unwrap_or(key)
}

#[cfg(test)]
mod tests;
