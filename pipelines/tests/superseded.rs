//! Builds that a newer push takes the place of.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

mod support;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{CommitSha, JobName, ProjectName, RunId};
use roadstead_pipelines::job::{JobState, Jobs};
use roadstead_pipelines::planner::plan;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::world::World;
use std::collections::{BTreeMap, BTreeSet};
use support::{AUTO, Stage, pipeline};

fn claimed(run: &RunId) -> Change {
    Change::Run {
        run: run.clone(),
        fact: RunFact::JobClaimed {
            job: JobName::shared(0),
            attempt: 1,
            runner: "r1".into(),
        },
    }
}

fn stage(cancels: bool) -> Stage {
    let mut file = pipeline(AUTO);
    file.concurrency.cancel_superseded = cancels;
    Stage::new(file)
}

#[test]
fn a_newer_push_cancels_what_still_builds_and_leaves_releases_alone() {
    let mut stage = stage(true);
    let first = stage.ship();
    let (waits, builds) = (stage.push(), stage.push());
    stage.settle();
    // The third push took the place of the second one at once.
    assert_eq!(
        stage.world.runs[&waits].state,
        RunState::Cancelled {
            by: "shop.3, which supersedes it".into(),
            at: stage.now
        }
    );
    stage.change(&[claimed(&builds)]);
    let newest = stage.push();
    stage.settle();
    let RunState::Cancelling { by, .. } = &stage.world.runs[&builds].state else {
        panic!("{:?}", stage.world.runs[&builds].state);
    };
    assert_eq!(by, "shop.4, which supersedes it");
    stage.build(&newest);
    stage.ecs_completes("staging/web");
    stage.wait(60);
    // The first release was brought to its place, and the newest follows it.
    let deployed: Vec<_> = stage
        .updates
        .iter()
        .map(|(_, _, release)| release)
        .collect();
    assert_eq!(deployed[0], &first);
    assert!(
        deployed.iter().any(|release| release.number() == 2),
        "{deployed:?}"
    );
}

#[test]
fn without_the_key_every_push_is_built() {
    let mut stage = stage(false);
    let runs = [stage.push(), stage.push()];
    stage.settle();
    for run in runs {
        let state = &stage.world.runs[&run].state;
        assert_eq!(state.word(), "queued", "{state:?}");
    }
}

fn state(number: u8) -> RunState {
    let (attempt, lost, since) = (1, 0, Timestamp::UNIX_EPOCH);
    let jobs = |state| Jobs::new([]).with(&JobName::shared(0), state);
    let running = JobState::Running {
        attempt,
        lost,
        runner: "r1".into(),
        since,
    };
    match number {
        0 => RunState::Fetching,
        1 => RunState::Preparing,
        2 => RunState::Building {
            jobs: jobs(JobState::Queued { lost, since }),
        },
        3 => RunState::Building {
            jobs: jobs(running),
        },
        4 => RunState::Cancelling {
            jobs: jobs(running),
            by: "ole".into(),
            until: Timestamp::MAX,
        },
        _ => RunState::Confirming {
            images: BTreeMap::new(),
        },
    }
}

/// Runs in any state, each with any of the older ones to take the place of.
fn worlds() -> impl Strategy<Value = World> {
    prop::collection::vec((0u8..6, any::<u8>()), 1..6).prop_map(|runs| {
        let project = ProjectName::parse("shop").unwrap();
        let mut world = World::empty(project.clone());
        for (number, (word, older)) in (1u64..).zip(runs) {
            let id = RunId::new(&project, number);
            let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
            let now = Timestamp::UNIX_EPOCH;
            let mut run = Run::asked_for(id.clone(), commit, "refs/heads/main".into(), now);
            run.state = state(word);
            let older = (1..number).filter(|bit| older & (1 << bit) != 0);
            run.supersedes = older.map(|number| RunId::new(&project, number)).collect();
            world.runs.insert(id, run);
        }
        world
    })
}

/// What is still to be cancelled, told without the planner.
fn pointless(world: &World) -> BTreeSet<RunId> {
    let words = ["preparing", "queued", "building", "confirming", "confirmed"];
    let goes_on = |run: &&Run| words.contains(&run.state.word());
    let superseded = world
        .runs
        .values()
        .filter(goes_on)
        .flat_map(|run| &run.supersedes);
    let builds = ["fetching", "preparing", "queued", "building"];
    superseded
        .filter(|run| builds.contains(&world.runs[*run].state.word()))
        .cloned()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_superseded_ends_and_nothing_else_does(world in worlds()) {
        let now = Timestamp::UNIX_EPOCH;
        let made = plan(&world, now);
        let mut cancelled = BTreeSet::new();
        for change in &made.changes {
            match change {
                Change::Run { run, fact: RunFact::CancelRequested { .. } } => {
                    prop_assert!(cancelled.insert(run.clone()), "twice: {run}");
                }
                other => return Err(TestCaseError::fail(format!("not asked for: {other:?}"))),
            }
        }
        prop_assert_eq!(cancelled, pointless(&world));
        let after = world.with(&made.changes, now).unwrap();
        prop_assert_eq!(pointless(&after), BTreeSet::new());
    }
}
