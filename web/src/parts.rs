//! The small pieces that every template uses: badges, times, commits, log lines, bars.
//!
//! Each returns [`Html`], which templates print as it is; whatever comes from outside is
//! escaped here. Arguments are references because that is how templates pass them.

use std::fmt::{self, Write as _};

use askama::filters::{self, HtmlSafe};

use crate::ansi;
use crate::format;
use crate::view::state::State;
use crate::view::{Commit, LogLine, Permission, ProjectRuns, RunState, Time, Tone};

/// Lines in one block of a log. The style sheet lets the browser skip blocks that are out of
/// sight, which keeps long logs fast.
const LINES_PER_BLOCK: usize = 500;

/// A piece of finished HTML. Whoever makes one has escaped what is inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Html(String);

impl fmt::Display for Html {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl HtmlSafe for Html {}

/// `text` with everything escaped that means something in HTML, in content and in attributes.
fn escape(text: &str) -> impl fmt::Display + '_ {
    match filters::escape(text, filters::Html) {
        Ok(escaped) => escaped,
        Err(never) => match never {},
    }
}

/// An icon of the sprite in the layout. Decoration: the word beside it says the same.
pub(crate) fn icon(name: &str) -> Html {
    Html(format!(
        "<svg class=\"icon\" aria-hidden=\"true\"><use href=\"#i-{}\"/></svg>",
        escape(name)
    ))
}

/// Icon, word and colour of a state.
pub(crate) fn badge(state: &impl State) -> Html {
    labelled(state.tone(), state.icon(), state.word())
}

/// Icon and colour of a state, its word for screen readers and the pointer only.
pub(crate) fn dot(state: &impl State) -> Html {
    Html(format!(
        "<span class=\"dot {}\" title=\"{word}\">{}<span class=\"unseen\">{word}</span></span>",
        state.tone().class(),
        icon(state.icon()),
        word = escape(state.word()),
    ))
}

/// A badge with a word of its own.
pub(crate) fn labelled(tone: Tone, icon_name: &str, word: &str) -> Html {
    Html(format!(
        "<span class=\"badge {}\">{}{}</span>",
        tone.class(),
        icon(icon_name),
        escape(word)
    ))
}

/// How long ago, with the exact time under the pointer.
pub(crate) fn ago(now: &Time, then: &Time) -> Html {
    timed(then, &format::age(now, then))
}

/// For how long already, with the exact time of the beginning under the pointer.
pub(crate) fn lasting(now: &Time, since: &Time) -> Html {
    timed(since, &format::lasting(now, since))
}

/// Date and time.
pub(crate) fn stamp(time: &Time) -> Html {
    timed(time, &format::utc(time))
}

/// How long until, with the exact time under the pointer.
pub(crate) fn until(now: &Time, then: &Time) -> Html {
    timed(then, &format::until(now, then))
}

/// The time of day, with the exact time under the pointer.
pub(crate) fn clock(time: &Time) -> Html {
    timed(time, &format::clock(time))
}

fn timed(time: &Time, text: &str) -> Html {
    Html(format!(
        "<time datetime=\"{}\" title=\"{} UTC\">{text}</time>",
        format::machine(time),
        format::utc(time)
    ))
}

/// A commit's short id, linked to the forge when there is a web address.
pub(crate) fn sha(commit: &Commit) -> Html {
    let short = escape(format::sha(&commit.sha)).to_string();
    let code = format!(
        "<code class=\"sha\" title=\"{}\">{short}</code>",
        escape(&commit.sha)
    );
    match commit.url.as_deref().filter(|url| web_address(url)) {
        Some(url) => Html(format!(
            "<a href=\"{}\" rel=\"noreferrer\">{code}</a>",
            escape(url)
        )),
        None => Html(code),
    }
}

/// Only these are linked: a `javascript:` address from a hostile payload must stay dead.
fn web_address(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

/// A form that is one button. Disabled with its reason when the viewer may not press it, and
/// nothing at all when it makes no sense.
pub(crate) fn button(permission: &Permission, url: &str, label: &str, class: &str) -> Html {
    let (label, class) = (escape(label), escape(class));
    Html(match permission {
        Permission::Allowed => format!(
            "<form method=\"post\" action=\"{}\" class=\"one\"><button class=\"{class}\">{label}</button></form>",
            escape(url)
        ),
        Permission::Denied(reason) => format!(
            "<span class=\"one\"><button class=\"{class}\" disabled>{label}</button> <span class=\"why\">{}</span></span>",
            escape(reason)
        ),
        Permission::Absent => String::new(),
    })
}

/// A digest, short, with all of it under the pointer.
pub(crate) fn digest(full: &str) -> Html {
    Html(format!(
        "<code class=\"digest\" title=\"{}\">{}</code>",
        escape(full),
        escape(format::digest(full))
    ))
}

/// Consecutive log lines with anchors. Without line feeds, so that it fits into one `data:`
/// line of an event stream.
pub(crate) fn log_lines(lines: &[LogLine]) -> Html {
    let mut html = String::with_capacity(lines.len() * 96);
    for line in lines {
        write_line(&mut html, line, true);
    }
    Html(html)
}

/// The lines of a log in blocks.
pub(crate) fn log_blocks(lines: &[LogLine]) -> Html {
    let mut html = String::with_capacity(lines.len() * 96 + 64);
    for block in lines.chunks(LINES_PER_BLOCK) {
        html.push_str("<div class=\"block\">");
        for line in block {
            write_line(&mut html, line, true);
        }
        html.push_str("</div>");
    }
    Html(html)
}

/// A few lines out of a log, without anchors: several of these can be on one page.
pub(crate) fn log_excerpt(lines: &[LogLine]) -> Html {
    let mut html = String::new();
    for line in lines {
        write_line(&mut html, line, false);
    }
    Html(html)
}

/// What was seen of a failure, line by line, as the core wrote it down: reasons, and the last lines
/// of logs below them.
pub(crate) fn evidence(lines: &[String]) -> Html {
    let mut html = String::from("<pre class=\"evidence\">");
    for line in lines {
        html.push_str(&ansi::to_html(line).to_string());
        html.push('\n');
    }
    html.push_str("</pre>");
    Html(html)
}

fn write_line(html: &mut String, line: &LogLine, anchored: bool) {
    let number = line.number;
    // Writing to a String cannot fail.
    let _ = if anchored {
        write!(
            html,
            "<div class=\"l\" id=\"L{number}\"><a href=\"#L{number}\">{number}</a>"
        )
    } else {
        write!(html, "<div class=\"l\"><b>{number}</b>")
    };
    if let Some(at) = line.at {
        let _ = write!(html, "<i>{}</i>", format::clock(&at));
    }
    let _ = write!(html, "<span>{}</span></div>", ansi::to_html(&line.text));
}

/// The last runs as bars, oldest at the left: height is duration, colour and shape of the
/// foot are the state.
pub(crate) fn bars(runs: &ProjectRuns, now: &Time) -> Html {
    const HEIGHT: i64 = 36;
    const STEP: usize = 9;
    let length = |run: &crate::view::RunSummary| {
        run.started
            .map_or(0, |start| (run.ended.unwrap_or(*now).0 - start.0).max(0))
    };
    let longest = runs.runs.iter().map(length).max().unwrap_or(0).max(1);
    let width = runs.runs.len() * STEP;
    let mut html = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" height=\"{HEIGHT}\" role=\"group\" aria-label=\"last {} runs of {}\">",
        runs.runs.len(),
        escape(&runs.project),
    );
    for (position, run) in runs.runs.iter().enumerate() {
        let height = 5 + (HEIGHT - 5) * length(run) / longest;
        let x = position * STEP;
        let label = format!(
            "{} {}: {}, {}",
            run.name,
            run.state.word(),
            run.commit.message,
            run.started.map_or_else(
                || "not started".to_owned(),
                |start| format::length(now, &start, &run.ended)
            )
        );
        // A failed run is also marked by a notch, for those who do not see its colour.
        let notch = if matches!(run.state, RunState::Failed | RunState::TimedOut) {
            format!("<circle cx=\"{}\" cy=\"{}\" r=\"1.5\"/>", x + 4, HEIGHT - 3)
        } else {
            String::new()
        };
        let _ = write!(
            html,
            "<a href=\"{}\" class=\"{}\"><title>{}</title><rect x=\"{x}\" y=\"{}\" width=\"7\" height=\"{height}\" rx=\"1.5\"/>{notch}</a>",
            escape(&crate::urls::run(&run.id)),
            run.state.tone().class(),
            escape(&label),
            HEIGHT - height,
        );
    }
    html.push_str("</svg>");
    Html(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_linked() {
        let commit = |url: &str| Commit {
            sha: "3f2a91c0".into(),
            message: String::new(),
            author: String::new(),
            branch: String::new(),
            url: Some(url.into()),
        };
        assert!(!sha(&commit("javascript:alert(1)")).0.contains("href"));
        assert!(!sha(&commit("data:text/html,x")).0.contains("href"));
        let linked = sha(&commit("https://forge.example/\"><script>")).0;
        assert!(linked.contains("href=\"https://forge.example/"));
        assert!(!linked.contains("<script>"));
    }

    #[test]
    fn lines_for_the_event_stream_hold_no_line_feed() {
        let line = LogLine {
            number: 7,
            at: Some(Time(0)),
            text: "a\r\nb\n".into(),
        };
        let html = log_lines(&[line]).0;
        assert!(!html.contains(['\n', '\r']));
        assert!(
            html.starts_with("<div class=\"l\" id=\"L7\"><a href=\"#L7\">7</a><i>00:00:00</i>")
        );
    }
}
