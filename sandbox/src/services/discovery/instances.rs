//! Instances: the tasks of ECS services that run now and are meant to.

use serde_json::{Map, Value, json};

use super::{Registry, invalid, one_page, page, plain, registry_arn, services};
use crate::app::App;
use crate::scheduler::{Desired, Service, Task, TaskStatus};
use crate::services::ecs::input::Input;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

/// A task, and the ECS service that registered it.
pub(super) type Instance<'a> = (&'a Service, &'a Task);

/// What is registered with a registry.
pub(super) fn of<'a>(
    app: &App,
    state: &'a State,
    registry: &Registry,
) -> impl Iterator<Item = Instance<'a>> {
    let arn = registry_arn(app, &registry.id);
    state.services.values().flat_map(move |service| {
        let arn = arn.clone();
        service
            .tasks
            .iter()
            .filter(move |task| {
                task.status == TaskStatus::Running
                    && task.desired == Desired::Running
                    && registers_with(service, task, &arn)
            })
            .map(move |task| (service, task))
    })
}

fn registers_with(service: &Service, task: &Task, arn: &str) -> bool {
    let mut deployments = service.deployments.iter();
    deployments
        .find(|one| Some(&one.id) == task.started_by.as_ref())
        .and_then(|one| one.revision.settings.get("serviceRegistries")?.as_array())
        .is_some_and(|all| all.iter().any(|one| one["registryArn"] == arn))
}

/// AWS's word for how a task is: what its health check says, and well without one.
fn health(registry: &Registry, task: &Task) -> &'static str {
    if !registry.told_health {
        return "UNKNOWN";
    }
    if task.answers() {
        "HEALTHY"
    } else {
        "UNHEALTHY"
    }
}

/// What ECS tells Cloud Map of a task. The address is for this machine, where every task is on
/// 127.0.0.1; inside tasks, names lead to them.
fn attributes(app: &App, (service, task): &Instance<'_>) -> Value {
    let zone = task.placed.as_ref().map_or('a', |placed| placed.zone);
    let family = task.definition_arn.rsplit('/').next().unwrap_or_default();
    let family = family.split(':').next().unwrap_or_default();
    let mut attributes = json!({
        "AVAILABILITY_ZONE": format!("{}{zone}", app.config.region),
        "AWS_INSTANCE_IPV4": "127.0.0.1",
        "ECS_CLUSTER_NAME": service.cluster,
        "ECS_SERVICE_NAME": service.name,
        "ECS_TASK_DEFINITION_FAMILY": family,
        "REGION": app.config.region,
    });
    let mut bindings = task.containers.iter().flat_map(|one| &one.bindings);
    if let Some(binding) = bindings.next() {
        attributes["AWS_INSTANCE_PORT"] = json!(binding.host_port.to_string());
    }
    attributes
}

fn registry<'a>(state: &'a State, input: &Input<'_>) -> Result<&'a Registry, AwsError> {
    let id = plain(input.required("ServiceId")?);
    state
        .registries
        .get(id)
        .ok_or_else(|| services::not_found(id))
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let instances = app.store.read(|state| {
        let found = of(app, state, registry(state, input)?);
        let shown = found.map(|one| json!({"Id": one.1.id, "Attributes": attributes(app, &one)}));
        Ok::<_, AwsError>(shown.collect())
    })?;
    page(input, "Instances", instances)
}

pub(super) fn health_status(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = input.texts("Instances")?;
    app.store.read(|state| {
        let registry = registry(state, input)?;
        let known: Vec<(String, Value)> = of(app, state, registry)
            .filter(|(_, task)| wanted.is_empty() || wanted.contains(&task.id.as_str()))
            .map(|(_, task)| (task.id.clone(), json!(health(registry, task))))
            .collect();
        let is_known = |id: &str| known.iter().any(|(other, _)| other == id);
        if let Some(absent) = wanted.iter().find(|id| !is_known(id)) {
            return Err(AwsError::client(
                "InstanceNotFound",
                format!("Instance {absent} not found."),
            ));
        }
        let (status, next) = one_page(input, known)?;
        let status: Map<String, Value> = status.into_iter().collect();
        let mut body = json!({ "Status": status });
        if let Some(next) = next {
            body["NextToken"] = json!(next);
        }
        Ok(Reply::read(body))
    })
}

pub(super) fn discover(app: &App, input: &Input<'_>) -> JsonResult {
    let namespace_name = input.required("NamespaceName")?;
    let service_name = input.required("ServiceName")?;
    let most = input.number("MaxResults")?.unwrap_or(100) as usize;
    let wanted = input.text("HealthStatus")?.unwrap_or("HEALTHY_OR_ELSE_ALL");
    app.store.read(|state| {
        let mut namespaces = state.namespaces.values();
        let namespace = namespaces
            .find(|one| one.name == namespace_name)
            .ok_or_else(|| super::namespaces::not_found(namespace_name))?;
        let mut registries = state.registries.values();
        let registry = registries
            .find(|one| one.namespace == namespace.id && one.name == service_name)
            .ok_or_else(|| services::not_found(service_name))?;
        let all: Vec<(Instance<'_>, &str)> = of(app, state, registry)
            .map(|one| (one, health(registry, one.1)))
            .collect();
        let any_well = all.iter().any(|(_, health)| *health == "HEALTHY");
        let kept = |health: &str| match wanted {
            // Without a health check, the wish is ignored.
            _ if health == "UNKNOWN" => Ok(true),
            "ALL" => Ok(true),
            "HEALTHY" | "UNHEALTHY" => Ok(health == wanted),
            "HEALTHY_OR_ELSE_ALL" => Ok(health == "HEALTHY" || !any_well),
            other => Err(invalid(format!("Unknown health status {other}."))),
        };
        kept("HEALTHY")?;
        let mut shown = Vec::new();
        for (instance, health) in all {
            if kept(health)? && shown.len() < most {
                shown.push(json!({
                    "InstanceId": instance.1.id,
                    "NamespaceName": namespace.name,
                    "ServiceName": registry.name,
                    "HealthStatus": health,
                    "Attributes": attributes(app, &instance),
                }));
            }
        }
        Ok(Reply::read(
            json!({ "Instances": shown, "InstancesRevision": app.clock.now().0 }),
        ))
    })
}
