//! Counts failed sign-ins by user name, so that a password cannot be guessed by trying. In memory:
//! a restart forgets it, and each server of several counts for itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures a minute and name are answered.
const MOST_FAILURES: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// So many names are remembered; when there are more, the quietest are forgotten.
const MOST_NAMES: usize = 10_000;

/// Recent failures by name.
#[derive(Default)]
pub(super) struct FailedSignIns(Mutex<HashMap<String, Vec<Instant>>>);

impl FailedSignIns {
    /// Counts a try as failed until [`Self::forget`] says otherwise, so that tries at the same time
    /// cannot get past the limit.
    ///
    /// # Errors
    /// How long to wait, when there were too many failures.
    pub(super) fn begin(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        if all.len() >= MOST_NAMES && !all.contains_key(name) {
            all.retain(|_, failures| failures.iter().any(recent));
            if all.len() >= MOST_NAMES {
                all.retain(|_, failures| failures.len() > MOST_FAILURES / 2);
            }
        }
        let failures = all.entry(name.to_owned()).or_default();
        failures.retain(recent);
        if failures.len() >= MOST_FAILURES {
            let oldest = failures.first().copied().unwrap_or(now);
            return Err(WINDOW.saturating_sub(now.saturating_duration_since(oldest)));
        }
        failures.push(now);
        Ok(())
    }

    /// The try went well: the name starts anew.
    pub(super) fn forget(&self, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_failure_in_a_minute_has_to_wait() {
        let failed = FailedSignIns::default();
        let start = Instant::now();
        for second in 0..10 {
            failed
                .begin("ada", start + Duration::from_secs(second))
                .unwrap();
        }
        let wait = failed.begin("ada", start + Duration::from_secs(20));
        assert_eq!(wait, Err(Duration::from_secs(40)));
        failed
            .begin("ole", start + Duration::from_secs(20))
            .unwrap();
        failed
            .begin("ada", start + Duration::from_secs(60))
            .unwrap();
        failed.forget("ada");
        for _ in 0..10 {
            failed
                .begin("ada", start + Duration::from_secs(61))
                .unwrap();
        }
    }

    #[test]
    fn names_do_not_fill_the_memory() {
        let failed = FailedSignIns::default();
        let start = Instant::now();
        for number in 0..MOST_NAMES * 2 {
            failed.begin(&number.to_string(), start).unwrap();
        }
        assert!(failed.0.lock().unwrap().len() <= MOST_NAMES);
    }
}
