//! The rolling scheduler: what the tasks and deployments of a service should do next.
//!
//! Everything here is a function of its arguments: time, randomness and what was seen of tasks come
//! in, changed records and [`Effect`]s go out. It decides as if it had no memory besides the
//! records, so that a restart continues where the records stand.
//!
//! Invariants: tasks that should run never number more than the maximum; no healthy task is stopped
//! below the minimum; a failed deployment launches nothing. Must not know: tokio, HTTP, Docker,
//! AWS's wire.

mod alarms;
mod breaker;
mod deployments;
mod due;
mod model;
mod placement;
mod rollout;
mod task;

#[cfg(test)]
mod alarming;
#[cfg(test)]
mod placing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod world;

pub(crate) use alarms::{AlarmRules, AlarmSight};
pub(crate) use breaker::{Breaker, Threshold};
pub(crate) use deployments::{StopRequest, begin, reconfigure, request_stop};
pub(crate) use due::{due, in_motion, task_due};
pub(crate) use model::{
    Configuration, ContainerPlan, Deployment, DeploymentStatus, Desired, Effect, Event, Ids,
    Moment, PortBinding, Revision, Service, ServiceDeployment, ServiceStatus, StopCode, TargetPlan,
    TargetState, TaskEvent, Timings,
};
pub(crate) use placement::{Fleet, Instance, InstanceStatus, Need, Placed, Refusal, Room};
pub(crate) use rollout::tick;
pub(crate) use task::{Task, TaskContainer, TaskStatus};
