//! Pull requests as forges tell of them: GitHub (Gitea and Forgejo send the same members) and GitLab, which calls
//! them merge requests. Pure.
//!
//! What a fork is called, its branches and the title come from strangers. A name that git does not allow starts
//! nothing, and the call is answered well all the same: GitLab turns off webhooks that are refused a few times, and
//! whoever may open a pull request is not to be able to do that.

use super::payload::{BadPayload, Head, Wish, clip, is_name};
use roadstead_pipelines::git_ref::BRANCHES;
use roadstead_pipelines::id::CommitSha;
use roadstead_pipelines::pull_request::{PullRequest, Repository, Trust};
use serde::Deserialize;

/// Why Bitbucket's start nothing.
pub(super) const NOT_OF_BITBUCKET: &str = "Bitbucket's pull requests start nothing: it tells 12 digits of their \
    commit alone, and keeps no ref of them in the repository; pushes to branches do";

/// Characters of a repository's name that are kept.
const LONGEST_NAME: usize = 200;

fn bad(error: &serde_json::Error) -> BadPayload {
    BadPayload(format!("the body is no pull request event: {error}"))
}

/// A pull request as both kinds of forge tell it.
struct Told {
    /// Where the project's repository keeps its commits.
    git_ref: String,
    number: u64,
    commit: String,
    base_branch: String,
    base: Repository,
    head_branch: String,
    /// None when it is gone.
    head: Option<Repository>,
    occasion: Option<String>,
}

/// What became of a pull request.
enum Moved {
    HasCommits,
    /// Or is to be merged to another branch.
    OpenedAgain,
    Closed,
    Otherwise,
}

impl Told {
    fn wish(self) -> Result<Wish, BadPayload> {
        if self.number == 0 {
            return Err(BadPayload("0 is no number of a pull request".into()));
        }
        let Some(commit) = CommitSha::parse(&self.commit) else {
            return Err(BadPayload(format!(
                "the pull request leads to no commit id: `{}`",
                clip(&self.commit)
            )));
        };
        for branch in [&self.base_branch, &self.head_branch] {
            if !is_name(branch) {
                let reason = format!("`{}` is no branch name that git allows", clip(branch));
                return Ok(Wish::Nothing(reason));
            }
        }
        let trust = Trust::of(self.head.as_ref(), &self.base);
        Ok(Wish::PullRequest(Head {
            git_ref: self.git_ref,
            commit,
            pull_request: PullRequest {
                number: self.number,
                base_ref: format!("{BRANCHES}{}", self.base_branch),
                head_branch: self.head_branch,
                trust,
            },
            occasion: self.occasion,
        }))
    }
}

/// A repository's name as pages show it.
fn plain(name: &str) -> String {
    let shown = name.chars().filter(|c| !c.is_control());
    shown.take(LONGEST_NAME).collect()
}

mod github {
    use super::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct Body {
        pub(super) action: String,
        pub(super) number: u64,
        pub(super) pull_request: PullRequest,
        pub(super) repository: Repository,
        /// What was edited.
        pub(super) changes: Option<Changes>,
    }

    /// One is given when it is to be merged to another branch than before.
    #[derive(Deserialize)]
    pub(super) struct Changes {
        /// By GitHub.
        base: Option<serde::de::IgnoredAny>,
        /// By Gitea and Forgejo.
        #[serde(rename = "ref")]
        branch: Option<serde::de::IgnoredAny>,
    }

    impl Body {
        /// Whether it is to be merged to another branch than before.
        pub(super) fn has_other_base(&self) -> bool {
            let changes = self.changes.as_ref();
            changes.is_some_and(|it| it.base.is_some() || it.branch.is_some())
        }
    }

    #[derive(Deserialize)]
    pub(super) struct PullRequest {
        pub(super) head: End,
        pub(super) base: End,
        #[serde(default)]
        pub(super) updated_at: String,
    }

    #[derive(Deserialize)]
    pub(super) struct End {
        #[serde(rename = "ref")]
        pub(super) branch: String,
        pub(super) sha: String,
        /// None when the fork is gone.
        pub(super) repo: Option<Repository>,
        /// `owner:branch`. Gitea's is empty where no branch is the head.
        pub(super) label: Option<String>,
    }

    impl End {
        /// The repository whose branch this is. With AGit (`git push origin HEAD:refs/for/main`) people who may only
        /// read open pull requests at Gitea and Forgejo, which then name the base repository, and no branch of it.
        pub(super) fn repository(self) -> Option<super::Repository> {
            let has_branch = !self.branch.starts_with("refs/") && self.label.as_deref() != Some("");
            self.repo
                .filter(|_| has_branch)
                .map(super::Repository::from)
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Repository {
        pub(super) id: u64,
        #[serde(default)]
        pub(super) full_name: String,
    }

    impl From<Repository> for super::Repository {
        fn from(repository: Repository) -> Self {
            Self {
                id: repository.id,
                name: super::plain(&repository.full_name),
            }
        }
    }
}

/// Reads one of GitHub, Gitea or Forgejo.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn of_github(body: &[u8]) -> Result<Wish, BadPayload> {
    let body: github::Body = serde_json::from_slice(body).map_err(|error| bad(&error))?;
    let moved = match body.action.as_str() {
        "opened" | "synchronize" | "synchronized" => Moved::HasCommits,
        "reopened" => Moved::OpenedAgain,
        "edited" if body.has_other_base() => Moved::OpenedAgain,
        "closed" => Moved::Closed,
        _ => Moved::Otherwise,
    };
    let (number, action) = (body.number, clip(&body.action));
    let git_ref = format!("refs/pull/{number}/head");
    let pull_request = body.pull_request;
    let occasion = match moved {
        Moved::HasCommits => None,
        Moved::OpenedAgain => Some(clip(&pull_request.updated_at)),
        Moved::Closed => return Ok(Wish::Closed { git_ref, number }),
        Moved::Otherwise => return Ok(otherwise(&action)),
    };
    let (head, base) = (pull_request.head, pull_request.base);
    let of_base = base.repo.map(Repository::from);
    match of_base {
        Some(of_base) if of_base.id == body.repository.id => Told {
            git_ref,
            number,
            commit: head.sha.clone(),
            base_branch: base.branch,
            base: of_base,
            head_branch: head.branch.clone(),
            head: head.repository(),
            occasion,
        }
        .wish(),
        _ => Err(elsewhere()),
    }
}

mod gitlab {
    use super::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct Body {
        pub(super) project: Project,
        pub(super) object_attributes: MergeRequest,
        /// What was edited.
        pub(super) changes: Option<Changes>,
    }

    #[derive(Deserialize)]
    pub(super) struct Changes {
        /// Given when it is to be merged to another branch than before.
        pub(super) target_branch: Option<serde::de::IgnoredAny>,
    }

    #[derive(Deserialize)]
    pub(super) struct Project {
        pub(super) id: u64,
    }

    #[derive(Deserialize)]
    pub(super) struct MergeRequest {
        pub(super) iid: u64,
        #[serde(default)]
        pub(super) action: String,
        /// Given when an update brings commits.
        pub(super) oldrev: Option<String>,
        pub(super) source_project_id: Option<u64>,
        pub(super) target_project_id: u64,
        pub(super) source_branch: String,
        pub(super) target_branch: String,
        pub(super) last_commit: Option<Commit>,
        pub(super) source: Option<Named>,
        #[serde(default)]
        pub(super) updated_at: String,
    }

    #[derive(Deserialize)]
    pub(super) struct Commit {
        pub(super) id: String,
    }

    #[derive(Deserialize)]
    pub(super) struct Named {
        #[serde(default)]
        pub(super) path_with_namespace: String,
    }
}

/// Reads one of GitLab.
///
/// # Errors
/// [`BadPayload`].
pub(super) fn of_gitlab(body: &[u8]) -> Result<Wish, BadPayload> {
    let body: gitlab::Body = serde_json::from_slice(body).map_err(|error| bad(&error))?;
    let has_other_base = body.changes.is_some_and(|it| it.target_branch.is_some());
    let told = body.object_attributes;
    let number = told.iid;
    let git_ref = format!("refs/merge-requests/{number}/head");
    let occasion = match (told.action.as_str(), &told.oldrev) {
        ("open", _) | ("update", Some(_)) => None,
        ("reopen", _) => Some(clip(&told.updated_at)),
        ("update", None) if has_other_base => Some(clip(&told.updated_at)),
        ("close" | "merge", _) => return Ok(Wish::Closed { git_ref, number }),
        (action, _) => return Ok(otherwise(&clip(action))),
    };
    if told.target_project_id != body.project.id {
        return Err(elsewhere());
    }
    let name = told.source.map(|source| plain(&source.path_with_namespace));
    let Some(commit) = told.last_commit else {
        return Ok(Wish::Nothing("the merge request has no commit".into()));
    };
    Told {
        git_ref,
        number,
        commit: commit.id,
        base_branch: told.target_branch,
        base: Repository {
            id: told.target_project_id,
            name: String::new(),
        },
        head_branch: told.source_branch,
        head: told.source_project_id.map(|id| Repository {
            id,
            name: name.unwrap_or_default(),
        }),
        occasion,
    }
    .wish()
}

fn otherwise(action: &str) -> Wish {
    Wish::Nothing(format!(
        "`{action}` of a pull request starts nothing; that it is opened, gets commits or is opened again does"
    ))
}

fn elsewhere() -> BadPayload {
    BadPayload("the pull request is not to be merged to the repository that tells of it".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const COMMIT: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

    fn github(action: &str) -> Value {
        json!({
            "action": action, "number": 7,
            "pull_request": {
                "id": 279147437, "number": 7, "title": "Sails", "updated_at": "2026-11-27T10:00:00Z",
                "head": { "ref": "main", "sha": COMMIT, "label": "mallory:main", "repo": { "id": 2, "full_name": "mallory/shop" } },
                "base": { "ref": "main", "sha": "0".repeat(40), "repo": { "id": 1, "full_name": "ada/shop" } },
            },
            "repository": { "id": 1, "full_name": "ada/shop" },
        })
    }

    fn gitlab(action: &str) -> Value {
        json!({
            "object_kind": "merge_request", "event_type": "merge_request",
            "project": { "id": 1, "path_with_namespace": "ada/shop" },
            "object_attributes": {
                "id": 99, "iid": 7, "action": action, "state": "opened", "title": "Sails",
                "source_branch": "main", "target_branch": "main", "source_project_id": 2, "target_project_id": 1,
                "last_commit": { "id": COMMIT, "message": "Sails" }, "updated_at": "2026-11-27 10:00:00 UTC",
                "source": { "path_with_namespace": "mallory/shop" }, "target": { "path_with_namespace": "ada/shop" },
            },
        })
    }

    fn read(body: &Value) -> Result<Wish, BadPayload> {
        let bytes = body.to_string();
        if body["pull_request"].is_object() {
            of_github(bytes.as_bytes())
        } else {
            of_gitlab(bytes.as_bytes())
        }
    }

    fn head(body: &Value) -> Head {
        match read(body).unwrap() {
            Wish::PullRequest(head) => head,
            wish => panic!("{wish:?}"),
        }
    }

    #[test]
    fn a_fork_is_told_by_its_id_and_fetched_from_the_base_repository() {
        for (body, git_ref) in [
            (github("opened"), "refs/pull/7/head"),
            (gitlab("open"), "refs/merge-requests/7/head"),
        ] {
            let head = head(&body);
            assert_eq!(
                (head.git_ref.as_str(), head.commit.as_str()),
                (git_ref, COMMIT)
            );
            let pull_request = head.pull_request;
            assert_eq!(
                (pull_request.number, pull_request.base_ref.as_str()),
                (7, "refs/heads/main")
            );
            let fork = Some("mallory/shop".to_owned());
            assert_eq!(pull_request.trust, Trust::Untrusted { fork });
        }
    }

    #[test]
    fn the_own_repository_is_told_by_its_id_whatever_it_is_called() {
        let (mut hub, mut lab) = (github("synchronize"), gitlab("open"));
        hub["pull_request"]["head"]["repo"]["id"] = 1.into();
        lab["object_attributes"]["source_project_id"] = 1.into();
        for body in [&hub, &lab] {
            assert_eq!(head(body).pull_request.trust, Trust::Trusted);
        }
        // The other way round: the same name, and the words that a fork says of itself.
        let mut forged = github("opened");
        forged["pull_request"]["head"]["repo"]["full_name"] = "ada/shop".into();
        forged["pull_request"]["head"]["repo"]["fork"] = false.into();
        forged["pull_request"]["head"]["label"] = "ada:main".into();
        assert!(!head(&forged).pull_request.trust.is_trusted());
    }

    #[test]
    fn without_an_id_nothing_is_trusted() {
        let mut gone = github("opened");
        gone["pull_request"]["head"]["repo"] = Value::Null;
        assert_eq!(
            head(&gone).pull_request.trust,
            Trust::Untrusted { fork: None }
        );
        let mut gone = gitlab("open");
        gone["object_attributes"]["source_project_id"] = Value::Null;
        assert_eq!(
            head(&gone).pull_request.trust,
            Trust::Untrusted { fork: None }
        );
        // Where neither side has one they are not the same.
        for (end, value) in [("base", Value::Null), ("base", json!({"full_name": "x"}))] {
            let mut body = github("opened");
            body["pull_request"]["head"]["repo"] = Value::Null;
            body["pull_request"][end]["repo"] = value;
            assert!(read(&body).is_err());
        }
        let mut other = github("opened");
        other["pull_request"]["base"]["repo"]["id"] = 3.into();
        assert!(read(&other).is_err());
        let mut other = gitlab("open");
        other["object_attributes"]["target_project_id"] = 3.into();
        assert!(read(&other).is_err());
    }

    /// `git push origin HEAD:refs/for/main` opens one at Gitea and Forgejo for people who may only read.
    #[test]
    fn what_comes_of_no_branch_is_trusted_by_no_id() {
        let mut agit = github("opened");
        agit["pull_request"]["head"]["repo"] = agit["pull_request"]["base"]["repo"].clone();
        assert!(head(&agit).pull_request.trust.is_trusted());
        let with = |member: &str, value: &str| {
            let mut body = agit.clone();
            body["pull_request"]["head"][member] = value.into();
            head(&body).pull_request.trust
        };
        let unknown = Trust::Untrusted { fork: None };
        assert_eq!(with("ref", "refs/pull/7/head"), unknown);
        assert_eq!(with("label", ""), unknown);
        assert!(with("label", "ada:topic").is_trusted());
    }

    #[test]
    fn what_happens_to_it_decides() {
        for (body, wanted) in [
            (github("opened"), "run"),
            (github("synchronize"), "run"),
            // As Gitea spells it.
            (github("synchronized"), "run"),
            (github("reopened"), "again"),
            (github("closed"), "closed"),
            (github("edited"), "nothing"),
            (github("labeled"), "nothing"),
            (gitlab("open"), "run"),
            (gitlab("update"), "nothing"),
            (gitlab("reopen"), "again"),
            (gitlab("close"), "closed"),
            (gitlab("merge"), "closed"),
            (gitlab("approved"), "nothing"),
        ] {
            let got = match read(&body).unwrap() {
                Wish::PullRequest(Head { occasion: None, .. }) => "run",
                Wish::PullRequest(Head { .. }) => "again",
                Wish::Closed { number: 7, .. } => "closed",
                Wish::Nothing(_) => "nothing",
                wish => panic!("{wish:?}"),
            };
            assert_eq!(got, wanted, "{body}");
        }
        // To be merged to another branch than before, with another pipeline file: once more, by that one.
        let (mut hub, mut tea, mut lab) = (github("edited"), github("edited"), gitlab("update"));
        hub["changes"] =
            json!({ "base": { "ref": { "from": "easy" }, "sha": { "from": COMMIT } } });
        tea["changes"] = json!({ "ref": { "from": "easy" } });
        lab["changes"] = json!({ "target_branch": { "previous": "easy", "current": "main" } });
        for body in [hub, tea, lab] {
            assert!(head(&body).occasion.is_some(), "{body}");
        }
        let mut title = github("edited");
        title["changes"] = json!({ "title": { "from": "x" } });
        assert!(matches!(read(&title).unwrap(), Wish::Nothing(_)));
        let mut commits = gitlab("update");
        commits["object_attributes"]["oldrev"] = "1".repeat(40).into();
        assert_eq!(head(&commits).occasion, None);
    }

    #[test]
    fn hostile_numbers_and_commits_are_refused_and_names_start_nothing() {
        for number in [
            json!("7"),
            json!("7/../8"),
            json!(-7),
            json!(0),
            json!(7.5),
            Value::Null,
        ] {
            let (mut hub, mut lab) = (github("opened"), gitlab("open"));
            hub["number"] = number.clone();
            lab["object_attributes"]["iid"] = number;
            assert!(read(&hub).is_err() && read(&lab).is_err(), "{hub}");
        }
        for commit in ["HEAD", "--upload-pack=x", "", &COMMIT[..12]] {
            let (mut hub, mut lab) = (github("opened"), gitlab("open"));
            hub["pull_request"]["head"]["sha"] = commit.into();
            lab["object_attributes"]["last_commit"]["id"] = commit.into();
            assert!(read(&hub).is_err() && read(&lab).is_err(), "{commit}");
        }
        for branch in ["-x", "a..b", "a\u{0}b", "", "a b", &"x".repeat(251)] {
            for end in ["head", "base"] {
                let mut body = github("opened");
                body["pull_request"][end]["ref"] = branch.into();
                assert!(
                    matches!(read(&body), Ok(Wish::Nothing(_))),
                    "{end} {branch}"
                );
            }
        }
        let mut long = github("opened");
        long["pull_request"]["title"] = "x".repeat(1 << 20).into();
        long["pull_request"]["head"]["repo"]["full_name"] =
            format!("a\n{}", "x".repeat(1 << 20)).into();
        let title = head(&long).pull_request.title();
        assert!(title.len() < 300 && !title.contains('\n'), "{title}");
    }

    #[test]
    fn a_body_of_one_event_is_none_of_the_other() {
        use crate::forge::Forge;
        let pull_request = github("synchronize").to_string();
        let push = json!({ "ref": "refs/heads/main", "after": COMMIT }).to_string();
        assert!(Forge::Github.read("push", pull_request.as_bytes()).is_err());
        assert!(Forge::Github.read("pull_request", push.as_bytes()).is_err());
        let told = Forge::Bitbucket.read("pullrequest:created", b"{}").unwrap();
        assert_eq!(told, Wish::Nothing(NOT_OF_BITBUCKET.into()));
    }
}
