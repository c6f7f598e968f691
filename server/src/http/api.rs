//! `/api/v1`: JSON for the command line and for programs, by API token or session.

mod artifacts;
mod audit;
mod pull_requests;
mod runners;
mod secrets;
mod users;

use super::App;
use super::actions::{self, Verb};
use super::auth::{Allowed, Deployer, Viewer};
use super::error::HttpError;
use super::jobs;
use super::reruns;
use super::starts::{self, Wish};
use crate::logs::{LogError, LogKey, Whole};
use crate::store::{Accepted, Asked, DeploymentDetail, DeploymentFilter, Recorded, RunDetail};
use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::gate::{self, GateVerdict};
use roadstead_pipelines::id::{Place, ProjectName};
use roadstead_pipelines::planner;
use roadstead_pipelines::pull_request::PullRequest;
use roadstead_pipelines::release::Release;
use roadstead_pipelines::world::World;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every route of the API.
pub fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/api/v1")
            .route("/projects", web::get().to(projects))
            .route("/projects/{project}", web::get().to(project))
            .route("/projects/{project}/runs", web::get().to(runs))
            .route("/projects/{project}/runs", web::post().to(start_run))
            .route("/projects/{project}/releases", web::get().to(releases))
            .route(
                "/projects/{project}/deployments",
                web::get().to(deployments),
            )
            .route("/projects/{project}/events", web::get().to(events))
            .route(
                "/projects/{project}/environments/{environment}/services/{service}/{verb}",
                web::post().to(on_place),
            )
            .route("/runs/{run}", web::get().to(run))
            .route("/runs/{run}/steps/{step}/log", web::get().to(log))
            .route("/runs/{run}/artifacts", web::get().to(artifacts::list))
            .route(
                "/runs/{run}/steps/{step}/artifacts/{name:.+}",
                web::get().to(artifacts::send),
            )
            .route("/runs/{run}/cancel", web::post().to(cancel_run))
            .route("/runs/{run}/retry", web::post().to(retry_run))
            .route("/runs/{run}/rerun", web::post().to(reruns::by_api))
            .configure(pull_requests::configure)
            .route("/deployments/{deployment}", web::get().to(deployment))
            .route(
                "/deployments/{deployment}/cancel",
                web::post().to(cancel_deployment),
            )
            .route(
                "/deliveries/{delivery}/redeliver",
                web::post().to(redeliver),
            )
            .configure(runners::configure)
            .configure(secrets::configure)
            .configure(users::configure)
            .configure(audit::configure),
    );
}

fn project_of(text: &str) -> Result<ProjectName, HttpError> {
    ProjectName::parse(text).map_err(|_| HttpError::not_found(format!("no project `{text}`")))
}

#[derive(Deserialize)]
struct Page {
    before: Option<u64>,
    limit: Option<u32>,
    environment: Option<String>,
    service: Option<String>,
}

impl Page {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(50).clamp(1, 200)
    }
}

async fn projects(app: web::Data<App>, _: Allowed<Viewer>) -> Result<HttpResponse, HttpError> {
    let all = app.store.list_projects().await?;
    let names: Vec<_> = all
        .iter()
        .map(|p| json!({"name": p.name, "repository": p.repository}))
        .collect();
    Ok(HttpResponse::Ok().json(json!({"projects": names})))
}

/// Everything that is where, and what waits for what.
async fn project(
    app: web::Data<App>,
    _: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let name = project_of(&path)?;
    let compared = app.store.get_project(&name).await?.heads_compared_at;
    let world = app.store.load_world(&name).await?;
    let now = crate::clock::now();
    let plan = planner::plan(&world, now);
    let mut places = vec![];
    for (place, _) in world.places_in_order() {
        let state = world.place(&place);
        let live: Vec<&Deployment> = world.live_in(&place).collect();
        places.push(json!({
            "environment": place.environment, "service": place.service,
            "hold": state.hold, "verified": state.verified, "approvals": state.approvals,
            "newest_tried": state.newest_tried, "status": state.status, "live": live,
        }));
    }
    let runs: Vec<_> = world
        .runs
        .values()
        .map(|r| json!({"id": r.id, "state": jobs::state(&r.state)}))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "project": name, "now": now, "places": places, "runs": runs, "waiting_on": plan.waiting_on,
        "branches_compared_at": compared,
    })))
}

async fn runs(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Page>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let page = who.sent;
    let name = project_of(&path)?;
    let lines = app
        .store
        .list_runs(&name, page.before, page.limit())
        .await?;
    let runs: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "id": line.id, "commit": line.commit, "git_ref": line.git_ref,
                "started_by": line.started_by,
                "pull_request": line.started_by.pull_request().map(PullRequest::title),
                "message": line.message, "author": line.author,
                "created_at": line.created_at, "ended_at": line.ended_at,
                "state": jobs::state(&line.state),
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"runs": runs})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default, rename = "ref")]
    git_ref: Option<String>,
    #[serde(default)]
    commit: Option<String>,
    #[serde(default)]
    inputs: BTreeMap<String, Given>,
    #[serde(default)]
    key: Option<String>,
}

/// The value of an input; a boolean may be one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Text(String),
    Boolean(bool),
}

async fn start_run(
    app: web::Data<App>,
    who: Allowed<Deployer, web::Json<Start>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let sent = who.sent.into_inner();
    let value = |given| match given {
        Given::Text(text) => text,
        Given::Boolean(boolean) => boolean.to_string(),
    };
    let inputs = sent.inputs.into_iter();
    let wish = Wish {
        git_ref: sent.git_ref.as_deref(),
        commit: sent.commit.as_deref(),
        inputs: inputs.map(|(name, given)| (name, value(given))).collect(),
        key: sent.key.as_deref(),
    };
    let asked = starts::start(&app, &who.actor, &project_of(&path)?, wish).await?;
    Ok(match asked {
        Asked::Made(run) => HttpResponse::Created().json(json!({"run": run})),
        Asked::Before(run) | Asked::Other(run) => HttpResponse::Ok().json(json!({"run": run})),
    })
}

async fn run(
    app: web::Data<App>,
    _: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::run_of(&path)?;
    let detail = app.store.get_run(&id).await?;
    let its_jobs = jobs::told(&detail);
    let shown = detail.attempts_shown(None);
    let RunDetail {
        run,
        ended_at,
        attempts,
        steps,
        effects,
        lines: _,
    } = detail;
    let mut told = json!(run);
    told["state"] = jobs::state(&run.state);
    told["pull_request"] = json!(run.pull_request().map(PullRequest::title));
    let tests = app.store.list_tests(&id, &shown).await?;
    let tests: Vec<_> = tests
        .iter()
        .map(|it| {
            json!({
                "step": it.step, "tests": it.tests, "failed": it.failed, "skipped": it.skipped,
                "unread": it.unread, "cases": it.cases,
            })
        })
        .collect();
    let attempts: Vec<_> = attempts
        .iter()
        .map(|a| {
            json!({
                "id": a.id, "number": a.number, "job": a.job, "runner": a.runner, "claimed_at": a.claimed_at,
                "ended_at": a.ended_at, "outcome": a.outcome,
            })
        })
        .collect();
    let steps: Vec<_> = steps
        .iter()
        .map(|s| {
            json!({
                "attempt": s.attempt, "name": s.name, "state": s.state,
                "started_at": s.started_at, "ended_at": s.ended_at,
            })
        })
        .collect();
    let troubles: Vec<_> = effects
        .iter()
        .filter_map(|e| Some(json!({"effect": e.effect, "error": e.last_error.as_ref()?})))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "run": told, "ended_at": ended_at, "jobs": its_jobs, "attempts": attempts, "steps": steps,
        "troubles": troubles, "tests": tests,
    })))
}

#[derive(Deserialize)]
struct LogQuery {
    attempt: Option<u32>,
}

async fn log(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<LogQuery>>,
    request: actix_web::HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (run, step) = path.into_inner();
    raw_log(&app, &request, &run, step, who.sent.attempt).await
}

/// A step's log as it is stored, as plain text, up to where it ends now; 304 for whoever has that much
/// already. It may be 1 GiB long and is sent as it is read. Ranges are not looked at.
///
/// # Errors
/// 404 when there is no such run or log; 410 when retention removed it.
pub(super) async fn raw_log(
    app: &App,
    request: &actix_web::HttpRequest,
    run: &str,
    step: String,
    attempt: Option<u32>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::run_of(run)?;
    let attempt = match attempt {
        Some(number) => number,
        None => {
            let detail = app.store.get_run(&id).await?;
            detail.newest_with(&step).map_or(1, |a| a.number)
        }
    };
    let missing = || HttpError::not_found(format!("{id} has no log of step `{step}` yet"));
    let key = LogKey {
        run: id.to_string(),
        attempt,
        step: step.clone(),
    };
    let found = match app.logs.whole(key).await {
        Ok(found) => found,
        Err(LogError::Name(_)) => return Err(missing()),
        Err(error) => return Err(log_unread(error)),
    };
    let Some(Whole { length, bytes }) = found else {
        let removed = app.store.logs_removed_at(&id).await?;
        return Err(removed.map_or_else(missing, |at| {
            let message = format!("retention removed the logs of {id} on {at}");
            HttpError::new(StatusCode::GONE, message)
        }));
    };
    // A log only grows, so its length tells which one it is.
    let etag = format!("\"{length}\"");
    let known = request
        .headers()
        .get("if-none-match")
        .and_then(|v| v.to_str().ok());
    if known == Some(etag.as_str()) {
        return Ok(HttpResponse::NotModified().finish());
    }
    Ok(HttpResponse::Ok()
        .content_type("text/plain; charset=utf-8")
        .insert_header(("etag", etag))
        .body(SizedStream::new(length, bytes)))
}

/// What is told of a log that cannot be read.
pub(super) fn log_unread(error: LogError) -> HttpError {
    match error {
        LogError::Bucket(error) => {
            tracing::warn!(%error, "a log cannot be read: {error}");
            let message = "the storage of logs does not answer; look again later";
            HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
        LogError::Busy => HttpError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        error => HttpError::internal(error),
    }
}

async fn releases(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Page>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let page = who.sent;
    let name = project_of(&path)?;
    let found = app
        .store
        .list_releases(&name, page.before, page.limit())
        .await?;
    Ok(HttpResponse::Ok().json(json!({"releases": found})))
}

async fn deployments(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Page>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let page = who.sent;
    let name = project_of(&path)?;
    let bad =
        |error: roadstead_pipelines::id::InvalidName| HttpError::bad_request(error.to_string());
    let environment = page
        .environment
        .as_deref()
        .map(roadstead_pipelines::id::EnvironmentName::parse);
    let service = page
        .service
        .as_deref()
        .map(roadstead_pipelines::id::ServiceName::parse);
    let filter = DeploymentFilter {
        environment: environment.transpose().map_err(bad)?,
        service: service.transpose().map_err(bad)?,
        release: None,
    };
    let found = app
        .store
        .list_deployments(&name, filter, page.before, page.limit())
        .await?;
    Ok(HttpResponse::Ok().json(json!({"deployments": found})))
}

async fn deployment(
    app: web::Data<App>,
    _: Allowed<Viewer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::deployment_of(&path)?;
    let DeploymentDetail {
        deployment,
        ended_at,
        release,
        effects,
    } = app.store.get_deployment(&id).await?;
    let world = app.store.load_world(&id.project()).await?;
    let now = crate::clock::now();
    let waiting: Vec<Value> = planner::plan(&world, now)
        .waiting_on
        .iter()
        .map(|w| json!(w))
        .filter(|w| w["subject"]["deployment"] == json!(id))
        .collect();
    let gates: Vec<Value> = gate::gates(&world, &deployment.place, &deployment.release)
        .iter()
        .map(|gate| {
            match gate::evaluate(gate, &world, &deployment.place, &deployment.release, now) {
                GateVerdict::Open { because } => {
                    json!({"gate": gate, "open": true, "reason": because})
                }
                GateVerdict::Closed { reason, until, .. } => {
                    json!({"gate": gate, "open": false, "reason": reason, "until": until})
                }
            }
        })
        .collect();
    let troubles: Vec<_> = effects
        .iter()
        .filter_map(|e| Some(json!({"effect": e.effect, "error": e.last_error.as_ref()?})))
        .collect();
    Ok(HttpResponse::Ok().json(json!({
        "deployment": deployment, "ended_at": ended_at, "release": release, "gates": gates,
        "image": image_in(&world, &deployment.place, &release),
        "waiting_on": waiting, "troubles": troubles,
    })))
}

/// Which image of a release a place gets, and what is to be said of it; null when it holds none for it.
fn image_in(world: &World, place: &Place, release: &Release) -> Value {
    let service = world
        .pipeline
        .as_ref()
        .and_then(|it| it.services.get(&place.service));
    let found = service.and_then(|it| release.image(&place.environment, &it.image));
    let (Some(service), Some((name, image))) = (service, found) else {
        return Value::Null;
    };
    let before = world.environment(place).and_then(|it| it.after.as_ref());
    let note = before.and_then(|before| release.sibling_note(place, &service.image, before));
    json!({
        "name": name, "repository_uri": image.repository_uri, "digest": image.digest, "note": note,
    })
}

async fn events(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Page>>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let page = who.sent;
    let name = project_of(&path)?;
    let before = page.before.and_then(|n| i64::try_from(n).ok());
    let found = app
        .store
        .list_events(Some(&name), None, before, page.limit())
        .await?;
    let events: Vec<_> = found
        .iter()
        .map(|e| {
            json!({
                "sequence": e.sequence, "at": e.at, "subject": e.subject, "actor": e.actor,
                "what": e.what, "reason": e.reason, "before": e.before, "after": e.after,
                "detail": e.detail,
            })
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({"events": events})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    #[serde(default)]
    release: Option<String>,
    #[serde(default)]
    reason: String,
}

async fn on_place(
    app: web::Data<App>,
    who: Allowed<Deployer, web::Json<Ask>>,
    path: web::Path<(String, String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (project, environment, service, verb) = path.into_inner();
    let Some(verb) = Verb::parse(&verb) else {
        return Err(HttpError::not_found(format!(
            "`{verb}` is no verb of a place"
        )));
    };
    let place = actions::place_of(&project, &environment, &service)?;
    let release = who.sent.release.as_deref();
    let done = actions::on_place(&app, &who.actor, verb, place, release, &who.sent.reason).await?;
    Ok(recorded(&done))
}

fn recorded(done: &Recorded) -> HttpResponse {
    HttpResponse::Ok().json(json!({"deployment": done.deployment(), "changes": done.changes}))
}

async fn cancel_run(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let run = actions::run_of(&path)?;
    Ok(recorded(
        &actions::cancel_run(&app, &who.actor, &run).await?,
    ))
}

async fn retry_run(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let run = actions::run_of(&path)?;
    let new = actions::retry_run(&app, &who.actor, &run).await?;
    Ok(HttpResponse::Created().json(json!({"run": new})))
}

async fn cancel_deployment(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let deployment = actions::deployment_of(&path)?;
    Ok(recorded(
        &actions::cancel_deployment(&app, &who.actor, &deployment).await?,
    ))
}

async fn redeliver(
    app: web::Data<App>,
    who: Allowed<Deployer>,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let id = path
        .parse()
        .map_err(|_| HttpError::not_found(format!("no delivery `{path}`")))?;
    Ok(match actions::redeliver(&app, &who.actor, id).await? {
        Accepted::Run(run) => HttpResponse::Created().json(json!({"decision": "run", "run": run})),
        Accepted::Duplicate { run } => {
            HttpResponse::Ok().json(json!({"decision": "duplicate", "run": run}))
        }
        Accepted::Ignored => HttpResponse::Ok().json(json!({"decision": "ignored"})),
    })
}
