//! Moves runs: each state has the effect that leads out of it, or says whom it waits for.

use super::Draft;
use crate::effect::Effect;
use crate::fact::{Change, RunFact};
use crate::group;
use crate::id::CommitSha;
use crate::job::Jobs;
use crate::release::Release;
use crate::report::{Subject, WaitingOn, WhoActs};
use crate::run::{Run, RunState};
use crate::spec::Role;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Runs of a project whose sources are asked for at the same time: they are read one after the other, and
/// a flood of pushes is not to become as many effects at once.
pub const MOST_FETCHING: usize = 100;

pub(super) fn plan(draft: &mut Draft<'_>) {
    let live = draft.world.runs.values().filter(|run| !run.state.is_over());
    let mut oldest_first: Vec<_> = live.collect();
    oldest_first.sort_by_key(|run| run.id.number());
    let mut fetching = 0;
    for run in oldest_first {
        if run.state == RunState::Fetching {
            fetching += 1;
        }
        one(draft, run, fetching <= MOST_FETCHING);
    }
}

/// `first`: as many older runs as may have their sources read are not in its way.
fn one(draft: &mut Draft<'_>, run: &Run, first: bool) {
    let id = run.id.clone();
    match &run.state {
        RunState::Fetching if !first => {
            let reason =
                format!("its turn: the sources of {MOST_FETCHING} older runs are read before");
            wait(draft, run, &reason, run.created_at, WhoActs::Roadstead);
        }
        RunState::Fetching => {
            draft.effect(Effect::ReadSources { run: id });
            wait(
                draft,
                run,
                "its sources to be read",
                run.created_at,
                WhoActs::Roadstead,
            );
        }
        RunState::WaitingForApproval { since } => {
            let reason = format!(
                "somebody to let commit {} run, as it comes from a fork",
                run.commit.short()
            );
            let who = WhoActs::Role(Role::Deployer);
            wait(draft, run, &reason, *since, who);
        }
        // Its images are pushed nowhere.
        RunState::Preparing if run.pull_request().is_some() => {
            let repositories = BTreeMap::new();
            let fact = RunFact::RegistryPrepared { repositories };
            draft.change(Change::Run { run: id, fact });
        }
        RunState::Preparing => {
            draft.effect(Effect::PrepareRegistry { run: id });
            wait(
                draft,
                run,
                "its image repositories to be prepared",
                run.created_at,
                WhoActs::Roadstead,
            );
        }
        RunState::Building { jobs } => at_work(draft, run, jobs),
        RunState::Cancelling { until, by, .. } => {
            if draft.now >= *until {
                draft.change(Change::Run {
                    run: id,
                    fact: RunFact::CancelExpired,
                });
            } else {
                let waiting = WaitingOn {
                    subject: Subject::Run { run: id },
                    reason: format!("the runner to stop its containers, cancelled by {by}"),
                    since: draft.now.min(*until),
                    until: Some(*until),
                    who: WhoActs::Runner,
                };
                draft.waits(waiting);
            }
        }
        RunState::Confirming { .. } => {
            draft.effect(Effect::ConfirmImages { run: id });
            wait(
                draft,
                run,
                "the registry to confirm its images",
                run.created_at,
                WhoActs::Roadstead,
            );
        }
        RunState::Confirmed {
            images,
            descendants,
        } => {
            let release = Release {
                id: draft.release_id(),
                run: Some(id.clone()),
                commit: run.commit.clone(),
                descendants: descendants.clone(),
                message: run.message.clone(),
                author: run.author.clone(),
                authorship: run.authorship.clone(),
                images: images.clone(),
                variables: run.variables.clone(),
                task_definitions: run.task_definitions.clone(),
                created_at: draft.now,
            };
            let fact = RunFact::ReleaseMade {
                release: release.id.clone(),
            };
            if let Some(pipeline) = run
                .pipeline
                .as_ref()
                .filter(|_| !is_late(draft, descendants))
            {
                draft.change(Change::AdoptPipeline {
                    pipeline: Box::new(pipeline.clone()),
                });
            }
            draft.change(Change::MakeRelease { release });
            draft.change(Change::Run { run: id, fact });
        }
        RunState::Succeeded { .. }
        | RunState::Skipped { .. }
        | RunState::Failed { .. }
        | RunState::TimedOut { .. }
        | RunState::Cancelled { .. } => {}
    }
}

/// What a run whose jobs are not all over waits for: for those that runners work on, else for a free one.
fn at_work(draft: &mut Draft<'_>, run: &Run, jobs: &Jobs) {
    let several = jobs.jobs.len() > 1;
    let since = jobs.at_work().map(|work| work.since).min();
    if let Some(since) = since {
        let works: Vec<_> = jobs.at_work().collect();
        let reason = match works.as_slice() {
            [work] if !several => format!("its steps on runner {}", work.runner),
            [work] => format!("job {} on runner {}", work.job, work.runner),
            some => format!(
                "{} jobs on their runners, {} of {} are over",
                some.len(),
                jobs.over(),
                jobs.jobs.len()
            ),
        };
        return wait(draft, run, &reason, since, WhoActs::Runner);
    }
    let Some((job, lost, since)) = jobs.queued().min_by_key(|(_, _, since)| *since) else {
        return;
    };
    let plan = run.jobs();
    let group = plan.get(job).and_then(|job| job.group.as_ref());
    let in_line = group.and_then(|group| {
        let standing = group::standing_of(&draft.world.lines, &run.id, job, group)?;
        group::waits_for(group, &standing)
    });
    if let Some(reason) = in_line {
        return wait(draft, run, &reason, since, WhoActs::Runner);
    }
    let labels = plan.get(job).map(|job| &job.runs_on);
    let labels: Vec<_> = labels.into_iter().flatten().map(String::as_str).collect();
    let mut reason = match labels.as_slice() {
        [] => "a free runner".to_owned(),
        [label] => format!("a free runner with the label {label}"),
        some => format!("a free runner with the labels {}", some.join(", ")),
    };
    if several {
        reason = format!("{reason}, for job {job}");
    }
    if lost > 0 {
        let comma = if several { " " } else { ", for " };
        reason = format!(
            "{reason}{comma}attempt {}: the one before was lost",
            lost + 1
        );
    }
    wait(draft, run, &reason, since, WhoActs::Runner);
}

/// Whether a commit after a run's own is released, or is in this round: then its file holds, as its
/// release is the one that moves.
fn is_late(draft: &Draft<'_>, descendants: &BTreeSet<CommitSha>) -> bool {
    let released = draft.world.releases.values().map(|it| &it.commit);
    let in_this_round = draft.world.runs.values().filter_map(|run| {
        let confirmed = matches!(run.state, RunState::Confirmed { .. });
        confirmed.then_some(&run.commit)
    });
    released
        .chain(in_this_round)
        .any(|commit| descendants.contains(commit))
}

fn wait(draft: &mut Draft<'_>, run: &Run, reason: &str, since: Timestamp, who: WhoActs) {
    draft.waits(WaitingOn {
        subject: Subject::Run {
            run: run.id.clone(),
        },
        reason: reason.to_owned(),
        since,
        until: None,
        who,
    });
}
