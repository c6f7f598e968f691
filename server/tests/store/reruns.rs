//! Jobs of a run that ended badly, sent back to work: once, told in the history and to the forge.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::commit_status::State;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::rerun::Wish;
use roadstead_pipelines::retention::Policy;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_pipelines::spec::Role;
use roadstead_server::forge::Forge;
use roadstead_server::store::{Claim, Report, StoreError, hash_secret};
use std::collections::BTreeMap;

on_both_databases!(
    the_failed_job_alone_is_claimed_again_and_everybody_is_told,
    pressed_twice_at_the_same_time_it_is_done_once,
    a_superseded_run_stays_over_while_the_newer_one_works,
    what_retention_has_emptied_does_not_run_again,
    what_retention_may_have_on_its_list_does_not_run_again,
);

const FILE: &str = "\
version: 1
name: shop
steps:
  lint: { image: busybox, run: make lint }
  test:
    image: busybox
    run: make test
    needs: [lint]
    matrix: { db: [sqlite, postgres] }
  told: { image: busybox, run: make told, needs: [test] }
";

/// Nothing goes by age.
const KEPT: [Policy; 2] = [Policy {
    days: None,
    newest: None,
}; 2];

fn by_ada(after: Option<u32>) -> Wish {
    Wish {
        by: "ada".into(),
        after,
        ..Wish::default()
    }
}

async fn claim(story: &Story, token: &str) -> Option<Claim> {
    let claim = story
        .store
        .claim_job("harbour", hash_secret(token), story.now);
    claim.await.unwrap()
}

async fn end(story: &Story, claim: &Claim, outcome: AttemptOutcome) {
    let fence = u64::from(claim.number);
    let told = story
        .store
        .end_attempt(&claim.attempt, fence, outcome, story.now);
    assert_eq!(told.await.unwrap(), Report::Recorded);
}

fn succeeded() -> AttemptOutcome {
    let images = BTreeMap::new();
    AttemptOutcome::Succeeded { images }
}

fn failed() -> AttemptOutcome {
    let failure = Failure::failed("step test: exit status 1");
    AttemptOutcome::Failed { failure }
}

/// A run of which one combination failed and the other did not.
async fn one_failed(story: &Story) -> RunId {
    let run = story.read("main", 1, FILE).await;
    story.reconcile().await;
    story.act().await;
    for (token, outcome) in [("1", succeeded()), ("2", failed()), ("3", succeeded())] {
        let claim = claim(story, token).await.unwrap();
        end(story, &claim, outcome).await;
    }
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "failed");
    run
}

async fn status_of(story: &Story, run: &RunId) -> State {
    let telling = story.store.status_of_run(run).await.unwrap();
    telling.unwrap().status.state
}

async fn the_failed_job_alone_is_claimed_again_and_everybody_is_told(url: &str) {
    let story = Story::begin(url).await;
    let told = story.store.set_told_forge(&story.shop, Some(Forge::Github));
    told.await.unwrap();
    let run = one_failed(&story).await;
    assert_eq!(status_of(&story, &run).await, State::Failure);
    assert_eq!(claim(&story, "4").await, None);

    let again = story.store.rerun(&run, by_ada(None), KEPT, story.now);
    let again = again.await.unwrap().unwrap();
    let again: Vec<_> = again.iter().map(AsRef::as_ref).collect();
    assert_eq!(again, ["default-2", "test-postgres"]);
    assert_eq!(status_of(&story, &run).await, State::Running);
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(
        (found.run.state.word(), found.ended_at, found.attempts.len()),
        ("building", None, 3)
    );
    let history = story
        .store
        .list_events(Some(&story.shop), Some(run.as_str()), None, 1);
    let event = history.await.unwrap().pop().unwrap();
    assert_eq!(
        (event.what.as_str(), event.actor.as_str()),
        ("rerun_requested", "ada")
    );
    assert_eq!(event.detail["again"][1], "test-postgres");

    let second = claim(&story, "5").await.unwrap();
    assert_eq!(
        (second.attempt.as_str(), second.job.as_str()),
        ("shop.1.a4", "test-postgres")
    );
    assert_eq!(claim(&story, "6").await, None, "the other one ended well");
    // The attempt before has nothing more to say.
    let late = story
        .store
        .end_attempt("shop.1.a2", 2, succeeded(), story.now);
    assert_eq!(late.await.unwrap(), Report::Lost);
    end(&story, &second, succeeded()).await;
    let last = claim(&story, "7").await.unwrap();
    assert_eq!(last.job.as_str(), "default-2");
    end(&story, &last, succeeded()).await;
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "succeeded");
    assert_eq!(status_of(&story, &run).await, State::Success);
    let numbers: Vec<_> = found.attempts.iter().map(|it| it.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "those before are kept");
    let refused = story.store.rerun(&run, by_ada(None), KEPT, story.now).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
}

async fn pressed_twice_at_the_same_time_it_is_done_once(url: &str) {
    let story = Story::begin(url).await;
    let run = one_failed(&story).await;
    let press = || story.store.rerun(&run, by_ada(Some(3)), KEPT, story.now);
    let (one, two, three) = tokio::join!(press(), press(), press());
    let done = [one, two, three].map(|it| it.unwrap().is_some());
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    let history = story
        .store
        .list_events(Some(&story.shop), Some(run.as_str()), None, 100);
    let history = history.await.unwrap();
    let told = history.iter().filter(|it| it.what == "rerun_requested");
    assert_eq!(told.count(), 1);
    assert!(claim(&story, "4").await.is_some());
    assert_eq!(claim(&story, "5").await, None);
}

async fn a_superseded_run_stays_over_while_the_newer_one_works(url: &str) {
    let mut story = Story::begin(url).await;
    let first = story.push().await;
    let attempt = claim(&story, "1").await.unwrap();
    story.supersedes = [first.clone()].into();
    let second = story.push().await;
    end(&story, &attempt, AttemptOutcome::Cancelled).await;
    let found = story.store.get_run(&first).await.unwrap();
    assert_eq!(found.run.state.word(), "cancelled");
    let refused = story
        .store
        .rerun(&first, by_ada(None), KEPT, story.now)
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("shop.2, which supersedes shop.1, is queued"),
        "{refused}"
    );
    let ada = Actor {
        name: "ada".into(),
        role: Role::Deployer,
    };
    let stopped = story.store.record(&story.shop, "ada", story.now, |world| {
        action::cancel_run(world, &second, &ada)
    });
    stopped.await.unwrap();
    let again = story
        .store
        .rerun(&first, by_ada(None), KEPT, story.now)
        .await;
    assert!(again.unwrap().is_some(), "nothing is in its way");
    story.push().await;
    let found = story.store.get_run(&first).await.unwrap();
    assert_eq!(found.run.state.word(), "cancelled", "a newer push came");
}

async fn what_retention_has_emptied_does_not_run_again(url: &str) {
    let story = Story::begin(url).await;
    let run = one_failed(&story).await;
    let policy = Policy {
        days: Some(1),
        newest: None,
    };
    let noted = story
        .store
        .note_removed_logs(&story.shop, vec![run.clone()], policy, story.now);
    noted.await.unwrap();
    let refused = story.store.rerun(&run, by_ada(None), KEPT, story.now).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("retention removes"), "{refused}");
    let unknown = RunId::new(&story.shop, 9);
    let refused = story
        .store
        .rerun(&unknown, by_ada(None), KEPT, story.now)
        .await;
    assert!(matches!(refused, Err(StoreError::NotFound { .. })));
}

/// A sweep takes its time from the list of what goes to the last of it.
async fn what_retention_may_have_on_its_list_does_not_run_again(url: &str) {
    let story = Story::begin(url).await;
    let run = one_failed(&story).await;
    let days = |days| Policy {
        days: Some(days),
        newest: None,
    };
    let later = story.now + jiff::SignedDuration::from_hours(25);
    let by_logs = [KEPT[0], days(1)];
    let listed = story.store.logs_to_go(&story.shop, by_logs[1], later).await;
    assert_eq!(listed.unwrap(), std::slice::from_ref(&run));
    for kept in [by_logs, [days(1), KEPT[1]]] {
        let refused = story.store.rerun(&run, by_ada(None), kept, later).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("retention removes"), "{refused}");
    }
    // As is what another server lists, whose clock is ahead.
    let nearly = story.now + jiff::SignedDuration::from_mins(23 * 60 + 30);
    let refused = story.store.rerun(&run, by_ada(None), by_logs, nearly).await;
    assert!(refused.is_err());
    let kept = [days(2), days(2)];
    let again = story.store.rerun(&run, by_ada(None), kept, later).await;
    assert!(again.unwrap().is_some());
    let listed = story.store.logs_to_go(&story.shop, by_logs[1], later).await;
    assert!(listed.unwrap().is_empty(), "it is not over");
}
