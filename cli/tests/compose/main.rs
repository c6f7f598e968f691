//! `docker-compose.yml` as its users run it: images are built, everything starts, one commit goes
//! through, a stop is clean, and a second start finds everything as it was.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

#[path = "../../src/demo/aws.rs"]
mod aws;
mod dashboard;
mod project;
mod shop;
mod stand_ins;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use aws::Aws;
use dashboard::Dashboard;
use project::{Project, repository_root, search_path};
use shop::Shop;

/// How long anything may take before a test gives up; machines that run tests are slow.
const PATIENCE: Duration = Duration::from_secs(240);

/// Looks again and again until `look` gives something; it says what it saw instead otherwise.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}; the last look saw {seen}"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn get(address: &str) -> Result<String, String> {
    let answer = reqwest::get(address).await.map_err(|e| e.to_string())?;
    let answer = answer.error_for_status().map_err(|e| e.to_string())?;
    answer.text().await.map_err(|e| e.to_string())
}

/// Waits until the load balancer answers with `page`.
async fn serves(project: &Project, page: &str) {
    let address = format!("http://127.0.0.1:{}/", project.ports.balancer);
    eventually("the page", async || match get(&address).await?.trim() {
        seen if seen == page => Ok(()),
        seen => Err(seen.to_owned()),
    })
    .await;
}

/// The registry that keeps the images, and the check of tokens before it, both know the digest.
async fn registry_has(project: &Project, aws: &Aws, digest: &str) {
    let http = reqwest::Client::new();
    let look = |port: u16| {
        let address = format!("http://127.0.0.1:{port}/v2/shop/manifests/{digest}");
        let types = "application/vnd.docker.distribution.manifest.v2+json, \
                     application/vnd.oci.image.manifest.v1+json";
        http.head(address).header("accept", types)
    };
    let kept = look(project.ports.registry).send().await.unwrap();
    assert_eq!(kept.status(), 200);
    assert_eq!(kept.headers()["docker-content-digest"], digest);
    let nobody = look(project.ports.sandbox_registry).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    let (user, password) = aws.registry_login().await.unwrap();
    let checked = look(project.ports.sandbox_registry).basic_auth(user, Some(password));
    assert_eq!(checked.send().await.unwrap().status(), 200);
}

/// The deployment of a release, once it is deployed.
async fn deployed(dashboard: &Dashboard) -> Value {
    eventually("the deployment", async || {
        let runs = dashboard.get("/projects/shop/runs").await?;
        let all = dashboard.get("/projects/shop/deployments").await?;
        let first = &all["deployments"][0];
        match first["state"]["state"].as_str() {
            Some("deployed") => Ok(first.clone()),
            Some("failed" | "rolled_back" | "cancelled" | "timed_out") => panic!("{all:#}"),
            _ => Err(format!("runs {runs:#}, deployments {all:#}")),
        }
    })
    .await
}

#[tokio::test]
async fn one_commit_goes_through_the_composed_product() {
    let project = Project::new();
    let shop = Shop::new(&project);
    project.compose(&["up", "--build", "--detach"]);

    let aws = Aws::new(format!("http://127.0.0.1:{}", project.ports.sandbox));
    let placeholder = project.image("shop-base");
    aws.environment("staging", project.ports.balancer, &placeholder)
        .await
        .unwrap();
    serves(&project, "nothing is deployed here yet").await;

    let commit = shop.push("the shop is open");
    let dashboard = Dashboard::sign_in(&project).await;
    let deployment = deployed(&dashboard).await;
    serves(&project, "the shop is open").await;
    let releases = dashboard.get("/projects/shop/releases").await.unwrap();
    let release = &releases["releases"][0];
    assert_eq!(release["id"], deployment["release"], "{releases:#}");
    assert_eq!(release["commit"], commit.as_str(), "{releases:#}");
    let digest = release["images"]["app"]["digest"].as_str().unwrap();
    registry_has(&project, &aws, digest).await;
    assert!(dashboard.page("/").await.contains("shop"));

    let image = project.image("roadstead");
    let baked = project.docker(&["image", "inspect", &image])
        + &project.docker(&["image", "history", "--no-trunc", &image]);
    let secrets = &project.secrets;
    for secret in [&secrets.postgres, &secrets.admin, &secrets.registration] {
        assert!(!baked.contains(secret.as_str()), "{baked}");
    }

    // SIGTERM is enough for each, and a start finds everything as it was.
    project.compose(&["stop", "--timeout", "120"]);
    for service in ["runner", "server", "sandbox", "postgres"] {
        assert_eq!(project.exit_status(service), "exited 0", "{service}");
    }
    project.compose(&["up", "--detach"]);
    serves(&project, "the shop is open").await;
    let again = Dashboard::sign_in(&project).await;
    let all = again.get("/projects/shop/deployments").await.unwrap();
    assert_eq!(all["deployments"][0]["id"], deployment["id"], "{all:#}");
    assert_eq!(
        all["deployments"][0]["state"], deployment["state"],
        "{all:#}"
    );
    registry_has(&project, &aws, digest).await;
    let runners = again.get("/runners").await.unwrap();
    assert_eq!(
        runners["runners"].as_array().unwrap().len(),
        1,
        "{runners:#}"
    );

    // What the documentation says about the end: the sandbox's tasks outlive it until they are purged.
    project.compose(&["stop", "--timeout", "120"]);
    let tasks = || {
        let labels = project.labels_of_others();
        let sandbox = labels
            .iter()
            .find(|it| it.starts_with("roadstead.sandbox="));
        let filter = format!("label={}", sandbox.unwrap());
        project.docker(&["ps", "--all", "--quiet", "--filter", &filter])
    };
    assert_ne!(tasks(), "");
    let purge = ["run", "--rm", "--no-deps", "sandbox"];
    let purge = [
        &purge[..],
        &["sandbox", "--purge", "--data=/var/lib/roadstead"],
    ]
    .concat();
    project.compose(&purge);
    assert_eq!(tasks(), "");
}

/// Names of variables: `${NAME:-default}` or `NAME=`, commented out or not.
fn variables(text: &str, before: &str, after: &[char]) -> BTreeSet<String> {
    text.match_indices(before)
        .filter_map(|(at, _)| text[at + before.len()..].split(after).next())
        .map(|name| name.trim_start_matches('#').to_owned())
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect()
}

#[test]
fn the_example_of_the_environment_names_every_variable() {
    let read = |file: &str| fs::read_to_string(repository_root().join(file)).unwrap();
    let used = variables(&read("docker-compose.yml"), "${", &[':', '}']);
    assert!(used.contains("POSTGRES_PASSWORD"), "{used:?}");
    assert_eq!(used, variables(&read(".env.example"), "\n", &['=']));
}

#[test]
fn a_secret_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (file, name) in [
        ("docker-compose.yml", "docker-compose.yml"),
        (".env.example", ".env"),
    ] {
        fs::copy(repository_root().join(file), folder.path().join(name)).unwrap();
    }
    let output = Command::new("docker-compose")
        .arg("config")
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", search_path())
        .output()
        .expect("docker-compose is missing: run `make setup`");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("in .env"), "{said}");
}
