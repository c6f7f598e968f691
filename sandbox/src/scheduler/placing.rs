//! Stories of services whose tasks need room on container instances.

use proptest::prelude::*;

use super::breaker::Breaker;
use super::model::{Configuration, RolloutState, ServiceDeploymentStatus as End, StopCode};
use super::placement::InstanceStatus;
use super::task::TaskStatus;
use super::world::{Check, GOOD, World};

/// A service at rest on instances of so many tasks' room, one in each zone.
fn settled(desired: u32, configuration: Configuration, sizes: [u32; 2]) -> World {
    let mut world = World::new(desired, configuration, Check::Container);
    world.add_instance('a', sizes[0]);
    world.add_instance('b', sizes[1]);
    world.deploy("web:1", &[GOOD]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    world
}

fn on(world: &World, instance: &str) -> usize {
    world
        .live()
        .filter(|task| {
            task.placed
                .as_ref()
                .is_some_and(|one| one.instance == instance)
        })
        .count()
}

#[test]
fn tasks_spread_over_both_zones() {
    let world = settled(5, Configuration::default(), [10, 10]);
    assert_eq!([on(&world, "a0"), on(&world, "b1")], [3, 2]);
}

#[test]
fn a_rollout_waits_for_room_and_says_what_is_missing() {
    let mut world = settled(2, Configuration::default(), [1, 1]);
    world.deploy("web:2", &[GOOD]);
    world.run(600);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    assert_eq!(world.healthy(), 2, "the minimum stays");
    let told = "(service web) was unable to place a task because no container instance met all of \
                its requirements. The closest matching (container-instance ";
    let lines = |world: &World| {
        let mut events = world.service.events.iter();
        events
            .by_ref()
            .filter(|event| event.message.starts_with(told))
            .count()
    };
    assert_eq!(lines(&world), 1, "said once, not every second");
    assert!(world.tells("has insufficient memory available."));
    world.add_instance('c', 1);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    assert_eq!(world.live().count(), 2);
}

#[test]
fn without_room_old_tasks_make_it_down_to_the_minimum() {
    let configuration = Configuration {
        minimum_healthy_percent: 50,
        maximum_percent: 200,
        ..Configuration::default()
    };
    let mut world = settled(4, configuration, [2, 2]);
    world.deploy("web:2", &[GOOD]);
    let mut least = 4;
    world.run_until(1, |world| {
        least = least.min(world.healthy());
        world.record().status.is_final()
    });
    assert_eq!(world.record().status, End::Successful);
    assert_eq!(least, 2);
}

#[test]
fn what_finds_no_room_is_no_failure_of_the_image() {
    let configuration = Configuration {
        breaker: Breaker {
            enabled: true,
            rollback: true,
            ..Breaker::default()
        },
        ..Configuration::default()
    };
    let mut world = World::new(2, configuration, Check::Container);
    world.add_instance('a', 0);
    world.deploy("web:1", &[GOOD]);
    world.run(3600);
    assert_eq!(world.primary().failed_tasks, 0);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    assert!(world.service.tasks.is_empty());
}

#[test]
fn the_tasks_of_a_lost_instance_stop_and_are_replaced_elsewhere() {
    let mut world = settled(4, Configuration::default(), [4, 4]);
    let first = world.primary().id.clone();
    world.lose_instance("a0");
    assert_eq!(world.live().count(), 2);
    world.run_until(1, |world| world.healthy() == 4);
    assert_eq!(on(&world, "b1"), 4);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().failed_tasks, 0, "not the image's fault");
    let lost: Vec<_> = world
        .service
        .tasks
        .iter()
        .filter(|task| task.stop_code == Some(StopCode::TerminationNotice))
        .collect();
    assert_eq!(lost.len(), 2);
    for task in lost {
        let reason = task.stopped_reason.as_deref();
        assert_eq!(reason, Some("Host EC2 (instance i-a0) terminated."));
        assert_eq!(task.status, TaskStatus::Stopped);
    }
}

#[test]
fn a_lost_instance_drains_nothing() {
    let mut world = World::new(1, Configuration::default(), Check::Target);
    world.add_instance('a', 1);
    world.add_instance('b', 1);
    world.deploy("web:1", &[GOOD]);
    world.run_to_end(1);
    world.lose_instance("a0");
    world.run(5);
    let lost = &world.service.tasks[0];
    assert_eq!(lost.status, TaskStatus::Stopped, "no deregistration delay");
}

#[test]
fn a_draining_instance_is_emptied_without_going_below_the_minimum() {
    let mut world = settled(4, Configuration::default(), [8, 8]);
    world.instances[0].status = InstanceStatus::Draining;
    let mut least = 4;
    world.run_until(1, |world| {
        least = least.min(world.healthy());
        let mut tasks = world.service.tasks.iter();
        !tasks.any(|task| {
            task.status != TaskStatus::Stopped
                && task.placed.as_ref().is_some_and(|one| one.instance == "a0")
        })
    });
    assert_eq!(least, 4);
    assert_eq!(on(&world, "b1"), 4);
    assert_eq!(world.service.deployments.len(), 1, "no new deployment");
    world.run(2);
    assert_eq!(
        world.service.events[0].message,
        "(service web) has reached a steady state."
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn tasks_never_take_more_of_an_instance_than_it_has(
        sizes in prop::collection::vec((0u32..5, 0u8..3), 1..5),
        desired in 1u32..8,
        happenings in prop::collection::vec((0u32..60, 0u8..4), 1..6),
    ) {
        let mut world = World::new(desired, Configuration::default(), Check::Container);
        for (tasks, zone) in sizes {
            world.add_instance(char::from(b'a' + zone), tasks);
        }
        world.deploy("web:1", &[GOOD]);
        for (number, (seconds, what)) in happenings.into_iter().enumerate() {
            match what {
                0 => {
                    world.deploy(&format!("web:{}", number + 2), &[GOOD]);
                }
                1 if world.instances.len() > 1 => {
                    let lost = world.instances[0].id.clone();
                    world.lose_instance(&lost);
                }
                2 => world.instances[0].status = InstanceStatus::Draining,
                _ => {
                    world.add_instance('d', 2);
                }
            }
            for _ in 0..seconds {
                world.step();
                for instance in &world.instances {
                    let mut taken = 0;
                    for task in &world.service.tasks {
                        let here = task.placed.as_ref().filter(|one| one.instance == instance.id);
                        if let Some(placed) = here && task.status != TaskStatus::Stopped {
                            taken += placed.need.memory;
                        }
                    }
                    prop_assert!(
                        taken <= instance.size.memory,
                        "{taken} MiB of {} are taken of {}", instance.size.memory, instance.id
                    );
                }
            }
        }
        // With room for all, everything ends well.
        world.add_instance('e', 3 * desired);
        for _ in 0..3600 {
            world.step();
        }
        prop_assert_eq!(world.record().status, End::Successful);
        prop_assert_eq!(world.live().count(), desired as usize);
    }
}
