//! The wire between an executor and AWS: hands each call on, knows which effect makes it, and cuts one.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// When the executor dies, or what it never hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// It dies before the call reaches AWS.
    Before,
    /// It dies when the call has taken effect, before it hears of it.
    After,
    /// The call takes effect, the connection closes without an answer, and the executor lives on.
    ReplyLost,
}

/// Every moment.
pub(crate) const MOMENTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::ReplyLost];

/// One call of an effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    /// The effect's word.
    pub(crate) effect: String,
    /// How many calls of the same try come before it.
    pub(crate) index: usize,
    /// AWS's name of it.
    pub(crate) operation: String,
}

/// The call to cut, the first of its kind.
#[derive(Debug, Clone)]
pub(crate) enum At {
    Call(Call),
    /// The next effect's call at this place, whatever it is.
    Next(usize),
}

#[derive(Default)]
struct Turn {
    effect: Option<String>,
    calls: Vec<String>,
    seen: BTreeSet<Call>,
    cut: Option<(At, Moment)>,
}

impl Turn {
    /// Counts a call; whether it is the one to cut.
    fn take(&mut self, operation: &str) -> Option<Moment> {
        let effect = self.effect.clone()?;
        let call = Call {
            effect,
            index: self.calls.len(),
            operation: operation.to_owned(),
        };
        self.calls.push(operation.to_owned());
        let is_it = match &self.cut {
            Some((At::Call(at), _)) => *at == call,
            Some((At::Next(index), _)) => *index == call.index,
            None => false,
        };
        self.seen.insert(call);
        if is_it {
            return self.cut.take().map(|(_, moment)| moment);
        }
        None
    }
}

struct Inner {
    upstream: String,
    http: reqwest::Client,
    turn: Mutex<Turn>,
    died: Notify,
}

/// A proxy in front of a sandbox.
pub(crate) struct Wire {
    /// Where the executor calls.
    pub(crate) endpoint: String,
    inner: Arc<Inner>,
    serving: JoinHandle<()>,
}

impl Wire {
    pub(crate) async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            upstream: upstream.to_owned(),
            http: reqwest::Client::new(),
            turn: Mutex::default(),
            died: Notify::new(),
        });
        let served = inner.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let inner = served.clone();
                let answer = service_fn(move |request| {
                    let inner = inner.clone();
                    async move { inner.hand_on(request).await }
                });
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // A line that was cut is what this is for.
                    drop(http.serve_connection(TokioIo::new(stream), answer).await);
                });
            }
        });
        Self {
            endpoint,
            inner,
            serving,
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.inner.turn()
    }

    /// The calls that follow are those of a try of this effect.
    pub(crate) fn begin(&self, effect: &str) {
        let mut turn = self.turn();
        turn.effect = Some(effect.to_owned());
        turn.calls.clear();
    }

    /// That try is over; the operations that it called.
    pub(crate) fn end(&self) -> Vec<String> {
        let mut turn = self.turn();
        turn.effect = None;
        std::mem::take(&mut turn.calls)
    }

    /// Cuts one call.
    pub(crate) fn cut(&self, at: At, moment: Moment) {
        self.turn().cut = Some((at, moment));
    }

    /// Cuts nothing any more; whether there was still something to cut.
    pub(crate) fn heal(&self) -> bool {
        self.turn().cut.take().is_some()
    }

    /// Every call that effects made so far.
    pub(crate) fn seen(&self) -> BTreeSet<Call> {
        self.turn().seen.clone()
    }

    /// Returns when the executor has to die.
    pub(crate) async fn died(&self) {
        self.inner.died.notified().await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Inner {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error closes the connection without an answer.
    async fn hand_on(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let target = head.headers.get("x-amz-target");
        let target = target.and_then(|it| it.to_str().ok()).unwrap_or_default();
        // What is not JSON is looked at only, by the observer, which does not come this way.
        let operation = target.rsplit('.').next().unwrap_or_default();
        let cut = self.turn().take(operation);
        if cut == Some(Moment::Before) {
            return self.die().await;
        }
        let mut headers = head.headers;
        for own in ["host", "content-length", "transfer-encoding"] {
            headers.remove(own);
        }
        let asked = self.http.request(head.method, &self.upstream);
        let answer = asked.headers(headers).body(body).send().await;
        let answer = answer.map_err(io::Error::other)?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for own in ["content-length", "transfer-encoding", "connection"] {
            headers.remove(own);
        }
        let body = answer.bytes().await.map_err(io::Error::other)?;
        match cut {
            Some(Moment::After) => return self.die().await,
            Some(Moment::ReplyLost) => return Err(io::Error::other("the reply is lost")),
            Some(Moment::Before) | None => {}
        }
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Says so, and never answers.
    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }
}
