//! A run's job as a runner takes it: the pipeline file's steps in the protocol's words.
//!
//! Pure; knows of no request and no row.

use roadstead_pipelines::id::{ImageName, StepName};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::{self, InputValues, LeftOut, Pipeline, input_variable};
use roadstead_protocol as wire;
use std::collections::{BTreeMap, BTreeSet};

/// A step without a timeout of its own may take one hour.
const DEFAULT_TIMEOUT_SECONDS: u64 = 3_600;

/// The steps of a run whose job waits, or runs; none of one whose file was not read yet.
pub(super) fn steps_of_run(run: &Run) -> Vec<wire::Step> {
    let decided = Decided {
        left_out: &run.left_out,
        inputs: &run.inputs,
        repositories: &run.repositories,
        commit: run.commit.as_str(),
    };
    let pipeline = run.pipeline.iter();
    pipeline.flat_map(|it| steps_of(it, decided)).collect()
}

/// What was decided of a run's steps.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// Steps that it leaves out: what needs one of these needs what that one needs.
    pub left_out: &'a LeftOut,
    /// Values of the file's inputs, which steps find in variables.
    pub inputs: &'a InputValues,
    /// Where images are pushed to; one without a repository is not built.
    pub repositories: &'a BTreeMap<ImageName, String>,
    /// What they are tagged with.
    pub commit: &'a str,
}

/// The file's steps as a runner takes them, in an order that respects `needs`.
#[must_use]
pub fn steps_of(pipeline: &Pipeline, decided: Decided<'_>) -> Vec<wire::Step> {
    let left_out = decided.left_out;
    let step = |name: &StepName| {
        let step = &pipeline.steps[name];
        wire::Step {
            name: name.to_string(),
            needs: needs_of(step, pipeline, left_out)
                .into_iter()
                .map(ToString::to_string)
                .collect(),
            timeout_seconds: step.timeout.map_or(DEFAULT_TIMEOUT_SECONDS, |t| t.get()),
            retry: step.retry,
            action: action_of(&step.action, pipeline, decided),
        }
    };
    let ordered = pipeline.steps_in_order().into_iter();
    ordered
        .filter(|name| !left_out.contains_key(*name))
        .map(step)
        .collect()
}

/// What a step needs of those that are not left out, each once.
fn needs_of<'p>(
    step: &'p spec::Step,
    pipeline: &'p Pipeline,
    left_out: &LeftOut,
) -> BTreeSet<&'p StepName> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<&StepName> = step.needs.iter().collect();
    let mut seen: BTreeSet<&StepName> = open.iter().copied().collect();
    while let Some(name) = open.pop() {
        if !left_out.contains_key(name) {
            needed.insert(name);
            continue;
        }
        let further = pipeline.steps.get(name).map(|step| &step.needs);
        open.extend(
            further
                .into_iter()
                .flatten()
                .filter(|need| seen.insert(need)),
        );
    }
    needed
}

/// A step's own variables, and one for each input.
fn with_inputs(
    mut variables: BTreeMap<String, String>,
    inputs: &InputValues,
) -> BTreeMap<String, String> {
    let inputs = inputs.iter();
    variables.extend(inputs.map(|(name, value)| (input_variable(name), value.clone())));
    variables
}

fn action_of(
    action: &spec::StepAction,
    pipeline: &Pipeline,
    decided: Decided<'_>,
) -> wire::StepAction {
    let map = |from: &indexmap::IndexMap<String, String>| {
        from.iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    match action {
        spec::StepAction::Run {
            image,
            run,
            env,
            sidecars,
            secrets,
            limits,
            files,
        } => wire::StepAction::Run {
            image: image.clone(),
            run: run.clone(),
            env: with_inputs(map(env), decided.inputs),
            sidecars: sidecars
                .iter()
                .map(|(name, s)| {
                    let sidecar = wire::Sidecar {
                        image: s.image.clone(),
                        env: map(&s.env),
                        command: s.command.clone(),
                    };
                    (name.clone(), sidecar)
                })
                .collect(),
            secrets: secrets
                .iter()
                .map(|named| wire::StepSecret {
                    secret: named.secret.to_string(),
                    file: named.secret.file_name(),
                    variable: named.variable.clone(),
                })
                .collect(),
            limits: wire::StepLimits {
                cpu: limits.cpu,
                memory: limits.memory,
            },
            files: wire::StepFiles {
                artifacts: files.artifacts.clone(),
                junit: files.junit.clone(),
            },
        },
        spec::StepAction::Build { images } => wire::StepAction::Build {
            images: images
                .iter()
                .filter_map(|name| {
                    Some((
                        name,
                        pipeline.images.get(name)?,
                        decided.repositories.get(name)?,
                    ))
                })
                .map(|(name, image, uri)| wire::ImageBuild {
                    name: name.to_string(),
                    repository_uri: uri.clone(),
                    tag: format!("git-{}", decided.commit),
                    context: image.context.clone(),
                    dockerfile: image.dockerfile.clone(),
                    target: image.target.clone(),
                    args: map(&image.args),
                })
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "\
version: 1
name: shop
steps:
  test:
    image: rust:1
    run: cargo test
    timeout: 5m
    retry: 2
    env: { RUST_BACKTRACE: '1' }
    limits: { cpu: 512, memory: 256 }
    artifacts: [dist/**, '!dist/*.map']
    reports: { junit: '*.xml' }
    sidecars:
      db: { image: postgres:17, env: { POSTGRES_PASSWORD: x }, command: [postgres] }
";

    #[test]
    fn everything_that_a_step_says_reaches_the_runner() {
        let pipeline = spec::parse("pipeline.yml", FILE).unwrap();
        let decided = Decided {
            left_out: &LeftOut::default(),
            inputs: &InputValues::default(),
            repositories: &BTreeMap::new(),
            commit: "c0ffee",
        };
        let steps = steps_of(&pipeline, decided);
        let [test] = steps.as_slice() else {
            panic!("{steps:?}");
        };
        let told = serde_json::to_value(test).unwrap();
        let expected = json!({
            "name": "test",
            "needs": [],
            "timeout_seconds": 300,
            "retry": 2,
            "action": {
                "kind": "run",
                "image": "rust:1",
                "run": "cargo test",
                "env": { "RUST_BACKTRACE": "1" },
                "sidecars": { "db": {
                    "image": "postgres:17",
                    "env": { "POSTGRES_PASSWORD": "x" },
                    "command": ["postgres"],
                } },
                "secrets": [],
                "limits": { "cpu": 512, "memory": 256 },
                "files": { "artifacts": ["dist/**", "!dist/*.map"], "junit": ["*.xml"] },
            },
        });
        assert_eq!(told, expected);
    }
}
