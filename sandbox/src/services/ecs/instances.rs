//! Container instances: the machines that a cluster pretends to have.
//!
//! They exist from the cluster's creation; `/_sandbox/instances` adds and takes away.

use serde_json::{Map, Value, json};

use super::input::{Input, invalid};
use super::{cluster_name, short, show};
use crate::app::App;
use crate::scheduler::{Fleet, Ids, Instance, InstanceStatus, Need, TaskStatus};
use crate::services::{AwsError, JsonResult, Reply};
use crate::state::{State, instances};

pub(super) fn arn(app: &App, cluster: &str, id: &str) -> String {
    app.config
        .arn("ecs", &format!("container-instance/{cluster}/{id}"))
}

fn status(input: &Input<'_>) -> Result<Option<InstanceStatus>, AwsError> {
    match input.text("status")? {
        None => Ok(None),
        Some("ACTIVE") => Ok(Some(InstanceStatus::Active)),
        Some("DRAINING") => Ok(Some(InstanceStatus::Draining)),
        Some("REGISTERING" | "DEREGISTERING" | "REGISTRATION_FAILED") => Err(
            AwsError::unsupported_member("status other than ACTIVE and DRAINING"),
        ),
        Some(other) => Err(invalid(format!("Unknown status {other}."))),
    }
}

pub(super) fn list(app: &App, input: &Input<'_>) -> JsonResult {
    let wanted = status(input)?;
    let arns = app.store.read(|state| -> Result<Vec<String>, AwsError> {
        let cluster = cluster_name(state, input)?;
        Ok(state
            .instances(&cluster)
            .filter(|one| wanted.is_none_or(|wanted| one.status == wanted))
            .map(|one| arn(app, &cluster, &one.id))
            .collect())
    })?;
    let (page, next) = input.page(arns, 100)?;
    Ok(Reply::read(
        json!({"containerInstanceArns": page, "nextToken": next}),
    ))
}

pub(super) fn describe(app: &App, input: &Input<'_>) -> JsonResult {
    let names = input.texts("containerInstances")?;
    if names.is_empty() || names.len() > 100 {
        return Err(invalid(
            "Container instances cannot be empty, nor more than 100.",
        ));
    }
    let with_health = input.includes("CONTAINER_INSTANCE_HEALTH")?;
    app.store.read(|state| {
        let cluster = cluster_name(state, input)?;
        Ok(Reply::read(shown(
            app,
            state,
            &cluster,
            &names,
            with_health,
        )))
    })
}

fn shown(app: &App, state: &State, cluster: &str, names: &[&str], with_health: bool) -> Value {
    let fleet = state.fleet(cluster);
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let mut known = state.instances(cluster);
        match known.find(|one| one.id == short(name)) {
            Some(instance) => {
                instances.push(show(app, state, cluster, &fleet, instance, with_health));
            }
            None => {
                failures.push(json!({"arn": arn(app, cluster, short(name)), "reason": "MISSING"}));
            }
        }
    }
    json!({"containerInstances": instances, "failures": failures})
}

pub(super) async fn update_state(app: &App, input: &Input<'_>) -> JsonResult {
    let names = input.texts("containerInstances")?;
    if names.is_empty() || names.len() > 10 {
        return Err(invalid("Name 1 to 10 container instances."));
    }
    input.required("status")?;
    let wanted = status(input)?;
    let reply = app
        .store
        .change(|state| {
            let cluster = cluster_name(state, input)?;
            let mut changed = false;
            for name in &names {
                if let Some(status) = wanted {
                    changed |= state.set_instance(&cluster, short(name), status);
                }
            }
            Ok(Reply {
                body: shown(app, state, &cluster, &names, false),
                changed,
            })
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// The instance as AWS shows it.
fn show(
    app: &App,
    state: &State,
    cluster: &str,
    fleet: &Fleet,
    instance: &Instance,
    with_health: bool,
) -> Value {
    let (mut running, mut pending) = (0, 0);
    for found in state.all_tasks().filter(|found| found.cluster == cluster) {
        let placed = found.task.placed.as_ref();
        if placed.is_some_and(|placed| placed.instance == instance.id) {
            running += u32::from(found.task.status == TaskStatus::Running);
            pending += u32::from(found.task.status < TaskStatus::Running);
        }
    }
    let attributes = [
        ("ecs.availability-zone", show::zone(app, instance.zone)),
        ("ecs.os-type", "linux".to_owned()),
        ("ecs.cpu-architecture", architecture().to_owned()),
    ];
    let mut shown = json!({
        "containerInstanceArn": arn(app, cluster, &instance.id),
        "ec2InstanceId": instance.ec2_id,
        "version": instance.version,
        "versionInfo": {"agentVersion": "1.99.0", "dockerVersion": "DockerVersion: 25.0.8"},
        "remainingResources": resources(fleet.free(&instance.id)),
        "registeredResources": resources(instance.size),
        "status": instance.status.word(),
        "agentConnected": true,
        "runningTasksCount": running,
        "pendingTasksCount": pending,
        "attributes": attributes
            .map(|(name, value)| json!({"name": name, "value": value})),
        "registeredAt": instance.registered_at.epoch_seconds(),
        "attachments": [],
        "tags": [],
    });
    if with_health {
        shown["healthStatus"] = json!({"overallStatus": "OK", "details": [
            {"type": "CONTAINER_RUNTIME", "status": "OK"},
        ]});
    }
    shown
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

fn resources(size: Need) -> Value {
    let number = |name: &str, value: u32| {
        json!({"name": name, "type": "INTEGER", "integerValue": value,
               "doubleValue": 0.0, "longValue": 0})
    };
    let ports = |name: &str| {
        json!({"name": name, "type": "STRINGSET", "stringSetValue": [],
               "doubleValue": 0.0, "longValue": 0, "integerValue": 0})
    };
    json!([
        number("CPU", size.cpu),
        number("MEMORY", size.memory),
        ports("PORTS"),
        ports("PORTS_UDP"),
    ])
}

/// How many instances of one kind; what `/_sandbox/instances` is given.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Such as `us-east-1a`.
    zone: String,
    /// CPU units, 1024 per vCPU.
    cpu: u32,
    /// MiB.
    memory: u32,
    #[serde(default = "one")]
    count: u32,
}

fn one() -> u32 {
    1
}

/// More instances than this of one cluster are a slip of the pen.
const MOST: usize = 1000;

fn make(app: &App, wanted: &[Wanted]) -> Result<Vec<Instance>, AwsError> {
    let now = app.clock.now();
    let mut random = || app.clock.draw();
    let mut ids = Ids(&mut random);
    let mut made = Vec::new();
    for kind in wanted {
        let zone = kind
            .zone
            .strip_prefix(app.config.region.as_str())
            .and_then(|letter| letter.parse::<char>().ok())
            .filter(char::is_ascii_lowercase)
            .ok_or_else(|| {
                let region = &app.config.region;
                invalid(format!(
                    "{} is no zone of this Region: use {region}a, {region}b and so on.",
                    kind.zone
                ))
            })?;
        if kind.count as usize > MOST {
            return Err(invalid(format!("A cluster has at most {MOST} instances.")));
        }
        let size = Need {
            cpu: kind.cpu,
            memory: kind.memory,
        };
        for _ in 0..kind.count {
            made.push(instances::new(zone, size, now, &mut ids));
        }
    }
    Ok(made)
}

/// Adds instances to a cluster, or takes all that it had away first. What was there is lost.
pub(crate) async fn provide(
    app: &App,
    cluster: &str,
    wanted: &[Wanted],
    instead: bool,
) -> JsonResult {
    let made = make(app, wanted)?;
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            let mut name = Map::new();
            name.insert("cluster".to_owned(), json!(cluster));
            let cluster = cluster_name(state, &Input(&name))?;
            let present: Vec<String> = state
                .instances(&cluster)
                .map(|one| one.id.clone())
                .collect();
            if instead {
                for id in &present {
                    state.lose_instance(id, now);
                }
            } else if present.len() + made.len() > MOST {
                return Err(invalid(format!("A cluster has at most {MOST} instances.")));
            }
            if let Some(known) = state.clusters.get_mut(&cluster) {
                known.instances.extend(made);
            }
            Ok(Reply::changed(overview(app, state)))
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// Takes an instance away, by its id or EC2's, with everything that runs on it.
pub(crate) async fn lose(app: &App, id: &str) -> JsonResult {
    let now = app.clock.now();
    let reply = app
        .store
        .change(|state| {
            if state.lose_instance(id, now) {
                Ok(Reply::changed(overview(app, state)))
            } else {
                Err(invalid(format!(
                    "There is no instance {id}: GET /_sandbox/instances lists all."
                )))
            }
        })
        .await?;
    app.wake.notify_one();
    Ok(reply)
}

/// Every instance of every cluster, for `/_sandbox/instances`.
pub(crate) fn overview(app: &App, state: &State) -> Value {
    let mut shown = Vec::new();
    for cluster in state.clusters.values().filter(|cluster| cluster.active) {
        let fleet = state.fleet(&cluster.name);
        for instance in &cluster.instances {
            let free = fleet.free(&instance.id);
            shown.push(json!({
                "cluster": cluster.name,
                "id": instance.id,
                "ec2InstanceId": instance.ec2_id,
                "zone": show::zone(app, instance.zone),
                "status": instance.status.word(),
                "cpu": instance.size.cpu,
                "memory": instance.size.memory,
                "freeCpu": free.cpu,
                "freeMemory": free.memory,
            }));
        }
    }
    json!(shown)
}
