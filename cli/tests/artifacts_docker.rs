//! Files that steps leave, from their containers to whoever saves them: server, runner and Docker Engine as they are. One
//! step is hostile and leaves links and a pipe instead.

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
use server::{ADMIN_PASSWORD, token_of};
use shop::{base_image, remove_all};
use std::fs;
use std::path::Path;

/// What steps do in a shell of busybox alone. `grows` is written to until its container ends.
fn pipeline(image: &str) -> String {
    format!(
        r#"version: 1
name: shop
trigger: {{ push: {{ branches: [none] }} }}
steps:
  fails:
    image: {image}
    artifacts: ["dist/**", "*.log", "!dist/**/*.map"]
    run: |
      mkdir -p dist/deep
      printf 'hello' > dist/app.js; printf 'no' > dist/deep/app.map; printf 'odd' > 'dist/deep/a b #?%.txt'
      head -c 3000000 /dev/urandom > dist/large; sha256sum dist/large
      printf 'the test failed' > test.log
      (while :; do echo grows >> dist/grows; done) &
      until [ -s dist/grows ]; do :; done
      exit 3
  hostile:
    image: {image}
    artifacts: ["bad/**"]
    run: |
      mkdir bad
      ln -s /etc/passwd bad/passwd; ln -s /etc bad/etc; ln -s ../../../../ bad/up; mkfifo bad/pipe
      ln -s ../dist bad/dist
      printf 'x' > "bad/$(printf 'new\nline')"
      printf 'fine' > bad/fine
  reports:
    image: {image}
    reports: {{ junit: "out/*.xml" }}
    run: |
      mkdir out
      echo '<testsuite><testcase classname="Cart" name="adds"><failure message="1 &lt; 2">at <b/>' > out/bad.xml
      echo '<testsuite><testcase classname="Cart" name="adds"><failure message="1 &lt; 2">at 12</failure></testcase>' > out/a.xml
      echo '<testcase name="fine"/><testcase name="later"><skipped/></testcase></testsuite>' >> out/a.xml
      ln -s /etc/passwd out/passwd.xml
  nothing:
    image: {image}
    artifacts: [dust]
    run: mkdir dust; touch dust/a
  large:
    image: {image}
    artifacts: ["many/*"]
    run: mkdir many; dd of=many/big bs=1 count=0 seek=1073741825; touch many/small
"#
    )
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_steps_leave_is_kept_and_what_they_point_to_is_not() {
    let project = format!("artifacts-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let server = published::serve(place.path(), &pipeline(&image), |_| ());
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let runner = Runner::start(&server.url, "keeps", place.path().join("runner"));

    let (status, said) = server.refused(&token, &["start", "shop", "--ref", "main", "--wait"]);
    assert_eq!(status, 5, "{said}");
    let run = server.json(&token, &["runs", "shop.1"]);
    let step = |name: &str| {
        let steps = run["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == name).unwrap();
        let state = &step["state"];
        format!(
            "{} {}",
            state["state"].as_str().unwrap(),
            state["reason"].as_str().unwrap_or("-")
        )
    };
    let log = |step: &str| server.text(&token, &["logs", "shop.1", step]);

    // Its own end counts, and its files are there.
    assert!(step("fails").starts_with("failed "), "{run}");
    let state = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|step| step["name"] == "fails");
    assert_eq!(state.unwrap()["state"]["exit_code"], 3, "{run}");
    assert!(
        log("fails").contains("artifacts: 5 files kept"),
        "{}",
        log("fails")
    );
    let at = |path: &Path| path.display().to_string();
    let saved = place.path().join("saved");
    let listed = server.text(&token, &["artifacts", "shop.1", "--save", &at(&saved)]);
    assert_eq!(
        files_below(&saved),
        [
            "fails/dist/app.js",
            "fails/dist/deep/a b #?%.txt",
            "fails/dist/grows",
            "fails/dist/large",
            "fails/test.log",
            "hostile/bad/fine",
            "large/many/small",
        ],
        "{listed}"
    );
    assert_eq!(
        fs::read_to_string(saved.join("fails/dist/app.js")).unwrap(),
        "hello"
    );
    assert_eq!(
        fs::read_to_string(saved.join("fails/test.log")).unwrap(),
        "the test failed"
    );
    assert_eq!(
        fs::read_to_string(saved.join("fails/dist/deep/a b #?%.txt")).unwrap(),
        "odd"
    );
    let large = server.json(&token, &["artifacts", "shop.1", "--step", "fails"]);
    let large = large["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "dist/large");
    assert!(log("fails").contains(large.unwrap()["sha256"].as_str().unwrap()));
    // A second time it replaces nothing.
    let (_, said) = server.refused(&token, &["artifacts", "shop.1", "--save", &at(&saved)]);
    assert!(said.contains("cannot save `fails/dist/app.js`"), "{said}");

    // Nothing that a link leads to, and a step that succeeded otherwise fails.
    assert_eq!(
        step("hostile"),
        "failed 1 of its artifacts are not kept; its log says why"
    );
    assert!(
        log("hostile").contains("control character"),
        "{}",
        log("hostile")
    );
    assert_eq!(
        step("large"),
        "failed 1 of its artifacts are not kept; its log says why"
    );
    assert!(
        log("large").contains("`many/big` has 1073741825 bytes"),
        "{}",
        log("large")
    );
    assert_eq!(step("nothing"), "succeeded -");
    let told =
        "artifacts: no file matches `dust`; `dust` is a folder, what is in it is `dust/**`\n";
    assert_eq!(log("nothing"), told);

    // Reports change nothing of a step's end.
    assert_eq!(step("reports"), "succeeded -");
    let told = log("reports");
    assert!(
        told.contains("reports: 3 tests, 1 failed, 1 skipped, in 1 files"),
        "{told}"
    );
    assert!(
        told.contains("reports: `out/bad.xml` is not read: "),
        "{told}"
    );
    let tests = &run["tests"][0];
    assert_eq!(
        (&tests["step"], &tests["tests"], &tests["unread"]),
        (&"reports".into(), &3.into(), &1.into())
    );
    assert_eq!(tests["cases"][0]["message"], "1 < 2\nat 12");
    let stored = server.folder.path().join("data/logs/artifacts");
    let passwd = fs::read("/etc/passwd").unwrap();
    let files = files_below(&stored);
    assert_eq!(files.len(), 7, "{files:?}");
    assert!(
        files
            .iter()
            .all(|file| fs::read(stored.join(file)).unwrap() != passwd)
    );
    drop(runner);
    remove_all(&project);
}
