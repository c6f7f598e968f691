//! The world around the browser, all of it real: `roadstead up` with server, runner and sandbox, a
//! repository whose hook calls the webhook, and load balancers that are asked what they serve.

use crate::aws::{Aws, CLUSTERS};
use crate::shop::{self, base_image, docker, free_ports, git};
use crate::waiting::{PATIENCE, until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Answers in a row that count: while tasks change places, both serve for a moment.
const ANSWERS: u32 = 5;

const SECRET: &str = "known-to-the-browser-test-alone";

const HOOK: &str = r#"#!/bin/sh
while read -r old new ref; do
  body="{\"ref\":\"$ref\",\"before\":\"$old\",\"after\":\"$new\"}"
  signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac 'SECRET' | sed 's/^.* //')
  printf '%s' "$body" | curl -fsS --max-time 60 -o /dev/null --data-binary @- \
    -H 'content-type: application/json' -H "x-hub-signature-256: sha256=$signature" 'URL' || exit 1
done
"#;

/// The step waits until the test lets it go on, so that what the page shows meanwhile can be read.
const PIPELINE: &str = r#"version: 1
name: PROJECT
trigger:
  push: { branches: [main] }
images:
  app: { repository: shop }
steps:
  check:
    image: BASE
    timeout: 5m
    run: |
      printf 'waiting for the tide, \033[32mgreen\033[0m <img src=x onerror=alert(1)>\n'
      until [ -e /tide ]; do sleep 0.1; done
      echo the tide is here
  image:
    build: [app]
    needs: [check]
services:
  web: { image: app, container: app }
environments:
  staging:
    deploy: auto
    ecs: { cluster: staging, service: shop }
    verify: { http: [{ url: "http://127.0.0.1:STAGING/" }], watch: 1s }
  production:
    after: staging
    deploy: manual
    ecs: { cluster: production, service: shop }
    verify: { http: [{ url: "http://127.0.0.1:PRODUCTION/" }], watch: 1s }
"#;

/// Everything that the story happens in.
pub(crate) struct World {
    /// The project, with a name of its own: other tests use the same Docker Engine.
    pub(crate) project: String,
    /// The administrator's password, as `up` prints it.
    pub(crate) password: String,
    url: String,
    aws: Aws,
    base: String,
    ports: [u16; 2],
    up: Up,
    folder: TempDir,
}

impl World {
    /// Builds the base image, makes the repository and starts the three parts.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = format!("shop-{}", std::process::id());
        let base = base_image(folder.path(), &project);
        let [dashboard, sandbox, registry, staging, production] = free_ports();
        let address = format!("127.0.0.1:{dashboard}");
        let url = format!("http://{address}");

        let bare = folder.path().join("shop.git");
        git(
            folder.path(),
            &["init", "--bare", "--initial-branch=main", "shop.git"],
        );
        git(folder.path(), &["clone", "shop.git", "work"]);
        let hook = bare.join("hooks/post-receive");
        let webhook = format!("{url}/webhooks/git/{project}");
        fs::write(
            &hook,
            HOOK.replace("SECRET", SECRET).replace("URL", &webhook),
        )
        .unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let pipeline = PIPELINE
            .replace("PROJECT", &project)
            .replace("BASE", &base)
            .replace("STAGING", &staging.to_string())
            .replace("PRODUCTION", &production.to_string());
        let work = folder.path().join("work");
        fs::create_dir_all(work.join(".roadstead")).unwrap();
        fs::write(work.join(".roadstead/pipeline.yml"), pipeline).unwrap();
        let dockerfile = format!("FROM {base}\nCOPY index.html /www/index.html\n");
        fs::write(work.join("Dockerfile"), dockerfile).unwrap();

        let config = folder.path().join("roadstead.toml");
        let text = format!(
            "[[projects]]\nname = \"{project}\"\nrepository = \"{}\"\nwebhook_secret = \"{SECRET}\"\n",
            bare.display()
        );
        fs::write(&config, text).unwrap();
        let (up, password) = Up::start(&[
            "--data".to_owned(),
            folder.path().join("data").display().to_string(),
            "--config".to_owned(),
            config.display().to_string(),
            format!("--listen={address}"),
            format!("--sandbox=127.0.0.1:{sandbox}"),
            format!("--registry=127.0.0.1:{registry}"),
            "--time-scale=20".to_owned(),
        ]);
        Self {
            aws: Aws::new(format!("http://127.0.0.1:{sandbox}")),
            ports: [staging, production],
            project,
            password,
            url,
            base,
            up,
            folder,
        }
    }

    /// A page's address.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Makes clusters and services, with the base image as the first thing that they serve.
    pub(crate) async fn furnish(&self) {
        for (cluster, port) in CLUSTERS.into_iter().zip(self.ports) {
            self.aws.furnish(cluster, port, &self.base).await;
        }
        for cluster in CLUSTERS {
            self.serves(cluster, "nothing yet").await;
        }
    }

    /// Commits a version and pushes it; the webhook is taken when this returns.
    pub(crate) fn push(&self, version: &str, message: &str) {
        let work = self.folder.path().join("work");
        fs::write(work.join("index.html"), format!("{version}\n")).unwrap();
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "-m", message]);
        // A hook that runs after the push cannot fail it, but what it complains of is shown.
        let said = git(&work, &["push", "--quiet", "origin", "main"]);
        assert_eq!(said, "", "the hook");
    }

    /// Lets the first step of a run go on.
    pub(crate) fn let_go(&self, run: u32) {
        let attempt = format!("{}.{run}.a1", self.project);
        let filter = format!("label=roadstead.attempt={attempt}");
        let found = docker(&["ps", "--quiet", "--filter", &filter]);
        docker(&["exec", found.trim(), "/bin/touch", "/tide"]);
    }

    /// Waits until the load balancer of a cluster answers this, and nothing else.
    pub(crate) async fn serves(&self, cluster: &str, wanted: &str) {
        let at = CLUSTERS.iter().position(|name| *name == cluster).unwrap();
        let address = format!("http://127.0.0.1:{}/", self.ports[at]);
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        until(&format!("{cluster} to serve {wanted}"), async || {
            for _ in 0..ANSWERS {
                let answer = http.get(&address).send().await;
                let answer = answer.map_err(|error| error.to_string())?;
                let text = answer.text().await.map_err(|error| error.to_string())?;
                if text.trim() != wanted {
                    return Err(text);
                }
            }
            Ok(())
        })
        .await;
    }
}

impl World {
    /// Takes down what would outlive the test.
    pub(crate) async fn put_away(&self) {
        if let Err(error) = self.aws.clear().await {
            eprintln!("the services could not be taken down: {error}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.up.stop();
        shop::remove_all(&self.project);
    }
}

/// `roadstead up`, stopped when the test ends, however it ends.
struct Up {
    child: Option<Child>,
}

impl Up {
    /// Starts it and waits until it names the administrator's password.
    fn start(arguments: &[String]) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .arg("up")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = Self { child: Some(child) };
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, password)) = line.split_once("password ") {
                    drop(sender.send(password.to_owned()));
                }
            }
        });
        let password = receiver.recv_timeout(PATIENCE);
        (up, password.expect("`up` did not come up"))
    }

    /// As Ctrl-C does, and at once when that does not help.
    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child.id().to_string();
        drop(Command::new("kill").args(["-INT", &pid]).status());
        let end = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(child.kill());
        drop(child.wait());
    }
}
