//! What may happen to a run or a deployment. Webhooks, buttons, runners and finished effects only
//! record facts; `apply` on the run or deployment decides what a fact means.

use crate::authorship::Authorship;
use crate::deployment::{EcsRollout, OneOff, Trigger};
use crate::id::{CommitSha, DeploymentId, ImageName, JobName, Place, ReleaseId, RunId};
use crate::job::Jobs;
use crate::pull_request::BaseFile;
use crate::release::{Release, TaskDefinitions, Variables};
use crate::report::Failure;
use crate::run::AttemptOutcome;
use crate::spec::{InputValues, LeftOut, Pipeline};
use crate::world::Hold;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A fact that does not fit the state it met. A value, not a panic: a late or repeated report is
/// normal and is answered with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject} is {state}: `{fact}` does not fit")]
pub struct IllegalTransition {
    /// The run or deployment.
    pub subject: String,
    /// Its state.
    pub state: &'static str,
    /// The fact.
    pub fact: &'static str,
}

/// What reading a commit's sources gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourcesRead {
    /// The commit behind what was pushed; none in what was stored when only branches could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitSha>,
    /// The pipeline file.
    pub pipeline: Pipeline,
    /// First line of the commit's message.
    pub message: String,
    /// Who wrote it.
    pub author: String,
    /// Who made its commits, as `not_author` needs it.
    pub authorship: Authorship,
    /// Variables per environment: those of the file over those of its `env_file`, of which the later win.
    pub variables: Variables,
    /// Task definitions that come out of files.
    #[serde(default, skip_serializing_if = "TaskDefinitions::is_empty")]
    pub task_definitions: TaskDefinitions,
    /// Why the trigger does not want this push, if so.
    pub skip: Option<String>,
    /// Steps whose `when` does not hold.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
    /// The file's inputs, each with its value.
    #[serde(default, skip_serializing_if = "InputValues::is_empty")]
    pub inputs: InputValues,
    /// Nothing newer of the branch is known: its inputs are those that a person is asked for there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newest_of_branch: bool,
    /// Older runs that it takes the place of, as the file has `cancel_superseded`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub supersedes: BTreeSet<RunId>,
    /// Where the file is from, if not from the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_file: Option<BaseFile>,
}

/// What may happen to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum RunFact {
    /// The commit's sources were read.
    SourcesRead(Box<SourcesRead>),
    /// A deployer says that its code may run.
    Approved {
        /// Who.
        by: String,
        /// The commit that they looked at.
        commit: CommitSha,
    },
    /// The repositories of its images exist.
    RegistryPrepared {
        /// `registry/repository` of each image.
        repositories: BTreeMap<ImageName, String>,
    },
    /// A runner claimed a job.
    JobClaimed {
        /// The job.
        job: JobName,
        /// The attempt's number.
        attempt: u32,
        /// The runner's id.
        runner: String,
    },
    /// The lease ran out, or the runner said that it no longer runs the attempt.
    AttemptLost {
        /// The attempt's number.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// The runner told the end of the attempt.
    AttemptEnded {
        /// The attempt's number.
        attempt: u32,
        /// The end.
        outcome: AttemptOutcome,
    },
    /// The registry holds every image that the runner named.
    ImagesConfirmed {
        /// See [`crate::release::Release::descendants`].
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        descendants: BTreeSet<CommitSha>,
    },
    /// The release was made.
    ReleaseMade {
        /// Its id.
        release: ReleaseId,
    },
    /// Somebody pressed cancel.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// The runner did not confirm a cancel in time.
    CancelExpired,
    /// Somebody wants jobs of a run that ended badly to run again.
    RerunRequested {
        /// Who.
        by: String,
        /// These; all others stay as they ended.
        again: BTreeSet<JobName>,
        /// How every job had ended.
        ended: Jobs,
    },
    /// An effect will not succeed however often it is tried.
    Refused {
        /// Why.
        failure: Failure,
    },
}

impl RunFact {
    /// The word for messages and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::SourcesRead(_) => "sources_read",
            Self::Approved { .. } => "approved",
            Self::RegistryPrepared { .. } => "registry_prepared",
            Self::JobClaimed { .. } => "job_claimed",
            Self::AttemptLost { .. } => "attempt_lost",
            Self::AttemptEnded { .. } => "attempt_ended",
            Self::ImagesConfirmed { .. } => "images_confirmed",
            Self::ReleaseMade { .. } => "release_made",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::CancelExpired => "cancel_expired",
            Self::RerunRequested { .. } => "rerun_requested",
            Self::Refused { .. } => "refused",
        }
    }

    /// It moves a run's state and nothing else of it.
    #[must_use]
    pub fn moves_state_alone(&self) -> bool {
        match self {
            Self::SourcesRead(_) | Self::Approved { .. } | Self::RegistryPrepared { .. } => false,
            Self::JobClaimed { .. }
            | Self::AttemptLost { .. }
            | Self::AttemptEnded { .. }
            | Self::ImagesConfirmed { .. }
            | Self::ReleaseMade { .. }
            | Self::CancelRequested { .. }
            | Self::CancelExpired
            | Self::RerunRequested { .. }
            | Self::Refused { .. } => true,
        }
    }
}

/// What may happen to a deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum DeploymentFact {
    /// Its gates are open and its turn has come.
    Started {
        /// A definition that is registered already: a rollback goes to the one that ran.
        task_definition: Option<String>,
        /// What has to end well first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before_deploy: Option<OneOff>,
    },
    /// Its task definition is registered.
    TaskDefinitionRegistered {
        /// The definition's ARN.
        task_definition: String,
        /// The service does not exist, and is to be made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        creates: bool,
    },
    /// The task of `before_deploy` was started.
    BeforeDeployStarted {
        /// Its ARN.
        task: String,
    },
    /// The task of `before_deploy` ended well.
    BeforeDeploySucceeded,
    /// ECS accepted the update.
    ServiceUpdated {
        /// How the rollout is recognised afterwards.
        rollout: EcsRollout,
    },
    /// ECS made the service.
    ServiceCreated {
        /// How its first rollout is recognised afterwards.
        rollout: EcsRollout,
    },
    /// The rollout reached `done_when`.
    RolloutDone,
    /// The rollout failed and ECS takes it back, by itself or on request.
    EcsTakesBack {
        /// Why.
        failure: Failure,
    },
    /// Taking back is another deployment's work.
    RollbackOpened {
        /// Why.
        failure: Failure,
        /// That deployment.
        rollback: DeploymentId,
    },
    /// The place is back on a verified release.
    RolledBack {
        /// What was seen of the failed tasks meanwhile: they stop after ECS gave up on them.
        evidence: Vec<String>,
    },
    /// Taking back failed: people are needed.
    RollbackFailed {
        /// Why.
        failure: Failure,
    },
    /// Verification held for its whole time.
    Verified,
    /// It failed and nothing is taken back.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// A newer deployment, or somebody outside, replaced it.
    Superseded {
        /// By what.
        by: String,
    },
    /// Somebody cancelled it before ECS was asked for anything.
    Cancelled {
        /// Who.
        by: String,
    },
}

impl DeploymentFact {
    /// The word for messages and events.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::TaskDefinitionRegistered { .. } => "task_definition_registered",
            Self::BeforeDeployStarted { .. } => "before_deploy_started",
            Self::BeforeDeploySucceeded => "before_deploy_succeeded",
            Self::ServiceUpdated { .. } => "service_updated",
            Self::ServiceCreated { .. } => "service_created",
            Self::RolloutDone => "rollout_done",
            Self::EcsTakesBack { .. } => "ecs_takes_back",
            Self::RollbackOpened { .. } => "rollback_opened",
            Self::RolledBack { .. } => "rolled_back",
            Self::RollbackFailed { .. } => "rollback_failed",
            Self::Verified => "verified",
            Self::Failed { .. } => "failed",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}

/// One change to a project's rows. A list of these is committed as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Something happened to a run.
    Run {
        /// The run.
        run: RunId,
        /// The fact.
        fact: RunFact,
    },
    /// Something happened to a deployment.
    Deployment {
        /// The deployment.
        deployment: DeploymentId,
        /// The fact.
        fact: DeploymentFact,
    },
    /// A release is made.
    MakeRelease {
        /// The release.
        release: Release,
    },
    /// A deployment is asked for.
    OpenDeployment {
        /// Its id.
        deployment: DeploymentId,
        /// Where to.
        place: Place,
        /// What.
        release: ReleaseId,
        /// Forward or back.
        kind: crate::deployment::Kind,
        /// Who or what asked.
        trigger: Trigger,
    },
    /// Automation leaves a place alone from now on.
    SetHold {
        /// The place.
        place: Place,
        /// Why, since when, by whom.
        hold: Hold,
    },
    /// Automation may go on.
    ReleaseHold {
        /// The place.
        place: Place,
        /// Who said so.
        by: String,
    },
    /// Somebody approves a release for a place.
    Approve {
        /// The place.
        place: Place,
        /// The approval.
        approval: crate::world::Approval,
    },
    /// The project's environments and gates are those of this file from now on.
    AdoptPipeline {
        /// The file.
        pipeline: Box<Pipeline>,
    },
}
