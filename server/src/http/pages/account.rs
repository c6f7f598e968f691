//! One's own account: password, sessions, API tokens.

use super::super::App;
use super::super::auth::{self, Allowed, Via, Viewer};
use super::super::error::HttpError;
use super::super::{people, sign_in_limit};
use super::errors::sentence;
use super::frame::back_to;
use super::{frame, view_of};
use crate::store::ApiToken;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::spec::Role;
use roadstead_web::urls::{field, route};
use roadstead_web::view::{AccountPage, Secret, Token, Tone};
use std::collections::HashMap;

type Fields = web::Form<HashMap<String, String>>;

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

async fn page(app: &App, actor: &Actor, request: &HttpRequest) -> Result<AccountPage, HttpError> {
    let tokens = app.store.list_api_tokens(Some(&actor.name)).await?;
    let sessions = app
        .store
        .count_sessions(&actor.name, crate::clock::now())
        .await?;
    let configured = &app.config.admin;
    let password_note = if configured.name == actor.name && !configured.password.is_empty() {
        "The server's configuration sets this password at each start."
    } else {
        ""
    };
    let roles = Role::ALL.into_iter().filter(|role| *role <= actor.role);
    Ok(AccountPage {
        frame: frame::of(app, actor, request).await?,
        name: actor.name.clone(),
        role: view_of::role(actor.role),
        sessions,
        password_note: password_note.to_owned(),
        password_error: String::new(),
        created: None,
        tokens: tokens.iter().map(token).collect(),
        roles: roles.map(view_of::role).collect(),
        token_error: String::new(),
    })
}

/// A token as pages show it.
pub(super) fn token(token: &ApiToken) -> Token {
    Token {
        id: token.id.clone(),
        name: token.name.clone(),
        role: view_of::role(token.role),
        owner: token.created_by.clone(),
        created: view_of::time(token.created_at),
        expires: token.expires_at.map(view_of::time),
        last_used: token.last_used_at.map(view_of::time),
        revoked: token.revoked_at.map(view_of::time),
    }
}

/// Whether an error belongs beside the form that was sent.
pub(super) fn of_the_form(error: &HttpError) -> bool {
    matches!(
        error.status(),
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS
    )
}

/// Changes the password, and signs out everywhere but here.
///
/// # Errors
/// When the database is out of reach. A wrong password is told beside the form.
pub(super) async fn change_password(
    app: web::Data<App>,
    who: Allowed<Viewer, Fields>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    // A token may leak into a log; it is not to become a password.
    if who.via != Via::Session {
        let message = "sign in to change the password: an API token does not suffice";
        return Err(HttpError::new(StatusCode::FORBIDDEN, message));
    }
    let given = |name: &str| who.sent.get(name).map_or("", String::as_str);
    let client = sign_in_limit::client_of(&request, app.config.http.behind_proxy);
    let (current, new) = (given(field::PASSWORD), given(field::NEW_PASSWORD));
    match people::change_password(&app, client, &who.actor, current, new).await {
        Ok(secret) => {
            let text = "The password is changed; you are signed out everywhere else.";
            let mut answer = back_to(route::ACCOUNT, Tone::Good, text);
            let secure = app.public_url().starts_with("https://");
            answer
                .add_cookie(&auth::session_cookie(secret, secure))
                .map_err(HttpError::internal)?;
            Ok(answer)
        }
        Err(error) if of_the_form(&error) => {
            let page = AccountPage {
                password_error: sentence(&error.to_string()),
                ..page(&app, &who.actor, &request).await?
            };
            let mut answer = frame::send(&request, error.status(), &page)?;
            if let Some(seconds) = error.retry_after() {
                let seconds = header::HeaderValue::from(seconds);
                answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            Ok(answer)
        }
        Err(error) => Err(error),
    }
}

/// Ends all sessions of the viewer, this one too.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn sign_out_everywhere(
    app: web::Data<App>,
    who: Allowed<Viewer>,
) -> Result<HttpResponse, HttpError> {
    let name = &who.actor.name;
    app.store
        .end_sessions(name, name, crate::clock::now())
        .await?;
    let mut gone = auth::session_cookie(String::new(), false);
    gone.make_removal();
    Ok(frame::see_other(route::LOGIN).cookie(gone).finish())
}

/// Makes a token. Its secret is on the page that answers, and nowhere else.
///
/// # Errors
/// 403 for a role above one's own. Other mistakes are told beside the form.
pub(super) async fn create_token(
    app: web::Data<App>,
    who: Allowed<Viewer, Fields>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let given = |name: &str| who.sent.get(name).map_or("", |text| text.trim());
    let name = given(field::NAME);
    let made = match read(given(field::ROLE), given(field::DAYS)) {
        Ok((role, days)) => people::new_token(&app, &who.actor, &who.via, name, role, days).await,
        Err(error) => Err(error),
    };
    let (status, created, error) = match made {
        Ok(made) => {
            let created = Secret {
                name: name.to_owned(),
                secret: made.secret,
            };
            (StatusCode::CREATED, Some(created), String::new())
        }
        Err(error) if of_the_form(&error) => (error.status(), None, sentence(&error.to_string())),
        Err(error) => return Err(error),
    };
    let page = AccountPage {
        created,
        token_error: error,
        ..page(&app, &who.actor, &request).await?
    };
    frame::send(&request, status, &page)
}

fn read(role: &str, days: &str) -> Result<(Role, Option<u32>), HttpError> {
    let days: u32 = days
        .parse()
        .map_err(|_| HttpError::bad_request("say for how many days; 0 is for ever"))?;
    Ok((role_of(role)?, (days > 0).then_some(days)))
}

/// A role off a form.
///
/// # Errors
/// 400.
pub(super) fn role_of(text: &str) -> Result<Role, HttpError> {
    Role::parse(text).ok_or_else(|| HttpError::bad_request("a role is viewer, deployer or admin"))
}

/// A token is not accepted any more: one's own, or as an admin anybody's.
///
/// # Errors
/// 404 when there is no such token, or it is revoked.
pub(super) async fn revoke_token(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let revoked = people::revoke_token(&app, &who.actor, &path).await?;
    let page = if revoked.created_by == who.actor.name {
        route::ACCOUNT
    } else {
        route::USERS
    };
    let text = format!("The token “{}” is revoked.", revoked.name);
    Ok(back_to(page, Tone::Good, &text))
}
