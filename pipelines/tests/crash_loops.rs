//! Releases whose tasks end by themselves and are started again: at every look all of them run.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod support;

use support::{AUTO, Stage, pipeline};

/// One release in staging and production, another one that ECS has rolled out in staging.
fn rolled_out() -> Stage {
    let mut stage = Stage::new(pipeline(AUTO));
    stage.ship();
    stage.ecs_completes("staging/web");
    stage.wait(70);
    stage.ecs_completes("production/web");
    stage.wait(10);
    stage.ship();
    stage.tasks_crash("staging/web", 1);
    stage.ecs_completes("staging/web");
    stage
}

/// How the second release fares in staging.
fn second(stage: &Stage) -> &'static str {
    let mut states = stage.states().into_iter();
    let found = states.find(|(what, _)| what == "shop.d3 staging/web shop.r2");
    found.unwrap().1
}

#[test]
fn a_release_whose_tasks_end_and_are_started_again_is_never_verified() {
    let mut stage = rolled_out();
    // 600 s of rollout_timeout, 5 s of watch.
    for _ in 0..30 {
        stage.wait(20);
        assert_eq!(second(&stage), "verifying");
        stage.tasks_crash("staging/web", 1);
    }
    stage.wait(6);
    assert_eq!(second(&stage), "rolling_back");
    assert!(
        stage
            .transcript
            .contains("did not hold within 10 min: a task ended: Essential container"),
        "{}",
        stage.transcript
    );
    assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
}

#[test]
fn one_task_that_ended_holds_a_release_up_until_the_rest_is_calm() {
    let mut stage = rolled_out();
    stage.wait(29);
    assert_eq!(second(&stage), "verifying");
    stage.wait(1);
    assert_eq!(second(&stage), "deployed");
}

#[test]
fn the_soak_starts_anew_when_a_task_ends_between_two_looks() {
    let mut stage = rolled_out();
    // The gate of production wants 60 s.
    for _ in 0..5 {
        stage.wait(40);
        assert_eq!(stage.running("production/web").unwrap().as_str(), "shop.r1");
        stage.tasks_crash("staging/web", 1);
    }
    assert_eq!(second(&stage), "deployed");
    stage.wait(61);
    assert_eq!(
        stage.states().last().unwrap().0,
        "shop.d4 production/web shop.r2"
    );
}
