//! What both proxies share: bodies that stream, a server loop, a forwarding client.
//!
//! Nothing here buffers a body. Connections to upstreams are not reused: an upstream may close one
//! at the moment that it is picked, and on one machine a new connection costs next to nothing.
//! Must not know: registries, target groups.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A body of either direction.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// How long requests in flight may go on when a listener closes.
const GRACE: Duration = Duration::from_secs(5);

/// Headers that concern one connection only (RFC 9110, 7.6.1), and `Expect`, which each side of a
/// proxy answers for itself.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Speaks HTTP/1.1 to upstreams on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpConnector, Body>);

/// An upstream did not answer in HTTP.
pub(crate) type ClientError = hyper_util::client::legacy::Error;

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        Self(
            hyper_util::client::legacy::Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
        )
    }

    /// Sends a request as it is.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.0.request(request).await
    }

    /// Passes a request on to `upstream`, a `host:port`, and its answer back, both without hop-by-hop headers. The
    /// `Host` that the client sent is kept.
    pub(crate) async fn forward(
        &self,
        mut request: Request<Body>,
        upstream: impl Display,
    ) -> Result<Response<Body>, ClientError> {
        let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
        let uri = Uri::builder()
            .scheme("http")
            .authority(upstream.to_string())
            .path_and_query(path)
            .build();
        if let Ok(uri) = uri {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_11;
        strip_hop_by_hop(request.headers_mut());
        let mut response = self.send(request).await?.map(BodyExt::boxed_unsync);
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A body that is there as a whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A short answer of the proxy itself.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Answers requests with `handler` until `stop`, then closes the port and gives requests in flight
/// a few seconds. A handler that fails closes its connection without an answer.
pub(crate) async fn serve<Handler, Answer, Failure>(
    listener: TcpListener,
    stop: CancellationToken,
    handler: Handler,
) where
    Handler: Fn(Request<Incoming>, SocketAddr) -> Answer + Clone + Send + 'static,
    Answer: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
    Failure: std::error::Error + Send + Sync + 'static,
{
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually no file descriptors left: accepting again at once would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Nothing is lost without it but some latency.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| handler(request, peer));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("closed a listener with requests in flight");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("x-kept", "1"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }
}
