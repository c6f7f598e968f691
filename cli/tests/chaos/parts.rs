//! Processes of the one binary, which can be killed, stopped, continued and started again as they were.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest wait for anything that has to come: two processors may be shared with others.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Where a run keeps the binary that it runs: the one that is built may be another one soon.
pub(crate) fn binary(folder: &Path) -> PathBuf {
    folder.join("roadstead")
}

/// A process, running or not.
pub(crate) struct Process {
    pub(crate) name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    stopped: bool,
}

impl Process {
    pub(crate) fn new(
        folder: &Path,
        name: impl Into<String>,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let name = name.into();
        Self {
            log: folder.join(format!("{name}.log")),
            binary: binary(folder),
            name,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            environment: environment
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            child: None,
            stopped: false,
        }
    }

    /// Starts it; one that runs goes on.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        if self.runs() {
            return Ok(());
        }
        let output = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        (self.child, self.stopped) = (Some(child), false);
        Ok(())
    }

    /// Whether it was started and has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.as_ref().and_then(Child::id);
        let pid = id.and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.with_context(|| format!("{} does not run", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.stopped = true;
        Ok(())
    }

    /// SIGCONT; nothing when it was not stopped.
    pub(crate) fn go_on(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.stopped) && self.runs() {
            self.signal(Signal::CONT)?;
        }
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// SIGTERM, and SIGKILL for one that does not end.
    pub(crate) async fn end(&mut self) {
        drop(self.go_on());
        if self.runs() {
            drop(self.signal(Signal::TERM));
        }
        if let Some(mut child) = self.child.take()
            && tokio::time::timeout(Duration::from_secs(50), child.wait())
                .await
                .is_err()
        {
            drop(child.kill().await);
        }
    }

    /// Fails when it has ended by itself.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        if self.runs() {
            return Ok(());
        }
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{} ended by itself:\n{}", self.name, last.join("\n"))
    }
}

/// Asks again until `ready` gives something.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ready().await? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until somebody answers there with success.
pub(crate) async fn answers(
    http: &reqwest::Client,
    what: &str,
    address: &str,
) -> anyhow::Result<()> {
    until(what, PATIENCE, async || {
        let answer = http.get(address).send().await;
        Ok(answer.ok().filter(|a| a.status().is_success()).map(drop))
    })
    .await
}
