//! Runners as rows: what a drain holds over.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use roadstead_server::store::{A_NAME_IS_HELD_FOR, StoreError, hash_secret};

on_both_databases!(a_drain_is_of_the_name,);

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
