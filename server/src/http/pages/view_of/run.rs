//! Runs: their states, steps, mistakes in the file, and what they made.

use super::{run_name, short, time};
use crate::store::{
    Artifact, Attempt, GAP_FILLER, RunDetail, RunLine, SCHEDULE, StepRow, StepTests,
};
use roadstead_pipelines::id::JobName;
use roadstead_pipelines::job::{Job, JobState, Jobs};
use roadstead_pipelines::release::Release;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec::{Step as StepSpec, StepAction};
use roadstead_pipelines::started_by::StartedBy;
use roadstead_protocol::{FailedCase, StepState};
use roadstead_web::view::{self, Diagnostic, ReleaseImage, RunInput, RunSummary, Step};

/// Most artifacts on one page.
const MOST_ARTIFACTS: usize = 200;

/// A run's state as pages know it.
pub(in super::super) fn run_state(state: &RunState) -> view::RunState {
    match state {
        RunState::Fetching | RunState::Preparing => view::RunState::Queued,
        RunState::WaitingForApproval { .. } => view::RunState::Unapproved,
        RunState::Building { jobs } if !jobs.have_begun() => view::RunState::Queued,
        RunState::Building { .. } | RunState::Confirming { .. } | RunState::Confirmed { .. } => {
            view::RunState::Running
        }
        RunState::Cancelling { .. } => view::RunState::Cancelling,
        RunState::Succeeded { .. } => view::RunState::Succeeded,
        RunState::Skipped { .. } | RunState::Cancelled { .. } => view::RunState::Cancelled,
        RunState::Failed { .. } => view::RunState::Failed,
        RunState::TimedOut { .. } => view::RunState::TimedOut,
    }
}

/// Why a run is not green or not moving; may be empty.
pub(in super::super) fn run_reason(state: &RunState) -> String {
    match state {
        RunState::Fetching => "reading the sources".to_owned(),
        RunState::WaitingForApproval { .. } => {
            "code from a fork runs once somebody has looked at it".to_owned()
        }
        RunState::Preparing => "preparing the registry".to_owned(),
        RunState::Building { jobs } => at_work(jobs),
        RunState::Succeeded { .. } => String::new(),
        RunState::Cancelling { by, .. } => {
            format!("cancelled by {by}; its runner has not confirmed that it stopped")
        }
        RunState::Confirming { .. } => "looking its images up in the registry".to_owned(),
        RunState::Confirmed { .. } => "making the release".to_owned(),
        RunState::Skipped { reason, .. } => format!("skipped: {reason}"),
        RunState::Failed { failure, .. } => failure.message.clone(),
        RunState::TimedOut { step, .. } => format!("step {step} ran into its timeout"),
        RunState::Cancelled { by, .. } => format!("cancelled by {by}"),
    }
}

/// What went wrong already; else why nothing of it moves.
fn at_work(jobs: &Jobs) -> String {
    if let Some((job, _)) = jobs.first_wrong() {
        return format!("job {job} did not succeed; the jobs that do not need it go on");
    }
    if jobs.at_work().next().is_some() {
        return String::new();
    }
    match jobs.queued().map(|(_, lost, _)| lost).max() {
        Some(lost) if lost > 0 => format!(
            "attempt {} waits for a runner; the one before was lost",
            lost + 1
        ),
        _ => "waits for a runner".to_owned(),
    }
}

/// What started a run, as its page says it; `actor` is who asked for it, if that is known.
pub(in super::super) fn started_by(run: &Run, actor: Option<&str>) -> String {
    match (&run.started_by, actor) {
        (StartedBy::Push, None) => "push".to_owned(),
        (StartedBy::Push, Some(GAP_FILLER)) => "push that no webhook told of".to_owned(),
        (StartedBy::Push, Some(actor)) if actor.ends_with(" webhook") => {
            format!("push, told by a {actor}")
        }
        (StartedBy::Push, Some(actor)) => format!("asked for by {actor}"),
        (StartedBy::PullRequest(_), Some(actor)) if !actor.ends_with(" webhook") => {
            format!("asked for by {actor}")
        }
        (StartedBy::PullRequest(_), Some(actor)) => format!("told by a {actor}"),
        (StartedBy::PullRequest(_), None) => "pull request".to_owned(),
        (StartedBy::Manual { by, .. }, Some(actor)) if actor != by => {
            format!("started by {by}, again by {actor}")
        }
        (StartedBy::Manual { by, .. }, _) => format!("started by {by}"),
        (StartedBy::Schedule { cron, timezone, at }, actor) => {
            let moment = at.strftime("%Y-%m-%d %H:%M");
            let again = match actor {
                Some(actor) if actor != SCHEDULE => format!(", again by {actor}"),
                _ => String::new(),
            };
            format!("schedule {cron} ({timezone}), for {moment} UTC{again}")
        }
    }
}

/// What a run was given, and until its file is read, what it is to be given.
pub(in super::super) fn inputs(run: &Run) -> Vec<RunInput> {
    let given = match &run.started_by {
        StartedBy::Manual { inputs, .. } if run.pipeline.is_none() => inputs,
        StartedBy::Push
        | StartedBy::PullRequest(_)
        | StartedBy::Manual { .. }
        | StartedBy::Schedule { .. } => &run.inputs,
    };
    let inputs = given.iter().map(|(name, value)| RunInput {
        name: name.clone(),
        value: value.clone(),
    });
    inputs.collect()
}

/// A run as a line of a list.
pub(in super::super) fn summary_of_line(line: &RunLine, commits: Option<&str>) -> RunSummary {
    let started = match &line.state {
        RunState::Building { jobs } if jobs.have_begun() => {
            let since = jobs.at_work().map(|work| work.since).min();
            Some(since.unwrap_or(line.created_at))
        }
        _ if line.ended_at.is_some() => Some(line.created_at),
        _ => None,
    };
    RunSummary {
        id: line.id.to_string(),
        name: run_name(line.id.as_str()),
        project: line.id.project().to_string(),
        commit: super::commit(
            &line.commit,
            &line.message,
            &line.author,
            (&line.git_ref, &line.started_by),
            commits,
        ),
        state: run_state(&line.state),
        reason: run_reason(&line.state),
        trigger: match &line.started_by {
            StartedBy::Push => "push".to_owned(),
            StartedBy::PullRequest(_) => "pull request".to_owned(),
            StartedBy::Manual { by, .. } => by.clone(),
            StartedBy::Schedule { .. } => "schedule".to_owned(),
        },
        created: time(line.created_at),
        started: started.map(time),
        ended: line.ended_at.map(time),
    }
}

/// The steps of a run in the order of the file, by their newest attempt; those of the job of `chosen` by that one.
pub(in super::super) fn steps(detail: &RunDetail, chosen: Option<u32>) -> Vec<Step> {
    let Some(pipeline) = &detail.run.pipeline else {
        return vec![];
    };
    let jobs = detail.run.jobs();
    let steps = pipeline.steps.iter().map(|(name, spec)| {
        let mut all = jobs.keys();
        let job = all.find(|job| jobs[*job].steps.contains(name));
        let attempts: Vec<_> = job
            .map(|job| detail.attempts_at(job).collect())
            .unwrap_or_default();
        let was_chosen = attempts
            .iter()
            .find(|it| Some(it.number) == chosen)
            .copied();
        let newest = was_chosen.or(attempts.last().copied());
        let row = newest.and_then(|attempt| {
            let mut rows = detail.steps.iter();
            rows.find(|row| row.attempt == attempt.id && row.name == *name)
        });
        let (state, reason) = match detail.run.left_out.get(name) {
            Some(reason) => (view::StepState::Skipped, reason.clone()),
            None => {
                let waits = job.filter(|_| was_chosen.is_none());
                let told = waits.and_then(|job| before_it_begins(&detail.run, job, &jobs[job]));
                told.unwrap_or_else(|| step_state(&detail.run, spec, newest, row))
            }
        };
        Step {
            name: name.to_string(),
            summary: summary_of_step(spec),
            state,
            reason,
            attempts: attempts.iter().map(|attempt| attempt.number).collect(),
            chosen: was_chosen.map_or(0, |attempt| attempt.number),
            runner: newest.map(|attempt| attempt.runner.clone()),
            started: row.and_then(|row| row.started_at).map(time),
            ended: row
                .and_then(|row| row.ended_at)
                .or_else(|| newest.and_then(|attempt| attempt.ended_at))
                .map(time),
        }
    });
    steps.collect()
}

/// The attempt that is shown, when it is not the newest at its job.
pub(in super::super) fn earlier(detail: &RunDetail, chosen: Option<u32>) -> Option<view::Earlier> {
    let attempt = detail
        .attempts
        .iter()
        .find(|it| Some(it.number) == chosen)?;
    let newest = detail.attempts_at(&attempt.job).next_back()?.number;
    (newest != attempt.number).then(|| view::Earlier {
        attempt: attempt.number,
        job: attempt.job.to_string(),
        newest,
    })
}

/// What a step says whose job waits for a runner, or for another job.
fn before_it_begins(run: &Run, name: &JobName, job: &Job) -> Option<(view::StepState, String)> {
    match run.state.jobs()?.jobs.get(name)? {
        JobState::Waiting => {
            let needs: Vec<_> = job.needs.iter().map(JobName::as_str).collect();
            let reason = format!("waits for {}", needs.join(", "));
            Some((view::StepState::Pending, reason))
        }
        JobState::Skipped { needed } => Some((view::StepState::Skipped, format!("needs {needed}"))),
        JobState::Queued { lost: 0, .. } if job.runs_on.is_empty() => {
            Some((view::StepState::Pending, "waits for a runner".to_owned()))
        }
        JobState::Queued { lost: 0, .. } => {
            let labels: Vec<_> = job.runs_on.iter().map(String::as_str).collect();
            let reason = format!("waits for a runner with {}", labels.join(", "));
            Some((view::StepState::Pending, reason))
        }
        _ => None,
    }
}

fn summary_of_step(spec: &StepSpec) -> String {
    match &spec.action {
        StepAction::Run { run, .. } => {
            let mut lines = run.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.next().unwrap_or_default().to_owned()
        }
        StepAction::Build { images } => {
            let names: Vec<_> = images.iter().map(AsRef::as_ref).collect();
            format!("build {}", names.join(", "))
        }
    }
}

fn step_state(
    run: &Run,
    spec: &StepSpec,
    attempt: Option<&Attempt>,
    row: Option<&StepRow>,
) -> (view::StepState, String) {
    let over = run.state.is_over();
    let cancelled = matches!(run.state, RunState::Cancelled { .. });
    let lost = attempt.is_some_and(|a| a.ended_at.is_some() && a.outcome.is_none());
    let quiet = String::new;
    match row.map(|row| &row.state) {
        None | Some(StepState::Waiting) if cancelled => (view::StepState::Cancelled, quiet()),
        None | Some(StepState::Waiting) if over => (view::StepState::Skipped, quiet()),
        None | Some(StepState::Waiting) => {
            let needs: Vec<_> = spec.needs.iter().map(AsRef::as_ref).collect();
            let reason = match attempt {
                Some(_) if !needs.is_empty() => format!("needs {}", needs.join(", ")),
                Some(_) => "waits for its turn".to_owned(),
                None if matches!(run.state, RunState::WaitingForApproval { .. }) => {
                    "waits for approval".to_owned()
                }
                None => "waits for a runner".to_owned(),
            };
            (view::StepState::Pending, reason)
        }
        Some(StepState::Running | StepState::Retrying { .. }) if lost => (
            view::StepState::Lost,
            "its runner was not heard of any more".to_owned(),
        ),
        Some(StepState::Running | StepState::Retrying { .. }) if over => {
            (view::StepState::Cancelled, quiet())
        }
        Some(StepState::Running) => (view::StepState::Running, quiet()),
        Some(StepState::Retrying { number }) => {
            let reason = format!("{} try", roadstead_protocol::ordinal(*number));
            (view::StepState::Running, reason)
        }
        Some(StepState::Succeeded) => (view::StepState::Succeeded, quiet()),
        Some(StepState::Failed { exit_code, reason }) => {
            let status = exit_code.map(|code| format!("exit status {code}"));
            let parts: Vec<_> = status
                .into_iter()
                .chain((!reason.is_empty()).then(|| reason.clone()))
                .collect();
            (view::StepState::Failed, parts.join(": "))
        }
        Some(StepState::Skipped) => {
            let needs: Vec<_> = spec.needs.iter().map(AsRef::as_ref).collect();
            let reason = if needs.is_empty() {
                quiet()
            } else {
                format!("needs {}", needs.join(", "))
            };
            (view::StepState::Skipped, reason)
        }
        Some(StepState::Cancelled) => (view::StepState::Cancelled, quiet()),
        Some(StepState::TimedOut) => {
            let limit = spec.timeout.map(|limit| format!("its limit is {limit}"));
            (view::StepState::TimedOut, limit.unwrap_or_default())
        }
    }
}

/// Mistakes in the file: what a run failed with before any runner had it.
pub(in super::super) fn diagnostics(detail: &RunDetail) -> Vec<Diagnostic> {
    let RunState::Failed { failure, .. } = &detail.run.state else {
        return vec![];
    };
    if !detail.attempts.is_empty() {
        return vec![];
    }
    failure
        .details
        .iter()
        .map(|text| diagnostic(text))
        .collect()
}

/// Reads `file:line:column: message`, then the excerpt and what to do.
fn diagnostic(text: &str) -> Diagnostic {
    let (head, excerpt) = text.split_once('\n').unwrap_or((text, ""));
    let mut parts = head.splitn(4, ':');
    let read = || -> Option<_> {
        let file = parts.next()?.to_owned();
        let line = parts.next()?.parse().ok()?;
        let column = parts.next()?.parse().ok()?;
        Some((file, line, column, parts.next()?.trim().to_owned()))
    }();
    match read {
        Some((file, line, column, message)) => Diagnostic {
            file,
            line: Some(line),
            column: Some(column),
            message,
            excerpt: excerpt.to_owned(),
        },
        None => Diagnostic {
            file: roadstead_pipelines::spec::FILE_NAME.to_owned(),
            line: None,
            column: None,
            message: head.to_owned(),
            excerpt: excerpt.to_owned(),
        },
    }
}

/// What steps left to be kept: by step, as many as a page shows.
pub(in super::super) fn artifacts(kept: &[Artifact]) -> view::Artifacts {
    let shown = kept.iter().take(MOST_ARTIFACTS);
    view::Artifacts {
        files: shown
            .map(|artifact| view::Artifact {
                step: artifact.step.to_string(),
                attempt: artifact.attempt,
                name: artifact.name.clone(),
                bytes: artifact.length,
                sha256: artifact.sha256.clone(),
            })
            .collect(),
        more: kept.len().saturating_sub(MOST_ARTIFACTS) as u64,
    }
}

/// What test reports of steps come to.
pub(in super::super) fn tests(found: &[StepTests]) -> Vec<view::Tests> {
    let case = |case: &FailedCase| view::FailedCase {
        name: if case.class.is_empty() {
            case.name.clone()
        } else {
            format!("{} › {}", case.class, case.name)
        },
        message: case.message.clone(),
    };
    let found = found.iter().map(|tests| view::Tests {
        step: tests.step.to_string(),
        tests: tests.tests,
        failed: tests.failed,
        skipped: tests.skipped,
        unread: tests.unread,
        cases: tests.cases.iter().map(case).collect(),
    });
    found.collect()
}

/// What a run made.
pub(in super::super) fn release(release: &Release) -> view::Release {
    view::Release {
        id: release.id.to_string(),
        name: short(release.id.as_str()).to_owned(),
        images: release
            .images
            .iter()
            .map(|(name, image)| ReleaseImage {
                name: name.to_string(),
                reference: image.repository_uri.clone(),
                digest: image.digest.to_string(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_file_is_read_back() {
        let found =
            diagnostic(".roadstead/pipeline.yml:3:7: unknown key: `x`\n3 | x: 1\n  = help: y");
        assert_eq!(found.file, ".roadstead/pipeline.yml");
        assert_eq!((found.line, found.column), (Some(3), Some(7)));
        assert_eq!(found.message, "unknown key: `x`");
        assert_eq!(found.excerpt, "3 | x: 1\n  = help: y");
        let other = diagnostic("the registry said: no");
        assert_eq!(
            (other.line, other.message.as_str()),
            (None, "the registry said: no")
        );
    }
}
