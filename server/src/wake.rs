//! A bell: whoever records a fact rings it, whoever works on facts waits for it. Rings coalesce, and
//! carry nothing: the listener looks at the store, so a lost ring costs one timer interval at most.
//! When the server stops the bell is put away, upon which whoever holds a client waiting lets it go.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A bell that any number of tasks may ring and wait for.
#[derive(Clone)]
pub struct Bell(Arc<watch::Sender<Heard>>);

#[derive(Default)]
struct Heard {
    rings: u64,
    put_away: bool,
}

impl Default for Bell {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Heard::default())))
    }
}

/// One listener's memory of what it has heard.
pub struct Listener(watch::Receiver<Heard>);

impl Bell {
    /// Wakes every listener.
    pub fn ring(&self) {
        self.0
            .send_modify(|heard| heard.rings = heard.rings.wrapping_add(1));
    }

    /// A listener that hears every ring from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// Wakes every listener to say that the server stops.
    pub fn put_away(&self) {
        self.0.send_modify(|heard| heard.put_away = true);
    }

    /// Whether the server stops.
    #[must_use]
    pub fn is_put_away(&self) -> bool {
        self.0.borrow().put_away
    }

    /// Completes when the server stops.
    pub fn gone(&self) -> impl Future<Output = ()> + use<> {
        let mut listener = self.0.subscribe();
        async move {
            // A bell that nobody holds any more does not ring either.
            let _ = listener.wait_for(|heard| heard.put_away).await;
        }
    }
}

impl Listener {
    /// Returns when the bell rang since the last call, or after `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        // Either way the caller looks at the store again: what woke it does not matter.
        let _ = tokio::time::timeout(at_most, self.0.changed()).await;
    }
}
