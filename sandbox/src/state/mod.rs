//! What exists in the sandbox: clusters, task definitions, services and tasks.
//!
//! The records here are what the state file holds. Names and ARNs are stored, never what a caller
//! wrote. Must not know: HTTP, Docker, how the file is written.

mod lock;
mod store;

pub(crate) use lock::lock_directory;
pub(crate) use store::Store;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Time;
use crate::scheduler::{Service, Task};

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// By name.
    pub clusters: IndexMap<String, Cluster>,
    /// By family; the revisions in order, none ever removed.
    pub families: IndexMap<String, Vec<TaskDefinition>>,
    /// By `cluster/name`.
    pub services: IndexMap<String, Service>,
    /// The tasks of RunTask, by id.
    pub tasks: IndexMap<String, StandaloneTask>,
    /// By ARN.
    pub tags: IndexMap<String, IndexMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub name: String,
    pub active: bool,
    pub created_at: Time,
    /// Members that are only shown again.
    pub settings: Map<String, Value>,
}

/// One revision of a family.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskDefinition {
    pub arn: String,
    pub revision: u32,
    pub registered_at: Time,
    pub deregistered_at: Option<Time>,
    /// The request as it came, with every member the sandbox has never heard of.
    pub raw: Map<String, Value>,
}

impl TaskDefinition {
    /// Whether new services and tasks may use it.
    pub(crate) fn active(&self) -> bool {
        self.deregistered_at.is_none()
    }
}

/// A task of RunTask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StandaloneTask {
    pub cluster: String,
    pub task: Task,
    /// Members that are only shown again.
    pub settings: Map<String, Value>,
}

/// A task wherever it is kept.
pub(crate) struct FoundTask<'a> {
    pub cluster: &'a str,
    pub task: &'a Task,
    pub service: Option<&'a Service>,
    pub settings: &'a Map<String, Value>,
}

impl State {
    /// The key of a service.
    pub(crate) fn service_key(cluster: &str, name: &str) -> String {
        format!("{cluster}/{name}")
    }

    /// Every task, those of services first.
    pub(crate) fn all_tasks(&self) -> impl Iterator<Item = FoundTask<'_>> {
        let of_services = self.services.values().flat_map(|service| {
            service.tasks.iter().map(move |task| FoundTask {
                cluster: &service.cluster,
                task,
                service: Some(service),
                settings: &service.settings,
            })
        });
        let standalone = self.tasks.values().map(|one| FoundTask {
            cluster: &one.cluster,
            task: &one.task,
            service: None,
            settings: &one.settings,
        });
        of_services.chain(standalone)
    }

    /// A task to change.
    pub(crate) fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        if let Some(one) = self.tasks.get_mut(id) {
            return Some(&mut one.task);
        }
        self.services
            .values_mut()
            .flat_map(|service| service.tasks.iter_mut())
            .find(|task| task.id == id)
    }

    /// The definition with that ARN.
    pub(crate) fn definition(&self, arn: &str) -> Option<&TaskDefinition> {
        let (_, name) = arn.rsplit_once('/')?;
        let (family, _) = name.rsplit_once(':')?;
        self.families
            .get(family)?
            .iter()
            .find(|definition| definition.arn == arn)
    }
}
