//! Jobs sent back to work over HTTP: the buttons, the API, and what the run's page shows of each attempt.

use crate::site::{ADMIN, DEPLOYER, Site, VIEWER, location};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_protocol::StepState;
use roadstead_server::logs::LogKey;
use roadstead_server::store::{Claim, NewArtifact, Space, hash_secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FILE: &str = "\
version: 1
name: shop
steps:
  lint: { image: busybox, run: make lint }
  test:
    image: busybox
    run: make test
    artifacts: ['*.log']
    matrix: { db: [sqlite, postgres] }
";

/// Takes the next job, and does what a runner would of its only step.
async fn perform(site: &Site, token: &str, ends: bool, text: &str) -> Claim {
    let (store, now) = (&site.story.store, site.story.now);
    let claim = store.claim_job("harbour", hash_secret(token), now).await;
    let claim = claim.unwrap().unwrap();
    let fence = u64::from(claim.number);
    let step = claim.job.as_str();
    let step = if step == "default" { "lint" } else { step };
    let key = LogKey {
        run: claim.run.id.to_string(),
        attempt: claim.number,
        step: step.to_owned(),
    };
    let printed = site.app.logs.append(key, 0, text.to_owned().into());
    printed.await.unwrap();
    if step != "lint" {
        let kept = NewArtifact {
            attempt: claim.attempt.clone(),
            fence,
            step: step.parse_step(),
            name: format!("a{fence}.log"),
            length: 1,
            sha256: "0".repeat(64),
        };
        let kept = store.record_artifact(&kept, now).await.unwrap();
        assert_eq!(kept, Space::Free);
    }
    let (state, outcome) = if ends {
        let images = BTreeMap::new();
        (StepState::Succeeded, AttemptOutcome::Succeeded { images })
    } else {
        let failed = StepState::Failed {
            exit_code: Some(7),
            reason: String::new(),
        };
        let failure = Failure::failed(format!("step {step}: exit status 7"));
        (failed, AttemptOutcome::Failed { failure })
    };
    let told = store.report_step(&claim.attempt, fence, step, state, now);
    told.await.unwrap();
    let ended = store.end_attempt(&claim.attempt, fence, outcome, now);
    ended.await.unwrap();
    claim
}

trait ParseStep {
    fn parse_step(&self) -> roadstead_pipelines::id::StepName;
}

impl ParseStep for str {
    fn parse_step(&self) -> roadstead_pipelines::id::StepName {
        roadstead_pipelines::id::StepName::parse(self).unwrap()
    }
}

async fn one_failed(site: &Site) -> RunId {
    let run = site.story.read("main", 91, FILE).await;
    site.story.reconcile().await;
    site.story.act().await;
    perform(site, "t1", true, "linted\n").await;
    let failed = perform(site, "t2", false, "the first try\n").await;
    assert_eq!(failed.job.as_str(), "test-postgres");
    perform(site, "t3", true, "sqlite\n").await;
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_run_again_by_its_button_and_each_attempt_can_be_looked_at() {
    let site = Site::start().await;
    let run = one_failed(&site).await;
    let page = format!("/runs/{run}");
    let html = site.page(DEPLOYER, &page).await;
    assert!(html.contains("Rerun failed jobs"), "{html}");
    assert_eq!(
        html.matches("aria-label=\"Rerun test-postgres\"").count(),
        1
    );
    assert!(!html.contains("aria-label=\"Rerun test-sqlite\""));
    let html = site.page(VIEWER, &page).await;
    assert!(!html.contains("action=\"/runs/shop.2/rerun\""), "{html}");
    assert!(html.contains("Rerun failed jobs"), "and why not: {html}");

    let rerun = format!("{page}/rerun");
    let form = [("job", "test-postgres"), ("after", "3")];
    let answer = site.submit(DEPLOYER, &rerun, &form).await;
    assert_eq!(location(&answer), page);
    // The second press of an impatient person.
    let answer = site.submit(DEPLOYER, &rerun, &form).await;
    assert_eq!(location(&answer), page);
    let html = site.page(VIEWER, &page).await;
    assert!(html.contains("waits for a runner"), "{html}");
    assert!(!html.contains("Rerun failed jobs"), "it is at work");

    let again = perform(&site, "t4", true, "the second try\n").await;
    assert_eq!(
        (again.attempt, again.job.as_str()),
        (format!("{run}.a4"), "test-postgres")
    );
    let html = site.page(VIEWER, &page).await;
    for number in [1, 2, 3, 4] {
        let link = format!("href=\"{page}?attempt={number}\"");
        assert!(html.contains(&link), "{link}: {html}");
    }
    let newest = site
        .page(VIEWER, &format!("{page}?step=test-postgres"))
        .await;
    assert!(newest.contains("the second try") && newest.contains("a4.log"));
    assert!(!newest.contains("exit status 7") && !newest.contains("a2.log"));
    let before = site.page(VIEWER, &format!("{page}?attempt=2")).await;
    for wanted in [
        "the first try",
        "exit status 7",
        "a2.log",
        "Below is attempt 2 at job test-postgres",
        "a3.log",
    ] {
        assert!(before.contains(wanted), "{wanted}: {before}");
    }
    assert!(!before.contains("the second try") && !before.contains("a4.log"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_send_jobs_back_to_work_and_hear_why_not() {
    let site = Site::start().await;
    let run = one_failed(&site).await;
    let ask = async |body: Value| {
        let path = format!("/api/v1/runs/{run}/rerun");
        let request = site.request(ADMIN, Method::POST, &path).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let (status, told) = ask(json!({ "jobs": ["tset"] })).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("has no job `tset`; its jobs are: default"),
        "{message}"
    );
    let (status, _) = ask(json!({ "job": "test-postgres" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "that is no member");
    let (status, told) = ask(json!({})).await;
    assert_eq!(
        (status, told),
        (
            StatusCode::OK,
            json!({ "run": run, "jobs": ["test-postgres"] })
        )
    );
    let (status, _) = ask(json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "it is at work");
    let (status, told) = ask(json!({ "after": 3 })).await;
    assert_eq!((status, &told["jobs"]), (StatusCode::OK, &json!([])));
    site.stop().await;
}
