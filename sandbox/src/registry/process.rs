//! The real registry: Debian's `docker-registry` as a child process on a private port.
//!
//! Invariants: it listens on 127.0.0.1 only, it is started again when it dies, and it ends with
//! this process, however that ends. Must not know: repositories, tokens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::disk::write_atomically;
use crate::proxy::http::{Client, full};

/// What the program is called in Debian's package and in the registry's own image.
const PROGRAMS: [&str; 2] = ["docker-registry", "registry"];

/// Runs the registry and ends it when standard input closes, which also happens when this process
/// is killed: the child must not outlive it and hold the images of the next one.
const WRAPPER: &str = r#"exec 3<&0
(while read -r _; do :; done; kill "$$") <&3 >/dev/null 2>&1 &
exec "$0" serve "$1" 3<&- </dev/null"#;

/// A header by which a child is known: a port chosen as free may by then be another registry's.
const MARK: &str = "x-roadstead-registry";

/// How long it may take to answer first; machines that run tests are slow.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running registry.
pub(super) struct RegistryProcess {
    address: watch::Receiver<SocketAddr>,
    stop: CancellationToken,
    supervisor: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Launcher {
    program: PathBuf,
    directory: PathBuf,
}

/// One life of the child.
struct Life {
    child: Child,
    /// Closing it ends the child.
    leash: ChildStdin,
    address: SocketAddr,
}

impl RegistryProcess {
    /// Starts the registry with its images in `directory` and waits until it answers.
    pub(super) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let launcher = Launcher {
            program: find_program()?,
            directory: directory.to_owned(),
        };
        let life = launcher.launch().await?;
        let (sender, address) = watch::channel(life.address);
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(launcher.supervise(life, Arc::new(sender), stop.clone()));
        Ok(Self {
            address,
            stop,
            supervisor: tokio::sync::Mutex::new(Some(supervisor)),
        })
    }

    /// Where it answers now; another port after it had to be started again.
    pub(super) fn address(&self) -> SocketAddr {
        *self.address.borrow()
    }

    /// Ends it and waits until it is gone.
    pub(super) async fn shut_down(&self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.lock().await.take()
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "the registry's supervisor ended badly");
        }
    }
}

fn find_program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = PROGRAMS.iter().find_map(|program| {
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .find(|candidate| candidate.is_file())
    });
    found.with_context(|| {
        format!(
            "no OCI registry found: none of {} is in PATH; install Debian's package `docker-registry`, or \
             name one that runs elsewhere with --registry-upstream",
            PROGRAMS.join(", ")
        )
    })
}

impl Launcher {
    /// Starts the child on a free port. A port can be taken between its choice and its use, so a
    /// child that exits at once gets others.
    async fn launch(&self) -> anyhow::Result<Life> {
        let mut failure = None;
        for _ in 0..5 {
            match self.launch_once().await {
                Ok(life) => return Ok(life),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("the registry was not started")))
    }

    async fn launch_once(&self) -> anyhow::Result<Life> {
        let address = free_address()?;
        let mark = format!("{:032x}", rand::random::<u128>());
        let configuration = self.directory.join("registry.yml");
        let log = self.directory.join("registry.log");
        // JSON is YAML, with quoting that any path survives.
        let content = json!({
            "version": "0.1",
            "log": { "level": "warn", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": self.directory.join("images") },
                "delete": { "enabled": true },
            },
            "http": { "addr": address.to_string(), "relativeurls": true, "headers": { MARK: [mark] } },
        });
        write_atomically(&configuration, content.to_string().as_bytes())
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let log_file = std::fs::File::create(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(WRAPPER)
            .arg(&self.program)
            .arg(&configuration)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .context("cannot start a shell for the registry")?;
        let leash = child
            .stdin
            .take()
            .context("the registry's standard input is not a pipe")?;
        let mut life = Life {
            child,
            leash,
            address,
        };
        tokio::select! {
            ready = wait_until_ready(address, &mark) => ready?,
            status = life.child.wait() => {
                let written = std::fs::read_to_string(&log).unwrap_or_default();
                let last = written.lines().next_back().unwrap_or("no output");
                anyhow::bail!(
                    "{} ended with {} before it answered: {last}",
                    self.program.display(),
                    status.context("its exit is unknown")?
                );
            }
        }
        Ok(life)
    }

    async fn supervise(
        self,
        mut life: Life,
        address: Arc<watch::Sender<SocketAddr>>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return life.end().await,
                status = life.child.wait() => {
                    tracing::error!(?status, "the registry ended, starting it again");
                }
            }
            life = loop {
                match self.launch().await {
                    Ok(life) => break life,
                    Err(error) => tracing::error!(%error, "the registry does not start"),
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            };
            address.send_replace(life.address);
        }
    }
}

impl Life {
    async fn end(self) {
        let Self {
            mut child, leash, ..
        } = self;
        drop(leash);
        let patience = Duration::from_secs(10);
        if tokio::time::timeout(patience, child.wait()).await.is_err()
            && let Err(error) = child.kill().await
        {
            tracing::error!(%error, "cannot end the registry");
        }
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no free port on 127.0.0.1 for the registry")?;
    Ok(socket.local_addr()?)
}

async fn wait_until_ready(address: SocketAddr, mark: &str) -> anyhow::Result<()> {
    let client = Client::new();
    let deadline = tokio::time::Instant::now() + START_LIMIT;
    loop {
        let request = Request::get(format!("http://{address}/v2/")).body(full(Bytes::new()))?;
        if let Ok(response) = client.send(request).await
            && response.status() == StatusCode::OK
            && response.headers().get(MARK).is_some_and(|it| it == mark)
        {
            return Ok(());
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "the registry on {address} did not answer within {} s",
            START_LIMIT.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(address: SocketAddr) -> bool {
        let request = Request::get(format!("http://{address}/v2/"))
            .body(full(Bytes::new()))
            .unwrap();
        Client::new().send(request).await.is_ok()
    }

    #[tokio::test]
    async fn a_registry_that_dies_is_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = Launcher {
            program: find_program().unwrap(),
            directory: directory.path().to_owned(),
        };
        let life = launcher.launch().await.unwrap();
        let (first, pid) = (life.address, life.child.id().unwrap());
        let (sender, mut address) = watch::channel(first);
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(launcher.supervise(life, Arc::new(sender), stop.clone()));
        let killed = Command::new("sh")
            .args(["-c", "kill -9 \"$0\""])
            .arg(pid.to_string())
            .status();
        assert!(killed.await.unwrap().success());
        let another = tokio::time::timeout(Duration::from_secs(60), address.changed());
        another.await.expect("waited in vain").unwrap();
        let second = *address.borrow();
        assert!(answers(second).await);
        stop.cancel();
        supervisor.await.unwrap();
    }

    #[tokio::test]
    async fn a_registry_ends_when_nobody_holds_its_leash() {
        let directory = tempfile::tempdir().unwrap();
        let launcher = Launcher {
            program: find_program().unwrap(),
            directory: directory.path().to_owned(),
        };
        let Life {
            mut child, leash, ..
        } = launcher.launch().await.unwrap();
        // What the kernel does when this process is killed.
        drop(leash);
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait());
        ended.await.expect("the registry outlives us").unwrap();
    }
}
