//! What exists in the sandbox: clusters, task definitions, services and tasks.
//!
//! The records here are what the state file holds. Names and ARNs are stored, never what a caller
//! wrote. Must not know: HTTP, Docker, how the file is written.

pub(crate) mod instances;
mod journal;
mod lock;
mod store;
mod table;

pub(crate) use lock::lock_directory;
pub(crate) use store::{Store, Version};
pub(crate) use table::Table;

use std::collections::HashMap;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Time;
use crate::scheduler::{Instance, Service, Task};
use crate::services::access::{Role, Session};
use crate::services::cloudwatch::Alarm;
use crate::services::discovery::{Namespace, Operation, Registry};
use crate::timeline::Mark;
use table::Rows;

/// Everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// By name.
    pub clusters: Table<Cluster>,
    /// By family; the revisions in order, none ever removed.
    pub families: Table<Vec<TaskDefinition>>,
    /// By `cluster/name`.
    pub services: Table<Service>,
    /// The tasks of RunTask, by id.
    pub tasks: Table<StandaloneTask>,
    /// CloudWatch's alarms, by name.
    #[serde(default)]
    pub alarms: Table<Alarm>,
    /// What keys of AssumeRole may do, by the role's name.
    #[serde(default)]
    pub roles: Table<Role>,
    /// What AssumeRole gave out, by key id.
    #[serde(default)]
    pub sessions: Table<Session>,
    /// Cloud Map's namespaces, by id.
    #[serde(default)]
    pub namespaces: Table<Namespace>,
    /// Cloud Map's services, by id.
    #[serde(default)]
    pub registries: Table<Registry>,
    /// What Cloud Map was asked to do, by id.
    #[serde(default)]
    pub operations: Table<Operation>,
    /// By ARN.
    pub tags: Table<IndexMap<String, String>>,
    /// Where time and chance were when this was written.
    #[serde(default)]
    mark: Option<Mark>,
    /// Which journal goes on from here.
    #[serde(default)]
    journal: u64,
    /// The keys of services by task id: where to look first.
    #[serde(skip)]
    homes: HashMap<String, String>,
}

/// The names of rows, table by table.
#[derive(Debug, Default)]
struct Names {
    clusters: IndexSet<String>,
    families: IndexSet<String>,
    services: IndexSet<String>,
    tasks: IndexSet<String>,
    alarms: IndexSet<String>,
    roles: IndexSet<String>,
    sessions: IndexSet<String>,
    namespaces: IndexSet<String>,
    registries: IndexSet<String>,
    operations: IndexSet<String>,
    tags: IndexSet<String>,
}

/// Some rows of every table, and where time and chance were: one line of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    clusters: Rows<Cluster>,
    families: Rows<Vec<TaskDefinition>>,
    services: Rows<Service>,
    tasks: Rows<StandaloneTask>,
    #[serde(default)]
    alarms: Rows<Alarm>,
    #[serde(default)]
    roles: Rows<Role>,
    #[serde(default)]
    sessions: Rows<Session>,
    #[serde(default)]
    namespaces: Rows<Namespace>,
    #[serde(default)]
    registries: Rows<Registry>,
    #[serde(default)]
    operations: Rows<Operation>,
    tags: Rows<IndexMap<String, String>>,
    mark: Option<Mark>,
}

/// What the scheduler looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// By `cluster/name`.
    Service(String),
    /// A task of RunTask, by id.
    Task(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub name: String,
    pub active: bool,
    pub created_at: Time,
    /// Members that are only shown again.
    pub settings: Map<String, Value>,
    /// The machines it pretends to have.
    #[serde(default = "instances::of_old")]
    pub instances: Vec<Instance>,
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
    /// What tells a repeated RunTask from a second one.
    #[serde(default)]
    pub client_token: Option<String>,
    /// The members of a RunTask with a token: with others, the token is refused.
    #[serde(default)]
    pub asked: Map<String, Value>,
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
        match self.subject_of(id)? {
            Subject::Task(id) => self.tasks.get_mut(&id).map(|one| &mut one.task),
            Subject::Service(key) => {
                let service = self.services.get_mut(&key)?;
                service.tasks.iter_mut().find(|task| task.id == id)
            }
        }
    }

    /// A task to look at.
    pub(crate) fn find_task(&self, id: &str) -> Option<FoundTask<'_>> {
        match self.subject_of(id)? {
            Subject::Task(id) => self.tasks.get(&id).map(|one| FoundTask {
                cluster: &one.cluster,
                task: &one.task,
                service: None,
                settings: &one.settings,
            }),
            Subject::Service(key) => {
                let service = self.services.get(&key)?;
                let task = service.tasks.iter().find(|task| task.id == id)?;
                Some(FoundTask {
                    cluster: &service.cluster,
                    task,
                    service: Some(service),
                    settings: &service.settings,
                })
            }
        }
    }

    /// What a task belongs to.
    pub(crate) fn subject_of(&self, task_id: &str) -> Option<Subject> {
        if self.tasks.contains_key(task_id) {
            return Some(Subject::Task(task_id.to_owned()));
        }
        self.homes.get(task_id).cloned().map(Subject::Service)
    }

    /// Decides what `image` is in all tasks of a task's deployment, unless an earlier one has; what
    /// was decided. None for a task that belongs to no deployment.
    pub(crate) fn pin(&mut self, task_id: &str, image: &str, digest: &str) -> Option<String> {
        let Some(Subject::Service(key)) = self.subject_of(task_id) else {
            return None;
        };
        let service = self.services.get(&key)?;
        let mut tasks = service.tasks.iter();
        let deployment = tasks.find(|task| task.id == task_id)?.started_by.clone()?;
        self.services.get_mut(&key)?.pin(&deployment, image, digest)
    }

    /// Notes which of a service's tasks are new and which are gone; to be called by whoever starts
    /// or forgets them.
    pub(crate) fn settle_tasks(&mut self, key: &str, new: &[&str], gone: &[String]) {
        for task in new {
            self.homes.insert((*task).to_owned(), key.to_owned());
        }
        for task in gone {
            self.homes.remove(task);
        }
    }

    /// Everything that the scheduler has to look at after a start.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject> {
        let services = self.services.keys().cloned().map(Subject::Service);
        services.chain(self.tasks.keys().cloned().map(Subject::Task))
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

    fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.families.is_empty()
            && self.services.is_empty()
            && self.tasks.is_empty()
            && self.alarms.is_empty()
            && self.roles.is_empty()
            && self.sessions.is_empty()
            && self.namespaces.is_empty()
            && self.registries.is_empty()
            && self.operations.is_empty()
            && self.tags.is_empty()
    }

    fn index_tasks(&mut self) {
        let Self {
            services, homes, ..
        } = self;
        for key in services.keys() {
            let tasks = services.get(key).into_iter().flat_map(|one| &one.tasks);
            homes.extend(tasks.map(|task| (task.id.clone(), key.clone())));
        }
    }

    /// The names of what changed since the last time. Every field is named, so that a new table
    /// cannot be forgotten here.
    fn take_changed(&mut self) -> Names {
        let Self {
            clusters,
            families,
            services,
            tasks,
            alarms,
            roles,
            sessions,
            namespaces,
            registries,
            operations,
            tags,
            mark: _,
            journal: _,
            homes: _,
        } = self;
        Names {
            clusters: clusters.take_changed(),
            families: families.take_changed(),
            services: services.take_changed(),
            tasks: tasks.take_changed(),
            alarms: alarms.take_changed(),
            roles: roles.take_changed(),
            sessions: sessions.take_changed(),
            namespaces: namespaces.take_changed(),
            registries: registries.take_changed(),
            operations: operations.take_changed(),
            tags: tags.take_changed(),
        }
    }

    fn batch(&self, names: &Names, mark: Option<Mark>) -> Batch {
        Batch {
            clusters: self.clusters.rows(&names.clusters),
            families: self.families.rows(&names.families),
            services: self.services.rows(&names.services),
            tasks: self.tasks.rows(&names.tasks),
            alarms: self.alarms.rows(&names.alarms),
            roles: self.roles.rows(&names.roles),
            sessions: self.sessions.rows(&names.sessions),
            namespaces: self.namespaces.rows(&names.namespaces),
            registries: self.registries.rows(&names.registries),
            operations: self.operations.rows(&names.operations),
            tags: self.tags.rows(&names.tags),
            mark,
        }
    }

    fn restore(&mut self, batch: Batch) {
        let Batch {
            clusters,
            families,
            services,
            tasks,
            alarms,
            roles,
            sessions,
            namespaces,
            registries,
            operations,
            tags,
            mark,
        } = batch;
        self.clusters.restore(clusters);
        self.families.restore(families);
        self.services.restore(services);
        self.tasks.restore(tasks);
        self.alarms.restore(alarms);
        self.roles.restore(roles);
        self.sessions.restore(sessions);
        self.namespaces.restore(namespaces);
        self.registries.restore(registries);
        self.operations.restore(operations);
        self.tags.restore(tags);
        self.mark = mark;
    }

    /// A copy to be written while the original goes on.
    fn snapshot(&self, mark: Option<Mark>, journal: u64) -> Self {
        Self {
            clusters: self.clusters.snapshot(),
            families: self.families.snapshot(),
            services: self.services.snapshot(),
            tasks: self.tasks.snapshot(),
            alarms: self.alarms.snapshot(),
            roles: self.roles.snapshot(),
            sessions: self.sessions.snapshot(),
            namespaces: self.namespaces.snapshot(),
            registries: self.registries.snapshot(),
            operations: self.operations.snapshot(),
            tags: self.tags.snapshot(),
            mark,
            journal,
            homes: HashMap::new(),
        }
    }
}

impl Names {
    fn is_empty(&self) -> bool {
        let Self {
            clusters,
            families,
            services,
            tasks,
            alarms,
            roles,
            sessions,
            namespaces,
            registries,
            operations,
            tags,
        } = self;
        let tables = [
            clusters, families, services, tasks, alarms, roles, sessions, namespaces, registries,
            operations, tags,
        ];
        tables.iter().all(|names| names.is_empty())
    }

    fn add(&mut self, more: Self) {
        self.clusters.extend(more.clusters);
        self.families.extend(more.families);
        self.services.extend(more.services);
        self.tasks.extend(more.tasks);
        self.alarms.extend(more.alarms);
        self.roles.extend(more.roles);
        self.sessions.extend(more.sessions);
        self.namespaces.extend(more.namespaces);
        self.registries.extend(more.registries);
        self.operations.extend(more.operations);
        self.tags.extend(more.tags);
    }

    /// What the scheduler has to look at because of these changes.
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        let services = self.services.iter().cloned().map(Subject::Service);
        services.chain(self.tasks.iter().cloned().map(Subject::Task))
    }
}
