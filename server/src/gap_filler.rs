//! Finds pushes that no webhook told of: compares where the branches of each repository stand with where
//! they stood before and with what was delivered, at the start and on a timer.
//!
//! A forge tells of a push once; GitHub never tells again by itself. What stands elsewhere becomes a
//! delivery like any other, under the same semantic key, so a webhook that comes late makes no second
//! run. The first look at a repository only notes where its branches stand.
//!
//! Each of several servers looks by itself: what two find at once is stored once, and a look costs the
//! forge one listing of refs.

use crate::adapters::sources::{Remote, Sources, SourcesError};
use crate::http::webhooks;
use crate::store::{Accepted, Decision, GAP_FILLER, NewDelivery, Store, StoreError};
use crate::wake::Bell;
use futures_util::future::join_all;
use roadstead_pipelines::heads::moved;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Between two looks at a repository.
const EVERY: Duration = Duration::from_secs(300);
/// How soon it is looked again when something failed.
const AGAIN: Duration = Duration::from_secs(20);
/// The webhook of a push that was just made is given so long to arrive.
const GRACE: Duration = Duration::from_secs(10);
/// Repositories that are asked at the same time.
const AT_ONCE: usize = 4;

/// Why a look ended early. The next one begins where it did.
#[derive(Debug, thiserror::Error)]
pub enum Unfilled {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository.
    #[error(transparent)]
    Sources(#[from] SourcesError),
}

/// What is looked at. Cheap to clone.
#[derive(Clone)]
pub struct GapFiller {
    store: Store,
    sources: Sources,
    bell: Bell,
}

impl GapFiller {
    /// One over these parts; `bell` is rung when a run was made.
    #[must_use]
    pub fn new(store: Store, sources: Sources, bell: Bell) -> Self {
        Self {
            store,
            sources,
            bell,
        }
    }

    /// Looks at every repository until it is told to stop.
    pub async fn run(self, remotes: BTreeMap<ProjectName, Remote>, stop: CancellationToken) {
        let at_once = Semaphore::new(AT_ONCE);
        let watching = remotes
            .iter()
            .map(|(project, remote)| self.watch(project, remote, &at_once));
        stop.run_until_cancelled(join_all(watching)).await;
    }

    async fn watch(&self, project: &ProjectName, remote: &Remote, at_once: &Semaphore) {
        loop {
            let rest = match self.look(project, remote, at_once).await {
                Ok(made) => {
                    if made > 0 {
                        tracing::info!(%project, made, "runs of pushes that no webhook told of");
                    }
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(%project, "branches could not be compared: {error}");
                    AGAIN
                }
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// Looks at one repository: how many runs were made.
    async fn look(
        &self,
        project: &ProjectName,
        remote: &Remote,
        at_once: &Semaphore,
    ) -> Result<usize, Unfilled> {
        let branches = {
            let _turn = at_once.acquire().await;
            self.sources.branches(project, remote).await?
        };
        let noted = self.store.noted_heads(project, &remote.address).await?;
        let mut moved = moved(noted.as_ref(), &branches.heads);
        if !moved.is_empty() {
            moved = self.store.untold(project, moved).await?;
        }
        if !moved.is_empty() {
            tokio::time::sleep(GRACE).await;
            moved = self.store.untold(project, moved).await?;
        }
        let (mut made, mut failed) = (0, None);
        for (git_ref, commit) in moved {
            match self.tell(project, remote, &git_ref, &commit).await {
                Ok(is_run) => made += usize::from(is_run),
                // Others may be better.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Last, so that a server that is killed before finds the same again.
        let (address, now) = (&remote.address, crate::clock::now());
        let noting = self.store.note_heads(project, address, branches, now);
        noting.await?;
        Ok(made)
    }

    /// Stores a push that nobody told of: whether a run came of it.
    async fn tell(
        &self,
        project: &ProjectName,
        remote: &Remote,
        git_ref: &str,
        commit: &CommitSha,
    ) -> Result<bool, Unfilled> {
        match self.sources.fetch(project, remote, commit, git_ref).await {
            Ok(()) => {}
            // Whatever else it is, as a full disk: it is looked again, and the head is not noted.
            Err(error) if !error.is_absence() => return Err(error.into()),
            Err(error) => {
                // It moved on meanwhile, or is no push that a run could be made of.
                tracing::info!(%project, git_ref, %commit, "a push stays untold: {error}");
                return Ok(false);
            }
        }
        let message = self.sources.read_message(project, commit).await?;
        let body = json!({
            "ref": git_ref,
            "after": commit,
            "head_commit": { "message": message },
        })
        .to_string();
        let decision = match webhooks::decide_untold(git_ref, commit, &message) {
            Ok(decision @ Decision::Build { .. }) => decision,
            Ok(Decision::Ignore { reason }) => {
                // A webhook that told of it was ignored, too, and is not to be seen twice.
                tracing::info!(%project, git_ref, %commit, "no run: {reason}");
                return Ok(false);
            }
            Err(bad) => {
                tracing::info!(%project, git_ref, %commit, "no run: {bad}");
                return Ok(false);
            }
        };
        let delivery = NewDelivery {
            project: project.clone(),
            forge: GAP_FILLER.to_owned(),
            delivery_id: format!("{git_ref} {commit}"),
            event: "push".to_owned(),
            body,
            decision,
            redelivery: None,
            received_at: crate::clock::now(),
        };
        let accepted = self.store.accept_delivery(delivery).await?;
        let made = matches!(accepted, Accepted::Run(_));
        if made {
            self.bell.ring();
        }
        Ok(made)
    }
}
