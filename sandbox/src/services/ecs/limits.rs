//! Values of a task definition that AWS takes from nobody, and values that this machine cannot
//! honour. Refuses them; changes nothing.

use serde_json::{Map, Value};

use super::input::{Input, client};
use crate::config::{BackendKind, Config};
use crate::services::AwsError;

/// Options of the `awslogs` driver that make one event of several lines.
const MULTILINE: [&str; 2] = ["awslogs-datetime-format", "awslogs-multiline-pattern"];

/// The architecture of this machine in ECS's word; None when ECS has none for it.
fn architecture() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Some("X86_64"),
        "aarch64" => Some("ARM64"),
        _ => None,
    }
}

/// Checks a definition's values. A lenient sandbox takes what it cannot honour, but no more than that.
pub(super) fn check(config: &Config, raw: &Map<String, Value>) -> Result<(), AwsError> {
    let definition = Input(raw);
    check_architecture(config, &definition)?;
    match definition.text("networkMode")? {
        None | Some("" | "bridge" | "awsvpc") => {}
        Some(mode @ ("host" | "none")) => refuse(config, &format!("networkMode {mode}"))?,
        Some(other) => return Err(client(format!("Invalid networkMode {other}."))),
    }
    if let Some(storage) = definition.object("ephemeralStorage")? {
        let size = storage.number("sizeInGiB")?;
        within("ephemeralStorage.sizeInGiB", size, 21, 200)?;
    }
    let on_fargate = definition
        .texts("requiresCompatibilities")?
        .contains(&"FARGATE");
    for container in definition.list("containerDefinitions")? {
        check_container(config, &Input::new(container)?, on_fargate)?;
    }
    Ok(())
}

/// Whatever the sandbox cannot honour passes when it is lenient.
fn refuse(config: &Config, what: &str) -> Result<(), AwsError> {
    if config.lenient {
        tracing::warn!(what, "ignored: the sandbox is lenient");
        return Ok(());
    }
    Err(AwsError::unsupported_member(what))
}

fn check_architecture(config: &Config, definition: &Input<'_>) -> Result<(), AwsError> {
    let Some(platform) = definition.object("runtimePlatform")? else {
        return Ok(());
    };
    match platform.text("cpuArchitecture")? {
        None | Some("") => Ok(()),
        // Simulated tasks run on nothing.
        Some("X86_64" | "ARM64") if config.backend == BackendKind::Simulated => Ok(()),
        Some(wanted @ ("X86_64" | "ARM64")) if architecture() != Some(wanted) => refuse(
            config,
            &format!("runtimePlatform.cpuArchitecture {wanted} on this machine"),
        ),
        Some("X86_64" | "ARM64") => Ok(()),
        Some(other) => Err(client(format!("Invalid cpuArchitecture {other}."))),
    }
}

fn check_container(
    config: &Config,
    container: &Input<'_>,
    on_fargate: bool,
) -> Result<(), AwsError> {
    let name = container.text("name")?.unwrap_or_default();
    if on_fargate {
        for member in ["startTimeout", "stopTimeout"] {
            within(member, container.number(member)?, 2, 120)?;
        }
    }
    if let Some(check) = container.object("healthCheck")? {
        for (member, least, most) in [
            ("interval", 5, 300),
            ("timeout", 2, 60),
            ("retries", 1, 10),
            ("startPeriod", 0, 300),
        ] {
            within(
                &format!("healthCheck.{member}"),
                check.number(member)?,
                least,
                most,
            )?;
        }
    }
    let Some(logs) = container.object("logConfiguration")? else {
        return Ok(());
    };
    let Some(options) = logs.object("options")? else {
        return Ok(());
    };
    for option in MULTILINE {
        if options.text(option)?.is_some_and(|value| !value.is_empty()) {
            refuse(
                config,
                &format!("containerDefinitions[{name}].logConfiguration.options.{option}"),
            )?;
        }
    }
    Ok(())
}

/// Refuses a number outside of the documented range; one that is not there passes.
fn within(member: &str, value: Option<u32>, least: u32, most: u32) -> Result<(), AwsError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(client(format!(
            "Invalid {member} {value}: it must be between {least} and {most}."
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{architecture, check};
    use crate::config::{BackendKind, Config};

    fn refusal(config: &Config, definition: &Value) -> Option<(String, String)> {
        let refusal = check(config, definition.as_object().unwrap()).err()?;
        Some((refusal.code, refusal.message))
    }

    /// A definition of one container with these members.
    fn container(mut members: Value) -> Value {
        members["name"] = json!("app");
        json!({"containerDefinitions": [members]})
    }

    #[test]
    fn what_this_machine_cannot_honour_is_refused_unless_it_is_lenient() {
        let strict = Config::new("unused");
        let lenient = Config {
            lenient: true,
            ..Config::new("unused")
        };
        let foreign = match architecture() {
            Some("X86_64") => "ARM64",
            _ => "X86_64",
        };
        let multiline = json!({"logDriver": "awslogs",
            "options": {"awslogs-group": "g", "awslogs-multiline-pattern": "^INFO"}});
        for (member, definition) in [
            (
                "`runtimePlatform.cpuArchitecture ",
                json!({"runtimePlatform": {"cpuArchitecture": foreign}}),
            ),
            ("`networkMode host`", json!({"networkMode": "host"})),
            ("`networkMode none`", json!({"networkMode": "none"})),
            (
                "`containerDefinitions[app].logConfiguration.options.awslogs-multiline-pattern`",
                container(json!({ "logConfiguration": multiline })),
            ),
        ] {
            let (code, message) = refusal(&strict, &definition).unwrap();
            assert_eq!(code, "UnsupportedFeatureException", "{message}");
            assert!(message.contains(member), "{message}");
            assert_eq!(refusal(&lenient, &definition), None);
        }
    }

    #[test]
    fn only_real_tasks_need_a_machine_of_their_architecture() {
        let own = json!({"runtimePlatform": {"cpuArchitecture": architecture().unwrap()}});
        assert_eq!(refusal(&Config::new("unused"), &own), None);
        let simulated = Config {
            backend: BackendKind::Simulated,
            ..Config::new("unused")
        };
        for architecture in ["X86_64", "ARM64"] {
            let any = json!({"runtimePlatform": {"cpuArchitecture": architecture}});
            assert_eq!(refusal(&simulated, &any), None);
        }
    }

    #[test]
    fn numbers_outside_of_what_aws_documents_are_refused_whoever_asks() {
        let config = Config {
            lenient: true,
            ..Config::new("unused")
        };
        let on_fargate = |member: &str, value: u32| {
            let mut definition = container(json!({ member: value }));
            definition["requiresCompatibilities"] = json!(["FARGATE"]);
            definition
        };
        let health = |member: &str, value: u32| container(json!({"healthCheck": {member: value}}));
        let storage = |size: u32| json!({"ephemeralStorage": {"sizeInGiB": size}});
        for (wrong, right) in [
            (on_fargate("startTimeout", 1), on_fargate("startTimeout", 2)),
            (
                on_fargate("startTimeout", 121),
                on_fargate("startTimeout", 120),
            ),
            (
                on_fargate("stopTimeout", 121),
                on_fargate("stopTimeout", 120),
            ),
            (
                on_fargate("startTimeout", 600),
                container(json!({"startTimeout": 600})),
            ),
            (health("interval", 4), health("interval", 5)),
            (health("interval", 301), health("interval", 300)),
            (health("timeout", 1), health("timeout", 2)),
            (health("timeout", 61), health("timeout", 60)),
            (health("retries", 11), health("retries", 10)),
            (health("startPeriod", 301), health("startPeriod", 300)),
            (storage(20), storage(21)),
            (storage(201), storage(200)),
            (
                json!({"networkMode": "nat"}),
                json!({"networkMode": "bridge"}),
            ),
            (
                json!({"runtimePlatform": {"cpuArchitecture": "SPARC"}}),
                json!({"runtimePlatform": {}}),
            ),
        ] {
            let (code, message) = refusal(&config, &wrong).unwrap();
            assert_eq!(code, "ClientException", "{message}");
            assert_eq!(refusal(&config, &right), None, "{right}");
        }
    }
}
