//! The pipeline file after every check: what the rest of Roadstead works with.
//!
//! A [`Pipeline`] out of [`super::parse`] holds no dangling name: every service has its image, every
//! image is built by exactly one step, `needs` and `after` lead nowhere in a circle, and
//! `environments` stand in promotion order, each below the one it follows. It is stored as JSON with
//! the run, so a new field needs `#[serde(default)]`. It knows nothing of YAML.

mod one_or_more;

use super::input::Input;
use super::schedule::Schedule;
use super::step_files::StepFiles;
use super::trigger::PullRequestTrigger;
use super::variants::Variants;
use super::when::Event;
use crate::durations::Seconds;
use crate::id::{EnvironmentName, ImageName, ProjectName, ServiceName, StepName};
use crate::secret::SecretRef;
use crate::spec::{Combination, Create, Group, TaskDefinition};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// One project's pipeline: what starts it, what it builds, and where that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// The project.
    pub name: ProjectName,
    /// What starts a run.
    pub trigger: Trigger,
    /// What becomes of runs that are under way at the same time.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Built once per commit, deployed by digest.
    pub images: IndexMap<ImageName, Image>,
    /// Containers and builds; `needs` draws the graph.
    pub steps: IndexMap<StepName, Step>,
    /// What runs in ECS.
    pub services: IndexMap<ServiceName, Service>,
    /// In promotion order: an environment comes after the one it names in `after`.
    pub environments: IndexMap<EnvironmentName, Environment>,
}

/// What starts a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Globs over branch names, `release/*`. Empty: any branch, or none when there are `tags`.
    pub branches: Vec<String>,
    /// Globs over names of tags, `v*`. Empty: no tag.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Globs over changed paths, those with `!` taking away. Empty: any path.
    pub paths: Vec<String>,
    /// Which pull requests start runs; none: no one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestTrigger>,
    /// What a person may give who starts a run.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, Input>,
    /// When runs start by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
}

/// What becomes of runs that are under way at the same time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// A newer push cancels the runs of the same branch or tag that still build.
    pub cancel_superseded: bool,
}

/// One image to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The repository within the registry, `shop/api`, without a host or a tag.
    pub repository: String,
    /// The directory that is sent to the build, relative to the repository's root; `.` is the root.
    pub context: String,
    /// The Dockerfile, relative to `context`.
    pub dockerfile: String,
    /// The stage to build; the last one when absent.
    pub target: Option<String>,
    /// Build arguments.
    pub args: IndexMap<String, String>,
    /// Those of single environments, laid over `args`: each makes a variant.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub args_by_environment: IndexMap<EnvironmentName, IndexMap<String, String>>,
    /// Dockerfiles of single environments: each makes a variant.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub dockerfile_by_environment: IndexMap<EnvironmentName, String>,
    /// The secrets that instructions of its Dockerfile may mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretRef>,
}

/// One node of the run's graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Steps that have to succeed first.
    pub needs: Vec<StepName>,
    /// Where it runs; everywhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// How long it may take; the server's default when absent.
    pub timeout: Option<Seconds>,
    /// How often it is tried again after it failed.
    #[serde(default)]
    pub retry: u32,
    /// Labels that its runner has to have, sorted. Not empty: it is a job of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs_on: Vec<String>,
    /// Which combination of its matrix it is, if it has one: then it is a job of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Combination>,
    /// The group that its job is in, if it is in one: then it is a job of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Steps of which it gets the artifacts, each one that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts_from: Vec<StepName>,
    /// What it does.
    pub action: StepAction,
}

impl Step {
    /// No other step is in its job.
    #[must_use]
    pub fn has_own_job(&self) -> bool {
        !self.runs_on.is_empty() || self.matrix.is_some() || self.group.is_some()
    }
}

/// How much of a runner's machine a step's container may use; what is not said is the runner's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLimits {
    /// CPU units: 1024 are one processor.
    pub cpu: Option<u32>,
    /// Memory in MiB.
    pub memory: Option<u32>,
}

/// Where a step runs. It says something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// Globs over branch names. Empty: any branch, or none when there are `tags`.
    pub branches: Vec<String>,
    /// Globs over names of tags. Empty: any tag, or none when there are `branches`.
    pub tags: Vec<String>,
    /// Globs over changed paths, of which one has to match. Empty: any path.
    pub paths: Vec<String>,
    /// What has to have started the run. Empty: anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "most steps are the large one, and a file has few of the other"
)]
pub enum StepAction {
    /// A script in a container.
    Run {
        /// The container's image.
        image: String,
        /// The script, given to the container's shell.
        run: String,
        /// Environment variables.
        env: IndexMap<String, String>,
        /// Helper containers beside it, reachable by their name.
        sidecars: IndexMap<String, Sidecar>,
        /// What it gets and nobody is to see.
        #[serde(default)]
        secrets: Vec<StepSecret>,
        /// How much of the machine it may use.
        #[serde(default)]
        limits: StepLimits,
        /// What becomes of files in its workspace.
        #[serde(default, skip_serializing_if = "StepFiles::is_silent")]
        files: StepFiles,
    },
    /// Builds images and pushes them.
    Build {
        /// The images, in this order.
        images: Vec<ImageName>,
    },
}

/// A secret of the project that a step gets as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSecret {
    /// Which.
    pub secret: SecretRef,
    /// The variable of the step's shell that holds the value, too.
    pub variable: Option<String>,
}

/// A helper container beside a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// The container's image.
    pub image: String,
    /// Environment variables.
    pub env: IndexMap<String, String>,
    /// Takes the place of the image's command when not empty.
    pub command: Vec<String>,
}

/// One service that runs in ECS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The image it runs.
    pub image: ImageName,
    /// The container of the task definition that gets the image; when absent the definition has to
    /// have exactly one.
    pub container: Option<String>,
    /// Where it answers for its health, `/healthz`.
    pub health_path: Option<String>,
    /// What has to end well on the new image before the service is touched.
    #[serde(default)]
    pub before_deploy: Option<BeforeDeploy>,
    /// What its next revision is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<TaskDefinition>,
    /// Which variants of its image it takes.
    #[serde(default, skip_serializing_if = "Variants::is_default")]
    pub variants: Variants,
}

/// A command that one task of the new image runs before a deployment touches the service, such as a
/// migration of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeDeploy {
    /// Its words; they take the place of the image's entry point and command.
    pub command: Vec<String>,
    /// How long it may run.
    pub timeout: Seconds,
}

impl BeforeDeploy {
    /// How long it may run when the file says nothing.
    pub const DEFAULT_TIMEOUT: Seconds = Seconds::from_minutes(30);

    /// The first line of what it runs, as people know it, at most 60 characters of it.
    #[must_use]
    pub fn shown(&self) -> String {
        let line = match self.command.as_slice() {
            [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => line.clone(),
            words => words.join(" "),
        };
        let first = line.lines().next().unwrap_or_default();
        let short: String = first.chars().take(60).collect();
        if short.len() < line.trim_end().len() {
            format!("{short}…")
        } else {
            short
        }
    }
}

/// One place in the promotion order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The environment that has to have proved a release before this one gets it.
    pub after: Option<EnvironmentName>,
    /// Whether a release comes here by itself.
    pub deploy: DeployMode,
    /// Where the services are.
    pub ecs: EcsTarget,
    /// What is different for single services.
    pub overrides: IndexMap<ServiceName, EcsTargetOverride>,
    /// Files of `KEY=VALUE` lines in the repository; the later win.
    #[serde(default, rename = "env_file", with = "one_or_more")]
    pub env_files: Vec<String>,
    /// Environment variables; they win over the files'.
    pub variables: IndexMap<String, String>,
    /// All have to pass before a deployment starts.
    pub gates: Vec<Gate>,
    /// What has to hold after the rollout.
    pub verify: Option<Verify>,
    /// What ends the rollout.
    pub done_when: DoneWhen,
    /// How long a rollout may take before it counts as failed.
    pub rollout_timeout: Seconds,
    /// What happens when a deployment fails.
    pub rollback: Rollback,
}

impl Environment {
    /// How long a rollout may take when the file says nothing.
    pub const DEFAULT_ROLLOUT_TIMEOUT: Seconds = Seconds::from_minutes(30);

    /// Where `service` runs: the environment's target with the service's override laid over it and
    /// `{service}` replaced by its name.
    #[must_use]
    pub fn target(&self, service: &ServiceName) -> ResolvedTarget {
        let own = self.overrides.get(service).cloned().unwrap_or_default();
        let named = own.service.as_ref().unwrap_or(&self.ecs.service);
        ResolvedTarget {
            region: own.region.or_else(|| self.ecs.region.clone()),
            cluster: own.cluster.unwrap_or_else(|| self.ecs.cluster.clone()),
            service: named.replace(SERVICE_PLACEHOLDER, service.as_str()),
            cpu: own.cpu.or(self.ecs.cpu),
            memory: own.memory.or(self.ecs.memory),
            min_healthy_percent: own.min_healthy_percent.or(self.ecs.min_healthy_percent),
            max_percent: own.max_percent.or(self.ecs.max_percent),
            create: match (&self.ecs.create, own.create) {
                (Some(common), Some(own)) => Some(common.with(&own)),
                (common, own) => own.or_else(|| common.clone()),
            },
        }
    }
}

/// Stands for the service's name in [`EcsTarget::service`].
pub const SERVICE_PLACEHOLDER: &str = "{service}";

/// Whether a release comes by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployMode {
    /// As soon as the gates pass.
    #[default]
    Auto,
    /// When a person presses Promote.
    Manual,
}

/// Where an environment's services are, and how they roll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsTarget {
    /// The Region; the server's default when absent.
    pub region: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The ECS service's name, with `{service}` for the name in this file.
    pub service: String,
    /// CPU units of the task; as the task definition has it when absent.
    pub cpu: Option<u32>,
    /// MiB of the task; as the task definition has it when absent.
    pub memory: Option<u32>,
    /// `minimumHealthyPercent`; as the service has it when absent.
    pub min_healthy_percent: Option<u32>,
    /// `maximumPercent`; as the service has it when absent.
    pub max_percent: Option<u32>,
    /// What the next revision is made from, over what the service says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<TaskDefinition>,
    /// What the ECS service is made with if it does not exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
}

/// What is different for one service; absent means as in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsTargetOverride {
    /// See [`EcsTarget::region`].
    pub region: Option<String>,
    /// See [`EcsTarget::cluster`].
    pub cluster: Option<String>,
    /// See [`EcsTarget::service`].
    pub service: Option<String>,
    /// See [`EcsTarget::cpu`].
    pub cpu: Option<u32>,
    /// See [`EcsTarget::memory`].
    pub memory: Option<u32>,
    /// See [`EcsTarget::min_healthy_percent`].
    pub min_healthy_percent: Option<u32>,
    /// See [`EcsTarget::max_percent`].
    pub max_percent: Option<u32>,
    /// See [`EcsTarget::task_definition`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<TaskDefinition>,
    /// See [`EcsTarget::create`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<Create>,
}

/// Where one service runs in one environment. Made by [`Environment::target`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedTarget {
    /// The Region; the server's default when absent.
    pub region: Option<String>,
    /// The cluster's name.
    pub cluster: String,
    /// The ECS service's name.
    pub service: String,
    /// CPU units of the task; as the task definition has it when absent.
    pub cpu: Option<u32>,
    /// MiB of the task; as the task definition has it when absent.
    pub memory: Option<u32>,
    /// `minimumHealthyPercent`; as the service has it when absent.
    pub min_healthy_percent: Option<u32>,
    /// `maximumPercent`; as the service has it when absent.
    pub max_percent: Option<u32>,
    /// What the ECS service is made with if it does not exist yet; then it has to exist when absent.
    pub create: Option<Create>,
}

/// One condition before a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The release is verified and healthy upstream, and has been for a while.
    Healthy {
        /// Where: `after`, unless named.
        environment: EnvironmentName,
        /// How long without a break.
        soak: Seconds,
        /// At least so many of its tasks have to be running.
        min_running: u32,
    },
    /// People said yes.
    Approval {
        /// Who may: these roles, and every higher one. Never empty.
        from: Vec<Role>,
        /// How many different people. At least 1.
        count: u32,
        /// The commit's author does not count.
        not_author: bool,
    },
}

impl Pipeline {
    /// The steps in an order that respects `needs`: again and again the first of the file that may come now. A
    /// file that was checked has no circle; one that was not loses what is in it.
    #[must_use]
    pub fn steps_in_order(&self) -> Vec<&StepName> {
        let mut missing: Vec<usize> = self.steps.values().map(|step| step.needs.len()).collect();
        let mut needed_by = vec![vec![]; missing.len()];
        for (index, step) in self.steps.values().enumerate() {
            for need in step
                .needs
                .iter()
                .filter_map(|name| self.steps.get_index_of(name))
            {
                needed_by[need].push(index);
            }
        }
        let mut ready: BTreeSet<usize> = (0..missing.len())
            .filter(|index| missing[*index] == 0)
            .collect();
        let mut ordered = vec![];
        while let Some(index) = ready.pop_first() {
            ordered.extend(self.steps.get_index(index).map(|(name, _)| name));
            for next in &needed_by[index] {
                missing[*next] -= 1;
                if missing[*next] == 0 {
                    ready.insert(*next);
                }
            }
        }
        ordered
    }

    /// Whether a gate of any environment has `not_author`.
    #[must_use]
    pub fn asks_for_authors(&self) -> bool {
        let mut gates = self.environments.values().flat_map(|e| &e.gates);
        gates.any(|gate| {
            matches!(
                gate,
                Gate::Approval {
                    not_author: true,
                    ..
                }
            )
        })
    }
}

impl Gate {
    /// Tasks that have to run when the file says nothing.
    pub const DEFAULT_MIN_RUNNING: u32 = 1;
}

/// What somebody may do; each may also do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Promotes, rolls back, approves, holds.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Deployer, Self::Admin];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// Reads a role; `None` when there is none of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What has to hold after the rollout before a deployment is called deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// Requests, each of which has to be answered as expected.
    pub http: Vec<HttpProbe>,
    /// How long every probe and ECS' own health have to hold.
    pub watch: Seconds,
}

impl Verify {
    /// How long things have to hold when the file says nothing.
    pub const DEFAULT_WATCH: Seconds = Seconds::from_minutes(2);
}

/// One request and the answer that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpProbe {
    /// An `http` or `https` address.
    pub url: String,
    /// The status, 100–599.
    pub expect_status: u16,
    /// A text that the body has to contain.
    pub expect_body: Option<String>,
}

impl HttpProbe {
    /// The status that is expected when the file says nothing.
    pub const DEFAULT_STATUS: u16 = 200;
}

/// The milestone that ends a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneWhen {
    /// So many new tasks are healthy.
    Serving {
        /// At least 1.
        count: u32,
    },
    /// As many new tasks as desired are healthy.
    #[default]
    AllHealthy,
    /// And the old tasks are gone.
    Drained,
}

/// What happens when a deployment fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Go back to the last verified release without being asked.
    pub auto: bool,
    /// What automation does afterwards.
    pub then: AfterRollback,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            auto: true,
            then: AfterRollback::Hold,
        }
    }
}

/// What automation does after a rollback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterRollback {
    /// Leaves the place alone until somebody resumes it.
    #[default]
    Hold,
}
