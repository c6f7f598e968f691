//! The life of a run: sources are read, a registry is prepared, a runner does the job, the images
//! are confirmed, a release is made.
//!
//! A run holds one job; the job is what is claimed, retried and fenced. A lost attempt is never
//! used again: the job goes back to the queue and the next attempt carries a higher fence.

use crate::authorship::Authorship;
use crate::fact::{IllegalTransition, RunFact};
use crate::id::{CommitSha, ImageName, ProjectName, ReleaseId, RunId, StepName};
use crate::release::{ImageRef, TaskDefinitions, Variables};
use crate::report::Failure;
use crate::spec::{InputValues, LeftOut, Pipeline, StepAction};
use crate::started_by::StartedBy;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A job is tried at most this often: one attempt, and two more when a runner is lost.
pub const MOST_ATTEMPTS: u32 = 3;
/// After a cancel the server calls it final: grace of the runner plus one lease.
pub const CANCEL_IS_FINAL_AFTER: SignedDuration = SignedDuration::from_secs(40);

/// The word of [`RunState::Fetching`].
pub const FETCHING: &str = "fetching";
/// The word of [`RunState::Queued`].
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
    /// The ref that was pushed, or named by whoever started it: `refs/heads/main` or `refs/tags/v1`.
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
    /// The repositories of its images are being made sure of.
    Preparing,
    /// Its job waits for a runner.
    Queued {
        /// The number that the next attempt gets, from 1.
        attempt: u32,
        /// Since when it waits.
        since: Timestamp,
    },
    /// A runner works on it.
    Building {
        /// The attempt's number, which is also its fence.
        attempt: u32,
        /// The runner's id.
        runner: String,
        /// Since when.
        since: Timestamp,
    },
    /// Somebody cancelled it; the runner has not confirmed that its containers stopped.
    Cancelling {
        /// The attempt to stop.
        attempt: u32,
        /// The runner that runs it.
        runner: String,
        /// Who cancelled.
        by: String,
        /// When the server stops waiting for the runner.
        until: Timestamp,
    },
    /// The images are looked up in the registry.
    Confirming {
        /// What the runner says it pushed.
        images: BTreeMap<ImageName, ImageRef>,
    },
    /// The registry holds the images; the planner makes the release.
    Confirmed {
        /// The images.
        images: BTreeMap<ImageName, ImageRef>,
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
            Self::Preparing => "preparing",
            Self::Queued { .. } => QUEUED,
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
            Self::Fetching | Self::Preparing | Self::Queued { .. } | Self::Building { .. } => true,
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

    /// Nothing changes it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Fetching
            | Self::Preparing
            | Self::Queued { .. }
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
        images: BTreeMap<ImageName, ImageRef>,
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
                match &read.skip {
                    Some(reason) => RunState::Skipped {
                        reason: reason.clone(),
                        at,
                    },
                    None => RunState::Preparing,
                }
            }
            (RunState::Preparing, RunFact::RegistryPrepared { repositories }) => {
                next.repositories.clone_from(repositories);
                let has_steps = self.pipeline.as_ref().is_some_and(|p| !p.steps.is_empty());
                if has_steps {
                    RunState::Queued {
                        attempt: 1,
                        since: at,
                    }
                } else {
                    RunState::Succeeded { release: None, at }
                }
            }
            (
                RunState::Queued { attempt, .. },
                RunFact::JobClaimed {
                    attempt: claimed,
                    runner,
                },
            ) if attempt == claimed => RunState::Building {
                attempt: *attempt,
                runner: runner.clone(),
                since: at,
            },
            (
                RunState::Building { attempt, .. },
                RunFact::AttemptLost {
                    attempt: lost,
                    reason,
                },
            ) if attempt == lost => {
                if *attempt < MOST_ATTEMPTS {
                    RunState::Queued {
                        attempt: attempt + 1,
                        since: at,
                    }
                } else {
                    let message =
                        format!("{MOST_ATTEMPTS} attempts were lost; the last one: {reason}");
                    RunState::Failed {
                        failure: Failure::errored(message),
                        at,
                    }
                }
            }
            (
                RunState::Building { attempt, .. },
                RunFact::AttemptEnded {
                    attempt: ended,
                    outcome,
                },
            ) if attempt == ended => self.ended_building(*attempt, outcome, at),
            (
                RunState::Building {
                    attempt, runner, ..
                },
                RunFact::CancelRequested { by },
            ) => RunState::Cancelling {
                attempt: *attempt,
                runner: runner.clone(),
                by: by.clone(),
                until: at + CANCEL_IS_FINAL_AFTER,
            },
            (
                RunState::Fetching | RunState::Preparing | RunState::Queued { .. },
                RunFact::CancelRequested { by },
            ) => RunState::Cancelled { by: by.clone(), at },
            (
                RunState::Cancelling { attempt, by, .. },
                RunFact::AttemptEnded { attempt: other, .. }
                | RunFact::AttemptLost { attempt: other, .. },
            ) if attempt == other => RunState::Cancelled { by: by.clone(), at },
            (RunState::Cancelling { by, .. }, RunFact::CancelExpired) => {
                RunState::Cancelled { by: by.clone(), at }
            }
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
                return Err(IllegalTransition {
                    subject: self.id.to_string(),
                    state: state.word(),
                    fact: fact.word(),
                });
            }
        };
        Ok(next)
    }
}

impl Run {
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

    fn ended_building(&self, attempt: u32, outcome: &AttemptOutcome, at: Timestamp) -> RunState {
        match outcome {
            AttemptOutcome::Succeeded { images }
                if images.is_empty() || self.build_left_out().is_some() =>
            {
                RunState::Succeeded { release: None, at }
            }
            AttemptOutcome::Succeeded { images } => RunState::Confirming {
                images: images.clone(),
            },
            AttemptOutcome::Failed { failure } => RunState::Failed {
                failure: failure.clone(),
                at,
            },
            AttemptOutcome::Errored { .. } if attempt < MOST_ATTEMPTS => RunState::Queued {
                attempt: attempt + 1,
                since: at,
            },
            AttemptOutcome::Errored { reason } => RunState::Failed {
                failure: Failure::errored(reason.clone()),
                at,
            },
            AttemptOutcome::Cancelled => RunState::Cancelled {
                by: "the runner".into(),
                at,
            },
            AttemptOutcome::TimedOut { step } => RunState::TimedOut {
                step: step.clone(),
                at,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ImageDigest;
    use crate::spec;

    const FILE: &str = "\
version: 1
name: shop
images: { api: { repository: shop/api }, web: { repository: shop/web } }
steps:
  api: { build: [api] }
  web: { build: [web], when: { branches: [main] } }
  docs: { image: a, run: b, when: { branches: [main] } }
";

    fn built(left_out: &str) -> RunState {
        let project = ProjectName::parse("shop").unwrap();
        let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let id = RunId::new(&project, 1);
        let mut run = Run::asked_for(id, commit, "refs/heads/topic".into(), now);
        run.pipeline = Some(spec::parse("f", FILE).unwrap());
        run.left_out = [(StepName::parse(left_out).unwrap(), "a reason".to_owned())].into();
        run.state = RunState::Building {
            attempt: 1,
            runner: "harbour".into(),
            since: now,
        };
        let api = ImageRef {
            repository_uri: "registry.test/shop/api".into(),
            digest: ImageDigest::parse(&format!("sha256:{}", "1".repeat(64))).unwrap(),
        };
        let images = [(ImageName::parse("api").unwrap(), api)].into();
        let outcome = AttemptOutcome::Succeeded { images };
        let fact = RunFact::AttemptEnded {
            attempt: 1,
            outcome,
        };
        run.apply(&fact, now).unwrap().state
    }

    #[test]
    fn a_run_that_leaves_a_build_out_makes_no_release() {
        let state = built("web");
        assert!(
            matches!(state, RunState::Succeeded { release: None, .. }),
            "{state:?}"
        );
        let state = built("docs");
        assert!(matches!(state, RunState::Confirming { .. }), "{state:?}");
    }
}
