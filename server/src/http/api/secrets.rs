//! Secrets of a project: set, listed without their values, removed.

use super::super::App;
use super::super::auth::{Admin, Allowed, Viewer};
use super::super::error::HttpError;
use super::super::secrets::{self, secret_of};
use super::project_of;
use crate::store::SecretLine;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Every route of this file.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/projects/{project}/secrets", web::get().to(list))
        .service(
            web::resource("/projects/{project}/secrets/{secret}")
                .route(web::put().to(set))
                .route(web::delete().to(remove)),
        );
}

fn line(line: &SecretLine) -> Value {
    json!({
        "name": line.secret.name.as_str(), "environment": line.secret.environment,
        "branches": line.branches, "version": line.version, "set_by": line.set_by,
        "set_at": line.set_at,
    })
}

async fn list(
    app: web::Data<App>,
    _: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let project = app.store.get_project(&project_of(&path)?).await?.name;
    let lines = app.store.list_secrets(&project).await?;
    let lines: Vec<_> = lines.iter().map(line).collect();
    Ok(HttpResponse::Ok().json(json!({"secrets": lines})))
}

#[derive(Deserialize)]
struct Scope {
    /// The environment that the secret belongs to.
    #[serde(default)]
    environment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewValue {
    value: String,
    /// Patterns of the branches whose runs may have it; an empty list: every branch. Without it those that it
    /// has stay.
    #[serde(default)]
    branches: Option<Vec<String>>,
}

async fn set(
    app: web::Data<App>,
    who: Allowed<Admin, (web::Query<Scope>, web::Json<NewValue>)>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (scope, sent) = who.sent;
    let NewValue { value, branches } = sent.into_inner();
    let (project, name) = path.into_inner();
    let value = Zeroizing::new(value);
    let secret = secret_of(&name, scope.environment.as_deref())?;
    let project = project_of(&project)?;
    let stored = secrets::set(&app, &who.actor, &project, &secret, branches, value).await?;
    Ok(HttpResponse::Ok().json(line(&stored)))
}

async fn remove(
    app: web::Data<App>,
    who: Allowed<Admin, web::Query<Scope>>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (project, name) = path.into_inner();
    let secret = secret_of(&name, who.sent.environment.as_deref())?;
    let project = project_of(&project)?;
    let now = crate::clock::now();
    let done = app
        .store
        .remove_secret(&project, &secret, &who.actor.name, now);
    done.await?;
    let removed = json!({"name": secret.name.as_str(), "environment": secret.environment});
    Ok(HttpResponse::Ok().json(removed))
}
