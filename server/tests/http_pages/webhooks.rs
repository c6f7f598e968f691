//! What forges are answered, and that what was answered with 2xx is stored.

use crate::site::{ADMIN, PATIENCE, SECRET, Site, Who};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Response, StatusCode};
use sha2::Sha256;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

fn signature(body: &str) -> String {
    signature_with(SECRET, body)
}

pub(crate) fn signature_with(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn push(number: u32) -> String {
    let commit = format!("{number:040x}");
    format!(r#"{{"ref":"refs/heads/main","after":"{commit}","head_commit":{{"message":"m"}}}}"#)
}

async fn send(site: &Site, body: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = site.request(Who::Nobody, Method::POST, "/webhooks/github/shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).send().await.unwrap()
}

pub(crate) async fn signed(site: &Site, body: &str, event: &str, id: &str) -> Response {
    let signature = signature(body);
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-event", event),
        ("x-github-delivery", id),
    ];
    send(site, body, &headers).await
}

pub(crate) async fn decision(answer: Response, status: StatusCode) -> (String, serde_json::Value) {
    assert_eq!(answer.status(), status);
    let body: serde_json::Value = answer.json().await.unwrap();
    (body["decision"].as_str().unwrap().to_owned(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_forge() {
    let site = Site::start().await;
    let stored = async || {
        let store = &site.story.store;
        let found = store.list_deliveries(&site.story.shop, None, 100).await;
        found.unwrap()
    };
    let before = stored().await.len();

    let body = push(900);
    let answer = send(&site, &body, &[("x-github-event", "push")]).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let other = signature("another body");
    let answer = send(&site, &body, &[("x-hub-signature-256", &other)]).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    for path in ["/webhooks/github/unknown", "/webhooks/cvs/shop"] {
        let request = site.request(Who::Nobody, Method::POST, path);
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let answer = signed(&site, "{not json", "push", "bad").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let only_signed = signature(&body);
    let answer = send(&site, &body, &[("x-hub-signature-256", &only_signed)]).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        stored().await.len(),
        before,
        "nothing refused is stored as work"
    );

    let answer = signed(&site, &body, "push", "one").await;
    let (word, answer) = decision(answer, StatusCode::ACCEPTED).await;
    assert_eq!(word, "run");
    let run = answer["run"].as_str().unwrap().to_owned();
    assert!(
        site.page(ADMIN, &format!("/runs/{run}"))
            .await
            .contains("main")
    );

    for id in ["one", "two"] {
        let answer = signed(&site, &body, "push", id).await;
        let (word, answer) = decision(answer, StatusCode::OK).await;
        assert_eq!(
            (word.as_str(), answer["run"].as_str()),
            ("duplicate", Some(run.as_str()))
        );
    }
    let answer = signed(&site, "{}", "issues", "three").await;
    let (word, answer) = decision(answer, StatusCode::OK).await;
    assert_eq!(word, "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("issues"));

    let rows = stored().await;
    let of = |id: &str| rows.iter().find(|row| row.delivery_id == id).unwrap();
    assert_eq!(of("one").decision, "built");
    assert_eq!(of("one").run.as_ref().unwrap().as_str(), run);
    assert_eq!(of("three").decision, "ignored");
    assert!(of("three").reason.contains("issues"));
    let html = site.page(ADMIN, "/deliveries").await;
    assert!(
        html.contains("started a run") && html.contains("issues"),
        "{html}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_not_even_read() {
    let site = Site::start().await;
    let address = site.base.strip_prefix("http://").unwrap().to_owned();
    let status = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Only told, never sent: the answer does not depend on who closes first.
        let length = 5 * 1024 * 1024 + 1;
        let head = format!(
            "POST /webhooks/github/shop HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        status
    });
    let status = status.await.unwrap();
    assert!(status.starts_with("HTTP/1.1 413"), "{status}");
    site.stop().await;
}

fn to(site: &Site, forge: &str, headers: &[(&str, &str)], body: &str) -> reqwest::RequestBuilder {
    let path = format!("/webhooks/{forge}/shop");
    let mut request = site.request(Who::Nobody, Method::POST, &path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned())
}

/// The same push is one, whichever forge tells of it: a repository that moves is told of by two for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_forge_is_answered_in_its_own_form() {
    let site = Site::start().await;
    let commit = format!("{:040x}", 950);
    let plain = push(950);
    let of_bitbucket = serde_json::json!({"push": {"changes": [
        {"new": {"type": "tag", "name": "v1", "target": {"hash": commit}}, "old": null},
        {"new": {"type": "branch", "name": "main", "target": {"hash": commit, "message": "m"}}, "old": null},
        {"new": {"type": "branch", "name": "next", "target": {"hash": commit, "message": "m"}}, "old": null},
    ]}})
    .to_string();
    let hexadecimal = signature(&plain).replace("sha256=", "");
    let of_push = signature(&of_bitbucket);
    let gitlab = [
        ("x-gitlab-event", "Push Hook"),
        ("x-gitlab-event-uuid", "g-1"),
    ];
    let gitea = [("x-gitea-event", "push"), ("x-gitea-delivery", "t-1")];
    let bitbucket = [("x-event-key", "repo:push"), ("x-request-uuid", "b-1")];
    for (forge, headers, body) in [
        ("gitlab", &gitlab, &plain),
        ("gitea", &gitea, &plain),
        ("bitbucket", &bitbucket, &of_bitbucket),
    ] {
        let answer = to(&site, forge, headers, body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{forge}");
        let said = answer.text().await.unwrap();
        assert!(
            said.contains("is missing: set the webhook's secret"),
            "{said}"
        );
    }

    let request = to(&site, "gitlab", &gitlab, &plain).header("x-gitlab-token", SECRET);
    let (word, answer) = decision(request.send().await.unwrap(), StatusCode::ACCEPTED).await;
    assert_eq!(word, "run");
    let run = answer["run"].as_str().unwrap().to_owned();
    let request = to(&site, "gitea", &gitea, &plain).header("x-gitea-signature", &hexadecimal);
    let (word, answer) = decision(request.send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(
        (word.as_str(), &answer["run"]),
        ("duplicate", &run.as_str().into())
    );

    // One call, three refs: each has its own answer, and its own row.
    for again in [false, true] {
        let request = to(&site, "bitbucket", &bitbucket, &of_bitbucket);
        let answer = request
            .header("x-hub-signature", &of_push)
            .send()
            .await
            .unwrap();
        let status = if again {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        };
        assert_eq!(answer.status(), status);
        let said: serde_json::Value = answer.json().await.unwrap();
        let third = if again { "duplicate" } else { "run" };
        let words: Vec<_> = said["branches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["decision"])
            .collect();
        // A tag, which the file that holds does not want, whatever the runs of these pushes will read.
        let first = if again { "duplicate" } else { "ignored" };
        assert_eq!(words, [first, "duplicate", third]);
    }
    let rows = site
        .story
        .store
        .list_deliveries(&site.story.shop, None, 100)
        .await
        .unwrap();
    let next = rows.iter().find(|row| row.delivery_id == "b-1#3").unwrap();
    assert_eq!(
        (next.forge.as_str(), next.event.as_str()),
        ("bitbucket", "push")
    );
    let path = format!("/deliveries/{}/redeliver", next.id);
    let answer = site.submit(ADMIN, &path, &[]).await;
    assert!(answer.status().is_redirection(), "{answer:?}");
    let rows = site
        .story
        .store
        .list_deliveries(&site.story.shop, None, 100)
        .await
        .unwrap();
    let again = rows
        .iter()
        .find(|row| row.redelivery_of == Some(next.id))
        .unwrap();
    let made = site
        .story
        .store
        .get_run(again.run.as_ref().unwrap())
        .await
        .unwrap();
    assert_eq!(made.run.git_ref, "refs/heads/next");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_no_file_wants_makes_no_run_unless_somebody_sends_it_again() {
    let site = Site::start().await;
    let commit = format!("{:040x}", 960);
    let tag = format!(r#"{{"ref":"refs/tags/v1","after":"{commit}","head_commit":null}}"#);
    let answer = signed(&site, &tag, "push", "tag").await;
    let (word, answer) = decision(answer, StatusCode::OK).await;
    assert_eq!(word, "ignored");
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reason.contains("has tag v1 in `trigger.push.tags`"),
        "{reason}"
    );

    let store = &site.story.store;
    let rows = store
        .list_deliveries(&site.story.shop, None, 100)
        .await
        .unwrap();
    let ignored = rows.iter().find(|row| row.delivery_id == "tag").unwrap();
    let path = format!("/deliveries/{}/redeliver", ignored.id);
    let answer = site.submit(ADMIN, &path, &[]).await;
    assert!(answer.status().is_redirection(), "{answer:?}");
    let rows = store
        .list_deliveries(&site.story.shop, None, 100)
        .await
        .unwrap();
    let again = rows
        .iter()
        .find(|row| row.redelivery_of == Some(ignored.id));
    let run = again.unwrap().run.clone().unwrap();
    assert_eq!(
        store.get_run(&run).await.unwrap().run.git_ref,
        "refs/tags/v1"
    );
    let html = site.page(ADMIN, &format!("/runs/{run}")).await;
    assert!(html.contains("tag v1"), "{html}");

    // Neither that run has read its file yet, nor this one of a branch: what was read before decides.
    let answer = signed(&site, &push(961), "push", "branch").await;
    assert_eq!(decision(answer, StatusCode::ACCEPTED).await.0, "run");
    for number in 2..302 {
        let other = tag.replace("v1", &format!("v{number}"));
        let answer = signed(&site, &other, "push", &format!("tag {number}")).await;
        assert_eq!(decision(answer, StatusCode::OK).await.0, "ignored");
    }
    site.stop().await;
}
