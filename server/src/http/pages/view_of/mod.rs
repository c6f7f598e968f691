//! From the core's types to the views of the `web` house. Pure: what was loaded goes in, a view comes
//! out; nothing here asks the store.

mod deployment;
mod jobs;
mod needs;
mod place;
mod pull_requests;
mod run;
mod scene;

pub(super) use deployment::{
    cluster_events, counterpart, evidence, fact, rollouts, stopped_tasks, summary, targets,
};
pub(super) use jobs::jobs;
pub(super) use needs::needs;
pub(super) use pull_requests::notes;
pub(super) use run::{
    artifacts, diagnostics, earlier, inputs, release, run_reason, run_state, started_by, steps,
    summary_of_line, tests,
};
pub(super) use scene::{Scene, confirm_word};

use jiff::Timestamp;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::report::WhoActs;
use roadstead_pipelines::spec;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_web::view::{Commit, Permission, Role, Time};

/// A time as pages count it.
pub(super) fn time(at: Timestamp) -> Time {
    Time(at.as_millisecond())
}

/// A role as pages know it.
pub(super) fn role(role: spec::Role) -> Role {
    match role {
        spec::Role::Viewer => Role::Viewer,
        spec::Role::Deployer => Role::Deployer,
        spec::Role::Admin => Role::Admin,
    }
}

/// What comes after the project in an id: `r14` of `shop.r14`.
pub(super) fn short(id: &str) -> &str {
    id.split_once('.').map_or(id, |(_, short)| short)
}

/// What a run is called: `#41`.
pub(super) fn run_name(id: &str) -> String {
    format!("#{}", short(id))
}

/// Who can act, as a phrase.
pub(super) fn who_acts(who: &WhoActs) -> String {
    match who {
        WhoActs::Roadstead => "nobody needs to act".to_owned(),
        WhoActs::Runner => "a runner".to_owned(),
        WhoActs::Ecs => "ECS; nobody needs to act".to_owned(),
        WhoActs::Role(spec::Role::Admin) => "an admin".to_owned(),
        WhoActs::Role(role) => format!("a {role}"),
    }
}

/// Whether somebody's role suffices.
pub(super) fn needs_role(actor: &Actor, least: spec::Role) -> Permission {
    if actor.role >= least {
        Permission::Allowed
    } else {
        let article = if least == spec::Role::Admin {
            "an"
        } else {
            "a"
        };
        Permission::Denied(format!("{article} {least} can; you are {}", actor.role))
    }
}

/// At most `most` bytes of a text, whole characters.
pub(super) fn clip(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Where a project's commits can be looked at, from the address that git fetches from; credentials
/// in it stay here.
pub(super) fn commits_address(repository: &str) -> Option<String> {
    let mut address = url::Url::parse(repository).ok()?;
    if !matches!(address.scheme(), "http" | "https") {
        return None;
    }
    address.set_username("").ok()?;
    address.set_password(None).ok()?;
    address.set_query(None);
    address.set_fragment(None);
    let text = address.as_str().trim_end_matches('/');
    let text = text.strip_suffix(".git").unwrap_or(text);
    Some(format!("{text}/commit"))
}

/// A repository's address without credentials.
pub(super) fn repository_shown(repository: &str) -> String {
    match url::Url::parse(repository) {
        Ok(mut address) if address.password().is_some() || !address.username().is_empty() => {
            // `git@host` says nothing secret, and ssh needs it.
            let removed = address.set_password(None).is_ok()
                && (address.scheme() == "ssh" || address.set_username("").is_ok());
            if removed {
                address.to_string()
            } else {
                "(hidden)".to_owned()
            }
        }
        _ => repository.to_owned(),
    }
}

/// What a run is of: `main`, `tag v1`, `pull request #7 from mallory/shop (fork)`.
pub(super) fn pushed(git_ref: &str, started_by: &StartedBy) -> String {
    match started_by.pull_request() {
        Some(pull_request) => pull_request.title(),
        None => GitRef::of(git_ref).to_string(),
    }
}

/// A commit as pages show it.
pub(super) fn commit(
    sha: &CommitSha,
    message: &str,
    author: &str,
    (git_ref, started_by): (&str, &StartedBy),
    commits: Option<&str>,
) -> Commit {
    let unread = |text: &str, instead: String| {
        if text.is_empty() {
            instead
        } else {
            text.to_owned()
        }
    };
    Commit {
        message: unread(message, format!("Commit {}", sha.short())),
        author: unread(author, "unknown".to_owned()),
        branch: pushed(git_ref, started_by),
        url: commits.map(|address| format!("{address}/{sha}")),
        sha: sha.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_repository_are_not_shown() {
        let address = "https://bot:secret@git.example.com/team/shop.git";
        assert_eq!(
            commits_address(address).unwrap(),
            "https://git.example.com/team/shop/commit"
        );
        assert_eq!(
            repository_shown(address),
            "https://git.example.com/team/shop.git"
        );
        assert_eq!(commits_address("/srv/shop.git"), None);
        assert_eq!(commits_address("ssh://git@host/shop.git"), None);
        assert_eq!(repository_shown("/srv/shop.git"), "/srv/shop.git");
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("aé", 3), "aé");
        assert_eq!(clip("", 3), "");
    }
}
