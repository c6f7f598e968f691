//! Logs of steps: the raw text, the part that a run's page shows, and the stream of lines to come.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::super::{actions, api};
use super::{sse, view_of};
use crate::logs::{LogError, LogKey, LogState};
use crate::store::{Attempt, RunDetail};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use roadstead_pipelines::id::RunId;
use roadstead_web::view::{LogLine, LogPanel};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Lines that a page shows.
const LINES_ON_A_PAGE: u64 = 2_000;
/// Lines in one event.
const LINES_IN_AN_EVENT: u64 = 500;
/// A line longer than this is cut on pages, in bytes; the raw log has all of it.
const LONGEST_LINE: usize = 16 * 1024;

#[derive(Deserialize)]
pub(super) struct LogQuery {
    attempt: Option<u32>,
    from: Option<u64>,
}

/// The raw log.
///
/// # Errors
/// 404 when there is no such run or log.
pub(super) async fn raw(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<LogQuery>>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (run, step) = path.into_inner();
    api::raw_log(&app, &request, &run, step, who.sent.attempt).await
}

/// What a run's page shows of a log: the last lines, or those from `from` on. A bucket that does not answer keeps
/// nobody from the rest of the page.
///
/// # Errors
/// When the log cannot be read otherwise.
pub(super) async fn panel(
    app: &App,
    run: &RunId,
    attempt: &Attempt,
    step: &str,
    from: Option<u64>,
) -> Result<LogPanel, HttpError> {
    match shown(app, run, attempt, step, from).await {
        Err(LogError::Bucket(error)) => {
            tracing::warn!(%error, "a log cannot be shown: {error}");
            Ok(LogPanel {
                lines: vec![],
                step: step.to_owned(),
                attempt: attempt.number,
                total_lines: 0,
                total_bytes: 0,
                removed: None,
                live: false,
                unread: true,
            })
        }
        Err(error) => Err(broken(error)),
        Ok(mut panel) => {
            if panel.total_bytes == 0 {
                let removed = app.store.logs_removed_at(run).await?;
                panel.removed = removed.map(view_of::time);
            }
            Ok(panel)
        }
    }
}

async fn shown(
    app: &App,
    run: &RunId,
    attempt: &Attempt,
    step: &str,
    from: Option<u64>,
) -> Result<LogPanel, LogError> {
    let key = key_of(run, attempt.number, step);
    let state = app.logs.state(key.clone()).await?;
    let live = !state.sealed && attempt.ended_at.is_none();
    let to = finished_lines(app, &key, state, !live).await;
    let last_page = (to + 1).saturating_sub(LINES_ON_A_PAGE).max(1);
    let from = from.map_or(last_page, |from| from.clamp(1, to.max(1)));
    let count = (to + 1).saturating_sub(from).min(LINES_ON_A_PAGE);
    Ok(LogPanel {
        lines: lines_of(app, &key, from, count).await?,
        step: step.to_owned(),
        attempt: attempt.number,
        total_lines: state.lines,
        total_bytes: state.bytes,
        removed: None,
        live,
        unread: false,
    })
}

/// The stream of the lines from `from`, or from the last event that the browser has seen.
///
/// # Errors
/// 404 when there is no such run, attempt or step.
pub(super) async fn stream(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<LogQuery>>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (run, step) = path.into_inner();
    let run = actions::run_of(&run)?;
    let detail = app.store.get_run(&run).await?;
    let missing = || HttpError::not_found(format!("{run} has no log of step `{step}`"));
    let attempt = attempt_of(&detail, who.sent.attempt, &step).ok_or_else(missing)?;
    let known =
        |row: &crate::store::StepRow| row.attempt == attempt.id && row.name.as_str() == step;
    if !detail.steps.iter().any(known) {
        return Err(missing());
    }
    let seen = request.headers().get("last-event-id");
    let seen: Option<u64> = seen.and_then(|id| id.to_str().ok()?.parse().ok());
    let key = key_of(&run, attempt.number, &step);
    let bell = app.bell.clone();
    let tail = Tail {
        changes: app.logs.watch(key.clone()).await.map_err(broken)?,
        over: attempt.ended_at.is_some(),
        attempt: attempt.number,
        next: seen.or(who.sent.from).unwrap_or(1).max(1),
        end: Instant::now() + sse::LONGEST_STREAM,
        done: false,
        app,
        run,
        key,
    };
    let hello = stream::once(async { sse::heartbeat() });
    let events = stream::unfold(tail, |mut tail| async {
        let event = tail.event().await?;
        Some((event, tail))
    });
    Ok(sse::answer(
        &request,
        &bell,
        futures_util::StreamExt::chain(hello, events),
    ))
}

/// Follows one log.
struct Tail {
    app: web::Data<App>,
    run: RunId,
    attempt: u32,
    key: LogKey,
    changes: watch::Receiver<LogState>,
    /// The attempt has ended: what is not there by now does not come.
    over: bool,
    next: u64,
    end: Instant,
    done: bool,
}

impl Tail {
    /// The next event, once there is one; none when the stream ends.
    async fn event(&mut self) -> Option<Bytes> {
        while !self.done && Instant::now() < self.end {
            let state = *self.changes.borrow_and_update();
            let all = state.sealed || self.over;
            let finished = finished_lines(&self.app, &self.key, state, all).await;
            if self.next <= finished {
                return self.lines(finished).await;
            }
            if all {
                self.done = true;
                return Some(sse::event("end", None, "1"));
            }
            match timeout(sse::HEARTBEAT, self.changes.changed()).await {
                Ok(Ok(())) => {}
                // The store has let go of the log: ask for it again.
                Ok(Err(_)) => self.changes = self.app.logs.watch(self.key.clone()).await.ok()?,
                Err(_) => {
                    self.over = self.is_over().await;
                    return Some(sse::heartbeat());
                }
            }
        }
        None
    }

    async fn lines(&mut self, finished: u64) -> Option<Bytes> {
        let count = (finished + 1 - self.next).min(LINES_IN_AN_EVENT);
        let lines = lines_of(&self.app, &self.key, self.next, count)
            .await
            .ok()?;
        self.next = lines.last()?.number + 1;
        let html = roadstead_web::log_lines(&lines);
        Some(sse::event("lines", Some(self.next), &html))
    }

    async fn is_over(&self) -> bool {
        let Ok(detail) = self.app.store.get_run(&self.run).await else {
            return false;
        };
        let mut attempts = detail.attempts.iter();
        let attempt = attempts.find(|it| it.number == self.attempt);
        attempt.is_none_or(|attempt| attempt.ended_at.is_some())
    }
}

/// An attempt by number, the newest with the step without one.
pub(super) fn attempt_of<'d>(
    detail: &'d RunDetail,
    number: Option<u32>,
    step: &str,
) -> Option<&'d Attempt> {
    match number {
        None | Some(0) => detail.newest_with(step),
        Some(number) => detail.attempts.iter().find(|a| a.number == number),
    }
}

fn key_of(run: &RunId, attempt: u32, step: &str) -> LogKey {
    LogKey {
        run: run.to_string(),
        attempt,
        step: step.to_owned(),
    }
}

/// How many lines will not change any more: the last one may still grow, unless `all` is there. A
/// browser that was sent half a line could not be sent the other half.
async fn finished_lines(app: &App, key: &LogKey, state: LogState, all: bool) -> u64 {
    if all || state.bytes == 0 {
        return state.lines;
    }
    let whole = app.logs.ends_with_feed(key.clone()).await.unwrap_or(false);
    state.lines.saturating_sub(u64::from(!whole))
}

async fn lines_of(
    app: &App,
    key: &LogKey,
    from: u64,
    count: u64,
) -> Result<Vec<LogLine>, LogError> {
    if count == 0 {
        return Ok(vec![]);
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let read = app.logs.lines(key.clone(), from, count).await?;
    let mut lines: Vec<_> = (read.first..)
        .zip(&read.lines)
        .map(|(number, bytes)| LogLine {
            number,
            at: None,
            text: text_of(bytes),
        })
        .collect();
    if lines.is_empty() {
        // Longer than one read: a reader that waits for it would wait for ever.
        lines.push(LogLine {
            number: from,
            at: None,
            text: "(a line too long to be shown; the raw log has it)".to_owned(),
        });
    }
    Ok(lines)
}

fn text_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    if text.len() <= LONGEST_LINE {
        return text.to_owned();
    }
    let kept = view_of::clip(text, LONGEST_LINE);
    format!("{kept} (cut; the raw log has the rest)")
}

fn broken(error: LogError) -> HttpError {
    match error {
        LogError::Name(name) => HttpError::not_found(format!("no log of `{name}`")),
        other => api::log_unread(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_text_of_bounded_length() {
        assert_eq!(text_of(b"ok\r"), "ok");
        assert_eq!(text_of(b"\xff"), "\u{fffd}");
        let long = text_of("é".repeat(20_000).as_bytes());
        assert!(long.len() < LONGEST_LINE + 100, "{}", long.len());
    }
}
