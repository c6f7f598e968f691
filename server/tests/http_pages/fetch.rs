//! Artifacts of earlier jobs over the runner's door: what a step gets, of whom, and what it is refused.

use crate::site::{Site, Who, now};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::rerun::Wish;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_protocol::ArtifactsOffered;
use roadstead_server::http::runner_api::version_of;
use roadstead_server::store::{Claim, Offer, hash_secret};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// `far` has a runner of its own; `near` shares the job of `build`, whose files lie there.
const FILE: &str = "\
version: 1
name: shop
steps:
  build: { image: busybox, run: make, artifacts: ['dist/**'] }
  other: { image: busybox, run: make, artifacts: ['dist/**'] }
  near: { image: busybox, run: make, needs: [build], artifacts_from: [build] }
  far: { image: busybox, run: make, runs_on: [linux], needs: [build, other], artifacts_from: [build] }
";

/// Takes the next job.
async fn claim(site: &Site, token: &str) -> Claim {
    let offer = Offer {
        labels: vec!["linux".into()],
        free_slots: 1,
        disk_free_bytes: 1,
    };
    let store = &site.story.store;
    let heard = store.heartbeat("harbour", vec![], Some(offer), now()).await;
    heard.unwrap();
    let runner = store.list_runners().await.unwrap().remove(0).id;
    let claim = store.claim_job(&runner, hash_secret(token), now()).await;
    let claim = claim.unwrap().unwrap();
    store.accept_attempt(&claim.attempt, now()).await.unwrap();
    claim
}

async fn end(site: &Site, claim: &Claim, outcome: AttemptOutcome) {
    let fence = u64::from(claim.number);
    let store = &site.story.store;
    let ended = store.end_attempt(&claim.attempt, fence, outcome, now());
    ended.await.unwrap();
}

fn succeeded() -> AttemptOutcome {
    let images = BTreeMap::new();
    AttemptOutcome::Succeeded { images }
}

fn failed() -> AttemptOutcome {
    let failure = Failure::failed("step x: no");
    AttemptOutcome::Failed { failure }
}

/// A step leaves a file.
async fn leave(site: &Site, (claim, token): (&Claim, &str), step: &str, bytes: &str) {
    let path = format!(
        "/runner/v1/attempts/{}/steps/{step}/artifact",
        claim.attempt
    );
    let (fence, length) = (claim.number.to_string(), bytes.len().to_string());
    let sum = hex::encode(Sha256::digest(bytes));
    let query = [
        ("fence", fence.as_str()),
        ("name", "dist/a b.js"),
        ("length", &length),
        ("sha256", &sum),
    ];
    let request = site.request(Who::Nobody, Method::PUT, &path);
    let request = request.bearer_auth(token).query(&query);
    let sent = request.body(bytes.to_owned()).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::NO_CONTENT);
}

async fn get(site: &Site, claim: &Claim, token: &str, path: &str) -> reqwest::Response {
    let path = format!("/runner/v1/attempts/{}/steps/{path}", claim.attempt);
    let request = site.request(Who::Nobody, Method::GET, &path);
    request.bearer_auth(token).send().await.unwrap()
}

async fn offered(site: &Site, claim: &Claim, token: &str, step: &str) -> Vec<String> {
    let answer = get(site, claim, token, &format!("{step}/artifacts")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let offered: ArtifactsOffered = answer.json().await.unwrap();
    let line =
        |it: &roadstead_protocol::ArtifactOffered| format!("{} {} {}", it.step, it.name, it.length);
    offered.artifacts.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_gets_what_the_steps_left_that_it_names_and_nothing_else() {
    let site = Site::start().await;
    let run = site.story.read("main", 91, FILE).await;
    site.story.reconcile().await;
    site.story.act().await;
    let first = claim(&site, "t1").await;
    assert_eq!(first.job.as_str(), "default");
    let waiting = site.story.store.get_run(&run).await.unwrap().run;
    let far = "far".parse_job();
    assert_eq!(version_of(&waiting, &far), 4);
    assert_eq!(version_of(&waiting, &first.job), 3, "its files lie there");
    leave(&site, (&first, "t1"), "build", "of the first try").await;
    leave(&site, (&first, "t1"), "other", "no").await;
    assert_eq!(
        offered(&site, &first, "t1", "near").await,
        Vec::<String>::new()
    );
    end(&site, &first, failed()).await;
    let wish = Wish {
        by: "ada".into(),
        ..Wish::default()
    };
    let again = site
        .story
        .store
        .rerun(&run, wish, Default::default(), now())
        .await;
    assert!(again.unwrap().is_some());
    let second = claim(&site, "t2").await;
    leave(&site, (&second, "t2"), "build", "hello").await;
    leave(&site, (&second, "t2"), "other", "no").await;
    end(&site, &second, succeeded()).await;

    let third = claim(&site, "t3").await;
    assert_eq!(third.job, far);
    assert_eq!(
        offered(&site, &third, "t3", "far").await,
        ["build dist/a b.js 5"],
        "of the attempt that ended well"
    );
    let bytes = get(&site, &third, "t3", "far/artifacts/build/dist/a%20b.js").await;
    assert_eq!(bytes.status(), StatusCode::OK);
    assert_eq!(bytes.text().await.unwrap(), "hello");
    for (path, token, status) in [
        (
            "far/artifacts/other/dist/a%20b.js",
            "t3",
            StatusCode::NOT_FOUND,
        ),
        ("far/artifacts/build/dist/b.js", "t3", StatusCode::NOT_FOUND),
        (
            "far/artifacts/build/..%2F..%2Fx",
            "t3",
            StatusCode::NOT_FOUND,
        ),
        ("near/artifacts", "t3", StatusCode::NOT_FOUND),
        ("far/artifacts", "t2", StatusCode::FORBIDDEN),
        ("far/artifacts", "nobody", StatusCode::UNAUTHORIZED),
    ] {
        let answer = get(&site, &third, token, path).await;
        assert_eq!(answer.status(), status, "{path} with {token}");
    }
    end(&site, &third, succeeded()).await;
    let late = get(&site, &third, "t3", "far/artifacts").await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
    site.stop().await;
}

trait ParseJob {
    fn parse_job(&self) -> roadstead_pipelines::id::JobName;
}

impl ParseJob for str {
    fn parse_job(&self) -> roadstead_pipelines::id::JobName {
        roadstead_pipelines::id::JobName::parse(self).unwrap()
    }
}
