//! Tasks: run one, stop any, describe and list.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::input::{Input, invalid};
use super::{cluster_name, definitions, identifier, instances, launch, show, sizes, tags};
use crate::app::App;
use crate::scheduler::{Desired, Ids, Refusal, Revision, StopCode, Task};
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::{FoundTask, StandaloneTask, State};

/// How long a client token tells the same RunTask from another. A task that is forgotten sooner takes
/// its token along.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = input.required("taskDefinition")?;
    let count = input.number("count")?.unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(invalid("Count must be between 1 and 10."));
    }
    let overrides = input
        .object("overrides")?
        .map_or(Value::Null, |members| Value::Object(members.0.clone()));
    let own_tags = input.tags("tags")?;
    tags::check_propagation(input, false)?;
    let started_by = input.text("startedBy")?.map(str::to_owned);
    let token = input.text("clientToken")?.map(str::to_owned);
    let asked = match &token {
        Some(_) => input.0.clone(),
        None => Map::new(),
    };
    let mut settings = input.copy(&["launchType", "platformVersion", "networkConfiguration"]);
    settings.entry("launchType").or_insert_with(|| json!("EC2"));
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let mut random = || app.clock.draw();
            let mut ids = Ids(&mut random);
            let cluster = cluster_name(state, input)?;
            if let Some(token) = &token {
                let since = |one: &StandaloneTask| now.since(one.task.created_at);
                let known: Vec<_> = begun_with(state, &cluster, token)
                    .filter(|(_, one)| since(one) < TOKEN_LIFE)
                    .collect();
                if known.iter().any(|(_, one)| one.asked != asked) {
                    return Err(token_in_use(
                        known
                            .into_iter()
                            .map(|(id, _)| show::task_arn(app, &cluster, id)),
                    ));
                }
                if !known.is_empty() {
                    // The same call again, because its answer was lost.
                    let tasks: Vec<Value> = known
                        .into_iter()
                        .filter_map(|(id, _)| state.find_task(id))
                        .map(|found| show::task(app, state, &found, true))
                        .collect();
                    return Ok(Reply::read(json!({"tasks": tasks, "failures": []})));
                }
            }
            let definition = definitions::find_active(state, wanted)?;
            // Refuses overrides that cannot be applied.
            launch::containers(&definition.raw, &overrides)?;
            let family = Input(&definition.raw).required("family")?;
            let group = input
                .text("group")?
                .map_or_else(|| format!("family:{family}"), str::to_owned);
            let revision = Revision {
                id: String::new(),
                created_at: now,
                definition_arn: definition.arn.clone(),
                containers: launch::plans(&definition.raw)?,
                digests: BTreeMap::new(),
                targets: Vec::new(),
                need: sizes::launch(
                    &definition.raw,
                    &overrides,
                    input.text("launchType")?,
                    settings.get("networkConfiguration"),
                )?,
                settings: Map::new(),
            };
            let tags = tags::of_run_task(state, input, &cluster, &definition.arn, &own_tags);
            let mut fleet = state.fleet(&cluster);
            let (mut started, mut failures) = (Vec::new(), Vec::new());
            for _ in 0..count {
                let found = revision.need.map(|need| {
                    let of_group = |found: &FoundTask<'_>| {
                        found.cluster == cluster && found.task.group == group
                    };
                    let tasks = state.all_tasks().filter(of_group);
                    fleet.place_beside(need, tasks.map(|found| found.task))
                });
                let placed = match found {
                    None => None,
                    Some(Ok(placed)) => Some(placed),
                    Some(Err(Refusal(lacking))) if lacking.is_empty() => {
                        return Err(invalid(
                            "No Container Instances were found in your cluster.",
                        ));
                    }
                    Some(Err(Refusal(lacking))) => {
                        failures.extend(lacking.into_iter().map(|(instance, lack)| {
                            json!({
                                "arn": instances::arn(app, &cluster, &instance),
                                "reason": lack.reason(),
                            })
                        }));
                        break;
                    }
                };
                let mut task = Task::new(ids.hex(), &revision, group.clone(), now);
                task.started_by.clone_from(&started_by);
                task.overrides = overrides.clone();
                task.placed = placed;
                let arn = show::task_arn(app, &cluster, &task.id);
                state.tags.insert(arn, tags.clone());
                started.push(task.id.clone());
                state.tasks.insert(
                    task.id.clone(),
                    StandaloneTask {
                        cluster: cluster.clone(),
                        task,
                        settings: settings.clone(),
                        client_token: token.clone(),
                        asked: asked.clone(),
                    },
                );
            }
            let tasks: Vec<Value> = started
                .iter()
                .filter_map(|id| state.find_task(id))
                .map(|found| show::task(app, state, &found, true))
                .collect();
            Ok(Reply::changed(
                json!({"tasks": tasks, "failures": failures}),
            ))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// The tasks that an earlier call with that token began.
fn begun_with<'a>(
    state: &'a State,
    cluster: &'a str,
    token: &'a str,
) -> impl Iterator<Item = (&'a String, &'a StandaloneTask)> {
    state.tasks.iter().filter(move |(_, one)| {
        one.cluster == cluster && one.client_token.as_deref() == Some(token)
    })
}

/// The refusal of a token that belongs to a call with other parameters, which began `tasks`.
fn token_in_use(tasks: impl Iterator<Item = String>) -> AwsError {
    AwsError {
        resource_ids: tasks.collect(),
        ..AwsError::client(
            "ConflictException",
            "The provided clientToken is already in use with a different RunTask request.",
        )
    }
}

pub(super) async fn stop(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = input.required("task")?;
    let reason = input
        .text("reason")?
        .filter(|reason| !reason.is_empty())
        .unwrap_or("Task stopped by user")
        .to_owned();
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let cluster = cluster_name(state, input)?;
            let missing = || invalid("The referenced task was not found.");
            let id = identifier(wanted, &cluster)?;
            find(state, &cluster, id).ok_or_else(missing)?;
            let task = state.task_mut(id).ok_or_else(missing)?;
            let changed = task.desired == Desired::Running;
            task.stop(StopCode::UserInitiated, reason, now);
            let found = find(state, &cluster, id).ok_or_else(missing)?;
            Ok(Reply {
                body: json!({"task": show::task(app, state, &found, true)}),
                changed,
            })
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// Takes a Fargate task's capacity away, as happens with Fargate Spot; by its id or ARN.
pub(crate) async fn interrupt(app: &App, wanted: &str) -> JsonResult {
    let id = wanted.rsplit('/').next().unwrap_or(wanted);
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let task = state
                .task_mut(id)
                .filter(|task| task.desired == Desired::Running)
                .ok_or_else(|| {
                    invalid(format!(
                        "There is no task {wanted} that is meant to run: ListTasks lists all."
                    ))
                })?;
            if let Some(placed) = &task.placed {
                let instance = &placed.instance;
                return Err(invalid(format!(
                    "The task runs on the container instance {instance}, so it is the instance that \
                     is interrupted: set it DRAINING with UpdateContainerInstancesState, then DELETE \
                     /_sandbox/instances/{instance}."
                )));
            }
            let reason = "Your Spot Task was interrupted.";
            task.stop(StopCode::SpotInterruption, reason, now);
            Ok(Reply::changed(json!({"task": id, "stoppedReason": reason})))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

fn find<'a>(state: &'a State, cluster: &str, id: &str) -> Option<FoundTask<'a>> {
    state.find_task(id).filter(|found| found.cluster == cluster)
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let names = input.texts("tasks")?;
    if names.is_empty() || names.len() > 100 {
        return Err(invalid("Tasks cannot be empty, nor more than 100."));
    }
    let with_tags = input.includes("TAGS")?;
    app.store.read(|state| {
        let cluster = cluster_name(state, input)?;
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            let id = identifier(name, &cluster)?;
            match find(state, &cluster, id) {
                Some(found) => tasks.push(show::task(app, state, &found, with_tags)),
                None => failures.push(json!({
                    "arn": show::task_arn(app, &cluster, id),
                    "reason": "MISSING",
                })),
            }
        }
        Ok(Reply::read(json!({"tasks": tasks, "failures": failures})))
    })
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let desired = match input.text("desiredStatus")?.unwrap_or("RUNNING") {
        "RUNNING" => Desired::Running,
        "STOPPED" => Desired::Stopped,
        // AWS never sets a desired status to PENDING, so nothing matches.
        "PENDING" => return Ok(Reply::read(json!({"taskArns": []}))),
        other => return Err(invalid(format!("Unknown desired status {other}."))),
    };
    let service = input.text("serviceName")?;
    let family = input.text("family")?;
    let started_by = input.text("startedBy")?;
    let launch_type = input.text("launchType")?;
    let instance = input.text("containerInstance")?;
    if started_by.is_some() && (service.is_some() || family.is_some()) {
        return Err(invalid("startedBy must be the only filter."));
    }
    let arns = app.store.read(|state| -> Result<Vec<String>, AwsError> {
        let cluster = cluster_name(state, input)?;
        let within = |name| identifier(name, &cluster);
        let service = service.map(within).transpose()?;
        let instance = instance.map(within).transpose()?;
        if let Some(name) = service
            && !state
                .services
                .contains_key(&State::service_key(&cluster, name))
        {
            return Err(AwsError::client(
                "ServiceNotFoundException",
                "Service not found.",
            ));
        }
        Ok(state
            .all_tasks()
            .filter(|found| {
                found.cluster == cluster
                    && found.task.desired == desired
                    && service.is_none_or(|wanted| {
                        found.service.is_some_and(|service| service.name == wanted)
                    })
                    && family.is_none_or(|wanted| family_of(found.task) == Some(wanted))
                    && started_by
                        .is_none_or(|wanted| found.task.started_by.as_deref() == Some(wanted))
                    && instance.is_none_or(|wanted| {
                        let placed = found.task.placed.as_ref();
                        placed.is_some_and(|placed| placed.instance == wanted)
                    })
                    && launch_type.is_none_or(|wanted| {
                        found.settings.get("launchType").and_then(Value::as_str) == Some(wanted)
                    })
            })
            .map(|found| show::task_arn(app, found.cluster, &found.task.id))
            .collect())
    })?;
    let (page, next) = input.page(arns, 100)?;
    Ok(Reply::read(json!({"taskArns": page, "nextToken": next})))
}

fn family_of(task: &Task) -> Option<&str> {
    let (_, name) = task.definition_arn.rsplit_once('/')?;
    name.rsplit_once(':').map(|(family, _)| family)
}
