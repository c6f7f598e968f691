//! Opens deployments where an environment deploys by itself, and says what the newest release
//! waits for elsewhere.
//!
//! A release is a candidate for a place when it is newer than every release that was ever tried
//! there (automation neither repeats a failure nor goes back) and, below another environment, when
//! it is verified there. A hold keeps automation away.

use super::Draft;
use crate::deployment::{Kind, Trigger};
use crate::id::{Place, ReleaseId};
use crate::report::{Subject, WaitingOn, WhoActs};
use crate::spec::{DeployMode, Environment, Role};
use crate::world::PlaceState;
use jiff::Timestamp;

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
    match &environment.after {
        None => world
            .releases
            .values()
            .filter(|release| newer(&release.id) && usable(&release.id))
            .max_by_key(|release| release.id.number())
            .map(|release| (release.id.clone(), release.created_at)),
        Some(before) => {
            let upstream = Place {
                environment: before.clone(),
                service: place.service.clone(),
            };
            world
                .place(&upstream)
                .verified
                .iter()
                .filter(|verified| newer(&verified.release) && usable(&verified.release))
                .max_by_key(|verified| verified.release.number())
                .map(|verified| (verified.release.clone(), verified.at))
        }
    }
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
