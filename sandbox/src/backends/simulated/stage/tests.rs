//! Tasks on stage, second by second.

use std::time::Duration;

use super::{Cue, Script, Stage, Verdict};
use crate::backends::simulated::script::Exit;
use crate::backends::{Dependency, DependencyCondition, TaskEvent};
use crate::clock::Time;
use crate::targets::TargetState;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn script(name: &str) -> Script {
    Script {
        name: name.to_owned(),
        essential: true,
        checked: true,
        ports: Vec::new(),
        depends_on: Vec::new(),
        start_timeout: None,
        pull: Ok(seconds(2)),
        start: Ok(seconds(1)),
        exit: None,
        health: Verdict::healthy(seconds(5)),
        target: Verdict::healthy(seconds(3)),
        stop: seconds(4),
    }
}

/// Plays to the end of `until`, moment by moment; each cue with its second.
fn play(stage: &mut Stage, until: u64) -> Vec<(i64, String)> {
    let mut seen = Vec::new();
    while let Some(time) = stage.due().filter(|time| time.0 <= until as i64 * 1000) {
        for cue in stage.play(time, &|wait| wait) {
            let text = match cue {
                Cue::Look { task_id } => format!("look {task_id}"),
                Cue::Report { task_id, event } => match event {
                    TaskEvent::Pulled => format!("{task_id} pulled"),
                    TaskEvent::ContainerStarted { name, .. } => format!("{name} started"),
                    TaskEvent::ContainerExited {
                        name, exit_code, ..
                    } => format!("{name} exited {exit_code}"),
                    TaskEvent::ContainerHealth { name, healthy } => {
                        format!("{name} healthy {healthy}")
                    }
                    TaskEvent::CannotInitialize { .. } => format!("{task_id} not initialized"),
                    TaskEvent::CannotPull { container, .. } => format!("{container} missing"),
                    TaskEvent::CannotStart { container, .. } => format!("{container} broken"),
                    TaskEvent::Stopped => format!("{task_id} stopped"),
                },
            };
            seen.push((time.0 / 1000, text));
        }
    }
    seen
}

fn lines(seen: &[(i64, String)]) -> Vec<(i64, &str)> {
    seen.iter()
        .map(|(second, text)| (*second, text.as_str()))
        .collect()
}

#[test]
fn containers_come_one_after_the_other_and_end_when_they_are_told() {
    let mut stage = Stage::default();
    let exits = Script {
        exit: Some(Exit {
            code: 3,
            oom: false,
            after: seconds(4),
        }),
        ..script("a")
    };
    stage.enter(Time(0), "t", vec![exits, script("b")], &|wait| wait);
    let seen = play(&mut stage, 11);
    let expected = [
        (4, "t pulled"),
        (5, "a started"),
        (6, "b started"),
        // Before its check had a word.
        (9, "a exited 3"),
        (11, "b healthy true"),
    ];
    assert_eq!(lines(&seen), expected);
    assert!(stage.leave(Time(20_000), "t", &|wait| wait));
    assert!(stage.leave(Time(21_000), "t", &|wait| wait));
    let seen = play(&mut stage, 60);
    assert_eq!(lines(&seen), [(24, "b exited 143"), (24, "t stopped")]);
    assert!(!stage.leave(Time(60_000), "t", &|wait| wait));
    assert_eq!(stage.due(), None);
}

#[test]
fn nothing_follows_a_failed_pull_or_start() {
    let mut stage = Stage::default();
    let missing = Script {
        pull: Err(()),
        ..script("b")
    };
    let broken = Script {
        start: Err(()),
        ..script("d")
    };
    stage.enter(Time(0), "1", vec![script("a"), missing], &|wait| wait);
    stage.enter(Time(0), "2", vec![script("c"), broken], &|wait| wait);
    let expected = [
        (2, "b missing"),
        (4, "2 pulled"),
        (5, "c started"),
        (5, "d broken"),
        (10, "c healthy true"),
    ];
    assert_eq!(lines(&play(&mut stage, 60)), expected);
}

#[test]
fn a_container_waits_for_what_it_depends_on_and_gives_up_in_time() {
    let needs = |condition| Script {
        depends_on: vec![Dependency {
            container: "a".to_owned(),
            condition,
        }],
        ..script("b")
    };
    let limited = |seconds_| Script {
        start_timeout: Some(seconds(seconds_)),
        ..script("a")
    };
    let tell = |first, second| {
        let mut stage = Stage::default();
        stage.enter(Time(0), "t", vec![second, first], &|wait| wait);
        play(&mut stage, 12)
    };
    let healthy = || needs(DependencyCondition::Healthy);
    let (pulled, started) = ((4, "t pulled"), (5, "a started"));
    let seen = tell(limited(6), healthy());
    let waits = [pulled, started, (10, "a healthy true"), (11, "b started")];
    assert_eq!(lines(&seen), waits);
    let seen = tell(limited(3), healthy());
    let gives_up = [pulled, started, (8, "b broken"), (10, "a healthy true")];
    assert_eq!(lines(&seen), gives_up);
    // What has started by then need not go on.
    let seen = tell(limited(3), needs(DependencyCondition::Start));
    let goes_on = [pulled, started, (6, "b started"), (10, "a healthy true")];
    assert_eq!(seen[..4], goes_on.map(|(at, what)| (at, what.to_owned())));
    let ends = Script {
        essential: false,
        checked: false,
        exit: Some(Exit {
            code: 0,
            oom: false,
            after: seconds(2),
        }),
        ..limited(3)
    };
    let seen = tell(ends, needs(DependencyCondition::Success));
    let follows = [pulled, started, (7, "a exited 0"), (8, "b started")];
    assert_eq!(lines(&seen), follows);
}

#[test]
fn flapping_targets_turn_from_their_registration_on() {
    let mut stage = Stage::default();
    let mut flapping = script("a");
    flapping.checked = false;
    flapping.target.flaps = Some(seconds(10));
    stage.enter(Time(0), "t", vec![flapping], &|wait| wait);
    stage.register(Time(4000), "group", "t", &|wait| wait);
    stage.register(Time(5000), "group", "t", &|wait| wait);
    let seen = play(&mut stage, 30);
    let looks: Vec<i64> = seen[2..].iter().map(|(second, _)| *second).collect();
    assert_eq!(looks, [7, 17, 27]);
    let state =
        |stage: &Stage, second: i64| stage.health(Time(second * 1000), "group", "t", &|wait| wait);
    assert_eq!(state(&stage, 6), TargetState::Initial);
    assert_eq!(state(&stage, 7), TargetState::Healthy);
    assert!(matches!(state(&stage, 17), TargetState::Unhealthy { .. }));
    stage.deregister("group", "t");
    assert_eq!(state(&stage, 30), TargetState::Draining);
    stage.remove("group", "t");
    assert_eq!(state(&stage, 30), TargetState::Unused);
}
