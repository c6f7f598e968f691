//! Task definitions: kept as they came, in numbered revisions.

use serde_json::{Map, Value, json};

use super::input::{Input, client, invalid, show_tags};
use super::{launch, limits, sizes, well_named};
use crate::app::App;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::{State, TaskDefinition};

/// Members that a definition has always, also when the request had none.
const LISTS: [&str; 2] = ["volumes", "placementConstraints"];

/// Members that ECS itself adds; a request with them is a mistake.
const ADDED: [&str; 9] = [
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

pub(super) async fn register(app: &App, input: &Input<'_>) -> JsonResult {
    let family = input.required("family")?.to_owned();
    if !well_named(&family, 255) {
        return Err(client(
            "Family contains invalid characters: use up to 255 letters, digits, hyphens and \
             underscores.",
        ));
    }
    if let Some(member) = ADDED.iter().find(|member| input.0.contains_key(**member)) {
        return Err(invalid(format!(
            "{member} is set by ECS and cannot be registered."
        )));
    }
    let tags = input.tags("tags")?;
    let mut raw = input.0.clone();
    raw.shift_remove("tags");
    limits::check(&app.config, &raw)?;
    launch::validate(&raw)?;
    sizes::validate(&raw)?;
    let registered_at = app.clock.now();
    app.store
        .change(|state| {
            let revisions = state.families.row(&family);
            let revision = revisions.last().map_or(1, |last| last.revision + 1);
            let definition = TaskDefinition {
                arn: app
                    .config
                    .arn("ecs", &format!("task-definition/{family}:{revision}")),
                revision,
                registered_at,
                deregistered_at: None,
                raw,
            };
            let shown = show(app, &definition);
            let mut reply = json!({"taskDefinition": shown});
            if !tags.is_empty() {
                reply["tags"] = show_tags(&tags);
            }
            state.tags.insert(definition.arn.clone(), tags);
            revisions.push(definition);
            Ok(Reply::changed(reply))
        })
        .await
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let name = input.required("taskDefinition")?;
    let with_tags = input.includes("TAGS")?;
    app.store.read(|state| {
        let definition = find(state, name)?;
        let mut reply = json!({"taskDefinition": show(app, definition)});
        if with_tags {
            reply["tags"] = state
                .tags
                .get(&definition.arn)
                .map_or_else(|| json!([]), show_tags);
        }
        Ok(Reply::read(reply))
    })
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let family = input.text("familyPrefix")?;
    let active = match input.text("status")?.unwrap_or("ACTIVE") {
        "ACTIVE" => true,
        "INACTIVE" => false,
        other => return Err(invalid(format!("Unknown status {other}."))),
    };
    let descending = match input.text("sort")?.unwrap_or("ASC") {
        "ASC" => false,
        "DESC" => true,
        other => return Err(invalid(format!("Unknown sort order {other}."))),
    };
    let mut arns: Vec<String> = app.store.read(|state| {
        let mut families: Vec<_> = state
            .families
            .iter()
            .filter(|(name, _)| family.is_none_or(|wanted| wanted == name.as_str()))
            .collect();
        families.sort_by_key(|(name, _)| *name);
        families
            .into_iter()
            .flat_map(|(_, revisions)| revisions)
            .filter(|definition| definition.active() == active)
            .map(|definition| definition.arn.clone())
            .collect()
    });
    if descending {
        arns.reverse();
    }
    let (page, next) = input.page(arns, 100)?;
    Ok(Reply::read(
        json!({"taskDefinitionArns": page, "nextToken": next}),
    ))
}

pub(super) fn list_families(app: &App, input: &Input<'_>) -> JsonResult {
    let prefix = input.text("familyPrefix")?.unwrap_or_default();
    let status = input.text("status")?.unwrap_or("ALL");
    let mut names: Vec<String> = app.store.read(|state| {
        state
            .families
            .iter()
            .filter(|(name, revisions)| {
                let active = revisions.iter().any(TaskDefinition::active);
                name.starts_with(prefix)
                    && match status {
                        "ACTIVE" => active,
                        "INACTIVE" => !active,
                        _ => true,
                    }
            })
            .map(|(name, _)| name.clone())
            .collect()
    });
    names.sort();
    let (page, next) = input.page(names, 100)?;
    Ok(Reply::read(json!({"families": page, "nextToken": next})))
}

pub(super) async fn deregister(app: &App, input: &Input<'_>) -> JsonResult {
    let name = input.required("taskDefinition")?;
    let now = app.clock.now();
    app.store
        .change(|state| {
            let arn = find(state, name)?.arn.clone();
            let (_, name) = arn.rsplit_once('/').ok_or_else(missing)?;
            let (family, _) = name.rsplit_once(':').ok_or_else(missing)?;
            let revisions = state.families.get_mut(family).ok_or_else(missing)?;
            let definition = revisions
                .iter_mut()
                .find(|definition| definition.arn == arn)
                .ok_or_else(missing)?;
            let changed = definition.active();
            definition.deregistered_at.get_or_insert(now);
            Ok(Reply {
                body: json!({"taskDefinition": show(app, definition)}),
                changed,
            })
        })
        .await
}

fn missing() -> AwsError {
    client("Unable to describe task definition.")
}

/// The definition that a name means: an ARN, `family:revision`, or a family's newest active one.
pub(super) fn find<'a>(state: &'a State, name: &str) -> Result<&'a TaskDefinition, AwsError> {
    let short = match name.strip_prefix("arn:") {
        Some(_) => name.rsplit_once('/').map(|(_, last)| last),
        None => Some(name),
    }
    .ok_or_else(|| invalid("Invalid task definition ARN."))?;
    let (family, revision) = match short.split_once(':') {
        None => (short, None),
        Some((family, number)) => (
            family,
            Some(
                number
                    .parse::<u32>()
                    .map_err(|_| invalid(format!("Invalid revision number. Number: {number}")))?,
            ),
        ),
    };
    let revisions = state.families.get(family).ok_or_else(missing)?;
    match revision {
        Some(number) => revisions.iter().find(|one| one.revision == number),
        None => revisions.iter().rev().find(|one| one.active()),
    }
    .ok_or_else(missing)
}

/// The same, for something that shall run it.
pub(super) fn find_active<'a>(
    state: &'a State,
    name: &str,
) -> Result<&'a TaskDefinition, AwsError> {
    let definition = find(state, name).map_err(|error| match error.code.as_str() {
        "ClientException" => client("TaskDefinition not found."),
        _ => error,
    })?;
    if definition.active() {
        Ok(definition)
    } else {
        Err(client("TaskDefinition is inactive"))
    }
}

/// The definition as AWS shows it.
fn show(app: &App, definition: &TaskDefinition) -> Value {
    let mut shown = Map::new();
    shown.insert("taskDefinitionArn".to_owned(), json!(definition.arn));
    shown.extend(definition.raw.clone());
    for list in LISTS {
        shown.entry(list).or_insert_with(|| json!([]));
    }
    if let Some(Value::Array(containers)) = shown.get_mut("containerDefinitions") {
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            container.entry("cpu").or_insert_with(|| json!(0));
            container.entry("essential").or_insert_with(|| json!(true));
            for list in ["environment", "mountPoints", "portMappings", "volumesFrom"] {
                container.entry(list).or_insert_with(|| json!([]));
            }
        }
    }
    let compatibilities = json!(sizes::compatibilities(&definition.raw));
    let status = if definition.active() {
        "ACTIVE"
    } else {
        "INACTIVE"
    };
    shown.insert("revision".to_owned(), json!(definition.revision));
    shown.insert("status".to_owned(), json!(status));
    shown.insert("requiresAttributes".to_owned(), json!([]));
    shown.insert("compatibilities".to_owned(), compatibilities);
    shown.insert(
        "registeredAt".to_owned(),
        json!(definition.registered_at.epoch_seconds()),
    );
    shown.insert(
        "registeredBy".to_owned(),
        json!(format!("arn:aws:iam::{}:root", app.config.account)),
    );
    if let Some(at) = definition.deregistered_at {
        shown.insert("deregisteredAt".to_owned(), json!(at.epoch_seconds()));
    }
    Value::Object(shown)
}
