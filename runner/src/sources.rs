//! Brings a commit's files onto this machine: one object store per project, filled by packs.
//!
//! Owns the stores below its folder and which commit each holds in full. A pack is verified while
//! it is indexed; when the difference between two commits does not fit what is here, the store is
//! begun anew and the whole is fetched, so that a damaged store heals itself. One attempt at a
//! time works on a project's store.

use crate::{
    checkout,
    client::{AttemptClient, Backoff, CallError},
};
use anyhow::{Context, bail};
use bytes::Bytes;
use git2::{Indexer, Repository};
use reqwest::Response;
use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

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

    /// Writes the files of `commit` into `tree`, an empty folder, fetching what is not here.
    ///
    /// # Errors
    /// [`CallError::Lost`] when the attempt is no longer ours, and whatever kept the files away.
    pub(crate) async fn check_out(
        &self,
        client: &AttemptClient,
        project: &str,
        commit: &str,
        tree: &Path,
    ) -> anyhow::Result<()> {
        let lock = self
            .locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(project.to_owned())
            .or_default()
            .clone();
        let _one_at_a_time = lock.lock().await;
        let store = self.folder.join(format!("{project}.git"));
        let held = blocking({
            let store = store.clone();
            move || held_commit(&store)
        })
        .await?;
        let incremental = held.is_some();
        match fetch_and_write(client, &store, held, commit, tree).await {
            Err(error) if incremental && !is_final(&error) => {
                tracing::warn!(
                    project,
                    error = format!("{error:#}"),
                    "begins the object store anew"
                );
                let (store_to_clear, tree_to_clear) = (store.clone(), tree.to_owned());
                blocking(move || {
                    remove_folder(&store_to_clear)?;
                    remove_folder(&tree_to_clear)?;
                    fs::create_dir(&tree_to_clear).map_err(Into::into)
                })
                .await?;
                fetch_and_write(client, &store, None, commit, tree).await
            }
            outcome => outcome,
        }
    }
}

/// Whether fetching everything again could not help.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CallError>().is_some()
}

async fn fetch_and_write(
    client: &AttemptClient,
    store: &Path,
    held: Option<String>,
    commit: &str,
    tree: &Path,
) -> anyhow::Result<()> {
    if held.as_deref() != Some(commit) {
        let mut backoff = Backoff::new(PATIENCE);
        while let Err(error) = fetch(client, store, held.as_deref(), commit).await {
            let transient = error.downcast_ref().is_some_and(CallError::is_transient);
            match backoff.next_pause() {
                Some(pause) if transient => {
                    tracing::warn!(error = format!("{error:#}"), "fetches sources again");
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }
    let (store, tree, commit) = (store.to_owned(), tree.to_owned(), commit.to_owned());
    blocking(move || {
        checkout::write_tree(&store, &commit, &tree)?;
        // Only now it is known that nothing of this commit is missing.
        let repository = Repository::open_bare(&store)?;
        repository
            .reference(HELD, git2::Oid::from_str(&commit)?, true, "checked out")
            .context("cannot note which commit is here")?;
        Ok(())
    })
    .await
}

async fn fetch(
    client: &AttemptClient,
    store: &Path,
    held: Option<&str>,
    commit: &str,
) -> anyhow::Result<()> {
    let (tip, response) = client.sources(held).await?;
    if let Some(tip) = tip
        && tip != commit
    {
        bail!("the server sent sources of commit {tip} where {commit} was asked for");
    }
    index(store, response).await
}

/// Streams a pack into the store; its objects are checked on the way.
async fn index(store: &Path, mut response: Response) -> anyhow::Result<()> {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let store = store.to_owned();
    let indexer = tokio::task::spawn_blocking(move || index_chunks(&store, receiver));
    let mut cut_off = None;
    loop {
        match response.chunk().await {
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
    let indexed = indexer
        .await
        .context("the thread that indexes packs panicked")?;
    if let Some(error) = cut_off {
        // The indexer's complaint about a short pack would hide why it was short.
        return Err(CallError::Unreachable(format!("the sources were cut off: {error}")).into());
    }
    indexed
}

fn index_chunks(store: &Path, mut chunks: mpsc::Receiver<Bytes>) -> anyhow::Result<()> {
    let repository = match Repository::open_bare(store) {
        Ok(repository) => repository,
        Err(_) => Repository::init_bare(store)
            .with_context(|| format!("cannot make the object store {}", store.display()))?,
    };
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
    let mut indexer = Indexer::new(Some(&odb), &packs, 0o444, true)?;
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread that handles sources panicked")?
}
