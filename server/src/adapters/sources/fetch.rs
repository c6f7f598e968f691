//! Brings commits into a mirror.

use super::consolidate::consolidate;
use super::refs::{NoSuchRef, Refs};
use super::{Mirror, Sources, SourcesError, commit_behind, local, oid};
use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions,
    RemoteCallbacks, RemoteRedirect, Repository,
};
use roadstead_pipelines::heads::Branches;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// After so long a fetch counts as failed. libgit2 cannot be interrupted while it receives: its thread
/// stays as long as the peer sends something, and the mirror's lock with it.
const LONGEST_FETCH: Duration = Duration::from_secs(600);
/// The same of a listing of refs.
const LONGEST_LISTING: Duration = Duration::from_secs(30);

/// Where a project is fetched from.
#[derive(Clone)]
pub struct Remote {
    /// `https://…` or an absolute path.
    pub address: String,
    /// User name for https.
    pub username: Option<String>,
    /// Password or token for https.
    pub password: Option<String>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl From<&crate::config::Project> for Remote {
    fn from(project: &crate::config::Project) -> Self {
        Self {
            address: project.repository.clone(),
            username: project.username.clone(),
            password: project.password.clone(),
        }
    }
}

impl Remote {
    fn check(&self) -> Result<(), SourcesError> {
        let refuse = |reason: &str| {
            Err(SourcesError::Address {
                address: self.address.clone(),
                reason: reason.to_owned(),
            })
        };
        if let Some(rest) = self.address.strip_prefix("https://") {
            return if rest.split('/').next().unwrap_or_default().contains('@') {
                // Addresses are shown in messages and pages.
                refuse("it carries a login")
            } else {
                Ok(())
            };
        }
        if self.folder().is_some() {
            return Ok(());
        }
        refuse("it is neither https nor an absolute path")
    }

    /// The repository's folder, when it is on this machine.
    fn folder(&self) -> Option<&Path> {
        Some(Path::new(&self.address)).filter(|path| path.is_absolute())
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let mut asked = false;
        callbacks.credentials(move |_url, _username, allowed| {
            let (Some(username), Some(password)) = (&self.username, &self.password) else {
                return Err(git2::Error::new(
                    ErrorCode::Auth,
                    ErrorClass::Http,
                    "it asks for a login and none is set",
                ));
            };
            // libgit2 asks again and again as long as it is given the same wrong answer.
            if asked || !allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
                return Err(git2::Error::new(
                    ErrorCode::Auth,
                    ErrorClass::Http,
                    "user name or password are wrong",
                ));
            }
            asked = true;
            Cred::userpass_plaintext(username, password)
        });
        callbacks
    }
}

fn remote_error(error: &git2::Error) -> SourcesError {
    let reason = error.message().to_owned();
    if error.code() == ErrorCode::Auth {
        SourcesError::Login { reason }
    } else {
        SourcesError::Unreachable { reason }
    }
}

/// A full ref name, safe in a refspec.
fn check_ref(git_ref: &str) -> Result<(), SourcesError> {
    if git_ref.starts_with("refs/") && git2::Reference::is_valid_name(git_ref) {
        Ok(())
    } else {
        Err(SourcesError::Ref {
            git_ref: git_ref.to_owned(),
        })
    }
}

impl Sources {
    /// Whether the mirror has `commit`, or the annotated tag that it is, with all its history, so that nothing has
    /// to be fetched.
    pub async fn hold(&self, project: &ProjectName, commit: &CommitSha) -> bool {
        let (mirror, commit) = (self.mirror(project), commit.clone());
        super::blocking(move || {
            let (Ok(repository), Ok(wanted)) = (mirror.open(false), oid(&commit)) else {
                return false;
            };
            // A taking under way is waited for by whoever fetches.
            !local::was_cut_off(&mirror) && commit_behind(&repository, wanted).is_ok()
        })
        .await
    }

    /// Makes sure that the mirror holds `commit`, or the annotated tag that it is, with all its history,
    /// fetching `git_ref` when it does not. A commit that the ref no longer leads to is asked for by its id,
    /// which forges allow.
    ///
    /// # Errors
    /// [`SourcesError`]; transient when the repository cannot be reached.
    pub async fn fetch(
        &self,
        project: &ProjectName,
        remote: &Remote,
        commit: &CommitSha,
        git_ref: &str,
    ) -> Result<(), SourcesError> {
        remote.check()?;
        check_ref(git_ref)?;
        let remote_is_elsewhere = remote.folder().is_none();
        let mirror = self.mirror(project);
        let lock = self.fetch_lock(project).lock_owned();
        let (remote, commit, git_ref) = (remote.clone(), commit.clone(), git_ref.to_owned());
        let work = async move {
            let held = lock.await;
            super::blocking(move || {
                let _held = held;
                fetch(&mirror, &remote, &commit, &git_ref)
            })
            .await
        };
        let done = tokio::time::timeout(LONGEST_FETCH, work)
            .await
            .unwrap_or_else(|_| {
                let reason = format!("no end after {} s", LONGEST_FETCH.as_secs());
                Err(SourcesError::Unreachable { reason })
            });
        // What is taken from this machine is linked there, and that repository is packed by its owner.
        if done.is_ok() && remote_is_elsewhere {
            self.consolidate(project);
        }
        done
    }

    /// Makes one pack of many, if there are: after a fetch, and without anybody waiting for it but the
    /// next fetch.
    fn consolidate(&self, project: &ProjectName) {
        let (mirror, lock) = (self.mirror(project), self.fetch_lock(project));
        tokio::spawn(async move {
            let held = lock.lock_owned().await;
            super::blocking(move || {
                let _held = held;
                let project = &mirror.project;
                match consolidate(&mirror) {
                    Ok(0) => {}
                    Ok(packs) => {
                        tracing::info!(%project, packs, "packs of the mirror were made one");
                    }
                    Err(error) => {
                        tracing::warn!(%project, "the mirror's packs stay many: {error:#}");
                    }
                }
            })
            .await;
        });
    }

    /// Where the branches of the repository itself stand, and which one it names as its own.
    ///
    /// # Errors
    /// [`SourcesError`]; transient when the repository cannot be reached.
    pub async fn branches(
        &self,
        project: &ProjectName,
        remote: &Remote,
    ) -> Result<Branches, SourcesError> {
        Ok(self.list(project, remote).await?.branches())
    }

    /// What a person means by the name of a branch or tag, or by none at all: its full name, and where it stands.
    ///
    /// # Errors
    /// [`NoSuchRef::Sources`], transient when the repository cannot be reached; otherwise why the name is none.
    pub async fn named(
        &self,
        project: &ProjectName,
        remote: &Remote,
        name: Option<&str>,
    ) -> Result<(String, CommitSha), NoSuchRef> {
        self.list(project, remote).await?.named(name)
    }

    /// What a ref of the repository itself stands for: of an annotated tag its own id and its commit's; nothing
    /// when there is no such ref.
    ///
    /// # Errors
    /// [`SourcesError`]; transient when the repository cannot be reached.
    pub async fn stands_for(
        &self,
        project: &ProjectName,
        remote: &Remote,
        git_ref: &str,
    ) -> Result<BTreeSet<CommitSha>, SourcesError> {
        let behind = format!("{git_ref}^{{}}");
        let ids = self.list(project, remote).await?.all.into_iter();
        let ids = ids.filter(|(name, _)| name == git_ref || *name == behind);
        Ok(ids.map(|(_, commit)| commit).collect())
    }

    /// Every ref of the repository itself.
    async fn list(&self, project: &ProjectName, remote: &Remote) -> Result<Refs, SourcesError> {
        remote.check()?;
        let (mirror, remote) = (self.mirror(project), remote.clone());
        // A peer that sends byte by byte keeps its thread beyond our patience, and is given no second one.
        let turn = self.listing_lock(project).lock_owned();
        let work = async move {
            let turn = turn.await;
            super::blocking(move || {
                let _turn = turn;
                list(&mirror, &remote)
            })
            .await
        };
        tokio::time::timeout(LONGEST_LISTING, work)
            .await
            .unwrap_or_else(|_| {
                let reason = format!("no answer after {} s", LONGEST_LISTING.as_secs());
                Err(SourcesError::Unreachable { reason })
            })
    }
}

fn fetch(
    mirror: &Mirror,
    remote: &Remote,
    commit: &CommitSha,
    git_ref: &str,
) -> Result<(), SourcesError> {
    let mut repository = mirror.open(true)?;
    let wanted = oid(commit).map_err(|error| mirror.error(&error))?;
    if let Some(folder) = remote.folder() {
        if local::is_whole(mirror, &repository, wanted) {
            return Ok(());
        }
        match local::take(mirror, &repository, folder, git_ref, wanted) {
            Ok(()) if local::is_whole(mirror, &repository, wanted) => return Ok(()),
            Ok(()) => {}
            Err(error) => {
                let project = &mirror.project;
                tracing::info!(%project, "files cannot be taken, fetching instead: {error:#}");
                // libgit2 asks for no commit that is here already, whole or not.
                if local::was_cut_off(mirror) || commit_behind(&repository, wanted).is_ok() {
                    repository = mirror.begin_anew()?;
                }
            }
        }
    } else if !local::was_cut_off(mirror) && commit_behind(&repository, wanted).is_ok() {
        // A pack arrives whole or not at all, so a commit that is there has its history with it.
        return Ok(());
    }
    fetch_refspec(&repository, remote, &format!("+{git_ref}:{git_ref}"))?;
    if commit_behind(&repository, wanted).is_ok() {
        return Ok(());
    }
    let by_id = fetch_refspec(
        &repository,
        remote,
        &format!("{commit}:refs/roadstead/{commit}"),
    );
    if commit_behind(&repository, wanted).is_ok() {
        return Ok(());
    }
    if by_id.is_err() {
        // A repository that went away in between says nothing about the commit; one that still gives
        // its ref but not the id does.
        fetch_refspec(&repository, remote, &format!("+{git_ref}:{git_ref}"))?;
    }
    Err(SourcesError::NoCommit {
        commit: commit.to_string(),
        git_ref: git_ref.to_owned(),
    })
}

fn fetch_refspec(
    repository: &Repository,
    remote: &Remote,
    refspec: &str,
) -> Result<(), SourcesError> {
    let mut from = repository
        .remote_anonymous(&remote.address)
        .map_err(|error| remote_error(&error))?;
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(remote.callbacks())
        .download_tags(AutotagOption::None)
        .follow_redirects(RemoteRedirect::None)
        .update_fetchhead(false);
    from.fetch(&[refspec], Some(&mut options), None)
        .map_err(|error| remote_error(&error))
}

fn list(mirror: &Mirror, remote: &Remote) -> Result<Refs, SourcesError> {
    let repository = mirror.open(true)?;
    let mut from = repository
        .remote_anonymous(&remote.address)
        .map_err(|error| remote_error(&error))?;
    let connection = from
        .connect_auth(Direction::Fetch, Some(remote.callbacks()), None)
        .map_err(|error| remote_error(&error))?;
    let heads = connection.list().map_err(|error| remote_error(&error))?;
    let named = |head: &git2::RemoteHead<'_>| {
        let commit = CommitSha::parse(&head.oid().to_string())?;
        Some((head.name().to_owned(), commit))
    };
    let own = heads.iter().find(|head| head.name() == "HEAD");
    Ok(Refs {
        all: heads.iter().filter_map(named).collect(),
        default: own.and_then(|head| head.symref_target().map(str::to_owned)),
    })
}
