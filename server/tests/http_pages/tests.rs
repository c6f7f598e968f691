//! Test reports over HTTP: what a runner may tell, and what people see of it.

use crate::polls::queued;
use crate::secrets::call;
use crate::site::{ADMIN, Site, VIEWER, now};
use reqwest::{Method, StatusCode};
use roadstead_protocol::{LONGEST_CASE_MESSAGE, MOST_FAILED_CASES};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};

const STEP: &str = "{ image: busybox, run: make, secrets: [TOKEN], reports: { junit: '*.xml' } }";

async fn told(site: &Site, attempt: &str, token: &str, step: &str, report: &Value) -> StatusCode {
    let path = format!("steps/{step}/tests");
    let report = report.to_string();
    let sent = call(site, Method::PUT, attempt, &path, token, report.as_bytes());
    sent.await.status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tests_come_to_is_shown_escaped_cut_and_without_secrets() {
    let site = Site::start().await;
    let secret = json!({"value": "correct horse battery"});
    let set = site.request(ADMIN, Method::PUT, "/api/v1/projects/shop/secrets/TOKEN");
    assert_eq!(
        set.json(&secret).send().await.unwrap().status(),
        StatusCode::OK
    );
    let run = queued(&site, 80, STEP).await;
    let claim = site
        .story
        .store
        .claim_job("harbour", hash_secret("own"), now());
    let own = claim.await.unwrap().unwrap().attempt;
    let accepted = call(&site, Method::POST, &own, "accept", "own", b"").await;
    assert_eq!(accepted.status(), StatusCode::NO_CONTENT);

    let case = |name: &str, message: String| json!({"class": "shop.Cart", "name": name, "message": message});
    let mut cases = vec![
        case(
            "<b>adds</b>",
            "<script>alert(1)</script> correct horse battery \0".into(),
        ),
        case("long", "ü".repeat(LONGEST_CASE_MESSAGE)),
    ];
    cases.extend((0..MOST_FAILED_CASES).map(|n| case(&format!("case {n}"), "x".into())));
    let report = json!({
        "fence": 1, "tests": 412, "failed": 60, "skipped": 2, "unread": 1, "cases": cases,
    });
    for (wrong, expected) in [
        (json!({"tests": 1}), StatusCode::BAD_REQUEST),
        (
            json!({"fence": 2, "tests": 1, "failed": 0, "skipped": 0, "unread": 0, "cases": []}),
            StatusCode::CONFLICT,
        ),
        (
            json!({"fence": 1, "tests": 1, "failed": 2, "skipped": 0, "unread": 0, "cases": []}),
            StatusCode::BAD_REQUEST,
        ),
        (
            json!({"fence": 1, "tests": 1_u64 << 41, "failed": 0, "skipped": 0, "unread": 0, "cases": []}),
            StatusCode::BAD_REQUEST,
        ),
        (
            json!({"fence": 1, "tests": 1, "failed": 0, "skipped": 0, "unread": 0, "cases": [cases[0]]}),
            StatusCode::BAD_REQUEST,
        ),
        (
            json!({"fence": 1, "tests": 1, "failed": 0, "skipped": 0, "unread": 0, "cases": [], "more": "x".repeat(2 << 20)}),
            StatusCode::BAD_REQUEST,
        ),
    ] {
        assert_eq!(told(&site, &own, "own", "test", &wrong).await, expected);
    }
    assert_eq!(
        told(&site, &own, "own", "..", &report).await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        told(&site, &own, "other", "test", &report).await,
        StatusCode::UNAUTHORIZED
    );

    assert_eq!(
        told(&site, &own, "own", "test", &report).await,
        StatusCode::NO_CONTENT
    );
    // The first one stands.
    let other =
        json!({"fence": 1, "tests": 1, "failed": 0, "skipped": 0, "unread": 0, "cases": []});
    assert_eq!(
        told(&site, &own, "own", "test", &other).await,
        StatusCode::NO_CONTENT
    );

    let page = site.page(VIEWER, &format!("/runs/{run}")).await;
    assert!(
        page.contains("412 tests, 60 failed, 2 skipped; 1 report could not be read"),
        "{page}"
    );
    assert!(
        page.contains("shop.Cart › &#60;b&#62;adds&#60;/b&#62;"),
        "{page}"
    );
    assert!(
        page.contains("&#60;script&#62;alert(1)&#60;/script&#62; *********************"),
        "{page}"
    );
    assert!(
        !page.contains("battery") && !page.contains("<script>alert"),
        "{page}"
    );
    assert!(page.contains("10 more cases failed."), "{page}");
    let api = site.request(VIEWER, Method::GET, &format!("/api/v1/runs/{run}"));
    let api: Value = api.send().await.unwrap().json().await.unwrap();
    let tests = &api["tests"][0];
    assert_eq!(
        (&tests["step"], &tests["tests"], &tests["failed"]),
        (&json!("test"), &json!(412), &json!(60))
    );
    let cases = tests["cases"].as_array().unwrap();
    assert_eq!(cases.len(), MOST_FAILED_CASES);
    assert_eq!(
        cases[1]["message"].as_str().unwrap().len(),
        LONGEST_CASE_MESSAGE
    );
    site.stop().await;
}
