//! Runners as rows: what a drain holds over, and what becomes of those that leave.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_server::config;
use roadstead_server::logs::LogStore;
use roadstead_server::retention::Retention;
use roadstead_server::store::{A_NAME_IS_HELD_FOR, Offer, StoreError, hash_secret};

on_both_databases!(
    a_drain_is_of_the_name,
    whoever_left_gets_nothing_until_it_calls_again,
    whoever_left_for_good_frees_its_name,
    who_is_not_heard_of_any_more_goes_and_no_other,
);

/// Registers `name` with a credential of its own; gives whether it drains.
async fn registered(story: &Story, name: &str, credential: &str) -> bool {
    let hash = hash_secret(credential);
    let made = story
        .store
        .register_runner(name, hash, vec!["linux".into()], story.now);
    made.await.unwrap().drain
}

/// Whether a runner gets a job, which it claims.
async fn gets_a_job(story: &Story, runner: &str, token: &str) -> bool {
    let claim = story
        .store
        .claim_job(runner, hash_secret(token), story.now)
        .await;
    claim.unwrap().is_some()
}

async fn a_drain_is_of_the_name(url: &str) {
    let mut story = Story::begin(url).await;
    story.push().await;
    assert!(!registered(&story, "a", "first").await);
    let store = story.store.clone();
    let set = async |drain, now| store.set_drain("a", drain, "ole", now).await.unwrap();
    assert!(set(true, story.now).await);
    assert!(!set(true, story.now).await, "it drains already");

    story.wait(A_NAME_IS_HELD_FOR.as_secs());
    assert!(registered(&story, "a", "second").await);
    assert!(!gets_a_job(&story, "a", "one").await);
    assert!(!registered(&story, "b", "of b").await);
    assert!(set(false, story.now).await);
    assert!(gets_a_job(&story, "a", "one").await);

    let told = store.list_all_events(0, 50).await.unwrap();
    let told = told.iter().filter(|it| it.subject == "runner a");
    let told: Vec<_> = told.map(|it| (it.what.as_str(), &*it.actor)).collect();
    assert_eq!(told, [("runner_resumed", "ole"), ("runner_drained", "ole")]);
    let unknown = store.set_drain("c", true, "ole", story.now).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
}

async fn whoever_left_gets_nothing_until_it_calls_again(url: &str) {
    let mut story = Story::begin(url).await;
    story.push().await;
    story.push().await;
    registered(&story, "a", "first").await;
    let store = story.store.clone();
    let accepted = store.claim_job("a", hash_secret("one"), story.now).await;
    let accepted = accepted.unwrap().unwrap();
    store
        .accept_attempt(&accepted.attempt, story.now)
        .await
        .unwrap();
    let assigned = store.claim_job("a", hash_secret("two"), story.now).await;
    let assigned = assigned.unwrap().unwrap();
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 0);

    store.leave("a", false, story.now).await.unwrap();
    // What it works on it may still tell the end of; what it never began goes to others.
    assert_eq!(store.expire_attempts(story.now).await.unwrap(), 1);
    let open = store.get_runner("a").await.unwrap().running;
    assert_eq!(open, [accepted.attempt]);
    let told = store.list_all_events(0, 50).await.unwrap();
    let told = told.iter().find(|it| it.what == "attempt_lost").unwrap();
    assert!(
        told.detail.to_string().contains("runner a left before it"),
        "{told:?}"
    );
    assert_eq!(told.subject, assigned.run.id.to_string());

    assert!(!gets_a_job(&story, "a", "three").await);
    let again = store.register_runner("a", hash_secret("second"), vec![], story.now);
    assert!(matches!(again.await, Err(StoreError::Conflict { .. })));
    // A poll of before that still hangs looks again.
    story.wait(5);
    let offer = Offer {
        labels: vec!["linux".into()],
        free_slots: 2,
        disk_free_bytes: 5,
    };
    let heard = store.heartbeat("a", vec![], Some(offer), story.now);
    heard.await.unwrap();
    assert!(store.get_runner("a").await.unwrap().left.is_some());
    assert!(!gets_a_job(&story, "a", "four").await);

    store.come_back("a").await.unwrap();
    assert_eq!(store.get_runner("a").await.unwrap().left, None);
    assert!(gets_a_job(&story, "a", "five").await);
}

async fn whoever_left_for_good_frees_its_name(url: &str) {
    let story = Story::begin(url).await;
    registered(&story, "a", "first").await;
    let store = &story.store;
    store.leave("a", true, story.now).await.unwrap();
    let left = store.get_runner("a").await.unwrap().left.unwrap();
    assert_eq!((left.at, left.for_good), (story.now, true));
    store.come_back("a").await.unwrap();
    assert_eq!(store.get_runner("a").await.unwrap().left, Some(left));

    registered(&story, "a", "second").await;
    assert_eq!(store.get_runner("a").await.unwrap().left, None);
    let old = store.runner_by_credential(&hash_secret("first")).await;
    assert_eq!(old.unwrap(), None);
}

async fn who_is_not_heard_of_any_more_goes_and_no_other(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(url).await;
    let store = story.store.clone();
    story.push().await;
    for name in ["at work", "drained", "once", "silent", "stopped"] {
        registered(&story, name, name).await;
    }
    assert!(gets_a_job(&story, "at work", "one").await);
    let draining = store.set_drain("drained", true, "ole", story.now);
    assert!(draining.await.unwrap());
    store.leave("once", true, story.now).await.unwrap();
    store.leave("stopped", false, story.now).await.unwrap();
    let names = async || {
        let found = store.list_runners().await.unwrap();
        found.into_iter().map(|it| it.name).collect::<Vec<_>>()
    };
    let retention = Retention {
        store: store.clone(),
        logs: LogStore::new(&folder.path().join("logs")).unwrap(),
        policies: config::Retention::default(),
        started_at: story.now,
    };
    let swept = async |retention: &Retention, now| retention.sweep(now).await.unwrap().runners;

    story.wait(3_599);
    assert_eq!(swept(&retention, story.now).await, 0);
    story.wait(2);
    assert_eq!(swept(&retention, story.now).await, 1);
    assert_eq!(names().await, ["at work", "drained", "silent", "stopped"]);
    story.wait(30 * 24 * 3_600 - 3_602);
    assert_eq!(swept(&retention, story.now).await, 0);
    // Another server has just started: until runners have called it, all of them are silent.
    story.wait(2);
    let fresh = Retention {
        started_at: story.now,
        ..retention
    };
    assert_eq!(swept(&fresh, story.now).await, 0);
    story.wait(3_600);
    assert_eq!(swept(&fresh, story.now).await, 2);
    assert_eq!(names().await, ["at work", "drained"]);
    let told = store.list_all_events(0, 1).await.unwrap().remove(0);
    assert_eq!(told.what, "runners_removed");
    assert!(told.detail.to_string().contains("stopped"), "{told:?}");
}
