//! `roadstead up` and `roadstead demo` beside somebody who listens where they want to: they say so at
//! once, start nothing, and do not speak to whoever is there.

#![expect(
    clippy::unwrap_used,
    reason = "a test helper that fails should fail the test where it stands"
)]

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// The first of eight free ports in a row, none of those that the system gives to whoever asks for any.
fn free_ports() -> u16 {
    for _ in 0..200 {
        let first: u16 = rand::random_range(10_000..19_000);
        if (first..first + 8).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no eight free ports in a row");
}

/// Runs `roadstead` with these arguments while somebody listens on `taken`. It has to fail, name port
/// and option, leave its folder empty, and let the other alone.
fn refused(arguments: &[String], taken: u16, option: &str) {
    let there = TcpListener::bind(("127.0.0.1", taken)).unwrap();
    there.set_nonblocking(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .arg(format!("--data={}", data.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    let port = format!("port {taken} of 127.0.0.1 is taken");
    assert!(said.contains(&port) && said.contains(option), "{said}");
    assert!(!data.exists(), "{:?}", fs::read_dir(&data));
    let visit = there.accept().map_err(|error| error.kind());
    assert_eq!(visit.unwrap_err(), ErrorKind::WouldBlock, "it was called");
}

#[test]
fn up_names_the_port_that_is_taken_and_starts_nothing() {
    let first = free_ports();
    let mut arguments = vec!["up".to_owned()];
    let options = ["--listen", "--sandbox", "--registry"];
    for (option, port) in options.into_iter().zip(first..) {
        arguments.push(format!("{option}=127.0.0.1:{port}"));
    }
    for (option, port) in options.into_iter().zip(first..) {
        refused(&arguments, port, option);
    }
}

#[test]
fn demo_names_the_port_that_is_taken_and_starts_nothing() {
    let first = free_ports();
    let arguments = [
        "demo".to_owned(),
        format!("--port={first}"),
        format!("--listen=127.0.0.1:{}", first + 7),
    ];
    for offset in [0, 4, 5, 6] {
        refused(&arguments, first + offset, "--port");
    }
    refused(&arguments, first + 7, "--listen");
}
