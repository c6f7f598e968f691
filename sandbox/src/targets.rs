//! The seam between the scheduler and the load balancer: which tasks are targets, and how they are.
//!
//! The scheduler times the deregistration delay; the balancer only stops sending new requests when
//! told. Every method is quick and safe to repeat. Must not know: services and deployments.

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use crate::scheduler::TargetState;

/// Target groups, as far as a service needs them.
pub(crate) trait TargetHealth: Send + Sync + 'static {
    /// How long a target drains, at AWS's pace; None when there is no such group.
    fn deregistration_delay(&self, target_group_arn: &str) -> Option<Duration>;

    /// Adds a target that starts `Initial`. Repeating it with the same address changes nothing,
    /// so that it can be called again after a restart.
    fn register(&self, target_group_arn: &str, task_id: &str, address: SocketAddr);

    /// Sends no new requests to the target; those in flight go on.
    fn deregister(&self, target_group_arn: &str, task_id: &str);

    /// Forgets the target once its delay is over or its task is gone.
    fn remove(&self, target_group_arn: &str, task_id: &str);

    /// `Unused` when the group or the target is unknown.
    fn health(&self, target_group_arn: &str, task_id: &str) -> TargetState;
}
