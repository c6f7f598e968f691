//! The refs of a repository, as it lists them, and what people call them.

use super::SourcesError;
use roadstead_pipelines::git_ref::{BRANCHES, GitRef, TAGS};
use roadstead_pipelines::heads::Branches;
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::spec::nearest;

/// Why a name is that of no branch and no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchRef {
    /// Nothing is called so.
    #[error("the repository has no branch and no tag `{name}`{}", .nearest.as_ref().map(|it| format!("; did you mean `{it}`?")).unwrap_or_default())]
    Unknown {
        /// As it was given.
        name: String,
        /// What it may have been meant to be.
        nearest: Option<String>,
    },
    /// Two are.
    #[error("`{name}` is a branch and a tag: say `{BRANCHES}{name}` or `{TAGS}{name}`")]
    Both {
        /// As it was given.
        name: String,
    },
    /// None was given, and the repository names no branch as its own.
    #[error("say which branch or tag: the repository names no branch as its own")]
    NoDefault,
    /// The repository was not heard.
    #[error(transparent)]
    Sources(#[from] SourcesError),
}

/// Every ref of a repository.
pub(super) struct Refs {
    pub(super) all: Vec<(String, CommitSha)>,
    /// What its `HEAD` names.
    pub(super) default: Option<String>,
}

impl Refs {
    pub(super) fn branches(self) -> Branches {
        let is_branch = |name: &String| name.starts_with(BRANCHES);
        Branches {
            default: self.default.filter(is_branch),
            heads: self
                .all
                .into_iter()
                .filter(|(name, _)| is_branch(name))
                .collect(),
        }
    }

    /// What annotated tags name is listed behind them and is no ref.
    fn refs(&self) -> impl Iterator<Item = &(String, CommitSha)> {
        self.all.iter().filter(|(name, _)| !name.ends_with("^{}"))
    }

    fn find(&self, full: &str) -> Option<(String, CommitSha)> {
        self.refs().find(|(name, _)| name == full).cloned()
    }

    /// A branch or tag by its full name or by the one that people know, and where it stands.
    pub(super) fn named(&self, name: Option<&str>) -> Result<(String, CommitSha), NoSuchRef> {
        let Some(name) = name else {
            let default = self.default.as_ref();
            let default = default.and_then(|full| self.find(full));
            return default.ok_or(NoSuchRef::NoDefault);
        };
        let found = match GitRef::of(name) {
            GitRef::Branch(_) | GitRef::Tag(_) => self.find(name),
            GitRef::PullRequest(_) | GitRef::Other(_) => {
                let branch = self.find(&format!("{BRANCHES}{name}"));
                let tag = self.find(&format!("{TAGS}{name}"));
                match (branch, tag) {
                    (Some(_), Some(_)) => return Err(NoSuchRef::Both { name: name.into() }),
                    (branch, tag) => branch.or(tag),
                }
            }
        };
        found.ok_or_else(|| {
            let known = self.refs().filter_map(|(full, _)| match GitRef::of(full) {
                GitRef::Branch(name) | GitRef::Tag(name) => Some(name),
                GitRef::PullRequest(_) | GitRef::Other(_) => None,
            });
            NoSuchRef::Unknown {
                nearest: nearest(name, known).map(str::to_owned),
                name: name.to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs() -> Refs {
        let named = |(name, digit): &(&str, char)| {
            let commit = CommitSha::parse(&digit.to_string().repeat(40)).unwrap();
            ((*name).to_owned(), commit)
        };
        let all = [
            ("HEAD", '1'),
            ("refs/heads/main", '1'),
            ("refs/heads/v1", '2'),
            ("refs/tags/v1", '3'),
            ("refs/tags/v2", '4'),
            ("refs/tags/v2^{}", '5'),
            ("refs/pull/7/head", '6'),
        ];
        Refs {
            all: all.iter().map(named).collect(),
            default: Some("refs/heads/main".into()),
        }
    }

    fn found(name: Option<&str>) -> Result<String, String> {
        let found = refs().named(name);
        found
            .map(|(full, _)| full)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_that_of_a_branch_or_of_a_tag() {
        assert_eq!(found(None).unwrap(), "refs/heads/main");
        assert_eq!(found(Some("main")).unwrap(), "refs/heads/main");
        assert_eq!(found(Some("v2")).unwrap(), "refs/tags/v2");
        assert_eq!(found(Some("refs/heads/v1")).unwrap(), "refs/heads/v1");
        let both = found(Some("v1")).unwrap_err();
        assert!(both.contains("`refs/heads/v1` or `refs/tags/v1`"), "{both}");
        let unknown = found(Some("mian")).unwrap_err();
        assert!(unknown.ends_with("did you mean `main`?"), "{unknown}");
        // What strangers may push to is nobody's branch.
        for name in ["refs/pull/7/head", "HEAD", "v2^{}", ""] {
            assert!(found(Some(name)).is_err(), "{name}");
        }
        let nothing = Refs {
            default: None,
            ..refs()
        };
        assert_eq!(nothing.named(None), Err(NoSuchRef::NoDefault));
    }

    #[test]
    fn branches_are_told_from_what_else_there_is() {
        let branches = refs().branches();
        assert_eq!(branches.default.as_deref(), Some("refs/heads/main"));
        assert_eq!(branches.heads.len(), 2);
    }
}
