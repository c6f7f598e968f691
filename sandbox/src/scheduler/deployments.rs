//! How deployments begin, fail, go back and end.
//!
//! Invariants: at most one PRIMARY; a rollback goes to the newest deployment that was completed,
//! which returns under its old id; the deployment that failed never becomes PRIMARY again.

use super::model::{
    Configuration, Deployment, DeploymentStatus, Moment, Revision, Rollback, RolloutState, Service,
    ServiceDeployment, ServiceDeploymentStatus,
};
use crate::clock::Time;

/// What StopServiceDeployment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopRequest {
    /// Go back to the newest completed deployment.
    Rollback,
    /// Leave everything as it is.
    Abort,
}

/// Why a deployment failed, for the deployment, its history record and the diary.
pub(super) struct Cause {
    /// Who says so, before the deployment that it goes back to.
    pub(super) accuser: &'static str,
    pub(super) rollout_reason: &'static str,
    pub(super) event: &'static str,
    pub(super) by_breaker: bool,
}

pub(super) const BREAKER: Cause = Cause {
    accuser: "ECS deployment circuit breaker:",
    rollout_reason: "ECS deployment circuit breaker: tasks failed to start.",
    event: "deployment failed: tasks failed to start.",
    by_breaker: true,
};

pub(super) const ALARM: Cause = Cause {
    accuser: "CloudWatch alarm:",
    rollout_reason: "ECS deployment failed: alarm detected.",
    event: "deployment failed: alarm detected.",
    by_breaker: false,
};

const STOPPED_BY_USER: Cause = Cause {
    accuser: "StopServiceDeployment:",
    rollout_reason: "Service deployment stopped by a StopServiceDeployment request.",
    event: "deployment failed: stopped by a StopServiceDeployment request.",
    by_breaker: false,
};

/// Makes `revision` the wanted one: what is PRIMARY becomes ACTIVE, what is in flight is
/// superseded. Returns the new deployment's id.
pub(crate) fn begin(service: &mut Service, revision: Revision, moment: &mut Moment<'_>) -> String {
    let now = moment.now;
    let mut sources = Vec::new();
    if let Some(primary) = service.primary_mut() {
        primary.status = DeploymentStatus::Active;
        primary.updated_at = now;
        sources.push(primary.revision.id.clone());
        if primary.proven {
            service.last_completed = Some(primary.clone());
        }
    }
    let deployment = Deployment {
        id: format!("ecs-svc/{}", moment.ids.digits()),
        status: DeploymentStatus::Primary,
        rollout: RolloutState::InProgress,
        rollout_reason: String::new(),
        failed_tasks: 0,
        start_failures: 0,
        next_launch: now,
        created_at: now,
        updated_at: now,
        proven: false,
        service_deployment: moment.ids.base64(),
        watch: None,
        revision,
    };
    let deployment = Deployment {
        rollout_reason: format!("ECS deployment {} in progress.", deployment.id),
        ..deployment
    };
    if let Some(current) = open_record(service) {
        let reason = format!("Superseded by the newer deployment {}.", deployment.id);
        end(current, ServiceDeploymentStatus::Stopped, reason, now);
        current.stopped_at = Some(now);
    }
    service.service_deployments.insert(
        0,
        ServiceDeployment {
            id: deployment.service_deployment.clone(),
            deployment: deployment.id.clone(),
            status: ServiceDeploymentStatus::InProgress,
            status_reason: None,
            target_revision: deployment.revision.id.clone(),
            source_revisions: sources,
            configuration: service.configuration.clone(),
            created_at: now,
            started_at: now,
            updated_at: now,
            finished_at: None,
            stopped_at: None,
            rollback: None,
            failures: 0,
            limit: service.configuration.breaker.limit(service.desired),
            breaker_tripped: false,
            triggered_alarms: Vec::new(),
        },
    );
    service.revisions.insert(0, deployment.revision.clone());
    let id = deployment.id.clone();
    service.deployments.insert(0, deployment);
    service.steady_since = None;
    service.service_deployments.truncate(Service::MOST_HISTORY);
    forget_revisions(service);
    id
}

/// Drops old revisions that nothing refers to.
fn forget_revisions(service: &mut Service) {
    if service.revisions.len() <= Service::MOST_HISTORY {
        return;
    }
    let mut kept = std::mem::take(&mut service.revisions);
    let mut place = 0;
    kept.retain(|revision| {
        place += 1;
        place <= Service::MOST_HISTORY
            || service
                .deployments
                .iter()
                .chain(&service.last_completed)
                .any(|deployment| deployment.revision.id == revision.id)
    });
    service.revisions = kept;
}

/// Notes that somebody wants the service deployment stopped; the next tick obeys. `Err` says why
/// it cannot be stopped.
pub(crate) fn request_stop(
    service: &mut Service,
    service_deployment: &str,
    request: StopRequest,
    moment: &Moment<'_>,
) -> Result<(), String> {
    let Some(record) = open_record(service).filter(|record| record.id == service_deployment) else {
        return Err("The service deployment has already ended.".to_owned());
    };
    record.status = match (record.status, request) {
        (ServiceDeploymentStatus::RollbackInProgress, StopRequest::Rollback) => {
            return Err("The service deployment is already rolling back.".to_owned());
        }
        (_, StopRequest::Rollback) => ServiceDeploymentStatus::RollbackRequested,
        (_, StopRequest::Abort) => ServiceDeploymentStatus::StopRequested,
    };
    record.updated_at = moment.now;
    Ok(())
}

/// Obeys what `request_stop` noted.
pub(super) fn obey_requests(service: &mut Service, moment: &mut Moment<'_>) {
    let rolling_back = service
        .service_deployments
        .first()
        .is_some_and(|record| record.rollback.is_some());
    match service.current_service_deployment().map(|one| one.status) {
        Some(ServiceDeploymentStatus::RollbackRequested) if !rolling_back => {
            fail(service, &STOPPED_BY_USER, true, moment);
        }
        Some(
            ServiceDeploymentStatus::RollbackRequested | ServiceDeploymentStatus::StopRequested,
        ) => fail(service, &STOPPED_BY_USER, false, moment),
        _ => {}
    }
}

/// Fails the PRIMARY, and goes back when that is wanted and possible.
pub(super) fn fail(service: &mut Service, cause: &Cause, go_back: bool, moment: &mut Moment<'_>) {
    let now = moment.now;
    let Some(primary) = service.primary_mut() else {
        return;
    };
    primary.rollout = RolloutState::Failed;
    primary.rollout_reason = cause.rollout_reason.to_owned();
    primary.updated_at = now;
    primary.proven = false;
    let failed = primary.id.clone();
    service.tell(moment, &format!("(deployment {failed}) {}", cause.event));
    if let Some(record) = open_record(service) {
        record.updated_at = now;
        record.breaker_tripped |= cause.by_breaker;
    }
    let target = if go_back {
        service.last_completed.take()
    } else {
        None
    };
    match target {
        Some(target) => roll_back(service, target, cause, moment),
        None => stall(service, cause, go_back, moment),
    }
}

/// Brings `target` back as PRIMARY under its old id.
fn roll_back(
    service: &mut Service,
    mut target: Deployment,
    cause: &Cause,
    moment: &mut Moment<'_>,
) {
    let now = moment.now;
    let mut record_id = String::new();
    if let Some(failed) = service.primary_mut() {
        failed.status = DeploymentStatus::Active;
        record_id.clone_from(&failed.service_deployment);
    }
    service.deployments.retain(|one| one.id != target.id);
    target.status = DeploymentStatus::Primary;
    target.rollout = RolloutState::InProgress;
    target.rollout_reason = format!(
        "{} Rolling back to deployment {}.",
        cause.accuser, target.id
    );
    target.failed_tasks = 0;
    target.start_failures = 0;
    target.next_launch = now;
    target.updated_at = now;
    target.service_deployment = record_id;
    target.watch = None;
    let message = format!("rolling back to deployment {}.", target.id);
    if let Some(record) = open_record(service) {
        record.status = ServiceDeploymentStatus::RollbackInProgress;
        record.status_reason = Some(cause.rollout_reason.to_owned());
        record.rollback = Some(Rollback {
            reason: cause.rollout_reason.to_owned(),
            started_at: now,
            revision: target.revision.id.clone(),
        });
    }
    service.deployments.insert(0, target);
    service.steady_since = None;
    service.tell(moment, &message);
}

/// Leaves a failed deployment as it stands: nothing to go back to, or not wanted.
fn stall(service: &mut Service, cause: &Cause, go_back: bool, moment: &Moment<'_>) {
    let now = moment.now;
    let Some(record) = open_record(service) else {
        return;
    };
    let was_rolling_back = record.rollback.is_some();
    let (status, reason) = if was_rolling_back {
        (
            ServiceDeploymentStatus::RollbackFailed,
            format!("{} The rollback failed.", cause.rollout_reason),
        )
    } else if go_back {
        (
            ServiceDeploymentStatus::Stopped,
            format!(
                "{} No completed deployment to roll back to.",
                cause.rollout_reason
            ),
        )
    } else {
        (
            ServiceDeploymentStatus::Stopped,
            cause.rollout_reason.to_owned(),
        )
    };
    end(record, status, reason, now);
    record.stopped_at = Some(now);
}

/// Completes the PRIMARY.
pub(super) fn complete(service: &mut Service, moment: &mut Moment<'_>) {
    let now = moment.now;
    let Some(primary) = service.primary_mut() else {
        return;
    };
    primary.rollout = RolloutState::Completed;
    primary.rollout_reason = format!("ECS deployment {} completed.", primary.id);
    primary.updated_at = now;
    primary.proven = true;
    primary.failed_tasks = 0;
    let message = format!("(deployment {}) deployment completed.", primary.id);
    service.last_completed = None;
    if let Some(record) = open_record(service) {
        let status = if record.rollback.is_some() {
            ServiceDeploymentStatus::RollbackSuccessful
        } else {
            ServiceDeploymentStatus::Successful
        };
        let reason = record.status_reason.clone();
        end(record, status, String::new(), now);
        record.status_reason = reason;
    }
    service.tell(moment, &message);
}

/// The service deployment in flight.
pub(super) fn open_record(service: &mut Service) -> Option<&mut ServiceDeployment> {
    service
        .service_deployments
        .first_mut()
        .filter(|record| !record.status.is_final())
}

fn end(record: &mut ServiceDeployment, status: ServiceDeploymentStatus, reason: String, now: Time) {
    record.status = status;
    record.status_reason = Some(reason);
    record.updated_at = now;
    record.finished_at = Some(now);
}

/// Takes over a new deployment configuration, also for the deployment in flight.
pub(crate) fn reconfigure(service: &mut Service, configuration: Configuration) {
    if let Some(record) = open_record(service) {
        record.configuration = configuration.clone();
    }
    service.configuration = configuration;
}
