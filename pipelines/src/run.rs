//! The life of a run: sources are read, a registry is prepared, runners do its jobs, the images are
//! confirmed, a release is made.
//!
//! A job ([`crate::job`]) is what is claimed, retried and fenced. A lost attempt is never used again: the job
//! goes back to the queue, and the next attempt in the run carries a higher fence. When a job fails, what needs
//! it is skipped and the others go on to their end: whoever mends it sees all that is broken at once. A run that
//! ended badly may go back to work ([`crate::rerun`]).

use crate::authorship::Authorship;
use crate::fact::{IllegalTransition, RunFact};
use crate::group;
use crate::id::{CommitSha, ImageName, JobName, ProjectName, ReleaseId, RunId, StepName};
use crate::job::{self, AtWork, Job, JobState, Jobs};
use crate::pull_request::{BaseFile, PullRequest, RunApproval, Trust};
use crate::release::{Images, TaskDefinitions, Variables};
use crate::report::Failure;
use crate::spec::{InputValues, LeftOut, Pipeline, StepAction};
use crate::started_by::StartedBy;
use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A job is tried at most this often: one attempt, and two more when a runner is lost.
pub const MOST_ATTEMPTS: u32 = 3;
/// After a cancel the server calls it final: grace of the runner plus one lease.
pub const CANCEL_IS_FINAL_AFTER: SignedDuration = SignedDuration::from_secs(40);

/// The word of [`RunState::Fetching`].
pub const FETCHING: &str = "fetching";
/// The word of [`RunState::WaitingForApproval`].
pub const WAITING_FOR_APPROVAL: &str = "waiting_for_approval";
/// The word of [`RunState::Building`] as long as no job has begun.
pub const QUEUED: &str = "queued";
/// The word of [`RunState::Building`].
pub const BUILDING: &str = "building";
/// The word of [`RunState::Confirming`].
pub const CONFIRMING: &str = "confirming";
/// The word of [`RunState::Confirmed`].
pub const CONFIRMED: &str = "confirmed";
/// The word of [`RunState::Succeeded`].
pub const SUCCEEDED: &str = "succeeded";

/// One execution of a pipeline for a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The project.
    pub project: ProjectName,
    /// The commit. Until the sources are read, what was pushed, which may be an annotated tag.
    pub commit: CommitSha,
    /// The ref that was pushed, or named by whoever started it: `refs/heads/main`, `refs/tags/v1`; of a pull request
    /// `refs/pull/7/head`.
    pub git_ref: String,
    /// What started it.
    #[serde(default)]
    pub started_by: StartedBy,
    /// First line of the commit's message; empty until the sources are read.
    pub message: String,
    /// Who wrote the commit; empty until the sources are read.
    pub author: String,
    /// Who made its commits; none until the sources are read.
    pub authorship: Option<Authorship>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// The file at that commit, once read.
    pub pipeline: Option<Pipeline>,
    /// Variables per environment at that commit, once read.
    pub variables: Variables,
    /// The file's inputs with their values, once the file is read.
    #[serde(default)]
    pub inputs: InputValues,
    /// Task definitions that come out of files, once read.
    pub task_definitions: TaskDefinitions,
    /// Steps that it leaves out because their `when` does not hold, once the file is read.
    pub left_out: LeftOut,
    /// Older runs that are cancelled for it as long as they build, once the file is read.
    pub supersedes: BTreeSet<RunId>,
    /// Where its file is from, once that is read, if not from its own commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_file: Option<BaseFile>,
    /// Who let it run, if somebody had to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<RunApproval>,
    /// Where its images go, once the registry is prepared.
    pub repositories: BTreeMap<ImageName, String>,
    /// Where it stands.
    pub state: RunState,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunState {
    /// The commit's sources and pipeline file are being read.
    Fetching,
    /// Nobody has said yet that this code may run.
    WaitingForApproval {
        /// Since when.
        since: Timestamp,
    },
    /// The repositories of its images are being made sure of.
    Preparing,
    /// Its jobs wait for runners, or runners work on them. One at least is not over.
    Building {
        /// The jobs.
        #[serde(flatten)]
        jobs: Jobs,
    },
    /// Somebody cancelled it; a runner has not confirmed yet that its containers stopped.
    Cancelling {
        /// The jobs. A runner works on one at least; those that wait will not begin.
        #[serde(flatten)]
        jobs: Jobs,
        /// Who cancelled.
        by: String,
        /// When the server stops waiting for runners.
        until: Timestamp,
    },
    /// The images are looked up in the registry.
    Confirming {
        /// What the runner says it pushed.
        images: Images,
    },
    /// The registry holds the images; the planner makes the release.
    Confirmed {
        /// The images.
        images: Images,
        /// See [`crate::release::Release::descendants`].
        #[serde(default)]
        descendants: BTreeSet<CommitSha>,
    },
    /// Over, well.
    Succeeded {
        /// The release it made; none when the pipeline builds no image.
        release: Option<ReleaseId>,
        /// When.
        at: Timestamp,
    },
    /// Over: its trigger does not want this push.
    Skipped {
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
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
    /// Over: somebody cancelled it.
    Cancelled {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
}

impl RunState {
    /// The word for people and the database.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fetching => FETCHING,
            Self::WaitingForApproval { .. } => WAITING_FOR_APPROVAL,
            Self::Preparing => "preparing",
            Self::Building { jobs } if !jobs.have_begun() => QUEUED,
            Self::Building { .. } => BUILDING,
            Self::Cancelling { .. } => "cancelling",
            Self::Confirming { .. } => CONFIRMING,
            Self::Confirmed { .. } => CONFIRMED,
            Self::Succeeded { .. } => SUCCEEDED,
            Self::Skipped { .. } => "skipped",
            Self::Failed { .. } => "failed",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// It builds, or is on its way to that: what it would make is not there yet.
    #[must_use]
    pub fn can_be_cancelled(&self) -> bool {
        match self {
            Self::Fetching
            | Self::WaitingForApproval { .. }
            | Self::Preparing
            | Self::Building { .. } => true,
            Self::Cancelling { .. }
            | Self::Confirming { .. }
            | Self::Confirmed { .. }
            | Self::Succeeded { .. }
            | Self::Skipped { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. } => false,
        }
    }

    /// Its jobs, as long as they are not all over.
    #[must_use]
    pub fn jobs(&self) -> Option<&Jobs> {
        match self {
            Self::Building { jobs } | Self::Cancelling { jobs, .. } => Some(jobs),
            Self::Fetching
            | Self::WaitingForApproval { .. }
            | Self::Preparing
            | Self::Confirming { .. }
            | Self::Confirmed { .. }
            | Self::Succeeded { .. }
            | Self::Skipped { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// Its jobs that may be given to a runner, each with since when it waits.
    pub fn claimable(&self) -> impl Iterator<Item = (&JobName, Timestamp)> {
        let jobs = match self {
            Self::Building { jobs } => Some(jobs),
            _ => None,
        };
        let queued = jobs.into_iter().flat_map(Jobs::queued);
        queued.map(|(job, _, since)| (job, since))
    }

    /// Its jobs that a runner works on.
    pub fn at_work(&self) -> impl Iterator<Item = AtWork<'_>> {
        self.jobs().into_iter().flat_map(Jobs::at_work)
    }

    /// Nothing changes it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Fetching
            | Self::WaitingForApproval { .. }
            | Self::Preparing
            | Self::Building { .. }
            | Self::Cancelling { .. }
            | Self::Confirming { .. }
            | Self::Confirmed { .. } => false,
            Self::Succeeded { .. }
            | Self::Skipped { .. }
            | Self::Failed { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. } => true,
        }
    }
}

/// How a runner says that an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Every step succeeded.
    Succeeded {
        /// The images that were pushed.
        images: Images,
    },
    /// The user's code failed.
    Failed {
        /// The failure.
        failure: Failure,
    },
    /// The runner failed, not the user's code.
    Errored {
        /// What it said.
        reason: String,
    },
    /// It was stopped on request.
    Cancelled,
    /// A step ran into its timeout.
    TimedOut {
        /// That step.
        step: StepName,
    },
}

impl Run {
    /// A run that was just asked for.
    #[must_use]
    pub fn asked_for(id: RunId, commit: CommitSha, git_ref: String, now: Timestamp) -> Self {
        Self {
            project: id.project(),
            id,
            commit,
            git_ref,
            started_by: StartedBy::Push,
            message: String::new(),
            author: String::new(),
            authorship: None,
            created_at: now,
            pipeline: None,
            variables: Variables::new(),
            inputs: InputValues::new(),
            task_definitions: TaskDefinitions::default(),
            left_out: LeftOut::new(),
            supersedes: BTreeSet::new(),
            base_file: None,
            approval: None,
            repositories: BTreeMap::new(),
            state: RunState::Fetching,
        }
    }

    /// The only way that a run changes.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the fact does not fit the state; the run is then left as it was.
    pub fn apply(&self, fact: &RunFact, at: Timestamp) -> Result<Self, IllegalTransition> {
        let mut next = self.clone();
        next.state = match (&self.state, fact) {
            (RunState::Fetching, RunFact::SourcesRead(read)) => {
                if let Some(commit) = &read.commit {
                    next.commit.clone_from(commit);
                }
                next.message.clone_from(&read.message);
                next.author.clone_from(&read.author);
                next.authorship = Some(read.authorship.clone());
                next.pipeline = Some(read.pipeline.clone());
                next.variables.clone_from(&read.variables);
                next.inputs.clone_from(&read.inputs);
                next.task_definitions.clone_from(&read.task_definitions);
                next.left_out.clone_from(&read.left_out);
                next.supersedes.clone_from(&read.supersedes);
                next.base_file.clone_from(&read.base_file);
                match &read.skip {
                    Some(reason) => RunState::Skipped {
                        reason: reason.clone(),
                        at,
                    },
                    None if self.trust().is_trusted() => RunState::Preparing,
                    None => RunState::WaitingForApproval { since: at },
                }
            }
            (RunState::WaitingForApproval { .. }, RunFact::Approved { by, commit })
                if *commit == self.commit =>
            {
                next.approval = Some(RunApproval {
                    by: by.clone(),
                    commit: commit.clone(),
                    at,
                });
                RunState::Preparing
            }
            (RunState::Preparing, RunFact::RegistryPrepared { repositories }) => {
                next.repositories.clone_from(repositories);
                let plan = self.jobs();
                self.with_jobs(Jobs::new(plan.keys()), at)
            }
            (
                RunState::Building { jobs },
                RunFact::JobClaimed {
                    job,
                    attempt,
                    runner,
                },
            ) if *attempt == jobs.attempts + 1 => self.claimed(jobs, job, runner, at)?,
            (RunState::Building { jobs }, RunFact::AttemptLost { attempt, reason })
                if let Some(lost) = of_attempt(jobs, *attempt) =>
            {
                let state = self.after_loss(lost, reason, at);
                self.with_jobs(jobs.clone().with(lost.job, state), at)
            }
            (RunState::Building { jobs }, RunFact::AttemptEnded { attempt, outcome })
                if let Some(ended) = of_attempt(jobs, *attempt) =>
            {
                let state = self.after_end(ended, outcome, at);
                self.with_jobs(jobs.clone().with(ended.job, state), at)
            }
            (RunState::Building { jobs }, RunFact::CancelRequested { by }) => {
                if jobs.at_work().next().is_none() {
                    RunState::Cancelled { by: by.clone(), at }
                } else {
                    RunState::Cancelling {
                        jobs: jobs.clone(),
                        by: by.clone(),
                        until: at + CANCEL_IS_FINAL_AFTER,
                    }
                }
            }
            (
                RunState::Fetching | RunState::WaitingForApproval { .. } | RunState::Preparing,
                RunFact::CancelRequested { by },
            ) => RunState::Cancelled { by: by.clone(), at },
            (
                RunState::Cancelling { jobs, by, until },
                RunFact::AttemptEnded { attempt, .. } | RunFact::AttemptLost { attempt, .. },
            ) if let Some(ended) = of_attempt(jobs, *attempt) => {
                let jobs = jobs.clone().with(ended.job, JobState::Cancelled { at });
                let by = by.clone();
                if jobs.at_work().next().is_none() {
                    RunState::Cancelled { by, at }
                } else {
                    let until = *until;
                    RunState::Cancelling { jobs, by, until }
                }
            }
            (RunState::Cancelling { by, .. }, RunFact::CancelExpired) => {
                RunState::Cancelled { by: by.clone(), at }
            }
            (
                RunState::Failed { .. } | RunState::TimedOut { .. } | RunState::Cancelled { .. },
                RunFact::RerunRequested { again, ended, .. },
            ) if !again.is_empty() => self.with_jobs(ended.clone().with_waiting(again), at),
            (RunState::Confirming { images }, RunFact::ImagesConfirmed { descendants }) => {
                RunState::Confirmed {
                    images: images.clone(),
                    descendants: descendants.clone(),
                }
            }
            (RunState::Confirmed { .. }, RunFact::ReleaseMade { release }) => RunState::Succeeded {
                release: Some(release.clone()),
                at,
            },
            (state, RunFact::Refused { failure }) if !state.is_over() => RunState::Failed {
                failure: failure.clone(),
                at,
            },
            (state, fact) => {
                return Err(self.refused(state, fact));
            }
        };
        Ok(next)
    }
}

impl Run {
    /// The pull request that it is of, if it is of one.
    #[must_use]
    pub fn pull_request(&self) -> Option<&PullRequest> {
        self.started_by.pull_request()
    }

    /// Whose code it is of.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        self.pull_request().map_or(&Trust::Trusted, |it| &it.trust)
    }

    /// The first step that it leaves out and that builds images, which a release would need.
    #[must_use]
    pub fn build_left_out(&self) -> Option<&StepName> {
        let steps = &self.pipeline.as_ref()?.steps;
        let builds = |name: &&StepName| {
            let step = steps.get(*name);
            step.is_some_and(|step| matches!(step.action, StepAction::Build { .. }))
        };
        self.left_out.keys().find(builds)
    }

    /// Its jobs, as its file draws them and without what it leaves out, each behind those that it needs.
    #[must_use]
    pub fn jobs(&self) -> IndexMap<JobName, Job> {
        let pipeline = self.pipeline.as_ref();
        let jobs = pipeline.map_or_else(IndexMap::new, |it| job::jobs(it, &self.left_out));
        group::named(jobs, self)
    }

    fn refused(&self, state: &RunState, fact: &RunFact) -> IllegalTransition {
        IllegalTransition {
            subject: self.id.to_string(),
            state: state.word(),
            fact: fact.word(),
        }
    }

    fn claimed(
        &self,
        jobs: &Jobs,
        job: &JobName,
        runner: &str,
        at: Timestamp,
    ) -> Result<RunState, IllegalTransition> {
        let Some(JobState::Queued { lost, .. }) = jobs.jobs.get(job) else {
            let fact = RunFact::JobClaimed {
                job: job.clone(),
                attempt: jobs.attempts + 1,
                runner: runner.to_owned(),
            };
            return Err(self.refused(&self.state, &fact));
        };
        let running = JobState::Running {
            attempt: jobs.attempts + 1,
            lost: *lost,
            runner: runner.to_owned(),
            since: at,
        };
        let mut jobs = jobs.clone().with(job, running);
        jobs.attempts += 1;
        Ok(RunState::Building { jobs })
    }

    /// What follows for the run from how its jobs stand.
    fn with_jobs(&self, jobs: Jobs, at: Timestamp) -> RunState {
        let jobs = jobs.moved_on(&self.jobs(), at);
        if !jobs.are_over() {
            return RunState::Building { jobs };
        }
        match jobs.first_wrong() {
            None => self.all_succeeded(jobs.images(), at),
            Some((_, JobState::TimedOut { step, .. })) => RunState::TimedOut {
                step: step.clone(),
                at,
            },
            Some((_, JobState::Failed { failure, .. })) => RunState::Failed {
                failure: failure.clone(),
                at,
            },
            Some(_) => RunState::Cancelled {
                by: "the runner".into(),
                at,
            },
        }
    }

    fn all_succeeded(&self, images: Images, at: Timestamp) -> RunState {
        // What a pull request builds is for nobody, whatever its runner says of it.
        let for_nobody = self.pull_request().is_some() || self.build_left_out().is_some();
        if images.is_empty() || for_nobody {
            RunState::Succeeded { release: None, at }
        } else {
            RunState::Confirming { images }
        }
    }

    fn after_loss(&self, lost: AtWork<'_>, reason: &str, at: Timestamp) -> JobState {
        let attempts = lost.lost + 1;
        if attempts < MOST_ATTEMPTS {
            return JobState::Queued {
                lost: attempts,
                since: at,
            };
        }
        let message = format!("{MOST_ATTEMPTS} attempts were lost; the last one: {reason}");
        self.errored(lost.job, message, at)
    }

    fn after_end(&self, ended: AtWork<'_>, outcome: &AttemptOutcome, at: Timestamp) -> JobState {
        match outcome {
            AttemptOutcome::Succeeded { images } => JobState::Succeeded {
                images: images.clone(),
            },
            AttemptOutcome::Failed { failure } => JobState::Failed {
                failure: failure.clone(),
                at,
            },
            AttemptOutcome::Errored { .. } if ended.lost + 1 < MOST_ATTEMPTS => JobState::Queued {
                lost: ended.lost + 1,
                since: at,
            },
            AttemptOutcome::Errored { reason } => self.errored(ended.job, reason.clone(), at),
            AttemptOutcome::Cancelled => JobState::Cancelled { at },
            AttemptOutcome::TimedOut { step } => JobState::TimedOut {
                step: step.clone(),
                at,
            },
        }
    }

    /// A failure that names no step names its job, where a run has several.
    fn errored(&self, job: &JobName, message: String, at: Timestamp) -> JobState {
        let several = self.state.jobs().is_some_and(|jobs| jobs.jobs.len() > 1);
        let message = if several {
            format!("job {job}: {message}")
        } else {
            message
        };
        JobState::Failed {
            failure: Failure::errored(message),
            at,
        }
    }
}

/// The job that a runner works on under this number.
fn of_attempt(jobs: &Jobs, attempt: u32) -> Option<AtWork<'_>> {
    jobs.at_work().find(|work| work.attempt == attempt)
}

#[cfg(test)]
mod tests;
