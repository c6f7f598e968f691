//! The scheduler's records.

use serde::{Deserialize, Serialize};

/// What was seen of a task from outside. All but `Stopped` may come more than once.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskEvent {
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
    /// An image could not be had: `reason` is the engine's text, without AWS's prefix.
    CannotPull { container: String, reason: String },
    /// A container could not be created or started, or a dependency was not met.
    CannotStart { container: String, reason: String },
    /// Nothing of the task is left.
    Stopped,
}

/// A port of a container and where it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container_port: u16,
    /// On 127.0.0.1.
    pub host_port: u16,
    pub protocol: String,
}

/// How a load balancer sees a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetState {
    /// Registered, not yet enough checks either way.
    Initial,
    Healthy,
    /// Enough failed checks; the reason is the balancer's description of the last one.
    Unhealthy { reason: String },
    /// Deregistered, requests in flight may finish.
    Draining,
    Unused,
}
