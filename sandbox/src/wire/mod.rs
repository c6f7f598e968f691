//! HTTP in, HTTP out: finds the service and operation of a call, meets faults, writes the call log.
//!
//! Invariant: a call that has begun runs to its end and is logged, whether or not its caller is
//! still there. Signatures are not checked: any credentials do. Must not know: what an operation
//! does.

mod cbor;
mod clock;
mod json;
mod own;
pub(crate) mod query;
mod spoil;

pub(crate) use spoil::Remembered;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::calls::{Call, Filter};
use crate::faults::{Dropped, Fault, FaultKind};
use crate::page;
use crate::services::access::{self, Caller, Denial};
use crate::services::{self, AwsError, JsonResult, QueryResult, Reply, catalog};
use crate::timeline::Timeline;

/// More is no AWS call.
const LARGEST_BODY: usize = 5 << 20;
/// How long open calls may go on after a shutdown began.
const LAST_CALLS: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;

/// Answers connections until `stop` is cancelled, then lets open calls end.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let app = Arc::clone(&app);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| respond(Arc::clone(&app), request)),
            );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    if tokio::time::timeout(LAST_CALLS, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some calls were still open at shutdown");
    }
}

async fn respond(app: Arc<App>, request: Request<Incoming>) -> Result<Answer, Dropped> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The request body is larger than 5 MiB.\n",
            ));
        }
        Err(_) => {
            return Ok(plain(
                StatusCode::BAD_REQUEST,
                "The request body did not arrive whole.\n",
            ));
        }
    };
    let path = parts.uri.path().trim_end_matches('/');
    if path == "/_sandbox/clock" {
        return Ok(clock::handle(&app, &parts.method, &body).await);
    }
    if path.starts_with("/_sandbox") {
        if let Some(answer) = own::handle(&app, &parts.method, path, &body).await {
            return Ok(answer);
        }
        let query = parts.uri.query().unwrap_or_default();
        return Ok(own_pages(&app, &parts.method, path, query, &body));
    }
    // Run apart from the connection: a caller that hangs up does not stop it half-way.
    let clock = Arc::clone(&app.clock);
    let call = tokio::spawn(async move { call(&app, &parts, &body).await });
    let answer = match call.await {
        Ok(answer) => answer?,
        Err(panic) => {
            tracing::error!(%panic, "a call failed");
            let failed = AwsError::server("The sandbox failed; its log says why.");
            json::refusal(&failed, &clock.request_id())
        }
    };
    Ok(dated(answer, &clock))
}

/// In virtual time, an answer with the date of its clock; without it, the server writes the real one.
fn dated(mut answer: Answer, clock: &Timeline) -> Answer {
    let now = clock.is_virtual().then(|| clock.now().0);
    let now = now.and_then(|now| jiff::Timestamp::from_millisecond(now).ok());
    let date = now.map(|now| now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
        answer.headers_mut().insert(DATE, date);
    }
    answer
}

fn plain(status: StatusCode, text: &str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text.to_owned())
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn own_json(status: StatusCode, value: &Value) -> Answer {
    with_type(status, "application/json", format!("{value}\n"))
}

/// The sandbox's own addresses, below `/_sandbox`.
fn own_pages(app: &App, method: &Method, path: &str, query: &str, body: &Bytes) -> Answer {
    match (method, path) {
        (&Method::GET, "/_sandbox") => with_type(
            StatusCode::OK,
            "text/html; charset=utf-8",
            page::render(app),
        ),
        (&Method::GET, "/_sandbox/calls") => list_calls(app, query),
        (&Method::GET, "/_sandbox/events") => with_type(
            StatusCode::OK,
            "application/jsonl",
            app.store.read(page::event_log),
        ),
        (&Method::GET, "/_sandbox/faults") => own_json(StatusCode::OK, &json!(app.faults.list())),
        (&Method::GET, "/_sandbox/held") => own_json(StatusCode::OK, &json!(app.faults.held())),
        (&Method::DELETE, "/_sandbox/held") => {
            app.faults.let_go();
            own_json(StatusCode::OK, &json!([]))
        }
        (&Method::POST, "/_sandbox/faults") => match serde_json::from_slice::<Fault>(body) {
            Ok(fault) => {
                app.faults.add(fault);
                own_json(StatusCode::CREATED, &json!(app.faults.list()))
            }
            Err(error) => plain(
                StatusCode::BAD_REQUEST,
                &format!("Not a fault: {error}. See docs/sandbox.md for the members.\n"),
            ),
        },
        (&Method::DELETE, "/_sandbox/faults") => {
            app.faults.clear();
            own_json(StatusCode::OK, &json!([]))
        }
        _ => plain(
            StatusCode::NOT_FOUND,
            "Here are GET /_sandbox, GET /_sandbox/calls, GET /_sandbox/events, GET and DELETE \
             /_sandbox/held, GET, POST and DELETE /_sandbox/faults, GET and POST /_sandbox/clock, \
             GET, POST and PUT /_sandbox/instances, DELETE /_sandbox/instances/<id>, GET and POST \
             /_sandbox/roles and /_sandbox/scans, and DELETE /_sandbox/roles/<name>.\n",
        ),
    }
}

fn list_calls(app: &App, query: &str) -> Answer {
    let mut filter = Filter::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (name.as_ref(), value.as_ref()) {
            ("operation", operation) => filter.operation = Some(operation.to_owned()),
            ("effective", "true") => filter.effective = Some(true),
            ("effective", "false") => filter.effective = Some(false),
            (name, _) => {
                return plain(
                    StatusCode::BAD_REQUEST,
                    &format!(
                        "`{name}` is no filter with that value: use operation=<name> and \
                         effective=true|false.\n"
                    ),
                );
            }
        }
    }
    match app.calls.read(&filter) {
        Ok(calls) => own_json(StatusCode::OK, &json!(calls)),
        Err(error) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("Cannot read the call log: {error}\n"),
        ),
    }
}

/// What a call asks for, in the protocol it speaks.
enum Asked {
    /// Whatever has values as JSON has them.
    Json {
        encoding: Encoding,
        service: &'static str,
        operation: String,
        input: Value,
    },
    Query {
        service: &'static str,
        operation: String,
        params: query::Params,
    },
}

/// How values are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Cbor,
}

/// Whether a member of that name is a time, which the protocols write differently.
fn is_time(name: &str) -> bool {
    name.ends_with("Timestamp") || name.ends_with("Date")
}

/// The body of an answer, before it is written for the wire.
#[derive(Debug, Clone, PartialEq)]
enum Body {
    Value(Value),
    Xml(String),
}

type Outcome = Result<Reply<Body>, AwsError>;

impl Asked {
    fn names(&self) -> (&'static str, &str) {
        match self {
            Self::Json {
                service, operation, ..
            }
            | Self::Query {
                service, operation, ..
            } => (service, operation),
        }
    }

    fn request(&self) -> Value {
        match self {
            Self::Json { input, .. } => input.clone(),
            Self::Query { params, .. } => json!(params.0),
        }
    }

    /// Does what is asked, if the caller may.
    async fn perform(&self, app: &App, caller: Result<Caller, Denial>) -> Outcome {
        let (service, operation) = self.names();
        let allowed = caller.and_then(|caller| {
            access::authorize(app, &caller, service, operation)?;
            Ok(caller)
        });
        let caller =
            allowed.map_err(|denial| denial.into_error(matches!(self, Self::Query { .. })))?;
        let lenient = app.config.lenient;
        match self {
            Self::Json {
                service,
                operation,
                input,
                ..
            } => {
                catalog::check(service, operation, input, lenient)?;
                let result: JsonResult = match *service {
                    "ecs" => services::ecs::handle(app, operation, input).await,
                    "ecr" => services::ecr::handle(app, operation, input).await,
                    "cloudwatch" => services::cloudwatch::handle(app, operation, input).await,
                    "servicediscovery" => services::discovery::handle(app, operation, input).await,
                    _ => services::logs::handle(app, operation, input).await,
                };
                result.map(|reply| Reply {
                    body: Body::Value(reply.body),
                    changed: reply.changed,
                })
            }
            Self::Query {
                service,
                operation,
                params,
            } => {
                catalog::check(service, operation, &params.tree(), lenient)?;
                let result: QueryResult = match *service {
                    "elbv2" => services::elbv2::handle(app, operation, params).await,
                    "cloudwatch" => services::cloudwatch::handle(app, operation, &params.tree())
                        .await
                        .map(|reply| Reply {
                            body: query::cloudwatch_body(
                                operation,
                                reply.body,
                                &app.clock.request_id(),
                            ),
                            changed: reply.changed,
                        }),
                    _ => services::sts::handle(app, &caller, operation, params).await,
                };
                result.map(|reply| Reply {
                    body: Body::Xml(reply.body),
                    changed: reply.changed,
                })
            }
        }
    }

    /// The answer on the wire. One in XML has its request's id within; any other gets `request_id`.
    fn answer(&self, outcome: &Outcome, request_id: &str) -> Answer {
        match (self, outcome) {
            (
                _,
                Ok(Reply {
                    body: Body::Xml(text),
                    ..
                }),
            ) => with_type(StatusCode::OK, "text/xml", text.clone()),
            (
                Self::Json {
                    encoding: Encoding::Cbor,
                    ..
                },
                Ok(Reply {
                    body: Body::Value(value),
                    ..
                }),
            ) => cbor::answer(cbor::encode(value), request_id),
            (
                _,
                Ok(Reply {
                    body: Body::Value(value),
                    ..
                }),
            ) => json::answer(Bytes::from(value.to_string()), request_id),
            (Self::Json { encoding, .. }, Err(error)) => match encoding {
                Encoding::Json => json::refusal(error, request_id),
                Encoding::Cbor => cbor::refusal(error, request_id),
            },
            (Self::Query { .. }, Err(error)) => {
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
                with_type(status, "text/xml", query::error_body(error, request_id))
            }
        }
    }
}

async fn call(
    app: &App,
    parts: &hyper::http::request::Parts,
    body: &[u8],
) -> Result<Answer, Dropped> {
    let asked = match understand(parts, body) {
        Ok(asked) => asked,
        Err(error) => return Ok(json::refusal(&error, &app.clock.request_id())),
    };
    let (service, operation) = asked.names();
    let request = asked.request();
    let fault = app.faults.meet(operation);
    fault.begin(&request).await;
    let mut effective = false;
    let outcome = match fault.kind {
        Some(FaultKind::Throttle) => Err(AwsError::client("ThrottlingException", "Rate exceeded")),
        Some(FaultKind::FailBefore) => Err(AwsError::server("An injected failure.")),
        Some(FaultKind::Deny) => Err(access::denied(app, service, operation)
            .into_error(matches!(asked, Asked::Query { .. }))),
        _ => {
            let header = |name| parts.headers.get(name).and_then(|one| one.to_str().ok());
            let caller = access::identify(
                app,
                header("authorization").unwrap_or_default(),
                header("x-amz-security-token").unwrap_or_default(),
            );
            let outcome = asked.perform(app, caller).await;
            let outcome = spoil(app, fault.kind, service, operation, &request, outcome);
            effective = outcome.as_ref().is_ok_and(|reply| reply.changed);
            if fault.kind == Some(FaultKind::FailAfter) {
                outcome.and(Err(AwsError::server(
                    "An injected failure after the effect.",
                )))
            } else {
                outcome
            }
        }
    };
    let entry = Call {
        at: app.clock.now().epoch_seconds(),
        service: service.to_owned(),
        operation: operation.to_owned(),
        request,
        status: outcome.as_ref().map_or_else(|error| error.status, |_| 200),
        error: outcome.as_ref().err().map(|error| error.code.clone()),
        effective,
        fault: fault.kind.map(|kind| kind.word().to_owned()),
        answer: outcome
            .as_ref()
            .ok()
            .filter(|_| app.config.record_answers)
            .map(|reply| match &reply.body {
                Body::Value(value) => value.clone(),
                Body::Xml(text) => json!(text),
            }),
    };
    if let Err(error) = app.calls.append(&entry) {
        tracing::error!(%error, "cannot write the call log");
    }
    fault.end(&entry.request).await?;
    Ok(asked.answer(&outcome, &app.clock.request_id()))
}

/// Keeps what was answered, and makes of it what a fault says.
fn spoil(
    app: &App,
    kind: Option<FaultKind>,
    service: &str,
    operation: &str,
    request: &Value,
    outcome: Outcome,
) -> Outcome {
    let mut reply = outcome?;
    if !reply.changed {
        let question = format!("{service} {operation} {request}");
        let before = app.remembered.keep(question, reply.body.clone());
        if kind == Some(FaultKind::Stale) {
            reply.body = before.unwrap_or(reply.body);
        }
    }
    if kind == Some(FaultKind::PartialFailure) {
        reply = spoil::with_a_failure(reply);
    }
    Ok(reply)
}

fn understand(parts: &hyper::http::request::Parts, body: &[u8]) -> Result<Asked, AwsError> {
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if parts.method != Method::POST {
        return Err(AwsError::client(
            "UnknownOperationException",
            "AWS calls are POST requests; the sandbox's own page is GET /_sandbox.",
        ));
    }
    if cbor::path_parts(parts.uri.path()).is_some() {
        return cbor::understand(parts.uri.path(), body);
    }
    let target = header("x-amz-target");
    if !target.is_empty() {
        return json::understand(target, body);
    }
    let form = header("content-type").starts_with("application/x-www-form-urlencoded");
    if form {
        return understand_query(body);
    }
    Err(AwsError::client(
        "UnknownOperationException",
        "The sandbox speaks the JSON protocol (header X-Amz-Target), the Query protocol (a form) \
         and RPC v2 (the operation in the path); this request is none of these.",
    ))
}

fn understand_query(body: &[u8]) -> Result<Asked, AwsError> {
    let params = query::Params::parse(body)?;
    let operation = params.required("Action")?.to_owned();
    let service = match params.get("Version") {
        Some("2015-12-01") => "elbv2",
        Some("2011-06-15") => "sts",
        Some("2010-08-01") => "cloudwatch",
        _ => {
            return Err(AwsError::client(
                "InvalidAction",
                format!(
                    "The sandbox has no service with the action {operation} of that version: it \
                     knows Elastic Load Balancing v2, STS and CloudWatch."
                ),
            ));
        }
    };
    Ok(Asked::Query {
        service,
        operation,
        params,
    })
}
