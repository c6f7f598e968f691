//! Opens deployments where an environment deploys by itself, and says what the newest release
//! waits for elsewhere.
//!
//! A release is a candidate for a place when it is newer than every release that was ever tried
//! there (automation neither repeats a failure nor goes back) and, below another environment, when
//! it is verified there. One that was made later of an earlier commit is not newer than what comes after
//! it in git. A hold keeps automation away.

use super::Draft;
use crate::deployment::{Kind, Trigger};
use crate::id::{CommitSha, Place, ReleaseId};
use crate::report::{Subject, WaitingOn, WhoActs};
use crate::spec::{DeployMode, Environment, Role};
use crate::world::PlaceState;
use jiff::Timestamp;
use std::collections::BTreeSet;

pub(super) fn plan(draft: &mut Draft<'_>) {
    for (place, environment) in draft.world.places_in_order() {
        let state = draft.world.place(&place);
        let Some((candidate, since)) = candidate(draft, &place, environment, &state) else {
            continue;
        };
        if let Some(hold) = &state.hold {
            let reason = super::queue::held(&place, hold);
            let who = WhoActs::Role(Role::Deployer);
            wait(draft, candidate, place, reason, hold.since, who);
            continue;
        }
        match environment.deploy {
            DeployMode::Auto => {
                draft.open(&place, &candidate, Kind::Forward, Trigger::Auto);
            }
            DeployMode::Manual => {
                let reason = format!("somebody to promote it to {place}");
                wait(
                    draft,
                    candidate,
                    place,
                    reason,
                    since,
                    WhoActs::Role(Role::Deployer),
                );
            }
        }
    }
}

/// The newest release that may move into the place, and since when it may.
fn candidate(
    draft: &Draft<'_>,
    place: &Place,
    environment: &Environment,
    state: &PlaceState,
) -> Option<(ReleaseId, Timestamp)> {
    let world = draft.world;
    let image = &world.pipeline.as_ref()?.services.get(&place.service)?.image;
    let newest_tried = state.newest_tried.as_ref().map_or(0, ReleaseId::number);
    let newer = |release: &ReleaseId| release.number() > newest_tried;
    let usable = |id: &ReleaseId| {
        world
            .releases
            .get(id)
            .is_some_and(|r| r.images.contains_key(image))
    };
    let ready: Vec<(ReleaseId, Timestamp)> = match &environment.after {
        None => world
            .releases
            .values()
            .map(|release| (release.id.clone(), release.created_at))
            .collect(),
        Some(before) => {
            let upstream = Place {
                environment: before.clone(),
                service: place.service.clone(),
            };
            let verified = world.place(&upstream).verified;
            verified.into_iter().map(|v| (v.release, v.at)).collect()
        }
    };
    let come_here: BTreeSet<&CommitSha> = ready
        .iter()
        .map(|(id, _)| id)
        .chain(&state.newest_tried)
        .filter_map(|id| Some(&world.releases.get(id)?.commit))
        .collect();
    let overtaken = |id: &ReleaseId| {
        let after = world.releases.get(id).map(|release| &release.descendants);
        after.is_some_and(|after| after.iter().any(|commit| come_here.contains(commit)))
    };
    ready
        .iter()
        .filter(|(id, _)| newer(id) && usable(id) && !overtaken(id))
        .max_by_key(|(id, _)| id.number())
        .cloned()
}

fn wait(
    draft: &mut Draft<'_>,
    release: ReleaseId,
    place: Place,
    reason: String,
    since: Timestamp,
    who: WhoActs,
) {
    let subject = Subject::Candidate { release, place };
    draft.waits(WaitingOn {
        subject,
        reason,
        since,
        until: None,
        who,
    });
}
