//! Asks the server for work, one long poll at a time.
//!
//! Owns how much this runner takes: free slots, none while its disk is nearly full. A draining one goes on offering
//! them, so that it works again as soon as it is taken back: until then the server gives it nothing.

use crate::{
    Runner, attempt,
    client::{Backoff, CallError},
    disk,
    state::is_plain_name,
    stop::StopReason,
};
use anyhow::bail;
use roadstead_protocol::{Assignment, PROTOCOL_VERSION, Poll, PollReply};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a server that does not answer is asked again before the pauses begin anew.
const PATIENCE: Duration = Duration::from_secs(3600);
/// A server that has something to say answers at once; this keeps it from being asked at once
/// again while a cancelled attempt still ends.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// How long a leaving runner waits for its attempts to be cleared away.
const FAREWELL: Duration = Duration::from_secs(40);

/// Takes work until `stop` comes, or until nothing runs of a runner that is drained or is to finish; then waits for
/// what runs.
///
/// # Errors
/// When the server does not know this runner any more, or speaks another protocol.
pub(crate) async fn run(runner: &Arc<Runner>, stop: &CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let end = poll_until_over(runner, stop, &tasks).await;
    runner.board.stop_all(StopReason::RunnerLeaves);
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("leaves while attempts still run; the next start clears them away");
    }
    end
}

async fn poll_until_over(
    runner: &Arc<Runner>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(PATIENCE);
    let mut draining = false;
    let mut disk_is_low = false;
    loop {
        let finishing = runner.finish.is_cancelled();
        if finishing && runner.board.count() == 0 {
            tracing::info!("takes no more work, and has nothing more to do: leaves");
            return Ok(());
        }
        let disk_free_bytes = runner.free_bytes();
        let low = disk_free_bytes < runner.disk_watermark_bytes;
        if low != disk_is_low {
            disk_is_low = low;
            tracing::warn!(
                disk_free_bytes,
                low,
                "disk watermark: no work is taken while it is low"
            );
        }
        let free = if finishing || low {
            0
        } else {
            runner.most().saturating_sub(runner.board.count())
        };
        let poll = Poll {
            protocol_version: PROTOCOL_VERSION,
            labels: runner.labels.clone(),
            free_slots: u32::try_from(free).unwrap_or(u32::MAX),
            disk_free_bytes,
            running: runner.board.running(),
        };
        // A poll that offered nothing brings no work, so it may be left for one that does.
        let worth_leaving = async {
            if finishing {
                runner.board.fewer_than(1).await;
            } else if free == 0 && !low {
                runner.board.fewer_than(runner.most()).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let asked_at = Instant::now();
        let reply = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            reply = runner.client.poll(&runner.credential, &poll) => reply,
            () = runner.finish.cancelled(), if !finishing => continue,
            () = worth_leaving => continue,
        };
        match reply {
            Ok(reply) => {
                backoff = Backoff::new(PATIENCE);
                if reply.drain != draining {
                    draining = reply.drain;
                    say_of_drain(runner, draining);
                }
                let brought_work = reply.assign.is_some();
                take(runner, tasks, reply);
                // By this reply alone: what an earlier one said may have been taken back.
                if draining && runner.board.count() == 0 {
                    tracing::info!("drained, and has nothing more to do: leaves");
                    return Ok(());
                }
                if !brought_work {
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep_until(asked_at + SHORTEST_POLL) => {}
                    }
                }
            }
            Err(CallError::Unauthorized(message)) => bail!(
                "the server does not know this runner any more ({message}); start it again with a \
                 registration token to register anew"
            ),
            Err(error @ CallError::Refused { .. }) => bail!("cannot poll for work: {error}"),
            Err(error) => {
                tracing::warn!(%error, "polls again");
                let pause = backoff.next_pause().unwrap_or_else(|| {
                    backoff = Backoff::new(PATIENCE);
                    Duration::from_secs(1)
                });
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = runner.finish.cancelled(), if !finishing => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

fn say_of_drain(runner: &Runner, draining: bool) {
    if draining {
        tracing::warn!(
            "this runner is drained: it finishes what it has and leaves. Runners named `{0}` take no work until \
             somebody presses *Take work again* on the server's page, or runs `roadstead drain-runner {0} --resume`",
            runner.id
        );
    } else {
        tracing::info!("takes work again: it is not drained any more");
    }
}

fn take(runner: &Arc<Runner>, tasks: &TaskTracker, reply: PollReply) {
    runner.board.apply(&reply.cancel, &reply.lost);
    let Some(assignment) = reply.assign else {
        return;
    };
    if !is_plain_name(&assignment.attempt.attempt) {
        tracing::error!(
            attempt = assignment.attempt.attempt,
            "refuses an attempt of that name"
        );
        return;
    }
    // The same assignment may come twice when an answer was lost on its way.
    let Some(stop) = runner.board.enter(&assignment.attempt) else {
        return;
    };
    let runner = Arc::clone(runner);
    tasks.spawn(async move {
        // Leaves the board also when the attempt's task panics.
        let _entry = BoardEntry {
            runner: Arc::clone(&runner),
            assignment: assignment.clone(),
        };
        attempt::run(Arc::clone(&runner), assignment, stop).await;
    });
}

struct BoardEntry {
    runner: Arc<Runner>,
    assignment: Assignment,
}

impl Drop for BoardEntry {
    fn drop(&mut self) {
        self.runner.board.leave(&self.assignment.attempt.attempt);
    }
}

impl Runner {
    /// Where it works or where the engine keeps containers, whichever has less.
    fn free_bytes(&self) -> u64 {
        let free = disk::free_bytes(&self.data).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell the free disk space; takes no work");
            0
        });
        self.disk.free_bytes().map_or(free, |least| free.min(least))
    }
}
