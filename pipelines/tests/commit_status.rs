//! What forges are told of runs: every state's words, and that the last word is what a forge shows in the end,
//! whatever is lost on the way. The property is also held against tellings with one rule broken.

#![expect(
    clippy::unwrap_used,
    reason = "a story that breaks off is a failed test"
)]

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use roadstead_pipelines::commit_status::{
    Answer, GIVEN_UP_AFTER, LONGEST_DESCRIPTION, SETTLED_AFTER, Standing, State, Status, Telling,
};
use roadstead_pipelines::id::{CommitSha, JobName, ProjectName, ReleaseId, RunId, StepName};
use roadstead_pipelines::job::{JobState, Jobs};
use roadstead_pipelines::report::{Failure, FailureKind};
use roadstead_pipelines::run::{Run, RunState};
use std::collections::{BTreeMap, BTreeSet};

const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;

fn shop() -> ProjectName {
    ProjectName::parse("shop").unwrap()
}

fn id(number: u64) -> RunId {
    RunId::new(&shop(), number)
}

fn told(state: RunState) -> Option<(State, String)> {
    let commit = CommitSha::parse(&"1".repeat(40)).unwrap();
    let mut run = Run::asked_for(id(1), commit, "refs/heads/main".into(), BEGIN);
    run.state = state;
    Status::of(&run).map(|status| (status.state, status.description))
}

fn failed(kind: FailureKind, message: &str) -> RunState {
    RunState::Failed {
        failure: Failure {
            kind,
            message: message.into(),
            details: vec!["what only the page shows".into()],
        },
        at: BEGIN,
    }
}

#[test]
fn a_tag_that_was_not_read_is_no_commit_yet() {
    let pushed = CommitSha::parse(&"1".repeat(40)).unwrap();
    let of_ref = |git_ref: &str| {
        let mut run = Run::asked_for(id(1), pushed.clone(), git_ref.into(), BEGIN);
        run.state = failed(FailureKind::Failed, "the pipeline file has 2 errors");
        Status::of(&run)
    };
    assert_eq!(of_ref("refs/tags/v1"), None);
    assert!(of_ref("refs/heads/main").is_some());
}

#[test]
fn every_state_of_a_run_has_a_status_with_its_reason() {
    let (since, at) = (BEGIN, BEGIN);
    let runner = || "harbour".to_owned();
    let by = || "ada".to_owned();
    let jobs = |state| Jobs::new([]).with(&JobName::shared(0), state);
    let running = |lost| {
        jobs(JobState::Running {
            attempt: lost + 1,
            lost,
            runner: runner(),
            since,
        })
    };
    let building = |lost| RunState::Building {
        jobs: running(lost),
    };
    let queued = |lost| RunState::Building {
        jobs: jobs(JobState::Queued { lost, since }),
    };
    let cases = [
        (RunState::Preparing, State::Pending, "prepares the registry"),
        (queued(0), State::Pending, "waits for a runner"),
        (
            queued(1),
            State::Pending,
            "waits for a runner again, attempt 2 of 3",
        ),
        (building(0), State::Running, "builds"),
        (building(2), State::Running, "builds, attempt 3 of 3"),
        (
            RunState::Cancelling {
                jobs: running(0),
                by: by(),
                until: at,
            },
            State::Running,
            "is being stopped, cancelled by ada",
        ),
        (
            RunState::Confirming {
                images: BTreeMap::new(),
            },
            State::Running,
            "looks its images up in the registry",
        ),
        (
            RunState::Confirmed {
                images: BTreeMap::new(),
                descendants: BTreeSet::new(),
            },
            State::Running,
            "looks its images up in the registry",
        ),
        (
            RunState::Succeeded {
                release: Some(ReleaseId::new(&shop(), 7)),
                at,
            },
            State::Success,
            "succeeded, made release shop.r7",
        ),
        (
            RunState::Succeeded { release: None, at },
            State::Success,
            "succeeded",
        ),
        (
            failed(FailureKind::Failed, "step test failed:\n  exit status 101"),
            State::Failure,
            "step test failed: exit status 101",
        ),
        (
            failed(FailureKind::Errored, "3 attempts were lost"),
            State::Error,
            "3 attempts were lost",
        ),
        (
            RunState::TimedOut {
                step: StepName::parse("test").unwrap(),
                at,
            },
            State::Failure,
            "step test ran longer than it may",
        ),
        (
            RunState::Cancelled { by: by(), at },
            State::Cancelled,
            "cancelled by ada",
        ),
    ];
    for (state, expected, description) in cases {
        let word = state.word();
        assert_eq!(
            told(state),
            Some((expected, description.to_owned())),
            "{word}"
        );
    }
    assert_eq!(told(RunState::Fetching), None);
    let skipped = RunState::Skipped {
        reason: "no branch of its trigger".into(),
        at,
    };
    assert_eq!(told(skipped), None);
}

#[test]
fn a_description_is_one_line_that_every_forge_takes() {
    let exact = "ä".repeat(LONGEST_DESCRIPTION);
    assert_eq!(told(failed(FailureKind::Failed, &exact)).unwrap().1, exact);
    let long = format!("{exact}ä");
    let short = told(failed(FailureKind::Failed, &long)).unwrap().1;
    assert_eq!(short.chars().count(), LONGEST_DESCRIPTION);
    assert!(short.ends_with("ä…"), "{short}");
    let odd = told(failed(FailureKind::Failed, "a\u{1b}[31m\r\nb\0c\t d "))
        .unwrap()
        .1;
    assert_eq!(odd, "a [31m b c d");
}

fn status(word: &str) -> Status {
    Status {
        state: State::Running,
        description: word.to_owned(),
    }
}

fn after(seconds: i64) -> Timestamp {
    BEGIN + SignedDuration::from_secs(seconds)
}

fn later(after: Option<i64>) -> Answer {
    Answer::Later {
        reason: "the forge answered 503".into(),
        after: after.map(SignedDuration::from_secs),
        unsure: false,
    }
}

/// A forge that is away is tried less and less often, and as it asks; a newer word does not hurry it.
#[test]
fn a_forge_that_is_away_is_left_alone_for_longer_each_time() {
    let mut telling = Telling::new(id(1), status("builds"), BEGIN);
    let mut now = BEGIN;
    let mut waits = vec![];
    for _ in 0..11 {
        telling = telling.answered(&telling, &later(None), now);
        waits.push(telling.due().unwrap().duration_since(now).as_secs());
        now = telling.due().unwrap();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let newer = telling.changed(&id(1), &status("succeeded"), now).unwrap();
    let next = newer.answered(&newer, &later(None), now);
    assert_eq!(next.due(), Some(now + SignedDuration::from_secs(300)));

    let asked = telling.answered(&telling, &later(Some(1_800)), now);
    let then = now + SignedDuration::from_secs(1_800);
    assert_eq!(asked.due(), Some(then));
    let newer = asked.changed(&id(1), &status("succeeded"), now).unwrap();
    assert_eq!(
        newer.due(),
        Some(then),
        "a newer word waits as the forge asked"
    );
    let for_ever = telling.answered(&telling, &later(Some(i64::MAX / 2)), now);
    assert!(for_ever.due().unwrap() < now + SignedDuration::from_hours(2));
}

#[test]
fn what_is_wrong_is_tried_for_three_days_and_then_said_to_be_given_up() {
    let wrong = Answer::Mend {
        reason: "the forge answered 401".into(),
    };
    let mut telling = Telling::new(id(1), status("succeeded"), BEGIN);
    let mut tries = 0;
    while let Some(due) = telling.due() {
        telling = telling.answered(&telling, &wrong, due);
        tries += 1;
    }
    let Standing::GivenUp { at, reason } = &telling.standing else {
        panic!("{telling:?}");
    };
    assert_eq!(reason, "not told within 3 days: the forge answered 401");
    assert!(
        *at >= BEGIN + GIVEN_UP_AFTER
            && *at < BEGIN + GIVEN_UP_AFTER + SignedDuration::from_mins(10)
    );
    assert!((800..1_000).contains(&tries), "{tries} tries");
    // A newer word is worth another try.
    let newer = telling.changed(&id(2), &status("builds"), *at).unwrap();
    assert_eq!(newer.due(), Some(*at));

    let never = Answer::Never {
        reason: "the forge answered 422".into(),
    };
    let first = Telling::new(id(1), status("builds"), BEGIN);
    let refused = first.answered(&first, &never, after(1));
    assert_eq!(refused.due(), None);
    assert!(
        matches!(&refused.standing, Standing::GivenUp { reason, .. } if reason.ends_with("422"))
    );
}

#[test]
fn only_what_is_new_is_told_and_an_older_run_of_the_commit_is_not() {
    let first = Telling::new(id(2), status("builds"), BEGIN);
    let shown = first.answered(&first, &Answer::Taken, after(1));
    assert_eq!(shown.due(), None);
    assert_eq!(shown.changed(&id(2), &status("builds"), after(2)), None);
    assert_eq!(shown.changed(&id(1), &status("failed"), after(2)), None);
    let again = shown.changed(&id(3), &status("builds"), after(2)).unwrap();
    assert_eq!((again.due(), &again.run), (Some(after(2)), &id(3)));
}

/// What happens to telling, to the forge, and to the calls between them.
#[derive(Debug, Clone)]
enum Event {
    /// The run goes on, or a newer run of the commit begins.
    Change { newer_run: bool },
    /// The forge is called, and while the call is under way the run may go on.
    Call { fate: Fate, changed: bool },
    /// Time goes by.
    Wait(i64),
    /// A call that was thought lost does its work.
    Land(prop::sample::Index),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Taken,
    /// It did its work; the answer was lost.
    AnswerLost,
    /// No answer came; it does its work later.
    Late,
    /// As before, and whoever called dies before it notes anything.
    LateAndKilled,
    /// It did its work; whoever called dies before it notes that.
    TakenAndKilled,
    AskedToWait,
}

/// Which rule a telling breaks, to see that the property would notice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// Calls without an answer are forgotten.
    Settled,
    /// An answer to an older word counts for the newest.
    AnyAnswer,
    /// The next one does not know that the one before was killed.
    Forgetful,
}

struct Scene {
    broken: Broken,
    now: Timestamp,
    words: u64,
    telling: Telling,
    killed: bool,
    shown: Option<Status>,
    under_way: Vec<(Timestamp, Status)>,
}

impl Scene {
    fn new(broken: Broken) -> Self {
        Self {
            broken,
            now: BEGIN,
            words: 0,
            telling: Telling::new(id(1), status("0"), BEGIN),
            killed: false,
            shown: None,
            under_way: vec![],
        }
    }

    fn change(&mut self, newer_run: bool) {
        self.words += 1;
        let run = id(self.telling.run.number() + u64::from(newer_run));
        let word = status(&self.words.to_string());
        self.telling = self.telling.changed(&run, &word, self.now).unwrap();
    }

    fn wait_until(&mut self, then: Timestamp) {
        self.now = self.now.max(then);
        while let Some(at) = self
            .under_way
            .iter()
            .position(|(until, _)| *until <= self.now)
        {
            self.shown = Some(self.under_way.remove(at).1);
        }
    }

    fn call(&mut self, fate: Fate, changed: bool) {
        if self.telling.due().is_none_or(|due| due > self.now) {
            return;
        }
        if std::mem::take(&mut self.killed) && self.broken != Broken::Forgetful {
            self.telling = self.telling.clone().left_behind(self.now);
        }
        let asked = self.telling.clone();
        match fate {
            Fate::Taken | Fate::AnswerLost | Fate::TakenAndKilled => {
                self.shown = Some(asked.status.clone());
            }
            Fate::Late | Fate::LateAndKilled => {
                let until = self.now + SETTLED_AFTER;
                self.under_way.push((until, asked.status.clone()));
            }
            Fate::AskedToWait => {}
        }
        if changed {
            self.change(false);
        }
        let answer = match fate {
            Fate::TakenAndKilled | Fate::LateAndKilled => {
                self.killed = true;
                return;
            }
            Fate::Taken => Answer::Taken,
            Fate::AnswerLost | Fate::Late => Answer::Later {
                reason: "no answer".into(),
                after: None,
                unsure: true,
            },
            Fate::AskedToWait => later(Some(60)),
        };
        let asked = match self.broken {
            Broken::AnyAnswer => self.telling.clone(),
            _ => asked,
        };
        self.telling = self.telling.answered(&asked, &answer, self.now);
        if self.broken == Broken::Settled {
            self.telling.unsettled = None;
        }
    }

    /// The forge answers from now on, and there is no more news.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            let Some(due) = self.telling.due() else {
                self.wait_until(self.now + SETTLED_AFTER);
                prop_assert_eq!(self.shown.as_ref(), Some(&self.telling.status));
                return Ok(());
            };
            self.wait_until(due);
            self.call(Fate::Taken, false);
        }
        Err(TestCaseError::fail("it is told again and again"))
    }
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![
        3 => Just(Fate::Taken),
        1 => Just(Fate::AnswerLost),
        2 => Just(Fate::Late),
        1 => Just(Fate::LateAndKilled),
        1 => Just(Fate::TakenAndKilled),
        1 => Just(Fate::AskedToWait),
    ];
    prop_oneof![
        2 => any::<bool>().prop_map(|newer_run| Event::Change { newer_run }),
        4 => (fate, any::<bool>()).prop_map(|(fate, changed)| Event::Call { fate, changed }),
        2 => (1_i64..90).prop_map(Event::Wait),
        1 => any::<prop::sample::Index>().prop_map(Event::Land),
    ]
}

fn hold(broken: Broken) -> Result<(), TestError<Vec<Event>>> {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 2_000,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&prop::collection::vec(event(), 1..40), |events| {
        let mut scene = Scene::new(broken);
        for event in events {
            match event {
                Event::Change { newer_run } => scene.change(newer_run),
                Event::Call { fate, changed } => scene.call(fate, changed),
                Event::Wait(seconds) => {
                    scene.wait_until(scene.now + SignedDuration::from_secs(seconds));
                }
                Event::Land(which) if !scene.under_way.is_empty() => {
                    let at = which.index(scene.under_way.len());
                    scene.shown = Some(scene.under_way.remove(at).1);
                }
                Event::Land(_) => {}
            }
        }
        scene.settle()
    })
}

#[test]
fn in_the_end_a_forge_shows_the_last_word() {
    hold(Broken::Nothing).unwrap();
}

#[test]
fn a_telling_with_a_broken_rule_is_found_out() {
    for broken in [Broken::Settled, Broken::AnyAnswer, Broken::Forgetful] {
        assert!(
            matches!(hold(broken), Err(TestError::Fail(..))),
            "{broken:?}"
        );
    }
}
