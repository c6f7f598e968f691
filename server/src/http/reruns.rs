//! Jobs that go back to work in their run: what buttons and the API ask for.

use super::App;
use super::actions;
use super::auth::{Allowed, Deployer};
use super::error::HttpError;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::id::{JobName, RunId};
use roadstead_pipelines::rerun::Wish;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;

/// What a program sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    #[serde(default)]
    jobs: BTreeSet<String>,
    #[serde(default)]
    after: Option<u32>,
}

/// Sends jobs of a run back to work: which; none when that was done since it was asked for.
///
/// # Errors
/// 404 when there is no such run, 409 with the reason when its jobs cannot run again.
pub(super) async fn rerun(
    app: &App,
    actor: &Actor,
    run: &RunId,
    (jobs, after): (BTreeSet<String>, Option<u32>),
) -> Result<Option<BTreeSet<JobName>>, HttpError> {
    let by = actor.name.clone();
    let wish = Wish { by, jobs, after };
    let kept = &app.config.retention;
    let kept = [kept.runs.policy(), kept.logs.policy()];
    let again = app
        .store
        .rerun(run, wish, kept, crate::clock::now())
        .await?;
    app.bell.ring();
    Ok(again)
}

/// By the API.
///
/// # Errors
/// 404 when there is no such run, 409 with the reason when its jobs cannot run again.
pub(super) async fn by_api(
    app: web::Data<App>,
    who: Allowed<Deployer, web::Json<Sent>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let run = actions::run_of(&path)?;
    let Sent { jobs, after } = who.sent.into_inner();
    let again = rerun(&app, &who.actor, &run, (jobs, after)).await?;
    Ok(HttpResponse::Ok().json(json!({ "run": run, "jobs": again.unwrap_or_default() })))
}
