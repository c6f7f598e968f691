//! What a forge is to show beside a commit for its run, and how telling it goes. Pure: knows no forge, no
//! address and no clock.
//!
//! A [`Telling`] holds the last word alone: a newer state of the run, or a newer run of the commit, replaces
//! an older one that was not told yet. What was sent without an answer may arrive at the forge later than what
//! was sent after it; so once the last word is told it is told again, when nothing older can be under way.

use crate::git_ref::GitRef;
use crate::id::RunId;
use crate::job::Jobs;
use crate::report::{Failure, FailureKind};
use crate::run::{MOST_ATTEMPTS, Run, RunState};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The name that the status goes by at a forge. It stays: branch protection refers to it.
pub const CONTEXT: &str = "roadstead/run";
/// The same of a run of a pull request: somebody who opens one of a branch's commit from a fork, to another branch with
/// another pipeline file, does not get at what is said of that commit otherwise.
pub const PULL_REQUEST_CONTEXT: &str = "roadstead/pull-request";
/// Characters of a description; GitHub takes no more, the others do.
pub const LONGEST_DESCRIPTION: usize = 140;
/// A call without an answer does its work within this time, or never.
pub const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(120);
/// A status that could not be told for so long is given up.
pub const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(72);
/// Between two tries of a forge that is away, at most.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(300);
/// What a forge may ask to wait, at most: GitHub's limits are by the hour.
const LONGEST_ASKED_WAIT: SignedDuration = SignedDuration::from_secs(3_900);
/// Before the second try of what people have to mend.
const MENDING: SignedDuration = SignedDuration::from_secs(30);

/// What a commit's status says. Each forge has words for these, some the same for two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits.
    Pending,
    /// It is at work.
    Running,
    /// It is over, well.
    Success,
    /// It is over, by the user's code, file or time limit.
    Failure,
    /// It is over, by a fault that is not the user's.
    Error,
    /// It is over because somebody stopped it, or something newer took its place.
    Cancelled,
}

/// A status as a forge shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// One line, [`LONGEST_DESCRIPTION`] characters at most.
    pub description: String,
}

impl Status {
    /// What a run's commit is to show; `None` for nothing: before its sources are read, when its commit may be
    /// an annotated tag's own id, and for a run that its file does not want. Success would say of that one that
    /// something was checked, and pending would stay for ever.
    #[must_use]
    pub fn of(run: &Run) -> Option<Self> {
        if run.pipeline.is_none() && !matches!(GitRef::of(&run.git_ref), GitRef::Branch(_)) {
            return None;
        }
        let (state, description) = match &run.state {
            RunState::Fetching | RunState::Skipped { .. } => return None,
            RunState::WaitingForApproval { .. } => (
                State::Pending,
                "waits for somebody to let it run".to_owned(),
            ),
            RunState::Preparing => (State::Pending, "prepares the registry".to_owned()),
            RunState::Building { jobs } => at_work(jobs),
            RunState::Cancelling { by, .. } => (
                State::Running,
                format!("is being stopped, cancelled by {by}"),
            ),
            RunState::Confirming { .. } | RunState::Confirmed { .. } => (
                State::Running,
                "looks its images up in the registry".to_owned(),
            ),
            RunState::Succeeded {
                release: Some(release),
                ..
            } => (State::Success, format!("succeeded, made release {release}")),
            RunState::Succeeded { release: None, .. } => (State::Success, "succeeded".to_owned()),
            RunState::Failed { failure, .. } => (state_of(failure), failure.message.clone()),
            RunState::TimedOut { step, .. } => (
                State::Failure,
                format!("step {step} ran longer than it may"),
            ),
            RunState::Cancelled { by, .. } => (State::Cancelled, format!("cancelled by {by}")),
        };
        Some(Self {
            state,
            description: one_line(&description),
        })
    }
}

fn at_work(jobs: &Jobs) -> (State, String) {
    let several = jobs.jobs.len() > 1;
    let lost = jobs
        .at_work()
        .map(|work| work.lost)
        .chain(jobs.queued().map(|(_, lost, _)| lost))
        .max()
        .unwrap_or_default();
    let progress = match (several && jobs.have_begun(), lost) {
        (true, _) => format!(", {} of {} jobs are over", jobs.over(), jobs.jobs.len()),
        (false, 0) => String::new(),
        (false, lost) => format!(", attempt {} of {MOST_ATTEMPTS}", lost + 1),
    };
    if jobs.at_work().next().is_some() {
        return (State::Running, format!("builds{progress}"));
    }
    let again = if lost > 0 { " again" } else { "" };
    let state = if jobs.have_begun() {
        State::Running
    } else {
        State::Pending
    };
    (state, format!("waits for a runner{again}{progress}"))
}

fn state_of(failure: &Failure) -> State {
    match failure.kind {
        FailureKind::Failed | FailureKind::TimedOut => State::Failure,
        FailureKind::Errored | FailureKind::NoCapacity => State::Error,
    }
}

/// A text as one line that every forge takes.
fn one_line(text: &str) -> String {
    let plain = text.replace(char::is_control, " ");
    let words: Vec<&str> = plain.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= LONGEST_DESCRIPTION {
        return line;
    }
    let short: String = line.chars().take(LONGEST_DESCRIPTION - 1).collect();
    format!("{}…", short.trim_end())
}

/// What came of telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The forge shows it, or showed it already.
    Taken,
    /// The forge does not take it, and would not later: it knows no such commit.
    Never {
        /// What it said.
        reason: String,
    },
    /// Nothing can be told until somebody mends the token, its rights or the address.
    Mend {
        /// What is wrong.
        reason: String,
    },
    /// Not for now.
    Later {
        /// Why.
        reason: String,
        /// How long the forge asks to wait.
        after: Option<SignedDuration>,
        /// No answer was seen, so the call may still do its work.
        unsure: bool,
    },
}

/// What a forge is to show for a commit, and how telling it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// The run that it is about.
    pub run: RunId,
    /// What the forge is to show.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Until then a call without an answer may still do its work at the forge.
    pub unsettled: Option<Timestamp>,
    /// How far it is.
    pub standing: Standing,
}

/// How far telling is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// It has to be told.
    Untold {
        /// Tries that failed, one after another.
        tries: u32,
        /// The next one is not before this.
        not_before: Timestamp,
        /// Why the last one failed.
        failed: Option<String>,
    },
    /// The forge took it. While it is unsettled it is told again then.
    Told {
        /// When.
        at: Timestamp,
    },
    /// It is not tried any more.
    GivenUp {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
}

impl Telling {
    /// The first word about a commit.
    #[must_use]
    pub fn new(run: RunId, status: Status, now: Timestamp) -> Self {
        Self {
            run,
            status,
            since: now,
            unsettled: None,
            standing: Standing::Untold {
                tries: 0,
                not_before: now,
                failed: None,
            },
        }
    }

    /// With a newer word in the place of this one; `None` when it says the same, or is an older run's. A forge that
    /// is away, or asked to wait, is not tried earlier for it.
    #[must_use]
    pub fn changed(&self, run: &RunId, status: &Status, now: Timestamp) -> Option<Self> {
        let older = run.number() < self.run.number();
        let same = *run == self.run && *status == self.status;
        if older || same {
            return None;
        }
        let mut next = Self::new(run.clone(), status.clone(), now);
        next.unsettled = self.unsettled;
        if let Standing::Untold { .. } = self.standing {
            next.standing = self.standing.clone();
        }
        Some(next)
    }

    /// When the forge has to be called; `None` for never.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        match &self.standing {
            Standing::Untold { not_before, .. } => Some(*not_before),
            Standing::Told { .. } => self.unsettled,
            Standing::GivenUp { .. } => None,
        }
    }

    /// Whoever was telling it was lost, and may have called the forge.
    #[must_use]
    pub fn left_behind(mut self, now: Timestamp) -> Self {
        self.unsettled = Some(now + SETTLED_AFTER);
        self
    }

    /// After an answer to `asked`, which is what this said when the forge was called.
    #[must_use]
    pub fn answered(&self, asked: &Self, answer: &Answer, now: Timestamp) -> Self {
        let mut next = self.clone();
        let current = self.run == asked.run && self.status == asked.status;
        match answer {
            // The newer word is told next, after those tries that had failed before this one.
            Answer::Taken | Answer::Never { .. } if !current => {
                next.standing = Standing::Untold {
                    tries: 0,
                    not_before: now,
                    failed: None,
                };
            }
            Answer::Taken => {
                next.unsettled = self.unsettled.filter(|until| *until > now);
                next.standing = Standing::Told { at: now };
            }
            Answer::Never { reason } => next.give_up(reason, now),
            Answer::Mend { reason } => next.put_off(reason, MENDING, None, now),
            Answer::Later {
                reason,
                after,
                unsure,
            } => {
                if *unsure {
                    next.unsettled = Some(now + SETTLED_AFTER);
                }
                next.put_off(reason, SignedDuration::from_secs(1), *after, now);
            }
        }
        next
    }

    fn give_up(&mut self, reason: &str, now: Timestamp) {
        self.standing = Standing::GivenUp {
            at: now,
            reason: reason.to_owned(),
        };
    }

    /// Tries again after `first`, twice that, four times that …, or after what the forge asks for.
    fn put_off(
        &mut self,
        reason: &str,
        first: SignedDuration,
        asked: Option<SignedDuration>,
        now: Timestamp,
    ) {
        let tries = match &self.standing {
            Standing::Untold { tries, .. } => *tries,
            Standing::Told { .. } | Standing::GivenUp { .. } => 0,
        };
        // A server that was away for as long has not tried yet.
        if tries > 0 && now >= self.since + GIVEN_UP_AFTER {
            let days = GIVEN_UP_AFTER.as_hours() / 24;
            return self.give_up(&format!("not told within {days} days: {reason}"), now);
        }
        let own = LONGEST_WAIT.min(first.saturating_mul(1 << tries.min(16)));
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED_WAIT);
        self.standing = Standing::Untold {
            tries: tries.saturating_add(1),
            not_before: now + own.max(asked),
            failed: Some(reason.to_owned()),
        };
    }
}
