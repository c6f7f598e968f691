//! A run of several jobs: what a runner is given and may say, and what the run's page and the API tell.

use crate::site::{PATIENCE, Site, VIEWER, Who, now};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::id::RunId;
use roadstead_protocol::{Assignment, PROTOCOL_VERSION, PollReply, Secrets, StepAction};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};

const FILE: &str = "\
version: 1
name: shop
steps:
  lint: { image: busybox, run: make lint }
  bench: { image: busybox, run: make bench, runs_on: [gpu], secrets: [TOKEN] }
  test:
    image: \"busybox:{matrix.version}\"
    run: make test
    needs: [lint]
    matrix: { version: [\"1.37\", \"1.36\"] }
  told: { image: busybox, run: make told, needs: [test] }
";

async fn begin(site: &Site) -> RunId {
    let run = site.story.read("main", 91, FILE).await;
    site.story.reconcile().await;
    site.story.act().await;
    run
}

/// What the runner `harbour` is given, which has the label `linux`.
async fn given(site: &Site) -> Assignment {
    let poll = json!({
        "protocol_version": PROTOCOL_VERSION, "labels": ["linux"], "free_slots": 1,
        "disk_free_bytes": 100_000_000_000_u64, "running": [],
    });
    let request = site.request(Who::Nobody, Method::POST, "/runner/v1/poll");
    let answer = request
        .bearer_auth("credential")
        .json(&poll)
        .timeout(PATIENCE);
    let reply: PollReply = answer.send().await.unwrap().json().await.unwrap();
    reply.assign.expect("a job waits")
}

/// A call of an attempt.
async fn call(
    site: &Site,
    given: &Assignment,
    (method, path): (Method, &str),
    body: Option<Value>,
) -> reqwest::Response {
    let path = format!("/runner/v1/attempts/{}/{path}", given.attempt.attempt);
    let request = site
        .request(Who::Nobody, method, &path)
        .bearer_auth(&given.token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    request.send().await.unwrap()
}

async fn end(site: &Site, given: &Assignment, outcome: Value) {
    let body = json!({ "fence": given.attempt.fence, "outcome": outcome, "images": [] });
    let answer = call(site, given, (Method::PUT, "result"), Some(body)).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_is_given_one_job_and_may_speak_of_its_steps_alone() {
    let site = Site::start().await;
    begin(&site).await;
    let first = given(&site).await;
    let names = |given: &Assignment| -> Vec<String> {
        given.steps.iter().map(|step| step.name.clone()).collect()
    };
    assert_eq!(names(&first), ["lint"]);
    end(&site, &first, json!({ "outcome": "succeeded" })).await;
    let second = given(&site).await;
    assert_eq!(names(&second), ["test-1-36"]);
    let step = &second.steps[0];
    assert!(step.needs.is_empty(), "another job did that: {step:?}");
    let StepAction::Run { image, env, .. } = &step.action else {
        panic!("{step:?}");
    };
    assert_eq!(image, "busybox:1.36");
    assert_eq!(env["MATRIX_VERSION"], "1.36");

    let accepted = call(&site, &second, (Method::POST, "accept"), None).await;
    assert_eq!(accepted.status(), StatusCode::NO_CONTENT);
    let log = |step: &str| format!("steps/{step}/log?offset=0");
    for (step, status) in [
        ("test-1-36", StatusCode::NO_CONTENT),
        ("test-1-37", StatusCode::NOT_FOUND),
        ("lint", StatusCode::NOT_FOUND),
    ] {
        let path = log(step);
        let told = call(&site, &second, (Method::PATCH, &path), None).await;
        assert_eq!(told.status(), status, "{step}");
    }
    let fence = format!("secrets?fence={}", second.attempt.fence);
    let told = call(&site, &second, (Method::GET, &fence), None).await;
    let secrets: Secrets = told.json().await.unwrap();
    assert_eq!(secrets, Secrets::default(), "those of `bench` are its own");
    site.stop().await;
}

const NOBODY: &str = "waits for a runner with gpu: none that takes work has all of them";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_and_the_api_tell_how_each_job_stands() {
    let site = Site::start().await;
    let run = begin(&site).await;
    let page = format!("/runs/{run}");
    let html = site.page(VIEWER, &page).await;
    for wanted in [NOBODY, "version 1.36", "waits for test-1-36, test-1-37"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    // One that has the label counts as long as it takes work.
    let store = &site.story.store;
    let labels = vec!["gpu".to_owned()];
    let made = store.register_runner("gpus", hash_secret("of gpus"), labels, now());
    made.await.unwrap();
    assert!(!site.page(VIEWER, &page).await.contains(NOBODY));
    store.set_drain("gpus", true, "ole", now()).await.unwrap();
    assert!(site.page(VIEWER, &page).await.contains(NOBODY));
    store.set_drain("gpus", false, "ole", now()).await.unwrap();
    assert!(!site.page(VIEWER, &page).await.contains(NOBODY));
    store.leave("gpus", false, now()).await.unwrap();
    assert!(site.page(VIEWER, &page).await.contains(NOBODY));
    let lint = given(&site).await;
    end(&site, &lint, json!({ "outcome": "succeeded" })).await;
    let test = given(&site).await;
    let failed = json!({ "outcome": "failed", "step": "test-1-36", "reason": "exit status 1" });
    end(&site, &test, failed).await;
    let html = site.page(VIEWER, &page).await;
    let wanted = "job test-1-36 did not succeed; the jobs that do not need it go on";
    assert!(html.contains(wanted), "{html}");

    let api = site.browse(VIEWER, &format!("/api/v1/runs/{run}")).await;
    let told: Value = api.json().await.unwrap();
    assert_eq!(told["run"]["state"]["state"], "building");
    let jobs: Vec<String> = told["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| format!("{}: {}", job["name"], job["state"]["state"]).replace('"', ""))
        .collect();
    assert_eq!(
        jobs,
        [
            "default: succeeded",
            "bench: queued",
            "test-1-37: queued",
            "test-1-36: failed",
            "default-2: skipped"
        ]
    );
    // Over by a cancel: what never began was cancelled, what had ended stays as it was.
    let canceller = crate::site::DEPLOYER;
    site.submit(canceller, &format!("{page}/cancel"), &[]).await;
    let api = site.browse(VIEWER, &format!("/api/v1/runs/{run}")).await;
    let told: Value = api.json().await.unwrap();
    assert_eq!(told["run"]["state"]["state"], "cancelled");
    let states: Vec<&str> = told["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["state"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        ["succeeded", "cancelled", "cancelled", "failed", "cancelled"]
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_group_is_told_who_holds_it() {
    const GROUPED: &str = "\
version: 1
name: shop
steps:
  deploy: { image: busybox, run: make, runs_on: [linux], concurrency: { group: deploys } }
";
    let site = Site::start().await;
    let mut runs = vec![];
    for number in [92, 93, 94] {
        runs.push(site.story.read("main", number, GROUPED).await);
        site.story.reconcile().await;
        site.story.act().await;
    }
    let first = given(&site).await;
    let group = async |run: &RunId| {
        let api = site.browse(VIEWER, &format!("/api/v1/runs/{run}")).await;
        let told: Value = api.json().await.unwrap();
        told["jobs"][0]["group"].clone()
    };
    let holds = json!({ "name": "deploys", "limit": 1, "standing": "holds" });
    assert_eq!(group(&runs[0]).await, holds);
    let waits = json!({
        "name": "deploys", "limit": 1, "standing": "waits", "position": 2,
        "held_by": [{ "run": runs[0], "job": "deploy" }],
    });
    assert_eq!(group(&runs[2]).await, waits);
    let wanted = format!(
        "group deploys, held by job deploy of {}; 1 job is before it",
        runs[0]
    );
    let html = site.page(VIEWER, &format!("/runs/{}", runs[2])).await;
    assert_eq!(
        html.matches(&wanted).count(),
        2,
        "the run and the job: {html}"
    );
    let html = site.page(VIEWER, "/runners").await;
    assert!(html.contains("No job waits for a runner."), "{html}");
    end(&site, &first, json!({ "outcome": "succeeded" })).await;
    let html = site.page(VIEWER, "/runners").await;
    assert!(html.contains("1 job waits for a runner"), "{html}");
    assert_eq!(
        given(&site).await.attempt.attempt,
        format!("{}.a1", runs[1])
    );
    assert_eq!(
        group(&runs[0]).await,
        json!({ "name": "deploys", "limit": 1 })
    );
    site.stop().await;
}
