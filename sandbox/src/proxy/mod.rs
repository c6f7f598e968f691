//! The proxy room: the load balancer (listeners on 127.0.0.1, target groups, health checks,
//! draining) and the token check in front of the registry.
//!
//! Configuration is on disk and is what `apply` makes true; targets live in memory, because whoever
//! registered them does it again after a restart. Must not know: services, deployments, tasks
//! beyond their id and address.

mod group;
mod health;
pub(crate) mod http;
mod listener;
mod records;
pub(crate) mod registry_front;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;

use crate::clock::Clock;
use crate::config::Config;
use crate::disk::{DiskError, Records};
use crate::targets::{TargetHealth, TargetState};
use crate::wake::Wake;
use group::Group;
use http::Client;
use listener::{Branch, OpenListener};

pub(crate) use group::TargetView;
pub(crate) use records::{
    BalancerRecords, Forward, HealthCheckSettings, Listener, LoadBalancer, Matcher, TargetGroup,
};

/// How often a port that is still taken at start is tried, a quarter of a second apart.
const BIND_ATTEMPTS: u32 = 20;

/// Every load balancer, listener and target group of the sandbox.
pub(crate) struct Balancer {
    clock: Clock,
    /// Rung for a task whose target is seen differently.
    wake: Arc<Wake>,
    client: Client,
    records: Records<BalancerRecords>,
    running: Mutex<Running>,
    /// One change of ports and groups at a time.
    applying: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Running {
    groups: HashMap<String, Arc<Group>>,
    listeners: HashMap<String, OpenListener>,
}

/// Why a change of the balancer's configuration did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("port {port} of 127.0.0.1 cannot be opened: {source}")]
    Taken { port: u16, source: std::io::Error },
}

impl Balancer {
    /// Opens what the data directory holds and listens again on the ports it had.
    pub(crate) async fn open(
        config: &Config,
        clock: Clock,
        wake: Arc<Wake>,
    ) -> anyhow::Result<Arc<Self>> {
        let records = Records::open(config.data.join("balancer.json"))?;
        let balancer = Self {
            clock,
            wake,
            client: Client::new(),
            records,
            running: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
        };
        for (arn, listener) in &balancer.records.read().listeners {
            let socket = bind_again(listener.port)
                .await
                .with_context(|| format!("cannot open the listener {arn} again; free its port, or start with another data directory"))?;
            balancer.start_listener(arn, listener.port, socket);
        }
        balancer.apply().await;
        Ok(Arc::new(balancer))
    }

    /// The configuration as it is on disk.
    pub(crate) fn records(&self) -> Arc<BalancerRecords> {
        self.records.read()
    }

    /// Changes the configuration on disk and then makes it true: groups, weights and checks follow,
    /// and the ports of removed listeners are closed. New listeners come by `listen`.
    pub(crate) async fn change<R, E: From<DiskError>>(
        &self,
        change: impl FnOnce(&mut BalancerRecords) -> Result<R, E>,
    ) -> Result<R, E> {
        let answer = self.records.change(change).await?;
        self.apply().await;
        Ok(answer)
    }

    /// Opens a port (0: a free one) and stores the listener that `make` builds for it. The port is
    /// closed again when either fails.
    pub(crate) async fn listen<E: From<DiskError> + From<PortError>>(
        &self,
        arn: &str,
        port: u16,
        make: impl FnOnce(&mut BalancerRecords, u16) -> Result<Listener, E>,
    ) -> Result<Listener, E> {
        let taken = |source| PortError::Taken { port, source };
        let socket = listener::bind(port).await.map_err(taken)?;
        let port = socket.local_addr().map_err(taken)?.port();
        let stored = self
            .records
            .change(|records| {
                let listener = make(records, port)?;
                records.listeners.insert(arn.to_owned(), listener.clone());
                Ok::<_, E>(listener)
            })
            .await?;
        self.start_listener(arn, port, socket);
        self.apply().await;
        Ok(stored)
    }

    /// The targets of a group; None when there is no such group.
    pub(crate) fn targets(&self, target_group_arn: &str) -> Option<Vec<TargetView>> {
        Some(self.group(target_group_arn)?.targets())
    }

    /// Closes listeners and health checks.
    pub(crate) async fn shut_down(&self) {
        let _turn = self.applying.lock().await;
        let running = std::mem::take(&mut *self.lock());
        for group in running.groups.values() {
            group.close();
        }
        for listener in running.listeners.into_values() {
            listener.close().await;
        }
    }

    fn start_listener(&self, arn: &str, port: u16, socket: tokio::net::TcpListener) {
        let open = OpenListener::start(socket, port, self.client.clone());
        self.lock().listeners.insert(arn.to_owned(), open);
    }

    /// Makes groups, weights and ports what the records say.
    async fn apply(&self) {
        let _turn = self.applying.lock().await;
        let records = self.records.read();
        let mut closed = Vec::new();
        {
            let running = &mut *self.lock();
            for (arn, wanted) in &records.target_groups {
                let group = running.groups.entry(arn.clone()).or_insert_with(|| {
                    Arc::new(Group::new(wanted.name.clone(), wanted.health_check.clone()))
                });
                group.configure(&wanted.health_check);
            }
            running.groups.retain(|arn, group| {
                let wanted = records.target_groups.contains_key(arn);
                if !wanted {
                    group.close();
                }
                wanted
            });
            for arn in running.listeners.keys().cloned().collect::<Vec<_>>() {
                let Some(wanted) = records.listeners.get(&arn) else {
                    closed.extend(running.listeners.remove(&arn));
                    continue;
                };
                let branches = wanted.forward.iter().filter_map(|forward| {
                    let group = running.groups.get(&forward.target_group_arn)?;
                    Some(Branch::new(Arc::clone(group), forward.weight))
                });
                running.listeners[&arn].route_to(branches.collect());
            }
        }
        for listener in closed {
            listener.close().await;
        }
    }

    fn group(&self, arn: &str) -> Option<Arc<Group>> {
        self.lock().groups.get(arn).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the port of a listener at start; a sandbox that has just been killed may still hold it.
async fn bind_again(port: u16) -> Result<tokio::net::TcpListener, PortError> {
    let mut attempt = 1;
    loop {
        match listener::bind(port).await {
            Ok(socket) => return Ok(socket),
            Err(source) if attempt == BIND_ATTEMPTS => {
                return Err(PortError::Taken { port, source });
            }
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
    }
}

impl TargetHealth for Balancer {
    fn deregistration_delay(&self, target_group_arn: &str) -> Option<Duration> {
        let records = self.records.read();
        let group = records.target_groups.get(target_group_arn)?;
        Some(Duration::from_secs(
            group.deregistration_delay_seconds.into(),
        ))
    }

    fn register(&self, target_group_arn: &str, task_id: &str, address: SocketAddr) {
        match self.group(target_group_arn) {
            Some(group) => {
                group.register(task_id, address, &self.client, self.clock, &self.wake);
            }
            None => tracing::warn!(target_group_arn, task_id, "no such target group"),
        }
    }

    fn deregister(&self, target_group_arn: &str, task_id: &str) {
        if let Some(group) = self.group(target_group_arn) {
            group.drain(task_id);
        }
    }

    fn remove(&self, target_group_arn: &str, task_id: &str) {
        if let Some(group) = self.group(target_group_arn) {
            group.remove(task_id);
        }
    }

    fn health(&self, target_group_arn: &str, task_id: &str) -> TargetState {
        let health = self
            .group(target_group_arn)
            .and_then(|group| group.health(task_id));
        health.map_or(TargetState::Unused, |health| health.state)
    }
}
