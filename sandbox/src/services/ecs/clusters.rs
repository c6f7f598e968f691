//! Clusters: names under which services and tasks live.

use serde_json::{Value, json};

use super::input::{Input, invalid, show_tags};
use super::{short, well_named};
use crate::app::App;
use crate::scheduler::{Ids, ServiceStatus, TaskStatus};
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::{Cluster, State, instances};

fn arn(app: &App, name: &str) -> String {
    app.config.arn("ecs", &format!("cluster/{name}"))
}

pub(super) async fn create(app: &App, input: &Input<'_>) -> JsonResult {
    let name = input.text("clusterName")?.unwrap_or("default").to_owned();
    if !well_named(&name, 255) {
        return Err(invalid(
            "Cluster names can contain up to 255 letters, digits, hyphens and underscores.",
        ));
    }
    let tags = input.tags("tags")?;
    let settings = input.copy(&["settings", "configuration", "serviceConnectDefaults"]);
    let created_at = app.clock.now();
    app.store
        .change(|state| {
            let arn = arn(app, &name);
            let known = state.clusters.get(&name).filter(|one| one.active);
            if known.is_none() {
                state.clusters.insert(
                    name.clone(),
                    Cluster {
                        name: name.clone(),
                        active: true,
                        created_at,
                        settings,
                        instances: instances::usual(created_at, &mut Ids(&mut || app.clock.draw())),
                    },
                );
                state.tags.insert(arn, tags);
                Ok(Reply::changed(
                    json!({"cluster": show(app, state, &name, true)}),
                ))
            } else {
                Ok(Reply::read(
                    json!({"cluster": show(app, state, &name, true)}),
                ))
            }
        })
        .await
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let mut names = input.texts("clusters")?;
    if names.is_empty() {
        names.push("default");
    }
    let with_tags = input.includes("TAGS")?;
    Ok(Reply::read(app.store.read(|state| {
        let (mut clusters, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            match show(app, state, short(name), with_tags) {
                Value::Null => {
                    failures.push(json!({"arn": arn(app, short(name)), "reason": "MISSING"}));
                }
                cluster => clusters.push(cluster),
            }
        }
        json!({"clusters": clusters, "failures": failures})
    })))
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let arns = app.store.read(|state| {
        state
            .clusters
            .values()
            .filter(|cluster| cluster.active)
            .map(|cluster| arn(app, &cluster.name))
            .collect()
    });
    let (page, next) = input.page(arns, 100)?;
    Ok(Reply::read(json!({"clusterArns": page, "nextToken": next})))
}

pub(super) async fn delete(app: &App, input: &Input<'_>) -> JsonResult {
    let name = short(input.required("cluster")?).to_owned();
    app.store
        .change(|state| {
            let services = state.services.values().any(|service| {
                service.cluster == name && service.status != ServiceStatus::Inactive
            });
            let tasks = state
                .all_tasks()
                .any(|found| found.cluster == name && found.task.status != TaskStatus::Stopped);
            let cluster = state
                .clusters
                .get_mut(&name)
                .filter(|cluster| cluster.active)
                .ok_or_else(|| {
                    AwsError::client("ClusterNotFoundException", "Cluster not found.")
                })?;
            if services {
                return Err(AwsError::client(
                    "ClusterContainsServicesException",
                    "The Cluster cannot be deleted while Services are active.",
                ));
            }
            if tasks {
                return Err(AwsError::client(
                    "ClusterContainsTasksException",
                    "The Cluster cannot be deleted while Tasks are active.",
                ));
            }
            cluster.active = false;
            cluster.instances.clear();
            Ok(Reply::changed(
                json!({"cluster": show(app, state, &name, false)}),
            ))
        })
        .await
}

/// The cluster as AWS shows it; null when there is none.
fn show(app: &App, state: &State, name: &str, with_tags: bool) -> Value {
    let Some(cluster) = state.clusters.get(name) else {
        return Value::Null;
    };
    let (mut running, mut pending) = (0, 0);
    for found in state.all_tasks().filter(|found| found.cluster == name) {
        running += u32::from(found.task.status == TaskStatus::Running);
        pending += u32::from(found.task.status < TaskStatus::Running);
    }
    let services = state
        .services
        .values()
        .filter(|service| service.cluster == name && service.status == ServiceStatus::Active)
        .count();
    let arn = arn(app, name);
    let mut shown = json!({
        "clusterArn": arn,
        "clusterName": name,
        "status": if cluster.active { "ACTIVE" } else { "INACTIVE" },
        "registeredContainerInstancesCount": cluster.instances.len(),
        "runningTasksCount": running,
        "pendingTasksCount": pending,
        "activeServicesCount": services,
        "statistics": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
        "tags": [],
    });
    for (member, value) in &cluster.settings {
        shown[member] = value.clone();
    }
    if with_tags && let Some(tags) = state.tags.get(&arn) {
        shown["tags"] = show_tags(tags);
    }
    shown
}
