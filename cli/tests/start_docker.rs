//! A person starts a run with the button, and its step sees what they gave: server, runner and Docker Engine as they
//! are, the form as a browser sends it, and the command line beside it.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]
#![expect(
    dead_code,
    reason = "what the tests share is more than one of them needs"
)]

#[path = "support/runner.rs"]
mod runner;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;
#[path = "support/waiting.rs"]
mod waiting;

use reqwest::{Client, StatusCode, redirect};
use runner::{REGISTRATION_TOKEN, Runner};
use server::{ADMIN_PASSWORD, Server, token_of};
use shop::{base_image, git, remove_all};
use std::fs;
use std::path::Path;
use waiting::until;

/// Pushes start nothing; the script shows each input between brackets, and takes none for more than a text.
fn pipeline(image: &str) -> String {
    format!(
        "version: 1\nname: shop\ntrigger:\n  push: {{ branches: [release] }}\n  inputs:\n    \
         note: {{ description: What to say. }}\n    \
         target: {{ options: [near, far], default: near }}\n    \
         loud: {{ type: boolean }}\n\
         steps:\n  say:\n    image: {image}\n    run: |\n      \
         printf '[%s]' \"$INPUT_NOTE\" \"$INPUT_TARGET\" \"$INPUT_LOUD\"; echo\n  \
         pushed: {{ image: {image}, run: exit 1, when: {{ events: [push] }} }}\n"
    )
}

/// A browser, signed in.
struct Browser {
    http: Client,
    session: String,
    base: String,
}

impl Browser {
    async fn sign_in(base: &str) -> Self {
        let policy = redirect::Policy::none();
        let http = Client::builder().redirect(policy).build().unwrap();
        let form = [("user", "admin"), ("password", ADMIN_PASSWORD)];
        let answer = http.post(format!("{base}/login")).form(&form).send();
        let answer = answer.await.unwrap();
        let set = answer.headers()["set-cookie"].to_str().unwrap();
        let session = set.split(';').next().unwrap().to_owned();
        Self {
            http,
            session,
            base: base.to_owned(),
        }
    }

    async fn page(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.base));
        let request = request.header("cookie", &self.session);
        let request = request.header("accept", "text/html");
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Where a form leads.
    async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("cookie", &self.session);
        let answer = request.form(fields).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{answer:?}");
        answer.headers()["location"].to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_sees_what_was_given_with_the_button() {
    let project = format!("starts-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let (origin, work) = (place.path().join("shop.git"), place.path().join("work"));
    let at = |path: &Path| path.display().to_string();
    let bare = ["init", "--quiet", "--bare", "--initial-branch=main"];
    git(place.path(), &[&bare[..], &[&at(&origin)]].concat());
    git(place.path(), &["init", "--quiet", &at(&work)]);
    fs::create_dir(work.join(".roadstead")).unwrap();
    fs::write(work.join(".roadstead/pipeline.yml"), pipeline(&image)).unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "--message", "Say it"]);
    let push = ["push", "--quiet", &at(&origin), "HEAD:refs/heads/main"];
    git(&work, &push);
    let configuration = format!(
        "[runners]\nregistration_token = \"{REGISTRATION_TOKEN}\"\n[[projects]]\nname = \"shop\"\n\
         repository = \"{}\"\nwebhook_secret = \"a key that nobody uses\"\n",
        at(&origin)
    );
    let server = Server::start_with(&configuration, tempfile::tempdir().unwrap());
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let runner = Runner::start(&server.url, "starts", place.path().join("runner"));
    let browser = Browser::sign_in(&server.url).await;

    let html = browser.page("/projects/shop").await;
    assert!(html.contains("No pipeline file of this branch was read yet"));
    let mean = "$(touch /tmp/x) \"; exit 1 #";
    let fields = [
        ("key", "of-this-form"),
        ("ref", ""),
        ("input.note", mean),
        ("input.loud", "true"),
    ];
    let page = browser.submit("/projects/shop/runs", &fields).await;
    let run = page.rsplit('/').next().unwrap().to_owned();
    let ended = until("the run is over", async || {
        let run = server.json(&token, &["runs", &run]);
        let over = run["ended_at"].is_string();
        over.then(|| run.clone()).ok_or_else(|| run.to_string())
    })
    .await;
    assert_eq!(ended["run"]["state"]["state"], "succeeded", "{ended}");
    assert_eq!(ended["run"]["inputs"]["note"], mean, "{ended}");
    let log = server.text(&token, &["logs", &run, "say"]);
    assert_eq!(log, format!("[{mean}][near][true]\n"));
    let html = browser.page(&page).await;
    assert!(html.contains("started by admin"), "{html}");
    let html = browser.page("/projects/shop").await;
    assert!(
        html.contains("What to say."),
        "the file is known now: {html}"
    );

    let start = ["start", "shop", "--ref", "main", "--wait", "--input"];
    let told = server.text(&token, &[&start[..], &["target=far"]].concat());
    assert!(told.ends_with("shop.2: succeeded\n"), "{told}");
    let log = server.text(&token, &["logs", "shop.2", "say"]);
    assert_eq!(log, "[][far][false]\n");
    let refused = server.refused(&token, &[&start[..], &["taget=far"]].concat());
    assert_eq!(refused.0, 5, "{refused:?}");
    let html = browser.page("/runs/shop.3").await;
    assert!(html.contains("there is no input `taget`; did you mean `target`?"));
    drop(runner);
    remove_all(&project);
}
