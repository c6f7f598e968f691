//! Roadstead's side: the release binary's sandbox, server and runner, as processes of their own, and
//! the API through which a run is followed.

use crate::memory::{self, Resident};
use crate::registry::Registry;
use crate::report::Phases;
use crate::repository::Repository;
use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};
use tokio::process::{Child, Command};

/// Longest wait for a part to answer, and for a run to end after its image arrived.
const LIMIT: Duration = Duration::from_secs(120);

const HOOK: &str = r#"body="{\"ref\":\"$ref\",\"before\":\"$old\",\"after\":\"$new\"}"
signature=$(printf '%s' "$body" | openssl dgst -sha256 -hmac 'SECRET' | sed 's/^.* //')
printf '%s' "$body" | curl -fsS --max-time 20 -o /dev/null --data-binary @- \
  -H 'content-type: application/json' -H "x-hub-signature-256: sha256=$signature" 'URL'"#;

/// The three processes.
pub(crate) struct Parts {
    sandbox: Child,
    server: Child,
    runner: Child,
    folder: PathBuf,
    url: String,
    http: reqwest::Client,
    token: String,
    secret: String,
    pub(crate) registry: Registry,
}

/// What server and runner hold.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) server: Resident,
    pub(crate) runner: Resident,
}

impl Parts {
    /// Starts them with everything below `folder` and waits until they answer.
    pub(crate) async fn start(folder: &Path, projects: &[String]) -> anyhow::Result<Self> {
        let secret = random();
        let (password, registration) = (random(), random());
        let (listen, endpoint) = (free_address()?, free_address()?);
        let registry = free_address()?;
        let config = folder.join("roadstead.toml");
        let sections: String = projects
            .iter()
            .map(|name| {
                let repository = folder.join("repositories").join(name).join("roadstead/bare.git");
                format!(
                    "[[projects]]\nname = \"{name}\"\nrepository = \"{}\"\nwebhook_secret = \"{secret}\"\n",
                    repository.display()
                )
            })
            .collect();
        fs::write(&config, sections)?;
        let data = |name: &str| format!("--data={}", folder.join(name).display());
        let sandbox = start(
            folder,
            "sandbox",
            &[
                &format!("--listen={endpoint}"),
                &format!("--registry={registry}"),
                &data("sandbox"),
            ],
            &[],
        )?;
        let url = format!("http://{listen}");
        let endpoint = format!("http://{endpoint}");
        answers(folder, "sandbox", &format!("{endpoint}/_sandbox/calls")).await?;
        let server = start(
            folder,
            "server",
            &[&format!("--config={}", config.display())],
            &[
                ("ROADSTEAD__HTTP__LISTEN", &listen.to_string()),
                (
                    "ROADSTEAD__DATA",
                    &folder.join("server").display().to_string(),
                ),
                ("ROADSTEAD__AWS__ENDPOINT_URL", &endpoint),
                ("ROADSTEAD__ADMIN__PASSWORD", &password),
                ("ROADSTEAD__RUNNERS__REGISTRATION_TOKEN", &registration),
                ("AWS_ACCESS_KEY_ID", "sandbox"),
                ("AWS_SECRET_ACCESS_KEY", "sandbox"),
            ],
        )?;
        answers(folder, "server", &format!("{url}/readyz")).await?;
        let runner = start(
            folder,
            "runner",
            &[&format!("--server={url}"), &data("runner"), "--name=bench"],
            &[("ROADSTEAD_REGISTRATION_TOKEN", &registration)],
        )?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let token = sign_in(&http, &url, &password).await?;
        Ok(Self {
            sandbox,
            server,
            runner,
            folder: folder.to_owned(),
            registry: Registry::log_in(endpoint).await?,
            url,
            http,
            token,
            secret,
        })
    }

    /// Lets pushes to `repository` call the webhook of `project`.
    pub(crate) fn adopt(&self, project: &str, repository: &Repository) -> anyhow::Result<()> {
        let expected = self
            .folder
            .join("repositories")
            .join(project)
            .join("roadstead/bare.git");
        anyhow::ensure!(
            repository.address() == expected,
            "the server looks for {project} elsewhere"
        );
        let url = format!("{}/webhooks/git/{project}", self.url);
        repository.hook(&HOOK.replace("SECRET", &self.secret).replace("URL", &url))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self
            .http
            .get(format!("{}/api/v1{path}", self.url))
            .bearer_auth(&self.token)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// The run of a commit, once there is one.
    async fn run(&self, project: &str, commit: &str) -> anyhow::Result<Option<Value>> {
        let runs = self
            .get(&format!("/projects/{project}/runs?limit=5"))
            .await?;
        let found = runs["runs"].as_array().into_iter().flatten();
        Ok(found
            .into_iter()
            .find(|run| run["commit"] == commit)
            .cloned())
    }

    /// Fails when the commit's run ended otherwise than well.
    pub(crate) async fn check(&self, project: &str, commit: &str) -> anyhow::Result<()> {
        match self.run(project, commit).await? {
            Some(run) if !run["ended_at"].is_null() && run["state"]["state"] != "succeeded" => {
                bail!("the run of {project} ended: {}", run["state"])
            }
            _ => Ok(()),
        }
    }

    /// Waits for the run's end, and tells when each phase of it was over, in seconds since `triggered`.
    pub(crate) async fn ended(
        &self,
        project: &str,
        commit: &str,
        triggered: SystemTime,
    ) -> anyhow::Result<Phases> {
        let end = Instant::now() + LIMIT;
        let run = loop {
            self.check(project, commit).await?;
            match self.run(project, commit).await? {
                Some(run) if !run["ended_at"].is_null() => break run,
                _ if Instant::now() > end => bail!("the run of {project} does not end"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let id = run["id"].as_str().context("a run without an id")?;
        let detail = self.get(&format!("/runs/{id}")).await?;
        let triggered = Timestamp::try_from(triggered)?;
        let since = |time: &Value| -> anyhow::Result<f64> {
            let time: Timestamp = time.as_str().context("a time is missing")?.parse()?;
            Ok(time.duration_since(triggered).as_secs_f64())
        };
        Ok(Phases {
            taken: since(&run["created_at"])?,
            claimed: since(&detail["attempts"][0]["claimed_at"])?,
            checked_out: since(&detail["steps"][0]["started_at"])?,
            pushed: since(&detail["steps"][0]["ended_at"])?,
            over: since(&run["ended_at"])?,
        })
    }

    /// What server and runner hold now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let of = |child: &Child, name: &str| {
            let pid = child
                .id()
                .with_context(|| format!("the {name} has ended"))?;
            memory::resident(pid)
        };
        Ok(Memory {
            server: of(&self.server, "server")?,
            runner: of(&self.runner, "runner")?,
        })
    }

    /// Ends them, the runner first.
    pub(crate) async fn stop(&mut self) {
        for child in [&mut self.runner, &mut self.server, &mut self.sandbox] {
            let Some(pid) = child.id() else { continue };
            let pid = pid.to_string();
            // Sending a signal by a tool needs no unsafe code of ours.
            drop(Command::new("kill").args(["-TERM", &pid]).status().await);
            if tokio::time::timeout(LIMIT, child.wait()).await.is_err() {
                drop(child.kill().await);
            }
        }
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn start(
    folder: &Path,
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<Child> {
    let output = File::create(folder.join(format!("{name}.log")))?;
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .arg(name)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start the {name}"))
}

async fn answers(folder: &Path, name: &str, address: &str) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    let end = Instant::now() + LIMIT;
    loop {
        if let Ok(answer) = http.get(address).send().await
            && answer.status().is_success()
        {
            return Ok(());
        }
        if Instant::now() > end {
            let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
            bail!("the {name} does not answer; its log:\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An API token, made with a session as the dashboard makes one.
async fn sign_in(http: &reqwest::Client, url: &str, password: &str) -> anyhow::Result<String> {
    let form = [("user", "admin"), ("password", password), ("next", "/")];
    let answer = http.post(format!("{url}/login")).form(&form).send().await?;
    let cookie = answer
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .find(|pair| pair.starts_with("roadstead_session="))
        .with_context(|| format!("no session came: {}", answer.status()))?;
    let answer = http
        .post(format!("{url}/api/v1/tokens"))
        .header("cookie", cookie)
        .json(&json!({"name": "bench", "role": "viewer"}))
        .send()
        .await?
        .error_for_status()?;
    let value: Value = answer.json().await?;
    Ok(value["token"].as_str().context("no token came")?.to_owned())
}
