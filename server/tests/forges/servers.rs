//! Servers that die while they tell, and several on one database.

use crate::databases::{self, Cluster, on_both_databases};
use crate::forge::{FakeForge, Trouble};
use crate::scene::Scene;
use roadstead_pipelines::commit_status::{Answer, SETTLED_AFTER, Standing};
use roadstead_server::forge::Forge;
use roadstead_server::store::Store;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

on_both_databases!(
    a_server_that_dies_while_it_tells_is_followed,
    a_server_that_comes_back_too_late_is_not_heard,
    two_servers_tell_each_status_once,
);

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// It is killed when the forge has the call and has not worked on it: it lands after the next server's.
async fn a_server_that_dies_while_it_tells_is_followed(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    let leased_until = scene.story.now + jiff::SignedDuration::from_secs(60);
    let store = &scene.story.store;
    let leased = store.lease_status(&scene.story.shop, scene.story.now, leased_until);
    let due = leased.await.unwrap().unwrap();
    assert_eq!(due.telling.run, run);
    assert_eq!(scene.tell().await, 0, "it is leased");
    // The next one starts at once on SQLite, where there is no other; elsewhere the lease has to run out.
    let next = Store::open(url).await.unwrap();
    let teller = scene.teller_of(&next);
    if url.starts_with("postgres") {
        assert_eq!(scene.tell_by(&teller).await, 0);
        scene.wait(61);
    }
    scene.succeed(&run).await;
    assert_eq!(scene.tell_by(&teller).await, 1);
    assert_eq!(scene.forge.shown().unwrap(), "success");
    // What the dead one sent arrives.
    let late = scene.forge.inner().taken[0].clone();
    scene.forge.inner().taken.push(crate::forge::Taken {
        state: "pending".into(),
        ..late
    });
    assert_eq!(scene.tell_by(&teller).await, 0);
    scene.wait(SETTLED_AFTER.as_secs());
    assert_eq!(scene.tell_by(&teller).await, 1);
    assert_eq!(scene.forge.shown().unwrap(), "success");
    scene.wait(10_000);
    assert_eq!(scene.tell_by(&teller).await, 0);
}

/// It was stopped for longer than its lease, and then hears the answer.
async fn a_server_that_comes_back_too_late_is_not_heard(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let run = scene.push().await;
    let (shop, now) = (scene.story.shop.clone(), scene.story.now);
    let until = now + jiff::SignedDuration::from_secs(60);
    let slow = scene.story.store.clone();
    let due = slow.lease_status(&shop, now, until).await.unwrap().unwrap();
    scene.wait(61);
    let next = Store::open(url).await.unwrap();
    let teller = scene.teller_of(&next);
    assert_eq!(scene.tell_by(&teller).await, 1);
    let never = Answer::Never {
        reason: "nobody is to read this".into(),
    };
    let answered = slow.status_answered(&due, never, scene.story.now);
    answered.await.unwrap();
    assert!(matches!(scene.standing(&run).await, Standing::Told { .. }));
    // But its call may have been the last that the forge heard.
    assert_eq!(scene.tell_by(&teller).await, 0);
    scene.wait(SETTLED_AFTER.as_secs());
    assert_eq!(scene.tell_by(&teller).await, 1);
    scene.wait(10_000);
    assert_eq!(scene.tell_by(&teller).await, 0);
}

async fn two_servers_tell_each_status_once(url: &str) {
    let mut scene = Scene::begin(url, Forge::Github).await;
    let next = Store::open(url).await.unwrap();
    let other = scene.teller_of(&next);
    let mut runs = vec![];
    for _ in 0..20 {
        runs.push(scene.push().await);
    }
    let (here, there) = tokio::join!(scene.tell(), scene.tell_by(&other));
    // What one found locked it left to the other.
    let rest = scene.tell().await;
    assert_eq!(here + there + rest, runs.len());
    let told: Vec<_> = scene
        .forge
        .inner()
        .taken
        .iter()
        .map(|it| it.commit.clone())
        .collect();
    let commits: BTreeSet<_> = told.iter().collect();
    assert_eq!((told.len(), commits.len()), (runs.len(), runs.len()));
    for run in &runs {
        assert!(
            matches!(scene.standing(run).await, Standing::Told { .. }),
            "{run}"
        );
    }
}

/// Two running tellers, a forge that goes wrong in every way, and runs that go on: in the end it shows each run's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_running_servers_end_with_the_last_word() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let mut scene = Scene::begin(&url, Forge::Gitlab).await;
    scene.story.now = roadstead_server::clock::now();
    let stores = [scene.story.store.clone(), Store::open(&url).await.unwrap()];
    let stop = CancellationToken::new();
    let mut tellers = vec![];
    for store in &stores {
        let teller = scene
            .teller_of(store)
            .with_clock(roadstead_server::clock::Clock::default());
        tellers.push(tokio::spawn(teller.run(stop.clone())));
    }
    scene.forge.troubled([
        Trouble::AnswerLost,
        Trouble::Answer(502, vec![], serde_json::Value::Null),
        Trouble::AnswerLost,
        Trouble::Answer(
            429,
            vec![("retry-after", "1".into())],
            serde_json::Value::Null,
        ),
    ]);
    let run = scene.push().await;
    let forge = &scene.forge;
    until(forge, "pending").await;
    let attempt = {
        let token = roadstead_server::store::hash_secret("token");
        let claiming = scene
            .story
            .store
            .claim_job("harbour", token, scene.story.now);
        claiming.await.unwrap().unwrap().attempt
    };
    until(forge, "running").await;
    let outcome = roadstead_pipelines::run::AttemptOutcome::Failed {
        failure: roadstead_pipelines::report::Failure::failed("no"),
    };
    let now = roadstead_server::clock::now();
    let ending = scene.story.store.end_attempt(&attempt, 1, outcome, now);
    ending.await.unwrap();
    until(forge, "failed").await;
    stop.cancel();
    for teller in tellers {
        teller.await.unwrap();
    }
    let told = scene
        .story
        .store
        .status_of_run(&run)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(told.standing, Standing::Told { .. }), "{told:?}");
    // GitLab may be told an end twice.
    let mut states: Vec<_> = forge.told().into_iter().map(|(state, _)| state).collect();
    states.dedup();
    assert_eq!(states, ["pending", "running", "failed"]);
}

/// Waits until a forge shows a state.
async fn until(forge: &FakeForge, state: &str) {
    let shown = async {
        while forge.shown().as_deref() != Some(state) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, shown).await;
    assert!(shown.is_ok(), "{state} is not shown: {:?}", forge.told());
}

/// Stopping waits for the call that is under way and notes its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_notes_what_it_has_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(&databases::sqlite(&folder), Forge::Github).await;
    let run = scene.push().await;
    let stop = CancellationToken::new();
    // It is told to stop when it has begun.
    let telling = tokio::spawn(scene.teller.clone().run(stop.clone()));
    until(&scene.forge, "pending").await;
    stop.cancel();
    telling.await.unwrap();
    assert!(matches!(scene.standing(&run).await, Standing::Told { .. }));
}
