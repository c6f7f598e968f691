//! Files that one job leaves and the next one gets, from container to container: server, runner and Docker Engine as they
//! are.

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

/// `both` gets two files of one name, `astray` has a link in the repository where a folder should be.
fn pipeline(image: &str) -> String {
    format!(
        r#"version: 1
name: shop
trigger: {{ push: {{ branches: [none] }} }}
steps:
  build:
    image: {image}
    matrix: {{ target: [near, far] }}
    artifacts: ["dist/**"]
    run: |
      mkdir -p dist/deep
      head -c 3000000 /dev/urandom > "dist/deep/$MATRIX_TARGET"
      sha256sum "dist/deep/$MATRIX_TARGET" > "dist/$MATRIX_TARGET.sum"
  same: {{ image: {image}, runs_on: [one], artifacts: ["dist/**"], run: mkdir dist; echo x > dist/near.sum }}
  told:
    image: {image}
    needs: [build]
    artifacts_from: [build]
    run: sha256sum -c dist/near.sum dist/far.sum && ls -a dist dist/deep
  both: {{ image: {image}, runs_on: [one], needs: [build, same], artifacts_from: [build, same], run: echo no }}
  link: {{ image: {image}, runs_on: [one], artifacts: ["way/**"], run: rm way && mkdir way && echo x > way/file }}
  astray: {{ image: {image}, runs_on: [one], needs: [link], artifacts_from: [link], run: echo no }}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_job_left_lies_in_the_workspace_of_the_next() {
    let project = format!("fetch-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let server = published::serve(place.path(), &pipeline(&image), |work| {
        fs::create_dir(work.join("src")).unwrap();
        fs::write(work.join("src/keep"), "").unwrap();
        std::os::unix::fs::symlink("src", work.join("way")).unwrap();
    });
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let data = place.path().join("runner");
    let runner = Runner::start_with(&server.url, "hands", data, &["--label", "one"]);

    let (status, said) = server.refused(&token, &["start", "shop", "--ref", "main", "--wait"]);
    assert_eq!(status, 5, "{said}");
    let run = server.json(&token, &["runs", "shop.1"]);
    let step = |name: &str| {
        let steps = run["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == name).unwrap();
        step["state"]["state"].as_str().unwrap().to_owned()
    };
    let log = |step: &str| server.text(&token, &["logs", "shop.1", step]);
    assert_eq!(step("told"), "succeeded", "{}", log("told"));
    let told = log("told");
    for wanted in [
        "artifacts: 2 files of step build-near, ",
        "artifacts: 2 files of step build-far, ",
        "dist/deep/near: OK",
        "dist/deep/far: OK",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(
        !told.contains(".roadstead-"),
        "nothing else lies there: {told}"
    );
    for (name, why) in [
        ("both", "have both left `dist/near.sum`"),
        (
            "astray",
            "`way/file` has no place in the workspace: `way` on its way is no folder",
        ),
    ] {
        assert_eq!(step(name), "failed", "{name}: {}", log(name));
        assert!(log(name).contains(why), "{}", log(name));
    }
    drop(runner);
    remove_all(&project);
}
