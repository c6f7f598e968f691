//! Letting untrusted code run.

use super::super::App;
use super::super::actions;
use super::super::auth::{Allowed, Deployer};
use super::super::error::HttpError;
use super::recorded;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

/// Its routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.route("/runs/{run}/approve", web::post().to(approve));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookedAt {
    /// The commit that they looked at.
    commit: String,
}

async fn approve(
    app: web::Data<App>,
    who: Allowed<Deployer, web::Json<LookedAt>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let run = actions::run_of(&path)?;
    let done = actions::approve_run(&app, &who.actor, &run, &who.sent.commit).await?;
    Ok(recorded(&done))
}
