//! The list of calls to the world outside. Whatever the server does to a forge, a registry or ECS
//! because of a plan is a variant here; crash tests are made from this enum.

use crate::id::{DeploymentId, RunId};
use serde::{Deserialize, Serialize};

/// One external call. Idempotent: performed as observe, act, observe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Fetch the commit into the mirror and read its pipeline file.
    ReadSources {
        /// For this run.
        run: RunId,
    },
    /// Make sure that the images' repositories exist.
    PrepareRegistry {
        /// For this run.
        run: RunId,
    },
    /// Look the pushed digests up in the registry.
    ConfirmImages {
        /// For this run.
        run: RunId,
    },
    /// Register the task definition that carries the release's digests.
    RegisterTaskDefinition {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Start the task of `before_deploy`.
    StartBeforeDeploy {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Wait for the end of that task.
    WatchBeforeDeploy {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Stop that task: it ran for too long.
    StopBeforeDeploy {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Point the service to the registered definition.
    UpdateService {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Ask ECS to take the rollout back.
    StopRollout {
        /// For this deployment.
        deployment: DeploymentId,
    },
}

impl Effect {
    /// The word for rows, metrics and messages.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::ReadSources { .. } => "read_sources",
            Self::PrepareRegistry { .. } => "prepare_registry",
            Self::ConfirmImages { .. } => "confirm_images",
            Self::RegisterTaskDefinition { .. } => "register_task_definition",
            Self::StartBeforeDeploy { .. } => "start_before_deploy",
            Self::WatchBeforeDeploy { .. } => "watch_before_deploy",
            Self::StopBeforeDeploy { .. } => "stop_before_deploy",
            Self::UpdateService { .. } => "update_service",
            Self::StopRollout { .. } => "stop_rollout",
        }
    }

    /// The run or deployment it serves.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::ReadSources { run }
            | Self::PrepareRegistry { run }
            | Self::ConfirmImages { run } => run.as_str(),
            Self::RegisterTaskDefinition { deployment }
            | Self::StartBeforeDeploy { deployment }
            | Self::WatchBeforeDeploy { deployment }
            | Self::StopBeforeDeploy { deployment }
            | Self::UpdateService { deployment }
            | Self::StopRollout { deployment } => deployment.as_str(),
        }
    }

    /// Under this key it is stored once, however often it is planned.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.word(), self.subject())
    }
}
