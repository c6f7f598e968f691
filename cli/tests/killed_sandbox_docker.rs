//! A real sandbox that is killed (SIGKILL) while Docker Engine makes things for it: whatever the moment,
//! its tasks go on after the next start, and nothing is left that nobody knows.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails should fail the test where it stands"
)]

#[path = "../../runner/tests/docker/slow_engine.rs"]
mod slow_engine;

use serde_json::{Value, json};
use slow_engine::SlowEngine;
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Checks until `holds`, for at most [`PATIENCE`].
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn docker(arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker's client is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image with a shell, for one test.
struct Image(String);

impl Image {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        std::fs::copy("/bin/busybox", programs.join("busybox")).expect("busybox-static is there");
        for name in ["sh", "sleep"] {
            symlink("busybox", programs.join(name)).unwrap();
        }
        let archive = Command::new("tar")
            .arg("-C")
            .arg(folder.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        let name = format!("roadstead-test-{:016x}:1", rand::random::<u64>());
        docker(&["import", "-", &name], &archive.stdout);
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        drop(Command::new("docker").args(["rmi", "-f", &self.0]).output());
    }
}

/// A sandbox as people run it, and its data directory.
struct Sandbox {
    data: tempfile::TempDir,
    socket: std::path::PathBuf,
    process: Option<Child>,
    endpoint: String,
}

fn roadstead(data: &Path, socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command
        .args(["sandbox", "--listen=127.0.0.1:0", "--registry=127.0.0.1:0"])
        .arg("--time-scale=20")
        .arg(format!("--data={}", data.display()))
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::null());
    command
}

impl Sandbox {
    async fn start(engine: &SlowEngine) -> Self {
        let mut sandbox = Self {
            data: tempfile::tempdir().unwrap(),
            socket: engine.socket(),
            process: None,
            endpoint: String::new(),
        };
        sandbox.resume().await;
        sandbox
    }

    async fn resume(&mut self) {
        let file = self.data.path().join("endpoint");
        // A stale address must not be taken for the new one.
        drop(std::fs::remove_file(&file));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"))
            .unwrap();
        let mut command = roadstead(self.data.path(), &self.socket);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command.spawn().unwrap();
        eventually("the sandbox starts", async || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.ends_with('\n')
        })
        .await;
        self.endpoint = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        self.process = Some(process);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap()
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and waits until it has ended well.
    async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        let mut status = None;
        eventually("the sandbox ends", async || {
            status = process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{}", self.log());
    }

    fn purge(&self) -> Output {
        let mut command = roadstead(self.data.path(), &self.socket);
        command.arg("--purge").output().unwrap()
    }

    async fn ecs(&self, operation: &str, input: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        let sent = reqwest::Client::new()
            .post(&self.endpoint)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(input.to_string())
            .send();
        let answer = sent.await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A cluster, and a definition whose two containers run until they are stopped.
    async fn define(&self, image: &Image) {
        let container = |name: &str| {
            json!({
                "name": name, "image": image.0, "memory": 32, "stopTimeout": 30,
                "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do /bin/sleep 0.2; done"],
            })
        };
        self.ecs("CreateCluster", json!({})).await;
        let definition =
            json!({"family": "pair", "containerDefinitions": [container("app"), container("db")]});
        self.ecs("RegisterTaskDefinition", definition).await;
    }

    async fn run_tasks(&self, count: u32) -> Vec<String> {
        let wanted = json!({"taskDefinition": "pair", "count": count});
        let ran = self.ecs("RunTask", wanted).await;
        let tasks = ran["tasks"].as_array().unwrap().iter();
        tasks
            .map(|task| task["taskArn"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn status(&self, task: &str) -> String {
        let described = self.ecs("DescribeTasks", json!({"tasks": [task]})).await;
        let status = &described["tasks"][0]["lastStatus"];
        status.as_str().unwrap().to_owned()
    }

    async fn until(&self, task: &str, status: &str) {
        eventually(&format!("{task} is {status}"), async || {
            let last = self.status(task).await;
            assert!(last == status || last != "STOPPED", "{}", self.log());
            last == status
        })
        .await;
    }

    async fn stop_task(&self, task: &str) {
        self.ecs("StopTask", json!({"task": task})).await;
        self.until(task, "STOPPED").await;
    }

    fn label(&self) -> String {
        let text = std::fs::read_to_string(self.data.path().join("instance.json")).unwrap();
        let instance: String = serde_json::from_str(&text).unwrap();
        format!("label=roadstead.sandbox={instance}")
    }

    fn listed(&self, what: &[&str]) -> BTreeSet<String> {
        let label = self.label();
        let arguments = [what, &["-q", "--no-trunc", "--filter", &label]].concat();
        let ids = docker(&arguments, b"");
        ids.lines().map(str::to_owned).collect()
    }

    fn containers(&self) -> BTreeSet<String> {
        self.listed(&["ps", "-a"])
    }

    fn networks(&self) -> BTreeSet<String> {
        self.listed(&["network", "ls"])
    }

    /// The ids of the networks that this sandbox's running containers are in.
    fn used_networks(&self) -> BTreeSet<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.NetworkID}} {{end}}";
        let ids = self.containers().into_iter().map(|container| {
            // One that goes this moment is in no network.
            let found = Command::new("docker")
                .args(["inspect", "-f", format, &container])
                .output();
            String::from_utf8(found.unwrap().stdout).unwrap()
        });
        let ids: Vec<_> = ids.collect();
        ids.iter()
            .flat_map(|ids| ids.split_whitespace())
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the engine has exactly the containers of `tasks` tasks, and one network for them.
    async fn until_exactly(&self, tasks: usize) {
        eventually(&format!("exactly {tasks} tasks are left"), async || {
            let networks = self.networks();
            self.containers().len() == 2 * tasks
                && networks.len() == usize::from(tasks > 0)
                && networks == self.used_networks()
        })
        .await;
    }
}

impl Drop for Sandbox {
    /// Removes what the test made, also when it failed and the sandbox would not.
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        if !self.data.path().join("instance.json").exists() {
            return;
        }
        for container in self.containers() {
            let removal = ["rm", "-f", "-v", &container];
            drop(Command::new("docker").args(removal).output());
        }
        for network in self.networks() {
            let removal = ["network", "rm", &network];
            drop(Command::new("docker").args(removal).output());
        }
    }
}

#[tokio::test]
async fn what_the_engine_makes_after_the_sandbox_was_killed_is_found_and_removed() {
    let image = Image::make();
    let engine = SlowEngine::start();
    let mut sandbox = Sandbox::start(&engine).await;
    sandbox.define(&image).await;

    engine.hold("/networks/create");
    let first = sandbox.run_tasks(1).await.remove(0);
    engine.until_held();
    sandbox.kill();
    sandbox.resume().await;
    sandbox.until(&first, "RUNNING").await;
    engine.release();
    sandbox.until_exactly(1).await;

    engine.hold("/containers/create");
    let second = sandbox.run_tasks(1).await.remove(0);
    engine.until_held();
    sandbox.kill();
    sandbox.resume().await;
    sandbox.stop_task(&second).await;
    engine.release();
    sandbox.until_exactly(1).await;
    assert_eq!(sandbox.status(&first).await, "RUNNING");

    sandbox.stop_task(&first).await;
    sandbox.stop().await;
    assert_eq!(sandbox.containers(), BTreeSet::new());
    assert_eq!(sandbox.networks(), BTreeSet::new());
}

#[tokio::test]
async fn a_sandbox_that_is_killed_over_and_over_loses_no_task_and_leaves_nothing() {
    let image = Image::make();
    let engine = SlowEngine::start();
    let mut sandbox = Sandbox::start(&engine).await;
    sandbox.define(&image).await;
    let mut tasks = Vec::new();
    for round in 0..8 {
        tasks.extend(sandbox.run_tasks(1).await);
        // Any moment is as good as another one; these are spread over a task's start.
        tokio::time::sleep(Duration::from_millis(round * 90)).await;
        sandbox.kill();
        sandbox.resume().await;
    }
    for task in &tasks {
        sandbox.until(task, "RUNNING").await;
    }
    sandbox.until_exactly(8).await;

    // What is being stopped is stopped by the next life.
    for task in &tasks[..4] {
        sandbox.ecs("StopTask", json!({"task": task})).await;
    }
    sandbox.kill();
    sandbox.resume().await;
    for task in &tasks[..4] {
        sandbox.until(task, "STOPPED").await;
    }
    sandbox.until_exactly(4).await;

    // A clean stop keeps what the next start takes over, and nothing when there is nothing.
    sandbox.stop().await;
    sandbox.until_exactly(4).await;
    sandbox.resume().await;
    for task in &tasks[4..] {
        sandbox.stop_task(task).await;
    }
    sandbox.until_exactly(0).await;
    sandbox.stop().await;
    assert_eq!(sandbox.networks(), BTreeSet::new());
}

/// How a rollout that meets kills ends: its service deployment, and the version that runs.
async fn rollout_through_kills(second: &str) -> (String, String) {
    let image = Image::make();
    let engine = SlowEngine::start();
    let mut sandbox = Sandbox::start(&engine).await;
    sandbox.ecs("CreateCluster", json!({})).await;
    let container = |command: &str| {
        json!({
            "name": "app", "image": image.0, "memory": 32, "stopTimeout": 2,
            "command": ["/bin/sh", "-c", command],
            "healthCheck": {"command": ["CMD-SHELL", "true"], "interval": 5},
        })
    };
    let good = "trap 'exit 0' TERM; while :; do /bin/sleep 0.2; done";
    for command in [good, second] {
        let definition = json!({"family": "web", "containerDefinitions": [container(command)]});
        sandbox.ecs("RegisterTaskDefinition", definition).await;
    }
    // One more at a time, so that a rollout takes a while.
    let service = json!({
        "serviceName": "web", "taskDefinition": "web:1", "desiredCount": 3,
        "deploymentConfiguration": {
            "minimumHealthyPercent": 100, "maximumPercent": 134,
            "deploymentCircuitBreaker": {"enable": true, "rollback": true},
        },
    });
    sandbox.ecs("CreateService", service).await;
    let ended = async |sandbox: &Sandbox| {
        let listed = json!({"service": "web"});
        let listed = sandbox.ecs("ListServiceDeployments", listed).await;
        let status = listed["serviceDeployments"][0]["status"].as_str();
        let status = status.unwrap().to_owned();
        (!status.ends_with("IN_PROGRESS")).then_some(status)
    };
    eventually("the first rollout ends", async || {
        ended(&sandbox).await.is_some()
    })
    .await;
    let update = json!({"service": "web", "taskDefinition": "web:2"});
    sandbox.ecs("UpdateService", update).await;

    let mut met = 0;
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(150 * round)).await;
        sandbox.kill();
        sandbox.resume().await;
        met += u32::from(ended(&sandbox).await.is_none());
        // Whoever has been killed starts no task too many.
        let meant = sandbox
            .ecs("ListTasks", json!({"serviceName": "web"}))
            .await;
        assert!(meant["taskArns"].as_array().unwrap().len() <= 4, "{meant}");
    }
    assert!(met >= 2, "the rollout met {met} kills");
    eventually("the second rollout ends", async || {
        ended(&sandbox).await.is_some()
    })
    .await;
    let status = ended(&sandbox).await.unwrap();
    let described = json!({"services": ["web"]});
    let service = sandbox.ecs("DescribeServices", described).await["services"][0].clone();
    assert_eq!(service["deployments"].as_array().unwrap().len(), 1);
    assert_eq!(service["runningCount"], 3, "{service:#}");
    let arn = service["taskDefinition"].as_str().unwrap();
    let version = arn.rsplit('/').next().unwrap().to_owned();
    eventually("exactly three tasks are left", async || {
        sandbox.containers().len() == 3
    })
    .await;
    let gone = json!({"service": "web", "force": true});
    sandbox.ecs("DeleteService", gone).await;
    eventually("nothing is left", async || sandbox.containers().is_empty()).await;
    sandbox.stop().await;
    assert_eq!(sandbox.networks(), BTreeSet::new());
    (status, version)
}

#[tokio::test]
async fn a_rollout_goes_on_where_kills_have_met_it() {
    let second = "trap 'exit 0' TERM; while :; do /bin/sleep 0.3; done";
    let (status, version) = rollout_through_kills(second).await;
    assert_eq!((&*status, &*version), ("SUCCESSFUL", "web:2"));
}

#[tokio::test]
async fn a_bad_rollout_is_taken_back_though_kills_have_met_it() {
    let (status, version) = rollout_through_kills("/bin/sleep 0.5; exit 1").await;
    assert_eq!((&*status, &*version), ("ROLLBACK_SUCCESSFUL", "web:1"));
}

#[tokio::test]
async fn a_purge_removes_all_that_a_sandbox_left_and_nothing_of_one_that_runs() {
    let image = Image::make();
    let engine = SlowEngine::start();
    let mut sandbox = Sandbox::start(&engine).await;
    sandbox.define(&image).await;
    let task = sandbox.run_tasks(1).await.remove(0);
    sandbox.until(&task, "RUNNING").await;

    let refused = sandbox.purge();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("another sandbox"), "{said}");
    sandbox.until_exactly(1).await;

    sandbox.kill();
    let purged = sandbox.purge();
    assert!(purged.status.success(), "{purged:?}");
    assert_eq!(purged.stdout, b"removed 2 containers\n");
    assert_eq!(sandbox.containers(), BTreeSet::new());
    assert_eq!(sandbox.networks(), BTreeSet::new());

    // What the sandbox knows is still there, and runs again.
    sandbox.resume().await;
    sandbox.until(&task, "RUNNING").await;
    sandbox.until_exactly(1).await;
    sandbox.stop_task(&task).await;
    sandbox.stop().await;
}
