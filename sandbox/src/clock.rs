//! The sandbox's clock: real wall time, with waits that a scale shortens.
//!
//! Timestamps are never scaled, so what clients see agrees with their own clocks; only the length
//! of a wait is. Invariant: a scaled wait is never negative and never zero unless the wait was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub(crate) struct Time(pub i64);

impl Time {
    /// AWS's JSON form: seconds since the epoch with a fraction.
    pub(crate) fn epoch_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The moment that AWS's JSON form tells.
    pub(crate) fn from_epoch_seconds(seconds: f64) -> Self {
        Self((seconds * 1000.0) as i64)
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

/// Tells the time and shortens waits. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    scale: f64,
}

impl Clock {
    /// A clock whose waits pass `scale` times faster. Anything but a positive, finite number is
    /// refused.
    pub(crate) fn new(scale: f64) -> anyhow::Result<Self> {
        anyhow::ensure!(
            scale.is_finite() && scale > 0.0,
            "time scale must be a positive number, not {scale}"
        );
        Ok(Self { scale })
    }

    /// The wall time.
    pub(crate) fn now(&self) -> Time {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Time(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// How long a wait of AWS's length takes here; at least a millisecond unless it is zero.
    pub(crate) fn scaled(&self, wait: Duration) -> Duration {
        if wait.is_zero() {
            return wait;
        }
        wait.div_f64(self.scale).max(Duration::from_millis(1))
    }
}
