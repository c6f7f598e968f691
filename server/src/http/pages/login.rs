//! Signing in and out. An unknown name costs the same time as a wrong password, and a name that
//! failed too often has to wait.

use super::super::App;
use super::super::auth::{self, SESSION_COOKIE, SESSION_HOURS};
use super::super::error::HttpError;
use super::frame;
use crate::store::{User, hash_secret};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::SignedDuration;
use roadstead_web::urls::{field, route};
use roadstead_web::view::LoginPage;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Instant;
use tokio::sync::Semaphore;

/// Passwords that are checked at the same time: each takes 19 MiB for a moment.
static CHECKS: Semaphore = Semaphore::const_new(2);
/// Nobody's name or password is longer, in bytes.
const LONGEST: usize = 256;

#[derive(Deserialize)]
pub(super) struct NextQuery {
    #[serde(default)]
    next: String,
}

/// The form.
///
/// # Errors
/// When the template fails.
pub(super) async fn show(
    request: HttpRequest,
    query: web::Query<NextQuery>,
) -> Result<HttpResponse, HttpError> {
    form(&request, StatusCode::OK, "", &query.next, "")
}

fn form(
    request: &HttpRequest,
    status: StatusCode,
    user: &str,
    next: &str,
    error: &str,
) -> Result<HttpResponse, HttpError> {
    let page = LoginPage {
        frame: frame::bare(),
        user: user.to_owned(),
        next: safe_next(next).to_owned(),
        error: error.to_owned(),
    };
    frame::send(request, status, &page)
}

/// A path of this site: begins with exactly one `/`; anything else is the first page.
pub(super) fn safe_next(next: &str) -> &str {
    let inside = next.starts_with('/')
        && !next[1..].starts_with(['/', '\\'])
        && next.len() <= 2_000
        && !next.chars().any(char::is_control);
    if inside { next } else { "/" }
}

/// Checks name and password and begins a session.
///
/// # Errors
/// When the database is out of reach. A wrong password is answered with the form, 401; too many of
/// them with the form, 429.
pub(super) async fn sign_in(
    app: web::Data<App>,
    request: HttpRequest,
    fields: web::Form<HashMap<String, String>>,
) -> Result<HttpResponse, HttpError> {
    let given = |name: &str| fields.get(name).map_or("", String::as_str);
    let (name, password, next) = (
        given(field::USER).trim(),
        given(field::PASSWORD),
        given(field::NEXT),
    );
    if name.len() > LONGEST || password.len() > LONGEST {
        let message = "A name or password has at most 256 characters.";
        return form(&request, StatusCode::BAD_REQUEST, "", next, message);
    }
    if let Err(wait) = app.pages.failed_sign_ins.begin(name, Instant::now()) {
        let seconds = wait.as_secs() + 1;
        let message = format!("Too many failed tries for this name; try again in {seconds} s.");
        let mut answer = form(
            &request,
            StatusCode::TOO_MANY_REQUESTS,
            name,
            next,
            &message,
        )?;
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
        return Ok(answer);
    }
    let Some(user) = checked(&app, name, password).await? else {
        let message = "This name and password do not fit.";
        return form(&request, StatusCode::UNAUTHORIZED, name, next, message);
    };
    app.pages.failed_sign_ins.forget(name);
    let secret = auth::new_secret("rss");
    let now = crate::clock::now();
    let end = now + SignedDuration::from_hours(SESSION_HOURS);
    app.store
        .create_session(hash_secret(&secret), &user.name, now, end)
        .await?;
    let secure = app.public_url().starts_with("https://");
    Ok(frame::see_other(safe_next(next))
        .cookie(auth::session_cookie(secret, secure))
        .finish())
}

/// The user when the password is theirs; as slow for a name that nobody has.
async fn checked(app: &App, name: &str, password: &str) -> Result<Option<User>, HttpError> {
    let user = app.store.get_user(name).await?;
    let _permit = CHECKS.acquire().await.map_err(HttpError::internal)?;
    let stored = user.as_ref().map(|user| user.password_hash.clone());
    let password = password.to_owned();
    let holds = web::block(move || {
        let stored = match &stored {
            Some(stored) => stored,
            None => nobody()?,
        };
        Ok::<_, HttpError>(auth::password_holds(&password, stored))
    });
    let holds = holds.await.map_err(HttpError::internal)??;
    Ok(user.filter(|_| holds))
}

/// The hash of a password that nobody knows.
fn nobody() -> Result<&'static str, HttpError> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(known) = HASH.get() {
        return Ok(known);
    }
    let hash = auth::hash_password(&auth::new_secret("nobody"))?;
    Ok(HASH.get_or_init(|| hash))
}

/// Ends the session, here and in the browser.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn sign_out(
    app: web::Data<App>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let mut answer = frame::see_other(route::LOGIN);
    if let Some(cookie) = request.cookie(SESSION_COOKIE) {
        app.store
            .delete_session(&hash_secret(cookie.value()))
            .await?;
        let mut gone = auth::session_cookie(String::new(), false);
        gone.make_removal();
        answer.cookie(gone);
    }
    Ok(answer.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_stays_on_this_site() {
        for good in ["/", "/runs/shop.1?step=a", "/a//b"] {
            assert_eq!(safe_next(good), good);
        }
        for bad in [
            "",
            "//evil.com",
            "/\\evil.com",
            "https://evil.com",
            "runs",
            "/a\nb",
        ] {
            assert_eq!(safe_next(bad), "/", "{bad}");
        }
    }

    #[test]
    fn nobodys_hash_is_a_hash() {
        let hash = nobody().unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(!auth::password_holds("", hash));
    }
}
