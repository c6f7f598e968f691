//! What this runner is running: the one list that poll, heartbeat and attempts share.

use crate::stop::{StopReason, StopSignal};
use roadstead_protocol::AttemptRef;
use std::collections::BTreeMap;
use tokio::sync::watch;

#[derive(Debug, Clone)]
struct Running {
    fence: u64,
    stop: StopSignal,
}

/// The attempts that run here, by id.
#[derive(Debug, Default)]
pub(crate) struct Board(watch::Sender<BTreeMap<String, Running>>);

impl Board {
    /// Enters an attempt; `None` when it is here already.
    pub(crate) fn enter(&self, attempt: &AttemptRef) -> Option<StopSignal> {
        let stop = StopSignal::new();
        let entered = self.0.send_if_modified(|running| {
            let absent = !running.contains_key(&attempt.attempt);
            if absent {
                let entry = Running {
                    fence: attempt.fence,
                    stop: stop.clone(),
                };
                running.insert(attempt.attempt.clone(), entry);
            }
            absent
        });
        entered.then_some(stop)
    }

    /// Takes an attempt off.
    pub(crate) fn leave(&self, attempt: &str) {
        self.0
            .send_if_modified(|running| running.remove(attempt).is_some());
    }

    /// Asks an attempt to stop, if it runs here.
    pub(crate) fn stop(&self, attempt: &str, reason: StopReason) {
        if let Some(running) = self.0.borrow().get(attempt) {
            running.stop.stop(reason);
        }
    }

    /// Asks all attempts to stop.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        for running in self.0.borrow().values() {
            running.stop.stop(reason);
        }
    }

    /// Applies what a poll or a heartbeat answered.
    pub(crate) fn apply(&self, cancel: &[String], lost: &[String]) {
        for attempt in cancel {
            self.stop(attempt, StopReason::Cancelled);
        }
        for attempt in lost {
            self.stop(attempt, StopReason::Lost);
        }
    }

    /// All attempts, as the protocol names them.
    pub(crate) fn running(&self) -> Vec<AttemptRef> {
        self.0
            .borrow()
            .iter()
            .map(|(attempt, running)| AttemptRef {
                attempt: attempt.clone(),
                fence: running.fence,
            })
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until fewer than `count` attempts run.
    pub(crate) async fn fewer_than(&self, count: usize) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self
            .0
            .subscribe()
            .wait_for(|running| running.len() < count)
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_is_entered_once_and_hears_its_stop() {
        let board = Board::default();
        let attempt = AttemptRef {
            attempt: "a".into(),
            fence: 2,
        };
        let stop = board.enter(&attempt).unwrap();
        assert!(board.enter(&attempt).is_none());
        assert_eq!(board.running(), vec![attempt]);
        board.apply(&["a".into(), "unknown".into()], &[]);
        assert_eq!(stop.reason(), Some(StopReason::Cancelled));
        board.apply(&[], &["a".into()]);
        assert!(stop.is_lost());
        board.leave("a");
        board.fewer_than(1).await;
        assert_eq!(board.count(), 0);
    }
}
