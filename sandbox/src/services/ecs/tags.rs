//! Tags of clusters, task definitions, services and tasks, by ARN.

use indexmap::IndexMap;
use serde_json::json;

use super::input::{Input, invalid, show_tags};
use super::{arn_parts, show};
use crate::app::App;
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::State;

type Tags = IndexMap<String, String>;

/// Refuses an ARN that names nothing.
fn check(state: &State, arn: &str) -> Result<(), AwsError> {
    // Tasks of services have no entry before they have tags.
    let is_task = || match *arn_parts(arn, "task")? {
        [cluster, id] => state.find_task(id).filter(|it| it.cluster == cluster),
        _ => None,
    };
    if state.tags.contains_key(arn) || is_task().is_some() {
        Ok(())
    } else {
        Err(invalid(format!("The resource {arn} does not exist.")))
    }
}

/// Refuses what `propagateTags` cannot be; tasks of RunTask have no service to have tags from.
pub(super) fn check_propagation(input: &Input<'_>, from_service: bool) -> Result<(), AwsError> {
    match input.text("propagateTags")? {
        None | Some("NONE" | "TASK_DEFINITION") => Ok(()),
        Some("SERVICE") if from_service => Ok(()),
        Some(other) => Err(invalid(format!(
            "The value {other} of propagateTags is not valid."
        ))),
    }
}

/// The tags that ECS gives a task by itself, as the members of the service or of RunTask say.
fn given(
    state: &State,
    members: &Input<'_>,
    sources: [(&str, &str); 2],
    managed: &[(&str, &str)],
) -> Tags {
    let wanted = members.text("propagateTags").ok().flatten();
    let source = sources.iter().find(|(word, _)| Some(*word) == wanted);
    let propagated = source.and_then(|(_, arn)| state.tags.get(arn));
    let mut tags = propagated.cloned().unwrap_or_default();
    // What ECS manages cannot be passed on: it says where the task itself is.
    tags.retain(|key, _| !key.starts_with("aws:"));
    if let Ok(Some(true)) = members.flag("enableECSManagedTags") {
        tags.extend(managed.iter().map(|(what, name)| {
            let key = format!("aws:ecs:{what}");
            (key, (*name).to_owned())
        }));
    }
    tags
}

/// The tags of a new task of RunTask: those of the request go over those that it asks for.
pub(super) fn of_run_task(
    state: &State,
    input: &Input<'_>,
    cluster: &str,
    definition: &str,
    own: &Tags,
) -> Tags {
    let sources = [("TASK_DEFINITION", definition), ("SERVICE", "")];
    let mut tags = given(state, input, sources, &[("clusterName", cluster)]);
    tags.extend(own.clone());
    tags
}

/// Gives new tasks of a service their tags.
pub(crate) fn tag_new(app: &App, state: &mut State, key: &str, tasks: &[&str]) {
    for id in tasks {
        let Some(service) = state.services.get(key) else {
            return;
        };
        let Some(task) = service.tasks.iter().find(|task| task.id == *id) else {
            continue;
        };
        let (cluster, name) = (&service.cluster, &service.name);
        let own = show::service_arn(app, cluster, name);
        let sources = [
            ("TASK_DEFINITION", task.definition_arn.as_str()),
            ("SERVICE", own.as_str()),
        ];
        let managed = [("clusterName", cluster.as_str()), ("serviceName", name)];
        let tags = given(state, &Input(&service.settings), sources, &managed);
        if !tags.is_empty() {
            let arn = show::task_arn(app, cluster, id);
            state.tags.insert(arn, tags);
        }
    }
}

/// Forgets the tags of a service's tasks that nobody can describe any more.
pub(crate) fn forget(app: &App, state: &mut State, key: &str, tasks: &[String]) {
    let Some((cluster, _)) = key.split_once('/') else {
        return;
    };
    for id in tasks {
        let arn = show::task_arn(app, cluster, id);
        state.tags.shift_remove(&arn);
    }
}

pub(super) async fn tag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    let tags = input.tags("tags")?;
    app.store
        .change(|state| {
            check(state, arn)?;
            state.tags.row(arn).extend(tags);
            Ok(Reply::changed(json!({})))
        })
        .await
}

pub(super) async fn untag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    let keys = input.texts("tagKeys")?;
    app.store
        .change(|state| {
            check(state, arn)?;
            let tags = state.tags.row(arn);
            tags.retain(|key, _| !keys.contains(&key.as_str()));
            Ok(Reply::changed(json!({})))
        })
        .await
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("resourceArn")?;
    app.store.read(|state| {
        check(state, arn)?;
        Ok(Reply::read(
            json!({"tags": state.tags.get(arn).map_or_else(|| json!([]), show_tags)}),
        ))
    })
}
