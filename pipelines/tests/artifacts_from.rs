//! Whose artifacts a step of a run gets.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use jiff::Timestamp;
use roadstead_pipelines::artifacts_from::givers;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId, StepName};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::{self, Event};

const FILE: &str = "\
version: 1
name: shop
steps:
  build: { image: a, run: b, artifacts: [x] }
  unit: { image: a, run: b, artifacts: [x], matrix: { on: [one, two] } }
  docs: { image: a, run: b, artifacts: [x], runs_on: [big], when: { branches: [release] } }
  near: { image: a, run: b, needs: [build], artifacts_from: [build] }
  far:
    image: a
    run: b
    runs_on: [big]
    needs: [unit, docs, build, near]
    artifacts_from: [unit, docs, build]
  plain: { image: a, run: b, runs_on: [big], needs: [build] }
";

fn run(git_ref: &str) -> Run {
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let id = RunId::new(&ProjectName::parse("shop").unwrap(), 1);
    let mut run = Run::asked_for(id, commit, git_ref.into(), Timestamp::UNIX_EPOCH);
    let pipeline = spec::parse("f", FILE).unwrap();
    run.left_out = spec::left_out(&pipeline, git_ref, Event::Push, None);
    run.pipeline = Some(pipeline);
    run
}

fn told(run: &Run, step: &str) -> Vec<String> {
    let givers = givers(run, &StepName::parse(step).unwrap());
    let line = |it: &roadstead_pipelines::artifacts_from::Giver| format!("{}: {}", it.job, it.step);
    givers.iter().map(line).collect()
}

#[test]
fn a_step_gets_those_of_steps_of_other_jobs_in_the_order_in_which_it_names_them() {
    let run = run("refs/heads/release");
    let all = [
        "unit-one: unit-one",
        "unit-two: unit-two",
        "docs: docs",
        "default: build",
    ];
    assert_eq!(told(&run, "far"), all);
    let nothing: [&str; 0] = [];
    assert_eq!(told(&run, "near"), nothing, "its own job's lie there");
    assert_eq!(told(&run, "plain"), nothing, "it names none");
    assert_eq!(told(&run, "astray"), nothing, "there is none");
}

#[test]
fn a_step_that_is_left_out_gives_nothing() {
    let run = run("refs/heads/main");
    let rest = ["unit-one: unit-one", "unit-two: unit-two", "default: build"];
    assert_eq!(told(&run, "far"), rest);
}

#[test]
fn what_a_step_names_without_needing_it_is_not_given() {
    let mut run = run("refs/heads/release");
    let pipeline = run.pipeline.as_mut().unwrap();
    let far = pipeline.steps.get_mut("far").unwrap();
    far.needs.retain(|need| need.as_str() == "docs");
    assert_eq!(told(&run, "far"), ["docs: docs"]);
}
