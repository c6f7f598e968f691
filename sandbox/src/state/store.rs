//! The state in memory and its file.
//!
//! Invariant: `change` returns only after the file holds the change. Changes that happen while a
//! write is under way share the next one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::State;
use crate::disk::write_atomically;
use crate::services::AwsError;

/// The state file's name in the data directory.
const FILE: &str = "state.json";

struct Guarded {
    state: State,
    /// Counts changes.
    version: u64,
}

/// How far the file has come.
#[derive(Debug, Clone, Default)]
struct Saved {
    version: u64,
    /// Why the last write failed.
    failure: Option<String>,
}

struct Shared {
    guarded: Mutex<Guarded>,
    dirty: Notify,
    saved: watch::Sender<Saved>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives access to the state and keeps it on disk. Its writer ends with it.
pub(crate) struct Store {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl Store {
    /// Reads the state of a data directory; an absent file is an empty state. To be called within
    /// a Tokio runtime.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is not a state file of this version: move it away to start empty",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let shared = Arc::new(Shared {
            guarded: Mutex::new(Guarded { state, version: 0 }),
            dirty: Notify::new(),
            saved: watch::Sender::new(Saved::default()),
        });
        let writer = tokio::spawn(write_changes(Arc::clone(&shared), path));
        Ok(Self { shared, writer })
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.lock().state)
    }

    /// Changes the state and waits until the change is on disk. A closure that refuses must have
    /// changed nothing.
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let outcome = {
            let mut guarded = self.shared.lock();
            change(&mut guarded.state).map(|value| {
                guarded.version += 1;
                (value, guarded.version)
            })
        };
        let (value, version) = outcome?;
        self.saved(version).await?;
        Ok(value)
    }

    /// Like `change`, for a closure that says whether it changed anything. Its value comes back
    /// also when the disk refuses the change.
    pub(crate) async fn update<T>(
        &self,
        update: impl FnOnce(&mut State) -> (T, bool),
    ) -> (T, Result<(), AwsError>) {
        let (value, version) = {
            let mut guarded = self.shared.lock();
            let (value, changed) = update(&mut guarded.state);
            guarded.version += u64::from(changed);
            (value, changed.then_some(guarded.version))
        };
        let written = match version {
            Some(version) => self.saved(version).await,
            None => Ok(()),
        };
        (value, written)
    }

    async fn saved(&self, version: u64) -> Result<(), AwsError> {
        let mut saved = self.shared.saved.subscribe();
        self.shared.dirty.notify_one();
        let reached = saved
            .wait_for(|saved| saved.version >= version)
            .await
            .map_err(|_| AwsError::server("The sandbox is shutting down."))?;
        match &reached.failure {
            None => Ok(()),
            Some(failure) => Err(AwsError::server(format!(
                "The sandbox cannot write its state: {failure}"
            ))),
        }
    }
}

async fn write_changes(shared: Arc<Shared>, path: PathBuf) {
    loop {
        shared.dirty.notified().await;
        let (version, encoded) = {
            let guarded = shared.lock();
            (guarded.version, serde_json::to_vec(&guarded.state))
        };
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = encoded.map_err(std::io::Error::other)?;
            write_atomically(&path, &bytes)
        })
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let failure = written.err().map(|error| error.to_string());
        if let Some(failure) = &failure {
            tracing::error!(%failure, "cannot write the sandbox's state");
        }
        shared.saved.send_replace(Saved { version, failure });
    }
}

#[cfg(test)]
mod tests {
    use super::Store;
    use crate::services::AwsError;

    #[tokio::test]
    async fn what_was_changed_is_there_after_reopening_and_a_refusal_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store
            .change(|state| {
                state
                    .tags
                    .insert("arn:kept".to_owned(), [].into_iter().collect());
                Ok(())
            })
            .await
            .unwrap();
        let refused: Result<(), AwsError> = store
            .change(|_| Err(AwsError::client("ClientException", "no")))
            .await;
        assert!(refused.is_err());
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert!(store.read(|state| state.tags.contains_key("arn:kept")));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let store = Store::open(&data).unwrap();
        std::fs::write(&data, "a file where the directory should be").unwrap();
        let error = store.change(|_| Ok(())).await.unwrap_err();
        assert_eq!(error.status, 500);
    }

    #[tokio::test]
    async fn a_file_of_another_kind_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state.json"), "[]").unwrap();
        let refusal = Store::open(directory.path()).err().unwrap().to_string();
        assert!(refusal.contains("state.json"), "{refusal}");
    }
}
