//! A server that goes away, a lease that is lost, a runner that is killed, a runner that leaves.

use crate::{
    peer::Peer,
    slow_engine::SlowEngine,
    world::{
        BaseImage, Repository, RunnerUnderTest, assignment, config, docker, eventually, left_of,
        run_step, unique, volumes_of,
    },
};
use roadstead_protocol::{Outcome, Sidecar, StepAction, StepState};
use roadstead_runner::Secret;
use std::collections::BTreeMap;

const LONG: &str = "echo up; while :; do sleep 0.1; done";

#[tokio::test]
async fn a_log_arrives_whole_although_the_server_goes_away_and_loses_its_end() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let attempt = unique("shop.1.a1");
    // The step goes on when the test puts a file into its workspace.
    let script = "echo first; until test -e go; do sleep 0.1; done; seq 1 50000";
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![run_step("test", &[], &image, script)],
    ));
    peer.until(&attempt, "the first line", |seen| {
        seen.log("test") == "first\n"
    })
    .await;
    peer.lose_log_after(&attempt, "test", 2);
    peer.set_away(true);
    std::fs::write(data.path().join("workspaces").join(&attempt).join("go"), "").unwrap();
    eventually("the step's container ends while the server is away", || {
        docker(&[
            "ps",
            "-q",
            "--filter",
            &format!("label=roadstead.attempt={attempt}"),
        ])
        .is_empty()
    })
    .await;
    peer.set_away(false);
    let seen = peer.result(&attempt).await;
    let mut expected = "first\n".to_owned();
    for number in 1..=50_000 {
        expected.push_str(&format!("{number}\n"));
    }
    assert!(
        seen.log("test") == expected,
        "the log differs: {}",
        seen.log("test")
    );
    assert!(seen.sealed.contains("test"));
    assert_eq!(
        seen.states["test"],
        [StepState::Running, StepState::Succeeded]
    );
    assert_eq!(seen.result.unwrap().outcome, Outcome::Succeeded);
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_lost_attempt_is_stopped_without_a_word() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![run_step("test", &[], &image, LONG)],
    ));
    peer.until(&attempt, "the step runs", |seen| {
        seen.log("test") == "up\n" && seen.last("test") == Some(&StepState::Running)
    })
    .await;
    peer.lose(&attempt);
    eventually("the lost attempt's containers go", || {
        left_of(&attempt).is_empty()
    })
    .await;
    peer.until_idle().await;
    let seen = peer.seen(&attempt);
    assert_eq!(seen.result, None);
    assert_eq!(seen.states["test"], [StepState::Running]);
    // The runner goes on with other work.
    let next = unique("shop.2.a1");
    peer.assign(assignment(
        &next,
        &commit,
        vec![run_step("test", &[], &image, "echo next")],
    ));
    assert_eq!(
        peer.result(&next).await.result.unwrap().outcome,
        Outcome::Succeeded
    );
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_runner_sweeps_its_own_and_reports_what_it_lost() {
    let image = BaseImage::with_volume();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let runner_id = unique("r");
    let peer = Peer::start(&runner_id, repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![run_step("test", &[], &image, LONG)],
    ));
    peer.until(&attempt, "the step runs", |seen| seen.log("test") == "up\n")
        .await;
    let foreign_attempt = unique("foreign");
    let foreign = docker(&[
        "run",
        "-d",
        "--label",
        &format!("roadstead.attempt={foreign_attempt}"),
        "--label",
        &format!("roadstead.runner={}", unique("another")),
        &image.0,
        "/bin/sleep",
        "3600",
    ]);
    runner.kill().await;
    assert_eq!(
        left_of(&attempt).len(),
        2,
        "a container and a network survive the runner"
    );
    let volumes = volumes_of(&attempt);
    assert_eq!(volumes.len(), 1, "its image's volume survives too");

    let runner = RunnerUnderTest::start(&peer, data.path());
    let seen = peer.result(&attempt).await;
    let outcome = seen.result.unwrap().outcome;
    let Outcome::Errored { reason } = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("started again"), "{reason}");
    // The report comes after the sweep.
    assert_eq!(left_of(&attempt), Vec::<String>::new());
    let all_volumes = docker(&["volume", "ls", "-q"]);
    assert!(!all_volumes.lines().any(|volume| volume == volumes[0]));
    assert!(!data.path().join("workspaces").join(&attempt).exists());
    let still_there = left_of(&foreign_attempt);
    docker(&["rm", "-f", &foreign]);
    assert_eq!(
        still_there.len(),
        1,
        "what belongs to another runner is left alone"
    );
    let next = unique("shop.1.a2");
    peer.assign(assignment(
        &next,
        &commit,
        vec![run_step("test", &[], &image, "echo again")],
    ));
    assert_eq!(
        peer.result(&next).await.result.unwrap().outcome,
        Outcome::Succeeded
    );
    runner.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_makes_after_the_runner_was_killed_is_found_and_removed() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let engine = SlowEngine::start();
    let slow = || {
        let mut config = config(&peer, data.path());
        config.docker_socket = Some(engine.socket());
        RunnerUnderTest::start_with(config)
    };
    // The first container of this step is its sidecar's, which needs no file that a start removes.
    let step = || {
        let mut step = run_step("test", &[], &image, LONG);
        if let StepAction::Run { sidecars, .. } = &mut step.action {
            let sidecar = Sidecar {
                image: image.0.clone(),
                env: BTreeMap::new(),
                command: ["sleep", "3600"].map(str::to_owned).to_vec(),
            };
            sidecars.insert("db".to_owned(), sidecar);
        }
        step
    };
    let mut runner = slow();
    for (number, path) in ["/networks/create", "/containers/create"]
        .iter()
        .enumerate()
    {
        let attempt = unique(&format!("shop.{number}.a1"));
        engine.hold(path);
        peer.assign(assignment(&attempt, &commit, vec![step()]));
        tokio::task::block_in_place(|| engine.until_held());
        runner.kill().await;
        runner = slow();
        // The report comes after the first look, which cannot see what is not there yet.
        assert!(peer.result(&attempt).await.result.is_some());
        assert_eq!(left_of(&attempt), Vec::<String>::new());
        let next = unique(&format!("shop.{number}.a2"));
        peer.assign(assignment(&next, &commit, vec![step()]));
        peer.until(&next, "the next step runs", |seen| {
            seen.log("test") == "up\n"
        })
        .await;
        tokio::task::block_in_place(|| engine.release());
        eventually("what came too late goes", || left_of(&attempt).is_empty()).await;
        assert_eq!(left_of(&next).len(), 3, "what is at work stays");
        peer.lose(&next);
        eventually("what was at work goes", || left_of(&next).is_empty()).await;
        peer.until_idle().await;
    }
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_runner_that_leaves_hands_its_work_back_and_a_drained_one_finishes_it() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let commit = repository.commit(&[("a", b"a", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![run_step("test", &[], &image, LONG)],
    ));
    peer.until(&attempt, "the step runs", |seen| seen.log("test") == "up\n")
        .await;
    runner.stop().await.unwrap();
    let outcome = peer
        .seen(&attempt)
        .result
        .expect("reported before it left")
        .outcome;
    assert!(matches!(outcome, Outcome::Errored { .. }), "{outcome:?}");
    assert_eq!(left_of(&attempt), Vec::<String>::new());

    // The credential of before is good again; no registration token is needed.
    let mut known = config(&peer, data.path());
    known.registration_token = None;
    let mut runner = RunnerUnderTest::start_with(known);
    let attempt = unique("shop.2.a1");
    let script = "echo up; until test -e go; do sleep 0.1; done";
    peer.assign(assignment(
        &attempt,
        &commit,
        vec![run_step("test", &[], &image, script)],
    ));
    peer.until(&attempt, "the step runs", |seen| seen.log("test") == "up\n")
        .await;
    peer.drain();
    std::fs::write(data.path().join("workspaces").join(&attempt).join("go"), "").unwrap();
    runner.ended().await.unwrap();
    assert_eq!(
        peer.seen(&attempt).result.unwrap().outcome,
        Outcome::Succeeded
    );
}

#[tokio::test]
async fn a_runner_that_cannot_work_says_why() {
    let repository = Repository::new();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();

    let mut wrong = config(&peer, data.path());
    wrong.registration_token = Some(Secret::new("not-the-token"));
    let error = RunnerUnderTest::start_with(wrong)
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("registration token") && error.contains("unknown"),
        "{error}"
    );
    assert!(!error.contains("not-the-token"), "{error}");

    let mut without = config(&peer, data.path());
    without.registration_token = None;
    let error = RunnerUnderTest::start_with(without)
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("start it with a registration token"),
        "{error}"
    );

    let mut idle = config(&peer, data.path());
    idle.slots = 0;
    let error = RunnerUnderTest::start_with(idle)
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("at least one slot"), "{error}");

    let mut engineless = config(&peer, data.path());
    engineless.docker_socket = Some(data.path().join("no-socket"));
    let error = RunnerUnderTest::start_with(engineless)
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("Docker Engine does not answer"), "{error}");
}

#[tokio::test]
async fn a_runner_whose_disk_is_nearly_full_takes_no_work() {
    let repository = Repository::new();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let mut full = config(&peer, data.path());
    full.disk_watermark_bytes = u64::MAX;
    let runner = RunnerUnderTest::start_with(full);
    assert_eq!(peer.offered_slots().await, 0);
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_runner_waits_for_its_name_but_not_for_ever() {
    let repository = Repository::new();
    let peer = Peer::start(&unique("r"), repository.path()).await;
    peer.set_names_taken(1);
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    assert_eq!(peer.offered_slots().await, 2);
    runner.stop().await.unwrap();

    peer.set_names_taken(u32::MAX);
    let data = tempfile::tempdir().unwrap();
    let error = RunnerUnderTest::start(&peer, data.path())
        .ended()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is a runner of this name"), "{error}");
}

#[tokio::test]
async fn a_damaged_store_of_sources_is_begun_anew() {
    let image = BaseImage::build();
    let repository = Repository::new();
    let first = repository.commit(&[("a", b"kept", false), ("b", b"old", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let runner = RunnerUnderTest::start(&peer, data.path());
    let show = || run_step("show", &[], &image, "cat a b");
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(&attempt, &first, vec![show()]));
    assert_eq!(peer.result(&attempt).await.log("show"), "keptold");

    let packs = data.path().join("sources/shop.git/objects/pack");
    for file in std::fs::read_dir(packs).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let second = repository.commit(&[("b", b"new", false)]);
    let attempt = unique("shop.2.a1");
    peer.assign(assignment(&attempt, &second, vec![show()]));
    let seen = peer.result(&attempt).await;
    assert_eq!(seen.log("show"), "keptnew");
    assert_eq!(
        seen.haves.last(),
        Some(&None),
        "in the end everything was fetched"
    );
    runner.stop().await.unwrap();
}
