//! Artifacts of earlier jobs, for an attempt whose step names them.
//!
//! Which those are follows from the run's own pipeline file: a runner asks for a step of its job and gets what the
//! steps left that this one has in `artifacts_from`, of the attempt that ended well. It can name nothing else.

use super::super::App;
use super::super::artifacts::bytes_of;
use super::super::error::HttpError;
use super::{OwnAttempt, over};
use actix_web::{HttpResponse, web};
use roadstead_pipelines::artifacts_from::{Giver, givers};
use roadstead_pipelines::id::StepName;
use roadstead_pipelines::run::AttemptOutcome;
use roadstead_protocol as wire;

/// Which artifacts a step gets.
pub(super) async fn list(
    app: web::Data<App>,
    own: OwnAttempt,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let own = leased(own)?;
    let givers = givers_of(&own, &path.1)?;
    let mut found = vec![];
    for (giver, attempt) in attempts_of(&app, &own, givers).await? {
        let kept = app.store.list_artifacts(&own.run.id, &[attempt]).await?;
        found.extend(kept.into_iter().filter(|it| it.step == giver.step));
    }
    let artifacts = found.into_iter().map(|it| wire::ArtifactOffered {
        step: it.step.to_string(),
        name: it.name,
        length: it.length,
        sha256: it.sha256,
    });
    Ok(HttpResponse::Ok().json(wire::ArtifactsOffered {
        artifacts: artifacts.collect(),
    }))
}

/// One of them.
pub(super) async fn send(
    app: web::Data<App>,
    own: OwnAttempt,
    path: web::Path<(String, String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let own = leased(own)?;
    let (_, step, from, name) = path.into_inner();
    let mut givers = givers_of(&own, &step)?;
    givers.retain(|giver| giver.step.as_str() == from);
    let mut found = None;
    if let Some((_, attempt)) = attempts_of(&app, &own, givers).await?.pop() {
        let attempt = [attempt];
        let kept = app.store.get_artifact(&own.run.id, &attempt, &from, &name);
        found = kept.await?;
    }
    let found = found.ok_or_else(|| {
        HttpError::not_found(format!(
            "step `{step}` gets no artifact `{name}` of `{from}`"
        ))
    })?;
    let bytes = bytes_of(&app, &found).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/octet-stream")
        .body(bytes))
}

/// The attempt, as long as it is this runner's.
fn leased(own: OwnAttempt) -> Result<OwnAttempt, HttpError> {
    let own = own.live(None)?;
    if own.attempt.lease_until < crate::clock::now() || own.attempt.accepted_at.is_none() {
        return Err(over());
    }
    Ok(own)
}

/// The steps of other jobs whose artifacts a step of the attempt's job gets.
fn givers_of(own: &OwnAttempt, step: &str) -> Result<Vec<Giver>, HttpError> {
    let job = own.job();
    let step: Option<&StepName> = job.steps.iter().find(|name| name.as_str() == step);
    match step {
        Some(step) => Ok(givers(&own.run, step)),
        None => Err(HttpError::not_found(format!(
            "job {} has no such step",
            own.attempt.job
        ))),
    }
}

/// Each with the newest attempt at its job that ended well, if one did.
async fn attempts_of(
    app: &App,
    own: &OwnAttempt,
    givers: Vec<Giver>,
) -> Result<Vec<(Giver, u32)>, HttpError> {
    let detail = app.store.get_run(&own.run.id).await?;
    let ended_well = |outcome: &Option<AttemptOutcome>| {
        matches!(outcome, Some(AttemptOutcome::Succeeded { .. }))
    };
    let found = givers.into_iter().filter_map(|giver| {
        let newest = detail
            .attempts_at(&giver.job)
            .rfind(|it| ended_well(&it.outcome));
        let number = newest?.number;
        Some((giver, number))
    });
    Ok(found.collect())
}
