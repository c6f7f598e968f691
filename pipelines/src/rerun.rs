//! Jobs of a run that ended badly go back to work in the same run: which they are, or why that cannot be.
//!
//! What ended well keeps its images and artifacts and is not run again. Attempts go on counting, so that each new
//! one has a fence of its own; those before stay as they ended. A run that ended badly made no release, and so no
//! deployment has followed from it. Pure: the store looks at the run under its lane's lock and asks here.

use crate::action::Refusal;
use crate::fact::RunFact;
use crate::id::{JobName, RunId};
use crate::job::{Job, JobState, Jobs};
use crate::planner::takes_place_of;
use crate::report::Failure;
use crate::run::{AttemptOutcome, Run, RunState};
use indexmap::IndexMap;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Who.
    pub by: String,
    /// Jobs by their names; none for all that did not end well.
    pub jobs: BTreeSet<String>,
    /// How many attempts the run had when they saw it over. The same wish again then does nothing more.
    pub after: Option<u32>,
}

/// An attempt as far as the standing of its job follows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried<'a> {
    /// Its number in the run.
    pub number: u32,
    /// Its job.
    pub job: &'a JobName,
    /// Its runner's id.
    pub runner: &'a str,
    /// When it was over, or was begun where it is not.
    pub at: Timestamp,
    /// How it ended; none when it was lost.
    pub outcome: Option<&'a AttemptOutcome>,
}

/// What a decision reads.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The run.
    pub run: &'a Run,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// Its attempts, the first one first.
    pub attempts: Vec<Tried<'a>>,
    /// Retention took its logs and artifacts away.
    pub logs_removed: bool,
    /// Runs of its branch or tag that are not over.
    pub open: Vec<&'a Run>,
}

/// Sends jobs of a run back to work. None when that was done since the wish was made.
///
/// # Errors
/// [`Refusal`] with the reason: the run is at work or ended well, none of its jobs has begun, retention has taken
/// what they left, a newer run takes its place, or a job is unknown, ended well or needs another one first.
pub fn rerun(seen: &Seen<'_>, wish: &Wish) -> Result<Option<RunFact>, Refusal> {
    let run = seen.run;
    let plan = run.jobs();
    let unknown = |name: &&String| !plan.contains_key(name.as_str());
    if let Some(name) = wish.jobs.iter().find(unknown) {
        let known: Vec<_> = plan.keys().map(JobName::as_str).collect();
        let known = if known.is_empty() {
            "none, since its pipeline file was not read".to_owned()
        } else {
            known.join(", ")
        };
        return refuse(format!(
            "{} has no job `{name}`; its jobs are: {known}",
            run.id
        ));
    }
    let attempts = seen.attempts.iter().map(|it| it.number).max();
    let attempts = attempts.unwrap_or_default();
    if let Some(after) = wish.after
        && (after < attempts || !run.state.is_over())
    {
        return Ok(None);
    }
    may_go_on(seen)?;
    let jobs = standing(seen).into_iter().collect();
    let ended = Jobs { attempts, jobs };
    let again = chosen(&run.id, &plan, &ended, &wish.jobs)?;
    Ok(Some(RunFact::RerunRequested {
        by: wish.by.clone(),
        again,
        ended,
    }))
}

fn refuse<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal(message))
}

/// Whether the run as a whole may go back to work.
fn may_go_on(seen: &Seen<'_>) -> Result<(), Refusal> {
    let id = &seen.run.id;
    match &seen.run.state {
        RunState::Failed { .. } | RunState::TimedOut { .. } | RunState::Cancelled { .. } => {}
        RunState::Succeeded { .. } => {
            return refuse(format!("{id} succeeded: none of its jobs has to run again"));
        }
        RunState::Skipped { reason, .. } => {
            return refuse(format!("{id} has run no job: {reason}"));
        }
        at_work => {
            let word = at_work.word();
            return refuse(format!(
                "{id} is {word}: jobs run again once it is over; cancel it first"
            ));
        }
    }
    if seen.attempts.is_empty() {
        return refuse(format!(
            "no job of {id} has begun: start a new run of its commit (`roadstead retry {id}`)"
        ));
    }
    if seen.logs_removed {
        return refuse(format!(
            "retention removes the logs and artifacts of {id}: start a new run of its commit \
             (`roadstead retry {id}`)"
        ));
    }
    // A newer commit of a pull request takes the place of what was built of it, also of what was over by then.
    let is_newer =
        |it: &&&Run| it.pull_request().is_some() && it.id.number() > seen.run.id.number();
    let newer = seen
        .open
        .iter()
        .find(|it| takes_place_of(it, seen.run) || is_newer(it));
    match newer {
        Some(newer) => refuse(format!(
            "{}, which supersedes {id}, is {}: {id} would be cancelled for it",
            newer.id,
            newer.state.word()
        )),
        None => Ok(()),
    }
}

/// The jobs that run again: those that are named, else all that did not end well, and with them those that never
/// began because of one of them.
fn chosen(
    run: &RunId,
    plan: &IndexMap<JobName, Job>,
    ended: &Jobs,
    named: &BTreeSet<String>,
) -> Result<BTreeSet<JobName>, Refusal> {
    let ended_well =
        |job: &JobName| matches!(ended.jobs.get(job), Some(JobState::Succeeded { .. }));
    let is_named = |job: &JobName| named.is_empty() || named.contains(job.as_str());
    if let Some(well) = plan
        .keys()
        .find(|job| !named.is_empty() && is_named(job) && ended_well(job))
    {
        return refuse(format!(
            "job {well} of {run} ended well: it is not run again"
        ));
    }
    let mut again = BTreeSet::new();
    for (name, job) in plan.iter().filter(|(name, _)| !ended_well(name)) {
        let never_began = matches!(
            ended.jobs.get(name),
            Some(JobState::Skipped { .. } | JobState::Cancelled { .. })
        );
        let follows = never_began && job.needs.iter().any(|need| again.contains(need));
        if is_named(name) || follows {
            again.insert(name.clone());
        }
    }
    for job in again
        .iter()
        .filter(|job| !named.is_empty() && is_named(job))
    {
        let open = |need: &&JobName| !ended_well(need) && !again.contains(*need);
        if let Some(need) = plan[job].needs.iter().find(open) {
            return refuse(format!(
                "job {job} of {run} needs {need}, which did not end well: run {need} again, and {job} follows"
            ));
        }
    }
    if again.is_empty() {
        return refuse(format!(
            "every job of {run} ended well: what failed came after them; start a new run of its commit \
             (`roadstead retry {run}`)"
        ));
    }
    Ok(again)
}

/// How each job of a run stands, behind those that it needs: from its state while it is at work, from their newest
/// attempts when it is over.
#[must_use]
pub fn standing(seen: &Seen<'_>) -> IndexMap<JobName, JobState> {
    let mut told: IndexMap<JobName, JobState> = IndexMap::new();
    for (name, job) in seen.run.jobs() {
        let live = seen.run.state.jobs().and_then(|it| it.jobs.get(&name));
        let newest = seen.attempts.iter().rfind(|it| *it.job == name);
        let state = match (live, newest) {
            (Some(state), _) => state.clone(),
            (None, Some(attempt)) => after(seen.run, attempt),
            (None, None) => without_attempt(seen, &job, &told),
        };
        told.insert(name, state);
    }
    told
}

/// How a job stands after its newest attempt, when its run is over.
fn after(run: &Run, attempt: &Tried<'_>) -> JobState {
    let at = attempt.at;
    match attempt.outcome {
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
        None if matches!(run.state, RunState::Cancelled { .. }) => JobState::Cancelled { at },
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
fn without_attempt(seen: &Seen<'_>, job: &Job, before: &IndexMap<JobName, JobState>) -> JobState {
    let wrong = job.needs.iter().find(|need| {
        let state = before.get(*need);
        state.is_some_and(|it| it.is_over() && !matches!(it, JobState::Succeeded { .. }))
    });
    match (seen.ended_at, wrong) {
        (None, _) => JobState::Waiting,
        (Some(_), Some(needed)) if !matches!(seen.run.state, RunState::Cancelled { .. }) => {
            JobState::Skipped {
                needed: needed.clone(),
            }
        }
        (Some(at), _) => JobState::Cancelled { at },
    }
}
