//! Runs of several jobs on rows: which runner gets which, and what its attempt may say.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{AttemptOutcome, RunState};
use roadstead_pipelines::spec::Role;
use roadstead_protocol::{ACCEPT_SECONDS, AttemptRef, StepState};
use roadstead_server::store::{Claim, Offer, Report, hash_secret};
use std::collections::BTreeMap;

on_both_databases!(
    a_runner_gets_the_jobs_whose_labels_it_has,
    each_job_has_attempts_and_steps_of_its_own,
    a_lost_attempt_brings_its_own_job_back_alone,
    every_runner_of_a_cancelled_run_is_told,
);

const FILE: &str = "\
version: 1
name: shop
steps:
  lint: { image: busybox, run: make lint }
  bench: { image: busybox, run: make bench, runs_on: [big, linux], needs: [lint] }
  test:
    image: busybox
    run: make test
    needs: [lint]
    matrix: { db: [sqlite, postgres] }
  told: { image: busybox, run: make told, needs: [bench, test] }
";

/// A run as far as its first job waits.
async fn begin(story: &Story) -> RunId {
    let run = story.read("main", 1, FILE).await;
    story.reconcile().await;
    story.act().await;
    run
}

async fn claim(story: &Story, runner: &str, token: &str) -> Option<Claim> {
    let claim = story.store.claim_job(runner, hash_secret(token), story.now);
    claim.await.unwrap()
}

async fn succeed(story: &Story, claim: &Claim) {
    let images = BTreeMap::new();
    end(story, claim, AttemptOutcome::Succeeded { images }).await;
}

async fn end(story: &Story, claim: &Claim, outcome: AttemptOutcome) {
    let fence = u64::from(claim.number);
    let told = story
        .store
        .end_attempt(&claim.attempt, fence, outcome, story.now);
    assert_eq!(told.await.unwrap(), Report::Recorded);
}

/// A runner says which labels it has.
async fn labelled(story: &Story, runner: &str, labels: &[&str]) {
    let labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
    let key = hash_secret(&format!("key of {runner}"));
    let registered = story.store.register_runner(runner, key, vec![], story.now);
    registered.await.unwrap();
    let offer = Offer {
        labels,
        free_slots: 1,
        disk_free_bytes: 1,
    };
    let heard = story
        .store
        .heartbeat(runner, vec![], Some(offer), story.now);
    heard.await.unwrap();
}

async fn a_runner_gets_the_jobs_whose_labels_it_has(url: &str) {
    let story = Story::begin(url).await;
    let run = begin(&story).await;
    labelled(&story, "plain", &["linux"]).await;
    labelled(&story, "large", &["linux", "arm", "big"]).await;
    let first = claim(&story, "plain", "1").await.unwrap();
    assert_eq!(
        (first.attempt.as_str(), first.job.as_str()),
        ("shop.1.a1", "default")
    );
    let nothing = claim(&story, "large", "2").await;
    assert_eq!(nothing, None, "the others need it");
    succeed(&story, &first).await;
    let mut taken = vec![];
    for (runner, token) in [("plain", "3"), ("plain", "4")] {
        taken.push(claim(&story, runner, token).await.unwrap());
    }
    let names: Vec<_> = taken.iter().map(|claim| claim.job.as_str()).collect();
    assert_eq!(names, ["test-postgres", "test-sqlite"]);
    assert_eq!(claim(&story, "plain", "5").await, None, "it is not big");
    let bench = claim(&story, "large", "6").await.unwrap();
    assert_eq!((bench.job.as_str(), bench.number), ("bench", 4));
    for claim in taken.iter().chain([&bench]) {
        succeed(&story, claim).await;
    }
    let last = claim(&story, "plain", "7").await.unwrap();
    assert_eq!(last.job.as_str(), "default-2");
    succeed(&story, &last).await;
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "succeeded");
    let jobs: Vec<_> = found.attempts.iter().map(|it| it.job.as_str()).collect();
    assert_eq!(
        jobs,
        [
            "default",
            "test-postgres",
            "test-sqlite",
            "bench",
            "default-2"
        ]
    );
}

async fn each_job_has_attempts_and_steps_of_its_own(url: &str) {
    let story = Story::begin(url).await;
    let run = begin(&story).await;
    let first = claim(&story, "a", "1").await.unwrap();
    succeed(&story, &first).await;
    let (one, two) = (
        claim(&story, "a", "2").await.unwrap(),
        claim(&story, "b", "3").await.unwrap(),
    );
    // Neither may speak of the other's step.
    let store = &story.store;
    let foreign = store.report_step(
        &one.attempt,
        2,
        "test-sqlite",
        StepState::Running,
        story.now,
    );
    assert!(foreign.await.is_err());
    let own = store.report_step(
        &two.attempt,
        3,
        "test-sqlite",
        StepState::Running,
        story.now,
    );
    assert_eq!(own.await.unwrap(), Report::Recorded);
    let failure = Failure::failed("step test-postgres: no");
    end(
        &story,
        &one,
        AttemptOutcome::Failed {
            failure: failure.clone(),
        },
    )
    .await;
    let found = store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "building", "the other one goes on");
    let open: Vec<_> = found
        .attempts
        .iter()
        .filter(|it| it.ended_at.is_none())
        .collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].id, two.attempt);
    end(
        &story,
        &two,
        AttemptOutcome::Succeeded {
            images: BTreeMap::new(),
        },
    )
    .await;
    // `bench` waits for a runner that nobody has: until it is over, the run is not.
    let found = store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "building");
    labelled(&story, "large", &["linux", "big"]).await;
    let bench = claim(&story, "large", "4").await.unwrap();
    succeed(&story, &bench).await;
    let found = store.get_run(&run).await.unwrap();
    let RunState::Failed { failure: told, .. } = found.run.state else {
        panic!("{:?}", found.run.state);
    };
    assert_eq!(told, failure);
    assert_eq!(
        claim(&story, "large", "5").await,
        None,
        "what needs it is skipped"
    );
}

async fn a_lost_attempt_brings_its_own_job_back_alone(url: &str) {
    let mut story = Story::begin(url).await;
    let run = begin(&story).await;
    let first = claim(&story, "a", "1").await.unwrap();
    succeed(&story, &first).await;
    let lost = claim(&story, "a", "2").await.unwrap();
    let kept = claim(&story, "b", "3").await.unwrap();
    let accepted = story.store.accept_attempt(&kept.attempt, story.now);
    accepted.await.unwrap();
    story.wait(i64::try_from(ACCEPT_SECONDS).unwrap() + 1);
    assert_eq!(story.store.expire_attempts(story.now).await.unwrap(), 1);
    let again = claim(&story, "c", "4").await.unwrap();
    assert_eq!((&again.job, again.number), (&lost.job, 4));
    let found = story.store.get_run(&run).await.unwrap();
    let at_work: Vec<_> = found
        .run
        .state
        .at_work()
        .map(|work| (work.attempt, work.lost))
        .collect();
    assert_eq!(at_work, [(4, 1), (3, 0)]);
    let late = story
        .store
        .end_attempt(&lost.attempt, 2, AttemptOutcome::Cancelled, story.now);
    assert_eq!(late.await.unwrap(), Report::Lost);
}

async fn every_runner_of_a_cancelled_run_is_told(url: &str) {
    let story = Story::begin(url).await;
    let run = begin(&story).await;
    let first = claim(&story, "a", "1").await.unwrap();
    succeed(&story, &first).await;
    let (one, two) = (
        claim(&story, "a", "2").await.unwrap(),
        claim(&story, "b", "3").await.unwrap(),
    );
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    let cancelled = story.store.record(&story.shop, "ada", story.now, |world| {
        action::cancel_run(world, &run, &ada)
    });
    cancelled.await.unwrap();
    labelled(&story, "large", &["linux", "big"]).await;
    assert_eq!(
        claim(&story, "large", "4").await,
        None,
        "`bench` does not begin"
    );
    for (runner, claim) in [("a", &one), ("b", &two)] {
        let named = AttemptRef {
            attempt: claim.attempt.clone(),
            fence: u64::from(claim.number),
        };
        let heard = story.store.heartbeat(runner, vec![named], None, story.now);
        assert_eq!(
            heard.await.unwrap().cancel,
            std::slice::from_ref(&claim.attempt)
        );
        end(&story, claim, AttemptOutcome::Cancelled).await;
    }
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "cancelled");
}
