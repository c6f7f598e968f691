//! The scheduler's records: services, deployments, service deployments, revisions, events.
//!
//! They are also what the state file keeps. Times are wall time; durations are AWS's and are
//! scaled where they are waited for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::alarms::{AlarmRules, AlarmSight, AlarmWatch};
use super::breaker::Breaker;
use super::placement::Need;
use super::task::Task;
use crate::clock::Time;

/// What was seen of a task from outside. All but `Stopped` may come more than once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TaskEvent {
    /// Every image is there.
    Pulled,
    /// A container runs.
    ContainerStarted {
        name: String,
        /// The engine's id.
        container_id: String,
        bindings: Vec<PortBinding>,
        /// `sha256:…` of the image, when it is known.
        image_digest: Option<String>,
    },
    /// A container has ended on its own or by `stop`.
    ContainerExited {
        name: String,
        exit_code: i64,
        /// The kernel killed it for its memory limit.
        oom: bool,
        /// How long it ran by the engine's own clock. A container that ends within a second
        /// counts as one that never came up, however late the report arrives.
        ran_for_ms: Option<u64>,
    },
    /// A container's health check changed its verdict.
    ContainerHealth { name: String, healthy: bool },
    /// What it needs before its containers could not be set up.
    CannotInitialize { reason: String },
    /// An image could not be had: `reason` is the engine's text, without AWS's prefix.
    CannotPull { container: String, reason: String },
    /// A container could not be created or started, or a dependency was not met.
    CannotStart { container: String, reason: String },
    /// Nothing of the task is left.
    Stopped,
}

/// A port of a container and where it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortBinding {
    pub container_port: u16,
    /// On 127.0.0.1.
    pub host_port: u16,
    pub protocol: String,
}

/// How a load balancer sees a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TargetState {
    /// Registered, not yet enough checks either way.
    Initial,
    Healthy,
    /// Enough failed checks; the reason is the balancer's description of the last one.
    Unhealthy {
        reason: String,
    },
    /// Deregistered, requests in flight may finish.
    Draining,
    Unused,
}

/// What the shell must do after the changed records are on disk. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start the containers of a new task.
    Launch { task_id: String },
    /// Stop them.
    Stop { task_id: String },
    /// Make the task a target.
    Register {
        task_id: String,
        group: String,
        address: SocketAddr,
    },
    /// Let the target drain.
    Deregister { task_id: String, group: String },
    /// Forget the target.
    Remove { task_id: String, group: String },
}

/// How long the scheduler's waits take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timings {
    /// How many times faster than at AWS waits pass.
    pub scale: f64,
    /// Exits after RUNNING count for the breaker although nothing checks the task's health.
    pub strict_breaker: bool,
}

impl Timings {
    /// A task that nothing checks counts as healthy after it ran this long.
    pub(crate) const SETTLE: Duration = Duration::from_secs(40);
    /// How long a task stays in a state that it only passes through, at most.
    pub(crate) const TICK: Duration = Duration::from_secs(1);
    /// The longest pause between launches of tasks that do not start.
    pub(crate) const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);
    /// How often a service that stays steady says so again.
    pub(crate) const STEADY_REPEAT: Duration = Duration::from_secs(6 * 60 * 60);

    /// AWS's wait in the sandbox's time.
    pub(crate) fn wait(&self, aws: Duration) -> Duration {
        aws.div_f64(self.scale)
    }
}

/// The time and the randomness of one tick.
pub(crate) struct Moment<'a> {
    pub now: Time,
    pub timings: Timings,
    pub ids: Ids<'a>,
}

/// Makes identifiers in AWS's shapes from a source of random bits.
pub(crate) struct Ids<'a>(pub &'a mut dyn FnMut() -> u128);

impl Ids<'_> {
    /// 32 hex digits, as tasks have.
    pub(crate) fn hex(&mut self) -> String {
        format!("{:032x}", (self.0)())
    }

    /// 19 digits, as deployments and revisions have.
    pub(crate) fn digits(&mut self) -> String {
        const SMALLEST: u128 = 1_000_000_000_000_000_000;
        format!("{}", SMALLEST + (self.0)() % (9 * SMALLEST))
    }

    /// 21 characters of URL-safe base 64, as service deployments have.
    pub(crate) fn base64(&mut self) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bits = (self.0)();
        (0..21)
            .map(|_| {
                let letter = ALPHABET[(bits % 64) as usize];
                bits /= 64;
                char::from(letter)
            })
            .collect()
    }

    /// The usual form of a UUID, as events have.
    pub(crate) fn uuid(&mut self) -> String {
        let hex = self.hex();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            /// AWS's word for it.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}
pub(super) use words;

words!(
    /// What a task is meant to do.
    Desired { Running => "RUNNING", Stopped => "STOPPED" }
);
words!(
    /// Why a task stopped.
    StopCode {
        TaskFailedToStart => "TaskFailedToStart",
        EssentialContainerExited => "EssentialContainerExited",
        UserInitiated => "UserInitiated",
        ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
        SpotInterruption => "SpotInterruption",
        TerminationNotice => "TerminationNotice",
    }
);
words!(
    /// Whether a deployment is the one wanted.
    DeploymentStatus { Primary => "PRIMARY", Active => "ACTIVE" }
);
words!(
    /// How far a deployment got.
    RolloutState {
        InProgress => "IN_PROGRESS",
        Completed => "COMPLETED",
        Failed => "FAILED",
    }
);
words!(
    /// Whether a service lives.
    ServiceStatus { Active => "ACTIVE", Draining => "DRAINING", Inactive => "INACTIVE" }
);
words!(
    /// The state of a service deployment.
    ServiceDeploymentStatus {
        Pending => "PENDING",
        InProgress => "IN_PROGRESS",
        StopRequested => "STOP_REQUESTED",
        RollbackRequested => "ROLLBACK_REQUESTED",
        RollbackInProgress => "ROLLBACK_IN_PROGRESS",
        Successful => "SUCCESSFUL",
        Stopped => "STOPPED",
        RollbackSuccessful => "ROLLBACK_SUCCESSFUL",
        RollbackFailed => "ROLLBACK_FAILED",
    }
);

impl ServiceDeploymentStatus {
    /// Whether nothing will change it any more.
    pub(crate) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Successful | Self::Stopped | Self::RollbackSuccessful | Self::RollbackFailed
        )
    }
}

/// How many tasks a rollout may miss or add, and when it gives up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// Percent of the desired count, rounded up.
    pub minimum_healthy_percent: u32,
    /// Percent of the desired count, rounded down.
    pub maximum_percent: u32,
    pub breaker: Breaker,
    #[serde(default)]
    pub alarms: AlarmRules,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            breaker: Breaker::default(),
            alarms: AlarmRules::default(),
        }
    }
}

impl Configuration {
    /// The least number of healthy tasks that a rollout keeps, when there are as many.
    pub(crate) fn minimum(&self, desired: u32) -> u32 {
        let product = u64::from(self.minimum_healthy_percent) * u64::from(desired);
        u32::try_from(product.div_ceil(100)).unwrap_or(u32::MAX)
    }

    /// The greatest number of tasks that may be meant to run at once.
    pub(crate) fn maximum(&self, desired: u32) -> u32 {
        let product = u64::from(self.maximum_percent) * u64::from(desired);
        u32::try_from(product / 100).unwrap_or(u32::MAX)
    }
}

/// What the scheduler needs of a container definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    pub name: String,
    pub image: String,
    pub essential: bool,
    /// The definition has a health check for it.
    pub checked: bool,
    /// All tasks of a deployment run what the image's tag stands for in its first one.
    #[serde(default)]
    pub consistent: bool,
}

/// One of the service's load balancers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetPlan {
    pub group: String,
    pub container: String,
    pub port: u16,
}

/// A service revision: what a deployment deploys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub id: String,
    pub created_at: Time,
    pub definition_arn: String,
    pub containers: Vec<ContainerPlan>,
    /// The digests that tags stand for in all its tasks, by image as the definition says it.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    pub targets: Vec<TargetPlan>,
    /// What a task takes of a container instance; None with Fargate, which has no instances.
    #[serde(default)]
    pub need: Option<Need>,
    /// The members of the request that start a deployment when they change, as they came.
    pub settings: Map<String, Value>,
}

/// One of a service's deployments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// `ecs-svc/` and 19 digits.
    pub id: String,
    pub revision: Revision,
    pub status: DeploymentStatus,
    pub rollout: RolloutState,
    pub rollout_reason: String,
    /// Failures the breaker counts against its threshold.
    pub failed_tasks: u32,
    /// Failures to start since the last start that worked; they lengthen the pause.
    pub start_failures: u32,
    pub next_launch: Time,
    pub created_at: Time,
    pub updated_at: Time,
    /// It was completed once, and its return has not failed since.
    pub proven: bool,
    /// The service deployment that it serves.
    pub service_deployment: String,
    /// Set at its first tick, when alarms are watched.
    #[serde(default)]
    pub watch: Option<AlarmWatch>,
}

/// Where a failed service deployment went back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rollback {
    pub reason: String,
    pub started_at: Time,
    pub revision: String,
}

/// The history record of one rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceDeployment {
    /// 21 characters.
    pub id: String,
    pub deployment: String,
    pub status: ServiceDeploymentStatus,
    pub status_reason: Option<String>,
    pub target_revision: String,
    pub source_revisions: Vec<String>,
    pub configuration: Configuration,
    pub created_at: Time,
    pub started_at: Time,
    pub updated_at: Time,
    pub finished_at: Option<Time>,
    pub stopped_at: Option<Time>,
    pub rollback: Option<Rollback>,
    /// The breaker's count and limit when it was last looked at.
    pub failures: u32,
    pub limit: u32,
    pub breaker_tripped: bool,
    /// The alarms that failed it.
    #[serde(default)]
    pub triggered_alarms: Vec<String>,
}

/// A line of the service's diary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub id: String,
    pub created_at: Time,
    pub message: String,
}

/// A service with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub name: String,
    pub cluster: String,
    /// What told a repeated CreateService from a second one.
    #[serde(default)]
    pub client_token: Option<String>,
    pub status: ServiceStatus,
    pub created_at: Time,
    pub desired: u32,
    pub configuration: Configuration,
    /// The configured alarms as CloudWatch last told.
    #[serde(default)]
    pub alarms_seen: Vec<AlarmSight>,
    /// How long after its start a task's checks are ignored.
    pub grace: Duration,
    /// Members that are only shown again.
    pub settings: Map<String, Value>,
    /// The PRIMARY first, then by age, newest first.
    pub deployments: Vec<Deployment>,
    /// The newest completed deployment besides the PRIMARY; a rollback goes there.
    pub last_completed: Option<Deployment>,
    /// Newest first.
    pub service_deployments: Vec<ServiceDeployment>,
    /// Newest first.
    pub revisions: Vec<Revision>,
    pub tasks: Vec<Task>,
    /// Newest first, at most [`Service::MOST_EVENTS`].
    pub events: Vec<Event>,
    /// When the present steady state was last announced.
    pub steady_since: Option<Time>,
}

impl Service {
    /// AWS keeps so many.
    pub(crate) const MOST_EVENTS: usize = 100;
    /// How many service deployments and revisions are remembered.
    pub(crate) const MOST_HISTORY: usize = 100;

    /// The wanted deployment.
    pub(crate) fn primary(&self) -> Option<&Deployment> {
        self.deployments
            .iter()
            .find(|deployment| deployment.status == DeploymentStatus::Primary)
    }

    pub(super) fn primary_mut(&mut self) -> Option<&mut Deployment> {
        self.deployments
            .iter_mut()
            .find(|deployment| deployment.status == DeploymentStatus::Primary)
    }

    /// Lets all tasks of a deployment's revision run `digest` for `image`, unless an earlier task has
    /// decided. What they run; None when there is no such deployment.
    pub(crate) fn pin(&mut self, deployment: &str, image: &str, digest: &str) -> Option<String> {
        let mut deployments = self.deployments.iter().chain(&self.last_completed);
        let own = &deployments.find(|one| one.id == deployment)?.revision;
        if let Some(decided) = own.digests.get(image) {
            return Some(decided.clone());
        }
        let id = own.id.clone();
        // Every copy: a deployment may come back, and its revision is described after its end.
        let deployed = self.deployments.iter_mut().chain(&mut self.last_completed);
        let revisions = deployed.map(|one| &mut one.revision);
        for revision in revisions.chain(&mut self.revisions) {
            if revision.id == id {
                revision.digests.insert(image.to_owned(), digest.to_owned());
            }
        }
        Some(digest.to_owned())
    }

    /// The service deployment that has not ended.
    pub(crate) fn current_service_deployment(&self) -> Option<&ServiceDeployment> {
        self.service_deployments
            .first()
            .filter(|one| !one.status.is_final())
    }

    /// Writes into the diary; the same line twice in a row is one.
    pub(super) fn tell(&mut self, moment: &mut Moment<'_>, message: &str) {
        let message = format!("(service {}) {message}", self.name);
        if self
            .events
            .first()
            .is_some_and(|last| last.message == message)
        {
            return;
        }
        self.tell_again(moment, message);
    }

    pub(super) fn tell_again(&mut self, moment: &mut Moment<'_>, message: String) {
        self.events.insert(
            0,
            Event {
                id: moment.ids.uuid(),
                created_at: moment.now,
                message,
            },
        );
        self.events.truncate(Self::MOST_EVENTS);
    }
}
