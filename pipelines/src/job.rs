//! Which jobs a run has, and how far each of them is.
//!
//! All steps without `runs_on`, `matrix` or `concurrency` of their own share one job: one runner, one workspace. Such a step
//! that needs a step with a job of its own cannot be in the job that this one waits for; it comes into a later
//! job of the same kind, with fresh sources. So the shared jobs are told apart by how many jobs of single steps
//! lie before their steps, one behind the other.
//!
//! Pure. The names given here are in stored rows: they stay as they are for the life of a run.

use crate::id::{JobName, StepName};
use crate::release::Images;
use crate::report::Failure;
use crate::spec::{Group, LeftOut, Pipeline, Step};
use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the first job that steps share; the later ones are `default-2`, `default-3`, ….
pub const DEFAULT_JOB: &str = "default";

/// What one runner does of a run in one workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Its steps, in an order that respects `needs`.
    pub steps: Vec<StepName>,
    /// Jobs that have to succeed first.
    pub needs: BTreeSet<JobName>,
    /// Labels that its runner has to have.
    pub runs_on: BTreeSet<String>,
    /// The group that it is in.
    pub group: Option<Group>,
}

/// The jobs of a pipeline without the steps that a run leaves out, each behind those that it needs.
#[must_use]
pub fn jobs(pipeline: &Pipeline, left_out: &LeftOut) -> IndexMap<JobName, Job> {
    let mut borders: BTreeMap<&StepName, usize> = BTreeMap::new();
    let mut job_of: BTreeMap<&StepName, JobName> = BTreeMap::new();
    let mut jobs: IndexMap<JobName, Job> = IndexMap::new();
    for name in pipeline.steps_in_order() {
        if left_out.contains_key(name) {
            continue;
        }
        let step = &pipeline.steps[name];
        let needs = needs_of(step, pipeline, left_out);
        let own = step.has_own_job();
        let before = needs.iter().map(|need| {
            let border = !own && pipeline.steps[*need].has_own_job();
            borders.get(need).copied().unwrap_or_default() + usize::from(border)
        });
        let depth = before.max().unwrap_or_default();
        borders.insert(name, depth);
        let job = if own {
            JobName::of_step(name)
        } else {
            JobName::shared(depth)
        };
        let needed = needs.iter().filter_map(|need| job_of.get(need));
        let entry = jobs.entry(job.clone()).or_default();
        entry
            .needs
            .extend(needed.filter(|needed| **needed != job).cloned());
        entry.runs_on.extend(step.runs_on.iter().cloned());
        entry.group = entry.group.take().or_else(|| step.group.clone());
        entry.steps.push(name.clone());
        job_of.insert(name, job);
    }
    in_order(jobs)
}

/// Again and again the first job that may come now. There is no circle: of the shared jobs each needs only
/// such as have fewer borders before them.
fn in_order(mut jobs: IndexMap<JobName, Job>) -> IndexMap<JobName, Job> {
    let mut ordered: IndexMap<JobName, Job> = IndexMap::new();
    while let Some(index) = jobs.values().position(|job| {
        let mut needs = job.needs.iter();
        needs.all(|need| ordered.contains_key(need))
    }) {
        ordered.extend(jobs.shift_remove_index(index));
    }
    ordered
}

/// What a step needs of those that are not left out, each once: what needs one that is left out needs what that
/// one needs.
#[must_use]
pub fn needs_of<'p>(
    step: &'p Step,
    pipeline: &'p Pipeline,
    left_out: &LeftOut,
) -> BTreeSet<&'p StepName> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<&StepName> = step.needs.iter().collect();
    let mut seen: BTreeSet<&StepName> = open.iter().copied().collect();
    while let Some(name) = open.pop() {
        if !left_out.contains_key(name) {
            needed.insert(name);
            continue;
        }
        let further = pipeline.steps.get(name).map(|step| &step.needs);
        open.extend(
            further
                .into_iter()
                .flatten()
                .filter(|need| seen.insert(need)),
        );
    }
    needed
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Jobs that it needs are not over.
    Waiting,
    /// It waits for a runner.
    Queued {
        /// Attempts at it that were lost.
        lost: u32,
        /// Since when it waits.
        since: Timestamp,
    },
    /// A runner works on it.
    Running {
        /// The attempt's number in its run, which is also its fence.
        attempt: u32,
        /// Attempts at it that were lost before.
        lost: u32,
        /// The runner's id.
        runner: String,
        /// Since when.
        since: Timestamp,
    },
    /// Over, well.
    Succeeded {
        /// What the runner says it pushed.
        images: Images,
    },
    /// Over, badly.
    Failed {
        /// Why.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
    /// Over: a step ran into its timeout.
    TimedOut {
        /// That step.
        step: StepName,
        /// When.
        at: Timestamp,
    },
    /// Over: its runner stopped it.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// Over, and never begun: a job that it needs did not succeed.
    Skipped {
        /// That job.
        needed: JobName,
    },
}

impl JobState {
    /// The word for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled { .. } => "cancelled",
            Self::Skipped { .. } => "skipped",
        }
    }

    /// Nothing changes it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Waiting | Self::Queued { .. } | Self::Running { .. } => false,
            Self::Succeeded { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. }
            | Self::Skipped { .. } => true,
        }
    }

    /// When it ended badly, if it did so by itself.
    #[must_use]
    pub fn went_wrong_at(&self) -> Option<Timestamp> {
        match self {
            Self::Failed { at, .. } | Self::TimedOut { at, .. } | Self::Cancelled { at } => {
                Some(*at)
            }
            Self::Waiting
            | Self::Queued { .. }
            | Self::Running { .. }
            | Self::Succeeded { .. }
            | Self::Skipped { .. } => None,
        }
    }
}

/// A job that a runner works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtWork<'j> {
    /// The job.
    pub job: &'j JobName,
    /// Its attempt's number.
    pub attempt: u32,
    /// Attempts at it that were lost before.
    pub lost: u32,
    /// The runner's id.
    pub runner: &'j str,
    /// Since when.
    pub since: Timestamp,
}

/// The jobs of a run that is at work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    /// Attempts that were begun in the run; the next one gets the number behind.
    pub attempts: u32,
    /// Every job.
    pub jobs: BTreeMap<JobName, JobState>,
}

impl Jobs {
    /// Jobs of which none has begun; [`Self::moved_on`] lets in those that need none.
    #[must_use]
    pub fn new<'j>(names: impl IntoIterator<Item = &'j JobName>) -> Self {
        let names = names.into_iter();
        Self {
            attempts: 0,
            jobs: names
                .map(|name| (name.clone(), JobState::Waiting))
                .collect(),
        }
    }

    /// Those that a runner works on.
    pub fn at_work(&self) -> impl Iterator<Item = AtWork<'_>> {
        self.jobs.iter().filter_map(|(job, state)| match state {
            JobState::Running {
                attempt,
                lost,
                runner,
                since,
            } => Some(AtWork {
                job,
                attempt: *attempt,
                lost: *lost,
                runner,
                since: *since,
            }),
            _ => None,
        })
    }

    /// Those that wait for a runner, each with how many attempts at it were lost, and since when it waits.
    pub fn queued(&self) -> impl Iterator<Item = (&JobName, u32, Timestamp)> {
        self.jobs.iter().filter_map(|(job, state)| match state {
            JobState::Queued { lost, since } => Some((job, *lost, *since)),
            _ => None,
        })
    }

    /// A runner works on one, or one is over.
    #[must_use]
    pub fn have_begun(&self) -> bool {
        self.jobs.values().any(|state| match state {
            JobState::Waiting | JobState::Queued { .. } => false,
            JobState::Running { .. }
            | JobState::Succeeded { .. }
            | JobState::Failed { .. }
            | JobState::TimedOut { .. }
            | JobState::Cancelled { .. }
            | JobState::Skipped { .. } => true,
        })
    }

    /// Nothing changes any of them any more.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.jobs.values().all(JobState::is_over)
    }

    /// How many are over.
    #[must_use]
    pub fn over(&self) -> usize {
        self.jobs.values().filter(|state| state.is_over()).count()
    }

    /// The one that was the first to end badly.
    #[must_use]
    pub fn first_wrong(&self) -> Option<(&JobName, &JobState)> {
        let wrong = self.jobs.iter().filter_map(|(job, state)| {
            let at = state.went_wrong_at()?;
            Some((at, job, state))
        });
        let first = wrong.min_by_key(|(at, ..)| *at);
        first.map(|(_, job, state)| (job, state))
    }

    /// All that was pushed.
    #[must_use]
    pub fn images(&self) -> Images {
        let mut all = Images::new();
        for state in self.jobs.values() {
            if let JobState::Succeeded { images } = state {
                all.extend(images.clone());
            }
        }
        all
    }

    /// Lets those wait for a runner that need nothing more, and skips those that need what did not succeed.
    #[must_use]
    pub fn moved_on(mut self, plan: &IndexMap<JobName, Job>, at: Timestamp) -> Self {
        // Each stands behind what it needs, so that one look at each is enough.
        for (name, job) in plan {
            if self.jobs.get(name) != Some(&JobState::Waiting) {
                continue;
            }
            let state = |need: &JobName| self.jobs.get(need);
            let is_wrong = |need: &&JobName| {
                state(need).is_some_and(|state| {
                    state.is_over() && !matches!(state, JobState::Succeeded { .. })
                })
            };
            let is_open = |need: &JobName| state(need).is_some_and(|state| !state.is_over());
            let next = match job.needs.iter().find(is_wrong) {
                Some(needed) => JobState::Skipped {
                    needed: needed.clone(),
                },
                None if job.needs.iter().any(is_open) => continue,
                None => JobState::Queued { lost: 0, since: at },
            };
            self.jobs.insert(name.clone(), next);
        }
        self
    }

    /// With some that wait again for what they need, whatever became of them.
    #[must_use]
    pub fn with_waiting(mut self, again: &BTreeSet<JobName>) -> Self {
        for job in again {
            self = self.with(job, JobState::Waiting);
        }
        self
    }

    /// With another state of one job.
    #[must_use]
    pub fn with(mut self, job: &JobName, state: JobState) -> Self {
        self.jobs.insert(job.clone(), state);
        self
    }
}
