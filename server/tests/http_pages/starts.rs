//! The button that starts a run, and the same over HTTP.

use crate::site::{ADMIN, DEPLOYER, Site, VIEWER, Who, location};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::started_by::StartedBy;
use serde_json::{Value, json};

const RUNS: &str = "/projects/shop/runs";
const API: &str = "/api/v1/projects/shop/runs";

const FILE: &str = "\
version: 1
name: shop
trigger:
  inputs:
    target: { description: Where the load comes from., options: [near, far], default: far }
    minutes: { required: true }
    verbose: { type: boolean }
steps:
  load: { image: busybox, run: ./load.sh }
";

impl Site {
    async fn post(&self, who: Who, body: &Value) -> (StatusCode, Value) {
        let request = self.request(who, Method::POST, API).json(body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    fn head(&self) -> String {
        let main = self.origin.find_reference("refs/heads/main").unwrap();
        main.target().unwrap().to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_starts_a_run_once_under_its_key() {
    let site = Site::start().await;
    let wish = json!({
        "ref": "main", "inputs": {"target": "far", "verbose": true}, "key": "load-7",
    });
    let (status, told) = site.post(DEPLOYER, &wish).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    let run = RunId::parse(told["run"].as_str().unwrap()).unwrap();
    let made = site.story.store.get_run(&run).await.unwrap().run;
    assert_eq!(made.git_ref, "refs/heads/main");
    assert_eq!(made.commit.as_str(), site.head());
    let given = [("target", "far"), ("verbose", "true")];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = StartedBy::Manual {
        by: "deployer".into(),
        inputs: given.into(),
        commit_named: false,
    };
    assert_eq!(made.started_by, expected);
    let (status, again) = site.post(DEPLOYER, &wish).await;
    assert_eq!((status, &again), (StatusCode::OK, &told));
    let other = json!({"ref": "main", "key": "load-7"});
    let (status, refused) = site.post(DEPLOYER, &other).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains(run.as_str()));

    // Without a ref, the repository's own branch.
    let (status, told) = site.post(DEPLOYER, &json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{told}");
    let read = site.request(VIEWER, Method::GET, &format!("/api/v1/runs/{run}"));
    let read: Value = read.send().await.unwrap().json().await.unwrap();
    assert_eq!(read["run"]["started_by"]["event"], "manual", "{read}");
    let listed = site.request(VIEWER, Method::GET, API).send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(
        listed["runs"][0]["started_by"]["by"], "deployer",
        "{listed}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_started_is_told_at_once_and_stores_nothing() {
    let site = Site::start().await;
    let head = site.head();
    let commit = head.parse().unwrap();
    site.origin
        .reference("refs/tags/v1", commit, true, "")
        .unwrap();
    let runs = async || {
        site.story
            .store
            .list_runs(&site.story.shop, None, 50)
            .await
            .unwrap()
    };
    let before = runs().await.len();
    let long = "x".repeat(1_001);
    let many: Value = (0..51)
        .map(|number| (format!("i{number}"), json!("x")))
        .collect();
    let cases = [
        (json!({"ref": "mian"}), "did you mean `main`?"),
        (json!({"ref": "refs/pull/1/head"}), "no branch and no tag"),
        (json!({"ref": "x".repeat(256)}), "at most 255 bytes"),
        (json!({"commit": "5b1f"}), "all 40 hexadecimal digits"),
        (json!({"ref": "v1", "commit": head}), "a tag has one commit"),
        (json!({"inputs": {"a": "b\nc"}}), "control character"),
        (json!({"inputs": {"a": long}}), "more than 1,000 characters"),
        (json!({"inputs": many}), "at most 50 inputs"),
        (json!({"inputs": {"a": [1]}}), "the body is not the JSON"),
        (json!({"key": "with a blank"}), "without blanks"),
        (json!({"branch": "main"}), "the body is not the JSON"),
    ];
    for (wish, said) in cases {
        let (status, told) = site.post(DEPLOYER, &wish).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wish}: {told}");
        assert!(told["message"].as_str().unwrap().contains(said), "{told}");
    }
    let (status, _) = site.post(VIEWER, &json!({"ref": "main"})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let unknown = site.request(DEPLOYER, Method::POST, "/api/v1/projects/nobody/runs");
    let unknown = unknown.json(&json!({})).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    // A repository that does not answer.
    let path = site.folder.path().join("shop.git");
    let aside = site.folder.path().join("aside.git");
    std::fs::rename(&path, &aside).unwrap();
    let (status, told) = site.post(DEPLOYER, &json!({"ref": "main"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{told}");
    assert_eq!(runs().await.len(), before);
    site.stop().await;
}

/// The value of an attribute behind what comes before it.
fn value_of<'h>(html: &'h str, before: &str) -> &'h str {
    let (_, rest) = html
        .split_once(before)
        .unwrap_or_else(|| panic!("{before}: {html}"));
    rest.split('"').next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_asks_for_the_inputs_of_the_branch_and_starts_one_run() {
    let site = Site::start().await;
    site.story.read("main", 70, FILE).await;
    let html = site.page(DEPLOYER, "/projects/shop").await;
    for wanted in [
        "Where the load comes from.",
        "<option selected>far</option>",
        "name=\"input.minutes\"",
        "<option selected>false</option>",
    ] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    assert!(!html.contains("data-key=\"start\" open"), "{html}");
    let key = value_of(&html, "name=\"key\" value=\"").to_owned();
    let fields = [
        ("key", key.as_str()),
        ("ref", "main"),
        ("commit", ""),
        ("input.target", "near"),
        ("input.minutes", "3 <b>"),
        ("input.verbose", "false"),
    ];
    let sent = site.submit(DEPLOYER, RUNS, &fields).await;
    let page = location(&sent).to_owned();
    let again = site.submit(DEPLOYER, RUNS, &fields).await;
    assert_eq!(location(&again), page, "pressed twice");
    let html = site.page(VIEWER, &page).await;
    for wanted in ["started by deployer", "<td>minutes</td>", "3 &#60;b&#62;"] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    let mut other = fields;
    other[3].1 = "far";
    let other = site.submit(DEPLOYER, RUNS, &other).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);

    // Another branch's file asks for other things.
    let bare = FILE.replace("    verbose: { type: boolean }\n", "");
    site.story.read("release", 71, &bare).await;
    let html = site.page(DEPLOYER, "/projects/shop?ref=release").await;
    assert!(html.contains("data-key=\"start\" open"), "{html}");
    assert!(html.contains("name=\"ref\" value=\"release\""), "{html}");
    assert!(!html.contains("input.verbose"), "{html}");
    let html = site.page(DEPLOYER, "/projects/shop?ref=nobody").await;
    assert!(html.contains("No pipeline file of this branch was read yet"));
    let html = site.page(VIEWER, "/projects/shop").await;
    assert!(html.contains("a deployer can; you are viewer"), "{html}");
    assert!(!html.contains("input.minutes"), "{html}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_made_again_with_what_it_was_given() {
    let site = Site::start().await;
    let wish = json!({"inputs": {"target": "far"}});
    let (_, told) = site.post(DEPLOYER, &wish).await;
    let run = told["run"].as_str().unwrap().to_owned();
    let cancel = format!("/runs/{run}/cancel");
    site.submit(DEPLOYER, &cancel, &[]).await;
    let again = site.submit(ADMIN, &format!("/runs/{run}/retry"), &[]).await;
    let page = location(&again).to_owned();
    let html = site.page(VIEWER, &page).await;
    assert!(
        html.contains("started by deployer, again by admin"),
        "{html}"
    );
    assert!(html.contains("<td>target</td>"), "{html}");
    site.stop().await;
}
