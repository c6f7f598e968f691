//! Amazon ECS: clusters, task definitions, services, tasks, service deployments, tags.
//!
//! Every handler validates the whole request before it changes anything. What a request asks for
//! and the sandbox cannot do is refused by name.

mod clusters;
mod configuration;
mod definitions;
pub(super) mod input;
pub(crate) mod instances;
pub(crate) mod launch;
mod limits;
mod names;
mod registries;
mod service_deployments;
mod services;
mod show;
mod sizes;
pub(crate) mod tags;
pub(crate) mod tasks;

use serde_json::Value;

use super::{AwsError, JsonResult};
use crate::app::App;
use crate::state::State;
use input::Input;

/// Answers one call of `AmazonEC2ContainerServiceV20141113`.
pub(crate) async fn handle(app: &App, operation: &str, body: &Value) -> JsonResult {
    let input = Input::new(body)?;
    match operation {
        "CreateCluster" => clusters::create(app, &input).await,
        "DescribeClusters" => clusters::describe(app, &input),
        "ListClusters" => clusters::list(app, &input),
        "DeleteCluster" => clusters::delete(app, &input).await,
        "ListContainerInstances" => instances::list(app, &input),
        "DescribeContainerInstances" => instances::describe(app, &input),
        "UpdateContainerInstancesState" => instances::update_state(app, &input).await,
        "RegisterTaskDefinition" => definitions::register(app, &input).await,
        "DescribeTaskDefinition" => definitions::describe(app, &input),
        "ListTaskDefinitions" => definitions::list(app, &input),
        "ListTaskDefinitionFamilies" => definitions::list_families(app, &input),
        "DeregisterTaskDefinition" => definitions::deregister(app, &input).await,
        "CreateService" => services::create(app, &input).await,
        "UpdateService" => services::update(app, &input).await,
        "DescribeServices" => services::describe(app, &input),
        "ListServices" => services::list(app, &input),
        "DeleteService" => services::delete(app, &input).await,
        "RunTask" => tasks::run(app, &input).await,
        "StopTask" => tasks::stop(app, &input).await,
        "DescribeTasks" => tasks::describe(app, &input),
        "ListTasks" => tasks::list(app, &input),
        "ListServiceDeployments" => service_deployments::list(app, &input),
        "DescribeServiceDeployments" => service_deployments::describe(app, &input),
        "DescribeServiceRevisions" => service_deployments::describe_revisions(app, &input),
        "StopServiceDeployment" => service_deployments::stop(app, &input).await,
        "ContinueServiceDeployment" => service_deployments::resume(app, &input),
        "TagResource" => tags::tag(app, &input).await,
        "UntagResource" => tags::untag(app, &input).await,
        "ListTagsForResource" => tags::list(app, &input),
        other => Err(AwsError::unsupported_operation(other)),
    }
}

/// The last part of a name or ARN.
fn short(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

/// The name or id of something in a cluster, given alone or by ARN.
fn identifier<'a>(name: &'a str, cluster: &str) -> Result<&'a str, AwsError> {
    let resource = name
        .strip_prefix("arn:")
        .and_then(|it| it.splitn(5, ':').nth(4));
    let mut parts = resource.unwrap_or_default().split('/').skip(1);
    match (parts.next(), parts.next()) {
        // An ARN of the old form has no cluster.
        (Some(owner), Some(_)) if owner != cluster => Err(input::invalid(format!(
            "Invalid identifier: Identifier is for cluster {owner}. Your cluster is {cluster}"
        ))),
        _ => Ok(short(name)),
    }
}

/// The name of an existing cluster, given by name, by ARN or not at all.
fn cluster_name(state: &State, input: &Input<'_>) -> Result<String, AwsError> {
    let name = short(
        input
            .text("cluster")?
            .filter(|name| !name.is_empty())
            .unwrap_or("default"),
    );
    match state.clusters.get(name) {
        Some(cluster) if cluster.active => Ok(name.to_owned()),
        _ => Err(AwsError::client(
            "ClusterNotFoundException",
            "Cluster not found.",
        )),
    }
}

/// The ARN's resource, split at its slashes, when its kind is `kind`.
fn arn_parts<'a>(arn: &'a str, kind: &str) -> Option<Vec<&'a str>> {
    let resource = arn.splitn(6, ':').nth(5)?;
    let mut parts = resource.split('/');
    (parts.next() == Some(kind)).then(|| parts.collect())
}

/// Whether a name has 1 to `longest` letters, digits, hyphens and underscores.
fn well_named(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
