//! Runs of pull requests: whose code runs, when, with what, and that nothing comes of it but its result.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod support;

use roadstead_pipelines::action::{Actor, approve_run};
use roadstead_pipelines::commit_status::{State, Status};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{CommitSha, ImageDigest, ImageName, JobName, RunId};
use roadstead_pipelines::planner::plan;
use roadstead_pipelines::pull_request::{PullRequest, RunApproval, Trust, ends_when_closed};
use roadstead_pipelines::release::ImageRef;
use roadstead_pipelines::report::WhoActs;
use roadstead_pipelines::run::{AttemptOutcome, Run, RunState};
use roadstead_pipelines::secret::withheld_from;
use roadstead_pipelines::spec::Role;
use roadstead_pipelines::started_by::StartedBy;
use support::{AUTO, Stage, pipeline};

fn fork() -> Trust {
    Trust::Untrusted {
        fork: Some("mallory/shop".into()),
    }
}

/// A run of pull request 7, which comes from a branch called `main` to the branch `main`.
fn pull_request(stage: &mut Stage, trust: Trust) -> RunId {
    let id = stage.push();
    let run = stage.world.runs.get_mut(&id).unwrap();
    run.git_ref = "refs/pull/7/head".into();
    run.started_by = StartedBy::PullRequest(PullRequest {
        number: 7,
        base_ref: "refs/heads/main".into(),
        head_branch: "main".into(),
        trust,
    });
    id
}

fn stage() -> Stage {
    Stage::new(pipeline(AUTO))
}

fn run<'s>(stage: &'s Stage, id: &RunId) -> &'s Run {
    &stage.world.runs[id]
}

fn ada() -> Actor {
    Actor {
        name: "ada".into(),
        role: Role::Deployer,
    }
}

fn changed(stage: &mut Stage, id: &RunId, fact: RunFact) {
    stage.change(&[Change::Run {
        run: id.clone(),
        fact,
    }]);
}

/// A runner does its job, and says that it pushed an image.
fn build(stage: &mut Stage, id: &RunId) {
    let job = JobName::shared(0);
    let runner = "harbour".into();
    let claimed = RunFact::JobClaimed {
        job,
        attempt: 1,
        runner,
    };
    changed(stage, id, claimed);
    let image = ImageRef {
        repository_uri: "registry.test/shop/app".into(),
        digest: ImageDigest::parse(&format!("sha256:{}", "1".repeat(64))).unwrap(),
    };
    let images = [(ImageName::parse("app").unwrap().into(), image)].into();
    let ended = RunFact::AttemptEnded {
        attempt: 1,
        outcome: AttemptOutcome::Succeeded { images },
    };
    changed(stage, id, ended);
}

#[test]
fn code_from_a_fork_waits_until_a_deployer_lets_its_commit_run() {
    let mut stage = stage();
    let id = pull_request(&mut stage, fork());
    stage.settle();
    let waits = run(&stage, &id).clone();
    let since = stage.now;
    assert_eq!(waits.state, RunState::WaitingForApproval { since });
    assert_eq!(waits.state.claimable().count(), 0, "no runner gets it");
    let plan = plan(&stage.world, stage.now);
    assert!(plan.effects.is_empty(), "{:?}", plan.effects);
    let [waiting] = plan.waiting_on.as_slice() else {
        panic!("{:?}", plan.waiting_on);
    };
    assert_eq!(waiting.who, WhoActs::Role(Role::Deployer));
    assert!(waiting.reason.contains(waits.commit.short()), "{waiting:?}");
    let status = Status::of(&waits).unwrap();
    assert_eq!(status.state, State::Pending);

    // Of another commit than the one that waits.
    let other = CommitSha::parse(&"f".repeat(40)).unwrap();
    let refused = approve_run(&stage.world, &id, &other, &ada()).unwrap_err();
    assert!(refused.0.contains("for one commit alone"), "{refused}");
    let forged = RunFact::Approved {
        by: "ada".into(),
        commit: other,
    };
    waits.apply(&forged, stage.now).unwrap_err();

    let approved = approve_run(&stage.world, &id, &waits.commit, &ada()).unwrap();
    stage.change(&approved);
    stage.settle();
    let runs = run(&stage, &id);
    let approval = RunApproval {
        by: "ada".into(),
        commit: waits.commit.clone(),
        at: stage.now,
    };
    assert_eq!(runs.approval, Some(approval));
    assert_eq!(runs.state.claimable().count(), 1);
    let refused = approve_run(&stage.world, &id, &waits.commit, &ada()).unwrap_err();
    assert!(refused.0.contains("waits for no approval"), "{refused}");
}

#[test]
fn the_next_commit_waits_anew_and_ends_the_run_before() {
    let mut stage = stage();
    let first = pull_request(&mut stage, fork());
    stage.settle();
    let commit = run(&stage, &first).commit.clone();
    let approved = approve_run(&stage.world, &first, &commit, &ada()).unwrap();
    stage.change(&approved);
    stage.settle();
    let second = pull_request(&mut stage, fork());
    stage.settle();
    assert!(matches!(
        run(&stage, &second).state,
        RunState::WaitingForApproval { .. }
    ));
    assert_eq!(run(&stage, &second).approval, None);
    let RunState::Cancelled { by, .. } = &run(&stage, &first).state else {
        panic!("{:?}", run(&stage, &first).state);
    };
    assert_eq!(by, "shop.2, which supersedes it");
    // The approval of then, sent again, is for what is over.
    assert!(approve_run(&stage.world, &first, &commit, &ada()).is_err());
    assert!(approve_run(&stage.world, &second, &commit, &ada()).is_err());
}

#[test]
fn nothing_comes_of_a_pull_request_whatever_its_runner_says() {
    for trust in [Trust::Trusted, fork()] {
        let mut stage = stage();
        let released = stage.ship();
        let before = stage.world.pipeline.clone();
        let id = pull_request(&mut stage, trust.clone());
        stage.settle();
        if !trust.is_trusted() {
            let commit = run(&stage, &id).commit.clone();
            let approved = approve_run(&stage.world, &id, &commit, &ada()).unwrap();
            stage.change(&approved);
            stage.settle();
        }
        assert!(run(&stage, &id).repositories.is_empty());
        build(&mut stage, &id);
        stage.settle();
        let state = &run(&stage, &id).state;
        assert!(
            matches!(state, RunState::Succeeded { release: None, .. }),
            "{trust:?}: {state:?}"
        );
        assert_eq!(stage.world.newest_release().unwrap().id, released);
        assert_eq!(stage.world.pipeline, before);
        let forward = stage.world.deployments.values();
        assert!(forward.into_iter().all(|it| it.release == released));
    }
}

#[test]
fn closing_ends_what_waits_and_nothing_else() {
    let mut stage = stage();
    let id = pull_request(&mut stage, Trust::Trusted);
    assert!(
        ends_when_closed(run(&stage, &id)),
        "its sources are not read"
    );
    stage.settle();
    assert!(ends_when_closed(run(&stage, &id)), "it waits for a runner");
    let claimed = RunFact::JobClaimed {
        job: JobName::shared(0),
        attempt: 1,
        runner: "harbour".into(),
    };
    changed(&mut stage, &id, claimed);
    assert!(!ends_when_closed(run(&stage, &id)), "a runner has it");

    let forked = pull_request(&mut stage, fork());
    stage.settle();
    assert!(ends_when_closed(run(&stage, &forked)));
    let pushed = stage.push();
    assert!(!ends_when_closed(run(&stage, &pushed)));
    let by = "somebody".to_owned();
    changed(&mut stage, &forked, RunFact::CancelRequested { by });
    assert!(matches!(
        run(&stage, &forked).state,
        RunState::Cancelled { .. }
    ));
}

#[test]
fn secrets_go_to_whom_a_push_of_the_same_would_give_them_and_never_to_a_fork() {
    let mut stage = stage();
    let (own, forked) = (
        pull_request(&mut stage, Trust::Trusted),
        pull_request(&mut stage, fork()),
    );
    let pushed = stage.push();
    let main = ["main".to_owned()];
    let release = ["release/*".to_owned()];
    for branches in [&[][..], &main[..]] {
        assert_eq!(withheld_from(run(&stage, &pushed), branches), None);
        assert_eq!(withheld_from(run(&stage, &own), branches), None);
        // Its branch is called main, too, and it is one whether somebody let it run or not.
        let waits = run(&stage, &forked).clone();
        let approval = Some(RunApproval {
            by: "ada".into(),
            commit: waits.commit.clone(),
            at: stage.now,
        });
        let approved = Run {
            approval,
            ..waits.clone()
        };
        for forked in [waits, approved] {
            let why = withheld_from(&forked, branches).unwrap();
            assert!(
                why.contains("from a fork") && why.contains("events: [push]"),
                "{why}"
            );
        }
    }
    for id in [&own, &forked, &pushed] {
        assert!(withheld_from(run(&stage, id), &release).is_some());
    }
}
