//! One run: its steps, the log that is open, what it made.

use askama::Template;

use super::deployment::DeploymentSummary;
use super::frame::{Frame, Permission, Time, Waiting};
use super::project::RunSummary;
use super::state::StepState;
use crate::page::Page;
use crate::{assets, format, parts, urls};

/// `/runs/{run}`.
#[derive(Debug, Clone, PartialEq, Eq, Template)]
#[template(path = "run.html")]
pub struct RunPage {
    /// The layout around the page.
    pub frame: Frame,
    /// The run itself.
    pub run: RunSummary,
    /// What it was given, by the names of the file's inputs.
    pub inputs: Vec<RunInput>,
    /// What is to be known of a pull request's run: whose pipeline file it has, who let it run.
    pub notes: Vec<String>,
    /// What it waits for, when nothing of it is moving.
    pub waiting: Option<Waiting>,
    /// Why its forge does not show how it went, when it could not be told.
    pub untold: Option<Untold>,
    /// Errors in the pipeline file, with excerpts.
    pub diagnostics: Vec<Diagnostic>,
    /// Its jobs, each behind those that it needs; none when it has the one that every run has.
    pub jobs: Vec<Job>,
    /// All steps, in the order of the file; the page groups them by state.
    pub steps: Vec<Step>,
    /// The log that is open; by convention that of the failed step, else of the running one.
    pub log: Option<LogPanel>,
    /// What test reports of steps come to.
    pub tests: Vec<Tests>,
    /// What steps left to be kept.
    pub artifacts: Artifacts,
    /// What the run made, once its images are pushed.
    pub release: Option<Release>,
    /// Deployments of that release.
    pub deployments: Vec<DeploymentSummary>,
    /// Whether the viewer may let untrusted code run; absent when it does not wait for that.
    pub approve: Permission,
    /// Whether the viewer may cancel.
    pub cancel: Permission,
    /// Whether the viewer may start a new run of its commit.
    pub retry: Permission,
    /// Whether the viewer may send the jobs that ended badly back to work.
    pub rerun: Permission,
    /// How many attempts it has had.
    pub attempts: u32,
    /// The attempt that is shown of its job, if another than the newest was chosen.
    pub earlier: Option<Earlier>,
}

/// An attempt that was not the last one at its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its number in the run.
    pub attempt: u32,
    /// The job.
    pub job: String,
    /// The newest attempt at that job.
    pub newest: u32,
}

/// An input of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInput {
    /// Its name.
    pub name: String,
    /// Its value. May be empty.
    pub value: String,
}

/// A commit status that the forge does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// Why: `the forge answered 401: the token is wrong, or has expired`.
    pub reason: String,
    /// When it is tried next; `None` when it is not tried any more.
    pub next: Option<Time>,
}

/// One job, by its newest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name, unique within the run.
    pub name: String,
    /// How far it is; jobs and steps have the same states.
    pub state: StepState,
    /// Why it failed, was skipped or waits. May be empty.
    pub reason: String,
    /// The names of its steps.
    pub steps: Vec<String>,
    /// The values of its matrix: `rust 1.95, db sqlite`. Empty without one.
    pub matrix: String,
    /// Jobs that it needs.
    pub needs: Vec<String>,
    /// Labels that its runner has to have.
    pub labels: Vec<String>,
    /// The name of the runner that has or had its newest attempt.
    pub runner: Option<String>,
    /// When that attempt began.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
    /// The numbers of its attempts in the run, the first one first.
    pub attempts: Vec<u32>,
    /// The one that is shown; none when no runner has had it.
    pub shown: Option<u32>,
    /// Whether it ended badly, so that it may run again.
    pub wrong: bool,
}

/// One step, by its newest attempt, or by the one that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name in the pipeline file, unique within the run.
    pub name: String,
    /// What it does: the first line of `run`, or `build api, web`.
    pub summary: String,
    /// How far it is.
    pub state: StepState,
    /// Why it failed, was skipped or waits: `exit status 101`, `needs test`. May be empty.
    pub reason: String,
    /// The numbers of its job's attempts in the run, the first one first.
    pub attempts: Vec<u32>,
    /// The one that was chosen; 0: whichever is the newest.
    pub chosen: u32,
    /// The name of the runner that has or had the newest attempt.
    pub runner: Option<String>,
    /// When the newest attempt started.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
}

/// What the test reports of a step come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tests {
    /// The step.
    pub step: String,
    /// All cases.
    pub tests: u64,
    /// Those that failed, or broke off.
    pub failed: u64,
    /// Those that were not tried.
    pub skipped: u64,
    /// Files that could not be read.
    pub unread: u64,
    /// The first cases that failed.
    pub cases: Vec<FailedCase>,
}

/// A case that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCase {
    /// What it is called; whatever somebody who can push called it.
    pub name: String,
    /// What it said, raw.
    pub message: String,
}

impl Tests {
    /// How many failed cases are not told.
    pub(crate) fn more(&self) -> u64 {
        self.failed.saturating_sub(self.cases.len() as u64)
    }

    /// `412 tests, 3 failed, 2 skipped`.
    pub(crate) fn line(&self) -> String {
        let mut line = format::count(&self.tests, "test", "tests");
        for (number, word) in [(self.failed, "failed"), (self.skipped, "skipped")] {
            if number > 0 {
                line = format!("{line}, {number} {word}");
            }
        }
        if self.unread > 0 {
            let files = format::count(&self.unread, "report", "reports");
            line = format!("{line}; {files} could not be read");
        }
        line
    }
}

/// What the steps of one attempt left to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Artifacts {
    /// By step and name, as many as are shown (the server's choice).
    pub files: Vec<Artifact>,
    /// How many more there are.
    pub more: u64,
}

/// A file that a step left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The step.
    pub step: String,
    /// Which attempt left it; the first is 1.
    pub attempt: u32,
    /// Its path in the step's workspace; whatever somebody who can push called it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// A part of one attempt's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPanel {
    /// The step's name.
    pub step: String,
    /// Which attempt; the first is 1.
    pub attempt: u32,
    /// The lines to show, consecutive; at most 2,000 (the server's choice).
    pub lines: Vec<LogLine>,
    /// How many lines the log has so far.
    pub total_lines: u64,
    /// How many bytes the log has so far.
    pub total_bytes: u64,
    /// Whether more may come.
    pub live: bool,
    /// When retention removed it, if it did.
    pub removed: Option<Time>,
    /// The storage of logs did not answer: nothing is known of this one now.
    pub unread: bool,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number; the first is 1.
    pub number: u64,
    /// When the runner read it, if known.
    pub at: Option<Time>,
    /// The raw text without its line feed; may hold terminal sequences, which
    /// [`crate::ansi::to_html`] makes safe.
    pub text: String,
}

/// An error in the pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file: `.roadstead/pipeline.yml`.
    pub file: String,
    /// 1-based; `None` when the file as a whole is meant.
    pub line: Option<u32>,
    /// 1-based.
    pub column: Option<u32>,
    /// What is wrong, and what to do.
    pub message: String,
    /// The lines around it, with a caret under the place. May be empty.
    pub excerpt: String,
}

/// A commit with the images that were built of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its id, as forms send it.
    pub id: String,
    /// What it is called: `r12`.
    pub name: String,
    /// One per image (and variant).
    pub images: Vec<ReleaseImage>,
}

/// One image of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseImage {
    /// Its name in the pipeline file.
    pub name: String,
    /// Repository and tag, as pushed.
    pub reference: String,
    /// `sha256:…`.
    pub digest: String,
}

/// Steps of one kind of state, as the sidebar shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepGroup<'a> {
    /// The heading.
    pub(crate) title: &'static str,
    /// In the order of the file.
    pub(crate) steps: Vec<&'a Step>,
}

impl RunPage {
    /// The steps by what they ask of the reader: failures first, what is done last.
    pub(crate) fn groups(&self) -> Vec<StepGroup<'_>> {
        let groups: [(&str, &[StepState]); 5] = [
            (
                "Failed",
                &[StepState::Failed, StepState::TimedOut, StepState::Lost],
            ),
            ("Running", &[StepState::Running]),
            ("Waiting", &[StepState::Pending]),
            ("Not run", &[StepState::Skipped, StepState::Cancelled]),
            ("Done", &[StepState::Succeeded]),
        ];
        groups
            .into_iter()
            .map(|(title, states)| StepGroup {
                title,
                steps: self
                    .steps
                    .iter()
                    .filter(|step| states.contains(&step.state))
                    .collect(),
            })
            .filter(|group| !group.steps.is_empty())
            .collect()
    }

    /// How many artifacts there are.
    pub(crate) fn kept(&self) -> u64 {
        self.artifacts.files.len() as u64 + self.artifacts.more
    }

    /// The beginning of a checksum, as much as people compare.
    #[expect(clippy::unused_self, reason = "templates call methods of their page")]
    pub(crate) fn short_sum<'a>(&self, sha256: &'a str) -> &'a str {
        sha256.get(..12).unwrap_or(sha256)
    }

    /// The step whose log is open.
    pub(crate) fn shown(&self) -> Option<&Step> {
        let log = self.log.as_ref()?;
        self.steps.iter().find(|step| step.name == log.step)
    }

    /// Whether the open log is that of this step.
    pub(crate) fn shows(&self, step: &str) -> bool {
        self.log.as_ref().is_some_and(|log| log.step == step)
    }
}

impl LogPanel {
    /// How many earlier lines one press on "earlier" goes back.
    const STRIDE: u64 = 2000;

    /// The number of the last line that is shown; 0 when there is none.
    pub(crate) fn last_shown(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.number)
    }

    /// The number of the line after the last one that is shown.
    pub(crate) fn next_line(&self) -> u64 {
        self.last_shown() + 1
    }

    /// Where the range before the one that is shown starts.
    pub(crate) fn earlier(&self) -> u64 {
        self.lines
            .first()
            .map_or(1, |line| line.number.saturating_sub(Self::STRIDE).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_goes_back_one_stride_and_not_below_the_first_line() {
        let panel = |from: u64| LogPanel {
            step: "test".into(),
            attempt: 1,
            lines: (from..from + 3)
                .map(|number| LogLine {
                    number,
                    at: None,
                    text: String::new(),
                })
                .collect(),
            total_lines: 9000,
            total_bytes: 0,
            live: false,
            removed: None,
            unread: false,
        };
        assert_eq!(
            (panel(7001).earlier(), panel(7001).next_line()),
            (5001, 7004)
        );
        assert_eq!(panel(1500).earlier(), 1);
        let mut empty = panel(1);
        empty.lines.clear();
        assert_eq!((empty.earlier(), empty.next_line()), (1, 1));
    }
}
