//! Runners on their page and by the API: drained and taken back, and what their polls then bring.

use crate::polls::queued;
use crate::site::{DEPLOYER, Site, VIEWER, Who, location, now};
use reqwest::{Method, StatusCode};
use roadstead_protocol::{PROTOCOL_VERSION, PollReply};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};

const STEP: &str = "{ image: busybox, run: make }";

async fn poll(site: &Site, credential: &str) -> PollReply {
    let offer = json!({
        "protocol_version": PROTOCOL_VERSION, "labels": ["linux"], "free_slots": 1,
        "disk_free_bytes": 100_000_000_000_u64, "running": [],
    });
    let request = site.request(Who::Nobody, Method::POST, "/runner/v1/poll");
    let answer = request.bearer_auth(credential).json(&offer).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

/// The runner of this name, as the API tells it.
async fn told(site: &Site, name: &str) -> Value {
    let answer = site.request(VIEWER, Method::GET, "/api/v1/runners");
    let all: Value = answer.send().await.unwrap().json().await.unwrap();
    let mut all = all["runners"].as_array().unwrap().iter();
    all.find(|it| it["name"] == name).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_is_drained_from_its_page_and_offered_nothing_until_it_is_taken_back() {
    let site = Site::start().await;
    queued(&site, 90, STEP).await;
    let page = site.page(DEPLOYER, "/runners").await;
    assert!(page.contains("/runners/harbour/drain") && !page.contains("/resume"));
    let answer = site.submit(DEPLOYER, "/runners/harbour/drain", &[]).await;
    assert_eq!(location(&answer), "/runners");

    let reply = poll(&site, "credential").await;
    assert!(reply.drain && reply.assign.is_none(), "{reply:?}");
    let page = site.page(DEPLOYER, "/runners").await;
    assert!(page.contains("/runners/harbour/resume") && !page.contains("harbour/drain"));
    let page = site.page(VIEWER, "/runners").await;
    assert!(page.contains("a deployer can; you are viewer"), "{page}");
    assert_eq!(told(&site, "harbour").await["drain"], true);

    let resume = site.request(DEPLOYER, Method::POST, "/api/v1/runners/harbour/resume");
    let answer: Value = resume
        .json(&json!({}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["drain"], false);
    let reply = poll(&site, "credential").await;
    assert!(!reply.drain && reply.assign.is_some(), "{reply:?}");
    let audit = site.page(VIEWER, "/audit").await;
    assert!(audit.contains("runner harbour") && audit.contains("runner_drained"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_name_that_a_runner_may_have_is_one_segment() {
    let site = Site::start().await;
    let name = "dock/1 100% ü?";
    let made = site
        .story
        .store
        .register_runner(name, hash_secret("odd"), vec![], now());
    made.await.unwrap();
    let path = roadstead_web::urls::runner_drain(name);
    let answer = site.submit(DEPLOYER, &path, &[]).await;
    assert_eq!(location(&answer), "/runners");
    assert_eq!(told(&site, name).await["drain"], true);
    let api = format!(
        "/api/v1/runners/{}/resume",
        roadstead_web::urls::encode(name)
    );
    let answer = site.request(DEPLOYER, Method::POST, &api).json(&json!({}));
    assert_eq!(answer.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(told(&site, name).await["drain"], false);
    site.stop().await;
}
