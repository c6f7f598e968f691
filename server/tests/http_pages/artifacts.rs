//! Artifacts over HTTP: what a runner may send, and what people get of it.

use crate::polls::queued;
use crate::secrets::call;
use crate::site::{Site, VIEWER, Who, now};
use reqwest::{Method, Response, StatusCode};
use roadstead_protocol::{LARGEST_ARTIFACT, check_artifact_name};
use roadstead_server::store::hash_secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const STEP: &str =
    "{ image: busybox, run: make, artifacts: ['dist/**', '*.log', '!dist/secret/*'] }";

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An accepted attempt at a run of that commit, and the run.
async fn attempt(site: &Site, number: u64, token: &str) -> (String, String) {
    let run = queued(site, number, STEP).await;
    let claim = site
        .story
        .store
        .claim_job("harbour", hash_secret(token), now());
    let claim = claim.await.unwrap().unwrap();
    assert_eq!(claim.run.id, run);
    let accepted = call(site, Method::POST, &claim.attempt, "accept", token, b"").await;
    assert_eq!(accepted.status(), StatusCode::NO_CONTENT);
    (claim.attempt, run.to_string())
}

/// What is told of an artifact, which may be other than what is sent.
#[derive(Clone, Copy)]
struct Told<'a> {
    attempt: &'a str,
    token: &'a str,
    step: &'a str,
    fence: u32,
    name: &'a str,
    length: u64,
    sha256: &'a str,
}

async fn send(site: &Site, told: Told<'_>, bytes: &[u8]) -> Response {
    let Told {
        attempt,
        token,
        step,
        fence,
        name,
        length,
        sha256,
    } = told;
    let path = format!("/runner/v1/attempts/{attempt}/steps/{step}/artifact");
    let request = site
        .request(Who::Nobody, Method::PUT, &path)
        .bearer_auth(token);
    let (fence, length) = (fence.to_string(), length.to_string());
    let query = [
        ("fence", fence.as_str()),
        ("name", name),
        ("length", &length),
        ("sha256", sha256),
    ];
    request
        .query(&query)
        .body(bytes.to_vec())
        .send()
        .await
        .unwrap()
}

async fn put(site: &Site, attempt: &str, name: &str, bytes: &[u8]) -> StatusCode {
    let told = Told {
        attempt,
        token: "own",
        step: "test",
        fence: 1,
        name,
        length: bytes.len() as u64,
        sha256: &sum(bytes),
    };
    send(site, told, bytes).await.status()
}

/// The site's next run keeps one; gives the run.
pub(crate) async fn left(site: &Site) -> String {
    let (own, run) = attempt(site, 80, "own").await;
    let kept = put(site, &own, "dist/app.js", b"hello").await;
    assert_eq!(kept, StatusCode::NO_CONTENT);
    run
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_step_left_is_listed_and_saved_and_never_shown() {
    let site = Site::start().await;
    let (own, run) = attempt(&site, 80, "own").await;
    let html: &[u8] = b"<script>alert(1)</script>";
    let names = [
        "dist/index.html",
        "dist/\"q\" <b> 100% ü+#?&.txt",
        "test.log",
    ];
    for name in names {
        assert_eq!(put(&site, &own, name, html).await, StatusCode::NO_CONTENT);
        assert_eq!(
            put(&site, &own, name, html).await,
            StatusCode::NO_CONTENT,
            "again"
        );
    }
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[0])
        .collect();
    assert_eq!(
        put(&site, &own, "dist/large", &large).await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        put(&site, &own, "dist/empty", b"").await,
        StatusCode::NO_CONTENT
    );

    let list = format!("/api/v1/runs/{run}/artifacts");
    let list: Value = site
        .request(VIEWER, Method::GET, &list)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let found = list["artifacts"].as_array().unwrap();
    let listed: Vec<_> = found
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        listed,
        [names[1], "dist/empty", names[0], "dist/large", names[2]]
    );
    assert_eq!(
        (&found[3]["attempt"], &found[3]["length"]),
        (&json!(1), &json!(large.len()))
    );
    assert_eq!(found[3]["sha256"], sum(&large));

    let page = site.page(VIEWER, &format!("/runs/{run}")).await;
    assert!(
        page.contains("dist/&#34;q&#34; &#60;b&#62; 100% ü+#?&#38;.txt"),
        "{page}"
    );
    for (name, bytes) in names
        .map(|name| (name, html))
        .into_iter()
        .chain([("dist/large", large.as_slice()), ("dist/empty", b"")])
    {
        let address = roadstead_web::urls::artifact(&run, "test", 1, name);
        let linked = address.replace('&', "&#38;");
        assert!(
            page.contains(&format!("href=\"{linked}\"")),
            "{linked}: {page}"
        );
        for address in [address.clone(), format!("/api/v1{address}")] {
            let answer = site.browse(VIEWER, &address).await;
            assert_eq!(answer.status(), StatusCode::OK, "{address}");
            let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), "application/octet-stream");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert!(header("content-disposition").starts_with("attachment; filename="));
            assert!(header("content-security-policy").contains("default-src 'none'"));
            assert!(answer.bytes().await.unwrap() == bytes, "{name}");
        }
    }
    let odd = site
        .browse(
            VIEWER,
            &roadstead_web::urls::artifact(&run, "test", 1, names[1]),
        )
        .await;
    let disposition = odd.headers()["content-disposition"].to_str().unwrap();
    assert!(disposition.contains("filename*=UTF-8''"), "{disposition}");
    for missing in [
        "/dist/none",
        "/dist/large?attempt=2",
        "/../../../etc/passwd",
        "/%2e%2e/etc/passwd",
    ] {
        let address = format!("/api/v1/runs/{run}/steps/test/artifacts{missing}");
        let answer = site
            .request(VIEWER, Method::GET, &address)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{missing}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_hostile_runner_sends_is_refused_and_leaves_nothing() {
    let site = Site::start().await;
    let (own, run) = attempt(&site, 80, "own").await;
    let (other, _) = attempt(&site, 81, "other").await;
    assert_eq!(
        put(&site, &own, "test.log", b"kept").await,
        StatusCode::NO_CONTENT
    );
    let folder = site.folder.path().join("logs/artifacts");
    let before = files_below(&folder);
    assert_eq!(before.len(), 1);

    let bytes: &[u8] = b"bytes";
    let right = sum(bytes);
    let good = Told {
        attempt: &own,
        token: "own",
        step: "test",
        fence: 1,
        name: "dist/a",
        length: 5,
        sha256: &right,
    };
    let long = format!("dist/{}", "x".repeat(1_100));
    let escapes = [
        "",
        "/etc/passwd",
        "../a",
        "dist/../../a",
        "dist/./a",
        "dist//a",
        "dist/a\nb",
        "dist/\0",
        "dist/..\\a",
        &long,
    ];
    for name in escapes {
        assert!(check_artifact_name(name).is_err());
        let answer = send(&site, Told { name, ..good }, bytes).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{name:?}");
    }
    let upper = right.to_uppercase();
    let cases = [
        // A name that no pattern of the step takes.
        (
            Told {
                name: "src/main.rs",
                ..good
            },
            StatusCode::BAD_REQUEST,
        ),
        (
            Told {
                name: "dist/secret/key",
                ..good
            },
            StatusCode::BAD_REQUEST,
        ),
        (
            Told {
                sha256: &upper,
                ..good
            },
            StatusCode::BAD_REQUEST,
        ),
        (
            Told {
                sha256: "0",
                ..good
            },
            StatusCode::BAD_REQUEST,
        ),
        (
            Told {
                length: LARGEST_ARTIFACT + 1,
                ..good
            },
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (Told { length: 4, ..good }, StatusCode::BAD_REQUEST),
        (Told { length: 6, ..good }, StatusCode::UNPROCESSABLE_ENTITY),
        (
            Told {
                sha256: &sum(b"other"),
                ..good
            },
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        // There, with other bytes.
        (
            Told {
                name: "test.log",
                ..good
            },
            StatusCode::BAD_REQUEST,
        ),
        (
            Told {
                step: "image",
                ..good
            },
            StatusCode::NOT_FOUND,
        ),
        (Told { step: "..", ..good }, StatusCode::NOT_FOUND),
        (Told { fence: 2, ..good }, StatusCode::CONFLICT),
        // Another attempt's token, its own, and none at all.
        (
            Told {
                token: "other",
                ..good
            },
            StatusCode::FORBIDDEN,
        ),
        (
            Told {
                attempt: &other,
                ..good
            },
            StatusCode::FORBIDDEN,
        ),
        (
            Told {
                token: "nobody's",
                ..good
            },
            StatusCode::UNAUTHORIZED,
        ),
    ];
    for (number, (told, expected)) in cases.into_iter().enumerate() {
        let answer = send(&site, told, bytes).await;
        let status = answer.status();
        let said = answer.text().await.unwrap();
        assert_eq!(status, expected, "case {number}: {said}");
    }
    // A runner's credentials open nothing for people.
    let address = format!("/api/v1/runs/{run}/steps/test/artifacts/test.log");
    for token in ["own", "other", "credential"] {
        let asked = site
            .request(Who::Nobody, Method::GET, &address)
            .bearer_auth(token);
        assert_eq!(
            asked.send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
    }
    assert_eq!(files_below(&folder), before);

    // Neither before it is accepted nor after it is over.
    queued(&site, 82, STEP).await;
    let claim = site
        .story
        .store
        .claim_job("harbour", hash_secret("late"), now());
    let late = claim.await.unwrap().unwrap().attempt;
    let told = Told {
        attempt: &late,
        token: "late",
        ..good
    };
    let answer = send(&site, told, bytes).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let result = json!({"fence": 1, "outcome": {"outcome": "succeeded"}, "images": []}).to_string();
    let ended = call(&site, Method::PUT, &own, "result", "own", result.as_bytes()).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        put(&site, &own, "dist/a", bytes).await,
        StatusCode::CONFLICT
    );
    assert_eq!(files_below(&folder), before);
    site.stop().await;
}
