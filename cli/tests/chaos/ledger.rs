//! What the harness did and what it was answered, as a forge, a person and a saboteur: the other side
//! of what the product has stored.

use std::collections::BTreeMap;

/// One webhook call.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) git_ref: String,
    pub(crate) commit: String,
    pub(crate) before: String,
    /// The number of the push.
    pub(crate) push: u32,
}

/// One call and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) delivery: Delivery,
    /// None when no answer came.
    pub(crate) status: Option<u16>,
    /// Whether the database was known to be down from before the call until after its answer.
    pub(crate) database_was_down: bool,
}

impl Answered {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }
}

/// A button that was pressed.
#[derive(Debug, Clone)]
pub(crate) struct Pressed {
    pub(crate) button: &'static str,
    pub(crate) status: Option<u16>,
    /// The deployment or run that the answer names.
    pub(crate) made: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) answered: Vec<Answered>,
    pub(crate) pressed: Vec<Pressed>,
    pub(crate) faults: BTreeMap<String, u32>,
    pub(crate) work: BTreeMap<String, u32>,
}

impl Ledger {
    pub(crate) fn fault(&mut self, kind: impl Into<String>) {
        *self.faults.entry(kind.into()).or_default() += 1;
    }

    pub(crate) fn work(&mut self, kind: impl Into<String>) {
        *self.work.entry(kind.into()).or_default() += 1;
    }
}

impl Ledger {
    /// One delivery of each push that was never acknowledged.
    pub(crate) fn unacknowledged(&self) -> Vec<Delivery> {
        let known = |push: u32| {
            let mut answered = self.answered.iter();
            answered.any(|a| a.delivery.push == push && a.is_acknowledged())
        };
        let mut left: Vec<Delivery> = self.deliveries.clone();
        left.retain(|delivery| !known(delivery.push));
        left.dedup_by_key(|delivery| delivery.push);
        left
    }
}
