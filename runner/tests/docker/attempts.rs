//! Steps in containers: files, sidecars, logs, failures, timeouts, cancels.

use crate::{
    peer::Peer,
    world::{BaseImage, Repository, RunnerUnderTest, assignment, left_of, run_step, unique},
};
use roadstead_protocol::{Outcome, Sidecar, StepAction, StepState};
use std::collections::BTreeMap;

struct World {
    image: BaseImage,
    repository: Repository,
    peer: Peer,
    runner: RunnerUnderTest,
    _data: tempfile::TempDir,
}

async fn world() -> World {
    let repository = Repository::new();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    World {
        image: BaseImage::build(),
        repository,
        peer,
        runner,
        _data: data,
    }
}

#[tokio::test]
async fn a_runner_waits_for_its_turn_to_be_sent_sources() {
    let world = world().await;
    let commit = world.repository.commit(&[("a", b"here\n", false)]);
    let attempt = unique("shop.1.a1");
    world.peer.set_busy(2);
    let step = run_step("test", &[], &world.image, "cat a");
    world.peer.assign(assignment(&attempt, &commit, vec![step]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("test"), "here\n");
    assert!(world.peer.was_left_alone());
    assert!(left_of(&attempt).is_empty());
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_step_sees_its_files_and_sidecars_and_its_log_arrives_byte_for_byte() {
    let world = world().await;
    let commit = world.repository.commit(&[
        ("hello.txt", b"hello from git\n", false),
        ("bin/tool.sh", b"#!/bin/sh\necho tool ran\n", true),
    ]);
    let attempt = unique("shop.1.a1");
    let script = r#"
pwd
cat hello.txt
./bin/tool.sh
echo "$GREETING $CI $ROADSTEAD_COMMIT"
printf 'raw \001\377\r\n'
address=$(nslookup helper 127.0.0.11 | grep -A1 'Name:.*helper' | sed -n 's/^Address[ 0-9]*: *//p' | head -n 1)
until wget -q -O answer "http://$address:8000/index.html" 2>/dev/null; do sleep 1; done
cat answer
seq 1 200000
echo later > produced.txt
printf 'no line feed'
"#;
    let mut step = run_step("test", &[], &world.image, script);
    let StepAction::Run { env, sidecars, .. } = &mut step.action else {
        unreachable!()
    };
    env.insert("GREETING".into(), "good day".into());
    sidecars.insert(
        "helper".into(),
        Sidecar {
            image: world.image.0.clone(),
            env: BTreeMap::from([("WORDS".into(), "the sidecar answers".into())]),
            command: [
                "/bin/sh",
                "-c",
                "mkdir /www; echo $WORDS > /www/index.html; httpd -f -p 8000 -h /www",
            ]
            .map(String::from)
            .to_vec(),
        },
    );
    let after = run_step("after", &["test"], &world.image, "cat produced.txt");
    world
        .peer
        .assign(assignment(&attempt, &commit, vec![step, after]));
    let seen = world.peer.result(&attempt).await;

    let mut expected =
        format!("/workspace\nhello from git\ntool ran\ngood day true {commit}\n").into_bytes();
    expected.extend(b"raw \x01\xff\r\nthe sidecar answers\n");
    for number in 1..=200_000 {
        expected.extend(format!("{number}\n").as_bytes());
    }
    expected.extend(b"no line feed");
    assert_eq!(
        seen.result.as_ref().unwrap().outcome,
        Outcome::Succeeded,
        "{}",
        seen.log("test")
    );
    assert!(
        seen.logs["test"] == expected,
        "the log differs: {}",
        seen.log("test")
    );
    assert_eq!(seen.log("after"), "later\n");
    assert!(seen.sealed.contains("test") && seen.sealed.contains("after"));
    assert_eq!(
        seen.states["test"],
        [StepState::Running, StepState::Succeeded]
    );
    assert!(seen.accepted);
    world.peer.until_idle().await;
    assert_eq!(left_of(&attempt), Vec::<String>::new());
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_step_that_fails_is_tried_again_as_often_as_it_says() {
    let world = world().await;
    let commit = world.repository.commit(&[("a", b"a", false)]);
    let attempt = unique("shop.2.a1");
    // Files stay from try to try, containers do not.
    let script =
        "[ ! -e /once ]; touch /once; echo try >> tries; [ $(wc -l < tries) = 3 ]; echo good";
    let mut recovers = run_step("recovers", &[], &world.image, script);
    recovers.retry = 5;
    let mut fails = run_step("fails", &["recovers"], &world.image, "echo bad; exit 3");
    fails.retry = 1;
    let mut late = run_step("late", &[], &world.image, "sleep 600");
    (late.retry, late.timeout_seconds) = (5, 1);
    let steps = vec![recovers, fails, late];
    world.peer.assign(assignment(&attempt, &commit, steps));
    let seen = world.peer.result(&attempt).await;
    let retrying = |number| StepState::Retrying { number };
    assert_eq!(
        seen.states["recovers"],
        [
            StepState::Running,
            retrying(2),
            retrying(3),
            StepState::Succeeded
        ]
    );
    assert_eq!(
        seen.log("recovers"),
        "the step's commands ended with exit status 1; 2nd try of 6\n\
         the step's commands ended with exit status 1; 3rd try of 6\ngood\n"
    );
    assert_eq!(seen.states["fails"][..2], [StepState::Running, retrying(2)]);
    assert!(matches!(seen.last("fails"), Some(StepState::Failed { .. })));
    assert_eq!(
        seen.log("fails"),
        "bad\nthe step's commands ended with exit status 3; 2nd try of 2\nbad\n"
    );
    assert_eq!(
        seen.states["late"],
        [StepState::Running, StepState::TimedOut]
    );
    world.peer.until_idle().await;
    assert_eq!(left_of(&attempt), Vec::<String>::new());
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_failing_step_says_why_and_only_what_needs_it_is_skipped() {
    let world = world().await;
    let commit = world.repository.commit(&[("a", b"a", false)]);
    let attempt = unique("shop.2.a1");
    let image = &world.image;
    let mut lingering = run_step("lingers", &[], image, "sleep 600");
    lingering.timeout_seconds = 2;
    world.peer.assign(assignment(
        &attempt,
        &commit,
        vec![
            run_step(
                "fails",
                &[],
                image,
                "echo before; sh -c 'exit 3'; echo never",
            ),
            run_step("dependent", &["fails"], image, "echo never"),
            run_step("after-dependent", &["dependent"], image, "echo never"),
            run_step("independent", &[], image, "echo works"),
        ],
    ));
    let seen = world.peer.result(&attempt).await;
    let Some(StepState::Failed {
        exit_code: Some(3),
        reason,
    }) = seen.last("fails")
    else {
        panic!("{seen:#?}");
    };
    assert!(reason.contains("exit status 3"), "{reason}");
    assert_eq!(seen.log("fails"), "before\n");
    assert_eq!(seen.states["dependent"], [StepState::Skipped]);
    assert_eq!(seen.states["after-dependent"], [StepState::Skipped]);
    assert_eq!(seen.last("independent"), Some(&StepState::Succeeded));
    let outcome = seen.result.unwrap().outcome;
    assert!(
        matches!(&outcome, Outcome::Failed { step, .. } if step == "fails"),
        "{outcome:?}"
    );

    let attempt = unique("shop.3.a1");
    world
        .peer
        .assign(assignment(&attempt, &commit, vec![lingering]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.last("lingers"), Some(&StepState::TimedOut));
    assert_eq!(
        seen.result.unwrap().outcome,
        Outcome::TimedOut {
            step: "lingers".into()
        }
    );
    world.peer.until_idle().await;
    assert_eq!(left_of(&attempt), Vec::<String>::new());

    let attempt = unique("shop.4.a1");
    let absent = BaseImage(format!("127.0.0.1:1/{}", unique("absent")));
    let step = run_step("no-image", &[], &absent, "true");
    world.peer.assign(assignment(&attempt, &commit, vec![step]));
    world
        .peer
        .until(&attempt, "the log tells that no registry answers", |seen| {
            seen.log("no-image").contains("trying again")
        })
        .await;
    world.peer.cancel(&attempt);
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.last("no-image"), Some(&StepState::Cancelled));
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancel_is_heard_and_what_does_not_hear_it_is_killed() {
    let world = world().await;
    let commit = world.repository.commit(&[("a", b"a", false)]);
    let attempt = unique("shop.5.a1");
    let image = &world.image;
    let polite = "trap 'echo heard; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    world.peer.assign(assignment(
        &attempt,
        &commit,
        vec![
            run_step("polite", &[], image, polite),
            run_step("stubborn", &[], image, stubborn),
            run_step("waiting", &["polite"], image, "echo never"),
        ],
    ));
    world
        .peer
        .until(&attempt, "both steps write", |seen| {
            seen.log("polite") == "up\n" && seen.log("stubborn") == "up\n"
        })
        .await;
    world.peer.cancel(&attempt);
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("polite"), "up\nheard\n");
    assert_eq!(seen.last("polite"), Some(&StepState::Cancelled));
    assert_eq!(seen.last("stubborn"), Some(&StepState::Cancelled));
    assert_eq!(seen.states["waiting"], [StepState::Cancelled]);
    assert_eq!(seen.result.unwrap().outcome, Outcome::Cancelled);
    world.peer.until_idle().await;
    assert_eq!(left_of(&attempt), Vec::<String>::new());
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_runner_that_comes_late_gets_the_commit_without_its_history() {
    let world = world().await;
    world
        .repository
        .commit(&[("one", b"1", false), ("two", b"2", false)]);
    let second = world.repository.commit(&[("two", b"changed", false)]);
    let attempt = unique("shop.2.a1");
    let step = run_step("test", &[], &world.image, "cat one two");
    world.peer.assign(assignment(&attempt, &second, vec![step]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("test"), "1changed", "{seen:#?}");
    assert_eq!(seen.haves, [None]);
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_stored_pack_is_taken_as_it_is_and_completed() {
    let world = world().await;
    let path = world.repository.path();
    world
        .repository
        .commit(&[("one", b"1", false), ("two", b"2", false)]);
    let packed = std::process::Command::new("git")
        .args(["repack", "-a", "-d", "-q"])
        .current_dir(&path)
        .status();
    assert!(packed.unwrap().success());
    let second = world.repository.commit(&[("two", b"changed", false)]);
    let attempt = unique("shop.2.a1");
    let step = run_step("test", &[], &world.image, "cat one two");
    world.peer.assign(assignment(&attempt, &second, vec![step]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("test"), "1changed", "{seen:#?}");

    // What comes next is a difference again.
    let third = world.repository.commit(&[("one", b"new and ", false)]);
    let attempt = unique("shop.3.a1");
    let step = run_step("test", &[], &world.image, "cat one two");
    world.peer.assign(assignment(&attempt, &third, vec![step]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("test"), "new and changed", "{seen:#?}");
    assert_eq!(seen.haves, [Some(second)]);
    world.runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_stored_pack_never_reaches_a_step() {
    let world = world().await;
    let path = world.repository.path();
    let content: Vec<u8> = (0..=255).cycle().take(4096).collect();
    let commit = world.repository.commit(&[("one", &content, false)]);
    let packed = std::process::Command::new("git")
        .args(["repack", "-a", "-d", "-q"])
        .current_dir(&path)
        .status();
    assert!(packed.unwrap().success());
    world.peer.set_damages_packs(true);
    let attempt = unique("shop.1.a1");
    let step = run_step("test", &[], &world.image, "cat one | wc -c");
    world
        .peer
        .assign(assignment(&attempt, &commit, vec![step.clone()]));
    let seen = world.peer.result(&attempt).await;
    let outcome = seen.result.clone().unwrap().outcome;
    assert!(matches!(outcome, Outcome::Errored { .. }), "{seen:#?}");

    // The next attempt begins anew.
    world.peer.set_damages_packs(false);
    let attempt = unique("shop.1.a2");
    world.peer.assign(assignment(&attempt, &commit, vec![step]));
    let seen = world.peer.result(&attempt).await;
    assert_eq!(seen.log("test").trim(), "4096", "{seen:#?}");
    world.runner.stop().await.unwrap();
}
