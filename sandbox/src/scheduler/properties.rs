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
use super::placement::Room;
use super::rollout::tick;
use super::world::{Check, GOOD, Scheduler, Script, World};

/// One deployment of a run: its tasks' scripts, and how many seconds later the next begins.
#[derive(Debug, Clone)]
struct Step {
    scripts: Vec<Script>,
    then: u32,
    /// So many seconds after it began, the desired count becomes another.
    scaled: Option<(u32, u32)>,
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
    let scaled = prop::option::of((0u32..60, 0u32..8));
    (scripts, 0u32..400, scaled, stop).prop_map(|(scripts, then, scaled, stopped)| Step {
        scripts,
        then,
        scaled,
        stopped,
    })
}

fn threshold() -> impl Strategy<Value = Threshold> {
    prop_oneof![
        (1u32..=100).prop_map(Threshold::BoundedPercent),
        (1u32..=100).prop_map(Threshold::UnboundedPercent),
        (1u32..5).prop_map(Threshold::Count),
    ]
}

/// Configurations that leave room for at least one task more or one less, whichever of these counts is
/// desired.
fn configuration(desired: Vec<u32>) -> impl Strategy<Value = Configuration> {
    (
        0u32..=100,
        100u32..=250,
        any::<bool>(),
        any::<bool>(),
        threshold(),
    )
        .prop_map(
            move |(minimum, maximum, rollback, reset, threshold)| Configuration {
                minimum_healthy_percent: minimum,
                maximum_percent: maximum,
                breaker: Breaker {
                    enabled: true,
                    rollback,
                    reset_on_healthy_task: reset,
                    threshold,
                },
                alarms: AlarmRules::default(),
            },
        )
        .prop_filter("no room at all", move |one| {
            let mut desired = desired.iter().filter(|desired| **desired > 0);
            desired.all(|desired| one.minimum(*desired) < one.maximum(*desired))
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
    (1u32..8, prop::collection::vec(step(), 1..4))
        .prop_flat_map(|(desired, steps)| {
            let scaled = steps.iter().filter_map(|step| step.scaled);
            let all = scaled.map(|(_, desired)| desired).chain([desired]);
            (
                configuration(all.collect()),
                Just((desired, steps)),
                check(),
                0u64..60,
            )
        })
        .prop_map(|(configuration, (desired, steps), check, grace)| Story {
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
    let desired = world.service.desired;
    pass_a_second_with(world, desired)
}

/// The same, and somebody wants so many tasks from now on.
fn pass_a_second_with(world: &mut World, desired: u32) -> Result<(), TestCaseError> {
    let healthy_before: Vec<String> = world
        .live()
        .filter(|task| world.is_healthy(task))
        .map(|task| task.id.clone())
        .collect();
    let is_scaled = world.service.desired != desired;
    world.service.desired = desired;
    let resting = (!is_scaled && !in_motion(&world.service)).then(|| world.service.clone());
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
        for second in 0..step.then {
            match step.scaled {
                Some((at, desired)) if at == second => pass_a_second_with(&mut world, desired)?,
                _ => pass_a_second(&mut world)?,
            }
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

/// A desired count, the threshold that AWS documents for it, and tasks of which none is ever healthy.
#[derive(Debug, Clone)]
struct Failing {
    rule: Threshold,
    desired: u32,
    threshold: usize,
    /// After so many seconds another count is desired, with another threshold.
    scaled: Option<(u32, u32, usize)>,
    scripts: Vec<Script>,
    reset: bool,
}

/// What the breaker has to do: a rule, and a desired count with its threshold; for some, another pair
/// in mid-rollout.
type Thresholds = (Threshold, (u32, usize), Option<(u32, usize)>);

fn failing((rule, (desired, threshold), scaled): Thresholds) -> impl Strategy<Value = Failing> {
    // Enough scripts that not all tasks fail in the same few seconds.
    let later = scaled.map_or(0, |(desired, threshold)| threshold.max(desired as usize));
    let most = threshold.max(desired as usize).max(later);
    let spread = 3 * most as u32;
    let script = prop_oneof![
        (0..spread).prop_map(|after| Script::Exits { after }),
        (0..spread).prop_map(|after| Script::Unhealthy { after }),
    ];
    let scripts = prop::collection::vec(script, 1..=2 * most);
    (scripts, any::<bool>(), 0..spread).prop_map(move |(scripts, reset, after)| Failing {
        rule,
        desired,
        threshold,
        scaled: scaled.map(|(desired, threshold)| (after, desired, threshold)),
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
            threshold: case.rule,
        },
        ..Configuration::default()
    };
    let mut world = World::new(case.desired, configuration, Check::Container);
    world.scheduler = scheduler;
    world.deploy("web:0", &case.scripts);
    let mut failed = BTreeSet::new();
    let mut threshold = case.threshold;
    for second in 0..2 * 3600 {
        if let Some((after, desired, other)) = case.scaled
            && second == after
        {
            world.service.desired = desired;
            threshold = other;
        }
        world.step();
        let stopped = world.service.tasks.iter().filter(|task| {
            let reason = task.stopped_reason.as_deref().unwrap_or_default();
            !task.live() && !reason.starts_with("Scaling activity")
        });
        failed.extend(stopped.map(|task| task.id.clone()));
        let tripped = world.primary().rollout == RolloutState::Failed;
        prop_assert!(
            tripped == (failed.len() >= threshold),
            "breaker: tripped {tripped} with {} failed tasks of {threshold}, at {} desired",
            failed.len(),
            world.service.desired
        );
        if tripped {
            return Ok(());
        }
    }
    Err(TestCaseError::fail(format!(
        "breaker: only {} failed tasks of {threshold}",
        failed.len(),
    )))
}

const HALF: Threshold = Threshold::BoundedPercent(50);

/// AWS's documented examples of the default, then the other forms, then counts that change.
const THRESHOLDS: [Thresholds; 10] = [
    (HALF, (1, 3), None),
    (HALF, (25, 13), None),
    (Threshold::BoundedPercent(10), (25, 3), None),
    (Threshold::UnboundedPercent(50), (1, 1), None),
    (Threshold::UnboundedPercent(100), (2, 2), None),
    (Threshold::UnboundedPercent(10), (25, 3), None),
    (Threshold::Count(5), (2, 5), None),
    (HALF, (25, 13), Some((1, 3))),
    (HALF, (1, 3), Some((25, 13))),
    (Threshold::Count(5), (25, 5), Some((1, 5))),
];

#[test]
fn the_breaker_trips_at_the_documented_thresholds() {
    let few = THRESHOLDS.map(|one| (one, 32));
    for (thresholds, cases) in few.into_iter().chain([((HALF, (400, 200), None), 2)]) {
        runner(cases, 32)
            .run(&failing(thresholds), |case| fail(&case, tick))
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
    room: &mut dyn Room,
    moment: &mut Moment<'_>,
    mislead: impl FnOnce(&mut Configuration),
) -> Vec<Effect> {
    let real = service.configuration.clone();
    mislead(&mut service.configuration);
    let effects = tick(service, room, moment);
    service.configuration = real;
    effects
}

#[test]
fn a_scheduler_that_starts_too_many_is_found_out() {
    broken("maximum", |service, room, moment| {
        misled(service, room, moment, |one| one.maximum_percent += 100)
    });
}

#[test]
fn a_scheduler_that_stops_too_many_is_found_out() {
    broken("minimum", |service, room, moment| {
        misled(service, room, moment, |one| {
            one.minimum_healthy_percent = 0;
        })
    });
}

#[test]
fn a_scheduler_that_never_gives_up_is_found_out() {
    broken("ends", |service, room, moment| {
        misled(service, room, moment, |one| one.breaker.enabled = false)
    });
}

#[test]
fn a_scheduler_that_rolls_back_to_what_failed_is_found_out() {
    broken("rollback", |service, room, moment| {
        let newest = service.primary().map(|primary| primary.revision.clone());
        if let (Some(target), Some(newest)) = (&mut service.last_completed, newest) {
            target.revision = newest;
        }
        tick(service, room, moment)
    });
}

#[test]
fn a_scheduler_with_two_primaries_is_found_out() {
    broken("primary", |service, room, moment| {
        let effects = tick(service, room, moment);
        for one in &mut service.deployments {
            one.status = DeploymentStatus::Primary;
        }
        effects
    });
}

#[test]
fn a_scheduler_that_acts_unannounced_is_found_out() {
    broken("rest", |service, room, moment| {
        if moment.now.0 % 60_000 == 0 {
            service.tell(moment, "felt like saying something.");
        }
        tick(service, room, moment)
    });
}

#[test]
fn a_breaker_that_trips_elsewhere_is_found_out() {
    let late: Scheduler = |service, room, moment| {
        let limit = service.configuration.breaker.limit(service.desired) + 1;
        misled(service, room, moment, |one| {
            one.breaker.threshold = Threshold::Count(limit);
        })
    };
    let early: Scheduler = |service, room, moment| {
        let limit = service.configuration.breaker.limit(service.desired) - 1;
        misled(service, room, moment, |one| {
            one.breaker.threshold = Threshold::Count(limit);
        })
    };
    for (scheduler, least) in [(late, 1), (early, 2)] {
        // None is earlier than one.
        for thresholds in THRESHOLDS.into_iter().filter(|it| it.1.1 >= least) {
            let found = runner(200, 0).run(&failing(thresholds), |case| fail(&case, scheduler));
            expect("breaker", found.map_err(|error| error.to_string()));
        }
    }
}

#[test]
fn a_breaker_that_keeps_to_the_count_of_the_beginning_is_found_out() {
    let stubborn: Scheduler = |service, room, moment| {
        let first = service.service_deployments[0].limit;
        let effects = misled(service, room, moment, |one| {
            one.breaker.threshold = Threshold::Count(first);
        });
        service.service_deployments[0].limit = first;
        effects
    };
    for thresholds in [
        (HALF, (25, 13), Some((1, 3))),
        (HALF, (1, 3), Some((25, 13))),
    ] {
        let found = runner(200, 0).run(&failing(thresholds), |case| fail(&case, stubborn));
        expect("breaker", found.map_err(|error| error.to_string()));
    }
}
