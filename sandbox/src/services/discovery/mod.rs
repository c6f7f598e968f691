//! AWS Cloud Map: namespaces and services that ECS services register their tasks with, and who asks
//! for them.
//!
//! Instances are not kept: they are the tasks that run now, so nobody else can register one. Every
//! operation has succeeded by the time its id is given out. Must not know: how a name resolves inside
//! a task.

mod instances;
mod namespaces;
mod services;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ecs::input::Input;
use super::{AwsError, JsonResult, Reply};
use crate::app::App;
use crate::clock::Time;
use crate::scheduler::Ids;
use crate::state::State;

/// The largest page, and the one without `MaxResults`.
const MOST_ON_PAGE: usize = 100;

/// Whether names of a namespace are in its DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NamespaceKind {
    /// Its services are found by DiscoverInstances alone.
    Http,
    /// Its services have names in a network of their own.
    PrivateDns,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Namespace {
    /// `ns-` and 16 characters.
    pub id: String,
    pub name: String,
    pub kind: NamespaceKind,
    pub created_at: Time,
    /// The operation that made it.
    pub operation: String,
    pub creator_request_id: Option<String>,
    /// Members that are only shown again.
    pub shown: Map<String, Value>,
}

/// A service of Cloud Map, which ECS calls a service registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Registry {
    /// `srv-` and 16 characters.
    pub id: String,
    pub name: String,
    /// The namespace's id.
    pub namespace: String,
    pub created_at: Time,
    /// It has a name in its namespace's DNS.
    pub in_dns: bool,
    /// ECS tells it how tasks are.
    pub told_health: bool,
    pub creator_request_id: Option<String>,
    /// Members that are only shown again.
    pub shown: Map<String, Value>,
}

/// Something that was asked for and has been done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub id: String,
    /// AWS's word, such as `CREATE_NAMESPACE`.
    pub kind: String,
    /// The namespace's id.
    pub namespace: String,
    pub at: Time,
}

/// Answers one call of `Route53AutoNaming_v20170314`.
pub(crate) async fn handle(app: &App, operation: &str, body: &Value) -> JsonResult {
    let input = Input::new(body)?;
    let result = match operation {
        "CreateHttpNamespace" => namespaces::create(app, &input, NamespaceKind::Http).await,
        "CreatePrivateDnsNamespace" => {
            namespaces::create(app, &input, NamespaceKind::PrivateDns).await
        }
        "GetNamespace" => namespaces::get(app, &input),
        "ListNamespaces" => namespaces::list(app, &input),
        "DeleteNamespace" => namespaces::delete(app, &input).await,
        "GetOperation" => namespaces::get_operation(app, &input),
        "CreateService" => services::create(app, &input).await,
        "GetService" => services::get(app, &input),
        "ListServices" => services::list(app, &input),
        "DeleteService" => services::delete(app, &input).await,
        "ListInstances" => instances::list(app, &input),
        "GetInstancesHealthStatus" => instances::health_status(app, &input),
        "DiscoverInstances" => instances::discover(app, &input),
        "TagResource" => tag(app, &input).await,
        "UntagResource" => untag(app, &input).await,
        "ListTagsForResource" => list_tags(app, &input),
        other => Err(AwsError::unsupported_operation(other)),
    };
    result.map_err(|error| match error.code.as_str() {
        // What every service says of a value, in Cloud Map's words.
        "InvalidParameterException" => invalid(error.message),
        _ => error,
    })
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidInput", message)
}

/// The id in an id or an ARN.
fn plain(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

pub(super) fn namespace_arn(app: &App, id: &str) -> String {
    app.config
        .arn("servicediscovery", &format!("namespace/{id}"))
}

pub(super) fn registry_arn(app: &App, id: &str) -> String {
    app.config.arn("servicediscovery", &format!("service/{id}"))
}

/// The registry with that ARN.
pub(super) fn registry<'a>(state: &'a State, arn: &str) -> Option<&'a Registry> {
    let (_, id) = arn.split_once(":service/")?;
    arn.contains(":servicediscovery:")
        .then(|| state.registries.get(id))?
}

/// The name that tasks reach a registry's tasks by; None when it is not in DNS.
pub(super) fn dns_name(state: &State, registry: &Registry) -> Option<String> {
    let namespace = state.namespaces.get(&registry.namespace)?;
    let named = registry.in_dns && namespace.kind == NamespaceKind::PrivateDns;
    named.then(|| format!("{}.{}", registry.name, namespace.name))
}

/// A new id: the prefix and 16 characters.
fn new_id(app: &App, prefix: &str) -> String {
    let mut random = || app.clock.draw();
    format!("{prefix}-{}", &Ids(&mut random).hex()[..16])
}

fn tags(input: &Input<'_>) -> Result<IndexMap<String, String>, AwsError> {
    input
        .list("Tags")?
        .iter()
        .map(|tag| {
            let tag = Input::new(tag)?;
            let value = tag.text("Value")?.unwrap_or_default();
            Ok((tag.required("Key")?.to_owned(), value.to_owned()))
        })
        .collect()
}

/// One page of a list, under that name.
fn page(input: &Input<'_>, member: &str, items: Vec<Value>) -> JsonResult {
    let (page, next) = one_page(input, items)?;
    let mut body = json!({ member: page });
    if let Some(next) = next {
        body["NextToken"] = json!(next);
    }
    Ok(Reply::read(body))
}

/// Up to `MaxResults` of the items from `NextToken` on, and the token of the next page.
fn one_page<T>(input: &Input<'_>, items: Vec<T>) -> Result<(Vec<T>, Option<String>), AwsError> {
    let size = input.number("MaxResults")?.map_or(MOST_ON_PAGE, |wanted| {
        (wanted as usize).clamp(1, MOST_ON_PAGE)
    });
    super::paging::page(items, input.text("NextToken")?, size)
        .ok_or_else(|| invalid("Invalid NextToken."))
}

/// What a list is narrowed by: names of filters, and the values that match.
fn filters<'a>(
    input: &Input<'a>,
    known: &[&str],
) -> Result<Vec<(&'a str, Vec<&'a str>)>, AwsError> {
    input
        .list("Filters")?
        .iter()
        .map(|filter| {
            let filter = Input::new(filter)?;
            let name = filter.required("Name")?;
            if !known.contains(&name) {
                return Err(AwsError::unsupported_member(&format!(
                    "Filters.Name={name}"
                )));
            }
            match filter.text("Condition")?.unwrap_or("EQ") {
                "EQ" | "IN" => Ok((name, filter.texts("Values")?)),
                other => Err(AwsError::unsupported_member(&format!(
                    "Filters.Condition={other}"
                ))),
            }
        })
        .collect()
}

fn known_resource(state: &State, arn: &str) -> Result<(), AwsError> {
    if arn.contains(":servicediscovery:") && state.tags.contains_key(arn) {
        return Ok(());
    }
    Err(AwsError::client(
        "ResourceNotFoundException",
        format!("Resource {arn} not found."),
    ))
}

async fn tag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("ResourceARN")?;
    let tags = tags(input)?;
    app.store
        .change(|state| {
            known_resource(state, arn)?;
            state.tags.row(arn).extend(tags);
            Ok(Reply::changed(json!({})))
        })
        .await
}

async fn untag(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("ResourceARN")?;
    let keys = input.texts("TagKeys")?;
    app.store
        .change(|state| {
            known_resource(state, arn)?;
            state
                .tags
                .row(arn)
                .retain(|key, _| !keys.contains(&key.as_str()));
            Ok(Reply::changed(json!({})))
        })
        .await
}

fn list_tags(app: &App, input: &Input<'_>) -> JsonResult {
    let arn = input.required("ResourceARN")?;
    app.store.read(|state| {
        known_resource(state, arn)?;
        let tags: Vec<Value> = state
            .tags
            .get(arn)
            .into_iter()
            .flatten()
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        Ok(Reply::read(json!({ "Tags": tags })))
    })
}
