//! A job without a server: the steps of a working tree on this machine's Docker Engine.
//!
//! Owns what a server and a claimed attempt bring otherwise: the files (a copy of the working tree, so
//! that steps find what a runner would give them and cannot change what somebody works on), the place
//! where logs are shown, and the end. Steps, containers and builds are the runner's own. Images stay
//! here; everything else that was made is removed, after a kill by the next run on the same data folder.
//! Knows nothing of pipeline files.

mod terminal;
mod tree;

pub(crate) use terminal::Terminal;
pub use tree::WorkingTree;

use crate::{
    CancellationToken, DISK_LEAST_BYTES, StepMost, absolute,
    allowance::Allowance,
    artifacts::shelf::Shelf,
    attempt::Job,
    audience::Audience,
    build::ImageBuilder,
    disk::Disk,
    engine::Engine,
    engine_address::EngineAddress,
    secrets::Secrets,
    state::State,
    steps::{self, StepRoom, StepsEnd},
    stop::{StopReason, StopSignal},
    sweep,
    workspace::Workspaces,
};
use anyhow::{Context, bail};
use bollard::{
    models::{ContainerCreateBody, HostConfig, Mount, MountType},
    query_parameters::{
        CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use roadstead_protocol::{BuiltImage, Outcome, Step, StepAction};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The id of the one attempt, and of its run.
const LOCAL: &str = "local";

/// What to run, and where.
#[derive(Debug)]
pub struct LocalRun {
    /// The project's name.
    pub project: String,
    /// Steps in an order that respects `needs`; images keep the tag that stands in them.
    pub steps: Vec<Step>,
    /// Variables of every step; a step's own win, and so do those that every runner sets.
    pub environment: BTreeMap<String, String>,
    /// The files, and which commit they are of.
    pub tree: WorkingTree,
    /// A folder for the copy of the files and for logs under way; one run at a time.
    pub data: PathBuf,
    /// Most steps that run side by side, at least 1.
    pub side_by_side: usize,
    /// Whether names of steps are coloured.
    pub colours: bool,
    /// Where artifacts lie that steps of later jobs get.
    pub shelf: Shelf,
}

/// What became of it.
#[derive(Debug)]
pub struct LocalEnd {
    /// As a server would hear it.
    pub outcome: Outcome,
    /// The images that are in Docker Engine now; their digest is the engine's id.
    pub images: Vec<BuiltImage>,
}

/// Runs the steps to their end and shows their logs on standard output, each line behind its step's name.
///
/// `stop` ends the steps as a cancelled run does, with SIGTERM and ten seconds; `kill` ends them at once.
///
/// # Errors
/// A data folder in use, files that cannot be copied, no Docker Engine, or something that could not be
/// removed again. That a step failed is the outcome.
pub async fn run_local(
    mut run: LocalRun,
    stop: CancellationToken,
    kill: CancellationToken,
) -> anyhow::Result<LocalEnd> {
    if run.side_by_side == 0 {
        bail!("at least one step has to run at a time");
    }
    let docker = Engine::connect(None).await?;
    let data = absolute(&run.data)?;
    let state = tokio::task::spawn_blocking(move || State::open(&data))
        .await?
        .context("this working tree is run by another process already")?;
    let machine = Engine::machine(&docker).await?;
    let allowance = Allowance::of(&machine, StepMost::default())?;
    let disk = Disk::of(&machine, &run.data, DISK_LEAST_BYTES);
    for step in &mut run.steps {
        if let StepAction::Run { limits, .. } = &mut step.action {
            *limits = allowance.at_most(*limits);
        }
    }
    let engine = Engine::new(docker, &state.instance()?, allowance);
    let workspaces = Workspaces::new(state.subfolder("workspaces"));
    let spools = Workspaces::new(state.subfolder("spool"));
    let images = images_of(&run.steps);
    sweep::at_start(&state, &engine, &[&spools]).await?;
    remove(&engine, &workspaces, &images).await?;

    let signal = StopSignal::new();
    let listening = tokio::spawn({
        let signal = signal.clone();
        async move {
            stop.cancelled().await;
            signal.stop(StopReason::Cancelled);
            kill.cancelled().await;
            signal.stop(StopReason::Lost);
        }
    });
    let end = steps_of(run, &engine, disk, &workspaces, &spools, &signal).await;
    listening.abort();
    sweep::at_end(&engine).await;
    let removed = remove(&engine, &workspaces, &images).await;
    spools.remove(LOCAL).await?;
    let StepsEnd { outcome, images } = end?;
    removed?;
    Ok(LocalEnd { outcome, images })
}

async fn steps_of(
    run: LocalRun,
    engine: &Engine,
    disk: Disk,
    workspaces: &Workspaces,
    spools: &Workspaces,
    signal: &StopSignal,
) -> anyhow::Result<StepsEnd> {
    let workspace = workspaces.create(LOCAL).await?;
    let spool = spools.create(LOCAL).await?;
    let mut environment = run.environment;
    let tree = run.tree;
    environment.extend(steps::environment(
        &run.project,
        LOCAL,
        &tree.commit,
        &tree.git_ref,
    ));
    let into = workspace.clone();
    tokio::task::spawn_blocking(move || tree.copy(&into))
        .await
        .context("the thread that copies files panicked")??;
    let room = StepRoom {
        engine: engine.clone(),
        builder: ImageBuilder::new(engine.clone(), EngineAddress::of(None)),
        project: run.project.clone(),
        audience: Audience::Terminal(
            Arc::new(Terminal::new(LOCAL, &run.steps, run.colours)),
            Arc::new(run.shelf),
        ),
        workspace,
        commit_time: None,
        spool,
        stop: signal.clone(),
        disk,
        side_by_side: run.side_by_side,
    };
    let secrets = Secrets::withhold_all(&run.steps, "a run on this machine has none");
    let job = Job {
        steps: run.steps,
        environment,
        secrets,
    };
    Ok(steps::run(Arc::new(room), Arc::new(job)).await)
}

/// The images of steps that may have left files.
fn images_of(steps: &[Step]) -> Vec<String> {
    let images = steps.iter().filter_map(|step| match &step.action {
        StepAction::Run { image, .. } => Some(crate::registry::with_tag(image)),
        StepAction::Build { .. } => None,
    });
    images.collect()
}

/// Removes the copy of the files. What steps wrote belongs to their containers' user, most often root:
/// where this process may not remove it, a container of the same image opens it first.
async fn remove(engine: &Engine, workspaces: &Workspaces, images: &[String]) -> anyhow::Result<()> {
    let Err(error) = workspaces.remove(LOCAL).await else {
        return Ok(());
    };
    for image in images {
        if let Err(error) = open_up(engine, image, &workspaces.path(LOCAL)).await {
            tracing::debug!(image, error = format!("{error:#}"), "opens no folder");
        }
        if workspaces.remove(LOCAL).await.is_ok() {
            return Ok(());
        }
    }
    Err(error)
}

/// Lets everybody change what lies in `folder`.
async fn open_up(engine: &Engine, image: &str, folder: &Path) -> anyhow::Result<()> {
    let name = format!("roadstead-{}-{LOCAL}-open", engine.instance());
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some("0:0".to_owned()),
        entrypoint: Some(["/bin/sh", "-c"].map(String::from).to_vec()),
        cmd: Some(vec!["chmod -R a+rwX /workspace".to_owned()]),
        labels: Some(engine.labels(LOCAL)),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(folder.to_string_lossy().into_owned()),
                target: Some("/workspace".to_owned()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let docker = engine.docker();
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker.create_container(Some(options), body).await?;
    let ran = async {
        docker
            .start_container(&name, None::<StartContainerOptions>)
            .await?;
        let mut wait = docker.wait_container(&name, None::<WaitContainerOptions>);
        wait.next().await.transpose()
    }
    .await;
    engine.remove_container(&name).await?;
    ran?;
    Ok(())
}
