//! `serviceRegistries`: the names that Cloud Map gives to the tasks of a service.
//!
//! As with Service Connect, a name is one of a container's on the sandbox's network. At AWS it leads
//! to the address that the containers of a task share; here each has its own, so the name is that of
//! the container with ports. Must not know: Docker.

use serde_json::{Map, Value};

use super::input::{Input, invalid};
use super::names::Name;
use crate::services::{AwsError, discovery};
use crate::state::State;

/// The member of CreateService and UpdateService.
pub(super) const MEMBER: &str = "serviceRegistries";

/// The names that the settings of a revision ask for. Refuses what AWS refuses, and what would leave
/// open which container is meant.
pub(super) fn read(
    state: &State,
    settings: &Map<String, Value>,
    definition: &Map<String, Value>,
) -> Result<Vec<Name>, AwsError> {
    let registries = Input(settings).list(MEMBER)?;
    if registries.len() > 1 {
        return Err(invalid(
            "Each service may be associated with one service registry.",
        ));
    }
    let mut names = Vec::new();
    for wanted in registries {
        let wanted = Input::new(wanted)?;
        let arn = wanted.required("registryArn")?;
        let registry = discovery::registry(state, arn)
            .ok_or_else(|| invalid(format!("The service registry {arn} does not exist.")))?;
        let container = container(&wanted, definition, arn)?;
        let Some(name) = discovery::dns_name(state, registry) else {
            continue;
        };
        let container = match container {
            Some(container) => container,
            None => with_ports(definition)?,
        };
        names.push(Name {
            container: container.to_owned(),
            name,
            by_health: registry.told_health,
        });
    }
    Ok(names)
}

/// The container that is named, which only tasks without an address of their own need and may name.
fn container<'a>(
    wanted: &Input<'a>,
    definition: &Map<String, Value>,
    arn: &str,
) -> Result<Option<&'a str>, AwsError> {
    let name = wanted.text("containerName")?;
    let port = wanted.number("containerPort")?;
    if Input(definition).text("networkMode")? == Some("awsvpc") {
        for (member, given) in [
            ("port", wanted.number("port")?.is_some()),
            ("containerName", name.is_some()),
            ("containerPort", port.is_some()),
        ] {
            if given {
                return Err(invalid(format!(
                    "The values specified for serviceRegistries do not require a value for \
                     '{member}'. Remove the value and retry. Registry: {arn}"
                )));
            }
        }
        return Ok(None);
    }
    let (Some(name), Some(port)) = (name, port) else {
        return Err(invalid(format!(
            "When specifying 'host' or 'bridge' for networkMode, values for 'containerName' and \
             'containerPort' must be specified from the task definition. Registry: {arn}"
        )));
    };
    for container in Input(definition).list("containerDefinitions")? {
        let container = Input::new(container)?;
        if container.text("name")? != Some(name) {
            continue;
        }
        for mapping in container.list("portMappings")? {
            if Input::new(mapping)?.number("containerPort")? == Some(port) {
                return Ok(Some(name));
            }
        }
    }
    Err(invalid(format!(
        "The container {name} did not have a container port {port} defined."
    )))
}

/// The one container with ports, or the one container.
fn with_ports(definition: &Map<String, Value>) -> Result<&str, AwsError> {
    let containers = Input(definition).list("containerDefinitions")?;
    let mut found = Vec::new();
    for container in containers {
        let container = Input::new(container)?;
        if containers.len() == 1 || !container.list("portMappings")?.is_empty() {
            found.push(container.required("name")?);
        }
    }
    match found[..] {
        [one] => Ok(one),
        _ => Err(AwsError::unsupported_member(
            "serviceRegistries for a task in which not exactly one container has ports: each has an \
             address of its own",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Name, read};
    use crate::clock::Time;
    use crate::services::discovery::{Namespace, NamespaceKind, Registry};
    use crate::state::State;

    const ARN: &str = "arn:aws:servicediscovery:us-east-1:000000000000:service/srv-1";

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn state(kind: NamespaceKind, told_health: bool) -> State {
        let mut state = State::default();
        let namespace = Namespace {
            id: "ns-1".to_owned(),
            name: "shop".to_owned(),
            kind,
            created_at: Time(0),
            operation: "op-1".to_owned(),
            creator_request_id: None,
            shown: Map::new(),
        };
        state.namespaces.insert("ns-1".to_owned(), namespace);
        let registry = Registry {
            id: "srv-1".to_owned(),
            name: "web".to_owned(),
            namespace: "ns-1".to_owned(),
            created_at: Time(0),
            in_dns: kind == NamespaceKind::PrivateDns,
            told_health,
            creator_request_id: None,
            shown: Map::new(),
        };
        state.registries.insert("srv-1".to_owned(), registry);
        state
    }

    fn definition(mode: &str, side: &Value) -> Map<String, Value> {
        object(&json!({"networkMode": mode, "containerDefinitions": [
            {"name": "side", "portMappings": side},
            {"name": "app", "portMappings": [{"containerPort": 80}]},
        ]}))
    }

    #[test]
    fn a_name_is_that_of_the_container_with_ports_or_of_the_one_that_is_named() {
        let dns = state(NamespaceKind::PrivateDns, true);
        let own_address = definition("awsvpc", &json!([]));
        let shared = definition("bridge", &json!([{"containerPort": 9}]));
        let plain = object(&json!({"serviceRegistries": [{"registryArn": ARN}]}));
        let named = object(&json!({"serviceRegistries": [
            {"registryArn": ARN, "containerName": "app", "containerPort": 80}]}));
        for (settings, definition) in [(&plain, &own_address), (&named, &shared)] {
            let wanted = Name {
                container: "app".to_owned(),
                name: "web.shop".to_owned(),
                by_health: true,
            };
            assert_eq!(read(&dns, settings, definition).unwrap(), [wanted]);
        }
        let untold = state(NamespaceKind::PrivateDns, false);
        assert!(!read(&untold, &plain, &own_address).unwrap()[0].by_health);
        let http = state(NamespaceKind::Http, true);
        assert_eq!(read(&http, &plain, &own_address).unwrap(), []);
        assert_eq!(read(&dns, &Map::new(), &own_address).unwrap(), []);
    }

    #[test]
    fn what_aws_refuses_and_what_leaves_the_container_open_is_refused() {
        let dns = state(NamespaceKind::PrivateDns, true);
        let awsvpc = definition("awsvpc", &json!([]));
        let two = definition("awsvpc", &json!([{"containerPort": 9}]));
        let bridge = definition("bridge", &json!([]));
        let other = ARN.replace("srv-1", "srv-2");
        for (registries, definition, part) in [
            (json!([{"registryArn": other}]), &awsvpc, "does not exist"),
            (
                json!([{"registryArn": ARN}, {"registryArn": ARN}]),
                &awsvpc,
                "one service registry",
            ),
            (
                json!([{"registryArn": ARN}]),
                &bridge,
                "must be specified from the task definition",
            ),
            (
                json!([{"registryArn": ARN, "containerPort": 80}]),
                &awsvpc,
                "do not require a value for 'containerPort'",
            ),
            (
                json!([{"registryArn": ARN, "containerName": "side", "containerPort": 80}]),
                &bridge,
                "did not have a container port 80",
            ),
            (
                json!([{"registryArn": ARN}]),
                &two,
                "not exactly one container has ports",
            ),
        ] {
            let settings = object(&json!({"serviceRegistries": registries}));
            let refusal = read(&dns, &settings, definition).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
