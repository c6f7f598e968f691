//! The product's main job on real parts, and what the story gives as evidence read once more by
//! others: git, Docker, HTTP clients, boto3.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

#[path = "../../sandbox/tests/clients/python.rs"]
mod python;
mod story;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use story::{Stage, assert_all_held, assert_nothing_stays, lines};

/// How long a story that was told to end may take to clear up.
const CLEARING: Duration = Duration::from_secs(180);

/// A story that was told and whose parts still run. Dropping it ends them.
struct Kept {
    child: Child,
    stage: Stage,
    table: Value,
}

impl Kept {
    fn tell() -> Self {
        let stage = Stage::new();
        let log = File::create(stage.folder().join("demo.log")).unwrap();
        let child = stage
            .demo(&["--keep"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut kept = Self {
            child,
            stage,
            table: Value::Null,
        };
        let printed = kept.child.stdout.take().unwrap();
        let mut printed = serde_json::Deserializer::from_reader(printed).into_iter();
        kept.table = match printed.next() {
            Some(Ok(table)) => table,
            other => panic!("no table: {other:?}\n{}", kept.said()),
        };
        kept
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.stage.folder().join("demo.log")).unwrap_or_default()
    }

    /// Ends the story as a person does who has seen enough.
    fn end(&mut self) -> Option<ExitStatus> {
        if let Some(status) = self.child.try_wait().unwrap() {
            return Some(status);
        }
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        let deadline = Instant::now() + CLEARING;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.end().is_none() {
            // Its own children end with it, or are found by the lock on their folders.
            drop(self.child.kill());
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn array(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no array: {value}"))
}

/// The evidence of the `nth` line of that name, from the first on.
fn evidence<'a>(table: &'a Value, step: &str, nth: usize) -> &'a Value {
    let mut named = lines(table).iter().filter(|line| line["step"] == step);
    &named.nth(nth).unwrap()["evidence"]
}

/// Everything that lines say of AWS.
fn seen_at_aws(table: &Value) -> Vec<&Value> {
    let all = lines(table).iter().map(|line| &line["evidence"]["aws"]);
    let all: Vec<_> = all.filter(|aws| !aws.is_null()).collect();
    assert!(all.len() >= 8, "deployments and what runs: {}", all.len());
    all
}

/// What boto3 says of all that the evidence names.
fn boto3(stage: &Stage, table: &Value) -> Value {
    let mut tasks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut definitions = BTreeSet::new();
    for aws in seen_at_aws(table) {
        let here = tasks.entry(text(&aws["cluster"])).or_default();
        here.extend(array(&aws["tasks"]).iter().map(|task| text(&task["task"])));
        definitions.insert(text(&aws["task_definition"]));
    }
    for update in array(evidence(table, "each update once", 0)) {
        definitions.insert(text(&update["task_definition"]));
    }
    let asked = json!({
        "endpoint": stage.sandbox(), "clusters": ["staging", "production"], "repository": "shop",
        "definitions": definitions, "tasks": tasks,
    });
    let mut script = Command::new(python::python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/facts.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = script.stdin.take().unwrap();
    input.write_all(asked.to_string().as_bytes()).unwrap();
    drop(input);
    let output = script.wait_with_output().unwrap();
    python::check("facts.py", &output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The commits are those of the repository.
fn compare_with_git(stage: &Stage, table: &Value) {
    let log = run(Command::new("git")
        .arg("--git-dir")
        .arg(stage.folder().join("shop.git"))
        .args(["log", "--reverse", "--format=%H", "main"]));
    let commits: Vec<_> = ["push v1", "push v2", "push v3"]
        .map(|push| text(&evidence(table, push, 0)["commit"]).to_owned())
        .into();
    assert_eq!(log.lines().collect::<Vec<_>>(), commits);
}

/// Definitions, rollouts, tasks and images are those that AWS's own client is told of.
fn compare_with_boto3(table: &Value, facts: &Value) {
    for aws in seen_at_aws(table) {
        let cluster = text(&aws["cluster"]);
        assert_eq!(aws["service"], facts["services"][cluster]["arn"]);
        let definition = text(&aws["task_definition"]);
        assert_eq!(
            aws["image"], facts["definitions"][definition],
            "{definition}"
        );
        for rollout in array(&aws["service_deployments"]) {
            let arn = &rollout["serviceDeploymentArn"];
            let listed = array(&facts["service_deployments"][cluster]);
            assert!(listed.contains(arn), "{arn} is not listed");
        }
        for task in array(&aws["tasks"]) {
            let fact = &facts["tasks"][text(&task["task"])];
            assert_eq!(fact["definition"], definition, "{task}");
            assert_eq!(fact["container"], task["container"], "{task}");
            assert_eq!(fact["image_digest"], task["image_digest"], "{task}");
        }
    }
    for update in array(evidence(table, "each update once", 0)) {
        let image = text(&facts["definitions"][text(&update["task_definition"])]);
        assert!(
            image.ends_with(text(&update["digest"])),
            "{update}: {image}"
        );
    }
    let digest = text(&evidence(table, "build v1", 0)["image"]["digest"]);
    assert!(facts["images"][digest].is_array(), "{}", facts["images"]);

    // What stands at the end is what the last line of each environment says.
    for (cluster, step) in [
        ("staging", "promote to staging"),
        ("production", "v3 in production"),
    ] {
        let aws = &evidence(table, step, 0)["aws"];
        let now = &facts["services"][cluster];
        assert_eq!(aws["task_definition"], now["definition"]);
        let primary = array(&aws["deployments"])
            .iter()
            .find(|deployment| deployment["status"] == "PRIMARY");
        assert_eq!(json!([primary.unwrap()["id"]]), now["primary"]);
    }
}

/// The containers run in Docker Engine, under the sandbox's label, from the image of that digest.
fn compare_with_docker(table: &Value, facts: &Value) {
    let labels = array(&table["labels"]);
    let sandbox = labels
        .iter()
        .map(text)
        .find(|l| l.starts_with("roadstead.sandbox="));
    let (key, instance) = sandbox.unwrap().split_once('=').unwrap();
    for step in ["promote to staging", "v3 in production"] {
        let tasks = array(&evidence(table, step, 0)["aws"]["tasks"]);
        // A task may have been replaced since, as ECS does; AWS's client says which.
        let running: Vec<_> = tasks
            .iter()
            .filter(|task| facts["tasks"][text(&task["task"])]["status"] == "RUNNING")
            .collect();
        assert!(!running.is_empty(), "{step}: {tasks:?}");
        for task in running {
            let container = text(&task["container"]);
            let shown = run(Command::new("docker").args(["inspect", container]));
            let shown: Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(shown[0]["Id"], container);
            assert_eq!(shown[0]["State"]["Running"], true);
            assert_eq!(shown[0]["Config"]["Labels"][key], instance);
            let image = text(&shown[0]["Image"]);
            let shown = run(Command::new("docker").args(["image", "inspect", image]));
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let digest = format!("shop@{}", text(&task["image_digest"]));
            let names = array(&shown[0]["RepoDigests"]);
            assert!(
                names.iter().any(|n| text(n).ends_with(&digest)),
                "{names:?}"
            );
        }
    }
}

/// The registry gives the digest, and the load balancers the bodies.
async fn compare_with_http(table: &Value, facts: &Value) {
    let http = reqwest::Client::new();
    let image = &evidence(table, "build v1", 0)["image"];
    let digest = text(&image["digest"]);
    let (registry, repository) = text(&image["repository_uri"]).split_once('/').unwrap();
    let manifest = format!("http://{registry}/v2/{repository}/manifests/{digest}");
    let ask = || {
        http.get(&manifest)
            .header(
                "accept",
                "application/vnd.docker.distribution.manifest.v2+json",
            )
            .header("accept", "application/vnd.oci.image.manifest.v1+json")
    };
    assert_eq!(ask().send().await.unwrap().status(), 401, "without a token");
    let login = array(&facts["login"]);
    let answer = ask().basic_auth(text(&login[0]), Some(text(&login[1])));
    let answer = answer.send().await.unwrap().error_for_status().unwrap();
    let said = &evidence(table, "build v1", 0)["registry"]["docker-content-digest"];
    assert_eq!(answer.headers()["docker-content-digest"], text(said));
    assert_eq!(text(said), digest);

    let serves = [
        evidence(table, "staging serves", 2),
        evidence(table, "production is back", 0),
    ];
    for line in serves {
        let answer = http.get(text(&line["url"])).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), line["status"]);
        assert_eq!(answer.text().await.unwrap(), text(&line["body"]));
    }
}

/// The dashboard tells the same of runs, deployments and holds, and shows it on its pages.
async fn compare_with_the_dashboard(stage: &Stage, table: &Value) {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let password = std::fs::read_to_string(stage.folder().join("admin-password")).unwrap();
    let form = [
        ("user", "admin"),
        ("password", password.trim()),
        ("next", "/"),
    ];
    let login = http
        .post(format!("{}/login", stage.dashboard()))
        .form(&form);
    let login = login.send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = async |path: &str| -> String {
        let address = format!("{}{path}", stage.dashboard());
        let answer = http
            .get(address)
            .header("cookie", &cookie)
            .send()
            .await
            .unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    };
    let api = async |path: &str| -> Value {
        serde_json::from_str(&page(&format!("/api/v1{path}")).await).unwrap()
    };

    let told = lines(table).iter().map(|line| &line["evidence"]);
    let told: Vec<_> = told.filter(|told| told["deployment"].is_string()).collect();
    assert_eq!(told.len(), 7, "lines that tell of a deployment");
    for told in told {
        let id = text(&told["deployment"]);
        let found = api(&format!("/deployments/{id}")).await;
        assert_eq!(found["deployment"]["state"], told["state"], "{id}");
        assert_eq!(found["deployment"]["release"], told["release"], "{id}");
        if told["state"]["state"] == "deployed" {
            assert_eq!(
                told["state"]["task_definition"],
                told["aws"]["task_definition"]
            );
            let digest = &found["release"]["images"]["app"]["digest"];
            for task in array(&told["aws"]["tasks"]) {
                assert_eq!(task["image_digest"], *digest, "{id}");
            }
        }
    }
    for push in ["push v1", "push v2", "push v3"] {
        let told = evidence(table, push, 0);
        let found = api(&format!("/runs/{}", text(&told["run"]))).await;
        assert_eq!(found["run"]["commit"], told["commit"]);
    }
    let project = api("/projects/shop").await;
    let places = array(&project["places"]).iter();
    let production = places.clone().find(|p| p["environment"] == "production");
    assert_eq!(
        production.unwrap()["hold"],
        *evidence(table, "production is held", 0)
    );
    let taken_back = evidence(table, "v3 in production", 0);
    let shown = page(&format!("/deployments/{}", text(&taken_back["deployment"]))).await;
    assert!(shown.contains("answered 500 instead of 200"), "{shown}");
}

#[tokio::test]
async fn the_story_holds_and_others_see_what_it_gives_as_evidence() {
    let mut kept = Kept::tell();
    assert_all_held(&kept.table);
    let facts = boto3(&kept.stage, &kept.table);
    compare_with_git(&kept.stage, &kept.table);
    compare_with_boto3(&kept.table, &facts);
    compare_with_docker(&kept.table, &facts);
    compare_with_http(&kept.table, &facts).await;
    compare_with_the_dashboard(&kept.stage, &kept.table).await;
    let status = kept.end().expect("the parts end when they are told to");
    assert!(status.success(), "{}", kept.said());
    assert_nothing_stays(&kept.table, &kept.stage.registry());
}
