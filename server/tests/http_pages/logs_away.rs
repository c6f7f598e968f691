//! A server whose logs are in a bucket that does not answer: nothing is acknowledged, and pages show the rest.

use crate::secrets::{attempt, call};
use crate::site::{Site, VIEWER};
use reqwest::{Method, StatusCode};
use roadstead_server::adapters::bucket::{Bucket, Patience};
use roadstead_server::config::S3;
use roadstead_server::logs::LogStore;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::net::TcpListener;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_is_503_to_runners_and_no_more_than_a_line_on_pages() {
    // A port that was free a moment ago, and that nobody listens on now.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let settings = S3 {
        bucket: "acme-logs".into(),
        endpoint_url: Some(format!("http://{}", nobody.unwrap())),
        access_key_id: Some("key".into()),
        secret_access_key: Some("secret".into()),
        ..S3::default()
    };
    let patience = Patience {
        pause: Duration::from_millis(10),
        retries: 1,
        ..Patience::default()
    };
    let bucket = Bucket::new(&settings, "eu-west-1", patience).unwrap();
    let site = Site::with_logs(|data| LogStore::in_bucket(bucket, data)).await;

    let own = attempt(&site, "own", true).await;
    let path = "steps/test/log?offset=0";
    let answer = call(&site, Method::PATCH, &own, path, "own", b"a line\n").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let seal = json!({"fence": 1, "length": 0, "sha256": hex::encode(Sha256::digest(b""))});
    let seal = seal.to_string();
    let path = "steps/test/log/seal";
    let answer = call(&site, Method::POST, &own, path, "own", seal.as_bytes()).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);

    let html = site.page(VIEWER, "/runs/shop.2?step=test").await;
    assert!(
        html.contains("The storage of logs does not answer now"),
        "{html}"
    );
    let raw = "/api/v1/runs/shop.2/steps/test/log";
    let raw = site.request(VIEWER, Method::GET, raw).send().await.unwrap();
    assert_eq!(raw.status(), StatusCode::SERVICE_UNAVAILABLE);
    let said = raw.text().await.unwrap();
    assert!(said.contains("look again later"), "{said}");
    site.stop().await;
}
