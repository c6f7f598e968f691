//! The state in memory and its way to disk.
//!
//! Invariant: `change` returns only after the disk holds the change. Changes that happen while a
//! write is under way share the next one; only changed rows are written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::journal::Journal;
use super::{Names, State, Subject};
use crate::services::AwsError;
use crate::timeline::Timeline;

/// How many changes there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u64);

struct Guarded {
    state: State,
    version: Version,
    /// What the disk does not hold yet.
    unsaved: Names,
    /// What callers changed since the scheduler looked.
    touched: BTreeSet<Subject>,
}

/// How far the disk has come.
#[derive(Debug, Clone, Default)]
struct Saved {
    version: Version,
    /// Why the last write failed.
    failure: Option<String>,
}

struct Shared {
    guarded: Mutex<Guarded>,
    timeline: Arc<Timeline>,
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
    /// Reads the state of a data directory, and sets `timeline` to where it was when the state was
    /// written. Absent files are an empty state. To be called within a Tokio runtime.
    pub(crate) fn open(directory: &Path, timeline: Arc<Timeline>) -> anyhow::Result<Self> {
        let (state, journal) = Journal::open(directory)?;
        let was_virtual = state.mark.is_some_and(|mark| mark.at.is_some());
        anyhow::ensure!(
            state.is_empty() || was_virtual == timeline.is_virtual(),
            "the state in {} was written in {} time and cannot go on in the other: take another \
             --data directory",
            directory.display(),
            if was_virtual { "virtual" } else { "real" }
        );
        if let Some(mark) = state.mark {
            timeline.resume(mark);
        }
        let touched = state.subjects().collect();
        let shared = Arc::new(Shared {
            guarded: Mutex::new(Guarded {
                state,
                version: Version::default(),
                unsaved: Names::default(),
                touched,
            }),
            timeline,
            dirty: Notify::new(),
            saved: watch::Sender::new(Saved::default()),
        });
        let writer = tokio::spawn(write_changes(Arc::clone(&shared), journal));
        Ok(Self { shared, writer })
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.lock().state)
    }

    /// Changes the state and waits until the change is on disk. What it touches, the scheduler
    /// looks at next. A closure that refuses must have changed nothing.
    pub(crate) async fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let (outcome, version) = {
            let mut guarded = self.shared.lock();
            let outcome = change(&mut guarded.state);
            let names = guarded.state.take_changed();
            guarded.touched.extend(names.subjects());
            (outcome, guarded.note(names))
        };
        let value = outcome?;
        self.saved(version).await?;
        Ok(value)
    }

    /// Changes the state for the scheduler, which need not look at its own changes. The change is
    /// on disk once `saved` says so of the version.
    pub(crate) fn steer<T>(&self, change: impl FnOnce(&mut State) -> T) -> (T, Version) {
        let mut guarded = self.shared.lock();
        let value = change(&mut guarded.state);
        let names = guarded.state.take_changed();
        let version = guarded.note(names);
        (value, version)
    }

    /// A version of which the disk also holds how far time and chance have come.
    pub(crate) fn note_time(&self) -> Version {
        let mut guarded = self.shared.lock();
        guarded.version.0 += 1;
        guarded.version
    }

    /// What callers changed since the last time; after a start, everything.
    pub(crate) fn take_touched(&self) -> BTreeSet<Subject> {
        std::mem::take(&mut self.shared.lock().touched)
    }

    /// Waits until the disk holds everything up to `version`, or refuses to.
    pub(crate) async fn saved(&self, version: Version) -> Result<(), AwsError> {
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

impl Guarded {
    /// Enters changes into the books; the version that has them.
    fn note(&mut self, names: Names) -> Version {
        if !names.is_empty() {
            self.unsaved.add(names);
            self.version.0 += 1;
        }
        self.version
    }
}

async fn write_changes(shared: Arc<Shared>, journal: Journal) {
    let journal = Arc::new(Mutex::new(journal));
    loop {
        shared.dirty.notified().await;
        let (version, names, batch) = {
            let mut guarded = shared.lock();
            let names = std::mem::take(&mut guarded.unsaved);
            let batch = guarded.state.batch(&names, shared.timeline.mark());
            (guarded.version, names, batch)
        };
        if shared.saved.borrow().version == version && names.is_empty() {
            // Somebody waited for what the last write brought along.
            continue;
        }
        let (writer, journal) = (Arc::clone(&shared), Arc::clone(&journal));
        let written = tokio::task::spawn_blocking(move || {
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            journal.append(&batch)?;
            if journal.is_long() {
                let mark = writer.timeline.mark();
                let snapshot = writer.lock().state.snapshot(mark, journal.next());
                if let Err(error) = journal.begin_anew(&snapshot) {
                    // The journal holds everything all the same, and grows on.
                    tracing::warn!(%error, "cannot write the sandbox's state anew");
                }
            }
            Ok(())
        })
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let failure = written.err().map(|error| error.to_string());
        if let Some(failure) = &failure {
            tracing::error!(%failure, "cannot write the sandbox's state");
            shared.lock().unsaved.add(names);
        }
        shared.saved.send_replace(Saved { version, failure });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Store;
    use crate::clock::Clock;
    use crate::services::AwsError;
    use crate::timeline::Timeline;

    fn open(directory: &std::path::Path) -> anyhow::Result<Store> {
        let timeline = Timeline::new(Clock::new(1.0)?, false, None);
        Store::open(directory, Arc::new(timeline))
    }

    #[tokio::test]
    async fn what_was_changed_is_there_after_reopening_and_a_refusal_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
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
        let store = open(directory.path()).unwrap();
        assert!(store.read(|state| state.tags.contains_key("arn:kept")));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_is_not_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let store = open(&data).unwrap();
        let add = |state: &mut super::State| {
            state.tags.row("arn:first");
            Ok(())
        };
        std::fs::write(&data, "a file where the directory should be").unwrap();
        let error = store.change(add).await.unwrap_err();
        assert_eq!(error.status, 500);
        // What was refused is written with the next change, once the disk takes it.
        std::fs::remove_file(&data).unwrap();
        let other = |state: &mut super::State| {
            state.tags.row("arn:second");
            Ok(())
        };
        store.change(other).await.unwrap();
        drop(store);
        let store = open(&data).unwrap();
        assert!(store.read(|state| state.tags.contains_key("arn:first")));
    }

    #[tokio::test]
    async fn a_file_of_another_kind_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state.json"), "[]").unwrap();
        let refusal = open(directory.path()).err().unwrap().to_string();
        assert!(refusal.contains("state.json"), "{refusal}");
    }

    #[tokio::test]
    async fn what_was_written_in_real_time_cannot_go_on_in_virtual_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).unwrap();
        let add = |state: &mut super::State| {
            state.tags.row("arn:first");
            Ok(())
        };
        store.change(add).await.unwrap();
        drop(store);
        let timeline = Timeline::new(Clock::new(1.0).unwrap(), true, None);
        let refusal = Store::open(directory.path(), Arc::new(timeline)).err();
        let refusal = refusal.unwrap().to_string();
        assert!(refusal.contains("written in real time"), "{refusal}");
    }
}
