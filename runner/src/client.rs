//! Calls the server: one method per call of the protocol.
//!
//! Owns credentials on the wire, what an answer means and how often a call is tried again. Knows
//! nothing of steps or containers. Credentials never reach a log or an error's text.

mod goodbye;

use crate::secret::Secret;
use anyhow::Context;
use bytes::Bytes;
use rand::RngExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use roadstead_protocol::{
    ArtifactOffered, ArtifactSent, ArtifactsOffered, AttemptRef, AttemptResult, COMMIT_HEADER,
    CacheAnswer, CacheKept, CacheSent, CacheWanted, Heartbeat, HeartbeatReply, INDEX_BYTES_HEADER,
    LOG_OFFSET_HEADER, LogSeal, PACK_HEADER, POLL_SECONDS, Poll, PollReply, Problem, Register,
    Registered, RegistryCredentials, Secrets, StepReport, TestReport,
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::{Duration, Instant};

/// How long one short call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing may arrive while sources stream in.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest that an artifact may travel, in bytes a second: below 100 kB/s it is sent anew.
const SLOWEST_UPLOAD: u64 = 100_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long results, step states and logs are offered to a server that does not answer.
pub(crate) const RESULT_PATIENCE: Duration = Duration::from_secs(3600);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// 409: the lease is lost or the attempt has ended.
    #[error("the attempt is no longer this runner's: {0}")]
    Lost(String),
    /// 401: the credential is not (or no longer) known.
    #[error("the server does not accept the credential: {0}")]
    Unauthorized(String),
    /// 412 or 416: the server goes on at another byte of the log.
    #[error("the server's log goes on at byte {0}")]
    Offset(u64),
    /// Another refusal that a second try would meet again.
    #[error("the server refused with {status}: {message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The server's words.
        message: String,
    },
    /// 429 or 503 with `Retry-After`: the server answers, and has no turn for this call yet.
    #[error("the server wants to be asked later: {message}")]
    Later {
        /// The server's words.
        message: String,
        /// Not sooner than after this time; at most [`LONGEST_PAUSE`] is heeded.
        after: Duration,
    },
    /// No usable answer; a second try may get one.
    #[error("the server did not answer: {0}")]
    Unreachable(String),
}

impl CallError {
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Later { .. })
    }

    /// How long the server wants to be left alone.
    fn asked_pause(&self) -> Duration {
        match self {
            Self::Later { after, .. } => (*after).min(LONGEST_PAUSE),
            _ => Duration::ZERO,
        }
    }
}

/// Pauses between tries: they double, with some chance in them so that runners do not knock in step.
pub(crate) struct Backoff {
    pause: Duration,
    until: Instant,
}

impl Backoff {
    /// Tries for at most `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            pause: FIRST_PAUSE,
            until: Instant::now() + patience,
        }
    }

    /// The next pause after an error, at least what the server asks for; `None` when patience is at its
    /// end.
    pub(crate) fn next_pause_after(&mut self, error: &CallError) -> Option<Duration> {
        Some(self.next_pause()?.max(error.asked_pause()))
    }

    /// The next pause, or `None` when patience is at its end.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        if Instant::now() >= self.until {
            return None;
        }
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// Runs `call` until it brings an answer or a refusal, for at most `patience`.
pub(crate) async fn retry<T, F>(
    patience: Duration,
    mut call: impl FnMut() -> F,
) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut backoff = Backoff::new(patience);
    loop {
        match call().await {
            Err(error) if error.is_transient() => match backoff.next_pause_after(&error) {
                Some(pause) => {
                    tracing::debug!(%error, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            },
            other => return other,
        }
    }
}

/// The runner's side of the protocol.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// For large bodies: while one is on its way, nothing arrives.
    uploads: reqwest::Client,
    base: Url,
}

impl Client {
    /// Speaks to the server at `base`, whose path may have a prefix.
    pub(crate) fn new(base: &Url) -> anyhow::Result<Self> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("roadstead-runner/", env!("CARGO_PKG_VERSION")))
        };
        let failed = "cannot set up the HTTP client";
        let http = builder().read_timeout(READ_TIMEOUT).build();
        let uploads = builder().build();
        anyhow::ensure!(
            !base.cannot_be_a_base() && matches!(base.scheme(), "http" | "https"),
            "the server's address {base} must begin with http:// or https://"
        );
        Ok(Self {
            http: http.context(failed)?,
            uploads: uploads.context(failed)?,
            base: base.clone(),
        })
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(["runner", "v1"])
                .extend(segments);
        }
        url
    }

    fn request(&self, method: Method, url: Url, token: &Secret) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(token.expose())
    }

    /// Trades the registration token for a credential of this runner's own.
    pub(crate) async fn register(&self, register: &Register) -> Result<Registered, CallError> {
        let request = self
            .http
            .post(self.url(&["register"]))
            .timeout(CALL_TIMEOUT)
            .json(register);
        read(request).await
    }

    /// Waits for work, at most [`POLL_SECONDS`] and a margin.
    pub(crate) async fn poll(
        &self,
        credential: &Secret,
        poll: &Poll,
    ) -> Result<PollReply, CallError> {
        let wait = Duration::from_secs(POLL_SECONDS) + CALL_TIMEOUT;
        read(
            self.request(Method::POST, self.url(&["poll"]), credential)
                .timeout(wait)
                .json(poll),
        )
        .await
    }

    /// Says that attempts are alive.
    pub(crate) async fn heartbeat(
        &self,
        credential: &Secret,
        running: Vec<AttemptRef>,
    ) -> Result<HeartbeatReply, CallError> {
        let request = self
            .request(Method::POST, self.url(&["heartbeat"]), credential)
            .timeout(CALL_TIMEOUT)
            .json(&Heartbeat { running });
        read(request).await
    }

    /// The calls of one attempt.
    pub(crate) fn attempt(&self, attempt: AttemptRef, token: Secret) -> AttemptClient {
        AttemptClient {
            client: self.clone(),
            attempt,
            token,
        }
    }
}

/// Which objects of a commit are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// All, in a pack as the server stores it if it has one.
    Everything,
    /// What this commit, whose objects are all here, does not have.
    Since(&'a str),
    /// What a stored pack lacks.
    Beside(&'a str),
}

/// A pack on its way.
pub(crate) struct Sent {
    /// The commit that the server says it belongs to.
    pub(crate) tip: Option<String>,
    /// Name of the stored pack and bytes of the index before it; `None` when it is an ordinary pack.
    pub(crate) stored: Option<(String, u64)>,
    pub(crate) body: Response,
}

/// The calls of one attempt, made with its own token.
#[derive(Clone)]
pub(crate) struct AttemptClient {
    client: Client,
    attempt: AttemptRef,
    token: Secret,
}

impl AttemptClient {
    pub(crate) fn fence(&self) -> u64 {
        self.attempt.fence
    }

    pub(crate) fn id(&self) -> &str {
        &self.attempt.attempt
    }

    fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        let mut path = vec!["attempts", self.id()];
        path.extend(segments);
        self.client
            .request(method, self.client.url(&path), &self.token)
    }

    /// Takes the assignment.
    pub(crate) async fn accept(&self) -> Result<(), CallError> {
        done(
            self.request(Method::POST, &["accept"])
                .timeout(CALL_TIMEOUT),
        )
        .await
    }

    /// Asks for the commit's objects. The answer is still streaming.
    pub(crate) async fn sources(&self, wanted: Wanted<'_>) -> Result<Sent, CallError> {
        let request = self.request(Method::GET, &["sources"]);
        let request = match wanted {
            Wanted::Everything => request.query(&[("stored", "true")]),
            Wanted::Since(commit) => request.query(&[("have", commit)]),
            Wanted::Beside(pack) => request.query(&[("beside", pack)]),
        };
        let response = send(request).await?;
        let index_bytes = header(&response, INDEX_BYTES_HEADER).and_then(|text| text.parse().ok());
        let stored = header(&response, PACK_HEADER).zip(index_bytes);
        Ok(Sent {
            tip: header(&response, COMMIT_HEADER),
            stored,
            body: response,
        })
    }

    /// A login for the registry that images are pushed to.
    pub(crate) async fn registry_credentials(&self) -> Result<RegistryCredentials, CallError> {
        read(
            self.request(Method::GET, &["registry-credentials"])
                .timeout(CALL_TIMEOUT),
        )
        .await
    }

    /// The secrets that the attempt's steps name.
    pub(crate) async fn secrets(&self) -> Result<Secrets, CallError> {
        read(
            self.request(Method::GET, &["secrets"])
                .query(&[("fence", self.fence())])
                .timeout(CALL_TIMEOUT),
        )
        .await
    }

    /// Tells how a step stands.
    pub(crate) async fn report_step(
        &self,
        step: &str,
        report: &StepReport,
    ) -> Result<(), CallError> {
        done(
            self.request(Method::PUT, &["steps", step])
                .timeout(CALL_TIMEOUT)
                .json(report),
        )
        .await
    }

    /// Sends bytes of a step's log that begin at `offset`.
    pub(crate) async fn append_log(
        &self,
        step: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), CallError> {
        let request = self
            .request(Method::PATCH, &["steps", step, "log"])
            .query(&[("offset", offset)])
            .header("content-type", "application/octet-stream")
            .timeout(CALL_TIMEOUT)
            .body(bytes);
        done(request).await
    }

    /// Closes a step's log.
    pub(crate) async fn seal_log(&self, step: &str, seal: &LogSeal) -> Result<(), CallError> {
        let request = self
            .request(Method::POST, &["steps", step, "log", "seal"])
            .timeout(CALL_TIMEOUT)
            .json(seal);
        done(request).await
    }

    /// Sends a file that a step left to be kept.
    pub(crate) async fn put_artifact(
        &self,
        step: &str,
        sent: &ArtifactSent,
        body: reqwest::Body,
    ) -> Result<(), CallError> {
        done(self.upload(&["steps", step, "artifact"], sent, sent.length, body)).await
    }

    /// Which artifacts of earlier jobs a step gets.
    pub(crate) async fn artifacts_for(&self, step: &str) -> Result<ArtifactsOffered, CallError> {
        read(
            self.request(Method::GET, &["steps", step, "artifacts"])
                .timeout(CALL_TIMEOUT),
        )
        .await
    }

    /// The bytes of one of them, still streaming.
    pub(crate) async fn artifact(
        &self,
        step: &str,
        artifact: &ArtifactOffered,
    ) -> Result<Response, CallError> {
        let mut path = vec!["steps", step, "artifacts", &artifact.step];
        path.extend(artifact.name.split('/'));
        send(self.request(Method::GET, &path)).await
    }

    /// Which cache there is for a step.
    pub(crate) async fn cache_for(
        &self,
        step: &str,
        cache: &str,
        wanted: &CacheWanted,
    ) -> Result<CacheAnswer, CallError> {
        read(
            self.request(Method::GET, &["steps", step, "caches", cache])
                .query(wanted)
                .timeout(CALL_TIMEOUT),
        )
        .await
    }

    /// The bytes of one, still streaming.
    pub(crate) async fn cache(
        &self,
        step: &str,
        cache: &str,
        id: &str,
        wanted: &CacheWanted,
    ) -> Result<Response, CallError> {
        let path = ["steps", step, "caches", cache, id];
        send(self.request(Method::GET, &path).query(wanted)).await
    }

    /// Sends what a step left to be found by later runs.
    pub(crate) async fn put_cache(
        &self,
        step: &str,
        cache: &str,
        sent: &CacheSent,
        body: reqwest::Body,
    ) -> Result<CacheKept, CallError> {
        let path = ["steps", step, "caches", cache];
        read(self.upload(&path, sent, sent.length, body)).await
    }

    /// A large body.
    fn upload(
        &self,
        segments: &[&str],
        told: &impl Serialize,
        length: u64,
        body: reqwest::Body,
    ) -> RequestBuilder {
        let mut path = vec!["attempts", self.id()];
        path.extend(segments);
        let request = self.client.uploads.put(self.client.url(&path));
        request
            .bearer_auth(self.token.expose())
            .query(told)
            .header("content-type", "application/octet-stream")
            .header("content-length", length)
            .timeout(CALL_TIMEOUT + Duration::from_secs(length / SLOWEST_UPLOAD))
            .body(body)
    }

    /// Tells what a step's test reports come to.
    pub(crate) async fn put_tests(&self, step: &str, report: &TestReport) -> Result<(), CallError> {
        done(
            self.request(Method::PUT, &["steps", step, "tests"])
                .timeout(CALL_TIMEOUT)
                .json(report),
        )
        .await
    }

    /// Tells how the attempt ended.
    pub(crate) async fn put_result(&self, result: &AttemptResult) -> Result<(), CallError> {
        done(
            self.request(Method::PUT, &["result"])
                .timeout(CALL_TIMEOUT)
                .json(result),
        )
        .await
    }
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, CallError> {
    send(request).await?.json().await.map_err(unreachable)
}

async fn done(request: RequestBuilder) -> Result<(), CallError> {
    send(request).await.map(drop)
}

async fn send(request: RequestBuilder) -> Result<Response, CallError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if matches!(
        status,
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PRECONDITION_FAILED
    ) && let Some(offset) =
        header(&response, LOG_OFFSET_HEADER).and_then(|text| text.parse().ok())
    {
        return Err(CallError::Offset(offset));
    }
    // The other form, a date, is sent by nobody whom a runner talks to.
    let after = header(&response, "retry-after").and_then(|text| text.parse().ok());
    let message = match response.bytes().await {
        Ok(body) => serde_json::from_slice::<Problem>(&body)
            .map(|problem| problem.message)
            .unwrap_or_else(|_| String::from_utf8_lossy(&body).chars().take(300).collect()),
        Err(error) => error.without_url().to_string(),
    };
    if let (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) =
        (status, after)
    {
        let after = Duration::from_secs(seconds);
        return Err(CallError::Later { message, after });
    }
    Err(match status {
        StatusCode::CONFLICT => CallError::Lost(message),
        StatusCode::UNAUTHORIZED => CallError::Unauthorized(message),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            CallError::Unreachable(format!("{status}: {message}"))
        }
        status if status.is_server_error() => {
            CallError::Unreachable(format!("{status}: {message}"))
        }
        status => CallError::Refused { status, message },
    })
}

fn header(response: &Response, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// reqwest's own text says only "error sending request"; the reason is in its sources.
fn unreachable(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    CallError::Unreachable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_as_one_path_segment() {
        let client = Client::new(&Url::parse("http://127.0.0.1:1/prefix/").unwrap()).unwrap();
        assert_eq!(
            client.url(&["attempts", "a/../b?c"]).as_str(),
            "http://127.0.0.1:1/prefix/runner/v1/attempts/a%2F..%2Fb%3Fc"
        );
    }

    #[test]
    fn an_address_without_http_is_refused_at_once() {
        assert!(Client::new(&Url::parse("ftp://host/").unwrap()).is_err());
        assert!(Client::new(&Url::parse("mailto:someone@example.org").unwrap()).is_err());
    }

    #[tokio::test]
    async fn only_silence_is_tried_again() {
        let mut calls = 0;
        let answer = retry(Duration::from_secs(60), || {
            calls += 1;
            let call = calls;
            async move {
                if call < 3 {
                    Err(CallError::Unreachable("refused".into()))
                } else {
                    Ok(call)
                }
            }
        })
        .await;
        assert_eq!(answer.unwrap(), 3);

        let mut calls = 0;
        let answer: Result<(), _> = retry(Duration::from_secs(60), || {
            calls += 1;
            async { Err(CallError::Lost("gone".into())) }
        })
        .await;
        assert!(matches!(answer, Err(CallError::Lost(_))));
        assert_eq!(calls, 1);
    }
}
