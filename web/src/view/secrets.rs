//! What a project has to keep from everybody.

use askama::Template;

use super::frame::{Frame, Time};
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/projects/{project}/secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "secrets.html")]
pub struct SecretsPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The project's name.
    pub project: String,
    /// Those of the whole project first, then by environment and name.
    pub secrets: Vec<StoredSecret>,
    /// The environments of the pipeline file.
    pub environments: Vec<String>,
    /// What was wrong with the form that was sent. May be empty.
    pub error: String,
}

/// A secret as everybody but a step sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// Its name, after its environment and a slash if it is one's.
    pub name: String,
    /// Patterns of the branches whose runs may have it; empty: every branch.
    pub branches: Vec<String>,
    /// How often it was set.
    pub version: u64,
    /// Who set it last.
    pub set_by: String,
    /// When.
    pub set: Time,
}
