//! The supervision of one task: one of these runs per task, from `start` or `adopt` to its end.
//!
//! Invariants: it looks before it acts, so it can begin at any point of a task's life; nothing but
//! a pull is abandoned halfway, so no container appears after the task was cleaned up; a container
//! is removed only after its end and its log are in the journal. Must not know: why a task stops.

use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::{
    ContainerSpec, Reports, TaskEvent, TaskLaunch, TaskReport, by_digest,
    dependencies::{Phase, Readiness, readiness},
};
use super::definition::{container, container_name, is_container_name};
use super::engine::{Engine, Labelled, Seen, error_text};
use super::journal::{End, Journal};
use crate::clock::Clock;
use crate::pins::Pins;

/// When it is tried again to change where names lead.
const LEAD_AGAIN: Duration = Duration::from_millis(500);

/// What all tasks share.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) journal: Arc<Journal>,
    pub(super) reports: Reports,
    pub(super) clock: Clock,
    /// None for whoever starts nothing.
    pub(super) pins: Option<Pins>,
}

impl Shared {
    /// Reads or writes the journal where waiting for the disk holds up nothing else.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let journal = Arc::clone(&self.journal);
        tokio::task::spawn_blocking(move || work(&journal)).await?
    }

    pub(super) fn report(&self, task_id: &str, event: TaskEvent) {
        let report = TaskReport {
            task_id: task_id.to_owned(),
            event,
        };
        // Nobody listens any more: the sandbox is shutting down.
        let _ = self.reports.send(report);
    }
}

/// What a watcher saw of the container with this number.
enum Watched {
    Ended(usize, End),
    Health(usize, bool),
    /// It runs as long as its `startTimeout`.
    Overdue(usize),
}

pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) launch: TaskLaunch,
}

impl Supervisor {
    /// Runs the task until `stop`, and then ends it; returns when nothing of it is left.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.live(&stop).await;
        stop.cancelled().await;
        // Before the containers are told to end, as at AWS.
        self.lead(false).await;
        end(
            &self.shared,
            &self.launch.task_id,
            Some(&self.launch),
            false,
        )
        .await;
    }

    async fn live(&mut self, stop: &CancellationToken) {
        if let Err((container, error)) = self.check() {
            self.report(TaskEvent::CannotStart {
                container,
                reason: error,
            });
            return;
        }
        match stop.run_until_cancelled(self.pull()).await {
            None => return,
            Some(Err(event)) => return self.report(event),
            Some(Ok(())) => self.report(TaskEvent::Pulled),
        }
        self.supervise(stop).await;
    }

    fn check(&self) -> Result<(), (String, String)> {
        let containers = &self.launch.containers;
        if containers.is_empty() {
            return Err((String::new(), "the task has no containers".to_owned()));
        }
        match containers.iter().find(|it| !is_container_name(&it.name)) {
            None => Ok(()),
            Some(odd) => Err((
                odd.name.clone(),
                "the container's name is not valid".to_owned(),
            )),
        }
    }

    /// Pulls what is not running yet.
    async fn pull(&mut self) -> Result<(), TaskEvent> {
        let mut pulled: Vec<String> = Vec::new();
        for number in 0..self.launch.containers.len() {
            if self.exists(&self.launch.containers[number]).await {
                continue;
            }
            self.pin(number).await?;
            let spec = &self.launch.containers[number];
            if pulled.contains(&spec.image) {
                continue;
            }
            let got = self.shared.engine.pull(&spec.image).await;
            got.map_err(|error| cannot_pull(spec, error_text(&error)))?;
            pulled.push(spec.image.clone());
        }
        Ok(())
    }

    /// Takes the image that the task's deployment runs for a tag.
    async fn pin(&mut self, number: usize) -> Result<(), TaskEvent> {
        let spec = &mut self.launch.containers[number];
        let Some(pins) = self.shared.pins.as_ref().filter(|_| spec.is_consistent) else {
            return Ok(());
        };
        let decided = pins.digest(&self.launch.task_id, &spec.image).await;
        let decided = decided.map_err(|error| cannot_pull(spec, error.to_string()))?;
        if let Some(digest) = decided {
            spec.image = by_digest(&spec.image, &digest);
        }
        Ok(())
    }

    /// Whether the container was created before, in this life or an earlier one.
    async fn exists(&self, spec: &ContainerSpec) -> bool {
        self.kept_end(spec).await.is_some()
            || matches!(
                self.shared.engine.inspect(&self.name_of(spec)).await,
                Ok(Some(_))
            )
    }

    /// How the container ended, when it is gone already.
    async fn kept_end(&self, spec: &ContainerSpec) -> Option<End> {
        let (task_id, name) = (self.launch.task_id.clone(), spec.name.clone());
        let entry = self
            .shared
            .on_disk(move |journal| journal.entry(&task_id, &name));
        entry.await.ok().flatten()?.end
    }

    async fn supervise(&self, stop: &CancellationToken) {
        let specs = &self.launch.containers;
        let mut phases = vec![Phase::Waiting; specs.len()];
        let (sender, mut watched) = mpsc::unbounded_channel();
        let mut watchers = JoinSet::new();
        let mut failed = false;
        // Whether the task's names lead to it; None until that was seen to.
        let mut leads = None;
        loop {
            while !failed && !stop.is_cancelled() {
                let next = (0..specs.len())
                    .filter(|number| phases[*number] == Phase::Waiting)
                    .map(|number| (number, readiness_of(number, specs, &phases)))
                    .find(|(_, readiness)| *readiness != Readiness::NotYet);
                let Some((number, readiness)) = next else {
                    break;
                };
                let spec = &specs[number];
                let started = match readiness {
                    Readiness::Never(reason) => Err(reason),
                    _ => self.start(spec).await,
                };
                match started {
                    Ok(Started::Gone(end)) => {
                        failed |= spec.essential;
                        phases[number] = self.ended(spec, end);
                    }
                    Ok(Started::Seen(seen)) => {
                        phases[number] = Phase::STARTED;
                        self.watch(number, seen, &sender, &mut watchers);
                    }
                    Err(reason) => {
                        failed = true;
                        self.report(TaskEvent::CannotStart {
                            container: spec.name.clone(),
                            reason,
                        });
                    }
                }
            }
            let well = !failed && is_well(specs, &phases);
            if leads != Some(well) && self.lead(well).await {
                leads = Some(well);
            }
            let again = async {
                match leads == Some(well) {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(LEAD_AGAIN).await,
                }
            };
            let seen = tokio::select! {
                () = stop.cancelled() => return,
                () = again => continue,
                seen = watched.recv() => seen,
            };
            match seen {
                Some(Watched::Ended(number, end)) => {
                    failed |= specs[number].essential;
                    phases[number] = self.ended(&specs[number], end);
                }
                Some(Watched::Health(number, healthy)) => {
                    if let Phase::Started { healthy: known, .. } = &mut phases[number] {
                        *known = Some(healthy);
                        self.report(TaskEvent::ContainerHealth {
                            name: specs[number].name.clone(),
                            healthy,
                        });
                    }
                }
                Some(Watched::Overdue(number)) => {
                    if let Phase::Started { overdue, .. } = &mut phases[number] {
                        *overdue = true;
                    }
                }
                // Not while `sender` lives, which is as long as this loop.
                None => return,
            }
        }
    }

    fn ended(&self, spec: &ContainerSpec, end: End) -> Phase {
        self.report(exited(&spec.name, end));
        Phase::Ended {
            exit_code: end.exit_code,
        }
    }

    /// Creates and starts a container, or finds it as an earlier life left it.
    async fn start(&self, spec: &ContainerSpec) -> Result<Started, String> {
        if let Some(end) = self.kept_end(spec).await {
            return Ok(Started::Gone(end));
        }
        let engine = &self.shared.engine;
        let clock = self.shared.clock;
        let text = |error: Error| error_text(&error);
        let name = self.name_of(spec);
        let launch = &self.launch;
        if engine.inspect(&name).await.map_err(text)?.is_none() {
            let (task_id, short_name) = (launch.task_id.clone(), spec.name.clone());
            let awslogs = spec.awslogs.clone();
            self.shared
                .on_disk(move |journal| journal.open(&task_id, &short_name, awslogs, clock.now().0))
                .await
                .map_err(|error| format!("{error:#}"))?;
            let network = engine.network().id().await?;
            let body = container(engine.instance(), launch, spec, &network, clock);
            let created = engine.create(&name, &spec.image, body).await;
            created.map_err(text)?;
        }
        let found = engine.inspect(&name).await.map_err(text)?;
        let found = found.ok_or_else(|| format!("container {name} is gone before it started"))?;
        if found.end.is_none() {
            engine.names().join(&found.id, self.has_names()).await?;
        }
        if !found.running && found.end.is_none() {
            engine.start(&found.id).await.map_err(text)?;
        }
        let seen = engine.inspect(&name).await.map_err(text)?;
        let seen = seen.ok_or_else(|| format!("container {name} is gone"))?;
        let image_digest = engine.image_digest(&spec.image, &seen).await;
        self.report(TaskEvent::ContainerStarted {
            name: spec.name.clone(),
            container_id: seen.id.clone(),
            bindings: seen.bindings.clone(),
            image_digest,
        });
        Ok(Started::Seen(seen))
    }

    /// Watches a container's end, its health when it has a check, and the time when it has a limit.
    fn watch(
        &self,
        number: usize,
        seen: Seen,
        sender: &mpsc::UnboundedSender<Watched>,
        watchers: &mut JoinSet<()>,
    ) {
        let spec = &self.launch.containers[number];
        if let Some(check) = &spec.health_check {
            // Twice per check: a verdict is seen half an interval after it fell, at the latest.
            let pause = (self.shared.clock.scaled(check.interval) / 2)
                .clamp(Duration::from_millis(100), Duration::from_secs(1));
            let (shared, sender, id) = (Arc::clone(&self.shared), sender.clone(), seen.id.clone());
            watchers.spawn(async move {
                let mut last = None;
                loop {
                    match shared.engine.inspect(&id).await {
                        Ok(Some(seen)) if seen.running => {
                            if let Some(healthy) = seen.healthy.filter(|it| Some(*it) != last) {
                                last = Some(healthy);
                                let _ = sender.send(Watched::Health(number, healthy));
                            }
                        }
                        Ok(_) => return,
                        Err(error) => tracing::warn!(%error, id, "cannot look at a container"),
                    }
                    tokio::time::sleep(pause).await;
                }
            });
        }
        if let Some(limit) = spec.start_timeout {
            let (sender, left) = (sender.clone(), limit.saturating_sub(seen.age));
            watchers.spawn(async move {
                tokio::time::sleep(left).await;
                let _ = sender.send(Watched::Overdue(number));
            });
        }
        let (shared, sender) = (Arc::clone(&self.shared), sender.clone());
        watchers.spawn(async move {
            let end = shared.engine.wait_for_end(&seen.id).await;
            let _ = sender.send(Watched::Ended(number, end));
        });
    }

    /// Whether some names lead to the task only while it is well.
    fn has_names(&self) -> bool {
        let mut specs = self.launch.containers.iter();
        specs.any(|spec| !spec.names_when_healthy.is_empty())
    }

    /// Lets those names lead to the task, or lead there no more; false when that is to be tried
    /// again.
    async fn lead(&self, well: bool) -> bool {
        let mut all_done = true;
        for spec in &self.launch.containers {
            if spec.names_when_healthy.is_empty() {
                continue;
            }
            let names = if well {
                &spec.names_when_healthy[..]
            } else {
                &[]
            };
            let container = self.name_of(spec);
            if let Err(error) = self.shared.engine.names().lead(&container, names).await {
                tracing::warn!(%error, container, well, "cannot change where a name leads");
                all_done = false;
            }
        }
        all_done
    }

    fn name_of(&self, spec: &ContainerSpec) -> String {
        container_name(&self.launch.task_id, &spec.name)
    }

    fn report(&self, event: TaskEvent) {
        self.shared.report(&self.launch.task_id, event);
    }
}

fn cannot_pull(spec: &ContainerSpec, reason: String) -> TaskEvent {
    TaskEvent::CannotPull {
        container: spec.name.clone(),
        reason,
    }
}

enum Started {
    /// Ended and removed in an earlier life of the sandbox.
    Gone(End),
    Seen(Seen),
}

fn exited(name: &str, end: End) -> TaskEvent {
    TaskEvent::ContainerExited {
        name: name.to_owned(),
        exit_code: end.exit_code,
        oom: end.oom,
        ran_for_ms: end.ran_for_ms,
    }
}

/// Whether all essential containers with health checks are healthy.
fn is_well(specs: &[ContainerSpec], phases: &[Phase]) -> bool {
    let healthy = |phase: &Phase| {
        matches!(
            phase,
            Phase::Started {
                healthy: Some(true),
                ..
            }
        )
    };
    let mut both = specs.iter().zip(phases);
    both.all(|(spec, phase)| !spec.essential || spec.health_check.is_none() || healthy(phase))
}

fn readiness_of(number: usize, specs: &[ContainerSpec], phases: &[Phase]) -> Readiness {
    readiness(&specs[number].depends_on, |name| {
        let at = specs.iter().position(|spec| spec.name == name)?;
        Some(phases[at])
    })
}

/// Ends a task: stops what runs, keeps ends and logs, removes everything. Tries until the engine
/// has done it all, because a task that is half gone must not count as stopped.
pub(super) async fn end(
    shared: &Shared,
    task_id: &str,
    launch: Option<&TaskLaunch>,
    at_once: bool,
) {
    let mut pause = Duration::from_millis(200);
    while let Err(error) = try_end(shared, task_id, launch, at_once).await {
        tracing::warn!(
            task_id,
            "cannot clean up a task yet, trying again: {error:#}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

async fn try_end(
    shared: &Shared,
    task_id: &str,
    launch: Option<&TaskLaunch>,
    at_once: bool,
) -> anyhow::Result<()> {
    let engine = &shared.engine;
    let mut running = Vec::new();
    for labelled in engine.containers(Some(task_id)).await? {
        let seen = engine.inspect(&labelled.id).await?;
        if seen.is_some_and(|seen| seen.running) {
            running.push(labelled);
        }
    }
    // Those first on which no other one still depends.
    while !running.is_empty() {
        let (mut now, mut later): (Vec<Labelled>, Vec<Labelled>) = running
            .iter()
            .cloned()
            .partition(|it| !is_needed(it, &running, launch));
        if now.is_empty() {
            std::mem::swap(&mut now, &mut later);
        }
        let stops = now.iter().map(|it| engine.stop(&it.id, at_once));
        futures_util::future::try_join_all(stops).await?;
        running = later;
    }
    for labelled in engine.containers(Some(task_id)).await? {
        remove(shared, &labelled).await?;
    }
    Ok(())
}

fn is_needed(labelled: &Labelled, running: &[Labelled], launch: Option<&TaskLaunch>) -> bool {
    let specs = launch.map_or(&[][..], |launch| &launch.containers);
    specs.iter().any(|spec| {
        let depends = spec
            .depends_on
            .iter()
            .any(|it| it.container == labelled.container);
        depends && running.iter().any(|it| it.container == spec.name)
    })
}

/// Keeps what is to be kept of a stopped container, says how it ended, and removes it.
async fn remove(shared: &Shared, labelled: &Labelled) -> anyhow::Result<()> {
    let Labelled {
        id,
        task_id,
        container,
    } = labelled;
    let seen = shared.engine.inspect(id).await?;
    if let Some(end) = seen.and_then(|seen| seen.end) {
        let lines = shared.engine.logs(id).await?.unwrap_or_default();
        let (task, name) = (task_id.clone(), container.clone());
        shared
            .on_disk(move |journal| journal.close(&task, &name, end, &lines))
            .await?;
        shared.report(task_id, exited(container, end));
    }
    shared.engine.remove(id).await?;
    Ok(())
}
