//! Secrets over HTTP: they go in and never come out, but for an attempt whose lease holds, and not in
//! what that one prints.

use crate::site::{ADMIN, Site, VIEWER, Who, location, now};
use crate::story;
use jiff::SignedDuration;
use reqwest::{Method, Response, StatusCode};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const VALUE: &str = "correct horse\nbattery <staple>";
const API: &str = "/api/v1/projects/shop/secrets";

async fn put(site: &Site, path: &str, body: &Value) -> StatusCode {
    let request = site.request(ADMIN, Method::PUT, &format!("{API}/{path}"));
    request.json(body).send().await.unwrap().status()
}

async fn listed(site: &Site) -> Vec<Value> {
    let answer = site.request(VIEWER, Method::GET, API).send().await.unwrap();
    let text = answer.text().await.unwrap();
    assert!(!text.contains("battery"), "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    list["secrets"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_goes_in_and_only_its_name_comes_out() {
    let site = Site::start().await;
    let value = json!({"value": VALUE, "branches": ["main", "release/*"]});
    assert_eq!(put(&site, "TOKEN", &value).await, StatusCode::OK);
    assert_eq!(
        put(&site, "TOKEN?environment=staging", &json!({"value": VALUE})).await,
        StatusCode::OK
    );
    let wrong = [
        ("TOKEN", json!({"value": "short"})),
        ("TOKEN", json!({"value": VALUE, "branches": ["/main"]})),
        ("TOKEN", json!({"value": VALUE, "branch": "main"})),
        ("TOKEN?environment=No", json!({"value": VALUE})),
        ("1TOKEN", json!({"value": VALUE})),
    ];
    for (path, body) in wrong {
        assert_eq!(
            put(&site, path, &body).await,
            StatusCode::BAD_REQUEST,
            "{path} {body}"
        );
    }
    // A new value, and nothing of branches: they stay.
    assert_eq!(
        put(&site, "TOKEN", &json!({"value": VALUE})).await,
        StatusCode::OK
    );
    let list = listed(&site).await;
    assert_eq!(list.len(), 2);
    assert_eq!(
        (&list[0]["name"], &list[0]["version"], &list[0]["set_by"]),
        (&json!("TOKEN"), &json!(2), &json!("admin"))
    );
    assert_eq!(list[0]["branches"], json!(["main", "release/*"]));
    assert_eq!(list[1]["environment"], json!("staging"));

    // By the page, where a browser makes two bytes of each line's end.
    let page = "/projects/shop/secrets";
    let form = [
        ("name", "TOKEN"),
        ("environment", ""),
        ("branches", " main  "),
        ("value", "a new value\r\nin two lines"),
    ];
    let answer = site.submit(ADMIN, page, &form).await;
    assert_eq!(location(&answer), page);
    let shown = site.page(ADMIN, page).await;
    assert!(
        shown.contains("staging/TOKEN")
            && !shown.contains("battery")
            && !shown.contains("two lines")
    );
    let short = [("name", "TOKEN"), ("value", "tiny-77")];
    let answer = site.submit(ADMIN, page, &short).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let shown = answer.text().await.unwrap();
    assert!(
        shown.contains("at least 8 bytes") && !shown.contains("tiny-77"),
        "{shown}"
    );
    let list = listed(&site).await;
    assert_eq!(
        (&list[0]["version"], &list[0]["branches"]),
        (&json!(3), &json!(["main"]))
    );
    let value = ("value", "a third value");
    let both = [
        ("name", "TOKEN"),
        ("branches", "dev"),
        ("all_branches", "yes"),
        value,
    ];
    let answer = site.submit(ADMIN, page, &both).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    site.submit(ADMIN, page, &[("name", "TOKEN"), ("branches", " "), value])
        .await;
    let list = listed(&site).await;
    assert_eq!(
        (&list[0]["version"], &list[0]["branches"]),
        (&json!(4), &json!(["main"]))
    );
    let all = [("name", "TOKEN"), ("all_branches", "yes"), value];
    site.submit(ADMIN, page, &all).await;
    assert_eq!(listed(&site).await[0]["branches"], json!([]));
    assert_eq!(
        put(&site, "TOKEN", &json!({"value": VALUE, "branches": []})).await,
        StatusCode::OK
    );

    let answer = site
        .submit(
            ADMIN,
            "/projects/shop/secrets/remove",
            &[("name", "staging/TOKEN")],
        )
        .await;
    assert_eq!(location(&answer), page);
    let gone = site.request(
        ADMIN,
        Method::DELETE,
        &format!("{API}/TOKEN?environment=staging"),
    );
    assert_eq!(gone.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let gone = site.request(ADMIN, Method::DELETE, &format!("{API}/TOKEN"));
    assert_eq!(gone.send().await.unwrap().status(), StatusCode::OK);
    assert!(listed(&site).await.is_empty());
    site.stop().await;
}

/// An attempt of a new run of `main`, accepted unless told otherwise; its token is its name.
pub(crate) async fn attempt(site: &Site, token: &str, accept: bool) -> String {
    let story = &site.story;
    let asked = story.store.ask_for_run(
        &story.shop,
        story::commit(77),
        "refs/heads/main".into(),
        "ada",
        story.now,
    );
    asked.await.unwrap();
    for _ in 0..3 {
        story.reconcile().await;
        story.act().await;
    }
    let claim = story.store.claim_job("harbour", hash_secret(token), now());
    let attempt = claim.await.unwrap().unwrap().attempt;
    if accept {
        let accepted = call(site, Method::POST, &attempt, "accept", token, b"").await;
        assert_eq!(accepted.status(), StatusCode::NO_CONTENT);
    }
    attempt
}

pub(crate) async fn call(
    site: &Site,
    method: Method,
    attempt: &str,
    path: &str,
    token: &str,
    body: &[u8],
) -> Response {
    let path = format!("/runner/v1/attempts/{attempt}/{path}");
    let request = site.request(Who::Nobody, method, &path).bearer_auth(token);
    let request = request.header("content-type", "application/json");
    request.body(body.to_vec()).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_attempt_whose_lease_holds_is_told() {
    let site = Site::start().await;
    assert_eq!(
        put(&site, "TOKEN", &json!({"value": VALUE})).await,
        StatusCode::OK
    );
    let protected = json!({"value": "for releases alone", "branches": ["release/*"]});
    assert_eq!(
        put(&site, "PASSWORD?environment=staging", &protected).await,
        StatusCode::OK
    );
    let of_image = "for an image alone";
    assert_eq!(
        put(&site, "IMAGE_TOKEN", &json!({"value": of_image})).await,
        StatusCode::OK
    );
    assert_eq!(
        put(&site, "UNASKED", &json!({"value": "named by nobody"})).await,
        StatusCode::OK
    );
    let asked = |attempt: String, token: &'static str, fence: u32| {
        let site = &site;
        async move {
            let path = format!("secrets?fence={fence}");
            call(site, Method::GET, &attempt, &path, token, b"").await
        }
    };
    let waiting = attempt(&site, "not accepted", false).await;
    let answer = asked(waiting.clone(), "not accepted", 1).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);

    let own = attempt(&site, "own", true).await;
    for (attempt, token, fence, expected) in [
        (&own, "own", 2, StatusCode::CONFLICT),
        (&own, "another", 1, StatusCode::UNAUTHORIZED),
        (&own, "not accepted", 1, StatusCode::FORBIDDEN),
    ] {
        let answer = asked(attempt.clone(), token, fence).await;
        assert_eq!(answer.status(), expected, "{token} {fence}");
        assert!(!answer.text().await.unwrap().contains("battery"));
    }
    let answer = asked(own.clone(), "own", 1).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let told: Value = answer.json().await.unwrap();
    let expected = json!({"TOKEN": VALUE, "IMAGE_TOKEN": of_image});
    assert_eq!(told["values"], expected);
    let why = told["withheld"]["staging/PASSWORD"].as_str().unwrap();
    assert!(why.contains("release/*") && why.contains("`main`"), "{why}");
    assert!(told["withheld"].get("UNASKED").is_none());

    let late = now() + SignedDuration::from_mins(5);
    site.story.store.expire_attempts(late).await.unwrap();
    assert_eq!(asked(own, "own", 1).await.status(), StatusCode::CONFLICT);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_masks_nothing_has_its_log_blotted() {
    let site = Site::start().await;
    assert_eq!(
        put(&site, "TOKEN", &json!({"value": VALUE})).await,
        StatusCode::OK
    );
    let own = attempt(&site, "own", true).await;
    let secret = VALUE.replace('\n', "\\n");
    let text = format!("it is {secret}, and not only\ncorrect horse but\nmore\n");
    let (mut at, bytes) = (0, text.as_bytes());
    for end in [11, 20, 60, bytes.len()] {
        let path = format!("steps/test/log?offset={at}");
        let answer = call(&site, Method::PATCH, &own, &path, "own", &bytes[at..end]).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        at = end;
    }
    let log = "/api/v1/runs/shop.2/steps/test/log";
    let stored = site
        .request(VIEWER, Method::GET, log)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let blot = |text: &str| "*".repeat(text.len());
    let expected = format!(
        "it is {}, and not only\n{} but\nmore\n",
        blot(&secret),
        blot("correct horse")
    );
    assert_eq!(stored, expected);

    let seal =
        json!({"fence": 1, "length": bytes.len(), "sha256": hex::encode(Sha256::digest(bytes))});
    for time in 1..=2 {
        let sealed = call(
            &site,
            Method::POST,
            &own,
            "steps/test/log/seal",
            "own",
            seal.to_string().as_bytes(),
        )
        .await;
        assert_eq!(sealed.status(), StatusCode::NO_CONTENT, "{time}");
    }
    let state = site
        .app
        .logs
        .state(crate::site::log_key(&story_run(2), "test"))
        .await
        .unwrap();
    assert!(state.sealed && state.lines == 3);
    site.stop().await;
}

fn story_run(number: u64) -> roadstead_pipelines::id::RunId {
    let shop = roadstead_pipelines::id::ProjectName::parse("shop").unwrap();
    roadstead_pipelines::id::RunId::new(&shop, number)
}
