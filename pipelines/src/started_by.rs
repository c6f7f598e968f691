//! What started a run. It stays with the run: a run that is made of it again is started by the same.

use crate::Timestamp;
use crate::git_ref::GitRef;
use crate::pull_request::PullRequest;
use crate::spec::{Event, InputValues};
use serde::{Deserialize, Serialize};

/// What started a run, and what it brought along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum StartedBy {
    /// A push to a branch, or of a tag.
    #[default]
    Push,
    /// A person, by the button *Run*, the API or the command line.
    Manual {
        /// Who.
        by: String,
        /// What they gave; whether the file knows these inputs shows once it is read.
        inputs: InputValues,
        /// They named a commit, which has to be one of the branch.
        #[serde(default)]
        commit_named: bool,
    },
    /// A pull request that was opened, got commits or was opened again.
    PullRequest(PullRequest),
    /// A schedule of the branch's newest file.
    Schedule {
        /// Its cron expression.
        cron: String,
        /// Its time zone.
        timezone: String,
        /// The moment that it names.
        at: Timestamp,
    },
}

impl StartedBy {
    /// The event that `when` of a step asks for.
    #[must_use]
    pub fn event(&self, git_ref: &str) -> Event {
        match self {
            Self::Push if GitRef::of(git_ref).is_tag() => Event::Tag,
            Self::Push => Event::Push,
            Self::PullRequest(_) => Event::PullRequest,
            Self::Manual { .. } => Event::Manual,
            Self::Schedule { .. } => Event::Schedule,
        }
    }

    /// Whether a push did.
    #[must_use]
    pub fn is_push(&self) -> bool {
        *self == Self::Push
    }

    /// Whether its forge told of it, so that a later one of the same ref takes its place, and what it checked need not
    /// be checked again.
    #[must_use]
    pub fn is_told_by_forge(&self) -> bool {
        match self {
            Self::Push | Self::PullRequest(_) => true,
            Self::Manual { .. } | Self::Schedule { .. } => false,
        }
    }

    /// The pull request, if one did.
    #[must_use]
    pub fn pull_request(&self) -> Option<&PullRequest> {
        match self {
            Self::PullRequest(pull_request) => Some(pull_request),
            Self::Push | Self::Manual { .. } | Self::Schedule { .. } => None,
        }
    }
}
