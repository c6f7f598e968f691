//! Tells apart what a registry answers: down for now, or a plain no.
//!
//! Docker Engine passes a registry's trouble on as text, so texts are all there is to go by. Owns
//! that reading and the tries that follow from it.

use crate::{client::Backoff, logs::StepLog};
use std::{io, time::Duration};

/// How long a registry that does not answer is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether a second try may go better.
pub(crate) fn is_transient(message: &str) -> bool {
    const SIGNS: [&str; 16] = [
        "connection refused",
        "connection reset",
        "broken pipe",
        "i/o timeout",
        "tls handshake timeout",
        "timeout exceeded",
        "deadline exceeded",
        "no such host",
        "no route to host",
        "network is unreachable",
        "temporary failure",
        "server misbehaving",
        "unexpected eof",
        ": eof",
        "toomanyrequests",
        "received unexpected http status: 5",
    ];
    let message = message.to_lowercase();
    SIGNS.iter().any(|sign| message.contains(sign))
}

/// Whether the registry did not accept the login.
pub(crate) fn is_refused_login(message: &str) -> bool {
    let message = message.to_lowercase();
    [
        "unauthorized",
        "authorization token has expired",
        "no basic auth credentials",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// Tries of one call to a registry.
pub(crate) struct RegistryTries(Backoff);

impl RegistryTries {
    pub(crate) fn new() -> Self {
        Self(Backoff::new(PATIENCE))
    }

    /// Tells the log and waits; false when it is time to give up.
    pub(crate) async fn again(
        &mut self,
        log: &StepLog,
        what: &str,
        message: &str,
    ) -> io::Result<bool> {
        let Some(pause) = self.0.next_pause() else {
            return Ok(false);
        };
        let seconds = pause.as_secs_f64();
        log.line(&format!(
            "{what}: {message}; trying again in {seconds:.1} s"
        ))
        .await?;
        tokio::time::sleep(pause).await;
        Ok(true)
    }
}

/// An image's name with a tag or digest: without one Docker Engine would pull every tag.
pub(crate) fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_from_a_no() {
        for message in [
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "received unexpected HTTP status: 503 Service Unavailable",
            "Get https://registry.example/v2/: net/http: TLS handshake timeout",
            "Head \"http://127.0.0.1:1/v2/\": EOF",
        ] {
            assert!(is_transient(message), "{message}");
        }
        for message in [
            "unauthorized: authentication required",
            "denied: requested access to the resource is denied",
            "name unknown: The repository with name 'shop' does not exist",
        ] {
            assert!(!is_transient(message), "{message}");
        }
        assert!(is_refused_login("unauthorized: authentication required"));
        assert!(!is_refused_login("connection refused"));
    }

    #[test]
    fn a_name_without_a_tag_means_latest() {
        assert_eq!(with_tag("alpine"), "alpine:latest");
        assert_eq!(
            with_tag("127.0.0.1:5000/shop"),
            "127.0.0.1:5000/shop:latest"
        );
        assert_eq!(with_tag("127.0.0.1:5000/shop:v1"), "127.0.0.1:5000/shop:v1");
        assert_eq!(with_tag("shop@sha256:00"), "shop@sha256:00");
    }
}
