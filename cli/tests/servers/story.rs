//! A push to production through two servers, each of which is killed in the middle of what it does.

use crate::aws::{Aws, CLUSTERS};
use crate::balancer::Balancer;
use crate::databases::Cluster;
use crate::pair::{PASSWORD, REGISTRATION, Server, Shared};
use crate::psql::sql;
use crate::shop::{self, base_image, docker, free_ports, git};
use crate::waiting::until;
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::fs;
use std::io::{BufRead, BufReader};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const SECRET: &str = "known-to-the-servers-test-alone";
/// How long the sandbox keeps a call by itself: until it is let go, in this story.
const KEPT_MS: u64 = 30 * 60 * 1000;
const NAMES: [&str; 2] = ["a", "b"];

const PIPELINE: &str = r#"version: 1
name: PROJECT
trigger:
  push: { branches: [main] }
images:
  app: { repository: shop }
steps:
  check:
    image: BASE
    timeout: 5m
    run: |
      echo waiting for the tide
      until [ -e /tide ]; do sleep 0.1; done
      for n in $(seq 1 2000); do echo "line $n"; done
  image:
    build: [app]
    needs: [check]
services:
  web: { image: app, container: app }
environments:
  staging:
    ecs: { cluster: staging, service: shop }
    verify: { http: [{ url: "http://127.0.0.1:STAGING/" }], watch: 1s }
  production:
    after: staging
    ecs: { cluster: production, service: shop }
    verify: { http: [{ url: "http://127.0.0.1:PRODUCTION/" }], watch: 1s }
"#;

/// A child that ends with the test.
struct Part(Child);

impl Part {
    /// Starts this binary and waits until it says that it answers.
    fn start(arguments: &[String], token: &str, ready: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(arguments)
            .env("ROADSTEAD_REGISTRATION_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let part = Self(child);
        let said = lines.any(|line| line.unwrap().starts_with(ready));
        assert!(said, "{arguments:?} ended");
        // What it prints later is read, so that it is not held up.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        part
    }

    /// As Ctrl-C does: a runner takes down what it made.
    fn stop(&mut self) {
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-INT", &pid]).status());
        for _ in 0..1_200 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.stop();
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct World {
    project: String,
    base: String,
    sandbox: String,
    aws: Aws,
    http: reqwest::Client,
    token: String,
    ports: [u16; 2],
    shared: Shared,
    servers: [Option<Server>; 2],
    balancer: Balancer,
    runner: Part,
    // These go last.
    _sandbox: Part,
    _cluster: Cluster,
    folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let project = format!("shop-{}", std::process::id());
        let base = base_image(path, &project);
        let [sandbox, registry, staging, production] = free_ports();
        git(
            path,
            &["init", "--bare", "--initial-branch=main", "shop.git"],
        );
        git(path, &["clone", "shop.git", "work"]);
        let pipeline = PIPELINE
            .replace("PROJECT", &project)
            .replace("BASE", &base)
            .replace("STAGING", &staging.to_string())
            .replace("PRODUCTION", &production.to_string());
        let work = path.join("work");
        fs::create_dir_all(work.join(".roadstead")).unwrap();
        fs::write(work.join(".roadstead/pipeline.yml"), pipeline).unwrap();
        let dockerfile = format!("FROM {base}\nCOPY index.html /www/index.html\n");
        fs::write(work.join("Dockerfile"), dockerfile).unwrap();

        let text = |path: std::path::PathBuf| path.display().to_string();
        let arguments = [
            "sandbox".to_owned(),
            format!("--listen=127.0.0.1:{sandbox}"),
            format!("--registry=127.0.0.1:{registry}"),
            format!("--data={}", text(path.join("sandbox"))),
            "--time-scale=20".to_owned(),
        ];
        let part = Part::start(&arguments, "", "sandbox ready");
        let sandbox = format!("http://127.0.0.1:{sandbox}");
        let cluster = Cluster::start();
        let configuration = format!(
            "[[projects]]\nname = \"{project}\"\nrepository = \"{}\"\nwebhook_secret = \"{SECRET}\"\n",
            text(path.join("shop.git"))
        );
        let shared = Shared::new(cluster.database(), sandbox.clone(), path, &configuration);
        let balancer = Balancer::start(NAMES.len()).await;
        let servers = NAMES.map(|name| Some(shared.start(name)));
        for (n, server) in servers.iter().flatten().enumerate() {
            balancer.set(n, &server.url);
        }
        let arguments = [
            "runner".to_owned(),
            format!("--server={}", balancer.url),
            format!("--data={}", text(path.join("runner"))),
            format!("--name={project}"),
        ];
        let runner = Part::start(&arguments, REGISTRATION, "runner ready");
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let token = token(&http, &balancer.url).await;
        Self {
            aws: Aws::new(sandbox.clone()),
            ports: [staging, production],
            project,
            base,
            sandbox,
            http,
            token,
            shared,
            servers,
            balancer,
            runner,
            _sandbox: part,
            _cluster: cluster,
            folder,
        }
    }

    fn sql(&self, query: &str) -> String {
        sql(&self.shared.database, query)
    }

    async fn get(&self, base: &str, path: &str) -> Result<String, String> {
        let request = self.http.get(format!("{base}/api/v1{path}"));
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(format!("{status}: {text}"))
        }
    }

    async fn state(&self, kind: &str, id: &str) -> Result<String, String> {
        let text = self
            .get(&self.balancer.url, &format!("/{kind}s/{id}"))
            .await?;
        let found: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(found[kind]["state"]["state"].as_str().unwrap().to_owned())
    }

    /// Waits until a run or deployment stands so, on whichever server is asked.
    async fn stands(&self, kind: &str, id: &str, wanted: &str) {
        until(&format!("{id} to be {wanted}"), async || {
            match self.state(kind, id).await? {
                state if state == wanted => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// A commit, and its webhook at this server.
    async fn push(&self, version: &str, server: usize) -> String {
        let work = self.folder.path().join("work");
        fs::write(work.join("index.html"), format!("{version}\n")).unwrap();
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "-m", version]);
        git(&work, &["push", "--quiet", "origin", "main"]);
        let head = fs::read_to_string(work.join(".git/refs/heads/main")).unwrap();
        let body =
            json!({"ref": "refs/heads/main", "before": "0".repeat(40), "after": head.trim()});
        let body = body.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        let url = &self.servers[server].as_ref().unwrap().url;
        let answer = self
            .http
            .post(format!("{url}/webhooks/git/{}", self.project))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(body)
            .send();
        let answer: Value = answer.await.unwrap().json().await.unwrap();
        answer["run"].as_str().unwrap().to_owned()
    }

    /// Which of the two is the server of this name.
    fn named(&self, id: &str) -> usize {
        let is = |server: &Option<Server>| server.as_ref().is_some_and(|server| server.id() == id);
        let found = self.servers.iter().position(is);
        found.unwrap_or_else(|| panic!("no server is {id}"))
    }

    fn kill(&mut self, server: usize) {
        self.servers[server].take().unwrap().kill();
    }

    fn revive(&mut self, server: usize) {
        let started = self.shared.start(NAMES[server]);
        self.balancer.set(server, &started.url);
        self.servers[server] = Some(started);
    }

    /// Keeps the next calls of an operation, before they happen (`delay`) or are answered.
    async fn keep(&self, operation: &str, kind: &str, times: u32) {
        let fault =
            json!({"operation": operation, "kind": kind, "times": times, "delay_ms": KEPT_MS});
        let address = format!("{}/_sandbox/faults", self.sandbox);
        let answer = self.http.post(address).json(&fault).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    async fn kept(&self, operation: &str, cluster: &str) -> Vec<Value> {
        let address = format!("{}/_sandbox/held", self.sandbox);
        let answer = self.http.get(address).send().await.unwrap();
        let mut held: Vec<Value> = answer.json().await.unwrap();
        held.retain(|call| call["operation"] == operation && call["request"]["cluster"] == cluster);
        held
    }

    /// Lets go what is kept: `held` those of this moment, `faults` those to come too.
    async fn let_go(&self, what: &str) {
        let address = format!("{}/_sandbox/{what}", self.sandbox);
        let answer = self.http.delete(address).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    /// Calls of this operation that changed something.
    async fn effective(&self, operation: &str) -> Vec<Value> {
        let address = format!(
            "{}/_sandbox/calls?operation={operation}&effective=true",
            self.sandbox
        );
        let answer = self.http.get(address).send().await.unwrap();
        answer.json().await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runner.stop();
        shop::remove_all(&self.project);
    }
}

/// An API token, made by requests that go to either server.
async fn token(http: &reqwest::Client, url: &str) -> String {
    let form = [("user", "admin"), ("password", PASSWORD)];
    let answer = http.post(format!("{url}/login")).form(&form).send().await;
    let answer = answer.unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    let session = set.split(';').next().unwrap().to_owned();
    let made: Value = http
        .post(format!("{url}/api/v1/tokens"))
        .header("cookie", session)
        .json(&json!({"name": "story", "role": "admin"}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn either_server_ends_what_the_other_was_killed_over() {
    let mut world = World::start().await;
    let told = AssertUnwindSafe(tell(&mut world)).catch_unwind().await;
    if let Err(error) = world.aws.clear().await {
        eprintln!("the services could not be taken down: {error}");
    }
    if let Err(broken) = told {
        std::panic::resume_unwind(broken);
    }
}

async fn tell(world: &mut World) {
    for (cluster, port) in CLUSTERS.into_iter().zip(world.ports) {
        world.aws.furnish(cluster, port, &world.base).await;
    }
    let run = world.push("v1", 0).await;
    a_build_outlives_the_server_that_was_told_of_the_push(world, &run).await;
    an_update_is_made_once_though_its_server_dies_before_the_answer(world).await;
    a_verification_goes_on_at_the_server_that_did_not_look(world).await;

    let updates = world.effective("UpdateService").await;
    let places: Vec<_> = updates
        .iter()
        .map(|call| &call["request"]["cluster"])
        .collect();
    assert_eq!(places, CLUSTERS, "{updates:#?}");
    let revisions = world.effective("RegisterTaskDefinition").await;
    // Two were there before, for the base image.
    assert_eq!(revisions.len(), 2 + 2, "{revisions:#?}");
    let attempts = format!("SELECT count(*) FROM attempts WHERE run = '{run}'");
    assert_eq!(world.sql(&attempts), "1", "the runner went on");
    let given = world.balancer.given();
    assert!(given.iter().all(|count| *count > 20), "{given:?}");
    assert_eq!(
        world.sql("SELECT count(*) FROM leases WHERE name = 'observer'"),
        "1"
    );
}

async fn a_build_outlives_the_server_that_was_told_of_the_push(world: &mut World, run: &str) {
    let log = format!("/runs/{run}/steps/check/log");
    let urls = || NAMES.iter().enumerate().map(|(n, _)| n);
    for server in urls() {
        until("the log at both servers", async || {
            let url = world.servers[server].as_ref().unwrap().url.clone();
            match world.get(&url, &log).await? {
                text if text == "waiting for the tide\n" => Ok(()),
                text => Err(text),
            }
        })
        .await;
    }
    world.kill(0);
    let filter = format!("label=roadstead.attempt={run}.a1");
    let found = docker(&["ps", "--quiet", "--filter", &filter]);
    docker(&["exec", found.trim(), "/bin/touch", "/tide"]);
    world.keep("UpdateService", "delay_reply", 1).await;
    world.stands("run", run, "succeeded").await;
    world.revive(0);
    let lines: String = (1..=2_000).map(|n| format!("line {n}\n")).collect();
    for server in urls() {
        let url = world.servers[server].as_ref().unwrap().url.clone();
        let text = world.get(&url, &log).await.unwrap();
        assert!(text == format!("waiting for the tide\n{lines}"), "{text}");
    }
}

async fn an_update_is_made_once_though_its_server_dies_before_the_answer(world: &mut World) {
    until("UpdateService to have happened", async || {
        match &world.kept("UpdateService", "staging").await[..] {
            [call] if call["performed"] == true => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let holder =
        "SELECT leased_by FROM effects WHERE state = 'leased' AND key LIKE 'update_service:%'";
    let holder = world.named(&world.sql(holder));
    world.kill(holder);
    world.let_go("held").await;
    let deployment = format!("{}.d1", world.project);
    world.stands("deployment", &deployment, "deployed").await;
    world.revive(holder);
}

async fn a_verification_goes_on_at_the_server_that_did_not_look(world: &mut World) {
    let deployment = format!("{}.d2", world.project);
    world.keep("DescribeServices", "delay", 100_000).await;
    until(
        "production to be verified while it is looked at",
        async || {
            // In this order: the look waits before, and while, the state is read.
            let looks = world.kept("DescribeServices", "production").await;
            let state = world.state("deployment", &deployment).await?;
            if state == "verifying" && !looks.is_empty() {
                assert_eq!(looks.len(), 1, "one of two servers looks: {looks:#?}");
                return Ok(());
            }
            assert_ne!(state, "deployed", "it was not seen verifying");
            world.let_go("held").await;
            Err(state)
        },
    )
    .await;
    let observer = world.sql("SELECT holder FROM leases WHERE name = 'observer'");
    let observer = world.named(&observer);
    world.kill(observer);
    world.let_go("faults").await;
    world.stands("deployment", &deployment, "deployed").await;
}
