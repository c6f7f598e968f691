//! `/`: everything at a glance.

use super::super::App;
use super::super::auth::{Allowed, Viewer};
use super::super::error::HttpError;
use super::view_of::{self, Scene};
use super::{frame, project};
use crate::store::{DeploymentFilter, RunLine};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use roadstead_pipelines::action::Actor;
use roadstead_pipelines::deployment::Deployment;
use roadstead_pipelines::spec::Role;
use roadstead_web::view::{HomePage, Need, ProjectRuns};

/// Runs in the bars of a project.
const RECENT_RUNS: u32 = 30;
/// Deployments among which the newest of each place is looked for.
const NEWEST_DEPLOYMENTS: u32 = 50;

/// One project with its newest runs and deployments.
struct Seen {
    scene: Scene,
    runs: Vec<RunLine>,
    deployments: Vec<Deployment>,
}

async fn all(app: &App, actor: &Actor, recent: u32) -> Result<Vec<Seen>, HttpError> {
    let now = crate::clock::now();
    let mut all = vec![];
    for overview in app.store.overview().await? {
        let name = &overview.project.name;
        let runs = app.store.list_runs(name, None, recent).await?;
        let deployments = app
            .store
            .list_deployments(name, DeploymentFilter::default(), None, NEWEST_DEPLOYMENTS)
            .await?;
        all.push(Seen {
            scene: Scene::new(&overview.project, overview.world, actor, now),
            runs,
            deployments,
        });
    }
    Ok(all)
}

/// What waits for a person in any project.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn needs(app: &App) -> Result<Vec<Need>, HttpError> {
    // The list is the same for everybody.
    let nobody = Actor {
        name: String::new(),
        role: Role::Viewer,
    };
    Ok(needs_of(&all(app, &nobody, RECENT_RUNS).await?))
}

fn needs_of(all: &[Seen]) -> Vec<Need> {
    let needs = all
        .iter()
        .flat_map(|seen| view_of::needs(&seen.scene, &seen.deployments, &seen.runs));
    needs.collect()
}

/// The page.
///
/// # Errors
/// When the database is out of reach.
pub(super) async fn show(
    app: web::Data<App>,
    who: Allowed<Viewer>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let all = all(&app, &who.actor, RECENT_RUNS).await?;
    let needs = needs_of(&all);
    frame::remember_needs(&app, needs.len() as u64);
    let mut page = HomePage {
        frame: frame::of(&app, &who.actor, &request).await?,
        matrices: vec![],
        needs,
        runs: vec![],
        deployments: vec![],
        recent: vec![],
    };
    for Seen { scene, runs, .. } in all {
        page.matrices.extend(scene.matrix());
        page.deployments.extend(project::live_deployments(&scene));
        let live = runs.iter().filter(|line| !line.state.is_over());
        page.runs
            .extend(live.map(|line| project::run_line(&scene, line)));
        let branch = default_branch(&scene);
        let mut bars: Vec<_> = runs
            .iter()
            .filter(|line| match &branch {
                Some(branch) => line.git_ref == *branch,
                None => line.started_by.pull_request().is_none(),
            })
            .map(|line| project::run_line(&scene, line))
            .collect();
        bars.reverse();
        if !bars.is_empty() {
            page.recent.push(ProjectRuns {
                project: scene.world.project.to_string(),
                runs: bars,
            });
        }
    }
    frame::send(&request, StatusCode::OK, &page)
}

/// The ref of the first branch that the file builds, when it is named in full.
fn default_branch(scene: &Scene) -> Option<String> {
    let branch = scene.world.pipeline.as_ref()?.trigger.branches.first()?;
    let plain = !branch.contains(['*', '?', '[', '{', '!']);
    plain.then(|| format!("refs/heads/{branch}"))
}
