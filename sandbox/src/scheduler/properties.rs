//! What holds for every rollout, whatever its tasks do; and schedulers with one rule broken, each of
//! which the same stories find out.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::alarms::AlarmRules;
use super::breaker::{Breaker, Threshold};
use super::deployments::StopRequest;
use super::due::{due, in_motion};
use super::model::{
    Configuration, DeploymentStatus, Desired, Effect, Moment, RolloutState, Service,
    ServiceDeploymentStatus as End, StopCode,
};
use super::placement::Fleet;
use super::rollout::tick;
use super::world::{Check, GOOD, Scheduler, Script, World};

/// One deployment of a run: its tasks' scripts, and how many seconds later the next begins.
#[derive(Debug, Clone)]
struct Step {
    scripts: Vec<Script>,
    then: u32,
    stopped: Option<StopRequest>,
}

/// A service, and what is deployed to it one after the other.
#[derive(Debug, Clone)]
struct Story {
    desired: u32,
    configuration: Configuration,
    check: Check,
    grace: Duration,
    steps: Vec<Step>,
}

fn script() -> impl Strategy<Value = Script> {
    prop_oneof![
        4 => (0u32..20, 0u32..20).prop_map(|(start, healthy)| Script::Good { start, healthy }),
        1 => Just(Script::CannotPull),
        1 => Just(Script::CannotStart),
        1 => (0u32..30).prop_map(|after| Script::Exits { after }),
        1 => (0u32..30).prop_map(|after| Script::Unhealthy { after }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stop = prop_oneof![
        6 => Just(None),
        1 => Just(Some(StopRequest::Rollback)),
        1 => Just(Some(StopRequest::Abort)),
    ];
    let scripts = prop_oneof![
        prop::collection::vec(script(), 1..4),
        script().prop_map(|one| vec![one]),
    ];
    (scripts, 0u32..400, stop).prop_map(|(scripts, then, stopped)| Step {
        scripts,
        then,
        stopped,
    })
}

/// Configurations that leave room for at least one task more or one less.
fn configuration(desired: u32) -> impl Strategy<Value = Configuration> {
    (
        0u32..=100,
        100u32..=250,
        any::<bool>(),
        any::<bool>(),
        1u32..5,
    )
        .prop_map(
            move |(minimum, maximum, rollback, reset, count)| Configuration {
                minimum_healthy_percent: minimum,
                maximum_percent: maximum,
                breaker: Breaker {
                    enabled: true,
                    rollback,
                    reset_on_healthy_task: reset,
                    threshold: if count == 1 {
                        Threshold::BoundedPercent(50)
                    } else {
                        Threshold::Count(count)
                    },
                },
                alarms: AlarmRules::default(),
            },
        )
        .prop_filter("no room at all", move |one| {
            one.minimum(desired) < one.maximum(desired)
        })
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        Just(Check::None),
        Just(Check::Container),
        Just(Check::Target)
    ]
}

fn story() -> impl Strategy<Value = Story> {
    (1u32..8)
        .prop_flat_map(|desired| (Just(desired), configuration(desired)))
        .prop_flat_map(|(desired, configuration)| {
            (
                Just((desired, configuration)),
                check(),
                0u64..60,
                prop::collection::vec(step(), 1..4),
            )
        })
        .prop_map(|((desired, configuration), check, grace, steps)| Story {
            desired,
            configuration,
            check,
            grace: Duration::from_secs(grace),
            steps,
        })
}

/// The lines in which two services differ.
fn difference(before: &crate::scheduler::Service, after: &crate::scheduler::Service) -> String {
    let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
    let lines = before.lines().zip(after.lines());
    lines
        .filter(|(before, after)| before != after)
        .map(|(before, after)| format!("{before} -> {after}\n"))
        .collect()
}

/// Lets a second pass and looks at the rules. Each message begins with the rule's name.
fn pass_a_second(world: &mut World) -> Result<(), TestCaseError> {
    let healthy_before: Vec<String> = world
        .live()
        .filter(|task| world.is_healthy(task))
        .map(|task| task.id.clone())
        .collect();
    let resting = (!in_motion(&world.service)).then(|| world.service.clone());
    let next = due(&world.service, world.now, world.timings);
    world.see();
    let unseen = resting.filter(|before| *before == world.service);
    world.decide();
    if let Some(before) = unseen
        && next.is_none_or(|next| next > world.now)
    {
        prop_assert!(
            world.effects.is_empty() && world.service == before,
            "rest: nothing was seen and nothing due, and yet {:?}\n{:#?}\n{}",
            world.effects,
            world.service.events.first(),
            difference(&before, &world.service)
        );
    }
    let desired = world.service.desired;
    let maximum = world.service.configuration.maximum(desired) as usize;
    let minimum = world.service.configuration.minimum(desired) as usize;
    prop_assert!(
        world.live().count() <= maximum,
        "maximum: {} tasks live, at most {maximum} allowed",
        world.live().count()
    );
    let healthy_stopped = world
        .service
        .tasks
        .iter()
        .filter(|task| healthy_before.contains(&task.id))
        .any(|task| {
            task.desired == Desired::Stopped
                && task.stop_code == Some(StopCode::ServiceSchedulerInitiated)
                && task
                    .stopped_reason
                    .as_ref()
                    .is_some_and(|reason| reason.starts_with("Scaling activity"))
        });
    prop_assert!(
        !healthy_stopped || world.healthy() >= minimum,
        "minimum: a healthy task was stopped and only {} of at least {minimum} are left",
        world.healthy()
    );
    let primaries = world
        .service
        .deployments
        .iter()
        .filter(|one| one.status == DeploymentStatus::Primary)
        .count();
    prop_assert!(primaries == 1, "primary: {primaries} of them");
    Ok(())
}

/// Runs until the newest service deployment has ended; that it does is the property.
fn run_to_end(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..2 * 3600 {
        if world.record().status.is_final() {
            return Ok(());
        }
        pass_a_second(world)?;
    }
    Err(TestCaseError::fail(format!(
        "ends: it never does: {:#?}",
        world.record()
    )))
}

/// Tells a story to a scheduler, the first deployment being a good one.
fn tell(story: &Story, scheduler: Scheduler) -> Result<(), TestCaseError> {
    let mut world = World::new(story.desired, story.configuration.clone(), story.check);
    world.scheduler = scheduler;
    world.timings.strict_breaker = true;
    world.service.grace = story.grace;
    world.deploy("web:0", &[GOOD]);
    run_to_end(&mut world)?;
    prop_assert_eq!(world.record().status, End::Successful);
    let mut completed = "web:0".to_owned();
    for (number, step) in story.steps.iter().enumerate() {
        let definition = format!("web:{}", number + 1);
        world.deploy(&definition, &step.scripts);
        let last = number + 1 == story.steps.len();
        for _ in 0..step.then {
            pass_a_second(&mut world)?;
        }
        if let Some(request) = step.stopped
            && !world.record().status.is_final()
            && world.record().status != End::RollbackInProgress
        {
            prop_assert_eq!(world.stop_deployment(request), Ok(()));
        }
        if last {
            run_to_end(&mut world)?;
            // What ended rests, for as long as nothing new happens.
            for _ in 0..120 {
                pass_a_second(&mut world)?;
            }
        }
        let primary = world.primary();
        let (status, revision) = (world.record().status, &primary.revision.definition_arn);
        let state = primary.rollout;
        match status {
            End::Successful => {
                prop_assert!(
                    *revision == definition && state == RolloutState::Completed,
                    "ends: as successful, with {revision} {state:?}"
                );
                completed = definition;
            }
            End::RollbackSuccessful => prop_assert!(
                *revision == completed && state == RolloutState::Completed,
                "rollback: to {revision}, {state:?}, and not to {completed}"
            ),
            End::RollbackInProgress => prop_assert!(
                *revision == completed,
                "rollback: to {revision} and not to {completed}"
            ),
            End::Stopped | End::RollbackFailed => prop_assert!(
                state == RolloutState::Failed,
                "ends: as {status:?}, with {revision} {state:?}"
            ),
            _ => {}
        }
    }
    Ok(())
}

/// The same stories every time: chance finds defects at a desk, not in CI.
fn runner(cases: u32, max_shrink_iters: u32) -> TestRunner {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters,
        ..ProptestConfig::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]))
}

#[test]
fn rollouts_keep_their_limits_and_end_where_they_should() {
    runner(160, 32)
        .run(&story(), |story| tell(&story, tick))
        .unwrap();
}

/// A desired count, AWS's documented threshold for it, and tasks of which none is ever healthy.
#[derive(Debug, Clone)]
struct Failing {
    desired: u32,
    threshold: usize,
    scripts: Vec<Script>,
    reset: bool,
}

fn failing(desired: u32, threshold: usize) -> impl Strategy<Value = Failing> {
    let spread = 3 * threshold as u32;
    let script = prop_oneof![
        (0..spread).prop_map(|after| Script::Exits { after }),
        (0..spread).prop_map(|after| Script::Unhealthy { after }),
    ];
    let scripts = prop::collection::vec(script, 1..=2 * threshold);
    (scripts, any::<bool>()).prop_map(move |(scripts, reset)| Failing {
        desired,
        threshold,
        scripts,
        reset,
    })
}

/// The deployment fails in the very second in which its failed tasks reach the threshold, counted
/// here by what the tasks say.
fn fail(case: &Failing, scheduler: Scheduler) -> Result<(), TestCaseError> {
    let configuration = Configuration {
        breaker: Breaker {
            enabled: true,
            rollback: false,
            reset_on_healthy_task: case.reset,
            ..Breaker::default()
        },
        ..Configuration::default()
    };
    let mut world = World::new(case.desired, configuration, Check::Container);
    world.scheduler = scheduler;
    world.deploy("web:0", &case.scripts);
    let mut failed = BTreeSet::new();
    for _ in 0..2 * 3600 {
        world.step();
        let stopped = world.service.tasks.iter().filter(|task| !task.live());
        failed.extend(stopped.map(|task| task.id.clone()));
        let tripped = world.primary().rollout == RolloutState::Failed;
        prop_assert!(
            tripped == (failed.len() >= case.threshold),
            "breaker: tripped {tripped} with {} failed tasks of {}, at {} desired",
            failed.len(),
            case.threshold,
            case.desired
        );
        if tripped {
            return Ok(());
        }
    }
    Err(TestCaseError::fail(format!(
        "breaker: only {} failed tasks of {}",
        failed.len(),
        case.threshold
    )))
}

#[test]
fn the_breaker_trips_at_the_documented_thresholds() {
    for (desired, threshold, cases) in [(1, 3, 32), (25, 13, 32), (400, 200, 2)] {
        runner(cases, 32)
            .run(&failing(desired, threshold), |case| fail(&case, tick))
            .unwrap();
    }
}

/// A scheduler that breaks a rule is found out, and by that rule.
fn broken(rule: &str, scheduler: Scheduler) {
    let found = runner(1_000, 0).run(&story(), |story| tell(&story, scheduler));
    expect(rule, found.map_err(|error| error.to_string()));
}

fn expect(rule: &str, found: Result<(), String>) {
    let message = found.expect_err("the broken scheduler was not found out");
    assert!(
        message.contains(&format!("{rule}: ")),
        "found otherwise: {message}"
    );
}

/// Ticks as if the service were configured otherwise.
fn misled(
    service: &mut Service,
    fleet: &mut Fleet,
    moment: &mut Moment<'_>,
    mislead: impl FnOnce(&mut Configuration),
) -> Vec<Effect> {
    let real = service.configuration.clone();
    mislead(&mut service.configuration);
    let effects = tick(service, fleet, moment);
    service.configuration = real;
    effects
}

#[test]
fn a_scheduler_that_starts_too_many_is_found_out() {
    broken("maximum", |service, fleet, moment| {
        misled(service, fleet, moment, |one| one.maximum_percent += 100)
    });
}

#[test]
fn a_scheduler_that_stops_too_many_is_found_out() {
    broken("minimum", |service, fleet, moment| {
        misled(service, fleet, moment, |one| {
            one.minimum_healthy_percent = 0;
        })
    });
}

#[test]
fn a_scheduler_that_never_gives_up_is_found_out() {
    broken("ends", |service, fleet, moment| {
        misled(service, fleet, moment, |one| one.breaker.enabled = false)
    });
}

#[test]
fn a_scheduler_that_rolls_back_to_what_failed_is_found_out() {
    broken("rollback", |service, fleet, moment| {
        let newest = service.primary().map(|primary| primary.revision.clone());
        if let (Some(target), Some(newest)) = (&mut service.last_completed, newest) {
            target.revision = newest;
        }
        tick(service, fleet, moment)
    });
}

#[test]
fn a_scheduler_with_two_primaries_is_found_out() {
    broken("primary", |service, fleet, moment| {
        let effects = tick(service, fleet, moment);
        for one in &mut service.deployments {
            one.status = DeploymentStatus::Primary;
        }
        effects
    });
}

#[test]
fn a_scheduler_that_acts_unannounced_is_found_out() {
    broken("rest", |service, fleet, moment| {
        if moment.now.0 % 60_000 == 0 {
            service.tell(moment, "felt like saying something.");
        }
        tick(service, fleet, moment)
    });
}

#[test]
fn a_breaker_that_trips_elsewhere_is_found_out() {
    let late: Scheduler = |service, fleet, moment| {
        let limit = service.configuration.breaker.limit(service.desired) + 1;
        misled(service, fleet, moment, |one| {
            one.breaker.threshold = Threshold::Count(limit);
        })
    };
    let early: Scheduler = |service, fleet, moment| {
        let limit = service.configuration.breaker.limit(service.desired) - 1;
        misled(service, fleet, moment, |one| {
            one.breaker.threshold = Threshold::Count(limit);
        })
    };
    for scheduler in [late, early] {
        for (desired, threshold) in [(1, 3), (25, 13)] {
            let found =
                runner(200, 0).run(&failing(desired, threshold), |case| fail(&case, scheduler));
            expect("breaker", found.map_err(|error| error.to_string()));
        }
    }
}
