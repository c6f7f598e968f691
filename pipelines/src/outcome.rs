//! How a rollout stands, told from what ECS shows.
//!
//! `services-stable` is no test of success: it is also true of a service that ECS took back. A
//! rollout is recognised by the id of the deployment that our update made.

use crate::deployment::EcsRollout;
use crate::fact::DeploymentFact;
use crate::observation::{EcsDeployment, ServiceSeen, StoppedTask};
use crate::report::{Failure, FailureKind};
use crate::spec::DoneWhen;

/// So many tasks with the same cause, and none healthy, end a rollout early.
pub const EARLY_FAILURES: usize = 2;

/// What is to be said of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    InProgress {
        /// How far, in words.
        note: String,
    },
    /// It reached `done_when`.
    Done,
    /// ECS gave up on it and takes it back.
    TakingBack {
        /// Why.
        failure: Failure,
    },
    /// ECS has returned to another definition.
    TakenBack {
        /// That definition.
        task_definition: String,
        /// Why.
        failure: Failure,
        /// ECS says so; else it is only that our deployment does not show, which is also so
        /// shortly after an update (ECS answers are eventually consistent).
        certain: bool,
    },
    /// ECS gave up on it and leaves things as they are.
    Stalled {
        /// Why.
        failure: Failure,
    },
    /// It will not succeed, and ECS has not noticed yet.
    FailingEarly {
        /// Why.
        failure: Failure,
    },
    /// Somebody else started another deployment.
    Superseded {
        /// Its definition.
        task_definition: String,
    },
}

/// Reads the state of the rollout `ecs` to `task_definition` off a service.
#[must_use]
pub fn judge(
    service: &ServiceSeen,
    ecs: &EcsRollout,
    task_definition: &str,
    done_when: &DoneWhen,
) -> Verdict {
    let ours = service.deployment(&ecs.deployment);
    let primary = service.primary();
    let status = service
        .service_deployment
        .as_ref()
        .filter(|sd| {
            sd.task_definition
                .as_deref()
                .is_none_or(|td| td == task_definition)
        })
        .map(|sd| sd.status.as_str());

    let primary_is_ours = primary.is_some_and(|p| p.id == ecs.deployment);
    if primary_is_ours && ours.is_some_and(|d| d.rollout_state.as_deref() == Some("COMPLETED")) {
        return Verdict::Done;
    }
    if let Some(primary) = primary
        && !primary_is_ours
    {
        let back = ecs.previous.as_deref() == Some(primary.id.as_str());
        let certain = status.is_some_and(|s| s.starts_with("ROLLBACK"))
            || ours.is_some_and(|d| d.rollout_state.as_deref() == Some("FAILED"));
        // ECS returns under the old id, or under one that we did not know: then it has to say so.
        if !back && !certain {
            return Verdict::Superseded {
                task_definition: primary.task_definition.clone(),
            };
        }
        let failure = failure_of(service, ecs);
        let settled = ours.is_none()
            || status == Some("ROLLBACK_SUCCESSFUL")
            || primary.rollout_state.as_deref() == Some("COMPLETED");
        return if settled {
            Verdict::TakenBack {
                task_definition: primary.task_definition.clone(),
                failure,
                certain,
            }
        } else {
            Verdict::TakingBack { failure }
        };
    }
    match status {
        Some("ROLLBACK_REQUESTED" | "ROLLBACK_IN_PROGRESS") => {
            return Verdict::TakingBack {
                failure: failure_of(service, ecs),
            };
        }
        Some("STOPPED" | "ROLLBACK_FAILED") => {
            return Verdict::Stalled {
                failure: failure_of(service, ecs),
            };
        }
        _ => {}
    }
    let Some(ours) = ours else {
        return Verdict::InProgress {
            note: "ECS does not show the deployment yet".into(),
        };
    };
    if ours.rollout_state.as_deref() == Some("FAILED") {
        return Verdict::Stalled {
            failure: failure_of(service, ecs),
        };
    }
    let wanted = match done_when {
        DoneWhen::Serving { count } => Some((*count).min(service.desired)),
        DoneWhen::AllHealthy => Some(service.desired),
        DoneWhen::Drained => None,
    };
    if let (Some(wanted), Some(healthy)) = (wanted, ours.healthy)
        && service.desired > 0
        && healthy >= wanted
    {
        return Verdict::Done;
    }
    if ours.healthy.unwrap_or(0) == 0
        && let Some(failure) = early_failure(service, ecs)
    {
        return Verdict::FailingEarly { failure };
    }
    let note = match no_capacity(service) {
        Some(event) => format!("it finds no room for the tasks, which is not their fault: {event}"),
        None => progress(ours, service.desired),
    };
    Verdict::InProgress { note }
}

/// How far the new tasks are. Zeros are left out, and so is health that nothing checks.
fn progress(ours: &EcsDeployment, desired: u32) -> String {
    let tasks = if desired == 1 { "task" } else { "tasks" };
    let mut said = format!("{} of {desired} new {tasks} running", ours.running);
    if let Some(healthy) = ours.healthy {
        said.push_str(&format!(", {healthy} healthy"));
    }
    for (number, what) in [(ours.pending, "starting"), (ours.failed, "failed so far")] {
        if number > 0 {
            said.push_str(&format!(", {number} {what}"));
        }
    }
    said
}

/// The newest event, when it says that tasks found no place.
fn no_capacity(service: &ServiceSeen) -> Option<String> {
    let newest = service.events.first()?;
    newest
        .message
        .contains("unable to place a task")
        .then(|| newest.message.clone())
}

/// One line per task that failed, newest first, with exit status and last words. Tasks that ECS
/// only scaled in are no evidence.
#[must_use]
pub fn describe_stopped(service: &ServiceSeen, ecs_deployment: &str) -> Vec<String> {
    let stopped = service
        .stopped
        .iter()
        .filter(|t| t.started_by == ecs_deployment && !t.reason.starts_with("Scaling activity"));
    stopped.take(3).flat_map(describe_task).collect()
}

fn describe_task(task: &StoppedTask) -> Vec<String> {
    let name = task.task.rsplit('/').next().unwrap_or(&task.task);
    let exits: Vec<_> = task
        .exit_codes
        .iter()
        .map(|(c, code)| format!("{c} exited {code}"))
        .collect();
    let mut line = format!("task {name}: {}", task.reason);
    if !exits.is_empty() {
        line.push_str(&format!(" ({})", exits.join(", ")));
    }
    if !task.container_reason.is_empty() {
        line.push_str(&format!(": {}", task.container_reason));
    }
    let words = task.last_lines.iter().map(|l| format!("  | {l}"));
    std::iter::once(line).chain(words).collect()
}

/// The reason that a task of `before_deploy` is stopped with.
pub const BEFORE_DEPLOY_TIMED_OUT: &str = "before_deploy ran into its timeout";

/// Whether the task of `before_deploy` ended well: `container` did, by its exit status. A task that
/// somebody or ECS stopped did not, whatever its containers say.
#[must_use]
pub fn judge_before_deploy(task: &StoppedTask, container: &str) -> DeploymentFact {
    let exited = task.exit_codes.get(container);
    if exited == Some(&0) && task.stop_code == "EssentialContainerExited" {
        return DeploymentFact::BeforeDeploySucceeded;
    }
    let what = match exited {
        Some(code) if *code != 0 => format!("container `{container}` exited {code}"),
        Some(_) | None if task.reason.is_empty() => "its task did not run to its end".to_owned(),
        Some(_) | None => task.reason.clone(),
    };
    let failure = if task.reason == BEFORE_DEPLOY_TIMED_OUT {
        Failure::timed_out("before_deploy ran into its timeout, and was stopped")
    } else {
        Failure::failed(format!("before_deploy failed: {what}"))
    };
    DeploymentFact::Failed {
        failure: failure.with_details(describe_task(task)),
    }
}

fn failure_of(service: &ServiceSeen, ecs: &EcsRollout) -> Failure {
    let reason = service
        .deployment(&ecs.deployment)
        // The two answers that a look is made of are not of one moment: the first may still say that
        // the rollout is in progress when the second knows that it failed.
        .filter(|d| d.rollout_state.as_deref() != Some("IN_PROGRESS"))
        .map(|d| d.rollout_reason.clone())
        .filter(|reason| !reason.is_empty())
        .or_else(|| {
            service
                .service_deployment
                .as_ref()
                .map(|sd| sd.reason.clone())
        })
        .filter(|reason| !reason.is_empty())
        .unwrap_or_else(|| "ECS stopped the deployment".into());
    let mut details = describe_stopped(service, &ecs.deployment);
    let unhealthy = service
        .targets
        .iter()
        .filter(|t| t.state == "unhealthy")
        .take(3);
    details.extend(unhealthy.map(|t| format!("target {} is unhealthy: {}", t.target, t.reason)));
    Failure::failed(reason).with_details(details)
}

/// Why a task stopped, without what differs from task to task; `None` when chance, capacity or a
/// person may be the cause.
fn deterministic_cause(task: &StoppedTask) -> Option<String> {
    match task.stop_code.as_str() {
        "EssentialContainerExited" => {
            let bad: Vec<_> = task
                .exit_codes
                .iter()
                .filter(|(_, code)| **code != 0)
                .map(|(name, code)| format!("container {name} exited with status {code}"))
                .collect();
            (!bad.is_empty()).then(|| bad.join(", "))
        }
        "TaskFailedToStart" => {
            let text = format!("{} {}", task.reason, task.container_reason);
            [
                "CannotPullContainerError",
                "CannotStartContainerError",
                "ResourceInitializationError",
            ]
            .into_iter()
            .find(|cause| text.contains(cause))
            .map(|_| text.trim().to_owned())
        }
        _ => None,
    }
}

fn early_failure(service: &ServiceSeen, ecs: &EcsRollout) -> Option<Failure> {
    let mut causes: Vec<(String, usize)> = vec![];
    for task in service
        .stopped
        .iter()
        .filter(|t| t.started_by == ecs.deployment)
    {
        let Some(cause) = deterministic_cause(task) else {
            continue;
        };
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => causes.push((cause, 1)),
        }
    }
    let (cause, count) = causes
        .into_iter()
        .find(|(_, count)| *count >= EARLY_FAILURES)?;
    Some(Failure {
        kind: FailureKind::Failed,
        message: format!("{count} tasks stopped for the same reason: {cause}"),
        details: describe_stopped(service, &ecs.deployment),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::ServiceDeploymentSeen;

    #[test]
    fn a_rollout_that_is_taken_back_is_not_said_to_be_in_progress() {
        let deployment = EcsDeployment {
            id: "ecs-svc/2".into(),
            status: "PRIMARY".into(),
            task_definition: "web:2".into(),
            rollout_state: Some("IN_PROGRESS".into()),
            rollout_reason: "ECS deployment ecs-svc/2 in progress.".into(),
            desired: 2,
            running: 0,
            pending: 0,
            failed: 3,
            healthy: Some(0),
            created_at: None,
        };
        let service = ServiceSeen {
            task_definition: "web:2".into(),
            desired: 2,
            running: 2,
            pending: 0,
            deployments: vec![deployment],
            service_deployment: Some(ServiceDeploymentSeen {
                arn: "arn".into(),
                status: "ROLLBACK_IN_PROGRESS".into(),
                reason: "the circuit breaker's threshold was exceeded".into(),
                task_definition: Some("web:2".into()),
            }),
            stopped: vec![],
            targets: vec![],
            events: vec![],
        };
        let ecs = EcsRollout {
            deployment: "ecs-svc/2".into(),
            previous: Some("ecs-svc/1".into()),
        };
        let verdict = judge(&service, &ecs, "web:2", &DoneWhen::AllHealthy);
        let Verdict::TakingBack { failure } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            failure.message,
            "the circuit breaker's threshold was exceeded"
        );
    }
}
