//! Performs effects: leases rows, does what they say, records what came of it as facts.
//!
//! Whatever is done here may be done twice: after a crash, or when a lease ran out on somebody slow.
//! So each effect first asks whether its run or deployment still stands where the effect leads out of
//! (one that moved on needs nothing), and the adapters look before they act. Nothing is decided here:
//! an outcome is a fact, and what it means is the core's business.

mod before_deploy;
mod deployments;
mod pull_requests;
mod registry;
mod sources;
mod turns;

use crate::adapters::aws::AwsError;
use crate::adapters::cluster::Cluster;
use crate::adapters::registry::Registry;
use crate::adapters::sources::{Remote, Sources, SourcesError};
use crate::clock::Clock;
use crate::store::{EffectRow, Store, StoreError, Wanted};
use crate::wake::Bell;
use jiff::SignedDuration;
use rand::RngExt as _;
use roadstead_pipelines::effect::{Counterpart, Effect};
use roadstead_pipelines::fact::{Change, DeploymentFact, RunFact};
use roadstead_pipelines::id::{DeploymentId, ProjectName, RunId};
use roadstead_pipelines::report::Failure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use turns::Turns;

/// How long a lease lasts; after a crash this is how long others wait. Work that takes longer has its
/// lease prolonged.
const LEASE: Duration = Duration::from_secs(20);
/// How often leases are prolonged.
const PROLONGED: Duration = Duration::from_secs(5);
/// Without having been prolonged for so long, a lease counts as lost before it is: what was begun ends
/// there, and nothing is changed at AWS any more.
const HELD: Duration = Duration::from_secs(13);
/// Longest wait for the store when effects are leased: with the wait for the next try it leaves time to
/// prolong what is held, or to end it.
const LONGEST_LEASING: Duration = Duration::from_secs(3);
/// The store is asked at least this often, for retries that became due.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// The first wait before another try, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// That a service is not there is believed on this try at the earliest, and only of two in a row that were told
/// so: ECS's answers are eventually consistent, and what is given up for one of them may be under way there.
const TRIES_ABSENT: u32 = 3;

/// Between two looks at something that takes its time.
const LOOK: Duration = Duration::from_secs(2);

/// What became of one try.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// Done; this follows.
    Done(Vec<Change>),
    /// It will not succeed however often it is tried; this follows.
    Refused {
        /// Why, in one line.
        error: String,
        /// What the run or deployment is told.
        changes: Vec<Change>,
    },
    /// Another try may succeed.
    Later {
        /// Why this one did not.
        error: String,
    },
    /// It goes well and is not over: it is looked at again after [`LOOK`].
    NotYet,
}

impl Outcome {
    /// The subject moved on: nothing is left to do.
    fn moved_on() -> Self {
        Self::Done(vec![])
    }

    fn run(run: &RunId, fact: RunFact) -> Self {
        Self::Done(vec![Change::Run {
            run: run.clone(),
            fact,
        }])
    }

    fn run_refused(run: &RunId, failure: Failure) -> Self {
        let error = failure.message.clone();
        let fact = RunFact::Refused { failure };
        Self::Refused {
            error,
            changes: vec![Change::Run {
                run: run.clone(),
                fact,
            }],
        }
    }

    fn deployment(deployment: &DeploymentId, fact: DeploymentFact) -> Self {
        Self::Done(vec![Change::Deployment {
            deployment: deployment.clone(),
            fact,
        }])
    }

    fn deployment_failed(deployment: &DeploymentId, failure: Failure) -> Self {
        let error = failure.message.clone();
        let fact = DeploymentFact::Failed { failure };
        let changes = vec![Change::Deployment {
            deployment: deployment.clone(),
            fact,
        }];
        Self::Refused { error, changes }
    }
}

/// Why a try ended without an outcome of its own.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("it took so long that another server may be at it")]
    Late,
}

impl Interrupted {
    /// Whether another try of this effect may end otherwise.
    fn is_transient(&self, row: &EffectRow) -> bool {
        match self {
            Self::Store(_) | Self::Late => true,
            Self::Aws(error) => may_pass(error, row),
            Self::Sources(error) => error.is_transient(),
        }
    }

    /// Whose fault it is: a wrong name is the file's, a missing permission the installation's.
    fn failure(&self) -> Failure {
        match self {
            Self::Aws(
                AwsError::UnknownCluster { .. }
                | AwsError::UnknownService { .. }
                | AwsError::Other { .. },
            )
            | Self::Sources(
                SourcesError::NoFile { .. }
                | SourcesError::NotReadable { .. }
                | SourcesError::NoCommit { .. }
                | SourcesError::Ref { .. },
            ) => Failure::failed(self.to_string()),
            Self::Store(_) | Self::Aws(_) | Self::Sources(_) | Self::Late => {
                Failure::errored(self.to_string())
            }
        }
    }
}

/// The same of an error of AWS.
fn may_pass(error: &AwsError, row: &EffectRow) -> bool {
    let is_told_again = row.last_error.as_ref() == Some(&error.to_string());
    let is_believed = is_told_again && row.attempts >= TRIES_ABSENT;
    error.is_transient() || (error.is_absence() && !is_believed)
}

type Tried = Result<Outcome, Interrupted>;

/// Performs effects until it is told to stop. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    store: Store,
    sources: Sources,
    registry: Registry,
    cluster: Cluster,
    remotes: Arc<BTreeMap<ProjectName, Remote>>,
    bell: Bell,
    clock: Clock,
    prolonged: Prolonged,
}

/// When the leases of what is under way were prolonged last, by the clock that only goes forward; not
/// at all as long as nobody leases anything here.
#[derive(Clone, Default)]
struct Prolonged(Arc<Mutex<Option<Instant>>>);

impl Prolonged {
    fn set(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn since(&self) -> Duration {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.map_or(Duration::ZERO, |at| at.elapsed())
    }
}

impl Executor {
    /// An executor over these parts. `remotes` says where each project is fetched from.
    #[must_use]
    pub fn new(
        store: Store,
        sources: Sources,
        registry: Registry,
        cluster: Cluster,
        remotes: BTreeMap<ProjectName, Remote>,
        bell: Bell,
    ) -> Self {
        Self {
            store,
            sources,
            registry,
            cluster,
            remotes: Arc::new(remotes),
            bell,
            clock: Clock::default(),
            prolonged: Prolonged::default(),
        }
    }

    /// The same by another clock than the system's. Leases are prolonged, and waits last, in real time all
    /// the same.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Leases and performs effects until `stop`. What is under way then is left: its lease runs out,
    /// and whoever comes next looks before it acts.
    pub async fn run(self, stop: CancellationToken) {
        let mut heard = self.bell.listen();
        let mut working = JoinSet::new();
        let mut turns = Turns::default();
        loop {
            turns.free_finished();
            self.prolong(&mut turns).await;
            self.begin(&mut turns, &mut working).await;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = working.join_next() => match done {
                    Err(error) if error.is_panic() => {
                        tracing::error!(%error, "an effect broke off");
                    }
                    Ok(()) | Err(_) => {}
                },
                _ = heard.wait(AT_LEAST_EVERY) => {}
            }
        }
    }

    /// Prolongs the leases of what is under way, when it is time to. What another server has by now is
    /// broken off here, and everything when the store could not be reached for too long.
    async fn prolong(&self, turns: &mut Turns) {
        if turns.is_empty() || self.prolonged.since() < PROLONGED {
            return;
        }
        let now = Instant::now();
        let keys = turns.keys();
        // A store that does not answer at all is not to hold up what ends when it cannot be reached.
        let left = HELD.saturating_sub(self.prolonged.since());
        let prolonging = self.store.prolong_effects(keys, self.clock.now() + LEASE);
        let lost = match tokio::time::timeout(left, prolonging).await {
            Ok(Ok(lost)) => {
                self.prolonged.set(now);
                lost
            }
            Ok(Err(error)) if self.prolonged.since() < HELD => {
                tracing::warn!(%error, "leases of effects could not be prolonged");
                return;
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("leases of effects could not be prolonged in time");
                turns.keys()
            }
        };
        for key in lost {
            if turns.break_off(&key) {
                tracing::warn!(effect = key, "an effect is left to another server");
            }
        }
    }

    /// Leases and begins what is due, as far as there are turns for it.
    async fn begin(&self, turns: &mut Turns, working: &mut JoinSet<()>) {
        let until = Instant::now() + LONGEST_LEASING;
        for counterpart in Counterpart::ALL {
            while let Some(wanted) = turns.wanted(counterpart) {
                let limit = wanted.limit;
                let Some(rows) = self.lease(wanted, turns.is_empty(), until).await else {
                    return;
                };
                let is_last = rows.len() < limit as usize;
                for row in rows {
                    let (executor, performed) = (self.clone(), row.clone());
                    let work = working.spawn(async move { executor.perform(&performed).await });
                    turns.begin(&row, work);
                }
                if is_last {
                    break;
                }
            }
        }
    }

    /// Leases what is wanted, unless that fails or takes too long. `first` says that nothing else is leased
    /// here.
    async fn lease(&self, wanted: Wanted, first: bool, until: Instant) -> Option<Vec<EffectRow>> {
        let (now, began) = (self.clock.now(), Instant::now());
        let leasing = self.store.lease_effects(wanted, now, now + LEASE);
        // What is leased after all by a store that took longer is due again when the lease runs out.
        let leased = tokio::time::timeout_at(until.into(), leasing).await;
        if first {
            self.prolonged.set(began);
        }
        match leased {
            Ok(Ok(rows)) => Some(rows),
            Ok(Err(error)) => {
                tracing::warn!(%error, "effects could not be leased");
                None
            }
            Err(_) => {
                tracing::warn!("effects could not be leased in time");
                None
            }
        }
    }

    /// Whether the leases hold for sure: to be asked before something is changed at AWS. A process that
    /// was stopped for a while finds here that others may be at it.
    fn check_leases(&self) -> Result<(), Interrupted> {
        if self.prolonged.since() < HELD {
            return Ok(());
        }
        Err(Interrupted::Late)
    }

    /// Performs one leased effect and records what came of it.
    pub async fn perform(&self, row: &EffectRow) {
        let outcome = match self.attempt(row).await {
            Ok(outcome) => outcome,
            Err(error) if error.is_transient(row) => Outcome::Later {
                error: error.to_string(),
            },
            Err(error) => refused(&row.effect, error.failure()),
        };
        let now = self.clock.now();
        let stored = match outcome {
            Outcome::Done(changes) => self.store.finish_effect(&row.key, changes, now).await,
            Outcome::Refused { error, changes } => {
                tracing::info!(effect = row.key, error, "an effect is given up");
                self.store.fail_effect(&row.key, changes, &error, now).await
            }
            Outcome::NotYet => {
                let wait = SignedDuration::try_from(LOOK).unwrap_or(SignedDuration::ZERO);
                let again = self.store.go_on_with_effect(&row.key, now + wait);
                match again.await {
                    // Nothing came of it that anybody has to hear of.
                    Ok(()) => return,
                    Err(error) => Err(error),
                }
            }
            Outcome::Later { error } => {
                let wait = backoff(row.attempts);
                tracing::info!(effect = row.key, error, ?wait, "an effect is tried again");
                let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
                self.store.retry_effect(&row.key, now + wait, &error).await
            }
        };
        match stored {
            Ok(()) => self.bell.ring(),
            // The lease runs out, and what was done is found done.
            Err(error) => {
                tracing::warn!(effect = row.key, %error, "an outcome could not be stored");
            }
        }
    }

    async fn attempt(&self, row: &EffectRow) -> Tried {
        match &row.effect {
            Effect::ReadSources { run } => self.read_sources(run, row.attempts).await,
            Effect::PrepareRegistry { run } => self.prepare_registry(run).await,
            Effect::ConfirmImages { run } => self.confirm_images(run, row.attempts).await,
            Effect::RegisterTaskDefinition { deployment } => {
                self.register_task_definition(deployment, row).await
            }
            Effect::StartBeforeDeploy { deployment } => {
                let error = row.last_error.as_deref();
                self.start_before_deploy(deployment, error).await
            }
            Effect::WatchBeforeDeploy { deployment } => self.watch_before_deploy(deployment).await,
            Effect::StopBeforeDeploy { deployment } => self.stop_before_deploy(deployment).await,
            Effect::UpdateService { deployment } => {
                self.update_service(deployment, row.attempts > 1).await
            }
            Effect::CreateService { deployment } => self.create_service(deployment).await,
            Effect::StopRollout { deployment } => self.stop_rollout(deployment, row).await,
        }
    }
}

/// The outcome of an effect that will not succeed, for its subject.
fn refused(effect: &Effect, failure: Failure) -> Outcome {
    match effect {
        Effect::ReadSources { run }
        | Effect::PrepareRegistry { run }
        | Effect::ConfirmImages { run } => Outcome::run_refused(run, failure),
        Effect::RegisterTaskDefinition { deployment }
        | Effect::StartBeforeDeploy { deployment }
        | Effect::WatchBeforeDeploy { deployment }
        | Effect::StopBeforeDeploy { deployment }
        | Effect::UpdateService { deployment }
        | Effect::CreateService { deployment }
        | Effect::StopRollout { deployment } => Outcome::deployment_failed(deployment, failure),
    }
}

/// The wait after the `attempts`-th try: doubled each time, up to a limit, and spread by a quarter so
/// that what failed together does not come back together.
fn backoff(attempts: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let doubled = first
        .saturating_mul(1 << attempts.saturating_sub(1).min(16))
        .min(longest);
    doubled.mul_f64(rand::rng().random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EffectState;
    use jiff::Timestamp;

    #[test]
    fn waits_grow_up_to_a_limit() {
        for (attempts, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (7, 60), (40, 60)] {
            let most = Duration::from_secs(most);
            let wait = backoff(attempts);
            assert!(
                wait <= most && wait >= most.mul_f64(0.75),
                "{attempts}: {wait:?}"
            );
        }
    }

    fn row(attempts: u32, last_error: Option<&str>) -> EffectRow {
        let project = ProjectName::parse("shop").unwrap();
        let effect = Effect::StopRollout {
            deployment: DeploymentId::new(&project, 1),
        };
        EffectRow {
            key: effect.key(),
            project,
            effect,
            state: EffectState::Leased,
            attempts,
            not_before: Timestamp::UNIX_EPOCH,
            last_error: last_error.map(str::to_owned),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_people_have_to_repair_is_not_tried_again() {
        let cluster = AwsError::UnknownCluster {
            cluster: "c".into(),
            region: "r".into(),
        };
        let cluster = Interrupted::from(cluster);
        assert!(!cluster.is_transient(&row(1, None)));
        assert!(cluster.failure().message.contains("no cluster `c` in r"));
        let throttled = AwsError::Throttled {
            action: "ecs:X",
            message: "slow down".into(),
        };
        assert!(Interrupted::from(throttled).is_transient(&row(9, None)));
        let gone = SourcesError::Unreachable {
            reason: "no route".into(),
        };
        assert!(Interrupted::from(gone).is_transient(&row(9, None)));
    }

    #[test]
    fn a_service_that_is_missing_is_looked_for_again() {
        let missing = Interrupted::from(AwsError::UnknownService {
            cluster: "c".into(),
            service: "s".into(),
            region: "r".into(),
        });
        let told = missing.to_string();
        let before = [None, Some(told.as_str()), Some("slow down"), Some(&told)];
        let again = (1..).zip(before);
        let again = again.map(|(attempts, last)| missing.is_transient(&row(attempts, last)));
        assert_eq!(again.collect::<Vec<_>>(), [true, true, true, false]);
    }
}
