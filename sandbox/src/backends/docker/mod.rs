//! Tasks as containers on the local Docker Engine, published on 127.0.0.1.
//!
//! Everything it makes carries this sandbox's label, and only what carries it is ever removed. Must
//! not know: services, deployments, AWS's wire.

mod definition;
mod engine;
mod journal;
mod task;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Backend, LogLine, LogStream, Reports, TaskEvent, TaskLaunch, TaskReport};
use crate::clock::Clock;
use crate::config::Config;
use crate::disk::{read_json, write_json};
use crate::registry::Registry;
use definition::{container_name, is_container_name};
use engine::Engine;
use journal::Journal;
use task::{Shared, Supervisor, end};
use tokio_util::sync::CancellationToken;

/// Connects to the Docker Engine, and fails when none answers. Images of `registry` are pulled with
/// a token of the sandbox's own.
pub(crate) async fn connect(
    config: &Config,
    clock: Clock,
    reports: Reports,
    registry: Arc<Registry>,
) -> anyhow::Result<Arc<dyn Backend>> {
    let shared = Shared {
        engine: Engine::connect(instance_id(config)?, registry).await?,
        journal: Arc::new(Journal::new(&config.data)),
        reports,
        clock,
    };
    Ok(Arc::new(DockerBackend {
        shared: Arc::new(shared),
        tasks: Arc::default(),
    }))
}

/// The name under which this data directory's containers are labelled; made once.
fn instance_id(config: &Config) -> anyhow::Result<String> {
    let path = config.data.join("instance.json");
    if let Some(instance) = read_json(&path)? {
        return Ok(instance);
    }
    let instance = format!("{:032x}", rand::random::<u128>());
    write_json(&path, &instance)?;
    Ok(instance)
}

struct DockerBackend {
    shared: Arc<Shared>,
    /// The tasks under supervision, with what stops them.
    tasks: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl DockerBackend {
    /// Begins to supervise a task, unless that is so already.
    fn supervise(&self, launch: TaskLaunch) {
        let stop = CancellationToken::new();
        let task_id = launch.task_id.clone();
        {
            let mut tasks = self.lock();
            if tasks.contains_key(&task_id) {
                return;
            }
            tasks.insert(task_id.clone(), stop.clone());
        }
        let supervisor = Supervisor {
            shared: Arc::clone(&self.shared),
            launch,
        };
        let tasks = Arc::clone(&self.tasks);
        tokio::spawn(async move {
            supervisor.run(stop).await;
            tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&task_id);
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Backend for DockerBackend {
    async fn start(&self, launch: TaskLaunch) {
        self.supervise(launch);
    }

    async fn stop(&self, task_id: &str) {
        if let Some(stop) = self.lock().get(task_id) {
            return stop.cancel();
        }
        let (shared, task_id) = (Arc::clone(&self.shared), task_id.to_owned());
        tokio::spawn(async move {
            end(&shared, &task_id, None, false).await;
            let report = TaskReport {
                task_id,
                event: TaskEvent::Stopped,
            };
            // Nobody listens any more: the sandbox is shutting down.
            let _ = shared.reports.send(report);
        });
    }

    async fn adopt(&self, tasks: Vec<TaskLaunch>) -> anyhow::Result<()> {
        let engine = &self.shared.engine;
        let mut orphans: HashSet<String> = engine.networked_tasks().await?.into_iter().collect();
        let containers = engine.containers(None).await?;
        orphans.extend(containers.into_iter().map(|it| it.task_id));
        for task in &tasks {
            orphans.remove(&task.task_id);
        }
        let removals = orphans.iter().map(|id| end(&self.shared, id, None, true));
        futures_util::future::join_all(removals).await;
        for task in tasks {
            self.supervise(task);
        }
        Ok(())
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
