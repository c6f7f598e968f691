//! Gitea and Forgejo: *repoCreateStatus* of their API, which is GitHub's in another place.

use super::{Call, Told, github};
use crate::config::ToldForge;
use roadstead_pipelines::id::CommitSha;

pub(super) fn tell(to: &ToldForge, told: Told<'_>) -> Call {
    github::tell(to, told)
}

pub(super) fn look(to: &ToldForge, commit: &CommitSha) -> Call {
    let repository = to.repository_path();
    let (owner, name) = repository.split_once('/').unwrap_or_default();
    let path = ["repos", owner, name, "statuses", commit.as_str()];
    Call::look(path, &[("limit", "1")])
}
