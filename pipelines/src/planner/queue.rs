//! Starts what waits: one deployment of a place at a time, rollbacks first, the newest forward one
//! next; older waiting ones are superseded. Gates bind forward deployments only.

use super::Draft;
use crate::deployment::{Deployment, DeploymentState, OneOff, Rollout, Trigger};
use crate::fact::{Change, DeploymentFact};
use crate::gate::{self, GateVerdict};
use crate::id::Place;
use crate::report::{Failure, Subject, WaitingOn, WhoActs};
use crate::spec::Role;
use crate::world::Hold;
use std::collections::BTreeSet;

pub(super) fn plan(draft: &mut Draft<'_>) {
    let places: BTreeSet<_> = draft
        .world
        .deployments
        .values()
        .filter(|d| d.state == DeploymentState::Queued)
        .map(|d| d.place.clone())
        .collect();
    for place in places {
        let world = draft.world;
        let queued: Vec<_> = world
            .live_in(&place)
            .filter(|d| d.state == DeploymentState::Queued)
            .collect();
        let rollback = queued.iter().rev().find(|d| d.is_rollback());
        let forward = queued.iter().rev().find(|d| !d.is_rollback());
        for older in queued.iter().filter(|d| d.is_rollback()) {
            if let Some(newest) = rollback.filter(|newest| newest.id != older.id) {
                supersede(draft, older, newest.id.as_str());
            }
        }
        for older in queued.iter().filter(|d| !d.is_rollback()) {
            if let Some(newest) = forward.filter(|newest| newest.id != older.id) {
                supersede(draft, older, newest.id.as_str());
            }
        }
        let occupant = world.live_in(&place).find(|d| d.state.occupies());
        match (rollback, forward) {
            (Some(rollback), forward) => {
                start_rollback(draft, rollback, occupant);
                if let Some(forward) = forward {
                    let reason = format!("rollback {}, which goes first", rollback.id);
                    wait(draft, forward, reason, WhoActs::Roadstead);
                }
            }
            (None, Some(forward)) => start_forward(draft, forward, occupant),
            (None, None) => {}
        }
    }
}

fn supersede(draft: &mut Draft<'_>, deployment: &Deployment, by: &str) {
    draft.change(Change::Deployment {
        deployment: deployment.id.clone(),
        fact: DeploymentFact::Superseded { by: by.to_owned() },
    });
}

fn start_rollback(draft: &mut Draft<'_>, rollback: &Deployment, occupant: Option<&Deployment>) {
    let place = draft.world.place(&rollback.place);
    let known = place
        .verified
        .iter()
        .find(|v| v.release == rollback.release);
    let Some(known) = known else {
        let failure = Failure::failed(format!(
            "{} was never verified in {}: nothing to roll back to",
            rollback.release, rollback.place
        ));
        // Queued has no failed end of its own: start it and let it fail with the reason.
        draft.change(Change::Deployment {
            deployment: rollback.id.clone(),
            fact: DeploymentFact::Started {
                task_definition: None,
                before_deploy: None,
            },
        });
        draft.change(Change::Deployment {
            deployment: rollback.id.clone(),
            fact: DeploymentFact::Failed { failure },
        });
        return;
    };
    if let Some(occupant) = occupant {
        let early = matches!(
            occupant.state,
            DeploymentState::RollingOut {
                rollout: Rollout::Registering { .. }
                    | Rollout::BeforeDeploy { .. }
                    | Rollout::Updating { .. }
                    | Rollout::Creating { .. },
                ..
            }
        );
        if early || occupant.is_rollback() {
            let reason = format!("{}, which is at work in {}", occupant.id, rollback.place);
            wait(draft, rollback, reason, WhoActs::Roadstead);
            return;
        }
        // A rollback takes over from what is rolling out.
        let by = match &rollback.trigger {
            Trigger::Auto => "Roadstead".to_owned(),
            Trigger::Manual { by, .. } => by.clone(),
        };
        draft.change(Change::Deployment {
            deployment: occupant.id.clone(),
            fact: DeploymentFact::RollbackOpened {
                failure: Failure::failed(format!(
                    "taken over by {}, asked for by {by}",
                    rollback.id
                )),
                rollback: rollback.id.clone(),
            },
        });
        return;
    }
    draft.change(Change::Deployment {
        deployment: rollback.id.clone(),
        fact: DeploymentFact::Started {
            task_definition: Some(known.task_definition.clone()),
            // It ran with what the database was then; what came since is not undone by going back.
            before_deploy: None,
        },
    });
}

fn start_forward(draft: &mut Draft<'_>, forward: &Deployment, occupant: Option<&Deployment>) {
    let place = forward.place.clone();
    if let Some(occupant) = occupant {
        let reason = format!(
            "{}, which is {} in {place}",
            occupant.id,
            occupant.state.word().replace('_', " ")
        );
        wait(draft, forward, reason, WhoActs::Roadstead);
        return;
    }
    let being_rolled_back = draft
        .world
        .live_in(&place)
        .find(|d| matches!(d.state, DeploymentState::RollingBack { .. }));
    if let Some(other) = being_rolled_back {
        let reason = format!("{}, which is being rolled back in {place}", other.id);
        wait(draft, forward, reason, WhoActs::Roadstead);
        return;
    }
    let state = draft.world.place(&place);
    if forward.trigger == Trigger::Auto
        && let Some(hold) = &state.hold
    {
        let reason = held(&place, hold);
        wait(draft, forward, reason, WhoActs::Role(Role::Deployer));
        return;
    }
    let Some(environment) = draft.world.environment(&place) else {
        let reason = format!(
            "environment {} to come back: the pipeline file names it no more",
            place.environment
        );
        wait(draft, forward, reason, WhoActs::Role(Role::Deployer));
        return;
    };
    let (world, now) = (draft.world, draft.now);
    let proved = gate::proved_before(environment, world, &place, &forward.release);
    let gates = gate::gates(world, &place, &forward.release);
    let mut verdicts: Vec<_> = gates
        .iter()
        .map(|gate| gate::evaluate(gate, world, &place, &forward.release, now))
        .collect();
    // A gate that asks for the same says it already.
    if !verdicts.contains(&proved) {
        verdicts.insert(0, proved);
    }
    let mut closed = false;
    for verdict in verdicts {
        if let GateVerdict::Closed { reason, until, who } = verdict {
            closed = true;
            draft.waits(WaitingOn {
                subject: Subject::Deployment {
                    deployment: forward.id.clone(),
                },
                reason,
                since: forward.created_at,
                until,
                who,
            });
        }
    }
    if !closed {
        let pipeline = draft.world.pipeline.as_ref();
        let service = pipeline.and_then(|pipeline| pipeline.services.get(&place.service));
        let before_deploy = service.and_then(|service| {
            let target = environment.target(&place.service);
            Some(OneOff {
                run: service.before_deploy.clone()?,
                region: target.region,
                cluster: target.cluster,
                service: target.service,
                container: service.container.clone(),
                create: target.create.map(Box::new),
            })
        });
        draft.change(Change::Deployment {
            deployment: forward.id.clone(),
            fact: DeploymentFact::Started {
                task_definition: None,
                before_deploy,
            },
        });
    }
}

/// For what a held place waits.
pub(super) fn held(place: &Place, hold: &Hold) -> String {
    format!(
        "somebody to resume {place}, held by {}: {}",
        hold.by, hold.reason
    )
}

fn wait(draft: &mut Draft<'_>, deployment: &Deployment, reason: String, who: WhoActs) {
    draft.waits(WaitingOn {
        subject: Subject::Deployment {
            deployment: deployment.id.clone(),
        },
        reason,
        since: deployment.created_at,
        until: None,
        who,
    });
}
