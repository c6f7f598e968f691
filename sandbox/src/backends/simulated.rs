//! Tasks that only pretend: the tag or the labels of a container say what happens to it.
//!
//! An image whose repository is called `simulated` has its script in its tag, words joined by `_`;
//! labels say the same for any image, and go over it.
//!
//! | tag | `dockerLabels` | meaning | default |
//! |---|---|---|---|
//! | `missing`, `pull-<time>` | `simulate.pull`: `fail` or a time | the pull fails, or takes so long | `0s` |
//! | `broken`, `start-<time>` | `simulate.start`: the same | the start | `0s` |
//! | `exit-<code>-<time>`, `oom-<time>` | `simulate.exit`: `<code>@<time>`, `oom@<time>` | it ends so long after its start | never |
//! | `healthy-<time>`, `unhealthy-<time>` | `simulate.health`: `healthy@<time>` … | its check's verdict, from its start | `healthy@0s` |
//! | the same | `simulate.target`: the same | the load balancer's, from registration | `healthy@1s` |
//! | `flapping-<time>` | `simulate.flap`: a time | the verdicts turn whenever so much time passed | never |
//! | `stop-<time>` | `simulate.stop`: a time | how long it takes to stop | `0s` |
//!
//! Times are `5s`, `1.5m` or `2h` at AWS's pace; `5s..20s` is drawn for each task. A word of a tag
//! that begins with `30p-` holds for three tasks in ten. Must not know: services and deployments.

mod script;
mod stage;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Backend, LogLine, LogStream, Reports, TaskEvent, TaskLaunch, TaskReport};
use crate::clock::Time;
use crate::targets::{TargetHealth, TargetState};
use crate::timeline::Timeline;
use crate::wake::Wake;
use script::Script;
use stage::{Cue, Stage};

/// Runs scripts. It is also the load balancer of its tasks: every target group exists.
pub(crate) struct Simulated {
    timeline: Arc<Timeline>,
    reports: Reports,
    wake: Arc<Wake>,
    stage: Mutex<Stage>,
}

impl Simulated {
    /// A backend without tasks.
    pub(crate) fn new(timeline: Arc<Timeline>, reports: Reports, wake: Arc<Wake>) -> Self {
        Self {
            timeline,
            reports,
            wake,
            stage: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> impl Fn(Duration) -> Duration {
        |wait| self.timeline.scaled(wait)
    }

    /// A closed channel means that the sandbox is shutting down; nobody waits for the report.
    fn report(&self, task_id: &str, event: TaskEvent) {
        let report = TaskReport {
            task_id: task_id.to_owned(),
            event,
        };
        if self.reports.send(report).is_err() {
            tracing::debug!("a report came after the end");
        }
    }
}

#[async_trait]
impl Backend for Simulated {
    fn due(&self) -> Option<Time> {
        self.lock().due()
    }

    fn play(&self, now: Time) {
        let cues = self.lock().play(now, &self.pace());
        for cue in cues {
            match cue {
                Cue::Report { task_id, event } => self.report(&task_id, event),
                Cue::Look { task_id } => self.wake.look_at(&task_id),
            }
        }
    }

    async fn start(&self, launch: TaskLaunch) {
        let mut draw = || self.timeline.draw();
        let scripts: Result<Vec<Script>, (String, String)> = launch
            .containers
            .iter()
            .map(|one| Script::of(one, &mut draw).map_err(|reason| (one.name.clone(), reason)))
            .collect();
        match scripts {
            Ok(scripts) => {
                let now = self.timeline.now();
                self.lock()
                    .enter(now, &launch.task_id, scripts, &self.pace());
            }
            Err((container, reason)) => {
                let event = TaskEvent::CannotStart { container, reason };
                self.report(&launch.task_id, event);
            }
        }
    }

    async fn stop(&self, task_id: &str) {
        let now = self.timeline.now();
        if !self.lock().leave(now, task_id, &self.pace()) {
            self.report(task_id, TaskEvent::Stopped);
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

impl TargetHealth for Simulated {
    fn deregistration_delay(&self, _target_group_arn: &str) -> Option<Duration> {
        Some(Duration::from_secs(5))
    }

    fn register(&self, target_group_arn: &str, task_id: &str, _address: SocketAddr) {
        let now = self.timeline.now();
        self.lock()
            .register(now, target_group_arn, task_id, &self.pace());
    }

    fn deregister(&self, target_group_arn: &str, task_id: &str) {
        self.lock().deregister(target_group_arn, task_id);
    }

    fn remove(&self, target_group_arn: &str, task_id: &str) {
        self.lock().remove(target_group_arn, task_id);
    }

    fn health(&self, target_group_arn: &str, task_id: &str) -> TargetState {
        let now = self.timeline.now();
        self.lock()
            .health(now, target_group_arn, task_id, &self.pace())
    }
}
