//! The registry that really keeps the images: a child of this process, or one that runs elsewhere.
//!
//! Invariant: it answered once before anything is said to be ready. Must not know: repositories,
//! tokens.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, StatusCode};

use super::process::RegistryProcess;
use crate::config::RegistryAddress;
use crate::proxy::http::{Client, full};

/// Who keeps the images.
pub(super) enum Upstream {
    /// A child process; its storage lies in the sandbox's own directory.
    Child(RegistryProcess),
    /// Somebody else's process, reached by its API alone.
    Elsewhere(RegistryAddress),
}

impl Upstream {
    /// Starts the child with its images in `directory`, or waits for `elsewhere` to answer, at most
    /// for `limit`.
    pub(super) async fn start(
        elsewhere: Option<&RegistryAddress>,
        directory: &Path,
        client: &Client,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let Some(address) = elsewhere else {
            return Ok(Self::Child(RegistryProcess::start(directory).await?));
        };
        wait_until_open(address, client, limit).await?;
        Ok(Self::Elsewhere(address.clone()))
    }

    /// `host:port` where it answers now; a child that had to be started again has another one.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Child(process) => process.address().to_string(),
            Self::Elsewhere(address) => address.authority().to_owned(),
        }
    }

    /// Ends a child and waits until it is gone; what runs elsewhere goes on.
    pub(super) async fn shut_down(&self) {
        match self {
            Self::Child(process) => process.shut_down().await,
            Self::Elsewhere(_) => {}
        }
    }
}

/// A registry that has just been started takes a moment; one that asks for credentials would refuse
/// every push later on, far from the cause.
async fn wait_until_open(
    address: &RegistryAddress,
    client: &Client,
    limit: Duration,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let request = Request::get(format!("{address}/v2/")).body(full(Bytes::new()))?;
        let sent = tokio::time::timeout_at(deadline, client.send(request)).await;
        let seen = match sent.map(|answer| answer.map(|it| it.status())) {
            Ok(Ok(StatusCode::OK)) => return Ok(()),
            Ok(Ok(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => anyhow::bail!(
                "the registry at {address} asks for credentials; the sandbox checks tokens itself \
                 and needs one behind it that asks for none"
            ),
            Ok(Ok(status)) => format!("its last answer was {status}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes connections and says nothing".to_owned(),
        };
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "no registry answers at {address} within {} s ({seen}); start one there, or leave out \
             --registry-upstream to have the sandbox start its own",
            limit.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
