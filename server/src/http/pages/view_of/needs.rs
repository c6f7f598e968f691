//! What waits for a person, the most urgent first.

use super::{Scene, run_state, short, time};
use crate::store::RunLine;
use roadstead_pipelines::deployment::{Deployment, DeploymentState};
use roadstead_pipelines::gate::{self, GateVerdict};
use roadstead_pipelines::id::{Place, ReleaseId};
use roadstead_pipelines::report::{Subject, WhoActs};
use roadstead_pipelines::spec::{DeployMode, Gate};
use roadstead_web::urls;
use roadstead_web::view::{Need, NeedKind, RunState};
use std::collections::BTreeSet;

/// Of one project: `deployments` and `runs` are the newest, the newest first.
pub(in super::super) fn needs(
    scene: &Scene,
    deployments: &[Deployment],
    runs: &[RunLine],
) -> Vec<Need> {
    let mut all = failed_deployments(scene, deployments);
    all.extend(failed_run(runs));
    all.extend(holds(scene));
    all.extend(approvals(scene));
    all.extend(super::pull_requests::unapproved(scene));
    all.extend(promotions(scene));
    all
}

fn url(scene: &Scene, place: &Place) -> String {
    urls::service(
        scene.world.project.as_str(),
        place.environment.as_str(),
        place.service.as_str(),
    )
}

fn title(scene: &Scene, place: &Place, release: &ReleaseId) -> String {
    format!(
        "{}: {} {} into {}",
        scene.world.project,
        place.service,
        short(release.as_str()),
        place.environment
    )
}

/// The newest deployment of a place failed, and no hold tells it already.
fn failed_deployments(scene: &Scene, deployments: &[Deployment]) -> Vec<Need> {
    let mut judged = BTreeSet::new();
    let mut needs = vec![];
    for deployment in deployments {
        let place = &deployment.place;
        let failed = match &deployment.state {
            DeploymentState::Superseded { .. } | DeploymentState::Cancelled { .. } => continue,
            DeploymentState::Failed { failure, at }
            | DeploymentState::RolledBack { failure, at }
            | DeploymentState::RollbackFailed { failure, at }
            | DeploymentState::TimedOut { failure, at } => Some((failure, *at)),
            DeploymentState::Queued
            | DeploymentState::RollingOut { .. }
            | DeploymentState::Verifying { .. }
            | DeploymentState::RollingBack { .. }
            | DeploymentState::Deployed { .. } => None,
        };
        if !judged.insert(place.clone()) {
            continue;
        }
        let Some((failure, at)) = failed else {
            continue;
        };
        let lost = matches!(deployment.state, DeploymentState::RollbackFailed { .. });
        if !lost && scene.world.place(place).hold.is_some() {
            continue;
        }
        needs.push(Need {
            kind: NeedKind::Failed,
            title: title(scene, place, &deployment.release),
            reason: format!(
                "{}: {}",
                deployment.state.word().replace('_', " "),
                failure.message
            ),
            since: time(at),
            url: urls::deployment(deployment.id.as_str()),
        });
    }
    needs
}

/// The newest run of a branch failed, for the branch that was built last. What fails of a pull request is its author's to
/// mend.
fn failed_run(runs: &[RunLine]) -> Option<Need> {
    let newest = runs
        .iter()
        .find(|line| line.started_by.pull_request().is_none())?;
    let state = run_state(&newest.state);
    if !matches!(state, RunState::Failed | RunState::TimedOut) {
        return None;
    }
    Some(Need {
        kind: NeedKind::Failed,
        title: format!(
            "{}: run {}",
            newest.id.project(),
            super::run_name(newest.id.as_str())
        ),
        reason: super::run_reason(&newest.state),
        since: time(newest.ended_at.unwrap_or(newest.created_at)),
        url: urls::run(newest.id.as_str()),
    })
}

fn holds(scene: &Scene) -> Vec<Need> {
    let places = scene.world.places.iter();
    let held = places.filter_map(|(place, state)| Some((place, state.hold.as_ref()?)));
    held.map(|(place, hold)| Need {
        kind: NeedKind::Held,
        title: format!(
            "{}: {} in {}",
            scene.world.project, place.service, place.environment
        ),
        reason: format!(
            "held by {}: {}; a deployer can resume",
            hold.by, hold.reason
        ),
        since: time(hold.since),
        url: url(scene, place),
    })
    .collect()
}

/// Deployments that wait for somebody's yes.
fn approvals(scene: &Scene) -> Vec<Need> {
    let mut needs = vec![];
    for deployment in scene.world.deployments.values() {
        let place = &deployment.place;
        if deployment.state != DeploymentState::Queued || deployment.is_rollback() {
            continue;
        }
        let gates = gate::gates(&scene.world, place, &deployment.release);
        let asked = gates.iter().find_map(|gate| {
            if !matches!(gate, Gate::Approval { .. }) {
                return None;
            }
            let release = &deployment.release;
            match gate::evaluate(gate, &scene.world, place, release, scene.now) {
                GateVerdict::Closed { reason, who, .. } => Some((reason, who)),
                GateVerdict::Open { .. } => None,
            }
        });
        if let Some((reason, who)) = asked {
            needs.push(Need {
                kind: NeedKind::Approval,
                title: title(scene, place, &deployment.release),
                reason: format!("waits for {reason}; {} can", super::who_acts(&who)),
                since: time(deployment.created_at),
                url: urls::deployment(deployment.id.as_str()),
            });
        }
    }
    needs
}

/// Releases in front of an environment where people promote.
fn promotions(scene: &Scene) -> Vec<Need> {
    let mut needs = vec![];
    for waiting in &scene.plan.waiting_on {
        let Subject::Candidate { release, place } = &waiting.subject else {
            continue;
        };
        let manual = scene
            .world
            .environment(place)
            .is_some_and(|environment| environment.deploy == DeployMode::Manual);
        let held = scene.world.place(place).hold.is_some();
        if manual && !held && matches!(waiting.who, WhoActs::Role(_)) {
            needs.push(Need {
                kind: NeedKind::Promotion,
                title: title(scene, place, release),
                reason: format!(
                    "waits for {}; {} can",
                    waiting.reason,
                    super::who_acts(&waiting.who)
                ),
                since: time(waiting.since),
                url: url(scene, place),
            });
        }
    }
    needs
}
