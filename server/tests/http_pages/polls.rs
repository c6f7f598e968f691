//! Runners' long polls: one whose runner is gone takes no work.

use crate::site::{PATIENCE, Site, Who, now};
use reqwest::Method;
use roadstead_protocol::{PROTOCOL_VERSION, PollReply};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

fn poll() -> Value {
    json!({
        "protocol_version": PROTOCOL_VERSION, "labels": ["linux"], "free_slots": 1,
        "disk_free_bytes": 100_000_000_000_u64, "running": [],
    })
}

/// A poll as a process sends it that is then killed: all that the server sees is the end of the
/// connection.
async fn poll_and_die(site: &Site) {
    let body = poll().to_string();
    let address = site.base.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /runner/v1/poll HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer credential\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let heard = async {
        let hash = hash_secret("credential");
        loop {
            let runner = site.story.store.runner_by_credential(&hash).await.unwrap();
            if runner.unwrap().free_slots == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_whose_runner_is_gone_takes_no_job() {
    let site = Site::start().await;
    poll_and_die(&site).await;
    // Each of the server's workers answers something that came later: it has seen the end by then.
    for _ in 0..8 {
        let fresh = reqwest::Client::new();
        let answer = fresh.get(format!("{}/healthz", site.base)).send();
        assert!(answer.await.unwrap().status().is_success());
    }
    let story = &site.story;
    let commit = crate::story::commit(77);
    let main = "refs/heads/main".to_owned();
    let asked = story
        .store
        .ask_for_run(&story.shop, commit.clone(), main, "ada", now());
    asked.await.unwrap();
    for _ in 0..3 {
        story.reconcile().await;
        story.act().await;
    }
    site.app.bell.ring();
    // The runner is started again, and asks.
    let request = site.request(Who::Nobody, Method::POST, "/runner/v1/poll");
    let answer = request.bearer_auth("credential").json(&poll()).send().await;
    let reply: PollReply = answer.unwrap().json().await.unwrap();
    let assigned = reply.assign.expect("the poll of before took the job");
    assert_eq!(assigned.commit, commit.to_string());
    site.stop().await;
}
