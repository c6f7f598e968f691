//! Caches: which ones a run may read, and where it may put what its steps leave.
//!
//! A cache belongs to a *scope*, which is the full name of a ref: a branch, a tag, or the head of a pull request. What a
//! scope holds was left by runs of that ref alone, so that nothing of a pull request ever reaches a branch. Knows no
//! bytes and no keys.

use crate::git_ref::BRANCHES;
use crate::run::Run;

/// Where a run's caches are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// Scopes that it reads, the nearest first.
    pub reads: Vec<String>,
    /// The scope that it writes to; none for code that anybody may have written.
    pub writes: Option<String>,
}

/// The scopes of a run. A branch or tag reads its own, then that of the default branch. A pull request reads its own,
/// then that of its base branch; from a fork, that of the base branch alone, and it writes nowhere.
#[must_use]
pub fn scopes(run: &Run, default_branch: Option<&str>) -> Scopes {
    let writes = run.trust().may_write_cache().then(|| run.git_ref.clone());
    let other = match run.pull_request() {
        Some(pull_request) => Some(pull_request.base_ref.clone()),
        None => default_branch.map(|branch| format!("{BRANCHES}{branch}")),
    };
    let mut reads: Vec<String> = writes.iter().cloned().collect();
    reads.extend(other.filter(|other| writes.as_ref() != Some(other)));
    Scopes { reads, writes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CommitSha, ProjectName, RunId};
    use crate::pull_request::{PullRequest, Trust};
    use crate::started_by::StartedBy;

    fn run(git_ref: &str) -> Run {
        let commit = CommitSha::parse(&"0".repeat(40)).unwrap();
        let id = RunId::new(&ProjectName::parse("shop").unwrap(), 1);
        Run::asked_for(id, commit, git_ref.into(), jiff::Timestamp::UNIX_EPOCH)
    }

    fn of_pull_request(git_ref: &str, trust: Trust) -> Run {
        let mut run = run(git_ref);
        run.started_by = StartedBy::PullRequest(PullRequest {
            number: 7,
            base_ref: "refs/heads/release".into(),
            head_branch: "main".into(),
            trust,
        });
        run
    }

    fn told(run: &Run, default: Option<&str>) -> (String, Option<String>) {
        let Scopes { reads, writes } = scopes(run, default);
        (reads.join(" "), writes)
    }

    #[test]
    fn a_branch_reads_its_own_and_then_the_default_one() {
        let own = |name: &str| Some(name.to_owned());
        let (main, topic) = ("refs/heads/main", "refs/heads/topic");
        let both = format!("{topic} {main}");
        assert_eq!(told(&run(topic), Some("main")), (both, own(topic)));
        assert_eq!(told(&run(main), Some("main")), (main.into(), own(main)));
        assert_eq!(told(&run(topic), None), (topic.into(), own(topic)));
        let tag = "refs/tags/main";
        let both = format!("{tag} {main}");
        assert_eq!(told(&run(tag), Some("main")), (both, own(tag)));
    }

    #[test]
    fn a_pull_request_has_a_scope_of_its_own_and_reads_its_base() {
        for head in ["refs/pull/7/head", "refs/merge-requests/7/head"] {
            let both = format!("{head} refs/heads/release");
            let run = of_pull_request(head, Trust::Trusted);
            let (reads, writes) = told(&run, Some("main"));
            assert_eq!((reads, writes.as_deref()), (both, Some(head)));
        }
    }

    #[test]
    fn a_fork_reads_the_base_and_writes_nowhere_whatever_its_branch_is_called() {
        let fork = Some("mallory/shop".to_owned());
        for trust in [Trust::Untrusted { fork }, Trust::Untrusted { fork: None }] {
            // Even one whose ref were a branch of the project.
            for git_ref in ["refs/pull/7/head", "refs/heads/main"] {
                let run = of_pull_request(git_ref, trust.clone());
                let base = "refs/heads/release".to_owned();
                assert_eq!(told(&run, Some("main")), (base, None));
            }
        }
    }

    #[test]
    fn nothing_that_a_fork_writes_is_read_by_a_branch() {
        let fork = of_pull_request("refs/pull/7/head", Trust::Untrusted { fork: None });
        assert_eq!(scopes(&fork, Some("main")).writes, None);
        let own = of_pull_request("refs/pull/7/head", Trust::Trusted);
        let written = scopes(&own, Some("main")).writes.unwrap();
        for git_ref in ["refs/heads/main", "refs/heads/release", "refs/tags/v1"] {
            let reads = scopes(&run(git_ref), Some("main")).reads;
            assert!(!reads.contains(&written), "{reads:?}");
        }
    }
}
