//! Signing in, and pages that say why there is no page.

use askama::Template;

use super::frame::Frame;
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/login`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "login.html")]
pub struct LoginPage {
    /// The layout around the page; without a viewer.
    pub frame: Frame,
    /// The name that was typed, after a failure. May be empty.
    pub user: String,
    /// Where to go afterwards: a path of this site.
    pub next: String,
    /// What was wrong. May be empty.
    pub error: String,
}

/// Any page with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "error.html")]
pub struct ErrorPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, short: `No such run`.
    pub title: String,
    /// What to do, one or two sentences.
    pub detail: String,
    /// The id to find the error in the server's log. May be empty.
    pub request_id: String,
    /// Where to sign in and come back, when signing in would help; made by [`crate::urls::login`].
    pub login_url: Option<String>,
}
