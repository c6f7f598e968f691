//! What wakes the conductor: a bell, and the tasks that it should look at.
//!
//! It carries no news, only that there may be some: whoever is woken looks for himself.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The conductor's bell.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    bell: Notify,
    tasks: Mutex<BTreeSet<String>>,
}

impl Wake {
    /// Rings; a ring that nobody waits for is kept for the next who waits.
    pub(crate) fn notify_one(&self) {
        self.bell.notify_one();
    }

    /// Rings for a task of which something outside the state has changed, such as its target.
    pub(crate) fn look_at(&self, task_id: &str) {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(task_id.to_owned());
        self.bell.notify_one();
    }

    /// Waits for the next ring.
    pub(crate) async fn notified(&self) {
        self.bell.notified().await;
    }

    /// The tasks that were rung for since the last time.
    pub(crate) fn take_tasks(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
