//! A runner's last call.

use super::{CallError, Client, done, retry};
use crate::secret::Secret;
use reqwest::{Method, StatusCode};
use roadstead_protocol::Goodbye;
use std::time::Duration;

/// A server that does not answer finds the runner's end by its silence: so long it is asked.
const PATIENCE: Duration = Duration::from_secs(3);

impl Client {
    /// Says that this runner ends. Gives whether the server has heard it.
    pub(crate) async fn goodbye(&self, credential: &Secret, for_good: bool) -> bool {
        let call = || {
            done(
                self.request(Method::POST, self.url(&["goodbye"]), credential)
                    .timeout(PATIENCE)
                    .json(&Goodbye { for_good }),
            )
        };
        let said = tokio::time::timeout(PATIENCE, retry(PATIENCE, call)).await;
        match said {
            // The server knows no such runner: also when it heard this before and the answer was lost.
            Ok(Ok(()) | Err(CallError::Unauthorized(_))) => return true,
            Ok(Err(CallError::Refused { status, .. })) if status == StatusCode::NOT_FOUND => {
                tracing::debug!("the server is older than goodbyes");
            }
            Ok(Err(error)) => tracing::warn!(%error, "leaves without a goodbye"),
            Err(_) => tracing::warn!("leaves without a goodbye: the server did not answer"),
        }
        false
    }
}
