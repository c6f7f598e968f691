//! The wire between an executor and AWS: hands each call on, knows which effect makes it, and cuts one.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A client without TLS: to set that up takes longer than all that many a story calls.
pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// A new one, for one runtime.
pub(crate) fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// When the executor dies, or what it never hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// It dies before the call reaches AWS.
    Before,
    /// It dies when the call has taken effect, before it hears of it.
    After,
    /// The call takes effect, the connection closes without an answer, and the executor lives on.
    ReplyLost,
    /// ECS says that what it was asked to describe is not there, as it may when it does not show all at once.
    Missing,
}

impl Moment {
    /// Whether a call of this operation can meet it.
    pub(crate) fn is_of(self, operation: &str) -> bool {
        match self {
            Self::Before | Self::After | Self::ReplyLost => true,
            Self::Missing => ["DescribeServices", "DescribeTasks"].contains(&operation),
        }
    }
}

/// Every moment.
pub(crate) const MOMENTS: [Moment; 4] = [
    Moment::Before,
    Moment::After,
    Moment::ReplyLost,
    Moment::Missing,
];

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

/// The calls of one try of an effect, in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Try {
    /// The effect's word.
    pub(crate) effect: String,
    /// AWS's names of them.
    pub(crate) calls: Vec<String>,
}

#[derive(Default)]
struct Turn {
    effect: Option<String>,
    calls: Vec<String>,
    seen: BTreeSet<Call>,
    tries: Vec<Try>,
    cut: Option<(At, Moment)>,
    /// What is cut in a later try, once that is.
    then: Option<(At, Moment)>,
    /// A call of this try was cut just now: `then` is not for this one.
    was_cut: bool,
    /// The effect whose call was cut first, and how many tries had ended then.
    first_cut: Option<(String, usize)>,
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
            _ if self.was_cut => false,
            Some((At::Call(at), _)) => *at == call,
            Some((At::Next(index), _)) => *index == call.index,
            None => false,
        };
        if is_it {
            self.was_cut = true;
            let tries = self.tries.len();
            self.first_cut
                .get_or_insert_with(|| (call.effect.clone(), tries));
        }
        self.seen.insert(call);
        if !is_it {
            return None;
        }
        let next = self.then.take();
        let cut = std::mem::replace(&mut self.cut, next);
        cut.map(|(_, moment)| moment)
    }
}

struct Inner {
    upstream: Uri,
    http: Http,
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
            upstream: upstream.parse().unwrap(),
            http: http(),
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
        turn.was_cut = false;
    }

    /// That try is over; the operations that it called.
    pub(crate) fn end(&self) -> Vec<String> {
        let mut turn = self.turn();
        let calls = std::mem::take(&mut turn.calls);
        if let Some(effect) = turn.effect.take() {
            let calls = calls.clone();
            turn.tries.push(Try { effect, calls });
        }
        calls
    }

    /// Cuts one call.
    pub(crate) fn cut(&self, at: At, moment: Moment) {
        self.turn().cut = Some((at, moment));
    }

    /// Cuts another call in a later try, once the first one was cut.
    pub(crate) fn then_cut(&self, call: Call, moment: Moment) {
        self.turn().then = Some((At::Call(call), moment));
    }

    /// Cuts nothing any more; whether there was still something to cut.
    pub(crate) fn heal(&self) -> bool {
        let mut turn = self.turn();
        let (first, second) = (turn.cut.take(), turn.then.take());
        first.is_some() || second.is_some()
    }

    /// Every try so far.
    pub(crate) fn tries(&self) -> Vec<Try> {
        self.turn().tries.clone()
    }

    /// The try that came after the one that was cut first, if there was one.
    pub(crate) fn second_try(&self) -> Option<Try> {
        let turn = self.turn();
        let (effect, before) = turn.first_cut.as_ref()?;
        let mut after = turn.tries.iter().skip(before + 1);
        after.find(|it| it.effect == *effect).cloned()
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
        if cut == Some(Moment::Missing) {
            let fault = json!({"operation": operation, "kind": "partial_failure"});
            let asked = Request::post(format!("{}_sandbox/faults", self.upstream));
            let asked = asked.body(Full::from(fault.to_string()));
            let asked = asked.map_err(io::Error::other)?;
            self.http.request(asked).await.map_err(io::Error::other)?;
        }
        let mut asked = Request::new(Full::new(body));
        *asked.method_mut() = head.method;
        *asked.uri_mut() = self.upstream.clone();
        *asked.headers_mut() = head.headers;
        for own in ["host", "content-length", "transfer-encoding"] {
            asked.headers_mut().remove(own);
        }
        let answer = self.http.request(asked).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        match cut {
            Some(Moment::After) => return self.die().await,
            Some(Moment::ReplyLost) => return Err(io::Error::other("the reply is lost")),
            Some(Moment::Before | Moment::Missing) | None => {}
        }
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        for own in ["content-length", "transfer-encoding", "connection"] {
            response.headers_mut().remove(own);
        }
        Ok(response)
    }

    /// Says so, and never answers.
    async fn die<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }
}
