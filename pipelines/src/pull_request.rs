//! Pull requests: whose code their runs are of, and what follows from that.
//!
//! Owns [`Trust`], which is decided once, from ids that the forge verified, when a pull request is told of. It
//! stays with the run and with every run that is made of it again; nothing that the code itself says, no name, no
//! label and no author, changes it. Must not know how forges tell of pull requests.

use crate::git_ref::BRANCHES;
use crate::id::CommitSha;
use crate::run::{Run, RunState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose code a run is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// That of people who may push to the project's own repository.
    #[default]
    Trusted,
    /// Anybody's.
    Untrusted {
        /// The fork that it comes from, `owner/name` as its forge told it; none when that is gone.
        fork: Option<String>,
    },
}

/// What is known of a repository from a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The forge's id of it, which stays when it is renamed and is never given away again.
    pub id: u64,
    /// `owner/name`: for people.
    pub name: String,
}

impl Trust {
    /// That of a pull request from `head` to `base`. A head repository that the forge does not name any more was a
    /// fork: no repository can lose itself.
    #[must_use]
    pub fn of(head: Option<&Repository>, base: &Repository) -> Self {
        match head {
            Some(head) if head.id == base.id => Self::Trusted,
            Some(fork) => Self::Untrusted {
                fork: Some(fork.name.clone()),
            },
            None => Self::Untrusted { fork: None },
        }
    }

    /// Whether it is that of people who may push.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        match self {
            Self::Trusted => true,
            Self::Untrusted { .. } => false,
        }
    }

    /// Whether caches that other runs read may hold what its steps leave.
    #[must_use]
    pub fn may_write_cache(&self) -> bool {
        self.is_trusted()
    }
}

/// A pull request as it stood when its forge told of it; GitLab calls it a merge request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number in the project's repository.
    pub number: u64,
    /// The branch that it is to be merged to, `refs/heads/main`.
    pub base_ref: String,
    /// The branch that it comes from, in its own repository: that of a fork says nothing of the project's branch of
    /// that name.
    pub head_branch: String,
    /// Whose code it is.
    pub trust: Trust,
}

impl PullRequest {
    /// The branch that it is to be merged to, `main`.
    #[must_use]
    pub fn base_branch(&self) -> &str {
        self.base_ref
            .strip_prefix(BRANCHES)
            .unwrap_or(&self.base_ref)
    }

    /// For pages: `pull request #7 from mallory/shop (fork)`, `pull request #7 from topic`.
    #[must_use]
    pub fn title(&self) -> String {
        let number = self.number;
        match &self.trust {
            Trust::Trusted => format!("pull request #{number} from {}", self.head_branch),
            Trust::Untrusted { fork: Some(fork) } => {
                format!("pull request #{number} from {fork} (fork)")
            }
            Trust::Untrusted { fork: None } => {
                format!("pull request #{number} from an unknown fork")
            }
        }
    }
}

/// A deployer's yes to one run of untrusted code: to the commit that they looked at, and to no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunApproval {
    /// Who.
    pub by: String,
    /// The commit.
    pub commit: CommitSha,
    /// When.
    pub at: Timestamp,
}

/// Where the pipeline file of an untrusted run is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFile {
    /// The commit at which the base branch stood when the file was read.
    pub commit: CommitSha,
    /// The pull request has another file, or none: it is not used.
    pub head_differs: bool,
}

/// Whether a run is cancelled when its pull request is closed: it waits. What a runner has begun goes on to its end.
#[must_use]
pub fn ends_when_closed(run: &Run) -> bool {
    let is_at_work = match &run.state {
        RunState::Building { jobs } => jobs.at_work().next().is_some(),
        _ => false,
    };
    run.pull_request().is_some() && run.state.can_be_cancelled() && !is_at_work
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(id: u64, name: &str) -> Repository {
        Repository {
            id,
            name: name.to_owned(),
        }
    }

    #[test]
    fn only_the_same_id_is_the_same_repository() {
        let base = repository(7, "ada/shop");
        assert_eq!(
            Trust::of(Some(&repository(7, "ada/shop")), &base),
            Trust::Trusted
        );
        // A repository that was renamed between two events stays itself.
        assert!(Trust::of(Some(&repository(7, "ada/store")), &base).is_trusted());
        // A name can be had by anybody: of a repository that was deleted, say.
        let fork = Trust::of(Some(&repository(8, "ada/shop")), &base);
        assert_eq!(
            fork,
            Trust::Untrusted {
                fork: Some("ada/shop".into())
            }
        );
        assert_eq!(Trust::of(None, &base), Trust::Untrusted { fork: None });
    }

    #[test]
    fn what_is_untrusted_writes_no_cache() {
        assert!(Trust::Trusted.may_write_cache());
        assert!(!Trust::Untrusted { fork: None }.may_write_cache());
    }

    #[test]
    fn a_title_says_fork_and_never_its_branch() {
        let mut pull_request = PullRequest {
            number: 7,
            base_ref: "refs/heads/main".into(),
            head_branch: "main".into(),
            trust: Trust::Untrusted {
                fork: Some("mallory/shop".into()),
            },
        };
        assert_eq!(
            pull_request.title(),
            "pull request #7 from mallory/shop (fork)"
        );
        pull_request.trust = Trust::Untrusted { fork: None };
        assert_eq!(pull_request.title(), "pull request #7 from an unknown fork");
        pull_request.trust = Trust::Trusted;
        pull_request.head_branch = "topic".into();
        assert_eq!(pull_request.title(), "pull request #7 from topic");
    }

    #[test]
    fn trust_is_one_word_where_it_is_stored() {
        let stored = |trust: &Trust| serde_json::to_string(trust).unwrap();
        assert_eq!(stored(&Trust::Trusted), r#""trusted""#);
        let fork = Trust::Untrusted {
            fork: Some("mallory/shop".into()),
        };
        assert_eq!(stored(&fork), r#"{"untrusted":{"fork":"mallory/shop"}}"#);
        for trust in [Trust::Trusted, fork] {
            assert_eq!(
                serde_json::from_str::<Trust>(&stored(&trust)).unwrap(),
                trust
            );
        }
    }
}
