//! How the jobs of a run stand, for the pages and the API alike: from its state while it is at work, from their
//! newest attempts when it is over.

use crate::store::RunDetail;
use roadstead_pipelines::group::{self, Standing};
use roadstead_pipelines::id::{JobName, StepName};
use roadstead_pipelines::job::{Job, JobState};
use roadstead_pipelines::rerun;
use roadstead_pipelines::run::RunState;
use roadstead_pipelines::spec::Group;
use serde::Serialize;
use serde_json::{Value, json};

/// A job with how it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobLine {
    /// Its name.
    pub(super) name: JobName,
    /// What it is.
    pub(super) job: Job,
    /// How it stands.
    pub(super) state: JobState,
    /// How it stands in the line of its group.
    pub(super) standing: Option<Standing>,
}

impl JobLine {
    /// The group that it waits for, completing "waits for …".
    pub(super) fn waits_for_group(&self) -> Option<String> {
        group::waits_for(self.job.group.as_ref()?, self.standing.as_ref()?)
    }
}

/// The jobs of a run, each behind those that it needs; none before its file is read.
pub(super) fn of_run(detail: &RunDetail) -> Vec<JobLine> {
    let states = rerun::standing(&detail.seen(false, vec![]));
    let mut plan = detail.run.jobs();
    let line = |(name, state): (JobName, JobState)| {
        let job = plan.swap_remove(&name).unwrap_or_default();
        let of_group = |it| group::standing_of(&detail.lines, &detail.run.id, &name, it);
        let standing = job.group.as_ref().and_then(of_group);
        JobLine {
            job,
            name,
            state,
            standing,
        }
    };
    states.into_iter().map(line).collect()
}

/// A job's group as the API tells it, with how the job stands in its line.
#[derive(Serialize)]
struct ToldGroup<'a> {
    #[serde(flatten)]
    group: &'a Group,
    #[serde(flatten)]
    standing: Option<&'a Standing>,
}

/// A run's jobs as the API tells them.
pub(super) fn told(detail: &RunDetail) -> Vec<Value> {
    let line = |line: JobLine| {
        let attempts: Vec<u32> = detail.attempts_at(&line.name).map(|it| it.number).collect();
        let steps: Vec<&str> = line.job.steps.iter().map(StepName::as_str).collect();
        let group = line.job.group.as_ref().map(|group| ToldGroup {
            group,
            standing: line.standing.as_ref(),
        });
        json!({
            "name": line.name, "steps": steps, "needs": line.job.needs,
            "runs_on": line.job.runs_on, "group": group, "state": line.state, "attempts": attempts,
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
