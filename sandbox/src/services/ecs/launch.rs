//! From a task definition's JSON to what a backend can start.
//!
//! Invariant: what `validate` accepted, `build` can read. Which members are taken at all is the
//! catalog's to say.

use std::collections::HashSet;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::input::{Input, client};
use super::{names, registries, sizes};
use crate::backends::{
    AwsLogs, ContainerSpec, Dependency, DependencyCondition, HealthCheck, PortMapping, TaskLaunch,
    by_digest,
};
use crate::scheduler::ContainerPlan;
use crate::services::AwsError;
use crate::state::State;

/// Checks that a definition can be run here.
pub(super) fn validate(raw: &Map<String, Value>) -> Result<(), AwsError> {
    let platform = Input(raw).object("runtimePlatform")?;
    let system = match &platform {
        Some(platform) => platform.text("operatingSystemFamily")?,
        None => None,
    };
    if system.is_some_and(|system| system != "LINUX") {
        return Err(AwsError::unsupported_member(
            "runtimePlatform.operatingSystemFamily other than LINUX",
        ));
    }
    let containers = containers(raw, &Value::Null)?;
    if containers.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if !containers.iter().any(|container| container.essential) {
        return Err(client("At least one container must be essential."));
    }
    let mut names = HashSet::new();
    for container in &containers {
        if !names.insert(container.name.as_str()) {
            return Err(client(format!(
                "Container name {} is not unique.",
                container.name
            )));
        }
    }
    check_dependencies(&containers)
}

fn check_dependencies(containers: &[ContainerSpec]) -> Result<(), AwsError> {
    for container in containers {
        for dependency in &container.depends_on {
            let target = containers
                .iter()
                .find(|other| other.name == dependency.container)
                .ok_or_else(|| {
                    client(format!(
                        "Container {} depends on {}, which is not in the task definition.",
                        container.name, dependency.container
                    ))
                })?;
            if dependency.condition == DependencyCondition::Healthy && target.health_check.is_none()
            {
                return Err(client(format!(
                    "Container {} waits for {} to be HEALTHY, which has no health check.",
                    container.name, target.name
                )));
            }
        }
    }
    // Take away what waits for nothing that is left; a cycle stays.
    let mut left: Vec<&ContainerSpec> = containers.iter().collect();
    loop {
        let before = left.len();
        let names: HashSet<&str> = left.iter().map(|one| one.name.as_str()).collect();
        left.retain(|one| {
            one.depends_on
                .iter()
                .any(|dependency| names.contains(dependency.container.as_str()))
        });
        if left.is_empty() {
            return Ok(());
        }
        if left.len() == before {
            return Err(client(format!(
                "The dependencies of container {} form a cycle.",
                left[0].name
            )));
        }
    }
}

/// The scheduler's view of the containers.
pub(super) fn plans(raw: &Map<String, Value>) -> Result<Vec<ContainerPlan>, AwsError> {
    Ok(containers(raw, &Value::Null)?
        .into_iter()
        .map(|container| ContainerPlan {
            checked: container.health_check.is_some(),
            consistent: container.is_consistent,
            name: container.name,
            image: container.image,
            essential: container.essential,
        })
        .collect())
}

/// What a backend needs to run the task; None when the task or its definition is gone.
pub(crate) fn build(state: &State, task_id: &str) -> Option<TaskLaunch> {
    let found = state.find_task(task_id)?;
    let definition = state.definition(&found.task.definition_arn)?;
    let family = definition.raw.get("family")?.as_str()?.to_owned();
    let mut containers = containers(&definition.raw, &found.task.overrides).ok()?;
    if let Some(service) = found.service {
        let started_by = found.task.started_by.as_ref();
        let own = service
            .deployments
            .iter()
            .find(|one| Some(&one.id) == started_by)?;
        for container in containers.iter_mut().filter(|one| one.is_consistent) {
            if let Some(digest) = own.revision.digests.get(&container.image) {
                container.image = by_digest(&container.image, digest);
            }
        }
        let namespace = names::usual_namespace(state, found.cluster);
        let settings = &own.revision.settings;
        let mut all = names::read(settings, &definition.raw, namespace).ok()?;
        // Its registry may be gone by now; the tasks start all the same.
        all.extend(registries::read(state, settings, &definition.raw).unwrap_or_default());
        let checked = containers
            .iter()
            .any(|one| one.essential && one.health_check.is_some());
        for name in all {
            let mut named = containers.iter_mut();
            if let Some(container) = named.find(|one| one.name == name.container) {
                if name.by_health && checked {
                    container.names_when_healthy.push(name.name);
                } else {
                    container.network_names.push(name.name);
                }
            }
        }
    } else {
        // Each task of RunTask stands for itself.
        for container in &mut containers {
            container.is_consistent = false;
        }
    }
    Some(TaskLaunch {
        task_id: task_id.to_owned(),
        cluster: found.cluster.to_owned(),
        service: found.service.map(|service| service.name.clone()),
        task_definition_arn: definition.arn.clone(),
        family,
        containers,
    })
}

/// The containers with RunTask's overrides applied.
pub(super) fn containers(
    raw: &Map<String, Value>,
    overrides: &Value,
) -> Result<Vec<ContainerSpec>, AwsError> {
    let changes = match overrides {
        Value::Null => &[],
        other => Input::new(other)?.list("containerOverrides")?,
    };
    let task_memory = sizes::memory(raw)?.map(i64::from);
    Input(raw)
        .list("containerDefinitions")?
        .iter()
        .map(|definition| {
            let mut container = container(&Input::new(definition)?)?;
            if container.memory_mib.is_none() {
                container.memory_mib = task_memory;
            }
            for change in changes {
                let change = Input::new(change)?;
                if change.text("name")? == Some(container.name.as_str()) {
                    override_container(&mut container, &change)?;
                }
            }
            Ok(container)
        })
        .collect()
}

fn container(input: &Input<'_>) -> Result<ContainerSpec, AwsError> {
    let name = input.required("name")?.to_owned();
    let image = input
        .text("image")?
        .filter(|image| !image.is_empty())
        .ok_or_else(|| client("Container.image should not be null or empty."))?
        .to_owned();
    Ok(ContainerSpec {
        is_consistent: is_consistent(input)? && !image.contains('@'),
        image,
        essential: input.flag("essential")?.unwrap_or(true),
        entry_point: words(input, "entryPoint")?,
        command: words(input, "command")?,
        environment: pairs(input)?,
        ports: ports(input)?,
        health_check: health_check(input)?,
        depends_on: dependencies(input)?,
        user: input.text("user")?.map(str::to_owned),
        working_directory: input.text("workingDirectory")?.map(str::to_owned),
        readonly_root_filesystem: input.flag("readonlyRootFilesystem")?.unwrap_or(false),
        interactive: input.flag("interactive")?.unwrap_or(false),
        pseudo_terminal: input.flag("pseudoTerminal")?.unwrap_or(false),
        memory_mib: input
            .number("memory")?
            .filter(|memory| *memory > 0)
            .map(i64::from),
        cpu_shares: input.number("cpu")?.filter(|cpu| *cpu > 0).map(i64::from),
        docker_labels: labels(input)?,
        start_timeout: input
            .number("startTimeout")?
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(u64::from(seconds))),
        stop_timeout: Duration::from_secs(u64::from(input.number("stopTimeout")?.unwrap_or(30))),
        awslogs: logs(input, &name)?,
        network_names: Vec::new(),
        names_when_healthy: Vec::new(),
        name,
    })
}

fn is_consistent(input: &Input<'_>) -> Result<bool, AwsError> {
    match input.text("versionConsistency")? {
        None | Some("enabled") => Ok(true),
        Some("disabled") => Ok(false),
        Some(other) => Err(client(format!("Unknown versionConsistency {other}."))),
    }
}

/// None when absent or empty: then the image decides.
fn words(input: &Input<'_>, name: &str) -> Result<Option<Vec<String>>, AwsError> {
    let words: Vec<String> = input.texts(name)?.into_iter().map(str::to_owned).collect();
    Ok((!words.is_empty()).then_some(words))
}

fn pairs(input: &Input<'_>) -> Result<IndexMap<String, String>, AwsError> {
    input
        .list("environment")?
        .iter()
        .map(|pair| {
            let pair = Input::new(pair)?;
            Ok((
                pair.required("name")?.to_owned(),
                pair.text("value")?.unwrap_or_default().to_owned(),
            ))
        })
        .collect()
}

fn labels(input: &Input<'_>) -> Result<IndexMap<String, String>, AwsError> {
    let Some(labels) = input.object("dockerLabels")? else {
        return Ok(IndexMap::new());
    };
    labels
        .0
        .keys()
        .map(|key| {
            Ok((
                key.clone(),
                labels.text(key)?.unwrap_or_default().to_owned(),
            ))
        })
        .collect()
}

fn ports(input: &Input<'_>) -> Result<Vec<PortMapping>, AwsError> {
    input
        .list("portMappings")?
        .iter()
        .map(|mapping| {
            let mapping = Input::new(mapping)?;
            let port = |name| -> Result<Option<u16>, AwsError> {
                mapping
                    .number(name)?
                    .filter(|port| *port > 0)
                    .map(|port| {
                        u16::try_from(port).map_err(|_| client(format!("Invalid {name} {port}.")))
                    })
                    .transpose()
            };
            Ok(PortMapping {
                container_port: port("containerPort")?
                    .ok_or_else(|| client("containerPort must not be empty."))?,
                host_port: port("hostPort")?,
                protocol: mapping.text("protocol")?.unwrap_or("tcp").to_owned(),
            })
        })
        .collect()
}

fn health_check(input: &Input<'_>) -> Result<Option<HealthCheck>, AwsError> {
    let Some(check) = input.object("healthCheck")? else {
        return Ok(None);
    };
    let command: Vec<String> = check
        .texts("command")?
        .into_iter()
        .map(str::to_owned)
        .collect();
    match command.first().map(String::as_str) {
        None | Some("NONE") => return Ok(None),
        Some("CMD" | "CMD-SHELL") if command.len() > 1 => {}
        _ => {
            return Err(client(
                "A health check's command must be [\"CMD\", …], [\"CMD-SHELL\", line] or \
                 [\"NONE\"].",
            ));
        }
    }
    let seconds = |name, default: u32| -> Result<Duration, AwsError> {
        Ok(Duration::from_secs(u64::from(
            check.number(name)?.unwrap_or(default),
        )))
    };
    Ok(Some(HealthCheck {
        command,
        interval: seconds("interval", 30)?,
        timeout: seconds("timeout", 5)?,
        retries: check.number("retries")?.unwrap_or(3).max(1),
        start_period: seconds("startPeriod", 0)?,
    }))
}

fn dependencies(input: &Input<'_>) -> Result<Vec<Dependency>, AwsError> {
    input
        .list("dependsOn")?
        .iter()
        .map(|dependency| {
            let dependency = Input::new(dependency)?;
            let condition = match dependency.required("condition")? {
                "START" => DependencyCondition::Start,
                "COMPLETE" => DependencyCondition::Complete,
                "SUCCESS" => DependencyCondition::Success,
                "HEALTHY" => DependencyCondition::Healthy,
                other => return Err(client(format!("Unknown dependency condition {other}."))),
            };
            Ok(Dependency {
                container: dependency.required("containerName")?.to_owned(),
                condition,
            })
        })
        .collect()
}

fn logs(input: &Input<'_>, container: &str) -> Result<Option<AwsLogs>, AwsError> {
    let Some(configuration) = input.object("logConfiguration")? else {
        return Ok(None);
    };
    match configuration.required("logDriver")? {
        "awslogs" => {}
        "json-file" | "none" => return Ok(None),
        _ => {
            return Err(AwsError::unsupported_member(&format!(
                "containerDefinitions[{container}].logConfiguration.logDriver"
            )));
        }
    }
    let options = configuration.object("options")?;
    let option = |name| -> Result<Option<String>, AwsError> {
        match &options {
            Some(options) => Ok(options.text(name)?.map(str::to_owned)),
            None => Ok(None),
        }
    };
    let group = option("awslogs-group")?
        .ok_or_else(|| client("Log driver awslogs requires options: awslogs-group."))?;
    Ok(Some(AwsLogs {
        group,
        prefix: option("awslogs-stream-prefix")?,
    }))
}

fn override_container(container: &mut ContainerSpec, change: &Input<'_>) -> Result<(), AwsError> {
    if let Some(command) = words(change, "command")? {
        container.command = Some(command);
    }
    container.environment.extend(pairs(change)?);
    if let Some(cpu) = change.number("cpu")? {
        container.cpu_shares = Some(i64::from(cpu));
    }
    if let Some(memory) = change.number("memory")? {
        container.memory_mib = Some(i64::from(memory));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{containers, validate};

    fn raw(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn cycles_and_strangers_among_dependencies_are_refused() {
        let definition = |first: &str, second: &str| {
            raw(&json!({"containerDefinitions": [
                {"name": "a", "image": "i",
                 "dependsOn": [{"containerName": first, "condition": "START"}]},
                {"name": "b", "image": "i",
                 "dependsOn": [{"containerName": second, "condition": "START"}]},
            ]}))
        };
        let cycle = validate(&definition("b", "a")).unwrap_err();
        assert!(cycle.message.contains("cycle"), "{cycle}");
        let stranger = validate(&definition("b", "c")).unwrap_err();
        assert!(stranger.message.contains("not in the task definition"));
    }

    #[test]
    fn overrides_replace_the_command_and_add_to_the_environment() {
        let definition = raw(&json!({"memory": "512", "containerDefinitions": [
            {"name": "web", "image": "i", "command": ["serve"],
             "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        ]}));
        let overrides = json!({"containerOverrides": [
            {"name": "web", "command": ["migrate", "up"],
             "environment": [{"name": "B", "value": "3"}]},
        ]});
        let built = containers(&definition, &overrides).unwrap().remove(0);
        assert_eq!(built.command.unwrap(), ["migrate", "up"]);
        assert_eq!(built.environment["A"], "1");
        assert_eq!(built.environment["B"], "3");
        assert_eq!(built.memory_mib, Some(512));
    }
}
