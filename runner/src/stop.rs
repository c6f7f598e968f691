//! Tells an attempt to stop, and why.
//!
//! Owns the reasons and their order: a reason is only ever replaced by a stronger one. Level
//! triggered: whoever looks late still sees it.

use tokio::sync::watch;

/// Why an attempt stops before its steps are through; later ones are stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopReason {
    /// Somebody cancelled it: containers get SIGTERM and a grace period, the end is reported.
    Cancelled,
    /// The runner itself leaves: the attempt is reported as errored so that another one follows.
    RunnerLeaves,
    /// It is no longer this runner's: containers are removed at once, nothing is reported.
    Lost,
}

/// One attempt's stop signal; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(watch::Sender<Option<StopReason>>);

impl StopSignal {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Asks to stop; a weaker reason than the present one changes nothing.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.0.send_if_modified(|present| {
            let stronger = present.is_none_or(|present| reason > present);
            if stronger {
                *present = Some(reason);
            }
            stronger
        });
    }

    /// The present reason.
    pub(crate) fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.reason() == Some(StopReason::Lost)
    }

    /// Waits until a reason is there that is at least as strong as `least`.
    pub(crate) async fn wait_for(&self, least: StopReason) -> StopReason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update()
                && reason >= least
            {
                return reason;
            }
            if receiver.changed().await.is_err() {
                // `self` holds the sender, so it cannot close while this borrow lives.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the attempt is asked to stop for whatever reason.
    pub(crate) async fn stopped(&self) -> StopReason {
        self.wait_for(StopReason::Cancelled).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reason_is_only_replaced_by_a_stronger_one() {
        let signal = StopSignal::new();
        assert_eq!(signal.reason(), None);
        signal.stop(StopReason::Cancelled);
        assert_eq!(signal.stopped().await, StopReason::Cancelled);
        signal.stop(StopReason::Lost);
        signal.stop(StopReason::Cancelled);
        assert!(signal.is_lost());
        assert_eq!(signal.wait_for(StopReason::Lost).await, StopReason::Lost);
    }
}
