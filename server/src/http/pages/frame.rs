//! What all pages share: the frame around the view, sending it, and the notice that an action leaves
//! for the next page in a cookie that lives for one page.

use super::super::App;
use super::super::error::HttpError;
use super::{home, view_of};
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, cookie};
use roadstead_pipelines::action::Actor;
use roadstead_web::view::{Frame, Notice, Time, Tone, Viewer};
use roadstead_web::{Page, render};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const NOTICE_COOKIE: &str = "roadstead_notice";
/// A notice that no page has shown by then is not shown any more.
const NOTICE_SECONDS: i64 = 60;
/// Longest notice, in bytes.
const LONGEST_NOTICE: usize = 600;
/// How old the number beside "Home" may be.
const NEEDS_ARE_FRESH: Duration = Duration::from_secs(3);

/// The frame for somebody who is signed in.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn of(
    app: &App,
    actor: &Actor,
    request: &HttpRequest,
) -> Result<Frame, HttpError> {
    Ok(Frame {
        viewer: Some(Viewer {
            name: actor.name.clone(),
            role: view_of::role(actor.role),
        }),
        notice: notice_of(request),
        needs: count_of_needs(app).await?,
        ..bare()
    })
}

/// The frame for somebody unknown.
pub(super) fn bare() -> Frame {
    Frame {
        now: now(),
        viewer: None,
        notice: None,
        needs: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn now() -> Time {
    view_of::time(crate::clock::now())
}

async fn count_of_needs(app: &App) -> Result<u64, HttpError> {
    let known = *app
        .pages
        .needs
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((at, count)) = known
        && at.elapsed() < NEEDS_ARE_FRESH
    {
        return Ok(count);
    }
    let count = home::needs(app).await?.len() as u64;
    remember_needs(app, count);
    Ok(count)
}

/// Keeps the number beside "Home" for a moment.
pub(super) fn remember_needs(app: &App, count: u64) {
    *app.pages
        .needs
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), count));
}

/// A view as an answer; a notice that it shows is taken away.
///
/// # Errors
/// When the template fails.
pub(super) fn send<P: Page>(
    request: &HttpRequest,
    status: StatusCode,
    page: &P,
) -> Result<HttpResponse, HttpError> {
    let html = render(page).map_err(HttpError::internal)?;
    let mut answer = HttpResponse::build(status);
    answer
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"));
    if request.cookie(NOTICE_COOKIE).is_some() {
        answer.cookie(notice_cookie(String::new(), 0));
    }
    Ok(answer.body(html))
}

/// 303 to a page of this site, which then shows `text` once.
pub(super) fn back_to(address: &str, tone: Tone, text: &str) -> HttpResponse {
    let text = view_of::clip(text, LONGEST_NOTICE);
    let value = format!("{}{}", tone.class(), hex::encode(text));
    see_other(address)
        .cookie(notice_cookie(value, NOTICE_SECONDS))
        .finish()
}

/// 303 to an address of this site.
pub(super) fn see_other(address: &str) -> HttpResponseBuilder {
    let mut answer = HttpResponse::SeeOther();
    answer.insert_header((header::LOCATION, address));
    answer
}

fn notice_cookie(value: String, seconds: i64) -> Cookie<'static> {
    Cookie::build(NOTICE_COOKIE, value)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(cookie::time::Duration::seconds(seconds))
        .finish()
}

fn notice_of(request: &HttpRequest) -> Option<Notice> {
    read_notice(request.cookie(NOTICE_COOKIE)?.value())
}

fn read_notice(value: &str) -> Option<Notice> {
    let tones = [Tone::Good, Tone::Busy, Tone::Warn, Tone::Bad, Tone::Quiet];
    let (tone, text) = tones
        .iter()
        .find_map(|tone| Some((*tone, value.strip_prefix(tone.class())?)))?;
    let text = String::from_utf8(hex::decode(text).ok()?).ok()?;
    (!text.is_empty() && text.len() <= LONGEST_NOTICE).then_some(Notice { tone, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_reads_back_and_nothing_else_does() {
        let answer = back_to("/", Tone::Warn, "held: “no”");
        let cookie = answer.cookies().next().unwrap();
        assert!(cookie.http_only().unwrap());
        let notice = read_notice(cookie.value()).unwrap();
        assert_eq!(
            (notice.tone, notice.text.as_str()),
            (Tone::Warn, "held: “no”")
        );
        for odd in ["", "good", "goodzz", "pink6162", "6162", "goodff"] {
            assert_eq!(read_notice(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_long_notice_still_shows() {
        let answer = back_to("/", Tone::Good, &"ü".repeat(2_000));
        let cookie = answer.cookies().next().unwrap();
        assert!(read_notice(cookie.value()).is_some());
    }
}
