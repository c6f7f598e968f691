//! Payloads that GitHub sent to somebody and that were recorded: all of them come signed, all are answered
//! with 2xx, and what asks for nothing says why.

use crate::site::{SECRET, Site, Who};
use crate::webhooks::{decision, signature_with};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::id::RunId;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where npm has put the payloads that the lockfile in `tests/recorded` names.
pub(crate) fn recorded() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorded");
    std::fs::create_dir_all(&folder).unwrap();
    // Another test run may be at it.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let installed = Command::new("npm")
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
        ])
        .current_dir(&folder)
        .output()
        .expect("npm is installed (`make setup`)");
    assert!(installed.status.success(), "{installed:?}");
    folder.join("node_modules/@octokit/webhooks-examples/api.github.com/index.json")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_github_once_sent_is_taken() {
    let payloads = tokio::task::spawn_blocking(recorded).await.unwrap();
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(payloads).unwrap()).unwrap();
    assert!(events.len() > 50, "{} kinds of events", events.len());
    let site = Site::start().await;
    let mut runs = 0;
    for event in &events {
        let name = event["name"].as_str().unwrap();
        for (number, payload) in event["examples"].as_array().unwrap().iter().enumerate() {
            let body = payload.to_string();
            let request = site
                .request(Who::Nobody, Method::POST, "/webhooks/github/shop")
                .header("x-github-event", name)
                .header("x-github-delivery", format!("recorded-{name}-{number}"))
                .header("x-hub-signature-256", signature_with(SECRET, &body));
            let answer = request.body(body).send().await.unwrap();
            let branch = payload["ref"]
                .as_str()
                .is_some_and(|it| it.starts_with("refs/heads/"));
            if name == "push" && branch && payload["deleted"] == false {
                let status = answer.status();
                let (word, told) = decision(answer, status).await;
                assert!(["run", "duplicate"].contains(&word.as_str()), "{told}");
                let run = RunId::parse(told["run"].as_str().unwrap()).unwrap();
                let made = site.story.store.get_run(&run).await.unwrap().run;
                assert_eq!(made.commit.as_str(), payload["after"]);
                assert_eq!(made.git_ref, payload["ref"]);
                runs += 1;
            } else if name != "push" || payload["deleted"] == true {
                let (word, told) = decision(answer, StatusCode::OK).await;
                assert_eq!(word, "ignored", "{name} {number}");
                assert!(!told["reason"].as_str().unwrap().is_empty());
            } else {
                assert!(answer.status().is_success(), "{name} {number}: {answer:?}");
            }
        }
    }
    assert_eq!(runs, 2, "pushes to branches among them");
    site.stop().await;
}
