//! Forges as they are told of runs: one call per commit status, and a look at what they show.
//!
//! What each forge wants to hear and how it says no is in a file of its own; here is the call itself. A redirect
//! is an answer: the token goes to the address of the configuration and nowhere else, and no text that comes
//! back from here holds it.

mod bitbucket;
mod gitea;
mod github;
mod gitlab;

use crate::config::{Token, ToldForge};
use crate::forge::Forge;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use roadstead_pipelines::commit_status::{Answer, CONTEXT, PULL_REQUEST_CONTEXT, Status};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::CommitSha;
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// A forge that takes longer has not answered.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 64 * 1024;
/// Characters of a status's name; GitHub takes no more.
const LONGEST_CONTEXT: usize = 255;
/// Characters of what a forge said that are kept.
const LONGEST_REASON: usize = 300;

/// What is told.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The commit.
    pub commit: &'a CommitSha,
    /// The branch, tag or pull request, `refs/heads/main`.
    pub git_ref: &'a str,
    /// The branch that its pull request is to be merged to, where the forge shows those of all refs at the commit.
    pub base_branch: Option<&'a str>,
    /// The status.
    pub status: &'a Status,
    /// Where people read more.
    pub page: &'a str,
}

impl Told<'_> {
    /// The name that the status goes by.
    fn context(&self) -> String {
        match (GitRef::of(self.git_ref), self.base_branch) {
            (GitRef::PullRequest(_), Some(base)) => {
                let whole = format!("{PULL_REQUEST_CONTEXT}/{base}");
                whole.chars().take(LONGEST_CONTEXT).collect()
            }
            (GitRef::PullRequest(_), None) => PULL_REQUEST_CONTEXT.to_owned(),
            (GitRef::Branch(_) | GitRef::Tag(_) | GitRef::Other(_), _) => CONTEXT.to_owned(),
        }
    }
}

/// What is sent to a forge.
struct Call {
    method: Method,
    /// What follows the API's address, name by name.
    path: Vec<String>,
    query: &'static [(&'static str, &'static str)],
    body: Option<Value>,
}

impl Call {
    fn tell<const N: usize>(path: [&str; N], body: Value) -> Self {
        Self {
            method: Method::POST,
            path: path.map(str::to_owned).into(),
            query: &[],
            body: Some(body),
        }
    }

    fn look<const N: usize>(
        path: [&str; N],
        query: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            method: Method::GET,
            path: path.map(str::to_owned).into(),
            query,
            body: None,
        }
    }
}

/// What a forge answered.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    /// Where it is instead, for people.
    moved: Option<String>,
    /// What it said, for people.
    said: String,
}

impl Reply {
    /// An answer to a call with this token, which is in none of its texts.
    fn read(status: StatusCode, headers: HeaderMap, body: &[u8], token: &str) -> Self {
        let shown = |text: &str| clipped(&text.replace(token, "***"));
        let moved = headers.get("location").and_then(|to| to.to_str().ok());
        Self {
            status,
            moved: moved.map(shown),
            said: shown(&said(body)),
            headers,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.header(name)?.trim().parse().ok()
    }
}

/// Calls forges.
#[derive(Clone)]
pub struct Forges {
    client: reqwest::Client,
}

impl Forges {
    /// One that calls none yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent("roadstead")
            .build()?;
        Ok(Self { client })
    }

    /// Tells a status. It is `now`: some forges say until when to wait.
    pub async fn tell(
        &self,
        to: &ToldForge,
        token: &Token,
        told: Told<'_>,
        now: Timestamp,
    ) -> Answer {
        let call = match to.forge {
            Forge::Github => github::tell(to, told),
            Forge::Gitlab => gitlab::tell(to, told),
            Forge::Gitea => gitea::tell(to, told),
            Forge::Bitbucket => bitbucket::tell(to, told),
            Forge::Git => return no_forge(),
        };
        let reply = match self.call(to, token, call).await {
            Ok(reply) => reply,
            Err(no_reply) => return no_reply.into_answer(),
        };
        if to.forge == Forge::Gitlab && gitlab::shows_it_already(&reply) {
            return Answer::Taken;
        }
        judge(&reply, now)
    }

    /// Asks for the statuses of a commit, as somebody who wants to know whether address and token are right.
    ///
    /// # Errors
    /// What the forge answered, or why it did not.
    pub async fn look(
        &self,
        to: &ToldForge,
        token: &Token,
        commit: &CommitSha,
    ) -> Result<(), String> {
        let call = match to.forge {
            Forge::Github => github::look(to, commit),
            Forge::Gitlab => gitlab::look(to, commit),
            Forge::Gitea => gitea::look(to, commit),
            Forge::Bitbucket => bitbucket::look(to, commit),
            Forge::Git => return Err("plain git shows no statuses".into()),
        };
        match self.call(to, token, call).await {
            Ok(reply) if reply.status.is_success() => Ok(()),
            Ok(reply) => Err(in_words(&reply)),
            Err(no_reply) => Err(no_reply.why),
        }
    }

    async fn call(&self, to: &ToldForge, token: &Token, call: Call) -> Result<Reply, NoReply> {
        let mut url: Url = to.api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let mut request = self.client.request(call.method, url);
        for (name, value) in headers(to.forge, token) {
            request = request.header(name, value);
        }
        if let Some(body) = call.body {
            request = request.json(&body);
        }
        let mut answer = request.send().await.map_err(|e| NoReply::of(&e))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = vec![];
        // What the status says is known even if the rest does not come.
        while let Ok(Some(piece)) = answer.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST_ANSWER {
                break;
            }
        }
        Ok(Reply::read(status, headers, &body, token.reveal()))
    }
}

/// How a forge is told whose call it is, and what it wants beside that.
fn headers(forge: Forge, token: &Token) -> Vec<(HeaderName, HeaderValue)> {
    let (name, prefix, others) = match forge {
        Forge::Github => ("authorization", "Bearer ", github::HEADERS),
        Forge::Gitlab => ("private-token", "", &[][..]),
        Forge::Gitea => ("authorization", "token ", &[][..]),
        Forge::Bitbucket | Forge::Git => ("authorization", "Bearer ", &[][..]),
    };
    let mut headers = vec![];
    // A token is plain characters, see `ToldForge::token`.
    if let Ok(mut value) = HeaderValue::from_str(&format!("{prefix}{}", token.reveal())) {
        value.set_sensitive(true);
        headers.push((HeaderName::from_static(name), value));
    }
    for (name, value) in others {
        headers.push((
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        ));
    }
    headers
}

fn no_forge() -> Answer {
    Answer::Mend {
        reason: "plain git shows no statuses".into(),
    }
}

/// What an answer means.
fn judge(reply: &Reply, now: Timestamp) -> Answer {
    let reason = in_words(reply);
    let after = asked_to_wait(reply, now);
    match reply.status.as_u16() {
        200..=299 => Answer::Taken,
        // GitHub says 403, too, to who asks too much.
        429 => later(reason, after, false),
        403 if after.is_some() || reply.said.contains("rate limit") => later(reason, after, false),
        408 | 409 | 423 | 425 => later(reason, after, false),
        // A gateway gives up before what is behind it.
        500.. => later(reason, after, true),
        400 | 410 | 413 | 422 => Answer::Never { reason },
        // Who may not see a repository is told that there is none. Also what was moved is for people to mend.
        _ => Answer::Mend { reason },
    }
}

fn later(reason: String, after: Option<SignedDuration>, unsure: bool) -> Answer {
    Answer::Later {
        reason,
        after,
        unsure,
    }
}

/// How long a forge asks to wait: so many seconds, or until its count begins anew.
fn asked_to_wait(reply: &Reply, now: Timestamp) -> Option<SignedDuration> {
    if let Some(seconds) = reply.number("retry-after") {
        return Some(SignedDuration::from_secs(seconds.max(0)));
    }
    let (left, reset) = ["x-ratelimit", "ratelimit"].iter().find_map(|name| {
        let left = reply.number(&format!("{name}-remaining"))?;
        Some((left, reply.number(&format!("{name}-reset"))?))
    })?;
    let wait = reset.saturating_sub(now.as_second()).max(0);
    (left <= 0).then(|| SignedDuration::from_secs(wait + 1))
}

/// An answer for people: its status, and what the forge said.
fn in_words(reply: &Reply) -> String {
    let status = reply.status.as_u16();
    let hint = match status {
        300..=399 => match &reply.moved {
            Some(to) => format!(", it is at {to} now: set the project's `statuses`"),
            None => ", it is elsewhere now: set the project's `statuses`".to_owned(),
        },
        401 => ": the token is wrong, or has expired".to_owned(),
        403 => ": the token lacks a right, or asked too often".to_owned(),
        404 => ": no such repository or commit, or the token may not see it".to_owned(),
        _ => String::new(),
    };
    let said = match reply.said.as_str() {
        "" => String::new(),
        said => format!(" (it said: {said})"),
    };
    format!("the forge answered {status}{hint}{said}")
}

/// What a body of an answer says, in any of the forms that forges give it.
fn said(body: &[u8]) -> String {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return String::new();
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    // Bitbucket's is an object with a message within, GitHub's has details beside it.
    let error = members.get("error");
    let within = error.and_then(|error| error.get("message"));
    let found = within.or_else(|| members.get("message")).or(error);
    let details = members.get("errors").filter(|errors| !errors.is_null());
    let parts = [found, details].into_iter().flatten().map(text);
    parts
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

fn clipped(text: &str) -> String {
    let line = text.replace(char::is_control, " ");
    match line.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Why there is no answer.
struct NoReply {
    why: String,
    /// The call may have arrived.
    sent: bool,
}

impl NoReply {
    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self {
                why: format!("the forge did not answer within {} s", TIMEOUT.as_secs()),
                sent: !error.is_connect(),
            };
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(below) = cause.source() {
            cause = below;
        }
        Self {
            why: format!("the forge was not reached: {cause}"),
            sent: !error.is_connect(),
        }
    }

    fn into_answer(self) -> Answer {
        later(self.why, None, self.sent)
    }
}

#[cfg(test)]
#[path = "forges/tests.rs"]
mod tests;
