//! boto3, in a process of its own that makes one call for each line it reads.

use crate::look::Caller;
use crate::python;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub(crate) struct Boto3 {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Boto3 {
    pub(crate) fn new(endpoint: &str) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/scenarios/clients/call_by_call.py"
        );
        let mut child = Command::new(python::python())
            .args(["-B", script, endpoint])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }
}

impl Caller for Boto3 {
    async fn call(&mut self, operation: &str, input: Value) -> Value {
        let line = format!("{}\n", json!({"operation": operation, "input": input}));
        self.input.write_all(line.as_bytes()).await.unwrap();
        let line = self.output.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("boto3 ended at {operation}"));
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer["error"].is_null(), "{operation}: {answer}");
        answer
    }
}
