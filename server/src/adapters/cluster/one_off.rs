//! One task beside a service: with its definition, in its network, and with a command of its own.

use super::tasks::stopped;
use super::{Cluster, ServiceAddress, describe_service, raw};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::Task;
use roadstead_pipelines::observation::StoppedTask;
use roadstead_pipelines::task_definition::{container_of, one_off};

/// A task to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneOff<'a> {
    /// The service's definition that it is made from.
    pub task_definition: &'a str,
    /// The container that runs the command; none takes the only one, or the first essential.
    pub container: Option<&'a str>,
    /// The words of the command.
    pub command: &'a [String],
    /// For this deployment.
    pub deployment: &'a str,
    /// At most 36 letters, digits and `-`: the same for each try, and no other task's.
    pub token: &'a str,
}

/// What a look at such a task showed.
#[derive(Debug, Clone, PartialEq)]
pub enum OneOffSeen {
    /// It is on its way, runs, or is on its way down.
    Alive,
    /// It has ended.
    Stopped {
        /// How.
        task: Box<StoppedTask>,
        /// The container whose end counts.
        container: String,
    },
    /// ECS does not know it: not yet, or no longer.
    Unknown,
}

impl Cluster {
    /// Starts a task, and says its ARN. The same token starts it once, however often it is asked for:
    /// ECS keeps a client token for at least a day.
    ///
    /// # Errors
    /// [`AwsError`]; transient also when there is no room for it now.
    pub async fn start_one_off(
        &self,
        address: &ServiceAddress,
        wanted: &OneOff<'_>,
    ) -> Result<String, AwsError> {
        const ACTION: &str = "ecs:RunTask";
        let clients = self.clients(address).await;
        let base = raw::describe(&clients, wanted.task_definition).await?;
        let definition = one_off(
            &base.definition,
            &base.tags,
            wanted.container,
            wanted.command,
        )
        .map_err(|error| AwsError::Other {
            action: ACTION,
            code: "CannotRevise".into(),
            message: error.to_string(),
        })?;
        let region = address.region.as_deref();
        let definition = self
            .register(region, &definition, wanted.deployment)
            .await?;
        let service = describe_service(&clients, address).await?;
        let strategy = service.capacity_provider_strategy.clone();
        let request = clients
            .ecs
            .run_task()
            .cluster(&address.cluster)
            .task_definition(definition)
            .count(1)
            .client_token(wanted.token)
            .started_by(wanted.token)
            .set_network_configuration(service.network_configuration().cloned())
            .set_platform_version(service.platform_version().map(str::to_owned));
        // One of the two.
        let request = match strategy.filter(|strategy| !strategy.is_empty()) {
            Some(strategy) => request.set_capacity_provider_strategy(Some(strategy)),
            None => request.set_launch_type(service.launch_type().cloned()),
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| AwsError::of(ACTION, &error))?;
        if let Some(task) = answer.tasks().first().and_then(Task::task_arn) {
            return Ok(task.to_owned());
        }
        let reasons: Vec<&str> = answer
            .failures()
            .iter()
            .filter_map(|f| f.reason())
            .collect();
        Err(AwsError::Unavailable {
            action: ACTION,
            message: match reasons.as_slice() {
                [] => "the answer names no task".to_owned(),
                reasons => format!("it has no room for the task: {}", reasons.join(", ")),
            },
        })
    }

    /// Looks at such a task; one that ended badly is shown with its last lines. `container` as in
    /// [`OneOff`].
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn see_one_off(
        &self,
        address: &ServiceAddress,
        task: &str,
        container: Option<&str>,
    ) -> Result<OneOffSeen, AwsError> {
        let clients = self.clients(address).await;
        let Some(found) = describe_task(&clients, address, task).await? else {
            return Ok(OneOffSeen::Unknown);
        };
        if found.last_status() != Some("STOPPED") {
            return Ok(OneOffSeen::Alive);
        }
        let definition = found.task_definition_arn().unwrap_or_default();
        let base = raw::describe(&clients, definition).await?;
        let container = container_of(&base.definition, container);
        let container = container
            .and_then(|it| it["name"].as_str())
            .unwrap_or_default();
        let mut task = stopped(&found);
        task.last_lines = self.last_words(&clients, &task, definition).await?;
        Ok(OneOffSeen::Stopped {
            task: Box::new(task),
            container: container.to_owned(),
        })
    }

    /// Asks ECS to stop such a task; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn stop_one_off(
        &self,
        address: &ServiceAddress,
        task: &str,
        reason: &str,
    ) -> Result<(), AwsError> {
        let clients = self.clients(address).await;
        let request = clients.ecs.stop_task().cluster(&address.cluster).task(task);
        let answer = request.reason(reason).send().await;
        match answer.map_err(|error| AwsError::of("ecs:StopTask", &error)) {
            // ECS has forgotten it: it ended long ago.
            Err(error) if !error.has_code("InvalidParameterException") => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

async fn describe_task(
    clients: &Clients,
    address: &ServiceAddress,
    task: &str,
) -> Result<Option<Task>, AwsError> {
    let request = clients.ecs.describe_tasks().cluster(&address.cluster);
    let answer = request.tasks(task).send().await;
    let answer = answer.map_err(|error| AwsError::of("ecs:DescribeTasks", &error))?;
    Ok(answer.tasks.unwrap_or_default().into_iter().next())
}
