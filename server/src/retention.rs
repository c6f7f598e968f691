//! Takes away what the configuration's policies let go, at the start and every hour.
//!
//! Caches go by their use and their size, also without a policy, and runners by when they were last heard of.
//!
//! Logs and artifacts first, rows after: a run's bytes are gone before a row says so, so a server that is killed in
//! between finds the row again and goes on. Batches are small and rest between each other, so webhooks
//! and runners do not notice. While somebody backs the logs up nothing goes.
//!
//! Of several servers on one database one sweeps at a time. That what another one removed is removed
//! again does no harm, but it would be work.
//!
//! What goes is decided by [`roadstead_pipelines::retention`], what names what is the store's to know.

use crate::artifacts::ArtifactError;
use crate::config;
use crate::logs::{LogError, LogStore, Removing};
use crate::store::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::id::{ProjectName, RunId};
use std::io;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked for what goes.
const EVERY: Duration = Duration::from_secs(3_600);
/// The lease of whoever sweeps. A server that dies meanwhile is followed by the next one within an hour.
const TURN: &str = "retention";
/// How soon it is looked again when a backup was in the way, or something failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Rest after each batch: others write meanwhile.
const REST: Duration = Duration::from_millis(50);
/// Runs in one transaction.
const RUNS: usize = 20;
/// Deliveries in one transaction: their bodies are up to 5 MB each.
const DELIVERIES: u32 = 50;
/// Runners in one transaction.
const RUNNERS: u32 = 100;
/// While no server ran nobody could be heard: so long after its start a server lets runners call first.
const RUNNERS_CALL_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// A runner that left for good is shown so long.
const LEFT_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Why a sweep stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Somebody else holds the logs' lock: a backup, or the compressor for a moment.
    #[error("the logs are being read: a backup is made")]
    Backup,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The logs.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// The artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The logs' folder.
    #[error("the logs' folder: {0}")]
    Folder(#[from] io::Error),
}

/// What a sweep took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs.
    pub runs: usize,
    /// Runs that stay, without their logs.
    pub logs: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Caches.
    pub caches: usize,
    /// Runners.
    pub runners: usize,
}

/// What is swept, and by which policies.
pub struct Retention {
    /// Rows.
    pub store: Store,
    /// Logs.
    pub logs: LogStore,
    /// The policies.
    pub policies: config::Retention,
    /// When this server started.
    pub started_at: Timestamp,
}

impl Retention {
    /// Sweeps until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let swept = stop.run_until_cancelled(self.in_turn());
            let wait = match swept.await {
                None => return,
                Some(Ok(swept)) => {
                    if swept != Swept::default() {
                        tracing::info!(?swept, "retention");
                    }
                    EVERY
                }
                Some(Err(Stopped::Backup)) => AGAIN,
                Some(Err(error)) => {
                    tracing::warn!("retention goes on in a minute: {error}");
                    AGAIN
                }
            };
            let rest = tokio::time::sleep(wait);
            if stop.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    /// Sweeps unless another server does, or did within the hour.
    async fn in_turn(&self) -> Result<Swept, Stopped> {
        let lasting = SignedDuration::try_from(EVERY - AGAIN).unwrap_or(SignedDuration::ZERO);
        if !self.store.hold(TURN, lasting).await? {
            return Ok(Swept::default());
        }
        let swept = self.sweep(crate::clock::now()).await;
        if swept.is_err() {
            self.store.let_go(TURN).await?;
        }
        swept
    }

    /// Takes away all that goes now. Stopped at any moment, the next one goes on.
    ///
    /// # Errors
    /// What kept it from its end; what it took away before stays away.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept, Stopped> {
        let mut swept = Swept::default();
        for project in self.store.list_projects().await? {
            let name = project.name;
            self.sweep_runs(&name, &mut swept, now).await?;
            self.sweep_logs(&name, &mut swept, now).await?;
            self.sweep_deliveries(&name, &mut swept, now).await?;
            self.sweep_caches(&name, &mut swept, now).await?;
        }
        self.sweep_runners(&mut swept, now).await?;
        Ok(swept)
    }

    async fn sweep_runners(&self, swept: &mut Swept, now: Timestamp) -> Result<(), Stopped> {
        if now.duration_since(self.started_at) < RUNNERS_CALL_WITHIN {
            return Ok(());
        }
        let Some(heard_since) = self.policies.runners.heard_since(now) else {
            return Ok(());
        };
        loop {
            let forgetting = self
                .store
                .forget_runners(RUNNERS, heard_since, now - LEFT_FOR, now);
            let gone = forgetting.await?;
            if gone == 0 {
                return Ok(());
            }
            swept.runners += gone;
            tokio::time::sleep(REST).await;
        }
    }

    /// Removes a run's logs, and what its steps left to be kept.
    async fn remove_bytes(&self, run: &RunId) -> Result<(), Stopped> {
        self.logs.remove(run.as_str()).await?;
        self.logs.artifacts().remove(run.as_str()).await?;
        Ok(())
    }

    fn removing(&self) -> Result<Removing, Stopped> {
        self.logs.removing()?.ok_or(Stopped::Backup)
    }

    async fn sweep_runs(
        &self,
        project: &ProjectName,
        swept: &mut Swept,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let policy = self.policies.runs.policy();
        let mut after = (!policy.keeps_all()).then_some(0);
        while let Some(from) = after {
            let (ids, more) = self.store.runs_to_go(project, policy, from, now).await?;
            for batch in ids.chunks(RUNS) {
                let removing_logs = self.removing()?;
                for id in batch {
                    self.remove_bytes(id).await?;
                }
                let removing = self.store.remove_runs(project, batch.to_vec(), policy, now);
                swept.runs += removing.await?;
                drop(removing_logs);
                tokio::time::sleep(REST).await;
            }
            after = more;
        }
        Ok(())
    }

    async fn sweep_logs(
        &self,
        project: &ProjectName,
        swept: &mut Swept,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let policy = self.policies.logs.policy();
        while !policy.keeps_all() {
            let ids = self.store.logs_to_go(project, policy, now).await?;
            if ids.is_empty() {
                break;
            }
            for batch in ids.chunks(RUNS) {
                let removing_logs = self.removing()?;
                for id in batch {
                    self.remove_bytes(id).await?;
                }
                let noting = self
                    .store
                    .note_removed_logs(project, batch.to_vec(), policy, now);
                noting.await?;
                swept.logs += batch.len();
                drop(removing_logs);
                tokio::time::sleep(REST).await;
            }
        }
        Ok(())
    }

    async fn sweep_deliveries(
        &self,
        project: &ProjectName,
        swept: &mut Swept,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let policy = self.policies.deliveries.policy();
        loop {
            let removing = self
                .store
                .remove_deliveries(project, DELIVERIES, policy, now);
            let gone = removing.await?;
            if gone == 0 {
                return Ok(());
            }
            swept.deliveries += gone;
            tokio::time::sleep(REST).await;
        }
    }

    /// Rows last: a server that is killed in between finds them again.
    async fn sweep_caches(
        &self,
        project: &ProjectName,
        swept: &mut Swept,
        now: Timestamp,
    ) -> Result<(), Stopped> {
        let kept = &self.policies.caches;
        loop {
            let (since, most) = (kept.used_since(now), kept.most_bytes());
            let ids = self.store.caches_to_go(project, since, most, now).await?;
            if ids.is_empty() {
                return Ok(());
            }
            let caches = self.logs.caches();
            caches.remove(project.as_str(), &ids).await?;
            swept.caches += ids.len();
            self.store.forget_caches(ids).await?;
            tokio::time::sleep(REST).await;
        }
    }
}
