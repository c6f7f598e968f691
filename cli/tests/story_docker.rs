//! The product's main job on real parts, as `roadstead demo` tells it: once plainly, once with every
//! part killed in the middle of its work, and with parts left out, which the story has to notice.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Seven ports in a row that are free now: the demo takes a first port and counts on.
fn free_ports() -> u16 {
    for _ in 0..200 {
        let first = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        if first > 60_000 {
            continue;
        }
        let all: Result<Vec<_>, _> = (first..first + 8)
            .map(|port| TcpListener::bind(("127.0.0.1", port)))
            .collect();
        if all.is_ok() {
            return first;
        }
    }
    panic!("no eight free ports in a row");
}

fn demo(arguments: &[&str]) -> (Output, Value) {
    let first = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["demo", "--json"])
        .args(["--port", &first.to_string()])
        .args(["--listen", &format!("127.0.0.1:{}", first + 7)])
        .args(["--data", &folder.path().display().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let table = serde_json::from_slice(&output.stdout).unwrap_or_default();
    for part in ["sandbox", "runner"] {
        assert_eq!(left_of(part, folder.path()), "", "{}", said(&output));
    }
    (output, table)
}

/// The containers and networks that a part of the demo left in Docker Engine.
fn left_of(part: &str, data: &Path) -> String {
    let file = data.join(part).join("instance.json");
    let instance: String = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let filter = format!("label=roadstead.{part}={instance}");
    [&["ps", "-aq"][..], &["network", "ls", "-q"]]
        .into_iter()
        .map(|list| {
            let mut docker = Command::new("docker");
            let listed = docker.args(list).args(["--filter", &filter]).output();
            let listed = listed.unwrap();
            assert!(listed.status.success());
            String::from_utf8(listed.stdout).unwrap()
        })
        .collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_all_held(output: &Output, table: &Value) {
    assert!(output.status.success(), "{}", said(output));
    assert_eq!(table["held"], true, "{}", said(output));
    let lines = table["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 21, "{}", said(output));
    let digest = &lines[1]["evidence"]["image"]["digest"];
    assert!(digest.as_str().unwrap().starts_with("sha256:"), "{digest}");
}

#[test]
fn the_story_holds_on_real_parts() {
    let (output, table) = demo(&[]);
    assert_all_held(&output, &table);
}

#[test]
fn the_story_ends_the_same_when_each_part_is_killed_in_the_middle_of_its_work() {
    let (output, table) = demo(&["--kill"]);
    assert_all_held(&output, &table);
    assert_eq!(said(&output).matches("kill -9").count(), 7);
}

#[test]
fn a_push_that_tells_nobody_fails_the_story_by_name() {
    let (output, table) = demo(&["--break", "push"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("`push v1` did not hold"),
        "{}",
        said(&output)
    );
    assert_eq!(table["held"], false);
}

#[test]
fn a_missing_gate_fails_the_story_by_name() {
    let (output, _) = demo(&["--break", "gate"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("`the gate held` did not hold"),
        "{}",
        said(&output)
    );
}
