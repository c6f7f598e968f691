//! Steps that want more of the machine than they may have.

use crate::{
    peer::{Peer, Seen},
    world::{
        BaseImage, Repository, RunnerUnderTest, assignment, config, left_of, run_step, unique,
    },
};
use roadstead_protocol::{Outcome, Step, StepAction, StepLimits};
use roadstead_runner::{Config, StepMost};

const MOST: StepMost = StepMost {
    cpu: Some(1024),
    memory: Some(256),
    processes: 64,
};

/// One job of these steps on a runner with the limits of [`MOST`].
async fn run(steps: impl FnOnce(&BaseImage) -> Vec<Step>, set: impl FnOnce(&mut Config)) -> Seen {
    let repository = Repository::new();
    let image = BaseImage::build();
    let commit = repository.commit(&[("a", b"here\n", false)]);
    let peer = Peer::start(&unique("r"), repository.path()).await;
    let data = tempfile::tempdir().unwrap();
    let mut config = config(&peer, data.path());
    config.step_most = MOST;
    set(&mut config);
    let runner = RunnerUnderTest::start_with(config);
    let attempt = unique("shop.1.a1");
    peer.assign(assignment(&attempt, &commit, steps(&image)));
    let seen = peer.result(&attempt).await;
    assert!(left_of(&attempt).is_empty());
    runner.stop().await.unwrap();
    seen
}

fn limited(image: &BaseImage, script: &str, wanted: StepLimits) -> Step {
    let mut step = run_step("test", &[], image, script);
    if let StepAction::Run { limits, .. } = &mut step.action {
        *limits = wanted;
    }
    step
}

fn reason(seen: &Seen) -> String {
    match &seen.result.as_ref().unwrap().outcome {
        Outcome::Failed { reason, .. } | Outcome::Errored { reason } => reason.clone(),
        other => panic!("{other:?}: {}", seen.log("test")),
    }
}

#[tokio::test]
async fn a_step_that_asks_for_more_than_there_is_does_not_begin() {
    let wanted = StepLimits {
        memory: Some(512),
        ..StepLimits::default()
    };
    let seen = run(|image| vec![limited(image, "echo begun", wanted)], |_| {}).await;
    let reason = reason(&seen);
    assert!(reason.contains("asks for 512 MiB"), "{reason}");
    assert!(reason.contains("at most 256"), "{reason}");
    assert_eq!(seen.log("test"), format!("{reason}\n"));
}

#[tokio::test]
async fn a_step_has_the_memory_and_processors_that_it_asks_for_and_no_more() {
    let wanted = StepLimits {
        cpu: Some(512),
        memory: Some(24),
    };
    // Either form of control groups.
    let show = "cat /sys/fs/cgroup/cpu.max 2>/dev/null \
                || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us\n\
                x=0123456789abcdef; while :; do x=$x$x; done";
    let seen = run(|image| vec![limited(image, show, wanted)], |_| {}).await;
    let log = seen.log("test");
    let figures: Vec<f64> = log
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    assert!(figures.len() >= 2, "{log}");
    assert!((figures[0] / figures[1] - 0.5).abs() < 0.01, "{log}");
    let reason = reason(&seen);
    assert!(reason.contains("ran out of the 24 MiB"), "{reason}: {log}");
}

#[tokio::test]
async fn a_step_with_all_the_processes_that_it_may_have_is_stopped() {
    // A shell that cannot fork ends: the inner one does, and what it started stays.
    let bomb = "trap '' TERM\n(while :; do sleep 600 & done) || true\nwhile :; do :; done";
    let seen = run(|image| vec![run_step("test", &[], image, bomb)], |_| {}).await;
    let reason = reason(&seen);
    assert!(
        reason.contains("64 processes"),
        "{reason}: {}",
        seen.log("test")
    );
}

#[tokio::test]
async fn a_step_that_fills_the_disk_is_stopped_before_it_is_full() {
    // Three gigabytes at most, should nobody stop it.
    let fill = "echo begun; for piece in $(seq 60); do dd if=/dev/zero of=piece.$piece bs=1M count=50 2>/dev/null\n\
                sleep 0.2; done; echo never stopped";
    let seen = run(
        |image| vec![run_step("test", &[], image, fill)],
        |config| {
            let disk = rustix::fs::statvfs(&config.data).unwrap();
            config.disk_least_bytes = (disk.f_bavail * disk.f_frsize).saturating_sub(200_000_000);
        },
    )
    .await;
    let reason = reason(&seen);
    assert!(
        reason.contains("disk is nearly full") && seen.log("test").contains("begun"),
        "{reason}: {}",
        seen.log("test")
    );
}

#[tokio::test]
async fn root_in_a_step_is_not_root_of_the_machine() {
    let script = "mknod device c 1 3 && echo made\nchown 1000:1000 a && echo owned\nstat -c %u a";
    let seen = run(
        |image| vec![run_step("test", &[], image, &format!("set +e\n{script}"))],
        |_| {},
    )
    .await;
    let log = seen.log("test");
    assert!(log.contains("owned\n1000"), "{log}");
    assert!(!log.contains("made"), "{log}");
}
