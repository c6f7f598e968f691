//! GitHub: *REST API, Commit statuses*. A status is added under its context, and the newest one counts. It
//! takes 1,000 for a commit and context, and 140 characters of description.

use super::{Call, Told};
use crate::config::ToldForge;
use roadstead_pipelines::commit_status::State;
use roadstead_pipelines::id::CommitSha;
use serde_json::{Value, json};

/// What every call says beside the token.
pub(super) const HEADERS: &[(&str, &str)] = &[
    ("accept", "application/vnd.github+json"),
    ("x-github-api-version", "2022-11-28"),
];

pub(super) fn tell(to: &ToldForge, told: Told<'_>) -> Call {
    let repository = to.repository_path();
    let (owner, name) = repository.split_once('/').unwrap_or_default();
    Call::tell(
        ["repos", owner, name, "statuses", told.commit.as_str()],
        body(told),
    )
}

pub(super) fn look(to: &ToldForge, commit: &CommitSha) -> Call {
    let repository = to.repository_path();
    let (owner, name) = repository.split_once('/').unwrap_or_default();
    let path = ["repos", owner, name, "commits", commit.as_str(), "statuses"];
    Call::look(path, &[("per_page", "1")])
}

/// The body that Gitea and Forgejo take, too.
pub(super) fn body(told: Told<'_>) -> Value {
    json!({
        "state": word(told.status.state),
        "target_url": told.page,
        "description": told.status.description,
        "context": told.context(),
    })
}

fn word(state: State) -> &'static str {
    match state {
        State::Pending | State::Running => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Error | State::Cancelled => "error",
    }
}
