//! A bell: whoever records a fact rings it, whoever works on facts waits for it. Rings coalesce, and
//! carry nothing: the listener looks at the store, so a lost ring costs one timer interval at most.
//! The store carries rings between servers on one database; one from elsewhere is not carried on.
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
    /// Of these, those that were rung in this process.
    own: u64,
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
        self.0.send_modify(|heard| {
            heard.rings = heard.rings.wrapping_add(1);
            heard.own = heard.own.wrapping_add(1);
        });
    }

    /// Wakes every listener of this process: another server's bell was rung.
    pub(crate) fn ring_from_afar(&self) {
        self.0
            .send_modify(|heard| heard.rings = heard.rings.wrapping_add(1));
    }

    /// How often it was rung in this process: what differs has to be carried to the others.
    pub(crate) fn rung_here(&self) -> u64 {
        self.0.borrow().own
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
    /// Returns when the bell rang since the last call, or after `at_most`; tells whether it rang. Either
    /// way there may be something new: a ring may have been lost.
    pub async fn wait(&mut self, at_most: Duration) -> bool {
        let rang = tokio::time::timeout(at_most, self.0.changed()).await;
        rang.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_from_afar_is_heard_and_not_carried_on() {
        let bell = Bell::default();
        let listener = bell.listen();
        bell.ring_from_afar();
        assert!(listener.0.has_changed().unwrap());
        assert_eq!(bell.rung_here(), 0);
        bell.ring();
        assert_eq!(bell.rung_here(), 1);
    }
}
