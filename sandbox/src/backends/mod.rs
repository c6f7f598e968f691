//! The seam between the scheduler's decisions and what really runs.
//!
//! A backend starts and stops tasks and reports what it sees; it decides nothing about services.
//! Reports are level-like: sending one twice does no harm, and after a restart `adopt` sends again
//! whatever is true now. Must not know: services, deployments, AWS's wire.

mod dependencies;
pub(crate) mod docker;
pub(crate) mod simulated;

use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::clock::Time;
pub(crate) use crate::scheduler::{PortBinding, TaskEvent};

/// Everything needed to run one task; kept with the task, so that a restart can hand it over again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskLaunch {
    /// 32 hex digits, unique for ever: names of containers derive from it.
    pub task_id: String,
    pub cluster: String,
    /// The service's name; absent for a task of RunTask.
    pub service: Option<String>,
    pub task_definition_arn: String,
    pub family: String,
    pub containers: Vec<ContainerSpec>,
}

/// One container definition, with the overrides of RunTask already applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub name: String,
    /// As the definition says: a tag, or `repository@sha256:…`. The latter, too, once the
    /// deployment has decided what the tag stands for.
    pub image: String,
    /// All tasks of the deployment run what the tag stands for in its first one.
    pub is_consistent: bool,
    pub essential: bool,
    /// None: the image's own.
    pub entry_point: Option<Vec<String>>,
    /// None: the image's own.
    pub command: Option<Vec<String>>,
    pub environment: IndexMap<String, String>,
    pub ports: Vec<PortMapping>,
    /// Only the definition's check counts; a HEALTHCHECK of the image is to be disabled.
    pub health_check: Option<HealthCheck>,
    pub depends_on: Vec<Dependency>,
    pub user: Option<String>,
    pub working_directory: Option<String>,
    pub readonly_root_filesystem: bool,
    /// Its input stays open.
    pub interactive: bool,
    /// It runs in a terminal.
    pub pseudo_terminal: bool,
    /// Hard limit in MiB.
    pub memory_mib: Option<i64>,
    /// CPU shares, 1024 per CPU.
    pub cpu_shares: Option<i64>,
    pub docker_labels: IndexMap<String, String>,
    /// How long others wait for it to be what their `depends_on` says, from its start; not scaled by
    /// Docker Engine, because the process inside is real.
    pub start_timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL; not scaled, because the process inside is real.
    pub stop_timeout: Duration,
    /// The `awslogs` options, when the container logs there.
    pub awslogs: Option<AwsLogs>,
    /// Names under which every container of the sandbox reaches this one, where there are
    /// containers.
    #[serde(default)]
    pub network_names: Vec<String>,
    /// Such names that it has only while the essential containers of its task that have health checks
    /// are all healthy.
    #[serde(default)]
    pub names_when_healthy: Vec<String>,
}

/// A reference without tag and digest.
pub(crate) fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the host's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

/// The image of that digest in the repository of `image`.
pub(crate) fn by_digest(image: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(image))
}

/// Where a container's output goes: stream `<prefix>/<container>/<task id>` of `group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AwsLogs {
    pub group: String,
    pub prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    pub container_port: u16,
    /// A wish only: the backend publishes on a free port of 127.0.0.1.
    pub host_port: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// A container health check; times are AWS's, the backend scales interval and start period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    /// `["CMD", …]` or `["CMD-SHELL", line]`.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub start_period: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dependency {
    pub container: String,
    pub condition: DependencyCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DependencyCondition {
    Start,
    Complete,
    Success,
    Healthy,
}

/// What a backend saw of a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskReport {
    pub task_id: String,
    pub event: TaskEvent,
}

/// Where a backend puts its reports. Unbounded, because a report must never block a container's
/// supervision; their number is bounded by that of container events.
pub(crate) type Reports = mpsc::UnboundedSender<TaskReport>;

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub message: String,
}

/// A log stream that a container with the `awslogs` driver has or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogStream {
    pub task_id: String,
    pub container: String,
    pub awslogs: AwsLogs,
    /// Milliseconds since the epoch.
    pub created: i64,
}

impl LogStream {
    /// The stream's name: `<prefix>/<container>/<task id>`, without the prefix when there is none.
    pub(crate) fn name(&self) -> String {
        let prefix = self.awslogs.prefix.as_deref();
        prefix
            .into_iter()
            .chain([self.container.as_str(), self.task_id.as_str()])
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Runs tasks. Both methods that begin something return as soon as it is under way; the rest comes
/// as reports.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// When something happens next that `play` would report; None where things happen by
    /// themselves and are reported at once.
    fn due(&self) -> Option<Time> {
        None
    }

    /// Reports everything that has happened up to `now`.
    fn play(&self, _now: Time) {}

    /// Pulls, creates and starts in `depends_on` order. Reports `Pulled`, then `ContainerStarted`
    /// for each; or one of the `Cannot…`. After a `Cannot…` or the exit of an essential container
    /// the backend leaves the rest as it is and waits for `stop`.
    async fn start(&self, launch: TaskLaunch);

    /// Stops what still runs (SIGTERM, the container's timeout, SIGKILL), reports each
    /// `ContainerExited`, removes the containers, and always ends with `Stopped`, also
    /// for a task it does not know or has stopped before, and when called twice.
    async fn stop(&self, task_id: &str);

    /// Called once, before anything else, with every task that has not ended: takes over the
    /// containers that exist and reports what is true of them, starts those tasks that have none,
    /// and begins to sweep. Calls of `stop` follow for those that were being stopped.
    async fn adopt(&self, tasks: Vec<TaskLaunch>) -> anyhow::Result<()>;

    /// Removes whatever carries this sandbox's label and belongs to no task that it runs; called
    /// again and again, because what a killed sandbox asked for may appear later.
    async fn sweep(&self);

    /// Called last: lets go of the tasks, which go on, and removes what none of them needs.
    async fn shut_down(&self);

    /// The lines a container wrote, oldest first; also after it was removed. None when there was
    /// never such a container.
    async fn logs(&self, task_id: &str, container: &str) -> anyhow::Result<Option<Vec<LogLine>>>;

    /// Every stream that a container with `awslogs` ever opened, in no order; CloudWatch keeps
    /// streams longer than ECS keeps tasks.
    async fn log_streams(&self) -> anyhow::Result<Vec<LogStream>>;
}
