//! Keeps services moving: takes in reports, ticks the scheduler, and does what it wants done.
//!
//! Level-triggered: every round looks at the whole state, so a lost wake-up costs one interval and
//! nothing else. Effects are performed after the state that asks for them is on disk, and again
//! after a restart. Must not know: AWS's wire.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::backends::{TaskLaunch, TaskReport};
use crate::clock::Time;
use crate::scheduler::{self, Effect, Ids, Moment, Task, TaskEvent, TaskStatus};
use crate::services::ecs::launch;
use crate::state::State;

/// How long stopped tasks can be described, as at AWS; not scaled, so that a slow client of a fast
/// sandbox still sees why a task stopped.
const KEEP_STOPPED: Duration = Duration::from_secs(60 * 60);

/// A service that crashes in a loop keeps so many stopped tasks; older ones are forgotten sooner.
const MOST_STOPPED: usize = 500;

/// How often the backend looks for what nobody knows; not scaled, because Docker Engine is real.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Hands the backend the tasks of an earlier life and repeats the effects that may be half done.
pub(crate) async fn resume(app: &App) -> anyhow::Result<()> {
    let ((launches, effects), written) = app
        .store
        .update(|state| {
            // `adopt` launches what has no containers yet; the rounds must not do it again.
            for one in state.tasks.values_mut() {
                one.task.status = one.task.status.max(TaskStatus::Pending);
            }
            let mut launches = Vec::new();
            let mut effects = Vec::new();
            for found in state.all_tasks() {
                let task = found.task;
                if task.status == TaskStatus::Stopped || task.gone {
                    continue;
                }
                launches.extend(launch::build(state, &task.id));
                effects.extend(task.resume());
            }
            ((launches, effects), true)
        })
        .await;
    written?;
    app.backend.adopt(launches).await?;
    for effect in effects {
        perform(app, effect, None).await;
    }
    Ok(())
}

/// Runs until `stop` is cancelled.
pub(crate) async fn run(
    app: Arc<App>,
    mut reports: UnboundedReceiver<TaskReport>,
    stop: CancellationToken,
) {
    let interval = app
        .clock
        .scaled(Duration::from_secs(1))
        .max(Duration::from_millis(20));
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.wake.notified() => {}
            () = tokio::time::sleep(interval) => {}
            report = reports.recv() => batch.extend(report),
        }
        while let Ok(report) = reports.try_recv() {
            batch.push(report);
        }
        round(&app, batch).await;
    }
}

/// Lets the backend clear away what belongs to no task, until `stop` is cancelled.
pub(crate) async fn sweep(app: Arc<App>, stop: CancellationToken) {
    let sweeps = async {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            app.backend.sweep().await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(sweeps).await;
}

async fn round(app: &App, reports: Vec<TaskReport>) {
    let now = app.clock.now();
    let (work, written) = app
        .store
        .update(|state| {
            let mut changed = take_in(state, &reports, now);
            let mut effects = Vec::new();
            changed |= tick_services(app, state, now, &mut effects);
            changed |= tick_standalone(app, state, now, &mut effects);
            changed |= forget_stopped(app, state, now);
            let work: Vec<(Effect, Option<TaskLaunch>)> = effects
                .into_iter()
                .map(|effect| {
                    let task = match &effect {
                        Effect::Launch { task_id } => launch::build(state, task_id),
                        _ => None,
                    };
                    (effect, task)
                })
                .collect();
            (work, changed)
        })
        .await;
    // The records in memory no longer ask for these effects, so they are performed even when the
    // disk refuses; after a restart `adopt` sweeps what the file does not know.
    if let Err(error) = written {
        tracing::error!(%error, "a round of the scheduler is not on disk");
    }
    for (effect, task) in work {
        perform(app, effect, task).await;
    }
}

fn take_in(state: &mut State, reports: &[TaskReport], now: Time) -> bool {
    let mut changed = false;
    for report in reports {
        if let Some(task) = state.task_mut(&report.task_id) {
            task.observe(&report.event, now);
            changed = true;
        } else if report.event != TaskEvent::Stopped {
            tracing::debug!(task = %report.task_id, "a report about an unknown task");
        }
    }
    changed
}

fn moment_of<'a>(app: &App, now: Time, random: &'a mut dyn FnMut() -> u128) -> Moment<'a> {
    Moment {
        now,
        timings: app.timings(),
        ids: Ids(random),
    }
}

fn tick_services(app: &App, state: &mut State, now: Time, effects: &mut Vec<Effect>) -> bool {
    let mut changed = false;
    for service in state.services.values_mut() {
        let before = service.clone();
        for task in &mut service.tasks {
            look_at_targets(app, task);
        }
        let mut random = rand::random::<u128>;
        effects.extend(scheduler::tick(
            service,
            &mut moment_of(app, now, &mut random),
        ));
        changed |= *service != before;
    }
    changed
}

fn look_at_targets(app: &App, task: &mut Task) {
    for target in task.targets.iter_mut().filter(|target| target.registered) {
        target.state = app.targets.health(&target.group, &task.id);
        if let Some(delay) = app.targets.deregistration_delay(&target.group) {
            target.deregistration_delay = delay;
        }
    }
}

fn tick_standalone(app: &App, state: &mut State, now: Time, effects: &mut Vec<Effect>) -> bool {
    let mut changed = false;
    let mut random = rand::random::<u128>;
    let moment = moment_of(app, now, &mut random);
    for one in state.tasks.values_mut() {
        let before = one.task.status;
        if before == TaskStatus::Provisioning {
            effects.push(Effect::Launch {
                task_id: one.task.id.clone(),
            });
        }
        effects.extend(one.task.advance(&moment));
        changed |= one.task.status != before;
    }
    changed
}

fn forget_stopped(app: &App, state: &mut State, now: Time) -> bool {
    let keep = |task: &Task| {
        task.stopped_at
            .is_none_or(|stopped| now.since(stopped) < KEEP_STOPPED)
    };
    let mut forgotten = false;
    for service in state.services.values_mut() {
        let before = service.tasks.len();
        let stopped = service
            .tasks
            .iter()
            .filter(|task| task.stopped_at.is_some());
        let mut surplus = stopped.count().saturating_sub(MOST_STOPPED);
        service.tasks.retain(|task| {
            let oldest = surplus > 0 && task.stopped_at.is_some();
            surplus -= usize::from(oldest);
            !oldest && keep(task)
        });
        forgotten |= service.tasks.len() != before;
    }
    let State { tasks, tags, .. } = state;
    tasks.retain(|id, one| {
        let kept = keep(&one.task);
        if !kept {
            let task = format!("task/{}/{id}", one.cluster);
            tags.shift_remove(&app.config.arn("ecs", &task));
            forgotten = true;
        }
        kept
    });
    forgotten
}

async fn perform(app: &App, effect: Effect, task: Option<TaskLaunch>) {
    match effect {
        Effect::Launch { .. } => {
            if let Some(task) = task {
                app.backend.start(task).await;
            }
        }
        Effect::Stop { task_id } => app.backend.stop(&task_id).await,
        Effect::Register {
            task_id,
            group,
            address,
        } => app.targets.register(&group, &task_id, address),
        Effect::Deregister { task_id, group } => app.targets.deregister(&group, &task_id),
        Effect::Remove { task_id, group } => app.targets.remove(&group, &task_id),
    }
}
