//! The runners, and how many jobs wait for one.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::super::runners::Standing;
use super::{frame, view_of};
use crate::store;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::group;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::spec::Role;
use roadstead_protocol::StepState;
use roadstead_web::view::{Permission, Runner, RunnerState, RunnersPage};

/// The page.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let now = crate::clock::now();
    let mut runners = vec![];
    for runner in app.store.list_runners().await? {
        let mut running = vec![];
        for attempt in &runner.running {
            running.extend(running_of(&app, attempt).await?);
        }
        runners.push(line(&runner, running, &who.actor, now));
    }
    let overviews = app.store.overview().await?;
    let queued = overviews.iter().flat_map(|overview| {
        let world = &overview.world;
        let runs = world.runs.values();
        runs.flat_map(|run| {
            let for_runner = run
                .state
                .claimable()
                .filter(|(job, _)| !group::waits(&world.lines, &run.id, job));
            for_runner.map(|(_, since)| since)
        })
    });
    let queued: Vec<_> = queued.collect();
    let page = RunnersPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        runners,
        queued_jobs: queued.len() as u64,
        oldest_job: queued.iter().min().copied().map(view_of::time),
        register_command: format!(
            "ROADSTEAD_REGISTRATION_TOKEN=… roadstead runner --server {}",
            app.public_url()
        ),
    };
    frame::send(&request, StatusCode::OK, &page)
}

/// Run id, run name and steps of an attempt that runs.
async fn running_of(
    app: &App,
    attempt: &str,
) -> Result<Option<(String, String, String)>, HttpError> {
    let Some(run) = attempt
        .rsplit_once('.')
        .and_then(|(run, _)| RunId::parse(run))
    else {
        return Ok(None);
    };
    let detail = app.store.get_run(&run).await?;
    let steps: Vec<_> = detail
        .steps
        .iter()
        .filter(|step| {
            let runs = matches!(step.state, StepState::Running | StepState::Retrying { .. });
            runs && step.attempt == attempt
        })
        .map(|step| step.name.as_str())
        .collect();
    let name = view_of::run_name(run.as_str());
    Ok(Some((run.to_string(), name, steps.join(", "))))
}

fn line(
    runner: &store::Runner,
    running: Vec<(String, String, String)>,
    actor: &Actor,
    now: Timestamp,
) -> Runner {
    let busy = u32::try_from(runner.running.len()).unwrap_or(u32::MAX);
    let for_good = runner.left.is_some_and(|left| left.for_good);
    let (state, detail) = match Standing::of(runner, now) {
        Standing::Idle => (RunnerState::Idle, ""),
        Standing::Busy => (RunnerState::Busy, ""),
        Standing::LowDisk => (RunnerState::LowDisk, "takes nothing: free some disk"),
        Standing::Draining => {
            let detail = "finishes what it has and takes nothing new";
            (RunnerState::Draining, detail)
        }
        Standing::Drained => {
            let detail = "has nothing to do and takes nothing new";
            (RunnerState::Drained, detail)
        }
        Standing::Gone if for_good => (RunnerState::Gone, "left for good"),
        Standing::Gone => (RunnerState::Gone, "was stopped, and said so"),
        Standing::Lost => {
            let detail = "not heard of; its attempts went to other runners";
            (RunnerState::Lost, detail)
        }
    };
    let deployer = view_of::needs_role(actor, Role::Deployer);
    let (drain, resume) = match runner.drain {
        true => (Permission::Absent, deployer),
        // Nothing to keep from work: whoever has the name next is another one.
        false if for_good => (Permission::Absent, Permission::Absent),
        false => (deployer, Permission::Absent),
    };
    Runner {
        name: runner.name.clone(),
        state,
        detail: detail.to_owned(),
        labels: runner.labels.clone(),
        version: String::new(),
        busy_slots: busy,
        slots: busy.saturating_add(runner.free_slots),
        disk_free: runner.disk_free_bytes,
        last_seen: view_of::time(runner.last_seen_at),
        running,
        drain,
        resume,
    }
}
