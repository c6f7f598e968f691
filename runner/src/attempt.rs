//! One attempt from its assignment to the server's receipt of its result.
//!
//! Owns that order: note it on disk, accept, bring the files, run the steps, report, forget. A
//! lost attempt ends without a word; whatever else happens, a result is offered.

use crate::{
    Runner,
    audience::Audience,
    client::{AttemptClient, Backoff, CallError, RESULT_PATIENCE, retry},
    secret::Secret,
    secrets::Secrets,
    state::is_plain_name,
    steps::{self, StepRoom, StepsEnd},
    stop::{StopReason, StopSignal},
};
use anyhow::{Context, bail};
use roadstead_protocol::{ACCEPT_SECONDS, Assignment, AttemptResult, Outcome, Step};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::task::TaskTracker;

/// How long a leaving runner offers its last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The work of an attempt.
pub(crate) struct Job {
    pub(crate) steps: Vec<Step>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) secrets: Secrets,
}

/// Runs one assignment; every trouble is the server's to hear or the runner's log's.
pub(crate) async fn run(runner: Arc<Runner>, assignment: Assignment, stop: StopSignal) {
    let attempt = assignment.attempt.clone();
    let id = attempt.attempt.clone();
    let token = Secret::new(assignment.token.clone());
    let client = runner.client.attempt(attempt.clone(), token.clone());
    tracing::info!(
        attempt = id,
        project = assignment.project,
        commit = assignment.commit,
        "begins"
    );
    let threads = TaskTracker::new();
    let reported = async {
        runner
            .with_state(move |state| state.remember(&attempt, &token))
            .await?;
        accept(&client).await?;
        runner.has_accepted();
        let StepsEnd { outcome, images } =
            work(&runner, &client, assignment, &stop, &threads).await;
        let result = AttemptResult {
            fence: client.fence(),
            outcome,
            images,
        };
        report(&client, &result, &stop).await
    }
    .await;
    let known_to_the_server = match &reported {
        Ok(()) => true,
        Err(error) => {
            let error_text = format!("{error:#}");
            tracing::warn!(attempt = id, error = error_text, "ends without a report");
            stop.is_lost() || matches!(error.downcast_ref(), Some(CallError::Lost(_)))
        }
    };
    // A check-out that was broken off may still write files.
    threads.close();
    threads.wait().await;
    if let Err(error) = clean(&runner, &id, known_to_the_server).await {
        tracing::error!(
            attempt = id,
            error = format!("{error:#}"),
            "leaves something behind"
        );
    }
    tracing::info!(attempt = id, "is over");
}

async fn accept(client: &AttemptClient) -> anyhow::Result<()> {
    retry(Duration::from_secs(ACCEPT_SECONDS), || client.accept())
        .await
        .context("cannot accept the attempt")
}

async fn work(
    runner: &Runner,
    client: &AttemptClient,
    assignment: Assignment,
    stop: &StopSignal,
    threads: &TaskTracker,
) -> StepsEnd {
    let prepared = match make_folders(runner, client, &assignment).await {
        Ok((workspace, spool)) => tokio::select! {
            done = check_out(runner, client, &assignment, &workspace, threads) => {
                done.map(|commit_time| (workspace, spool, commit_time))
            }
            reason = stop.stopped() => {
                return StepsEnd { outcome: stopped(reason), images: vec![] };
            }
        },
        Err(error) => Err(error),
    };
    let (workspace, spool, commit_time) = match prepared {
        Ok(folders) => folders,
        Err(error) => return not_begun(stop, &error.context("cannot bring the sources here")),
    };
    let secrets = tokio::select! {
        secrets = Secrets::fetch(client, &assignment.steps) => secrets,
        reason = stop.stopped() => {
            return StepsEnd { outcome: stopped(reason), images: vec![] };
        }
    };
    let secrets = match secrets {
        Ok(secrets) => secrets,
        Err(error) => return not_begun(stop, &error),
    };
    let environment = steps::environment(
        &assignment.project,
        &assignment.run,
        &assignment.commit,
        &assignment.git_ref,
    );
    let room = Arc::new(StepRoom {
        engine: runner.engine.clone(),
        builder: runner.builder.clone(),
        project: assignment.project,
        audience: Audience::Server(client.clone()),
        workspace,
        commit_time: Some(commit_time),
        spool,
        stop: stop.clone(),
        disk: runner.disk.clone(),
        side_by_side: runner.slots,
    });
    let job = Arc::new(Job {
        steps: assignment.steps,
        environment,
        secrets,
    });
    let steps = steps::run(Arc::clone(&room), job);
    tokio::pin!(steps);
    tokio::select! {
        end = &mut steps => end,
        () = last_words_spoken(stop) => StepsEnd {
            outcome: stopped(StopReason::RunnerLeaves),
            images: vec![],
        },
    }
}

/// The end of an attempt whose steps could not begin.
fn not_begun(stop: &StopSignal, error: &anyhow::Error) -> StepsEnd {
    if let Some(CallError::Lost(_)) = error.downcast_ref() {
        stop.stop(StopReason::Lost);
    }
    StepsEnd {
        outcome: Outcome::Errored {
            reason: format!("{error:#}"),
        },
        images: vec![],
    }
}

/// A leaving runner does not wait for a server that does not take the logs.
async fn last_words_spoken(stop: &StopSignal) {
    stop.wait_for(StopReason::RunnerLeaves).await;
    let grace = Duration::from_secs(roadstead_protocol::CANCEL_GRACE_SECONDS);
    tokio::time::sleep(grace + LAST_WORDS).await;
}

fn stopped(reason: StopReason) -> Outcome {
    match reason {
        StopReason::Cancelled => Outcome::Cancelled,
        StopReason::RunnerLeaves | StopReason::Lost => Outcome::Errored {
            reason: "the runner was stopped".to_owned(),
        },
    }
}

async fn make_folders(
    runner: &Runner,
    client: &AttemptClient,
    assignment: &Assignment,
) -> anyhow::Result<(PathBuf, PathBuf)> {
    let attempt = client.id();
    if !is_plain_name(&assignment.project) {
        bail!("`{}` cannot be a project's name", assignment.project);
    }
    let workspace = runner.workspaces.create(attempt).await?;
    let spool = runner.spools.create(attempt).await?;
    Ok((workspace, spool))
}

async fn check_out(
    runner: &Runner,
    client: &AttemptClient,
    assignment: &Assignment,
    workspace: &Path,
    threads: &TaskTracker,
) -> anyhow::Result<i64> {
    let (project, commit) = (&assignment.project, &assignment.commit);
    runner
        .sources
        .check_out(client, project, commit, workspace, threads)
        .await
}

/// Offers the result until the server has it; `Ok` also when it has no use for it.
async fn report(
    client: &AttemptClient,
    result: &AttemptResult,
    stop: &StopSignal,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(RESULT_PATIENCE);
    loop {
        if stop.is_lost() {
            return Ok(());
        }
        match client.put_result(result).await {
            Ok(()) | Err(CallError::Lost(_)) => return Ok(()),
            Err(error) if error.is_transient() => {
                let Some(pause) = backoff.next_pause() else {
                    return Err(error.into());
                };
                if stop.reason() == Some(StopReason::RunnerLeaves) {
                    // The note on disk stays; the next process reports.
                    return Err(error).context("leaves before the server took the result");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(StopReason::RunnerLeaves) => {}
                }
            }
            Err(error) => return Err(error).context("the server does not take the result"),
        }
    }
}

/// Removes the attempt's files, and its note when the server knows the end.
async fn clean(runner: &Runner, attempt: &str, forget: bool) -> anyhow::Result<()> {
    runner.workspaces.remove(attempt).await?;
    runner.spools.remove(attempt).await?;
    if forget {
        let attempt = attempt.to_owned();
        runner
            .with_state(move |state| state.forget(&attempt))
            .await?;
    }
    Ok(())
}
