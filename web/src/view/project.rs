//! One project, and a run as a line of a list.

use askama::Template;

use super::frame::{Commit, Frame, Paging, Permission, Time};
use super::matrix::Matrix;
use super::state::RunState;
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/projects/{project}`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "project.html")]
pub struct ProjectPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The project's name.
    pub project: String,
    /// Where its repository is; shown as text.
    pub repository: String,
    /// What is where; `None` until a pipeline file with environments was seen.
    pub matrix: Option<Matrix>,
    /// How a run is started.
    pub start: StartForm,
    /// Its runs, newest first.
    pub runs: Vec<RunSummary>,
    /// Where the list of runs stands.
    pub paging: Paging,
    /// How to connect the forge.
    pub webhook: WebhookHelp,
}

/// The form that starts a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartForm {
    /// Whether the viewer may.
    pub permission: Permission,
    /// Whether it is open from the beginning.
    pub open: bool,
    /// The branch or tag that stands in it; may be empty.
    pub git_ref: String,
    /// The run that read the branch's newest file: `#41`; `None` when none was read yet.
    pub file_of: Option<String>,
    /// The inputs that this file asks for.
    pub inputs: Vec<StartInput>,
    /// What the form is known by: sent twice it starts one run.
    pub key: String,
}

/// An input of that form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartInput {
    /// Its name.
    pub name: String,
    /// What it is for. May be empty.
    pub description: String,
    /// Whether it has to be given.
    pub required: bool,
    /// What stands in it.
    pub value: String,
    /// What can be chosen; empty: a text.
    pub options: Vec<String>,
}

/// What the set-up help of a project says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookHelp {
    /// The server's address as forges reach it, without a path: `https://ci.example.com`.
    pub public_url: String,
    /// Where the secret is: `project.secret_file in roadstead.toml`. Never the secret itself.
    pub secret_hint: String,
    /// The last delivery of this project, if there was one.
    pub last_delivery: Option<Time>,
    /// When the branches were last compared with the repository.
    pub branches_compared: Option<Time>,
}

/// A run as a line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Its id in addresses.
    pub id: String,
    /// What it is called: `#41`.
    pub name: String,
    /// The project's name.
    pub project: String,
    /// What it builds.
    pub commit: Commit,
    /// How far it is.
    pub state: RunState,
    /// Why it is not green or not moving, one line: the failed step and its reason. May be empty.
    pub reason: String,
    /// What started it: `push by maya`, `retry by ole`.
    pub trigger: String,
    /// When it was asked for.
    pub created: Time,
    /// When its first job started.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
}
