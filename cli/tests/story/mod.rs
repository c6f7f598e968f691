//! Runs `roadstead demo` in a process of its own, for tests of the story.

#![expect(
    dead_code,
    reason = "each test binary compiles this module and uses a part of it"
)]

use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Ports that a story uses, from the first on.
const PORTS: u16 = 8;
/// The dashboard's, counted from the first.
const DASHBOARD: u16 = 7;
/// The registry's, counted from the first.
const REGISTRY: u16 = 4;
/// Below the range that systems give to outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The number of lines in the story.
pub(crate) const LINES: usize = 21;

/// Ports in a row, and a folder, for one story.
pub(crate) struct Stage {
    first: u16,
    folder: TempDir,
    /// No other test takes these ports while this file is locked.
    _lock: File,
}

/// The exit of a story and the table that it printed.
pub(crate) struct Told {
    pub(crate) output: Output,
    pub(crate) table: Value,
    registry: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (first, lock) = ports();
        Self {
            first,
            folder: tempfile::tempdir().unwrap(),
            _lock: lock,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn dashboard(&self) -> String {
        format!("http://127.0.0.1:{}", self.first + DASHBOARD)
    }

    pub(crate) fn sandbox(&self) -> String {
        format!("http://127.0.0.1:{}", self.first)
    }

    /// What names of images in its registry begin with.
    pub(crate) fn registry(&self) -> String {
        format!("127.0.0.1:{}", self.first + REGISTRY)
    }

    /// `demo --json` on this stage.
    pub(crate) fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = self.demo_in_a_temporary_folder();
        command
            .arg(format!("--data={}", self.folder().display()))
            .args(arguments);
        command
    }

    /// The same, in a folder that it makes for itself below the stage's.
    pub(crate) fn demo_in_a_temporary_folder(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(["demo", "--json"])
            .arg(format!("--port={}", self.first))
            .arg(format!("--listen=127.0.0.1:{}", self.first + DASHBOARD))
            .env("TMPDIR", self.folder())
            .stdin(Stdio::null());
        command
    }
}

/// A row of free ports, and the lock that keeps other tests off it.
fn ports() -> (u16, File) {
    let locks = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    std::fs::create_dir_all(&locks).unwrap();
    let rows = RANGE.step_by(10).collect::<Vec<_>>();
    // Test processes begin to look in different places.
    let begin = std::process::id() as usize % rows.len();
    for first in rows[begin..].iter().chain(&rows[..begin]).copied() {
        let lock = File::create(locks.join(first.to_string())).unwrap();
        if lock.try_lock().is_err() {
            continue;
        }
        let all: Result<Vec<_>, _> = (first..first + PORTS)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        if all.is_ok() {
            return (first, lock);
        }
    }
    panic!("no {PORTS} free ports in a row");
}

/// Tells a story to its end.
pub(crate) fn tell(arguments: &[&str]) -> Told {
    let stage = Stage::new();
    let output = stage.demo(arguments).output().unwrap();
    let table = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Told {
        output,
        table,
        registry: stage.registry(),
    }
}

impl Told {
    /// Nothing of it is left in Docker Engine.
    pub(crate) fn assert_nothing_stays(&self) {
        assert_nothing_stays(&self.table, &self.registry);
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The story ended well.
    pub(crate) fn assert_held(&self) {
        assert!(self.output.status.success(), "{}", self.said());
        assert_all_held(&self.table);
    }
}

pub(crate) fn lines(table: &Value) -> &[Value] {
    table["lines"].as_array().unwrap()
}

/// Every line is there, and held.
pub(crate) fn assert_all_held(table: &Value) {
    assert_eq!(lines(table).len(), LINES, "{table:#}");
    for line in lines(table) {
        assert_eq!(line["held"], true, "{line:#}");
    }
    assert_eq!(table["held"], true);
}

/// Nothing in Docker Engine carries a label of this story, nor a name of its registry.
pub(crate) fn assert_nothing_stays(table: &Value, registry: &str) {
    let labels: Vec<_> = table["labels"].as_array().unwrap().iter().collect();
    assert_eq!(
        labels.len(),
        2,
        "the sandbox's and the runner's: {labels:?}"
    );
    for label in labels {
        let label = label.as_str().unwrap();
        assert_eq!(labelled(label), "", "{label}");
    }
    assert_eq!(images(registry), "");
}

/// What in Docker Engine carries this label.
pub(crate) fn labelled(label: &str) -> String {
    let filter = format!("label={label}");
    [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]]
        .into_iter()
        .map(|list| docker(&[list, &["--quiet", "--filter", &filter]].concat()))
        .collect()
}

/// Images in Docker Engine with a name of this registry.
pub(crate) fn images(registry: &str) -> String {
    let all = docker(&[
        "image",
        "ls",
        "--digests",
        "--format",
        "{{.Repository}}@{{.Digest}}",
    ]);
    let of_registry = all.lines().filter(|name| name.starts_with(registry));
    of_registry.collect::<Vec<_>>().join("\n")
}

fn docker(arguments: &[&str]) -> String {
    let listed = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(listed.status.success(), "docker {arguments:?}: {said}");
    String::from_utf8(listed.stdout).unwrap()
}
