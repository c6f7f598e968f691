//! Whose artifacts a step gets: those of steps in other jobs, which have ended well before its own began.
//!
//! What steps of its own job left lies in its workspace already.

use crate::id::{JobName, StepName};
use crate::run::Run;

/// A step whose artifacts another one gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// The step.
    pub step: StepName,
    /// Its job.
    pub job: JobName,
}

/// The steps of other jobs whose artifacts a step of a run gets, in the order in which it names them. One that the run
/// leaves out left nothing, and a step that does not need it any more gets nothing of it.
#[must_use]
pub fn givers(run: &Run, step: &StepName) -> Vec<Giver> {
    let Some(spec) = run.pipeline.as_ref().and_then(|it| it.steps.get(step)) else {
        return vec![];
    };
    let jobs = run.jobs();
    let job_of = |step: &StepName| {
        let mut jobs = jobs.iter();
        jobs.find(|(_, job)| job.steps.contains(step))
    };
    let Some((own, job)) = job_of(step) else {
        return vec![];
    };
    let named = spec.artifacts_from.iter().filter_map(|giver| {
        let (name, _) = job_of(giver)?;
        // A job that this one needs has ended well; no other has to have.
        (name != own && job.needs.contains(name)).then(|| Giver {
            step: giver.clone(),
            job: name.clone(),
        })
    });
    named.collect()
}
