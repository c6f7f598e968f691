//! Waits of tests: for a level, never for an edge, and not for ever.

use std::time::{Duration, Instant};

/// The longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Asks again until `look` gives something; fails, naming `what`, when it does not within [`PATIENCE`].
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(
                Instant::now() < end,
                "{what}: not within {} s; last seen: {seen}",
                PATIENCE.as_secs()
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
