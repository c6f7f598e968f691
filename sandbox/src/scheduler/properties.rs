//! What holds for every rollout, whatever its tasks do.

use std::time::Duration;

use proptest::prelude::*;

use super::breaker::{Breaker, Threshold};
use super::deployments::StopRequest;
use super::model::{
    Configuration, Desired, RolloutState, ServiceDeploymentStatus as End, StopCode,
};
use super::world::{Check, GOOD, Script, World};

/// One deployment of a run: its tasks' scripts, and how many seconds later the next begins.
#[derive(Debug, Clone)]
struct Step {
    scripts: Vec<Script>,
    then: u32,
    stopped: Option<StopRequest>,
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

/// Lets a second pass and looks at the limits.
fn step_within_limits(world: &mut World) -> Result<(), TestCaseError> {
    let healthy_before: Vec<String> = world
        .live()
        .filter(|task| world.is_healthy(task))
        .map(|task| task.id.clone())
        .collect();
    world.step();
    let desired = world.service.desired;
    let maximum = world.service.configuration.maximum(desired) as usize;
    let minimum = world.service.configuration.minimum(desired) as usize;
    prop_assert!(
        world.live().count() <= maximum,
        "{} tasks live, at most {maximum} allowed",
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
        "a healthy task was stopped and only {} of at least {minimum} are left",
        world.healthy()
    );
    let primaries = world
        .service
        .deployments
        .iter()
        .filter(|one| one.status == super::DeploymentStatus::Primary)
        .count();
    prop_assert_eq!(primaries, 1);
    Ok(())
}

/// Runs until the newest service deployment has ended; that it does is the property.
fn run_to_end(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..2 * 3600 {
        if world.record().status.is_final() {
            return Ok(());
        }
        step_within_limits(world)?;
    }
    Err(TestCaseError::fail(format!(
        "never ended: {:#?}",
        world.record()
    )))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        max_shrink_iters: 32,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rollouts_keep_their_limits_and_end_where_they_should(
        (desired, configuration) in (1u32..8)
            .prop_flat_map(|desired| (Just(desired), configuration(desired))),
        check in check(),
        grace in 0u64..60,
        steps in prop::collection::vec(step(), 1..4),
    ) {
        let mut world = World::new(desired, configuration, check);
        world.timings.strict_breaker = true;
        world.service.grace = Duration::from_secs(grace);
        world.deploy("web:0", &[GOOD]);
        run_to_end(&mut world)?;
        prop_assert_eq!(world.record().status, End::Successful);
        let mut completed = "web:0".to_owned();
        for (number, step) in steps.iter().enumerate() {
            let definition = format!("web:{}", number + 1);
            world.deploy(&definition, &step.scripts);
            let last = number + 1 == steps.len();
            for _ in 0..step.then {
                step_within_limits(&mut world)?;
            }
            if let Some(request) = step.stopped
                && !world.record().status.is_final()
                && world.record().status != End::RollbackInProgress
            {
                prop_assert_eq!(world.stop_deployment(request), Ok(()));
            }
            if last {
                run_to_end(&mut world)?;
            }
            match world.record().status {
                End::Successful => {
                    prop_assert_eq!(&world.primary().revision.definition_arn, &definition);
                    prop_assert_eq!(world.primary().rollout, RolloutState::Completed);
                    completed = definition;
                }
                End::RollbackSuccessful => {
                    prop_assert_eq!(&world.primary().revision.definition_arn, &completed);
                    prop_assert_eq!(world.primary().rollout, RolloutState::Completed);
                }
                End::RollbackInProgress => {
                    prop_assert_eq!(&world.primary().revision.definition_arn, &completed);
                }
                End::Stopped | End::RollbackFailed => {
                    prop_assert_eq!(world.primary().rollout, RolloutState::Failed);
                }
                _ => {}
            }
        }
    }
}
