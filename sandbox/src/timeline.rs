//! The time that clients see, and chance: what a run of the sandbox can be repeated by.
//!
//! Time is the wall's, or virtual: then it stands still until somebody moves it. Chance comes from
//! the operating system, or from a seed: draw number `n` is a hash of the seed and `n`, so that a
//! restart goes on where it was. Invariant: virtual time never goes back. Must not know: what
//! happens at which time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::{Clock, Time};
use crate::scheduler::Ids;

/// Where virtual time begins: the first of January 2026, midnight UTC. Fixed, so that the same
/// calls have the same timestamps.
pub(crate) const BEGINNING: Time = Time(1_767_225_600_000);

/// How far a repeatable run has come; kept with the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// The virtual time; None when it is the wall's.
    pub at: Option<Time>,
    /// How often chance was asked.
    pub draws: u64,
}

/// The time and the chance of one sandbox.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Clock,
    virtual_now: Option<AtomicI64>,
    seed: Option<u64>,
    draws: AtomicU64,
    /// How many ids of requests were given out. They are drawn apart from everything else, so that
    /// a look more or less does not change what is created afterwards.
    requests: AtomicU64,
}

impl Timeline {
    /// Real time with `clock`'s pace, or virtual time from [`BEGINNING`] on.
    pub(crate) fn new(clock: Clock, is_virtual: bool, seed: Option<u64>) -> Self {
        Self {
            clock,
            virtual_now: is_virtual.then(|| AtomicI64::new(BEGINNING.0)),
            seed,
            draws: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        }
    }

    /// Whether time passes only when somebody moves it.
    pub(crate) fn is_virtual(&self) -> bool {
        self.virtual_now.is_some()
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Time {
        match &self.virtual_now {
            Some(now) => Time(now.load(Ordering::SeqCst)),
            None => self.clock.now(),
        }
    }

    /// Moves virtual time on to `to`; an earlier moment, and real time, stay as they are.
    pub(crate) fn move_to(&self, to: Time) {
        if let Some(now) = &self.virtual_now {
            now.fetch_max(to.0, Ordering::SeqCst);
        }
    }

    /// How long a wait of AWS's length takes here.
    pub(crate) fn scaled(&self, wait: Duration) -> Duration {
        self.clock.scaled(wait)
    }

    /// The next random bits.
    pub(crate) fn draw(&self) -> u128 {
        let Some(seed) = self.seed else {
            return rand::random();
        };
        hashed(seed, self.draws.fetch_add(1, Ordering::SeqCst), b"")
    }

    /// A fresh id for a request, in the form of a UUID. With a seed, a restart begins again with the
    /// first.
    pub(crate) fn request_id(&self) -> String {
        let mut bits = || match self.seed {
            None => rand::random(),
            Some(seed) => hashed(
                seed,
                self.requests.fetch_add(1, Ordering::SeqCst),
                b"request",
            ),
        };
        Ids(&mut bits).uuid()
    }

    /// How far it has come; None when it cannot be repeated anyway.
    pub(crate) fn mark(&self) -> Option<Mark> {
        (self.is_virtual() || self.seed.is_some()).then(|| Mark {
            at: self.is_virtual().then(|| self.now()),
            draws: self.draws.load(Ordering::SeqCst),
        })
    }

    /// Goes on where an earlier run was.
    pub(crate) fn resume(&self, mark: Mark) {
        if let Some(at) = mark.at {
            self.move_to(at);
        }
        self.draws.fetch_max(mark.draws, Ordering::SeqCst);
    }
}

/// Draw `number` of the series that is called `series`.
fn hashed(seed: u64, number: u64, series: &[u8]) -> u128 {
    let hash = Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(number.to_be_bytes())
        .chain_update(series)
        .finalize();
    hash.iter()
        .take(16)
        .fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BEGINNING, Timeline};
    use crate::clock::Clock;

    fn timeline(seed: Option<u64>) -> Timeline {
        Timeline::new(Clock::new(1.0).unwrap(), true, seed)
    }

    #[test]
    fn virtual_time_stands_until_it_is_moved_and_never_goes_back() {
        let timeline = timeline(None);
        assert_eq!(timeline.now(), BEGINNING);
        timeline.move_to(BEGINNING + Duration::from_secs(60));
        timeline.move_to(BEGINNING);
        assert_eq!(timeline.now(), BEGINNING + Duration::from_secs(60));
    }

    #[test]
    fn a_seed_repeats_its_draws_and_a_restart_goes_on() {
        let draws = |timeline: &Timeline| [timeline.draw(), timeline.draw(), timeline.draw()];
        let first = timeline(Some(7));
        let expected = draws(&first);
        assert_eq!(draws(&timeline(Some(7))), expected);
        assert_ne!(draws(&timeline(Some(8))), expected);
        let restarted = timeline(Some(7));
        let early = timeline(Some(7));
        early.draw();
        restarted.resume(early.mark().unwrap());
        assert_eq!(restarted.draw(), expected[1]);
    }
}
