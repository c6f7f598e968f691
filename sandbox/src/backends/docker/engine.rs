//! The few things that the backend asks of Docker Engine, each safe to repeat.
//!
//! Must not know: what a task should do next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use super::super::{LogLine, PortBinding, repository};
use super::definition::{LABEL_CONTAINER, LABEL_INSTANCE, LABEL_TASK, pullable};
use super::journal::End;
use super::names::Names;
use super::network::Network;
use crate::registry::{Registry, TOKEN_USER};

/// Longer than any container may take to stop, because the engine answers only then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// How often the engine is asked, a tenth of a second apart, whether a kill was for memory.
const LATE_OOM_LOOKS: u32 = 15;

/// How long a container's name may be taken before the container can be seen.
const CREATE_PATIENCE: Duration = Duration::from_secs(60);

/// Exit code for a container that someone else removed: as if killed.
const GONE: End = End {
    exit_code: 137,
    oom: false,
    ran_for_ms: None,
};

/// A container as the engine sees it now.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) running: bool,
    /// How it ended; None while it runs and when it was never started.
    pub(super) end: Option<End>,
    /// The verdict of its health check, once there is one.
    pub(super) healthy: Option<bool>,
    pub(super) bindings: Vec<PortBinding>,
    /// How long ago it started.
    pub(super) age: Duration,
    image_id: Option<String>,
}

/// A labelled container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labelled {
    pub(super) id: String,
    pub(super) task_id: String,
    pub(super) container: String,
}

pub(super) struct Engine {
    docker: Docker,
    instance: String,
    network: Network,
    names: Names,
    /// Where images of the sandbox's own are pulled from; none for whoever pulls nothing.
    registry: Option<Arc<Registry>>,
}

impl Engine {
    pub(super) async fn connect(
        instance: String,
        registry: Option<Arc<Registry>>,
    ) -> anyhow::Result<Self> {
        let docker = Docker::connect_with_defaults()
            .context("cannot connect to Docker Engine; is DOCKER_HOST right?")?
            .with_timeout(REQUEST_TIMEOUT)
            .negotiate_version()
            .await
            .context(
                "Docker Engine does not answer; start it (for example `systemctl start docker`), or set DOCKER_HOST",
            )?;
        Ok(Self {
            network: Network::new(docker.clone(), instance.clone()),
            names: Names::new(docker.clone(), instance.clone()),
            docker,
            instance,
            registry,
        })
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Gets an image. One of the sandbox's registry is asked for each time, as ECS does; any other
    /// is taken from this machine when it is here.
    pub(super) async fn pull(&self, image: &str) -> Result<(), Error> {
        let host = image.split('/').next().unwrap_or_default();
        let ours = self.registry.as_ref();
        let ours = ours.filter(|registry| registry.address().to_string() == host);
        if ours.is_none() && self.docker.inspect_image(image).await.is_ok() {
            return Ok(());
        }
        let credentials = ours.map(|registry| DockerCredentials {
            username: Some(TOKEN_USER.to_owned()),
            password: Some(registry.own_password().to_owned()),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        });
        let options = CreateImageOptionsBuilder::default()
            .from_image(&pullable(image))
            .build();
        self.docker
            .create_image(Some(options), None, credentials)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Creates a container; one of that name that is there already is as good. Returns once it can
    /// be seen: what a killed sandbox asked for holds its name before it is there. An image that was
    /// removed since it was pulled, as by whoever built it here, is pulled once more.
    pub(super) async fn create(
        &self,
        name: &str,
        image: &str,
        body: ContainerCreateBody,
    ) -> Result<(), Error> {
        let mut pulled = false;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let deadline = tokio::time::Instant::now() + CREATE_PATIENCE;
        loop {
            let options = Some(options.clone());
            match self.docker.create_container(options, body.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if is_not_found(&error) && !pulled => {
                    self.pull(image).await?;
                    pulled = true;
                    continue;
                }
                Err(error) if status(&error) != Some(409) => return Err(error),
                Err(taken) => {
                    let seen = self.inspect(name).await?.is_some();
                    if seen {
                        return Ok(());
                    }
                    if tokio::time::Instant::now() >= deadline {
                        return Err(taken);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Starts a container; one that runs already is as good.
    pub(super) async fn start(&self, id: &str) -> Result<(), Error> {
        match self.docker.start_container(id, None).await {
            Err(error) if status(&error) != Some(304) => Err(error),
            _ => Ok(()),
        }
    }

    /// None when there is no such container.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Seen>, Error> {
        match self.docker.inspect_container(name, None).await {
            Ok(container) => Ok(Some(seen(container))),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The digest under which the registry knows a container's image.
    pub(super) async fn image_digest(&self, image: &str, seen: &Seen) -> Option<String> {
        if let Some((_, digest)) = image.split_once('@') {
            return Some(digest.to_owned());
        }
        let inspected = self.docker.inspect_image(seen.image_id.as_ref()?).await;
        let digests = inspected.ok()?.repo_digests?;
        digests.iter().find_map(|known| {
            let (name, digest) = known.split_once('@')?;
            (name == repository(image)).then(|| digest.to_owned())
        })
    }

    /// Returns once a container does not run any more, however long that takes and whatever
    /// happens to the engine in between.
    pub(super) async fn wait_for_end(&self, id: &str) -> End {
        loop {
            let options = WaitContainerOptionsBuilder::default()
                .condition("not-running")
                .build();
            // Its answer is only a hint that it is worth looking; the look decides.
            self.docker.wait_container(id, Some(options)).next().await;
            match self.inspect(id).await {
                Ok(None) => return GONE,
                Ok(Some(Seen { end: Some(end), .. })) => return self.with_late_oom(id, end).await,
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(%error, id, "cannot look at a container"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Adds what the engine may learn only after a container's end: that the kernel killed it for
    /// its memory. Its event is then there, but the container's state stays wrong for ever.
    async fn with_late_oom(&self, id: &str, mut end: End) -> End {
        if end.exit_code != GONE.exit_code {
            return end;
        }
        for _ in 0..LATE_OOM_LOOKS {
            if end.oom {
                break;
            }
            end.oom = self.had_oom_event(id).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        end
    }

    async fn had_oom_event(&self, id: &str) -> bool {
        let now = jiff::Timestamp::now().as_second();
        let options = EventsOptionsBuilder::default()
            .since(&(now - 600).to_string())
            // In the past, or the engine would wait for more.
            .until(&now.to_string())
            .filters(&HashMap::from([
                ("container".to_owned(), vec![id.to_owned()]),
                ("event".to_owned(), vec!["oom".to_owned()]),
            ]))
            .build();
        let mut events = std::pin::pin!(self.docker.events(Some(options)));
        matches!(events.next().await, Some(Ok(_)))
    }

    /// SIGTERM, then SIGKILL after the container's own timeout, or at once. Returns when it has
    /// stopped.
    pub(super) async fn stop(&self, id: &str, at_once: bool) -> Result<(), Error> {
        let options = at_once.then(|| StopContainerOptionsBuilder::default().t(0).build());
        match self.docker.stop_container(id, options).await {
            Err(error) if !matches!(status(&error), Some(304 | 404)) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match self.docker.remove_container(id, Some(options)).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// This sandbox's containers, of one task or of all.
    pub(super) async fn containers(&self, task_id: Option<&str>) -> Result<Vec<Labelled>, Error> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&label_filter(&self.instance, task_id))
            .build();
        let listed = self.docker.list_containers(Some(options)).await?;
        let labelled = listed.into_iter().filter_map(|container| {
            let mut labels = container.labels?;
            Some(Labelled {
                id: container.id?,
                task_id: labels.remove(LABEL_TASK)?,
                container: labels.remove(LABEL_CONTAINER)?,
            })
        });
        Ok(labelled.collect())
    }

    /// Everything a container wrote so far; None when there is no such container.
    pub(super) async fn logs(&self, name: &str) -> Result<Option<Vec<LogLine>>, Error> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .tail("all")
            .build();
        let chunks: Result<Vec<LogOutput>, Error> =
            self.docker.logs(name, Some(options)).try_collect().await;
        match chunks {
            Ok(chunks) => Ok(Some(chunks.into_iter().filter_map(log_line).collect())),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn seen(container: ContainerInspectResponse) -> Seen {
    let state = container.state.unwrap_or_default();
    let running = state.running == Some(true);
    let started = !matches!(state.status, Some(ContainerStateStatusEnum::CREATED) | None);
    let end = (started && !running).then(|| End {
        exit_code: state.exit_code.unwrap_or(GONE.exit_code),
        oom: state.oom_killed == Some(true),
        ran_for_ms: duration_ms(state.started_at.as_deref(), state.finished_at.as_deref()),
    });
    let healthy = match state.health.and_then(|health| health.status) {
        Some(HealthStatusEnum::HEALTHY) => Some(true),
        Some(HealthStatusEnum::UNHEALTHY) => Some(false),
        _ => None,
    };
    let ports = container
        .network_settings
        .and_then(|settings| settings.ports)
        .unwrap_or_default();
    let mut bindings: Vec<PortBinding> = ports
        .into_iter()
        .filter_map(|(key, published)| {
            let (port, protocol) = key.split_once('/')?;
            let host_port = published?.first()?.host_port.as_ref()?.parse().ok()?;
            Some(PortBinding {
                container_port: port.parse().ok()?,
                host_port,
                protocol: protocol.to_owned(),
            })
        })
        .collect();
    bindings.sort_unstable_by_key(|binding| binding.container_port);
    let now = jiff::Timestamp::now().to_string();
    Seen {
        age: Duration::from_millis(
            duration_ms(state.started_at.as_deref(), Some(&now)).unwrap_or_default(),
        ),
        id: container.id.unwrap_or_default(),
        running,
        end,
        healthy,
        bindings,
        image_id: container.image,
    }
}

fn duration_ms(from: Option<&str>, to: Option<&str>) -> Option<u64> {
    let from: jiff::Timestamp = from?.parse().ok()?;
    let to: jiff::Timestamp = to?.parse().ok()?;
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

/// `2026-01-31T12:00:00.000000000Z text`, as the engine gives it. A line that is not in this form
/// is dropped: it has no time, and a log is ordered by time.
fn log_line(chunk: LogOutput) -> Option<LogLine> {
    let bytes = chunk.into_bytes();
    let text = String::from_utf8_lossy(&bytes);
    let (time, message) = text.split_once(' ')?;
    let time: jiff::Timestamp = time.parse().ok()?;
    let message = message.strip_suffix('\n').unwrap_or(message);
    Some(LogLine {
        timestamp: time.as_millisecond(),
        message: message.strip_suffix('\r').unwrap_or(message).to_owned(),
    })
}

/// What lists this sandbox's things, those of one task or all.
pub(super) fn label_filter(instance: &str, task_id: Option<&str>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{LABEL_INSTANCE}={instance}")];
    labels.extend(task_id.map(|id| format!("{LABEL_TASK}={id}")));
    HashMap::from([("label".to_owned(), labels)])
}

/// The HTTP status of the engine's answer.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

pub(super) fn is_not_found(error: &Error) -> bool {
    status(error) == Some(404)
}

/// The engine's own words, without the client's around them.
pub(super) fn error_text(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}
