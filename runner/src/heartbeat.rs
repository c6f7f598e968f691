//! Tells the server every few seconds that attempts are alive, and hears which are to stop.

use crate::{Runner, client::CallError};
use roadstead_protocol::HEARTBEAT_SECONDS;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Never ends by itself. A server that does not answer changes nothing: the fence of each attempt
/// keeps a late one harmless, and a short outage should not cost anybody's work.
pub(crate) async fn run(runner: &Runner) {
    let mut ticks = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reached = true;
    loop {
        ticks.tick().await;
        match runner
            .client
            .heartbeat(&runner.credential, runner.board.running())
            .await
        {
            Ok(reply) => {
                runner.board.apply(&reply.cancel, &reply.lost);
                reached = true;
            }
            // The poll meets the same answer and decides what follows.
            Err(CallError::Unauthorized(_)) => {}
            Err(error) => {
                if std::mem::replace(&mut reached, false) {
                    tracing::warn!(%error, "no heartbeat reached the server");
                }
            }
        }
    }
}
