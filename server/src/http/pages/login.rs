//! Signing in and out.

use super::super::App;
use super::super::auth::{self, SESSION_COOKIE};
use super::super::error::HttpError;
use super::super::{people, sign_in_limit};
use super::{errors, frame};
use crate::store::hash_secret;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_web::urls::{field, route};
use roadstead_web::view::LoginPage;
use serde::Deserialize;
use std::collections::HashMap;

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
    let client = sign_in_limit::client_of(&request, app.config.http.behind_proxy);
    let user = match people::sign_in(&app, client, name, password).await {
        Ok(user) => user,
        Err(error) if error.status().is_client_error() => {
            let message = errors::sentence(&error.to_string());
            let mut answer = form(&request, error.status(), name, next, &message)?;
            if let Some(seconds) = error.retry_after() {
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
            }
            return Ok(answer);
        }
        Err(error) => return Err(error),
    };
    let secret = people::begin_session(&app, client, &user).await?;
    let secure = app.public_url().starts_with("https://");
    Ok(frame::see_other(safe_next(next))
        .cookie(auth::session_cookie(secret, secure))
        .finish())
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
            .delete_session(&hash_secret(cookie.value()), crate::clock::now())
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
}
