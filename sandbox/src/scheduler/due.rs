//! When a service needs to be looked at again, although nothing new was seen of it.
//!
//! Invariant, which `properties` tests: of a service at rest, a tick before `due` changes nothing.

use std::time::Duration;

use super::model::{Desired, RolloutState, Service, ServiceStatus, Timings};
use super::rollout::STARTED;
use super::task::{Task, TaskStatus};
use crate::clock::Time;

/// Whether a rollout, a start or a stop is under way.
pub(crate) fn in_motion(service: &Service) -> bool {
    let between = service.tasks.iter().any(task_in_motion);
    match service.status {
        ServiceStatus::Inactive => false,
        ServiceStatus::Draining => true,
        ServiceStatus::Active => {
            let live = service.tasks.iter().filter(|task| task.live()).count();
            // A failed PRIMARY stands still with whatever there is.
            let moves = service
                .primary()
                .is_some_and(|primary| primary.rollout != RolloutState::Failed)
                && (live != service.desired as usize
                    || service.deployments.len() > 1
                    || service
                        .tasks
                        .iter()
                        .any(|task| task.live() && task.displaced));
            between || moves || service.current_service_deployment().is_some()
        }
    }
}

/// Whether a task is on its way to RUNNING or to STOPPED.
fn task_in_motion(task: &Task) -> bool {
    match task.status {
        TaskStatus::Stopped => false,
        TaskStatus::Running => task.desired == Desired::Stopped,
        _ => true,
    }
}

/// The first moment after `now` at which the mere time makes a difference to a service; None when
/// only news can.
pub(crate) fn due(service: &Service, now: Time, timings: Timings) -> Option<Time> {
    let launch = service.primary().map(|primary| primary.next_launch);
    let steady = service
        .steady_since
        .map(|since| since + timings.wait(Timings::STEADY_REPEAT));
    let tasks = service
        .tasks
        .iter()
        .flat_map(|task| task_times(task, service.grace, timings));
    let baked = service
        .primary()
        .and_then(|primary| primary.watch.as_ref()?.bakes_until);
    // A start that holds ends the back-off.
    let backing_off = service.primary().is_some_and(|one| one.start_failures > 0);
    let held = service
        .tasks
        .iter()
        .filter(|task| backing_off && task.live())
        .filter_map(|task| Some(task.started_at? + STARTED));
    tasks
        .chain(held)
        .chain(launch)
        .chain(baked)
        .chain(steady)
        .filter(|time| *time > now)
        .min()
}

/// The same for a task on its own.
pub(crate) fn task_due(task: &Task, now: Time, timings: Timings) -> Option<Time> {
    task_times(task, Duration::ZERO, timings)
        .filter(|time| *time > now)
        .min()
}

/// When a task has drained, its grace ends, and it counts as settled.
fn task_times(task: &Task, grace: Duration, timings: Timings) -> impl Iterator<Item = Time> {
    let started = task.started_at.filter(|_| task.live());
    let believed = if task.has_check() {
        grace
    } else {
        Timings::SETTLE
    };
    let drained = task
        .drained_at
        .filter(|_| task.status == TaskStatus::Deactivating);
    started
        .map(|started| started + timings.wait(believed))
        .into_iter()
        .chain(drained)
}
