//! Bitbucket Cloud: *Commit statuses, Create a build status for a commit*. A status is overwritten under its key,
//! of 40 characters at most; the address is required.

use super::{Call, Told};
use crate::config::ToldForge;
use roadstead_pipelines::commit_status::State;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::CommitSha;
use serde_json::{Value, json};

pub(super) fn tell(to: &ToldForge, told: Told<'_>) -> Call {
    let repository = to.repository_path();
    let (workspace, name) = repository.split_once('/').unwrap_or_default();
    let mut body = json!({
        "key": told.context(),
        "state": word(told.status.state),
        "name": told.context(),
        "url": told.page,
        "description": told.status.description,
    });
    if let GitRef::Branch(branch) = GitRef::of(told.git_ref) {
        body["refname"] = Value::from(branch);
    }
    let commit = told.commit.as_str();
    Call::tell(
        [
            "repositories",
            workspace,
            name,
            "commit",
            commit,
            "statuses",
            "build",
        ],
        body,
    )
}

pub(super) fn look(to: &ToldForge, commit: &CommitSha) -> Call {
    let repository = to.repository_path();
    let (workspace, name) = repository.split_once('/').unwrap_or_default();
    let path = [
        "repositories",
        workspace,
        name,
        "commit",
        commit.as_str(),
        "statuses",
    ];
    Call::look(path, &[("pagelen", "1")])
}

fn word(state: State) -> &'static str {
    match state {
        State::Pending | State::Running => "INPROGRESS",
        State::Success => "SUCCESSFUL",
        State::Failure | State::Error => "FAILED",
        State::Cancelled => "STOPPED",
    }
}
