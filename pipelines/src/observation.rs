//! What ECS, the load balancer and the probes showed of a place, and what that means for its
//! health. Adapters fill the plain structs; the verdict and the soak clock are made here.

use crate::id::ReleaseId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Time that nobody observed does not count as healthy: a longer gap starts the soak anew.
/// Three times the slow polling interval of 30 s.
pub const LONGEST_GAP: SignedDuration = SignedDuration::from_secs(90);

/// One deployment in DescribeServices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsDeployment {
    /// `ecs-svc/…`.
    pub id: String,
    /// `PRIMARY`, `ACTIVE` or `INACTIVE`.
    pub status: String,
    /// ARN of its definition.
    pub task_definition: String,
    /// `IN_PROGRESS`, `COMPLETED`, `FAILED`; absent for other controllers.
    pub rollout_state: Option<String>,
    /// ECS's words.
    pub rollout_reason: String,
    /// Tasks wanted.
    pub desired: u32,
    /// Tasks running.
    pub running: u32,
    /// Tasks starting.
    pub pending: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Running tasks that every check calls healthy; none when nothing checks them.
    pub healthy: Option<u32>,
    /// When ECS made it.
    pub created_at: Option<Timestamp>,
}

/// What DescribeServiceDeployments says of the newest one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDeploymentSeen {
    /// Its ARN.
    pub arn: String,
    /// `PENDING` … `ROLLBACK_FAILED`.
    pub status: String,
    /// ECS's words.
    pub reason: String,
    /// The definition that it moves to.
    pub task_definition: Option<String>,
}

/// A task that stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedTask {
    /// Its ARN.
    pub task: String,
    /// The ECS deployment that started it.
    pub started_by: String,
    /// `EssentialContainerExited`, `TaskFailedToStart`, …
    pub stop_code: String,
    /// ECS's words.
    pub reason: String,
    /// Exit statuses by container, where known.
    pub exit_codes: BTreeMap<String, i64>,
    /// A container's own reason, where given.
    pub container_reason: String,
    /// Its last log lines, oldest first.
    pub last_lines: Vec<String>,
    /// When it stopped.
    pub stopped_at: Option<Timestamp>,
}

/// One target behind the load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSeen {
    /// `address:port`.
    pub target: String,
    /// `healthy`, `unhealthy`, `initial`, `draining`, `unused`.
    pub state: String,
    /// The load balancer's words.
    pub reason: String,
}

/// A line of the service's event list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSeen {
    /// When.
    pub at: Option<Timestamp>,
    /// ECS's words.
    pub message: String,
}

/// A service as ECS showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSeen {
    /// The definition that the service names.
    pub task_definition: String,
    /// Tasks wanted.
    pub desired: u32,
    /// Tasks running.
    pub running: u32,
    /// Tasks starting.
    pub pending: u32,
    /// Its deployments, PRIMARY first.
    pub deployments: Vec<EcsDeployment>,
    /// The newest service deployment; none when it may not be read.
    pub service_deployment: Option<ServiceDeploymentSeen>,
    /// Tasks that stopped lately, newest first.
    pub stopped: Vec<StoppedTask>,
    /// Targets of its target groups; empty without a load balancer.
    pub targets: Vec<TargetSeen>,
    /// Newest events first.
    pub events: Vec<EventSeen>,
}

impl ServiceSeen {
    /// The deployment that ECS works towards.
    #[must_use]
    pub fn primary(&self) -> Option<&EcsDeployment> {
        self.deployments.iter().find(|d| d.status == "PRIMARY")
    }

    /// A deployment by id.
    #[must_use]
    pub fn deployment(&self, id: &str) -> Option<&EcsDeployment> {
        self.deployments.iter().find(|d| d.id == id)
    }

    /// When a task of a deployment last ended by itself, whatever its exit status, and which: a service's
    /// tasks are not to end. Tasks that somebody or ECS stopped are none of these.
    #[must_use]
    pub fn last_crash(&self, deployment: &str) -> Option<(Timestamp, &StoppedTask)> {
        self.stopped
            .iter()
            .filter(|task| task.started_by == deployment)
            .filter(|task| {
                ["EssentialContainerExited", "TaskFailedToStart"].contains(&task.stop_code.as_str())
            })
            .filter_map(|task| Some((task.stopped_at?, task)))
            .max_by_key(|(at, _)| *at)
    }
}

/// One HTTP probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSeen {
    /// The address asked.
    pub url: String,
    /// Whether the answer was the expected one.
    pub ok: bool,
    /// What came, in words.
    pub detail: String,
}

/// The verdict of one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Health {
    /// Everything that checks says healthy.
    Pass,
    /// Something says unhealthy.
    Fail {
        /// What.
        reason: String,
    },
    /// Nothing can be said: never promotes, never rolls back.
    Inconclusive {
        /// Why.
        reason: String,
    },
}

/// Judges one look at a service.
#[must_use]
pub fn judge_health(service: &ServiceSeen, probes: &[ProbeSeen]) -> Health {
    let Some(primary) = service.primary() else {
        return Health::Fail {
            reason: "the service has no deployment".into(),
        };
    };
    if service.desired == 0 {
        let reason = "the service wants no tasks (desired count 0)".into();
        return Health::Inconclusive { reason };
    }
    if let Some(probe) = probes.iter().find(|probe| !probe.ok) {
        return Health::Fail {
            reason: format!("{} answered {}", probe.url, probe.detail),
        };
    }
    if primary.running < service.desired {
        let reason = format!("{} of {} tasks running", primary.running, service.desired);
        return if primary.rollout_state.as_deref() == Some("IN_PROGRESS") {
            Health::Inconclusive {
                reason: format!("{reason}; a rollout is in progress"),
            }
        } else {
            Health::Fail { reason }
        };
    }
    if let Some(healthy) = primary.healthy
        && healthy < service.desired
    {
        let why = service.targets.iter().find(|t| t.state == "unhealthy");
        let why = why
            .map(|t| format!(": target {} {}", t.target, t.reason))
            .unwrap_or_default();
        return Health::Fail {
            reason: format!("{healthy} of {} tasks healthy{why}", service.desired),
        };
    }
    Health::Pass
}

/// What is known of a place from looking at it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceStatus {
    /// When the last look began: what it shows may be older than an answer that came meanwhile,
    /// never newer than it claims.
    pub observed_at: Timestamp,
    /// The service then.
    pub service: ServiceSeen,
    /// The probes then.
    pub probes: Vec<ProbeSeen>,
    /// The verdict then.
    pub health: Health,
    /// The release that runs, as far as Roadstead knows the definition.
    pub release: Option<ReleaseId>,
    /// Healthy without a break since.
    pub healthy_since: Option<Timestamp>,
    /// Unhealthy without a break since.
    pub unhealthy_since: Option<Timestamp>,
    /// What last broke the health, and when.
    pub last_break: Option<(Timestamp, String)>,
    /// Longest unbroken healthy time per release, in whole seconds; the newest twenty releases.
    pub soaked: BTreeMap<ReleaseId, u64>,
    /// Set while looking fails: since when and why.
    pub unseen: Option<(Timestamp, String)>,
}

impl PlaceStatus {
    /// The status after one more look.
    #[must_use]
    pub fn observe(
        before: Option<&Self>,
        service: ServiceSeen,
        probes: Vec<ProbeSeen>,
        release: Option<ReleaseId>,
        at: Timestamp,
    ) -> Self {
        let health = judge_health(&service, &probes);
        let continues = before.filter(|b| b.release == release);
        let gap = before.is_some_and(|b| at.duration_since(b.observed_at) > LONGEST_GAP);
        let mut last_break = continues.and_then(|b| b.last_break.clone());
        if gap {
            last_break = Some((at, "it was not observed for a while".into()));
        }
        let unbroken = continues.filter(|_| !gap);
        // Tasks that end and are started again may all be there at every look.
        let crash = service.primary().and_then(|p| service.last_crash(&p.id));
        let healthy_since = match &health {
            Health::Pass => {
                let since = unbroken.and_then(|b| b.healthy_since).unwrap_or(at);
                Some(match crash {
                    Some((crashed, task)) if crashed > since => {
                        last_break = Some((crashed, format!("a task ended: {}", task.reason)));
                        crashed.min(at)
                    }
                    _ => since,
                })
            }
            Health::Inconclusive { .. } => unbroken.and_then(|b| b.healthy_since),
            Health::Fail { reason } => {
                if unbroken.is_some_and(|b| b.healthy_since.is_some()) {
                    last_break = Some((at, reason.clone()));
                }
                None
            }
        };
        let unhealthy_since = match &health {
            Health::Fail { .. } => unbroken.and_then(|b| b.unhealthy_since).or(Some(at)),
            Health::Pass | Health::Inconclusive { .. } => None,
        };
        let mut soaked = before.map(|b| b.soaked.clone()).unwrap_or_default();
        if let (Some(release), Some(since), Health::Pass) = (&release, healthy_since, &health) {
            let now = u64::try_from(at.duration_since(since).as_secs()).unwrap_or(0);
            let longest = soaked.entry(release.clone()).or_insert(0);
            *longest = now.max(*longest);
        }
        while soaked.len() > 20 {
            let oldest = soaked
                .keys()
                .min_by_key(|release| release.number())
                .cloned();
            if let Some(oldest) = oldest {
                soaked.remove(&oldest);
            }
        }
        Self {
            observed_at: at,
            service,
            probes,
            health,
            release,
            healthy_since,
            unhealthy_since,
            last_break,
            soaked,
            unseen: None,
        }
    }

    /// The status after a look that failed: what was seen stays, and says since when.
    #[must_use]
    pub fn not_seen(self, reason: String, at: Timestamp) -> Self {
        let since = self.unseen.as_ref().map_or(at, |(since, _)| *since);
        Self {
            unseen: Some((since, reason)),
            ..self
        }
    }

    /// Whether a plan could come out differently with `other`: all but the time of the look.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let at = other.observed_at;
        let mut same_time = self.clone();
        same_time.observed_at = at;
        same_time.soaked.clone_from(&other.soaked);
        same_time == *other
    }
}
