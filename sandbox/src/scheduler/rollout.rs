//! One tick of a service: start what is missing, stop what is too much, fail or complete.
//!
//! Stop order, which AWS does not document: tasks that are not healthy first, then the oldest.

use std::time::Duration;

use super::alarms;
use super::deployments::{self, BREAKER};
use super::model::{
    Deployment, DeploymentStatus, Desired, Effect, Moment, RolloutState, Service, ServiceStatus,
    StopCode, Timings,
};
use super::placement::Room;
use super::task::{Health, Task, TaskStatus};

/// A start that held this long was one that worked.
pub(super) const STARTED: Duration = Duration::from_secs(1);

/// Moves the service on by what is known now. Ticking again at the same moment does nothing more
/// than let tasks pass through states that need no waiting. New tasks take their place in `room`,
/// which knows what every other task of the cluster takes.
pub(crate) fn tick(
    service: &mut Service,
    room: &mut dyn Room,
    moment: &mut Moment<'_>,
) -> Vec<Effect> {
    let mut effects = Vec::new();
    advance(service, moment, &mut effects);
    match service.status {
        ServiceStatus::Active => steer(service, room, moment, &mut effects),
        ServiceStatus::Draining => drain(service, moment),
        ServiceStatus::Inactive => return effects,
    }
    advance_stopping(service, moment, &mut effects);
    tell_targets(service, &effects, moment);
    forget(service);
    effects
}

fn advance(service: &mut Service, moment: &Moment<'_>, effects: &mut Vec<Effect>) {
    for task in &mut service.tasks {
        effects.extend(task.advance(moment));
    }
}

/// Lets tasks that were told to stop in this tick begin with it.
fn advance_stopping(service: &mut Service, moment: &Moment<'_>, effects: &mut Vec<Effect>) {
    for task in &mut service.tasks {
        if task.desired == Desired::Stopped && task.status < TaskStatus::Deactivating {
            effects.extend(task.advance(moment));
        }
    }
}

fn steer(
    service: &mut Service,
    room: &mut dyn Room,
    moment: &mut Moment<'_>,
    effects: &mut Vec<Effect>,
) {
    displace(service, room, moment);
    account(service, moment);
    let replaced = stop_unhealthy(service, moment);
    deployments::obey_requests(service, moment);
    trip(service, moment);
    alarms::watch(service, moment);
    let crowded = launch(service, replaced, room, moment, effects);
    shrink(service, moment);
    retire(service, crowded, moment);
    bound(service, moment);
    finish(service, moment);
}

/// Marks tasks whose instance takes no more tasks: they are replaced like those of an older
/// deployment. One that does not run yet stops at once, as at AWS.
fn displace(service: &mut Service, room: &dyn Room, moment: &Moment<'_>) {
    for task in service.tasks.iter_mut().filter(|task| task.live()) {
        task.displaced = room.displaces(task);
        if task.displaced && task.status < TaskStatus::Running {
            let reason = scaling(task.started_by.as_deref().unwrap_or_default());
            task.stop(StopCode::ServiceSchedulerInitiated, reason, moment.now);
        }
    }
}

fn scaling(deployment: &str) -> String {
    format!("Scaling activity initiated by (deployment {deployment})")
}

/// Numbers that the rules speak of.
struct Census {
    desired: u32,
    minimum: u32,
    maximum: u32,
    live: u32,
    live_new: u32,
    healthy: u32,
    healthy_new: u32,
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn census(service: &Service, primary: &str, moment: &Moment<'_>) -> Census {
    let live = || service.tasks.iter().filter(|task| task.live());
    let healthy = |task: &&Task| is_healthy(service, task, moment);
    Census {
        desired: service.desired,
        minimum: service.configuration.minimum(service.desired),
        maximum: service.configuration.maximum(service.desired),
        live: count(live().count()),
        live_new: count(live().filter(|task| stays(task, primary)).count()),
        healthy: count(live().filter(healthy).count()),
        healthy_new: count(
            live()
                .filter(|task| stays(task, primary))
                .filter(healthy)
                .count(),
        ),
    }
}

fn belongs(task: &Task, deployment: &str) -> bool {
    task.started_by.as_deref() == Some(deployment)
}

/// Whether a task is one of those that shall remain: of that deployment, on an instance that does.
fn stays(task: &Task, deployment: &str) -> bool {
    belongs(task, deployment) && !task.displaced
}

fn is_healthy(service: &Service, task: &Task, moment: &Moment<'_>) -> bool {
    task.health(moment.now, service.grace, moment.timings) == Health::Healthy
}

/// Enters failures and recoveries of the PRIMARY's tasks into its books.
fn account(service: &mut Service, moment: &mut Moment<'_>) {
    let Moment { now, timings, .. } = *moment;
    let (grace, breaker, desired) = (
        service.grace,
        service.configuration.breaker,
        service.desired,
    );
    let Some(primary) = service
        .deployments
        .iter_mut()
        .find(|one| one.status == DeploymentStatus::Primary)
    else {
        return;
    };
    let mut backing_off = false;
    for task in &mut service.tasks {
        if !belongs(task, &primary.id) {
            continue;
        }
        if task.live() {
            if task.started_at.is_some_and(|at| now.since(at) >= STARTED) {
                primary.start_failures = 0;
            }
            if !task.was_healthy && task.health(now, grace, timings) == Health::Healthy {
                task.was_healthy = true;
                if breaker.reset_on_healthy_task {
                    primary.failed_tasks = 0;
                }
            }
            continue;
        }
        if task.counted {
            continue;
        }
        task.counted = true;
        if !matches!(
            task.stop_code,
            Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited)
        ) {
            continue;
        }
        let failed_to_start = task.started_at.is_none() || task.never_up;
        if failed_to_start {
            primary.start_failures += 1;
            let pause = backoff(primary.start_failures);
            backing_off |= !pause.is_zero();
            primary.next_launch = now + timings.wait(pause);
        }
        let exit_counts = !task.was_healthy && (task.has_check() || timings.strict_breaker);
        if primary.rollout == RolloutState::InProgress && (failed_to_start || exit_counts) {
            primary.failed_tasks += 1;
        }
    }
    let failures = primary.failed_tasks;
    if let Some(record) = deployments::open_record(service) {
        record.failures = failures;
        record.limit = breaker.limit(desired);
    }
    if backing_off {
        service.tell(
            moment,
            "is unable to consistently start tasks successfully.",
        );
    }
}

/// The pause before the next launch after so many failures to start.
fn backoff(failures: u32) -> Duration {
    match failures {
        0..=2 => Duration::ZERO,
        more => {
            let doublings = (more - 3).min(10);
            Duration::from_secs(10 << doublings).min(Timings::LONGEST_BACKOFF)
        }
    }
}

/// Stops tasks that failed their checks, and says how many of the PRIMARY's there were.
fn stop_unhealthy(service: &mut Service, moment: &mut Moment<'_>) -> u32 {
    let Some(primary) = service.primary().cloned() else {
        return 0;
    };
    let now = moment.now;
    let mut replaced = 0;
    let mut lines = Vec::new();
    let mut failures = 0;
    for task in service.tasks.iter_mut().filter(|task| task.live()) {
        let new = belongs(task, &primary.id);
        // With a failed PRIMARY nothing would come in an old task's place.
        if !new && primary.rollout == RolloutState::Failed {
            continue;
        }
        let Health::Unhealthy { reason, event } = task.health(now, service.grace, moment.timings)
        else {
            continue;
        };
        task.stop(StopCode::ServiceSchedulerInitiated, reason, now);
        task.counted = true;
        lines.push(event);
        if new {
            replaced += 1;
            failures += u32::from(primary.rollout == RolloutState::InProgress);
        }
    }
    for line in lines {
        service.tell(moment, &line);
    }
    if let Some(primary) = service.primary_mut() {
        primary.failed_tasks += failures;
        let failures = primary.failed_tasks;
        if let Some(record) = deployments::open_record(service) {
            record.failures = failures;
        }
    }
    replaced
}

fn trip(service: &mut Service, moment: &mut Moment<'_>) {
    let breaker = service.configuration.breaker;
    let limit = breaker.limit(service.desired);
    let tripped = service.primary().is_some_and(|primary| {
        breaker.enabled
            && primary.rollout == RolloutState::InProgress
            && primary.failed_tasks >= limit
    });
    if tripped {
        deployments::fail(service, &BREAKER, breaker.rollback, moment);
    }
}

/// Starts what is missing, as far as there is room. Whether an instance was too small for more.
fn launch(
    service: &mut Service,
    replaced: u32,
    room: &mut dyn Room,
    moment: &mut Moment<'_>,
    effects: &mut Vec<Effect>,
) -> bool {
    let Some(primary) = service.primary().cloned() else {
        return false;
    };
    if primary.rollout == RolloutState::Failed || moment.now < primary.next_launch {
        return false;
    }
    let numbers = census(service, &primary.id, moment);
    let missing = numbers.desired.saturating_sub(numbers.live_new);
    let spare = numbers.maximum.saturating_sub(numbers.live);
    let group = format!("service:{}", service.name);
    let mut started = Vec::new();
    let mut refusal = None;
    for _ in 0..missing.min(spare) {
        let found = primary
            .revision
            .need
            .map(|need| room.place(need, &service.tasks));
        let placed = match found {
            None => None,
            Some(Ok(placed)) => Some(placed),
            Some(Err(refused)) => {
                refusal = Some(refused);
                break;
            }
        };
        let mut task = Task::new(
            moment.ids.hex(),
            &primary.revision,
            group.clone(),
            moment.now,
        );
        task.started_by = Some(primary.id.clone());
        task.placed = placed;
        started.push(task.id.clone());
        service.tasks.push(task);
    }
    if !started.is_empty() {
        let mut message = format!("has started {} tasks: {}.", started.len(), names(&started));
        if replaced > 0 {
            message.push_str(&format!(
                " Amazon ECS replaced {replaced} tasks due to an unhealthy status."
            ));
        }
        service.tell(moment, &message);
        service.steady_since = None;
        effects.extend(
            started
                .into_iter()
                .map(|task_id| Effect::Launch { task_id }),
        );
    }
    if let Some(refusal) = &refusal {
        service.tell(moment, &refusal.event());
    }
    refusal.is_some()
}

fn names(tasks: &[String]) -> String {
    tasks
        .iter()
        .map(|task| format!("(task {task})"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Stops the PRIMARY's surplus after the desired count went down.
fn shrink(service: &mut Service, moment: &mut Moment<'_>) {
    let Some(primary) = service.primary().cloned() else {
        return;
    };
    let numbers = census(service, &primary.id, moment);
    let surplus = numbers.live_new.saturating_sub(numbers.desired);
    stop_some(service, &primary, surplus, u32::MAX, true, moment);
}

/// Stops old tasks: to make room, or as new ones become healthy.
fn retire(service: &mut Service, crowded: bool, moment: &mut Moment<'_>) {
    let Some(primary) = service.primary().cloned() else {
        return;
    };
    if primary.rollout == RolloutState::Failed {
        return;
    }
    let numbers = census(service, &primary.id, moment);
    let live_old = numbers.live - numbers.live_new;
    let healthy_old = numbers.healthy - numbers.healthy_new;
    let missing = numbers.desired.saturating_sub(numbers.live_new);
    let spare = numbers.healthy.saturating_sub(numbers.minimum);
    let wanted = if missing > 0 && (crowded || numbers.live >= numbers.maximum) {
        missing.min(live_old)
    } else {
        live_old.saturating_sub(numbers.desired.saturating_sub(numbers.healthy_new))
    };
    if missing > 0
        && numbers.minimum >= numbers.maximum
        && live_old > 0
        && live_old == healthy_old
        && spare == 0
        && numbers.live >= numbers.maximum
    {
        service.tell(
            moment,
            "was unable to stop or start tasks during a deployment because of the service \
             deployment configuration. Update the minimumHealthyPercent or maximumPercent value \
             and try again.",
        );
    }
    stop_some(service, &primary, wanted, spare, false, moment);
}

/// Stops what is beyond the maximum after the desired count went down: old tasks, then new ones.
fn bound(service: &mut Service, moment: &mut Moment<'_>) {
    let Some(primary) = service.primary().cloned() else {
        return;
    };
    for new in [false, true] {
        let numbers = census(service, &primary.id, moment);
        let surplus = numbers.live.saturating_sub(numbers.maximum);
        if surplus == 0 {
            return;
        }
        let spare = numbers.healthy.saturating_sub(numbers.minimum);
        stop_some(service, &primary, surplus, spare, new, moment);
    }
}

/// Stops up to `wanted` of the tasks that stay (`new`) or of the others, at most `spare` healthy
/// ones among them.
fn stop_some(
    service: &mut Service,
    primary: &Deployment,
    wanted: u32,
    spare: u32,
    new: bool,
    moment: &mut Moment<'_>,
) {
    if wanted == 0 {
        return;
    }
    let mut candidates: Vec<(bool, crate::clock::Time, usize)> = service
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.live() && stays(task, &primary.id) == new)
        .map(|(index, task)| (is_healthy(service, task, moment), task.created_at, index))
        .collect();
    candidates.sort_unstable();
    let mut spare = spare;
    let mut stopped = Vec::new();
    let mut draining: Vec<(String, usize)> = Vec::new();
    for (healthy, _, index) in candidates.into_iter().take(wanted as usize) {
        if healthy {
            if spare == 0 {
                break;
            }
            spare -= 1;
        }
        let task = &mut service.tasks[index];
        let reason = scaling(if new {
            &primary.id
        } else {
            task.started_by.as_deref().unwrap_or_default()
        });
        task.stop(StopCode::ServiceSchedulerInitiated, reason, moment.now);
        task.counted = true;
        stopped.push(task.id.clone());
        if task.targets.iter().any(|target| target.registered) {
            let deployment = task.started_by.clone().unwrap_or_default();
            match draining.iter_mut().find(|(id, _)| *id == deployment) {
                Some((_, tasks)) => *tasks += 1,
                None => draining.push((deployment, 1)),
            }
        }
    }
    if stopped.is_empty() {
        return;
    }
    service.steady_since = None;
    for (deployment, tasks) in draining {
        let message = format!(
            "(service {}, taskSet {deployment}) has begun draining connections on {tasks} tasks.",
            service.name
        );
        service.tell_again(moment, message);
    }
    service.tell(
        moment,
        &format!(
            "has stopped {} running tasks: {}.",
            stopped.len(),
            names(&stopped)
        ),
    );
}

/// Completes the rollout, and says when the service is steady.
fn finish(service: &mut Service, moment: &mut Moment<'_>) {
    let Some(primary) = service.primary().cloned() else {
        return;
    };
    let numbers = census(service, &primary.id, moment);
    let old_remain = service
        .tasks
        .iter()
        .any(|task| !stays(task, &primary.id) && task.status != TaskStatus::Stopped);
    let whole = numbers.live_new == numbers.desired
        && numbers.healthy_new == numbers.desired
        && !old_remain;
    if !whole {
        service.steady_since = None;
        return;
    }
    if primary.rollout == RolloutState::InProgress {
        if alarms::still_baking(service, moment) {
            return;
        }
        deployments::complete(service, moment);
    }
    let announce = match service.steady_since {
        None => true,
        Some(since) => moment.now.since(since) >= moment.timings.wait(Timings::STEADY_REPEAT),
    };
    if announce && primary.rollout != RolloutState::Failed {
        service.steady_since = Some(moment.now);
        let message = format!("(service {}) has reached a steady state.", service.name);
        service.tell_again(moment, message);
    }
}

/// A deleted service: every task stops, then it is inactive.
fn drain(service: &mut Service, moment: &mut Moment<'_>) {
    service.desired = 0;
    for task in service.tasks.iter_mut().filter(|task| task.live()) {
        let reason = scaling(task.started_by.as_deref().unwrap_or_default());
        task.stop(StopCode::ServiceSchedulerInitiated, reason, moment.now);
        task.counted = true;
    }
    if let Some(record) = deployments::open_record(service) {
        record.status = super::model::ServiceDeploymentStatus::Stopped;
        record.status_reason = Some("The service was deleted.".to_owned());
        record.updated_at = moment.now;
        record.stopped_at = Some(moment.now);
        record.finished_at = Some(moment.now);
    }
    if service
        .tasks
        .iter()
        .all(|task| task.status == TaskStatus::Stopped)
    {
        service.status = ServiceStatus::Inactive;
        service.deployments.clear();
        service.last_completed = None;
    }
}

/// Writes about targets that come and go.
fn tell_targets(service: &mut Service, effects: &[Effect], moment: &mut Moment<'_>) {
    let mut lines: Vec<(&str, &str, usize)> = Vec::new();
    for effect in effects {
        let (verb, group) = match effect {
            Effect::Register { group, .. } => ("registered", group),
            Effect::Deregister { group, .. } => ("deregistered", group),
            Effect::Launch { .. } | Effect::Stop { .. } | Effect::Remove { .. } => continue,
        };
        match lines
            .iter_mut()
            .find(|(known, at, _)| *known == verb && *at == group)
        {
            Some((_, _, number)) => *number += 1,
            None => lines.push((verb, group, 1)),
        }
    }
    for (verb, group, number) in lines {
        service.tell(
            moment,
            &format!("{verb} {number} targets in (target-group {group})"),
        );
    }
}

/// Lets replaced deployments vanish once nothing of them is left.
fn forget(service: &mut Service) {
    let Service {
        deployments, tasks, ..
    } = service;
    deployments.retain(|one| {
        one.status == DeploymentStatus::Primary
            || tasks
                .iter()
                .any(|task| belongs(task, &one.id) && task.status != TaskStatus::Stopped)
    });
}
