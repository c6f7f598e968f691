//! Services, deployments and tasks as AWS shows them.

use serde_json::{Map, Value, json};

use super::input::show_tags;
use super::{configuration, instances, names};
use crate::app::App;
use crate::scheduler::{
    ContainerPlan, Deployment, DeploymentStatus, Revision, Service, ServiceDeployment,
    ServiceStatus, Task, TaskStatus,
};
use crate::state::{FoundTask, State};

pub(super) fn cluster_arn(app: &App, cluster: &str) -> String {
    app.config.arn("ecs", &format!("cluster/{cluster}"))
}

pub(super) fn service_arn(app: &App, cluster: &str, name: &str) -> String {
    app.config.arn("ecs", &format!("service/{cluster}/{name}"))
}

pub(super) fn task_arn(app: &App, cluster: &str, id: &str) -> String {
    app.config.arn("ecs", &format!("task/{cluster}/{id}"))
}

pub(super) fn service_deployment_arn(app: &App, service: &Service, id: &str) -> String {
    let Service { cluster, name, .. } = service;
    app.config
        .arn("ecs", &format!("service-deployment/{cluster}/{name}/{id}"))
}

pub(super) fn revision_arn(app: &App, service: &Service, id: &str) -> String {
    let Service { cluster, name, .. } = service;
    app.config
        .arn("ecs", &format!("service-revision/{cluster}/{name}/{id}"))
}

/// An availability zone by its letter.
pub(super) fn zone(app: &App, letter: char) -> String {
    format!("{}{letter}", app.config.region)
}

/// How many of the tasks run, and how many are on their way there.
struct Counts {
    running: usize,
    pending: usize,
}

fn counts<'a>(tasks: impl Iterator<Item = &'a Task>) -> Counts {
    let mut counts = Counts {
        running: 0,
        pending: 0,
    };
    for task in tasks {
        if task.status == TaskStatus::Running {
            counts.running += 1;
        } else if task.live() {
            counts.pending += 1;
        }
    }
    counts
}

fn counts_of(service: &Service, deployment: &Deployment) -> Counts {
    counts(
        service
            .tasks
            .iter()
            .filter(|task| task.started_by.as_ref() == Some(&deployment.id)),
    )
}

/// A whole service.
pub(super) fn service(app: &App, state: &State, service: &Service, with_tags: bool) -> Value {
    let arn = service_arn(app, &service.cluster, &service.name);
    let total = counts(service.tasks.iter());
    let mut shown = json!({
        "serviceArn": arn,
        "serviceName": service.name,
        "clusterArn": cluster_arn(app, &service.cluster),
        "loadBalancers": [],
        "serviceRegistries": [],
        "status": service.status.word(),
        "desiredCount": service.desired,
        "runningCount": total.running,
        "pendingCount": total.pending,
        "deploymentConfiguration": configuration::show(&service.configuration),
        "deployments": service.deployments.iter()
            .map(|one| deployment(service, one)).collect::<Vec<_>>(),
        "events": service.events.iter().map(|event| json!({
            "id": event.id,
            "createdAt": event.created_at.epoch_seconds(),
            "message": event.message,
        })).collect::<Vec<_>>(),
        "createdAt": service.created_at.epoch_seconds(),
        "createdBy": format!("arn:aws:iam::{}:root", app.config.account),
        "placementConstraints": [],
        "placementStrategy": [],
        "healthCheckGracePeriodSeconds": service.grace.as_secs(),
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "enableECSManagedTags": false,
        "propagateTags": "NONE",
        "enableExecuteCommand": false,
        "availabilityZoneRebalancing": "DISABLED",
    });
    merge(&mut shown, &service.settings);
    let wanted = service.primary().map(|one| &one.revision);
    if let Some(revision) = wanted.or(service.revisions.first()) {
        merge(&mut shown, &revision.settings);
        // AWS shows it with the deployments alone.
        if let Some(members) = shown.as_object_mut() {
            members.shift_remove(names::MEMBER);
        }
        shown["taskDefinition"] = json!(revision.definition_arn);
    }
    if let Some(current) = service.current_service_deployment() {
        shown["currentServiceDeployment"] =
            json!(service_deployment_arn(app, service, &current.id));
    }
    shown["currentServiceRevisions"] = service
        .deployments
        .iter()
        .map(|one| {
            let numbers = counts_of(service, one);
            json!({
                "arn": revision_arn(app, service, &one.revision.id),
                "requestedTaskCount": requested(service, one),
                "runningTaskCount": numbers.running,
                "pendingTaskCount": numbers.pending,
            })
        })
        .collect();
    if with_tags {
        shown["tags"] = state.tags.get(&arn).map_or_else(|| json!([]), show_tags);
    }
    shown
}

fn requested(service: &Service, deployment: &Deployment) -> u32 {
    if deployment.status == DeploymentStatus::Primary {
        service.desired
    } else {
        0
    }
}

fn merge(shown: &mut Value, members: &Map<String, Value>) {
    for (name, value) in members {
        shown[name] = value.clone();
    }
}

fn deployment(service: &Service, deployment: &Deployment) -> Value {
    let numbers = counts_of(service, deployment);
    let mut shown = json!({
        "id": deployment.id,
        "status": deployment.status.word(),
        "taskDefinition": deployment.revision.definition_arn,
        "desiredCount": requested(service, deployment),
        "pendingCount": numbers.pending,
        "runningCount": numbers.running,
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at.epoch_seconds(),
        "updatedAt": deployment.updated_at.epoch_seconds(),
        "rolloutState": deployment.rollout.word(),
        "rolloutStateReason": deployment.rollout_reason,
    });
    for member in [
        "launchType",
        "platformVersion",
        "networkConfiguration",
        names::MEMBER,
    ] {
        let value = deployment
            .revision
            .settings
            .get(member)
            .or_else(|| service.settings.get(member));
        if let Some(value) = value {
            shown[member] = value.clone();
        }
    }
    shown
}

/// The line of a service deployment in a list.
pub(super) fn service_deployment_brief(
    app: &App,
    service: &Service,
    record: &ServiceDeployment,
) -> Value {
    let mut shown = json!({
        "serviceDeploymentArn": service_deployment_arn(app, service, &record.id),
        "serviceArn": service_arn(app, &service.cluster, &service.name),
        "clusterArn": cluster_arn(app, &service.cluster),
        "startedAt": record.started_at.epoch_seconds(),
        "createdAt": record.created_at.epoch_seconds(),
        "targetServiceRevisionArn": revision_arn(app, service, &record.target_revision),
        "status": record.status.word(),
    });
    if let Some(reason) = &record.status_reason {
        shown["statusReason"] = json!(reason);
    }
    if let Some(at) = record.finished_at {
        shown["finishedAt"] = json!(at.epoch_seconds());
    }
    shown
}

/// A whole service deployment.
pub(super) fn service_deployment(
    app: &App,
    service: &Service,
    record: &ServiceDeployment,
) -> Value {
    let breaker = record.configuration.breaker;
    let status = if !breaker.enabled {
        "DISABLED"
    } else if record.breaker_tripped {
        "TRIGGERED"
    } else if record.status.is_final() {
        "MONITORING_COMPLETE"
    } else {
        "MONITORING"
    };
    let summary = |revision: &str| {
        let of_revision = service
            .deployments
            .iter()
            .find(|one| one.revision.id == revision);
        let numbers = of_revision.map(|one| counts_of(service, one));
        json!({
            "arn": revision_arn(app, service, revision),
            "requestedTaskCount": of_revision.map_or(0, |one| requested(service, one)),
            "runningTaskCount": numbers.as_ref().map_or(0, |numbers| numbers.running),
            "pendingTaskCount": numbers.as_ref().map_or(0, |numbers| numbers.pending),
        })
    };
    let mut shown = service_deployment_brief(app, service, record);
    if let Some(members) = shown.as_object_mut() {
        members.shift_remove("targetServiceRevisionArn");
    }
    shown["updatedAt"] = json!(record.updated_at.epoch_seconds());
    shown["sourceServiceRevisions"] = record
        .source_revisions
        .iter()
        .map(|revision| summary(revision))
        .collect();
    shown["targetServiceRevision"] = summary(&record.target_revision);
    shown["deploymentConfiguration"] = configuration::show(&record.configuration);
    shown["deploymentCircuitBreaker"] = json!({
        "status": status,
        "failureCount": record.failures,
        "threshold": record.limit,
    });
    let alarms = &record.configuration.alarms;
    shown["alarms"] = json!({
        "status": if !alarms.enabled {
            "DISABLED"
        } else if !record.triggered_alarms.is_empty() {
            "TRIGGERED"
        } else if record.status.is_final() {
            "MONITORING_COMPLETE"
        } else {
            "MONITORING"
        },
        "alarmNames": alarms.names,
        "triggeredAlarmNames": record.triggered_alarms,
    });
    if let Some(at) = record.stopped_at {
        shown["stoppedAt"] = json!(at.epoch_seconds());
    }
    if let Some(rollback) = &record.rollback {
        shown["rollback"] = json!({
            "reason": rollback.reason,
            "startedAt": rollback.started_at.epoch_seconds(),
            "serviceRevisionArn": revision_arn(app, service, &rollback.revision),
        });
    }
    shown
}

/// The digest of a container in all tasks of a revision: what was decided, or what they were seen to
/// run. None while nothing is known, and when each task may run another one.
fn digest(service: &Service, revision: &Revision, container: &ContainerPlan) -> Option<String> {
    if let Some((_, digest)) = container.image.split_once('@') {
        return Some(digest.to_owned());
    }
    if !container.consistent {
        return None;
    }
    if let Some(decided) = revision.digests.get(&container.image) {
        return Some(decided.clone());
    }
    let records = service.service_deployments.iter();
    let own = records.filter(|record| record.target_revision == revision.id);
    let own: Vec<&str> = own.map(|record| record.deployment.as_str()).collect();
    let tasks = service.tasks.iter().filter(|task| {
        let started_by = task.started_by.as_deref();
        started_by.is_some_and(|deployment| own.contains(&deployment))
    });
    let mut containers = tasks.flat_map(|task| &task.containers);
    containers.find_map(|one| {
        let digest = one.image_digest.as_ref()?;
        (one.name == container.name).then(|| digest.clone())
    })
}

/// A service revision, with the digests that its tasks run.
pub(super) fn revision(app: &App, service: &Service, revision: &Revision) -> Value {
    let mut shown = json!({
        "serviceRevisionArn": revision_arn(app, service, &revision.id),
        "serviceArn": service_arn(app, &service.cluster, &service.name),
        "clusterArn": cluster_arn(app, &service.cluster),
        "taskDefinition": revision.definition_arn,
        "createdAt": revision.created_at.epoch_seconds(),
        "containerImages": revision.containers.iter().map(|container| {
            let mut image = json!({"containerName": container.name, "image": container.image});
            if let Some(digest) = digest(service, revision, container) {
                image["imageDigest"] = json!(digest);
            }
            image
        }).collect::<Vec<_>>(),
    });
    merge(&mut shown, &revision.settings);
    shown
}

/// A task.
pub(super) fn task(app: &App, state: &State, found: &FoundTask<'_>, with_tags: bool) -> Value {
    let FoundTask { cluster, task, .. } = found;
    let arn = task_arn(app, cluster, &task.id);
    let definition = state.definition(&task.definition_arn);
    let overrides = match &task.overrides {
        Value::Null => json!({"containerOverrides": [], "inferenceAcceleratorOverrides": []}),
        other => other.clone(),
    };
    let mut shown = json!({
        "taskArn": arn,
        "clusterArn": cluster_arn(app, cluster),
        "taskDefinitionArn": task.definition_arn,
        "group": task.group,
        "desiredStatus": task.desired.word(),
        "lastStatus": task.status.word(),
        "containers": task.containers.iter()
            .map(|one| container(app, cluster, task, one)).collect::<Vec<_>>(),
        "healthStatus": verdict(task.container_health()),
        "overrides": overrides,
        "attachments": [],
        "attributes": [],
        "connectivity": "CONNECTED",
        "createdAt": task.created_at.epoch_seconds(),
        "pullStartedAt": task.created_at.epoch_seconds(),
        "enableExecuteCommand": false,
        "tags": [],
        "version": task.status as u32 + 1,
    });
    if let Some(launch_type) = found.settings.get("launchType") {
        shown["launchType"] = launch_type.clone();
    }
    if let Some(placed) = &task.placed {
        // What the definition says about the task as a whole goes over it, below.
        shown["cpu"] = json!(placed.need.cpu.to_string());
        shown["memory"] = json!(placed.need.memory.to_string());
        shown["containerInstanceArn"] = json!(instances::arn(app, cluster, &placed.instance));
        shown["availabilityZone"] = json!(zone(app, placed.zone));
    } else {
        // Fargate spreads over the zones, too: the id is as good as a coin.
        let letter = if task.id.as_bytes().first().is_some_and(|byte| byte % 2 == 0) {
            'a'
        } else {
            'b'
        };
        shown["availabilityZone"] = json!(zone(app, letter));
        shown["platformFamily"] = json!("Linux");
        shown["platformVersion"] = json!("1.4.0");
    }
    for member in ["cpu", "memory"] {
        if let Some(value) = definition.and_then(|one| one.raw.get(member)) {
            shown[member] = value.clone();
        }
    }
    let times = [
        ("pullStoppedAt", task.pull_stopped_at),
        ("startedAt", task.started_at),
        ("stoppingAt", task.stopping_at),
        ("executionStoppedAt", task.stopped_at),
        ("stoppedAt", task.stopped_at),
    ];
    for (member, time) in times {
        if let Some(time) = time {
            shown[member] = json!(time.epoch_seconds());
        }
    }
    if let Some(started_by) = &task.started_by {
        shown["startedBy"] = json!(started_by);
    }
    if let Some(code) = task.stop_code {
        shown["stopCode"] = json!(code.word());
    }
    if let Some(reason) = &task.stopped_reason {
        shown["stoppedReason"] = json!(reason);
    }
    if with_tags && let Some(tags) = state.tags.get(&arn) {
        shown["tags"] = show_tags(tags);
    }
    shown
}

fn verdict(health: Option<bool>) -> &'static str {
    match health {
        Some(true) => "HEALTHY",
        Some(false) => "UNHEALTHY",
        None => "UNKNOWN",
    }
}

fn container(
    app: &App,
    cluster: &str,
    task: &Task,
    container: &crate::scheduler::TaskContainer,
) -> Value {
    let status = if container.exited || task.status == TaskStatus::Stopped {
        "STOPPED"
    } else if container.started {
        "RUNNING"
    } else {
        "PENDING"
    };
    let mut shown = json!({
        "containerArn": app.config.arn(
            "ecs", &format!("container/{cluster}/{}/{}", task.id, container.name)),
        "taskArn": task_arn(app, cluster, &task.id),
        "name": container.name,
        "image": container.image,
        "lastStatus": status,
        "healthStatus": verdict(container.healthy),
        "networkInterfaces": [],
        "networkBindings": container.bindings.iter().map(|binding| json!({
            "bindIP": "127.0.0.1",
            "containerPort": binding.container_port,
            "hostPort": binding.host_port,
            "protocol": binding.protocol,
        })).collect::<Vec<_>>(),
    });
    if let Some(digest) = &container.image_digest {
        shown["imageDigest"] = json!(digest);
    }
    if let Some(id) = &container.runtime_id {
        shown["runtimeId"] = json!(id);
    }
    if let Some(code) = container.exit_code {
        shown["exitCode"] = json!(code);
    }
    if let Some(reason) = &container.reason {
        shown["reason"] = json!(reason);
    }
    shown
}

/// Whether AWS would still list the service.
pub(super) fn is_listed(service: &Service) -> bool {
    service.status != ServiceStatus::Inactive
}
