//! Finds pushes that no webhook told of: compares where the branches of each repository stand with where
//! they stood before and with what was delivered, at the start and on a timer.
//!
//! A forge tells of a push once; GitHub never tells again by itself. What stands elsewhere becomes a
//! delivery like any other, under the same semantic key, so a webhook that comes late makes no second
//! run. The first look at a repository only notes where its branches stand.
//!
//! Each of several servers looks by itself: what two find at once is stored once, and a look costs the
//! forge one listing of refs.

use crate::adapters::sources::{Remote, Sources};
use crate::http::webhooks;
use crate::rounds::{self, BrokenOff, Look};
use crate::store::{Accepted, Decision, GAP_FILLER, NewDelivery, Store};
use crate::wake::Bell;
use roadstead_pipelines::heads::moved;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The webhook of a push that was just made is given so long to arrive.
const GRACE: Duration = Duration::from_secs(10);
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
        rounds::run(&self, remotes, stop).await;
    }

    /// Stores a push that nobody told of: whether a run came of it.
    async fn tell(
        &self,
        project: &ProjectName,
        remote: &Remote,
        git_ref: &str,
        commit: &CommitSha,
    ) -> Result<bool, BrokenOff> {
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
            Ok(Decision::BuildPullRequest { .. } | Decision::ClosePullRequest { .. }) => {
                return Ok(false);
            }
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

impl Look for GapFiller {
    const EVERY: Duration = Duration::from_secs(300);
    const MADE: &'static str = "runs of pushes that no webhook told of";
    const FAILED: &'static str = "branches could not be compared, trying again";

    async fn look(
        &self,
        project: &ProjectName,
        remote: &Remote,
        turns: &Semaphore,
    ) -> Result<usize, BrokenOff> {
        let branches = {
            let _turn = turns.acquire().await;
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
}
