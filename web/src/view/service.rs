//! One service in one environment: what was there, what could be there.

use askama::Template;

use super::deployment::{DeploymentSummary, Gate};
use super::frame::{Commit, Frame, Paging, Permission, Time};
use super::matrix::Cell;
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/projects/{project}/environments/{environment}/services/{service}`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "service.html")]
pub struct ServicePage {
    /// The layout around the page.
    pub frame: Frame,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// What is there now, as in the matrix.
    pub cell: Cell,
    /// Where it runs, in words: `cluster prod, service shop-api, eu-west-1`.
    pub place: String,
    /// What runs before each deployment, as people know it.
    pub before_deploy: Option<String>,
    /// The word to type to confirm promote and rollback, in guarded environments. The server
    /// checks the `confirm` field against it.
    pub confirm: Option<String>,
    /// Releases that may be promoted here, newest first, each with its gates.
    pub candidates: Vec<Candidate>,
    /// Whether the viewer may promote.
    pub promote: Permission,
    /// Whether the viewer may approve a candidate that waits for approval.
    pub approve: Permission,
    /// Releases that were verified here and are not live, newest first.
    pub rollback_targets: Vec<RollbackTarget>,
    /// Whether the viewer may roll back.
    pub rollback: Permission,
    /// Whether the viewer may set a hold. Resume is on the cell's hold.
    pub hold: Permission,
    /// Deployments, newest first.
    pub history: Vec<DeploymentSummary>,
    /// Where the history stands; `None` when all of it is shown.
    pub paging: Option<Paging>,
}

/// A release that could go here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The release's id, as forms send it.
    pub release_id: String,
    /// The release's name.
    pub release: String,
    /// Its commit.
    pub commit: Commit,
    /// The image's digest, `sha256:…`.
    pub digest: String,
    /// When it was built.
    pub built: Time,
    /// How many commits it adds to what is live, if known.
    pub commits_added: Option<u64>,
    /// What is special: `same commit, production variant: staging proves its sibling, built in the same run`. May be empty.
    pub note: String,
    /// What stands before it.
    pub gates: Vec<Gate>,
    /// Whether one of the gates waits for an approval.
    pub needs_approval: bool,
}

/// A release to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackTarget {
    /// The release's id, as forms send it.
    pub release_id: String,
    /// The release's name.
    pub release: String,
    /// Its commit.
    pub commit: Commit,
    /// The image's digest, `sha256:…`.
    pub digest: String,
    /// When it was last verified here.
    pub verified: Time,
    /// How long it was live here, in seconds, if known.
    pub live_seconds: Option<u64>,
    /// How many commits going back removes, if known.
    pub commits_removed: Option<u64>,
    /// What to know: `its image is no longer in the registry`. May be empty.
    pub note: String,
    /// Whether it can be chosen; when not, the reason is shown.
    pub available: Permission,
}
