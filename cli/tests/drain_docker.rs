//! Runners that are to end, as processes, on Docker Engine: drained ones finish what they have, take nothing more
//! whether they are started again or not, and work again once they are taken back; others are asked by a signal, or
//! take one job only.

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
#[path = "support/waiting.rs"]
mod waiting;

use runner::Runner;
use serde_json::Value;
use server::{ADMIN_PASSWORD, Server, token_of};
use shop::{base_image, remove_all};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;
use waiting::until;

/// Its step ends when the test says so.
fn pipeline(image: &str) -> String {
    format!(
        "version: 1\nname: shop\ntrigger: {{ push: {{ branches: [none] }} }}\nsteps:\n  wait:\n    \
         image: {image}\n    run: until test -e go; do sleep 0.1; done\n"
    )
}

/// A server whose runs wait to be let go, and somebody who may do everything there.
struct Yard {
    project: String,
    place: TempDir,
    server: Server,
    token: String,
}

impl Yard {
    async fn open(name: &str) -> Self {
        let project = format!("{name}-{:08x}", rand::random::<u32>());
        let place = tempfile::tempdir().unwrap();
        let image = base_image(place.path(), &project);
        let server = published::serve(place.path(), &pipeline(&image), |_| ());
        let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
        Self {
            project,
            place,
            server,
            token,
        }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// What a runner in this folder has written to its log since its last start.
    fn said(&self, folder: &str) -> String {
        fs::read_to_string(self.folder(folder).with_extension("log")).unwrap()
    }

    fn do_it(&self, arguments: &[&str]) -> String {
        self.server.text(&self.token, arguments)
    }

    /// Starts a run, and waits until a runner could take it, or has.
    async fn queue(&self) -> String {
        let before = self.runs().len();
        self.do_it(&["start", "shop", "--ref", "main"]);
        let run = format!("shop.{}", before + 1);
        self.until_run_is(&run, &["queued", "building"]).await;
        run
    }

    fn runs(&self) -> Vec<Value> {
        let found = self.server.json(&self.token, &["runs", "shop"]);
        found["runs"].as_array().unwrap().clone()
    }

    fn run(&self, run: &str) -> Value {
        self.server.json(&self.token, &["runs", run])
    }

    async fn until_run_is(&self, run: &str, states: &[&str]) {
        until(&format!("{run} is {}", states.join(" or ")), async || {
            let found = self.run(run);
            let state = found["run"]["state"]["state"].as_str().unwrap();
            match states.contains(&state) {
                true => Ok(()),
                false => Err(found["run"]["state"].to_string()),
            }
        })
        .await;
    }

    /// Waits until the step of a run is at work.
    async fn until_at_work(&self, run: &str) {
        until(&format!("the step of {run} is at work"), async || {
            let found = self.run(run);
            match found["steps"][0]["state"]["state"] == "running" {
                true => Ok(()),
                false => Err(found["run"]["state"].to_string()),
            }
        })
        .await;
    }

    /// Lets the first attempt of a run end well.
    fn let_go(&self, runner: &Runner, run: &str) {
        let workspace = runner.data.join("workspaces").join(format!("{run}.a1"));
        fs::write(workspace.join("go"), "").unwrap();
    }

    /// Waits until a runner's log has these words.
    async fn until_said(&self, folder: &str, words: &str) {
        until(&format!("{folder} says `{words}`"), async || {
            let said = self.said(folder);
            match said.contains(words) {
                true => Ok(()),
                false => Err(said),
            }
        })
        .await;
    }

    /// The runner of this name, as the API tells it.
    async fn told(&self, name: &str) -> Value {
        let address = format!("{}/api/v1/runners", self.server.url);
        let request = reqwest::Client::new().get(address);
        let answer = request.bearer_auth(&self.token).send().await.unwrap();
        let all: Value = answer.json().await.unwrap();
        let mut all = all["runners"].as_array().unwrap().iter();
        all.find(|it| it["name"] == name).unwrap().clone()
    }

    fn attempts(&self, run: &str) -> usize {
        self.run(run)["attempts"].as_array().unwrap().len()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        remove_all(&self.project);
    }
}

/// Waits until a runner has ended by itself; gives its status.
async fn ended(runner: &mut Runner) -> Option<i32> {
    until("the runner ends", async || {
        match runner.child.try_wait().unwrap() {
            Some(status) => Ok(status.code()),
            None => Err("it runs".to_owned()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_runner_finishes_its_job_and_takes_no_other_until_it_is_taken_back() {
    let yard = Yard::open("drain").await;
    let mut runner = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    let first = yard.queue().await;
    yard.until_at_work(&first).await;
    let said = yard.do_it(&["drain-runner", "crane"]);
    assert_eq!(said, "crane: draining, it finishes shop.1.a1\n");
    yard.until_said("crane", "this runner is drained").await;
    // It has room for a second one.
    let second = yard.queue().await;
    yard.let_go(&runner, &first);
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("crane"));
    assert_eq!(yard.run(&first)["run"]["state"]["state"], "succeeded");
    assert_eq!(yard.attempts(&second), 0);

    let mut again = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    assert_eq!(ended(&mut again).await, Some(0), "{}", yard.said("crane"));
    let said = yard.said("crane");
    assert!(
        said.contains("`roadstead drain-runner crane --resume`"),
        "{said}"
    );
    assert_eq!(yard.attempts(&second), 0);

    let said = yard.do_it(&["drain-runner", "crane", "--resume"]);
    assert_eq!(said, "crane: takes work again\n");
    let runner = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    yard.until_at_work(&second).await;
    yard.let_go(&runner, &second);
    yard.until_run_is(&second, &["succeeded"]).await;
    let (status, said) = yard.server.refused(&yard.token, &["drain-runner", "craen"]);
    assert!(
        status == 1 && said.contains("runner craen"),
        "{status} {said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_is_taken_back_while_it_finishes_goes_on() {
    let yard = Yard::open("resume").await;
    let runner = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    let first = yard.queue().await;
    yard.until_at_work(&first).await;
    yard.do_it(&["drain-runner", "crane"]);
    yard.until_said("crane", "this runner is drained").await;
    let second = yard.queue().await;
    assert_eq!(yard.attempts(&second), 0);
    yard.do_it(&["drain-runner", "crane", "--resume"]);
    // Beside the first one.
    yard.until_at_work(&second).await;
    yard.until_said("crane", "takes work again: it is not drained any more")
        .await;
    yard.until_at_work(&first).await;
    yard.let_go(&runner, &first);
    yard.until_run_is(&first, &["succeeded"]).await;
    let third = yard.queue().await;
    yard.until_at_work(&third).await;
    yard.let_go(&runner, &second);
    yard.let_go(&runner, &third);
    yard.until_run_is(&third, &["succeeded"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_that_is_asked_to_finish_does_and_one_without_work_ends_at_once() {
    let yard = Yard::open("quit").await;
    let mut runner = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    let first = yard.queue().await;
    yard.until_at_work(&first).await;
    runner.signal("-QUIT");
    yard.until_said("crane", "asked to finish what runs").await;
    // It has room for a second one.
    let second = yard.queue().await;
    assert_eq!(yard.told("crane").await["left_at"], Value::Null);
    yard.let_go(&runner, &first);
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("crane"));
    assert_eq!(yard.run(&first)["run"]["state"]["state"], "succeeded");
    assert_eq!(yard.attempts(&second), 0);
    let told = yard.told("crane").await;
    assert!(
        told["left_at"].is_string() && told["left_for_good"] == false,
        "{told}"
    );

    // The same one is back when it is started again.
    let mut runner = Runner::start(&yard.server.url, "crane", yard.folder("crane"));
    yard.until_at_work(&second).await;
    assert_eq!(yard.told("crane").await["left_at"], Value::Null);
    yard.let_go(&runner, &second);
    yard.until_run_is(&second, &["succeeded"]).await;
    runner.signal("-QUIT");
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("crane"));
    assert!(yard.told("crane").await["left_at"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_shot_runner_takes_one_job_and_frees_its_name() {
    let yard = Yard::open("once").await;
    let (first, second) = (yard.queue().await, yard.queue().await);
    let once = |folder| {
        let more = ["--once", "--slots", "3"];
        Runner::start_with(&yard.server.url, "crane", yard.folder(folder), &more)
    };
    let mut runner = once("one");
    yard.until_at_work(&first).await;
    assert!(runner.data.join("credential.json").exists());
    yard.let_go(&runner, &first);
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("one"));
    assert_eq!(yard.run(&first)["run"]["state"]["state"], "succeeded");
    assert_eq!(yard.attempts(&second), 0);
    assert_eq!(yard.told("crane").await["left_for_good"], true);
    assert!(!runner.data.join("credential.json").exists());

    // The next machine of the group need not wait for the name.
    let mut runner = once("two");
    let said = yard.said("two");
    assert!(!said.contains("its name is taken"), "{said}");
    yard.until_at_work(&second).await;
    yard.let_go(&runner, &second);
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("two"));

    // One without a job leaves for good, too: its machine goes.
    let mut runner = once("three");
    runner.signal("-TERM");
    assert_eq!(ended(&mut runner).await, Some(0), "{}", yard.said("three"));
    assert_eq!(yard.told("crane").await["left_for_good"], true);
}

/// The lines of a unit that begin with `key=`, without it.
fn of_unit<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines();
    lines
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

#[test]
fn units_of_systemd_start_what_there_is_and_let_a_runner_finish() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/systemd");
    for part in ["server", "runner"] {
        let unit = format!("{folder}/roadstead-{part}.service");
        let unit = fs::read_to_string(unit).unwrap();
        let starts = of_unit(&unit, "ExecStart");
        let mut words = starts[0].split(' ');
        assert_eq!(words.next(), Some("/usr/local/bin/roadstead"));
        let words: Vec<_> = words.collect();
        assert_eq!((starts.len(), words[0]), (1, part));
        // Only when it knows all that stands before it.
        let mut known = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        let known = known.args(&words).arg("--help").output().unwrap();
        assert!(known.status.success(), "{words:?}: {known:?}");
        if part == "runner" {
            assert_eq!(of_unit(&unit, "KillSignal"), ["SIGQUIT"]);
            assert_eq!(of_unit(&unit, "KillMode"), ["mixed"]);
            assert_eq!(of_unit(&unit, "Restart"), ["on-failure"]);
        }
    }
}
