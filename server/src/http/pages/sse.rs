//! Server-sent events: how they are written, and the answer that carries them.

use super::super::auth;
use crate::wake::Bell;
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{Stream, StreamExt};
use std::convert::Infallible;
use std::time::Duration;

/// A stream says at least this often that it is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after this long; the browser opens it again, and is asked again who it is.
pub(super) const LONGEST_STREAM: Duration = Duration::from_secs(15 * 60);

/// A comment, which clients skip.
pub(super) fn heartbeat() -> Bytes {
    Bytes::from_static(b": alive\n\n")
}

/// One event. `data` must hold no line break.
pub(super) fn event(name: &str, id: Option<u64>, data: &str) -> Bytes {
    debug_assert!(!data.contains(['\n', '\r']), "{data:?}");
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("event: {name}\n{id}data: {data}\n\n"))
}

/// The answer. Pulled by the client: nothing is gathered for one that does not read. It ends when
/// the server stops, and when whoever asked is signed out or disabled.
pub(super) fn answer(
    request: &HttpRequest,
    bell: &Bell,
    events: impl Stream<Item = Bytes> + 'static,
) -> HttpResponse {
    let request = request.clone();
    let events = events.take_while(move |_| {
        let request = request.clone();
        // While the database is away nobody can tell, and there is nothing new to send either.
        async move { !matches!(auth::identify(&request).await, Ok(None)) }
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events.take_until(bell.gone()).map(Ok::<_, Infallible>))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_browsers_read_them() {
        assert_eq!(
            event("lines", Some(7), "<p>x</p>"),
            "event: lines\nid: 7\ndata: <p>x</p>\n\n"
        );
        assert_eq!(event("change", None, "1"), "event: change\ndata: 1\n\n");
    }
}
