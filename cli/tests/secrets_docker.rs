//! A canary for secrets: a step gets one and prints it in every way that happens by accident, on real
//! parts. Then it is looked for in everything that outlives a step or that others can see.

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

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use runner::{REGISTRATION_TOKEN, Runner};
use serde_json::Value;
use server::{ADMIN_PASSWORD, Server, token_of};
use sha2::Sha256;
use shop::{base_image, docker, git, remove_all};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use waiting::until;

const WEBHOOK_SECRET: &str = "a webhook's key of this test";

/// What is looked for, and the forms of it.
struct Canary {
    value: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    fn new() -> Self {
        let word = || format!("{:032x}", rand::random::<u128>());
        let value = format!("canary-{}\n\"second\" <line> & {}", word(), word());
        let mut forms = vec![("raw", value.clone().into_bytes())];
        forms.extend(value.lines().map(|line| ("a line", line.into())));
        forms.push(("hexadecimal", hex::encode(&value).into_bytes()));
        let wrapped = BASE64_STANDARD.encode(&value).as_bytes()[..76].to_vec();
        forms.push(("a line of base64", wrapped));
        let prefixed = BASE64_STANDARD.encode(format!("Authorization: Bearer {value}"));
        let second = prefixed.as_bytes()[76..prefixed.len() - 4].to_vec();
        forms.push(("the second line of base64 behind a prefix", second));
        for before in ["", "x", "xy"] {
            let encoded = BASE64_STANDARD.encode(format!("{before}{value}"));
            // Without the characters at its ends, in which other bytes take part.
            forms.push(("base64", encoded.as_bytes()[4..encoded.len() - 4].to_vec()));
        }
        Self { value, forms }
    }

    fn form_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let found = self.forms.iter().find(|(_, form)| {
            bytes
                .windows(form.len())
                .any(|window| window[0] == form[0] && window == form)
        });
        found.map(|(name, _)| *name)
    }

    /// Fails when it is in `bytes`, which are `place`.
    fn is_not_in(&self, place: &str, bytes: &[u8]) {
        let found = self.form_in(bytes);
        assert_eq!(found, None, "the secret is in {place}");
    }

    /// Fails when it is in a file below `folder`; gives how many were read.
    fn is_not_below(&self, folder: &Path) -> usize {
        let mut read = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    self.is_not_in(&path.display().to_string(), &bytes);
                    read += 1;
                }
            }
        }
        read
    }

    /// Fails when it is an argument of any process, or in the environment of one of `parents` or of what
    /// they started.
    fn is_in_no_process(&self, parents: &[u32]) {
        let mut ours: BTreeSet<u32> = parents.iter().copied().collect();
        let mut all = vec![];
        for entry in fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Ok(id) = name.to_string_lossy().parse::<u32>() else {
                continue;
            };
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let parent = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
            all.push((id, parent.unwrap_or(0_u32)));
        }
        while let Some((id, _)) = all
            .iter()
            .find(|(id, parent)| ours.contains(parent) && !ours.contains(id))
        {
            ours.insert(*id);
        }
        for (id, _) in all {
            // What ended meanwhile shows nothing.
            let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            self.is_not_in(&format!("the arguments of process {id}"), &arguments);
            if ours.contains(&id) {
                let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
                self.is_not_in(&format!("the environment of process {id}"), &environment);
            }
        }
    }
}

impl Runner {
    /// The containers that it made.
    fn containers(&self) -> Vec<String> {
        let label = roadstead_runner::label(&self.data).unwrap().unwrap();
        let listed = docker(&[
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            "--filter",
            &format!("label={label}"),
        ]);
        listed.lines().map(str::to_owned).collect()
    }
}

/// What a careless step does with its secret, in a shell of busybox alone.
const CARELESS: &str = r#"
      cat /run/secrets/CANARY
      printf 'it is %s, and more\n' "$CANARY"
      env
      set -x; test -n "$CANARY"; set +x
      printf %s "$CANARY" | base64 | head -n 1
      printf %s "$CANARY" | base64 -w 0; echo
      printf 'x%s' "$CANARY" | base64 -w 0; echo
      printf 'xy%s\n' "$CANARY" | base64 -w 0; echo
      printf 'Authorization: Bearer %s' "$CANARY" | base64
      printf %s "$CANARY" | hexdump -v -e '1/1 "%02x"'; echo
      printf %s "$CANARY" | hexdump -v -e '1/1 "%02X"'; echo
      printf %s "$CANARY" | sed 's/"/\\"/g' | tr '\n' '~' | sed 's/~/\\n/g'; echo
      printf %s "$CANARY" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g'; echo
      for part in 1 2 3; do head -c 20 /run/secrets/CANARY; sleep 0.2; tail -c +21 /run/secrets/CANARY; done
      ls -l /run/secrets; grep /run/secrets /proc/mounts
      touch printed
      until [ -e go ]; do sleep 0.1; done
"#;

fn pipeline(image: &str) -> String {
    format!(
        "version: 1\nname: shop\nsteps:\n  careless:\n    image: {image}\n    \
         secrets: {{ CANARY: CANARY }}\n    run: |{CARELESS}  \
         without:\n    image: {image}\n    secrets: [MISSING]\n    retry: 2\n    run: echo it began\n"
    )
}

async fn deliver(url: &str, commit: &str) {
    let body = format!(r#"{{"ref":"refs/heads/main","after":"{commit}"}}"#);
    let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let answer = reqwest::Client::new()
        .post(format!("{url}/webhooks/github/shop"))
        .header("x-hub-signature-256", format!("sha256={signature}"))
        .header("x-github-event", "push")
        .header("x-github-delivery", "one")
        .body(body)
        .send();
    assert!(answer.await.unwrap().status().is_success());
}

/// What a command prints that works on the server's own files.
fn on_the_machine(server: &Server, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg("--config")
        .arg(server.folder.path().join("roadstead.toml"))
        .env("ROADSTEAD__DATA", server.folder.path().join("data"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The workspace of the only attempt.
fn workspace(runner: &Runner) -> Option<PathBuf> {
    let mut found = fs::read_dir(runner.data.join("workspaces")).ok()?;
    Some(found.next()?.unwrap().path())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_nowhere_but_in_its_step() {
    let canary = Canary::new();
    let project = format!("secrets-{:08x}", rand::random::<u32>());
    let place = tempfile::tempdir().unwrap();
    let image = base_image(place.path(), &project);
    let (origin, work) = (place.path().join("shop.git"), place.path().join("work"));
    let at = |path: &Path| path.display().to_string();
    git(place.path(), &["init", "--quiet", "--bare", &at(&origin)]);
    git(place.path(), &["init", "--quiet", &at(&work)]);
    fs::create_dir(work.join(".roadstead")).unwrap();
    fs::write(work.join(".roadstead/pipeline.yml"), pipeline(&image)).unwrap();
    git(&work, &["add", "."]);
    git(
        &work,
        &["commit", "--quiet", "--message", "A careless step"],
    );
    git(
        &work,
        &["push", "--quiet", &at(&origin), "HEAD:refs/heads/main"],
    );
    let commit = fs::read_to_string(origin.join("refs/heads/main")).unwrap();
    let configuration = format!(
        "[runners]\nregistration_token = \"{REGISTRATION_TOKEN}\"\n[[projects]]\nname = \"shop\"\n\
         repository = \"{}\"\nwebhook_secret = \"{WEBHOOK_SECRET}\"\n",
        at(&origin)
    );
    let server = Server::start_with(&configuration, tempfile::tempdir().unwrap());
    let token = token_of(&server.url, "admin", ADMIN_PASSWORD, "admin").await;
    let given = place.path().join("given");
    fs::write(&given, &canary.value).unwrap();
    let set = ["secrets", "set", "shop", "CANARY", "--file", &at(&given)];
    assert_eq!(
        server.text(&token, &set),
        "CANARY: version 1, all branches\n"
    );
    let listed = server.text(&token, &["secrets", "list", "shop"]);
    assert!(
        listed.starts_with("CANARY ") && listed.contains("version 1"),
        "{listed}"
    );
    // While the server runs, which has opened and sealed with the old key.
    let rotated = on_the_machine(&server, &["secrets", "rotate-key"]);
    assert!(
        rotated.starts_with("secrets that are under a new key: 1."),
        "{rotated}"
    );
    let runner = Runner::start(&server.url, "canary", place.path().join("runner"));

    deliver(&server.url, commit.trim()).await;
    let workspace = until("the step has printed its secret", async || {
        let found = workspace(&runner).filter(|folder| folder.join("printed").exists());
        found.ok_or_else(|| "no file `printed`".to_owned())
    })
    .await;
    let log = until("the log has come", async || {
        let log = server.text(&token, &["logs", "shop.1", "careless"]);
        let last = log.contains("tmpfs");
        last.then(|| log.clone()).ok_or(log)
    })
    .await;

    // While the step is at work.
    canary.is_not_in("the log", log.as_bytes());
    assert!(log.contains("it is ***, and more"), "{log}");
    assert!(log.matches("***").count() >= 10, "{log}");
    assert!(log.contains("-r--------"), "{log}");
    canary.is_in_no_process(&[server.child.id(), runner.child.id()]);
    let containers = runner.containers();
    assert_eq!(containers.len(), 1);
    let data = docker(&["info", "--format", "{{.DockerRootDir}}"]);
    for container in &containers {
        let seen = docker(&["inspect", container]);
        assert!(seen.contains("/run/secrets"), "{seen}");
        canary.is_not_in("docker inspect", seen.as_bytes());
        let notes = Path::new(data.trim()).join("containers").join(container);
        assert!(canary.is_not_below(&notes) > 0);
        let layer = place.path().join("layer.tar");
        docker(&["export", "--output", &at(&layer), container]);
        canary.is_not_in("the container's layer", &fs::read(&layer).unwrap());
    }
    canary.is_not_below(&runner.data);
    canary.is_not_below(server.folder.path());

    fs::write(workspace.join("go"), "").unwrap();
    let run: Value = until("the run is over", async || {
        let run = server.json(&token, &["runs", "shop.1"]);
        let over = run["run"]["state"]["state"] == "failed";
        over.then(|| run.clone()).ok_or_else(|| run.to_string())
    })
    .await;
    let steps = run["steps"].as_array().unwrap();
    let step = |name: &str| steps.iter().find(|step| step["name"] == name).unwrap();
    assert_eq!(step("careless")["state"]["state"], "succeeded", "{run}");
    let why = "the step does not get secret `MISSING`: `shop` has none of that name";
    assert_eq!(step("without")["state"]["reason"], why, "{run}");
    let log = server.text(&token, &["logs", "shop.1", "without"]);
    assert_eq!(log, format!("{why}\n"));

    // Afterwards, with a backup.
    let backup = place.path().join("backup");
    on_the_machine(&server, &["backup", &at(&backup)]);
    assert!(canary.is_not_below(&backup) > 1);
    let key = fs::read(server.folder.path().join("data/secrets.key")).unwrap();
    let key = key
        .split(|byte| *byte == b'\n')
        .rev()
        .find(|line| !line.is_empty())
        .unwrap();
    let keys = Canary {
        value: String::new(),
        forms: vec![("the key", key.to_vec())],
    };
    keys.is_not_below(&backup);
    let removed = server.text(&token, &["secrets", "remove", "shop", "CANARY"]);
    assert_eq!(removed, "CANARY: removed\n");
    assert!(canary.is_not_below(server.folder.path()) > 3);
    assert!(canary.is_not_below(&runner.data) > 1);
    canary.is_not_in(
        "the runner's log",
        &fs::read(runner.data.with_extension("log")).unwrap(),
    );
    canary.is_in_no_process(&[server.child.id(), runner.child.id()]);
    drop(runner);
    remove_all(&project);
}

#[test]
fn a_canary_is_found_where_it_is() {
    let canary = Canary::new();
    let folder = tempfile::tempdir().unwrap();
    let leaks = [
        canary.value.clone().into_bytes(),
        canary.value.lines().last().unwrap().into(),
        hex::encode(&canary.value).into(),
        BASE64_STANDARD
            .encode(format!("DATABASE_URL={}\n", canary.value))
            .into(),
    ];
    for leak in leaks {
        fs::write(
            folder.path().join("file"),
            [b"before ", &leak[..], b" after"].concat(),
        )
        .unwrap();
        let found = std::panic::catch_unwind(|| canary.is_not_below(folder.path()));
        assert!(found.is_err(), "{}", String::from_utf8_lossy(&leak));
    }
    fs::write(folder.path().join("file"), "nothing of it").unwrap();
    assert_eq!(canary.is_not_below(folder.path()), 1);
    let child = Command::new("sleep")
        .arg("60")
        .env("LEAK", &canary.value)
        .spawn();
    let mut child = child.unwrap();
    // A process is there a moment before what it was started with is.
    let environment = format!("/proc/{}/environ", child.id());
    for _ in 0..500 {
        if fs::read(&environment).is_ok_and(|bytes| !bytes.is_empty()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let found = std::panic::catch_unwind(|| canary.is_in_no_process(&[std::process::id()]));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.is_err());
}
