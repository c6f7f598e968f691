//! The `post-receive` hook as README.md has it, run by a shell against a server.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what broke by panicking where it broke"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

const SECRET: &str = "the secret of this project";

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The script in the README, with another secret and another address.
fn script(secret: &str, url: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let begin = readme.find("#!/bin/sh").unwrap();
    let end = readme[begin..].find("```").unwrap();
    let script = &readme[begin..begin + end];
    assert!(script.contains("secret='…'") && script.contains("https://roadstead.example"));
    script
        .replace("secret='…'", &format!("secret='{secret}'"))
        .replace("https://roadstead.example", url)
}

/// Runs the hook as git does after a push.
fn push(secret: &str, url: &str, number: u32) -> Output {
    let mut hook = Command::new("sh")
        .args(["-c", &script(secret, url)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let line = format!("{:040} {number:040x} refs/heads/main\n", 0);
    let mut input = hook.stdin.take().unwrap();
    input.write_all(line.as_bytes()).unwrap();
    drop(input);
    hook.wait_with_output().unwrap()
}

#[test]
fn whoever_pushes_reads_what_the_server_says() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("roadstead.toml");
    let text = format!(
        "[[projects]]\nname = \"hello\"\nrepository = \"/nowhere/hello.git\"\nwebhook_secret = \"{SECRET}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(folder.path().join("server.log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["server", "--config"])
        .arg(&config)
        .env("ROADSTEAD__HTTP__LISTEN", "127.0.0.1:0")
        .env("ROADSTEAD__DATA", folder.path().join("data"))
        .env("ROADSTEAD__ADMIN__PASSWORD", "the configured one")
        .env("ROADSTEAD__AWS__ENDPOINT_URL", "http://127.0.0.1:9")
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _server = Server(child);
    let ready = lines.find_map(|line| {
        let line = line.unwrap();
        Some(line.strip_prefix("server ready on ")?.to_owned())
    });
    let Some(url) = ready else {
        let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
        panic!("the server ended: {log}");
    };

    let taken = push(SECRET, &url, 1);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (said(&taken).as_str(), taken.stdout.as_slice()),
        ("", &b""[..])
    );
    let refused = said(&push("another secret", &url, 2));
    assert!(
        refused.contains("Roadstead did not take the push")
            && refused.contains("the signature does not fit this project's secret"),
        "{refused}"
    );
    let unknown = said(&push(SECRET, &format!("{url}/nowhere"), 3));
    assert!(unknown.contains("404"), "{unknown}");
}
