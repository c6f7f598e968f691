//! Users, one's own account, API tokens.

use super::super::App;
use super::super::auth::{Admin, Allowed, Via, Viewer};
use super::super::error::HttpError;
use super::super::people;
use crate::store::{ApiToken, User};
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::spec::Role;
use serde::Deserialize;
use serde_json::{Value, json};

/// Every route of this file.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/account", web::get().to(account))
        .route("/users", web::get().to(list))
        .route("/users", web::post().to(add))
        .route("/users/{user}/role", web::post().to(set_role))
        .route("/users/{user}/emails", web::post().to(set_emails))
        .route("/users/{user}/password", web::post().to(reset_password))
        .route("/users/{user}/disable", web::post().to(disable))
        .route("/users/{user}/enable", web::post().to(enable))
        .route("/tokens", web::get().to(tokens))
        .route("/tokens", web::post().to(create_token))
        .route("/tokens/{token}/revoke", web::post().to(revoke_token));
}

/// Who asks, and what they may do now.
async fn account(who: Allowed<Viewer>) -> HttpResponse {
    let via = match who.via {
        Via::Session => "session",
        Via::Token { .. } => "token",
    };
    let answer = json!({"name": who.actor.name, "role": who.actor.role, "via": via});
    HttpResponse::Ok().json(answer)
}

fn user(user: &User) -> Value {
    json!({
        "name": user.name, "role": user.role, "emails": user.emails, "created_at": user.created_at,
        "disabled_at": user.disabled_at, "last_sign_in_at": user.last_sign_in_at,
    })
}

async fn list(app: web::Data<App>, _: Allowed<Admin>) -> Result<HttpResponse, HttpError> {
    let users: Vec<_> = app.store.list_users().await?.iter().map(user).collect();
    Ok(HttpResponse::Ok().json(json!({"users": users})))
}

/// The user as they are now, and the password when one had to be made: it is not told again.
async fn answer(
    app: &App,
    status: StatusCode,
    name: &str,
    password: Option<String>,
) -> Result<HttpResponse, HttpError> {
    let found = app.store.get_user(name).await?;
    let found = found.ok_or_else(|| HttpError::not_found(format!("there is no user `{name}`")))?;
    let mut answer = user(&found);
    if let Some(password) = password {
        answer["password"] = password.into();
    }
    Ok(HttpResponse::build(status).json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    role: Role,
    /// Without it one is made and told once.
    #[serde(default)]
    password: Option<String>,
    /// Those that the user commits with.
    #[serde(default)]
    emails: Vec<String>,
}

async fn add(
    app: web::Data<App>,
    who: Allowed<Admin, web::Json<NewUser>>,
) -> Result<HttpResponse, HttpError> {
    let NewUser {
        name,
        role,
        password,
        emails,
    } = who.sent.into_inner();
    let (emails, password) = (emails.iter().map(String::as_str), password.as_deref());
    let made = people::add_user(&app, &who.actor, &name, role, emails, password).await?;
    answer(&app, StatusCode::CREATED, &name, made).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRole {
    role: Role,
}

async fn set_role(
    app: web::Data<App>,
    who: Allowed<Admin, web::Json<NewRole>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store
        .set_role(&path, who.sent.role, &who.actor.name, now)
        .await?;
    answer(&app, StatusCode::OK, &path, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEmails {
    /// All of them: those that are not named are forgotten.
    emails: Vec<String>,
}

async fn set_emails(
    app: web::Data<App>,
    who: Allowed<Admin, web::Json<NewEmails>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let given = who.sent.emails.iter().map(String::as_str);
    people::set_emails(&app, &who.actor, &path, given).await?;
    answer(&app, StatusCode::OK, &path, None).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// Without it one is made and told once.
    #[serde(default)]
    password: Option<String>,
}

async fn reset_password(
    app: web::Data<App>,
    who: Allowed<Admin, web::Json<NewPassword>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let given = who.sent.password.as_deref();
    let made = people::reset_password(&app, &who.actor, &path, given).await?;
    answer(&app, StatusCode::OK, &path, made).await
}

async fn disable(
    app: web::Data<App>,
    who: Allowed<Admin>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store.disable_user(&path, &who.actor.name, now).await?;
    answer(&app, StatusCode::OK, &path, None).await
}

async fn enable(
    app: web::Data<App>,
    who: Allowed<Admin>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store.enable_user(&path, &who.actor.name, now).await?;
    answer(&app, StatusCode::OK, &path, None).await
}

fn token(token: &ApiToken) -> Value {
    json!({
        "id": token.id, "name": token.name, "role": token.role, "owner": token.created_by,
        "created_at": token.created_at, "expires_at": token.expires_at,
        "last_used_at": token.last_used_at, "revoked_at": token.revoked_at,
        "made_with": token.made_with,
    })
}

#[derive(Deserialize)]
struct Whose {
    /// Everybody's, for admins.
    #[serde(default)]
    all: bool,
}

async fn tokens(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Whose>>,
) -> Result<HttpResponse, HttpError> {
    let owner = if who.sent.all {
        if who.actor.role < Role::Admin {
            let message = "everybody's tokens are for the role admin";
            return Err(HttpError::new(StatusCode::FORBIDDEN, message));
        }
        None
    } else {
        Some(who.actor.name.as_str())
    };
    let tokens = app.store.list_api_tokens(owner).await?;
    let tokens: Vec<_> = tokens.iter().map(token).collect();
    Ok(HttpResponse::Ok().json(json!({"tokens": tokens})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
    /// Its life; without it the token does not end by itself.
    #[serde(default)]
    days: Option<u32>,
}

async fn create_token(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Json<NewToken>>,
) -> Result<HttpResponse, HttpError> {
    let NewToken { name, role, days } = who.sent.into_inner();
    let made = people::new_token(&app, &who.actor, &who.via, &name, role, days).await?;
    Ok(HttpResponse::Created().json(json!({
        "id": made.id, "name": name, "role": role, "owner": who.actor.name,
        "expires_at": made.expires_at, "token": made.secret,
    })))
}

async fn revoke_token(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let revoked = people::revoke_token(&app, &who.actor, &path).await?;
    Ok(HttpResponse::Ok().json(json!({"id": revoked.id, "name": revoked.name})))
}
