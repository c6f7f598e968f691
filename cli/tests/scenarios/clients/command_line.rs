//! The AWS command line, a process for each call.

use crate::look::Caller;
use crate::python;
use serde_json::Value;
use tokio::process::Command;

/// The version that the scenarios were written for.
const AWS_CLI: &str = "awscli==1.46.3";

pub(crate) struct CommandLine {
    endpoint: String,
    /// The environment's `bin/python`.
    python: std::path::PathBuf,
}

impl CommandLine {
    pub(crate) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            python: python::environment(AWS_CLI),
        }
    }
}

/// `UpdateService` as the command line has it: `update-service`.
fn hyphenated(operation: &str) -> String {
    let mut name = String::new();
    for letter in operation.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// A call of a process that knows the sandbox as AWS.
pub(crate) fn environment(command: &mut Command, endpoint: &str) {
    command
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ACCESS_KEY_ID", "sandbox")
        .env("AWS_SECRET_ACCESS_KEY", "sandbox")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_PAGER", "");
}

impl Caller for CommandLine {
    async fn call(&mut self, operation: &str, input: Value) -> Value {
        let mut aws = Command::new(&self.python);
        environment(&mut aws, &self.endpoint);
        let answer = aws
            .arg("-B")
            .arg(self.python.with_file_name("aws"))
            .args(["ecs", &hyphenated(operation), "--output", "json"])
            .args(["--cli-input-json", &input.to_string()])
            .output()
            .await
            .unwrap();
        python::check(operation, &answer);
        serde_json::from_slice(&answer.stdout).unwrap()
    }
}
