//! One run: its steps, the log that is open, what it made.

use super::super::App;
use super::super::actions;
use super::super::artifacts;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::view_of::{self, Scene};
use super::{frame, log, project_of};
use crate::store::{self, DeploymentFilter, RunDetail};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::commit_status::Standing;
use roadstead_pipelines::rerun::{self, Wish};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec::Role;
use roadstead_web::view::{
    DeploymentSummary, LogPanel, Permission, Release, RunPage, RunSummary, Step, StepState, Untold,
};
use serde::Deserialize;

/// Deployments of a run's release that are shown.
const MOST_DEPLOYMENTS: u32 = 50;
/// The run's history, to find who asked for it.
const HISTORY: u32 = 200;

#[derive(Deserialize)]
pub(super) struct Choice {
    step: Option<String>,
    attempt: Option<u32>,
    from: Option<u64>,
}

/// The page.
///
/// # Errors
/// 404 for an unknown run.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<Choice>>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::run_of(&path)?;
    let detail = app.store.get_run(&id).await?;
    let project = project_of(&app, id.project().as_str()).await?;
    let world = app.store.load_world(&project.name).await?;
    let scene = Scene::new(&project, world, &who.actor, crate::clock::now());
    let chosen = who.sent.attempt.filter(|number| *number > 0);
    let steps = view_of::steps(&detail, chosen);
    let (release, deployments) = made(&app, &scene, &detail.run).await?;
    let shown = detail.attempts_shown(chosen);
    let kept = app.store.list_artifacts(&id, &shown).await?;
    let deployer = view_of::needs_role(&who.actor, Role::Deployer);
    let now = crate::clock::now();
    let runners = runners_asked_for(&app, &detail.run).await?;
    let over = detail.run.state.is_over();
    let cancelling = matches!(detail.run.state, RunState::Cancelling { .. });
    let page = RunPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        run: summary(&app, &scene, &detail).await?,
        inputs: view_of::inputs(&detail.run),
        notes: view_of::notes(&detail.run),
        waiting: scene.run_waits(&id),
        untold: untold(&app, &detail.run).await?,
        diagnostics: view_of::diagnostics(&detail),
        log: open_log(&app, &detail, &steps, &who.sent).await?,
        jobs: view_of::jobs(&detail, &runners, &shown, now),
        rerun: may_rerun(&app, &scene, &detail, &deployer).await?,
        attempts: detail
            .attempts
            .iter()
            .map(|it| it.number)
            .max()
            .unwrap_or(0),
        earlier: view_of::earlier(&detail, chosen),
        steps,
        tests: view_of::tests(&app.store.list_tests(&id, &shown).await?),
        artifacts: view_of::artifacts(&kept),
        release,
        deployments,
        approve: if matches!(detail.run.state, RunState::WaitingForApproval { .. }) {
            deployer.clone()
        } else {
            Permission::Absent
        },
        cancel: if over || cancelling || is_confirming(&detail.run) {
            Permission::Absent
        } else {
            deployer.clone()
        },
        retry: if over { deployer } else { Permission::Absent },
    };
    frame::send(&request, StatusCode::OK, &page)
}

/// Whether jobs of a run that ended badly may go back to work.
async fn may_rerun(
    app: &App,
    scene: &Scene,
    detail: &RunDetail,
    deployer: &Permission,
) -> Result<Permission, HttpError> {
    match &detail.run.state {
        RunState::Failed { .. } | RunState::TimedOut { .. } | RunState::Cancelled { .. }
            if !detail.attempts.is_empty() => {}
        _ => return Ok(Permission::Absent),
    }
    let logs_removed = app.store.logs_removed_at(&detail.run.id).await?.is_some();
    let seen = detail.seen(logs_removed, scene.world.runs.values().collect());
    Ok(match rerun::rerun(&seen, &Wish::default()) {
        Ok(_) => deployer.clone(),
        Err(refusal) => Permission::Denied(refusal.to_string()),
    })
}

/// The runners, when a job waits for one with labels: whether any has them.
async fn runners_asked_for(app: &App, run: &Run) -> Result<Vec<store::Runner>, HttpError> {
    let jobs = run.jobs();
    let asks = |job| jobs.get(job).is_some_and(|job| !job.runs_on.is_empty());
    if !run.state.claimable().any(|(job, _)| asks(job)) {
        return Ok(vec![]);
    }
    Ok(app.store.list_runners().await?)
}

#[derive(Deserialize)]
pub(super) struct OfAttempt {
    attempt: Option<u32>,
}

/// A file that a step left, to be saved.
///
/// # Errors
/// 404 when there is no such run or artifact.
pub(super) async fn artifact(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<OfAttempt>>,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (run, step, name) = path.into_inner();
    artifacts::send(&app, &run, (&step, &name), who.sent.attempt).await
}

/// Why the forge does not show how a run went.
async fn untold(app: &App, run: &Run) -> Result<Option<Untold>, HttpError> {
    let telling = app.store.status_of_run(&run.id).await?;
    Ok(match telling.map(|telling| telling.standing) {
        Some(Standing::Untold {
            failed: Some(reason),
            not_before,
            ..
        }) => Some(Untold {
            reason,
            next: Some(view_of::time(not_before)),
        }),
        Some(Standing::GivenUp { reason, .. }) => Some(Untold { reason, next: None }),
        Some(Standing::Untold { failed: None, .. } | Standing::Told { .. }) | None => None,
    })
}

fn is_confirming(run: &Run) -> bool {
    matches!(
        run.state,
        RunState::Confirming { .. } | RunState::Confirmed { .. }
    )
}

async fn summary(app: &App, scene: &Scene, detail: &RunDetail) -> Result<RunSummary, HttpError> {
    let run = &detail.run;
    let history = app
        .store
        .list_events(Some(&run.project), Some(run.id.as_str()), None, HISTORY)
        .await?;
    let asked = history.iter().find(|event| event.what == "asked_for");
    let trigger = view_of::started_by(run, asked.map(|event| event.actor.as_str()));
    Ok(RunSummary {
        id: run.id.to_string(),
        name: view_of::run_name(run.id.as_str()),
        project: run.project.to_string(),
        commit: view_of::commit(
            &run.commit,
            &run.message,
            &run.author,
            (&run.git_ref, &run.started_by),
            scene.commits.as_deref(),
        ),
        state: view_of::run_state(&run.state),
        reason: reason(run),
        trigger,
        created: view_of::time(run.created_at),
        started: detail
            .attempts
            .first()
            .map(|attempt| view_of::time(attempt.claimed_at)),
        ended: detail.ended_at.map(view_of::time),
    })
}

/// Why a run is not green or not moving, or is green and made no release.
fn reason(run: &Run) -> String {
    match (&run.state, run.build_left_out()) {
        (RunState::Succeeded { release: None, .. }, Some(step)) => {
            format!("no release: step {step}, which builds images, was left out by its `when`")
        }
        (state, _) => view_of::run_reason(state),
    }
}

/// The release of a run, and where it went.
async fn made(
    app: &App,
    scene: &Scene,
    run: &Run,
) -> Result<(Option<Release>, Vec<DeploymentSummary>), HttpError> {
    let RunState::Succeeded {
        release: Some(id), ..
    } = &run.state
    else {
        return Ok((None, vec![]));
    };
    let release = app.store.get_release(id).await?;
    let filter = DeploymentFilter {
        release: Some(id.clone()),
        ..DeploymentFilter::default()
    };
    let found = app
        .store
        .list_deployments(&run.project, filter, None, MOST_DEPLOYMENTS)
        .await?;
    let deployments = found.iter().map(|deployment| {
        let waiting = scene.deployment_waits(&deployment.id);
        view_of::summary(
            deployment,
            Some(scene.commit_of(&release)),
            waiting.as_ref().map(|waiting| waiting.reason.as_str()),
        )
    });
    let deployments = deployments.collect();
    Ok((Some(view_of::release(&release)), deployments))
}

/// The log of the chosen step, else of the one that failed, runs, or ended last.
async fn open_log(
    app: &App,
    detail: &RunDetail,
    steps: &[Step],
    choice: &Choice,
) -> Result<Option<LogPanel>, HttpError> {
    let chosen = choice.step.as_deref();
    let attempt = choice.attempt.filter(|number| *number > 0);
    // Of an attempt that was chosen, only its own steps have a log.
    let steps = steps
        .iter()
        .filter(|step| attempt.is_none_or(|it| step.chosen == it));
    let steps: Vec<_> = steps.collect();
    let of_state = |states: &[StepState]| steps.iter().find(|step| states.contains(&step.state));
    let step = match chosen {
        Some(name) => steps.iter().find(|step| step.name == name),
        None => of_state(&[StepState::Failed, StepState::TimedOut, StepState::Lost])
            .or_else(|| of_state(&[StepState::Running]))
            .or_else(|| {
                let ended = steps.iter().filter(|step| step.started.is_some());
                ended.max_by_key(|step| step.ended)
            }),
    };
    let attempt = step.and_then(|it| log::attempt_of(detail, choice.attempt, &it.name));
    match step.zip(attempt) {
        Some((step, attempt)) => {
            let panel = log::panel(app, &detail.run.id, attempt, &step.name, choice.from).await?;
            Ok(Some(panel))
        }
        None => Ok(None),
    }
}
