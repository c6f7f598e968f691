//! What a container specification becomes in Docker's terms. Pure.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig,
    NetworkingConfig, PortBinding as DockerPort, RestartPolicy, RestartPolicyNameEnum,
};

use super::super::{ContainerSpec, HealthCheck, TaskLaunch};
use crate::clock::Clock;

/// Whose container or network it is: the sandbox's instance id.
pub(super) const LABEL_INSTANCE: &str = "roadstead.sandbox";
pub(super) const LABEL_TASK: &str = "roadstead.task";
pub(super) const LABEL_CONTAINER: &str = "roadstead.container";
/// What a network is for, when it is not the main one.
pub(super) const LABEL_NETWORK: &str = "roadstead.network";
const LABEL_CLUSTER: &str = "roadstead.cluster";
const LABEL_SERVICE: &str = "roadstead.service";

const MIB: i64 = 1 << 20;

/// The name of a container.
pub(super) fn container_name(task_id: &str, container: &str) -> String {
    format!("roadstead-{task_id}-{container}")
}

/// Whether a container's name can be part of file names and of Docker's names.
pub(super) fn is_container_name(name: &str) -> bool {
    (1..=200).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The labels of everything that belongs to a task.
pub(super) fn labels(instance: &str, launch: &TaskLaunch) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (LABEL_INSTANCE.to_owned(), instance.to_owned()),
        (LABEL_TASK.to_owned(), launch.task_id.clone()),
        (LABEL_CLUSTER.to_owned(), launch.cluster.clone()),
    ]);
    if let Some(service) = &launch.service {
        labels.insert(LABEL_SERVICE.to_owned(), service.clone());
    }
    labels
}

/// The container of `spec` on the network with the id `network`, its ports published on free ports of
/// 127.0.0.1, and with no health check but the definition's. It knows the containers of its own task
/// by their short names, and of others only those that have names on the network.
pub(super) fn container(
    instance: &str,
    launch: &TaskLaunch,
    spec: &ContainerSpec,
    network: &str,
    clock: Clock,
) -> ContainerCreateBody {
    let mut all_labels: HashMap<String, String> = spec
        .docker_labels
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // Ours last: a definition cannot make its container someone else's.
    all_labels.extend(labels(instance, launch));
    all_labels.insert(LABEL_CONTAINER.to_owned(), spec.name.clone());

    let port_key = |port: u16, protocol: &str| format!("{port}/{protocol}");
    let exposed: Vec<String> = spec
        .ports
        .iter()
        .map(|port| port_key(port.container_port, &port.protocol))
        .collect();
    let bindings = exposed.iter().map(|key| {
        let free_port = DockerPort {
            host_ip: Some("127.0.0.1".to_owned()),
            host_port: Some(String::new()),
        };
        (key.clone(), Some(vec![free_port]))
    });
    let link = |sibling: &ContainerSpec| {
        let full_name = container_name(&launch.task_id, &sibling.name);
        format!("{full_name}:{}", sibling.name)
    };
    let memory = spec.memory_mib.map(|mib| mib.saturating_mul(MIB));
    let endpoint = EndpointSettings {
        // Not aliases, which the whole network would hear. A link needs no container at its end yet.
        links: Some(launch.containers.iter().map(link).collect()),
        aliases: (!spec.network_names.is_empty()).then(|| spec.network_names.clone()),
        ..EndpointSettings::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.entry_point.clone(),
        cmd: spec.command.clone(),
        env: Some(
            spec.environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        user: spec.user.clone(),
        working_dir: spec.working_directory.clone(),
        open_stdin: Some(spec.interactive),
        tty: Some(spec.pseudo_terminal),
        labels: Some(all_labels),
        healthcheck: Some(health_check(spec.health_check.as_ref(), clock)),
        stop_timeout: Some(seconds(spec.stop_timeout)),
        host_config: Some(HostConfig {
            port_bindings: Some(bindings.collect()),
            memory,
            // No swap on top: a limit that swaps instead of killing would never show.
            memory_swap: memory,
            // Docker takes no fewer than two.
            cpu_shares: spec.cpu_shares.map(|shares| shares.max(2)),
            readonly_rootfs: Some(spec.readonly_root_filesystem),
            network_mode: Some(network.to_owned()),
            // Whatever the engine's default is: logs must be readable back.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::new()),
            }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        exposed_ports: Some(exposed),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

/// The definition's check with scaled waits. The timeout is not scaled: the command is real.
fn health_check(check: Option<&HealthCheck>, clock: Clock) -> HealthConfig {
    let Some(check) = check else {
        // Also turns off a HEALTHCHECK of the image.
        return HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        };
    };
    HealthConfig {
        test: Some(check.command.clone()),
        interval: Some(nanoseconds(clock.scaled(check.interval))),
        timeout: Some(nanoseconds(check.timeout)),
        retries: Some(check.retries.into()),
        start_period: Some(nanoseconds(clock.scaled(check.start_period))),
        start_interval: None,
    }
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Whole seconds, rounded up: a process must not get less than it was promised.
fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// An image reference as the engine must get it: a bare name would mean every tag.
pub(super) fn pullable(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::{PortMapping, repository};
    use indexmap::IndexMap;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            name: "web".to_owned(),
            image: "web:1".to_owned(),
            is_consistent: false,
            essential: true,
            entry_point: None,
            command: None,
            environment: IndexMap::from([("A".to_owned(), "b=c".to_owned())]),
            ports: vec![PortMapping {
                container_port: 80,
                host_port: Some(80),
                protocol: "tcp".to_owned(),
            }],
            health_check: None,
            depends_on: Vec::new(),
            user: None,
            working_directory: None,
            readonly_root_filesystem: false,
            interactive: false,
            pseudo_terminal: false,
            memory_mib: Some(64),
            cpu_shares: Some(0),
            docker_labels: IndexMap::from([(LABEL_TASK.to_owned(), "stolen".to_owned())]),
            start_timeout: None,
            stop_timeout: Duration::from_millis(1500),
            awslogs: None,
            network_names: Vec::new(),
            names_when_healthy: Vec::new(),
        }
    }

    fn launch() -> TaskLaunch {
        TaskLaunch {
            task_id: "00".to_owned(),
            cluster: "main".to_owned(),
            service: None,
            task_definition_arn: String::new(),
            family: String::new(),
            containers: vec![spec()],
        }
    }

    #[test]
    fn ports_are_published_on_free_ports_of_this_machine_only() {
        let body = container("me", &launch(), &spec(), "net", Clock::new(1.0).unwrap());
        let host = body.host_config.unwrap();
        let bindings = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
        assert_eq!(bindings[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(bindings[0].host_port.as_deref(), Some(""));
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.memory_swap, host.memory);
        assert_eq!(host.cpu_shares, Some(2));
        assert_eq!(body.stop_timeout, Some(2));
        assert_eq!(body.labels.unwrap()[LABEL_TASK], "00");
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
    }

    #[test]
    fn a_container_knows_its_own_task_by_short_names() {
        let mut launch = launch();
        launch.containers.push(ContainerSpec {
            name: "db".to_owned(),
            ..spec()
        });
        let body = container("me", &launch, &spec(), "net", Clock::new(1.0).unwrap());
        assert_eq!(body.host_config.unwrap().network_mode.unwrap(), "net");
        let endpoint = &body.networking_config.unwrap().endpoints_config.unwrap()["net"];
        assert_eq!(endpoint.aliases, None);
        assert_eq!(
            endpoint.links.clone().unwrap(),
            ["roadstead-00-web:web", "roadstead-00-db:db"]
        );
    }

    #[test]
    fn a_check_waits_shorter_but_may_take_as_long() {
        let mut spec = spec();
        spec.health_check = Some(HealthCheck {
            command: vec!["CMD".to_owned(), "true".to_owned()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            retries: 3,
            start_period: Duration::from_secs(60),
        });
        let body = container("me", &launch(), &spec, "net", Clock::new(10.0).unwrap());
        let check = body.healthcheck.unwrap();
        assert_eq!(check.interval, Some(3_000_000_000));
        assert_eq!(check.timeout, Some(5_000_000_000));
        assert_eq!(check.start_period, Some(6_000_000_000));
    }

    #[test]
    fn references_are_taken_apart() {
        for (image, full, bare) in [
            ("web", "web:latest", "web"),
            (
                "127.0.0.1:4570/web",
                "127.0.0.1:4570/web:latest",
                "127.0.0.1:4570/web",
            ),
            (
                "127.0.0.1:4570/web:1",
                "127.0.0.1:4570/web:1",
                "127.0.0.1:4570/web",
            ),
            ("a/web@sha256:00", "a/web@sha256:00", "a/web"),
            ("a/web:1@sha256:00", "a/web:1@sha256:00", "a/web"),
        ] {
            assert_eq!(pullable(image), full);
            assert_eq!(repository(image), bare);
        }
    }
}
