//! One task beside a service: with its definition, in its network, and with a command of its own.

use super::create::{launch_type, network};
use super::tasks::stopped;
use super::{Cluster, Service, ServiceAddress, describe_service, raw};
use crate::adapters::aws::{AwsError, Clients};
use crate::clock;
use aws_sdk_ecs::operation::run_task::builders::RunTaskFluentBuilder;
use aws_sdk_ecs::types::{DesiredStatus, Task};
use jiff::SignedDuration;
use roadstead_pipelines::observation::StoppedTask;
use roadstead_pipelines::spec::Create;
use roadstead_pipelines::task_definition::{container_of, one_off};

/// The last lines of a task that failed are waited for so long after its end.
const LINES_WITHIN: SignedDuration = SignedDuration::from_secs(20);

/// A task to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneOffStart<'a> {
    /// The service's definition that it is made from.
    pub task_definition: &'a str,
    /// The container that runs the command; none takes the only one, or the first essential.
    pub container: Option<&'a str>,
    /// The words of the command.
    pub command: &'a [String],
    /// What the service is to be made with, when there is none yet whose network and capacity the task could take.
    pub create: Option<&'a Create>,
    /// For this deployment.
    pub deployment: &'a str,
    /// At most 36 letters, digits and `-`: the same for each try, and no other task's.
    pub token: &'a str,
}

/// What a look at such a task showed.
#[derive(Debug, Clone, PartialEq)]
pub enum OneOffSeen {
    /// It is on its way, runs, is on its way down, or its last lines are on theirs.
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
    /// The ARN of the task that was started with this token, if there is one that ECS still knows.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn find_one_off(
        &self,
        address: &ServiceAddress,
        token: &str,
    ) -> Result<Option<String>, AwsError> {
        let clients = self.clients(address).await;
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let request = clients.ecs.list_tasks().cluster(&address.cluster);
            let answer = request
                .started_by(token)
                .desired_status(status)
                .send()
                .await;
            let answer = answer.map_err(|error| AwsError::of("ecs:ListTasks", &error))?;
            if let Some(task) = answer.task_arns().first() {
                return Ok(Some(task.clone()));
            }
        }
        Ok(None)
    }

    /// Starts a task, and says its ARN. Asked again with the same token soon after, ECS starts no second
    /// one; it keeps a token for a day at the most, so look with [`Cluster::find_one_off`] first.
    ///
    /// # Errors
    /// [`AwsError`]; transient also when there is no room for it now, and when the token was used with
    /// other parameters, as when the service's network was changed in between: then there is a task.
    pub async fn start_one_off(
        &self,
        address: &ServiceAddress,
        wanted: &OneOffStart<'_>,
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
        let request = clients
            .ecs
            .run_task()
            .cluster(&address.cluster)
            .task_definition(definition)
            .count(1)
            .client_token(wanted.token)
            .started_by(wanted.token);
        let request = match wanted.create {
            Some(create) => request
                .set_network_configuration(network(create))
                .set_launch_type(launch_type(create)),
            None => as_service(request, &describe_service(&clients, address).await?),
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| match AwsError::of(ACTION, &error) {
            AwsError::Other { code, message, .. } if code == "ConflictException" => {
                AwsError::Unavailable {
                    action: ACTION,
                    message,
                }
            }
            other => other,
        })?;
        if let Some(task) = answer.tasks().first().and_then(Task::task_arn) {
            return Ok(task.to_owned());
        }
        let failures = answer.failures().iter();
        let reasons: Vec<&str> = failures.filter_map(|failure| failure.reason()).collect();
        let message = if reasons.is_empty() {
            "the answer names no task".to_owned()
        } else {
            format!("no task was started: {}", reasons.join(", "))
        };
        let passes = |reason: &&str| {
            ["RESOURCE", "AGENT", "Capacity"]
                .iter()
                .any(|it| reason.starts_with(it))
        };
        Err(if reasons.iter().all(passes) {
            AwsError::Unavailable {
                action: ACTION,
                message,
            }
        } else {
            let code = "no task".into();
            AwsError::Other {
                action: ACTION,
                code,
                message,
            }
        })
    }

    /// Looks at such a task; one that ended badly is shown with its last lines, which are waited for a
    /// while, as logs arrive late.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn see_one_off(
        &self,
        address: &ServiceAddress,
        task: &str,
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
        // The essential one of its definition.
        let container = container_of(&base.definition, None);
        let name = container
            .and_then(|it| it["name"].as_str())
            .unwrap_or_default();
        let mut task = stopped(&found);
        if task.exit_codes.get(name).is_some_and(|code| *code != 0) {
            // What cannot be read must not hide how it ended.
            let lines = self.last_words(&clients, &task, definition).await;
            task.last_lines = lines.unwrap_or_default();
            let is_written =
                container.is_some_and(|it| it["logConfiguration"]["logDriver"] == "awslogs");
            let is_fresh = task
                .stopped_at
                .is_some_and(|at| clock::now().duration_since(at) < LINES_WITHIN);
            if task.last_lines.is_empty() && is_written && is_fresh {
                return Ok(OneOffSeen::Alive);
            }
        }
        Ok(OneOffSeen::Stopped {
            task: Box::new(task),
            container: name.to_owned(),
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

/// In the service's network and capacity.
fn as_service(request: RunTaskFluentBuilder, service: &Service) -> RunTaskFluentBuilder {
    let request = request
        .set_network_configuration(service.network_configuration().cloned())
        .set_platform_version(service.platform_version().map(str::to_owned))
        .set_placement_constraints(some_of(service.placement_constraints()))
        .set_placement_strategy(some_of(service.placement_strategy()));
    // One of the two.
    match some_of(service.capacity_provider_strategy()) {
        Some(strategy) => request.set_capacity_provider_strategy(Some(strategy)),
        None => request.set_launch_type(service.launch_type().cloned()),
    }
}

/// What is not empty: ECS takes no empty lists of these.
fn some_of<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
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
