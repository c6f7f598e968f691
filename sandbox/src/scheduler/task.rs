//! One task's life: from PROVISIONING to STOPPED.
//!
//! Invariants: the status only moves forward; a task that has a stop code keeps the first one; the
//! containers are stopped only after the targets drained, unless an essential one is gone already.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::{
    Desired, Effect, Moment, PortBinding, Revision, StopCode, TargetState, TaskEvent, Timings,
    words,
};
use super::placement::Placed;
use crate::clock::Time;

words!(
    /// Where a task is in its life.
    TaskStatus {
        Provisioning => "PROVISIONING",
        Pending => "PENDING",
        Activating => "ACTIVATING",
        Running => "RUNNING",
        Deactivating => "DEACTIVATING",
        Stopping => "STOPPING",
        Deprovisioning => "DEPROVISIONING",
        Stopped => "STOPPED",
    }
);

/// A container that ended sooner than this never came up.
const QUICK_EXIT_MS: u64 = 1000;

/// One container of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskContainer {
    pub name: String,
    pub image: String,
    pub image_digest: Option<String>,
    pub essential: bool,
    /// The definition has a health check for it.
    pub checked: bool,
    pub started: bool,
    pub exited: bool,
    pub exit_code: Option<i64>,
    pub reason: Option<String>,
    /// The last verdict of its check.
    pub healthy: Option<bool>,
    pub runtime_id: Option<String>,
    pub bindings: Vec<PortBinding>,
}

/// A target group that the task belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskTarget {
    pub group: String,
    pub container: String,
    pub port: u16,
    pub registered: bool,
    /// As the balancer last said.
    pub state: TargetState,
    /// As the group says now.
    pub deregistration_delay: Duration,
}

/// What is known of a task's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Unknown,
    Healthy,
    /// The reason in AWS's words, and the line for the diary.
    Unhealthy {
        reason: String,
        event: String,
    },
}

/// A task and all that was seen of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// 32 hex digits.
    pub id: String,
    /// The deployment, or what RunTask was given.
    pub started_by: Option<String>,
    pub definition_arn: String,
    /// `service:<name>` or `family:<name>`.
    pub group: String,
    /// The container instance it was placed on; None with Fargate.
    #[serde(default)]
    pub placed: Option<Placed>,
    /// Its instance takes no tasks any more, so the service replaces it.
    #[serde(default)]
    pub displaced: bool,
    /// Its instance is gone, and with it all that could be drained.
    #[serde(default)]
    pub host_lost: bool,
    /// RunTask's overrides, as they came.
    pub overrides: Value,
    pub tags: Vec<Value>,
    pub desired: Desired,
    pub status: TaskStatus,
    pub stop_code: Option<StopCode>,
    pub stopped_reason: Option<String>,
    pub containers: Vec<TaskContainer>,
    pub targets: Vec<TaskTarget>,
    pub created_at: Time,
    pub pull_stopped_at: Option<Time>,
    pub started_at: Option<Time>,
    pub stopping_at: Option<Time>,
    pub stopped_at: Option<Time>,
    /// The end of the deregistration delay.
    pub drained_at: Option<Time>,
    /// It was healthy once.
    pub was_healthy: bool,
    /// An essential container ended as soon as it started.
    pub never_up: bool,
    /// Its failure is in the breaker's books.
    pub counted: bool,
    /// Nothing of it is left.
    pub gone: bool,
}

impl Task {
    /// A new task of a revision, to be launched.
    pub(crate) fn new(id: String, revision: &Revision, group: String, now: Time) -> Self {
        Self {
            id,
            started_by: None,
            definition_arn: revision.definition_arn.clone(),
            group,
            placed: None,
            displaced: false,
            host_lost: false,
            overrides: Value::Null,
            tags: Vec::new(),
            desired: Desired::Running,
            status: TaskStatus::Provisioning,
            stop_code: None,
            stopped_reason: None,
            containers: revision
                .containers
                .iter()
                .map(|plan| TaskContainer {
                    name: plan.name.clone(),
                    image: plan.image.clone(),
                    image_digest: None,
                    essential: plan.essential,
                    checked: plan.checked,
                    started: false,
                    exited: false,
                    exit_code: None,
                    reason: None,
                    healthy: None,
                    runtime_id: None,
                    bindings: Vec::new(),
                })
                .collect(),
            targets: revision
                .targets
                .iter()
                .map(|plan| TaskTarget {
                    group: plan.group.clone(),
                    container: plan.container.clone(),
                    port: plan.port,
                    registered: false,
                    state: TargetState::Unused,
                    deregistration_delay: Duration::from_secs(300),
                })
                .collect(),
            created_at: now,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            stopped_at: None,
            drained_at: None,
            was_healthy: false,
            never_up: false,
            counted: false,
            gone: false,
        }
    }

    /// Whether it is meant to run.
    pub(crate) fn live(&self) -> bool {
        self.desired == Desired::Running && self.status != TaskStatus::Stopped
    }

    /// Whether something says how it is, besides its running.
    pub(crate) fn has_check(&self) -> bool {
        !self.targets.is_empty() || self.checks().next().is_some()
    }

    /// Where its target for `target` listens.
    pub(crate) fn address(&self, target: &TaskTarget) -> Option<SocketAddr> {
        self.containers
            .iter()
            .find(|container| container.name == target.container)?
            .bindings
            .iter()
            .find(|binding| binding.container_port == target.port)
            .map(|binding| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), binding.host_port))
    }

    /// The verdict of AWS's `healthStatus`: of the containers' checks alone.
    pub(crate) fn container_health(&self) -> Option<bool> {
        let mut verdict = None;
        for container in self.checks() {
            match container.healthy {
                Some(false) => return Some(false),
                None => return None,
                Some(true) => verdict = Some(true),
            }
        }
        verdict
    }

    /// Whether names of its service lead to it while it runs: its containers' checks say that it is
    /// well, or there are none.
    pub(crate) fn answers(&self) -> bool {
        self.checks().next().is_none() || self.container_health() == Some(true)
    }

    fn checks(&self) -> impl Iterator<Item = &TaskContainer> {
        self.containers
            .iter()
            .filter(|container| container.essential && container.checked)
    }

    /// Whether it counts as healthy, unhealthy or neither. Failed checks are not believed before
    /// `grace` has passed since its start.
    pub(crate) fn health(&self, now: Time, grace: Duration, timings: Timings) -> Health {
        let (TaskStatus::Running, Desired::Running, Some(started)) =
            (self.status, self.desired, self.started_at)
        else {
            return Health::Unknown;
        };
        if !self.has_check() {
            return if now >= started + timings.wait(Timings::SETTLE) {
                Health::Healthy
            } else {
                Health::Unknown
            };
        }
        let in_grace = now < started + timings.wait(grace);
        let mut all_well = true;
        for container in self.checks() {
            match container.healthy {
                Some(true) => {}
                Some(false) if !in_grace => {
                    return Health::Unhealthy {
                        reason: "Task failed container health checks".to_owned(),
                        event: format!("(task {}) failed container health checks.", self.id),
                    };
                }
                Some(false) | None => all_well = false,
            }
        }
        for target in &self.targets {
            match &target.state {
                TargetState::Healthy => {}
                TargetState::Unhealthy { reason } if !in_grace => {
                    return Health::Unhealthy {
                        reason: format!(
                            "Task failed ELB health checks in (target-group {})",
                            target.group
                        ),
                        event: format!(
                            "(task {}) (port {}) is unhealthy in (target-group {}) due to \
                             (reason {reason}).",
                            self.id, target.port, target.group
                        ),
                    };
                }
                _ => all_well = false,
            }
        }
        if all_well {
            Health::Healthy
        } else {
            Health::Unknown
        }
    }

    /// Means it to stop; the first reason stays.
    pub(crate) fn stop(&mut self, code: StopCode, reason: impl Into<String>, now: Time) {
        if self.desired == Desired::Stopped {
            return;
        }
        self.desired = Desired::Stopped;
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.into());
        self.stopping_at = Some(now);
    }

    /// Its instance, by EC2's id, is gone.
    pub(crate) fn lose_host(&mut self, ec2_id: &str, now: Time) {
        self.host_lost = true;
        let reason = format!("Host EC2 (instance {ec2_id}) terminated.");
        self.stop(StopCode::TerminationNotice, reason, now);
        if self.status == TaskStatus::Deactivating {
            self.drained_at = Some(now);
        }
    }

    /// Takes in what was seen.
    pub(crate) fn observe(&mut self, event: &TaskEvent, now: Time) {
        match event {
            TaskEvent::Pulled => {
                self.pull_stopped_at.get_or_insert(now);
            }
            TaskEvent::ContainerStarted {
                name,
                container_id,
                bindings,
                image_digest,
            } => {
                let Some(container) = self.container_mut(name) else {
                    return;
                };
                container.started = true;
                container.runtime_id = Some(container_id.clone());
                container.bindings.clone_from(bindings);
                if image_digest.is_some() {
                    container.image_digest.clone_from(image_digest);
                }
            }
            TaskEvent::ContainerExited {
                name,
                exit_code,
                oom,
                ran_for_ms,
            } => self.container_exited(name, *exit_code, *oom, *ran_for_ms, now),
            TaskEvent::ContainerHealth { name, healthy } => {
                if let Some(container) = self.container_mut(name) {
                    container.healthy = Some(*healthy);
                }
            }
            TaskEvent::CannotInitialize { reason } => {
                let reason = format!("ResourceInitializationError: {reason}");
                self.stop(StopCode::TaskFailedToStart, reason, now);
            }
            TaskEvent::CannotPull { container, reason } => {
                let reason = format!("CannotPullContainerError: {reason}");
                self.failed_to_start(container, reason, now);
            }
            TaskEvent::CannotStart { container, reason } => {
                let reason = format!("CannotStartContainerError: {reason}");
                self.failed_to_start(container, reason, now);
            }
            TaskEvent::Stopped => {
                self.stop(
                    StopCode::TaskFailedToStart,
                    "The task's containers are gone",
                    now,
                );
                self.gone = true;
            }
        }
    }

    fn container_mut(&mut self, name: &str) -> Option<&mut TaskContainer> {
        self.containers
            .iter_mut()
            .find(|container| container.name == name)
    }

    fn container_exited(
        &mut self,
        name: &str,
        exit_code: i64,
        oom: bool,
        ran_for_ms: Option<u64>,
        now: Time,
    ) {
        let wanted = self.desired == Desired::Running;
        let Some(container) = self.container_mut(name) else {
            return;
        };
        container.started = true;
        container.exited = true;
        container.exit_code = Some(exit_code);
        if oom {
            container.reason =
                Some("OutOfMemoryError: Container killed due to memory usage".to_owned());
        }
        if container.essential && wanted {
            self.never_up = ran_for_ms.is_some_and(|ran| ran < QUICK_EXIT_MS);
            self.stop(
                StopCode::EssentialContainerExited,
                "Essential container in task exited",
                now,
            );
        }
    }

    fn failed_to_start(&mut self, container: &str, reason: String, now: Time) {
        if let Some(container) = self.container_mut(container) {
            container.reason = Some(reason.clone());
        }
        self.stop(StopCode::TaskFailedToStart, reason, now);
    }

    /// Moves on as far as what was seen allows.
    pub(crate) fn advance(&mut self, moment: &Moment<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.desired == Desired::Stopped {
            self.wind_down(moment, &mut effects);
            return effects;
        }
        match self.status {
            TaskStatus::Provisioning => self.status = TaskStatus::Pending,
            TaskStatus::Pending if self.containers.iter().all(|one| one.started) => {
                self.pull_stopped_at.get_or_insert(moment.now);
                if self.targets.is_empty() {
                    self.run(moment.now);
                } else {
                    self.status = TaskStatus::Activating;
                    self.register(&mut effects);
                }
            }
            TaskStatus::Activating => self.run(moment.now),
            _ => {}
        }
        effects
    }

    fn run(&mut self, now: Time) {
        self.status = TaskStatus::Running;
        self.started_at = Some(now);
    }

    fn register(&mut self, effects: &mut Vec<Effect>) {
        for index in 0..self.targets.len() {
            let Some(address) = self.address(&self.targets[index]) else {
                continue;
            };
            let target = &mut self.targets[index];
            target.registered = true;
            target.state = TargetState::Initial;
            effects.push(Effect::Register {
                task_id: self.id.clone(),
                group: target.group.clone(),
                address,
            });
        }
    }

    fn wind_down(&mut self, moment: &Moment<'_>, effects: &mut Vec<Effect>) {
        let Moment { now, timings, .. } = *moment;
        if self.status < TaskStatus::Deactivating {
            let mut longest = Duration::ZERO;
            for target in self.targets.iter().filter(|target| target.registered) {
                longest = longest.max(target.deregistration_delay);
                effects.push(Effect::Deregister {
                    task_id: self.id.clone(),
                    group: target.group.clone(),
                });
            }
            // Nothing answers any more once an essential container or the host is gone.
            let mut containers = self.containers.iter();
            if self.host_lost || containers.any(|one| one.essential && one.exited) {
                longest = Duration::ZERO;
            }
            self.status = TaskStatus::Deactivating;
            self.drained_at = Some(now + timings.wait(longest));
        }
        if self.status == TaskStatus::Deactivating
            && self.drained_at.is_none_or(|drained| now >= drained)
        {
            for target in self.targets.iter_mut().filter(|target| target.registered) {
                target.registered = false;
                target.state = TargetState::Unused;
                effects.push(Effect::Remove {
                    task_id: self.id.clone(),
                    group: target.group.clone(),
                });
            }
            self.status = TaskStatus::Stopping;
            effects.push(Effect::Stop {
                task_id: self.id.clone(),
            });
            return;
        }
        match self.status {
            TaskStatus::Stopping if self.gone => self.status = TaskStatus::Deprovisioning,
            TaskStatus::Deprovisioning => {
                self.status = TaskStatus::Stopped;
                self.stopped_at = Some(now);
            }
            _ => {}
        }
    }

    /// What a restarted shell must do again for this task, after its containers were adopted.
    pub(crate) fn resume(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for target in self.targets.iter().filter(|target| target.registered) {
            if let Some(address) = self.address(target) {
                effects.push(Effect::Register {
                    task_id: self.id.clone(),
                    group: target.group.clone(),
                    address,
                });
            }
            if self.status == TaskStatus::Deactivating {
                effects.push(Effect::Deregister {
                    task_id: self.id.clone(),
                    group: target.group.clone(),
                });
            }
        }
        if self.status == TaskStatus::Stopping {
            effects.push(Effect::Stop {
                task_id: self.id.clone(),
            });
        }
        effects
    }
}
