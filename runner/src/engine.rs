//! Runs steps as containers on Docker Engine.
//!
//! Owns the containers of a step: each carries the attempt's and the runner's label, and is removed
//! when its step ends, however it ends; `sweep` removes what a killed runner could not. Knows
//! nothing of the server.

use crate::{
    allowance::Allowance,
    limits::{Interruption, Limits, StepEnd},
    logs::StepLog,
    registry,
    secrets::{self, Handover},
    stop::StopReason,
};
use anyhow::{Context, bail};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::{AttachContainerResults, LogOutput},
    errors::Error as DockerError,
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
        NetworkingConfig, SystemInfo,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
        KillContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{Stream, StreamExt};
use roadstead_protocol::{CANCEL_GRACE_SECONDS, Sidecar};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    path::Path,
    pin::{Pin, pin},
    time::Duration,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// Label with the attempt's id.
pub(crate) const ATTEMPT_LABEL: &str = "roadstead.attempt";
/// Label with the runner's instance, which no other runner has.
pub(crate) const RUNNER_LABEL: &str = "roadstead.runner";
/// What is left to root in a step: to own and read all files of its container, as package managers do, to become
/// somebody else, and to serve at any port. `SETFCAP` is for `rpm`, and gives a step nothing: no new privileges come of
/// files. Not what Docker Engine gives besides: devices (`MKNOD`), raw packets on the network that it shares with its
/// sidecars (`NET_RAW`), `SETPCAP`, `SYS_CHROOT`, `AUDIT_WRITE`.
const CAPABILITIES: [&str; 9] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETUID",
];
/// Where a step finds its files.
const WORKSPACE: &str = "/workspace";
/// Calls with a context or a long build behind them answer late; steps have their own timeout.
const ENGINE_TIMEOUT_SECONDS: u64 = 3600;
/// How long output may trickle in after the container's end.
const DRAIN: Duration = Duration::from_secs(10);
/// How many lines of a sidecar a failed step's log shows.
const SIDECAR_LINES: &str = "20";
/// Frames of output that are written to the log at once.
const FRAMES_AT_ONCE: usize = 256;
pub(crate) const NOT_FOUND: u16 = 404;

/// Docker Engine, on behalf of one runner.
#[derive(Clone)]
pub(crate) struct Engine {
    docker: Docker,
    instance: String,
    allowance: Allowance,
}

/// What a step wants of a container.
pub(crate) struct StepContainer<'a> {
    pub(crate) attempt: &'a str,
    /// The step's place in the job, which keeps names apart.
    pub(crate) index: usize,
    pub(crate) image: &'a str,
    pub(crate) run: &'a str,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) sidecars: &'a BTreeMap<String, Sidecar>,
    pub(crate) secrets: Option<&'a Handover>,
    pub(crate) allowance: Allowance,
    pub(crate) workspace: &'a Path,
}

impl Engine {
    /// Connects to the engine at `socket`, or where `DOCKER_HOST` says, or at the usual place.
    pub(crate) async fn connect(socket: Option<&Path>) -> anyhow::Result<Docker> {
        let docker = match socket {
            Some(path) => Docker::connect_with_unix(
                &path.to_string_lossy(),
                ENGINE_TIMEOUT_SECONDS,
                API_DEFAULT_VERSION,
            ),
            None => Docker::connect_with_defaults()
                .map(|docker| docker.with_timeout(Duration::from_secs(ENGINE_TIMEOUT_SECONDS))),
        };
        let advice = "Docker Engine does not answer; start it, and see that this user may use it";
        let docker = docker.context(advice)?;
        tokio::time::timeout(Duration::from_secs(30), docker.negotiate_version())
            .await
            .context(advice)?
            .context(advice)
    }

    /// The machine that the engine runs on.
    pub(crate) async fn machine(docker: &Docker) -> anyhow::Result<SystemInfo> {
        let machine = docker.info().await;
        machine.context("cannot ask Docker Engine for its machine")
    }

    pub(crate) fn new(docker: Docker, instance: &str, allowance: Allowance) -> Self {
        Self {
            docker,
            instance: instance.to_owned(),
            allowance,
        }
    }

    /// What a step may use at most.
    pub(crate) fn allowance(&self) -> Allowance {
        self.allowance
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    pub(crate) fn labels(&self, attempt: &str) -> HashMap<String, String> {
        HashMap::from([
            (ATTEMPT_LABEL.to_owned(), attempt.to_owned()),
            (RUNNER_LABEL.to_owned(), self.instance.clone()),
        ])
    }

    /// Runs a step to its end and leaves nothing of it behind.
    ///
    /// # Errors
    /// When the engine fails; whatever the step itself does wrong is a [`StepEnd`].
    pub(crate) async fn run_step(
        &self,
        step: &StepContainer<'_>,
        limits: &Limits,
        log: &StepLog,
    ) -> anyhow::Result<StepEnd> {
        let name = format!(
            "roadstead-{}-{}-{}",
            self.instance, step.attempt, step.index
        );
        let end = self.run_named(&name, step, limits, log).await;
        let mut containers = vec![name.clone()];
        containers.extend((0..step.sidecars.len()).map(|index| sidecar_name(&name, index)));
        let mut removed = Ok(());
        for container in &containers {
            removed = removed.and(self.remove_container(container).await);
        }
        // A container that stays could still change files; a network does no harm until the sweep.
        if let Err(error) = self.remove_network(&name).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "leaves a network to the sweep"
            );
        }
        removed?;
        end
    }

    async fn run_named(
        &self,
        name: &str,
        step: &StepContainer<'_>,
        limits: &Limits,
        log: &StepLog,
    ) -> anyhow::Result<StepEnd> {
        match limits.guard(self.ensure_images(step, log)).await {
            Err(interruption) => return Ok(interruption.into()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Some(end))) => return Ok(end),
            Ok(Ok(None)) => {}
        }
        // Not under guard: a container whose making nobody waits for would appear after it was
        // looked for, and stay.
        if let Some(end) = self.prepare(name, step).await? {
            return Ok(end);
        }
        if let Some(interruption) = limits.interruption() {
            return Ok(interruption.into());
        }
        let attach = AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(step.secrets.is_some())
            .stdout(true)
            .stderr(true)
            .build();
        let AttachContainerResults { output, input } = self
            .docker
            .attach_container(name, Some(attach))
            .await
            .context("cannot attach to the step's container")?;
        if let Err(error) = self
            .docker
            .start_container(name, None::<StartContainerOptions>)
            .await
        {
            return refused(error, "the step's container could not start");
        }
        let interrupted = tokio::select! {
            interrupted = self.follow(name, step.allowance, output, limits, log) => interrupted?,
            never = hand_over(step.secrets, input) => match never {},
        };
        if let Some(end) = interrupted {
            return Ok(end);
        }
        let end = self.exit(name, step.allowance).await?;
        if end != StepEnd::Succeeded {
            self.show_sidecars(name, step, log).await?;
        }
        Ok(end)
    }

    /// Makes network, sidecars and the step's container; a [`StepEnd`] when the user's part of
    /// that cannot be.
    async fn prepare(
        &self,
        name: &str,
        step: &StepContainer<'_>,
    ) -> anyhow::Result<Option<StepEnd>> {
        self.create_network(name, step.attempt).await?;
        for (index, (alias, sidecar)) in step.sidecars.iter().enumerate() {
            let container = sidecar_name(name, index);
            let body = ContainerCreateBody {
                image: Some(registry::with_tag(&sidecar.image)),
                env: Some(env_list(&sidecar.env)),
                cmd: (!sidecar.command.is_empty()).then(|| sidecar.command.clone()),
                ..self.container(step.attempt, name, Some(alias), "json-file")
            };
            if let Some(end) = self.create(&container, body).await? {
                return Ok(Some(end));
            }
            let started = self
                .docker
                .start_container(&container, None::<StartContainerOptions>)
                .await;
            if let Err(error) = started {
                return refused(error, &format!("sidecar `{alias}` could not start")).map(Some);
            }
        }
        let mut body = ContainerCreateBody {
            image: Some(registry::with_tag(step.image)),
            entrypoint: Some(["/bin/sh", "-eu", "-c"].map(String::from).to_vec()),
            cmd: Some(match step.secrets {
                Some(_) => [secrets::READER, "sh", step.run].map(String::from).to_vec(),
                None => vec![step.run.to_owned()],
            }),
            open_stdin: step.secrets.map(|_| true),
            stdin_once: step.secrets.map(|_| true),
            attach_stdin: step.secrets.map(|_| true),
            env: Some(env_list(step.env)),
            working_dir: Some(WORKSPACE.to_owned()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            // The log is spooled by the runner; the engine would only write it a second time.
            ..self.container(step.attempt, name, None, "none")
        };
        if let Some(host) = &mut body.host_config {
            host.mounts = Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(step.workspace.to_string_lossy().into_owned()),
                target: Some(WORKSPACE.to_owned()),
                ..Default::default()
            }]);
            step.allowance.bound(host);
            host.tmpfs = step
                .secrets
                .map(|_| HashMap::from([(secrets::FOLDER.to_owned(), secrets::MOUNT.to_owned())]));
        }
        self.create(name, body).await
    }

    fn container(
        &self,
        attempt: &str,
        network: &str,
        alias: Option<&str>,
        log_driver: &str,
    ) -> ContainerCreateBody {
        let endpoint = EndpointSettings {
            aliases: alias.map(|alias| vec![alias.to_owned()]),
            ..Default::default()
        };
        let log_options = (log_driver == "json-file")
            .then(|| HashMap::from([("max-size".to_owned(), "1m".to_owned())]));
        let mut host = HostConfig {
            network_mode: Some(network.to_owned()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(String::from).to_vec()),
            // A shell as process 1 would not hear SIGTERM.
            init: Some(true),
            log_config: Some(HostConfigLogConfig {
                typ: Some(log_driver.to_owned()),
                config: log_options,
            }),
            ..Default::default()
        };
        self.allowance.bound(&mut host);
        ContainerCreateBody {
            labels: Some(self.labels(attempt)),
            host_config: Some(host),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
            }),
            ..Default::default()
        }
    }

    async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> anyhow::Result<Option<StepEnd>> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match self.docker.create_container(Some(options), body).await {
            Ok(_) => Ok(None),
            Err(error) => refused(error, "the container could not be made").map(Some),
        }
    }

    /// Writes the container's output to the log until it ends; says how when it was made to end.
    async fn follow(
        &self,
        name: &str,
        allowance: Allowance,
        output: Pin<Box<dyn Stream<Item = Result<LogOutput, DockerError>> + Send>>,
        limits: &Limits,
        log: &StepLog,
    ) -> anyhow::Result<Option<StepEnd>> {
        let mut output = output.ready_chunks(FRAMES_AT_ONCE);
        let mut wait = self
            .docker
            .wait_container(name, None::<WaitContainerOptions>)
            .boxed();
        let mut crowded = pin!(self.has_too_many_processes(name, allowance));
        let mut interruption = None;
        let mut output_ended = false;
        let mut exited = false;
        // Before an interruption nobody looks at it, after it the time for SIGKILL.
        let mut kill_at = Instant::now();
        let mut drained_at = Instant::now();
        let mut killed = false;
        while !(exited && output_ended) {
            tokio::select! {
                frames = output.next(), if !output_ended => match frames {
                    Some(frames) => write_frames(frames, log).await?,
                    None => output_ended = true,
                },
                // Its answer is an error for every status but 0; `exit` asks for the facts.
                _ = wait.next(), if !exited => {
                    exited = true;
                    drained_at = Instant::now() + DRAIN;
                }
                () = tokio::time::sleep_until(drained_at), if exited => output_ended = true,
                why = limits.interrupted(), if interruption.is_none() => {
                    self.kill(name, "SIGTERM").await;
                    kill_at = Instant::now() + Duration::from_secs(CANCEL_GRACE_SECONDS);
                    interruption = Some(why);
                }
                most = &mut crowded, if interruption.is_none() && !exited => {
                    // Whoever multiplies without end heeds no signal.
                    kill_at = Instant::now();
                    interruption = Some(Interruption::TooManyProcesses { most });
                }
                () = tokio::time::sleep_until(kill_at), if interruption.is_some() && !killed => {
                    self.kill(name, "SIGKILL").await;
                    killed = true;
                }
                _ = limits.stop().wait_for(StopReason::Lost), if interruption.is_some() && !killed => {
                    self.kill(name, "SIGKILL").await;
                    killed = true;
                }
            }
        }
        Ok(interruption.map(StepEnd::from))
    }

    async fn kill(&self, name: &str, signal: &str) {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        if let Err(error) = self.docker.kill_container(name, Some(options)).await {
            // It may have ended by itself; removal with force comes after in any case.
            tracing::debug!(name, signal, %error, "the container took no signal");
        }
    }

    async fn exit(&self, name: &str, allowance: Allowance) -> anyhow::Result<StepEnd> {
        let container = self
            .docker
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
            .context("cannot ask how the step's container ended")?;
        let state = container
            .state
            .context("Docker Engine does not tell the container's state")?;
        if state.running == Some(true) {
            bail!("the connection to the step's container was lost while it ran");
        }
        let exit_code = state
            .exit_code
            .context("Docker Engine does not tell the exit status")?;
        Ok(match exit_code {
            0 => StepEnd::Succeeded,
            code => StepEnd::Failed {
                exit_code: Some(code),
                reason: if state.oom_killed == Some(true) {
                    format!(
                        "the step ran out of the {} MiB of memory that it may use, and was killed (exit status {code})",
                        allowance.mebibytes()
                    )
                } else {
                    format!("the step's commands ended with exit status {code}")
                },
            },
        })
    }

    /// The last lines of the sidecars often tell why a step failed.
    async fn show_sidecars(
        &self,
        name: &str,
        step: &StepContainer<'_>,
        log: &StepLog,
    ) -> anyhow::Result<()> {
        for (index, alias) in step.sidecars.keys().enumerate() {
            log.line(&format!("--- the last lines of sidecar `{alias}`"))
                .await?;
            let options = LogsOptionsBuilder::new()
                .stdout(true)
                .stderr(true)
                .tail(SIDECAR_LINES)
                .build();
            let mut lines = self.docker.logs(&sidecar_name(name, index), Some(options));
            while let Some(Ok(line)) = lines.next().await {
                log.write(&line.into_bytes()).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn remove_container(&self, name: &str) -> anyhow::Result<()> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        absent_is_fine(self.docker.remove_container(name, Some(options)).await)
            .with_context(|| format!("cannot remove container {name}"))
    }
}

/// Writes a step's secrets to its shell and says that nothing follows; then there is nothing to do. A
/// shell that does not read them has ended, which its status tells.
async fn hand_over(
    secrets: Option<&Handover>,
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
) -> Infallible {
    if let Some(secrets) = secrets {
        let written = async {
            input.write_all(secrets.bytes()).await?;
            input.flush().await?;
            input.shutdown().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "a step did not take its secrets");
        }
    }
    std::future::pending().await
}

fn sidecar_name(step: &str, index: usize) -> String {
    format!("{step}-sidecar-{index}")
}

fn env_list(env: &BTreeMap<String, String>) -> Vec<String> {
    env.iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

async fn write_frames(
    frames: Vec<Result<LogOutput, DockerError>>,
    log: &StepLog,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    for frame in frames {
        let frame = frame.context("the step's output was cut off")?;
        bytes.extend_from_slice(frame.as_ref());
    }
    log.write(&bytes)
        .await
        .context("cannot spool the step's log")
}

/// The HTTP status of an engine's answer.
pub(crate) fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine or a registry behind it said; an error when the engine said nothing at all.
pub(crate) fn words(error: &DockerError) -> anyhow::Result<String> {
    match error {
        DockerError::DockerResponseServerError { message, .. } => Ok(message.clone()),
        DockerError::DockerStreamError { error } => Ok(error.clone()),
        other => bail!("Docker Engine: {other}"),
    }
}

/// A 4xx is the user's part (a command or an image that cannot be run), the rest the engine's.
fn refused(error: DockerError, what: &str) -> anyhow::Result<StepEnd> {
    match error {
        DockerError::DockerResponseServerError {
            status_code: 400..=499,
            message,
        } => Ok(StepEnd::failed(format!("{what}: {message}"))),
        error => Err(error).with_context(|| what.to_owned()),
    }
}

pub(crate) fn absent_is_fine(outcome: Result<(), DockerError>) -> Result<(), DockerError> {
    match outcome {
        // 409: another call is removing it this moment.
        Err(error) if matches!(status(&error), Some(NOT_FOUND | 409)) => Ok(()),
        outcome => outcome,
    }
}
