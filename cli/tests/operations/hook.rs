//! The `post-receive` hook as README.md has it, run by a shell against a server.

use crate::server::Server;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const SECRET: &str = "the secret of this project";

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
    let project = format!(
        "[[projects]]\nname = \"hello\"\nrepository = \"/nowhere/hello.git\"\nwebhook_secret = \"{SECRET}\"\n"
    );
    let server = Server::start_with(&project, tempfile::tempdir().unwrap());
    let url = &server.url;

    let taken = push(SECRET, url, 1);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (said(&taken).as_str(), taken.stdout.as_slice()),
        ("", &b""[..])
    );
    let refused = said(&push("another secret", url, 2));
    assert!(
        refused.contains("Roadstead did not take the push")
            && refused.contains("the signature does not fit this project's secret"),
        "{refused}"
    );
    let unknown = said(&push(SECRET, &format!("{url}/nowhere"), 3));
    assert!(unknown.contains("404"), "{unknown}");
}
