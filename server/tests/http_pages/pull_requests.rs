//! Pull requests from the webhook to a runner's hands: with what GitHub once sent, and as a story in which the server reads a real
//! repository that keeps strangers' commits at `refs/pull/N/head`.

use crate::recorded::recorded;
use crate::secrets::call;
use crate::site::{ADMIN, DEPLOYER, PATIENCE, Site, VIEWER, Who, location};
use crate::webhooks::{decision, signature_with, signed};
use git2::{FileMode, Oid, Signature};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_server::adapters::aws::Aws;
use roadstead_server::adapters::cluster::Cluster;
use roadstead_server::adapters::registry::Registry;
use roadstead_server::executor::Executor;
use roadstead_server::reconciler::Reconciler;
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BASE: &str = "\
version: 1
name: shop
trigger: { pull_request: { branches: [main] } }
images: { app: { repository: shop/app } }
steps:
  test: { image: busybox, run: from-the-base, secrets: [TOKEN] }
  build: { build: [app] }
";
pub(crate) const BASE_ID: u64 = 1;
const FORK_ID: u64 = 2;

/// The rooms that read repositories and decide, beside the site's HTTP.
pub(crate) fn act(site: &Site) -> Vec<JoinHandle<()>> {
    let aws = Aws::new(&site.app.config.aws);
    let store = site.story.store.clone();
    let executor = Executor::new(
        store.clone(),
        site.app.sources.clone(),
        Registry::new(aws.clone()),
        Cluster::new(aws),
        site.app.remotes.clone(),
        site.app.bell.clone(),
    );
    let bell = site.app.bell.clone();
    let reconciler = Reconciler {
        store,
        bell: bell.clone(),
        effects_bell: bell,
    };
    vec![
        tokio::spawn(executor.run(CancellationToken::new())),
        tokio::spawn(reconciler.run()),
    ]
}

/// A commit with a pipeline file and a Dockerfile, at `git_ref`, on top of where main is.
pub(crate) fn commit(site: &Site, git_ref: &str, file: &str, dockerfile: &str) -> String {
    let origin = &site.origin;
    let blob = |text: &str| origin.blob(text.as_bytes()).unwrap();
    let mut folder = origin.treebuilder(None).unwrap();
    let mode = FileMode::Blob.into();
    folder.insert("pipeline.yml", blob(file), mode).unwrap();
    let folder = folder.write().unwrap();
    let mut root = origin.treebuilder(None).unwrap();
    root.insert(".roadstead", folder, FileMode::Tree.into())
        .unwrap();
    root.insert("Dockerfile", blob(dockerfile), mode).unwrap();
    let tree = origin.find_tree(root.write().unwrap()).unwrap();
    let author = Signature::now("Mallory", "mallory@example.org").unwrap();
    let main = origin.find_reference("refs/heads/main").unwrap();
    let main = main.peel_to_commit().unwrap();
    let id: Oid = origin
        .commit(None, &author, &author, "Sails <i>", &tree, &[&main])
        .unwrap();
    origin.reference(git_ref, id, true, "test").unwrap();
    id.to_string()
}

/// As GitHub tells of it; what a fork is called, its owner says.
pub(crate) fn told(action: &str, number: u64, sha: &str, head_id: u64) -> String {
    let name = if head_id == BASE_ID {
        "ada/shop"
    } else {
        "mallory/<b>shop"
    };
    json!({
        "action": action, "number": number,
        "pull_request": {
            "number": number, "title": "Sails".repeat(100_000), "updated_at": "2026-11-27T10:00:00Z",
            "head": { "ref": "main", "sha": sha, "repo": { "id": head_id, "full_name": name } },
            "base": { "ref": "main", "sha": "0".repeat(40), "repo": { "id": BASE_ID, "full_name": "ada/shop" } },
        },
        "repository": { "id": BASE_ID, "full_name": "ada/shop" },
    })
    .to_string()
}

pub(crate) async fn opened(site: &Site, action: &str, body: &str) -> RunId {
    let id = format!("{action} {}", body.len());
    let answer = signed(site, body, "pull_request", &id).await;
    let (word, answer) = decision(answer, StatusCode::ACCEPTED).await;
    assert_eq!(word, "run");
    RunId::parse(answer["run"].as_str().unwrap()).unwrap()
}

pub(crate) async fn until(
    site: &Site,
    run: &RunId,
    what: &str,
    holds: impl Fn(&RunState) -> bool,
) -> Run {
    let began = Instant::now();
    loop {
        let found = site.story.store.get_run(run).await.unwrap().run;
        if holds(&found.state) {
            return found;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{run} is not {what}: {:?}",
            found.state
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub(crate) fn waits(state: &RunState) -> bool {
    matches!(state, RunState::WaitingForApproval { .. })
}

pub(crate) async fn approve(
    site: &Site,
    who: Who,
    run: &RunId,
    body: &Value,
) -> (StatusCode, String) {
    let path = format!("/api/v1/runs/{run}/approve");
    let request = site.request(who, Method::POST, &path);
    let request = request
        .header("origin", &site.base)
        .header("sec-fetch-site", "same-origin");
    let answer = request.json(body).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The attempt at the run's next job, by a runner whose token is `token`.
pub(crate) async fn claim(site: &Site, run: &RunId, token: &str) -> String {
    let store = &site.story.store;
    let claimed = store
        .claim_job("harbour", hash_secret(token), crate::site::now())
        .await;
    let claim = claimed.unwrap().unwrap();
    assert_eq!(claim.run.id, *run);
    let accepted = call(site, Method::POST, &claim.attempt, "accept", token, b"").await;
    assert_eq!(accepted.status(), StatusCode::NO_CONTENT);
    claim.attempt
}

async fn secrets(site: &Site, attempt: &str, fence: u32, token: &str) -> Value {
    let path = format!("secrets?fence={fence}");
    let answer = call(site, Method::GET, attempt, &path, token, b"").await;
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_read_waited_for_and_given_nothing() {
    let site = Site::start().await;
    commit(&site, "refs/heads/main", BASE, "FROM scratch\n");
    let evil = BASE.replace("from-the-base", "from-the-fork");
    let head = commit(&site, "refs/pull/1/head", &evil, "FROM evil\n");
    let token = json!({"value": "a secret of the base"});
    let request = site
        .request(ADMIN, Method::PUT, "/api/v1/projects/shop/secrets/TOKEN")
        .header("origin", &site.base)
        .header("sec-fetch-site", "same-origin");
    assert_eq!(
        request.json(&token).send().await.unwrap().status(),
        StatusCode::OK
    );
    // The file that is known so far wants no pull requests.
    site.story.read("main", 40, BASE).await;
    let rooms = act(&site);

    // Signed by nobody, or by somebody else, it is nothing, whatever ids it has.
    let forged = told("opened", 1, &head, BASE_ID);
    let wrong = signature_with("another key", &forged);
    for signature in [None, Some(&wrong)] {
        let request = site.request(Who::Nobody, Method::POST, "/webhooks/github/shop");
        let mut request = request
            .header("x-github-event", "pull_request")
            .header("x-github-delivery", "forged");
        if let Some(signature) = signature {
            request = request.header("x-hub-signature-256", signature);
        }
        let answer = request.body(forged.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }

    let run = opened(&site, "opened", &told("opened", 1, &head, FORK_ID)).await;
    let read = until(&site, &run, "waiting", waits).await;
    assert_eq!(read.commit.as_str(), head);
    let file = json!(read.pipeline).to_string();
    assert!(file.contains("from-the-base") && !file.contains("from-the-fork"));
    let base_file = read.base_file.unwrap();
    assert!(base_file.head_differs && base_file.commit.as_str() != head);

    let page = format!("/runs/{run}");
    let html = site.page(DEPLOYER, &page).await;
    let fork = "pull request #1 from mallory/&#60;b&#62;shop (fork)";
    for text in [
        fork,
        "has another one, which is not used",
        "Let this commit run",
        "It gets no secrets",
        &head,
    ] {
        assert!(html.contains(text), "{text}: {html}");
    }
    assert!(!html.contains("<b>shop") && !html.contains("Sails <i>"));
    assert!(html.contains("waits for approval") && !html.contains("waits for a runner"));
    assert!(site.page(VIEWER, "/deliveries").await.contains(fork));
    assert!(site.page(VIEWER, "/projects/shop").await.contains(fork));
    assert!(
        site.page(VIEWER, "/").await.contains(fork),
        "it needs somebody"
    );
    let listed = site.request(VIEWER, Method::GET, "/api/v1/projects/shop/runs");
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        listed["runs"][0]["pull_request"],
        "pull request #1 from mallory/<b>shop (fork)"
    );

    let none = site
        .story
        .store
        .claim_job("harbour", hash_secret("early"), crate::site::now());
    assert!(none.await.unwrap().is_none(), "no runner gets it");
    let of = |commit: &str| json!({ "commit": commit });
    for (who, body, expected) in [
        (VIEWER, of(&head), StatusCode::FORBIDDEN),
        (DEPLOYER, json!({}), StatusCode::BAD_REQUEST),
        (DEPLOYER, of("HEAD"), StatusCode::BAD_REQUEST),
        (DEPLOYER, of(&"e".repeat(40)), StatusCode::CONFLICT),
    ] {
        let (status, said) = approve(&site, who, &run, &body).await;
        assert_eq!(status, expected, "{said}");
    }
    let form = [("commit", head.as_str())];
    let answer = site
        .submit(DEPLOYER, &format!("{page}/approve"), &form)
        .await;
    assert_eq!(location(&answer), page);
    until(&site, &run, "waiting for a runner", |state| {
        state.claimable().next().is_some()
    })
    .await;
    assert!(
        site.page(VIEWER, &page)
            .await
            .contains(&format!("deployer let commit {} run", &head[..7]))
    );

    let attempt = claim(&site, &run, "own").await;
    let given = secrets(&site, &attempt, 1, "own").await;
    assert_eq!(given["values"], json!({}));
    let why = given["withheld"]["TOKEN"].as_str().unwrap();
    assert!(
        why.contains("from a fork, and these get no secrets"),
        "{why}"
    );
    let login = call(
        &site,
        Method::GET,
        &attempt,
        "registry-credentials",
        "own",
        b"",
    )
    .await;
    assert_eq!(login.status(), StatusCode::FORBIDDEN);
    let sources = call(&site, Method::GET, &attempt, "sources", "own", b"").await;
    assert_eq!(sources.status(), StatusCode::OK);
    assert_eq!(sources.headers()["roadstead-commit"], head.as_str());

    // The next commit of the fork waits anew and takes the place of this one.
    let next = commit(&site, "refs/pull/1/head", BASE, "FROM evil:2\n");
    let second = opened(
        &site,
        "synchronize",
        &told("synchronize", 1, &next, FORK_ID),
    )
    .await;
    let read = until(&site, &second, "waiting", waits).await;
    assert!(!read.base_file.unwrap().head_differs);
    until(&site, &run, "being cancelled", |state| {
        matches!(state, RunState::Cancelling { .. })
    })
    .await;
    let (status, _) = approve(&site, DEPLOYER, &second, &of(&head)).await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "the approval of then, sent again"
    );

    // *Run again* makes no branch of it.
    let again = site
        .submit(DEPLOYER, &format!("/runs/{second}/cancel"), &[])
        .await;
    assert_eq!(again.status(), StatusCode::SEE_OTHER);
    let again = site
        .submit(DEPLOYER, &format!("/runs/{second}/retry"), &[])
        .await;
    let third = RunId::parse(location(&again).strip_prefix("/runs/").unwrap()).unwrap();
    let read = until(&site, &third, "waiting", waits).await;
    assert_eq!(read.git_ref, "refs/pull/1/head");
    assert!(!read.trust().is_trusted());

    let closed = told("closed", 1, &next, FORK_ID);
    let answer = signed(&site, &closed, "pull_request", "closed").await;
    let (word, answer) = decision(answer, StatusCode::OK).await;
    assert_eq!(word, "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("was closed"));
    let cancelled = until(&site, &third, "cancelled", RunState::is_over).await;
    assert!(matches!(cancelled.state, RunState::Cancelled { .. }));
    assert!(
        site.page(VIEWER, "/deliveries")
            .await
            .contains(&format!("cancelled {third}"))
    );
    rooms.into_iter().for_each(|room| room.abort());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_repository_is_trusted_as_its_branch() {
    let site = Site::start().await;
    commit(&site, "refs/heads/main", BASE, "FROM scratch\n");
    let own = BASE.replace("from-the-base", "from-the-branch");
    let head = commit(&site, "refs/pull/2/head", &own, "FROM scratch:2\n");
    site.story.read("main", 40, BASE).await;
    let token = json!({"value": "a secret of the base", "branches": ["main"]});
    let request = site
        .request(ADMIN, Method::PUT, "/api/v1/projects/shop/secrets/TOKEN")
        .header("origin", &site.base)
        .header("sec-fetch-site", "same-origin");
    assert_eq!(
        request.json(&token).send().await.unwrap().status(),
        StatusCode::OK
    );
    let rooms = act(&site);
    let run = opened(&site, "opened", &told("opened", 2, &head, BASE_ID)).await;
    let read = until(&site, &run, "waiting for a runner", |state| {
        state.claimable().next().is_some()
    })
    .await;
    assert!(json!(read.pipeline).to_string().contains("from-the-branch"));
    assert_eq!((read.base_file, read.approval), (None, None));
    assert!(read.repositories.is_empty(), "nothing is to be pushed");
    let html = site.page(VIEWER, &format!("/runs/{run}")).await;
    assert!(html.contains("pull request #2 from main") && !html.contains("fork"));
    let attempt = claim(&site, &run, "own").await;
    let given = secrets(&site, &attempt, 1, "own").await;
    assert_eq!(given["values"], json!({"TOKEN": "a secret of the base"}));
    rooms.into_iter().for_each(|room| room.abort());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pull_requests_that_github_once_told_of_make_their_runs() {
    let payloads = tokio::task::spawn_blocking(recorded).await.unwrap();
    let events: Vec<Value> = serde_json::from_slice(&std::fs::read(payloads).unwrap()).unwrap();
    let site = Site::start().await;
    let file = "version: 1\nname: shop\ntrigger: { pull_request: {} }\nsteps: { test: { image: a, run: b } }\n";
    site.story.read("main", 40, file).await;
    let mut told = std::collections::BTreeMap::new();
    let pull_requests = events.iter().find(|it| it["name"] == "pull_request");
    let examples = pull_requests.unwrap()["examples"].as_array().unwrap();
    for (number, payload) in examples.iter().enumerate() {
        let (id, body) = (format!("recorded {number}"), payload.to_string());
        let answer = signed(&site, &body, "pull_request", &id).await;
        assert!(answer.status().is_success(), "{number}: {answer:?}");
        let answer: Value = answer.json().await.unwrap();
        let action = payload["action"].as_str().unwrap();
        let word = answer["decision"].as_str().unwrap().to_owned();
        let starts = ["opened", "synchronize", "reopened"].contains(&action);
        assert_eq!(word != "ignored", starts, "{action}: {answer}");
        if word == "run" {
            let run = RunId::parse(answer["run"].as_str().unwrap()).unwrap();
            let run = site.story.store.get_run(&run).await.unwrap().run;
            let sent = &payload["pull_request"];
            assert_eq!(run.commit.as_str(), sent["head"]["sha"]);
            let git_ref = format!("refs/pull/{}/head", payload["number"]);
            assert_eq!(run.git_ref, git_ref);
            let same = sent["head"]["repo"]["id"] == sent["base"]["repo"]["id"];
            assert_eq!(run.trust().is_trusted(), same);
            *told.entry(action.to_owned()).or_insert(0) += 1;
        } else if starts {
            assert_eq!(word, "duplicate");
        }
    }
    assert!(told.contains_key("opened"), "{told:?}");
    site.stop().await;
}
