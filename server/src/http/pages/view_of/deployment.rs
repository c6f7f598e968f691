//! Deployments: their states and reasons, their history, and what ECS shows of the service.

use super::{clip, short, time};
use crate::store::Event;
use jiff::Timestamp;
use roadstead_pipelines::deployment::{
    Deployment, DeploymentState, Kind, Rollout as Progress, TakenBackBy, Trigger,
};
use roadstead_pipelines::observation::{self, PlaceStatus};
use roadstead_pipelines::report::Failure;
use roadstead_web::view::{
    self, Actor, ClusterEvent, Commit, DeploymentKind, DeploymentSummary, Fact, LogLine, Rollout,
    StoppedTask, Target, TargetHealth, Tone,
};
use serde_json::Value;

/// Longest particulars of one entry of the timeline, in bytes.
const LONGEST_DETAIL: usize = 4_000;

/// Which verb made it.
pub(super) fn kind(deployment: &Deployment) -> DeploymentKind {
    match (&deployment.kind, &deployment.trigger) {
        (Kind::Forward, Trigger::Auto) => DeploymentKind::Auto,
        (Kind::Forward, Trigger::Manual { .. }) => DeploymentKind::Promote,
        (Kind::Rollback { .. }, Trigger::Auto) => DeploymentKind::AutoRollback,
        (Kind::Rollback { .. }, Trigger::Manual { .. }) => DeploymentKind::Rollback,
    }
}

/// A deployment's state as pages know it.
pub(super) fn state(state: &DeploymentState) -> view::DeploymentState {
    match state {
        DeploymentState::Queued => view::DeploymentState::Queued,
        DeploymentState::RollingOut { .. } => view::DeploymentState::RollingOut,
        DeploymentState::Verifying { .. } => view::DeploymentState::Verifying,
        DeploymentState::RollingBack { .. } => view::DeploymentState::RollingBack,
        DeploymentState::Deployed { .. } => view::DeploymentState::Deployed,
        DeploymentState::Failed { .. } => view::DeploymentState::Failed,
        DeploymentState::RolledBack { .. } => view::DeploymentState::RolledBack,
        DeploymentState::RollbackFailed { .. } => view::DeploymentState::RollbackFailed,
        DeploymentState::Superseded { .. } => view::DeploymentState::Superseded,
        DeploymentState::Cancelled { .. } => view::DeploymentState::Cancelled,
        DeploymentState::TimedOut { .. } => view::DeploymentState::TimedOut,
    }
}

/// Since when it is where it is.
pub(super) fn since(deployment: &Deployment) -> Timestamp {
    match &deployment.state {
        DeploymentState::Queued => deployment.created_at,
        DeploymentState::RollingOut { since, .. }
        | DeploymentState::Verifying { since, .. }
        | DeploymentState::RollingBack { since, .. } => *since,
        over => ended_at(over).unwrap_or(deployment.created_at),
    }
}

fn ended_at(state: &DeploymentState) -> Option<Timestamp> {
    match state {
        DeploymentState::Queued
        | DeploymentState::RollingOut { .. }
        | DeploymentState::Verifying { .. }
        | DeploymentState::RollingBack { .. } => None,
        DeploymentState::Deployed { at, .. }
        | DeploymentState::Failed { at, .. }
        | DeploymentState::RolledBack { at, .. }
        | DeploymentState::RollbackFailed { at, .. }
        | DeploymentState::Superseded { at, .. }
        | DeploymentState::Cancelled { at, .. }
        | DeploymentState::TimedOut { at, .. } => Some(*at),
    }
}

/// Why it waits or how it ended.
fn reason(deployment: &Deployment, waiting: Option<&str>) -> String {
    match &deployment.state {
        DeploymentState::Queued => format!("waits for {}", waiting.unwrap_or("its turn")),
        DeploymentState::RollingOut { rollout, .. } => match rollout {
            Progress::Registering { .. } => "registering its task definition".to_owned(),
            Progress::BeforeDeploy { before_deploy, .. } => {
                format!("runs `{}` first", before_deploy.run.shown())
            }
            Progress::Updating { .. } => "asking ECS for the update".to_owned(),
            Progress::Creating { .. } => "asking ECS for the service".to_owned(),
            Progress::Watching { .. } => "ECS replaces the tasks".to_owned(),
        },
        DeploymentState::Verifying { .. } => "health and probes have to hold".to_owned(),
        DeploymentState::RollingBack { failure, .. } => {
            format!("being taken back: {}", failure.message)
        }
        DeploymentState::Deployed { .. } => String::new(),
        DeploymentState::Failed { failure, .. }
        | DeploymentState::RolledBack { failure, .. }
        | DeploymentState::RollbackFailed { failure, .. }
        | DeploymentState::TimedOut { failure, .. } => failure.message.clone(),
        DeploymentState::Superseded { by_what, .. } => format!("superseded by {by_what}"),
        DeploymentState::Cancelled { by_whom, .. } => format!("cancelled by {by_whom}"),
    }
}

/// What was seen when it failed; empty for what did not.
pub(in super::super) fn evidence(state: &DeploymentState) -> &[String] {
    match state {
        DeploymentState::RollingBack { failure, .. }
        | DeploymentState::Failed { failure, .. }
        | DeploymentState::RolledBack { failure, .. }
        | DeploymentState::RollbackFailed { failure, .. }
        | DeploymentState::TimedOut { failure, .. } => &failure.details,
        DeploymentState::Queued
        | DeploymentState::RollingOut { .. }
        | DeploymentState::Verifying { .. }
        | DeploymentState::Deployed { .. }
        | DeploymentState::Superseded { .. }
        | DeploymentState::Cancelled { .. } => &[],
    }
}

/// A commit that is not loaded.
pub(super) fn unknown_commit() -> Commit {
    Commit {
        sha: String::new(),
        message: String::new(),
        author: String::new(),
        branch: String::new(),
        url: None,
    }
}

/// A deployment as a line of a list.
pub(in super::super) fn summary(
    deployment: &Deployment,
    commit: Option<Commit>,
    waiting: Option<&str>,
) -> DeploymentSummary {
    let actor = match (&deployment.trigger, &deployment.kind) {
        (Trigger::Auto, Kind::Forward) => ("Roadstead", "auto-deploy"),
        (Trigger::Auto, Kind::Rollback { .. }) => ("Roadstead", "automatic rollback"),
        (Trigger::Manual { by, .. }, _) => (by.as_str(), "by hand"),
    };
    DeploymentSummary {
        id: deployment.id.to_string(),
        name: short(deployment.id.as_str()).to_owned(),
        project: deployment.id.project().to_string(),
        environment: deployment.place.environment.to_string(),
        service: deployment.place.service.to_string(),
        kind: kind(deployment),
        state: state(&deployment.state),
        reason: reason(deployment, waiting),
        release: short(deployment.release.as_str()).to_owned(),
        commit: commit.unwrap_or_else(unknown_commit),
        actor: Actor {
            name: actor.0.to_owned(),
            via: actor.1.to_owned(),
        },
        created: time(deployment.created_at),
        ended: ended_at(&deployment.state).map(time),
    }
}

/// The rollback of a failed deployment, or what a rollback takes back; `others` are deployments of
/// the same place.
pub(in super::super) fn counterpart(
    deployment: &Deployment,
    others: &[Deployment],
) -> Option<(String, String)> {
    let named = |id: &str, what: &str| (id.to_owned(), format!("{what} {}", short(id)));
    if let Kind::Rollback { of: Some(of) } = &deployment.kind {
        return Some(named(of.as_str(), "takes back"));
    }
    if let DeploymentState::RollingBack {
        by: TakenBackBy::Deployment { rollback },
        ..
    } = &deployment.state
    {
        return Some(named(rollback.as_str(), "taken back by"));
    }
    let back = others.iter().find(
        |other| matches!(&other.kind, Kind::Rollback { of: Some(of) } if *of == deployment.id),
    );
    back.map(|back| named(back.id.as_str(), "taken back by"))
}

/// An entry of the history as a line of the timeline.
pub(in super::super) fn fact(event: &Event) -> Fact {
    let failure = event.detail.get("failure").cloned();
    let failure: Option<Failure> = failure.and_then(|value| serde_json::from_value(value).ok());
    let text = |key: &str| event.detail.get(key).and_then(Value::as_str);
    let detail = match (&failure, event.what.as_str()) {
        // Its details are on the page as what was seen.
        (Some(failure), _) => failure.message.clone(),
        (None, "opened") => {
            let trigger = event.detail.get("trigger");
            let said = trigger.and_then(|trigger| trigger.get("reason")?.as_str());
            match said.filter(|said| !said.is_empty()) {
                Some(said) => format!("by {}: {said}", event.actor),
                None => format!("by {}", event.actor),
            }
        }
        (None, "task_definition_registered") => text("task_definition").unwrap_or_default().into(),
        (None, "superseded") => text("by").map(|by| format!("by {by}")).unwrap_or_default(),
        (None, "cancelled") => format!("by {}", event.actor),
        (None, _) => String::new(),
    };
    let tone = match event.what.as_str() {
        "verified" => Tone::Good,
        "failed" | "rollback_failed" | "rolled_back" => Tone::Bad,
        "ecs_takes_back" | "rollback_opened" => Tone::Warn,
        "superseded" | "cancelled" | "opened" => Tone::Quiet,
        _ => Tone::Busy,
    };
    Fact {
        at: time(event.at),
        tone,
        title: event.what.replace('_', " ").replace("ecs", "ECS"),
        detail: clip(&detail, LONGEST_DETAIL).to_owned(),
    }
}

/// `family:revision` out of an ARN.
fn definition(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or(arn).to_owned()
}

/// The service's rollouts in ECS's words.
pub(in super::super) fn rollouts(status: &PlaceStatus) -> Vec<Rollout> {
    let rollouts = status.service.deployments.iter().map(|seen| {
        let state = seen.rollout_state.as_deref().unwrap_or("no rollout state");
        let reason = if seen.rollout_reason.is_empty() {
            String::new()
        } else {
            format!(": {}", seen.rollout_reason)
        };
        Rollout {
            role: seen.status.clone(),
            task_definition: definition(&seen.task_definition),
            state: format!("{state}{reason}"),
            desired: seen.desired,
            running: seen.running,
            pending: seen.pending,
            failed: seen.failed,
            updated: time(seen.created_at.unwrap_or(status.observed_at)),
        }
    });
    rollouts.collect()
}

/// What the load balancer says.
pub(in super::super) fn targets(status: &PlaceStatus) -> Vec<Target> {
    let targets = status.service.targets.iter().map(|seen| Target {
        id: seen.target.clone(),
        health: match seen.state.as_str() {
            "healthy" => TargetHealth::Healthy,
            "unhealthy" => TargetHealth::Unhealthy,
            "initial" => TargetHealth::Initial,
            "draining" => TargetHealth::Draining,
            "unused" => TargetHealth::Unused,
            _ => TargetHealth::Unavailable,
        },
        reason: seen.reason.clone(),
        release: None,
    });
    targets.collect()
}

/// Tasks that stopped since a deployment began.
pub(in super::super) fn stopped_tasks(status: &PlaceStatus, begun: Timestamp) -> Vec<StoppedTask> {
    let stopped = status.service.stopped.iter();
    let later = stopped.filter(|task| task.stopped_at.is_none_or(|at| at >= begun));
    later.map(|task| stopped_task(task, status)).collect()
}

fn stopped_task(task: &observation::StoppedTask, status: &PlaceStatus) -> StoppedTask {
    let bad = task.exit_codes.iter().find(|(_, code)| **code != 0);
    let ended_by = bad.or_else(|| task.exit_codes.iter().next());
    let rollout = status.service.deployment(&task.started_by);
    let reason = if task.container_reason.is_empty() {
        task.reason.clone()
    } else {
        format!("{}: {}", task.reason, task.container_reason)
    };
    StoppedTask {
        task: task.task.rsplit('/').next().unwrap_or_default().to_owned(),
        task_definition: rollout.map_or_else(
            || "an earlier definition".to_owned(),
            |rollout| definition(&rollout.task_definition),
        ),
        code: task.stop_code.clone(),
        reason,
        container: ended_by.map_or_else(|| "unknown".to_owned(), |(name, _)| name.clone()),
        exit_code: ended_by.map(|(_, code)| *code),
        replaced: task.stop_code == "ServiceSchedulerInitiated"
            && task.reason.starts_with("Scaling activity initiated by"),
        at: time(task.stopped_at.unwrap_or(status.observed_at)),
        last_lines: (1..)
            .zip(&task.last_lines)
            .map(|(number, text)| LogLine {
                number,
                at: None,
                text: text.clone(),
            })
            .collect(),
        log_note: "none was written, or the task definition sends its logs elsewhere than to \
                   CloudWatch (awslogs)"
            .to_owned(),
    }
}

/// ECS's own events since a deployment began.
pub(in super::super) fn cluster_events(
    status: &PlaceStatus,
    begun: Timestamp,
) -> Vec<ClusterEvent> {
    let events = status.service.events.iter();
    let later = events.filter_map(|event| Some((event.at.filter(|at| *at >= begun)?, event)));
    later
        .map(|(at, event)| ClusterEvent {
            at: time(at),
            message: event.message.clone(),
        })
        .collect()
}
