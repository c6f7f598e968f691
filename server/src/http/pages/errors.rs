//! Errors for people. Handlers fail with an [`HttpError`], which is JSON; here a browser gets a page
//! of it, and one that is not signed in is led to the sign-in page and back.

use super::super::auth;
use super::super::error::HttpError;
use super::{frame, login, view_of};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse};
use roadstead_web::urls;
use roadstead_web::view::{ErrorPage, Viewer};

/// Shows what went wrong as a page to whoever reads pages.
///
/// # Errors
/// None of its own.
pub(super) async fn as_pages(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let answer = next.call(request).await?.map_into_boxed_body();
    if answer.status().as_u16() < 400 || !reads_pages(answer.request()) {
        return Ok(answer);
    }
    let Some(message) = answer.response().error().map(ToString::to_string) else {
        return Ok(answer);
    };
    let status = answer.status();
    let wait = answer.headers().get(header::RETRY_AFTER).cloned();
    let request = answer.request().clone();
    let mut page = page_of(&request, status, message).await?;
    if let Some(wait) = wait {
        page.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    Ok(ServiceResponse::new(request, page))
}

/// Whatever has no route.
///
/// # Errors
/// Always.
pub(super) async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let path = view_of::clip(request.path(), 200);
    Err(HttpError::not_found(format!("there is nothing at {path}")))
}

fn reads_pages(request: &HttpRequest) -> bool {
    let accepts = request.headers().get(header::ACCEPT);
    accepts
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accepts| accepts.contains("text/html"))
}

async fn page_of(
    request: &HttpRequest,
    status: StatusCode,
    message: String,
) -> Result<HttpResponse, HttpError> {
    let unknown = status == StatusCode::UNAUTHORIZED;
    let reads = request.method() == Method::GET;
    if unknown && reads {
        let here = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        return Ok(frame::see_other(&urls::login(login::safe_next(here))).finish());
    }
    // Why there is an error must not depend on what failed: without a database, nobody is known.
    let viewer = auth::identify(request).await.ok().flatten();
    let mut bare = frame::bare();
    bare.viewer = viewer.map(|(actor, _)| Viewer {
        role: view_of::role(actor.role),
        name: actor.name,
    });
    let page = ErrorPage {
        frame: bare,
        status: status.as_u16(),
        title: title(status).to_owned(),
        detail: sentence(&message),
        request_id: String::new(),
        login_url: unknown.then(|| urls::login(&origin_of(request))),
    };
    frame::send(request, status, &page)
}

fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "The form was not complete",
        StatusCode::UNAUTHORIZED => "You are not signed in",
        StatusCode::FORBIDDEN => "You may not do that",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::METHOD_NOT_ALLOWED => "This address takes no such request",
        StatusCode::CONFLICT => "This is not possible now",
        StatusCode::PAYLOAD_TOO_LARGE => "The form was too large",
        StatusCode::TOO_MANY_REQUESTS => "Too many tries",
        StatusCode::SERVICE_UNAVAILABLE => "The database is out of reach",
        status if status.is_client_error() => "This did not work",
        _ => "Something failed here",
    }
}

/// With a capital letter and a full stop.
pub(super) fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    let Some(first) = characters.next() else {
        return String::new();
    };
    let stop = if message.ends_with(['.', '?', '!']) {
        ""
    } else {
        "."
    };
    format!("{}{}{stop}", first.to_uppercase(), characters.as_str())
}

/// The page that a form was on, to come back to after signing in.
fn origin_of(request: &HttpRequest) -> String {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    let (referer, host) = (text(header::REFERER), text(header::HOST));
    let path = referer
        .and_then(|address| address.split_once("://"))
        .and_then(|(_, rest)| rest.strip_prefix(host?))
        .filter(|path| path.starts_with('/'));
    login::safe_next(path.unwrap_or("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn messages_become_sentences() {
        assert_eq!(sentence("no run `x`"), "No run `x`.");
        assert_eq!(sentence("Éa."), "Éa.");
        assert_eq!(sentence(""), "");
    }

    #[test]
    fn a_form_leads_back_to_its_page_of_this_site_only() {
        let from = |referer: &'static str| {
            let request = TestRequest::post()
                .insert_header(("host", "ci.example.com"))
                .insert_header(("referer", referer));
            origin_of(&request.to_http_request())
        };
        assert_eq!(
            from("https://ci.example.com/runs/shop.1?x=1"),
            "/runs/shop.1?x=1"
        );
        assert_eq!(from("https://ci.example.com.evil.com/runs"), "/");
        assert_eq!(from("https://evil.com/runs"), "/");
        assert_eq!(from("https://ci.example.com"), "/");
    }
}
