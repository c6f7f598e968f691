//! API tokens. Admins make and revoke them; everybody sees their own.

use super::super::App;
use super::super::api;
use super::super::auth::{Admin, Allowed, Viewer};
use super::super::error::HttpError;
use super::frame::back_to;
use super::{frame, view_of};
use crate::store::ApiToken;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::spec::Role;
use roadstead_web::urls::{field, route};
use roadstead_web::view::{self, NewToken, Token, TokensPage, Tone};
use serde_json::json;
use std::collections::HashMap;

/// The page.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let page = page(&app, &who.actor, &request).await?;
    frame::send(&request, StatusCode::OK, &page)
}

async fn page(app: &App, actor: &Actor, request: &HttpRequest) -> Result<TokensPage, HttpError> {
    let all = app.store.list_api_tokens().await?;
    let admin = actor.role == Role::Admin;
    let shown = all
        .iter()
        .filter(|token| admin || token.created_by == actor.name);
    Ok(TokensPage {
        frame: frame::of(app, actor, request).await?,
        created: None,
        tokens: shown.map(|token| line(token, actor)).collect(),
        create: view_of::needs_role(actor, Role::Admin),
        roles: view::Role::ALL.to_vec(),
        error: String::new(),
    })
}

fn line(token: &ApiToken, actor: &Actor) -> Token {
    Token {
        id: token.id.clone(),
        name: token.name.clone(),
        role: view_of::role(token.role),
        owner: token.created_by.clone(),
        created: view_of::time(token.created_at),
        expires: token.expires_at.map(view_of::time),
        last_used: token.last_used_at.map(view_of::time),
        revoked: token.revoked_at.map(view_of::time),
        revoke: view_of::needs_role(actor, Role::Admin),
    }
}

/// Makes a token. Its secret is on the page that answers, and nowhere else.
///
/// # Errors
/// 400 for a role or a life that is none.
pub(super) async fn create(
    app: web::Data<App>,
    who: Allowed<Admin>,
    request: HttpRequest,
    fields: web::Form<HashMap<String, String>>,
) -> Result<HttpResponse, HttpError> {
    let given = |name: &str| fields.get(name).map_or("", |text| text.trim());
    let name = given(field::NAME);
    let made = match read(given(field::ROLE), given(field::DAYS)) {
        Ok((role, days)) => api::new_token(&app, &who.actor.name, name, role, days).await,
        Err(error) => Err(error),
    };
    let (status, created, error) = match made {
        Ok(secret) => {
            let created = NewToken {
                name: name.to_owned(),
                secret,
            };
            (StatusCode::CREATED, Some(created), String::new())
        }
        Err(error) if error.status() == StatusCode::BAD_REQUEST => {
            (StatusCode::BAD_REQUEST, None, error.to_string())
        }
        Err(error) => return Err(error),
    };
    let page = TokensPage {
        created,
        error,
        ..page(&app, &who.actor, &request).await?
    };
    frame::send(&request, status, &page)
}

fn read(role: &str, days: &str) -> Result<(Role, Option<u32>), HttpError> {
    let role = Role::parse(role)
        .ok_or_else(|| HttpError::bad_request("a role is viewer, deployer or admin"))?;
    let days: u32 = days
        .parse()
        .map_err(|_| HttpError::bad_request("say for how many days; 0 is for ever"))?;
    Ok((role, (days > 0).then_some(days)))
}

/// A token is not accepted any more.
///
/// # Errors
/// 404 when there is no such token, or it is revoked.
pub(super) async fn revoke(
    app: web::Data<App>,
    who: Allowed<Admin>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    let all = app.store.list_api_tokens().await?;
    let name = all.iter().find(|token| token.id == *path).map(|t| &t.name);
    app.store.revoke_api_token(&path, now).await?;
    let subject = format!("token {}", name.unwrap_or(&path));
    app.store
        .add_event(
            None,
            &subject,
            &who.actor.name,
            "token_revoked",
            json!({}),
            now,
        )
        .await?;
    Ok(back_to(route::TOKENS, Tone::Good, "The token is revoked."))
}
