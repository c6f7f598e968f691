//! Docker Engine behind a socket that can hold one request back, as an engine under load does: whoever
//! asked is killed meanwhile, and what was asked for happens later all the same.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up; machines that run tests are slow.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// The next request whose path ends so.
    Next(String),
    /// It has come and waits.
    Held,
    /// It may go on to the engine.
    Released,
    /// The engine has answered it.
    Answered,
}

struct Shared {
    hold: Mutex<Hold>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap()
    }

    fn set(&self, hold: Hold) {
        *self.lock() = hold;
        self.changed.notify_all();
    }

    /// Waits until `wanted` holds; false when it never did.
    fn wait(&self, wanted: &Hold) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut hold = self.lock();
        while *hold != *wanted {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            hold = self.changed.wait_timeout(hold, left).unwrap().0;
        }
        true
    }
}

/// The socket. Its threads end with the test's process.
pub(crate) struct SlowEngine {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

impl SlowEngine {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine")).unwrap();
        let shared = Arc::new(Shared {
            hold: Mutex::new(Hold::Nothing),
            changed: Condvar::new(),
        });
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for client in listener.incoming() {
                    let (client, shared) = (client.unwrap(), Arc::clone(&shared));
                    thread::spawn(move || serve(client, &shared));
                }
            }
        });
        Self { folder, shared }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine")
    }

    /// Holds back the next POST to a path that ends with `path`.
    pub(crate) fn hold(&self, path: &str) {
        self.shared.set(Hold::Next(path.to_owned()));
    }

    /// Waits until the request has come.
    pub(crate) fn until_held(&self) {
        assert!(self.shared.wait(&Hold::Held), "the request never came");
    }

    /// Lets the request go on and waits until the engine has done what it asked for.
    pub(crate) fn release(&self) {
        self.shared.set(Hold::Released);
        assert!(
            self.shared.wait(&Hold::Answered),
            "the engine never answered"
        );
    }
}

fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = host.strip_prefix("unix://").map(Path::new);
    path.unwrap_or(Path::new("/var/run/docker.sock")).to_owned()
}

fn serve(mut client: UnixStream, shared: &Arc<Shared>) {
    let mut engine = UnixStream::connect(engine_socket()).expect("Docker Engine runs");
    thread::spawn({
        let (mut from, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
        move || {
            // A client that was killed reads no answers.
            drop(std::io::copy(&mut from, &mut to));
            drop(to.shutdown(std::net::Shutdown::Write));
        }
    });
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(count @ 1..) = client.read(&mut bytes) else {
            // As the engine hears it when a client is killed.
            drop(engine.shutdown(std::net::Shutdown::Both));
            return;
        };
        let bytes = &bytes[..count];
        if !shared.is_to_be_held(bytes) {
            if engine.write_all(bytes).is_err() {
                return;
            }
            continue;
        }
        assert!(shared.wait(&Hold::Released), "never released");
        shared.set(ask_alone(bytes));
        return;
    }
}

impl Shared {
    /// Whether these are the first bytes of the request that is waited for.
    fn is_to_be_held(&self, bytes: &[u8]) -> bool {
        let mut hold = self.lock();
        let Hold::Next(path) = &*hold else {
            return false;
        };
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let wanted = words.next() == Some("POST")
            && words
                .next()
                .is_some_and(|target| target.split('?').next().unwrap().ends_with(path.as_str()));
        if wanted {
            *hold = Hold::Held;
            self.changed.notify_all();
        }
        wanted
    }
}

/// Sends the request on a connection of its own, which lasts until the engine has answered.
fn ask_alone(request: &[u8]) -> Hold {
    let mut engine = UnixStream::connect(engine_socket()).expect("Docker Engine runs");
    engine.write_all(request).unwrap();
    let mut answer = [0; 1 << 10];
    let count = engine.read(&mut answer).unwrap();
    let status = String::from_utf8_lossy(&answer[..count]);
    // 404: newer engines look at once whether a container's network is still there.
    let answered = ["HTTP/1.1 201", "HTTP/1.1 404"];
    assert!(answered.iter().any(|it| status.starts_with(it)), "{status}");
    Hold::Answered
}
