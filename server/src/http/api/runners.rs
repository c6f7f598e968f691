//! The runners: who there is, and which of them take work.

use super::super::App;
use super::super::actions;
use super::super::auth::{Allowed, Deployer, Viewer};
use super::super::error::HttpError;
use super::super::runners::Standing;
use crate::store::Runner;
use actix_web::{HttpResponse, web};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Every route of this file.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/runners", web::get().to(list))
        .route("/runners/{runner}/drain", web::post().to(drain))
        .route("/runners/{runner}/resume", web::post().to(resume));
}

fn told(runner: &Runner, now: Timestamp) -> Value {
    json!({
        "id": runner.id, "name": runner.name, "labels": runner.labels,
        "state": Standing::of(runner, now).word(),
        "last_seen_at": runner.last_seen_at, "free_slots": runner.free_slots,
        "drain": runner.drain, "running": runner.running,
        "left_at": runner.left.map(|left| left.at),
        "left_for_good": runner.left.is_some_and(|left| left.for_good),
    })
}

async fn list(app: web::Data<App>, _: Allowed<Viewer>) -> Result<HttpResponse, HttpError> {
    let (found, now) = (app.store.list_runners().await?, crate::clock::now());
    let runners: Vec<_> = found.iter().map(|runner| told(runner, now)).collect();
    Ok(HttpResponse::Ok().json(json!({"runners": runners})))
}

async fn drain(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    set(&app, &who, &path, true).await
}

async fn resume(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    set(&app, &who, &path, false).await
}

/// The runner as it is then.
async fn set(
    app: &App,
    who: &Allowed<Deployer>,
    runner: &str,
    drain: bool,
) -> Result<HttpResponse, HttpError> {
    actions::drain_runner(app, &who.actor, runner, drain).await?;
    let found = app.store.get_runner(runner).await?;
    Ok(HttpResponse::Ok().json(told(&found, crate::clock::now())))
}
