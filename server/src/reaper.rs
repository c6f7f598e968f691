//! Calls attempts lost whose runners fell silent.
//!
//! Silence counts only when there was somebody to hear it: while the database is gone, or this process is
//! stopped, heartbeats arrive nowhere. Afterwards every attempt gets a whole lease again, as after a start.
//! With other servers at work the worst of that is one lease more until a runner counts as lost.

use crate::clock;
use crate::store::{Result, Store};
use crate::wake::Bell;
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Between two looks at the leases.
const EVERY: Duration = Duration::from_secs(1);
/// After so long without a look nobody was heard. Runners say twice in this time that they live.
const DEAF: Duration = Duration::from_secs(10);

/// What a look at the leases came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// So many attempts were lost.
    Lost(usize),
    /// Nobody could be heard; every attempt has a lease from now on.
    Renewed,
}

/// What is looked at.
pub struct Reaper {
    /// Rows.
    pub store: Store,
    /// Rung when an attempt was lost.
    pub bell: Bell,
}

impl Reaper {
    /// Looks until it is dropped. Opening the store has given every attempt a lease.
    pub async fn run(self) {
        let mut looked = (Instant::now(), clock::now());
        let mut failed = false;
        loop {
            let begun = (Instant::now(), clock::now());
            // The one stands still while the machine is suspended, the other may be set.
            let monotonic = begun.0.duration_since(looked.0);
            let wall = begun.1.duration_since(looked.1);
            let is_deaf = failed || monotonic >= DEAF || wall.unsigned_abs() >= DEAF;
            match self.look(is_deaf, begun.1).await {
                Ok(done) => {
                    (looked, failed) = (begun, false);
                    match done {
                        Looked::Lost(0) => {}
                        Looked::Lost(lost) => {
                            tracing::warn!(lost, "{lost} attempts were lost: their leases ran out");
                            self.bell.ring();
                        }
                        Looked::Renewed => {
                            tracing::warn!("no runner could be heard: attempts have a new lease");
                        }
                    }
                }
                Err(error) => {
                    // What cannot be written here cannot be written for a heartbeat either.
                    failed = true;
                    tracing::error!("leases could not be checked, trying again: {error}");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Looks once. `is_deaf` when runners could not be heard since the last look.
    ///
    /// # Errors
    /// Those of the store; then nothing was looked at.
    pub async fn look(&self, is_deaf: bool, now: Timestamp) -> Result<Looked> {
        if is_deaf {
            self.store.renew_leases(now).await?;
            return Ok(Looked::Renewed);
        }
        Ok(Looked::Lost(self.store.expire_attempts(now).await?))
    }
}
