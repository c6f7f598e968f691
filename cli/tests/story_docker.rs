//! The product's main job on real parts, as `roadstead demo` tells it, with one part left out: the
//! story has to notice, at the line that leans on it.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod story;

use story::{lines, tell};

/// Tells the story without `part`; `line`, which is the last one told, has to say `why`.
fn fails_at(part: &str, line: &str, why: &str) {
    let told = tell(&["--break", part]);
    let said = told.said();
    assert_eq!(told.output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("`{line}` did not hold")), "{said}");
    assert_eq!(told.table["held"], false, "{said}");
    let (last, before) = lines(&told.table).split_last().unwrap();
    assert_eq!(last["step"], line, "{said}");
    assert_eq!(last["held"], false, "{said}");
    assert!(last["observed"].as_str().unwrap().contains(why), "{last:#}");
    assert!(before.iter().all(|line| line["held"] == true), "{said}");
    told.assert_nothing_stays();
}

#[test]
fn a_push_that_tells_nobody_fails_the_story_by_name() {
    fails_at("push", "push v1", "run shop.1");
}

#[test]
fn a_missing_gate_fails_the_story_by_name() {
    fails_at("gate", "the gate held", "production started");
}

#[test]
fn a_missing_verification_fails_the_story_by_name() {
    fails_at("verify", "v1 in staging", "no request verified it");
}

#[test]
fn a_missing_rollback_fails_the_story_by_name() {
    fails_at("rollback", "v3 in production", "ended failed");
}
