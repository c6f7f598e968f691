//! The deployment circuit breaker: how many failed tasks are too many.

use serde::{Deserialize, Serialize};

/// How the threshold follows from the desired count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Threshold {
    /// That share of the desired count, rounded up, but at least 3 and at most 200.
    BoundedPercent(u32),
    /// That share of the desired count, rounded up, and at least 1.
    UnboundedPercent(u32),
    /// That many tasks.
    Count(u32),
}

/// A service's circuit breaker, as its deployment configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Breaker {
    pub enabled: bool,
    /// Whether a failed deployment goes back to the newest completed one.
    pub rollback: bool,
    pub threshold: Threshold,
    /// Whether a healthy task forgives the failures before it.
    pub reset_on_healthy_task: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enabled: false,
            rollback: false,
            threshold: Threshold::BoundedPercent(50),
            reset_on_healthy_task: true,
        }
    }
}

impl Breaker {
    /// The number of failed tasks at which a deployment of `desired` tasks fails.
    pub(crate) fn limit(&self, desired: u32) -> u32 {
        let share = |percent: u32| {
            let product = u64::from(percent) * u64::from(desired);
            u32::try_from(product.div_ceil(100)).unwrap_or(u32::MAX)
        };
        match self.threshold {
            Threshold::BoundedPercent(percent) => share(percent).clamp(3, 200),
            Threshold::UnboundedPercent(percent) => share(percent).max(1),
            Threshold::Count(count) => count.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, Threshold};

    fn limit(threshold: Threshold, desired: u32) -> u32 {
        Breaker {
            threshold,
            ..Breaker::default()
        }
        .limit(desired)
    }

    #[test]
    fn the_default_is_half_of_the_desired_count_within_bounds() {
        for (desired, expected) in [
            (0, 3),
            (1, 3),
            (6, 3),
            (7, 4),
            (25, 13),
            (400, 200),
            (900, 200),
        ] {
            assert_eq!(
                limit(Threshold::BoundedPercent(50), desired),
                expected,
                "desired {desired}"
            );
        }
    }

    #[test]
    fn an_unbounded_share_knows_no_bounds_and_a_count_no_desired_count() {
        assert_eq!(limit(Threshold::UnboundedPercent(50), 1), 1);
        assert_eq!(limit(Threshold::UnboundedPercent(50), 900), 450);
        assert_eq!(limit(Threshold::UnboundedPercent(50), 0), 1);
        assert_eq!(limit(Threshold::Count(2), 400), 2);
    }
}
