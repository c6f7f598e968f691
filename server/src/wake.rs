//! A bell: whoever records a fact rings it, whoever works on facts waits for it. Rings coalesce, and
//! carry nothing: the listener looks at the store, so a lost ring costs one timer interval at most.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A bell that any number of tasks may ring and wait for.
#[derive(Clone)]
pub struct Bell(Arc<watch::Sender<u64>>);

impl Default for Bell {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One listener's memory of what it has heard.
pub struct Listener(watch::Receiver<u64>);

impl Bell {
    /// Wakes every listener.
    pub fn ring(&self) {
        self.0.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// A listener that hears every ring from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

impl Listener {
    /// Returns when the bell rang since the last call, or after `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        // Either way the caller looks at the store again: what woke it does not matter.
        let _ = tokio::time::timeout(at_most, self.0.changed()).await;
    }
}
