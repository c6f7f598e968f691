//! What every page shares: the frame around it, people, times, commits, permissions, waits.

use super::state::{Role, Tone};

/// A point in time, in milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    /// This time plus `seconds`, which may be negative.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }
}

/// Who is looking at the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user's name.
    pub name: String,
    /// The role, shown beside the name.
    pub role: Role,
}

impl Viewer {
    /// Whether the navigation leads to the users.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

/// A message at the top of a page, once, after an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How it is coloured.
    pub tone: Tone,
    /// What happened, as a sentence.
    pub text: String,
}

/// What the layout around every page needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The server's clock when the page was made; every age on the page is counted from it.
    pub now: Time,
    /// Who is signed in; without one, the navigation is absent.
    pub viewer: Option<Viewer>,
    /// The result of the last action.
    pub notice: Option<Notice>,
    /// How many things wait for a person; shown beside "Home".
    pub needs: u64,
    /// The server's version, in the footer.
    pub version: String,
}

/// A person or a part of the system that did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user's name, or for example `auto-deploy`.
    pub name: String,
    /// How: `dashboard`, `api token ci`, `push`.
    pub via: String,
}

/// Whether the viewer may press a button, and what the page says when not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// The button works.
    Allowed,
    /// The button is shown disabled with this reason, a sentence that says who can act.
    Denied(String),
    /// The button makes no sense in this state and is not shown.
    Absent,
}

impl Permission {
    /// Whether the button works.
    #[must_use]
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// Why not, when the button is shown disabled.
    #[must_use]
    pub fn denied(&self) -> Option<&str> {
        match self {
            Self::Denied(reason) => Some(reason),
            Self::Allowed | Self::Absent => None,
        }
    }

    /// Whether anything is shown at all.
    #[must_use]
    pub fn present(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// A commit as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The full id in hexadecimal; pages shorten it.
    pub sha: String,
    /// The first line of the message.
    pub message: String,
    /// The author's name.
    pub author: String,
    /// What was pushed: `main`, `tag v1`.
    pub branch: String,
    /// The commit's page at the forge, an `https:` or `http:` address; anything else is not linked.
    pub url: Option<String>,
}

/// Why something is not moving. A thing that waits always has one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What waits, short: `production`, `run`.
    pub what: String,
    /// For what, as a phrase: `3 m more of healthy staging (7 of 10 m; reset 14:02 by target health)`.
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// Until when, if that is known.
    pub until: Option<Time>,
    /// Who can end the wait: `nobody needs to act`, `a deployer other than the author`.
    pub who: String,
}

/// Where a long list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// The page shown; the first is 1.
    pub page: u64,
    /// Whether there are older entries.
    pub more: bool,
}
