//! The jobs of a run as its page shows them.

use super::time;
use crate::http::jobs::{self, JobLine};
use crate::http::runners::Standing;
use crate::store::{self, RunDetail};
use jiff::Timestamp;
use roadstead_pipelines::id::{JobName, StepName};
use roadstead_pipelines::job::{DEFAULT_JOB, JobState};
use roadstead_web::view::{Job, StepState};

/// The jobs of a run, each by the attempt of `shown`; none when it has the one alone that every run has, and no
/// more than one attempt at it.
pub(in super::super) fn jobs(
    detail: &RunDetail,
    runners: &[store::Runner],
    shown: &[u32],
    now: Timestamp,
) -> Vec<Job> {
    let lines = jobs::of_run(detail);
    if let [only] = lines.as_slice()
        && only.name.as_str() == DEFAULT_JOB
        && detail.attempts.len() < 2
    {
        return vec![];
    }
    let served = |line: &JobLine| {
        let mut live = runners
            .iter()
            .filter(|it| Standing::of(it, now).takes_work());
        line.job.runs_on.is_empty()
            || live.any(|it| {
                line.job
                    .runs_on
                    .iter()
                    .all(|label| it.labels.contains(label))
            })
    };
    lines
        .iter()
        .map(|line| one(detail, line, served(line), shown))
        .collect()
}

/// `served`: a runner that takes work has its labels.
fn one(detail: &RunDetail, line: &JobLine, served: bool, shown: &[u32]) -> Job {
    let newest = detail.attempts_at(&line.name).next_back();
    let (state, reason) = state_of(line, served);
    let names = |of: &StepName| of.to_string();
    Job {
        name: line.name.to_string(),
        state,
        reason,
        steps: line.job.steps.iter().map(names).collect(),
        matrix: matrix_of(detail, line),
        needs: line.job.needs.iter().map(ToString::to_string).collect(),
        labels: line.job.runs_on.iter().cloned().collect(),
        runner: newest.map(|attempt| attempt.runner.clone()),
        started: newest.map(|attempt| time(attempt.claimed_at)),
        ended: newest.and_then(|attempt| attempt.ended_at).map(time),
        attempts: detail.attempts_at(&line.name).map(|it| it.number).collect(),
        shown: detail
            .attempts_at(&line.name)
            .map(|it| it.number)
            .find(|number| shown.contains(number)),
        wrong: line.state.went_wrong_at().is_some() && newest.is_some(),
    }
}

/// `rust 1.95, db sqlite`.
fn matrix_of(detail: &RunDetail, line: &JobLine) -> String {
    let steps = detail.run.pipeline.as_ref().map(|it| &it.steps);
    let step = line.job.steps.first().zip(steps);
    let step = step.and_then(|(name, steps)| steps.get(name));
    let values = step.and_then(|it| it.matrix.as_ref()).map(|it| &it.values);
    let values = values.into_iter().flatten();
    let words: Vec<_> = values
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    words.join(", ")
}

fn state_of(line: &JobLine, served: bool) -> (StepState, String) {
    let labels: Vec<_> = line.job.runs_on.iter().map(String::as_str).collect();
    let labels = labels.join(", ");
    match &line.state {
        JobState::Waiting => {
            let needs: Vec<_> = line.job.needs.iter().map(JobName::as_str).collect();
            (
                StepState::Pending,
                format!("waits for {}", needs.join(", ")),
            )
        }
        JobState::Queued { .. } if let Some(group) = line.waits_for_group() => {
            (StepState::Pending, format!("waits for {group}"))
        }
        JobState::Queued { .. } if !served => {
            let reason =
                format!("waits for a runner with {labels}: none that takes work has all of them");
            (StepState::Pending, reason)
        }
        JobState::Queued { lost, .. } => {
            let with = match labels.as_str() {
                "" => String::new(),
                some => format!(" with {some}"),
            };
            let again = match lost {
                0 => String::new(),
                lost => format!(", attempt {}: the one before was lost", lost + 1),
            };
            (
                StepState::Pending,
                format!("waits for a runner{with}{again}"),
            )
        }
        JobState::Running { .. } => (StepState::Running, String::new()),
        JobState::Succeeded { .. } => (StepState::Succeeded, String::new()),
        JobState::Failed { failure, .. } => (StepState::Failed, failure.message.clone()),
        JobState::TimedOut { step, .. } => (
            StepState::TimedOut,
            format!("step {step} ran into its timeout"),
        ),
        JobState::Cancelled { .. } => (StepState::Cancelled, String::new()),
        JobState::Skipped { needed } => (StepState::Skipped, format!("needs {needed}")),
    }
}
