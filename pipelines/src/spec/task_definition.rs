//! `task_definition`: what the next revision of a service is made from. It may stand at the service, in
//! `ecs` of an environment, and in `ecs` of an override: key by key, the more special one wins.

use super::decode::optional;
use super::diagnostic::Reporter;
use super::fields::{Fields, list};
use super::keys;
use super::model::Pipeline;
use super::tree::{Entry, Node, Value};
use super::values;
use crate::id::{EnvironmentName, Place, ServiceName};
use crate::release::FromFile;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Variables of every file, which Roadstead sets.
pub const BUILT_IN_VARIABLES: [&str; 5] =
    ["cluster", "environment", "project", "region", "service"];

/// The words of `base`.
pub(super) const BASES: [(&str, BaseWord); 2] =
    [("service", BaseWord::Service), ("family", BaseWord::Family)];

#[derive(Debug, Clone, Copy)]
pub(super) enum BaseWord {
    Service,
    Family,
}

/// What a revision is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionBase {
    /// The definition that the service runs.
    #[default]
    Service,
    /// The newest active revision of that one's family.
    Family,
    /// A file of the repository, in the form that RegisterTaskDefinition takes.
    File {
        /// Relative to the repository's root.
        path: String,
    },
}

/// What one place of the pipeline file says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// The base; as the less special place says it when absent.
    pub base: Option<DefinitionBase>,
    /// Variables for the texts of the file, beside those of the less special places.
    pub variables: IndexMap<String, String>,
}

pub(super) fn read(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<TaskDefinition> {
    let fields = Fields::read(
        &entry.value,
        None,
        entry.at,
        &keys::TASK_DEFINITION,
        reporter,
    )?;
    if fields.has("base") && fields.has("file") {
        let help = "a file is what the revision is made from: remove one of the two";
        reporter.error_with_help(entry.at, "`base` and `file` exclude each other", help);
    }
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
        let help = "give it `base` or `file`, or remove it";
        reporter.error_with_help(entry.at, "`task_definition` says nothing", help);
    }
    let word = fields.choice("base", &BASES, reporter);
    let path = optional(&fields, "file", values::file_path, reporter);
    let variables = fields.variables("variables", reporter).unwrap_or_default();
    if let Some(entry) = fields.get("variables", reporter)
        && let Value::Map(entries) = &entry.value.value
    {
        let taken = |entry: &&Entry| BUILT_IN_VARIABLES.contains(&entry.key.as_str());
        for entry in entries.iter().filter(taken) {
            let message = format!("variable `{}` is set by Roadstead", entry.key);
            let help = format!(
                "{} are there in every file",
                list(&BUILT_IN_VARIABLES, "and")
            );
            reporter.error_with_help(entry.at, message, help);
        }
    }
    let base = match (path, word) {
        (Some(path), _) => Some(DefinitionBase::File { path }),
        (None, Some(BaseWord::Service)) => Some(DefinitionBase::Service),
        (None, Some(BaseWord::Family)) => Some(DefinitionBase::Family),
        (None, None) => None,
    };
    Some(TaskDefinition { base, variables })
}

impl Pipeline {
    /// What the next revision of a place is made from, and the variables that the file says for it.
    #[must_use]
    pub fn task_definition(&self, place: &Place) -> (DefinitionBase, IndexMap<String, String>) {
        let service = self.services.get(&place.service);
        let environment = self.environments.get(&place.environment);
        let own = environment.and_then(|it| it.overrides.get(&place.service));
        let layers = [
            service.and_then(|it| it.task_definition.as_ref()),
            environment.and_then(|it| it.ecs.task_definition.as_ref()),
            own.and_then(|it| it.task_definition.as_ref()),
        ];
        let (mut base, mut variables) = (DefinitionBase::default(), IndexMap::new());
        for layer in layers.into_iter().flatten() {
            if let Some(wins) = &layer.base {
                base = wins.clone();
            }
            variables.extend(layer.variables.clone());
        }
        (base, variables)
    }

    /// What every place takes out of a file, with all its variables. `region` is the one of environments that
    /// name none.
    #[must_use]
    pub fn definitions_from_files(&self, region: &str) -> Vec<(Place, FromFile)> {
        let mut found = vec![];
        for (name, environment) in &self.environments {
            for service in self.services.keys() {
                let place = place(name, service);
                let (DefinitionBase::File { path }, variables) = self.task_definition(&place)
                else {
                    continue;
                };
                let target = environment.target(service);
                let built_in = [
                    ("cluster", target.cluster),
                    ("environment", name.to_string()),
                    ("project", self.name.to_string()),
                    ("region", target.region.unwrap_or_else(|| region.to_owned())),
                    ("service", service.to_string()),
                ];
                let built_in = built_in.map(|(name, value)| (name.to_owned(), value));
                let from = FromFile {
                    file: path,
                    variables: variables.into_iter().chain(built_in).collect(),
                };
                found.push((place, from));
            }
        }
        found
    }
}

fn place(environment: &EnvironmentName, service: &ServiceName) -> Place {
    Place {
        environment: environment.clone(),
        service: service.clone(),
    }
}

/// Variables go into a file: where no place that they are for has one, somebody forgot it.
pub(super) fn check(pipeline: &Pipeline, root: &Node, reporter: &mut Reporter<'_>) {
    let is_file = |environment: &EnvironmentName, service: &ServiceName| {
        let (base, _) = pipeline.task_definition(&place(environment, service));
        matches!(base, DefinitionBase::File { .. })
    };
    let has =
        |said: &Option<TaskDefinition>| said.as_ref().is_some_and(|it| !it.variables.is_empty());
    let (services, environments) = (&pipeline.services, &pipeline.environments);
    let mut without: Vec<Vec<&str>> = vec![];
    for (service, said) in services {
        if has(&said.task_definition)
            && !environments.is_empty()
            && !environments.keys().any(|name| is_file(name, service))
        {
            without.push(vec!["services", service.as_str()]);
        }
    }
    for (name, environment) in environments {
        let path = ["environments", name.as_str()];
        if has(&environment.ecs.task_definition)
            && !services.keys().any(|service| is_file(name, service))
        {
            without.push([&path[..], &["ecs"]].concat());
        }
        for (service, own) in &environment.overrides {
            if has(&own.task_definition) && !is_file(name, service) {
                without.push([&path[..], &["overrides", service.as_str(), "ecs"]].concat());
            }
        }
    }
    for path in without {
        let path = [&path[..], &["task_definition", "variables"]].concat();
        reporter.error_with_help(
            root.key_at(&path),
            "these variables have no `file` to go into",
            "name the `file`; variables of containers stand in `variables` of the environment",
        );
    }
}
