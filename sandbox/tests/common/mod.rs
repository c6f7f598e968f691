//! A sandbox in this process and clients outside it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadstead_sandbox::{BackendKind, Config, serve};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Bounds a failure; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// The version of boto3 that the stories were written for.
const BOTO3: &str = "boto3==1.44.8";

/// A running sandbox. Dropping it stops it and removes its directory.
pub(crate) struct Sandbox {
    pub endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    directory: TempDir,
}

impl Sandbox {
    /// Starts a sandbox with an empty data directory on free ports.
    pub(crate) fn start(backend: BackendKind, time_scale: f64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(directory, backend, time_scale)
    }

    /// Starts a sandbox with that data directory.
    pub(crate) fn start_in(directory: TempDir, backend: BackendKind, time_scale: f64) -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let endpoint_file = directory.path().join("endpoint");
        if endpoint_file.exists() {
            std::fs::remove_file(&endpoint_file).expect("the old endpoint goes");
        }
        let config = Config {
            listen: free,
            registry_listen: free,
            backend,
            time_scale,
            ..Config::new(directory.path())
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(serve(config, async {
                    // A sender that is gone means stop, too.
                    let _ = stopped.await;
                }))
        });
        let deadline = Instant::now() + PATIENCE;
        let endpoint = loop {
            if let Ok(text) = std::fs::read_to_string(&endpoint_file) {
                break text.trim().to_owned();
            }
            if thread.is_finished() {
                panic!("the sandbox ended: {:?}", thread.join());
            }
            assert!(Instant::now() < deadline, "the sandbox does not answer");
            std::thread::sleep(Duration::from_millis(20));
        };
        Self {
            endpoint,
            stop: Some(stop),
            thread: Some(thread),
            directory,
        }
    }

    /// Stops the sandbox and gives back its data directory.
    pub(crate) fn stop(mut self) -> TempDir {
        self.end();
        std::mem::replace(
            &mut self.directory,
            tempfile::tempdir().expect("a temporary directory"),
        )
    }

    fn end(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended
                    .expect("the sandbox does not panic")
                    .expect("the sandbox ends well");
            }
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}

fn check(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what} failed with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// A Python that has boto3, made once per target directory; several test processes may ask at the
/// same time.
pub(crate) fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(root).expect("the target directory can be written");
    let lock = File::create(root.join("boto3.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let environment = root.join(BOTO3);
    let python = environment.join("bin/python");
    let complete = environment.join("complete");
    if !complete.exists() {
        let made = Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment)
            .output()
            .expect("python3 with venv is installed");
        check("python3 -m venv", &made);
        let installed = Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                BOTO3,
            ])
            .output()
            .expect("pip starts");
        check("pip install", &installed);
        std::fs::write(&complete, "").expect("the mark can be written");
    }
    python
}

/// Runs one story of `ecs_story.py` and fails when it does not hold.
pub(crate) fn tell(sandbox: &Sandbox, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ecs_story.py");
    let told = Command::new(python())
        .arg(script)
        .args(["--endpoint", &sandbox.endpoint])
        .args(arguments)
        .output()
        .expect("python starts");
    check(&arguments.join(" "), &told);
}
