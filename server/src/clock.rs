//! The one place that reads the time of day, cut to microseconds: PostgreSQL keeps no finer, and a
//! time has to read back as it was written.

use jiff::Timestamp;
use std::sync::Arc;

/// Now, in whole microseconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// Where a room that judges by the time of day reads it: the system's, or the one that a simulation moves.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Default for Clock {
    fn default() -> Self {
        Self::new(now)
    }
}

impl Clock {
    /// A clock that shows what `read` says. Its times are to be whole microseconds that never go back.
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Now, in whole microseconds.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}
