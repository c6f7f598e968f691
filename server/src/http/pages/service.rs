//! One service in one environment: what is there, what could be there, what was there.

use super::super::App;
use super::super::actions;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::view_of::{self, Scene};
use super::{PAGE_SIZE, PageQuery, cut_page, frame, project_of};
use crate::store::{DeploymentFilter, StoreError};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::deployment::Deployment;
use roadstead_web::view::{DeploymentSummary, ServicePage};

/// The page.
///
/// # Errors
/// 404 for a place that neither the pipeline file nor the history knows.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<PageQuery>>,
    request: HttpRequest,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, HttpError> {
    let (project, environment, service) = path.into_inner();
    let (_, place) = actions::place_of(&project, &environment, &service)?;
    let project = project_of(&app, &project).await?;
    let world = app.store.load_world(&project.name).await?;
    let known = world.places_in_order().iter().any(|(p, _)| *p == place)
        || world.places.contains_key(&place);
    if !known {
        return Err(HttpError::not_found(format!(
            "{} has no {place}",
            project.name
        )));
    }
    let scene = Scene::new(&project, world, &who.actor, crate::clock::now());
    let page = who.sent.number();
    let found = app
        .store
        .list_deployments(
            &project.name,
            DeploymentFilter::of_place(&place),
            None,
            page * PAGE_SIZE + 1,
        )
        .await?;
    let (shown, paging) = cut_page(found, page, PAGE_SIZE);
    let page = ServicePage {
        frame: frame::of(&app, &who.actor, &request).await?,
        project: project.name.to_string(),
        service: place.service.to_string(),
        cell: scene.cell(&place),
        place: scene.place_in_words(&place),
        before_deploy: scene.before_deploy(&place),
        confirm: scene.confirm(&place),
        candidates: scene.candidates(&place),
        promote: scene.deployer(),
        approve: scene.deployer(),
        rollback_targets: scene.rollback_targets(&place),
        rollback: scene.deployer(),
        hold: scene.may_hold(),
        history: history(&app, &scene, &shown).await?,
        paging: (paging.more || paging.page > 1).then_some(paging),
    };
    frame::send(&request, StatusCode::OK, &page)
}

async fn history(
    app: &App,
    scene: &Scene,
    deployments: &[Deployment],
) -> Result<Vec<DeploymentSummary>, HttpError> {
    let mut history = vec![];
    for deployment in deployments {
        let commit = match scene.world.releases.get(&deployment.release) {
            Some(release) => Some(scene.commit_of(release)),
            None => match app.store.get_release(&deployment.release).await {
                Ok(release) => Some(scene.commit_of(&release)),
                Err(StoreError::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            },
        };
        let waiting = scene.deployment_waits(&deployment.id);
        let waiting = waiting.as_ref().map(|waiting| waiting.reason.as_str());
        history.push(view_of::summary(deployment, commit, waiting));
    }
    Ok(history)
}
