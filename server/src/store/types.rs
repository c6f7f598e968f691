//! What the store takes and gives besides the core's own types.

mod work;

pub use work::*;

use crate::audit::{Entry, Head};
use crate::secrets::Sealed;
use jiff::Timestamp;
use roadstead_pipelines::authorship::Addresses;
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::group::Lines;
use roadstead_pipelines::id::{
    CommitSha, DeploymentId, EnvironmentName, Place, ProjectName, ReleaseId, RunId, ServiceName,
};
use roadstead_pipelines::pull_request::PullRequest;
use roadstead_pipelines::release::Release;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::schedule::Standing;
use roadstead_pipelines::secret::SecretRef;
use roadstead_pipelines::spec::{Role, Trigger};
use roadstead_pipelines::started_by::StartedBy;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A project's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// Address that git fetches from.
    pub repository: String,
    /// Key of its webhooks' HMAC.
    pub webhook_secret: String,
    /// When it was first set up.
    pub created_at: Timestamp,
    /// When its branches were last compared with what was told.
    pub heads_compared_at: Option<Timestamp>,
    /// The branch that its repository named as its own then, `refs/heads/main`.
    pub default_branch: Option<String>,
}

/// A secret of a project, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretLine {
    /// Which.
    pub secret: SecretRef,
    /// Patterns of the branches whose runs may have it; none: every branch.
    pub branches: Vec<String>,
    /// How often it was set.
    pub version: u64,
    /// Who set it last.
    pub set_by: String,
    /// When.
    pub set_at: Timestamp,
}

/// A secret with its value, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// What is known of it.
    pub line: SecretLine,
    /// Its value.
    pub sealed: Sealed,
}

/// Whether a commit was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Everything is stored.
    Done,
    /// A lane has moved on since the world was read: nothing is stored. Load and plan again.
    Stale,
}

/// What a delivery asks for, as the webhook's reader decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A run for this commit.
    Build {
        /// The ref that was pushed, `refs/heads/main`.
        git_ref: String,
        /// The commit.
        commit: CommitSha,
    },
    /// A run of a pull request's newest commit.
    BuildPullRequest {
        /// Where the project's repository keeps that commit, `refs/pull/7/head`.
        git_ref: String,
        /// The commit.
        commit: CommitSha,
        /// The pull request.
        pull_request: PullRequest,
        /// What tells this call from an earlier one of the same commit that started a run, too: when it was opened again.
        occasion: Option<String>,
    },
    /// Runs of a pull request that wait are not wanted any more.
    ClosePullRequest {
        /// Where its commits were.
        git_ref: String,
        /// Its number.
        number: u64,
    },
    /// Nothing.
    Ignore {
        /// Why.
        reason: String,
    },
}

/// Stands where the forge does in the delivery of a push that no webhook told of, and acts in its name.
pub const GAP_FILLER: &str = "gap filler";

/// Starts the runs of schedules, in the history.
pub const SCHEDULE: &str = "schedule";

/// One webhook call to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// The project.
    pub project: ProjectName,
    /// `github`, `git`, …, or [`GAP_FILLER`].
    pub forge: String,
    /// The forge's id of the call; a second call with the same id is a duplicate.
    pub delivery_id: String,
    /// The event's name, `push`.
    pub event: String,
    /// The body as it came (UTF-8 text without NUL).
    pub body: String,
    /// What it asks for.
    pub decision: Decision,
    /// Set when a person sends a stored delivery again: the same push then makes another run.
    pub redelivery: Option<Redelivery>,
    /// When it came.
    pub received_at: Timestamp,
}

/// Who sends which stored delivery again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    /// The delivery's number.
    pub of: i64,
    /// The person's name.
    pub by: String,
}

/// What became of a delivery; it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A run was made.
    Run(RunId),
    /// The same call or the same push was here before; `run` is what came of it.
    Duplicate {
        /// The run of the earlier one, if it made one.
        run: Option<RunId>,
    },
    /// Stored with its reason; what waited for a pull request that was closed is cancelled.
    Ignored,
}

/// A stored delivery, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: i64,
    /// The project.
    pub project: ProjectName,
    /// `github`, `git`, …
    pub forge: String,
    /// The forge's id of the call.
    pub delivery_id: String,
    /// The event's name.
    pub event: String,
    /// When it came.
    pub received_at: Timestamp,
    /// `built`, `closed`, `ignored` or `duplicate`.
    pub decision: String,
    /// Why, for a person; empty when a run was made.
    pub reason: String,
    /// The run that it made, or that the earlier one made.
    pub run: Option<RunId>,
    /// The delivery that it repeats on request.
    pub redelivery_of: Option<i64>,
}

/// A run that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// The commit.
    pub commit: CommitSha,
    /// Its branch or tag, `refs/heads/main`.
    pub git_ref: String,
    /// What starts it.
    pub started_by: StartedBy,
    /// Asked for again under the same key, by the same person, it is the same run.
    pub key: Option<String>,
}

/// What became of asking for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It was made.
    Made(RunId),
    /// The same person had asked for the same under this key.
    Before(RunId),
    /// Under this key they had asked for something else.
    Other(RunId),
}

/// What the newest file of a branch that was read says of starting runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchFile {
    /// The branch, `refs/heads/main`.
    pub git_ref: String,
    /// The run that read it.
    pub run: RunId,
    /// What it says.
    pub trigger: Trigger,
}

/// A schedule in the newest file of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The branch, `refs/heads/main`.
    pub git_ref: String,
    /// The schedule, and since when it holds.
    pub standing: Standing,
    /// Moments that have started a run.
    pub started: BTreeSet<Timestamp>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLine {
    /// Its id.
    pub id: RunId,
    /// The commit.
    pub commit: CommitSha,
    /// The ref that was pushed, or named by whoever started it.
    pub git_ref: String,
    /// What started it.
    pub started_by: StartedBy,
    /// First line of the commit's message.
    pub message: String,
    /// Who wrote the commit.
    pub author: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Where it stands.
    pub state: RunState,
}

/// What came of the runs before a run on its branch or tag.
#[derive(Debug, Clone, PartialEq)]
pub struct RunsBefore {
    /// Whether its forge told of one of them of the same commit: then a person asked for this one.
    pub same_commit: bool,
    /// Whether one of them was of the same commit and read its file, and it is known what the branch's newest says.
    pub file_read: bool,
    /// The commit of the newest that its forge told of and that succeeded.
    pub last_succeeded: Option<CommitSha>,
    /// Those that its forge told of and that can be cancelled, with their commits, which may be annotated tags.
    pub building: BTreeMap<RunId, CommitSha>,
}

/// A run with all that a page shows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDetail {
    /// The run.
    pub run: Run,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Its attempts, the first one first.
    pub attempts: Vec<Attempt>,
    /// Steps of every attempt, in the order of its job.
    pub steps: Vec<StepRow>,
    /// Its effects.
    pub effects: Vec<EffectRow>,
    /// The lines of groups in which its jobs stand.
    pub lines: Lines,
}

impl RunDetail {
    /// The numbers of the newest attempts, one of each job; of the job of `chosen` that one.
    #[must_use]
    pub fn attempts_shown(&self, chosen: Option<u32>) -> Vec<u32> {
        let mut shown = BTreeMap::new();
        let chosen = self.attempts.iter().filter(|it| Some(it.number) == chosen);
        for attempt in self.attempts.iter().chain(chosen) {
            shown.insert(&attempt.job, attempt.number);
        }
        shown.into_values().collect()
    }
}

/// A deployment with all that a page shows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentDetail {
    /// The deployment.
    pub deployment: Deployment,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Its release.
    pub release: Release,
    /// Its effects.
    pub effects: Vec<EffectRow>,
}

/// Which deployments or events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeploymentFilter {
    /// Only of this environment.
    pub environment: Option<EnvironmentName>,
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only of this release.
    pub release: Option<ReleaseId>,
}

impl DeploymentFilter {
    /// Those of one place.
    #[must_use]
    pub fn of_place(place: &Place) -> Self {
        Self {
            environment: Some(place.environment.clone()),
            service: Some(place.service.clone()),
            release: None,
        }
    }
}

/// Where an effect stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectState {
    /// Waits for its turn.
    Pending,
    /// An executor works on it.
    Leased,
    /// Done.
    Done,
    /// Given up.
    Failed,
}

/// A stored effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectRow {
    /// Under this key it is stored once.
    pub key: String,
    /// The project.
    pub project: ProjectName,
    /// What is to be done.
    pub effect: Effect,
    /// Where it stands.
    pub state: EffectState,
    /// How often it was leased.
    pub attempts: u32,
    /// Not tried before this.
    pub not_before: Timestamp,
    /// Why the last try did not do.
    pub last_error: Option<String>,
    /// When it was planned.
    pub created_at: Timestamp,
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Grows with each event.
    pub sequence: i64,
    /// When.
    pub at: Timestamp,
    /// The project; none for the server's own matters.
    pub project: Option<ProjectName>,
    /// What it is about: id of a run, release or deployment, or `staging/web`.
    pub subject: String,
    /// Who: a person's name, a runner's id, or `Roadstead`.
    pub actor: String,
    /// What happened, a word.
    pub what: String,
    /// Why, in the words of whoever did it; may be empty.
    pub reason: String,
    /// How it stood before; null when there was nothing, or nothing that this changed.
    pub before: serde_json::Value,
    /// How it stood afterwards.
    pub after: serde_json::Value,
    /// Particulars.
    pub detail: serde_json::Value,
}

/// A run that retention removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The run.
    pub run: RunId,
    /// The release that it made, which went with it.
    pub release: Option<ReleaseId>,
}

/// Entries of one chain of the audit trail, and its head at the same moment.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditPage {
    /// In their order.
    pub entries: Vec<Entry>,
    /// The last one's sequence number, to go on behind.
    pub last: i64,
    /// Nothing follows: the head is that of the last entry.
    pub whole: bool,
    /// How long the chain is.
    pub head: Head,
}

/// A project's newest happenings, for the first page.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// The project.
    pub project: Project,
    /// As a plan would see it.
    pub world: roadstead_pipelines::world::World,
    /// Its newest run.
    pub newest_run: Option<RunLine>,
}

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Argon2 hash of the password.
    pub password_hash: String,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
    /// Since when they may not sign in any more.
    pub disabled_at: Option<Timestamp>,
    /// When they last signed in.
    pub last_sign_in_at: Option<Timestamp>,
    /// The addresses that they commit with, in the form in which they are compared.
    pub emails: Addresses,
}

/// A token for the command line, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do, as long as its owner may.
    pub role: Role,
    /// Whose it is, and in whose name it acts.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it ends; none when it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The id of the token that it was made with, if it was: it is revoked with that.
    pub made_with: Option<String>,
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiToken {
    /// SHA-256 of its secret.
    pub token_hash: String,
    /// What people call it.
    pub name: String,
    /// What it may do at most.
    pub role: Role,
    /// Whose it is.
    pub owner: String,
    /// When it ends; none when it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// The id of the token that asks for it; none when its owner is signed in.
    pub made_with: Option<String>,
}

/// Changes that a decision made, once they are committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What was committed.
    pub changes: Vec<Change>,
}

impl Recorded {
    /// The deployment that was opened, if one was.
    #[must_use]
    pub fn deployment(&self) -> Option<&DeploymentId> {
        self.changes.iter().find_map(|change| match change {
            Change::OpenDeployment { deployment, .. } => Some(deployment),
            Change::Run { .. }
            | Change::Deployment { .. }
            | Change::MakeRelease { .. }
            | Change::SetHold { .. }
            | Change::ReleaseHold { .. }
            | Change::Approve { .. }
            | Change::AdoptPipeline { .. } => None,
        })
    }
}
