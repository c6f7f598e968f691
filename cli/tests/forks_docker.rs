//! A merge request from a fork on real parts, from its webhook to its closing: server, runner, command line, git and
//! Docker Engine as they are. The fork brings a pipeline file, a script and a Dockerfile of its own.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]
#![expect(
    dead_code,
    reason = "what the tests share is more than one of them needs"
)]

#[path = "support/runner.rs"]
mod runner;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/waiting.rs"]
mod waiting;

use runner::{REGISTRATION_TOKEN, Runner};
use serde_json::{Value, json};
use server::{ADMIN_PASSWORD, Server, token_of};
use shop::{LABEL, base_image, docker, git, remove_all};
use std::fs;
use std::path::{Path, PathBuf};
use waiting::until;

const WEBHOOK_SECRET: &str = "a webhook's key of this test";
const SECRET: &str = "what only the project's own code may see";
const KEPT_AT: &str = "refs/merge-requests/1/head";

/// The file that the pipeline file includes.
fn included(image: &str, words: &str) -> String {
    format!("steps:\n  test: {{ image: \"{image}\", run: \"echo {words}; sh test.sh\" }}\n")
}

fn pipeline(image: &str, project: &str) -> String {
    format!(
        r#"version: 1
name: shop
include: [.roadstead/steps.yml]
trigger: {{ pull_request: {{ branches: [main] }} }}
images: {{ app: {{ repository: {project}/app }} }}
steps:
  asks: {{ image: "{image}", secrets: {{ TOKEN: TOKEN }}, run: echo it began }}
  build: {{ build: [app] }}
"#
    )
}

/// The repository of the project, and the fork's work tree.
struct Fork {
    origin: PathBuf,
    work: PathBuf,
}

impl Fork {
    fn new(place: &Path, files: &[(&str, &str)]) -> Self {
        let (origin, work) = (place.join("shop.git"), place.join("work"));
        let at = |path: &Path| path.display().to_string();
        git(place, &["init", "--quiet", "--bare", &at(&origin)]);
        git(place, &["init", "--quiet", &at(&work)]);
        let fork = Self { origin, work };
        fork.push(files, "refs/heads/main");
        fork
    }

    /// Commits `files` and has the project's repository keep the commit at `git_ref`.
    fn push(&self, files: &[(&str, &str)], git_ref: &str) -> String {
        for (path, text) in files {
            let path = self.work.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        git(&self.work, &["add", "."]);
        git(&self.work, &["commit", "--quiet", "--message", "Sails"]);
        let origin = self.origin.display().to_string();
        let target = format!("+HEAD:{git_ref}");
        git(&self.work, &["push", "--quiet", &origin, &target]);
        let commit = fs::read_to_string(self.origin.join(git_ref)).unwrap();
        commit.trim().to_owned()
    }
}

/// What the server answers to what GitLab tells of merge request 1, which is from another project.
async fn tell(server: &Server, action: &str, commit: &str) -> Value {
    let body = json!({
        "object_kind": "merge_request", "project": { "id": 1 },
        "object_attributes": {
            "iid": 1, "action": action, "oldrev": "0".repeat(40), "title": "Sails",
            "source_project_id": 2, "target_project_id": 1, "source_branch": "main", "target_branch": "main",
            "last_commit": { "id": commit }, "source": { "path_with_namespace": "mallory/shop" },
        },
    });
    let answer = reqwest::Client::new()
        .post(format!("{}/webhooks/gitlab/shop", server.url))
        .header("x-gitlab-token", WEBHOOK_SECRET)
        .header("x-gitlab-event", "Merge Request Hook")
        .header("idempotency-key", format!("{action} {commit}"))
        .json(&body)
        .send();
    let answer = answer.await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    answer.json().await.unwrap()
}

/// The run once it is in `state`.
async fn in_state(server: &Server, token: &str, run: &str, state: &str) -> Value {
    until(&format!("{run} is {state}"), async || {
        let found = server.json(token, &["runs", run]);
        let holds = found["run"]["state"]["state"] == state;
        holds
            .then(|| found.clone())
            .ok_or_else(|| found.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_waits_runs_with_nothing_and_waits_anew() {
    let project = format!("forks-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let dockerfile = format!("FROM scratch\nLABEL {LABEL}={project}\nCOPY test.sh /\n");
    let file = pipeline(&image, &project);
    let steps = included(&image, "the file of the base");
    let fork = Fork::new(
        place.path(),
        &[
            (".roadstead/pipeline.yml", &file),
            (".roadstead/steps.yml", &steps),
            ("test.sh", "echo the script of the base\n"),
            ("Dockerfile", &dockerfile),
        ],
    );
    let configuration = format!(
        "[runners]\nregistration_token = \"{REGISTRATION_TOKEN}\"\n[[projects]]\nname = \"shop\"\n\
         repository = \"{}\"\nwebhook_secret = \"{WEBHOOK_SECRET}\"\n",
        fork.origin.display()
    );
    let server = Server::start_with(&configuration, tempfile::tempdir().unwrap());
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let given = place.path().join("given");
    fs::write(&given, SECRET).unwrap();
    let given = given.display().to_string();
    server.text(
        &token,
        &["secrets", "set", "shop", "TOKEN", "--file", &given],
    );
    let runner = Runner::start(&server.url, "forks", place.path().join("runner"));

    let evil = included(&image, "the file of the fork");
    let script = "echo the script of the fork; env; cat /run/secrets/* 2>&1; true\n";
    let own = [(".roadstead/steps.yml", &*evil), ("test.sh", script)];
    let first = fork.push(&own, KEPT_AT);
    assert_eq!(tell(&server, "open", &first).await["run"], "shop.1");
    let waits = in_state(&server, &token, "shop.1", "waiting_for_approval").await;
    assert_eq!(waits["run"]["commit"], *first);
    let differs = &waits["run"]["base_file"]["head_differs"];
    assert_eq!(*differs, true, "what it includes is another: {waits}");
    let shown = server.text(&token, &["runs", "shop.1"]);
    let title = "[pull request #1 from mallory/shop (fork)]";
    assert!(shown.contains(title), "{shown}");
    let (_, said) = server.refused(&token, &["approve-run", "shop.1", &"e".repeat(40)]);
    assert!(said.contains("for one commit alone"), "{said}");
    let done = server.text(&token, &["approve-run", "shop.1", &first]);
    assert_eq!(done, "shop.1: may run\n");

    // It asked for a secret.
    let run = in_state(&server, &token, "shop.1", "failed").await;
    let steps = run["steps"].as_array().unwrap();
    let step = |name: &str| &steps.iter().find(|step| step["name"] == name).unwrap()["state"];
    assert_eq!(step("test")["state"], "succeeded", "{run}");
    assert_eq!(step("build")["state"], "succeeded", "{run}");
    let why = step("asks")["reason"].as_str().unwrap();
    assert!(
        why.contains("from a fork, and these get no secrets"),
        "{why}"
    );
    let log = |step: &str| server.text(&token, &["logs", "shop.1", step]);
    let (test, build) = (log("test"), log("build"));
    assert!(test.contains("the file of the base") && test.contains("the script of the fork"));
    assert!(!test.contains("the file of the fork"), "{test}");
    assert!(!test.contains(SECRET) && !log("asks").contains("it began"));
    assert!(build.contains("pushed nowhere"), "{build}");
    let label = format!("label={LABEL}={project}");
    let images = docker(&[
        "image",
        "ls",
        "--filter",
        &label,
        "--format",
        "{{.Repository}}",
    ]);
    assert_eq!(images.trim(), "roadstead-shop", "no image of it is left");
    let releases = server.json(&token, &["releases", "shop"]);
    assert_eq!(releases["releases"], json!([]));

    // What comes next waits anew, and ends with its merge request.
    let second = fork.push(&[("test.sh", "echo later\n")], KEPT_AT);
    assert_eq!(tell(&server, "update", &second).await["run"], "shop.2");
    in_state(&server, &token, "shop.2", "waiting_for_approval").await;
    let (_, said) = server.refused(&token, &["approve-run", "shop.2", &first]);
    assert!(said.contains("for one commit alone"), "{said}");
    let told = tell(&server, "close", &second).await;
    assert_eq!(told["decision"], "ignored", "{told}");
    in_state(&server, &token, "shop.2", "cancelled").await;
    let (_, said) = server.refused(&token, &["approve-run", "shop.2", &second]);
    assert!(said.contains("shop.2 is over"), "{said}");
    drop(runner);
    remove_all(&project);
}
