//! The environments of the file, from the tree into the model.

use super::decode::{map, name_of, optional, required};
use super::diagnostic::Reporter;
use super::fields::{self, Fields};
use super::model::{
    AfterRollback, DeployMode, DoneWhen, EcsTarget, EcsTargetOverride, Environment, Gate,
    HttpProbe, Role, Rollback, Verify,
};
use super::tree::{Entry, Node, Value};
use super::{create, keys, task_definition, values};
use crate::id::{EnvironmentName, ServiceName};
use indexmap::IndexMap;
use std::ops::RangeInclusive;

/// How many people an approval may ask for.
pub(super) const APPROVALS: RangeInclusive<u32> = 1..=20;
/// How many tasks a gate or a milestone may ask for.
pub(super) const TASKS: RangeInclusive<u32> = 1..=10_000;
/// What ECS takes for CPU units and MiB of a task.
pub(super) const CPU: RangeInclusive<u32> = 128..=196_608;
pub(super) const MEMORY: RangeInclusive<u32> = 4..=1_048_576;
/// What ECS takes for the percents of a rollout.
pub(super) const MIN_HEALTHY_PERCENT: RangeInclusive<u32> = 0..=100;
pub(super) const MAX_PERCENT: RangeInclusive<u32> = 100..=400;
/// Statuses of HTTP.
pub(super) const STATUS: RangeInclusive<u32> = 100..=599;

/// The words of `deploy`, of `done_when` without a number, and of `rollback.then`.
pub(super) const DEPLOY: [(&str, DeployMode); 2] =
    [("auto", DeployMode::Auto), ("manual", DeployMode::Manual)];
pub(super) const DONE_WHEN: [(&str, DoneWhen); 2] = [
    ("all_healthy", DoneWhen::AllHealthy),
    ("drained", DoneWhen::Drained),
];
pub(super) const AFTER_ROLLBACK: [(&str, AfterRollback); 1] = [("hold", AfterRollback::Hold)];

/// Reads `environments`.
pub(super) fn read(
    fields: &Fields<'_>,
    reporter: &mut Reporter<'_>,
) -> IndexMap<EnvironmentName, Environment> {
    map(
        fields,
        "environments",
        EnvironmentName::parse,
        environment,
        reporter,
    )
}

fn environment(name: &str, entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Environment> {
    let fields = Fields::read(
        &entry.value,
        Some(name),
        entry.at,
        &keys::ENVIRONMENT,
        reporter,
    )?;
    let after = fields
        .get("after", reporter)
        .and_then(|entry| name_of(entry, EnvironmentName::parse, reporter));
    let deploy = fields
        .choice("deploy", &DEPLOY, reporter)
        .unwrap_or_default();
    let ecs = fields
        .require("ecs", reporter)
        .and_then(|entry| target(entry, reporter));
    let overrides = map(
        &fields,
        "overrides",
        ServiceName::parse,
        service_override,
        reporter,
    );
    let env_files = env_files(&fields, reporter);
    let variables = fields.variables("variables", reporter).unwrap_or_default();
    let gates = gates(&fields, after.as_ref(), reporter);
    let verify = fields
        .get("verify", reporter)
        .and_then(|entry| verify(entry, reporter));
    let done_when = fields
        .get("done_when", reporter)
        .and_then(|entry| done_when(entry, reporter));
    let rollout_timeout = fields.positive_duration("rollout_timeout", reporter);
    let rollback = fields
        .get("rollback", reporter)
        .and_then(|entry| rollback(entry, reporter));
    Some(Environment {
        after,
        deploy,
        ecs: ecs?,
        overrides,
        env_files,
        variables,
        gates,
        verify,
        done_when: done_when.unwrap_or_default(),
        rollout_timeout: rollout_timeout.unwrap_or(Environment::DEFAULT_ROLLOUT_TIMEOUT),
        rollback: rollback.unwrap_or_default(),
    })
}

/// One file, or a list of them.
fn env_files(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<String> {
    let Some(entry) = fields.get("env_file", reporter) else {
        return Vec::new();
    };
    let Value::List(items) = &entry.value.value else {
        let only = optional(fields, "env_file", values::file_path, reporter);
        return only.into_iter().collect();
    };
    if items.is_empty() {
        reporter.error(entry.value.at, "`env_file` names no file");
    }
    let texts = fields.texts("env_file", reporter).unwrap_or_default();
    let mut files = Vec::with_capacity(texts.len());
    for (text, at) in texts {
        match values::file_path(text) {
            _ if text.trim().is_empty() => reporter.error(at, "`env_file` holds an empty text"),
            Ok(file) => files.push(file),
            Err(reason) => reporter.error(at, format!("`env_file`: `{text}` {reason}")),
        }
    }
    files
}

fn target(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<EcsTarget> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::ECS, reporter)?;
    let cluster = required(&fields, "cluster", values::ecs_name, reporter);
    let service = required(&fields, "service", values::ecs_service, reporter);
    let partial = partial_target(&fields, reporter);
    Some(EcsTarget {
        region: partial.region,
        cluster: cluster?,
        service: service?,
        cpu: partial.cpu,
        memory: partial.memory,
        min_healthy_percent: partial.min_healthy_percent,
        max_percent: partial.max_percent,
        task_definition: partial.task_definition,
        create: partial.create,
    })
}

fn service_override(
    name: &str,
    entry: &Entry,
    reporter: &mut Reporter<'_>,
) -> Option<EcsTargetOverride> {
    let fields = Fields::read(
        &entry.value,
        Some(name),
        entry.at,
        &keys::OVERRIDE,
        reporter,
    )?;
    let ecs = fields.require("ecs", reporter)?;
    let fields = Fields::read(&ecs.value, None, ecs.at, &keys::ECS, reporter)?;
    let cluster = optional(&fields, "cluster", values::ecs_name, reporter);
    let service = optional(&fields, "service", values::ecs_service, reporter);
    Some(EcsTargetOverride {
        cluster,
        service,
        ..partial_target(&fields, reporter)
    })
}

/// What may be missing everywhere: all but cluster and service.
fn partial_target(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> EcsTargetOverride {
    let task = fields
        .get("task", reporter)
        .and_then(|entry| Fields::read(&entry.value, None, entry.at, &keys::TASK, reporter));
    let cpu = task
        .as_ref()
        .and_then(|task| task.number("cpu", CPU, reporter));
    let memory = task
        .as_ref()
        .and_then(|task| task.number("memory", MEMORY, reporter));
    EcsTargetOverride {
        region: optional(fields, "region", values::region, reporter),
        cluster: None,
        service: None,
        cpu,
        memory,
        min_healthy_percent: fields.number("min_healthy_percent", MIN_HEALTHY_PERCENT, reporter),
        max_percent: fields.number("max_percent", MAX_PERCENT, reporter),
        task_definition: fields
            .get("task_definition", reporter)
            .and_then(|entry| task_definition::read(entry, reporter)),
        create: fields
            .get("create", reporter)
            .and_then(|entry| create::read(entry, reporter)),
    }
}

fn gates(
    fields: &Fields<'_>,
    after: Option<&EnvironmentName>,
    reporter: &mut Reporter<'_>,
) -> Vec<Gate> {
    let items = fields
        .get("gates", reporter)
        .and_then(|entry| fields::items(entry, reporter));
    let items = items.unwrap_or_default();
    items
        .iter()
        .filter_map(|item| gate(item, after, reporter))
        .collect()
}

fn gate(item: &Node, after: Option<&EnvironmentName>, reporter: &mut Reporter<'_>) -> Option<Gate> {
    let fields = Fields::read(item, None, item.at, &keys::GATE, reporter)?;
    if fields.has("healthy") && fields.has("approval") {
        let help = "begin each gate with a `-` of its own";
        reporter.error_with_help(item.at, "this item holds two gates", help);
    }
    if fields.has("healthy") {
        healthy(fields.get("healthy", reporter)?, after, reporter)
    } else {
        // An item without a gate: an unknown one has been reported already, `{}` has not.
        if matches!(&item.value, Value::Map(entries) if entries.is_empty()) {
            reporter.error(item.at, "this item holds no gate");
        }
        approval(fields.get("approval", reporter)?, reporter)
    }
}

fn healthy(
    entry: &Entry,
    after: Option<&EnvironmentName>,
    reporter: &mut Reporter<'_>,
) -> Option<Gate> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::HEALTHY, reporter)?;
    let named = fields
        .get("environment", reporter)
        .and_then(|entry| name_of(entry, EnvironmentName::parse, reporter));
    if !fields.has("environment") && after.is_none() {
        reporter.error_with_help(
            entry.at,
            "`healthy` has no environment to look at",
            "give it `environment`, or say what this environment comes `after`",
        );
    }
    fields.require("for", reporter);
    let soak = fields.duration("for", reporter);
    let min_running = fields.number("min_running", TASKS, reporter);
    Some(Gate::Healthy {
        environment: named.or_else(|| after.cloned())?,
        soak: soak.unwrap_or_default(),
        min_running: min_running.unwrap_or(Gate::DEFAULT_MIN_RUNNING),
    })
}

fn approval(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Gate> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::APPROVAL, reporter)?;
    let mut from = Vec::new();
    if let Some(entry) = fields.get("from", reporter) {
        let roles = Role::ALL.map(|role| (role.as_str(), role));
        for (text, at) in fields.texts("from", reporter).unwrap_or_default() {
            from.extend(fields::choose(text, at, "from", &roles, reporter));
        }
        if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
            reporter.error(entry.value.at, "nobody may approve");
        }
    } else {
        from.push(Role::Deployer);
    }
    Some(Gate::Approval {
        from,
        count: fields.number("count", APPROVALS, reporter).unwrap_or(1),
        not_author: fields.boolean("not_author", reporter).unwrap_or_default(),
    })
}

fn verify(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Verify> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::VERIFY, reporter)?;
    let items = fields
        .get("http", reporter)
        .and_then(|entry| fields::items(entry, reporter));
    let items = items.unwrap_or_default();
    let http = items
        .iter()
        .filter_map(|item| probe(item, reporter))
        .collect();
    let watch = fields.duration("watch", reporter);
    Some(Verify {
        http,
        watch: watch.unwrap_or(Verify::DEFAULT_WATCH),
    })
}

fn probe(item: &Node, reporter: &mut Reporter<'_>) -> Option<HttpProbe> {
    let fields = Fields::read(item, None, item.at, &keys::PROBE, reporter)?;
    let url = required(&fields, "url", values::address, reporter);
    let expect_status = fields
        .number("expect_status", STATUS, reporter)
        .and_then(|status| u16::try_from(status).ok());
    let expect_body = fields.text("expect_body", reporter).map(str::to_owned);
    Some(HttpProbe {
        url: url?,
        expect_status: expect_status.unwrap_or(HttpProbe::DEFAULT_STATUS),
        expect_body,
    })
}

fn done_when(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<DoneWhen> {
    if let Value::Scalar(scalar) = &entry.value.value {
        if scalar.text == "serving" {
            let help = "say how many tasks: `done_when: { serving: 1 }`";
            reporter.error_with_help(entry.value.at, "`serving` needs a number of tasks", help);
            return None;
        }
        let found = DONE_WHEN.iter().find(|(word, _)| *word == scalar.text);
        if found.is_none() {
            let message = format!("`done_when` cannot be `{}`", scalar.text);
            let help = fields::meant_word(&scalar.text, &DONE_WHEN.map(|(word, _)| word));
            let help = help
                .unwrap_or_else(|| "it can be `all_healthy`, `drained` or `{ serving: 1 }`".into());
            reporter.error_with_help(entry.value.at, message, help);
        }
        return found.map(|(_, value)| *value);
    }
    let fields = Fields::read(&entry.value, None, entry.at, &keys::DONE_WHEN, reporter)?;
    fields.require("serving", reporter);
    let count = fields.number("serving", TASKS, reporter)?;
    Some(DoneWhen::Serving { count })
}

fn rollback(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Rollback> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::ROLLBACK, reporter)?;
    let default = Rollback::default();
    Some(Rollback {
        auto: fields.boolean("auto", reporter).unwrap_or(default.auto),
        then: fields
            .choice("then", &AFTER_ROLLBACK, reporter)
            .unwrap_or(default.then),
    })
}
