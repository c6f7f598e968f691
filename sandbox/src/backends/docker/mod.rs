//! Tasks as containers on the local Docker Engine, published on 127.0.0.1.
//!
//! Everything it makes carries this sandbox's label, and only what carries it is ever removed. Must
//! not know: services, deployments, AWS's wire.

mod definition;
mod engine;
mod journal;
mod names;
mod network;
mod task;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use async_trait::async_trait;

use super::{Backend, LogLine, LogStream, Reports, TaskEvent, TaskLaunch};
use crate::clock::Clock;
use crate::config::Config;
use crate::disk::{read_json, write_json};
use crate::pins::Pins;
use crate::registry::Registry;
use crate::state::lock_directory;
use definition::{LABEL_INSTANCE, container_name, is_container_name};
use engine::Engine;
use journal::Journal;
use task::{Shared, Supervisor, end};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The file in the data directory that holds the label's value.
const INSTANCE: &str = "instance.json";

/// Connects to the Docker Engine, and fails when none answers. Images of `registry` are pulled with
/// a token of the sandbox's own; `pins` says what their tags stand for.
pub(crate) async fn connect(
    config: &Config,
    clock: Clock,
    reports: Reports,
    registry: Arc<Registry>,
    pins: Pins,
) -> anyhow::Result<Arc<dyn Backend>> {
    let shared = Shared {
        engine: Engine::connect(instance_id(config)?, Some(registry)).await?,
        journal: Arc::new(Journal::new(&config.data)),
        reports,
        clock,
        pins: Some(pins),
    };
    Ok(Arc::new(DockerBackend {
        shared: Arc::new(shared),
        tasks: Arc::default(),
        life: CancellationToken::new(),
        at_work: TaskTracker::new(),
    }))
}

/// The label, as `key=value`, of everything that the sandbox with this data directory makes on Docker
/// Engine; none before its first start.
///
/// # Errors
/// When the directory holds the label but it cannot be read.
pub fn label(data: &Path) -> anyhow::Result<Option<String>> {
    Ok(known_instance(data)?.map(|instance| format!("{LABEL_INSTANCE}={instance}")))
}

/// The name under which this data directory's containers are labelled; made once.
fn instance_id(config: &Config) -> anyhow::Result<String> {
    if let Some(instance) = known_instance(&config.data)? {
        return Ok(instance);
    }
    let instance = format!("{:032x}", rand::random::<u128>());
    write_json(&config.data.join(INSTANCE), &instance)?;
    Ok(instance)
}

fn known_instance(data: &Path) -> anyhow::Result<Option<String>> {
    Ok(read_json(&data.join(INSTANCE))?)
}

/// Removes from Docker Engine all containers and networks of the sandbox whose state is in `data`.
/// The state stays: started again, the sandbox starts its tasks anew. Gives the number of
/// containers; a directory that no sandbox ever used has none.
///
/// Fails when a sandbox works in the directory, or Docker Engine does not answer.
pub async fn purge(data: &Path) -> anyhow::Result<usize> {
    let Some(instance) = known_instance(data)? else {
        return Ok(0);
    };
    let _lock = lock_directory(data)?;
    let engine = Engine::connect(instance, None).await?;
    let mut removed = HashSet::new();
    loop {
        let left = engine.containers(None).await?;
        if left.is_empty() {
            break;
        }
        for container in left {
            engine.remove(&container.id).await?;
            removed.insert(container.id);
        }
    }
    engine.names().remove_spare(|| true).await?;
    engine.network().remove_spare(|| true).await?;
    Ok(removed.len())
}

struct DockerBackend {
    shared: Arc<Shared>,
    /// The tasks that are looked after, with what stops them. One is entered before anything of it
    /// is made, and leaves when nothing of it is left.
    tasks: Arc<Mutex<HashMap<String, CancellationToken>>>,
    /// Ends with this sandbox, and with it all that looks after tasks.
    life: CancellationToken,
    at_work: TaskTracker,
}

impl DockerBackend {
    /// Begins to supervise a task, unless that is so already.
    fn supervise(&self, launch: TaskLaunch) {
        let task_id = launch.task_id.clone();
        if let Ok(stop) = self.enter(&task_id) {
            let supervisor = Supervisor {
                shared: Arc::clone(&self.shared),
                launch,
            };
            self.spawn(task_id, supervisor.run(stop));
        }
    }

    /// Ends a task of which nothing is known but what it left in the engine.
    fn clear(&self, task_id: String, at_once: bool) {
        let (shared, id) = (Arc::clone(&self.shared), task_id.clone());
        self.spawn(task_id, async move {
            end(&shared, &id, None, at_once).await;
        });
    }

    /// Enters a task that is to be looked after; an error with what stops it when somebody does.
    fn enter(&self, task_id: &str) -> Result<CancellationToken, CancellationToken> {
        match self.lock().entry(task_id.to_owned()) {
            Entry::Occupied(known) => Err(known.get().clone()),
            Entry::Vacant(place) => Ok(place.insert(CancellationToken::new()).clone()),
        }
    }

    /// Lets `work` bring an entered task to its end, unless this life ends sooner.
    fn spawn(&self, task_id: String, work: impl Future<Output = ()> + Send + 'static) {
        let (shared, tasks) = (Arc::clone(&self.shared), Arc::clone(&self.tasks));
        let life = self.life.clone();
        self.at_work.spawn(async move {
            if life.run_until_cancelled(work).await.is_some() {
                // In this order: once a task is said to have stopped, nothing looks after it.
                lock(&tasks).remove(&task_id);
                shared.report(&task_id, TaskEvent::Stopped);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        lock(&self.tasks)
    }

    async fn try_sweep(&self) -> anyhow::Result<()> {
        let engine = &self.shared.engine;
        // In this order: whatever was listed and belongs to a task was made after the task's entry.
        let found = engine.containers(None).await?;
        let mut strays: HashSet<String> = found.into_iter().map(|it| it.task_id).collect();
        {
            let tasks = self.lock();
            strays.retain(|task_id| !tasks.contains_key(task_id));
        }
        for task_id in strays {
            if self.enter(&task_id).is_ok() {
                tracing::info!(task_id, "clears away the containers of an unknown task");
                self.clear(task_id, true);
            }
        }
        let idle = || self.lock().is_empty();
        engine.names().remove_spare(idle).await?;
        engine.network().remove_spare(idle).await?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Backend for DockerBackend {
    async fn start(&self, launch: TaskLaunch) {
        self.supervise(launch);
    }

    async fn stop(&self, task_id: &str) {
        match self.enter(task_id) {
            Err(stop) => stop.cancel(),
            Ok(_) => self.clear(task_id.to_owned(), false),
        }
    }

    async fn adopt(&self, tasks: Vec<TaskLaunch>) -> anyhow::Result<()> {
        for task in tasks {
            self.supervise(task);
        }
        self.try_sweep()
            .await
            .context("cannot see what an earlier run left in Docker Engine")
    }

    async fn sweep(&self) {
        if let Err(error) = self.try_sweep().await {
            tracing::warn!("cannot sweep Docker Engine now: {error:#}");
        }
    }

    async fn shut_down(&self) {
        // An idle sandbox leaves nothing.
        self.sweep().await;
        self.life.cancel();
        self.at_work.close();
        self.at_work.wait().await;
    }

    async fn logs(&self, task_id: &str, container: &str) -> anyhow::Result<Option<Vec<LogLine>>> {
        if !is_container_name(container) || !is_container_name(task_id) {
            return Ok(None);
        }
        let kept = {
            let (task_id, container) = (task_id.to_owned(), container.to_owned());
            move |journal: &Journal| journal.log(&task_id, &container)
        };
        if let Some(lines) = self.shared.on_disk(kept.clone()).await? {
            return Ok(Some(lines));
        }
        let name = container_name(task_id, container);
        match self.shared.engine.logs(&name).await? {
            Some(lines) => Ok(Some(lines)),
            // It may have been removed between the two looks.
            None => self.shared.on_disk(kept).await,
        }
    }

    async fn log_streams(&self) -> anyhow::Result<Vec<LogStream>> {
        self.shared.on_disk(Journal::streams).await
    }
}
