//! CPU and memory: how definitions write them, what a task takes, which pairs Fargate has.

use serde_json::{Map, Value};

use super::input::{Input, client, invalid};
use crate::scheduler::Need;
use crate::services::AwsError;

/// Fargate's sizes: CPU units, then the least memory, the most, and the step between, in MiB.
const FARGATE: [(u32, u32, u32, u32); 7] = [
    // 256 units have 512, 1024 and 2048 MiB alone.
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// The CPU units that a task-level `cpu` means: `256`, `.25 vCPU`.
fn cpu_units(text: &str) -> Option<u32> {
    match text.to_ascii_lowercase().strip_suffix("vcpu") {
        Some(count) => scaled(count, 1024.0),
        None => text.trim().parse().ok(),
    }
}

/// The MiB that a task-level `memory` means: `512`, `0.5 GB`.
fn mebibytes(text: &str) -> Option<u32> {
    match text.to_ascii_lowercase().strip_suffix("gb") {
        Some(count) => scaled(count, 1024.0),
        None => text.trim().parse().ok(),
    }
}

fn scaled(count: &str, unit: f64) -> Option<u32> {
    let count: f64 = count.trim().parse().ok()?;
    let product = count * unit;
    // Exact for every size that exists; `as` saturates and drops the fraction of nonsense.
    (product > 0.0 && product.is_finite()).then_some(product as u32)
}

fn task_level(
    raw: &Map<String, Value>,
    member: &str,
    read: fn(&str) -> Option<u32>,
) -> Result<Option<u32>, AwsError> {
    let wrong = || {
        client(format!(
            "Invalid '{member}' setting for task. For more information, see the Troubleshooting \
             section of the Amazon ECS Developer Guide."
        ))
    };
    match Input(raw).text(member)?.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match read(text) {
            Some(0) | None => Err(wrong()),
            Some(size) => Ok(Some(size)),
        },
    }
}

/// The task-level memory of a definition in MiB, when it has one.
pub(super) fn memory(raw: &Map<String, Value>) -> Result<Option<u32>, AwsError> {
    task_level(raw, "memory", mebibytes)
}

fn cpu(raw: &Map<String, Value>) -> Result<Option<u32>, AwsError> {
    task_level(raw, "cpu", cpu_units)
}

/// What a task takes of a container instance: its own size, else the sum of its containers', where
/// a reservation goes before a limit. RunTask's overrides count.
pub(super) fn need(raw: &Map<String, Value>, overrides: &Value) -> Result<Need, AwsError> {
    let none = Map::new();
    let overrides = overrides.as_object().unwrap_or(&none);
    let changes = Input(overrides).list("containerOverrides")?;
    let mut sum = Need::default();
    for definition in Input(raw).list("containerDefinitions")? {
        let container = Input::new(definition)?;
        let name = container.text("name")?;
        let change = changes
            .iter()
            .filter_map(|change| Input::new(change).ok())
            .find(|change| change.text("name").is_ok_and(|of| of == name));
        let size = |member| -> Result<Option<u32>, AwsError> {
            let changed = match &change {
                Some(change) => change.number(member)?,
                None => None,
            };
            Ok(changed.or(container.number(member)?))
        };
        sum.cpu = sum.cpu.saturating_add(size("cpu")?.unwrap_or(0));
        let memory = size("memoryReservation")?.or(size("memory")?);
        sum.memory = sum.memory.saturating_add(memory.unwrap_or(0));
    }
    Ok(Need {
        cpu: cpu(overrides)?.or(cpu(raw)?).unwrap_or(sum.cpu),
        memory: memory(overrides)?.or(memory(raw)?).unwrap_or(sum.memory),
    })
}

/// Whether Fargate has tasks of that size.
fn fargate_has(cpu: u32, memory: u32) -> bool {
    FARGATE.iter().any(|(units, least, most, step)| {
        *units == cpu
            && (*least..=*most).contains(&memory)
            && memory.is_multiple_of(*step)
            && !(cpu == 256 && memory == 1536)
    })
}

/// The launch types that can run a definition, as ECS finds out when it is registered.
pub(super) fn compatibilities(raw: &Map<String, Value>) -> Vec<&'static str> {
    if Input(raw).text("networkMode").ok().flatten() != Some("awsvpc") {
        return vec!["EXTERNAL", "EC2"];
    }
    match (cpu(raw), memory(raw)) {
        (Ok(Some(cpu)), Ok(Some(memory))) if fargate_has(cpu, memory) => vec!["EC2", "FARGATE"],
        _ => vec!["EC2"],
    }
}

/// Checks sizes, and that a definition which is said to be for Fargate can run there.
pub(super) fn validate(raw: &Map<String, Value>) -> Result<(), AwsError> {
    let (cpu, memory) = (cpu(raw)?, memory(raw)?);
    let wanted = Input(raw).texts("requiresCompatibilities")?;
    if !wanted.contains(&"FARGATE") {
        return Ok(());
    }
    if Input(raw).text("networkMode")? != Some("awsvpc") {
        return Err(client("Fargate only supports network mode ‘awsvpc’."));
    }
    let missing = |member| {
        client(format!(
            "Fargate requires that '{member}' be defined at the task level."
        ))
    };
    let cpu = cpu.ok_or_else(|| missing("cpu"))?;
    let memory = memory.ok_or_else(|| missing("memory"))?;
    if fargate_has(cpu, memory) {
        Ok(())
    } else {
        Err(client(format!(
            "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See \
             the Amazon ECS documentation for the valid values."
        )))
    }
}

/// What a task of a definition takes when it starts under a launch type; None with Fargate.
/// Refuses what cannot start there.
pub(super) fn launch(
    raw: &Map<String, Value>,
    overrides: &Value,
    launch_type: Option<&str>,
    network: Option<&Value>,
) -> Result<Option<Need>, AwsError> {
    let awsvpc = Input(raw).text("networkMode")? == Some("awsvpc");
    if awsvpc && network.is_none() {
        return Err(invalid(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ));
    }
    if !awsvpc && network.is_some() {
        return Err(invalid(
            "Network Configuration is not valid for the given networkMode of this task \
             definition.",
        ));
    }
    match launch_type.unwrap_or("EC2") {
        "EC2" => need(raw, overrides).map(Some),
        "FARGATE" if compatibilities(raw).contains(&"FARGATE") => Ok(None),
        "FARGATE" => Err(invalid(
            "Task definition does not support launch_type FARGATE.",
        )),
        "EXTERNAL" => Err(AwsError::unsupported_member("launchType EXTERNAL")),
        other => Err(invalid(format!("Unknown launch type {other}."))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{compatibilities, fargate_has, launch, need, validate};
    use crate::scheduler::Need;

    fn raw(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (cpu, memory, expected) in [
            ("256", "512", (256, 512)),
            (".25 vCPU", "0.5GB", (256, 512)),
            ("1 vcpu", "2 GB", (1024, 2048)),
            ("16 vCPU", "120GB", (16_384, 122_880)),
        ] {
            let definition = raw(&json!({"cpu": cpu, "memory": memory}));
            let read = need(&definition, &Value::Null).unwrap();
            assert_eq!((read.cpu, read.memory), expected, "{cpu}, {memory}");
        }
        for wrong in ["", "x", "0", "-1", "nan GB"] {
            let definition = raw(&json!({"memory": wrong, "containerDefinitions": []}));
            let read = need(&definition, &Value::Null);
            assert_eq!(read.is_ok(), wrong.is_empty(), "{wrong}: {read:?}");
        }
    }

    #[test]
    fn without_a_size_of_its_own_a_task_takes_what_its_containers_reserve() {
        let definition = raw(&json!({"containerDefinitions": [
            {"name": "app", "cpu": 100, "memory": 512, "memoryReservation": 256},
            {"name": "log", "cpu": 28, "memory": 64},
        ]}));
        let plain = need(&definition, &Value::Null).unwrap();
        assert_eq!(
            plain,
            Need {
                cpu: 128,
                memory: 320
            }
        );
        let overrides = json!({"containerOverrides": [{"name": "log", "memory": 128}]});
        let changed = need(&definition, &overrides).unwrap();
        assert_eq!(
            changed,
            Need {
                cpu: 128,
                memory: 384
            }
        );
        let whole = need(&definition, &json!({"cpu": "1024", "memory": "2048"})).unwrap();
        assert_eq!(
            whole,
            Need {
                cpu: 1024,
                memory: 2048
            }
        );
    }

    #[test]
    fn fargate_has_the_documented_pairs_alone() {
        for (cpu, memory, has) in [
            (256, 512, true),
            (256, 1024, true),
            (256, 1536, false),
            (256, 2048, true),
            (256, 4096, false),
            (512, 512, false),
            (512, 3072, true),
            (4096, 30_720, true),
            (4096, 31_744, false),
            (8192, 16_384, true),
            (8192, 17_408, false),
            (16_384, 122_880, true),
            (300, 1024, false),
        ] {
            assert_eq!(fargate_has(cpu, memory), has, "{cpu} CPU, {memory} MiB");
        }
    }

    #[test]
    fn what_is_said_to_be_for_fargate_must_be_able_to_run_there() {
        let definition = |mode: &str, cpu: &str, memory: &str| {
            raw(
                &json!({"requiresCompatibilities": ["FARGATE"], "networkMode": mode,
                        "cpu": cpu, "memory": memory}),
            )
        };
        let good = definition("awsvpc", "256", "512");
        validate(&good).unwrap();
        assert_eq!(compatibilities(&good), ["EC2", "FARGATE"]);
        let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let taken = launch(&good, &Value::Null, Some("FARGATE"), Some(&network)).unwrap();
        assert_eq!(taken, None, "Fargate takes no instance");
        for (definition, told) in [
            (definition("bridge", "256", "512"), "network mode"),
            (definition("awsvpc", "", "512"), "'cpu' be defined"),
            (definition("awsvpc", "256", ""), "'memory' be defined"),
            (
                definition("awsvpc", "256", "4096"),
                "No Fargate configuration exists for given values: 256 CPU, 4096 memory",
            ),
        ] {
            let refusal = validate(&definition).unwrap_err();
            assert_eq!(refusal.code, "ClientException");
            assert!(refusal.message.contains(told), "{refusal}");
        }
        let bridge = raw(&json!({"cpu": "256", "memory": "512", "containerDefinitions": []}));
        let refusal = launch(&bridge, &Value::Null, Some("FARGATE"), None).unwrap_err();
        assert!(
            refusal
                .message
                .contains("does not support launch_type FARGATE")
        );
        let refusal = launch(&good, &Value::Null, Some("FARGATE"), None).unwrap_err();
        assert!(
            refusal
                .message
                .contains("Network Configuration must be provided")
        );
    }
}
