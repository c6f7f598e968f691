//! Starts the runs of the pipeline files' schedules.
//!
//! Every server looks by itself and none leads: a moment of a schedule is a row that is stored once, together with its
//! run. What is due is decided by `pipelines`; the branch's commit is asked of the repository when something is, so a
//! run is of where the branch stands then.

use crate::adapters::sources::{Remote, Sources};
use crate::rounds::{self, BrokenOff, Look};
use crate::store::{Scheduled, Store};
use crate::wake::Bell;
use jiff::Timestamp;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::ProjectName;
use roadstead_pipelines::schedule::{due, is_of};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What is looked at. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    store: Store,
    sources: Sources,
    bell: Bell,
}

impl Schedules {
    /// Over these parts; `bell` is rung when a run was made.
    #[must_use]
    pub fn new(store: Store, sources: Sources, bell: Bell) -> Self {
        Self {
            store,
            sources,
            bell,
        }
    }

    /// Looks at every project until it is told to stop.
    pub async fn run(self, remotes: BTreeMap<ProjectName, Remote>, stop: CancellationToken) {
        rounds::run(&self, remotes, stop).await;
    }

    /// Looks at one project: how many runs were made.
    ///
    /// # Errors
    /// When the database or the repository cannot be asked; what is due is due still.
    pub async fn look_at(
        &self,
        project: &ProjectName,
        remote: &Remote,
        turns: &Semaphore,
        now: Timestamp,
    ) -> Result<usize, BrokenOff> {
        let scheduled = self.store.schedules(project, now).await?;
        if scheduled.is_empty() {
            return Ok(0);
        }
        let own = self.store.get_project(project).await?.default_branch;
        let own = own.as_deref().map(GitRef::of).map(|own| own.to_string());
        let of_branch = |it: &Scheduled| {
            let branch = GitRef::of(&it.git_ref).to_string();
            is_of(&it.standing.schedule, &branch, own.as_deref())
        };
        let due: Vec<(&Scheduled, Timestamp)> = scheduled
            .iter()
            .filter(|it| of_branch(it))
            .filter_map(|it| Some((it, due(&it.standing, &it.started, now)?)))
            .collect();
        if due.is_empty() {
            return Ok(0);
        }
        let heads = {
            let _turn = turns.acquire().await;
            self.sources.branches(project, remote).await?.heads
        };
        let mut made = 0;
        for (
            Scheduled {
                git_ref, standing, ..
            },
            moment,
        ) in due
        {
            let commit = heads.get(git_ref).cloned();
            if commit.is_none() {
                tracing::info!(%project, git_ref, "a schedule's branch is gone: no run");
            }
            let what = (git_ref.as_str(), &standing.schedule);
            let started = self
                .store
                .start_scheduled(project, what, (moment, commit), now)
                .await?;
            made += usize::from(started.is_some());
        }
        if made > 0 {
            self.bell.ring();
        }
        Ok(made)
    }
}

impl Look for Schedules {
    /// A run starts so much after its moment at most.
    const EVERY: Duration = Duration::from_secs(10);
    const MADE: &'static str = "runs of schedules";
    const FAILED: &'static str = "schedules start nothing yet, trying again";

    async fn look(
        &self,
        project: &ProjectName,
        remote: &Remote,
        turns: &Semaphore,
    ) -> Result<usize, BrokenOff> {
        let now = crate::clock::now();
        self.look_at(project, remote, turns, now).await
    }
}
