//! What a push builds, and what it takes the place of, by the runs before on its branch.

use crate::executor::{MAIN, Server, no_aws};
use crate::support::eventually;
use git2::FileMode;
use roadstead_pipelines::id::{CommitSha, RunId};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{AttemptOutcome, Run, RunState};
use roadstead_server::clock;
use std::collections::{BTreeMap, BTreeSet};

/// Builds no image, so that the life of a run needs no registry.
const STEPS: &str = "\
version: 1
name: shop
concurrency: { cancel_superseded: true }
steps:
  source: { image: busybox, run: make, when: { paths: [source] } }
  words: { image: busybox, run: spell }
";

const SKIPS: &str = "\
version: 1
name: shop
trigger: { paths: [source] }
steps:
  words: { image: busybox, run: spell }
";

impl Server {
    /// Commits a file, the source and the words.
    fn push(&self, file: &str, source: &str, words: &str) -> CommitSha {
        let blob = FileMode::Blob;
        let files = [
            (".roadstead/pipeline.yml", blob, file),
            ("source", blob, source),
            ("words", blob, words),
        ];
        self.commit_saying("Change", &files)
    }

    async fn state(&self, run: &RunId) -> RunState {
        self.store.get_run(run).await.unwrap().run.state
    }

    async fn becomes(&self, run: &RunId, word: &str) {
        eventually(&format!("{run} to be {word}"), async || {
            (self.state(run).await.word() == word).then_some(())
        })
        .await;
    }

    /// A runner takes this run's job, the only one, and it ends so.
    async fn end(&self, run: &Run, outcome: AttemptOutcome) {
        self.becomes(&run.id, "queued").await;
        let now = clock::now();
        let token = format!("token of {}", run.id);
        let claim = self.store.claim_job("harbour", token, now).await.unwrap();
        let claim = claim.unwrap();
        assert_eq!(claim.run.id, run.id);
        self.store
            .end_attempt(&claim.attempt, u64::from(claim.number), outcome, now)
            .await
            .unwrap();
        self.bell.ring();
    }

    async fn succeed(&self, run: &Run) {
        let images = BTreeMap::new();
        self.end(run, AttemptOutcome::Succeeded { images }).await;
        self.becomes(&run.id, "succeeded").await;
    }
}

/// Where a branch stands from now on, in the repository alone.
fn force(server: &Server, commit: &CommitSha) {
    let id = commit.as_str().parse().unwrap();
    let moved = server.origin.reference(MAIN, id, true, "forced push");
    moved.unwrap();
}

fn left_out(run: &Run) -> Vec<&str> {
    run.left_out.keys().map(|step| step.as_str()).collect()
}

#[tokio::test]
async fn what_a_cancelled_run_changed_is_checked_by_the_next() {
    let server = Server::start(no_aws()).await;
    let first = server.read(server.push(STEPS, "1", "1")).await;
    assert_eq!(left_out(&first), [""; 0], "nothing was checked before");
    server.succeed(&first).await;

    let source = server.read(server.push(STEPS, "2", "1")).await;
    let words = server.read(server.push(STEPS, "2", "2")).await;
    assert_eq!(words.supersedes, [source.id.clone()].into());
    server.becomes(&source.id, "cancelled").await;
    assert_eq!(left_out(&words), [""; 0], "{source:?}");
    server.succeed(&words).await;

    let words = server.read(server.push(STEPS, "2", "3")).await;
    assert_eq!(left_out(&words), ["source"]);
    server.stop().await;
}

#[tokio::test]
async fn what_a_failed_run_changed_is_checked_by_the_next() {
    let server = Server::start(no_aws()).await;
    let first = server.read(server.push(SKIPS, "1", "1")).await;
    server.succeed(&first).await;
    let words = server.read(server.push(SKIPS, "1", "2")).await;
    let RunState::Skipped { reason, .. } = &words.state else {
        panic!("{words:?}")
    };
    assert_eq!(reason, "no changed path matches `source`");
    let again = server.read(words.commit.clone()).await;
    assert!(!again.state.is_over(), "a person asked for it: {again:?}");
    server.succeed(&again).await;

    let source = server.read(server.push(SKIPS, "2", "2")).await;
    let failure = Failure::failed("spell exited with 1".to_owned());
    server
        .end(&source, AttemptOutcome::Failed { failure })
        .await;
    server.becomes(&source.id, "failed").await;
    let words = server.read(server.push(SKIPS, "2", "3")).await;
    assert!(!words.state.is_over(), "{words:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_commit_that_was_overwritten_takes_the_place_of_no_head() {
    let server = Server::start(no_aws()).await;
    let first = server.push(STEPS, "1", "1");
    let overwritten = server.push(STEPS, "2", "1");
    force(&server, &first);
    let head = server.read(server.push(STEPS, "3", "1")).await;
    let late = server.read(overwritten).await;
    assert_eq!(late.supersedes, BTreeSet::new(), "its webhook came late");

    // The branch goes on by a commit that another branch brought: its head takes the place of both.
    let next = server.push(STEPS, "4", "1");
    let topic = "refs/heads/topic";
    let id = next.as_str().parse().unwrap();
    server.origin.reference(topic, id, true, "").unwrap();
    server.read_of(next.clone(), topic).await;
    let next = server.read(next).await;
    assert_eq!(next.supersedes, [head.id, late.id].into());
    server.stop().await;
}

#[tokio::test]
async fn what_a_person_asks_for_takes_the_place_of_nothing() {
    let server = Server::start(no_aws()).await;
    let first = server.push(STEPS, "1", "1");
    let overwritten = server.read(server.push(STEPS, "2", "1")).await;
    force(&server, &first);
    let building = server.read(server.push(STEPS, "3", "1")).await;
    assert_eq!(building.supersedes, [overwritten.id.clone()].into());
    // Nobody has told of this one yet.
    server.push(STEPS, "4", "1");
    let again = server.read(overwritten.commit).await;
    assert_eq!(again.supersedes, BTreeSet::new());
    let goes_on = server.state(&building.id).await;
    assert!(!goes_on.is_over(), "{goes_on:?}");
    server.stop().await;
}
