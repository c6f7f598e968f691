//! Faults that a test injects into calls: throttling, failures, lost replies, delays.
//!
//! Faults live in memory only; a restart forgets them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// ThrottlingException, nothing happens.
    Throttle,
    /// A 500, nothing happens.
    FailBefore,
    /// The call takes effect, the answer is a 500.
    FailAfter,
    /// The call takes effect, the connection closes without an answer.
    DropReply,
    /// The call begins `delay_ms` later.
    Delay,
}

impl FaultKind {
    /// The word in the interface and the call log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::FailBefore => "fail_before",
            Self::FailAfter => "fail_after",
            Self::DropReply => "drop_reply",
            Self::Delay => "delay",
        }
    }
}

/// A fault for the next `times` calls of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// AWS's name of the operation, or `*` for any.
    pub operation: String,
    pub kind: FaultKind,
    #[serde(default = "once")]
    pub times: u32,
    /// Milliseconds, not scaled; for `delay` only.
    #[serde(default)]
    pub delay_ms: u64,
}

fn once() -> u32 {
    1
}

impl Fault {
    /// How long a `delay` holds the call back.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

/// The faults still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pending: Mutex<Vec<Fault>>,
}

impl Faults {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
        act(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a fault after those already there.
    pub(crate) fn add(&self, fault: Fault) {
        if fault.times > 0 {
            self.with(|pending| pending.push(fault));
        }
    }

    /// Forgets all faults.
    pub(crate) fn clear(&self) {
        self.with(Vec::clear);
    }

    /// What is still to come.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.with(|pending| pending.clone())
    }

    /// The fault that meets this call, used up by one.
    pub(crate) fn take(&self, operation: &str) -> Option<Fault> {
        self.with(|pending| {
            let index = pending
                .iter()
                .position(|fault| fault.operation == operation || fault.operation == "*")?;
            let fault = pending[index].clone();
            pending[index].times -= 1;
            pending.retain(|fault| fault.times > 0);
            Some(fault)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultKind, Faults};

    #[test]
    fn a_fault_meets_only_its_operation_and_only_so_often() {
        let faults = Faults::default();
        faults.add(Fault {
            operation: "UpdateService".to_owned(),
            kind: FaultKind::Throttle,
            times: 2,
            delay_ms: 0,
        });
        assert!(faults.take("DescribeServices").is_none());
        assert!(faults.take("UpdateService").is_some());
        assert!(faults.take("UpdateService").is_some());
        assert!(faults.take("UpdateService").is_none());
    }
}
