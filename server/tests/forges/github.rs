//! Every call to GitHub, and every answer of the forge that plays it here, held against GitHub's own description of
//! its API, which npm brings.

use crate::databases;
use crate::forge::FakeForge;
use crate::scene::{Scene, project, token_file};
use crate::story::commit;
use roadstead_server::adapters::forges::Forges;
use roadstead_server::forge::Forge;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The description, where npm has put what the lockfile in `tests/openapi` names.
fn description() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi");
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
    folder.join("node_modules/@octokit/openapi/generated/api.github.com.json")
}

struct Description(Value);

impl Description {
    async fn read() -> Self {
        let file = tokio::task::spawn_blocking(description).await.unwrap();
        let text = std::fs::read(file).unwrap();
        Self(serde_json::from_slice(&text).unwrap())
    }

    /// A schema of OpenAPI 3.0 as JSON Schema has it: with what it refers to in its place, and what may be null says
    /// so in another way.
    fn plain(&self, schema: &Value) -> Value {
        match schema {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let pointer = to.strip_prefix('#').expect(to);
                    return self.plain(self.0.pointer(pointer).expect(to));
                }
                let plain = members
                    .iter()
                    .map(|(name, value)| (name.clone(), self.plain(value)));
                let plain = Value::Object(plain.collect());
                match members.get("nullable") {
                    Some(Value::Bool(true)) => json!({"anyOf": [plain, {"type": "null"}]}),
                    _ => plain,
                }
            }
            Value::Array(items) => items.iter().map(|item| self.plain(item)).collect(),
            other => other.clone(),
        }
    }

    /// Complains about `value` unless it is as the schema at `pointer` says.
    fn hold(&self, pointer: &str, value: &Value) {
        let schema = self.plain(self.0.pointer(pointer).expect(pointer));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{pointer}: {errors:?}: {value}");
    }
}

const TELL: &str = "/paths/~1repos~1{owner}~1{repo}~1statuses~1{sha}/post";
const LOOK: &str = "/paths/~1repos~1{owner}~1{repo}~1commits~1{ref}~1statuses/get";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_as_github_describes_it() {
    let description = Description::read().await;
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::begin(&databases::sqlite(&folder), Forge::Github).await;
    let run = scene.push().await;
    scene.tell().await;
    let attempt = scene.claim(&run).await;
    scene.tell().await;
    scene.fail(&attempt, &"long ".repeat(100)).await;
    scene.tell().await;
    let run = scene.push().await;
    scene.succeed(&run).await;
    scene.tell().await;

    let inner = scene.forge.inner();
    assert_eq!(inner.calls.len(), 4);
    for call in &inner.calls {
        assert_eq!(call.method, "POST");
        let path: Vec<_> = call.path.split('/').skip(1).collect();
        assert!(
            matches!(path[..], ["repos", "team", "shop", "statuses", _]),
            "{path:?}"
        );
        let body = "/requestBody/content/application~1json/schema";
        description.hold(&format!("{TELL}{body}"), &call.body);
        assert_eq!(call.headers["accept"], "application/vnd.github+json");
        assert!(call.headers["user-agent"].starts_with("roadstead"));
    }
    for (status, answer) in &inner.answers {
        assert_eq!(*status, 201);
        let body = "/responses/201/content/application~1json/schema";
        description.hold(&format!("{TELL}{body}"), answer);
    }
    // That the description says no to something.
    let wrong = std::panic::catch_unwind(|| {
        let body = "/requestBody/content/application~1json/schema";
        description.hold(&format!("{TELL}{body}"), &json!({"state": "running"}));
    });
    assert!(wrong.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_look_of_check_is_described_too() {
    let description = Description::read().await;
    assert!(description.0.pointer(LOOK).is_some());
    let forge = FakeForge::start(Forge::Github).await;
    let known = commit(1);
    forge.push(known.as_str());
    let folder = tempfile::tempdir().unwrap();
    let token = token_file(folder.path(), crate::forge::TOKEN);
    let told = project("shop", Forge::Github, forge.api(), token).told_forge();
    let told = told.unwrap().unwrap();
    let look = Forges::new().unwrap();
    look.look(&told, &told.token().unwrap(), &known)
        .await
        .unwrap();
    let call = forge.inner().calls[0].clone();
    let expected = format!("/repos/team/shop/commits/{known}/statuses?per_page=1");
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("GET", expected.as_str())
    );
}
