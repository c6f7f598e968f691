//! A matrix of which one combination fails, and that combination alone run again: server, runner and Docker Engine as
//! they are.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]
#![expect(
    dead_code,
    reason = "what the tests share is more than one of them needs"
)]

#[path = "support/published.rs"]
mod published;
#[path = "support/runner.rs"]
mod runner;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;

use reqwest::StatusCode;
use runner::Runner;
use serde_json::{Value, json};
use server::{ADMIN_PASSWORD, Server, token_of};
use shop::{base_image, remove_all};

/// The combination `postgres` succeeds once the secret says so: something outside the commit was mended.
fn pipeline(image: &str) -> String {
    format!(
        r#"version: 1
name: shop
trigger: {{ push: {{ branches: [none] }} }}
steps:
  lint: {{ image: {image}, run: echo linted }}
  test:
    image: {image}
    needs: [lint]
    matrix: {{ db: [sqlite, postgres] }}
    secrets: [DATABASE]
    artifacts: ["*.txt"]
    run: |
      echo "tested with $MATRIX_DB" | tee "$MATRIX_DB.txt"
      [ "$MATRIX_DB" = sqlite ] || grep -q 'it is up' /run/secrets/DATABASE
  told: {{ image: {image}, needs: [test], run: echo told }}
"#
    )
}

async fn set_secret(server: &Server, token: &str, value: &str) {
    let address = format!("{}/api/v1/projects/shop/secrets/DATABASE", server.url);
    let request = reqwest::Client::new().put(address).bearer_auth(token);
    let answer = request.json(&json!({ "value": value })).send().await;
    let status = answer.unwrap().status();
    assert!(status.is_success(), "{status}");
}

/// `number: job outcome` of each attempt.
fn attempts(run: &Value) -> Vec<String> {
    let attempts = run["attempts"].as_array().unwrap().iter();
    attempts
        .map(|it| {
            let outcome = it["outcome"]["outcome"].as_str().unwrap();
            format!(
                "{}: {} {outcome}",
                it["number"],
                it["job"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_combination_that_failed_runs_again_and_no_other() {
    let project = format!("rerun-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let server = published::serve(place.path(), &pipeline(&image), |_| ());
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    set_secret(&server, &token, "it is down").await;
    let runner = Runner::start(&server.url, "twice", place.path().join("runner"));

    let (status, said) = server.refused(&token, &["start", "shop", "--ref", "main", "--wait"]);
    assert_eq!(status, 5, "{said}");
    let run = server.json(&token, &["runs", "shop.1"]);
    let first = [
        "1: default succeeded",
        "2: test-postgres failed",
        "3: test-sqlite succeeded",
    ];
    assert_eq!(attempts(&run), first, "{run}");
    let (status, said) = server.refused(&token, &["rerun", "shop.1", "--job", "test-sqlite"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("ended well"), "{said}");

    set_secret(&server, &token, "it is up again").await;
    let said = server.text(&token, &["rerun", "shop.1", "--wait"]);
    assert!(said.ends_with("shop.1: succeeded\n"), "{said}");
    let run = server.json(&token, &["runs", "shop.1"]);
    let all: Vec<_> = first
        .into_iter()
        .chain(["4: test-postgres succeeded", "5: default-2 succeeded"])
        .collect();
    assert_eq!(attempts(&run), all, "{run}");

    // What each attempt left can be told apart, and that of the job that ended well is still there.
    let files = server.json(&token, &["artifacts", "shop.1"]);
    let files: Vec<String> = files["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", it["attempt"], it["name"].as_str().unwrap()))
        .collect();
    assert_eq!(files, ["4 postgres.txt", "3 sqlite.txt"]);
    for attempt in [2, 4] {
        let address = format!(
            "{}/api/v1/runs/shop.1/steps/test-postgres/log?attempt={attempt}",
            server.url
        );
        let answer = reqwest::Client::new().get(address).bearer_auth(&token);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let log = answer.text().await.unwrap();
        assert!(
            log.starts_with("tested with postgres\n"),
            "{attempt}: {log}"
        );
    }
    drop(runner);
    remove_all(&project);
}
