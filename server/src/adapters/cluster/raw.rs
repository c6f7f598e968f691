//! Task definitions as raw JSON: read past the SDK's types, written past them.

use super::{Cluster, ServiceAddress, describe_service, once};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ecs::types::TaskDefinitionField;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_types::body::SdkBody;
use roadstead_pipelines::task_definition::DEPLOYMENT_TAG;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// A definition to make the next revision from.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// The definition as ECS describes it, every member of it.
    pub definition: Value,
    /// Its tags, which ECS keeps beside it.
    pub tags: Vec<Value>,
}

impl Base {
    /// A definition as RegisterTaskDefinition takes it, where its tags stand within.
    #[must_use]
    pub fn from_file(mut definition: Value) -> Self {
        let tags = definition
            .as_object_mut()
            .and_then(|it| it.shift_remove("tags"));
        let tags = tags.and_then(|tags| tags.as_array().cloned());
        Self {
            definition,
            tags: tags.unwrap_or_default(),
        }
    }

    fn arn(&self) -> Option<&str> {
        self.definition["taskDefinitionArn"].as_str()
    }

    fn was_made_by(&self, deployment: &str) -> bool {
        let is_ours = |tag: &Value| tag["key"] == DEPLOYMENT_TAG && tag["value"] == deployment;
        self.tags.iter().any(is_ours)
    }
}

/// Keeps the body of a reply. Only this late in a call is the whole body in memory.
#[derive(Debug, Clone, Default)]
struct KeepReply(Arc<Mutex<Option<Value>>>);

impl Intercept for KeepReply {
    fn name(&self) -> &'static str {
        "KeepReply"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let reply = context
            .response()
            .body()
            .bytes()
            .and_then(|b| serde_json::from_slice(b).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reply;
        Ok(())
    }
}

/// Describes a definition by ARN, `family:revision`, or family, which is its newest active revision.
pub(super) async fn describe(clients: &Clients, name: &str) -> Result<Base, AwsError> {
    const ACTION: &str = "ecs:DescribeTaskDefinition";
    let reply = KeepReply::default();
    let request = clients.ecs.describe_task_definition().task_definition(name);
    let request = request.include(TaskDefinitionField::Tags).customize();
    let answer = request.interceptor(reply.clone()).send().await;
    answer.map_err(|error| AwsError::of(ACTION, &error))?;
    let raw = reply
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let mut raw = raw.unwrap_or_default();
    if !raw["taskDefinition"].is_object() {
        let message = format!("the answer holds no definition `{name}`");
        return Err(AwsError::Unavailable {
            action: ACTION,
            message,
        });
    }
    let tags = raw["tags"].as_array().cloned().unwrap_or_default();
    Ok(Base {
        definition: raw["taskDefinition"].take(),
        tags,
    })
}

/// `web` of `arn:aws:ecs:eu-west-1:1:task-definition/web:7`.
fn family_of(definition: &str) -> &str {
    let name = definition.rsplit('/').next().unwrap_or(definition);
    name.split(':').next().unwrap_or(name)
}

/// The images and entry points of a definition's containers, in order.
fn what_runs(definition: &Value) -> Vec<(&Value, &Value)> {
    let containers = definition["containerDefinitions"].as_array();
    containers
        .into_iter()
        .flatten()
        .map(|container| (&container["image"], &container["entryPoint"]))
        .collect()
}

impl Cluster {
    /// The definition that a service names now.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn describe_base(&self, address: &ServiceAddress) -> Result<Base, AwsError> {
        let clients = self.clients(address).await;
        let service = describe_service(&clients, address).await?;
        describe(&clients, service.task_definition().unwrap_or_default()).await
    }

    /// The newest active definition of the family that a service runs one of.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn describe_newest(&self, address: &ServiceAddress) -> Result<Base, AwsError> {
        let clients = self.clients(address).await;
        let service = describe_service(&clients, address).await?;
        let runs = service.task_definition().unwrap_or_default();
        describe(&clients, family_of(runs)).await
    }

    /// Registers a definition for a deployment and says its ARN. When the family's newest revision
    /// carries the tag of that deployment, the call was made before and its reply was lost: that
    /// revision is the answer. With other images or entry points it is not: after the database came back from a copy,
    /// a deployment's number may be given again.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn register(
        &self,
        region: Option<&str>,
        definition: &Value,
        deployment: &str,
    ) -> Result<String, AwsError> {
        const ACTION: &str = "ecs:RegisterTaskDefinition";
        let clients = self.aws.clients(region).await;
        let family = definition["family"].as_str().unwrap_or_default();
        match describe(&clients, family).await {
            Ok(newest)
                if newest.was_made_by(deployment)
                    && what_runs(&newest.definition) == what_runs(definition) =>
            {
                if let Some(arn) = newest.arn() {
                    return Ok(arn.to_owned());
                }
            }
            // `ClientException` says that the family has no active revision.
            Err(error) if !error.has_code("ClientException") => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let body = definition.to_string();
        let request = clients
            .ecs
            .register_task_definition()
            .family(family)
            .customize()
            .config_override(once());
        let answer = request
            .mutate_request(move |request| {
                // Signing comes after this, and covers what stands here then.
                request
                    .headers_mut()
                    .insert("content-length", body.len().to_string());
                *request.body_mut() = SdkBody::from(body.clone());
            })
            .send()
            .await;
        let answer = answer.map_err(|error| AwsError::of(ACTION, &error))?;
        let arn = answer
            .task_definition()
            .and_then(|made| made.task_definition_arn());
        arn.map(str::to_owned).ok_or_else(|| AwsError::Unavailable {
            action: ACTION,
            message: "the answer does not name the definition".into(),
        })
    }
}
