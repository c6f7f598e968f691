//! What an embedder decides about a sandbox before it starts.
//!
//! Owns: addresses, the data directory, the backend, the account's identity. Must not know: any
//! room that uses these values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// How tasks become something that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Containers on the local Docker Engine.
    Docker,
    /// Scripted tasks: nothing runs, container labels say what would have happened.
    Simulated,
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "docker" => Ok(Self::Docker),
            "simulated" => Ok(Self::Simulated),
            other => Err(format!(
                "unknown backend `{other}`: use `docker` or `simulated`"
            )),
        }
    }
}

/// The settings of one sandbox.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where every AWS service answers. Port 0 takes a free one; the log names it.
    pub listen: SocketAddr,
    /// Where the registry behind ECR answers.
    pub registry_listen: SocketAddr,
    /// Where state, logs and images are kept; created when absent. One sandbox per directory.
    pub data: PathBuf,
    /// What runs tasks.
    pub backend: BackendKind,
    /// How many times faster than AWS the sandbox's own waits pass; 1.0 is AWS's pace.
    pub time_scale: f64,
    /// The circuit breaker also counts tasks that exit after RUNNING without a health check,
    /// which AWS does not.
    pub strict_breaker: bool,
    /// The twelve-digit account in every ARN.
    pub account: String,
    /// The Region in every ARN.
    pub region: String,
}

impl Config {
    /// The defaults of `roadstead sandbox` with its state in `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            listen: local(4566),
            registry_listen: local(4570),
            data: data.into(),
            backend: BackendKind::Docker,
            time_scale: 1.0,
            strict_breaker: false,
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// An ARN of this account: `arn:aws:<service>:<region>:<account>:<resource>`.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!(
            "arn:aws:{service}:{}:{}:{resource}",
            self.region, self.account
        )
    }
}
