//! Keeps services moving: takes in reports, ticks the scheduler, and does what it wants done.
//!
//! Driven by events: a round looks at what callers changed, at what was reported, and at what is
//! due by the agenda, and then sleeps until the next of these. Level-triggered all the same: what
//! is under way is looked at every few seconds and what rests once a minute, so that a lost wake-up
//! costs one such interval and nothing else. Effects are performed after the state that asks for
//! them is on disk, and again after a restart. In virtual time nothing moves by itself: rounds are
//! played when somebody asks for time to pass. Must not know: AWS's wire.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::agenda::Agenda;
use crate::app::App;
use crate::backends::{TaskLaunch, TaskReport};
use crate::clock::Time;
use crate::initialization;
use crate::scheduler::{
    self, Effect, Fleet, Ids, Moment, Need, Placed, Refusal, Room, Service, ServiceStatus, Task,
    TaskEvent, TaskStatus, Timings,
};
use crate::services::cloudwatch;
use crate::services::ecs::{launch, tags};
use crate::state::{State, Subject, Version, instances};

/// How long stopped tasks can be described, as at AWS; not scaled, so that a slow client of a fast
/// sandbox still sees why a task stopped.
const KEEP_STOPPED: Duration = Duration::from_secs(60 * 60);

/// A service that crashes in a loop keeps so many stopped tasks; older ones are forgotten sooner.
const MOST_STOPPED: usize = 500;

/// How often the backend looks for what nobody knows; not scaled, because Docker Engine is real.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What is under way is looked at so often, at AWS's pace.
const LOOK_AT_MOTION: Duration = Duration::from_secs(5);

/// What rests is looked at so often in real time; not scaled, because it makes good for lost rings.
const LOOK_AT_REST: Duration = Duration::from_secs(60);

/// However fast time passes, the conductor does not look sooner again.
const SHORTEST: Duration = Duration::from_millis(20);

/// So many services are ticked before callers get their turn at the state.
const BATCH: usize = 32;

/// Hands the backend the tasks of an earlier life and repeats the effects that may be half done.
pub(crate) async fn resume(app: &App) -> anyhow::Result<()> {
    let ((launches, effects), version) = app.store.steer(|state| {
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
        (launches, effects)
    });
    app.store.saved(version).await?;
    app.backend.adopt(launches).await?;
    for effect in effects {
        perform(app, effect, None).await;
    }
    Ok(())
}

/// Where the conductor is: what is due when, and what is under way.
pub(crate) struct Conductor {
    app: Arc<App>,
    reports: UnboundedReceiver<TaskReport>,
    /// Reports that the next round takes in.
    inbox: Vec<TaskReport>,
    agenda: Agenda<Subject>,
    moving: BTreeSet<Subject>,
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

/// The container instances of the clusters that were needed so far, by name.
type Fleets = HashMap<String, Counted>;

/// A cluster's instances, and whether what its tasks take of them was counted yet.
struct Counted {
    fleet: Fleet,
    is_counted: bool,
}

/// A cluster's instances while a service is ticked. What is free is counted when a task looks for a place, which
/// few ticks do: it takes a look at every task of the cluster.
struct CountedLate<'a, C> {
    of: &'a mut Counted,
    count: C,
}

impl<C: Fn(&mut Fleet)> Room for CountedLate<'_, C> {
    fn displaces(&self, task: &Task) -> bool {
        self.of.fleet.displaces(task)
    }

    fn place(&mut self, need: Need, group: &[Task]) -> Result<Placed, Refusal> {
        if !std::mem::replace(&mut self.of.is_counted, true) {
            (self.count)(&mut self.of.fleet);
        }
        self.of.fleet.place(need, group)
    }
}

/// An effect, and what a launch needs.
type Work = (Effect, Option<TaskLaunch>);

impl Conductor {
    /// A conductor that will look at everything in its first round.
    pub(crate) fn new(app: Arc<App>, reports: UnboundedReceiver<TaskReport>) -> Self {
        Self {
            app,
            reports,
            inbox: Vec::new(),
            agenda: Agenda::default(),
            moving: BTreeSet::new(),
        }
    }

    /// Conducts in real time until `stop` is cancelled.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.app.wake.notify_one();
        loop {
            let pause = self
                .next()
                .map(|due| due.since(self.app.clock.now()).min(LOOK_AT_REST));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.app.wake.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or(LOOK_AT_REST)) => {}
                report = self.reports.recv() => self.inbox.extend(report),
            }
            let (work, version) = self.round().await;
            // The records in memory no longer ask for these effects, so they are performed even
            // when the disk refuses; after a restart `adopt` sweeps what the disk does not know.
            if let Err(error) = self.app.store.saved(version).await {
                tracing::error!(%error, "a round of the scheduler is not on disk");
            }
            self.perform(work).await;
        }
    }

    /// When something is due next, by the agenda or by the backend's own.
    pub(crate) fn next(&self) -> Option<Time> {
        if !self.inbox.is_empty() {
            return Some(self.app.clock.now());
        }
        self.agenda
            .first()
            .into_iter()
            .chain(self.app.backend.due())
            .min()
    }

    /// Whether no service is under way and no task of RunTask is left.
    pub(crate) fn is_settled(&self) -> bool {
        self.moving.is_empty()
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Looks at everything there is to look at now. The effects are the caller's to perform, once
    /// the disk holds the version.
    pub(crate) async fn round(&mut self) -> (Vec<Work>, Version) {
        let app = Arc::clone(&self.app);
        let now = app.clock.now();
        app.backend.play(now);
        while let Ok(report) = self.reports.try_recv() {
            self.inbox.push(report);
        }
        let mut subjects = app.store.take_touched();
        while let Some(subject) = self.agenda.take(now) {
            subjects.insert(subject);
        }
        let rung = app.wake.take_tasks();
        let reports = std::mem::take(&mut self.inbox);
        let ((), mut version) = app.store.steer(|state| {
            subjects.extend(rung.iter().filter_map(|task| state.subject_of(task)));
            for report in &reports {
                subjects.extend(take_in(state, report, now));
            }
        });
        let subjects: Vec<Subject> = subjects.into_iter().collect();
        let mut work = Vec::new();
        for batch in subjects.chunks(BATCH) {
            let (more, reached) = app.store.steer(|state| {
                let mut work = Vec::new();
                let mut fleets = Fleets::new();
                for subject in batch {
                    self.look_at(state, subject, now, &mut fleets, &mut work);
                }
                work
            });
            work.extend(more);
            version = reached;
            tokio::task::yield_now().await;
        }
        (work, version)
    }

    /// Does what a round wants done.
    pub(crate) async fn perform(&self, work: Vec<Work>) {
        for (effect, task) in work {
            perform(&self.app, effect, task).await;
        }
    }

    /// Ticks a subject and notes when to look again.
    fn look_at(
        &mut self,
        state: &mut State,
        subject: &Subject,
        now: Time,
        fleets: &mut Fleets,
        work: &mut Vec<Work>,
    ) {
        let app = &self.app;
        let mut effects = Vec::new();
        let look = match subject {
            Subject::Service(key) => tick_service(app, state, key, now, fleets, &mut effects),
            Subject::Task(id) => tick_task(app, state, id, now, &mut effects),
        };
        for effect in effects {
            let task = match &effect {
                Effect::Launch { task_id } => launch::build(state, task_id),
                _ => None,
            };
            match task
                .as_ref()
                .and_then(|task| initialization::fails(app, state, task))
            {
                Some(failure) => self.inbox.push(failure),
                None => work.push((effect, task)),
            }
        }
        let soonest = if app.clock.is_virtual() {
            now
        } else {
            now + SHORTEST
        };
        self.agenda
            .set(subject, look.next.map(|next| next.max(soonest)));
        if look.moving {
            self.moving.insert(subject.clone());
        } else {
            self.moving.remove(subject);
        }
    }
}

/// What a tick says about the next one.
#[derive(Default)]
struct Look {
    moving: bool,
    next: Option<Time>,
}

impl Look {
    /// Soon after a change, because tasks pass through some states without waiting; then when the
    /// scheduler says, and every few seconds.
    fn new(app: &App, now: Time, changed: bool, moving: bool, due: Option<Time>) -> Self {
        let timings = app.timings();
        let again = if changed {
            Some(now + timings.wait(Timings::TICK))
        } else if moving {
            Some(now + timings.wait(LOOK_AT_MOTION))
        } else {
            (!app.clock.is_virtual()).then(|| now + LOOK_AT_REST)
        };
        Self {
            moving,
            next: due.into_iter().chain(again).min(),
        }
    }
}

/// Takes in a report, and says whose it was.
fn take_in(state: &mut State, report: &TaskReport, now: Time) -> Option<Subject> {
    let subject = state.subject_of(&report.task_id);
    if let Some(task) = state.task_mut(&report.task_id) {
        task.observe(&report.event, now);
    } else if report.event != TaskEvent::Stopped {
        tracing::debug!(task = %report.task_id, "a report about an unknown task");
    }
    subject
}

fn tick_service(
    app: &App,
    state: &mut State,
    key: &str,
    now: Time,
    fleets: &mut Fleets,
    effects: &mut Vec<Effect>,
) -> Look {
    let timings = app.timings();
    let mut forgotten = Vec::new();
    let Some(cluster) = state.services.get(key).map(|one| one.cluster.clone()) else {
        return Look::default();
    };
    let of = fleets.entry(cluster.clone()).or_insert_with(|| Counted {
        fleet: Fleet::of(state.instances(&cluster)),
        is_counted: false,
    });
    let State {
        services,
        tasks,
        alarms,
        ..
    } = state;
    let ticked = services.update(key, |service, services| {
        service.alarms_seen = cloudwatch::look(alarms, &service.configuration.alarms.names);
        for task in &mut service.tasks {
            look_at_targets(app, task);
        }
        let mut random = || app.clock.draw();
        let mut moment = Moment {
            now,
            timings,
            ids: Ids(&mut random),
        };
        let count = |fleet: &mut Fleet| instances::occupy(fleet, &cluster, services, tasks);
        let mut room = CountedLate { of, count };
        effects.extend(scheduler::tick(service, &mut room, &mut moment));
        forgotten = forget_stopped(service, now);
    });
    let launched: Vec<&str> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Launch { task_id } => Some(task_id.as_str()),
            _ => None,
        })
        .collect();
    state.settle_tasks(key, &launched, &forgotten);
    tags::tag_new(app, state, key, &launched);
    tags::forget(app, state, key, &forgotten);
    let (Some(((), changed)), Some(service)) = (ticked, state.services.get(key)) else {
        return Look::default();
    };
    if service.status == ServiceStatus::Inactive && service.tasks.is_empty() {
        return Look::default();
    }
    let stopped = service.tasks.iter().filter_map(|task| task.stopped_at);
    let forget = stopped.min().map(|stopped| stopped + KEEP_STOPPED);
    let due = scheduler::due(service, now, timings);
    Look::new(
        app,
        now,
        changed,
        scheduler::in_motion(service),
        due.into_iter().chain(forget).min(),
    )
}

fn look_at_targets(app: &App, task: &mut Task) {
    for target in task.targets.iter_mut().filter(|target| target.registered) {
        target.state = app.targets.health(&target.group, &task.id);
        if let Some(delay) = app.targets.deregistration_delay(&target.group) {
            target.deregistration_delay = delay;
        }
    }
}

fn tick_task(app: &App, state: &mut State, id: &str, now: Time, effects: &mut Vec<Effect>) -> Look {
    let timings = app.timings();
    let ticked = state.tasks.update(id, |one, _| {
        if one.task.status == TaskStatus::Provisioning {
            effects.push(Effect::Launch {
                task_id: id.to_owned(),
            });
        }
        let mut random = || app.clock.draw();
        effects.extend(one.task.advance(&Moment {
            now,
            timings,
            ids: Ids(&mut random),
        }));
    });
    let (Some(((), changed)), Some(one)) = (ticked, state.tasks.get(id)) else {
        return Look::default();
    };
    let forget = one.task.stopped_at.map(|stopped| stopped + KEEP_STOPPED);
    if forget.is_some_and(|time| time <= now) {
        let arn = app.config.arn("ecs", &format!("task/{}/{id}", one.cluster));
        state.tags.shift_remove(&arn);
        state.tasks.shift_remove(id);
        return Look::default();
    }
    let due = scheduler::task_due(&one.task, now, timings);
    Look::new(
        app,
        now,
        changed,
        one.task.status != TaskStatus::Stopped,
        due.into_iter().chain(forget).min(),
    )
}

/// Drops tasks that stopped too long ago, and the oldest of too many; their ids.
fn forget_stopped(service: &mut Service, now: Time) -> Vec<String> {
    let stopped = service
        .tasks
        .iter()
        .filter(|task| task.stopped_at.is_some());
    let mut surplus = stopped.count().saturating_sub(MOST_STOPPED);
    let mut forgotten = Vec::new();
    service.tasks.retain(|task| {
        let Some(stopped) = task.stopped_at else {
            return true;
        };
        let kept = surplus == 0 && now.since(stopped) < KEEP_STOPPED;
        surplus = surplus.saturating_sub(1);
        if !kept {
            forgotten.push(task.id.clone());
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
