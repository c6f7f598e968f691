//! Stories of rollouts whose alarms are watched.

use std::time::Duration;

use super::alarms::{AlarmRules, AlarmSight};
use super::model::{Configuration, RolloutState, ServiceDeploymentStatus as End};
use super::world::{Check, GOOD, World};

const WINDOW: Duration = Duration::from_secs(120);

fn see(world: &mut World, alarms: &[(&str, bool)]) {
    world.service.alarms_seen = alarms
        .iter()
        .map(|(name, fires)| AlarmSight {
            name: (*name).to_owned(),
            fires: *fires,
            window: WINDOW,
        })
        .collect();
}

/// A service at rest that watches the alarms `errors` and `latency`.
fn settled(rollback: bool) -> (World, String) {
    let configuration = Configuration {
        alarms: AlarmRules {
            names: vec!["errors".to_owned(), "latency".to_owned()],
            enabled: true,
            rollback,
        },
        ..Configuration::default()
    };
    let mut world = World::new(2, configuration, Check::Container);
    see(&mut world, &[("errors", false), ("latency", false)]);
    let first = world.deploy("web:1", &[GOOD]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    (world, first)
}

#[test]
fn a_rollout_bakes_as_long_as_its_alarms_look_back() {
    let (mut world, _) = settled(true);
    world.deploy("web:2", &[GOOD]);
    world.run_until(1, |world| {
        let mut tasks = world.live();
        world.service.deployments.len() == 1 && tasks.all(|task| world.is_healthy(task))
    });
    world.run(115);
    assert_eq!(world.primary().rollout, RolloutState::InProgress);
    world.run(10);
    assert_eq!(world.record().status, End::Successful);
}

#[test]
fn an_alarm_in_mid_rollout_takes_it_back() {
    let (mut world, first) = settled(true);
    let second = world.deploy("web:2", &[GOOD]);
    world.run(20);
    see(&mut world, &[("errors", true), ("latency", false)]);
    world.step();
    assert_eq!(world.record().status, End::RollbackInProgress);
    assert_eq!(world.record().triggered_alarms, ["errors"]);
    assert!(!world.record().breaker_tripped);
    assert_eq!(world.primary().id, first);
    world.run_to_end(1);
    assert_eq!(
        world.record().status,
        End::RollbackSuccessful,
        "the alarm that is still on does not fail the way back"
    );
    assert!(world.tells(&format!(
        "(deployment {second}) deployment failed: alarm detected."
    )));
    assert!(world.tells(&format!("rolling back to deployment {first}.")));
}

#[test]
fn without_rollback_an_alarm_stops_the_rollout_where_it_is() {
    let (mut world, _) = settled(false);
    let second = world.deploy("web:2", &[GOOD]);
    world.run(5);
    see(&mut world, &[("errors", false), ("latency", true)]);
    world.step();
    assert_eq!(world.record().status, End::Stopped);
    assert_eq!(world.primary().id, second);
    assert_eq!(world.primary().rollout, RolloutState::Failed);
}

#[test]
fn an_alarm_that_was_on_before_the_rollout_says_nothing_about_it() {
    let (mut world, _) = settled(true);
    see(&mut world, &[("errors", true), ("latency", false)]);
    world.deploy("web:2", &[GOOD]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::Successful);
    // The other one still counts.
    world.deploy("web:3", &[GOOD]);
    world.run(5);
    see(&mut world, &[("errors", true), ("latency", true)]);
    world.step();
    assert_eq!(world.record().triggered_alarms, ["latency"]);
    world.run_to_end(1);
    assert_eq!(world.record().status, End::RollbackSuccessful);
}

#[test]
fn an_alarm_after_the_rollout_changes_nothing() {
    let (mut world, first) = settled(true);
    see(&mut world, &[("errors", true), ("latency", true)]);
    world.run(60);
    assert_eq!(world.primary().id, first);
    assert_eq!(world.primary().rollout, RolloutState::Completed);
}
