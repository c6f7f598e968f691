//! Polls that wait are called when there is something for them, and only then.

use crate::polls::queued;
use crate::site::{PATIENCE, Site, now};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_protocol::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION};
use roadstead_server::dispatcher::{Place, Takes};
use roadstead_server::store::hash_secret;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longer than any test: who is not called stays.
const FOR_EVER: Duration = Duration::from_secs(3600);
const SIMPLE: &str = "{ image: busybox, run: make }";
const WITH_SECRET: &str = "{ image: busybox, run: make, secrets: [TOKEN] }";

/// What a runner takes that speaks `version` and has `labels`.
fn takes(version: u32, labels: &[&str]) -> Option<Takes> {
    let labels = labels.iter().map(ToString::to_string).collect();
    Some(Takes { version, labels })
}

/// A poll that has looked, and waits; it comes back when it is called.
fn waits(place: Place) -> JoinHandle<Place> {
    tokio::spawn(async move {
        place.called(FOR_EVER).await;
        place
    })
}

async fn called(waiting: JoinHandle<Place>) -> Place {
    let called = tokio::time::timeout(PATIENCE, waiting);
    called.await.expect("is called").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_calls_the_first_who_can_do_it_and_nobody_else() {
    let site = Site::start().await;
    let older = waits(
        site.app
            .waiters
            .join("older", takes(OLDEST_PROTOCOL_VERSION, &[])),
    );
    let full = waits(site.app.waiters.join("full", None));
    let newer = waits(site.app.waiters.join("newer", takes(PROTOCOL_VERSION, &[])));
    let newest = waits(
        site.app
            .waiters
            .join("newest", takes(PROTOCOL_VERSION, &[])),
    );
    queued(&site, 81, WITH_SECRET).await;
    site.app.bell.ring();
    let first = called(newer).await;
    // As long as it is on its way nobody is called for the same job, but for the next one.
    queued(&site, 82, SIMPLE).await;
    site.app.bell.ring();
    let second = called(older).await;
    queued(&site, 83, SIMPLE).await;
    site.app.bell.ring();
    let third = called(newest).await;
    assert!(!full.is_finished());
    drop((first, second, third));
    full.abort();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_without_room_is_called_when_its_attempt_is_to_stop() {
    let site = Site::start().await;
    let store = &site.story.store;
    let hash = hash_secret("credential");
    let runner = store.runner_by_credential(&hash).await.unwrap().unwrap().id;
    let run = queued(&site, 81, SIMPLE).await;
    let claim = store.claim_job(&runner, "a token".into(), now());
    assert_eq!(claim.await.unwrap().unwrap().run.id, run);
    let full = waits(site.app.waiters.join(&runner, None));
    let other = waits(site.app.waiters.join("other", takes(PROTOCOL_VERSION, &[])));
    let by = "ada".to_owned();
    let change = [Change::Run {
        run,
        fact: RunFact::CancelRequested { by },
    }];
    let decide = |_: &_| Ok(change.to_vec());
    let recorded = store.record(&site.story.shop, "ada", now(), decide);
    recorded.await.unwrap();
    site.app.bell.ring();
    called(full).await;
    assert!(!other.is_finished());
    other.abort();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_labels_calls_a_runner_that_has_them() {
    let site = Site::start().await;
    let join = |runner, labels| {
        site.app
            .waiters
            .join(runner, takes(PROTOCOL_VERSION, labels))
    };
    let plain = waits(join("plain", &["linux"]));
    let arm = waits(join("arm", &["linux", "arm"]));
    queued(&site, 81, "{ image: busybox, run: make, runs_on: [arm] }").await;
    site.app.bell.ring();
    called(arm).await;
    assert!(!plain.is_finished());
    plain.abort();
    site.stop().await;
}
