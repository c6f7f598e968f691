//! Runners' long polls: one whose runner is gone takes no work, and one of an older version takes what it knows.

use crate::site::{PATIENCE, Site, Who, now};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::authorship::Authorship;
use roadstead_pipelines::fact::{Change, RunFact, SourcesRead};
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::release::{TaskDefinitions, Variables};
use roadstead_pipelines::spec::{self, InputValues, LeftOut};
use roadstead_protocol::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, PollReply};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
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

/// A run whose job, of one step, waits for a runner.
pub(crate) async fn queued(site: &Site, number: u64, step: &str) -> RunId {
    let story = &site.story;
    let file = format!("version: 1\nname: shop\nsteps:\n  test: {step}\n");
    let read = SourcesRead {
        commit: None,
        pipeline: spec::parse("pipeline.yml", &file).unwrap(),
        message: "Change the sails".into(),
        author: "Ada".into(),
        authorship: Authorship {
            commit: BTreeSet::new(),
            since: vec![],
        },
        variables: Variables::new(),
        task_definitions: TaskDefinitions::default(),
        skip: None,
        left_out: LeftOut::new(),
        inputs: InputValues::new(),
        newest_of_branch: true,
        base_file: None,
        supersedes: BTreeSet::new(),
    };
    let commit = crate::story::commit(number);
    let main = "refs/heads/main".to_owned();
    let asked = story
        .store
        .ask_for_run(&story.shop, commit, main, "ada", now());
    let run = asked.await.unwrap();
    let changes = [
        RunFact::SourcesRead(Box::new(read)),
        RunFact::RegistryPrepared {
            repositories: BTreeMap::new(),
        },
    ]
    .map(|fact| Change::Run {
        run: run.clone(),
        fact,
    });
    let decide = |_: &_| Ok(changes.to_vec());
    let recorded = story.store.record(&story.shop, "test", now(), decide);
    recorded.await.unwrap();
    run
}

async fn poll_as(site: &Site, version: u32) -> reqwest::Response {
    let mut body = poll();
    body["protocol_version"] = json!(version);
    let request = site.request(Who::Nobody, Method::POST, "/runner/v1/poll");
    let sent = request.bearer_auth("credential").json(&body).send();
    sent.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_of_an_older_version_gets_the_jobs_that_it_knows_how_to_do() {
    let site = Site::start().await;
    let run = async |number, step| queued(&site, number, step).await.to_string();
    let caches = "{ image: busybox, run: make, caches: { a: { paths: [a], key: [b] } } }";
    let cached = run(80, caches).await;
    let secret = run(81, "{ image: busybox, run: make, secrets: [TOKEN] }").await;
    let tried_again = run(82, "{ image: busybox, run: make, retry: 2 }").await;
    let plain = run(83, "{ image: busybox, run: make }").await;
    let assigned = async |version| {
        let answer = poll_as(&site, version).await;
        let reply: PollReply = answer.json().await.unwrap();
        reply.assign.map(|assigned| assigned.run)
    };
    // The oldest that it can do, though others wait for longer.
    assert_eq!(assigned(OLDEST_PROTOCOL_VERSION).await, Some(plain));
    assert_eq!(assigned(4).await, Some(secret));
    assert_eq!(assigned(PROTOCOL_VERSION).await, Some(cached));
    assert_eq!(assigned(PROTOCOL_VERSION).await, Some(tried_again));
    for stranger in [OLDEST_PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1] {
        let refused = poll_as(&site, stranger).await;
        assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
        let said = refused.text().await.unwrap();
        assert!(said.contains("the server first"), "{said}");
    }
    site.stop().await;
}
