//! Rows: the only room that knows Diesel, and the only one that knows which database it is.
//!
//! One query body serves SQLite and PostgreSQL; where they must differ there is a `match` on the
//! connection. Everything that can change a decision belongs to its project's *lane*: whoever
//! changes such a row first moves the lane's generation on, which also makes writers of one project
//! wait for each other. A plan carries the generations it was made from; [`Store::commit`] compares
//! and swaps them, so a plan made on a stale read stores nothing.
//!
//! Times are stored as whole microseconds since 1970 (BIGINT), states as a word (for queries) beside
//! the JSON of the core's own type (for reading back). Secrets arrive here as SHA-256 hashes only,
//! except a project's webhook key, which HMAC needs as it is.

mod error;
mod types;

use jiff::Timestamp;
use roadstead_pipelines::action::Refusal;
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::effect::Effect;
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::{CommitSha, DeploymentId, Place, ProjectName, ReleaseId, RunId};
use roadstead_pipelines::observation::PlaceStatus;
use roadstead_pipelines::release::Release;
use roadstead_pipelines::run::{AttemptOutcome, Run};
use roadstead_pipelines::spec::Role;
use roadstead_pipelines::world::World;
use roadstead_protocol::{AttemptRef, StepState};
use std::collections::BTreeMap;

pub use error::StoreError;
pub use types::*;

/// What every call answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The database behind the server. Cheap to clone.
#[derive(Clone)]
pub struct Store(std::sync::Arc<()>);

/// SHA-256 in hexadecimal: all that the store keeps of tokens and credentials.
#[must_use]
pub fn hash_secret(secret: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(secret.as_bytes()))
}

fn pending<T>() -> Result<T> {
    Err(StoreError::unavailable("not written yet"))
}

#[expect(unused_variables, clippy::unused_async, clippy::needless_pass_by_value, reason = "signatures first")]
impl Store {
    /// Opens `sqlite:PATH` or `postgres://…` and runs the migrations.
    pub async fn open(url: &str) -> Result<Self> { pending() }
    /// Answers when the database does.
    pub async fn ping(&self) -> Result<()> { pending() }

    // Projects ---------------------------------------------------------------------------------
    /// Makes a project, or changes its address and key.
    pub async fn upsert_project(&self, name: ProjectName, repository: String, webhook_secret: String, now: Timestamp) -> Result<()> { pending() }
    pub async fn list_projects(&self) -> Result<Vec<Project>> { pending() }
    pub async fn get_project(&self, name: &ProjectName) -> Result<Project> { pending() }

    // Worlds and changes -----------------------------------------------------------------------
    pub async fn load_world(&self, project: &ProjectName) -> Result<World> { pending() }
    /// Stores a plan's changes and new effects, or nothing.
    pub async fn commit(&self, project: &ProjectName, generations: BTreeMap<ProjectName, i64>, changes: Vec<Change>, effects: Vec<Effect>, actor: &str, now: Timestamp) -> Result<Committed> { pending() }
    /// Loads, decides, commits; again when the world moved meanwhile. For buttons.
    pub async fn record(&self, project: &ProjectName, actor: &str, now: Timestamp, decide: impl FnMut(&World) -> std::result::Result<Vec<Change>, Refusal>) -> Result<Recorded> { pending() }
    /// Stores what was seen of a place.
    pub async fn save_place_status(&self, project: &ProjectName, place: Place, status: PlaceStatus) -> Result<()> { pending() }

    // Deliveries and runs ----------------------------------------------------------------------
    pub async fn accept_delivery(&self, delivery: NewDelivery) -> Result<Accepted> { pending() }
    /// Newest first, `before` an id.
    pub async fn list_deliveries(&self, project: &ProjectName, before: Option<i64>, limit: u32) -> Result<Vec<Delivery>> { pending() }
    /// With its body. To redeliver: get it, decide again, `accept_delivery` with `redelivery_of`.
    pub async fn get_delivery(&self, id: i64) -> Result<(Delivery, String)> { pending() }
    /// A run that a person asks for: retry, or by API.
    pub async fn ask_for_run(&self, project: &ProjectName, commit: CommitSha, git_ref: String, actor: &str, now: Timestamp) -> Result<RunId> { pending() }
    /// Newest first, `before` a run's number.
    pub async fn list_runs(&self, project: &ProjectName, before: Option<u64>, limit: u32) -> Result<Vec<RunLine>> { pending() }
    pub async fn get_run(&self, id: &RunId) -> Result<RunDetail> { pending() }
    /// The commit of the newest run for a ref; for filling gaps.
    pub async fn newest_commit(&self, project: &ProjectName, git_ref: &str) -> Result<Option<CommitSha>> { pending() }

    // Attempts (runner API) ------------------------------------------------------------------------
    /// The oldest queued job goes to this runner, leased for `ACCEPT_SECONDS`. `token_hash` is the
    /// hash of the attempt's new token.
    pub async fn claim_job(&self, runner: &str, token_hash: String, now: Timestamp) -> Result<Option<Claim>> { pending() }
    pub async fn accept_attempt(&self, attempt: &str, now: Timestamp) -> Result<Report> { pending() }
    /// Prolongs leases; with an offer (in a poll) also stores what the runner says of itself.
    pub async fn heartbeat(&self, runner: &str, running: Vec<AttemptRef>, offer: Option<Offer>, now: Timestamp) -> Result<Heard> { pending() }
    /// The attempt that a token belongs to, with its run; over or not.
    pub async fn attempt_by_token(&self, token_hash: &str) -> Result<Option<(Attempt, Run)>> { pending() }
    pub async fn report_step(&self, attempt: &str, fence: u64, step: &str, state: StepState, now: Timestamp) -> Result<Report> { pending() }
    /// Idempotent on attempt and fence.
    pub async fn end_attempt(&self, attempt: &str, fence: u64, outcome: AttemptOutcome, now: Timestamp) -> Result<Report> { pending() }
    /// Attempts whose lease ran out are lost. How many.
    pub async fn expire_attempts(&self, now: Timestamp) -> Result<usize> { pending() }

    // Releases and deployments -----------------------------------------------------------------
    pub async fn get_release(&self, id: &ReleaseId) -> Result<Release> { pending() }
    pub async fn list_releases(&self, project: &ProjectName, before: Option<u64>, limit: u32) -> Result<Vec<Release>> { pending() }
    pub async fn list_deployments(&self, project: &ProjectName, filter: DeploymentFilter, before: Option<u64>, limit: u32) -> Result<Vec<Deployment>> { pending() }
    pub async fn get_deployment(&self, id: &DeploymentId) -> Result<DeploymentDetail> { pending() }

    // Effects (executor) -----------------------------------------------------------------------
    /// At most `limit` effects that are due, leased until `until`; one whose lease ran out is due.
    pub async fn lease_effects(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<EffectRow>> { pending() }
    /// Marks it done and applies its facts in one transaction. Facts that no longer fit are dropped
    /// (with an event); finishing twice changes nothing.
    pub async fn finish_effect(&self, key: &str, changes: Vec<Change>, now: Timestamp) -> Result<()> { pending() }
    /// Not before `not_before` again.
    pub async fn retry_effect(&self, key: &str, not_before: Timestamp, error: &str) -> Result<()> { pending() }
    /// Gives up for good; `changes` tell the run or deployment.
    pub async fn fail_effect(&self, key: &str, changes: Vec<Change>, error: &str, now: Timestamp) -> Result<()> { pending() }

    // History ------------------------------------------------------------------------------------
    /// Newest first; of a subject when given.
    pub async fn list_events(&self, project: Option<&ProjectName>, subject: Option<&str>, before: Option<i64>, limit: u32) -> Result<Vec<Event>> { pending() }
    /// Writes one line of its own, for what is no change of a lane.
    pub async fn add_event(&self, project: Option<ProjectName>, subject: &str, actor: &str, what: &str, detail: serde_json::Value, now: Timestamp) -> Result<()> { pending() }
    pub async fn overview(&self) -> Result<Vec<Overview>> { pending() }

    // People and runners -----------------------------------------------------------------------
    /// Makes a user; `Conflict` when the name is taken.
    pub async fn create_user(&self, name: &str, password_hash: &str, role: Role, now: Timestamp) -> Result<()> { pending() }
    pub async fn set_password(&self, name: &str, password_hash: &str) -> Result<()> { pending() }
    pub async fn get_user(&self, name: &str) -> Result<Option<User>> { pending() }
    pub async fn list_users(&self) -> Result<Vec<User>> { pending() }
    pub async fn create_session(&self, token_hash: String, user: &str, now: Timestamp, expires_at: Timestamp) -> Result<()> { pending() }
    /// The user of a session that has not expired.
    pub async fn session_user(&self, token_hash: &str, now: Timestamp) -> Result<Option<User>> { pending() }
    pub async fn delete_session(&self, token_hash: &str) -> Result<()> { pending() }
    /// Makes a token and gives its id.
    pub async fn create_api_token(&self, token_hash: String, name: &str, role: Role, created_by: &str, now: Timestamp) -> Result<String> { pending() }
    /// The token with this hash, unless it is revoked; notes its use.
    pub async fn use_api_token(&self, token_hash: &str, now: Timestamp) -> Result<Option<ApiToken>> { pending() }
    pub async fn list_api_tokens(&self) -> Result<Vec<ApiToken>> { pending() }
    pub async fn revoke_api_token(&self, id: &str, now: Timestamp) -> Result<()> { pending() }
    /// Makes a runner and gives its id.
    pub async fn register_runner(&self, name: &str, credential_hash: String, labels: Vec<String>, now: Timestamp) -> Result<Runner> { pending() }
    pub async fn runner_by_credential(&self, credential_hash: &str) -> Result<Option<Runner>> { pending() }
    pub async fn list_runners(&self) -> Result<Vec<Runner>> { pending() }
    pub async fn set_drain(&self, runner: &str, drain: bool) -> Result<()> { pending() }
}
