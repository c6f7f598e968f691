//! What every handler may use: the configuration, the clock, the state and the rooms behind it.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::backends::Backend;
use crate::calls::CallLog;
use crate::config::Config;
use crate::faults::Faults;
use crate::proxy::Balancer;
use crate::registry::Registry;
use crate::scheduler::Timings;
use crate::state::Store;
use crate::targets::TargetHealth;
use crate::time_travel::Advance;
use crate::timeline::Timeline;
use crate::wake::Wake;
use crate::wire::Remembered;

/// One running sandbox.
pub(crate) struct App {
    pub config: Config,
    /// Time, and chance.
    pub clock: Arc<Timeline>,
    pub store: Arc<Store>,
    pub backend: Arc<dyn Backend>,
    /// What the scheduler asks about targets: the balancer, or the simulated backend itself.
    pub targets: Arc<dyn TargetHealth>,
    pub balancer: Arc<Balancer>,
    /// None with the simulated backend, which runs no images.
    pub registry: Option<Arc<Registry>>,
    pub calls: Arc<CallLog>,
    pub faults: Faults,
    /// What calls were answered, for stale reads.
    pub remembered: Remembered,
    /// Wakes the conductor after a change by a caller.
    pub wake: Arc<Wake>,
    /// Requests that virtual time pass; nobody listens in real time.
    pub advances: UnboundedSender<Advance>,
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
