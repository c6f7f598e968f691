//! A sandbox with simulated tasks on a thread of its own, for clients that block.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadstead_sandbox::{BackendKind, Config, serve};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Forty seconds become two fifths of one.
const SCALE: f64 = 100.0;

/// Bounds a failure; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running sandbox. Dropping it stops it and removes its directory.
pub(crate) struct Sandbox {
    pub(crate) endpoint: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    directory: TempDir,
}

impl Sandbox {
    /// Starts a sandbox with an empty data directory on free ports.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(directory)
    }

    /// Starts a sandbox with that data directory.
    pub(crate) fn start_in(directory: TempDir) -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let endpoint_file = directory.path().join("endpoint");
        if endpoint_file.exists() {
            std::fs::remove_file(&endpoint_file).expect("the old endpoint goes");
        }
        let config = Config {
            listen: free,
            registry_listen: free,
            backend: BackendKind::Simulated,
            time_scale: SCALE,
            record_answers: true,
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
