//! The server under load: this very program, started again.

use crate::database::{Database, Kind};
use anyhow::{Context, ensure};
use roadstead_server::config::{Config, Project};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The word that makes this program a server.
pub(crate) const SERVE: &str = "serve";
/// Key of the webhooks.
pub(crate) const SECRET: &str = "the-benchmark's-webhook-secret";
/// What its runners introduce themselves with.
pub(crate) const REGISTRATION: &str = "the-benchmark's-registration-token";
/// Of its administrator.
const PASSWORD: &str = "a-long-password-for-nobody";
/// How many projects share the load.
pub(crate) const PROJECTS: usize = 8;
/// How many steps the one job of each of them has.
pub(crate) const STEPS: usize = 8;
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of a project.
pub(crate) fn project(number: usize) -> String {
    format!("load-{number}")
}

/// The name of a step.
pub(crate) fn step(number: usize) -> String {
    format!("step-{number}")
}

/// The pipeline file of a project: steps, as long as their runner likes.
fn pipeline(name: &str) -> String {
    let mut text =
        format!("version: 1\nname: {name}\ntrigger: {{push: {{branches: [main]}}}}\nsteps:\n");
    for number in 0..STEPS {
        text += &format!("  {}: {{image: busybox, run: 'true'}}\n", step(number));
    }
    text
}

/// Serves from `folder` until standard input ends, which it does when the measuring process does. With the URL of a
/// database it has that one.
pub(crate) async fn be_the_server(folder: &Path, database: Option<&str>) -> anyhow::Result<()> {
    let mut config = Config {
        data: folder.join("data"),
        ..Config::default()
    };
    if let Some(url) = database {
        url.clone_into(&mut config.store.url);
    }
    config.http.listen.set_port(0);
    REGISTRATION.clone_into(&mut config.runners.registration_token);
    PASSWORD.clone_into(&mut config.admin.password);
    config.projects = (0..PROJECTS)
        .map(|number| Project {
            name: project(number),
            repository: folder.join(project(number)).display().to_string(),
            webhook_secret: SECRET.to_owned(),
            username: None,
            password: None,
            statuses: None,
        })
        .collect();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let read = std::io::stdin().read_to_end(&mut Vec::new());
        drop((read, end));
    });
    roadstead_server::serve(config, async {
        // A sender that is gone means stop.
        let _ = ended.await;
    })
    .await
}

/// A server in a process of its own, with its repositories and its database in a folder of its own.
pub(crate) struct Server {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What it works on; there until it is killed.
    kept: Option<Kept>,
}

/// What a server works on, and what is left of one that was killed.
pub(crate) struct Kept {
    pub(crate) database: Database,
    /// The commit at the head of each repository.
    pub(crate) commits: Vec<String>,
    /// Where its data and its repositories are.
    folder: TempDir,
}

impl Server {
    pub(crate) fn start(kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let commits = (0..PROJECTS)
            .map(|number| repository(folder.path(), &project(number)))
            .collect::<anyhow::Result<_>>()?;
        let database = Database::start(kind, &folder.path().join("data"))?;
        Self::again(Kept {
            database,
            commits,
            folder,
        })
    }

    /// Started on what is there.
    pub(crate) fn again(kept: Kept) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(kept.folder.path())
            .args(kept.database.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let mut lines = BufReader::new(out).lines();
        let address = loop {
            let line = lines.next().context("the server ended at its start")??;
            if let Some(address) = line.strip_prefix("server ready on ") {
                break address.to_owned();
            }
        };
        Ok(Self {
            child,
            address,
            kept: Some(kept),
        })
    }

    pub(crate) fn kept(&self) -> &Kept {
        self.kept.as_ref().expect("it was not killed")
    }

    pub(crate) fn database(&self) -> &Database {
        &self.kept().database
    }

    /// Waits until its database answers a query so.
    pub(crate) async fn until(&self, sql: &str, expected: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.database().query(sql)?;
            if found == [expected] {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{sql}: {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Signs its administrator in; the cookie that says so.
    pub(crate) async fn sign_in(&self) -> anyhow::Result<String> {
        // The answer with the cookie leads on.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let fields = [("user", "admin"), ("password", PASSWORD)];
        let url = format!("{}/login", self.address);
        let answer = client.post(url).form(&fields).send().await?;
        let cookies = answer.headers().get_all("set-cookie");
        let mut cookies = cookies.iter().filter_map(|cookie| cookie.to_str().ok());
        let session = cookies.find(|cookie| cookie.starts_with("roadstead_session="));
        let session = session.with_context(|| format!("no session: {}", answer.status()))?;
        Ok(session.split(';').next().unwrap_or_default().to_owned())
    }

    /// Seconds of processor time that the server has used.
    pub(crate) fn processor_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("no name")?.1;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // Linux tells processor time in hundredths of a second.
        Ok(ticks as f64 / 100.0)
    }

    /// What it holds in memory, in bytes: all that the kernel counts, and its own part.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let find = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let text = line.context("no such line")?.trim().trim_end_matches(" kB");
            Ok(text.parse::<u64>()? * 1024)
        };
        Ok((find("VmRSS:")?, find("RssAnon:")?))
    }

    /// Ends it as SIGKILL does: what was acknowledged has to be there.
    pub(crate) fn kill(mut self) -> anyhow::Result<Kept> {
        self.child.kill()?;
        self.child.wait()?;
        self.kept.take().context("it was killed before")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the server's end is unknown: {error}");
        }
    }
}

/// A bare repository with one commit that holds a pipeline file; its commit.
fn repository(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    let git = |arguments: &[&str], directory: &Path| -> anyhow::Result<String> {
        let output = Command::new("git")
            .args(["-c", "user.name=load", "-c", "user.email=load@example.com"])
            .args(arguments)
            .current_dir(directory)
            .output()?;
        ensure!(output.status.success(), "git {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    std::fs::create_dir_all(path.join(".roadstead"))?;
    std::fs::write(path.join(".roadstead/pipeline.yml"), pipeline(name))?;
    git(&["init", "--quiet", "--initial-branch=main"], &path)?;
    git(&["add", "."], &path)?;
    git(&["commit", "--quiet", "--message", "load"], &path)?;
    git(&["rev-parse", "HEAD"], &path)
}
