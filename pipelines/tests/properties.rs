//! What holds in every story, told by chance; and planners with one rule broken, each of which the
//! same stories find out.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod support;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use roadstead_pipelines::deployment::{DeploymentState, Kind};
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::{Place, ReleaseId};
use roadstead_pipelines::planner::{Plan, plan};
use roadstead_pipelines::report::Subject;
use roadstead_pipelines::world::World;
use std::collections::BTreeSet;
use support::{AUTO, Stage, pipeline};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    Push,
    Completes(bool),
    Breaker(bool),
    Crash(bool),
    Probes(bool, bool),
    Wait(i64),
    Rollback(bool, u64),
    Promote(bool, u64),
    Resume(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => Just(Happens::Push),
        4 => any::<bool>().prop_map(Happens::Completes),
        1 => any::<bool>().prop_map(Happens::Breaker),
        1 => any::<bool>().prop_map(Happens::Crash),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(p, ok)| Happens::Probes(p, ok)),
        5 => (1i64..90).prop_map(Happens::Wait),
        1 => (any::<bool>(), 1u64..5).prop_map(|(p, r)| Happens::Rollback(p, r)),
        1 => (any::<bool>(), 1u64..5).prop_map(|(p, r)| Happens::Promote(p, r)),
        1 => any::<bool>().prop_map(Happens::Resume),
    ]
}

fn name(production: bool) -> &'static str {
    if production {
        "production/web"
    } else {
        "staging/web"
    }
}

fn release(number: u64) -> ReleaseId {
    ReleaseId::parse(&format!("shop.r{number}")).unwrap()
}

/// What was seen along a story that its end does not show.
#[derive(Default)]
struct Seen {
    /// Releases verified in staging at some time.
    verified: BTreeSet<ReleaseId>,
    updates: usize,
}

fn happen(stage: &mut Stage, what: &Happens) {
    match what {
        Happens::Push => {
            stage.ship();
        }
        Happens::Completes(p) => stage.ecs_completes(name(*p)),
        Happens::Breaker(p) => stage.ecs_breaker(name(*p)),
        Happens::Crash(p) => stage.tasks_crash(name(*p), 2),
        Happens::Probes(p, ok) => stage.probes(name(*p), *ok),
        Happens::Wait(seconds) => stage.wait(*seconds),
        // A refusal is an answer too: nothing happens then.
        Happens::Rollback(p, r) => drop(stage.rollback(name(*p), &release(*r))),
        Happens::Promote(p, r) => drop(stage.promote(name(*p), &release(*r))),
        Happens::Resume(p) => drop(stage.resume(name(*p))),
    }
}

/// The rules. Each message begins with the rule's name.
fn check(stage: &Stage, seen: &mut Seen) -> Result<(), TestCaseError> {
    let world = &stage.world;
    let staging = world.place(&Stage::place("staging/web"));
    seen.verified
        .extend(staging.verified.iter().map(|v| v.release.clone()));
    let production = Stage::place("production/web");
    for (deployment, place, release) in &stage.updates[seen.updates..] {
        let found = &world.deployments[deployment];
        if *place == production {
            prop_assert!(
                seen.verified.contains(release),
                "proved: {deployment} brought {release} to production unproved\n{}",
                stage.transcript
            );
        }
        let state = world.place(place);
        let by_itself = found.kind == Kind::Forward
            && found.trigger == roadstead_pipelines::deployment::Trigger::Auto;
        let held_before = state
            .hold
            .as_ref()
            .is_some_and(|h| h.since < found.created_at);
        prop_assert!(
            !(by_itself && held_before),
            "held: {deployment} went to {place} in spite of its hold\n{}",
            stage.transcript
        );
    }
    seen.updates = stage.updates.len();

    for (place, _) in world.places_in_order() {
        let at_work: Vec<_> = world
            .live_in(&place)
            .filter(|d| d.state.occupies())
            .map(|d| d.id.clone())
            .collect();
        prop_assert!(
            at_work.len() <= 1,
            "alone: {at_work:?} in {place}\n{}",
            stage.transcript
        );
    }
    Ok(())
}

/// Rules about the plan of a settled world.
fn check_settled(stage: &Stage) -> Result<(), TestCaseError> {
    let plan = plan(&stage.world, stage.now);
    prop_assert!(
        plan.changes.is_empty(),
        "settled: {:?}\n{}",
        plan.changes,
        stage.transcript
    );
    let mut told = BTreeSet::new();
    for waiting in &plan.waiting_on {
        match &waiting.subject {
            Subject::Run { run } => told.insert(run.to_string()),
            Subject::Deployment { deployment } => told.insert(deployment.to_string()),
            Subject::Candidate { .. } => false,
        };
        prop_assert!(!waiting.reason.is_empty(), "reason: an empty one");
    }
    for effect in &plan.effects {
        told.insert(effect.subject().to_owned());
    }
    let runs = stage
        .world
        .runs
        .values()
        .filter(|r| !r.state.is_over())
        .map(|r| r.id.to_string());
    let deployments = stage
        .world
        .deployments
        .values()
        .filter(|d| !d.state.is_over())
        .map(|d| d.id.to_string());
    for live in runs.chain(deployments) {
        prop_assert!(
            told.contains(&live),
            "reason: {live} has none\n{}",
            stage.transcript
        );
    }
    Ok(())
}

fn tell(story: &[Happens], planner: fn(&World, Timestamp) -> Plan) -> Result<Stage, TestCaseError> {
    let mut stage = Stage::with_planner(pipeline(AUTO), planner);
    let mut seen = Seen::default();
    for what in story {
        happen(&mut stage, what);
        check(&stage, &mut seen)?;
    }
    Ok(stage)
}

/// The same stories every time: chance finds defects at a desk, not in CI.
fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn every_story_keeps_the_rules() {
    let stories = prop::collection::vec(happens(), 1..30);
    runner(200)
        .run(&stories, |story| {
            let mut stage = tell(&story, plan)?;
            stage.settle();
            check_settled(&stage)
        })
        .unwrap();
}

#[test]
fn every_deployment_ends_when_the_world_is_left_alone() {
    let stories = prop::collection::vec(happens(), 1..15);
    runner(60)
        .run(&stories, |story| {
            let mut stage = tell(&story, plan)?;
            for _ in 0..6 {
                for place in ["staging/web", "production/web"] {
                    stage.probes(place, true);
                    stage
                        .ecs
                        .get_mut(&Stage::place(place))
                        .unwrap()
                        .stopped
                        .clear();
                    stage.ecs_completes(place);
                }
                stage.wait(150);
            }
            for deployment in stage.world.deployments.values() {
                let waits_for_a_person = deployment.state == DeploymentState::Queued
                    && stage.world.place(&deployment.place).hold.is_some();
                // A gate may be closed for good: what staging left too early.
                let gate_closed = deployment.state == DeploymentState::Queued;
                prop_assert!(
                    deployment.state.is_over() || waits_for_a_person || gate_closed,
                    "ends: {} is {}\n{}",
                    deployment.id,
                    deployment.state.word(),
                    stage.transcript
                );
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn replanning_gives_nothing_new_and_a_repeated_plan_is_the_same() {
    let stories = prop::collection::vec(happens(), 1..20);
    runner(60)
        .run(&stories, |story| {
            let stage = tell(&story, plan)?;
            for later in [0, 1, 30, 3600] {
                let now = stage.now + SignedDuration::from_secs(later);
                let first = plan(&stage.world, now);
                prop_assert_eq!(&first, &plan(&stage.world, now));
                let after = stage.world.with(&first.changes, now).unwrap();
                prop_assert_eq!(plan(&after, now).changes, vec![]);
            }
            Ok(())
        })
        .unwrap();
}

/// A planner that sees another world than there is: one rule broken each.
fn broken(rule: &str, planner: fn(&World, Timestamp) -> Plan) {
    let stories = prop::collection::vec(happens(), 1..40);
    let found = runner(2_000).run(&stories, |story| tell(&story, planner).map(|_| ()));
    let message = found
        .expect_err("the broken planner was not found out")
        .to_string();
    assert!(
        message.contains(&format!("{rule}: ")),
        "found otherwise: {message}"
    );
}

fn each_place(world: &World, change: impl Fn(&Place, &mut World)) -> World {
    let mut other = world.clone();
    for (place, _) in world.places_in_order() {
        change(&place, &mut other);
    }
    other
}

#[test]
fn a_planner_blind_to_the_order_of_environments_is_found_out() {
    // Either of the two keeps production from what staging did not prove.
    broken("proved", |world, now| {
        let mut blind = world.clone();
        for environment in blind
            .pipeline
            .iter_mut()
            .flat_map(|p| p.environments.values_mut())
        {
            environment.after = None;
            environment.gates.clear();
        }
        plan(&blind, now)
    });
}

#[test]
fn a_planner_blind_to_holds_is_found_out() {
    broken("held", |world, now| {
        plan(
            &each_place(world, |place, w| {
                w.places.entry(place.clone()).or_default().hold = None;
            }),
            now,
        )
    });
}

#[test]
fn a_planner_blind_to_who_is_at_work_is_found_out() {
    broken("alone", |world, now| {
        let mut real = plan(world, now);
        // Starts everything that waits, whoever is at work.
        let waiting = world
            .deployments
            .values()
            .filter(|d| d.state == DeploymentState::Queued);
        for deployment in waiting {
            let started = real.changes.iter().any(|change| {
                matches!(change, Change::Deployment { deployment: id, .. } if *id == deployment.id)
            });
            if !started {
                real.changes.push(Change::Deployment {
                    deployment: deployment.id.clone(),
                    fact: roadstead_pipelines::fact::DeploymentFact::Started {
                        task_definition: None,
                        before_deploy: None,
                    },
                });
            }
        }
        real
    });
}
