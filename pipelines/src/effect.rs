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
    /// Make the service, with the registered definition.
    CreateService {
        /// For this deployment.
        deployment: DeploymentId,
    },
    /// Ask ECS to take the rollout back.
    StopRollout {
        /// For this deployment.
        deployment: DeploymentId,
    },
}

/// Who an effect has to wait for. One that does not answer is to hold up what waits for it, and nothing
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counterpart {
    /// The project's repository.
    Forge,
    /// Where images are.
    Registry,
    /// Where services are.
    Ecs,
}

impl Counterpart {
    /// Every one there is, the one first whose effects matter most to what runs.
    pub const ALL: [Self; 3] = [Self::Ecs, Self::Registry, Self::Forge];

    /// The word for rows and messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Forge => "forge",
            Self::Registry => "registry",
            Self::Ecs => "ecs",
        }
    }
}

impl Effect {
    /// Who it has to wait for; the forge, if there are several.
    #[must_use]
    pub fn counterpart(&self) -> Counterpart {
        match self {
            // The second one asks the registry, and then the repository for what comes after its commit.
            Self::ReadSources { .. } | Self::ConfirmImages { .. } => Counterpart::Forge,
            Self::PrepareRegistry { .. } => Counterpart::Registry,
            Self::RegisterTaskDefinition { .. }
            | Self::StartBeforeDeploy { .. }
            | Self::WatchBeforeDeploy { .. }
            | Self::StopBeforeDeploy { .. }
            | Self::UpdateService { .. }
            | Self::CreateService { .. }
            | Self::StopRollout { .. } => Counterpart::Ecs,
        }
    }

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
            Self::CreateService { .. } => "create_service",
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
            | Self::CreateService { deployment }
            | Self::StopRollout { deployment } => deployment.as_str(),
        }
    }

    /// Under this key it is stored once, however often it is planned.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.word(), self.subject())
    }
}
