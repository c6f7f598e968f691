//! `roadstead check` about forges, and the whole server with two of them.

use crate::forge::{FakeForge, KINDS, TOKEN, Trouble};
use crate::scene::{project, token_file};
use git2::{Repository, Signature};
use hmac::{Hmac, KeyInit, Mac};
use roadstead_server::config::{Config, Project, Statuses};
use roadstead_server::forge::Forge;
use roadstead_server::{check, serve};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// A project that builds no image, so that its runs need no registry.
const GOOD: &str = "\
version: 1
name: NAME
steps:
  test: { image: busybox, run: make test }
";

/// A repository with one commit on `main`, which has this pipeline file.
fn repository(folder: &Path, name: &str, file: &str) -> (PathBuf, String) {
    let path = folder.join(format!("{name}.git"));
    let repository = Repository::init_bare(&path).unwrap();
    let blob = repository.blob(file.as_bytes()).unwrap();
    let mut within = repository.treebuilder(None).unwrap();
    within.insert("pipeline.yml", blob, 0o100_644).unwrap();
    let within = within.write().unwrap();
    let mut tree = repository.treebuilder(None).unwrap();
    tree.insert(".roadstead", within, 0o040_000).unwrap();
    let tree = repository.find_tree(tree.write().unwrap()).unwrap();
    let ada = Signature::now("Ada", "ada@example.com").unwrap();
    let head = Some("refs/heads/main");
    let commit = repository.commit(head, &ada, &ada, "Sails", &tree, &[]);
    (path, commit.unwrap().to_string())
}

fn configuration(folder: &Path, projects: Vec<Project>) -> Config {
    let mut config = Config {
        data: folder.join("data"),
        projects,
        ..Config::default()
    };
    config.http.public_url = Some("https://roadstead.example/".into());
    config.aws.endpoint_url = Some("http://127.0.0.1:9".into());
    config
}

/// What `check` says of the statuses of `shop`.
async fn said(config: &Config) -> (bool, String) {
    let found = check(config).await;
    let wanted = |what: &str| what == "commit statuses of shop";
    let finding = found.into_iter().find(|it| wanted(&it.what)).unwrap();
    (finding.ok, finding.detail)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_whether_statuses_are_told() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let (path, commit) = repository(folder.path(), "shop", GOOD);
        let forge = FakeForge::start(kind).await;
        let token = token_file(folder.path(), TOKEN);
        let mut shop = project("shop", kind, forge.api(), token.clone());
        shop.repository = path.display().to_string();
        let mut config = configuration(folder.path(), vec![shop]);
        let (ok, detail) = said(&config).await;
        assert!(
            !ok && detail.contains("the forge answered 4"),
            "{kind:?}, who does not know it: {detail}"
        );
        forge.push(&commit);
        let (ok, detail) = said(&config).await;
        assert!(
            ok && detail.contains("team/shop at http://127.0.0.1"),
            "{detail}"
        );
        assert!(detail.contains("whether that may write"), "{detail}");

        token_file(folder.path(), "another-token");
        let (ok, detail) = said(&config).await;
        assert!(
            !ok && detail.contains("401: the token is wrong"),
            "{detail}"
        );
        assert!(!detail.contains("another-token"), "{detail}");
        std::fs::remove_file(token).unwrap();
        let (ok, detail) = said(&config).await;
        assert!(!ok && detail.contains("No such file"), "{detail}");
        token_file(folder.path(), TOKEN);
        config.http.public_url = None;
        let (ok, detail) = said(&config).await;
        assert!(!ok && detail.contains("http.public_url"), "{detail}");
        config.projects[0].statuses = None;
        let (ok, detail) = said(&config).await;
        assert!(ok && detail.starts_with("none are told"), "{detail}");
        config.projects[0].statuses = Some(Statuses::default());
        let (ok, detail) = said(&config).await;
        assert!(!ok && detail.contains("set `forge`"), "{detail}");
        assert!(forge.told().is_empty(), "looking tells nothing");
    }
}

/// A whole server in this process.
struct Server {
    base: String,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(mut config: Config) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.http.listen = free.local_addr().unwrap();
        drop(free);
        let base = format!("http://{}", config.http.listen);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(serve(config, stopped));
        let ready = async {
            while reqwest::get(format!("{base}/healthz")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap();
        Self {
            base,
            stop,
            serving,
        }
    }

    async fn push(&self, project: &str, commit: &str) {
        let body = format!(
            r#"{{"ref":"refs/heads/main","after":"{commit}","head_commit":{{"message":"Sails"}}}}"#
        );
        let key = b"a webhook's key of the tests";
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let answer = reqwest::Client::new()
            .post(format!("{}/webhooks/git/{project}", self.base))
            .header("x-hub-signature-256", signature)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 202);
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

/// Waits until a forge was told a state with these words.
async fn told(forge: &FakeForge, state: &str, words: &str) {
    let telling = async {
        let fits = |(it, said): &(String, String)| it == state && said.contains(words);
        while !forge.told().iter().any(fits) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, telling).await;
    assert!(
        told.is_ok(),
        "{state}, {words} was not told: {:?}",
        forge.told()
    );
}

/// A push to each of two projects: one's forge never answers, the other's is told all the same, also by the next server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forge_that_never_answers_keeps_no_other_project_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let token = token_file(folder.path(), TOKEN);
    let (slow, swift) = (
        FakeForge::start(Forge::Gitea).await,
        FakeForge::start(Forge::Github).await,
    );
    let mut projects = vec![];
    let mut commits = vec![];
    for (name, kind, forge, file) in [
        ("slow", Forge::Gitea, &slow, GOOD.replace("NAME", "slow")),
        (
            "swift",
            Forge::Github,
            &swift,
            GOOD.replace("NAME", "swift"),
        ),
        (
            "wrong",
            Forge::Github,
            &swift,
            "version: 1\nname: wrong\nstpes: {}\n".to_owned(),
        ),
    ] {
        let (path, commit) = repository(folder.path(), name, &file);
        let mut project = project(name, kind, forge.api(), token.clone());
        project.repository = path.display().to_string();
        forge.push(&commit);
        projects.push(project);
        commits.push(commit);
    }
    let config = configuration(folder.path(), projects);
    slow.troubled(std::iter::repeat_n(Trouble::Silence, 100));
    let server = Server::start(config.clone()).await;
    server.push("slow", &commits[0]).await;
    let called = async {
        while slow.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, called).await.unwrap();
    server.push("swift", &commits[1]).await;
    told(&swift, "pending", "waits for a runner").await;
    let page = swift.inner().taken[0].page.clone();
    assert_eq!(page, "https://roadstead.example/runs/swift.1");
    server.stop().await;

    // The next server goes on with what this one left.
    slow.inner().troubles.clear();
    let server = Server::start(config).await;
    told(&slow, "pending", "waits for a runner").await;
    server.push("wrong", &commits[2]).await;
    told(&swift, "failure", "stpes").await;
    server.stop().await;
}
