//! What every handler may use: the configuration, the clock, the state and the rooms behind it.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::backends::Backend;
use crate::calls::CallLog;
use crate::clock::Clock;
use crate::config::Config;
use crate::faults::Faults;
use crate::proxy::Balancer;
use crate::registry::Registry;
use crate::scheduler::Timings;
use crate::state::Store;
use crate::targets::TargetHealth;

/// One running sandbox.
pub(crate) struct App {
    pub config: Config,
    pub clock: Clock,
    pub store: Store,
    pub backend: Arc<dyn Backend>,
    /// What the scheduler asks about targets: the balancer, or the simulated backend itself.
    pub targets: Arc<dyn TargetHealth>,
    pub balancer: Arc<Balancer>,
    /// None with the simulated backend, which runs no images.
    pub registry: Option<Arc<Registry>>,
    pub calls: Arc<CallLog>,
    pub faults: Faults,
    /// Wakes the conductor after a change by a caller.
    pub wake: Notify,
}

impl App {
    /// The scheduler's waits in this sandbox.
    pub(crate) fn timings(&self) -> Timings {
        Timings {
            scale: self.config.time_scale,
            strict_breaker: self.config.strict_breaker,
        }
    }
}
