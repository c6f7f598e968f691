//! What buttons send. Each form records through [`actions`] and leads back to its page.

use super::super::App;
use super::super::actions::{self, Verb};
use super::super::auth::{Allowed, Deployer};
use super::super::error::HttpError;
use super::super::reruns;
use super::frame::back_to;
use super::view_of;
use crate::store::Accepted;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::id::JobName;
use roadstead_web::urls::{self, field};
use roadstead_web::view::Tone;
use std::collections::HashMap;

/// A deployer and the form they sent.
type Sent = Allowed<Deployer, web::Form<HashMap<String, String>>>;
type PlacePath = web::Path<(String, String, String)>;
type Answer = Result<HttpResponse, HttpError>;

/// # Errors
/// 409 when there is nothing to cancel.
pub(super) async fn cancel_run(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    let run = actions::run_of(&path)?;
    actions::cancel_run(&app, &who.actor, &run).await?;
    let name = view_of::run_name(run.as_str());
    let text = format!("Run {name} is being cancelled.");
    Ok(back_to(&urls::run(run.as_str()), Tone::Warn, &text))
}

/// # Errors
/// 400 without a commit, 409 when the run does not wait for that or is of another one.
pub(super) async fn approve_run(app: web::Data<App>, who: Sent, path: web::Path<String>) -> Answer {
    let run = actions::run_of(&path)?;
    let commit = who.sent.get(field::COMMIT).map_or("", String::as_str);
    actions::approve_run(&app, &who.actor, &run, commit).await?;
    let text = "This commit runs as soon as a runner is free.";
    Ok(back_to(&urls::run(run.as_str()), Tone::Good, text))
}

/// # Errors
/// 409 while the run is not over.
pub(super) async fn retry_run(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    let run = actions::run_of(&path)?;
    let new = actions::retry_run(&app, &who.actor, &run).await?;
    let name = view_of::run_name(run.as_str());
    let text = format!("This run builds the commit of run {name} again.");
    Ok(back_to(&urls::run(new.as_str()), Tone::Good, &text))
}

/// # Errors
/// 400 when the form is not the page's, 409 when its jobs cannot run again.
pub(super) async fn rerun(app: web::Data<App>, who: Sent, path: web::Path<String>) -> Answer {
    let run = actions::run_of(&path)?;
    let given = |name: &str| who.sent.get(name).filter(|text| !text.is_empty());
    let after = given(field::AFTER).map(|text| text.parse());
    let after = after
        .transpose()
        .map_err(|_| HttpError::bad_request("`after` has to be a number of attempts"))?;
    let jobs = given(field::JOB).into_iter().cloned().collect();
    let text = match reruns::rerun(&app, &who.actor, &run, (jobs, after)).await? {
        Some(again) => {
            let names: Vec<_> = again.iter().map(JobName::as_str).collect();
            format!("Back to work: {}.", names.join(", "))
        }
        None => "Its jobs are back at work already.".to_owned(),
    };
    Ok(back_to(&urls::run(run.as_str()), Tone::Good, &text))
}

/// # Errors
/// 409 once ECS works on it.
pub(super) async fn cancel_deployment(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    let id = actions::deployment_of(&path)?;
    actions::cancel_deployment(&app, &who.actor, &id).await?;
    let address = urls::deployment(id.as_str());
    Ok(back_to(
        &address,
        Tone::Warn,
        "The deployment is cancelled.",
    ))
}

/// # Errors
/// 400 without confirmation where it is asked for, 409 when the core refuses.
pub(super) async fn promote(app: web::Data<App>, who: Sent, path: PlacePath) -> Answer {
    on_place(&app, &who.actor, Verb::Promote, &path, &who.sent).await
}

/// # Errors
/// As [`promote`].
pub(super) async fn rollback(app: web::Data<App>, who: Sent, path: PlacePath) -> Answer {
    on_place(&app, &who.actor, Verb::Rollback, &path, &who.sent).await
}

/// # Errors
/// 409 when the core refuses.
pub(super) async fn approve(app: web::Data<App>, who: Sent, path: PlacePath) -> Answer {
    on_place(&app, &who.actor, Verb::Approve, &path, &who.sent).await
}

/// # Errors
/// 400 without a reason, 409 when it is held already.
pub(super) async fn hold(app: web::Data<App>, who: Sent, path: PlacePath) -> Answer {
    on_place(&app, &who.actor, Verb::Hold, &path, &who.sent).await
}

/// # Errors
/// 409 when it is not held.
pub(super) async fn resume(app: web::Data<App>, who: Allowed<Deployer>, path: PlacePath) -> Answer {
    on_place(&app, &who.actor, Verb::Resume, &path, &HashMap::new()).await
}

async fn on_place(
    app: &App,
    actor: &Actor,
    verb: Verb,
    (project, environment, service): &(String, String, String),
    fields: &HashMap<String, String>,
) -> Answer {
    let place = actions::place_of(project, environment, service)?;
    let given = |name: &str| fields.get(name).map_or("", |text| text.trim());
    let (release, reason) = (given(field::RELEASE), given(field::REASON));
    match verb {
        Verb::Promote | Verb::Rollback => {
            confirmed(app, &place, given(field::CONFIRM)).await?;
        }
        Verb::Hold if reason.is_empty() => {
            let message = "say why: others will want to know whether they may resume";
            return Err(HttpError::bad_request(message));
        }
        Verb::Hold | Verb::Approve | Verb::Resume => {}
    }
    let done = actions::on_place(app, actor, verb, place, Some(release), reason).await?;
    let named = view_of::short(release);
    let where_to = format!("{service} in {environment}");
    let text = match verb {
        Verb::Promote => format!("{named} goes to {where_to} as soon as its gates are open."),
        Verb::Rollback => format!("{where_to} goes back to {named}, and is on hold."),
        Verb::Approve => format!("{named} is approved for {where_to}."),
        Verb::Hold => format!("{where_to} is on hold."),
        Verb::Resume => format!("Automation goes on for {where_to}."),
    };
    let address = match done.deployment() {
        Some(deployment) => urls::deployment(deployment.as_str()),
        None => urls::service(project, environment, service),
    };
    Ok(back_to(&address, Tone::Good, &text))
}

/// Where nothing stands behind a mistake, the environment's name has to be typed.
async fn confirmed(
    app: &App,
    (project, place): &(
        roadstead_pipelines::id::ProjectName,
        roadstead_pipelines::id::Place,
    ),
    typed: &str,
) -> Result<(), HttpError> {
    let world = app.store.load_world(project).await?;
    match view_of::confirm_word(&world, &place.environment) {
        Some(word) if word != typed => Err(HttpError::bad_request(format!(
            "type `{word}` to confirm; nothing was changed"
        ))),
        _ => Ok(()),
    }
}

/// # Errors
/// 404 for an unknown delivery.
pub(super) async fn redeliver(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    let id = path
        .parse()
        .map_err(|_| HttpError::not_found(format!("no delivery `{path}`")))?;
    let (tone, text) = match actions::redeliver(&app, &who.actor, id).await? {
        Accepted::Run(run) => {
            let name = view_of::run_name(run.as_str());
            (Tone::Good, format!("The delivery started run {name}."))
        }
        Accepted::Duplicate { .. } => (
            Tone::Quiet,
            "The same delivery was processed at the same moment.".to_owned(),
        ),
        Accepted::Ignored => (
            Tone::Quiet,
            "The delivery still asks for nothing; its reason is in the list.".to_owned(),
        ),
    };
    Ok(back_to(urls::route::DELIVERIES, tone, &text))
}

/// # Errors
/// 404 for an unknown runner.
pub(super) async fn drain_runner(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    actions::drain_runner(&app, &who.actor, &path, true).await?;
    let text = format!("{path} finishes what it has and takes no more work.");
    Ok(back_to(urls::route::RUNNERS, Tone::Warn, &text))
}

/// # Errors
/// 404 for an unknown runner.
pub(super) async fn resume_runner(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Answer {
    actions::drain_runner(&app, &who.actor, &path, false).await?;
    let text = format!("{path} takes work again.");
    Ok(back_to(urls::route::RUNNERS, Tone::Good, &text))
}
