//! Tasks of a service: which stopped and why, and which are healthy by every check there is.

use super::{Cluster, ServiceAddress};
use crate::adapters::aws::{AwsError, Clients};
use aws_sdk_ecs::types::{DesiredStatus, HealthStatus, LoadBalancer, Task};
use aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription;
use jiff::Timestamp;
use roadstead_pipelines::observation::{StoppedTask, TargetSeen};

/// DescribeTasks takes so many ARNs.
const TASKS_PER_CALL: usize = 100;
/// Stopped tasks that are kept of one look.
const MOST_STOPPED: usize = 20;
/// So many of them are asked for their last lines.
const MOST_HEARD: usize = 3;

/// An AWS time as ours; `None` when it is out of range.
pub(super) fn time(at: Option<&aws_sdk_ecs::primitives::DateTime>) -> Option<Timestamp> {
    let at = at?;
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

/// All tasks of a service that are to run, or that stopped within the last hour or so.
pub(super) async fn list(
    clients: &Clients,
    address: &ServiceAddress,
    status: DesiredStatus,
) -> Result<Vec<Task>, AwsError> {
    let pages = clients
        .ecs
        .list_tasks()
        .cluster(&address.cluster)
        .service_name(&address.service)
        .desired_status(status)
        .into_paginator()
        .items()
        .send();
    let arns: Result<Vec<String>, _> = pages.collect().await;
    let arns = arns.map_err(|error| AwsError::of("ecs:ListTasks", &error))?;
    let mut tasks = vec![];
    for arns in arns.chunks(TASKS_PER_CALL) {
        let request = clients.ecs.describe_tasks().cluster(&address.cluster);
        let answer = request.set_tasks(Some(arns.to_vec())).send().await;
        let answer = answer.map_err(|error| AwsError::of("ecs:DescribeTasks", &error))?;
        tasks.extend(answer.tasks.unwrap_or_default());
    }
    Ok(tasks)
}

pub(super) fn stopped(task: &Task) -> StoppedTask {
    let containers = || task.containers().iter();
    let reason = containers().find_map(|c| c.reason().filter(|reason| !reason.is_empty()));
    StoppedTask {
        task: task.task_arn().unwrap_or_default().to_owned(),
        started_by: task.started_by().unwrap_or_default().to_owned(),
        stop_code: task
            .stop_code()
            .map(|code| code.as_str().to_owned())
            .unwrap_or_default(),
        reason: task.stopped_reason().unwrap_or_default().to_owned(),
        exit_codes: containers()
            .filter_map(|c| Some((c.name()?.to_owned(), i64::from(c.exit_code()?))))
            .collect(),
        container_reason: reason.unwrap_or_default().to_owned(),
        last_lines: vec![],
        stopped_at: time(task.stopped_at()),
    }
}

/// Whether a stopped task failed a check of its health, by ECS's words: it may have ended well when it
/// was then asked to.
pub(super) fn failed_checks(task: &StoppedTask) -> bool {
    task.reason.starts_with("Task failed")
}

/// Whether a stopped task's last lines tell something. Scaling in stops good tasks, which then exit by
/// signal.
fn has_last_words(task: &StoppedTask) -> bool {
    let scaled_in = task.reason.starts_with("Scaling activity");
    let failed = task.exit_codes.values().any(|code| *code != 0);
    failed_checks(task) || (failed && !scaled_in)
}

impl Cluster {
    /// The service's tasks that stopped lately, newest first, the newest failed ones with last lines.
    pub(super) async fn stopped(
        &self,
        clients: &Clients,
        address: &ServiceAddress,
    ) -> Result<Vec<StoppedTask>, AwsError> {
        let tasks = list(clients, address, DesiredStatus::Stopped).await?;
        // A task that is on its way down is listed too; its exit statuses come last.
        let ended = tasks
            .iter()
            .filter(|task| task.last_status() == Some("STOPPED"));
        let mut all: Vec<_> = ended
            .map(|task| {
                (
                    stopped(task),
                    task.task_definition_arn().unwrap_or_default(),
                )
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| b.stopped_at.cmp(&a.stopped_at).then(a.task.cmp(&b.task)));
        all.truncate(MOST_STOPPED);
        let mut heard = 0;
        for (task, definition) in &mut all {
            if heard < MOST_HEARD && has_last_words(task) {
                task.last_lines = self.last_words(clients, task, definition).await?;
                heard += 1;
            }
        }
        Ok(all.into_iter().map(|(task, _)| task).collect())
    }

    /// The targets of the service's target groups.
    pub(super) async fn groups(
        &self,
        clients: &Clients,
        load_balancers: &[LoadBalancer],
    ) -> Result<Vec<Group>, AwsError> {
        let mut groups = vec![];
        for load_balancer in load_balancers {
            // A classic load balancer has no target group and no target health.
            let Some(arn) = load_balancer.target_group_arn() else {
                continue;
            };
            let request = clients
                .load_balancers
                .describe_target_health()
                .target_group_arn(arn);
            let answer = request.send().await;
            let answer = answer.map_err(|error| {
                AwsError::of("elasticloadbalancing:DescribeTargetHealth", &error)
            })?;
            let described = answer.target_health_descriptions();
            groups.push(Group {
                container: load_balancer
                    .container_name()
                    .unwrap_or_default()
                    .to_owned(),
                port: load_balancer.container_port().unwrap_or_default(),
                targets: described.iter().map(Target::of).collect(),
            });
        }
        Ok(groups)
    }

    /// The EC2 instance below a task; `None` on Fargate, or when it may not be read.
    pub(super) async fn instance(
        &self,
        clients: &Clients,
        cluster: &str,
        container_instance: &str,
    ) -> Option<String> {
        if let Some(known) = self.instances.get(container_instance) {
            return Some(known);
        }
        let request = clients.ecs.describe_container_instances().cluster(cluster);
        let answer = request
            .container_instances(container_instance)
            .send()
            .await
            .ok()?;
        let instance = answer
            .container_instances()
            .first()?
            .ec2_instance_id()?
            .to_owned();
        self.instances.keep(container_instance, instance.clone());
        Some(instance)
    }
}

/// A target group as one service uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    container: String,
    port: i32,
    pub(super) targets: Vec<Target>,
}

/// One target of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    id: String,
    port: i32,
    state: String,
    reason: String,
}

impl Target {
    fn of(described: &TargetHealthDescription) -> Self {
        let health = described.target_health();
        let code = health
            .and_then(|health| health.reason())
            .map(|code| code.as_str());
        let words = health.and_then(|health| health.description());
        Self {
            id: described
                .target()
                .and_then(|t| t.id())
                .unwrap_or_default()
                .to_owned(),
            port: described
                .target()
                .and_then(|t| t.port())
                .unwrap_or_default(),
            state: health
                .and_then(|h| h.state())
                .map(|s| s.as_str().to_owned())
                .unwrap_or_default(),
            reason: words.or(code).unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn seen(&self) -> TargetSeen {
        TargetSeen {
            target: format!("{}:{}", self.id, self.port),
            state: self.state.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// A running task with the EC2 instance below it, where there is one.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) instance: Option<String>,
}

impl Running {
    /// Running, and healthy by every check: its containers' own when `has_checks`, and every group's.
    pub(super) fn is_healthy(&self, groups: &[Group], has_checks: bool) -> bool {
        self.task.last_status() == Some("RUNNING")
            && (!has_checks || self.task.health_status() == Some(&HealthStatus::Healthy))
            && groups.iter().all(|group| {
                let own = group
                    .targets
                    .iter()
                    .filter(|target| self.is_target(group, target));
                let mut states = own.map(|target| target.state.as_str()).peekable();
                states.peek().is_some() && states.all(|state| state == "healthy")
            })
    }

    /// Whether `target` is this task: by the address of its own network interface, or by the port that
    /// its container has on the host.
    fn is_target(&self, group: &Group, target: &Target) -> bool {
        let details = self
            .task
            .attachments()
            .iter()
            .flat_map(|attachment| attachment.details());
        let mut addresses = details.filter(|detail| detail.name() == Some("privateIPv4Address"));
        if addresses.any(|address| address.value() == Some(&target.id)) {
            return target.port == group.port;
        }
        let containers = self.task.containers().iter();
        let bindings = containers
            .filter(|container| container.name() == Some(&group.container))
            .flat_map(|container| container.network_bindings());
        bindings
            .filter(|b| b.container_port() == Some(group.port))
            .any(|binding| {
                // An address that the port is bound to says as much as the instance does.
                let on_this_host = binding.bind_ip() == Some(&target.id)
                    || match &self.instance {
                        Some(instance) => *instance == target.id,
                        // Which instance it is may be unreadable; then the port alone has to do.
                        None => target.id.starts_with("i-"),
                    };
                on_this_host && binding.host_port() == Some(target.port)
            })
    }
}
