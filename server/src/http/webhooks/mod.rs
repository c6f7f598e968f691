//! Webhooks: `POST /webhooks/{forge}/{project}`.
//!
//! The signature is checked over the raw body; then one row per delivery and, when it asks for a
//! run, the run are committed together, and only then is it answered with 2xx. Everything else
//! happens later. A delivery that asks for nothing is stored with the reason.

mod bitbucket;
mod forge;
mod github;
mod gitlab;
mod payload;
mod pull_request;

pub use payload::BadPayload;
use payload::{Head, Push, Wish};

use super::App;
use super::error::HttpError;
use crate::forge::Forge;
use crate::store::{Accepted, Decision, Delivery, NewDelivery};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::spec::{pull_request_is_unwanted, tag_is_unwanted};
use serde_json::{Value, json};

/// Largest body that is read, in bytes.
pub const LARGEST_BODY: usize = 5 * 1024 * 1024;

/// The route, with its own body limit.
pub fn configure(config: &mut web::ServiceConfig) {
    let resource = web::resource("/webhooks/{forge}/{project}")
        .app_data(web::PayloadConfig::new(LARGEST_BODY))
        .route(web::post().to(receive));
    config.service(resource);
}

async fn receive(
    app: web::Data<App>,
    path: web::Path<(String, String)>,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<HttpResponse, HttpError> {
    let (forge, project) = path.into_inner();
    let Some(forge) = Forge::parse(&forge) else {
        let known = Forge::ALL.map(Forge::word).join(", ");
        let message = format!("no webhooks of `{forge}`; there are those of {known}");
        return Err(HttpError::not_found(message));
    };
    let unknown = || HttpError::not_found(format!("no project `{project}` on this server"));
    let name = ProjectName::parse(&project).map_err(|_| unknown())?;
    let secret = app.webhook_secret(&name).ok_or_else(unknown)?;
    let body = body.map_err(|error| too_large(&error))?;

    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    forge
        .check(&secret, &header, &body)
        .map_err(|message| HttpError::new(StatusCode::UNAUTHORIZED, message))?;
    let bad = |bad: BadPayload| HttpError::bad_request(bad.0);
    let call = forge.call(&header, &body).map_err(bad)?;
    let parts = forge.parts(&call.event, &body).map_err(bad)?;
    // All are read before the first is stored: a call is taken or refused as a whole.
    let wishes = parts.iter().map(|part| forge.read(&call.event, part));
    let wishes: Vec<Wish> = wishes.collect::<Result<_, _>>().map_err(bad)?;
    let received_at = crate::clock::now();
    let mut answers = vec![];
    for (number, (part, wish)) in (1..).zip(parts.iter().zip(wishes)) {
        let decision = decide(&app, &name, wish).await?;
        let closes = matches!(decision, Decision::ClosePullRequest { .. });
        let reason = match &decision {
            Decision::Ignore { reason } => reason.clone(),
            Decision::ClosePullRequest { number, .. } => {
                format!("pull request #{number} was closed; what waited of it is cancelled")
            }
            Decision::Build { .. } | Decision::BuildPullRequest { .. } => String::new(),
        };
        // Each is stored for itself. A call that breaks off between two is not acknowledged, and those that
        // are stored are found again when it is repeated.
        let delivery = NewDelivery {
            project: name.clone(),
            forge: forge.word().to_owned(),
            delivery_id: id_of_part(&call.delivery_id, number),
            event: call.event.clone(),
            body: text_of(part),
            decision,
            redelivery: None,
            received_at,
        };
        answers.push(match app.store.accept_delivery(delivery).await? {
            Accepted::Run(run) => {
                app.bell.ring();
                Answer::Run(run)
            }
            Accepted::Duplicate { run } => Answer::Duplicate(run),
            Accepted::Ignored => {
                if closes {
                    app.bell.ring();
                }
                Answer::Ignored(reason)
            }
        });
    }
    Ok(answer(&answers))
}

/// What to do about a wish. Tags and pull requests are asked for twice: here, of the files that were read lately, so
/// that a repository with many of them makes no run for each; and of their own file, once that is read.
async fn decide(app: &App, project: &ProjectName, wish: Wish) -> Result<Decision, HttpError> {
    let lately = || app.store.triggers_read_lately(project);
    let unwanted = match &wish {
        Wish::Run(push) if GitRef::of(&push.git_ref).is_tag() => {
            tag_is_unwanted(&lately().await?, &push.git_ref)
        }
        Wish::PullRequest(head) => pull_request_is_unwanted(&lately().await?, &head.pull_request),
        Wish::Run(_) | Wish::Closed { .. } | Wish::Nothing(_) => None,
    };
    Ok(match unwanted {
        Some(reason) => Decision::Ignore { reason },
        None => wish.into(),
    })
}

/// What became of one ref of a push.
enum Answer {
    Run(RunId),
    Duplicate(Option<RunId>),
    Ignored(String),
}

impl Answer {
    fn json(&self) -> Value {
        match self {
            Self::Run(run) => json!({"decision": "run", "run": run}),
            Self::Duplicate(run) => json!({"decision": "duplicate", "run": run}),
            Self::Ignored(reason) => json!({"decision": "ignored", "reason": reason}),
        }
    }
}

/// 202 with the first run that was made, or 200. A call for several branches lists them.
fn answer(answers: &[Answer]) -> HttpResponse {
    let made = answers.iter().find_map(|answer| match answer {
        Answer::Run(run) => Some(run),
        Answer::Duplicate(_) | Answer::Ignored(_) => None,
    });
    let body = match answers {
        [one] => one.json(),
        several => json!({ "branches": several.iter().map(Answer::json).collect::<Vec<_>>() }),
    };
    match made {
        Some(run) => HttpResponse::Accepted()
            .insert_header(("location", format!("/runs/{run}")))
            .json(body),
        None => HttpResponse::Ok().json(body),
    }
}

/// The id under which the `number`-th branch of a call is stored, from 1. Most calls tell of one.
fn id_of_part(call: &str, number: usize) -> String {
    match number {
        1 => call.to_owned(),
        _ => format!("{call}#{number}"),
    }
}

impl From<Wish> for Decision {
    fn from(wish: Wish) -> Self {
        match wish {
            Wish::Run(Push { git_ref, commit }) => Self::Build { git_ref, commit },
            Wish::PullRequest(Head {
                git_ref,
                commit,
                pull_request,
                occasion,
            }) => Self::BuildPullRequest {
                git_ref,
                commit,
                pull_request,
                occasion,
            },
            Wish::Closed { git_ref, number } => Self::ClosePullRequest { git_ref, number },
            Wish::Nothing(reason) => Self::Ignore { reason },
        }
    }
}

/// The body as a row can hold it: PostgreSQL takes no NUL in a text.
fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', "\u{fffd}")
}

/// What a stored delivery asks for now: for sending it again. A tag's own file decides about it then.
///
/// # Errors
/// [`BadPayload`] when this version reads it otherwise than the one that stored it.
pub fn decide_again(delivery: &Delivery, body: &str) -> Result<Decision, BadPayload> {
    // What the gap filler stores has the form of a hook's.
    let forge = Forge::parse(&delivery.forge).unwrap_or(Forge::Git);
    forge
        .read(&delivery.event, body.as_bytes())
        .map(Decision::from)
}

/// What a push asks for that no forge told of: a branch that is at `commit`, with this message.
///
/// # Errors
/// [`BadPayload`] for a branch that git does not allow.
pub fn decide_untold(
    git_ref: &str,
    commit: &CommitSha,
    message: &str,
) -> Result<Decision, BadPayload> {
    payload::wish(git_ref.to_owned(), commit.as_str(), message).map(Decision::from)
}

fn too_large(error: &actix_web::Error) -> HttpError {
    let status = error.as_response_error().status_code();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        HttpError::new(
            status,
            format!("the body is larger than {LARGEST_BODY} bytes"),
        )
    } else {
        HttpError::bad_request(format!("the body could not be read: {error}"))
    }
}
