//! Connections to Docker Engine that become gRPC: one on which we call, one on which we are called.
//!
//! Owns the upgrade of an HTTP/1.1 call and what it takes to call through what comes of it. Knows nothing
//! of BuildKit.

use crate::engine_address::EngineAddress;
use anyhow::{Context, bail};
use bollard::ClientVersion;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::{http1, http2},
    header,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    pin::Pin,
    task::{Context as Waker, Poll},
};
use tonic::{body::Body, codegen::Service};

/// Longest refusal that is read, in bytes.
const REFUSAL_BYTES: usize = 64 << 10;

/// The way to one engine.
#[derive(Debug, Clone)]
pub(super) struct Door {
    address: EngineAddress,
    version: ClientVersion,
}

impl Door {
    /// To the engine at `address`, in the version of its interface that was agreed on.
    pub(super) fn new(address: EngineAddress, version: ClientVersion) -> Self {
        Self { address, version }
    }

    /// Calls `path` with `headers` and gives the connection, which then speaks HTTP/2.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> anyhow::Result<Upgraded> {
        let what = || format!("cannot open {path} of Docker Engine");
        let stream = self.address.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .with_context(what)?;
        // Ends with the upgrade, or when `sender` is dropped.
        tokio::spawn(connection.with_upgrades());
        let ClientVersion {
            major_version,
            minor_version,
        } = self.version;
        let mut request = Request::post(format!("/v{major_version}.{minor_version}{path}"))
            .header(header::HOST, "docker")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "h2c");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).with_context(what)?;
        let response = sender.send_request(request).await.with_context(what)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return refused(response).await.with_context(what);
        }
        hyper::upgrade::on(response).await.with_context(what)
    }
}

async fn refused(response: Response<Incoming>) -> anyhow::Result<Upgraded> {
    let status = response.status();
    let words = Limited::new(response.into_body(), REFUSAL_BYTES)
        .collect()
        .await
        .map(|words| words.to_bytes())
        .unwrap_or_default();
    bail!(
        "it answers {status}: {}",
        String::from_utf8_lossy(&words).trim()
    )
}

/// Sends the calls of a gRPC client into one connection.
#[derive(Clone)]
pub(super) struct Calls(http2::SendRequest<Body>);

impl Calls {
    /// Begins HTTP/2 on `connection`; the future moves its bytes and ends with it.
    pub(super) async fn begin(
        connection: Upgraded,
    ) -> anyhow::Result<(Self, impl Future<Output = hyper::Result<()>>)> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), connection)
            .await
            .context("cannot speak HTTP/2 with Docker Engine")?;
        Ok((Self(sender), connection))
    }
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, waker: &mut Waker<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(waker)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
