//! Goes through a job's steps: what is ready runs, what needs a failed step does not.
//!
//! Owns the order and what the steps together come to. Independent steps run side by side. A
//! step's log and state travel to their audience behind the work and never hold it up.

use crate::{
    allowance::Allowance,
    artifacts::{self, fetch::Trouble},
    attempt::Job,
    audience::Audience,
    build::{BuildEnd, BuildInput, ImageBuilder},
    caches::Caches,
    client::CallError,
    disk::Disk,
    engine::{Engine, StepContainer},
    limits::{Limits, StepEnd, shorten},
    logs::StepLog,
    reports,
    secret::Secret,
    secrets::Handover,
    stop::{StopReason, StopSignal},
};
use roadstead_protocol::{
    BuiltImage, ImageBuild, Outcome, Step, StepAction, StepLimits, StepState, ordinal,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

/// What a job's steps need to run.
pub(crate) struct StepRoom {
    pub(crate) engine: Engine,
    pub(crate) builder: ImageBuilder,
    pub(crate) project: String,
    pub(crate) audience: Audience,
    pub(crate) workspace: PathBuf,
    /// When the commit was made, in seconds since 1970; none of files that are of no commit.
    pub(crate) commit_time: Option<i64>,
    pub(crate) spool: PathBuf,
    pub(crate) stop: StopSignal,
    pub(crate) disk: Disk,
    /// Most steps that run side by side.
    pub(crate) side_by_side: usize,
}

/// What the steps came to.
#[derive(Debug)]
pub(crate) struct StepsEnd {
    pub(crate) outcome: Outcome,
    pub(crate) images: Vec<BuiltImage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Running,
    Good,
    Bad,
}

struct Ran {
    index: usize,
    end: StepEnd,
    images: Vec<BuiltImage>,
    /// Sends the rest of the log and the final state.
    tail: JoinHandle<()>,
}

/// Runs all steps of `job` and waits until their audience has their logs and states.
pub(crate) async fn run(room: Arc<StepRoom>, job: Arc<Job>) -> StepsEnd {
    let steps = &job.steps;
    let (reporter, reports) = Reporter::start(room.audience.clone(), room.stop.clone());
    let mut places = vec![Place::Waiting; steps.len()];
    let mut running: JoinSet<Ran> = JoinSet::new();
    let mut tails = Vec::new();
    let mut images = Vec::new();
    let mut worst: Option<Outcome> = None;
    loop {
        let stopped = room.stop.reason();
        let halted = stopped.is_some() || matches!(worst, Some(Outcome::Errored { .. }));
        for index in settle(steps, &mut places, halted) {
            let state = match stopped {
                Some(reason) => {
                    worst = worse(worst, &steps[index].name, StepEnd::Stopped(reason));
                    StepState::Cancelled
                }
                None => StepState::Skipped,
            };
            reporter.report(&steps[index].name, state);
        }
        for index in ready(steps, &places) {
            if running.len() >= room.side_by_side {
                break;
            }
            places[index] = Place::Running;
            running.spawn(run_one(
                Arc::clone(&room),
                Arc::clone(&job),
                index,
                reporter.clone(),
            ));
        }
        let Some(ran) = running.join_next().await else {
            break;
        };
        match ran {
            Ok(ran) => {
                tails.push(ran.tail);
                images.extend(ran.images);
                places[ran.index] = if ran.end == StepEnd::Succeeded {
                    Place::Good
                } else {
                    Place::Bad
                };
                worst = worse(worst, &steps[ran.index].name, ran.end);
            }
            Err(error) => {
                // A panic is the runner's fault; which step it was shows in its unfinished state.
                let reason = format!("a step's task broke off: {error}");
                worst = worse(worst, "", StepEnd::Errored { reason });
            }
        }
    }
    for tail in tails {
        let _ = tail.await;
    }
    drop(reporter);
    let _ = reports.await;
    images.sort_by(|a: &BuiltImage, b| a.name.cmp(&b.name));
    StepsEnd {
        outcome: worst.unwrap_or(Outcome::Succeeded),
        images,
    }
}

/// Marks the steps that can never run, and names them.
fn settle(steps: &[Step], places: &mut [Place], halted: bool) -> Vec<usize> {
    let mut settled = Vec::new();
    // The order respects `needs`, so one pass sees every step after what it needs.
    for (index, step) in steps.iter().enumerate() {
        let blocked = halted || needs(steps, step).any(|need| places[need] == Place::Bad);
        if places[index] == Place::Waiting && blocked {
            places[index] = Place::Bad;
            settled.push(index);
        }
    }
    settled
}

fn ready(steps: &[Step], places: &[Place]) -> Vec<usize> {
    steps
        .iter()
        .enumerate()
        .filter(|(index, step)| {
            places[*index] == Place::Waiting
                && needs(steps, step).all(|need| places[need] == Place::Good)
        })
        .map(|(index, _)| index)
        .collect()
}

fn needs<'a>(steps: &'a [Step], step: &'a Step) -> impl Iterator<Item = usize> + 'a {
    steps
        .iter()
        .enumerate()
        .filter(|(_, other)| step.needs.contains(&other.name))
        .map(|(index, _)| index)
}

/// The first bad end stands, but the runner's own failure outweighs the user's: another attempt
/// may tell more.
fn worse(present: Option<Outcome>, step: &str, end: StepEnd) -> Option<Outcome> {
    let fresh = match end {
        StepEnd::Succeeded => return present,
        StepEnd::Failed { reason, .. } => Outcome::Failed {
            step: step.to_owned(),
            reason: shorten(&reason),
        },
        StepEnd::TimedOut => Outcome::TimedOut {
            step: step.to_owned(),
        },
        StepEnd::Stopped(StopReason::Cancelled) => Outcome::Cancelled,
        StepEnd::Stopped(_) => Outcome::Errored {
            reason: "the runner was stopped".to_owned(),
        },
        StepEnd::Errored { reason } => Outcome::Errored {
            reason: shorten(&if step.is_empty() {
                reason
            } else {
                format!("step `{step}`: {reason}")
            }),
        },
    };
    match (&present, &fresh) {
        (None, _) => Some(fresh),
        (Some(Outcome::Errored { .. }), _) => present,
        (Some(_), Outcome::Errored { .. }) => Some(fresh),
        _ => present,
    }
}

async fn run_one(room: Arc<StepRoom>, job: Arc<Job>, index: usize, reporter: Reporter) -> Ran {
    let step = &job.steps[index];
    reporter.report(&step.name, StepState::Running);
    let log = match StepLog::create(&room.spool.join(format!("{index}.log"))).await {
        Ok(log) => log,
        Err(error) => {
            let end = StepEnd::Errored {
                reason: format!("cannot spool the step's log: {error}"),
            };
            reporter.report(&step.name, end.state());
            return Ran {
                index,
                end,
                images: vec![],
                tail: tokio::spawn(async {}),
            };
        }
    };
    // All of the attempt: what one step leaves in the workspace another one may print.
    let hidden = log.hide(job.secrets.values()).await;
    let shipping = tokio::spawn({
        let (log, room, name) = (log.clone(), Arc::clone(&room), step.name.clone());
        async move { ship(&log, &room, &name).await }
    });
    let mut caches = Caches::of(&room, step, &log);
    let (mut end, images) = match hidden {
        Ok(()) => {
            caches.restore().await;
            tries(&room, &job, index, &log, &reporter).await
        }
        // What cannot be masked must not be there to be printed.
        Err(error) => {
            let reason = error.to_string();
            (StepEnd::Errored { reason }, vec![])
        }
    };
    // A reason may end with a build's output.
    end = end.with_reason(|reason| job.secrets.mask(&reason));
    if end == StepEnd::TimedOut {
        // A log that cannot take this line shows in `close`.
        let _ = log
            .line(&format!("timed out after {} s", step.timeout_seconds))
            .await;
    }
    if let Err(reason) = look_after_files(&room, &job, index, &end, &log).await
        && end == StepEnd::Succeeded
    {
        end = StepEnd::failed(reason);
    }
    if end == StepEnd::Succeeded {
        caches.store().await;
    }
    if let Err(error) = log.close().await {
        end = StepEnd::Errored {
            reason: format!("cannot spool the step's log: {error}"),
        };
    }
    let (name, state) = (step.name.clone(), end.state());
    let tail = tokio::spawn(async move {
        let _ = shipping.await;
        reporter.report(&name, state);
    });
    Ran {
        index,
        end,
        images,
        tail,
    }
}

/// Reads the reports and has the files kept that a step names, whether it succeeded or not; not those of one that was
/// stopped, or that another attempt follows.
///
/// # Errors
/// What kept some files from being kept, for a person.
async fn look_after_files(
    room: &StepRoom,
    job: &Job,
    index: usize,
    end: &StepEnd,
    log: &StepLog,
) -> Result<(), String> {
    let step = &job.steps[index];
    let StepAction::Run { files, .. } = &step.action else {
        return Ok(());
    };
    if matches!(end, StepEnd::Stopped(_) | StepEnd::Errored { .. }) || files.is_silent() {
        return Ok(());
    }
    let (workspace, name) = (&room.workspace, &step.name);
    let work = async {
        if !files.junit.is_empty() {
            let secrets = job.secrets.values().map(|it| it.to_owned()).collect();
            let server = room.audience.server();
            reports::tell(workspace, name, &files.junit, secrets, server, log).await;
        }
        if files.artifacts.is_empty() {
            return Ok(());
        }
        let keeper = room.audience.keeper(name);
        artifacts::keep(workspace, name, &files.artifacts, keeper, log).await
    };
    tokio::select! {
        kept = work => kept,
        _ = room.stop.stopped() => Err("the run was stopped before its artifacts were kept".into()),
    }
}

/// Performs a step, and again while it fails and may be tried again: each try has containers and all the
/// time of its own, and the files as the one before left them.
async fn tries(
    room: &StepRoom,
    job: &Job,
    index: usize,
    log: &StepLog,
    reporter: &Reporter,
) -> (StepEnd, Vec<BuiltImage>) {
    let step = &job.steps[index];
    let given = match Given::to(step, job, room) {
        Ok(given) => given,
        // No try: the next one would not get it either.
        Err(why) => {
            // A log that cannot take this line shows in `close`.
            let _ = log.line(&why).await;
            return (StepEnd::failed(why), vec![]);
        }
    };
    if let Err(end) = bring_artifacts(room, step, log).await {
        return (end, vec![]);
    }
    let most = step.retry.saturating_add(1);
    let mut number = 1;
    loop {
        let mut images = Vec::new();
        let limits = Limits::start(
            Duration::from_secs(step.timeout_seconds),
            room.stop.clone(),
            room.disk.clone(),
        );
        let end = match perform(room, job, index, &given, &limits, log, &mut images).await {
            Ok(end) => end,
            Err(error) => {
                let reason = format!("{error:#}");
                // A log that cannot take this line shows in `close`.
                let _ = log.line(&reason).await;
                StepEnd::Errored { reason }
            }
        };
        let reason = match &end {
            StepEnd::Failed { reason, .. } if number < most => reason,
            _ => return (end, images),
        };
        number += 1;
        let _ = log
            .line(&format!("{reason}; {} try of {most}", ordinal(number)))
            .await;
        reporter.report(&step.name, StepState::Retrying { number });
    }
}

/// Brings what steps of earlier jobs have left.
///
/// # Errors
/// How the step ends when it cannot have that.
async fn bring_artifacts(room: &StepRoom, step: &Step, log: &StepLog) -> Result<(), StepEnd> {
    let from = &step.artifacts_from;
    if from.is_empty() {
        return Ok(());
    }
    let source = room.audience.source();
    let brought = tokio::select! {
        brought = artifacts::fetch::bring(&room.workspace, &step.name, from, source, log) => brought,
        reason = room.stop.stopped() => return Err(StepEnd::Stopped(reason)),
    };
    let (reason, end): (String, fn(String) -> StepEnd) = match brought {
        Ok(()) => return Ok(()),
        Err(Trouble::Step(reason)) => (reason, |reason| StepEnd::failed(reason)),
        Err(Trouble::Runner(reason)) => (reason, |reason| StepEnd::Errored { reason }),
    };
    // A log that cannot take this line shows in `close`.
    let _ = log.line(&reason).await;
    Err(end(reason))
}

/// What a step is given besides its files.
struct Given {
    secrets: Option<Handover>,
    /// For each image that it builds, by the id that its Dockerfile knows them by.
    of_images: Vec<BTreeMap<String, Secret>>,
    allowance: Allowance,
}

impl Given {
    /// What `step` is to have.
    ///
    /// # Errors
    /// Why it does not get that, for a person.
    fn to(step: &Step, job: &Job, room: &StepRoom) -> Result<Self, String> {
        let (named, images, asked) = match &step.action {
            StepAction::Run {
                secrets, limits, ..
            } => (secrets.as_slice(), &[][..], *limits),
            StepAction::Build { images } => (&[][..], images.as_slice(), StepLimits::default()),
        };
        let of_images = images
            .iter()
            .map(|image| job.secrets.of_image(&image.name, &image.secrets));
        Ok(Self {
            secrets: job.secrets.of_step(named)?,
            of_images: of_images.collect::<Result<_, _>>()?,
            allowance: room.engine.allowance().granted(asked)?,
        })
    }
}

async fn perform(
    room: &StepRoom,
    job: &Job,
    index: usize,
    given: &Given,
    limits: &Limits,
    log: &StepLog,
    images: &mut Vec<BuiltImage>,
) -> anyhow::Result<StepEnd> {
    match &job.steps[index].action {
        StepAction::Run {
            image,
            run,
            env,
            sidecars,
            ..
        } => {
            let mut environment = job.environment.clone();
            environment.extend(env.clone());
            let container = StepContainer {
                attempt: room.audience.id(),
                index,
                image,
                run,
                env: &environment,
                sidecars,
                secrets: given.secrets.as_ref(),
                allowance: given.allowance,
                workspace: &room.workspace,
            };
            room.engine.run_step(&container, limits, log).await
        }
        StepAction::Build { images: wanted } => {
            let wanted: Vec<_> = wanted.iter().zip(&given.of_images).collect();
            build(room, index, &wanted, limits, log, images).await
        }
    }
}

async fn build(
    room: &StepRoom,
    index: usize,
    wanted: &[(&ImageBuild, &BTreeMap<String, Secret>)],
    limits: &Limits,
    log: &StepLog,
    images: &mut Vec<BuiltImage>,
) -> anyhow::Result<StepEnd> {
    for (number, (image, secrets)) in wanted.iter().enumerate() {
        let name = format!("{}-{index}-{number}", room.audience.id());
        let logins = room.audience.logins();
        let input = BuildInput {
            project: &room.project,
            workspace: &room.workspace,
            commit_time: room.commit_time,
            secrets,
        };
        let built = room
            .builder
            .build_image(image, input, &name, logins.as_ref(), limits, log)
            .await?;
        match built {
            BuildEnd::Built(image) => images.push(image),
            BuildEnd::Forgotten => {}
            BuildEnd::Ended(end) => return Ok(end),
        }
    }
    Ok(StepEnd::Succeeded)
}

/// Sends a log until its audience has it, or has no use for it.
async fn ship(log: &StepLog, room: &StepRoom, step: &str) {
    let shipped = tokio::select! {
        shipped = room.audience.follow(log, step) => shipped,
        _ = room.stop.wait_for(StopReason::Lost) => return,
    };
    match shipped {
        Ok(()) => {}
        // A refused log is no reason to end an attempt; a lost lease shows in the heartbeat.
        Err(error) => {
            tracing::warn!(attempt = room.audience.id(), step, %error, "gives up on a log");
        }
    }
}

/// Tells the audience how steps stand, one after the other and without holding anybody up.
#[derive(Clone)]
struct Reporter(mpsc::UnboundedSender<(String, StepState)>);

impl Reporter {
    fn start(audience: Audience, stop: StopSignal) -> (Self, JoinHandle<()>) {
        let (sender, mut reports) = mpsc::unbounded_channel::<(String, StepState)>();
        let task = tokio::spawn(async move {
            while let Some((step, state)) = reports.recv().await {
                let reported = tokio::select! {
                    reported = audience.hear(&step, state) => reported,
                    _ = stop.wait_for(StopReason::Lost) => return,
                };
                match reported {
                    Ok(()) => {}
                    Err(CallError::Lost(_)) => {
                        stop.stop(StopReason::Lost);
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(attempt = audience.id(), step, %error, "cannot report a step");
                    }
                }
            }
        });
        (Self(sender), task)
    }

    fn report(&self, step: &str, state: StepState) {
        // Closed only when the attempt is lost, and then nobody wants to know.
        let _ = self.0.send((step.to_owned(), state));
    }
}

/// What a step finds in its environment besides its own variables.
pub(crate) fn environment(
    project: &str,
    run: &str,
    commit: &str,
    git_ref: &str,
) -> BTreeMap<String, String> {
    [
        ("CI", "true"),
        ("ROADSTEAD", "true"),
        ("ROADSTEAD_PROJECT", project),
        ("ROADSTEAD_RUN", run),
        ("ROADSTEAD_COMMIT", commit),
        ("ROADSTEAD_REF", git_ref),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[cfg(test)]
mod tests;
