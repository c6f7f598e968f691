//! The service × environment matrix and the home page around it.

use askama::Template;

use super::deployment::DeploymentSummary;
use super::frame::{Commit, Frame, Permission, Time, Waiting};
use super::project::RunSummary;
use super::state::{DeployMode, DeploymentKind, DeploymentState, Health};
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/`: everything at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "home.html")]
pub struct HomePage {
    /// The layout around the page.
    pub frame: Frame,
    /// One matrix per project, in the order of names.
    pub matrices: Vec<Matrix>,
    /// What waits for a person, the most urgent first.
    pub needs: Vec<Need>,
    /// Runs that have not ended.
    pub runs: Vec<RunSummary>,
    /// Deployments that have not ended.
    pub deployments: Vec<DeploymentSummary>,
    /// The last runs of each project's default branch, oldest first, at most 30.
    pub recent: Vec<ProjectRuns>,
}

/// What is where, of one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// The project's name.
    pub project: String,
    /// The columns, in promotion order.
    pub environments: Vec<EnvironmentHead>,
    /// The rows, one per service; each has as many cells as there are environments.
    pub rows: Vec<MatrixRow>,
}

/// The head of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentHead {
    /// The environment's name.
    pub name: String,
    /// Whether releases arrive by themselves.
    pub mode: DeployMode,
    /// The gates in words: `10 m healthy in staging, approval`.
    pub gates: String,
}

/// One service across all environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixRow {
    /// The service's name in the pipeline file.
    pub service: String,
    /// One per environment, in the order of the columns.
    pub cells: Vec<Cell>,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The environment's name.
    pub environment: String,
    /// What is live: the last release whose deployment ended `deployed`.
    pub live: Option<LiveRelease>,
    /// How it does.
    pub health: Health,
    /// A few words on it: `3 of 4 tasks healthy`. May be empty.
    pub health_detail: String,
    /// When the cluster last answered, if that is so long ago that the page must say it.
    pub last_seen: Option<Time>,
    /// How many commits the column before is ahead; 0 and `None` are not shown.
    pub behind: Option<u64>,
    /// What is moving here.
    pub in_flight: Option<InFlight>,
    /// What waits to come here, and for what.
    pub waiting: Vec<Waiting>,
    /// Automation is stopped here.
    pub hold: Option<Hold>,
}

/// What a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRelease {
    /// The release's name: `r12`.
    pub release: String,
    /// Its commit.
    pub commit: Commit,
    /// The image's digest, `sha256:…`.
    pub digest: String,
    /// The deployment that brought it, for the link.
    pub deployment: String,
    /// Since when it is live here.
    pub since: Time,
}

/// A deployment under way, as a cell shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// Its id, for the link.
    pub deployment: String,
    /// Which verb made it.
    pub kind: DeploymentKind,
    /// How far it is.
    pub state: DeploymentState,
    /// The release's name.
    pub release: String,
    /// Its commit.
    pub commit: Commit,
    /// A few words on progress: `2 of 4 tasks healthy`. May be empty.
    pub progress: String,
    /// Since when.
    pub since: Time,
}

/// Automation is stopped for one service in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who set it: a person, or `automatic rollback`.
    pub by: String,
    /// Since when.
    pub since: Time,
    /// Why.
    pub reason: String,
    /// Who can lift it, and how, as a phrase.
    pub who: String,
    /// Whether the viewer may press Resume.
    pub resume: Permission,
}

/// Why something is on the list of what needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedKind {
    /// A gate waits for an approval.
    Approval,
    /// A run or deployment failed and nothing newer repaired it.
    Failed,
    /// A hold stops automation.
    Held,
    /// A release waits in front of an environment with `deploy: manual`.
    Promotion,
}

impl NeedKind {
    /// The word on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Promotion => "ready to promote",
        }
    }

    /// The name of its icon in the sprite.
    #[must_use]
    pub fn icon(self) -> &'static str {
        match self {
            Self::Approval => "person",
            Self::Failed => "cross",
            Self::Held => "pause",
            Self::Promotion => "up",
        }
    }

    /// The class in the style sheet.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Approval | Self::Held => "warn",
            Self::Failed => "bad",
            Self::Promotion => "busy",
        }
    }
}

/// One thing that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Why it is on the list.
    pub kind: NeedKind,
    /// What: `shop: api r14 into production`.
    pub title: String,
    /// The reason as a sentence, and who can act.
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// Where to act, an address made by [`crate::urls`].
    pub url: String,
}

/// The last runs of one project, for the bars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRuns {
    /// The project's name.
    pub project: String,
    /// Oldest first, at most 30.
    pub runs: Vec<RunSummary>,
}
