//! The life of a deployment: queued → rolling out → verifying → deployed, and the ways off it.
//!
//! It is called deployed only after verification held. A rollback is a deployment of its own kind,
//! so it shares rollout, verification and health; a rollback that fails stops and is not rolled
//! back again. Once ECS was asked for the update, nothing cancels a deployment.

use crate::fact::{DeploymentFact, IllegalTransition};
use crate::id::{DeploymentId, Place, ReleaseId};
use crate::report::{Failure, FailureKind};
use crate::spec::{BeforeDeploy, Create};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Forward or back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// A release moves into the place.
    Forward,
    /// The place returns to a release that was verified there.
    Rollback {
        /// The deployment that is taken back; none when a person asked out of the blue.
        of: Option<DeploymentId>,
    },
}

/// Who or what asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trigger", rename_all = "snake_case")]
pub enum Trigger {
    /// The environment deploys by itself.
    Auto,
    /// A person.
    Manual {
        /// Who.
        by: String,
        /// Why, as they said it; may be empty.
        reason: String,
    },
}

/// How a rollout is recognised among ECS's deployments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsRollout {
    /// The PRIMARY deployment that the update made.
    pub deployment: String,
    /// The PRIMARY deployment before it; none when the service was new.
    pub previous: Option<String>,
}

/// What a task beside the service is to do, and where. It is settled when the deployment starts: a file
/// that is adopted meanwhile does not move a task that may run already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOff {
    /// What it does.
    pub run: BeforeDeploy,
    /// Where; the server's Region when absent.
    pub region: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The ECS service whose network and capacity it takes.
    pub service: String,
    /// The container that does it; when absent the only one, or the first essential.
    pub container: Option<String>,
    /// The network that it takes where the service is still to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Box<Create>>,
}

/// A task that runs once, beside the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneOffTask {
    /// Its ARN.
    pub arn: String,
    /// Since when it runs.
    pub started_at: Timestamp,
}

impl OneOffTask {
    /// The last part of its ARN, by which people know it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or(&self.arn)
    }
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rollout", rename_all = "snake_case")]
pub enum Rollout {
    /// The task definition is being registered.
    Registering {
        /// What has to end well before the service is updated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before_deploy: Option<OneOff>,
    },
    /// One task of the new definition does what has to be done before the service is updated.
    BeforeDeploy {
        /// The definition.
        task_definition: String,
        /// What it does, and where.
        before_deploy: OneOff,
        /// The task, once it was started.
        task: Option<OneOffTask>,
        /// The service is made afterwards: it does not exist.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        creates: bool,
    },
    /// The service is being made.
    Creating {
        /// The definition.
        task_definition: String,
    },
    /// The service is being updated.
    Updating {
        /// The definition.
        task_definition: String,
    },
    /// ECS replaces the tasks.
    Watching {
        /// The definition.
        task_definition: String,
        /// How to recognise it.
        ecs: EcsRollout,
        /// Since when ECS works on it.
        updated_at: Timestamp,
    },
}

impl Rollout {
    /// What ECS is asked for next.
    fn bringing(task_definition: &str, creates: bool) -> Self {
        let task_definition = task_definition.to_owned();
        if creates {
            Self::Creating { task_definition }
        } else {
            Self::Updating { task_definition }
        }
    }
}

/// Who takes a failed deployment back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum TakenBackBy {
    /// ECS, which returns to its last completed deployment.
    Ecs {
        /// How to recognise the rollout.
        ecs: EcsRollout,
        /// The definition that it brought.
        task_definition: String,
    },
    /// A rollback deployment.
    Deployment {
        /// Its id.
        rollback: DeploymentId,
    },
}

/// Where a deployment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeploymentState {
    /// Waits for gates and for its turn.
    Queued,
    /// Moves into the place.
    RollingOut {
        /// Since when.
        since: Timestamp,
        /// How far.
        #[serde(flatten)]
        rollout: Rollout,
    },
    /// The rollout is over; health and probes have to hold.
    Verifying {
        /// Since when.
        since: Timestamp,
        /// The definition that runs.
        task_definition: String,
        /// How its rollout was recognised.
        ecs: EcsRollout,
    },
    /// It failed and is being taken back.
    RollingBack {
        /// Why.
        failure: Failure,
        /// By whom.
        #[serde(flatten)]
        by: TakenBackBy,
        /// Since when.
        since: Timestamp,
    },
    /// Over: verified.
    Deployed {
        /// The definition that runs.
        task_definition: String,
        /// When.
        at: Timestamp,
    },
    /// Over: failed, and nothing was taken back.
    Failed {
        /// Why.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
    /// Over: failed, and the place is back on a verified release.
    RolledBack {
        /// Why it failed.
        failure: Failure,
        /// When it was back.
        at: Timestamp,
    },
    /// Over: failed, and taking back failed too. People are needed.
    RollbackFailed {
        /// Both reasons.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
    /// Over: something newer replaced it.
    Superseded {
        /// By what.
        by_what: String,
        /// When.
        at: Timestamp,
    },
    /// Over: cancelled before ECS was asked.
    Cancelled {
        /// By whom.
        by_whom: String,
        /// When.
        at: Timestamp,
    },
    /// Over: a deadline passed; what had begun was taken back.
    TimedOut {
        /// Which deadline.
        failure: Failure,
        /// When.
        at: Timestamp,
    },
}

impl DeploymentState {
    /// The word for people and the database.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::RollingOut { .. } => "rolling_out",
            Self::Verifying { .. } => "verifying",
            Self::RollingBack { .. } => "rolling_back",
            Self::Deployed { .. } => "deployed",
            Self::Failed { .. } => "failed",
            Self::RolledBack { .. } => "rolled_back",
            Self::RollbackFailed { .. } => "rollback_failed",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled { .. } => "cancelled",
            Self::TimedOut { .. } => "timed_out",
        }
    }

    /// Nothing changes it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Queued
            | Self::RollingOut { .. }
            | Self::Verifying { .. }
            | Self::RollingBack { .. } => false,
            Self::Deployed { .. }
            | Self::Failed { .. }
            | Self::RolledBack { .. }
            | Self::RollbackFailed { .. }
            | Self::Superseded { .. }
            | Self::Cancelled { .. }
            | Self::TimedOut { .. } => true,
        }
    }

    /// It has its hands on the service: at most one deployment of a place is.
    #[must_use]
    pub fn occupies(&self) -> bool {
        matches!(
            self,
            Self::RollingOut { .. }
                | Self::Verifying { .. }
                | Self::RollingBack {
                    by: TakenBackBy::Ecs { .. },
                    ..
                }
        )
    }
}

/// One try to put a release into a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id; a higher number was asked for later.
    pub id: DeploymentId,
    /// Where to.
    pub place: Place,
    /// What.
    pub release: ReleaseId,
    /// Forward or back.
    pub kind: Kind,
    /// Who asked.
    pub trigger: Trigger,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Where it stands.
    pub state: DeploymentState,
}

impl Deployment {
    /// It goes back, not forward.
    #[must_use]
    pub fn is_rollback(&self) -> bool {
        matches!(self.kind, Kind::Rollback { .. })
    }

    /// The only way that a deployment changes.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the fact does not fit the state; it is then left as it was.
    pub fn apply(&self, fact: &DeploymentFact, at: Timestamp) -> Result<Self, IllegalTransition> {
        use DeploymentFact as Fact;
        use DeploymentState as State;
        let state = match (&self.state, fact) {
            (
                State::Queued,
                Fact::Started {
                    task_definition,
                    before_deploy,
                },
            ) => State::RollingOut {
                since: at,
                rollout: match task_definition {
                    Some(known) => Rollout::Updating {
                        task_definition: known.clone(),
                    },
                    None => Rollout::Registering {
                        before_deploy: before_deploy.clone(),
                    },
                },
            },
            (
                State::RollingOut {
                    since,
                    rollout: Rollout::Registering { before_deploy },
                },
                Fact::TaskDefinitionRegistered {
                    task_definition,
                    creates,
                },
            ) => State::RollingOut {
                since: *since,
                rollout: match before_deploy {
                    Some(before_deploy) => Rollout::BeforeDeploy {
                        task_definition: task_definition.clone(),
                        before_deploy: before_deploy.clone(),
                        task: None,
                        creates: *creates,
                    },
                    None => Rollout::bringing(task_definition, *creates),
                },
            },
            (
                State::RollingOut {
                    since,
                    rollout:
                        Rollout::BeforeDeploy {
                            task_definition,
                            before_deploy,
                            task: None,
                            creates,
                        },
                },
                Fact::BeforeDeployStarted { task },
            ) => State::RollingOut {
                since: *since,
                rollout: Rollout::BeforeDeploy {
                    task_definition: task_definition.clone(),
                    before_deploy: before_deploy.clone(),
                    task: Some(OneOffTask {
                        arn: task.clone(),
                        started_at: at,
                    }),
                    creates: *creates,
                },
            },
            (
                State::RollingOut {
                    rollout:
                        Rollout::BeforeDeploy {
                            task_definition,
                            task: Some(_),
                            creates,
                            ..
                        },
                    ..
                },
                Fact::BeforeDeploySucceeded,
            ) => State::RollingOut {
                // The rollout's own time begins now: a migration may have taken longer.
                since: at,
                rollout: Rollout::bringing(task_definition, *creates),
            },
            (
                State::RollingOut {
                    since,
                    rollout: Rollout::Updating { task_definition },
                },
                Fact::ServiceUpdated { rollout },
            )
            | (
                State::RollingOut {
                    since,
                    rollout: Rollout::Creating { task_definition },
                },
                Fact::ServiceCreated { rollout },
            ) => State::RollingOut {
                since: *since,
                rollout: Rollout::Watching {
                    task_definition: task_definition.clone(),
                    ecs: rollout.clone(),
                    updated_at: at,
                },
            },
            (
                State::RollingOut {
                    rollout:
                        Rollout::Watching {
                            task_definition,
                            ecs,
                            ..
                        },
                    ..
                },
                Fact::RolloutDone,
            ) => State::Verifying {
                since: at,
                task_definition: task_definition.clone(),
                ecs: ecs.clone(),
            },
            (
                State::RollingOut {
                    rollout:
                        Rollout::Watching {
                            task_definition,
                            ecs,
                            ..
                        },
                    ..
                },
                Fact::EcsTakesBack { failure },
            ) => State::RollingBack {
                failure: failure.clone(),
                by: TakenBackBy::Ecs {
                    ecs: ecs.clone(),
                    task_definition: task_definition.clone(),
                },
                since: at,
            },
            (
                State::RollingOut {
                    rollout: Rollout::Watching { .. },
                    ..
                }
                | State::Verifying { .. }
                | State::RollingBack {
                    by: TakenBackBy::Ecs { .. },
                    ..
                },
                Fact::RollbackOpened { failure, rollback },
            ) if !self.is_rollback() => State::RollingBack {
                failure: failure.clone(),
                by: TakenBackBy::Deployment {
                    rollback: rollback.clone(),
                },
                since: at,
            },
            (State::RollingBack { failure, .. }, Fact::RolledBack { evidence }) => {
                let mut failure = failure.clone();
                if failure.details.is_empty() {
                    failure.details.clone_from(evidence);
                }
                if failure.kind == FailureKind::TimedOut {
                    State::TimedOut { failure, at }
                } else {
                    State::RolledBack { failure, at }
                }
            }
            (State::RollingBack { failure, .. }, Fact::RollbackFailed { failure: second }) => {
                let mut both = failure.clone();
                both.details
                    .push(format!("taking it back failed: {}", second.message));
                both.details.extend(second.details.iter().cloned());
                State::RollbackFailed { failure: both, at }
            }
            (
                State::Verifying {
                    task_definition, ..
                },
                Fact::Verified,
            ) => State::Deployed {
                task_definition: task_definition.clone(),
                at,
            },
            (
                State::RollingOut { .. } | State::Verifying { .. } | State::RollingBack { .. },
                Fact::Failed { failure },
            ) => State::Failed {
                failure: failure.clone(),
                at,
            },
            (
                State::Queued | State::RollingOut { .. } | State::Verifying { .. },
                Fact::Superseded { by },
            ) => State::Superseded {
                by_what: by.clone(),
                at,
            },
            (
                State::Queued
                | State::RollingOut {
                    rollout: Rollout::Registering { .. },
                    ..
                },
                Fact::Cancelled { by },
            ) => State::Cancelled {
                by_whom: by.clone(),
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
        Ok(Self {
            state,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a server that knew no `before_deploy` are read on.
    #[test]
    fn a_rollout_from_before_is_read() {
        let stored =
            r#"{"state":"rolling_out","since":"2026-01-05T10:00:00Z","rollout":"registering"}"#;
        let state: DeploymentState = serde_json::from_str(stored).unwrap();
        let rollout = Rollout::Registering {
            before_deploy: None,
        };
        assert!(matches!(&state, DeploymentState::RollingOut { rollout: r, .. } if *r == rollout));
        assert_eq!(serde_json::to_string(&state).unwrap(), stored);
    }
}
