//! What a push asks for, told from the parts that every forge has. Pure.

use roadstead_pipelines::git_ref::{self, GitRef};
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::pull_request::PullRequest;

/// A branch or a tag moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Push {
    /// `refs/heads/…` or `refs/tags/…`.
    pub(super) git_ref: String,
    /// Where it is now; of an annotated tag most forges tell its own id.
    pub(super) commit: CommitSha,
}

/// A pull request with its newest commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Where the project's repository keeps it, `refs/pull/7/head`.
    pub(super) git_ref: String,
    /// The commit.
    pub(super) commit: CommitSha,
    /// The pull request.
    pub(super) pull_request: PullRequest,
    /// When it was opened again, if this tells of that.
    pub(super) occasion: Option<String>,
}

/// What a delivery asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A run for this push.
    Run(Push),
    /// A run for this pull request.
    PullRequest(Head),
    /// No runs any more for this pull request.
    Closed {
        /// Where its commits were.
        git_ref: String,
        /// Its number.
        number: u64,
    },
    /// Nothing, for this reason.
    Nothing(String),
}

/// A body that is not what its sender's documentation says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(pub String);

impl BadPayload {
    pub(super) fn no_push(error: &serde_json::Error) -> Self {
        Self(format!("the body is no push event: {error}"))
    }
}

/// What a ref that now is at `after` asks for; `message` is that of the commit. Nothing when the ref was
/// deleted, is neither branch nor tag, or the message says so.
///
/// # Errors
/// [`BadPayload`] for what is no commit, or a name that git does not allow.
pub(super) fn wish(git_ref: String, after: &str, message: &str) -> Result<Wish, BadPayload> {
    if after.bytes().all(|b| b == b'0') {
        return Ok(deleted(&git_ref));
    }
    let Some(commit) = CommitSha::parse(after) else {
        return Err(BadPayload(format!(
            "the push leads to no commit id: `{}`",
            clip(after)
        )));
    };
    let (name, what) = match GitRef::of(&git_ref) {
        GitRef::Branch(name) => (name, "branch"),
        GitRef::Tag(name) => (name, "tag"),
        GitRef::PullRequest(_) | GitRef::Other(_) => {
            let reason = format!("{} is no branch and no tag", clip(&git_ref));
            return Ok(Wish::Nothing(reason));
        }
    };
    if !is_name(name) {
        return Err(BadPayload(format!(
            "`{}` is no {what} name that git allows",
            clip(name)
        )));
    }
    if let Some(marker) = git_ref::skip_marker(&git_ref, message) {
        return Ok(Wish::Nothing(format!("the commit's message says {marker}")));
    }
    Ok(Wish::Run(Push { git_ref, commit }))
}

/// Whether git allows a branch or tag of this name, and programs that are told of it are not confused by it.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    (1..=250).contains(&name.len())
        && !name.starts_with('-')
        && !name.contains("..")
        && name.chars().all(plain)
}

/// What a ref that is gone asks for.
pub(super) fn deleted(git_ref: &str) -> Wish {
    Wish::Nothing(format!("{} was deleted", clip(git_ref)))
}

pub(super) fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_push_to_a_branch_or_of_a_tag_asks_for_a_run() {
        let commit = CommitSha::parse(COMMIT).unwrap();
        for (git_ref, message) in [
            ("refs/heads/main", "Change the sails"),
            ("refs/tags/v1", "Change the sails [skip ci]"),
        ] {
            let push = Push {
                git_ref: git_ref.into(),
                commit: commit.clone(),
            };
            let wish = wish(git_ref.into(), COMMIT, message).unwrap();
            assert_eq!(wish, Wish::Run(push));
        }
    }

    #[test]
    fn what_starts_nothing_says_why() {
        for (git_ref, after, message, reason) in [
            ("refs/notes/v1", COMMIT, "", "no branch and no tag"),
            ("refs/tags/v1", &"0".repeat(40), "", "was deleted"),
            ("refs/heads/x", &"0".repeat(40), "", "was deleted"),
            ("refs/heads/x", COMMIT, "Sails [skip ci]", "[skip ci]"),
            ("refs/heads/x", COMMIT, "[ci skip] Sails", "[ci skip]"),
        ] {
            match wish(git_ref.into(), after, message).unwrap() {
                Wish::Nothing(why) => assert!(why.contains(reason), "{why}"),
                wish => panic!("{wish:?}"),
            }
        }
    }

    #[test]
    fn hostile_refs_and_commits_are_refused() {
        for (git_ref, after) in [
            ("refs/heads/-x", COMMIT),
            ("refs/tags/-x", COMMIT),
            ("refs/tags/", COMMIT),
            ("refs/heads/a..b", COMMIT),
            ("refs/heads/a\u{0}b", COMMIT),
            ("refs/heads/", COMMIT),
            ("refs/heads/main", "HEAD"),
            ("refs/heads/main", "--upload-pack=x"),
        ] {
            assert!(
                wish(git_ref.into(), after, "").is_err(),
                "{git_ref} {after}"
            );
        }
    }
}
