//! Brings a commit's files onto this machine: one object store per project, filled by packs.
//!
//! Owns the stores below its folder and which commit each holds in full. A pack is verified while
//! it is indexed, and one that comes with its index when its objects are read: nothing reaches a
//! workspace whose bytes are not those of its object id. When the difference between two commits does
//! not fit what is here, the store is begun anew and the whole is fetched, so that a damaged store
//! heals itself. One attempt at a time works on a project's store, and one that was told to stop for as
//! long as a thread still works for it.

use crate::{
    checkout,
    client::{AttemptClient, Backoff, CallError, Sent, Wanted},
};
use anyhow::{Context, bail};
use bytes::Bytes;
use git2::{Indexer, Repository};
use reqwest::Response;
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long the server may stay silent before an attempt gives up on its sources.
const PATIENCE: Duration = Duration::from_secs(300);
/// With more packs than this a store is begun anew: look-ups go through every pack.
const MOST_PACKS: usize = 50;
/// Names the commit whose objects are all here.
const HELD: &str = "refs/roadstead/held";
/// A pack's header: `PACK`, version, number of objects.
const PACK_HEADER_BYTES: usize = 12;

/// The object stores of all projects.
pub(crate) struct Sources {
    folder: PathBuf,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Sources {
    /// Stores below `folder`, which is made when first needed.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            locks: Mutex::default(),
        }
    }

    /// Writes the files of `commit` into `tree`, an empty folder, fetching what is not here. Returns when the
    /// commit was made, in seconds since 1970. Dropping
    /// this does not stop a thread that it started: `threads` ends when all of them have, and only then
    /// nothing more is written into `tree`.
    ///
    /// # Errors
    /// [`CallError::Lost`] when the attempt is no longer ours, and whatever kept the files away.
    pub(crate) async fn check_out(
        &self,
        client: &AttemptClient,
        project: &str,
        commit: &str,
        tree: &Path,
        threads: &TaskTracker,
    ) -> anyhow::Result<i64> {
        let lock = self
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(project.to_owned())
            .or_default()
            .clone();
        let turn = Turn {
            threads: threads.clone(),
            store: Arc::new(lock.lock_owned().await),
        };
        let store = self.folder.join(format!("{project}.git"));
        let held = turn
            .blocking({
                let store = store.clone();
                move || held_commit(&store)
            })
            .await?;
        let incremental = held.is_some();
        match fetch_and_write(&turn, client, &store, held, commit, tree).await {
            Err(error) if incremental && !is_final(&error) => {
                tracing::warn!(
                    project,
                    error = format!("{error:#}"),
                    "begins the object store anew"
                );
                let (store_to_clear, tree_to_clear) = (store.clone(), tree.to_owned());
                turn.blocking(move || {
                    remove_folder(&store_to_clear)?;
                    remove_folder(&tree_to_clear)?;
                    fs::create_dir(&tree_to_clear).map_err(Into::into)
                })
                .await?;
                fetch_and_write(&turn, client, &store, None, commit, tree).await
            }
            outcome => outcome,
        }
    }
}

/// One attempt's time with a project's store.
struct Turn {
    threads: TaskTracker,
    store: Arc<OwnedMutexGuard<()>>,
}

impl Turn {
    /// Runs `work` in a thread that may wait for the disk. The store is not handed on before its end.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> JoinHandle<anyhow::Result<T>> {
        let store = Arc::clone(&self.store);
        self.threads.spawn_blocking(move || {
            let done = work();
            drop(store);
            done
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.spawn(work)
            .await
            .context("a thread that handles sources panicked")?
    }
}

/// Whether fetching everything again could not help.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CallError>().is_some()
}

async fn fetch_and_write(
    turn: &Turn,
    client: &AttemptClient,
    store: &Path,
    held: Option<String>,
    commit: &str,
    tree: &Path,
) -> anyhow::Result<i64> {
    if held.as_deref() != Some(commit) {
        let mut backoff = Backoff::new(PATIENCE);
        while let Err(error) = fetch(turn, client, store, held.as_deref(), commit).await {
            let transient = error
                .downcast_ref()
                .filter(|error: &&CallError| error.is_transient());
            match transient.and_then(|error| backoff.next_pause_after(error)) {
                Some(pause) => {
                    tracing::warn!(error = format!("{error:#}"), "fetches sources again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            }
        }
    }
    let (store, tree, commit) = (store.to_owned(), tree.to_owned(), commit.to_owned());
    turn.blocking(move || {
        let commit_time = checkout::write_tree(&store, &commit, &tree)?;
        // Only now it is known that nothing of this commit is missing.
        let repository = Repository::open_bare(&store)?;
        repository
            .reference(HELD, git2::Oid::from_str(&commit)?, true, "checked out")
            .context("cannot note which commit is here")?;
        Ok(commit_time)
    })
    .await
}

async fn fetch(
    turn: &Turn,
    client: &AttemptClient,
    store: &Path,
    held: Option<&str>,
    commit: &str,
) -> anyhow::Result<()> {
    let wanted = held.map_or(Wanted::Everything, Wanted::Since);
    let sent = ask(client, wanted, commit).await?;
    let Some((pack, index_bytes)) = sent.stored else {
        return take_in(turn, store, sent.body, index_chunks).await;
    };
    if pack.len() != 40 || !pack.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("`{pack}` cannot be a pack's name");
    }
    let name = format!("pack-{pack}");
    take_in(turn, store, sent.body, move |store, chunks| {
        keep_chunks(store, &name, index_bytes, chunks)
    })
    .await?;
    let rest = ask(client, Wanted::Beside(&pack), commit).await?;
    take_in(turn, store, rest.body, index_chunks).await
}

async fn ask(client: &AttemptClient, wanted: Wanted<'_>, commit: &str) -> anyhow::Result<Sent> {
    let sent = client.sources(wanted).await?;
    match &sent.tip {
        Some(tip) if tip != commit => {
            bail!("the server sent sources of commit {tip} where {commit} was asked for")
        }
        _ => Ok(sent),
    }
}

/// Streams an answer to `work`, which runs in a thread that may wait for the disk.
async fn take_in(
    turn: &Turn,
    store: &Path,
    mut body: Response,
    work: impl FnOnce(&Path, mpsc::Receiver<Bytes>) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let store = store.to_owned();
    let worker = turn.spawn(move || work(&store, receiver));
    let mut cut_off = None;
    loop {
        match body.chunk().await {
            Ok(Some(chunk)) => {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                cut_off = Some(error.without_url());
                break;
            }
        }
    }
    drop(sender);
    let done = worker
        .await
        .context("the thread that takes in packs panicked")?;
    if let Some(error) = cut_off {
        // The complaint about a short pack would hide why it was short.
        return Err(CallError::Unreachable(format!("the sources were cut off: {error}")).into());
    }
    done
}

fn open(store: &Path) -> anyhow::Result<Repository> {
    Repository::open_bare(store)
        .or_else(|_| Repository::init_bare(store))
        .with_context(|| format!("cannot make the object store {}", store.display()))
}

/// Keeps a pack that comes behind its index, as they are.
fn keep_chunks(
    store: &Path,
    name: &str,
    index_bytes: u64,
    mut chunks: mpsc::Receiver<Bytes>,
) -> anyhow::Result<()> {
    open(store)?;
    let packs = store.join("objects/pack");
    // Whatever was cut off before is written over; nothing is looked for under these names.
    let parts = [packs.join("index.part"), packs.join("pack.part")];
    let [mut index, mut pack] = [File::create(&parts[0])?, File::create(&parts[1])?];
    let mut left = index_bytes;
    while let Some(mut chunk) = chunks.blocking_recv() {
        let here = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        index.write_all(&chunk.split_to(here))?;
        left -= here as u64;
        pack.write_all(&chunk)?;
    }
    // An index ends with the checksum of its pack and one of its own, a pack with its own.
    let tail = |path: &Path, from_end: u64| -> io::Result<[u8; 20]> {
        let file = File::open(path)?;
        let start = file.metadata()?.len().checked_sub(from_end);
        let start = start.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut checksum = [0; 20];
        file.read_exact_at(&mut checksum, start)?;
        Ok(checksum)
    };
    let whole = || -> io::Result<bool> { Ok(tail(&parts[0], 40)? == tail(&parts[1], 20)?) };
    anyhow::ensure!(
        whole().context("the pack of sources is cut off")?,
        "the pack of sources and its index do not belong together"
    );
    // Objects are found by the index, so it gets its name last.
    fs::rename(&parts[1], packs.join(format!("{name}.pack")))?;
    fs::rename(&parts[0], packs.join(format!("{name}.idx")))?;
    Ok(())
}

/// Streams a pack into the store; its objects are checked on the way.
fn index_chunks(store: &Path, mut chunks: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
    let repository = open(store)?;
    let odb = repository.odb()?;
    let mut start = Vec::with_capacity(PACK_HEADER_BYTES);
    while start.len() < PACK_HEADER_BYTES {
        let Some(chunk) = chunks.blocking_recv() else {
            break;
        };
        start.extend_from_slice(&chunk);
    }
    if start.is_empty() || start.get(8..PACK_HEADER_BYTES) == Some(&[0; 4]) {
        // Nothing that is not here already.
        return Ok(());
    }
    let packs = store.join("objects/pack");
    // Not whether what objects name is here too: parents need not be, and submodules never are.
    let mut indexer = Indexer::new(Some(&odb), &packs, 0o444, false)?;
    let mut write = |bytes: &[u8]| -> anyhow::Result<()> {
        indexer
            .write_all(bytes)
            .context("the pack of sources is damaged")
    };
    write(&start)?;
    while let Some(chunk) = chunks.blocking_recv() {
        write(&chunk)?;
    }
    indexer
        .commit()
        .context("the pack of sources is damaged or cut off")?;
    Ok(())
}

/// The commit that the store holds in full, if it is worth going on with the store.
fn held_commit(store: &Path) -> anyhow::Result<Option<String>> {
    if !store.exists() {
        return Ok(None);
    }
    let held = Repository::open_bare(store).ok().and_then(|repository| {
        let target = repository.find_reference(HELD).ok()?.target()?;
        Some(target.to_string())
    });
    let packs = fs::read_dir(store.join("objects/pack"))
        .map(|folder| {
            folder
                .flatten()
                .filter(|file| file.path().extension().is_some_and(|end| end == "pack"))
                .count()
        })
        .unwrap_or(0);
    if held.is_none() || packs > MOST_PACKS {
        remove_folder(store)?;
        return Ok(None);
    }
    Ok(held)
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_is_not_handed_on_while_a_thread_of_a_dropped_check_out_works() {
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        let threads = TaskTracker::new();
        let turn = Turn {
            threads: threads.clone(),
            store: Arc::new(Arc::clone(&lock).lock_owned().await),
        };
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        let check_out = async move { turn.blocking(move || Ok(told.recv()?)).await };
        let broken_off = tokio::time::timeout(Duration::from_millis(50), check_out).await;
        assert!(broken_off.is_err());

        threads.close();
        assert!(lock.try_lock().is_err());
        assert!(!threads.is_empty(), "and whoever cleans has to wait");
        go_on.send(()).unwrap();
        threads.wait().await;
        assert!(lock.try_lock().is_ok());
    }
}
