//! Lets virtual time pass when somebody asks: from one event to the next, as fast as they can be
//! worked through.
//!
//! Invariant: between two requests nothing happens, not even what is due at once, so that the same
//! calls in the same order always meet the same state. The disk is waited for once, at the end: no
//! effect reaches anything outside this process. Must not know: HTTP.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::Time;
use crate::conductor::Conductor;
use crate::services::AwsError;

/// How far time is to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// That long.
    By(Duration),
    /// Until nothing is under way any more, but at most that long.
    Settled { within: Duration },
}

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Advance {
    pub goal: Goal,
    pub reply: oneshot::Sender<Result<Advanced, AwsError>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advanced {
    pub now: Time,
    /// Whether nothing is under way.
    pub settled: bool,
    /// At how many moments something happened.
    pub moments: u64,
}

/// Serves requests until `stop` is cancelled.
pub(crate) async fn run(
    mut conductor: Conductor,
    mut requests: UnboundedReceiver<Advance>,
    stop: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            () = stop.cancelled() => return,
            request = requests.recv() => request,
        };
        let Some(Advance { goal, reply }) = request else {
            return;
        };
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = advance(&mut conductor, goal) => outcome,
        };
        if reply.send(outcome).is_err() {
            tracing::debug!("whoever wanted time to pass has gone");
        }
    }
}

async fn advance(conductor: &mut Conductor, goal: Goal) -> Result<Advanced, AwsError> {
    let longest = match goal {
        Goal::By(time) | Goal::Settled { within: time } => time,
    };
    let end = conductor.app().clock.now() + longest;
    let mut moments = 0;
    loop {
        play_moment(conductor).await;
        moments += 1;
        if matches!(goal, Goal::Settled { .. }) && conductor.is_settled() {
            break;
        }
        match conductor.next() {
            Some(next) if next <= end => conductor.app().clock.move_to(next),
            _ => {
                // Time that nothing is due in passes only when it was asked for.
                if matches!(goal, Goal::By(_)) || conductor.next().is_some() {
                    conductor.app().clock.move_to(end);
                }
                break;
            }
        }
    }
    let app = conductor.app();
    app.store.saved(app.store.note_time()).await?;
    Ok(Advanced {
        now: app.clock.now(),
        settled: conductor.is_settled(),
        moments,
    })
}

/// Plays everything that happens now, and all that follows from it without waiting.
async fn play_moment(conductor: &mut Conductor) {
    loop {
        let (work, _) = conductor.round().await;
        let idle = work.is_empty();
        conductor.perform(work).await;
        let now = conductor.app().clock.now();
        if idle && conductor.next().is_none_or(|next| next > now) {
            return;
        }
    }
}
