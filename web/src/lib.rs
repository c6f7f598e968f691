//! The dashboard as pure functions: a view in, a page of HTML out.
//!
//! This house owns how Roadstead looks: the view structs ([`view`]), the addresses ([`urls`]),
//! the templates, the style sheet and the scripts ([`assets`]). It does no input or output,
//! reads no clock (every view carries `now`), and knows neither the store nor the planner nor
//! the web framework. Everything works without JavaScript; the scripts only save reloading.
//!
//! The server fills a view and calls [`render`]. It sends every page with
//! [`CONTENT_SECURITY_POLICY`]: no page holds an inline script or style, and a test sees to it.

pub mod ansi;
pub mod assets;
pub mod format;
mod page;
mod parts;
pub mod urls;
pub mod view;

pub use page::{Page, Section, render};

/// The `Content-Security-Policy` header that every page works under.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// Consecutive log lines as they are sent in an `event: lines` of
/// [`urls::route::STEP_LOG_EVENTS`]. Escaped, and without a line feed.
#[must_use]
pub fn log_lines(lines: &[view::LogLine]) -> String {
    parts::log_lines(lines).to_string()
}
