//! Service Connect: the names under which the tasks of a service reach those of others.
//!
//! There is no proxy here: a name is one of the container's on the sandbox's network, so it holds for
//! every port of it, and as long as the task is well. Must not know: Docker.

use serde_json::{Map, Value};

use super::input::{Input, invalid};
use crate::services::AwsError;
use crate::state::State;

/// The member of CreateService and UpdateService.
pub(super) const MEMBER: &str = "serviceConnectConfiguration";

/// A name, and the container it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub container: String,
    pub name: String,
    /// It leads only to tasks that are well, where something checks them.
    pub by_health: bool,
}

/// The namespace that the cluster's services are in when they name none.
pub(super) fn usual_namespace<'a>(state: &'a State, cluster: &str) -> Option<&'a str> {
    let defaults = state
        .clusters
        .get(cluster)?
        .settings
        .get("serviceConnectDefaults")?;
    defaults.get("namespace")?.as_str()
}

/// The names that the settings of a revision ask for. Refuses ports that do not exist, and aliases
/// that would need a proxy.
pub(super) fn read(
    settings: &Map<String, Value>,
    definition: &Map<String, Value>,
    usual_namespace: Option<&str>,
) -> Result<Vec<Name>, AwsError> {
    let Some(members) = Input(settings).object(MEMBER)? else {
        return Ok(Vec::new());
    };
    if !members.flag("enabled")?.unwrap_or(false) {
        return Ok(Vec::new());
    }
    let namespace = members.text("namespace")?.or(usual_namespace).map(plain);
    let mut names = Vec::new();
    for service in members.list("services")? {
        let service = Input::new(service)?;
        let port_name = service.required("portName")?;
        let (container, port) = find_port(definition, port_name)?.ok_or_else(|| {
            invalid(format!(
                "The Service Connect port name {port_name} does not exist in the task definition."
            ))
        })?;
        let discovery_name = service.text("discoveryName")?.unwrap_or(port_name);
        let aliases = service.list("clientAliases")?;
        if aliases.len() > 1 {
            return Err(invalid(
                "A Service Connect service has at most one client alias.",
            ));
        }
        for alias in aliases {
            let alias = Input::new(alias)?;
            let wanted = alias
                .number("port")?
                .ok_or_else(|| invalid("clientAliases.port must not be empty."))?;
            if wanted != port {
                return Err(AwsError::unsupported_member(&format!(
                    "clientAliases.port {wanted} for the container port {port}: there is no proxy \
                     in between, so they must be the same"
                )));
            }
            let name = match (alias.text("dnsName")?, namespace) {
                (Some(name), _) => name.to_owned(),
                (None, Some(namespace)) => format!("{discovery_name}.{namespace}"),
                (None, None) => {
                    return Err(invalid(
                        "Service Connect needs a namespace, of the service or of the cluster.",
                    ));
                }
            };
            names.push(Name {
                container: container.to_owned(),
                name,
                by_health: true,
            });
        }
    }
    Ok(names)
}

/// A namespace's name; of an ARN, its last part.
fn plain(namespace: &str) -> &str {
    namespace.rsplit('/').next().unwrap_or(namespace)
}

/// The container and the port of the port mapping of that name.
fn find_port<'a>(
    definition: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<(&'a str, u32)>, AwsError> {
    for container in Input(definition).list("containerDefinitions")? {
        let container = Input::new(container)?;
        for mapping in container.list("portMappings")? {
            let mapping = Input::new(mapping)?;
            if mapping.text("name")? == Some(name) {
                let port = mapping.number("containerPort")?.unwrap_or(0);
                return Ok(Some((container.required("name")?, port)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Name, read};

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn definition() -> Map<String, Value> {
        object(&json!({"containerDefinitions": [
            {"name": "side"},
            {"name": "app", "portMappings": [{"name": "http", "containerPort": 80}]},
        ]}))
    }

    fn service(services: &Value) -> Map<String, Value> {
        object(&json!({"serviceConnectConfiguration": {"enabled": true, "services": services}}))
    }

    #[test]
    fn a_name_is_the_alias_or_made_of_discovery_name_and_namespace() {
        let services = json!([{"portName": "http", "clientAliases": [{"port": 80}]}]);
        for (services, wanted) in [
            (services, "http.shop"),
            (
                json!([{"portName": "http", "discoveryName": "web", "clientAliases": [{"port": 80}]}]),
                "web.shop",
            ),
            (
                json!([{"portName": "http", "clientAliases": [{"port": 80, "dnsName": "web"}]}]),
                "web",
            ),
        ] {
            let names = read(&service(&services), &definition(), Some("shop")).unwrap();
            let wanted = Name {
                container: "app".to_owned(),
                name: wanted.to_owned(),
                by_health: true,
            };
            assert_eq!(names, [wanted]);
        }
        assert_eq!(read(&Map::new(), &definition(), None).unwrap(), []);
    }

    #[test]
    fn what_would_lead_nowhere_is_refused() {
        for (services, part) in [
            (
                json!([{"portName": "https", "clientAliases": [{"port": 80}]}]),
                "https",
            ),
            (
                json!([{"portName": "http", "clientAliases": [{"port": 8080, "dnsName": "web"}]}]),
                "8080",
            ),
            (
                json!([{"portName": "http", "clientAliases": [{"port": 80}]}]),
                "namespace",
            ),
        ] {
            let refusal = read(&service(&services), &definition(), None).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
