//! Runs that people start: by the button, the API and the command line.
//!
//! The name of a branch or tag is looked up in the repository while whoever asks waits, because only it knows where
//! they stand now, and so that a misspelt name is told at once. What the file says is read afterwards, as of a push.

use super::App;
use super::error::HttpError;
use crate::adapters::sources::NoSuchRef;
use crate::store::{Asked, NewRun, StoreError};
use actix_web::http::StatusCode;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::{CommitSha, ProjectName};
use roadstead_pipelines::spec::{InputValues, input_line};
use roadstead_pipelines::started_by::StartedBy;

/// Inputs of one request: more than any file has.
const MOST_INPUTS: usize = 50;
/// Bytes of an input's name, and of a ref's.
const LONGEST_NAME: usize = 255;
/// Characters of a key.
const LONGEST_KEY: usize = 200;

/// What somebody asks for.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    /// Branch or tag; none: the repository's own branch.
    pub(super) git_ref: Option<&'a str>,
    /// A commit of that branch; none: where it stands.
    pub(super) commit: Option<&'a str>,
    /// What they give.
    pub(super) inputs: InputValues,
    /// Under which key.
    pub(super) key: Option<&'a str>,
}

/// Starts a run. Under a key that the same person used for the same before, it is the run of then.
///
/// # Errors
/// 400 for what is no branch, tag, commit or input; 404 for an unknown project; 409 when the key was used for
/// something else; 503 when the repository cannot be asked.
pub(super) async fn start(
    app: &App,
    actor: &Actor,
    project: &ProjectName,
    wish: Wish<'_>,
) -> Result<Asked, HttpError> {
    let key = wish.key.filter(|key| !key.is_empty());
    let key = key.map(key_of).transpose()?;
    check_inputs(&wish.inputs)?;
    let commit = wish.commit.filter(|commit| !commit.is_empty());
    let named = commit.map(commit_of).transpose()?;
    match app.store.get_project(project).await {
        Err(StoreError::NotFound { .. }) => {
            let message = format!("no project `{project}`");
            return Err(HttpError::not_found(message));
        }
        other => other?,
    };
    let (git_ref, head) = resolve(app, project, wish.git_ref).await?;
    if named.is_some() && GitRef::of(&git_ref).is_tag() {
        return Err(HttpError::bad_request(
            "a tag has one commit: name a commit with its branch alone",
        ));
    }
    let new = NewRun {
        started_by: StartedBy::Manual {
            by: actor.name.clone(),
            inputs: wish.inputs,
            commit_named: named.is_some(),
        },
        commit: named.unwrap_or(head),
        git_ref,
        key,
    };
    let now = crate::clock::now();
    let asked = app.store.start_run(project, new, &actor.name, now).await?;
    match &asked {
        Asked::Made(_) => app.bell.ring(),
        Asked::Before(_) => {}
        Asked::Other(run) => {
            let message = format!(
                "this was sent before, for something else: it started {run}. To start another run, send \
                 another key, or load the project's page anew"
            );
            return Err(HttpError::conflict(message));
        }
    }
    Ok(asked)
}

async fn resolve(
    app: &App,
    project: &ProjectName,
    name: Option<&str>,
) -> Result<(String, CommitSha), HttpError> {
    let name = name.map(str::trim).filter(|name| !name.is_empty());
    if name.is_some_and(|name| name.len() > LONGEST_NAME) {
        return Err(HttpError::bad_request(format!(
            "`ref` has at most {LONGEST_NAME} bytes"
        )));
    }
    let unavailable = |message| HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message);
    let remote = app.remotes.get(project).ok_or_else(|| {
        unavailable(format!(
            "project `{project}` is not in this server's configuration"
        ))
    })?;
    let found = app.sources.named(project, remote, name).await;
    found.map_err(|error| match error {
        NoSuchRef::Sources(error) => {
            unavailable(format!("nobody can tell where branches stand now: {error}"))
        }
        error => HttpError::bad_request(error.to_string()),
    })
}

fn commit_of(text: &str) -> Result<CommitSha, HttpError> {
    let text = text.trim();
    CommitSha::parse(text).ok_or_else(|| {
        let message = format!("`{text}` is no commit: give all 40 hexadecimal digits of its id");
        HttpError::bad_request(message)
    })
}

fn key_of(text: &str) -> Result<String, HttpError> {
    let printable = text.chars().all(|c| c.is_ascii_graphic());
    if !printable || text.len() > LONGEST_KEY {
        return Err(HttpError::bad_request(format!(
            "`key` has 1 to {LONGEST_KEY} printable ASCII characters without blanks"
        )));
    }
    Ok(text.to_owned())
}

/// What no file could take is not stored.
fn check_inputs(inputs: &InputValues) -> Result<(), HttpError> {
    if inputs.len() > MOST_INPUTS {
        return Err(HttpError::bad_request(format!(
            "at most {MOST_INPUTS} inputs are taken"
        )));
    }
    for (name, value) in inputs {
        if name.len() > LONGEST_NAME {
            return Err(HttpError::bad_request("the name of an input is too long"));
        }
        input_line(value)
            .map_err(|reason| HttpError::bad_request(format!("input `{name}` {reason}")))?;
    }
    Ok(())
}
