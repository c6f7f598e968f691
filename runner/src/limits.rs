//! When a step must end before its work is done, and how steps end.

use crate::disk::Disk;
use crate::stop::{StopReason, StopSignal};
use roadstead_protocol::StepState;
use std::time::Duration;
use tokio::time::Instant;

/// Longest reason that the protocol takes, in bytes, with room for the words around it.
const REASON_BYTES: usize = 3800;

/// What interrupted a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    TimedOut,
    Stopped(StopReason),
    /// It has all the processes that it may have.
    TooManyProcesses {
        most: u32,
    },
    /// The machine's disk is nearly full, whoever fills it.
    DiskIsFull {
        free_bytes: u64,
    },
}

/// A step's deadline, its attempt's stop signal, and the disk of its machine.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    deadline: Instant,
    stop: StopSignal,
    disk: Disk,
}

impl Limits {
    /// From now on, for `timeout`.
    pub(crate) fn start(timeout: Duration, stop: StopSignal, disk: Disk) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            stop,
            disk,
        }
    }

    pub(crate) fn stop(&self) -> &StopSignal {
        &self.stop
    }

    /// What has interrupted the step by now.
    pub(crate) fn interruption(&self) -> Option<Interruption> {
        match self.stop.reason() {
            Some(reason) => Some(Interruption::Stopped(reason)),
            None if Instant::now() >= self.deadline => Some(Interruption::TimedOut),
            None => None,
        }
    }

    /// Waits until the step must end.
    pub(crate) async fn interrupted(&self) -> Interruption {
        tokio::select! {
            biased;
            reason = self.stop.stopped() => Interruption::Stopped(reason),
            () = tokio::time::sleep_until(self.deadline) => Interruption::TimedOut,
            free_bytes = self.disk.runs_out() => Interruption::DiskIsFull { free_bytes },
        }
    }

    /// Does `work` unless the step must end first; the work is then dropped where it stands.
    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T, Interruption> {
        tokio::select! {
            biased;
            interruption = self.interrupted() => Err(interruption),
            done = work => Ok(done),
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepEnd {
    Succeeded,
    /// The user's part failed.
    Failed {
        exit_code: Option<i64>,
        reason: String,
    },
    TimedOut,
    Stopped(StopReason),
    /// The runner or something under it failed.
    Errored {
        reason: String,
    },
}

impl StepEnd {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed {
            exit_code: None,
            reason: reason.into(),
        }
    }

    /// With another reason, if it has one.
    pub(crate) fn with_reason(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Failed { exit_code, reason } => Self::Failed {
                exit_code,
                reason: change(reason),
            },
            Self::Errored { reason } => Self::Errored {
                reason: change(reason),
            },
            other => other,
        }
    }

    /// As the protocol says it.
    pub(crate) fn state(&self) -> StepState {
        match self {
            Self::Succeeded => StepState::Succeeded,
            Self::Failed { exit_code, reason } => StepState::Failed {
                exit_code: *exit_code,
                reason: shorten(reason),
            },
            Self::TimedOut => StepState::TimedOut,
            Self::Stopped(StopReason::Cancelled) => StepState::Cancelled,
            Self::Stopped(_) => StepState::Failed {
                exit_code: None,
                reason: "the runner was stopped while the step ran".into(),
            },
            Self::Errored { reason } => StepState::Failed {
                exit_code: None,
                reason: shorten(reason),
            },
        }
    }
}

impl From<Interruption> for StepEnd {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::TimedOut => Self::TimedOut,
            Interruption::Stopped(reason) => Self::Stopped(reason),
            Interruption::TooManyProcesses { most } => Self::failed(format!(
                "the step had nearly all of the {most} processes and threads that it may have at once, and was stopped; a program that starts others without end looks like this, and one that needs more \
                 needs a runner with a larger `--step-processes`"
            )),
            // It may be another step's doing, and another runner has more.
            Interruption::DiskIsFull { free_bytes } => Self::Errored {
                reason: format!(
                    "the step was stopped because the runner's disk is nearly full: {} MB are left",
                    free_bytes / 1_000_000
                ),
            },
        }
    }
}

/// Cuts a reason to what the protocol takes, at a character's border.
pub(crate) fn shorten(reason: &str) -> String {
    if reason.len() <= REASON_BYTES {
        return reason.to_owned();
    }
    let mut end = REASON_BYTES;
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &reason[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_and_a_deadline_both_interrupt() {
        let stop = StopSignal::new();
        let disk = Disk::default();
        let limits = Limits::start(Duration::ZERO, stop.clone(), disk.clone());
        assert_eq!(
            limits.guard(std::future::pending::<()>()).await,
            Err(Interruption::TimedOut)
        );
        assert_eq!(limits.interruption(), Some(Interruption::TimedOut));
        let limits = Limits::start(Duration::from_secs(600), stop.clone(), disk);
        assert_eq!(limits.interruption(), None);
        assert_eq!(limits.guard(async { 7 }).await, Ok(7));
        stop.stop(StopReason::Cancelled);
        assert_eq!(
            limits.guard(async { 7 }).await,
            Err(Interruption::Stopped(StopReason::Cancelled))
        );
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let cut = shorten(&"ü".repeat(5000));
        assert!(cut.len() < 4000 && cut.ends_with('…'));
        assert_eq!(shorten("short"), "short");
    }
}
