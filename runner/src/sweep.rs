//! Clears away what the process before this one left when it was killed.
//!
//! Owns the order: containers first, then files, then the word to the server that those attempts
//! are over, upon which it makes new ones. Touches nothing without this runner's own label.

use crate::{
    Runner,
    client::{CallError, RESULT_PATIENCE, retry},
    engine::Engine,
    state::{KnownAttempt, State},
    workspace::Workspaces,
};
use anyhow::Context;
use roadstead_protocol::{AttemptResult, Outcome};
use std::sync::Arc;

/// Removes containers, networks, tags and files; gives the attempts whose end nobody knows.
pub(crate) async fn sweep(
    state: &State,
    engine: &Engine,
    folders: &[&Workspaces],
) -> anyhow::Result<Vec<KnownAttempt>> {
    let removed = engine
        .sweep()
        .await
        .context("cannot remove what an earlier process of this runner left in Docker Engine")?;
    if removed > 0 {
        tracing::info!(
            removed,
            "swept what an earlier process left in Docker Engine"
        );
    }
    for folder in folders {
        folder.remove_all().await?;
    }
    state.attempts()
}

/// Reports attempts that ended with an earlier process.
pub(crate) async fn report(runner: Arc<Runner>, attempts: Vec<KnownAttempt>) {
    for known in attempts {
        let id = known.attempt.attempt.clone();
        let client = runner.client.attempt(known.attempt, known.token);
        let result = AttemptResult {
            fence: client.fence(),
            outcome: Outcome::Errored {
                reason: "the runner was stopped while it ran this and has started again".to_owned(),
            },
            images: vec![],
        };
        match retry(RESULT_PATIENCE, || client.put_result(&result)).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(attempt = id, %error, "could not report an attempt's end");
                continue;
            }
            Ok(()) | Err(CallError::Lost(_) | CallError::Unauthorized(_)) => {}
            Err(error) => {
                tracing::warn!(attempt = id, %error, "the server has no use for a result");
            }
        }
        if let Err(error) = runner.with_state(move |state| state.forget(&id)).await {
            tracing::warn!(error = format!("{error:#}"), "cannot forget an attempt");
        }
    }
}
