//! Groups of jobs: who of a line may be at work, and that all have their turn.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use roadstead_pipelines::fact::RunFact;
use roadstead_pipelines::group::{self, Holder, Lines, Place, Standing, let_in};
use roadstead_pipelines::id::{CommitSha, JobName, ProjectName, RunId};
use roadstead_pipelines::planner::plan;
use roadstead_pipelines::pull_request::{PullRequest, Trust};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec;
use roadstead_pipelines::started_by::StartedBy;
use roadstead_pipelines::world::World;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn id(number: u64) -> RunId {
    RunId::new(&ProjectName::parse("shop").unwrap(), number)
}

fn deploy() -> JobName {
    JobName::parse("deploy").unwrap()
}

fn place(number: u64, limit: u32, holds: bool) -> Place {
    Place {
        run: id(number),
        job: deploy(),
        limit,
        holds,
    }
}

/// A line as `H1 w2 w1`: who holds and who waits, each with the limit of its own file.
fn line(text: &str) -> Vec<Place> {
    let one = |(number, word): (u64, &str)| {
        let (how, limit) = word.split_at(1);
        place(number, limit.parse().unwrap(), how == "H")
    };
    (1..).zip(text.split_whitespace()).map(one).collect()
}

#[test]
fn places_go_to_the_first_who_wait_and_nobody_overtakes() {
    for (before, entered) in [
        ("", &[] as &[usize]),
        ("w1", &[0]),
        ("w1 w1", &[0]),
        ("H1 w1", &[]),
        ("H1 w1 w1", &[]),
        ("w2 w2 w2", &[0, 1]),
        ("H2 w2 w2", &[1]),
        ("H2 H2 w2", &[]),
        // Files of different commits: the lowest limit among those at work and the next one holds.
        ("H2 w1 w2", &[]),
        ("w1 w2", &[0]),
        ("H1 w5", &[]),
        ("H3 w3 w1 w3", &[1]),
        // After a lower limit was named: those at work end first.
        ("H3 H3 H3 w2", &[]),
        // No file has it, and nothing that waits may wait for ever.
        ("w0", &[0]),
        // Whoever waits behind one that holds is not passed by one behind it, wherever that one stands.
        ("w1 H1", &[]),
    ] {
        assert_eq!(let_in(&line(before)), entered, "{before}");
    }
}

#[test]
fn who_waits_is_told_for_whom() {
    let group = spec::Group {
        name: "deploys".into(),
        limit: 2,
    };
    let line = line("H2 H2 w2 w2 w2");
    let told = |number| {
        let standing = group::standing(&line, &id(number), &deploy())?;
        group::waits_for(&group, &standing)
    };
    assert_eq!(
        group::standing(&line, &id(2), &deploy()),
        Some(Standing::Holds)
    );
    assert_eq!((told(1), told(6)), (None, None));
    let held = "group deploys, held by job deploy of shop.1 and job deploy of shop.2";
    assert_eq!(told(3).unwrap(), held);
    assert_eq!(told(4).unwrap(), format!("{held}; 1 job is before it"));
    assert_eq!(told(5).unwrap(), format!("{held}; 2 jobs are before it"));
    let Some(Standing::Waits { position, held_by }) = group::standing(&line, &id(4), &deploy())
    else {
        panic!("it waits");
    };
    let first = Holder {
        run: id(1),
        job: deploy(),
    };
    assert_eq!((position, &held_by[0]), (2, &first));
}

const FILE: &str = "\
version: 1
name: shop
steps:
  test: { image: a, run: b }
  deploy:
    image: a
    run: b
    needs: [test]
    concurrency: { group: 'deploys/{branch}', limit: 3 }
  told: { image: a, run: b, needs: [deploy] }
";

/// A run whose jobs may begin.
fn run(number: u64, git_ref: &str, started_by: StartedBy) -> Run {
    let commit = CommitSha::parse(&format!("{number:040x}")).unwrap();
    let mut run = Run::asked_for(id(number), commit, git_ref.into(), NOW);
    run.started_by = started_by;
    run.pipeline = Some(spec::parse("f", FILE).unwrap());
    run.state = RunState::Preparing;
    let repositories = BTreeMap::new();
    run.apply(&RunFact::RegistryPrepared { repositories }, NOW)
        .unwrap()
}

fn of_pull_request(trust: Trust) -> StartedBy {
    let pull_request = PullRequest {
        number: 7,
        base_ref: "refs/heads/main".into(),
        head_branch: "main".into(),
        trust,
    };
    StartedBy::PullRequest(pull_request)
}

#[test]
fn a_step_in_a_group_is_a_job_of_its_own() {
    let run = run(1, "refs/heads/main", StartedBy::Push);
    let jobs = run.jobs();
    let drawn: Vec<_> = jobs
        .iter()
        .map(|(name, job)| (name.as_str(), job.group.is_some()))
        .collect();
    assert_eq!(
        drawn,
        [("default", false), ("deploy", true), ("default-2", false)]
    );
    assert!(group::are_named_by(&run));
    assert!(
        group::in_line(&jobs, &run.state).is_empty(),
        "what it needs is not over"
    );
}

#[test]
fn a_strangers_run_is_in_no_group_of_the_projects_own() {
    let name = |git_ref: &str, started_by| {
        let run = run(1, git_ref, started_by);
        let jobs = run.jobs();
        let group = jobs["deploy"].group.clone().unwrap();
        assert_eq!(group.limit, 3);
        group.name
    };
    let push = || StartedBy::Push;
    assert_eq!(name("refs/heads/main", push()), "deploys/main");
    // A tag is no branch of its name.
    assert_eq!(name("refs/tags/main", push()), "deploys/tag main");
    let pull = "refs/pull/7/head";
    let own = of_pull_request(Trust::Trusted);
    assert_eq!(name(pull, own), "deploys/pull request #7");
    let fork = || {
        of_pull_request(Trust::Untrusted {
            fork: Some("stranger/shop".into()),
        })
    };
    assert_eq!(name(pull, fork()), "forks: deploys/pull request #7");
    // Wherever it claims to be of: the name is another one.
    assert_eq!(name("refs/heads/main", fork()), "forks: deploys/main");
}

#[test]
fn a_run_whose_job_waits_says_for_which_group() {
    let mut run = run(2, "refs/heads/main", StartedBy::Push);
    let RunState::Building { jobs } = &run.state else {
        panic!("{:?}", run.state);
    };
    let over = roadstead_pipelines::job::JobState::Succeeded {
        images: BTreeMap::new(),
    };
    let jobs = jobs.clone().with(&JobName::shared(0), over);
    let jobs = jobs.moved_on(&run.jobs(), NOW);
    run.state = RunState::Building { jobs };
    let mut world = World::empty(run.project.clone());
    world.runs.insert(run.id.clone(), run);
    let told = |world: &World| plan(world, NOW).waiting_on[0].reason.clone();
    assert_eq!(told(&world), "a free runner, for job deploy");
    let waits = vec![place(1, 3, true), place(2, 3, false)];
    world.lines = Lines::from([("deploys/main".into(), waits)]);
    assert_eq!(
        told(&world),
        "group deploys/main, held by job deploy of shop.1"
    );
}

/// What happens to a line, from outside.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A job with this limit joins.
    Joins(u32),
    /// The n-th leaves: it ends, or its run is cancelled.
    Leaves(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1u32..4).prop_map(Event::Joins),
        2 => (0usize..8).prop_map(Event::Leaves),
    ];
    prop::collection::vec(event, 1..60)
}

/// Lets in whoever may come, and tells them.
fn enter(line: &mut [Place]) -> Vec<RunId> {
    let entered = let_in(line);
    for index in &entered {
        line[*index].holds = true;
    }
    entered.iter().map(|it| line[*it].run.clone()).collect()
}

fn at_work_within_limits(line: &[Place]) -> bool {
    let held = line.iter().filter(|place| place.holds);
    let lowest = held.clone().map(|place| place.limit).min();
    lowest.is_none_or(|lowest| held.count() <= lowest as usize)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_more_are_at_work_than_any_of_them_allows_and_all_have_their_turn(events in events()) {
        let mut line: Vec<Place> = vec![];
        let mut joined = 0;
        let mut began: Vec<RunId> = vec![];
        for event in events {
            match event {
                Event::Joins(limit) => {
                    joined += 1;
                    line.push(place(joined, limit, false));
                }
                Event::Leaves(at) if at < line.len() => drop(line.remove(at)),
                Event::Leaves(_) => {}
            }
            began.extend(enter(&mut line));
            prop_assert!(at_work_within_limits(&line), "{:?}", line);
            prop_assert!(line.first().is_none_or(|first| first.holds), "nobody is at work: {:?}", line);
            prop_assert_eq!(enter(&mut line), vec![], "let in at once");
        }
        // In the order in which they joined.
        prop_assert!(began.is_sorted_by_key(RunId::number), "{:?}", began);
        // Those that are left end one after the other, the last one that works first.
        while let Some(at) = line.iter().rposition(|place| place.holds) {
            line.remove(at);
            began.extend(enter(&mut line));
            prop_assert!(at_work_within_limits(&line), "{:?}", line);
        }
        prop_assert_eq!(line, vec![], "they wait for ever");
    }
}
