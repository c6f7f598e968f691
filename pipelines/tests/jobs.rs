//! The jobs of a run: which there are, and what follows when one of them ends.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use jiff::Timestamp;
use proptest::prelude::*;
use roadstead_pipelines::fact::RunFact;
use roadstead_pipelines::id::{CommitSha, ImageDigest, ImageName, JobName, ProjectName, RunId};
use roadstead_pipelines::job::{JobState, jobs};
use roadstead_pipelines::release::ImageRef;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::run::{AttemptOutcome, MOST_ATTEMPTS, Run, RunState};
use roadstead_pipelines::spec::{self, LeftOut, Pipeline};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;

/// A file of steps, each with what it needs; those in `own` have a job for themselves.
fn pipeline(steps: &[(&str, &[&str])], own: &[&str]) -> Pipeline {
    let mut text = "version: 1\nname: shop\nsteps:\n".to_owned();
    for (name, needs) in steps {
        let needs = needs.join(", ");
        writeln!(text, "  {name}: {{ image: a, run: b, needs: [{needs}] }}").unwrap();
    }
    let mut pipeline = spec::parse("f", &text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
    for name in own {
        pipeline.steps[*name].runs_on = vec!["big".to_owned()];
    }
    pipeline
}

/// `job: step, step < needed job`.
fn drawn(pipeline: &Pipeline, left_out: &LeftOut) -> Vec<String> {
    let line = |(name, job): (&JobName, &roadstead_pipelines::job::Job)| {
        let steps: Vec<_> = job.steps.iter().map(AsRef::as_ref).collect();
        let needs: Vec<_> = job.needs.iter().map(AsRef::as_ref).collect();
        format!("{name}: {} < {}", steps.join(", "), needs.join(", "))
            .trim_end_matches(" < ")
            .to_owned()
    };
    jobs(pipeline, left_out).iter().map(line).collect()
}

fn job(name: &str) -> JobName {
    JobName::parse(name).unwrap()
}

fn run_of(pipeline: Pipeline) -> Run {
    let project = ProjectName::parse("shop").unwrap();
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let id = RunId::new(&project, 1);
    let mut run = Run::asked_for(id, commit, "refs/heads/main".into(), BEGIN);
    run.pipeline = Some(pipeline);
    run.state = RunState::Preparing;
    let repositories = BTreeMap::new();
    with(&run, &RunFact::RegistryPrepared { repositories })
}

fn with(run: &Run, fact: &RunFact) -> Run {
    run.apply(fact, BEGIN).unwrap()
}

/// The next attempt begins.
fn claim(run: &Run, name: &str) -> Run {
    let fact = RunFact::JobClaimed {
        job: job(name),
        attempt: run.state.jobs().unwrap().attempts + 1,
        runner: "harbour".into(),
    };
    with(run, &fact)
}

fn ended(attempt: u32, outcome: AttemptOutcome) -> RunFact {
    RunFact::AttemptEnded { attempt, outcome }
}

fn succeeded() -> AttemptOutcome {
    let images = BTreeMap::new();
    AttemptOutcome::Succeeded { images }
}

fn pushed(name: &str) -> AttemptOutcome {
    let image = ImageRef {
        repository_uri: format!("registry.test/{name}"),
        digest: ImageDigest::parse(&format!("sha256:{}", "1".repeat(64))).unwrap(),
    };
    AttemptOutcome::Succeeded {
        images: [(ImageName::parse(name).unwrap().into(), image)].into(),
    }
}

fn failed(message: &str) -> AttemptOutcome {
    let failure = Failure::failed(message);
    AttemptOutcome::Failed { failure }
}

fn claimable(run: &Run) -> Vec<&str> {
    run.state.claimable().map(|(job, _)| job.as_str()).collect()
}

/// `lint` and `images` share no job: `test` with a runner of its own lies between them.
fn common() -> Pipeline {
    pipeline(
        &[("lint", &[]), ("test", &["lint"]), ("images", &["test"])],
        &["test"],
    )
}

#[test]
fn steps_without_keys_of_their_own_are_one_job() {
    let file = pipeline(&[("c", &["b"]), ("b", &["a"]), ("a", &[]), ("d", &[])], &[]);
    assert_eq!(drawn(&file, &LeftOut::new()), ["default: a, b, c, d"]);
}

#[test]
fn a_step_behind_a_job_of_a_single_step_comes_into_a_later_job() {
    assert_eq!(
        drawn(&common(), &LeftOut::new()),
        [
            "default: lint",
            "test: test < default",
            "default-2: images < test"
        ]
    );
    let wide = pipeline(
        &[
            ("lint", &[]),
            ("docs", &[]),
            ("big", &["lint"]),
            ("huge", &["big"]),
            ("images", &["huge", "docs"]),
            ("told", &["images"]),
        ],
        &["big", "huge"],
    );
    assert_eq!(
        drawn(&wide, &LeftOut::new()),
        [
            "default: lint, docs",
            "big: big < default",
            "huge: huge < big",
            "default-2: images, told < default, huge",
        ]
    );
}

#[test]
fn what_is_left_out_draws_no_border() {
    let file = common();
    let test = file.steps.get_key_value("test").unwrap().0.clone();
    let left_out = [(test, "a reason".to_owned())].into();
    assert_eq!(drawn(&file, &left_out), ["default: lint, images"]);
}

#[test]
fn a_job_waits_for_those_that_it_needs_and_attempts_are_numbered_in_the_run() {
    let run = run_of(common());
    assert_eq!(
        (run.state.word(), claimable(&run)),
        ("queued", vec!["default"])
    );
    let run = claim(&run, "default");
    assert_eq!((run.state.word(), claimable(&run)), ("building", vec![]));
    let run = with(&run, &ended(1, succeeded()));
    assert_eq!(
        (run.state.word(), claimable(&run)),
        ("building", vec!["test"])
    );
    let run = with(&claim(&run, "test"), &ended(2, pushed("a")));
    assert_eq!(claimable(&run), ["default-2"]);
    let run = with(&claim(&run, "default-2"), &ended(3, pushed("b")));
    let RunState::Confirming { images } = &run.state else {
        panic!("{:?}", run.state);
    };
    let images: Vec<_> = images.keys().map(ToString::to_string).collect();
    assert_eq!(images, ["a", "b"], "of all jobs");
}

#[test]
fn when_a_job_fails_what_needs_it_is_skipped_and_the_others_go_on() {
    let steps: [(&str, &[&str]); 4] = [
        ("one", &[]),
        ("two", &[]),
        ("after", &["one"]),
        ("last", &["after"]),
    ];
    let run = run_of(pipeline(&steps, &["one", "two", "after", "last"]));
    assert_eq!(claimable(&run), ["one", "two"]);
    let run = claim(&claim(&run, "one"), "two");
    let later = BEGIN + jiff::SignedDuration::from_secs(1);
    let run = with(&run, &ended(1, failed("step one: no")));
    let jobs = &run.state.jobs().unwrap().jobs;
    let skipped = |needed| JobState::Skipped {
        needed: job(needed),
    };
    assert_eq!(jobs[&job("after")], skipped("one"));
    assert_eq!(jobs[&job("last")], skipped("after"));
    let run = run.apply(&ended(2, failed("step two: no")), later).unwrap();
    let RunState::Failed { failure, at } = run.state else {
        panic!("{:?}", run.state);
    };
    assert_eq!((failure.message.as_str(), at), ("step one: no", later));
}

#[test]
fn each_job_has_as_many_attempts_as_a_job_may_have() {
    let run = run_of(pipeline(&[("one", &[]), ("two", &[])], &["one", "two"]));
    let mut run = claim(&run, "two");
    for number in 2..=MOST_ATTEMPTS + 1 {
        run = claim(&run, "one");
        let reason = "it was not heard".to_owned();
        let lost = RunFact::AttemptLost {
            attempt: number,
            reason,
        };
        run = with(&run, &lost);
    }
    assert_eq!(claimable(&run), [""; 0]);
    let run = with(&run, &ended(1, succeeded()));
    let RunState::Failed { failure, .. } = run.state else {
        panic!("{:?}", run.state);
    };
    let told = "job one: 3 attempts were lost; the last one: it was not heard";
    assert_eq!(failure.message, told);
}

#[test]
fn a_cancelled_run_is_over_when_every_runner_has_stopped() {
    let run = run_of(pipeline(
        &[("one", &[]), ("two", &[]), ("three", &[])],
        &["one", "two", "three"],
    ));
    let run = claim(&claim(&run, "one"), "two");
    let run = with(&run, &RunFact::CancelRequested { by: "ada".into() });
    assert_eq!((run.state.word(), claimable(&run)), ("cancelling", vec![]));
    let run = with(&run, &ended(1, AttemptOutcome::Cancelled));
    assert_eq!(run.state.word(), "cancelling", "the other one works still");
    let run = with(&run, &ended(2, succeeded()));
    let by = "ada".to_owned();
    assert_eq!(run.state, RunState::Cancelled { by, at: BEGIN });
}

#[test]
fn a_claim_of_another_job_or_number_is_refused() {
    let run = run_of(common());
    let claim = |name: &str, attempt| RunFact::JobClaimed {
        job: job(name),
        attempt,
        runner: "harbour".into(),
    };
    assert!(run.apply(&claim("test", 1), BEGIN).is_err(), "it waits");
    assert!(run.apply(&claim("default", 2), BEGIN).is_err());
    assert!(run.apply(&claim("default", 1), BEGIN).is_ok());
}

#[test]
fn a_state_reads_as_it_was_written() {
    let run = claim(&run_of(common()), "default");
    let cancelling = with(&run, &RunFact::CancelRequested { by: "ada".into() });
    for state in [run.state, cancelling.state] {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state);
    }
}

proptest! {
    /// Any graph: each step that is kept is in one job, behind what it needs, and jobs draw no circle.
    #[test]
    fn jobs_keep_what_steps_need(
        needs in prop::collection::vec(any::<u8>(), 1..9),
        own in any::<u16>(),
        out in any::<u16>(),
    ) {
        let names: Vec<String> = (0..needs.len()).map(|n| format!("s{n}")).collect();
        let bits = |mask: u8, below: usize| -> Vec<&str> {
            (0..below.min(8)).filter(|bit| mask & (1 << bit) != 0).map(|bit| names[bit].as_str()).collect()
        };
        let edges: Vec<Vec<&str>> = needs.iter().enumerate().map(|(n, mask)| bits(*mask, n)).collect();
        let steps: Vec<(&str, &[&str])> =
            names.iter().zip(&edges).map(|(name, needs)| (name.as_str(), needs.as_slice())).collect();
        let chosen = |mask: u16| -> Vec<&str> {
            names.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, name)| name.as_str()).collect()
        };
        let file = pipeline(&steps, &chosen(own));
        let left_out: LeftOut = file.steps.keys()
            .filter(|name| chosen(out).contains(&name.as_str()))
            .map(|name| (name.clone(), String::new()))
            .collect();
        let found = jobs(&file, &left_out);
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut over: BTreeSet<&JobName> = BTreeSet::new();
        for (name, job) in &found {
            prop_assert!(job.needs.iter().all(|need| over.contains(need)), "{found:?}");
            let reach: BTreeSet<&str> = job.needs.iter()
                .flat_map(|need| &found[need].steps).map(AsRef::as_ref).collect();
            for step in &job.steps {
                prop_assert_eq!(job.steps.len() == 1 || !file.steps[step].has_own_job(), true);
                for need in roadstead_pipelines::job::needs_of(&file.steps[step], &file, &left_out) {
                    let here = job.steps.contains(need) && done.contains(need.as_str());
                    prop_assert!(here || reach.contains(need.as_str()), "{step} needs {need}: {found:?}");
                }
                prop_assert!(done.insert(step.as_str()), "{step} is in two jobs");
            }
            over.insert(name);
        }
        prop_assert_eq!(done.len(), file.steps.len() - left_out.len());
    }
}
