//! The scheduler's stories, each a rollout from its start to its end.

use std::time::Duration;

use super::breaker::{Breaker, Threshold};
use super::deployments::StopRequest;
use super::model::{
    Configuration, DeploymentStatus, Desired, Effect, RolloutState, ServiceDeploymentStatus as End,
    ServiceStatus, StopCode, TaskEvent,
};
use super::task::TaskStatus;
use super::world::{Check, GOOD, Script, World};

fn with_breaker(rollback: bool) -> Configuration {
    Configuration {
        breaker: Breaker {
            enabled: true,
            rollback,
            ..Breaker::default()
        },
        ..Configuration::default()
    }
}

/// A world whose first deployment, `web:1`, was good.
fn settled(desired: u32, configuration: Configuration, check: Check) -> (World, String) {
    let mut world = World::new(desired, configuration, check);
    let first = world.deploy("web:1", &[GOOD]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    (world, first)
}

fn running(world: &World, definition: &str) -> usize {
    world
        .live()
        .filter(|task| task.definition_arn == definition && task.status == TaskStatus::Running)
        .count()
}

#[test]
fn a_first_deployment_completes_and_the_service_is_steady() {
    let (world, first) = settled(3, Configuration::default(), Check::Container);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::Completed);
    assert_eq!(running(&world, "web:1"), 3);
    assert!(world.tells("has started 3 tasks: (task "));
    assert!(world.tells(&format!("(deployment {first}) deployment completed.")));
    assert!(world.tells("(service web) has reached a steady state."));
}

#[test]
fn a_task_that_nothing_checks_is_healthy_forty_seconds_after_it_runs() {
    let mut world = World::new(1, Configuration::default(), Check::None);
    world.deploy("web:1", &[GOOD]);
    world.run_until(1, |world| {
        let first = world.service.tasks.first();
        first.is_some_and(|task| task.started_at.is_some())
    });
    world.run(39);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    world.run(1);
    assert_eq!(world.primary().rollout, RolloutState::Completed);
}

#[test]
fn a_rollback_returns_to_what_a_tag_stood_for_then() {
    let (mut world, first) = settled(1, with_breaker(true), Check::Container);
    let pin = |world: &mut World, deployment: &str, digest: &str| {
        world.service.pin(deployment, "image", digest).unwrap()
    };
    assert_eq!(pin(&mut world, &first, "sha256:1"), "sha256:1");
    // Whoever comes first decides.
    assert_eq!(pin(&mut world, &first, "sha256:2"), "sha256:1");
    let second = world.deploy("web:2", &[Script::Exits { after: 2 }]);
    assert_eq!(pin(&mut world, &second, "sha256:2"), "sha256:2");
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
    assert_eq!(world.primary().revision.digests["image"], "sha256:1");
    let kept: Vec<&str> = world
        .service
        .revisions
        .iter()
        .map(|one| one.digests["image"].as_str())
        .collect();
    assert_eq!(kept, ["sha256:2", "sha256:1"]);
    assert_eq!(world.service.pin("ecs-svc/9", "image", "sha256:3"), None);
}

#[test]
fn a_rollout_replaces_every_task_and_old_deployments_vanish() {
    let (mut world, first) = settled(4, Configuration::default(), Check::Target);
    let second = world.deploy("web:2", &[GOOD]);
    world.step();
    let old = world.service.deployments.iter().find(|one| one.id == first);
    assert_eq!(old.unwrap().status, DeploymentStatus::Active);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    assert_eq!(world.primary().id, second);
    assert_eq!(world.service.deployments.len(), 1);
    assert_eq!(running(&world, "web:2"), 4);
    assert!(world.tells(&format!(
        "(service web, taskSet {first}) has begun draining connections on"
    )));
    assert!(world.tells("registered 4 targets in (target-group "));
    assert!(world.tells("has stopped"));
}

#[test]
fn a_rollout_is_complete_only_when_old_tasks_have_drained() {
    let (mut world, _) = settled(1, Configuration::default(), Check::Target);
    world.deploy("web:2", &[GOOD]);
    world.run_until(1, |world| {
        let mut tasks = world.service.tasks.iter();
        tasks.any(|task| task.status == TaskStatus::Deactivating)
    });
    world.run(298);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    world.run_to_end(1);
}

#[test]
fn without_spare_room_old_tasks_make_room_down_to_the_minimum() {
    let configuration = Configuration {
        minimum_healthy_percent: 50,
        maximum_percent: 100,
        ..Configuration::default()
    };
    let (mut world, _) = settled(4, configuration, Check::Container);
    world.deploy("web:2", &[GOOD]);
    let mut least = 4;
    world.run_until(1, |world| {
        least = least.min(world.healthy());
        assert!(world.live().count() <= 4);
        world.record().status.is_final()
    });
    assert_eq!(least, 2);
}

#[test]
fn images_that_cannot_be_pulled_trip_the_breaker_and_the_old_deployment_returns() {
    let (mut world, first) = settled(2, with_breaker(true), Check::Container);
    let second = world.deploy("web:2", &[Script::CannotPull]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
    assert_eq!(world.primary().id, first, "the old id is back");
    assert_eq!(world.primary().rollout, RolloutState::Completed);
    assert_eq!(running(&world, "web:1"), 2);
    assert_eq!(world.service.deployments.len(), 1);
    let rollback = world.record().rollback.clone().unwrap();
    assert_eq!(rollback.revision, world.primary().revision.id);
    assert!(world.record().breaker_tripped);
    assert!(world.tells(&format!(
        "(service web) (deployment {second}) deployment failed: tasks failed to start."
    )));
    assert!(world.tells(&format!(
        "(service web) rolling back to deployment {first}."
    )));
    let failed = world
        .service
        .tasks
        .iter()
        .find(|task| task.definition_arn == "web:2")
        .unwrap();
    assert_eq!(failed.stop_code, Some(StopCode::TaskFailedToStart));
    assert_eq!(
        failed.stopped_reason.as_deref(),
        Some("CannotPullContainerError: manifest unknown")
    );
    assert_eq!(failed.containers[0].exit_code, None);
}

#[test]
fn a_failed_deployment_is_active_and_failed_while_it_is_taken_back() {
    let (mut world, first) = settled(1, with_breaker(true), Check::Container);
    let second = world.deploy("web:2", &[Script::Unhealthy { after: 5 }]);
    world.run_until(1, |world| world.primary().id != second);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    assert_eq!(world.record().status, End::RollbackInProgress);
    assert!(
        world
            .service
            .deployments
            .iter()
            .filter(|one| one.id == second)
            .all(
                |one| one.rollout == RolloutState::Failed && one.status == DeploymentStatus::Active
            )
    );
}

#[test]
fn without_rollback_a_failed_deployment_stays_and_launches_nothing() {
    let (mut world, _) = settled(2, with_breaker(false), Check::Container);
    let second = world.deploy("web:2", &[Script::CannotStart]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Stopped);
    assert_eq!(world.primary().id, second);
    assert_eq!(world.primary().rollout, RolloutState::Failed);
    for _ in 0..1000 {
        world.step();
        assert!(
            !world
                .effects
                .iter()
                .any(|effect| matches!(effect, Effect::Launch { .. }))
        );
    }
    assert_eq!(running(&world, "web:1"), 2, "the old tasks still serve");
}

#[test]
fn a_first_deployment_that_fails_has_nowhere_to_go_back_to() {
    let mut world = World::new(1, with_breaker(true), Check::None);
    let first = world.deploy("web:1", &[Script::CannotPull]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Stopped);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::Failed);
    assert!(world.record().rollback.is_none());
    let reason = world.record().status_reason.clone().unwrap();
    assert!(reason.contains("No completed deployment"), "{reason}");
    world.run(100);
    assert_eq!(world.live().count(), 0);
}

#[test]
fn a_rollback_that_fails_too_stalls() {
    let configuration = Configuration {
        minimum_healthy_percent: 0,
        maximum_percent: 100,
        ..with_breaker(true)
    };
    let mut world = World::new(1, configuration, Check::Container);
    // Good the first time, and never again.
    let first = world.deploy(
        "web:1",
        &[
            GOOD,
            Script::CannotPull,
            Script::CannotPull,
            Script::CannotPull,
        ],
    );
    world.run_to_end(1);
    world.deploy("web:2", &[Script::CannotPull]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackFailed);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::Failed);
}

#[test]
fn a_newer_deployment_supersedes_the_one_in_flight() {
    let (mut world, first) = settled(1, with_breaker(true), Check::Container);
    let slow = Script::Good {
        start: 5000,
        healthy: 1,
    };
    world.deploy("web:2", &[slow]);
    world.run(30);
    let third = world.deploy("web:3", &[GOOD]);
    assert_eq!(world.service.service_deployments[1].status, End::Stopped);
    let reason = world.service.service_deployments[1].status_reason.clone();
    assert!(reason.unwrap().contains("Superseded"));
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    assert_eq!(world.primary().id, third);
    assert_eq!(world.service.deployments.len(), 1);
    assert_ne!(world.primary().id, first);
}

#[test]
fn a_failure_after_a_supersession_goes_back_to_what_was_completed() {
    let (mut world, first) = settled(1, with_breaker(true), Check::Container);
    let slow = Script::Good {
        start: 5000,
        healthy: 1,
    };
    world.deploy("web:2", &[slow]);
    world.run(30);
    world.deploy("web:3", &[Script::Unhealthy { after: 2 }]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
    assert_eq!(world.primary().id, first);
    assert_eq!(running(&world, "web:1"), 1);
}

#[test]
fn a_deployment_superseded_while_it_returns_can_still_be_returned_to() {
    let (mut world, first) = settled(1, with_breaker(true), Check::Container);
    world.deploy("web:2", &[Script::Unhealthy { after: 2 }]);
    world.run_until(1, |world| world.record().status == End::RollbackInProgress);
    world.deploy("web:3", &[Script::CannotPull]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
    assert_eq!(world.primary().id, first);
}

#[test]
fn a_stop_with_rollback_takes_the_deployment_back() {
    let (mut world, first) = settled(2, Configuration::default(), Check::Container);
    let slow = Script::Good {
        start: 5000,
        healthy: 1,
    };
    world.deploy("web:2", &[slow]);
    world.run(10);
    world.stop_deployment(StopRequest::Rollback).unwrap();
    assert_eq!(world.record().status, End::RollbackRequested);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
    assert_eq!(world.primary().id, first);
    let refusal = world.stop_deployment(StopRequest::Rollback).unwrap_err();
    assert!(refusal.contains("already ended"), "{refusal}");
}

#[test]
fn an_abort_leaves_both_deployments_as_they_are() {
    let (mut world, _) = settled(1, Configuration::default(), Check::Container);
    let slow = Script::Good {
        start: 5000,
        healthy: 1,
    };
    let second = world.deploy("web:2", &[slow]);
    world.run(10);
    world.stop_deployment(StopRequest::Abort).unwrap();
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Stopped);
    assert_eq!(world.primary().id, second);
    assert_eq!(running(&world, "web:1"), 1);
}

#[test]
fn a_configuration_that_leaves_no_room_is_said_so() {
    let configuration = Configuration {
        minimum_healthy_percent: 100,
        maximum_percent: 150,
        ..Configuration::default()
    };
    let (mut world, _) = settled(1, configuration, Check::Container);
    world.deploy("web:2", &[GOOD]);
    world.run(100);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    assert_eq!(running(&world, "web:1"), 1);
    assert!(world.tells("was unable to stop or start tasks"));
}

#[test]
fn starts_that_fail_are_tried_again_ever_more_slowly() {
    let mut world = World::new(1, Configuration::default(), Check::None);
    world.deploy("web:1", &[Script::CannotPull]);
    let mut launches = Vec::new();
    for _ in 0..4 * 3600 {
        world.step();
        if world
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Launch { .. }))
        {
            launches.push(world.now.0 / 1000);
        }
    }
    let pauses: Vec<i64> = launches.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] < 5, "{pauses:?}");
    assert!(
        pauses.windows(2).all(|pair| pair[0] <= pair[1]),
        "{pauses:?}"
    );
    let last = pauses.last().copied().unwrap();
    assert!((900..=910).contains(&last), "{pauses:?}");
    assert!(world.tells("is unable to consistently start tasks successfully."));
}

/// The seconds at which tasks were launched while that much time passed.
fn launches(world: &mut World, seconds: u32) -> Vec<i64> {
    let mut launches = Vec::new();
    for _ in 0..seconds {
        world.step();
        let mut effects = world.effects.iter();
        if effects.any(|effect| matches!(effect, Effect::Launch { .. })) {
            launches.push(world.now.0 / 1000);
        }
    }
    launches
}

#[test]
fn a_start_that_works_and_a_new_deployment_end_the_pauses() {
    let mut world = World::new(1, Configuration::default(), Check::None);
    // Every ninth start works for a while.
    let mut scripts = [Script::CannotPull; 9];
    scripts[8] = Script::Exits { after: 5 };
    world.deploy("web:1", &scripts);
    let seen = launches(&mut world, 3600);
    let pauses: Vec<i64> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Seven failures later the pause is long, and after the start that worked it is short again.
    assert!(pauses[6] > 150, "{pauses:?}");
    assert!(pauses[8..11].iter().all(|pause| *pause < 15), "{pauses:?}");

    let mut world = World::new(1, Configuration::default(), Check::None);
    world.deploy("web:1", &[Script::CannotPull]);
    launches(&mut world, 600);
    let waits = world.primary().next_launch.since(world.now);
    assert!(waits > Duration::from_secs(20), "{waits:?}");
    world.deploy("web:2", &[Script::CannotPull]);
    let seen = launches(&mut world, 10);
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn a_grace_period_covers_a_slow_start_and_its_absence_does_not() {
    // Its target is unhealthy from the start and would get healthy after a minute.
    for (grace, end) in [(120, End::Successful), (0, End::RollbackSuccessful)] {
        let (mut world, _) = settled(1, with_breaker(true), Check::Target);
        world.service.grace = Duration::from_secs(grace);
        world.deploy(
            "web:2",
            &[Script::Good {
                start: 1,
                healthy: 60,
            }],
        );
        world.run_until(1, |world| {
            let now = world.now;
            let young: Vec<String> = world
                .service
                .tasks
                .iter()
                .filter(|task| task.definition_arn == "web:2" && task.live())
                .filter(|task| {
                    task.started_at
                        .is_some_and(|at| now.since(at) < Duration::from_secs(50))
                })
                .map(|task| task.id.clone())
                .collect();
            world.fail_targets(&young);
            world.record().status.is_final()
        });
        assert_eq!(world.record().status, end, "grace {grace}");
    }
}

#[test]
fn an_unhealthy_task_of_a_steady_service_is_replaced() {
    let (mut world, first) = settled(2, Configuration::default(), Check::Container);
    let sick = world.service.tasks[0].id.clone();
    world.observe(
        &sick,
        &TaskEvent::ContainerHealth {
            name: "app".to_owned(),
            healthy: false,
        },
    );
    world.step();
    assert!(world.tells(&format!(
        "(service web) (task {sick}) failed container health checks."
    )));
    assert!(world.tells("Amazon ECS replaced 1 tasks due to an unhealthy status."));
    world.run(20);
    assert_eq!(running(&world, "web:1"), 2);
    assert_eq!(world.primary().id, first);
    let stopped = world.service.tasks.iter().find(|task| task.id == sick);
    assert_eq!(
        stopped.unwrap().stopped_reason.as_deref(),
        Some("Task failed container health checks")
    );
}

#[test]
fn crashes_after_running_are_the_breakers_blind_spot_unless_it_is_strict() {
    for (strict, expected) in [(false, End::InProgress), (true, End::RollbackSuccessful)] {
        let (mut world, _) = settled(1, with_breaker(true), Check::None);
        world.timings.strict_breaker = strict;
        world.deploy("web:2", &[Script::Exits { after: 5 }]);
        world.run(600);
        assert_eq!(world.record().status, expected, "strict {strict}");
    }
}

#[test]
fn a_container_that_ends_at_once_counts_however_late_it_is_seen() {
    let (mut world, _) = settled(1, with_breaker(true), Check::None);
    world.deploy("web:2", &[Script::Exits { after: 0 }]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
}

#[test]
fn failures_add_up_when_a_healthy_task_does_not_forgive_them() {
    for (reset, expected) in [(true, End::Successful), (false, End::Stopped)] {
        let configuration = Configuration {
            breaker: Breaker {
                enabled: true,
                rollback: false,
                threshold: Threshold::Count(2),
                reset_on_healthy_task: reset,
            },
            ..Configuration::default()
        };
        let mut world = World::new(2, configuration, Check::Container);
        // One good start between two failures.
        world.deploy("web:1", &[Script::CannotPull, GOOD, slow_failure(), GOOD]);
        world.run_to_end(1);
        assert_eq!(world.record().status, expected, "reset {reset}");
    }
}

fn slow_failure() -> Script {
    Script::Exits { after: 20 }
}

#[test]
fn scaling_in_stops_the_surplus_and_scaling_out_fills_up() {
    let (mut world, first) = settled(4, Configuration::default(), Check::Container);
    world.service.desired = 1;
    world.run(10);
    assert_eq!(running(&world, "web:1"), 1);
    world.service.desired = 3;
    world.run(10);
    assert_eq!(running(&world, "web:1"), 3);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::Completed);
}

#[test]
fn a_task_stopped_by_hand_is_replaced_and_counts_for_nothing() {
    let (mut world, _) = settled(1, with_breaker(true), Check::Container);
    let now = world.now;
    world.service.tasks[0].stop(StopCode::UserInitiated, "Task stopped by user", now);
    world.run(20);
    assert_eq!(running(&world, "web:1"), 1);
    assert_eq!(world.primary().failed_tasks, 0);
}

#[test]
fn a_deleted_service_stops_everything_and_ends_inactive() {
    let (mut world, _) = settled(3, Configuration::default(), Check::Container);
    world.service.status = ServiceStatus::Draining;
    world.run(20);
    assert_eq!(world.service.status, ServiceStatus::Inactive);
    assert!(
        world
            .service
            .tasks
            .iter()
            .all(|task| task.desired == Desired::Stopped && task.status == TaskStatus::Stopped)
    );
}
