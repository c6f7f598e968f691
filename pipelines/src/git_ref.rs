//! What was pushed: a branch or a tag, told from the full name of its ref.

use std::fmt;

/// How the ref of a branch begins.
pub const BRANCHES: &str = "refs/heads/";
/// How the ref of a tag begins.
pub const TAGS: &str = "refs/tags/";

/// A ref, with its name as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitRef<'a> {
    /// `main` of `refs/heads/main`.
    Branch(&'a str),
    /// `v1.2` of `refs/tags/v1.2`.
    Tag(&'a str),
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

/// For pages: `main`, `tag v1.2`.
impl fmt::Display for GitRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) | Self::Other(name) => f.write_str(name),
            Self::Tag(name) => write!(f, "tag {name}"),
        }
    }
}

/// The markers in a commit's message that let its push start nothing.
const SKIP_MARKERS: [&str; 2] = ["[skip ci]", "[ci skip]"];

/// The marker with which the newest commit's whole message asks that its push to a branch start no run. Of
/// a tag, which somebody sets on purpose, it is not asked.
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
        assert_eq!(skip_marker("refs/tags/v1", message), None);
    }
}
