//! GitLab: *Commits API, Set commit pipeline status*. A status is a job of an external pipeline of the commit and
//! branch; it goes from pending to running to an end. The end is told again as another job of that name.

use super::{Call, Reply, Told};
use crate::config::ToldForge;
use roadstead_pipelines::commit_status::State;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::CommitSha;
use serde_json::{Value, json};

/// Characters of a branch's name that it takes.
const LONGEST_REF: usize = 255;

pub(super) fn tell(to: &ToldForge, told: Told<'_>) -> Call {
    let path = to.repository_path();
    let mut body = json!({
        "state": word(told.status.state),
        "name": told.context(),
        "target_url": told.page,
        "description": told.status.description,
    });
    let name = match GitRef::of(told.git_ref) {
        GitRef::Branch(name) | GitRef::Tag(name) | GitRef::Other(name) => name,
        GitRef::PullRequest(_) => told.git_ref,
    };
    if name.chars().count() <= LONGEST_REF {
        body["ref"] = Value::from(name);
    }
    Call::tell(["projects", &path, "statuses", told.commit.as_str()], body)
}

pub(super) fn look(to: &ToldForge, commit: &CommitSha) -> Call {
    let project = to.repository_path();
    let path = [
        "projects",
        &project,
        "repository",
        "commits",
        commit.as_str(),
        "statuses",
    ];
    Call::look(path, &[("per_page", "1")])
}

/// It refuses what the job is already, and to let it wait once it ran: then it shows as much as it can.
pub(super) fn shows_it_already(reply: &Reply) -> bool {
    reply.status.as_u16() == 400 && reply.said.starts_with("Cannot transition status via")
}

fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Success => "success",
        State::Failure | State::Error => "failed",
        State::Cancelled => "canceled",
    }
}
