//! Judges what moves: rollouts by what ECS shows, verification by health that held, and takes back
//! what fails.
//!
//! Auto-rollback goes to the place's last verified release, sets a hold and is a deployment of its
//! own. What ECS took back by itself before it ever served sets no hold: that release is not tried
//! again, and a newer one may come.

use super::Draft;
use crate::deployment::{
    Deployment, DeploymentState, EcsRollout, Kind, Rollout, TakenBackBy, Trigger,
};
use crate::durations;
use crate::effect::Effect;
use crate::fact::{Change, DeploymentFact};
use crate::observation::{Health, PlaceStatus};
use crate::outcome::{self, Verdict};
use crate::report::{Failure, FailureKind, Subject, WaitingOn, WhoActs};
use crate::spec::{DoneWhen, Environment};
use crate::world::{Hold, Verified};
use jiff::{SignedDuration, Timestamp};

/// Unhealthy without a break for so long fails a verification: longer than one bad answer, shorter
/// than anybody would watch errors.
pub(super) const UNHEALTHY_FAILS_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// A release whose tasks end by themselves is verified only after so long without another end, also when all
/// its tasks run at each look: a task that ends soon after its start is there most of the time.
pub(super) const CALM_AFTER_CRASH: SignedDuration = SignedDuration::from_secs(30);

/// ECS shows an accepted update within this time: its answers are eventually consistent, and
/// others wait ten seconds for a service deployment to appear.
const ECS_SHOWS_AFTER: SignedDuration = SignedDuration::from_secs(15);

pub(super) fn plan(draft: &mut Draft<'_>) {
    for deployment in draft.world.deployments.values() {
        match &deployment.state {
            DeploymentState::RollingOut { since, rollout } => {
                rolling_out(draft, deployment, rollout, *since);
            }
            DeploymentState::Verifying {
                since,
                ecs,
                task_definition,
            } => {
                verifying(draft, deployment, ecs, task_definition, *since);
            }
            DeploymentState::RollingBack { failure, by, since } => {
                rolling_back(draft, deployment, failure, by, *since);
            }
            DeploymentState::Queued
            | DeploymentState::Deployed { .. }
            | DeploymentState::Failed { .. }
            | DeploymentState::RolledBack { .. }
            | DeploymentState::RollbackFailed { .. }
            | DeploymentState::Superseded { .. }
            | DeploymentState::Cancelled { .. }
            | DeploymentState::TimedOut { .. } => {}
        }
    }
}

fn rolling_out(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    rollout: &Rollout,
    since: Timestamp,
) {
    let id = deployment.id.clone();
    let limit = deadline(draft.world.environment(&deployment.place), since);
    match rollout {
        // Nothing has been asked of ECS yet, so giving up is safe here and only here.
        Rollout::Registering { .. } if draft.now >= limit => {
            let failure = Failure::timed_out("its task definition could not be registered in time");
            fact(draft, deployment, DeploymentFact::Failed { failure });
        }
        Rollout::Registering { .. } => {
            draft.effect(Effect::RegisterTaskDefinition { deployment: id });
            wait(
                draft,
                deployment,
                "its task definition to be registered",
                since,
                Some(limit),
            );
        }
        Rollout::BeforeDeploy {
            before_deploy,
            task,
            ..
        } => {
            let times = (since, limit);
            super::before_deploy::plan(draft, deployment, before_deploy, task.as_ref(), times);
        }
        Rollout::Updating { .. } => {
            draft.effect(Effect::UpdateService { deployment: id });
            wait(
                draft,
                deployment,
                "ECS to accept the update",
                since,
                Some(limit),
            );
        }
        Rollout::Creating { .. } => {
            draft.effect(Effect::CreateService { deployment: id });
            wait(
                draft,
                deployment,
                "ECS to make the service",
                since,
                Some(limit),
            );
        }
        Rollout::Watching {
            task_definition,
            ecs,
            updated_at,
        } => {
            watching(draft, deployment, task_definition, ecs, *updated_at);
        }
    }
}

fn watching(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    task_definition: &str,
    ecs: &EcsRollout,
    updated_at: Timestamp,
) {
    let environment = draft.world.environment(&deployment.place);
    let done_when = environment.map_or(DoneWhen::AllHealthy, |e| e.done_when);
    let limit = deadline(environment, updated_at);
    let place = draft.world.place(&deployment.place);
    let status = place.status.as_ref().filter(|s| s.observed_at > updated_at);
    let verdict = status.map(|s| outcome::judge(&s.service, ecs, task_definition, &done_when));
    match verdict {
        Some(Verdict::Done) => fact(draft, deployment, DeploymentFact::RolloutDone),
        Some(Verdict::TakingBack { failure }) => {
            fact(draft, deployment, DeploymentFact::EcsTakesBack { failure });
        }
        Some(Verdict::TakenBack { certain: false, .. })
            if draft.now.duration_since(updated_at) < ECS_SHOWS_AFTER =>
        {
            wait(
                draft,
                deployment,
                "ECS to show the deployment",
                updated_at,
                Some(limit),
            );
        }
        Some(Verdict::TakenBack { failure, .. }) => {
            // Through RollingBack, where the definition that ECS returned to is judged.
            fact(draft, deployment, DeploymentFact::EcsTakesBack { failure });
        }
        Some(Verdict::Stalled { failure }) => take_back(draft, deployment, failure, Holds::No),
        Some(Verdict::FailingEarly { failure }) => {
            fact(draft, deployment, DeploymentFact::EcsTakesBack { failure });
        }
        Some(Verdict::Superseded { task_definition }) => {
            let by = format!("{task_definition}, which Roadstead did not ask for");
            fact(draft, deployment, DeploymentFact::Superseded { by });
        }
        Some(Verdict::InProgress { .. }) | None if draft.now >= limit => {
            let mut failure = Failure::timed_out(format!(
                "the rollout did not end within {}",
                durations::since(updated_at, limit)
            ));
            if let Some(status) = status {
                failure.details = outcome::describe_stopped(&status.service, &ecs.deployment);
            }
            fact(draft, deployment, DeploymentFact::EcsTakesBack { failure });
        }
        Some(Verdict::InProgress { note }) => {
            wait(
                draft,
                deployment,
                &format!("ECS to finish: {note}"),
                updated_at,
                Some(limit),
            );
        }
        None => wait(
            draft,
            deployment,
            &unseen(&place.status, draft.now),
            updated_at,
            Some(limit),
        ),
    }
}

fn unseen(status: &Option<PlaceStatus>, now: Timestamp) -> String {
    match status.as_ref().and_then(|s| s.unseen.as_ref()) {
        Some((since, reason)) => format!(
            "ECS to answer, out of sight for {}: {reason}",
            durations::since(*since, now)
        ),
        None => "the next look at ECS".to_owned(),
    }
}

fn verifying(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    ecs: &EcsRollout,
    task_definition: &str,
    since: Timestamp,
) {
    let environment = draft.world.environment(&deployment.place);
    let watch = environment
        .and_then(|e| e.verify.as_ref())
        .map_or(0, |v| v.watch.0);
    let watch = SignedDuration::from_secs(i64::try_from(watch).unwrap_or(i64::MAX));
    let place = draft.world.place(&deployment.place);
    let Some(status) = place.status.as_ref().filter(|s| s.observed_at > since) else {
        let reason = unseen(&place.status, draft.now);
        wait(draft, deployment, &reason, since, None);
        return;
    };
    match outcome::judge(
        &status.service,
        ecs,
        task_definition,
        &DoneWhen::Serving { count: 0 },
    ) {
        Verdict::TakingBack { failure } | Verdict::TakenBack { failure, .. } => {
            // The breaker of ECS came after us: what it returned to is judged like any rollback.
            take_back(draft, deployment, failure, Holds::Yes);
            return;
        }
        Verdict::Superseded { task_definition } => {
            let by = format!("{task_definition}, which Roadstead did not ask for");
            fact(draft, deployment, DeploymentFact::Superseded { by });
            return;
        }
        Verdict::Stalled { failure } => {
            take_back(draft, deployment, failure, Holds::Yes);
            return;
        }
        Verdict::Done | Verdict::InProgress { .. } | Verdict::FailingEarly { .. } => {}
    }
    // Health that comes and goes never holds, and never fails for long enough. What was seen before the limit,
    // or is out of sight, decides nothing.
    let limit = deadline(environment, since) + watch;
    let is_over = status.observed_at >= limit && status.unseen.is_none();
    let fail = |draft: &mut Draft<'_>, message: String| {
        let mut failure = Failure::failed(message);
        failure.details = outcome::describe_stopped(&status.service, &ecs.deployment);
        take_back(draft, deployment, failure, Holds::Yes);
    };
    let lasted = durations::since(since, draft.now);
    let did_not_hold =
        |reason: &str| format!("verification did not hold within {lasted}: {reason}");
    match &status.health {
        Health::Pass => {
            let held_since = status
                .healthy_since
                .map_or(status.observed_at, |h| h.max(since));
            let held = held_since + watch;
            let crash = status.service.last_crash(&ecs.deployment);
            let calm = crash.map(|(at, task)| (at + CALM_AFTER_CRASH, task));
            let (ready, reason) = match calm {
                Some((calm, task)) if calm > held => {
                    (calm, format!("a task ended: {}", task.reason))
                }
                _ => {
                    let time = durations::since(held_since, draft.now);
                    (held, format!("healthy for {time} so far"))
                }
            };
            if status.observed_at >= ready {
                fact(draft, deployment, DeploymentFact::Verified);
            } else if is_over && ready > held {
                fail(draft, did_not_hold(&reason));
            } else {
                let reason = format!("verification: {reason}");
                wait(draft, deployment, &reason, since, Some(ready));
            }
        }
        Health::Fail { reason } => {
            let bad_since = status
                .unhealthy_since
                .map_or(status.observed_at, |b| b.max(since));
            if status.observed_at.duration_since(bad_since) >= UNHEALTHY_FAILS_AFTER {
                fail(draft, format!("verification failed: {reason}"));
            } else if is_over {
                fail(draft, did_not_hold(reason));
            } else {
                let time = durations::since(bad_since, draft.now);
                let reason = format!("verification: unhealthy for {time}: {reason}");
                let until = bad_since + UNHEALTHY_FAILS_AFTER;
                wait(draft, deployment, &reason, since, Some(until));
            }
        }
        Health::Inconclusive { reason } => {
            wait(
                draft,
                deployment,
                &format!("verification: {reason}"),
                since,
                None,
            );
        }
    }
}

fn rolling_back(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    failure: &Failure,
    by: &TakenBackBy,
    since: Timestamp,
) {
    match by {
        TakenBackBy::Deployment { rollback } => match draft.world.deployments.get(rollback) {
            Some(other) => match &other.state {
                DeploymentState::Deployed { .. } => {
                    fact(
                        draft,
                        deployment,
                        DeploymentFact::RolledBack { evidence: vec![] },
                    );
                }
                DeploymentState::Failed { failure, .. }
                | DeploymentState::RollbackFailed { failure, .. }
                | DeploymentState::TimedOut { failure, .. }
                | DeploymentState::RolledBack { failure, .. } => {
                    let failure = failure.clone();
                    fact(
                        draft,
                        deployment,
                        DeploymentFact::RollbackFailed { failure },
                    );
                }
                DeploymentState::Superseded { by_what, .. }
                | DeploymentState::Cancelled {
                    by_whom: by_what, ..
                } => {
                    let failure =
                        Failure::failed(format!("its rollback {rollback} gave way to {by_what}"));
                    fact(
                        draft,
                        deployment,
                        DeploymentFact::RollbackFailed { failure },
                    );
                }
                DeploymentState::Queued
                | DeploymentState::RollingOut { .. }
                | DeploymentState::Verifying { .. }
                | DeploymentState::RollingBack { .. } => {
                    wait(
                        draft,
                        deployment,
                        &format!("rollback {rollback} to end"),
                        since,
                        None,
                    );
                }
            },
            None => {
                let failure = Failure::errored(format!("rollback {rollback} is unknown"));
                fact(
                    draft,
                    deployment,
                    DeploymentFact::RollbackFailed { failure },
                );
            }
        },
        TakenBackBy::Ecs {
            ecs,
            task_definition,
        } => {
            let failed = (ecs, task_definition.as_str());
            taken_back_by_ecs(draft, deployment, failure, failed, since);
        }
    }
}

fn taken_back_by_ecs(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    failure: &Failure,
    (ecs, failed_definition): (&EcsRollout, &str),
    since: Timestamp,
) {
    let place = draft.world.place(&deployment.place);
    let limit = deadline(draft.world.environment(&deployment.place), since);
    let evidence = place.status.as_ref().map_or_else(Vec::new, |status| {
        outcome::describe_stopped(&status.service, &ecs.deployment)
    });
    let mut failure = failure.clone();
    if failure.details.is_empty() {
        // When ECS gave up its tasks were still on their way down, and had no exit status yet.
        failure.details.clone_from(&evidence);
    }
    let verdict = place
        .status
        .as_ref()
        .filter(|s| s.observed_at > since)
        .map(|s| outcome::judge(&s.service, ecs, failed_definition, &DoneWhen::Drained));
    match verdict {
        Some(Verdict::TakenBack {
            task_definition, ..
        }) => {
            let back_on_verified = match place.last_verified() {
                Some(verified) => verified.task_definition == task_definition,
                // Nothing of ours was ever verified: what ran before is all there is to return to.
                None => true,
            };
            if back_on_verified {
                fact(draft, deployment, DeploymentFact::RolledBack { evidence });
            } else {
                // It never served, and is not tried again: as when ECS finds the way by itself.
                take_back(draft, deployment, failure, Holds::No);
            }
        }
        Some(Verdict::Stalled { .. }) => take_back(draft, deployment, failure, Holds::No),
        Some(Verdict::Superseded { task_definition }) => {
            let failure = Failure::failed(format!(
                "while ECS took it back, somebody moved the service to {task_definition}"
            ));
            fact(
                draft,
                deployment,
                DeploymentFact::RollbackFailed { failure },
            );
        }
        _ if draft.now >= limit => {
            let failure = Failure::timed_out("ECS did not take it back in time");
            fact(
                draft,
                deployment,
                DeploymentFact::RollbackFailed { failure },
            );
        }
        Some(Verdict::TakingBack { .. }) => {
            wait(draft, deployment, "ECS to take it back", since, Some(limit));
        }
        Some(Verdict::Done | Verdict::InProgress { .. } | Verdict::FailingEarly { .. }) | None => {
            draft.effect(Effect::StopRollout {
                deployment: deployment.id.clone(),
            });
            wait(draft, deployment, "ECS to take it back", since, Some(limit));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
}

/// Opens a rollback to the last verified release, or fails loudly when there is none.
fn take_back(draft: &mut Draft<'_>, deployment: &Deployment, mut failure: Failure, holds: Holds) {
    let place = draft.world.place(&deployment.place);
    let auto = draft
        .world
        .environment(&deployment.place)
        .is_none_or(|e| e.rollback.auto);
    if deployment.is_rollback() {
        failure
            .details
            .push("a rollback is not rolled back: people are needed".into());
        fact(draft, deployment, DeploymentFact::Failed { failure });
        return;
    }
    let target: Option<&Verified> = place
        .verified
        .iter()
        .find(|v| v.release != deployment.release);
    let Some(target) = target.filter(|_| auto) else {
        failure.details.push(if auto {
            format!(
                "nothing was ever verified in {}: nothing to roll back to",
                deployment.place
            )
        } else {
            "the pipeline file says `rollback: {auto: false}`".into()
        });
        fact(draft, deployment, DeploymentFact::Failed { failure });
        return;
    };
    let kind = Kind::Rollback {
        of: Some(deployment.id.clone()),
    };
    let rollback = draft.open(&deployment.place, &target.release, kind, Trigger::Auto);
    if holds == Holds::Yes || failure.kind == FailureKind::TimedOut {
        let reason = format!(
            "{} of {} failed: {}",
            deployment.id, deployment.release, failure.message
        );
        draft.change(Change::SetHold {
            place: deployment.place.clone(),
            hold: Hold {
                reason,
                by: "Roadstead".into(),
                since: draft.now,
            },
        });
    }
    fact(
        draft,
        deployment,
        DeploymentFact::RollbackOpened { failure, rollback },
    );
}

fn deadline(environment: Option<&Environment>, since: Timestamp) -> Timestamp {
    let seconds = environment.map_or(1800, |e| e.rollout_timeout.0);
    since + SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(1800))
}

fn fact(draft: &mut Draft<'_>, deployment: &Deployment, fact: DeploymentFact) {
    draft.change(Change::Deployment {
        deployment: deployment.id.clone(),
        fact,
    });
}

pub(super) fn wait(
    draft: &mut Draft<'_>,
    deployment: &Deployment,
    reason: &str,
    since: Timestamp,
    until: Option<Timestamp>,
) {
    draft.waits(WaitingOn {
        subject: Subject::Deployment {
            deployment: deployment.id.clone(),
        },
        reason: reason.to_owned(),
        since,
        until,
        who: WhoActs::Ecs,
    });
}
