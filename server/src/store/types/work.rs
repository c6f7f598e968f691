//! Jobs, attempts at them, and the runners that make these.

use jiff::Timestamp;
use roadstead_pipelines::id::{JobName, RunId, StepName};
use roadstead_pipelines::run::{AttemptOutcome, Run};
use roadstead_protocol::StepState;
use std::collections::BTreeSet;

/// One attempt at a job of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// `shop.12.a1`.
    pub id: String,
    /// The run.
    pub run: RunId,
    /// Its number in the run from 1, which is its fence.
    pub number: u32,
    /// The job that it is one try of.
    pub job: JobName,
    /// The runner's id.
    pub runner: String,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When the runner accepted it.
    pub accepted_at: Option<Timestamp>,
    /// It is lost after this.
    pub lease_until: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// How the runner says that it ended; none when it was lost.
    pub outcome: Option<AttemptOutcome>,
}

/// One step of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// The attempt's id.
    pub attempt: String,
    /// The step.
    pub name: StepName,
    /// Its place in the order, from 0.
    pub position: u32,
    /// How it stands.
    pub state: StepState,
    /// When it was first said to run.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
}

/// A job that waits for a runner.
#[derive(Debug, Clone, PartialEq)]
pub struct JobThatWaits {
    /// Its run.
    pub run: Run,
    /// Its name there.
    pub job: JobName,
    /// What its runner has to have.
    pub labels: BTreeSet<String>,
}

/// A job that a runner has claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The attempt's id.
    pub attempt: String,
    /// Its number, which is its fence.
    pub number: u32,
    /// The run, already `building`.
    pub run: Run,
    /// The job.
    pub job: JobName,
}

/// What a runner is told about the attempts it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Attempts to stop because somebody cancelled the run.
    pub cancel: Vec<String>,
    /// Attempts that are no longer this runner's.
    pub lost: Vec<String>,
    /// Take no more work.
    pub drain: bool,
}

/// What became of a runner's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Stored.
    Recorded,
    /// The same was stored before.
    Repeated,
    /// The attempt is over or belongs to another fence: nothing is stored.
    Lost,
}

/// How a runner took its leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// When.
    pub at: Timestamp,
    /// It does not come back: its credential has ended.
    pub for_good: bool,
}

/// A registered runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it was last heard.
    pub last_seen_at: Timestamp,
    /// Free bytes where it works, as it last said.
    pub disk_free_bytes: Option<u64>,
    /// How many more attempts it would take, as it last said.
    pub free_slots: u32,
    /// It gets no more work.
    pub drain: bool,
    /// It said goodbye and was not heard of since; gets no work either.
    pub left: Option<Left>,
    /// Attempts that it runs.
    pub running: Vec<String>,
}

/// What a runner says of itself in a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Labels.
    pub labels: Vec<String>,
    /// How many more attempts it would take.
    pub free_slots: u32,
    /// Free bytes where it works.
    pub disk_free_bytes: u64,
}
