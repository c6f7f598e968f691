//! Faults that a test injects into calls: throttling, failures, lost replies, calls and replies that
//! wait.
//!
//! Faults live in memory only; a restart forgets them, and with the process ends whatever waited: a
//! call that had not begun never happens, a reply never arrives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

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
    /// The call begins `delay_ms` later, or when it is let go.
    Delay,
    /// The call takes effect and is in the call log; its answer leaves `delay_ms` later, or when
    /// it is let go.
    DelayReply,
    /// What the same request was answered the last time, if it was ever asked and changes nothing.
    Stale,
    /// The last item of the answer is in `failures[]` instead, in operations that have them.
    PartialFailure,
    /// AccessDeniedException, nothing happens.
    Deny,
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
            Self::DelayReply => "delay_reply",
            Self::Stale => "stale",
            Self::PartialFailure => "partial_failure",
            Self::Deny => "deny",
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
    /// Milliseconds, not scaled; for `delay` and `delay_reply` only.
    #[serde(default)]
    pub delay_ms: u64,
}

fn once() -> u32 {
    1
}

/// A call that waits now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Held {
    pub operation: String,
    pub request: Value,
    /// Whether the call was performed before it began to wait: only its answer is missing.
    pub performed: bool,
}

#[derive(Debug, Default)]
struct Inner {
    pending: Vec<Fault>,
    /// What waits, by the number it was given.
    held: Vec<(u64, Held)>,
    last_number: u64,
    /// Ends the waiting of all that met its fault so far.
    let_go: CancellationToken,
}

/// The faults still to come, and the calls that wait because of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    inner: Arc<Mutex<Inner>>,
}

/// The caller gets no answer at all: the connection closes.
#[derive(Debug, thiserror::Error)]
#[error("the reply was dropped by an injected fault")]
pub(crate) struct Dropped;

/// What a call met: a fault, or none.
#[derive(Debug)]
pub(crate) struct Met {
    /// What goes wrong; the caller of [`Met::begin`] and [`Met::end`] sees to the failures.
    pub kind: Option<FaultKind>,
    operation: String,
    delay: Duration,
    let_go: CancellationToken,
    faults: Faults,
}

impl Met {
    /// Before the call is performed: waits when it is delayed.
    pub(crate) async fn begin(&self, request: &Value) {
        if self.kind == Some(FaultKind::Delay) {
            self.hold(request, false).await;
        }
    }

    /// After the call was performed and logged: waits when its reply is delayed.
    pub(crate) async fn end(&self, request: &Value) -> Result<(), Dropped> {
        match self.kind {
            Some(FaultKind::DropReply) => return Err(Dropped),
            Some(FaultKind::DelayReply) => self.hold(request, true).await,
            _ => {}
        }
        Ok(())
    }

    async fn hold(&self, request: &Value, performed: bool) {
        let _listed = self.faults.list_held(Held {
            operation: self.operation.clone(),
            request: request.clone(),
            performed,
        });
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            () = self.let_go.cancelled() => {}
        }
    }
}

/// Takes a call off the list when it no longer waits, also when it is dropped.
struct Listed<'a>(&'a Faults, u64);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.lock().held.retain(|(number, _)| *number != self.1);
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_held(&self, call: Held) -> Listed<'_> {
        let mut inner = self.lock();
        inner.last_number += 1;
        let number = inner.last_number;
        inner.held.push((number, call));
        Listed(self, number)
    }

    /// Adds a fault after those already there.
    pub(crate) fn add(&self, fault: Fault) {
        if fault.times > 0 {
            self.lock().pending.push(fault);
        }
    }

    /// Forgets all faults; what waits because of one goes on at once.
    pub(crate) fn clear(&self) {
        self.lock().pending.clear();
        self.let_go();
    }

    /// What waits goes on at once; the faults still to come stay.
    pub(crate) fn let_go(&self) {
        std::mem::take(&mut self.lock().let_go).cancel();
    }

    /// What is still to come.
    pub(crate) fn list(&self) -> Vec<Fault> {
        self.lock().pending.clone()
    }

    /// The calls that wait now, the one that began to wait first before the others.
    pub(crate) fn held(&self) -> Vec<Held> {
        let inner = self.lock();
        inner.held.iter().map(|(_, call)| call.clone()).collect()
    }

    /// What this call meets; a fault is used up by one.
    pub(crate) fn meet(&self, operation: &str) -> Met {
        self.meet_one(operation, |named| named == operation || named == "*")
    }

    /// What this call meets, which nobody made but the task that begins: only a fault that names it.
    pub(crate) fn meet_within(&self, operation: &str) -> Option<FaultKind> {
        self.meet_one(operation, |named| named == operation).kind
    }

    fn meet_one(&self, operation: &str, is_for: impl Fn(&str) -> bool) -> Met {
        let mut inner = self.lock();
        let fault = inner
            .pending
            .iter_mut()
            .find(|fault| is_for(&fault.operation));
        let fault = fault.map(|fault| {
            fault.times -= 1;
            (fault.kind, Duration::from_millis(fault.delay_ms))
        });
        inner.pending.retain(|fault| fault.times > 0);
        Met {
            kind: fault.map(|(kind, _)| kind),
            operation: operation.to_owned(),
            delay: fault.map_or(Duration::ZERO, |(_, delay)| delay),
            let_go: inner.let_go.clone(),
            faults: self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultKind, Faults, Held};
    use serde_json::json;
    use std::time::Duration;

    fn fault(kind: FaultKind, times: u32) -> Fault {
        Fault {
            operation: "UpdateService".to_owned(),
            kind,
            times,
            delay_ms: 600_000,
        }
    }

    #[test]
    fn a_fault_meets_only_its_operation_and_only_so_often() {
        let faults = Faults::default();
        faults.add(fault(FaultKind::Throttle, 2));
        assert_eq!(faults.meet("DescribeServices").kind, None);
        let throttled = Some(FaultKind::Throttle);
        assert_eq!(faults.meet("UpdateService").kind, throttled);
        assert_eq!(faults.meet("UpdateService").kind, throttled);
        assert_eq!(faults.meet("UpdateService").kind, None);
    }

    #[tokio::test]
    async fn what_waits_is_listed_until_it_is_let_go_or_given_up() {
        let faults = Faults::default();
        faults.add(fault(FaultKind::DelayReply, 2));
        let request = json!({"service": "web"});
        let first = faults.meet("UpdateService");
        let second = faults.meet("UpdateService");
        first.begin(&request).await;
        let waiting = tokio::spawn({
            let request = request.clone();
            async move { first.end(&request).await }
        });
        let given_up = tokio::time::timeout(Duration::ZERO, second.end(&request));
        assert!(given_up.await.is_err());
        while faults.held().is_empty() {
            tokio::task::yield_now().await;
        }
        let held = Held {
            operation: "UpdateService".to_owned(),
            request: request.clone(),
            performed: true,
        };
        assert_eq!(faults.held(), [held]);
        faults.clear();
        waiting.await.unwrap().unwrap();
        assert_eq!(faults.held(), []);
        // What met its fault before it was forgotten does not begin to wait afterwards.
        second.end(&request).await.unwrap();
    }
}
