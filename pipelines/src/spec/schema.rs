//! Makes the JSON Schema of the pipeline file, `pipelines/pipeline.schema.json`.
//!
//! Keys, words and limits are the reader's own constants; what a key means, its default and whether it
//! is required are read from the tables of docs/pipeline-file.md, so an editor shows what the
//! documentation says. What the reader says in code, such as what a path may be, stands here again as a
//! pattern, and a test holds the two together. Nothing refers to anything (`$ref`), because editors show
//! and complete such places less well. Compiled for tests alone: the product carries the result.

mod pattern;

use super::caches::{MOST_CACHE_PATHS, MOST_CACHES};
use super::create::{LAUNCH_TYPES, MOST_SECURITY_GROUPS, MOST_SUBNETS, PORT};
use super::decode::{MOST_LABELS, RETRIES, STEP_CPU, STEP_MEMORY};
use super::environments::{
    AFTER_ROLLBACK, APPROVALS, CPU, DEPLOY, DONE_WHEN, MAX_PERCENT, MEMORY, MIN_HEALTHY_PERCENT,
    STATUS, TASKS,
};
use super::fields::Keys;
use super::groups;
use super::include::MOST_INCLUDES;
use super::input::{KINDS, MOST_INPUTS};
use super::keys::{self, tests::section};
use super::model::Role;
use super::schedule::MOST_SCHEDULES;
use super::secrets::MOST_SECRETS;
use super::step_files::MOST_PATTERNS;
use super::task_definition::{BASES, BUILT_IN_VARIABLES};
use super::variants::VARIANTS;
use super::when::Event;
use serde_json::{Value, json};
use std::ops::RangeInclusive;

/// The whole schema.
fn schema() -> Value {
    let mut schema = mapping(&keys::FILE);
    let about = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Roadstead's pipeline file, version 1",
    });
    let whole = schema.as_object_mut().expect("a mapping is an object");
    for (key, value) in about.as_object().expect("an object").iter().rev() {
        whole.shift_insert(0, key.clone(), value.clone());
    }
    whole.insert(
        "anyOf".into(),
        json!([{"required": ["images"]}, {"required": ["steps"]}]),
    );
    whole.insert("dependencies".into(), json!({"environments": ["services"]}));
    schema
}

/// What may stand at a key.
///
/// # Panics
/// At a key that nobody has said this of.
fn value(of: &Keys, key: &str) -> Value {
    match (of.what, key) {
        ("the file", "version") => json!({"enum": [1, "1"]}),
        ("the file", "trigger") => mapping(&keys::TRIGGER),
        ("the file", "concurrency") => mapping(&keys::CONCURRENCY),
        ("concurrency", "cancel_superseded") => json!({"type": "boolean"}),
        ("the file", "include") => at_most(list(&text(pattern::FILE_PATH), 1), MOST_INCLUDES),
        ("the file", "images") => named(&keys::IMAGE, 1),
        ("the file", "steps") => named(&keys::STEP, 1),
        ("the file", "services") => named(&keys::SERVICE, 1),
        ("the file", "environments") => named(&keys::ENVIRONMENT, 1),
        ("trigger", "push") => mapping(&keys::PUSH),
        ("trigger", "pull_request") => mapping(&keys::PULL_REQUEST),
        ("trigger" | "trigger.pull_request", "paths")
        | ("trigger.push" | "trigger.pull_request", "branches") => list(&text(pattern::GLOB), 0),
        ("trigger", "inputs") => {
            json!({
                "type": "object",
                "propertyNames": {"pattern": pattern::INPUT},
                "additionalProperties": mapping(&keys::INPUT),
                "minProperties": 1,
                "maxProperties": MOST_INPUTS,
            })
        }
        ("trigger", "schedule") => {
            let items = mapping(&keys::SCHEDULE);
            json!({"type": "array", "items": items, "minItems": 1, "maxItems": MOST_SCHEDULES, "uniqueItems": true})
        }
        ("trigger.schedule", "cron") => text(pattern::CRON),
        ("trigger.schedule", "timezone") => text(pattern::TEXT),
        ("trigger.schedule", "branch") => text(pattern::BRANCH),
        ("input", "description") => text(pattern::TEXT),
        ("input", "type") => words(&KINDS.map(|(word, _)| word)),
        ("input", "options") => list(&text(pattern::LINE), 1),
        ("input", "default") => json!({"type": ["string", "number", "boolean"]}),
        ("input", "required") => json!({"type": "boolean"}),
        ("when", "events") => list(&words(&Event::ALL.map(Event::word)), 1),
        ("trigger.push", "tags") => list(&text(pattern::GLOB), 1),
        ("image", "repository") => text(pattern::REPOSITORY),
        ("image", "context") => text(pattern::PATH),
        ("image", "dockerfile") => text(pattern::FILE_PATH_FROM_FOLDER),
        ("image", "args_by_environment") => by_name(&at_least_one(variables()), 1),
        ("image", "dockerfile_by_environment") => by_name(&text(pattern::FILE_PATH_FROM_FOLDER), 1),
        ("service", "variants") => words(&VARIANTS.map(|(word, _)| word)),
        ("environment", "env_file") => {
            let file = text(pattern::FILE_PATH);
            json!({"anyOf": [file, list(&file, 1)]})
        }
        ("image", "target") => text(pattern::STAGE),
        ("step" | "sidecar", "image") => text(pattern::CONTAINER_IMAGE),
        ("step", "run") => text(pattern::SCRIPT),
        ("image", "args") | ("step" | "sidecar", "env") | ("environment", "variables") => {
            variables()
        }
        ("step", "secrets") => {
            let secret = text(pattern::SECRET);
            let named = json!({
                "type": "object",
                "propertyNames": {"pattern": pattern::VARIABLE},
                "additionalProperties": secret,
                "maxProperties": MOST_SECRETS,
            });
            json!({"anyOf": [secrets(), named]})
        }
        ("image", "secrets") => secrets(),
        ("step", "sidecars") => named(&keys::SIDECAR, 0),
        ("step", "build") => list(&text(pattern::NAME), 1),
        ("step", "needs" | "artifacts_from") => list(&text(pattern::NAME), 0),
        ("step", "when") => mapping(&keys::WHEN),
        ("step", "retry") => number(&RETRIES),
        ("step", "limits") => mapping(&keys::LIMITS),
        ("step", "runs_on") => at_most(list(&text(pattern::LABEL), 1), MOST_LABELS),
        ("step", "matrix") => matrix(),
        ("step", "concurrency") => mapping(&keys::STEP_CONCURRENCY),
        ("step.concurrency", "group") => text(pattern::GROUP),
        ("step.concurrency", "limit") => number(&groups::LIMITS),
        ("step", "reports") => mapping(&keys::REPORTS),
        ("step", "caches") => {
            let mut caches = named(&keys::CACHE, 1);
            caches["maxProperties"] = MOST_CACHES.into();
            caches
        }
        ("cache", "paths") => at_most(list(&text(pattern::CACHE_PATH), 1), MOST_CACHE_PATHS),
        ("cache", "key") => at_most(list(&text(pattern::GLOB), 1), MOST_PATTERNS),
        ("reports", "junit") => {
            let pattern = text(pattern::GLOB);
            json!({"anyOf": [pattern, list(&pattern, 1)]})
        }
        ("step", "artifacts") => at_most(list(&text(pattern::GLOB), 1), MOST_PATTERNS),
        ("limits", "cpu") => number(&STEP_CPU),
        ("limits", "memory") => number(&STEP_MEMORY),
        ("when", "branches" | "tags" | "paths") => list(&text(pattern::GLOB), 1),
        ("step", "timeout") | ("environment", "rollout_timeout") => {
            text(pattern::POSITIVE_DURATION)
        }
        ("sidecar", "command") => {
            json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}})
        }
        ("the file", "name")
        | ("service", "image")
        | ("environment", "after")
        | ("healthy", "environment") => text(pattern::NAME),
        ("service", "container") | ("ecs", "cluster") => text(pattern::ECS_NAME),
        ("service", "health_path") => text(pattern::HEALTH_PATH),
        ("service", "before_deploy") => {
            let mut all = command();
            let forms = all["anyOf"].as_array_mut().expect("a list");
            forms.push(mapping(&keys::BEFORE_DEPLOY));
            all
        }
        ("before_deploy", "command") => command(),
        ("before_deploy", "timeout") => text(pattern::POSITIVE_DURATION),
        ("service" | "ecs", "task_definition") => mapping(&keys::TASK_DEFINITION),
        ("task_definition", "base") => words(&BASES.map(|(word, _)| word)),
        ("task_definition", "file") => text(pattern::FILE_PATH),
        ("task_definition", "variables") => {
            let mut all = variables();
            all["propertyNames"]["not"] = words(&BUILT_IN_VARIABLES);
            all
        }
        ("environment", "deploy") => words(&DEPLOY.map(|(word, _)| word)),
        ("environment", "ecs") => mapping(&keys::ECS),
        ("environment", "overrides") => named(&keys::OVERRIDE, 1),
        // In an override, where every one may be missing.
        ("override", "ecs") => {
            let mut target = mapping(&keys::ECS);
            target
                .as_object_mut()
                .expect("an object")
                .shift_remove("required");
            target
        }
        ("environment", "gates") => json!({"type": "array", "items": mapping(&keys::GATE)}),
        ("environment", "verify") => mapping(&keys::VERIFY),
        ("environment", "done_when") => {
            json!({"anyOf": [words(&DONE_WHEN.map(|(word, _)| word)), mapping(&keys::DONE_WHEN)]})
        }
        ("environment", "rollback") => mapping(&keys::ROLLBACK),
        ("ecs", "region") => text(pattern::REGION),
        ("ecs", "service") => text(pattern::ECS_SERVICE),
        ("ecs", "task") => mapping(&keys::TASK),
        ("ecs", "create") => mapping(&keys::CREATE),
        ("ecs.create", "launch_type") => words(&LAUNCH_TYPES.map(|(word, _)| word)),
        ("ecs.create", "subnets") => at_most(list(&text(pattern::SUBNET), 1), MOST_SUBNETS),
        ("ecs.create", "security_groups") => at_most(
            list(&text(pattern::SECURITY_GROUP), 1),
            MOST_SECURITY_GROUPS,
        ),
        ("ecs.create", "assign_public_ip") => json!({"type": "boolean"}),
        ("ecs.create", "health_check_grace_period") => text(pattern::DURATION),
        ("ecs.create", "target_group") => mapping(&keys::TARGET_GROUP),
        ("ecs.create", "service_registry") => mapping(&keys::SERVICE_REGISTRY),
        ("ecs.create", "service_connect") => mapping(&keys::SERVICE_CONNECT),
        ("target_group" | "service_registry", "arn") => text(pattern::ARN),
        ("target_group" | "service_registry" | "service_connect", "port") => number(&PORT),
        ("target_group" | "service_registry", "container")
        | ("service_connect", "port_name" | "discovery_name") => text(pattern::ECS_NAME),
        ("service_connect", "namespace") => {
            json!({"anyOf": [text(pattern::HOST), text(pattern::ARN)]})
        }
        ("service_connect", "dns_name") => text(pattern::HOST),
        ("ecs", "min_healthy_percent") => number(&MIN_HEALTHY_PERCENT),
        ("ecs", "max_percent") => number(&MAX_PERCENT),
        ("ecs.task", "cpu") => number(&CPU),
        ("ecs.task", "memory") => number(&MEMORY),
        ("gate", "healthy") => mapping(&keys::HEALTHY),
        ("gate", "approval") => mapping(&keys::APPROVAL),
        ("healthy", "for") | ("verify", "watch") => text(pattern::DURATION),
        ("healthy", "min_running") | ("done_when", "serving") | ("ecs.create", "desired_count") => {
            number(&TASKS)
        }
        ("approval", "from") => list(&words(&Role::ALL.map(Role::as_str)), 1),
        ("approval", "count") => number(&APPROVALS),
        ("approval", "not_author") | ("rollback", "auto") => json!({"type": "boolean"}),
        ("verify", "http") => json!({"type": "array", "items": mapping(&keys::PROBE)}),
        ("verify.http", "url") => text(pattern::ADDRESS),
        ("verify.http", "expect_status") => number(&STATUS),
        ("verify.http", "expect_body") => text(pattern::TEXT),
        ("rollback", "then") => words(&AFTER_ROLLBACK.map(|(word, _)| word)),
        (what, key) => panic!("say in spec/schema.rs what `{key}` of `{what}` can be"),
    }
}

/// Names with their values, and what to leave out of their combinations.
fn matrix() -> Value {
    let value = text(pattern::MATRIX_VALUE);
    json!({
        "type": "object",
        "propertyNames": {"pattern": pattern::INPUT},
        "properties": {
            "exclude": {
                "description": "Combinations to leave out: each names some values, or all.",
                "type": "array",
                "items": {"type": "object", "additionalProperties": value, "minProperties": 1},
            },
        },
        "additionalProperties": list(&value, 1),
        "minProperties": 1,
    })
}

/// What no single key tells: which go together.
fn together(of: &Keys) -> Value {
    match of.what {
        "step" => {
            let of_run = keys::OF_RUN.map(|key| json!({"required": [key]}));
            json!({
                "if": {"required": ["build"]},
                "then": {"not": {"anyOf": of_run}},
                "else": {"required": ["image", "run"]},
            })
        }
        "task_definition" => json!({"minProperties": 1, "not": {"required": ["base", "file"]}}),
        "when" | "limits" => json!({"minProperties": 1}),
        "input" => json!({
            "if": {"anyOf": [{"required": ["options"]}, {"properties": {"type": {"const": "choice"}}, "required": ["type"]}]},
            "then": {"required": ["options"], "properties": {"type": {"const": "choice"}}},
            "not": {"properties": {"required": {"const": true}}, "required": ["required", "default"]},
        }),
        "gate" => json!({"minProperties": 1, "maxProperties": 1}),
        "done_when" => json!({"required": ["serving"]}),
        _ => json!({}),
    }
}

/// A mapping with the keys of `of` and no others, each described as the documentation does.
fn mapping(of: &Keys) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for key in of.known {
        let row = Row::of(of.what, key);
        if row.default == "required" {
            required.push(*key);
        }
        let mut value = value(of, key);
        let value_keys = value.as_object_mut().expect("a schema is an object");
        value_keys.shift_insert(0, "description".into(), row.description().into());
        properties.insert((*key).into(), value);
    }
    let mut mapping = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let keys = mapping.as_object_mut().expect("an object");
    if required.is_empty() {
        keys.shift_remove("required");
    }
    keys.extend(together(of).as_object().expect("an object").clone());
    mapping
}

/// A mapping from names to things of one kind.
fn named(of: &Keys, least: u32) -> Value {
    by_name(&mapping(of), least)
}

fn by_name(value: &Value, least: u32) -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": pattern::NAME},
        "additionalProperties": value,
        "minProperties": least,
    })
}

/// A script for a shell, or the words of a program.
fn command() -> Value {
    let word = json!({"type": ["string", "number", "boolean"]});
    let program = json!({"type": ["string", "number", "boolean"], "minLength": 1});
    let words = json!({
        "type": "array", "minItems": 1, "items": [program], "additionalItems": word,
    });
    json!({"anyOf": [text(pattern::SCRIPT), words]})
}

fn variables() -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": pattern::VARIABLE},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    })
}

fn list(items: &Value, least: u32) -> Value {
    json!({"type": "array", "items": items, "minItems": least, "uniqueItems": true})
}

/// A text. The reader takes `7` and `true` for one, too; an editor that proposed these would mislead.
fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

/// The same mapping, not empty.
fn at_least_one(mut mapping: Value) -> Value {
    mapping["minProperties"] = 1.into();
    mapping
}

/// The same list of so many.
fn at_most(mut list: Value, most: usize) -> Value {
    list["maxItems"] = most.into();
    list
}

/// A list of secrets.
fn secrets() -> Value {
    at_most(list(&text(pattern::SECRET), 0), MOST_SECRETS)
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn number(range: &RangeInclusive<u32>) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// A line of one of the documentation's tables.
struct Row {
    default: &'static str,
    meaning: &'static str,
}

impl Row {
    fn of(what: &str, key: &str) -> Self {
        let begin = format!("| `{key}` |");
        let line = section(what).lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("docs/pipeline-file.md: no `{key}` in `{what}`"));
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, default, meaning] = columns[..] else {
            panic!("docs/pipeline-file.md: not four columns: {line}");
        };
        Self { default, meaning }
    }

    /// The meaning and the default, without links, which lead nowhere from an editor.
    fn description(&self) -> String {
        let mut text = without_links(self.meaning);
        if let Some(condition) = self.default.strip_prefix("required") {
            text.push_str(&format!(" Required{condition}."));
        } else if !matches!(self.default, "none" | "—") {
            text.push_str(&format!(" Default: {}.", without_links(self.default)));
        }
        text
    }
}

/// `[text](place)` becomes `text`.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    for piece in markdown.split("](") {
        match text.rfind('[') {
            Some(open) => {
                text.remove(open);
                text.push_str(piece.split_once(')').map_or(piece, |(_, rest)| rest));
            }
            None => text.push_str(piece),
        }
    }
    text
}

mod tests;
