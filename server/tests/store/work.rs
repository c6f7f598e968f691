//! Work for runners on rows: every job goes to one runner, and what an attempt says counts only
//! while it is the current one.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use jiff::SignedDuration;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_pipelines::run::{AttemptOutcome, RunState};
use roadstead_pipelines::spec::Role;
use roadstead_protocol::{ACCEPT_SECONDS, AttemptRef, LEASE_SECONDS, StepState};
use roadstead_server::reaper::{Looked, Reaper};
use roadstead_server::store::{A_NAME_IS_HELD_FOR, Offer, Report, Store, StoreError, hash_secret};
use roadstead_server::wake::Bell;
use std::collections::BTreeSet;

on_both_databases!(
    every_job_is_claimed_once,
    a_lost_attempt_counts_no_more,
    a_result_counts_once,
    a_cancel_reaches_the_runner,
    a_restart_gives_every_attempt_a_lease,
    silence_that_nobody_could_hear_does_not_count,
    steps_go_forward_only,
    a_step_that_is_left_out_is_skipped_from_the_beginning,
    a_step_that_is_tried_again_is_not_over,
    what_waits_for_a_runner_is_cancelled_when_a_push_takes_its_place,
    a_draining_runner_gets_nothing,
);

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap()
}

fn reference(attempt: &str, fence: u32) -> AttemptRef {
    AttemptRef {
        attempt: attempt.into(),
        fence: u64::from(fence),
    }
}

fn errored() -> AttemptOutcome {
    AttemptOutcome::Errored {
        reason: "Docker Engine is gone".into(),
    }
}

async fn every_job_is_claimed_once(url: &str) {
    let mut story = Story::begin(url).await;
    let mut expected = BTreeSet::new();
    for _ in 0..24 {
        expected.insert(story.push().await);
    }
    let mut tasks = vec![];
    for runner in 0..8 {
        let (store, now) = (story.store.clone(), story.now);
        tasks.push(tokio::spawn(async move {
            let mut claimed = vec![];
            let name = format!("runner-{runner}");
            for number in 0_u32.. {
                let token = hash_secret(&format!("{name} {number}"));
                match store.claim_job(&name, token, now).await.unwrap() {
                    Some(claim) => claimed.push(claim.run.id),
                    None => break,
                }
            }
            claimed
        }));
    }
    let mut all = vec![];
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    // A claimer may find the queue empty while another works on the last ones: none is left over
    // once nobody claims any more.
    while let Some(claim) = story
        .store
        .claim_job(
            "last",
            hash_secret(&format!("last {}", all.len())),
            story.now,
        )
        .await
        .unwrap()
    {
        all.push(claim.run.id);
    }
    assert_eq!(all.len(), 24);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected);
}

async fn a_lost_attempt_counts_no_more(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let store = story.store.clone();
    let first = store
        .claim_job("a", hash_secret("one"), story.now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((first.attempt.as_str(), first.number), ("shop.1.a1", 1));

    // Not accepted in time.
    story.wait(seconds(ACCEPT_SECONDS));
    assert_eq!(
        store.expire_attempts(story.now).await.unwrap(),
        0,
        "its time is not over"
    );
    story.wait(1);
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 1);
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 0);
    assert_eq!(
        store
            .accept_attempt(&first.attempt, story.now)
            .await
            .unwrap(),
        Report::Lost
    );

    // The next one is accepted, lives by heartbeats, and is lost without.
    let second = store
        .claim_job("b", hash_secret("two"), story.now)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((second.attempt.as_str(), second.number), ("shop.1.a2", 2));
    assert_eq!(
        store
            .accept_attempt(&second.attempt, story.now)
            .await
            .unwrap(),
        Report::Recorded
    );
    assert_eq!(
        store
            .accept_attempt(&second.attempt, story.now)
            .await
            .unwrap(),
        Report::Repeated
    );
    let named = || vec![reference(&second.attempt, 2)];
    for _ in 0..3 {
        story.wait(seconds(LEASE_SECONDS) - 1);
        let heard = store
            .heartbeat("b", named(), None, story.now)
            .await
            .unwrap();
        assert!(
            heard.lost.is_empty() && heard.cancel.is_empty(),
            "{heard:?}"
        );
        assert_eq!(store.expire_attempts(story.now).await.unwrap(), 0);
    }
    let heard = store
        .heartbeat("somebody-else", named(), None, story.now)
        .await
        .unwrap();
    assert_eq!(heard.lost, ["shop.1.a2"], "it is another runner's");
    let wrong = vec![reference(&second.attempt, 1)];
    let heard = store.heartbeat("b", wrong, None, story.now).await.unwrap();
    assert_eq!(heard.lost, ["shop.1.a2"], "the fence is another's");
    story.wait(seconds(LEASE_SECONDS) + 1);
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 1);
    let heard = store
        .heartbeat("b", named(), None, story.now)
        .await
        .unwrap();
    assert_eq!(heard.lost, ["shop.1.a2"]);

    // Whatever the lost ones still say is refused.
    let third = store
        .claim_job("c", hash_secret("three"), story.now)
        .await
        .unwrap()
        .unwrap();
    for (attempt, fence) in [
        (&first.attempt, 1),
        (&second.attempt, 2),
        (&third.attempt, 2),
    ] {
        let step = store.report_step(attempt, fence, "test", StepState::Running, story.now);
        assert_eq!(step.await.unwrap(), Report::Lost);
        let end = store.end_attempt(attempt, fence, errored(), story.now);
        assert_eq!(end.await.unwrap(), Report::Lost);
    }
    let found = store.get_run(&run).await.unwrap();
    let mut at_work = found.run.state.at_work();
    let work = at_work.next().unwrap();
    assert_eq!((work.attempt, work.lost, work.runner), (3, 2, "c"));
    assert_eq!(at_work.next(), None);
    let ended: Vec<_> = found
        .attempts
        .iter()
        .map(|a| a.ended_at.is_some())
        .collect();
    assert_eq!(ended, [true, true, false]);

    // The third one is the last.
    story.wait(seconds(ACCEPT_SECONDS) + 1);
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 1);
    assert_eq!(
        store.get_run(&run).await.unwrap().run.state.word(),
        "failed"
    );
    assert!(
        store
            .claim_job("d", hash_secret("four"), story.now)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_result_counts_once(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let store = story.store.clone();
    let claim = store
        .claim_job("a", hash_secret("one"), story.now)
        .await
        .unwrap()
        .unwrap();
    let (attempt, found) = store
        .attempt_by_token(&hash_secret("one"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((attempt.id, found.id), (claim.attempt.clone(), run.clone()));
    assert!(
        store
            .attempt_by_token(&hash_secret("two"))
            .await
            .unwrap()
            .is_none()
    );

    let end = |outcome| store.end_attempt(&claim.attempt, 1, outcome, story.now);
    assert_eq!(end(errored()).await.unwrap(), Report::Recorded);
    let once = store.get_run(&run).await.unwrap();
    assert_eq!(end(errored()).await.unwrap(), Report::Repeated);
    assert_eq!(end(AttemptOutcome::Cancelled).await.unwrap(), Report::Lost);
    assert_eq!(store.get_run(&run).await.unwrap(), once);
    let jobs = once.run.state.jobs().unwrap();
    let queued: Vec<_> = jobs.queued().map(|(_, lost, _)| lost).collect();
    assert_eq!((jobs.attempts, queued), (1, vec![1]));
    assert_eq!(once.attempts[0].outcome, Some(errored()));
}

async fn a_step_that_is_left_out_is_skipped_from_the_beginning(url: &str) {
    let mut story = Story::begin(url).await;
    let name = StepName::parse("test").unwrap();
    story.left_out = [(name, "branch `main` is none".to_owned())].into();
    let run = story.push().await;
    let claim = story.store.claim_job("a", hash_secret("one"), story.now);
    let claim = claim.await.unwrap().unwrap();
    assert_eq!(claim.run.left_out, story.left_out);
    let found = story.store.get_run(&run).await.unwrap();
    assert_eq!(found.run.left_out, story.left_out);
    let states: Vec<_> = found
        .steps
        .iter()
        .map(|step| (step.name.as_str(), &step.state))
        .collect();
    assert_eq!(
        states,
        [
            ("test", &StepState::Skipped),
            ("image", &StepState::Waiting)
        ]
    );
}

async fn a_step_that_is_tried_again_is_not_over(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let store = story.store.clone();
    let claim = store.claim_job("a", hash_secret("one"), story.now);
    let claim = claim.await.unwrap().unwrap();
    let again = StepState::Retrying { number: 2 };
    for state in [StepState::Running, again.clone()] {
        let told = store.report_step(&claim.attempt, 1, "test", state, story.now);
        assert_eq!(told.await.unwrap(), Report::Recorded);
        story.wait(1);
    }
    let step = store.get_run(&run).await.unwrap().steps.remove(0);
    assert_eq!((&step.state, step.ended_at), (&again, None));
    assert!(step.started_at.unwrap() < story.now - SignedDuration::from_secs(1));
    // The runner is gone for good: the step ends with its attempt.
    story.wait(seconds(LEASE_SECONDS) + 1);
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 1);
    let step = store.get_run(&run).await.unwrap().steps.remove(0);
    assert!(matches!(step.state, StepState::Failed { .. }), "{step:?}");
}

async fn what_waits_for_a_runner_is_cancelled_when_a_push_takes_its_place(url: &str) {
    let mut story = Story::begin(url).await;
    let (first, second) = (story.push().await, story.push().await);
    story.supersedes = [first.clone()].into();
    let third = story.push().await;
    let state = async |run: &RunId| story.store.get_run(run).await.unwrap().run.state;
    let by = format!("{third}, which supersedes it");
    assert_eq!(
        state(&first).await,
        RunState::Cancelled { by, at: story.now }
    );
    assert_eq!(state(&second).await.word(), "queued");
    assert_eq!(state(&third).await.word(), "queued");
    let found = story.store.get_run(&third).await.unwrap();
    assert_eq!(found.run.supersedes, story.supersedes);
}

async fn a_cancel_reaches_the_runner(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let store = story.store.clone();
    let claim = store
        .claim_job("a", hash_secret("one"), story.now)
        .await
        .unwrap()
        .unwrap();
    let ada = Actor {
        name: "Ada".into(),
        role: Role::Deployer,
    };
    let running = StepState::Running;
    store
        .report_step(&claim.attempt, 1, "test", running, story.now)
        .await
        .unwrap();
    store
        .record(&story.shop, "Ada", story.now, |world| {
            action::cancel_run(world, &run, &ada)
        })
        .await
        .unwrap();
    let named = || vec![reference(&claim.attempt, 1)];
    let heard = store
        .heartbeat("a", named(), None, story.now)
        .await
        .unwrap();
    assert_eq!(heard.cancel, std::slice::from_ref(&claim.attempt));
    assert!(heard.lost.is_empty());

    // It never confirms: the server calls it final, and the steps with it.
    for _ in 0..12 {
        story.wait(5);
        store
            .heartbeat("a", named(), None, story.now)
            .await
            .unwrap();
        story.reconcile().await;
    }
    let found = store.get_run(&run).await.unwrap();
    assert_eq!(found.run.state.word(), "cancelled");
    assert_eq!(found.steps[0].state, StepState::Cancelled);
    assert_eq!(found.steps[1].state, StepState::Skipped);
    let heard = store
        .heartbeat("a", named(), None, story.now)
        .await
        .unwrap();
    assert_eq!(heard.lost, [claim.attempt]);
}

async fn a_restart_gives_every_attempt_a_lease(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    story
        .store
        .claim_job("a", hash_secret("one"), story.now)
        .await
        .unwrap()
        .unwrap();
    // Whoever only looks changes nothing.
    let before = story.store.get_run(&run).await.unwrap();
    Store::probe(url).await.unwrap();
    assert_eq!(story.store.get_run(&run).await.unwrap(), before);
    // The story's clock is long past: the lease is over when the server comes back.
    let store = Store::open(url).await.unwrap();
    assert_ne!(store.get_run(&run).await.unwrap(), before);
    assert_eq!(
        store
            .expire_attempts(roadstead_server::clock::now())
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        store.get_run(&run).await.unwrap().run.state.word(),
        "building"
    );
}

async fn silence_that_nobody_could_hear_does_not_count(url: &str) {
    let mut story = Story::begin(url).await;
    story.push().await;
    let store = story.store.clone();
    let reaper = Reaper {
        store: store.clone(),
        bell: Bell::default(),
    };
    let claimed = store.claim_job("a", hash_secret("one"), story.now).await;
    let claimed = claimed.unwrap().unwrap();
    let accepted = store.accept_attempt(&claimed.attempt, story.now).await;
    assert_eq!(accepted.unwrap(), Report::Recorded);

    // The database was gone for longer than the lease.
    story.wait(seconds(LEASE_SECONDS) + 5);
    let looked = reaper.look(true, story.now).await.unwrap();
    assert_eq!(looked, Looked::Renewed);
    let looked = reaper.look(false, story.now).await;
    assert_eq!(looked.unwrap(), Looked::Lost(0));
    // From then on silence counts again.
    story.wait(seconds(LEASE_SECONDS) + 1);
    let looked = reaper.look(false, story.now).await;
    assert_eq!(looked.unwrap(), Looked::Lost(1));
}

async fn steps_go_forward_only(url: &str) {
    let mut story = Story::begin(url).await;
    let run = story.push().await;
    let store = story.store.clone();
    let claim = store
        .claim_job("a", hash_secret("one"), story.now)
        .await
        .unwrap()
        .unwrap();
    let report = |state| store.report_step(&claim.attempt, 1, "test", state, story.now);
    let failed = || StepState::Failed {
        exit_code: Some(7),
        reason: "exit status 7".into(),
    };
    assert_eq!(report(StepState::Running).await.unwrap(), Report::Recorded);
    assert_eq!(report(failed()).await.unwrap(), Report::Recorded);
    assert_eq!(report(failed()).await.unwrap(), Report::Repeated);
    assert_eq!(report(StepState::Running).await.unwrap(), Report::Repeated);
    let step = &store.get_run(&run).await.unwrap().steps[0];
    assert_eq!(step.state, failed());
    assert_eq!(
        (step.started_at, step.ended_at),
        (Some(story.now), Some(story.now))
    );
    let unknown = store.report_step(&claim.attempt, 1, "paint", StepState::Running, story.now);
    assert_eq!(
        unknown.await.unwrap_err().to_string(),
        "there is no step `paint` in attempt shop.1.a1"
    );
}

async fn a_draining_runner_gets_nothing(url: &str) {
    let mut story = Story::begin(url).await;
    story.push().await;
    let store = story.store.clone();
    let labels = vec!["linux".to_owned()];
    store
        .register_runner("a", hash_secret("key"), labels, story.now)
        .await
        .unwrap();
    let found = store
        .runner_by_credential(&hash_secret("key"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, "a");
    store.set_drain("a", true, "ole", story.now).await.unwrap();
    let offer = Offer {
        labels: vec!["arm".into()],
        free_slots: 2,
        disk_free_bytes: 5,
    };
    story.wait(60);
    let heard = store
        .heartbeat("a", vec![], Some(offer), story.now)
        .await
        .unwrap();
    assert!(heard.drain);
    assert!(
        store
            .claim_job("a", hash_secret("one"), story.now)
            .await
            .unwrap()
            .is_none()
    );
    store.set_drain("a", false, "ole", story.now).await.unwrap();
    assert!(
        store
            .claim_job("a", hash_secret("one"), story.now)
            .await
            .unwrap()
            .is_some()
    );

    let found = store.list_runners().await.unwrap().remove(0);
    assert_eq!(
        (found.labels, found.free_slots),
        (vec!["arm".to_owned()], 2)
    );
    assert_eq!(
        (found.disk_free_bytes, found.last_seen_at),
        (Some(5), story.now)
    );
    assert_eq!(found.running, ["shop.1.a1"]);

    // Another one of that name has to wait until nothing was heard of this one for a while.
    let again = store.register_runner("a", hash_secret("new key"), vec![], story.now);
    let refused = again.await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert!(refused.to_string().contains("give this one another name"));
    let key = hash_secret("key");
    let known = store.runner_by_credential(&key).await.unwrap();
    assert!(known.is_some());

    // Registering again under the name ends the old credential.
    story.wait(A_NAME_IS_HELD_FOR.as_secs());
    store
        .register_runner("a", hash_secret("new key"), vec![], story.now)
        .await
        .unwrap();
    assert!(
        store
            .runner_by_credential(&hash_secret("key"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(store.list_runners().await.unwrap().len(), 1);
}
