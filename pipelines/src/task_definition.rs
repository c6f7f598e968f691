//! The next revision of a task definition, made from the one that runs. Task definitions stay raw
//! JSON from describe to register, so that a member which is newer than any SDK is not lost.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Members that DescribeTaskDefinition adds and RegisterTaskDefinition does not take: the
/// difference of the two shapes in the API model 2014-11-13.
pub(crate) const ADDED_BY_ECS: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// Tag under which a revision names the deployment that made it, so that it is found again when
/// the reply was lost.
pub const DEPLOYMENT_TAG: &str = "roadstead:deployment";

/// What the family of [`one_off`] definitions is called after the service's own.
pub const ONE_OFF_FAMILY: &str = "-before-deploy";

/// What changes from one revision to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision<'a> {
    /// The container that gets the image; none takes the only container, or the first essential.
    pub container: Option<&'a str>,
    /// `repository@sha256:…`.
    pub image: &'a str,
    /// Variables that are set on that container; others stay.
    pub variables: &'a BTreeMap<String, String>,
    /// CPU units of the task, when the file says so.
    pub cpu: Option<u32>,
    /// MiB of memory of the task, when the file says so.
    pub memory: Option<u32>,
    /// Written as a tag.
    pub deployment: &'a str,
}

/// A definition that cannot be revised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task definition: {0}")]
pub struct CannotRevise(String);

/// The body of RegisterTaskDefinition for the next revision.
///
/// `tags` are those that DescribeTaskDefinition showed beside the definition.
///
/// # Errors
/// [`CannotRevise`] when the definition has no container, or not the one that is named.
pub fn revise(
    base: &Value,
    tags: &[Value],
    revision: &Revision<'_>,
) -> Result<Value, CannotRevise> {
    let mut next = without_what_ecs_added(base)?;
    let containers = next
        .get_mut("containerDefinitions")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| CannotRevise("it has no containerDefinitions".into()))?;
    let container = pick(containers, revision.container)?;
    container.insert("image".into(), json!(revision.image));
    set_variables(container, revision.variables);
    if let Some(cpu) = revision.cpu {
        next.insert("cpu".into(), json!(cpu.to_string()));
    }
    if let Some(memory) = revision.memory {
        next.insert("memory".into(), json!(memory.to_string()));
    }
    let mut all: Vec<Value> = tags
        .iter()
        .filter(|tag| tag["key"] != DEPLOYMENT_TAG)
        .cloned()
        .collect();
    all.push(json!({"key": DEPLOYMENT_TAG, "value": revision.deployment}));
    next.insert("tags".into(), Value::Array(all));
    Ok(Value::Object(next))
}

fn without_what_ecs_added(base: &Value) -> Result<Map<String, Value>, CannotRevise> {
    let mut next = base
        .as_object()
        .cloned()
        .ok_or_else(|| CannotRevise("not an object".into()))?;
    for member in ADDED_BY_ECS {
        next.remove(member);
    }
    Ok(next)
}

/// The body of RegisterTaskDefinition for one task that runs `command` beside the service: the same
/// definition in a family of its own, as ECS has no way to run a task past the entry point of its image. It
/// publishes no ports, which the service's tasks may have taken on the same host, and nothing but the command
/// ends it: the other containers are not essential, and wait for nothing of the one that runs it.
///
/// # Errors
/// [`CannotRevise`] when the definition has no container, or not the one that is named.
pub fn one_off(
    base: &Value,
    tags: &[Value],
    container: Option<&str>,
    command: &[String],
) -> Result<Value, CannotRevise> {
    let mut next = without_what_ecs_added(base)?;
    let family = base["family"].as_str().unwrap_or_default();
    // A family's name has at most 255 characters.
    let cut = family.len().min(255 - ONE_OFF_FAMILY.len());
    let family = family.get(..cut).unwrap_or(family);
    next.insert("family".into(), json!(format!("{family}{ONE_OFF_FAMILY}")));
    let containers = next
        .get_mut("containerDefinitions")
        .and_then(Value::as_array_mut)
        .ok_or_else(|| CannotRevise("it has no containerDefinitions".into()))?;
    let container = pick(containers, container)?;
    container.insert("entryPoint".into(), json!(command));
    container.insert("command".into(), json!([]));
    // It serves nothing now that a check could ask for.
    container.remove("healthCheck");
    let name = container.get("name").cloned().unwrap_or_default();
    for container in containers.iter_mut().filter_map(Value::as_object_mut) {
        let is_the_one = container.get("name") == Some(&name);
        container.insert("essential".into(), json!(is_the_one));
        container.remove("portMappings");
        if let Some(needs) = container.get_mut("dependsOn").and_then(Value::as_array_mut) {
            needs.retain(|need| need["containerName"] != name);
        }
    }
    if !tags.is_empty() {
        next.insert("tags".into(), json!(tags));
    }
    Ok(Value::Object(next))
}

fn pick<'a>(
    containers: &'a mut [Value],
    wanted: Option<&str>,
) -> Result<&'a mut Map<String, Value>, CannotRevise> {
    let names: Vec<String> = containers
        .iter()
        .map(|c| c["name"].as_str().unwrap_or("?").to_owned())
        .collect();
    let index = match wanted {
        Some(name) => names.iter().position(|n| n == name).ok_or_else(|| {
            CannotRevise(format!(
                "it has no container `{name}` (it has: {}); set `container` of the service",
                names.join(", ")
            ))
        })?,
        None => containers
            .iter()
            .position(|c| c["essential"] != json!(false))
            .unwrap_or(0),
    };
    containers
        .get_mut(index)
        .and_then(Value::as_object_mut)
        .ok_or_else(|| CannotRevise("it has no containers".into()))
}

fn set_variables(container: &mut Map<String, Value>, variables: &BTreeMap<String, String>) {
    if variables.is_empty() {
        return;
    }
    let mut kept: Vec<Value> = container
        .get("environment")
        .and_then(Value::as_array)
        .map(|list| {
            let is_new = |v: &Value| {
                v["name"]
                    .as_str()
                    .is_some_and(|n| variables.contains_key(n))
            };
            list.iter().filter(|v| !is_new(v)).cloned().collect()
        })
        .unwrap_or_default();
    kept.extend(
        variables
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value})),
    );
    container.insert("environment".into(), Value::Array(kept));
}

/// The container whose image [`revise`] would set, by name.
#[must_use]
pub fn container_of<'a>(base: &'a Value, wanted: Option<&str>) -> Option<&'a Value> {
    let containers = base["containerDefinitions"].as_array()?;
    match wanted {
        Some(name) => containers.iter().find(|c| c["name"] == json!(name)),
        None => containers
            .iter()
            .find(|c| c["essential"] != json!(false))
            .or_else(|| containers.first()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Value {
        json!({
            "family": "shop", "revision": 7, "status": "ACTIVE",
            "taskDefinitionArn": "arn:aws:ecs:eu-west-1:1:task-definition/shop:7",
            "memberOfTheFuture": {"kept": true},
            "containerDefinitions": [
                {"name": "log", "image": "log:1", "essential": false},
                {"name": "app", "image": "app:1", "memberOfTheFuture": 1,
                 "environment": [{"name": "A", "value": "old"}, {"name": "B", "value": "kept"}]},
            ],
        })
    }

    #[test]
    fn only_the_image_and_named_variables_change() {
        let variables = BTreeMap::from([("A".to_owned(), "new".to_owned())]);
        let revision = Revision {
            container: None,
            image: "r/app@sha256:1",
            variables: &variables,
            cpu: None,
            memory: Some(512),
            deployment: "shop.d1",
        };
        let tags = [json!({"key": "team", "value": "x"})];
        let next = revise(&base(), &tags, &revision).unwrap();
        assert_eq!(
            next,
            json!({
                "family": "shop", "memberOfTheFuture": {"kept": true}, "memory": "512",
                "containerDefinitions": [
                    {"name": "log", "image": "log:1", "essential": false},
                    {"name": "app", "image": "r/app@sha256:1", "memberOfTheFuture": 1,
                     "environment": [{"name": "B", "value": "kept"}, {"name": "A", "value": "new"}]},
                ],
                "tags": [{"key": "team", "value": "x"},
                         {"key": "roadstead:deployment", "value": "shop.d1"}],
            })
        );
    }

    #[test]
    fn only_the_command_ends_a_one_off_task() {
        let check = json!({"command": ["CMD-SHELL", "curl localhost"]});
        let waits = json!([{"containerName": "app", "condition": "HEALTHY"},
                           {"containerName": "log", "condition": "START"}]);
        let base = json!({
            "family": "f".repeat(255), "revision": 7,
            "containerDefinitions": [
                {"name": "log", "image": "log:1", "portMappings": [{"containerPort": 1}]},
                {"name": "proxy", "image": "proxy:1", "dependsOn": waits},
                {"name": "app", "image": "app:1", "essential": false, "entryPoint": ["serve"],
                 "command": ["all"], "healthCheck": check,
                 "dependsOn": [{"containerName": "log", "condition": "START"}]},
            ],
        });
        let command = ["/bin/migrate".to_owned(), "up".to_owned()];
        let next = one_off(&base, &[], Some("app"), &command).unwrap();
        assert_eq!(
            next,
            json!({
                "family": format!("{}{ONE_OFF_FAMILY}", "f".repeat(255 - ONE_OFF_FAMILY.len())),
                "containerDefinitions": [
                    {"name": "log", "image": "log:1", "essential": false},
                    {"name": "proxy", "image": "proxy:1", "essential": false,
                     "dependsOn": [{"containerName": "log", "condition": "START"}]},
                    {"name": "app", "image": "app:1", "essential": true,
                     "entryPoint": ["/bin/migrate", "up"], "command": [],
                     "dependsOn": [{"containerName": "log", "condition": "START"}]},
                ],
            })
        );
        assert_eq!(container_of(&next, None).unwrap()["name"], "app");
    }

    #[test]
    fn an_unknown_container_is_named_with_those_there_are() {
        let variables = BTreeMap::new();
        let revision = Revision {
            container: Some("web"),
            image: "i",
            variables: &variables,
            cpu: None,
            memory: None,
            deployment: "d",
        };
        let error = revise(&base(), &[], &revision).unwrap_err().to_string();
        assert!(
            error.contains("no container `web` (it has: log, app)"),
            "{error}"
        );
    }
}
