//! One project: its matrix, its runs, and how its webhook is set up.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::view_of::{self, Scene};
use super::{PAGE_SIZE, PageQuery, frame, project_of, start};
use crate::store::RunLine;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_web::view::{DeploymentSummary, Paging, ProjectPage, RunSummary, WebhookHelp};
use serde::Deserialize;

/// `?page=2`, `?ref=release`.
#[derive(Deserialize)]
pub(super) struct ProjectQuery {
    page: Option<u32>,
    #[serde(rename = "ref")]
    git_ref: Option<String>,
}

/// The page.
///
/// # Errors
/// 404 for an unknown project.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer, web::Query<ProjectQuery>>,
    request: HttpRequest,
    path: web::Path<String>,
) -> Result<HttpResponse, HttpError> {
    let project = project_of(&app, &path).await?;
    let world = app.store.load_world(&project.name).await?;
    let scene = Scene::new(&project, world, &who.actor, crate::clock::now());
    let page = PageQuery {
        page: who.sent.page,
    };
    let page = page.number();
    let (runs, more) = runs(&app, &scene, page).await?;
    let last = app.store.list_deliveries(&project.name, None, 1).await?;
    let page = ProjectPage {
        frame: frame::of(&app, &who.actor, &request).await?,
        project: project.name.to_string(),
        repository: view_of::repository_shown(&project.repository),
        matrix: scene.matrix(),
        start: start::form(&app, &project, &who.actor, who.sent.git_ref.as_deref()).await?,
        runs: runs.iter().map(|line| run_line(&scene, line)).collect(),
        paging: Paging {
            page: u64::from(page),
            more,
        },
        webhook: WebhookHelp {
            public_url: app.public_url(),
            secret_hint: "webhook_secret of this project in roadstead.toml".to_owned(),
            last_delivery: last
                .first()
                .map(|delivery| view_of::time(delivery.received_at)),
            branches_compared: project.heads_compared_at.map(view_of::time),
        },
    };
    frame::send(&request, StatusCode::OK, &page)
}

/// One page of runs, and whether there are older ones. Runs are numbered without gaps, so any page
/// is found by number.
async fn runs(app: &App, scene: &Scene, page: u32) -> Result<(Vec<RunLine>, bool), HttpError> {
    let project = &scene.world.project;
    let before = match page {
        0 | 1 => None,
        page => {
            let newest = app.store.list_runs(project, None, 1).await?;
            let newest = newest.first().map_or(0, |line| line.id.number());
            let newer = u64::from(page - 1) * u64::from(PAGE_SIZE);
            Some((newest + 1).saturating_sub(newer))
        }
    };
    let mut lines = app.store.list_runs(project, before, PAGE_SIZE + 1).await?;
    let more = lines.len() > PAGE_SIZE as usize;
    lines.truncate(PAGE_SIZE as usize);
    Ok((lines, more))
}

/// A run as a line of a list.
pub(super) fn run_line(scene: &Scene, line: &RunLine) -> RunSummary {
    let mut summary = view_of::summary_of_line(line, scene.commits.as_deref());
    if summary.reason.is_empty() || !line.state.is_over() {
        let waiting = scene.run_waits(&line.id);
        summary.reason = match waiting {
            Some(waiting) => format!("waits for {}", waiting.reason),
            None => summary.reason,
        };
    }
    summary
}

/// Deployments of a project that are not over.
pub(super) fn live_deployments(scene: &Scene) -> Vec<DeploymentSummary> {
    let all = scene.world.deployments.values();
    let mut live: Vec<_> = all.filter(|d| !d.state.is_over()).collect();
    live.sort_by_key(|deployment| std::cmp::Reverse(deployment.id.number()));
    live.into_iter()
        .map(|deployment| {
            let release = scene.world.releases.get(&deployment.release);
            let waiting = scene.deployment_waits(&deployment.id);
            view_of::summary(
                deployment,
                release.map(|release| scene.commit_of(release)),
                waiting.as_ref().map(|waiting| waiting.reason.as_str()),
            )
        })
        .collect()
}
