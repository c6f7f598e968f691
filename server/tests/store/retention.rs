//! What retention takes away, and what it leaves.

use crate::databases::{self, on_both_databases};
use crate::story::{Story, commit, place};
use jiff::SignedDuration;
use roadstead_pipelines::action::{self, Actor};
use roadstead_pipelines::id::{ReleaseId, RunId};
use roadstead_pipelines::spec::Role;
use roadstead_server::artifacts::ArtifactKey;
use roadstead_server::config;
use roadstead_server::logs::Lock;
use roadstead_server::logs::{LogKey, LogStore};
use roadstead_server::retention::{Retention, Stopped, Swept};
use roadstead_server::store::{Accepted, Decision, Redelivery, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

on_both_databases!(
    what_is_old_goes_and_what_is_named_stays,
    a_sweep_that_is_cut_off_again_and_again_comes_to_the_same_end,
    logs_go_by_their_own_policy,
    deliveries_go_once_no_forge_repeats_them,
    nothing_goes_under_a_backup,
    without_a_policy_everything_stays,
);

fn kept(days: Option<u32>, newest: Option<u32>) -> config::Kept {
    config::Kept { days, newest }
}

fn retention(story: &Story, folder: &TempDir, policies: config::Retention) -> Retention {
    Retention {
        store: story.store.clone(),
        logs: LogStore::new(&folder.path().join("logs")).unwrap(),
        policies,
        started_at: story.now,
    }
}

fn of_runs(days: u32) -> config::Retention {
    config::Retention {
        runs: kept(Some(days), None),
        ..config::Retention::default()
    }
}

fn key(run: &RunId) -> LogKey {
    LogKey {
        run: run.to_string(),
        attempt: 1,
        step: "test".into(),
    }
}

/// One without a byte.
fn artifact(run: &RunId) -> ArtifactKey {
    ArtifactKey {
        run: run.to_string(),
        attempt: 1,
        step: "test".into(),
        name: "dist/app.js".into(),
        sha256: String::new(),
    }
}

fn ada() -> Actor {
    Actor {
        name: "ada".into(),
        role: Role::Deployer,
    }
}

fn run(story: &Story, number: u64) -> RunId {
    RunId::new(&story.shop, number)
}

async fn runs(story: &Story) -> BTreeSet<u64> {
    let found = story.store.list_runs(&story.shop, None, 1_000).await;
    found.unwrap().iter().map(|run| run.id.number()).collect()
}

/// A run of a branch that is cancelled before it begins.
async fn cancelled(story: &mut Story, number: u64, git_ref: &str) -> RunId {
    let mut delivery = story.delivery(&format!("cancelled-{number}"), number);
    delivery.decision = Decision::Build {
        git_ref: git_ref.into(),
        commit: commit(number),
    };
    let Accepted::Run(run) = story.store.accept_delivery(delivery).await.unwrap() else {
        panic!("a new push makes a run");
    };
    let cancel = |world: &_| action::cancel_run(world, &run, &ada());
    story
        .store
        .record(&story.shop, "ada", story.now, cancel)
        .await
        .unwrap();
    run
}

/// 56 releases, the first one deployed, and runs without one.
async fn years(url: &str, folder: &TempDir) -> Story {
    let mut story = Story::begin(url).await;
    story.verified_in_staging().await;
    let staging = place("staging");
    let (shop, now) = (story.shop.clone(), story.now);
    let hold = |world: &_| action::hold(world, &staging, &ada(), "a long winter", now);
    story.store.record(&shop, "ada", now, hold).await.unwrap();
    for _ in 2..=56 {
        let run = story.push().await;
        story.build(&run).await;
    }
    for _ in 0..3 {
        story.reconcile().await;
        story.act().await;
    }
    cancelled(&mut story, 57, "refs/tags/v57").await;
    cancelled(&mut story, 58, "refs/heads/topic").await;
    story.wait(60);
    let live = story.delivery("live", 59);
    story.store.accept_delivery(live).await.unwrap();
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    for number in 1..=59 {
        let text = bytes::Bytes::from_static(b"a line\n");
        logs.append(key(&run(&story, number)), 0, text)
            .await
            .unwrap();
        let artifacts = logs.artifacts();
        let artifact = artifacts.take(artifact(&run(&story, number)));
        artifact.await.unwrap().keep().await.unwrap();
    }
    assert_eq!(runs(&story).await, (1..=59).collect());
    story
}

/// Runs that go: 2 to 6 made releases that are neither listed (the newest 50 are) nor deployed, and 57 is
/// of a tag, of which the newest does not stay as that of a branch does.
const GOES: [u64; 6] = [2, 3, 4, 5, 6, 57];

async fn is_as_it_has_to_be(story: &Story, folder: &TempDir) {
    let stays: BTreeSet<_> = (1..=59).filter(|number| !GOES.contains(number)).collect();
    assert_eq!(runs(story).await, stays);
    for number in 1..=59 {
        let there = folder.path().join(format!("logs/shop.{number}")).exists();
        assert_eq!(there, !GOES.contains(&number), "logs of shop.{number}");
        let artifacts = folder.path().join(format!("logs/artifacts/shop.{number}"));
        assert_eq!(artifacts.exists(), there, "artifacts of shop.{number}");
    }
    let releases = story.store.list_releases(&story.shop, None, 1_000).await;
    let releases: BTreeSet<_> = releases.unwrap().iter().map(|r| r.id.number()).collect();
    let expected: BTreeSet<_> = (1..=56).filter(|number| !GOES.contains(number)).collect();
    assert_eq!(releases, expected);
    let gone = story.store.get_run(&run(story, 2)).await.unwrap_err();
    assert_eq!(
        gone.to_string(),
        "there is no run shop.2 any more: retention has removed it"
    );
    let never = story.store.get_run(&run(story, 777)).await.unwrap_err();
    assert_eq!(never.to_string(), "there is no run shop.777");
    // What told of them stays.
    let told = story
        .store
        .list_events(Some(&story.shop), Some("shop.2"), None, 100)
        .await;
    assert!(!told.unwrap().is_empty());
    let removed = story
        .store
        .list_events(Some(&story.shop), Some("retention"), None, 100)
        .await;
    let removed: BTreeSet<_> = removed
        .unwrap()
        .iter()
        .flat_map(|event| event.detail["removed"].as_array().unwrap().clone())
        .map(|gone| gone["run"].as_str().unwrap().to_owned())
        .collect();
    let expected = GOES.map(|number| format!("shop.{number}"));
    assert_eq!(removed, expected.into_iter().collect());
}

async fn what_is_old_goes_and_what_is_named_stays(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = years(url, &folder).await;
    let retention = retention(&story, &folder, of_runs(90));
    story.wait(90 * 86_400 - 600);
    let young = retention.sweep(story.now).await.unwrap();
    assert_eq!(young, Swept::default());
    story.wait(1_200);

    let before = story.store.load_world(&story.shop).await.unwrap();
    let swept = retention.sweep(story.now).await.unwrap();
    let expected = Swept {
        runs: GOES.len(),
        ..Swept::default()
    };
    assert_eq!(swept, expected);
    is_as_it_has_to_be(&story, &folder).await;
    // Nothing that decides has changed.
    let mut after = story.store.load_world(&story.shop).await.unwrap();
    assert_ne!(after.generations, before.generations);
    after.generations = before.generations.clone();
    assert_eq!(after, before);
    let again = retention.sweep(story.now).await.unwrap();
    assert_eq!(again, Swept::default());
    // A number is never given twice, and the deployed release is still to be had.
    let new = story.delivery("new", 1_000);
    let accepted = story.store.accept_delivery(new).await.unwrap();
    assert_eq!(accepted, Accepted::Run(run(&story, 60)));
    let first = ReleaseId::new(&story.shop, 1);
    assert_eq!(
        story.store.get_release(&first).await.unwrap().run,
        Some(run(&story, 1))
    );
}

async fn a_sweep_that_is_cut_off_again_and_again_comes_to_the_same_end(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = years(url, &folder).await;
    story.wait(100 * 86_400);
    // As if killed between files and rows.
    let logs = LogStore::new(&folder.path().join("logs")).unwrap();
    logs.remove("shop.2").await.unwrap();
    // Others write meanwhile.
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicUsize::new(0));
    let writer = {
        let (store, stop, written) = (story.store.clone(), Arc::clone(&stop), Arc::clone(&written));
        let mut delivery = story.delivery("", 0);
        tokio::spawn(async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                delivery.delivery_id = format!("beside-{number}");
                delivery.decision = Decision::Ignore {
                    reason: "it is in the way".into(),
                };
                store.accept_delivery(delivery.clone()).await.unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for polls in 1..12 {
        let retention = retention(&story, &folder, of_runs(90));
        let mut sweep = Box::pin(retention.sweep(story.now));
        // Goes on each time that something in it is done, and is then dropped where it stands.
        for _ in 0..polls {
            let mut over = false;
            std::future::poll_fn(|context| {
                over = sweep.as_mut().poll(context).is_ready();
                std::task::Poll::Ready(())
            })
            .await;
            if over {
                break;
            }
            let before = written.load(Ordering::Relaxed);
            while written.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        }
    }
    let retention = retention(&story, &folder, of_runs(90));
    retention.sweep(story.now).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    is_as_it_has_to_be(&story, &folder).await;
}

async fn logs_go_by_their_own_policy(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(url).await;
    let release = story.verified_in_staging().await;
    for number in 2..=4 {
        cancelled(&mut story, number, "refs/heads/topic").await;
    }
    let live = story.push().await;
    let policies = config::Retention {
        logs: kept(Some(30), Some(2)),
        ..config::Retention::default()
    };
    let retention = retention(&story, &folder, policies);
    for number in 1..=5 {
        let text = bytes::Bytes::from_static(b"a line\n");
        let key = key(&run(&story, number));
        retention.logs.append(key, 0, text).await.unwrap();
        let artifacts = retention.logs.artifacts();
        let artifact = artifacts.take(artifact(&run(&story, number)));
        artifact.await.unwrap().keep().await.unwrap();
    }
    story.wait(31 * 86_400);
    let expected = Swept {
        logs: 3,
        ..Swept::default()
    };
    assert_eq!(retention.sweep(story.now).await.unwrap(), expected);
    assert_eq!(retention.sweep(story.now).await.unwrap(), Swept::default());
    assert_eq!(live, run(&story, 5));
    for number in 1..=5 {
        let id = run(&story, number);
        let removed = story.store.logs_removed_at(&id).await.unwrap();
        // 4 and 5 are the newest two; 1 made a release that runs in staging, and its log goes all the
        // same.
        assert_eq!(removed, (number < 4).then_some(story.now), "{id}");
        let there = folder.path().join(format!("logs/{id}")).exists();
        assert_eq!(there, number >= 4, "{id}");
        let artifacts = folder.path().join(format!("logs/artifacts/{id}"));
        assert_eq!(artifacts.exists(), there, "{id}");
        story.store.get_run(&id).await.unwrap();
    }
    story.store.get_release(&release).await.unwrap();
}

async fn deliveries_go_once_no_forge_repeats_them(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(url).await;
    for number in 1..=4 {
        cancelled(&mut story, number, "refs/heads/main").await;
    }
    let live = story.delivery("live", 5);
    story.store.accept_delivery(live).await.unwrap();
    story.wait(86_400);
    let mut again = story.delivery("again", 1);
    again.redelivery = Some(Redelivery {
        of: 1,
        by: "ada".into(),
    });
    story.store.accept_delivery(again).await.unwrap();
    let left = async |story: &Story| -> Vec<String> {
        let found = story.store.list_deliveries(&story.shop, None, 100).await;
        let found = found.unwrap().into_iter();
        found.map(|delivery| delivery.delivery_id).collect()
    };
    let all = left(&story).await;
    assert_eq!(all.len(), 6);

    let policies = |newest| config::Retention {
        deliveries: kept(Some(0), newest),
        ..config::Retention::default()
    };
    let hard = retention(&story, &folder, policies(None));
    story.wait(2 * 86_400);
    assert_eq!(hard.sweep(story.now).await.unwrap(), Swept::default());
    assert_eq!(left(&story).await, all, "a forge may still repeat them");
    story.wait(SignedDuration::from_hours(25).as_secs());
    let mild = retention(&story, &folder, policies(Some(4)));
    let two = Swept {
        deliveries: 2,
        ..Swept::default()
    };
    assert_eq!(mild.sweep(story.now).await.unwrap(), two);
    assert_eq!(
        left(&story).await,
        ["again", "live", "cancelled-4", "cancelled-3"]
    );
    let found = story.store.list_deliveries(&story.shop, None, 1).await;
    assert_eq!(
        found.unwrap()[0].redelivery_of,
        None,
        "what it repeats is gone"
    );
    assert_eq!(hard.sweep(story.now).await.unwrap(), two);
    // Its run is not over; the other one is young.
    assert_eq!(left(&story).await, ["again", "live"]);
    assert_eq!(runs(&story).await, (1..=6).collect());
}

async fn nothing_goes_under_a_backup(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(url).await;
    for number in 1..=2 {
        let id = cancelled(&mut story, number, "refs/heads/main").await;
        let logs = LogStore::new(&folder.path().join("logs")).unwrap();
        logs.append(key(&id), 0, b"x"[..].into()).await.unwrap();
    }
    story.wait(86_400 * 2);
    let policies = config::Retention {
        logs: kept(Some(1), None),
        ..of_runs(1)
    };
    let retention = retention(&story, &folder, policies);
    let backup = Lock::shared(&folder.path().join("logs")).unwrap();
    let stopped = retention.sweep(story.now).await.unwrap_err();
    assert!(matches!(stopped, Stopped::Backup), "{stopped}");
    assert_eq!(runs(&story).await, [1, 2].into());
    assert!(folder.path().join("logs/shop.1").exists());
    drop(backup);
    let swept = retention.sweep(story.now).await.unwrap();
    assert_eq!((swept.runs, swept.logs), (1, 1));
    assert_eq!(runs(&story).await, [2].into());
}

async fn without_a_policy_everything_stays(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut story = Story::begin(url).await;
    for number in 1..=2 {
        cancelled(&mut story, number, "refs/heads/main").await;
    }
    story.wait(10_000 * 86_400);
    let retention = retention(&story, &folder, config::Retention::default());
    assert_eq!(retention.sweep(story.now).await.unwrap(), Swept::default());
    assert_eq!(runs(&story).await, [1, 2].into());
    let missing = story.store.get_run(&run(&story, 3)).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    let known = story
        .store
        .newest_commit(&story.shop, "refs/heads/main")
        .await;
    assert_eq!(known.unwrap(), Some(commit(2)));
}
