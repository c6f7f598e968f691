//! A listener: one port of 127.0.0.1 whose requests go to target groups by weight.
//!
//! A request goes to one healthy target of the group whose turn it is; like AWS's, the balancer
//! does not try another one. 503 when that group has no healthy target, 502 when the target does
//! not answer in HTTP. Must not know: disk, the API.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::group::Group;
use super::http::{Body, Client, answer, serve};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// An open port.
pub(super) struct OpenListener {
    route: Arc<Route>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

struct Route {
    port: u16,
    client: Client,
    branches: Mutex<Vec<Branch>>,
}

/// A target group, its weight, and what it is owed.
pub(super) struct Branch {
    group: Arc<Group>,
    weight: i64,
    owed: i64,
}

impl Branch {
    pub(super) fn new(group: Arc<Group>, weight: u32) -> Self {
        Self {
            group,
            weight: weight.into(),
            owed: 0,
        }
    }
}

/// Takes a port of 127.0.0.1; 0 takes a free one.
pub(super) async fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

impl OpenListener {
    pub(super) fn start(socket: TcpListener, port: u16, client: Client) -> Self {
        let route = Arc::new(Route {
            port,
            client,
            branches: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let handler = {
            let route = Arc::clone(&route);
            move |request, peer| {
                let answer = Arc::clone(&route).answer(request, peer);
                async { Ok::<_, Infallible>(answer.await) }
            }
        };
        let server = tokio::spawn(serve(socket, stop.clone(), handler));
        Self {
            route,
            stop,
            server,
        }
    }

    /// Sends requests to `branches` from now on.
    pub(super) fn route_to(&self, branches: Vec<Branch>) {
        let mut current = self.route.lock_branches();
        let same = current.len() == branches.len()
            && current
                .iter()
                .zip(&branches)
                .all(|(old, new)| Arc::ptr_eq(&old.group, &new.group) && old.weight == new.weight);
        if !same {
            *current = branches;
        }
    }

    /// Closes the port; requests in flight may end.
    pub(super) async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.server.await {
            tracing::error!(%error, port = self.route.port, "listener ended badly");
        }
    }
}

impl Route {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let Some(group) = self.next_group() else {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "503 Service Temporarily Unavailable: the listener forwards to no target group\n",
            );
        };
        let Some(target) = group.pick() else {
            return plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "503 Service Temporarily Unavailable: no healthy target in target group {}\n",
                    group.name()
                ),
            );
        };
        let mut request = request.map(BodyExt::boxed_unsync);
        add_forwarded(&mut request, peer, self.port);
        match self.client.forward(request, target).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, %target, group = group.name(), "target did not answer");
                plain(
                    StatusCode::BAD_GATEWAY,
                    format!(
                        "502 Bad Gateway: target {target} of {} did not answer\n",
                        group.name()
                    ),
                )
            }
        }
    }

    /// Smooth weighted round robin: each group is owed its weight per request, the one owed most is
    /// next and pays the sum. Over any row of requests the shares are exact.
    fn next_group(&self) -> Option<Arc<Group>> {
        let mut branches = self.lock_branches();
        let total: i64 = branches.iter().map(|branch| branch.weight).sum();
        for branch in branches.iter_mut() {
            branch.owed += branch.weight;
        }
        let next = branches
            .iter_mut()
            .filter(|branch| branch.weight > 0)
            .reduce(|best, branch| {
                if branch.owed > best.owed {
                    branch
                } else {
                    best
                }
            })?;
        next.owed -= total;
        Some(Arc::clone(&next.group))
    }

    fn lock_branches(&self) -> std::sync::MutexGuard<'_, Vec<Branch>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_forwarded(request: &mut Request<Body>, peer: SocketAddr, port: u16) {
    let headers = request.headers_mut();
    let earlier = headers.get(&FORWARDED_FOR).and_then(|it| it.to_str().ok());
    let chain = earlier.map_or_else(
        || peer.ip().to_string(),
        |earlier| format!("{earlier}, {}", peer.ip()),
    );
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PORT, HeaderValue::from(port));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}

fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::records::HealthCheckSettings;

    fn group(name: &str) -> Arc<Group> {
        Arc::new(Group::new(name.to_owned(), HealthCheckSettings::default()))
    }

    #[test]
    fn requests_are_shared_by_weight() {
        let route = Route {
            port: 80,
            client: Client::new(),
            branches: Mutex::new(vec![
                Branch::new(group("blue"), 9),
                Branch::new(group("green"), 1),
                Branch::new(group("off"), 0),
            ]),
        };
        let picked: Vec<String> = (0..20)
            .map(|_| route.next_group().unwrap().name().to_owned())
            .collect();
        let count = |name: &str| picked.iter().filter(|it| *it == name).count();
        assert_eq!((count("blue"), count("green"), count("off")), (18, 2, 0));
    }
}
