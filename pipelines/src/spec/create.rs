//! `create` of `ecs`: what a service that does not exist yet is made with. Field by field, an override
//! wins over its environment.

use super::decode::{optional, required};
use super::diagnostic::Reporter;
use super::environments::TASKS;
use super::fields::{Fields, Keys, list};
use super::keys;
use super::model::Pipeline;
use super::task_definition::DefinitionBase;
use super::tree::{Entry, Node, Value};
use super::values;
use crate::durations::Seconds;
use crate::id::Place;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Ports of TCP.
pub(super) const PORT: RangeInclusive<u32> = 1..=65_535;
/// ECS takes so many subnets and security groups.
pub(super) const MOST_SUBNETS: usize = 16;
pub(super) const MOST_SECURITY_GROUPS: usize = 5;

/// The words of `launch_type`.
pub(super) const LAUNCH_TYPES: [(&str, LaunchType); 2] =
    [("ec2", LaunchType::Ec2), ("fargate", LaunchType::Fargate)];

/// What tasks run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchType {
    /// The cluster's container instances.
    Ec2,
    /// Fargate.
    Fargate,
}

/// A port of one container: of a target group's targets, or of those that a registry knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOf {
    /// The target group's or the registry's ARN.
    pub arn: String,
    /// The container; that which gets the image when absent.
    pub container: Option<String>,
    /// Its port.
    pub port: Option<u32>,
}

/// The name under which other services of the namespace reach one by Service Connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConnect {
    /// The namespace's name or ARN; the cluster's when absent.
    pub namespace: Option<String>,
    /// The name of the port mapping.
    pub port_name: String,
    /// The name in Cloud Map; that of the port mapping when absent.
    pub discovery_name: Option<String>,
    /// The host that others ask; made of the two names when absent.
    pub dns_name: Option<String>,
    /// The port that others ask.
    pub port: u32,
}

/// What a new service is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// How many tasks.
    pub desired_count: Option<u32>,
    /// What they run on; the cluster's default when absent.
    pub launch_type: Option<LaunchType>,
    /// Where tasks with a network of their own are.
    pub subnets: Vec<String>,
    /// What they may be reached by.
    pub security_groups: Vec<String>,
    /// Whether they have public addresses.
    pub assign_public_ip: Option<bool>,
    /// Where a load balancer finds them.
    pub target_group: Option<PortOf>,
    /// How long after its start a task's health does not count.
    pub health_check_grace_period: Option<Seconds>,
    /// The service of Cloud Map that knows their addresses.
    pub service_registry: Option<PortOf>,
    /// The name that others reach them by.
    pub service_connect: Option<ServiceConnect>,
}

impl Create {
    /// How many tasks when the file says nothing.
    pub const DEFAULT_DESIRED_COUNT: u32 = 1;

    /// With `own` laid over it.
    #[must_use]
    pub(super) fn with(&self, own: &Self) -> Self {
        let texts = |own: &Vec<String>, common: &Vec<String>| {
            if own.is_empty() { common } else { own }.clone()
        };
        Self {
            desired_count: own.desired_count.or(self.desired_count),
            launch_type: own.launch_type.or(self.launch_type),
            subnets: texts(&own.subnets, &self.subnets),
            security_groups: texts(&own.security_groups, &self.security_groups),
            assign_public_ip: own.assign_public_ip.or(self.assign_public_ip),
            target_group: own
                .target_group
                .clone()
                .or_else(|| self.target_group.clone()),
            health_check_grace_period: own
                .health_check_grace_period
                .or(self.health_check_grace_period),
            service_registry: own
                .service_registry
                .clone()
                .or_else(|| self.service_registry.clone()),
            service_connect: own
                .service_connect
                .clone()
                .or_else(|| self.service_connect.clone()),
        }
    }
}

pub(super) fn read(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Create> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::CREATE, reporter)?;
    let launch_type = fields.choice("launch_type", &LAUNCH_TYPES, reporter);
    let subnets = ids(&fields, "subnets", MOST_SUBNETS, values::subnet, reporter);
    let groups = ids(
        &fields,
        "security_groups",
        MOST_SECURITY_GROUPS,
        values::security_group,
        reporter,
    );
    let target_group = fields
        .get("target_group", reporter)
        .and_then(|entry| port_of(entry, &keys::TARGET_GROUP, true, reporter));
    let service_registry = fields
        .get("service_registry", reporter)
        .and_then(|entry| port_of(entry, &keys::SERVICE_REGISTRY, false, reporter));
    let service_connect = fields
        .get("service_connect", reporter)
        .and_then(|entry| service_connect(entry, reporter));
    Some(Create {
        desired_count: fields.number("desired_count", TASKS, reporter),
        launch_type,
        subnets,
        security_groups: groups,
        assign_public_ip: fields.boolean("assign_public_ip", reporter),
        target_group,
        health_check_grace_period: fields.duration("health_check_grace_period", reporter),
        service_registry,
        service_connect,
    })
}

/// A list of ids, at least one and not too many.
fn ids(
    fields: &Fields<'_>,
    key: &str,
    most: usize,
    check: impl Fn(&str) -> Result<String, &'static str>,
    reporter: &mut Reporter<'_>,
) -> Vec<String> {
    let Some(entry) = fields.get(key, reporter) else {
        return vec![];
    };
    let texts = fields.texts(key, reporter).unwrap_or_default();
    match &entry.value.value {
        Value::List(items) if items.is_empty() => {
            reporter.error(entry.value.at, format!("`{key}` is empty"));
        }
        Value::List(items) if items.len() > most => {
            let message = format!("`{key}` has {} items, ECS takes {most}", items.len());
            reporter.error(entry.value.at, message);
        }
        _ => {}
    }
    let mut found = vec![];
    for (text, at) in texts {
        match check(text) {
            Ok(id) => found.push(id),
            Err(reason) => reporter.error(at, format!("`{key}`: `{text}` {reason}")),
        }
    }
    found
}

fn port_of(
    entry: &Entry,
    keys: &Keys,
    needs_port: bool,
    reporter: &mut Reporter<'_>,
) -> Option<PortOf> {
    let fields = Fields::read(&entry.value, None, entry.at, keys, reporter)?;
    if needs_port {
        fields.require("port", reporter);
    }
    let arn = required(&fields, "arn", values::arn, reporter);
    let container = optional(&fields, "container", values::ecs_name, reporter);
    let port = fields.number("port", PORT, reporter);
    Some(PortOf {
        arn: arn?,
        container,
        port,
    })
}

fn service_connect(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<ServiceConnect> {
    let fields = Fields::read(
        &entry.value,
        None,
        entry.at,
        &keys::SERVICE_CONNECT,
        reporter,
    )?;
    fields.require("port", reporter);
    let port = fields.number("port", PORT, reporter);
    let port_name = required(&fields, "port_name", values::ecs_name, reporter);
    let namespace = optional(&fields, "namespace", values::namespace, reporter);
    let discovery_name = optional(&fields, "discovery_name", values::ecs_name, reporter);
    let dns_name = optional(&fields, "dns_name", values::host, reporter);
    Some(ServiceConnect {
        namespace,
        port_name: port_name?,
        discovery_name,
        dns_name,
        port: port?,
    })
}

/// A new service has to begin with a file, and its tasks need subnets for what only networks of their own have.
pub(super) fn check(pipeline: &Pipeline, root: &Node, reporter: &mut Reporter<'_>) {
    for (name, environment) in &pipeline.environments {
        let ecs = ["environments", name.as_str(), "ecs", "create"];
        let begins = |service: &&_| {
            let place = Place {
                environment: name.clone(),
                service: Clone::clone(*service),
            };
            matches!(
                pipeline.task_definition(&place).0,
                DefinitionBase::File { .. }
            )
        };
        let mut without: Vec<Vec<&str>> = vec![];
        if environment.ecs.create.is_some() && !pipeline.services.keys().any(|it| begins(&it)) {
            without.push(ecs.to_vec());
        }
        for (service, own) in &environment.overrides {
            if own.create.is_some() && !begins(&service) {
                let service = service.as_str();
                without.push(vec![ecs[0], ecs[1], "overrides", service, "ecs", "create"]);
            }
        }
        for path in without {
            let help = "there is nothing yet that a revision could be made from: name `task_definition.file`";
            let message = "`create` has no `file` to begin with";
            reporter.error_with_help(root.key_at(&path), message, help);
        }
        let mut told = false;
        for service in pipeline.services.keys() {
            let Some(create) = environment.target(service).create else {
                continue;
            };
            let mut need: Vec<&str> = vec![];
            if create.launch_type == Some(LaunchType::Fargate) {
                need.push("launch_type: fargate");
            }
            if !create.security_groups.is_empty() {
                need.push("security_groups");
            }
            if create.assign_public_ip.is_some() {
                need.push("assign_public_ip");
            }
            if create.subnets.is_empty() && !need.is_empty() && !told {
                told = true;
                let message = format!(
                    "{} of `{service}` cannot be without `subnets`",
                    list(&need, "and")
                );
                let help = "name the subnets, of which tasks get addresses of their own";
                reporter.error_with_help(root.key_at(&ecs), message, help);
            }
        }
    }
}
