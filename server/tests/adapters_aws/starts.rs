//! Runs that people start, of a real repository: what they are given, what holds for them, and what is refused.

use crate::executor::{MAIN, Server, no_aws};
use crate::support::eventually;
use git2::FileMode;
use roadstead_pipelines::id::{CommitSha, RunId};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec::InputValues;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_server::clock;
use roadstead_server::store::{Asked, NewRun};

/// Pushes start nothing but on `release`, and only of `source`.
const FILE: &str = "\
version: 1
name: shop
trigger:
  push: { branches: [release] }
  paths: [source]
  inputs:
    target: { options: [near, far], default: near }
    minutes: { required: true }
concurrency: { cancel_superseded: true }
steps:
  load: { image: busybox, run: ./load.sh, when: { events: [manual] } }
  test: { image: busybox, run: make, when: { paths: [source] } }
  pushed: { image: busybox, run: make, when: { events: [push] } }
";

impl Server {
    fn write(&self, file: &str, words: &str) -> CommitSha {
        let blob = FileMode::Blob;
        let files = [
            (".roadstead/pipeline.yml", blob, file),
            ("words", blob, words),
        ];
        self.commit_saying("[skip ci] Words", &files)
    }

    /// A run that a person starts, once its file is read.
    async fn start_by_hand(
        &self,
        (commit, git_ref): (&CommitSha, &str),
        inputs: &[(&str, &str)],
        commit_named: bool,
    ) -> Run {
        let inputs = inputs.iter();
        let inputs: InputValues = inputs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let new = NewRun {
            commit: commit.clone(),
            git_ref: git_ref.into(),
            started_by: StartedBy::Manual {
                by: "ada".into(),
                inputs,
                commit_named,
            },
            key: None,
        };
        let now = clock::now();
        let asked = self.store.start_run(&self.project, new, "ada", now);
        let Asked::Made(run) = asked.await.unwrap() else {
            panic!("without a key each is another one");
        };
        self.bell.ring();
        self.once_read(&run).await
    }

    async fn once_read(&self, run: &RunId) -> Run {
        eventually("the sources to be read", async || {
            let run = self.store.get_run(run).await.unwrap().run;
            (run.state != RunState::Fetching).then_some(run)
        })
        .await
    }
}

fn failure(run: &Run) -> &str {
    match &run.state {
        RunState::Failed { failure, .. } => &failure.message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_person_starts_what_no_push_would_with_what_they_give() {
    let server = Server::start(no_aws()).await;
    let commit = server.write(FILE, "1");
    let run = server
        .start_by_hand((&commit, MAIN), &[("minutes", "3")], false)
        .await;
    assert!(!run.state.is_over(), "{run:?}");
    let given = [("minutes", "3"), ("target", "near")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(run.inputs, InputValues::from(given));
    let left_out: Vec<_> = run.left_out.iter().collect();
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert_eq!(
        left_out[0].1,
        "it is for runs started by `push`, not by `manual`"
    );
    let files = server.store.branch_files(&server.project, Some(MAIN));
    let files = files.await.unwrap();
    assert_eq!(files[0].run, run.id);
    assert!(files[0].trigger.inputs.contains_key("minutes"));

    // A push of the same is not wanted, and takes nobody's place.
    let push = server.read(commit.clone()).await;
    assert!(matches!(push.state, RunState::Skipped { .. }), "{push:?}");
    // Nor is what a person started in anybody's way.
    let next = FILE
        .replace("[release]", "[main]")
        .replace("[source]", "[words]");
    let next = server
        .read(server.write(&next.replace("[skip", "[no"), "2"))
        .await;
    assert!(
        matches!(next.state, RunState::Skipped { .. }),
        "its message says so"
    );
    assert!(next.supersedes.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_the_file_ends_the_run() {
    let server = Server::start(no_aws()).await;
    let commit = server.write(FILE, "1");
    let wrong = [("tarket", "far"), ("target", "fra")];
    let run = server.start_by_hand((&commit, MAIN), &wrong, false).await;
    assert_eq!(
        failure(&run),
        "the run's inputs do not fit .roadstead/pipeline.yml: there is no input `tarket`; did you mean \
         `target`?; input `target`: `fra` is none of its options, which are `near` and `far`; input `minutes` \
         has to be given"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_commit_is_one_of_its_branch_or_not_built() {
    let server = Server::start(no_aws()).await;
    let old = server.write(FILE, "1");
    let newest = server.write(&FILE.replace("near", "here"), "2");
    let minutes = [("minutes", "3")];
    let run = server.start_by_hand((&newest, MAIN), &minutes, true).await;
    assert!(!run.state.is_over(), "{run:?}");
    let run = server.start_by_hand((&old, MAIN), &minutes, true).await;
    assert!(!run.state.is_over(), "{run:?}");
    assert_eq!(run.inputs["target"], "near", "its own file's");
    // What somebody asks to be built of an old commit says nothing of the branch.
    let files = server.store.branch_files(&server.project, Some(MAIN));
    assert_eq!(files.await.unwrap(), []);

    // A commit that went to another branch alone, such as a stranger's.
    let topic = "refs/heads/topic";
    let strange = server.write(FILE, "3");
    let id = strange.as_str().parse().unwrap();
    server.origin.reference(topic, id, true, "").unwrap();
    let id = newest.as_str().parse().unwrap();
    server.origin.reference(MAIN, id, true, "").unwrap();
    let run = server.start_by_hand((&strange, MAIN), &minutes, true).await;
    assert_eq!(
        failure(&run),
        format!("commit {strange} is not one of branch `main` as it stands now")
    );
    let run = server
        .start_by_hand((&strange, topic), &minutes, true)
        .await;
    assert!(!run.state.is_over(), "{run:?}");
    server.stop().await;
}
