//! Groups of jobs: of one group at most so many are at work at once, and the others wait in a line.
//!
//! A group is a project's own. Its line holds the jobs that are ready or at work, in the order in which they became
//! ready; places are given from its beginning, and nobody overtakes. A job leaves the line when it is over, or when
//! its run is cancelled and no runner works on it. A job whose attempt was lost keeps its place, and so its successors
//! wait until it is tried again or over; one that goes back to work in a rerun joins at the end.
//!
//! Pure: who stands in which line is the store's to keep, under the lane's lock.

use crate::git_ref::GitRef;
use crate::id::{JobName, RunId};
use crate::job::{Job, JobState};
use crate::run::{Run, RunState};
use crate::spec::Group;
use indexmap::IndexMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Before the names of the groups that runs of strangers' code are in. No name in a file has a colon, and no branch.
const FORKS: &str = "forks: ";

/// A job in a group's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its run.
    pub run: RunId,
    /// Its name there.
    pub job: JobName,
    /// At most so many at once, as the run's own file has it.
    pub limit: u32,
    /// It may be at work. Otherwise it waits.
    pub holds: bool,
}

/// The lines of a project's groups, each from its beginning, by the groups' names.
pub type Lines = BTreeMap<String, Vec<Place>>;

/// A job, by its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The job.
    pub job: JobName,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} of {}", self.job, self.run)
    }
}

/// How a job stands in its group's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// It has one of the places.
    Holds,
    /// It waits.
    Waits {
        /// Among those that wait: 1 is the next one.
        position: usize,
        /// Who has the places.
        held_by: Vec<Holder>,
    },
}

/// With the names of a run's groups: those that `{branch}` is a part of, and those of strangers' code, which have
/// groups of their own, so that they hold up nobody who is trusted.
#[must_use]
pub fn named(mut jobs: IndexMap<JobName, Job>, run: &Run) -> IndexMap<JobName, Job> {
    for group in jobs.values_mut().filter_map(|job| job.group.as_mut()) {
        *group = group.on(&GitRef::of(&run.git_ref).to_string());
        if !run.trust().is_trusted() {
            group.name.insert_str(0, FORKS);
        }
    }
    jobs
}

/// Whether any step of a run's file is in a group.
#[must_use]
pub fn are_named_by(run: &Run) -> bool {
    let steps = run.pipeline.iter().flat_map(|it| it.steps.values());
    steps.into_iter().any(|step| step.group.is_some())
}

/// The jobs of `plan` that stand in a line, as long as their run is in this state: those that are ready, and those
/// that runners work on.
#[must_use]
pub fn in_line<'p>(
    plan: &'p IndexMap<JobName, Job>,
    state: &RunState,
) -> IndexMap<&'p JobName, &'p Group> {
    let (jobs, may_begin) = match state {
        RunState::Building { jobs } => (jobs, true),
        RunState::Cancelling { jobs, .. } => (jobs, false),
        _ => return IndexMap::new(),
    };
    let stands = |name: &JobName| match jobs.jobs.get(name) {
        Some(JobState::Running { .. }) => true,
        Some(JobState::Queued { .. }) => may_begin,
        _ => false,
    };
    let grouped = plan
        .iter()
        .filter_map(|(name, job)| Some((name, job.group.as_ref()?)));
    grouped.filter(|(name, _)| stands(name)).collect()
}

/// Those of a line that get a place now, by where they stand in it: from the first that waits on, as long as no more
/// hold one then than any of these allows. Files of different commits may name different limits.
#[must_use]
pub fn let_in(line: &[Place]) -> Vec<usize> {
    let holders = || line.iter().filter(|place| place.holds);
    let waiting = line.iter().enumerate().filter(|(_, place)| !place.holds);
    let mut lowest = holders().map(|place| place.limit).min().unwrap_or(u32::MAX);
    let in_turn = (holders().count()..).zip(waiting);
    let entered = in_turn.take_while(|(held, (_, place))| {
        lowest = lowest.min(place.limit.max(1));
        *held < lowest as usize
    });
    entered.map(|(_, (index, _))| index).collect()
}

/// How a job stands in a line; none when it is not there.
#[must_use]
pub fn standing(line: &[Place], run: &RunId, job: &JobName) -> Option<Standing> {
    let is_it = |place: &&Place| place.run == *run && place.job == *job;
    if line.iter().find(is_it)?.holds {
        return Some(Standing::Holds);
    }
    let mut waiting = line.iter().filter(|place| !place.holds);
    let before = waiting.position(|place| is_it(&place))?;
    let holders = line.iter().filter(|place| place.holds);
    let held_by = holders.map(|place| Holder {
        run: place.run.clone(),
        job: place.job.clone(),
    });
    Some(Standing::Waits {
        position: before + 1,
        held_by: held_by.collect(),
    })
}

/// How a job of a run stands in the line of its group.
#[must_use]
pub fn standing_of(lines: &Lines, run: &RunId, job: &JobName, group: &Group) -> Option<Standing> {
    standing(lines.get(&group.name)?, run, job)
}

/// Whether a job waits in any line.
#[must_use]
pub fn waits(lines: &Lines, run: &RunId, job: &JobName) -> bool {
    let is_it = |place: &Place| !place.holds && place.run == *run && place.job == *job;
    lines.values().flatten().any(is_it)
}

/// What a job waits for, completing "it waits for …"; none when it does not wait in a line.
#[must_use]
pub fn waits_for(group: &Group, standing: &Standing) -> Option<String> {
    let Standing::Waits { position, held_by } = standing else {
        return None;
    };
    let holders: Vec<_> = held_by.iter().map(ToString::to_string).collect();
    let held = match holders.as_slice() {
        [] => String::new(),
        [most @ .., last] if !most.is_empty() => {
            format!(", held by {} and {last}", most.join(", "))
        }
        some => format!(", held by {}", some.join("")),
    };
    let before = match position - 1 {
        0 => String::new(),
        1 => "; 1 job is before it".to_owned(),
        more => format!("; {more} jobs are before it"),
    };
    Some(format!("group {}{held}{before}", group.name))
}
