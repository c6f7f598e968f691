//! A push that no webhook told of, because the server was down, is run once it is back.

use crate::backup::deliver;
use crate::server::{ADMIN_PASSWORD, Server, token_of};
use crate::waiting::until;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A commit on a branch of its own making; gives its id.
fn push(work: &Path, branch: &str, message: &str) -> String {
    git(work, &["commit", "--quiet", "--allow-empty", "-m", message]);
    let target = format!("HEAD:refs/heads/{branch}");
    git(work, &["push", "--quiet", "--force", "origin", &target]);
    git(work, &["rev-parse", "HEAD"])
}

struct Reader {
    url: String,
    token: String,
}

impl Reader {
    async fn of(server: &Server) -> Self {
        Self {
            url: server.url.clone(),
            token: token_of(&server.url, "admin", ADMIN_PASSWORD, "viewer").await,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = reqwest::Client::new()
            .get(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .send();
        answer.await.unwrap().json().await.unwrap()
    }

    /// Branches and commits of all runs, oldest first.
    async fn runs(&self) -> Vec<(String, String)> {
        let listed = self.get("/projects/shop/runs").await;
        let runs = listed["runs"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let push = |run: &Value| (text(&run["git_ref"]), text(&run["commit"]));
        runs.iter().rev().map(push).collect()
    }

    async fn until_compared_after(&self, before: Option<String>) -> String {
        until("branches are compared", async || {
            let project = self.get("/projects/shop").await;
            let at = project["branches_compared_at"].as_str().map(str::to_owned);
            at.clone()
                .filter(|_| at != before)
                .ok_or_else(|| project.to_string())
        })
        .await
    }
}

#[tokio::test]
async fn a_push_that_was_made_while_the_server_was_down_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let origin = folder.path().join("shop.git");
    let work = folder.path().join("work");
    let at = |path: &Path| path.display().to_string();
    git(folder.path(), &["init", "--quiet", "--bare", &at(&origin)]);
    git(folder.path(), &["init", "--quiet", &at(&work)]);
    git(&work, &["remote", "add", "origin", &at(&origin)]);
    push(&work, "main", "Before Roadstead");
    push(&work, "old", "An old branch");
    let configuration = format!(
        "[[projects]]\nname = \"shop\"\nrepository = \"{}\"\nwebhook_secret = \"the secret of this project\"\n",
        origin.display()
    );

    // What a repository holds when it is set up was not pushed since.
    let mut server = Server::start_with(&configuration, folder);
    let reader = Reader::of(&server).await;
    let first = reader.until_compared_after(None).await;
    assert_eq!(reader.runs().await, []);

    server.child.kill().unwrap();
    server.child.wait().unwrap();
    push(&work, "main", "Overtaken while nobody listens");
    let main = push(&work, "main", "Pushed while nobody listens");
    let new = push(&work, "feature/new", "A branch that is new");
    push(&work, "old", "Not this one\n\n[skip ci] please");
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());

    let server = Server::start_with(&configuration, folder);
    let reader = Reader::of(&server).await;
    reader.until_compared_after(Some(first)).await;
    let head = |branch: &str, commit: &str| (format!("refs/heads/{branch}"), commit.to_owned());
    let missed = [head("feature/new", &new), head("main", &main)];
    assert_eq!(reader.runs().await, missed);
    let events = reader.get("/projects/shop/events").await;
    let events = events["events"].as_array().unwrap();
    let asked = events.iter().filter(|event| event["what"] == "asked_for");
    let actors: Vec<_> = asked.map(|event| event["actor"].clone()).collect();
    assert_eq!(actors, ["gap filler", "gap filler"]);

    // Its webhook comes late after all.
    let body = format!(r#"{{"ref":"refs/heads/main","after":"{main}"}}"#);
    let (http, secret) = (reqwest::Client::new(), "the secret of this project");
    let answer = deliver(&http, &server.url, secret, "late", body);
    let answer: Value = answer.await.unwrap().json().await.unwrap();
    assert_eq!(answer["decision"], "duplicate", "{answer}");
    assert_eq!(answer["run"], "shop.2");
    assert_eq!(reader.runs().await.len(), 2);
}
