//! What an embedder decides about a sandbox before it starts.
//!
//! Owns: addresses, the data directory, the backend, the account's identity. Must not know: any
//! room that uses these values.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

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

/// Where a registry runs that somebody else started: `http://HOST:PORT`, nothing behind it. Plain
/// HTTP, because it is meant to be on this machine or on its containers' network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAddress(String);

impl RegistryAddress {
    /// `HOST:PORT`.
    pub(crate) fn authority(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for RegistryAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || format!("`{text}` is no `http://HOST:PORT`");
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|_| plain).ok_or_else(refused)?;
        // With `user@` in front it would be no `HOST:PORT` any more.
        if authority.as_str().contains('@') || authority.port_u16().is_none() {
            return Err(refused());
        }
        Ok(Self(authority.to_string()))
    }
}

/// The settings of one sandbox.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where every AWS service answers. Port 0 takes a free one; the log names it.
    pub listen: SocketAddr,
    /// Where the registry behind ECR answers.
    pub registry_listen: SocketAddr,
    /// A registry that runs elsewhere and keeps the images, asks for no credentials and may delete.
    /// Without one the sandbox starts its own as a child process.
    pub registry_upstream: Option<RegistryAddress>,
    /// Where state, logs and images are kept; created when absent. One sandbox per directory.
    pub data: PathBuf,
    /// What runs tasks.
    pub backend: BackendKind,
    /// How many times faster than AWS the sandbox's own waits pass; 1.0 is AWS's pace.
    pub time_scale: f64,
    /// Time stands still until `POST /_sandbox/clock` lets it pass. For the simulated backend at
    /// AWS's pace alone.
    pub virtual_clock: bool,
    /// For the simulated backend: what identifiers and chances of scripts are drawn from; None: the
    /// operating system. The
    /// same calls with the same seed have the same answers, in virtual time to the byte.
    pub seed: Option<u64>,
    /// What the sandbox would have to ignore is ignored and told in its log, not refused.
    pub lenient: bool,
    /// The call log keeps what was answered, too.
    pub record_answers: bool,
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
            registry_upstream: None,
            data: data.into(),
            backend: BackendKind::Docker,
            time_scale: 1.0,
            virtual_clock: false,
            seed: None,
            lenient: false,
            record_answers: false,
            strict_breaker: false,
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// Refuses settings that contradict each other.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.virtual_clock || self.backend == BackendKind::Simulated,
            "a virtual clock needs the simulated backend: containers live in real time"
        );
        anyhow::ensure!(
            !self.virtual_clock || self.time_scale.total_cmp(&1.0).is_eq(),
            "a virtual clock has no time scale: it passes as fast as its events can be worked \
             through"
        );
        anyhow::ensure!(
            self.seed.is_none() || self.backend == BackendKind::Simulated,
            "a seed needs the simulated backend: containers are named by identifiers, which must \
             never come again"
        );
        Ok(())
    }

    /// An ARN of this account: `arn:aws:<service>:<region>:<account>:<resource>`.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!(
            "arn:aws:{service}:{}:{}:{resource}",
            self.region, self.account
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_elsewhere_is_an_address_and_nothing_more() {
        for (text, authority) in [
            ("http://127.0.0.1:4571", "127.0.0.1:4571"),
            ("http://registry:5000/", "registry:5000"),
            ("http://[::1]:5000", "[::1]:5000"),
        ] {
            let address: RegistryAddress = text.parse().unwrap();
            assert_eq!(address.authority(), authority);
        }
        for text in [
            "127.0.0.1:4571",
            "https://registry:5000",
            "http://registry",
            "http://registry:5000/v2/",
            "http://registry:5000/?x",
            "http://user:secret@registry:5000",
            "",
        ] {
            let refused = text.parse::<RegistryAddress>().unwrap_err();
            assert!(refused.contains("http://HOST:PORT"), "{text}: {refused}");
        }
    }
}
