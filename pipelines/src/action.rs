//! What people may ask for, decided on a world: each answer is a list of changes, or a refusal that
//! says why. Forward and back are different verbs with different checks.

use crate::deployment::{DeploymentState, Kind, Rollout, Trigger};
use crate::fact::{Change, DeploymentFact, RunFact};
use crate::id::{CommitSha, DeploymentId, Place, ReleaseId, RunId};
use crate::run::RunState;
use crate::spec::Role;
use crate::world::{Approval, Hold, World};
use jiff::Timestamp;

/// Who asks. Whether the role suffices for the verb is checked at the door, not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
}

/// Why a request cannot be followed: for the person who made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(message.into()))
}

fn known_place(world: &World, place: &Place) -> Result<(), Refusal> {
    if world
        .places_in_order()
        .iter()
        .any(|(known, _)| known == place)
    {
        return Ok(());
    }
    let known: Vec<_> = world
        .places_in_order()
        .iter()
        .map(|(p, _)| p.to_string())
        .collect();
    refuse(format!(
        "{} has no {place}; its places are: {}",
        world.project,
        if known.is_empty() {
            "none before its first run".to_owned()
        } else {
            known.join(", ")
        }
    ))
}

/// Opens a forward deployment of a release. Its gates are evaluated afterwards, live.
///
/// # Errors
/// [`Refusal`] when place or release are unknown, or the release is on its way already.
pub fn promote(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    actor: &Actor,
    reason: &str,
) -> Result<Vec<Change>, Refusal> {
    known_place(world, place)?;
    let Some(found) = world.releases.get(release) else {
        return refuse(format!("{} has no release {release}", world.project));
    };
    let image = world
        .pipeline
        .as_ref()
        .and_then(|p| p.services.get(&place.service))
        .map(|s| &s.image);
    if let Some(image) = image
        && found.image(&place.environment, image).is_none()
    {
        return refuse(format!(
            "{release} holds no image `{image}`, which {place} runs"
        ));
    }
    let on_its_way = world
        .live_in(place)
        .find(|d| d.release == *release && !d.is_rollback());
    if let Some(other) = on_its_way {
        return refuse(format!(
            "{release} is on its way to {place} already: {}",
            other.id
        ));
    }
    Ok(vec![open(
        world,
        place,
        release,
        Kind::Forward,
        actor,
        reason,
    )])
}

/// Opens a rollback to a verified release and holds the place, so that automation does not undo it.
///
/// # Errors
/// [`Refusal`] when the release was never verified there, or a rollback is under way.
pub fn rollback(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    actor: &Actor,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let state = world.place(place);
    if !state.has_verified(release) {
        let known: Vec<_> = state
            .verified
            .iter()
            .map(|v| v.release.to_string())
            .collect();
        return refuse(format!(
            "{release} was never verified in {place}; verified there: {}",
            if known.is_empty() {
                "nothing".to_owned()
            } else {
                known.join(", ")
            }
        ));
    }
    if let Some(other) = world.live_in(place).find(|d| d.is_rollback()) {
        return refuse(format!("rollback {} of {place} is under way", other.id));
    }
    let said = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let hold = Hold {
        reason: format!("rolled back to {release}{said}"),
        by: actor.name.clone(),
        since: now,
    };
    Ok(vec![
        open(
            world,
            place,
            release,
            Kind::Rollback { of: None },
            actor,
            reason,
        ),
        Change::SetHold {
            place: place.clone(),
            hold,
        },
    ])
}

fn open(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    kind: Kind,
    actor: &Actor,
    reason: &str,
) -> Change {
    Change::OpenDeployment {
        deployment: DeploymentId::new(&world.project, world.next_deployment),
        place: place.clone(),
        release: release.clone(),
        kind,
        trigger: Trigger::Manual {
            by: actor.name.clone(),
            reason: reason.to_owned(),
        },
    }
}

/// Approves a release for a place; saying it twice changes nothing.
///
/// # Errors
/// [`Refusal`] when place or release are unknown.
pub fn approve(
    world: &World,
    place: &Place,
    release: &ReleaseId,
    actor: &Actor,
    now: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    known_place(world, place)?;
    if !world.releases.contains_key(release) {
        return refuse(format!("{} has no release {release}", world.project));
    }
    let approval = Approval {
        release: release.clone(),
        by: actor.name.clone(),
        role: actor.role,
        at: now,
    };
    Ok(vec![Change::Approve {
        place: place.clone(),
        approval,
    }])
}

/// Keeps automation away from a place.
///
/// # Errors
/// [`Refusal`] when the place is unknown or held already.
pub fn hold(
    world: &World,
    place: &Place,
    actor: &Actor,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    known_place(world, place)?;
    if let Some(hold) = world.place(place).hold {
        return refuse(format!(
            "{place} is held by {} since {}: {}",
            hold.by, hold.since, hold.reason
        ));
    }
    let reason = if reason.is_empty() {
        "no reason given"
    } else {
        reason
    };
    let hold = Hold {
        reason: reason.to_owned(),
        by: actor.name.clone(),
        since: now,
    };
    Ok(vec![Change::SetHold {
        place: place.clone(),
        hold,
    }])
}

/// Lets automation go on in a place.
///
/// # Errors
/// [`Refusal`] when the place is not held.
pub fn resume(world: &World, place: &Place, actor: &Actor) -> Result<Vec<Change>, Refusal> {
    if world.place(place).hold.is_none() {
        return refuse(format!("{place} is not held"));
    }
    Ok(vec![Change::ReleaseHold {
        place: place.clone(),
        by: actor.name.clone(),
    }])
}

/// Cancels a run. Builds may be cancelled at any time.
///
/// # Errors
/// [`Refusal`] when the run is unknown or over.
pub fn cancel_run(world: &World, run: &RunId, actor: &Actor) -> Result<Vec<Change>, Refusal> {
    match world.runs.get(run).map(|r| &r.state) {
        Some(state) if state.can_be_cancelled() => Ok(vec![Change::Run {
            run: run.clone(),
            fact: RunFact::CancelRequested {
                by: actor.name.clone(),
            },
        }]),
        Some(state) => refuse(format!(
            "{run} is {}: there is nothing to cancel",
            state.word()
        )),
        None => refuse(format!("{run} is over, or there is no such run")),
    }
}

/// Lets untrusted code run: this run of it, whose commit is named by whoever looked at it.
///
/// # Errors
/// [`Refusal`] when the run does not wait for that, or is of another commit.
pub fn approve_run(
    world: &World,
    run: &RunId,
    commit: &CommitSha,
    actor: &Actor,
) -> Result<Vec<Change>, Refusal> {
    let Some(found) = world.runs.get(run) else {
        return refuse(format!("{run} is over, or there is no such run"));
    };
    if !matches!(found.state, RunState::WaitingForApproval { .. }) {
        return refuse(format!(
            "{run} is {}: it waits for no approval",
            found.state.word().replace('_', " ")
        ));
    }
    if found.commit != *commit {
        return refuse(format!(
            "{run} is of commit {}, not of {commit}: look at that one, an approval is for one commit alone",
            found.commit
        ));
    }
    let by = actor.name.clone();
    let commit = commit.clone();
    Ok(vec![Change::Run {
        run: run.clone(),
        fact: RunFact::Approved { by, commit },
    }])
}

/// Cancels a deployment that ECS has not been asked for yet.
///
/// # Errors
/// [`Refusal`] when it is unknown, over, or ECS works on it: then roll back instead.
pub fn cancel_deployment(
    world: &World,
    deployment: &DeploymentId,
    actor: &Actor,
) -> Result<Vec<Change>, Refusal> {
    let Some(found) = world
        .deployments
        .get(deployment)
        .filter(|d| !d.state.is_over())
    else {
        return refuse(format!(
            "{deployment} is over, or there is no such deployment"
        ));
    };
    match &found.state {
        DeploymentState::Queued
        | DeploymentState::RollingOut {
            rollout: Rollout::Registering { .. },
            ..
        } => Ok(vec![Change::Deployment {
            deployment: deployment.clone(),
            fact: DeploymentFact::Cancelled {
                by: actor.name.clone(),
            },
        }]),
        DeploymentState::RollingOut {
            rollout: Rollout::BeforeDeploy { .. },
            ..
        } => refuse(format!(
            "{deployment} runs its before_deploy: what it changes half-way nobody could tell; it ends by \
             itself or by its timeout"
        )),
        state => refuse(format!(
            "{deployment} is {}: a release is not cancelled half-way, roll back instead",
            state.word()
        )),
    }
}
