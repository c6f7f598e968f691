//! The runner protocol's server side (see `roadstead-protocol` for the contract).
//!
//! A runner is hostile until proven otherwise: its credential names it, an attempt's token names
//! exactly one attempt, and every report carries the fence. Nothing here decides what a report
//! means: it becomes a fact of the run.

mod artifacts;
mod assignment;
mod caches;
mod fetch;
mod goodbye;
mod secrets;
mod sources;
mod test_report;

pub use assignment::{Decided, steps_of, version_of};

use super::App;
use super::auth::{Then, bearer, new_secret};
use super::error::HttpError;
use crate::dispatcher::{LOOK_AGAIN, Takes};
use crate::logs::{LogError, LogKey};
use crate::store::{Attempt, Offer, Report, hash_secret};
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest, HttpResponse, dev, web};
use roadstead_pipelines::id::{ImageDigest, JobName, StepName};
use roadstead_pipelines::job::Job;
use roadstead_pipelines::release::ImageRef;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{AttemptOutcome, Run};
use roadstead_pipelines::spec::StepAction;
use roadstead_pipelines::variant::ImageVariant;
use roadstead_protocol as wire;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Longest reason that is stored, in bytes.
const LONGEST_REASON: usize = 4_096;

/// Every route of the protocol.
pub fn configure(config: &mut web::ServiceConfig) {
    let attempt = web::scope("/attempts/{attempt}")
        .route("/accept", web::post().to(accept))
        .route("/sources", web::get().to(sources::send))
        .route("/registry-credentials", web::get().to(registry_credentials))
        .route("/secrets", web::get().to(secrets::send))
        .route("/steps/{step}", web::put().to(report_step))
        .service(
            web::resource("/steps/{step}/log")
                .app_data(web::PayloadConfig::new(wire::LOG_CHUNK_BYTES))
                .route(web::patch().to(append_log)),
        )
        .route("/steps/{step}/log/seal", web::post().to(seal_log))
        .route("/steps/{step}/artifact", web::put().to(artifacts::take))
        .route("/steps/{step}/artifacts", web::get().to(fetch::list))
        .route(
            "/steps/{step}/artifacts/{from}/{name:.+}",
            web::get().to(fetch::send),
        )
        .route("/steps/{step}/caches/{cache}", web::get().to(caches::find))
        .route("/steps/{step}/caches/{cache}", web::put().to(caches::take))
        .route(
            "/steps/{step}/caches/{cache}/{id}",
            web::get().to(caches::send),
        )
        .service(
            web::resource("/steps/{step}/tests")
                .app_data(
                    web::JsonConfig::default()
                        .limit(wire::LARGEST_TEST_REPORT)
                        .error_handler(|error, _| super::bad_json(&error)),
                )
                .route(web::put().to(test_report::take)),
        )
        .route("/result", web::put().to(result));
    config.service(
        web::scope("/runner/v1")
            .route("/register", web::post().to(register))
            .route("/poll", web::post().to(poll))
            .route("/heartbeat", web::post().to(heartbeat))
            .route("/goodbye", web::post().to(goodbye::take))
            .service(attempt),
    );
}

/// A runner whose credential is known. That it calls says that it is there, whatever it said before.
struct KnownRunner {
    id: String,
}

impl FromRequest for KnownRunner {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, HttpError>>>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let refused = || {
                HttpError::new(
                    StatusCode::UNAUTHORIZED,
                    "this runner is not known here: register it again",
                )
            };
            let app = request.app_data::<web::Data<App>>().ok_or_else(refused)?;
            let token = bearer(&request).ok_or_else(refused)?;
            let found = app.store.runner_by_credential(&hash_secret(&token)).await?;
            let found = found.ok_or_else(refused)?;
            match found.left {
                Some(left) if left.for_good => return Err(refused()),
                Some(_) => app.store.come_back(&found.id).await?,
                None => {}
            }
            Ok(Self { id: found.id })
        })
    }
}

/// An attempt whose token was sent, with its run, as they stand: its lease may be lost.
struct OwnAttempt {
    attempt: Attempt,
    run: Run,
}

impl FromRequest for OwnAttempt {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, HttpError>>>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let refused = || {
                HttpError::new(
                    StatusCode::UNAUTHORIZED,
                    "the attempt's token is missing or wrong",
                )
            };
            let app = request.app_data::<web::Data<App>>().ok_or_else(refused)?;
            let token = bearer(&request).ok_or_else(refused)?;
            let found = app.store.attempt_by_token(&hash_secret(&token)).await?;
            let (attempt, run) = found.ok_or_else(refused)?;
            if request.match_info().get("attempt") != Some(attempt.id.as_str()) {
                return Err(HttpError::new(
                    StatusCode::FORBIDDEN,
                    "this token is another attempt's",
                ));
            }
            Ok(Self { attempt, run })
        })
    }
}

impl OwnAttempt {
    /// The attempt, when it is still this runner's to report on.
    fn live(self, fence: Option<u64>) -> Result<Self, HttpError> {
        let wrong_fence = fence.is_some_and(|fence| fence != u64::from(self.attempt.number));
        if self.attempt.ended_at.is_some() || wrong_fence {
            return Err(over());
        }
        Ok(self)
    }

    /// The job that it is an attempt at.
    fn job(&self) -> Job {
        let job = self.run.jobs().swap_remove(&self.attempt.job);
        job.unwrap_or_default()
    }

    /// A runner writes logs of its job's steps only: other names would be files of its making.
    fn log(&self, step: String) -> Result<LogKey, HttpError> {
        let job = self.job();
        if !job.steps.iter().any(|name| name.as_str() == step) {
            return Err(HttpError::not_found(format!(
                "job {} has no step `{step}`",
                self.attempt.job
            )));
        }
        Ok(LogKey {
            run: self.run.id.to_string(),
            attempt: self.attempt.number,
            step,
        })
    }
}

impl OwnAttempt {
    /// Where the images go that its job builds.
    fn repositories(&self) -> BTreeMap<ImageVariant, String> {
        let job = self.job();
        let Some(pipeline) = &self.run.pipeline else {
            return BTreeMap::new();
        };
        let steps = pipeline.steps.iter();
        let builds = steps.filter(|(name, _)| job.steps.contains(name));
        let images = builds.flat_map(|(_, step)| match &step.action {
            StepAction::Build { images } => images.as_slice(),
            StepAction::Run { .. } => &[],
        });
        let variants = images.flat_map(|name| pipeline.variants_of(name));
        let found = variants.filter_map(|variant| {
            let uri = self.run.repositories.get(&variant.image)?.clone();
            Some((variant, uri))
        });
        found.collect()
    }
}

fn over() -> HttpError {
    HttpError::conflict("the attempt is over: stop it and forget it")
}

fn stored(report: Report) -> Result<HttpResponse, HttpError> {
    match report {
        Report::Recorded | Report::Repeated => Ok(HttpResponse::NoContent().finish()),
        Report::Lost => Err(over()),
    }
}

async fn register(
    app: web::Data<App>,
    body: web::Json<wire::Register>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let wanted = app.config.runners.registration_token.as_bytes();
    let right: bool = wanted.ct_eq(body.registration_token.as_bytes()).into();
    if wanted.len() < 16 || !right {
        let message = "the registration token is wrong (see `runners.registration_token`)";
        return Err(HttpError::new(StatusCode::UNAUTHORIZED, message));
    }
    if !(1..=64).contains(&body.name.len()) || body.name.chars().any(char::is_control) {
        return Err(HttpError::bad_request(
            "a runner's name has 1 to 64 characters",
        ));
    }
    if body.labels.len() > 32 || body.labels.iter().any(|label| label.len() > 64) {
        return Err(HttpError::bad_request(
            "at most 32 labels of 64 characters each",
        ));
    }
    let credential = new_secret("rsr");
    let now = crate::clock::now();
    let hash = hash_secret(&credential);
    let runner = app
        .store
        .register_runner(&body.name, hash, body.labels, now)
        .await?;
    Ok(HttpResponse::Ok().json(wire::Registered {
        runner_id: runner.id,
        credential,
    }))
}

async fn poll(
    app: web::Data<App>,
    Then(runner, body): Then<KnownRunner, web::Json<wire::Poll>>,
) -> Result<HttpResponse, HttpError> {
    let spoken = wire::OLDEST_PROTOCOL_VERSION..=wire::PROTOCOL_VERSION;
    if !spoken.contains(&body.protocol_version) {
        let message = format!(
            "this server speaks versions {} to {} of the runner protocol, the runner {}: bring both to the \
             same version, the server first",
            spoken.start(),
            spoken.end(),
            body.protocol_version
        );
        return Err(HttpError::new(StatusCode::UPGRADE_REQUIRED, message));
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(wire::POLL_SECONDS);
    let takes = (body.free_slots > 0).then(|| Takes {
        version: body.protocol_version,
        labels: body.labels.iter().cloned().collect(),
    });
    let place = app.waiters.join(&runner.id, takes);
    loop {
        let now = crate::clock::now();
        let offer = Offer {
            labels: body.labels.clone(),
            free_slots: body.free_slots,
            disk_free_bytes: body.disk_free_bytes,
        };
        let beat = app
            .store
            .heartbeat(&runner.id, body.running.clone(), Some(offer), now)
            .await?;
        let mut reply = wire::PollReply {
            cancel: beat.cancel,
            lost: beat.lost,
            drain: beat.drain,
            assign: None,
        };
        // Work handed out by a server that stops would be lost on its way.
        let stops = app.bell.is_put_away();
        if body.free_slots > 0 && !reply.drain && !stops {
            reply.assign = claim(&app, &runner, body.protocol_version).await?;
        }
        let empty = reply.assign.is_none() && reply.cancel.is_empty() && reply.lost.is_empty();
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if !empty || reply.drain || stops || left.is_zero() {
            return Ok(HttpResponse::Ok().json(reply));
        }
        tokio::select! {
            () = place.called(LOOK_AGAIN.min(left)) => {}
            () = app.bell.gone() => {}
        }
    }
}

async fn claim(
    app: &App,
    runner: &KnownRunner,
    version: u32,
) -> Result<Option<wire::Assignment>, HttpError> {
    let token = new_secret("rsa");
    let now = crate::clock::now();
    let can_do = move |run: &Run, job: &JobName| version_of(run, job) <= version;
    let claiming = app
        .store
        .claim_job_that(can_do, &runner.id, hash_secret(&token), now);
    let Some(claim) = claiming.await? else {
        return Ok(None);
    };
    app.bell.ring();
    let (run, job) = (claim.run, claim.job);
    Ok(Some(wire::Assignment {
        attempt: wire::AttemptRef {
            attempt: claim.attempt,
            fence: u64::from(claim.number),
        },
        token,
        project: run.project.to_string(),
        run: run.id.to_string(),
        commit: run.commit.to_string(),
        git_ref: run.git_ref.clone(),
        steps: assignment::steps_of_job(&run, &job),
    }))
}

async fn heartbeat(
    app: web::Data<App>,
    Then(runner, body): Then<KnownRunner, web::Json<wire::Heartbeat>>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    let beat = app
        .store
        .heartbeat(&runner.id, body.into_inner().running, None, now)
        .await?;
    app.masks.forget(&beat.lost);
    Ok(HttpResponse::Ok().json(wire::HeartbeatReply {
        cancel: beat.cancel,
        lost: beat.lost,
    }))
}

async fn accept(app: web::Data<App>, own: OwnAttempt) -> Result<HttpResponse, HttpError> {
    let own = own.live(None)?;
    stored(
        app.store
            .accept_attempt(&own.attempt.id, crate::clock::now())
            .await?,
    )
}

async fn registry_credentials(
    app: web::Data<App>,
    own: OwnAttempt,
) -> Result<HttpResponse, HttpError> {
    let own = own.live(None)?;
    if !own.run.trust().is_trusted() {
        let message = format!(
            "{} is of a fork, which gets no login for the registry",
            own.run.id
        );
        return Err(HttpError::new(StatusCode::FORBIDDEN, message));
    }
    let credentials = app.registry.push_credentials().await.map_err(|error| {
        let message = format!("no registry credentials now: {error}");
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })?;
    Ok(HttpResponse::Ok().json(credentials))
}

async fn report_step(
    app: web::Data<App>,
    Then(own, body): Then<OwnAttempt, web::Json<wire::StepReport>>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let own = own.live(Some(body.fence))?;
    let fence = body.fence;
    let mut state = body.into_inner().state;
    if let wire::StepState::Failed { reason, .. } = &mut state {
        clip(reason);
    }
    let (_, step) = path.into_inner();
    let now = crate::clock::now();
    stored(
        app.store
            .report_step(&own.attempt.id, fence, &step, state, now)
            .await?,
    )
}

#[derive(Deserialize)]
struct Offset {
    offset: u64,
}

async fn append_log(
    app: web::Data<App>,
    Then(own, (query, body)): Then<OwnAttempt, (web::Query<Offset>, web::Bytes)>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let own = own.live(None)?;
    let log = own.log(path.into_inner().1)?;
    let secrets = super::secrets::mask_of(&app, &own.attempt.id, (&own.run, &own.job())).await?;
    let done = app.logs.append_without(secrets, log, query.offset, body);
    let done = done.await;
    log_answer(done.map(|_| ()))
}

async fn seal_log(
    app: web::Data<App>,
    Then(own, body): Then<OwnAttempt, web::Json<wire::LogSeal>>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let log = own.live(Some(body.fence))?.log(path.into_inner().1)?;
    log_answer(app.logs.seal(log, body.length, body.sha256).await)
}

fn log_answer(done: Result<(), LogError>) -> Result<HttpResponse, HttpError> {
    let at = |status, length: u64| {
        HttpResponse::build(status)
            .insert_header((wire::LOG_OFFSET_HEADER, length.to_string()))
            .json(wire::Problem {
                message: format!("the log ends at byte {length}"),
            })
    };
    match done {
        Ok(()) => Ok(HttpResponse::NoContent().finish()),
        Err(LogError::Offset { length }) => Ok(at(StatusCode::RANGE_NOT_SATISFIABLE, length)),
        Err(LogError::Seal { length }) => Ok(at(StatusCode::PRECONDITION_FAILED, length)),
        Err(error @ (LogError::Sealed | LogError::Full)) => {
            Err(HttpError::conflict(error.to_string()))
        }
        Err(error @ LogError::Busy) => Err(HttpError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_string(),
        )),
        Err(error @ LogError::Name(_)) => Err(HttpError::bad_request(error.to_string())),
        Err(error @ (LogError::Io(_) | LogError::Bucket(_))) => {
            tracing::error!(%error, "a log was not stored: {error}");
            let message = "the log could not be stored; send it again";
            Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
    }
}

async fn result(
    app: web::Data<App>,
    Then(own, body): Then<OwnAttempt, web::Json<wire::AttemptResult>>,
) -> Result<HttpResponse, HttpError> {
    let body = body.into_inner();
    let outcome = outcome_of(body.outcome, body.images, &own.repositories())?;
    let now = crate::clock::now();
    let report = app
        .store
        .end_attempt(&own.attempt.id, body.fence, outcome, now)
        .await?;
    app.masks.forget(std::slice::from_ref(&own.attempt.id));
    app.bell.ring();
    stored(report)
}

/// What a runner reports, checked: it may name only images and repositories of its job.
fn outcome_of(
    outcome: wire::Outcome,
    images: Vec<wire::BuiltImage>,
    repositories: &BTreeMap<ImageVariant, String>,
) -> Result<AttemptOutcome, HttpError> {
    let bad = HttpError::bad_request;
    Ok(match outcome {
        wire::Outcome::Succeeded => {
            let mut pushed = BTreeMap::new();
            for image in images {
                let name = ImageVariant::parse(&image.name).map_err(|e| bad(e.to_string()))?;
                if repositories.get(&name) != Some(&image.repository_uri) {
                    return Err(bad(format!("`{}` is no image of this job", image.name)));
                }
                let digest = ImageDigest::parse(&image.digest)
                    .ok_or_else(|| bad(format!("`{}` is no digest", image.digest)))?;
                pushed.insert(
                    name,
                    ImageRef {
                        repository_uri: image.repository_uri,
                        digest,
                    },
                );
            }
            AttemptOutcome::Succeeded { images: pushed }
        }
        wire::Outcome::Failed { step, mut reason } => {
            clip(&mut reason);
            AttemptOutcome::Failed {
                failure: Failure::failed(format!("step {step}: {reason}")),
            }
        }
        wire::Outcome::Errored { mut reason } => {
            clip(&mut reason);
            AttemptOutcome::Errored { reason }
        }
        wire::Outcome::Cancelled => AttemptOutcome::Cancelled,
        wire::Outcome::TimedOut { step } => {
            let step = StepName::parse(&step).map_err(|e| bad(e.to_string()))?;
            AttemptOutcome::TimedOut { step }
        }
    })
}

fn clip(text: &mut String) {
    if text.len() > LONGEST_REASON {
        let mut end = LONGEST_REASON;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}
