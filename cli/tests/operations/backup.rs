//! A backup of a server that takes webhooks, a kill, and a server that starts from the restore.

use crate::server::{ADMIN_PASSWORD, Server, token_of};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const SECRET: &str = "a webhook's key of this test";

fn configuration() -> String {
    format!(
        "[[projects]]\nname = \"shop\"\nrepository = \"/nowhere/shop.git\"\n\
         webhook_secret = \"{SECRET}\"\n"
    )
}

/// A push as GitHub tells it.
pub(super) async fn deliver(
    http: &reqwest::Client,
    url: &str,
    secret: &str,
    id: &str,
    body: String,
) -> reqwest::Result<reqwest::Response> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    http.post(format!("{url}/webhooks/github/shop"))
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .body(body)
        .send()
        .await
}

/// Pushes commit after commit, and notes those that were answered with 2xx.
async fn push(url: String, writer: u64, stop: Arc<AtomicBool>, seen: Arc<Mutex<BTreeSet<String>>>) {
    let http = reqwest::Client::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let commit = format!("{:040x}", writer * 1_000_000 + number);
        let body = format!(
            r#"{{"ref":"refs/heads/main","after":"{commit}","head_commit":{{"message":"m"}}}}"#
        );
        let answer = deliver(&http, &url, SECRET, &commit, body).await;
        // The last one may meet the kill.
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            seen.lock().unwrap().insert(commit);
        }
    }
}

fn roadstead(arguments: &[&str], config: &Path, data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env("ROADSTEAD__DATA", data)
        .output()
        .unwrap()
}

/// Ends it as a power cut would, and leaves its folder.
fn kill(mut server: Server) -> TempDir {
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap())
}

async fn until_more_than(seen: &Mutex<BTreeSet<String>>, count: usize) {
    for _ in 0..6_000 {
        if seen.lock().unwrap().len() > count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no {count} pushes within two minutes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_starts_from_a_backup_that_was_made_under_load() {
    let server = Server::start_with(&configuration(), tempfile::tempdir().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::<Mutex<BTreeSet<String>>>::default();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            tokio::spawn(push(server.url.clone(), writer, stop, seen))
        })
        .collect();
    until_more_than(&seen, 100).await;

    let folder = server.folder.path().to_owned();
    let (config, data) = (folder.join("roadstead.toml"), folder.join("data"));
    let backup = folder.join("backup");
    let acknowledged = seen.lock().unwrap().clone();
    let made = {
        let (config, data, to) = (config.clone(), data.clone(), backup.clone());
        let taking = move || roadstead(&["backup", to.to_str().unwrap()], &config, &data);
        tokio::task::spawn_blocking(taking).await.unwrap()
    };
    assert!(made.status.success(), "{made:?}");
    // The server has gone on.
    let then = seen.lock().unwrap().len();
    until_more_than(&seen, then).await;
    let old = kill(server);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }

    let from = backup.to_str().unwrap();
    let refused = roadstead(&["restore", from], &config, &data);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is there already: stop the server"), "{said}");

    let new = tempfile::tempdir().unwrap();
    let restored = roadstead(&["restore", from], &config, &new.path().join("data"));
    assert!(restored.status.success(), "{restored:?}");
    drop(old);
    let server = Server::start_with(&configuration(), new);
    let admin = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let mut found = BTreeSet::new();
    let mut before = String::new();
    loop {
        let path = format!("/api/v1/projects/shop/runs?limit=200{before}");
        let page: Value = reqwest::Client::new()
            .get(format!("{}{path}", server.url))
            .bearer_auth(&admin)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let runs = page["runs"].as_array().unwrap();
        let Some(last) = runs.last() else {
            break;
        };
        let id = last["id"].as_str().unwrap();
        before = format!("&before={}", id.strip_prefix("shop.").unwrap());
        found.extend(
            runs.iter()
                .map(|run| run["commit"].as_str().unwrap().to_owned()),
        );
    }
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let trail = server.text(&admin, &["audit", "verify"]);
    assert!(trail.contains("\nproject/shop="), "{trail}");
}

#[test]
fn rows_move_to_postgresql_only_and_not_under_a_server() {
    let server = Server::start();
    let folder = server.folder.path();
    let (config, data) = (folder.join("roadstead.toml"), folder.join("data"));
    for (to, expected) in [
        (
            "sqlite:other.db",
            "rows are moved from an embedded database",
        ),
        (
            "postgres://nobody@127.0.0.1:9/none",
            "is in use: stop the server first",
        ),
    ] {
        let refused = roadstead(&["migrate", "--to", to], &config, &data);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
