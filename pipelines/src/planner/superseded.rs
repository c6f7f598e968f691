//! Cancels the builds that a newer push takes the place of, where its file says so. A run whose images are
//! built already becomes a release, and releases and deployments are none of this rule's business.

use super::Draft;
use crate::fact::{Change, RunFact};
use crate::run::{Run, RunState};

pub(super) fn plan(draft: &mut Draft<'_>) {
    let world = draft.world;
    for older in world
        .runs
        .values()
        .filter(|run| run.state.can_be_cancelled())
    {
        let mut newer = world
            .runs
            .values()
            .filter(|newer| takes_place_of(newer, older));
        let Some(first) = newer.next() else {
            continue;
        };
        // Of several the newest: it is the one to look at.
        let newest = newer.fold(first, |one, other| {
            if other.id.number() > one.id.number() {
                other
            } else {
                one
            }
        });
        draft.change(Change::Run {
            run: older.id.clone(),
            fact: RunFact::CancelRequested {
                by: format!("{}, which supersedes it", newest.id),
            },
        });
    }
}

/// Whether a run that goes on is to cancel this one, as soon as it builds.
pub(crate) fn takes_place_of(newer: &Run, older: &Run) -> bool {
    let goes_on = match newer.state {
        RunState::WaitingForApproval { .. }
        | RunState::Preparing
        | RunState::Building { .. }
        | RunState::Confirming { .. }
        | RunState::Confirmed { .. } => true,
        // A cancelled run takes nobody's place, even before its runner has confirmed that.
        RunState::Fetching
        | RunState::Cancelling { .. }
        | RunState::Succeeded { .. }
        | RunState::Skipped { .. }
        | RunState::Failed { .. }
        | RunState::TimedOut { .. }
        | RunState::Cancelled { .. } => false,
    };
    goes_on && newer.supersedes.contains(&older.id)
}
