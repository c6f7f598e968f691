//! A server as people run it, and the command line against it.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

pub(crate) const ADMIN_PASSWORD: &str = "the configured one";

/// A server on an empty database, ended with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with("", tempfile::tempdir().unwrap())
    }

    /// With a configuration, and what is in the folder's `data` already.
    pub(crate) fn start_with(configuration: &str, folder: TempDir) -> Self {
        let config = folder.path().join("roadstead.toml");
        std::fs::write(&config, configuration).unwrap();
        let log = std::fs::File::create(folder.path().join("server.log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["server", "--config"])
            .arg(&config)
            .env("ROADSTEAD__HTTP__LISTEN", "127.0.0.1:0")
            .env("ROADSTEAD__DATA", folder.path().join("data"))
            .env("ROADSTEAD__ADMIN__PASSWORD", ADMIN_PASSWORD)
            .env("ROADSTEAD__AWS__ENDPOINT_URL", "http://127.0.0.1:9")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ready = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.strip_prefix("server ready on ")?.to_owned())
        });
        let Some(url) = ready.take() else {
            let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
            panic!("the server ended: {log}");
        };
        Self { child, url, folder }
    }

    pub(crate) fn run(&self, token: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(arguments)
            .env("ROADSTEAD_URL", &self.url)
            .env("ROADSTEAD_TOKEN", token)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What a command prints that has to succeed.
    pub(crate) fn text(&self, token: &str, arguments: &[&str]) -> String {
        let output = self.run(token, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, token: &str, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.text(token, &arguments)).unwrap()
    }

    /// Status and standard error of a command that has to fail.
    pub(crate) fn refused(&self, token: &str, arguments: &[&str]) -> (i32, String) {
        let output = self.run(token, arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An API token, as its owner makes it after signing in.
pub(crate) async fn token_of(url: &str, name: &str, password: &str, role: &str) -> String {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let answer = http
        .post(format!("{url}/login"))
        .form(&[("user", name), ("password", password)])
        .send()
        .await
        .unwrap();
    let set = answer.headers()["set-cookie"].to_str().unwrap();
    let session = set.split(';').next().unwrap().to_owned();
    let made: Value = http
        .post(format!("{url}/api/v1/tokens"))
        .header("cookie", session)
        .json(&serde_json::json!({"name": "first", "role": role}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    made["token"].as_str().unwrap().to_owned()
}
