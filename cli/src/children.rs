//! Child processes of this very binary, for `up` and `demo`: each with its log in a file, killed by
//! pid when its owner goes.

use anyhow::{Context, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// One child.
pub(crate) struct Part {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Part {
    /// Starts this binary with `arguments`, its output in `<folder>/<name>.log`.
    pub(crate) fn start(
        name: &'static str,
        folder: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?;
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Its process; none once it ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once, as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill the {}", self.name))
    }

    /// Fails with the end of its log when it has ended.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n  ");
        bail!(
            "the {} ended ({status}); its log {} ends with:\n  {tail}",
            self.name,
            self.log.display()
        )
    }

    /// Ends it: SIGTERM, and SIGKILL after ten seconds.
    pub(crate) async fn stop(&mut self) {
        if let Some(pid) = self.child.id() {
            // `kill` of the shell's tools: sending a signal needs no unsafe code of ours.
            let _ = Command::new("kill")
                .arg("-TERM")
                .arg(pid.to_string())
                .status()
                .await;
            if tokio::time::timeout(Duration::from_secs(10), self.child.wait())
                .await
                .is_err()
            {
                let _ = self.child.kill().await;
            }
        }
    }
}

/// Asks again until `ready` gives something, at most for `limit`.
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
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
