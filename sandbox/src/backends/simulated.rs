//! Tasks that only pretend: labels of a container say what happens to it.
//!
//! | `dockerLabels` | meaning | default |
//! |---|---|---|
//! | `simulate.pull` | `fail`, or how long the pull takes | `0s` |
//! | `simulate.start` | `fail`, or how long the start takes | `0s` |
//! | `simulate.exit` | `<code>@<time>`: exits that long after its start | never |
//! | `simulate.health` | `healthy@<time>` or `unhealthy@<time>` of its check | `healthy@0s` |
//! | `simulate.target` | the same for the load balancer, after registration | `healthy@1s` |
//! | `simulate.stop` | how long it takes to stop | `0s` |
//!
//! Times are seconds with an `s`, at AWS's pace. Must not know: services and deployments.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{
    Backend, ContainerSpec, LogLine, LogStream, PortBinding, Reports, TaskEvent, TaskLaunch,
    TaskReport,
};
use crate::clock::Clock;
use crate::targets::{TargetHealth, TargetState};

/// A verdict and the time after which it holds.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    healthy: bool,
    after: Duration,
}

/// What happens to one container.
#[derive(Debug, Clone)]
struct Script {
    name: String,
    checked: bool,
    ports: Vec<PortBinding>,
    pull: Result<Duration, ()>,
    start: Result<Duration, ()>,
    exit: Option<(i64, Duration)>,
    health: Verdict,
    target: Verdict,
    stop: Duration,
}

struct Running {
    stop: CancellationToken,
    target: Verdict,
}

struct Registration {
    since: Instant,
    draining: bool,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<String, Running>,
    /// By target group and task.
    targets: HashMap<(String, String), Registration>,
}

/// Runs scripts. It is also the load balancer of its tasks: every target group exists.
pub(crate) struct Simulated {
    clock: Clock,
    reports: Reports,
    inner: Arc<Mutex<Inner>>,
}

impl Simulated {
    /// A backend without tasks.
    pub(crate) fn new(clock: Clock, reports: Reports) -> Self {
        Self {
            clock,
            reports,
            inner: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, task_id: &str, event: TaskEvent) {
        send(&self.reports, task_id, event);
    }
}

/// A closed channel means that the sandbox is shutting down; nobody waits for the report.
fn send(reports: &Reports, task_id: &str, event: TaskEvent) {
    let report = TaskReport {
        task_id: task_id.to_owned(),
        event,
    };
    if reports.send(report).is_err() {
        tracing::debug!("a report came after the end");
    }
}

fn read_time(text: &str) -> Option<Duration> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn read_verdict(text: &str) -> Option<Verdict> {
    let (word, time) = text.split_once('@')?;
    let healthy = match word {
        "healthy" => true,
        "unhealthy" => false,
        _ => return None,
    };
    Some(Verdict {
        healthy,
        after: read_time(time)?,
    })
}

impl Script {
    /// The container's script; `Err` is the label that cannot be read.
    fn of(container: &ContainerSpec) -> Result<Self, String> {
        fn label<T>(
            container: &ContainerSpec,
            name: &str,
            default: T,
            read: impl Fn(&str) -> Option<T>,
        ) -> Result<T, String> {
            let name = format!("simulate.{name}");
            match container.docker_labels.get(&name) {
                None => Ok(default),
                Some(text) => read(text).ok_or_else(|| format!("cannot read label {name}={text}")),
            }
        }
        let or_fail = |text: &str| match text {
            "fail" => Some(Err(())),
            other => read_time(other).map(Ok),
        };
        let verdict = |seconds| Verdict {
            healthy: true,
            after: Duration::from_secs(seconds),
        };
        Ok(Self {
            name: container.name.clone(),
            checked: container.health_check.is_some(),
            ports: container
                .ports
                .iter()
                .map(|port| PortBinding {
                    container_port: port.container_port,
                    host_port: port.container_port,
                    protocol: port.protocol.clone(),
                })
                .collect(),
            pull: label(container, "pull", Ok(Duration::ZERO), or_fail)?,
            start: label(container, "start", Ok(Duration::ZERO), or_fail)?,
            exit: label(container, "exit", None, |text| {
                let (code, time) = text.split_once('@')?;
                Some(Some((code.parse().ok()?, read_time(time)?)))
            })?,
            health: label(container, "health", verdict(0), read_verdict)?,
            target: label(container, "target", verdict(1), read_verdict)?,
            stop: label(container, "stop", Duration::ZERO, read_time)?,
        })
    }
}

#[async_trait]
impl Backend for Simulated {
    async fn start(&self, launch: TaskLaunch) {
        let scripts: Result<Vec<Script>, (String, String)> = launch
            .containers
            .iter()
            .map(|one| Script::of(one).map_err(|reason| (one.name.clone(), reason)))
            .collect();
        let scripts = match scripts {
            Ok(scripts) => scripts,
            Err((container, reason)) => {
                let event = TaskEvent::CannotStart { container, reason };
                self.report(&launch.task_id, event);
                return;
            }
        };
        let unhealthy = scripts.iter().find(|script| !script.target.healthy);
        let target = unhealthy.or(scripts.first()).map_or(
            Verdict {
                healthy: true,
                after: Duration::ZERO,
            },
            |script| script.target,
        );
        let stop = CancellationToken::new();
        self.lock().tasks.insert(
            launch.task_id.clone(),
            Running {
                stop: stop.clone(),
                target,
            },
        );
        let inner = Arc::clone(&self.inner);
        let act = Act {
            task_id: launch.task_id,
            clock: self.clock,
            reports: self.reports.clone(),
        };
        tokio::spawn(async move {
            act.run(&scripts, &stop).await;
            inner
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .tasks
                .remove(&act.task_id);
            act.report(TaskEvent::Stopped);
        });
    }

    async fn stop(&self, task_id: &str) {
        let running = self
            .lock()
            .tasks
            .get(task_id)
            .map(|running| running.stop.clone());
        match running {
            Some(stop) => stop.cancel(),
            None => self.report(task_id, TaskEvent::Stopped),
        }
    }

    /// Nothing outlives the process, so the tasks begin their scripts again.
    async fn adopt(&self, tasks: Vec<TaskLaunch>) -> anyhow::Result<()> {
        for task in tasks {
            self.start(task).await;
        }
        Ok(())
    }

    async fn sweep(&self) {}

    async fn shut_down(&self) {}

    async fn logs(&self, _task_id: &str, _container: &str) -> anyhow::Result<Option<Vec<LogLine>>> {
        Ok(None)
    }

    async fn log_streams(&self) -> anyhow::Result<Vec<LogStream>> {
        Ok(Vec::new())
    }
}

/// One task on stage.
struct Act {
    task_id: String,
    clock: Clock,
    reports: Reports,
}

impl Act {
    fn report(&self, event: TaskEvent) {
        send(&self.reports, &self.task_id, event);
    }

    /// Plays until it is told to stop and has stopped.
    async fn run(&self, scripts: &[Script], stop: &CancellationToken) {
        let mut alive: Vec<&Script> = Vec::new();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.play(scripts, &mut alive) => {}
        }
        stop.cancelled().await;
        for script in alive {
            tokio::time::sleep(self.clock.scaled(script.stop)).await;
            self.report(TaskEvent::ContainerExited {
                name: script.name.clone(),
                exit_code: 143,
                oom: false,
                ran_for_ms: None,
            });
        }
    }

    async fn play<'a>(&self, scripts: &'a [Script], alive: &mut Vec<&'a Script>) {
        for script in scripts {
            match script.pull {
                Ok(time) => tokio::time::sleep(self.clock.scaled(time)).await,
                Err(()) => {
                    return self.report(TaskEvent::CannotPull {
                        container: script.name.clone(),
                        reason: "simulated: manifest unknown".to_owned(),
                    });
                }
            }
        }
        self.report(TaskEvent::Pulled);
        for script in scripts {
            match script.start {
                Ok(time) => tokio::time::sleep(self.clock.scaled(time)).await,
                Err(()) => {
                    return self.report(TaskEvent::CannotStart {
                        container: script.name.clone(),
                        reason: "simulated: no such executable".to_owned(),
                    });
                }
            }
            alive.push(script);
            self.report(TaskEvent::ContainerStarted {
                name: script.name.clone(),
                container_id: format!("simulated-{}-{}", self.task_id, script.name),
                bindings: script.ports.clone(),
                image_digest: None,
            });
        }
        self.play_running(scripts, alive).await;
    }

    /// Health verdicts and exits, in the order of their times.
    async fn play_running<'a>(&self, scripts: &'a [Script], alive: &mut Vec<&'a Script>) {
        let mut scenes: Vec<(Duration, &Script, TaskEvent)> = Vec::new();
        for script in scripts {
            if script.checked {
                let event = TaskEvent::ContainerHealth {
                    name: script.name.clone(),
                    healthy: script.health.healthy,
                };
                scenes.push((script.health.after, script, event));
            }
            if let Some((exit_code, after)) = script.exit {
                let event = TaskEvent::ContainerExited {
                    name: script.name.clone(),
                    exit_code,
                    oom: false,
                    ran_for_ms: u64::try_from(after.as_millis()).ok(),
                };
                scenes.push((after, script, event));
            }
        }
        scenes.sort_by_key(|(time, ..)| *time);
        let mut now = Duration::ZERO;
        for (time, script, event) in scenes {
            tokio::time::sleep(self.clock.scaled(time.saturating_sub(now))).await;
            now = time;
            if !alive.iter().any(|one| one.name == script.name) {
                continue;
            }
            if matches!(event, TaskEvent::ContainerExited { .. }) {
                alive.retain(|one| one.name != script.name);
            }
            self.report(event);
        }
    }
}

impl TargetHealth for Simulated {
    fn deregistration_delay(&self, _target_group_arn: &str) -> Option<Duration> {
        Some(Duration::from_secs(5))
    }

    fn register(&self, target_group_arn: &str, task_id: &str, _address: SocketAddr) {
        let key = (target_group_arn.to_owned(), task_id.to_owned());
        self.lock().targets.entry(key).or_insert(Registration {
            since: Instant::now(),
            draining: false,
        });
    }

    fn deregister(&self, target_group_arn: &str, task_id: &str) {
        let key = (target_group_arn.to_owned(), task_id.to_owned());
        if let Some(target) = self.lock().targets.get_mut(&key) {
            target.draining = true;
        }
    }

    fn remove(&self, target_group_arn: &str, task_id: &str) {
        let key = (target_group_arn.to_owned(), task_id.to_owned());
        self.lock().targets.remove(&key);
    }

    fn health(&self, target_group_arn: &str, task_id: &str) -> TargetState {
        let key = (target_group_arn.to_owned(), task_id.to_owned());
        let inner = self.lock();
        let Some(target) = inner.targets.get(&key) else {
            return TargetState::Unused;
        };
        let Some(Running {
            target: verdict, ..
        }) = inner.tasks.get(task_id)
        else {
            return TargetState::Unused;
        };
        if target.draining {
            TargetState::Draining
        } else if target.since.elapsed() < self.clock.scaled(verdict.after) {
            TargetState::Initial
        } else if verdict.healthy {
            TargetState::Healthy
        } else {
            TargetState::Unhealthy {
                reason: "Health checks failed with these codes: [500]".to_owned(),
            }
        }
    }
}
