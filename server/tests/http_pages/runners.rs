//! Runners on their page and by the API: drained and taken back, and what their polls then bring; and those that say
//! goodbye.

use crate::polls::queued;
use crate::site::{DEPLOYER, PATIENCE, Site, VIEWER, Who, location, now};
use reqwest::{Method, RequestBuilder, StatusCode};
use roadstead_protocol::{PROTOCOL_VERSION, PollReply};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use std::time::Duration;

const STEP: &str = "{ image: busybox, run: make }";

/// A call of a runner.
fn call(site: &Site, credential: &str, name: &str, body: &Value) -> RequestBuilder {
    let path = format!("/runner/v1/{name}");
    let request = site.request(Who::Nobody, Method::POST, &path);
    request.bearer_auth(credential).json(body)
}

fn offer() -> Value {
    json!({
        "protocol_version": PROTOCOL_VERSION, "labels": ["linux"], "free_slots": 1,
        "disk_free_bytes": 100_000_000_000_u64, "running": [],
    })
}

async fn poll(site: &Site, credential: &str) -> PollReply {
    let answer = call(site, credential, "poll", &offer()).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

async fn goodbye(site: &Site, credential: &str, body: &Value) -> StatusCode {
    let answer = call(site, credential, "goodbye", body).send().await;
    answer.unwrap().status()
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
    let harbour = told(&site, "harbour").await;
    assert_eq!(
        (&harbour["drain"], &harbour["state"]),
        (&json!(true), &json!("drained"))
    );
    assert!(page.contains("runner harbour: drained"), "{page}");

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_that_still_hangs_brings_nobody_back_who_has_left() {
    let site = Site::start().await;
    let hangs = call(&site, "credential", "poll", &offer());
    let hangs = tokio::spawn(async move { hangs.send().await });
    let offers = async |slots: u64| {
        let offers = async {
            while told(&site, "harbour").await["free_slots"] != slots {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, offers).await.unwrap();
    };
    offers(1).await;
    let left = json!({ "for_good": false });
    assert_eq!(
        goodbye(&site, "credential", &left).await,
        StatusCode::NO_CONTENT
    );
    assert!(told(&site, "harbour").await["left_at"].is_string());
    // It looks again after a while.
    offers(1).await;
    assert!(told(&site, "harbour").await["left_at"].is_string());

    queued(&site, 91, STEP).await;
    assert!(poll(&site, "credential").await.assign.is_some());
    assert!(told(&site, "harbour").await["left_at"].is_null());
    hangs.abort();
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_for_good_is_not_known_any_more() {
    let site = Site::start().await;
    for wrong in [
        json!({}),
        json!({ "for_good": 1 }),
        json!({ "for_good": true, "x": 1 }),
    ] {
        let status = goodbye(&site, "credential", &wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let for_good = json!({ "for_good": true });
    assert_eq!(
        goodbye(&site, "nobody's", &for_good).await,
        StatusCode::UNAUTHORIZED
    );
    assert!(told(&site, "harbour").await["left_at"].is_null());

    assert_eq!(
        goodbye(&site, "credential", &for_good).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(told(&site, "harbour").await["left_for_good"], true);
    assert_eq!(
        goodbye(&site, "credential", &for_good).await,
        StatusCode::UNAUTHORIZED
    );
    let beat = call(&site, "credential", "heartbeat", &json!({ "running": [] }));
    assert_eq!(
        beat.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(told(&site, "harbour").await["left_for_good"], true);
    let page = site.page(DEPLOYER, "/runners").await;
    assert!(page.contains("runner harbour: gone"), "{page}");
    site.stop().await;
}
