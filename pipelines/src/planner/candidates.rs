//! Opens deployments where an environment deploys by itself, and says what the newest release
//! waits for elsewhere.
//!
//! A release is a candidate for a place when it is newer than every release that was ever tried
//! there (automation neither repeats a failure nor goes back) and, below another environment, when
//! it is verified there. One that was made later of an earlier commit is not newer than what comes after
//! it in git. A hold keeps automation away.

use super::Draft;
use crate::deployment::{Kind, Trigger};
use crate::id::{Place, ReleaseId};
use crate::release::Release;
use crate::report::{Subject, WaitingOn, WhoActs};
use crate::spec::{DeployMode, Environment, Role};
use crate::world::PlaceState;
use jiff::Timestamp;

pub(super) fn plan(draft: &mut Draft<'_>) {
    for (place, environment) in draft.world.places_in_order() {
        let state = draft.world.place(&place);
        let (candidate, since) = match next(draft, &place, environment, &state) {
            None => continue,
            Some(Next::Moves { release, since }) => (release, since),
            Some(Next::PassedOver { release, since, by }) => {
                let reason = format!(
                    "somebody to promote it to {place}: {by} is of a commit that comes after its own, \
                     and automation does not go back"
                );
                let who = WhoActs::Role(Role::Deployer);
                wait(draft, release, place, reason, since, who);
                continue;
            }
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

/// What is to be said of a place's newest release that was not tried there.
enum Next {
    /// It may move in.
    Moves {
        release: ReleaseId,
        since: Timestamp,
    },
    /// It is of an earlier commit than another one that came as far, and is not there or on its way.
    PassedOver {
        release: ReleaseId,
        since: Timestamp,
        by: ReleaseId,
    },
}

fn next(
    draft: &Draft<'_>,
    place: &Place,
    environment: &Environment,
    state: &PlaceState,
) -> Option<Next> {
    let world = draft.world;
    let image = &world.pipeline.as_ref()?.services.get(&place.service)?.image;
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
    let release = |id: &ReleaseId| {
        let found = world.releases.get(id);
        found.filter(|release| release.image(&place.environment, image).is_some())
    };
    let come_here: Vec<&Release> = ready
        .iter()
        .map(|(id, _)| id)
        .chain(&state.newest_tried)
        .filter_map(release)
        .collect();
    let tried = state.newest_tried.as_ref().map_or(0, ReleaseId::number);
    let mut newest_first: Vec<(&Release, Timestamp)> = ready
        .iter()
        .filter(|(id, _)| id.number() > tried)
        .filter_map(|(id, since)| Some((release(id)?, *since)))
        .collect();
    newest_first.sort_by_key(|(release, _)| std::cmp::Reverse(release.id.number()));
    let overtakers = |release: &Release| {
        let others = come_here.iter().copied();
        let mut found: Vec<_> = others
            .filter(|other| release.is_overtaken_by(other))
            .collect();
        found.sort_by_key(|other| other.id.number());
        found
    };
    let moves = newest_first
        .iter()
        .find(|(release, _)| overtakers(release).is_empty());
    if let Some((release, since)) = moves {
        return Some(Next::Moves {
            release: release.id.clone(),
            since: *since,
        });
    }
    let (release, since) = newest_first.first()?;
    let later = overtakers(release);
    let is_there = |id: &ReleaseId| state.last_verified().is_some_and(|it| it.release == *id);
    let is_coming = |id: &ReleaseId| world.live_in(place).any(|it| it.release == *id);
    if later.iter().any(|it| is_there(&it.id) || is_coming(&it.id)) {
        return None;
    }
    Some(Next::PassedOver {
        release: release.id.clone(),
        since: *since,
        by: later.last()?.id.clone(),
    })
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
