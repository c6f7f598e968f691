//! Caches from run to run: server, runner and Docker Engine as they are.

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

use runner::Runner;
use server::{ADMIN_PASSWORD, Server, token_of};
use shop::{base_image, git, remove_all};
use std::fs;

/// Each run leaves a line more in what is cached, with a link and a script as packages bring them.
fn pipeline(image: &str) -> String {
    format!(
        r#"version: 1
name: shop
trigger: {{ push: {{ branches: [none] }} }}
steps:
  test:
    image: {image}
    caches:
      deps: {{ paths: [deps, .tools/bin], key: ["**/deps.lock"] }}
    run: |
      mkdir -p deps/.bin deps/tool
      if [ -e deps/seen ]; then echo "had $(cat deps/seen | wc -l)"; deps/.bin/tool; else echo had none; fi
      printf '#!/bin/sh\necho the tool runs\n' > deps/tool/run
      chmod +x deps/tool/run
      ln -sf ../tool/run deps/.bin/tool
      ln -sf /etc/passwd deps/out
      echo line >> deps/seen
  fails:
    image: {image}
    caches: {{ none: {{ paths: [made], key: [deps.lock] }} }}
    run: |
      mkdir made; echo x > made/file
      exit 1
"#
    )
}

/// The log of step `test` of the next run.
fn run(server: &Server, token: &str, number: u32) -> String {
    let (status, said) = server.refused(token, &["start", "shop", "--ref", "main", "--wait"]);
    assert_eq!(status, 5, "`fails` fails: {said}");
    let run = format!("shop.{number}");
    let failed = server.text(token, &["logs", &run, "fails"]);
    assert!(
        failed.contains("cache none: nothing stored yet, "),
        "{failed}"
    );
    assert!(!failed.contains("stored 1"), "it failed: {failed}");
    server.text(token, &["logs", &run, "test"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_leaves_lies_in_the_workspace_of_the_next() {
    let project = format!("caches-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let server = published::serve(place.path(), &pipeline(&image), |work| {
        fs::write(work.join("deps.lock"), "1").unwrap();
    });
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let data = place.path().join("runner");
    let runner = Runner::start_with(&server.url, "hands", data, &[]);

    let first = run(&server, &token, 1);
    for wanted in [
        "cache deps: nothing stored yet, ",
        "had none",
        "cache deps: stored ",
        "without 1 links that lead out of the workspace",
    ] {
        assert!(first.contains(wanted), "{wanted}: {first}");
    }
    let second = run(&server, &token, 2);
    for wanted in [
        "cache deps: restored ",
        " of main of key ",
        "had 1\n",
        "the tool runs",
        "cache deps: unchanged, not stored again",
    ] {
        assert!(second.contains(wanted), "{wanted}: {second}");
    }
    assert!(!second.contains("the newest"), "{second}");

    // Another key finds the newest, and leaves one of its own.
    let work = place.path().join("work");
    fs::write(work.join("deps.lock"), "2").unwrap();
    git(&work, &["commit", "--quiet", "--all", "--message", "Newer"]);
    let origin = place.path().join("shop.git").display().to_string();
    git(&work, &["push", "--quiet", &origin, "HEAD:refs/heads/main"]);
    let third = run(&server, &token, 3);
    for wanted in [", the newest", "had 1\n", "cache deps: stored "] {
        assert!(third.contains(wanted), "{wanted}: {third}");
    }
    let fourth = run(&server, &token, 4);
    assert!(fourth.contains("had 2\n"), "{fourth}");
    assert!(fourth.contains("unchanged, not stored again"), "{fourth}");

    // What is no cache is a line in the log, and the step goes on without.
    let stored = server.folder.path().join("data/logs/caches/shop");
    for file in fs::read_dir(&stored).unwrap() {
        let path = file.unwrap().path();
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![b'x'; usize::try_from(length).unwrap()]).unwrap();
    }
    let fifth = run(&server, &token, 5);
    for wanted in [
        "cache deps: it came with other bytes than were stored",
        "had none",
    ] {
        assert!(fifth.contains(wanted), "{wanted}: {fifth}");
    }
    drop(runner);
    remove_all(&project);
}
