//! `roadstead up` and SIGTERM, which service managers and containers send: everything that it started
//! ends with it, and it ends well. And a second one beside it, on the same ports.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up; machines that run tests are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Three free ports in a row, none of those that the system gives to whoever asks for any port.
fn free_ports() -> [u16; 3] {
    for _ in 0..200 {
        let first: u16 = rand::random_range(10_000..30_000);
        let ports = [first, first + 1, first + 2];
        if ports
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        {
            return ports;
        }
    }
    panic!("no three free ports in a row");
}

/// `up` in a folder of its own; killed at the end if it is still there.
struct Up {
    child: Child,
    folder: tempfile::TempDir,
    ports: [u16; 3],
}

impl Up {
    fn start() -> Self {
        Self::start_on(free_ports())
    }

    fn start_on(ports: [u16; 3]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [server, sandbox, registry] = ports;
        let child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .arg("up")
            .args(["--data", &folder.path().display().to_string()])
            .args(["--listen", &format!("127.0.0.1:{server}")])
            .args(["--sandbox", &format!("127.0.0.1:{sandbox}")])
            .args(["--registry", &format!("127.0.0.1:{registry}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            ports,
        }
    }

    /// Waits for the line that says that everything runs.
    fn wait_until_ready(&mut self) {
        let lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let mut said = vec![];
        for line in lines {
            said.push(line.unwrap());
            if said.last().unwrap().contains("stops everything") {
                return;
            }
        }
        panic!("it ended: {said:?}");
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -TERM \"$0\"", &pid])
            .status();
        assert!(sent.unwrap().success());
    }

    /// How it ended; None when it goes on.
    fn ended(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || Instant::now() >= end {
                return status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Command lines of processes that work in its folder, itself left out.
    fn parts(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let own = self.child.id().to_string();
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| {
                let process = entry.unwrap().path();
                let line = fs::read(process.join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                let others = line.contains(&folder) && process != Path::new("/proc").join(&own);
                others.then_some(line)
            })
            .collect()
    }

    /// Waits until nothing is left.
    fn wait_until_alone(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.parts();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Not by a kill, which its children would outlive.
            self.terminate();
            let _ = self.ended();
        }
    }
}

#[test]
fn up_ends_well_on_sigterm_with_all_that_it_started() {
    let mut up = Up::start();
    up.wait_until_ready();
    let parts = up.parts();
    for part in ["server", "runner", "sandbox", "registry.yml"] {
        assert!(
            parts.iter().any(|line| line.contains(part)),
            "{part}: {parts:?}"
        );
    }
    up.terminate();
    assert_eq!(up.ended().and_then(|it| it.code()), Some(0));
    up.wait_until_alone();
}

#[test]
fn up_that_still_starts_leaves_nothing_behind_either() {
    let mut up = Up::start();
    let end = Instant::now() + PATIENCE;
    while up.parts().is_empty() {
        assert!(Instant::now() < end, "nothing was started");
        std::thread::sleep(Duration::from_millis(5));
    }
    up.terminate();
    assert_eq!(up.ended().and_then(|it| it.code()), Some(0));
    // Killed with their parent rather than waited for.
    up.wait_until_alone();
}

#[test]
fn a_second_up_is_refused_and_leaves_the_first_alone() {
    let mut first = Up::start();
    first.wait_until_ready();
    let parts = first.parts();
    let mut second = Up::start_on(first.ports);
    assert_eq!(second.ended().and_then(|it| it.code()), Some(1));
    assert_eq!(second.parts(), Vec::<String>::new());
    assert_eq!(first.parts(), parts);
    let server = TcpStream::connect(("127.0.0.1", first.ports[0])).unwrap();
    writeln!(&server, "GET /readyz HTTP/1.0\r\n\r").unwrap();
    let mut answer = String::new();
    BufReader::new(server).read_line(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    first.terminate();
    assert_eq!(first.ended().and_then(|it| it.code()), Some(0));
    first.wait_until_alone();
}
