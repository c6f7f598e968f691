//! Child processes of this very binary, for `up` and `demo`: each with its log in a file, killed by
//! pid when its owner goes.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
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
    /// Where its own words begin in the log; what stands before is of earlier ones.
    from: u64,
    ready: &'static str,
}

impl Part {
    /// Starts this binary with `arguments`, its output in `<folder>/<name>.log`. It says that it
    /// answers with a line that begins with `ready`.
    pub(crate) fn start(
        name: &'static str,
        ready: &'static str,
        folder: &Path,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?;
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let from = output.metadata()?.len();
        let child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().cloned())
            // Colours are for terminals, and this goes to a file.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        Ok(Self {
            name,
            child,
            log,
            from,
            ready,
        })
    }

    /// Whether it has said that it answers. Another process that answers at its address has not.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub(crate) fn is_ready(&self) -> anyhow::Result<bool> {
        has_line(&self.log, self.from, self.ready)
            .with_context(|| format!("cannot read {}", self.log.display()))
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

    /// Ends it: SIGTERM, and SIGKILL when it is still there after `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        if let Some(pid) = self.child.id() {
            // `kill` of the shell's tools: sending a signal needs no unsafe code of ours.
            let _ = Command::new("kill")
                .arg("-TERM")
                .arg(pid.to_string())
                .status()
                .await;
            if tokio::time::timeout(patience, self.child.wait())
                .await
                .is_err()
            {
                let _ = self.child.kill().await;
            }
        }
    }
}

/// Whether a line of the log begins so, from this byte on.
fn has_line(log: &Path, from: u64, start: &str) -> io::Result<bool> {
    let mut log = File::open(log)?;
    log.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    log.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .any(|line| line.starts_with(start)))
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

#[cfg(test)]
mod tests {
    use super::has_line;
    use std::io::Write;

    #[test]
    fn only_what_a_part_says_itself_counts() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, "server ready on http://127.0.0.1:8080").unwrap();
        let from = log.as_file().metadata().unwrap().len();
        let is_ready =
            |log: &tempfile::NamedTempFile| has_line(log.path(), from, "server ready on ").unwrap();
        writeln!(log, "not yet the words server ready on").unwrap();
        assert!(!is_ready(&log), "an earlier one said it");
        writeln!(log, "server ready on http://127.0.0.1:8080").unwrap();
        assert!(is_ready(&log));
    }
}
