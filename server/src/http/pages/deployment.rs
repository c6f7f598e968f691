//! One deployment: gates, what happened, and what ECS shows of it.

use super::super::App;
use super::super::actions;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::view_of::{self, Scene};
use super::{frame, project_of};
use crate::store::{DeploymentDetail, DeploymentFilter};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::deployment::{Deployment, DeploymentState, Rollout};
use roadstead_web::view::{DeploymentPage, Permission};

/// Entries of the timeline.
const MOST_FACTS: u32 = 200;
/// Deployments of the same place, to find what took it back.
const NEIGHBOURS: u32 = 50;

/// The page.
///
/// # Errors
/// 404 for an unknown deployment.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let id = actions::deployment_of(&path)?;
    let DeploymentDetail {
        deployment,
        release,
        effects,
        ..
    } = app.store.get_deployment(&id).await?;
    let project = project_of(&app, id.project().as_str()).await?;
    let world = app.store.load_world(&project.name).await?;
    let scene = Scene::new(&project, world, &who.actor, crate::clock::now());
    let place = &deployment.place;
    let others = app
        .store
        .list_deployments(
            &project.name,
            DeploymentFilter::of_place(place),
            None,
            NEIGHBOURS,
        )
        .await?;
    let mut facts = app
        .store
        .list_events(Some(&project.name), Some(id.as_str()), None, MOST_FACTS)
        .await?;
    facts.reverse();

    let state = scene.world.place(place);
    // What ECS shows is of now: it tells of this deployment while nothing newer is there.
    let newest = others.first().is_none_or(|newest| newest.id == id);
    let status = state.status.as_ref().filter(|_| newest);
    let waits = deployment.state == DeploymentState::Queued && !deployment.is_rollback();
    let waiting = scene
        .deployment_waits(&id)
        .or_else(|| trouble(&deployment, &effects));
    let before = state.verified.iter().find(|v| v.at < deployment.created_at);
    let image = scene.digest(place, &release);
    let pinned = release.images.values().find(|i| i.digest.as_str() == image);
    let begun = deployment.created_at;
    let page = DeploymentPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        deployment: view_of::summary(
            &deployment,
            Some(scene.commit_of(&release)),
            waiting.as_ref().map(|waiting| waiting.reason.as_str()),
        ),
        release_id: release.id.to_string(),
        image: pinned.map_or(image, |image| image.pinned()),
        image_note: scene.sibling_note(place, &release),
        previous_release: before.map(|v| view_of::short(v.release.as_str()).to_owned()),
        run: release.run.as_ref().map(ToString::to_string),
        counterpart: view_of::counterpart(&deployment, &others),
        gates: if waits {
            scene.gates(place, &release.id)
        } else {
            vec![]
        },
        approve: if waits {
            scene.approve(place, &release.id)
        } else {
            Permission::Absent
        },
        waiting,
        evidence: view_of::evidence(&deployment.state).to_vec(),
        hold: scene.hold(&state),
        facts: facts.iter().map(view_of::fact).collect(),
        rollouts: status.map(view_of::rollouts).unwrap_or_default(),
        targets: status.map(view_of::targets).unwrap_or_default(),
        stopped: status
            .map(|s| view_of::stopped_tasks(s, begun))
            .unwrap_or_default(),
        events: status
            .map(|s| view_of::cluster_events(s, begun))
            .unwrap_or_default(),
        last_seen: scene.last_seen(&state),
        confirm: scene.confirm(place),
        cancel: cancel(&scene, &deployment),
        rollback: if scene.rollback_targets(place).is_empty() {
            Permission::Absent
        } else {
            scene.deployer()
        },
    };
    frame::send(&request, StatusCode::OK, &page)
}

/// An effect that has not succeeded yet is why a deployment does not move.
fn trouble(
    deployment: &Deployment,
    effects: &[crate::store::EffectRow],
) -> Option<roadstead_web::view::Waiting> {
    if deployment.state.is_over() {
        return None;
    }
    let open = effects.iter().filter(|effect| {
        matches!(
            effect.state,
            crate::store::EffectState::Pending | crate::store::EffectState::Leased
        )
    });
    let (effect, error) = open
        .filter_map(|effect| Some((effect, effect.last_error.as_ref()?)))
        .next()?;
    Some(roadstead_web::view::Waiting {
        what: view_of::short(deployment.id.as_str()).to_owned(),
        reason: format!("tried {} times: {error}", effect.attempts),
        since: view_of::time(effect.created_at),
        until: Some(view_of::time(effect.not_before)),
        who: "nobody needs to act; it is tried again".to_owned(),
    })
}

/// Until ECS is asked, a deployment can be cancelled; afterwards the way is a rollback.
fn cancel(scene: &Scene, deployment: &Deployment) -> Permission {
    match deployment.state {
        DeploymentState::Queued
        | DeploymentState::RollingOut {
            rollout: Rollout::Registering { .. },
            ..
        } => scene.deployer(),
        DeploymentState::RollingOut {
            rollout: Rollout::BeforeDeploy { .. },
            ..
        } => Permission::Denied("its before_deploy runs, and ends by itself".to_owned()),
        DeploymentState::RollingOut { .. } | DeploymentState::Verifying { .. } => {
            Permission::Denied("ECS works on it: roll back instead".to_owned())
        }
        _ => Permission::Absent,
    }
}
