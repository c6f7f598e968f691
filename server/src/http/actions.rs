//! What buttons and the API ask for: one function per verb, used by both. Each records facts through
//! the core's `action` and rings the bell; what follows is the planner's.

use super::App;
use super::error::HttpError;
use super::webhooks;
use crate::store::{Accepted, Asked, NewDelivery, NewRun, Recorded, Redelivery};
use roadstead_pipelines::action::{self, Actor, Refusal};
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::{
    CommitSha, DeploymentId, EnvironmentName, Place, ProjectName, ReleaseId, RunId, ServiceName,
};
use roadstead_pipelines::world::World;

/// A verb on a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Bring a release in.
    Promote,
    /// Go back to a verified one.
    Rollback,
    /// Say yes to one.
    Approve,
    /// Keep automation away.
    Hold,
    /// Let automation go on.
    Resume,
}

impl Verb {
    /// From the last segment of an address.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "promote" => Self::Promote,
            "rollback" => Self::Rollback,
            "approve" => Self::Approve,
            "hold" => Self::Hold,
            "resume" => Self::Resume,
            _ => return None,
        })
    }
}

/// Reads a place off an address.
///
/// # Errors
/// 404 when a name is none.
pub fn place_of(
    project: &str,
    environment: &str,
    service: &str,
) -> Result<(ProjectName, Place), HttpError> {
    let unknown = || HttpError::not_found(format!("no place {project}/{environment}/{service}"));
    let project_name = ProjectName::parse(project).map_err(|_| unknown())?;
    let environment = EnvironmentName::parse(environment).map_err(|_| unknown())?;
    let service = ServiceName::parse(service).map_err(|_| unknown())?;
    Ok((
        project_name,
        Place {
            environment,
            service,
        },
    ))
}

/// Reads a run's id off an address.
///
/// # Errors
/// 404 when it is none.
pub fn run_of(text: &str) -> Result<RunId, HttpError> {
    RunId::parse(text).ok_or_else(|| HttpError::not_found(format!("no run `{text}`")))
}

/// Reads a deployment's id off an address.
///
/// # Errors
/// 404 when it is none.
pub fn deployment_of(text: &str) -> Result<DeploymentId, HttpError> {
    DeploymentId::parse(text).ok_or_else(|| HttpError::not_found(format!("no deployment `{text}`")))
}

/// A verb on a place. `release` is needed by promote, rollback and approve.
///
/// # Errors
/// 400 without a release, 409 with the reason when the core refuses.
pub async fn on_place(
    app: &App,
    actor: &Actor,
    verb: Verb,
    (project, place): (ProjectName, Place),
    release: Option<&str>,
    reason: &str,
) -> Result<Recorded, HttpError> {
    if reason.len() > 1_000 {
        return Err(HttpError::bad_request(
            "a reason has at most 1,000 characters",
        ));
    }
    let release = release.filter(|text| !text.is_empty()).map(|text| {
        ReleaseId::parse(text)
            .ok_or_else(|| HttpError::bad_request(format!("`{text}` is no release")))
    });
    let release = release.transpose()?;
    let needed = || {
        release
            .clone()
            .ok_or_else(|| HttpError::bad_request("say which release: `release`"))
    };
    let now = crate::clock::now();
    match verb {
        Verb::Promote => {
            let release = needed()?;
            record(app, &project, actor, |world| {
                action::promote(world, &place, &release, actor, reason)
            })
            .await
        }
        Verb::Rollback => {
            let release = needed()?;
            record(app, &project, actor, |world| {
                action::rollback(world, &place, &release, actor, reason, now)
            })
            .await
        }
        Verb::Approve => {
            let release = needed()?;
            record(app, &project, actor, |world| {
                action::approve(world, &place, &release, actor, now)
            })
            .await
        }
        Verb::Hold => {
            record(app, &project, actor, |world| {
                action::hold(world, &place, actor, reason, now)
            })
            .await
        }
        Verb::Resume => {
            record(app, &project, actor, |world| {
                action::resume(world, &place, actor)
            })
            .await
        }
    }
}

/// Cancels a run.
///
/// # Errors
/// 409 when there is nothing to cancel.
pub async fn cancel_run(app: &App, actor: &Actor, run: &RunId) -> Result<Recorded, HttpError> {
    record(app, &run.project(), actor, |world| {
        action::cancel_run(world, run, actor)
    })
    .await
}

/// Lets untrusted code run: this run, of the commit that the actor looked at.
///
/// # Errors
/// 400 when that is no commit; 409 when the run waits for no approval or is of another commit.
pub async fn approve_run(
    app: &App,
    actor: &Actor,
    run: &RunId,
    commit: &str,
) -> Result<Recorded, HttpError> {
    let commit = CommitSha::parse(commit).ok_or_else(|| {
        let message = "say which commit you have looked at: `commit`, all 40 hexadecimal digits";
        HttpError::bad_request(message)
    })?;
    record(app, &run.project(), actor, |world| {
        action::approve_run(world, run, &commit, actor)
    })
    .await
}

/// Cancels a deployment that ECS has not been asked for.
///
/// # Errors
/// 409 with the reason otherwise.
pub async fn cancel_deployment(
    app: &App,
    actor: &Actor,
    deployment: &DeploymentId,
) -> Result<Recorded, HttpError> {
    record(app, &deployment.project(), actor, |world| {
        action::cancel_deployment(world, deployment, actor)
    })
    .await
}

/// Asks for a new run of the same commit.
///
/// # Errors
/// 409 while the run is not over.
pub async fn retry_run(app: &App, actor: &Actor, run: &RunId) -> Result<RunId, HttpError> {
    let found = app.store.get_run(run).await?.run;
    if !found.state.is_over() {
        let message = format!("{run} is {}: cancel it first", found.state.word());
        return Err(HttpError::conflict(message));
    }
    let again = NewRun {
        commit: found.commit,
        git_ref: found.git_ref,
        started_by: found.started_by,
        key: None,
    };
    let now = crate::clock::now();
    let asked = app
        .store
        .start_run(&run.project(), again, &actor.name, now)
        .await?;
    app.bell.ring();
    match asked {
        Asked::Made(new) | Asked::Before(new) | Asked::Other(new) => Ok(new),
    }
}

/// Takes a stored delivery as if it came now; the same push then makes another run.
///
/// # Errors
/// 404 when there is no such delivery.
pub async fn redeliver(app: &App, actor: &Actor, id: i64) -> Result<Accepted, HttpError> {
    let (delivery, body) = app.store.get_delivery(id).await?;
    let decision = webhooks::decide_again(&delivery, &body)
        .map_err(|bad| HttpError::conflict(bad.to_string()))?;
    let now = crate::clock::now();
    let again = NewDelivery {
        project: delivery.project.clone(),
        forge: delivery.forge,
        delivery_id: format!("{}-again-{}", delivery.delivery_id, now.as_microsecond()),
        event: delivery.event,
        body,
        decision,
        redelivery: Some(Redelivery {
            of: id,
            by: actor.name.clone(),
        }),
        received_at: now,
    };
    let accepted = app.store.accept_delivery(again).await?;
    app.bell.ring();
    Ok(accepted)
}

/// Drains a runner, or lets it take work again. Asked for twice it changes nothing.
///
/// # Errors
/// 404 when there is no such runner.
pub async fn drain_runner(
    app: &App,
    actor: &Actor,
    runner: &str,
    drain: bool,
) -> Result<(), HttpError> {
    let now = crate::clock::now();
    app.store.set_drain(runner, drain, &actor.name, now).await?;
    // A poll of its hangs: it hears of it, or takes the job that waits for it.
    app.bell.ring();
    Ok(())
}

async fn record(
    app: &App,
    project: &ProjectName,
    actor: &Actor,
    decide: impl FnMut(&World) -> Result<Vec<Change>, Refusal>,
) -> Result<Recorded, HttpError> {
    let recorded = app
        .store
        .record(project, &actor.name, crate::clock::now(), decide)
        .await?;
    app.bell.ring();
    Ok(recorded)
}
