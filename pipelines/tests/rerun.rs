//! Jobs of a run that ended badly, sent back to work: which, and why not.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use roadstead_pipelines::fact::RunFact;
use roadstead_pipelines::id::{CommitSha, ImageDigest, ImageName, JobName, ProjectName, RunId};
use roadstead_pipelines::job::JobState;
use roadstead_pipelines::pull_request::{PullRequest, Trust, ends_when_closed};
use roadstead_pipelines::release::ImageRef;
use roadstead_pipelines::report::Failure;
use roadstead_pipelines::rerun::{Seen, Tried, Wish, rerun, standing};
use roadstead_pipelines::run::{AttemptOutcome, Run, RunState};
use roadstead_pipelines::spec;
use roadstead_pipelines::started_by::StartedBy;
use std::collections::{BTreeMap, BTreeSet};

const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;

/// `shared` is needed by none; `one` and `two` are needed by what follows.
const FILE: &str = "\
version: 1
name: shop
steps:
  shared: { image: a, run: b }
  one: { image: a, run: b, runs_on: [big] }
  two: { image: a, run: b, runs_on: [big] }
  after-one: { image: a, run: b, runs_on: [big], needs: [one] }
  after-both: { image: a, run: b, runs_on: [big], needs: [one, two] }
  last: { image: a, run: b, runs_on: [big], needs: [after-one] }
";

/// An attempt as a store has it.
struct Attempt {
    number: u32,
    job: JobName,
    outcome: Option<AttemptOutcome>,
}

/// A run with the attempts that there were.
struct Story {
    run: Run,
    attempts: Vec<Attempt>,
    now: Timestamp,
}

fn job(name: &str) -> JobName {
    JobName::parse(name).unwrap()
}

fn failed() -> AttemptOutcome {
    AttemptOutcome::Failed {
        failure: Failure::failed("step x: no"),
    }
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

fn run_of(number: u64) -> Run {
    let project = ProjectName::parse("shop").unwrap();
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let id = RunId::new(&project, number);
    let mut run = Run::asked_for(id, commit, "refs/heads/main".into(), BEGIN);
    run.pipeline = Some(spec::parse("f", FILE).unwrap());
    run.state = RunState::Preparing;
    let repositories = BTreeMap::new();
    let fact = RunFact::RegistryPrepared { repositories };
    run.apply(&fact, BEGIN).unwrap()
}

impl Story {
    fn begin() -> Self {
        Self {
            run: run_of(1),
            attempts: vec![],
            now: BEGIN,
        }
    }

    fn tell(&mut self, fact: &RunFact) {
        self.now += SignedDuration::from_secs(1);
        self.run = self.run.apply(fact, self.now).unwrap();
    }

    fn claim(&mut self, name: &str) -> u32 {
        let attempt = self.run.state.jobs().unwrap().attempts + 1;
        self.tell(&RunFact::JobClaimed {
            job: job(name),
            attempt,
            runner: "harbour".into(),
        });
        self.attempts.push(Attempt {
            number: attempt,
            job: job(name),
            outcome: None,
        });
        attempt
    }

    fn end(&mut self, attempt: u32, outcome: AttemptOutcome) {
        let mut known = self.attempts.iter_mut();
        known.find(|it| it.number == attempt).unwrap().outcome = Some(outcome.clone());
        self.tell(&RunFact::AttemptEnded { attempt, outcome });
    }

    /// A runner takes a job and ends it.
    fn perform(&mut self, name: &str, outcome: AttemptOutcome) {
        let attempt = self.claim(name);
        self.end(attempt, outcome);
    }

    fn seen(&self) -> Seen<'_> {
        let tried = self.attempts.iter().map(|it| Tried {
            number: it.number,
            job: &it.job,
            runner: "harbour",
            at: self.now,
            outcome: it.outcome.as_ref(),
        });
        Seen {
            run: &self.run,
            ended_at: self.run.state.is_over().then_some(self.now),
            attempts: tried.collect(),
            logs_removed: false,
            open: vec![],
        }
    }

    fn ask(&self, jobs: &[&str]) -> Result<Option<RunFact>, String> {
        let answer = rerun(&self.seen(), &wish(jobs, None));
        answer.map_err(|refusal| refusal.to_string())
    }

    /// The jobs that go back to work.
    fn again(&mut self, jobs: &[&str]) -> Vec<String> {
        let fact = self.ask(jobs).unwrap().unwrap();
        let RunFact::RerunRequested { again, .. } = &fact else {
            panic!("{fact:?}");
        };
        let names = again.iter().map(ToString::to_string).collect();
        self.tell(&fact);
        names
    }

    fn claimable(&self) -> Vec<&str> {
        let jobs = self.run.state.claimable();
        jobs.map(|(job, _)| job.as_str()).collect()
    }

    fn states(&self) -> Vec<String> {
        let jobs = standing(&self.seen());
        let line = |(job, state): (&JobName, &JobState)| format!("{job}: {}", state.word());
        jobs.iter().map(line).collect()
    }
}

fn wish(jobs: &[&str], after: Option<u32>) -> Wish {
    Wish {
        by: "ada".into(),
        jobs: jobs.iter().map(ToString::to_string).collect(),
        after,
    }
}

/// `one` and `two` failed, `shared` pushed an image.
fn two_failed() -> Story {
    let mut story = Story::begin();
    story.perform("default", pushed("a"));
    story.perform("one", failed());
    story.perform("two", failed());
    assert_eq!(story.run.state.word(), "failed");
    story
}

#[test]
fn what_failed_and_what_was_skipped_for_it_runs_again_under_new_numbers() {
    let mut story = two_failed();
    assert_eq!(
        story.again(&[]),
        ["after-both", "after-one", "last", "one", "two"]
    );
    assert_eq!(story.claimable(), ["one", "two"], "the others need them");
    assert_eq!(story.claim("one"), 4, "attempts go on counting");
    story.end(4, pushed("b"));
    story.perform("two", pushed("c"));
    for name in ["after-one", "after-both", "last"] {
        story.perform(name, pushed(name));
    }
    let RunState::Confirming { images } = &story.run.state else {
        panic!("{:?}", story.run.state);
    };
    let images: Vec<_> = images.keys().map(ToString::to_string).collect();
    let all = ["a", "after-both", "after-one", "b", "c", "last"];
    assert_eq!(images, all, "those of the job that was not run again, too");
}

#[test]
fn one_job_runs_again_alone_with_what_only_it_kept_from_beginning() {
    let mut story = two_failed();
    assert_eq!(
        story.again(&["one"]),
        ["after-both", "after-one", "last", "one"]
    );
    story.perform("one", pushed("b"));
    assert_eq!(story.claimable(), ["after-one"]);
    story.perform("after-one", pushed("c"));
    story.perform("last", pushed("d"));
    assert_eq!(story.run.state.word(), "failed", "`two` failed, still");
    let all = [
        "default: succeeded",
        "one: succeeded",
        "two: failed",
        "after-one: succeeded",
        "after-both: skipped",
        "last: succeeded",
    ];
    assert_eq!(story.states(), all);
    assert_eq!(story.again(&["two"]), ["after-both", "two"]);
}

#[test]
fn a_cancelled_run_goes_on_where_it_was_stopped() {
    let mut story = Story::begin();
    story.perform("default", pushed("a"));
    let (one, two) = (story.claim("one"), story.claim("two"));
    story.tell(&RunFact::CancelRequested { by: "ole".into() });
    // This one was done before its runner heard of it.
    story.end(one, pushed("b"));
    story.end(two, AttemptOutcome::Cancelled);
    assert_eq!(story.run.state.word(), "cancelled");
    assert_eq!(story.again(&[]), ["after-both", "after-one", "last", "two"]);
    assert_eq!(story.claimable(), ["after-one", "two"]);
}

#[test]
fn a_job_that_runs_again_may_be_lost_as_often_as_any_other() {
    let mut story = two_failed();
    story.again(&["one"]);
    for number in [4, 5] {
        story.claim("one");
        let reason = "it was not heard".to_owned();
        story.tell(&RunFact::AttemptLost {
            attempt: number,
            reason,
        });
        assert_eq!(story.claimable(), ["one"]);
    }
}

#[test]
fn every_refusal_says_why() {
    let story = two_failed();
    let why = |story: &Story, jobs: &[&str]| story.ask(jobs).unwrap_err();
    assert_eq!(
        why(&story, &["three"]),
        "shop.1 has no job `three`; its jobs are: default, one, two, after-one, after-both, last"
    );
    assert_eq!(
        why(&story, &["default"]),
        "job default of shop.1 ended well: it is not run again"
    );
    assert_eq!(
        why(&story, &["after-one"]),
        "job after-one of shop.1 needs one, which did not end well: run one again, and after-one follows"
    );
    let mut gone = story.seen();
    gone.logs_removed = true;
    let refused = rerun(&gone, &Wish::default()).unwrap_err().to_string();
    assert!(refused.starts_with("retention removes"), "{refused}");

    let begun = Story::begin();
    assert_eq!(
        why(&begun, &[]),
        "shop.1 is queued: jobs run again once it is over; cancel it first"
    );
    let mut stopped = Story::begin();
    stopped.tell(&RunFact::CancelRequested { by: "ole".into() });
    assert!(why(&stopped, &[]).starts_with("no job of shop.1 has begun"));
    let mut unread = run_of(1);
    unread.pipeline = None;
    unread.state = RunState::Fetching;
    let refused = RunFact::Refused {
        failure: Failure::failed("the file is wrong"),
    };
    let unread = Story {
        run: unread.apply(&refused, BEGIN).unwrap(),
        attempts: vec![],
        now: BEGIN,
    };
    assert!(why(&unread, &[]).starts_with("no job of shop.1 has begun"));

    // What fails after the jobs is not theirs.
    let mut built = Story::begin();
    for name in ["default", "one", "two", "after-one", "after-both", "last"] {
        built.perform(name, pushed(name));
    }
    assert!(why(&built, &[]).starts_with("shop.1 is confirming"));
    built.tell(&refused);
    assert!(why(&built, &[]).starts_with("every job of shop.1 ended well"));
}

#[test]
fn a_run_that_a_newer_one_would_cancel_at_once_stays_over() {
    let story = two_failed();
    let mut newer = run_of(2);
    newer.supersedes = [story.run.id.clone()].into();
    let ask = |newer: &Run| {
        let mut seen = story.seen();
        seen.open = vec![newer];
        rerun(&seen, &Wish::default())
    };
    assert_eq!(
        ask(&newer).unwrap_err().to_string(),
        "shop.2, which supersedes shop.1, is queued: shop.1 would be cancelled for it"
    );
    newer.supersedes.clear();
    assert!(ask(&newer).is_ok(), "it came when the first was over");
    // Not so of a pull request: its older commit is of no use to anybody.
    newer.started_by = StartedBy::PullRequest(PullRequest {
        number: 7,
        base_ref: "refs/heads/main".into(),
        head_branch: "topic".into(),
        trust: Trust::Trusted,
    });
    assert!(ask(&newer).is_err());
    newer.id = RunId::new(&newer.project, 0);
    assert!(ask(&newer).is_ok(), "an older one");
}

#[test]
fn what_waits_to_run_again_ends_with_its_pull_request() {
    let mut story = two_failed();
    story.run.started_by = StartedBy::PullRequest(PullRequest {
        number: 7,
        base_ref: "refs/heads/main".into(),
        head_branch: "topic".into(),
        trust: Trust::Trusted,
    });
    story.again(&[]);
    assert!(ends_when_closed(&story.run), "no runner has anything of it");
    story.claim("one");
    assert!(!ends_when_closed(&story.run), "a runner has");
}

#[test]
fn the_same_wish_twice_is_one() {
    let mut story = two_failed();
    let pressed = wish(&["one"], Some(3));
    let fact = rerun(&story.seen(), &pressed).unwrap().unwrap();
    story.tell(&fact);
    assert_eq!(rerun(&story.seen(), &pressed).unwrap(), None, "it waits");
    story.perform("one", failed());
    assert_eq!(story.run.state.word(), "failed");
    assert_eq!(rerun(&story.seen(), &pressed).unwrap(), None, "it is over");
    assert!(
        rerun(&story.seen(), &wish(&["one"], Some(4)))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_fact_reads_as_it_was_written_and_fits_runs_alone_that_ended_badly() {
    let mut story = two_failed();
    let fact = story.ask(&[]).unwrap().unwrap();
    let text = serde_json::to_string(&fact).unwrap();
    assert_eq!(serde_json::from_str::<RunFact>(&text).unwrap(), fact);
    story.tell(&fact);
    assert!(story.run.apply(&fact, BEGIN).is_err(), "it is at work");
}

proptest! {
    /// However jobs end, whichever is asked for: what ended well stays so and has its images, and the run is at work
    /// with a job that somebody can take.
    #[test]
    fn what_ended_well_never_runs_again(ends in prop::collection::vec(0u8..4, 6), named in any::<u8>()) {
        let mut story = Story::begin();
        let mut ends = ends.into_iter();
        while let Some(name) = story.claimable().first().map(ToString::to_string) {
            let outcome = match ends.next() {
                Some(0) => failed(),
                Some(1) => AttemptOutcome::Cancelled,
                _ => pushed(&name),
            };
            story.perform(&name, outcome);
        }
        let before = standing(&story.seen());
        let jobs: Vec<String> = before.keys().map(ToString::to_string).collect();
        let chosen: Vec<&str> = jobs.iter().enumerate()
            .filter(|(bit, _)| named & (1 << bit) != 0).map(|(_, job)| job.as_str()).collect();
        let Ok(Some(fact)) = story.ask(&chosen) else { return Ok(()); };
        let attempts = story.attempts.len();
        story.tell(&fact);
        let well: BTreeSet<&JobName> = before.iter()
            .filter(|(_, state)| matches!(state, JobState::Succeeded { .. })).map(|(job, _)| job).collect();
        let now = &story.run.state.jobs().unwrap().jobs;
        for job in &well {
            prop_assert_eq!(&now[*job], &before[*job]);
        }
        prop_assert!(!story.claimable().is_empty());
        prop_assert_eq!(story.run.state.jobs().unwrap().attempts as usize, attempts);
    }
}
