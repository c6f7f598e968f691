//! Tells forges how runs went: one call at a time for each project and server, the longest due first.
//!
//! What is to be told is a row that the change of the run left; what follows from an answer is decided by
//! [`roadstead_pipelines::commit_status`]. Runs and deployments never wait for this, and a forge that is away
//! keeps nobody waiting but its own project's statuses. Of several servers each status is told by whoever leased
//! it; a lease is longer than a call.

use crate::adapters::forges::{Forges, TIMEOUT, Told};
use crate::clock::Clock;
use crate::config::ToldForge;
use crate::store::{DueStatus, Store, StoreError};
use crate::wake::Bell;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::commit_status::{Answer, Standing, Telling};
use roadstead_pipelines::id::ProjectName;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For so long a status is leased: a call, and a slow database before and after it.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How old a lease may be when the call begins: whatever holds this server up longer may have let the lease run out.
const LATEST_CALL: SignedDuration = SignedDuration::from_secs(30);
/// How often it is looked for what is due when no bell rings.
const LOOK: Duration = Duration::from_secs(2);
/// Between two calls for one project: GitHub asks for a second between two that write.
const REST: Duration = Duration::from_secs(1);
/// Rest of a project after a call that failed, at most, unless its forge asks for more. Short: a few commits that
/// the forge does not know are not to hold up the others.
const LONGEST_REST: SignedDuration = SignedDuration::from_secs(5);

/// What tells forges. Cheap to clone.
#[derive(Clone)]
pub struct Teller {
    store: Store,
    forges: Forges,
    told: BTreeMap<ProjectName, ToldForge>,
    /// How people reach this server, without a slash at the end.
    public_url: String,
    bell: Bell,
    clock: Clock,
}

/// Projects that are left alone until a time, or as long as their forge is called.
type Resting = BTreeMap<ProjectName, Option<Instant>>;
/// A project whose forge was called, and for how long it rests then.
type Called = (ProjectName, Result<Duration, StoreError>);

/// Notes that a forge was called.
fn told(resting: &mut Resting, ended: Result<Called, JoinError>) {
    let (project, rest) = match ended {
        Ok(called) => called,
        Err(error) => {
            tracing::error!("telling a forge broke off: {error}");
            // Whose it was is not known; a status that is being told is leased, so nobody tells it twice.
            resting.retain(|_, until| until.is_some());
            return;
        }
    };
    let rest = rest.unwrap_or_else(|error| {
        tracing::warn!(%project, "its forge is told nothing for now: {error}");
        REST
    });
    resting.insert(project, Some(Instant::now() + rest));
}

impl Teller {
    /// One for the projects of `told`.
    #[must_use]
    pub fn new(
        store: Store,
        forges: Forges,
        told: BTreeMap<ProjectName, ToldForge>,
        public_url: String,
        bell: Bell,
    ) -> Self {
        Self {
            store,
            forges,
            told,
            public_url,
            bell,
            clock: Clock::default(),
        }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Tells until it is told to stop; then it ends once every forge that was called has answered.
    pub async fn run(self, stop: CancellationToken) {
        if self.told.is_empty() {
            return;
        }
        let mut bell = self.bell.listen();
        let mut telling = JoinSet::new();
        let mut resting = Resting::new();
        loop {
            let due = match self.store.projects_to_tell(self.clock.now()).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!("forges are told nothing for now: {error}");
                    vec![]
                }
            };
            let now = Instant::now();
            resting.retain(|_, until| until.is_none_or(|until| until > now));
            for project in due {
                if self.told.contains_key(&project) && !resting.contains_key(&project) {
                    resting.insert(project.clone(), None);
                    let this = self.clone();
                    telling.spawn(async move {
                        let rest = this.tell_one(&project).await;
                        (project, rest.map(|rest| rest.unwrap_or(REST)))
                    });
                }
            }
            let first = resting.values().flatten().min();
            let look = first.map_or(LOOK, |first| LOOK.min(first.saturating_duration_since(now)));
            tokio::select! {
                () = stop.cancelled() => break,
                _ = bell.wait(look) => {}
                Some(ended) = telling.join_next() => told(&mut resting, ended),
            }
        }
        // What was sent and not noted would have to be told twice.
        while telling.join_next().await.is_some() {}
    }

    /// Tells the status of a project that is due longest, and says how long to leave the project alone then;
    /// `None` when nothing is due here.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: what was told is then told again.
    pub async fn tell_one(&self, project: &ProjectName) -> Result<Option<Duration>, StoreError> {
        let Some(forge) = self.told.get(project) else {
            return Ok(None);
        };
        let leased_at = self.clock.now();
        let leasing = self
            .store
            .lease_status(project, leased_at, leased_at + LEASE);
        let Some(due) = leasing.await? else {
            return Ok(None);
        };
        let answer = self.call(&due, forge, leased_at).await;
        let now = self.clock.now();
        let noting = self.store.status_answered(&due, answer.clone(), now);
        let told = noting.await?;
        Ok(Some(rest(&due, &answer, told.as_ref(), now)))
    }

    async fn call(&self, due: &DueStatus, forge: &ToldForge, leased_at: Timestamp) -> Answer {
        let token = match forge.token() {
            Ok(token) => token,
            Err(reason) => return Answer::Mend { reason },
        };
        let now = self.clock.now();
        if now > leased_at + LATEST_CALL {
            let reason = "this server was held up and did not call the forge".to_owned();
            return Answer::Later {
                reason,
                after: None,
                unsure: false,
            };
        }
        let page = format!("{}/runs/{}", self.public_url, due.telling.run);
        let told = Told {
            commit: &due.commit,
            git_ref: &due.git_ref,
            base_branch: due.base_branch(),
            status: &due.telling.status,
            page: &page,
        };
        self.forges.tell(forge, &token, told, now).await
    }
}

/// How long a project is left alone after a call, and a line in the log where it failed.
fn rest(due: &DueStatus, answer: &Answer, told: Option<&Telling>, now: Timestamp) -> Duration {
    let (project, run) = (&due.project, &due.telling.run);
    let reason = match answer {
        Answer::Taken => return REST,
        Answer::Never { reason } => {
            tracing::warn!(%project, %run, "its forge is not told how this run went: {reason}");
            return REST;
        }
        Answer::Mend { reason } | Answer::Later { reason, .. } => reason,
    };
    tracing::warn!(%project, %run, "its forge was not told how this run went: {reason}");
    let own = match told.map(|told| &told.standing) {
        Some(Standing::Untold { not_before, .. }) => not_before.duration_since(now),
        Some(Standing::Told { .. } | Standing::GivenUp { .. }) | None => SignedDuration::ZERO,
    };
    // Another commit's may well be taken; but what a forge asks for holds for all.
    let most = match answer {
        Answer::Later {
            after: Some(asked), ..
        } => LONGEST_REST.max(*asked),
        _ => LONGEST_REST,
    };
    REST.max(Duration::try_from(own.min(most)).unwrap_or(REST))
}

const _: () = assert!(TIMEOUT.as_secs() + 20 <= LATEST_CALL.as_secs().unsigned_abs());
