//! Artifacts as JSON, and their bytes.

use super::super::App;
use super::super::actions;
use super::super::artifacts;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
pub(super) struct Choice {
    attempt: Option<u32>,
}

pub(super) async fn list(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Choice>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let run = actions::run_of(&path)?;
    let found = artifacts::list(&app, &run, who.sent.attempt).await?;
    let found: Vec<_> = found
        .iter()
        .map(|it| {
            json!({
                "step": it.step, "attempt": it.attempt, "name": it.name, "length": it.length, "sha256": it.sha256,
                "stored_at": it.stored_at,
            })
        })
        .collect();
    let removed = app.store.logs_removed_at(&run).await?;
    Ok(HttpResponse::Ok().json(json!({
        "run": run, "artifacts": found, "removed_at": removed,
    })))
}

pub(super) async fn send(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Choice>>,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (run, step, name) = path.into_inner();
    artifacts::send(&app, &run, (&step, &name), who.sent.attempt).await
}
