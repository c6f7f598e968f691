//! The sources of projects: one bare mirror each under `mirrors/`, read by object id.
//!
//! Nothing is ever checked out, no hook runs, no submodule is followed. Commits, refs, names in trees
//! and file contents come from strangers: a ref is checked before it reaches libgit2, a commit is only
//! ever an object id and never an expression, a symbolic link is never followed. libgit2 blocks, so
//! every call runs on the blocking pool; a mirror has one fetch at a time, reads need no lock because
//! objects never change.

mod ancestry;
mod consolidate;
mod fetch;
mod local;
mod pack;
mod patience;
mod read;
mod refs;

pub use fetch::Remote;
pub use pack::{Pack, PackName, StoredPack};
pub use patience::limit_waits;
pub use read::CommitSeen;
pub use refs::NoSuchRef;

use git2::Repository;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why sources could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    /// The project's `repository` is nothing that can be fetched from.
    #[error(
        "repository `{address}`: {reason}; set `repository` of the project to `https://…` or an absolute path"
    )]
    Address {
        /// As configured.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The ref is not one that a push can name.
    #[error("`{git_ref}` is not a ref that can be fetched: it has to look like `refs/heads/main`")]
    Ref {
        /// As it was pushed.
        git_ref: String,
    },
    /// The repository wants another user name or password.
    #[error(
        "the repository refused the login: {reason}; set `username` and `password` of the project"
    )]
    Login {
        /// What it said.
        reason: String,
    },
    /// The repository could not be reached or did not answer well.
    #[error("git fetch from the repository failed: {reason}")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// The commit is not there.
    #[error("the repository has no commit {commit}; was `{git_ref}` moved by a forced push?")]
    NoCommit {
        /// The commit.
        commit: String,
        /// The ref that should have led to it.
        git_ref: String,
    },
    /// A file is not there.
    #[error("{path} does not exist at commit {commit}")]
    NoFile {
        /// The path.
        path: String,
        /// The commit, shortened.
        commit: String,
    },
    /// A path leads through something that is not read.
    #[error("{path}: {reason}")]
    NotReadable {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// As many packs are sent as may be at the same time.
    #[error("too many packs of sources are being sent now")]
    Busy,
    /// The mirror itself is broken or cannot be written.
    #[error("the mirror of {project}: {reason}")]
    Mirror {
        /// The project.
        project: String,
        /// What git said.
        reason: String,
    },
}

impl SourcesError {
    /// Whether the repository answered, and has no such commit or ref.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoCommit { .. } | Self::Ref { .. })
    }

    /// Whether asking again later can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Mirror { .. } | Self::Busy => true,
            Self::Address { .. }
            | Self::Ref { .. }
            | Self::Login { .. }
            | Self::NoCommit { .. }
            | Self::NoFile { .. }
            | Self::NotReadable { .. } => false,
        }
    }
}

type FetchLock = Arc<tokio::sync::Mutex<()>>;
type Locks = Mutex<BTreeMap<ProjectName, FetchLock>>;

/// All mirrors of a server.
#[derive(Clone)]
pub struct Sources {
    root: PathBuf,
    fetching: Arc<Locks>,
    listing: Arc<Locks>,
    turns: pack::Turns,
}

impl Sources {
    /// The mirrors below `data`; folders are made when they are needed.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            root: data.join("mirrors"),
            fetching: Arc::default(),
            listing: Arc::default(),
            turns: pack::Turns::default(),
        }
    }

    /// Deletes what is left of mirrors that were thrown away when the last server was killed.
    ///
    /// # Errors
    /// When a folder cannot be read or deleted.
    pub async fn sweep(&self) -> io::Result<()> {
        let root = self.root.clone();
        blocking(move || {
            let entries = match fs::read_dir(&root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_str().is_some_and(|name| name.starts_with(ASIDE)) {
                    delete(&entry.path())?;
                }
            }
            Ok(())
        })
        .await
    }

    fn mirror(&self, project: &ProjectName) -> Mirror {
        Mirror {
            project: project.clone(),
            path: self.root.join(project.as_str()),
        }
    }

    fn fetch_lock(&self, project: &ProjectName) -> FetchLock {
        lock_of(&self.fetching, project)
    }

    fn listing_lock(&self, project: &ProjectName) -> FetchLock {
        lock_of(&self.listing, project)
    }
}

fn lock_of(locks: &Locks, project: &ProjectName) -> FetchLock {
    // A poisoned map is still a map of locks.
    let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
    locks.entry(project.clone()).or_default().clone()
}

/// How the folder of a mirror begins that was thrown away; no project is called so.
const ASIDE: &str = ".thrown-away-";

/// Deletes a folder; one that is not there is deleted.
fn delete(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One project's mirror.
#[derive(Debug, Clone)]
struct Mirror {
    project: ProjectName,
    path: PathBuf,
}

impl Mirror {
    fn error(&self, error: &git2::Error) -> SourcesError {
        SourcesError::Mirror {
            project: self.project.to_string(),
            reason: error.message().to_owned(),
        }
    }

    /// Opens the mirror, and makes it when `make` says so.
    fn open(&self, make: bool) -> Result<Repository, SourcesError> {
        match Repository::open_bare(&self.path) {
            Ok(repository) => Ok(repository),
            Err(error) if make && error.code() == git2::ErrorCode::NotFound => {
                self.init().map_err(|error| self.error(&error))
            }
            Err(error) => Err(self.error(&error)),
        }
    }

    fn init(&self) -> Result<Repository, git2::Error> {
        let repository = Repository::init_bare(&self.path)?;
        let mut config = repository.config()?;
        config.set_str("core.bigFileThreshold", "1m")?;
        // libgit2 searches deltas anew for every pack that it builds, which takes far longer than it
        // saves, and reads this key as the size above which an object is left as it is.
        config.set_i64("pack.deltaCacheSize", 1)?;
        Ok(repository)
    }

    /// Throws away what is there and makes an empty mirror: what may lack objects is never mended. It
    /// goes aside in one move, because half of a mirror could pass for all of it.
    fn begin_anew(&self) -> Result<Repository, SourcesError> {
        let aside = self
            .path
            .with_file_name(format!("{ASIDE}{}", self.project.as_str()));
        let moved = delete(&aside).and_then(|()| fs::rename(&self.path, &aside));
        moved.map_err(|error| SourcesError::Mirror {
            project: self.project.to_string(),
            reason: format!("cannot begin anew: {error}"),
        })?;
        let repository = self.open(true)?;
        if let Err(error) = delete(&aside) {
            // The next start deletes it.
            tracing::warn!(project = %self.project, %error, "an old mirror stays for now");
        }
        Ok(repository)
    }

    /// Runs `work` on the mirror, on the blocking pool.
    async fn with<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self, &Repository) -> Result<T, SourcesError> + Send + 'static,
    ) -> Result<T, SourcesError> {
        blocking(move || work(&self, &self.open(false)?)).await
    }
}

/// Runs `work` on the blocking pool; a panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are never aborted by us; the runtime drops them only when it ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The commit that an id stands for: its own, or that of the annotated tag that it is.
fn commit_behind(repository: &Repository, id: git2::Oid) -> Result<git2::Commit<'_>, git2::Error> {
    repository.find_object(id, None)?.peel_to_commit()
}

/// The object id of a checked commit.
fn oid(commit: &CommitSha) -> Result<git2::Oid, git2::Error> {
    git2::Oid::from_str(commit.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mirror_that_was_thrown_away_is_not_taken_for_one() {
        let data = tempfile::tempdir().unwrap();
        let sources = Sources::new(data.path());
        // A data folder without mirrors has nothing to sweep.
        sources.sweep().await.unwrap();
        let mirror = sources.mirror(&ProjectName::parse("shop").unwrap());
        let aside = mirror.path.with_file_name(".thrown-away-shop");
        mirror.open(true).unwrap();
        fs::write(mirror.path.join("objects/one"), "").unwrap();
        // As a kill in the middle of deleting leaves it.
        fs::create_dir_all(aside.join("objects")).unwrap();
        mirror.begin_anew().unwrap();
        assert!(!mirror.path.join("objects/one").exists());
        assert!(!aside.exists());

        fs::create_dir_all(aside.join("objects")).unwrap();
        sources.sweep().await.unwrap();
        assert!(!aside.exists());
        mirror.open(false).unwrap();
    }
}
