//! What has to be known of a definition in order to watch its tasks.

use super::Cluster;
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::LogDriver;
use std::sync::Arc;

/// Where a container's log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogPlace {
    /// The Region of the group; the task's own when absent.
    pub(super) region: Option<String>,
    /// The log group.
    pub(super) group: String,
    /// First part of the stream's name.
    pub(super) prefix: String,
}

/// One container of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerDefinition {
    pub(super) name: String,
    /// Set when its log can be read back.
    pub(super) log: Option<LogPlace>,
    /// It has a health check of its own.
    pub(super) is_checked: bool,
}

/// A definition, as far as watching needs it. A revision never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) containers: Vec<ContainerDefinition>,
}

impl Definition {
    /// Some container has a health check, so that tasks report a health.
    pub(super) fn is_checked(&self) -> bool {
        self.containers.iter().any(|container| container.is_checked)
    }

    fn of(definition: &aws_sdk_ecs::types::TaskDefinition) -> Self {
        let container = |container: &aws_sdk_ecs::types::ContainerDefinition| ContainerDefinition {
            name: container.name().unwrap_or_default().to_owned(),
            log: container.log_configuration().and_then(log_place),
            is_checked: container.health_check().is_some(),
        };
        Self {
            containers: definition
                .container_definitions()
                .iter()
                .map(container)
                .collect(),
        }
    }
}

fn log_place(log: &aws_sdk_ecs::types::LogConfiguration) -> Option<LogPlace> {
    if *log.log_driver() != LogDriver::Awslogs {
        return None;
    }
    let option = |key| log.options().and_then(|options| options.get(key)).cloned();
    Some(LogPlace {
        region: option("awslogs-region"),
        group: option("awslogs-group")?,
        prefix: option("awslogs-stream-prefix")?,
    })
}

impl Cluster {
    pub(super) async fn definition(
        &self,
        clients: &Clients,
        arn: &str,
    ) -> Result<Arc<Definition>, AwsError> {
        if let Some(known) = self.definitions.get(arn) {
            return Ok(known);
        }
        let answer = clients
            .ecs
            .describe_task_definition()
            .task_definition(arn)
            .send()
            .await;
        let answer = answer.map_err(|error| AwsError::of("ecs:DescribeTaskDefinition", &error))?;
        let found = answer.task_definition().map(Definition::of);
        let found = Arc::new(found.unwrap_or(Definition { containers: vec![] }));
        self.definitions.keep(arn, found.clone());
        Ok(found)
    }
}
