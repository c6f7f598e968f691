//! The file's top, its trigger, images, steps and services, from the tree into the model.
//!
//! What cannot be read is reported and replaced by something empty, so that reading goes on; the
//! caller throws the result away as soon as anything was reported.

use super::diagnostic::{At, Reporter};
use super::fields::{self, Fields};
use super::matrix::{self, Matrices};
use super::model::{
    BeforeDeploy, Concurrency, Image, Pipeline, Service, Sidecar, Step, StepAction, StepLimits,
    Trigger, When,
};
use super::tree::{Entry, Node, Value};
use super::trigger::PullRequestTrigger;
use super::variants::VARIANTS;
use super::when::Event;
use super::{
    environments, groups, input, keys, schedule, secrets, step_files, task_definition, trigger,
    values, variants,
};
use crate::id::{ImageName, InvalidName, ProjectName, ServiceName, StepName};
use indexmap::IndexMap;
use std::hash::Hash;
use std::ops::RangeInclusive;

/// The step that stands for the missing `steps` of a file with images.
const IMPLICIT_STEP: &str = "build";

/// How often a step may be tried again.
pub(super) const RETRIES: RangeInclusive<u32> = 1..=5;
/// Labels that a step may ask for: a runner has no more.
pub(super) const MOST_LABELS: usize = 32;
/// CPU units of a step: Docker Engine gives no container less than a hundredth of a processor.
pub(super) const STEP_CPU: RangeInclusive<u32> = 16..=1_048_576;
/// MiB of a step: Docker Engine gives no container less than 6.
pub(super) const STEP_MEMORY: RangeInclusive<u32> = 8..=16_777_216;

/// Reads the whole file.
pub(super) fn pipeline(root: &Node, reporter: &mut Reporter<'_>) -> Option<(Pipeline, Matrices)> {
    if matches!(root.value, Value::Null) {
        let help = "the smallest has `version`, `name` and `images` or `steps`";
        reporter.error_with_help(At::START, "the file is empty", help);
        return None;
    }
    let fields = Fields::read(root, None, At::START, &keys::FILE, reporter)?;
    version(&fields, reporter);
    let name = fields
        .require("name", reporter)
        .and_then(|entry| name_of(entry, ProjectName::parse, reporter));
    let trigger = fields
        .get("trigger", reporter)
        .and_then(|entry| trigger_of(entry, reporter))
        .unwrap_or_default();
    let concurrency = fields
        .get("concurrency", reporter)
        .and_then(|entry| concurrency(entry, reporter))
        .unwrap_or_default();
    let images = map(&fields, "images", ImageName::parse, image, reporter);
    let read = map(&fields, "steps", StepName::parse, step, reporter);
    let (mut steps, mut matrices) = (IndexMap::new(), Matrices::new());
    for (name, (step, matrix)) in read {
        matrices.extend(matrix.map(|matrix| (name.clone(), matrix)));
        steps.insert(name, step);
    }
    let services = map(&fields, "services", ServiceName::parse, service, reporter);
    let environments = environments::read(&fields, reporter);
    if !fields.has("steps") && !images.is_empty() {
        let action = StepAction::Build {
            images: images.keys().cloned().collect(),
        };
        let step = Step {
            needs: Vec::new(),
            when: None,
            timeout: None,
            retry: 0,
            runs_on: Vec::new(),
            matrix: None,
            group: None,
            artifacts_from: Vec::new(),
            action,
        };
        steps.insert(StepName::parse(IMPLICIT_STEP).ok()?, step);
    }
    if !fields.has("steps") && !fields.has("images") && reporter.is_clean() {
        reporter.error_with_help(
            At::START,
            "the file has nothing to run",
            "give it `images` to build or `steps` to run",
        );
    }
    let pipeline = Pipeline {
        name: name?,
        trigger,
        concurrency,
        images,
        steps,
        services,
        environments,
    };
    Some((pipeline, matrices))
}

fn version(fields: &Fields<'_>, reporter: &mut Reporter<'_>) {
    let Some(entry) = fields.require("version", reporter) else {
        return;
    };
    let Some(version) = fields::scalar(&entry.value, "version", reporter) else {
        return;
    };
    if version.text != "1" {
        let message = format!("version `{}` of the format is not known", version.text);
        reporter.error_with_help(entry.value.at, message, "write `version: 1`");
    }
}

fn trigger_of(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Trigger> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::TRIGGER, reporter)?;
    let push = fields
        .get("push", reporter)
        .and_then(|entry| Fields::read(&entry.value, None, entry.at, &keys::PUSH, reporter));
    let (branches, tags) = push
        .map(|push| {
            let branches = globs(&push, "branches", reporter);
            (branches, some_globs(&push, "tags", reporter))
        })
        .unwrap_or_default();
    let pull_request = fields
        .get("pull_request", reporter)
        .and_then(|entry| Fields::read(&entry.value, None, entry.at, &keys::PULL_REQUEST, reporter))
        .map(|fields| PullRequestTrigger {
            branches: globs(&fields, "branches", reporter),
            paths: globs(&fields, "paths", reporter),
        });
    Some(Trigger {
        branches,
        tags,
        pull_request,
        paths: globs(&fields, "paths", reporter),
        inputs: input::read(&fields, reporter),
        schedules: schedule::read(&fields, reporter),
    })
}

/// A list of patterns in which at least one stands.
pub(super) fn some_globs(
    fields: &Fields<'_>,
    key: &str,
    reporter: &mut Reporter<'_>,
) -> Vec<String> {
    if let Some(entry) = fields.get(key, reporter)
        && matches!(&entry.value.value, Value::List(items) if items.is_empty())
    {
        let message = format!("`{key}` is empty");
        reporter.error_with_help(entry.value.at, message, "name a pattern, or remove it");
    }
    globs(fields, key, reporter)
}

fn concurrency(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Concurrency> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::CONCURRENCY, reporter)?;
    let cancel_superseded = fields.boolean("cancel_superseded", reporter);
    Some(Concurrency {
        cancel_superseded: cancel_superseded.unwrap_or(false),
    })
}

fn globs(fields: &Fields<'_>, key: &str, reporter: &mut Reporter<'_>) -> Vec<String> {
    let globs = fields.texts(key, reporter).unwrap_or_default();
    let mut kept = Vec::with_capacity(globs.len());
    for (glob, at) in globs {
        match trigger::check_pattern(glob) {
            Ok(()) => kept.push(glob.to_owned()),
            Err(reason) => reporter.error(at, format!("`{glob}` is no pattern: {reason}")),
        }
    }
    kept
}

fn image(name: &str, entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Image> {
    let fields = Fields::read(&entry.value, Some(name), entry.at, &keys::IMAGE, reporter)?;
    let repository = required(&fields, "repository", values::repository, reporter);
    let context = optional(&fields, "context", values::path, reporter);
    let dockerfile = optional(
        &fields,
        "dockerfile",
        values::file_path_from_folder,
        reporter,
    );
    let target = optional(&fields, "target", values::stage, reporter);
    let args = fields.variables("args", reporter).unwrap_or_default();
    let args_by_environment = variants::args(&fields, reporter);
    let dockerfile_by_environment = variants::dockerfiles(&fields, reporter);
    let secrets = secrets::of_image(&fields, reporter);
    Some(Image {
        repository: repository.unwrap_or_default(),
        context: context.unwrap_or_else(|| ".".to_owned()),
        dockerfile: dockerfile.unwrap_or_else(|| "Dockerfile".to_owned()),
        target,
        args,
        args_by_environment,
        dockerfile_by_environment,
        secrets,
    })
}

/// A step, and the combinations of its matrix.
fn step(
    name: &str,
    entry: &Entry,
    reporter: &mut Reporter<'_>,
) -> Option<(Step, Option<Vec<matrix::Values>>)> {
    let fields = Fields::read(&entry.value, Some(name), entry.at, &keys::STEP, reporter)?;
    let needs = fields
        .names("needs", StepName::parse, reporter)
        .unwrap_or_default();
    let artifacts_from = fields
        .names("artifacts_from", StepName::parse, reporter)
        .unwrap_or_default();
    let when = fields
        .get("when", reporter)
        .and_then(|entry| when(entry, reporter));
    let timeout = fields.positive_duration("timeout", reporter);
    let retry = fields.number("retry", RETRIES, reporter).unwrap_or(0);
    let runs_on = runs_on(&fields, reporter);
    let matrix = fields
        .get("matrix", reporter)
        .and_then(|entry| matrix::read(entry, reporter));
    let action = if fields.has("build") {
        build(&fields, reporter)
    } else if fields.has("run") || fields.has("image") {
        run(&fields, reporter)
    } else {
        reporter.error_with_help(
            entry.at,
            format!("step `{name}` does nothing"),
            "give it `image` and `run`, or `build`",
        );
        return None;
    };
    let step = Step {
        needs,
        when,
        timeout,
        retry,
        runs_on,
        matrix: None,
        group: groups::of_step(&fields, reporter),
        artifacts_from,
        action,
    };
    Some((step, matrix))
}

/// The labels that a step's runner has to have, sorted.
fn runs_on(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<String> {
    let Some(entry) = fields.get("runs_on", reporter) else {
        return vec![];
    };
    if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
        let help = "name labels of runners, or remove it";
        reporter.error_with_help(entry.value.at, "`runs_on` names no label", help);
    }
    let mut labels = vec![];
    for (text, at) in fields.texts("runs_on", reporter).unwrap_or_default() {
        match values::label(text) {
            Ok(label) => labels.push(label),
            Err(reason) => reporter.error(at, format!("`runs_on`: `{text}` {reason}")),
        }
    }
    if labels.len() > MOST_LABELS {
        let message = format!("`runs_on` has at most {MOST_LABELS} labels");
        reporter.error(entry.value.at, message);
    }
    labels.sort();
    labels
}

fn limits(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<StepLimits> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::LIMITS, reporter)?;
    let limits = StepLimits {
        cpu: fields.number("cpu", STEP_CPU, reporter),
        memory: fields.number("memory", STEP_MEMORY, reporter),
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
        let help = "give it `cpu` or `memory`, or remove it";
        reporter.error_with_help(entry.at, "`limits` says nothing", help);
    }
    Some(limits)
}

fn when(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<When> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::WHEN, reporter)?;
    let when = When {
        branches: some_globs(&fields, "branches", reporter),
        tags: some_globs(&fields, "tags", reporter),
        paths: some_globs(&fields, "paths", reporter),
        events: events(&fields, reporter),
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
        let help = "give it `branches`, `tags`, `paths` or `events`, or remove it";
        reporter.error_with_help(entry.at, "`when` says nothing", help);
    }
    Some(when)
}

/// What a step waits to be started by; each once.
fn events(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Vec<Event> {
    if let Some(entry) = fields.get("events", reporter)
        && matches!(&entry.value.value, Value::List(items) if items.is_empty())
    {
        reporter.error_with_help(
            entry.value.at,
            "`events` is empty",
            "name an event, or remove it",
        );
    }
    let words = Event::ALL.map(|event| (event.word(), event));
    let texts = fields.texts("events", reporter).unwrap_or_default();
    let texts = texts.into_iter();
    texts
        .filter_map(|(text, at)| fields::choose(text, at, "events", &words, reporter))
        .collect()
}

fn build(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> StepAction {
    for key in keys::OF_RUN {
        if let Some(entry) = fields.get(key, reporter) {
            reporter.error_with_help(
                entry.at,
                format!("{} builds images and cannot have `{key}`", fields.title),
                "make a step of its own of it, and connect the two by `needs`",
            );
        }
    }
    let images = fields
        .names("build", ImageName::parse, reporter)
        .unwrap_or_default();
    if let Some(entry) = fields.get("build", reporter)
        && matches!(&entry.value.value, Value::List(items) if items.is_empty())
    {
        reporter.error(entry.value.at, format!("{} builds no image", fields.title));
    }
    StepAction::Build { images }
}

fn run(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> StepAction {
    let image = required(fields, "image", matrix::container_image, reporter);
    let run = required(fields, "run", values::script, reporter);
    let env = fields.variables("env", reporter).unwrap_or_default();
    let mut sidecars = IndexMap::new();
    if let Some(entry) = fields.get("sidecars", reporter)
        && let Some(entries) = fields::named(entry, reporter)
    {
        for entry in entries {
            // A sidecar's name is its host name, for which the rules of a step's name are right.
            let name = StepName::parse(&entry.key).map_err(|error| InvalidName {
                what: "sidecar name",
                ..error
            });
            let name = fields::name(&entry.key, entry.at, |_| name.clone(), reporter);
            let read = sidecar(&entry.key, entry, reporter);
            if let (Some(name), Some(read)) = (name, read) {
                sidecars.insert(name.to_string(), read);
            }
        }
    }
    let secrets = secrets::of_step(fields, &env, reporter);
    let limits = fields
        .get("limits", reporter)
        .and_then(|entry| limits(entry, reporter));
    StepAction::Run {
        image: image.unwrap_or_default(),
        run: run.unwrap_or_default(),
        env,
        sidecars,
        secrets,
        limits: limits.unwrap_or_default(),
        files: step_files::of_step(fields, reporter),
    }
}

fn sidecar(name: &str, entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Sidecar> {
    let fields = Fields::read(&entry.value, Some(name), entry.at, &keys::SIDECAR, reporter)?;
    let image = required(&fields, "image", matrix::container_image, reporter);
    let env = fields.variables("env", reporter).unwrap_or_default();
    let mut command = Vec::new();
    if let Some(entry) = fields.get("command", reporter) {
        for word in fields::items(entry, reporter).unwrap_or_default() {
            if let Some(word) = fields::scalar(word, "command", reporter) {
                command.push(word.text.clone());
            }
        }
    }
    Some(Sidecar {
        image: image.unwrap_or_default(),
        env,
        command,
    })
}

fn service(name: &str, entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Service> {
    let fields = Fields::read(&entry.value, Some(name), entry.at, &keys::SERVICE, reporter)?;
    let container = optional(&fields, "container", values::ecs_name, reporter);
    let health_path = optional(&fields, "health_path", values::health_path, reporter);
    let before_deploy = fields
        .get("before_deploy", reporter)
        .and_then(|entry| before_deploy(entry, reporter));
    let task_definition = fields
        .get("task_definition", reporter)
        .and_then(|entry| task_definition::read(entry, reporter));
    let variants = fields.choice("variants", &VARIANTS, reporter);
    let image = fields.require("image", reporter)?;
    let image = name_of(image, ImageName::parse, reporter)?;
    Some(Service {
        image,
        container,
        health_path,
        before_deploy,
        task_definition,
        variants: variants.unwrap_or_default(),
    })
}

/// A command alone, or a mapping when there is more to say.
fn before_deploy(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<BeforeDeploy> {
    let is_alone = !matches!(entry.value.value, Value::Map(_));
    if is_alone {
        return Some(BeforeDeploy {
            command: command(entry, reporter)?,
            timeout: BeforeDeploy::DEFAULT_TIMEOUT,
        });
    }
    let fields = Fields::read(&entry.value, None, entry.at, &keys::BEFORE_DEPLOY, reporter)?;
    let timeout = fields.positive_duration("timeout", reporter);
    let entry = fields.require("command", reporter)?;
    Some(BeforeDeploy {
        command: command(entry, reporter)?,
        timeout: timeout.unwrap_or(BeforeDeploy::DEFAULT_TIMEOUT),
    })
}

/// A text for the container's shell, or a list of words that are taken as they are.
fn command(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Vec<String>> {
    if !matches!(entry.value.value, Value::List(_)) {
        let line = fields::text(entry, reporter)?;
        return match values::script(line) {
            Ok(line) => Some(vec!["/bin/sh".into(), "-c".into(), line]),
            Err(reason) => {
                let message = format!("`{}` {reason}", entry.key);
                reporter.error(entry.value.at, message);
                None
            }
        };
    }
    let words: Vec<String> = fields::items(entry, reporter)?
        .iter()
        .filter_map(|word| Some(fields::scalar(word, &entry.key, reporter)?.text.clone()))
        .collect();
    if words.first().is_none_or(String::is_empty) {
        let message = format!("`{}` names no program", entry.key);
        reporter.error(entry.value.at, message);
        return None;
    }
    Some(words)
}

/// A mapping from names to things of one kind; empty when the key is missing.
pub(super) fn map<N: Hash + Eq, T>(
    fields: &Fields<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<N, InvalidName>,
    read: impl Fn(&str, &Entry, &mut Reporter<'_>) -> Option<T>,
    reporter: &mut Reporter<'_>,
) -> IndexMap<N, T> {
    let mut found = IndexMap::new();
    let Some(entry) = fields.get(key, reporter) else {
        return found;
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
        reporter.error(entry.at, format!("`{key}` is empty"));
    }
    for entry in fields::named(entry, reporter).into_iter().flatten() {
        let name = fields::name(&entry.key, entry.at, &parse, reporter);
        let thing = read(&entry.key, entry, reporter);
        if let (Some(name), Some(thing)) = (name, thing) {
            found.entry(name).or_insert(thing);
        }
    }
    found
}

/// A name that stands as a value.
pub(super) fn name_of<T>(
    entry: &Entry,
    parse: impl Fn(&str) -> Result<T, InvalidName>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    let scalar = fields::scalar(&entry.value, &entry.key, reporter)?;
    fields::name(&scalar.text, entry.value.at, parse, reporter)
}

/// A text that has to pass `check`, when it is there.
pub(super) fn optional<T>(
    fields: &Fields<'_>,
    key: &str,
    check: impl Fn(&str) -> Result<T, &'static str>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    let text = fields.text(key, reporter)?;
    checked(fields, key, text, check, reporter)
}

/// A text that has to be there and to pass `check`.
pub(super) fn required<T>(
    fields: &Fields<'_>,
    key: &str,
    check: impl Fn(&str) -> Result<T, &'static str>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    let text = fields.require_text(key, reporter)?;
    checked(fields, key, text, check, reporter)
}

fn checked<T>(
    fields: &Fields<'_>,
    key: &str,
    text: &str,
    check: impl Fn(&str) -> Result<T, &'static str>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    match check(text) {
        Ok(value) => Some(value),
        Err(reason) => {
            let at = fields
                .get(key, reporter)
                .map_or(fields.owner, |entry| entry.value.at);
            let shown = text.lines().next().unwrap_or_default();
            reporter.error(at, format!("`{key}`: `{shown}` {reason}"));
            None
        }
    }
}
