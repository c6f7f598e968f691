//! The product's main job on real parts, with parts killed (SIGKILL) at each moment that could hurt.
//! The story has to end the same.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod story;

use serde_json::Value;
use std::collections::BTreeSet;
use story::{Told, lines, tell};

const WEBHOOK: &str = "after the webhook's commit";
const BUILD: &str = "during the build";
const PUSH: &str = "after the push, before its result";
const REGISTRATION: &str = "after RegisterTaskDefinition";
const UPDATE: &str = "after UpdateService";
const VERIFICATION: &str = "during verification";
const ROLLBACK: &str = "during a rollback";

/// What was kept waiting at a moment proves that it was met.
fn assert_met(kill: &Value) {
    let kept = &kill["kept"];
    let waits = |operation: &str, performed: bool| {
        assert_eq!(kept["operation"], operation, "{kill:#}");
        assert_eq!(kept["performed"], performed, "{kill:#}");
    };
    match kill["moment"].as_str().unwrap() {
        WEBHOOK => assert!(kept.is_null(), "{kill:#}"),
        BUILD => assert!(kept["file"].is_string(), "{kill:#}"),
        PUSH => waits("PutImage", true),
        REGISTRATION => waits("RegisterTaskDefinition", true),
        UPDATE => waits("UpdateService", true),
        VERIFICATION | ROLLBACK => {
            waits("DescribeServices", false);
            assert_eq!(kept["request"]["cluster"], "production", "{kill:#}");
        }
        other => panic!("no moment: {other}"),
    }
}

/// The parts were killed at these moments, in this order, each a process of its own, and the story
/// held all the same.
fn assert_killed(told: &Told, wanted: &[(&str, &str)]) {
    told.assert_held();
    let kills = told.table["kills"].as_array().unwrap();
    let killed: Vec<(&str, &str)> = kills
        .iter()
        .map(|kill| {
            (
                kill["moment"].as_str().unwrap(),
                kill["part"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(killed, wanted);
    kills.iter().for_each(assert_met);
    let processes: BTreeSet<u64> = kills.iter().map(|k| k["pid"].as_u64().unwrap()).collect();
    assert_eq!(processes.len(), kills.len(), "{kills:#?}");
    // Where ECS returns to something older than the last verified release, one more leads back to it.
    let updates = lines(&told.table)[20]["observed"].as_str().unwrap();
    assert!(
        ["8 updates for 8 deployments", "9 updates for 9 deployments"].contains(&updates),
        "{updates}"
    );
    told.assert_nothing_stays();
}

/// How the attempts of the first build ended.
fn attempts(told: &Told) -> Vec<Value> {
    let attempts = lines(&told.table)[1]["evidence"]["attempts"].clone();
    let attempts = attempts.as_array().unwrap();
    attempts
        .iter()
        .map(|a| a["outcome"]["outcome"].clone())
        .collect()
}

#[test]
fn the_story_ends_the_same_when_the_server_is_killed_at_each_moment() {
    let told = tell(&["--kill", "server"]);
    let moments = [
        WEBHOOK,
        BUILD,
        REGISTRATION,
        UPDATE,
        VERIFICATION,
        PUSH,
        ROLLBACK,
    ];
    assert_killed(&told, &moments.map(|moment| (moment, "server")));
    assert_eq!(attempts(&told), ["succeeded"], "its runner went on");
}

#[test]
fn the_story_ends_the_same_when_runner_and_sandbox_are_killed_at_each_moment() {
    let told = tell(&["--kill", "runner", "sandbox"]);
    assert_killed(
        &told,
        &[
            (WEBHOOK, "runner"),
            (BUILD, "runner"),
            (REGISTRATION, "runner"),
            (UPDATE, "runner"),
            (UPDATE, "sandbox"),
            (VERIFICATION, "runner"),
            (VERIFICATION, "sandbox"),
            (PUSH, "runner"),
            (ROLLBACK, "runner"),
            (ROLLBACK, "sandbox"),
        ],
    );
    // A runner that is killed before it wrote down what it was handed cannot say that this ended: that
    // attempt has no outcome, its lease runs out. One that it had written down, it gives back.
    let attempts = attempts(&told);
    let (last, lost) = attempts.split_last().unwrap();
    assert_eq!(last, "succeeded");
    assert!((1..=2).contains(&lost.len()), "{attempts:?}");
    for outcome in lost {
        assert!(outcome.is_null() || outcome == "errored", "{attempts:?}");
    }
}
