//! Do the names of a file lead somewhere: images, steps, environments, and what two things would
//! fight over. Finds every mistake; a place is looked up in the tree only when there is one.

use super::create;
use super::diagnostic::{At, Reporter};
use super::fields::{list, nearest};
use super::groups;
use super::input::input_variable;
use super::model::{Gate, Pipeline, StepAction, StepSecret};
use super::task_definition;
use super::tree::Node;
use super::variants;
use crate::id::EnvironmentName;
use crate::secret::SecretRef;
use indexmap::IndexMap;

/// Checks everything that one value alone cannot tell.
pub(super) fn pipeline(pipeline: &Pipeline, root: &Node, reporter: &mut Reporter<'_>) {
    let mut check = Check {
        pipeline,
        root,
        reporter,
    };
    check.builds();
    check.repositories();
    check.dockerfiles();
    check.needs();
    check.artifacts_from();
    check.secrets();
    check.variables_of_inputs();
    check.services();
    check.after();
    check.gates();
    check.overrides();
    check.percents();
    check.targets();
    groups::check(pipeline, root, reporter);
    variants::check(pipeline, root, reporter);
    task_definition::check(pipeline, root, reporter);
    create::check(pipeline, root, reporter);
}

struct Check<'c, 'r> {
    pipeline: &'c Pipeline,
    root: &'c Node,
    reporter: &'c mut Reporter<'r>,
}

impl Check<'_, '_> {
    /// Every image is built by one step, and every step builds images that exist.
    fn builds(&mut self) {
        let pipeline = self.pipeline;
        let mut builders = IndexMap::new();
        let mut all_known = true;
        for (step_name, step) in &pipeline.steps {
            let StepAction::Build { images } = &step.action else {
                continue;
            };
            for (index, image) in images.iter().enumerate() {
                let index = index.to_string();
                let path = ["steps", step_name.as_str(), "build", &index];
                if !pipeline.images.contains_key(image) {
                    self.unknown(&path, "image", image.as_str(), pipeline.images.keys());
                    all_known = false;
                    continue;
                }
                if let Some(first) = builders.insert(image, step_name) {
                    let at = self.root.value_at(&path);
                    let message = format!("image `{image}` is built by step `{first}` already");
                    self.reporter
                        .error_with_help(at, message, "an image is built once in a run");
                }
            }
        }
        // An unknown one may be what a missing one was meant to be.
        let missing = pipeline
            .images
            .keys()
            .filter(|image| !builders.contains_key(image));
        for image in missing.filter(|_| all_known) {
            let at = self.root.key_at(&["images", image.as_str()]);
            self.reporter.error_with_help(
                at,
                format!("image `{image}` is built by no step"),
                "add it to the `build` of a step; without any `steps` all images are built",
            );
        }
    }

    /// Images are tagged with the commit, so two in one repository would overwrite each other.
    fn repositories(&mut self) {
        let mut owners = IndexMap::new();
        for (name, image) in &self.pipeline.images {
            if let Some(first) = owners.insert(image.repository.as_str(), name) {
                let at = self.root.value_at(&["images", name.as_str(), "repository"]);
                let repository = &image.repository;
                self.reporter.error_with_help(
                    at,
                    format!("image `{first}` is pushed to `{repository}` already"),
                    "give each image a repository of its own",
                );
            }
        }
    }

    fn dockerfiles(&mut self) {
        for (name, image) in &self.pipeline.images {
            let path = ["images", name.as_str(), "dockerfile"];
            variants::refuse_outside(image, &image.dockerfile, &path, self.root, self.reporter);
        }
    }

    fn needs(&mut self) {
        let steps = &self.pipeline.steps;
        let mut edges: IndexMap<&str, Vec<&str>> = IndexMap::new();
        for (name, step) in steps {
            for (index, needed) in step.needs.iter().enumerate() {
                if !steps.contains_key(needed) {
                    let index = index.to_string();
                    let path = ["steps", name.as_str(), "needs", &index];
                    self.unknown(&path, "step", needed.as_str(), steps.keys());
                }
            }
            edges.insert(
                name.as_str(),
                step.needs.iter().map(AsRef::as_ref).collect(),
            );
        }
        for circle in circles(&edges) {
            let next = circle.get(1).unwrap_or(&circle[0]);
            let needed = edges[circle[0]].iter().position(|needed| needed == next);
            let index = needed.unwrap_or_default().to_string();
            let at = self.root.value_at(&["steps", circle[0], "needs", &index]);
            let message = format!("steps need each other in a circle: {}", arrows(&circle));
            self.reporter.error(at, message);
        }
    }

    /// A step gets artifacts of what it needs, and of what keeps some.
    fn artifacts_from(&mut self) {
        let steps = &self.pipeline.steps;
        for (name, step) in steps {
            for (index, giver) in step.artifacts_from.iter().enumerate() {
                let index = index.to_string();
                let path = ["steps", name.as_str(), "artifacts_from", &index];
                let Some(spec) = steps.get(giver) else {
                    self.unknown(&path, "step", giver.as_str(), steps.keys());
                    continue;
                };
                let at = self.root.value_at(&path);
                if !step.needs.contains(giver) {
                    let message = format!("step `{name}` does not need `{giver}`");
                    let help =
                        format!("add `{giver}` to `needs`: before it is over nothing is there");
                    self.reporter.error_with_help(at, message, &help);
                }
                let keeps = match &spec.action {
                    StepAction::Run { files, .. } => !files.artifacts.is_empty(),
                    StepAction::Build { .. } => false,
                };
                if !keeps {
                    let message = format!("step `{giver}` keeps no artifacts");
                    let help = "say there which files are kept: `artifacts: [\"dist/**\"]`";
                    self.reporter.error_with_help(at, message, help);
                }
            }
        }
    }

    /// A secret of an environment is one of an environment that exists.
    fn secrets(&mut self) {
        for (name, step) in &self.pipeline.steps {
            let StepAction::Run { secrets, .. } = &step.action else {
                continue;
            };
            for (index, StepSecret { secret, variable }) in secrets.iter().enumerate() {
                let index = index.to_string();
                let key = variable.as_deref().unwrap_or(&index);
                self.secret(secret, &["steps", name.as_str(), "secrets", key]);
            }
        }
        for (name, image) in &self.pipeline.images {
            for (index, secret) in image.secrets.iter().enumerate() {
                self.secret(
                    secret,
                    &["images", name.as_str(), "secrets", &index.to_string()],
                );
            }
        }
    }

    fn secret(&mut self, secret: &SecretRef, path: &[&str]) {
        let environments = &self.pipeline.environments;
        let unknown = secret.environment.as_ref();
        if let Some(name) = unknown.filter(|name| !environments.contains_key(*name)) {
            self.unknown(path, "environment", name.as_str(), environments.keys());
        }
    }

    /// No step takes the variable of an input for something else.
    fn variables_of_inputs(&mut self) {
        for input in self.pipeline.trigger.inputs.keys() {
            let variable = input_variable(input);
            for (name, step) in &self.pipeline.steps {
                let StepAction::Run { env, secrets, .. } = &step.action else {
                    continue;
                };
                let is_secret = secrets
                    .iter()
                    .any(|secret| secret.variable.as_ref() == Some(&variable));
                let taken = [(env.contains_key(&variable), "env"), (is_secret, "secrets")];
                for (_, key) in taken.into_iter().filter(|(is_taken, _)| *is_taken) {
                    let path = ["steps", name.as_str(), key, &variable];
                    let message = format!("`{variable}` holds the input `{input}` already");
                    let at = self.root.key_at(&path);
                    let help = "rename the variable, or the input";
                    self.reporter.error_with_help(at, message, help);
                }
            }
        }
    }

    fn services(&mut self) {
        let pipeline = self.pipeline;
        for (name, service) in &pipeline.services {
            if !pipeline.images.contains_key(&service.image) {
                let path = ["services", name.as_str(), "image"];
                self.unknown(
                    &path,
                    "image",
                    service.image.as_str(),
                    pipeline.images.keys(),
                );
            }
        }
        if pipeline.services.is_empty() && !pipeline.environments.is_empty() {
            let at = self.root.key_at(&["environments"]);
            let help = "say in `services` which images run in ECS";
            self.reporter
                .error_with_help(at, "there is no service to deploy", help);
        }
    }

    /// `after` leads to an environment further up, so the file's order is the promotion order.
    fn after(&mut self) {
        let environments = &self.pipeline.environments;
        let mut edges: IndexMap<&str, Vec<&str>> = IndexMap::new();
        for (name, environment) in environments {
            edges.insert(
                name.as_str(),
                environment.after.iter().map(AsRef::as_ref).collect(),
            );
        }
        let circles = circles(&edges);
        for circle in &circles {
            let at = self.root.value_at(&["environments", circle[0], "after"]);
            let message = format!(
                "environments come after each other in a circle: {}",
                arrows(circle)
            );
            self.reporter.error(at, message);
        }
        for (index, (name, environment)) in environments.iter().enumerate() {
            let Some(after) = &environment.after else {
                continue;
            };
            let path = ["environments", name.as_str(), "after"];
            match environments.get_index_of(after) {
                None => self.unknown(&path, "environment", after.as_str(), environments.keys()),
                Some(place) if place > index && circles.is_empty() => {
                    let at = self.root.value_at(&path);
                    self.reporter.error_with_help(
                        at,
                        format!("`{after}` stands below `{name}`"),
                        format!("environments stand in promotion order: move `{after}` up"),
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// A gate looks upstream: elsewhere the release has not been when it is asked.
    fn gates(&mut self) {
        let environments = &self.pipeline.environments;
        for (name, environment) in environments {
            for (index, gate) in environment.gates.iter().enumerate() {
                let Gate::Healthy {
                    environment: watched,
                    ..
                } = gate
                else {
                    continue;
                };
                let index = index.to_string();
                let path = [
                    "environments",
                    name.as_str(),
                    "gates",
                    &index,
                    "healthy",
                    "environment",
                ];
                let upstream = self.upstream(name);
                if !environments.contains_key(watched) {
                    // A gate that takes `after` for its environment; that was reported.
                    if environment.after.as_ref() != Some(watched) {
                        self.unknown(&path, "environment", watched.as_str(), environments.keys());
                    }
                } else if !upstream.contains(&watched)
                    && upstream.iter().all(|name| environments.contains_key(*name))
                {
                    let at = self.root.value_at(&path);
                    let message =
                        format!("`{watched}` is not before `{name}` in the promotion order");
                    let help = match upstream.as_slice() {
                        [] => format!("say what `{name}` comes `after`"),
                        some => format!("a gate of `{name}` can look at {}", list(some, "or")),
                    };
                    self.reporter.error_with_help(at, message, help);
                }
            }
        }
    }

    /// The environments before `name`, the nearest first.
    fn upstream(&self, name: &EnvironmentName) -> Vec<&EnvironmentName> {
        let environments = &self.pipeline.environments;
        let mut upstream: Vec<&EnvironmentName> = Vec::new();
        let mut next = environments
            .get(name)
            .and_then(|found| found.after.as_ref());
        while let Some(before) = next.filter(|before| !upstream.contains(before)) {
            upstream.push(before);
            next = environments
                .get(before)
                .and_then(|found| found.after.as_ref());
        }
        upstream
    }

    fn overrides(&mut self) {
        let services = &self.pipeline.services;
        for (name, environment) in &self.pipeline.environments {
            for service in environment.overrides.keys() {
                if !services.contains_key(service) {
                    let path = ["environments", name.as_str(), "overrides", service.as_str()];
                    self.unknown_key(&path, "service", service.as_str(), services.keys());
                }
            }
        }
    }

    /// ECS has to be able to stop an old task or to start a new one.
    fn percents(&mut self) {
        for (name, environment) in &self.pipeline.environments {
            for service in self.pipeline.services.keys() {
                let target = environment.target(service);
                if (target.min_healthy_percent, target.max_percent) == (Some(100), Some(100)) {
                    let at =
                        self.root
                            .value_at(&["environments", name.as_str(), "ecs", "max_percent"]);
                    self.reporter.error_with_help(
                        at,
                        format!(
                            "`{service}` could never roll: no task may stop and none may start"
                        ),
                        "raise `max_percent` above 100, or lower `min_healthy_percent`",
                    );
                    break;
                }
            }
        }
    }

    /// Two places that deploy to one ECS service would undo each other's work for ever.
    fn targets(&mut self) {
        let mut owners = IndexMap::new();
        for (name, environment) in &self.pipeline.environments {
            for service in self.pipeline.services.keys() {
                let target = environment.target(service);
                let key = (target.region, target.cluster, target.service);
                let Some((first, other)) = owners.insert(key.clone(), (name, service)) else {
                    continue;
                };
                let own = [
                    "environments",
                    name.as_str(),
                    "overrides",
                    service.as_str(),
                    "ecs",
                    "service",
                ];
                let common = ["environments", name.as_str(), "ecs", "service"];
                let has_own = environment
                    .overrides
                    .get(service)
                    .is_some_and(|own| own.service.is_some());
                let at = self.root.value_at(if has_own { &own } else { &common });
                let (_, cluster, target) = key;
                self.reporter.error_with_help(
                    at,
                    format!(
                        "`{service}` in `{name}` and `{other}` in `{first}` are both \
                         `{target}` of cluster `{cluster}`"
                    ),
                    "each needs an ECS service of its own; `{service}` in the name stands for the \
                     service's",
                );
            }
        }
    }

    fn unknown<'w, W: AsRef<str> + 'w>(
        &mut self,
        path: &[&str],
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'w W>,
    ) {
        let at = self.root.value_at(path);
        self.unknown_at(at, what, name, known);
    }

    fn unknown_key<'w, W: AsRef<str> + 'w>(
        &mut self,
        path: &[&str],
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'w W>,
    ) {
        let at = self.root.key_at(path);
        self.unknown_at(at, what, name, known);
    }

    fn unknown_at<'w, W: AsRef<str> + 'w>(
        &mut self,
        at: At,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'w W>,
    ) {
        unknown_name(at, what, name, known, self.reporter);
    }
}

/// Reports a name that leads nowhere, with the nearest of those that would.
pub(super) fn unknown_name<'w, W: AsRef<str> + 'w>(
    at: At,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'w W>,
    reporter: &mut Reporter<'_>,
) {
    let known: Vec<&str> = known.map(AsRef::as_ref).collect();
    let help = match nearest(name, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None if known.is_empty() => format!("the file names no {what}"),
        None => format!("the file has {}", list(&known, "and")),
    };
    reporter.error_with_help(at, format!("there is no {what} `{name}`"), help);
}

/// `a → b → a`.
fn arrows(circle: &[&str]) -> String {
    let back = circle.first().copied().unwrap_or_default();
    let mut names = circle.to_vec();
    names.push(back);
    names.join(" → ")
}

/// The circles that a walk along `edges` meets, each once, beginning with its first name in the
/// order of `edges`. No circle in the answer: there is none.
fn circles<'n>(edges: &IndexMap<&'n str, Vec<&'n str>>) -> Vec<Vec<&'n str>> {
    /// Where the walk stands: a name, and the next of its edges to take.
    struct Stop<'n> {
        name: &'n str,
        next: usize,
    }
    let mut found = Vec::new();
    let mut done: IndexMap<&str, ()> = IndexMap::new();
    for start in edges.keys() {
        let mut way = vec![Stop {
            name: start,
            next: 0,
        }];
        while let Some(stop) = way.last_mut() {
            let name = stop.name;
            let edge = edges
                .get(name)
                .and_then(|edges| edges.get(stop.next))
                .copied();
            stop.next += 1;
            match edge {
                _ if done.contains_key(name) => {
                    way.pop();
                }
                None => {
                    done.insert(name, ());
                    way.pop();
                }
                Some(next) => match way.iter().position(|stop| stop.name == next) {
                    Some(place) => {
                        let mut circle: Vec<&str> =
                            way[place..].iter().map(|stop| stop.name).collect();
                        let first =
                            (0..circle.len()).min_by_key(|at| edges.get_index_of(circle[*at]));
                        circle.rotate_left(first.unwrap_or_default());
                        found.push(circle);
                    }
                    None => way.push(Stop {
                        name: next,
                        next: 0,
                    }),
                },
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(edges: &[(&'static str, &[&'static str])]) -> Vec<String> {
        let edges = edges
            .iter()
            .map(|(name, to)| (*name, to.to_vec()))
            .collect();
        circles(&edges)
            .iter()
            .map(|circle| arrows(circle))
            .collect()
    }

    #[test]
    fn circles_are_found_once_and_named_from_their_first() {
        assert_eq!(
            found(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]),
            ["a → b → c → a"]
        );
        assert_eq!(found(&[("a", &["a"])]), ["a → a"]);
        assert_eq!(
            found(&[("x", &["c"]), ("b", &["c"]), ("c", &["b"])]),
            ["b → c → b"]
        );
        let two = [
            ("a", ["b"].as_slice()),
            ("b", &["a"]),
            ("c", &["d"]),
            ("d", &["c"]),
        ];
        assert_eq!(found(&two), ["a → b → a", "c → d → c"]);
    }

    #[test]
    fn a_diamond_and_a_missing_name_are_no_circle() {
        assert!(found(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]).is_empty());
        assert!(found(&[("a", &["gone"])]).is_empty());
    }
}
