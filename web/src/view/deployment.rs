//! One deployment, and a deployment as a line of a list.

use askama::Template;

use super::frame::{Actor, Commit, Frame, Permission, Time, Waiting};
use super::matrix::Hold;
use super::run::LogLine;
use super::state::{DeploymentKind, DeploymentState, GateVerdict, TargetHealth, Tone};
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// A deployment as a line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentSummary {
    /// Its id in addresses.
    pub id: String,
    /// What it is called: `d31`.
    pub name: String,
    /// The project's name.
    pub project: String,
    /// The environment's name.
    pub environment: String,
    /// The service's name.
    pub service: String,
    /// Which verb made it.
    pub kind: DeploymentKind,
    /// How far it is.
    pub state: DeploymentState,
    /// Why it waits or how it ended, one line. May be empty only for `deployed`.
    pub reason: String,
    /// The release's name.
    pub release: String,
    /// Its commit.
    pub commit: Commit,
    /// Who asked for it.
    pub actor: Actor,
    /// When it was asked for.
    pub created: Time,
    /// When it ended.
    pub ended: Option<Time>,
}

/// `/deployments/{deployment}`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "deployment.html")]
pub struct DeploymentPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The deployment itself.
    pub deployment: DeploymentSummary,
    /// The release's id, as forms send it.
    pub release_id: String,
    /// The image that it brings, `repository@sha256:…`.
    pub image: String,
    /// What to know of it: `same commit, production variant: staging proves its sibling, built in the same run`.
    pub image_note: Option<String>,
    /// What was live before: the release's name.
    pub previous_release: Option<String>,
    /// The run that built the release, for the link.
    pub run: Option<String>,
    /// For a rollback: the deployment that it takes back. For a failed one: its rollback.
    pub counterpart: Option<(String, String)>,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// Every gate in front of it, open ones too.
    pub gates: Vec<Gate>,
    /// What was seen when it failed, line by line: stop reasons, exit codes, last lines of logs.
    pub evidence: Vec<String>,
    /// A hold on this environment and service.
    pub hold: Option<Hold>,
    /// What happened, oldest first.
    pub facts: Vec<Fact>,
    /// What the cluster says of the service's rollouts, newest first.
    pub rollouts: Vec<Rollout>,
    /// Targets behind the load balancer.
    pub targets: Vec<Target>,
    /// Tasks that stopped since it began, newest first.
    pub stopped: Vec<StoppedTask>,
    /// The service's events since it began, newest first.
    pub events: Vec<ClusterEvent>,
    /// When the cluster last answered, if that is so long ago that the page must say it.
    pub last_seen: Option<Time>,
    /// The word to type to confirm a rollback, in guarded environments.
    pub confirm: Option<String>,
    /// Whether the viewer may approve it.
    pub approve: Permission,
    /// Whether the viewer may stop it.
    pub cancel: Permission,
    /// Whether the viewer may go to the rollback picker of this service.
    pub rollback: Permission,
}

impl DeploymentPage {
    /// How many of the stopped tasks only made room for others.
    fn replaced(&self) -> u64 {
        self.stopped.iter().filter(|task| task.replaced).count() as u64
    }
}

/// One gate in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Its kind and measure: `healthy in staging for 10 m`, `approval by a deployer`.
    pub name: String,
    /// What it says now.
    pub verdict: GateVerdict,
    /// Why, as a phrase; while it waits, for what: `staging/web to stay healthy for 10 min: 7 min so far`.
    pub reason: String,
    /// Since when it says so.
    pub since: Option<Time>,
    /// When it will change by itself, if it will.
    pub until: Option<Time>,
    /// Who can change it. May be empty.
    pub who: String,
}

/// One entry of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// When.
    pub at: Time,
    /// How it is coloured.
    pub tone: Tone,
    /// What, short: `rolling out`.
    pub title: String,
    /// The rest, one or two sentences. May be empty.
    pub detail: String,
}

/// One rollout of the service, as the cluster counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// `PRIMARY`, `ACTIVE`, `INACTIVE`.
    pub role: String,
    /// The task definition as `family:revision`.
    pub task_definition: String,
    /// Its state and reason in the cluster's words.
    pub state: String,
    /// Tasks wanted.
    pub desired: u32,
    /// Tasks running.
    pub running: u32,
    /// Tasks on their way.
    pub pending: u32,
    /// Tasks that failed to start.
    pub failed: u32,
    /// When the cluster last changed it.
    pub updated: Time,
}

/// One target behind the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address and port, or the task's id.
    pub id: String,
    /// What the load balancer says.
    pub health: TargetHealth,
    /// Its reason. May be empty.
    pub reason: String,
    /// The release that the task behind it runs, when known.
    pub release: Option<String>,
}

/// A task that stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedTask {
    /// The task's id, short.
    pub task: String,
    /// The task definition as `family:revision`.
    pub task_definition: String,
    /// The cluster's stop code: `EssentialContainerExited`.
    pub code: String,
    /// The cluster's reason.
    pub reason: String,
    /// The container that ended it.
    pub container: String,
    /// Its exit code, when there was one.
    pub exit_code: Option<i64>,
    /// Whether it only made room for a newer one, which is no failure.
    pub replaced: bool,
    /// When.
    pub at: Time,
    /// The last lines it wrote, oldest first.
    pub last_lines: Vec<LogLine>,
    /// Why there are no lines, when there are none: `the task definition has no awslogs driver`.
    pub log_note: String,
}

/// An event in the cluster's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// When.
    pub at: Time,
    /// What.
    pub message: String,
}
