//! How the jobs of a run stand, for the pages and the API alike: from its state while it is at work, from their
//! newest attempts when it is over.

use crate::store::{Attempt, RunDetail, Runner};
use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::id::{JobName, StepName};
use roadstead_pipelines::job::{Job, JobState};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{AttemptOutcome, RunState};
use serde_json::{Value, json};

/// A runner polls or sends a heartbeat much more often than this.
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Whether a runner has been heard of lately.
pub(super) fn is_heard_of(runner: &Runner, now: Timestamp) -> bool {
    now.duration_since(runner.last_seen_at) <= LOST_AFTER
}

/// A job with how it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobLine {
    /// Its name.
    pub(super) name: JobName,
    /// What it is.
    pub(super) job: Job,
    /// How it stands.
    pub(super) state: JobState,
}

/// The jobs of a run, each behind those that it needs; none before its file is read.
pub(super) fn of_run(detail: &RunDetail) -> Vec<JobLine> {
    let plan = detail.run.jobs();
    let mut told: IndexMap<JobName, JobState> = IndexMap::new();
    for (name, job) in &plan {
        let live = detail.run.state.jobs().and_then(|it| it.jobs.get(name));
        let state = match (live, detail.attempts_at(name).next_back()) {
            (Some(state), _) => state.clone(),
            (None, Some(attempt)) => after(detail, attempt),
            (None, None) => without_attempt(detail, job, &told),
        };
        told.insert(name.clone(), state);
    }
    plan.into_iter()
        .zip(told.into_values())
        .map(|((name, job), state)| JobLine { name, job, state })
        .collect()
}

/// How a job stands after its newest attempt, when its run is over.
fn after(detail: &RunDetail, attempt: &Attempt) -> JobState {
    let at = attempt.ended_at.unwrap_or(attempt.claimed_at);
    match &attempt.outcome {
        Some(AttemptOutcome::Succeeded { images }) => JobState::Succeeded {
            images: images.clone(),
        },
        Some(AttemptOutcome::Failed { failure }) => JobState::Failed {
            failure: failure.clone(),
            at,
        },
        Some(AttemptOutcome::TimedOut { step }) => JobState::TimedOut {
            step: step.clone(),
            at,
        },
        Some(AttemptOutcome::Cancelled) => JobState::Cancelled { at },
        None if matches!(detail.run.state, RunState::Cancelled { .. }) => {
            JobState::Cancelled { at }
        }
        Some(AttemptOutcome::Errored { reason }) => JobState::Failed {
            failure: Failure::errored(reason.clone()),
            at,
        },
        None => JobState::Failed {
            failure: Failure::errored(format!("runner {} was lost", attempt.runner)),
            at,
        },
    }
}

/// How a job stands that no runner has had.
fn without_attempt(
    detail: &RunDetail,
    job: &Job,
    before: &IndexMap<JobName, JobState>,
) -> JobState {
    let wrong = job.needs.iter().find(|need| {
        let state = before.get(*need);
        state.is_some_and(|it| it.is_over() && !matches!(it, JobState::Succeeded { .. }))
    });
    match (detail.ended_at, wrong) {
        (None, _) => JobState::Waiting,
        (Some(_), Some(needed)) if !matches!(detail.run.state, RunState::Cancelled { .. }) => {
            JobState::Skipped {
                needed: needed.clone(),
            }
        }
        (Some(at), _) => JobState::Cancelled { at },
    }
}

/// A run's jobs as the API tells them.
pub(super) fn told(detail: &RunDetail) -> Vec<Value> {
    let line = |line: JobLine| {
        let attempts: Vec<u32> = detail.attempts_at(&line.name).map(|it| it.number).collect();
        let steps: Vec<&str> = line.job.steps.iter().map(StepName::as_str).collect();
        json!({
            "name": line.name, "steps": steps, "needs": line.job.needs,
            "runs_on": line.job.runs_on, "state": line.state, "attempts": attempts,
        })
    };
    of_run(detail).into_iter().map(line).collect()
}

/// A run's state with the word that people know it by: `queued` until one of its jobs has begun.
pub(super) fn state(state: &RunState) -> Value {
    let mut told = json!(state);
    told["state"] = json!(state.word());
    told
}
