//! Users, for admins: add, change the role, reset the password, disable and enable.

use super::super::App;
use super::super::auth::{Admin, Allowed};
use super::super::error::HttpError;
use super::super::people;
use super::account::{self, of_the_form, role_of};
use super::errors::sentence;
use super::frame::back_to;
use super::{frame, view_of};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::spec::Role;
use roadstead_web::urls::{field, route};
use roadstead_web::view::{self, Permission, Secret, Tone, UsersPage};
use std::collections::HashMap;

/// An admin and the form they sent.
type Sent = Allowed<Admin, web::Form<HashMap<String, String>>>;

/// The page.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Admin>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let page = page(&app, &who.actor, &request).await?;
    frame::send(&request, StatusCode::OK, &page)
}

async fn page(app: &App, actor: &Actor, request: &HttpRequest) -> Result<UsersPage, HttpError> {
    let users = app.store.list_users().await?;
    let now = crate::clock::now();
    let tokens: Vec<_> = app
        .store
        .list_api_tokens(None)
        .await?
        .into_iter()
        .filter(|token| token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > now))
        .collect();
    let line = |user: &crate::store::User| {
        let permission = if people::last_admin(&users, user) {
            Permission::Denied("the last admin".to_owned())
        } else {
            Permission::Allowed
        };
        let own = tokens.iter().filter(|token| token.created_by == user.name);
        view::User {
            name: user.name.clone(),
            role: view_of::role(user.role),
            created: view_of::time(user.created_at),
            last_sign_in: user.last_sign_in_at.map(view_of::time),
            disabled: user.disabled_at.map(view_of::time),
            tokens: own.count() as u64,
            emails: user.emails.iter().cloned().collect(),
            is_viewer: user.name == actor.name,
            disable: match user.disabled_at {
                Some(_) => Permission::Absent,
                None => permission.clone(),
            },
            change_role: permission,
        }
    };
    Ok(UsersPage {
        frame: frame::of(app, actor, request).await?,
        created: None,
        users: users.iter().map(line).collect(),
        roles: view::Role::ALL.to_vec(),
        tokens: tokens.iter().map(account::token).collect(),
        error: String::new(),
    })
}

/// Shows the page with what came of a form that may have made a password.
async fn answer(
    app: &App,
    actor: &Actor,
    request: &HttpRequest,
    name: &str,
    done: Result<Option<String>, HttpError>,
    said: &str,
) -> Result<HttpResponse, HttpError> {
    let (status, created, error) = match done {
        Ok(Some(secret)) => {
            let created = Secret {
                name: name.to_owned(),
                secret,
            };
            (StatusCode::CREATED, Some(created), String::new())
        }
        Ok(None) => return Ok(back_to(route::USERS, Tone::Good, said)),
        Err(error) if of_the_form(&error) => (error.status(), None, sentence(&error.to_string())),
        Err(error) => return Err(error),
    };
    let page = UsersPage {
        created,
        error,
        ..page(app, actor, request).await?
    };
    frame::send(request, status, &page)
}

/// A password off a form: empty asks for one to be made.
fn given(fields: &HashMap<String, String>) -> Option<&str> {
    let password = fields.get(field::PASSWORD)?.as_str();
    (!password.is_empty()).then_some(password)
}

/// The addresses off a form, as people separate them.
fn emails(fields: &HashMap<String, String>) -> impl Iterator<Item = &str> {
    let text = fields.get(field::EMAILS).map_or("", String::as_str);
    text.split([',', ' ', '\n', '\r', '\t'])
}

/// Adds a user. A password that was made is on the page that answers, and nowhere else.
///
/// # Errors
/// When the database is out of reach. Mistakes are told beside the form.
pub(super) async fn add(
    app: web::Data<App>,
    who: Sent,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let text = |name: &str| who.sent.get(name).map_or("", |text| text.trim());
    let name = text(field::NAME);
    let done = match role_of(text(field::ROLE)) {
        Ok(role) => {
            let emails = emails(&who.sent);
            people::add_user(&app, &who.actor, name, role, emails, given(&who.sent)).await
        }
        Err(error) => Err(error),
    };
    let said = format!("{name} can sign in now.");
    answer(&app, &who.actor, &request, name, done, &said).await
}

/// Gives a user another password and ends their sessions.
///
/// # Errors
/// 404 for an unknown user. Mistakes are told on the page.
pub(super) async fn reset_password(
    app: web::Data<App>,
    who: Sent,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let done = people::reset_password(&app, &who.actor, &path, given(&who.sent)).await;
    let said = format!("{path} has a new password, and is signed out everywhere.");
    answer(&app, &who.actor, &request, &path, done, &said).await
}

/// Changes what a user may do.
///
/// # Errors
/// 404 for an unknown user, 409 for the last admin.
pub(super) async fn set_role(
    app: web::Data<App>,
    who: Sent,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let role = role_of(who.sent.get(field::ROLE).map_or("", String::as_str))?;
    let now = crate::clock::now();
    app.store
        .set_role(&path, role, &who.actor.name, now)
        .await?;
    let text = format!("{path} is {role} from now on.");
    // Whoever gave their own role away may not see the users any more.
    let leaves = *path == who.actor.name && role < Role::Admin;
    let page = if leaves { route::HOME } else { route::USERS };
    Ok(back_to(page, Tone::Good, &text))
}

/// Changes the addresses that a user commits with.
///
/// # Errors
/// 404 for an unknown user. Mistakes are told on the page.
pub(super) async fn set_emails(
    app: web::Data<App>,
    who: Sent,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let done = people::set_emails(&app, &who.actor, &path, emails(&who.sent)).await;
    let said = format!("The e-mail addresses of {path} are noted.");
    answer(
        &app,
        &who.actor,
        &request,
        &path,
        done.map(|()| None),
        &said,
    )
    .await
}

/// Lets a user in no more.
///
/// # Errors
/// 404 for an unknown user, 409 for the last admin.
pub(super) async fn disable(
    app: web::Data<App>,
    who: Allowed<Admin>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store.disable_user(&path, &who.actor.name, now).await?;
    let text = format!("{path} is disabled: signed out, and their API tokens are revoked.");
    Ok(back_to(route::USERS, Tone::Warn, &text))
}

/// Lets a disabled user in again.
///
/// # Errors
/// 404 for an unknown user.
pub(super) async fn enable(
    app: web::Data<App>,
    who: Allowed<Admin>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    app.store.enable_user(&path, &who.actor.name, now).await?;
    let text = format!("{path} may sign in again, with the password of before.");
    Ok(back_to(route::USERS, Tone::Good, &text))
}
