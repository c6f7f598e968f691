//! What was pushed: a branch, a tag or the head of a pull request, told from the full name of its ref.

use std::fmt;

/// How the ref of a branch begins.
pub const BRANCHES: &str = "refs/heads/";
/// How the ref of a tag begins.
pub const TAGS: &str = "refs/tags/";
/// How the refs begin under which forges keep the heads of pull requests in the repository that these are to be merged
/// to: GitHub, Gitea and Forgejo, and GitLab. Strangers push there.
const PULL_REQUESTS: [&str; 2] = ["refs/pull/", "refs/merge-requests/"];

/// A ref, with its name as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitRef<'a> {
    /// `main` of `refs/heads/main`.
    Branch(&'a str),
    /// `v1.2` of `refs/tags/v1.2`.
    Tag(&'a str),
    /// 7 of `refs/pull/7/head` or `refs/merge-requests/7/head`.
    PullRequest(u64),
    /// Anything else, in full.
    Other(&'a str),
}

impl<'a> GitRef<'a> {
    /// Tells which one a full name is.
    #[must_use]
    pub fn of(full: &'a str) -> Self {
        if let Some(branch) = full.strip_prefix(BRANCHES) {
            Self::Branch(branch)
        } else if let Some(tag) = full.strip_prefix(TAGS) {
            Self::Tag(tag)
        } else if let Some(number) = pull_request(full) {
            Self::PullRequest(number)
        } else {
            Self::Other(full)
        }
    }

    /// Whether it is a tag.
    #[must_use]
    pub fn is_tag(self) -> bool {
        matches!(self, Self::Tag(_))
    }
}

fn pull_request(full: &str) -> Option<u64> {
    let mut rests = PULL_REQUESTS
        .iter()
        .filter_map(|prefix| full.strip_prefix(prefix));
    let number = rests.next()?.strip_suffix("/head")?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|number| plain && *number > 0)
}

/// For pages: `main`, `tag v1.2`, `pull request #7`.
impl fmt::Display for GitRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) | Self::Other(name) => f.write_str(name),
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::PullRequest(number) => write!(f, "pull request #{number}"),
        }
    }
}

/// The markers in a commit's message that let its push start nothing.
const SKIP_MARKERS: [&str; 2] = ["[skip ci]", "[ci skip]"];

/// The marker with which the newest commit's whole message asks that its push to a branch, or to what a pull request is
/// of, start no run. Of a tag, which somebody sets on purpose, it is not asked.
#[must_use]
pub fn skip_marker(git_ref: &str, message: &str) -> Option<&'static str> {
    if GitRef::of(git_ref).is_tag() {
        return None;
    }
    SKIP_MARKERS
        .into_iter()
        .find(|marker| message.contains(marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_is_a_branch_or_a_tag_or_neither() {
        assert_eq!(GitRef::of("refs/heads/a/b"), GitRef::Branch("a/b"));
        assert_eq!(GitRef::of("refs/tags/v1"), GitRef::Tag("v1"));
        assert_eq!(GitRef::of("refs/notes/x"), GitRef::Other("refs/notes/x"));
        for full in ["refs/pull/7/head", "refs/merge-requests/7/head"] {
            assert_eq!(GitRef::of(full), GitRef::PullRequest(7));
            assert_eq!(GitRef::of(full).to_string(), "pull request #7");
        }
        for full in [
            "refs/pull/7/merge",
            "refs/pull/+7/head",
            "refs/pull/0/head",
            "refs/pull//head",
            "refs/pull/7/head/head",
            "refs/pull/-1/head",
            "refs/pull/18446744073709551616/head",
        ] {
            assert_eq!(GitRef::of(full), GitRef::Other(full));
        }
        // A branch may have any name.
        let branch = GitRef::of("refs/heads/refs/pull/7/head");
        assert_eq!(branch, GitRef::Branch("refs/pull/7/head"));
        assert_eq!(GitRef::of("refs/tags/v1").to_string(), "tag v1");
        assert_eq!(GitRef::of("refs/heads/main").to_string(), "main");
    }

    #[test]
    fn a_marker_anywhere_in_the_message_counts_for_a_branch_alone() {
        let message = "Masts\n\nNothing to build. [ci skip]";
        let main = "refs/heads/main";
        assert_eq!(skip_marker(main, message), Some("[ci skip]"));
        assert_eq!(skip_marker(main, "[skip ci] Masts"), Some("[skip ci]"));
        assert_eq!(skip_marker(main, "skip ci"), None);
        assert_eq!(skip_marker("refs/pull/7/head", message), Some("[ci skip]"));
        assert_eq!(skip_marker("refs/tags/v1", message), None);
    }
}
