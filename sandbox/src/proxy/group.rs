//! A running target group: its targets, their checks, and whose turn it is.
//!
//! Each target has a task of its own that checks it at the group's interval until the target drains
//! or goes. Must not know: listeners, disk.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::health::{Health, HealthTrack, check};
use super::http::Client;
use super::records::HealthCheckSettings;
use crate::clock::Clock;
use crate::wake::Wake;

pub(super) struct Group {
    name: String,
    settings: watch::Sender<HealthCheckSettings>,
    targets: Mutex<Targets>,
}

#[derive(Default)]
struct Targets {
    list: Vec<Target>,
    /// Requests handed out so far; the next one goes to this number modulo the healthy targets.
    turn: usize,
}

struct Target {
    task_id: String,
    address: SocketAddr,
    track: HealthTrack,
    /// Ends its checks.
    stop: CancellationToken,
}

/// What is known of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetView {
    pub task_id: String,
    pub address: SocketAddr,
    pub health: Health,
}

impl Group {
    pub(super) fn new(name: String, settings: HealthCheckSettings) -> Self {
        Self {
            name,
            settings: watch::Sender::new(settings),
            targets: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Checks by `settings` from now on; nothing happens when they are the same.
    pub(super) fn configure(&self, settings: &HealthCheckSettings) {
        self.settings.send_if_modified(|current| {
            let differs = current != settings;
            if differs {
                current.clone_from(settings);
            }
            differs
        });
    }

    /// Adds a target and begins to check it. The same target at the same address is left alone,
    /// unless it drains: then it starts anew. `wake` is rung
    /// whenever checks change what is thought of it.
    pub(super) fn register(
        self: &Arc<Self>,
        task_id: &str,
        address: SocketAddr,
        client: &Client,
        clock: Clock,
        wake: &Arc<Wake>,
    ) {
        let mut targets = self.lock();
        if let Some(at) = targets.position(task_id) {
            let target = &targets.list[at];
            if target.address == address && !target.stop.is_cancelled() {
                return;
            }
            targets.list.remove(at).stop.cancel();
        }
        let stop = CancellationToken::new();
        targets.list.push(Target {
            task_id: task_id.to_owned(),
            address,
            track: HealthTrack::new(),
            stop: stop.clone(),
        });
        drop(targets);
        let (group, client, task_id) = (Arc::clone(self), client.clone(), task_id.to_owned());
        let wake = Arc::clone(wake);
        tokio::spawn(async move {
            let changed = || wake.look_at(&task_id);
            let checks = group.check_target(&task_id, address, &client, clock, &stop, &changed);
            // Dropped in the middle of a check, so that its result cannot count any more.
            stop.run_until_cancelled(checks).await;
        });
    }

    async fn check_target(
        &self,
        task_id: &str,
        address: SocketAddr,
        client: &Client,
        clock: Clock,
        stop: &CancellationToken,
        changed: &(dyn Fn() + Sync),
    ) {
        let mut changes = self.settings.subscribe();
        loop {
            let settings = changes.borrow_and_update().clone();
            let result = check(client, address, &settings).await;
            {
                let mut targets = self.lock();
                // Under the lock: whoever drains or replaces the target cancels under it too.
                if stop.is_cancelled() {
                    return;
                }
                if let Some(at) = targets.position(task_id) {
                    let track = &mut targets.list[at].track;
                    let before = track.health().state.clone();
                    track.record(result, &settings);
                    if track.health().state != before {
                        changed();
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(clock.scaled(settings.interval())) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sends no new requests to a target; its checks end.
    pub(super) fn drain(&self, task_id: &str) {
        let mut targets = self.lock();
        if let Some(at) = targets.position(task_id) {
            let target = &mut targets.list[at];
            target.track.drain();
            target.stop.cancel();
        }
    }

    pub(super) fn remove(&self, task_id: &str) {
        let mut targets = self.lock();
        if let Some(at) = targets.position(task_id) {
            targets.list.remove(at).stop.cancel();
        }
    }

    /// Ends all checks and forgets the targets.
    pub(super) fn close(&self) {
        for target in self.lock().list.drain(..) {
            target.stop.cancel();
        }
    }

    pub(super) fn health(&self, task_id: &str) -> Option<Health> {
        let targets = self.lock();
        let at = targets.position(task_id)?;
        Some(targets.list[at].track.health().clone())
    }

    /// All targets in order of registration.
    pub(super) fn targets(&self) -> Vec<TargetView> {
        let targets = self.lock();
        let views = targets.list.iter().map(|target| TargetView {
            task_id: target.task_id.clone(),
            address: target.address,
            health: target.track.health().clone(),
        });
        views.collect()
    }

    /// The next healthy target in turn; None when there is none.
    pub(super) fn pick(&self) -> Option<SocketAddr> {
        let mut targets = self.lock();
        let healthy = |target: &&Target| target.track.is_healthy();
        let count = targets.list.iter().filter(healthy).count();
        let turn = targets.turn.checked_rem(count)?;
        targets.turn = targets.turn.wrapping_add(1);
        let picked = targets.list.iter().filter(healthy).nth(turn);
        picked.map(|target| target.address)
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Targets {
    fn position(&self, task_id: &str) -> Option<usize> {
        self.list.iter().position(|it| it.task_id == task_id)
    }
}
