//! Why something failed, and why something does not move. Both are for people.

use crate::id::{DeploymentId, Place, ReleaseId, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The user's code, file or configuration.
    Failed,
    /// Roadstead, a runner, or something under them.
    Errored,
    /// A deadline passed.
    TimedOut,
    /// No room for tasks: not bad code.
    NoCapacity,
}

/// A failure as data: what, where, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault.
    pub kind: FailureKind,
    /// What happened and what to do, in a sentence or two.
    pub message: String,
    /// Evidence: diagnostics, stopped tasks with exit codes, last log lines.
    pub details: Vec<String>,
}

impl Failure {
    /// The user's code or file.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Failed,
            message: message.into(),
            details: vec![],
        }
    }
    /// Ours, or infrastructure's.
    #[must_use]
    pub fn errored(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Errored,
            message: message.into(),
            details: vec![],
        }
    }
    /// A deadline.
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::TimedOut,
            message: message.into(),
            details: vec![],
        }
    }
    /// With evidence.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "subject", rename_all = "snake_case")]
pub enum Subject {
    /// A run.
    Run {
        /// Its id.
        run: RunId,
    },
    /// A deployment.
    Deployment {
        /// Its id.
        deployment: DeploymentId,
    },
    /// A release that no deployment to this place has been opened for.
    Candidate {
        /// The release.
        release: ReleaseId,
        /// The place.
        place: Place,
    },
}

/// Who or what can make it move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhoActs {
    /// Nobody has to: time or Roadstead does.
    Roadstead,
    /// A runner.
    Runner,
    /// ECS.
    Ecs,
    /// Somebody with this role or a higher one.
    Role(crate::spec::Role),
}

/// Something that does not move, and why. No live run or deployment is without one, or without an
/// effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingOn {
    /// What waits.
    pub subject: Subject,
    /// For what: completes the sentence "it waits for …".
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when at the latest or at the earliest, as far as it is known.
    pub until: Option<Timestamp>,
    /// Who can act.
    pub who: WhoActs,
}
