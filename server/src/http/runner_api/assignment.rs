//! A job as a runner takes it: the pipeline file's steps in the protocol's words.
//!
//! Pure; knows of no request and no row.

use roadstead_pipelines::id::{ImageName, JobName, StepName};
use roadstead_pipelines::job::{Job, needs_of};
use roadstead_pipelines::pull_request::{PullRequest, Trust};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::{
    self, Combination, InputValues, LeftOut, Pipeline, input_variable, matrix_variable,
};
use roadstead_pipelines::variant::ImageVariant;
use roadstead_protocol as wire;
use std::collections::BTreeMap;

/// A step without a timeout of its own may take one hour.
const DEFAULT_TIMEOUT_SECONDS: u64 = 3_600;

/// The steps of a run's job that waits, or runs; none of one that the run does not have.
pub(super) fn steps_of_job(run: &Run, job: &JobName) -> Vec<wire::Step> {
    let tag = format!("git-{}", run.commit);
    let decided = Decided {
        project: run.project.as_str(),
        left_out: &run.left_out,
        inputs: &run.inputs,
        repositories: &run.repositories,
        tag: &tag,
        pull_request: run.pull_request(),
    };
    match (&run.pipeline, run.jobs().get(job)) {
        (Some(pipeline), Some(job)) => steps_of(pipeline, job, decided),
        _ => vec![],
    }
}

/// The version of the protocol that a runner has to speak to do a run's job.
#[must_use]
pub fn version_of(run: &Run, job: &JobName) -> u32 {
    let steps = steps_of_job(run, job).into_iter();
    let versions = steps.map(|step| step.protocol_version());
    versions.max().unwrap_or(wire::OLDEST_PROTOCOL_VERSION)
}

/// What was decided of a run's steps.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// The project.
    pub project: &'a str,
    /// Steps that it leaves out: what needs one of these needs what that one needs.
    pub left_out: &'a LeftOut,
    /// Values of the file's inputs, which steps find in variables.
    pub inputs: &'a InputValues,
    /// Where images are pushed to; one without a repository is not built.
    pub repositories: &'a BTreeMap<ImageName, String>,
    /// What they are tagged with; variants, with their environment behind it.
    pub tag: &'a str,
    /// Whose images are for nobody.
    pub pull_request: Option<&'a PullRequest>,
}

/// A job's steps as a runner takes them, in an order that respects `needs`. What they need of other jobs has
/// succeeded before they are given out.
#[must_use]
pub fn steps_of(pipeline: &Pipeline, job: &Job, decided: Decided<'_>) -> Vec<wire::Step> {
    let step = |name: &StepName| {
        let step = &pipeline.steps[name];
        let needs = needs_of(step, pipeline, decided.left_out).into_iter();
        wire::Step {
            name: name.to_string(),
            needs: needs
                .filter(|need| job.steps.contains(need))
                .map(ToString::to_string)
                .collect(),
            timeout_seconds: step.timeout.map_or(DEFAULT_TIMEOUT_SECONDS, |t| t.get()),
            retry: step.retry,
            // What steps of this job left lies in the workspace already.
            artifacts_from: step
                .artifacts_from
                .iter()
                .filter(|giver| !job.steps.contains(giver))
                .map(ToString::to_string)
                .collect(),
            action: action_of(step, pipeline, decided),
        }
    };
    job.steps.iter().map(step).collect()
}

/// A step's own variables, and one for each input and each value of its matrix.
fn with_given(
    mut variables: BTreeMap<String, String>,
    inputs: &InputValues,
    matrix: Option<&Combination>,
) -> BTreeMap<String, String> {
    let inputs = inputs.iter();
    variables.extend(inputs.map(|(name, value)| (input_variable(name), value.clone())));
    let values = matrix.iter().flat_map(|matrix| &matrix.values);
    variables.extend(values.map(|(name, value)| (matrix_variable(name), value.clone())));
    variables
}

fn action_of(step: &spec::Step, pipeline: &Pipeline, decided: Decided<'_>) -> wire::StepAction {
    let map = |from: &indexmap::IndexMap<String, String>| {
        from.iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    match &step.action {
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
            env: with_given(map(env), decided.inputs, step.matrix.as_ref()),
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
                caches: files
                    .caches
                    .iter()
                    .map(|(name, cache)| wire::StepCache {
                        name: name.clone(),
                        paths: cache.paths.clone(),
                        key: cache.key.clone(),
                    })
                    .collect(),
            },
        },
        spec::StepAction::Build { images } => wire::StepAction::Build {
            images: images
                .iter()
                .filter_map(|name| {
                    let image = pipeline.images.get(name)?;
                    let uri = match decided.pull_request {
                        Some(_) => &image.repository,
                        None => decided.repositories.get(name)?,
                    };
                    Some((pipeline.variants_of(name), image, uri))
                })
                .flat_map(|(variants, image, uri)| {
                    let build = move |variant| build_of(&variant, image, uri, &decided);
                    variants.into_iter().map(build)
                })
                .collect(),
        },
    }
}

/// One build of an image. To a runner each variant is an image of its own.
fn build_of(
    variant: &ImageVariant,
    image: &spec::Image,
    uri: &str,
    decided: &Decided<'_>,
) -> wire::ImageBuild {
    let environment = variant.environment.as_ref();
    let args = image.args_for(environment).into_iter().collect();
    wire::ImageBuild {
        name: variant.to_string(),
        repository_uri: uri.to_owned(),
        registry: registry_of(decided.pull_request),
        tag: variant.tag(decided.tag),
        context: image.context.clone(),
        dockerfile: image.dockerfile_for(environment).to_owned(),
        target: image.target.clone(),
        args: with_own_mounts(decided, args),
        secrets: secrets_of(image),
    }
}

/// What an image build may do with the registry.
fn registry_of(pull_request: Option<&PullRequest>) -> wire::RegistryUse {
    match pull_request.map(|it| &it.trust) {
        None => wire::RegistryUse::Push,
        Some(Trust::Trusted) => wire::RegistryUse::Pull,
        Some(Trust::Untrusted { .. }) => wire::RegistryUse::None,
    }
}

/// BuildKit keeps what `RUN --mount=type=cache` mounts under the id that the Dockerfile gives, for whoever gives the same
/// one. Under this argument, which no Dockerfile can change, it keeps those of each pull request from a fork apart.
fn with_own_mounts(
    decided: &Decided<'_>,
    mut args: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    if let Some(pull_request) = decided.pull_request
        && !pull_request.trust.may_write_cache()
    {
        let (project, number) = (decided.project, pull_request.number);
        let space = format!("roadstead-{project}-pull-request-{number}");
        args.insert("BUILDKIT_CACHE_MOUNT_NS".to_owned(), space);
    }
    args
}

fn secrets_of(image: &spec::Image) -> Vec<wire::ImageSecret> {
    let secrets = image.secrets.iter();
    secrets
        .map(|secret| wire::ImageSecret {
            secret: secret.to_string(),
            id: secret.file_name(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_pipelines::job::jobs;
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
    caches: { cargo: { paths: [target], key: [Cargo.lock] } }
    sidecars:
      db: { image: postgres:17, env: { POSTGRES_PASSWORD: x }, command: [postgres] }
";

    /// What a runner is told of the first job of a push, whose images are in repositories of their names.
    fn steps_told(file: &str) -> Vec<wire::Step> {
        let pipeline = spec::parse("pipeline.yml", file).unwrap_or_else(|e| panic!("{e}"));
        let images = pipeline.images.keys();
        let repositories = images.map(|name| (name.clone(), format!("registry/shop/{name}")));
        let decided = Decided {
            project: "shop",
            left_out: &LeftOut::default(),
            inputs: &InputValues::default(),
            repositories: &repositories.collect(),
            tag: "git-c0ffee",
            pull_request: None,
        };
        let jobs = jobs(&pipeline, decided.left_out);
        steps_of(&pipeline, &jobs[0], decided)
    }

    #[test]
    fn an_image_names_its_secrets_as_a_dockerfile_does() {
        let file = "\
version: 1
name: shop
images:
  api: { repository: shop/api, secrets: [TOKEN, staging/KEY] }
services:
  api: { image: api }
environments:
  staging: { ecs: { cluster: staging, service: shop } }
";
        let steps = steps_told(file);
        assert_eq!(steps[0].protocol_version(), 3);
        let told = serde_json::to_value(&steps[0]).unwrap();
        let expected = json!([
            { "secret": "TOKEN", "id": "TOKEN" },
            { "secret": "staging/KEY", "id": "staging.KEY" },
        ]);
        assert_eq!(told["action"]["images"][0]["secrets"], expected);
    }

    #[test]
    fn every_variant_is_a_build_of_its_own() {
        let file = "\
version: 1
name: shop
images:
  web:
    repository: shop/web
    args: { MODE: fast, API: none }
    args_by_environment: { staging: { API: a }, production: { API: b } }
    dockerfile_by_environment: { production: Dockerfile.production }
services:
  web: { image: web, variants: trusted }
environments:
  preview: { ecs: { cluster: preview, service: web } }
  staging: { ecs: { cluster: staging, service: web } }
  production: { after: staging, ecs: { cluster: production, service: web } }
";
        let steps = steps_told(file);
        // An older runner builds them like any image.
        assert_eq!(steps[0].protocol_version(), 1);
        let wire::StepAction::Build { images } = &steps[0].action else {
            panic!("{steps:?}");
        };
        let told = images.iter().map(|it| {
            let told = [
                &it.name,
                &it.tag,
                &it.dockerfile,
                &it.args["MODE"],
                &it.args["API"],
            ];
            told.map(String::as_str)
        });
        let told: Vec<_> = told.collect();
        assert_eq!(
            told,
            [
                ["web", "git-c0ffee", "Dockerfile", "fast", "none"],
                [
                    "staging/web",
                    "git-c0ffee-staging",
                    "Dockerfile",
                    "fast",
                    "a"
                ],
                [
                    "production/web",
                    "git-c0ffee-production",
                    "Dockerfile.production",
                    "fast",
                    "b"
                ],
            ]
        );
    }

    #[test]
    fn everything_that_a_step_says_reaches_the_runner() {
        let steps = steps_told(FILE);
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
                "files": { "artifacts": ["dist/**", "!dist/*.map"], "junit": ["*.xml"], "caches": [
                    { "name": "cargo", "paths": ["target"], "key": ["Cargo.lock"] },
                ] },
            },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn images_of_pull_requests_are_pushed_nowhere_and_those_of_forks_share_no_mounts() {
        let file =
            "version: 1\nname: shop\nimages: { api: { repository: shop/api, args: { A: b } } }\n";
        let pipeline = spec::parse("pipeline.yml", file).unwrap();
        let mut pull_request = PullRequest {
            number: 7,
            base_ref: "refs/heads/main".into(),
            head_branch: "main".into(),
            trust: Trust::Trusted,
        };
        let told = |pull_request: &PullRequest| {
            let decided = Decided {
                project: "shop",
                left_out: &LeftOut::default(),
                inputs: &InputValues::default(),
                repositories: &BTreeMap::new(),
                tag: "git-c0ffee",
                pull_request: Some(pull_request),
            };
            let jobs = jobs(&pipeline, decided.left_out);
            let steps = steps_of(&pipeline, &jobs[0], decided);
            let told = serde_json::to_value(&steps[0]).unwrap();
            let image = told["action"]["images"][0].clone();
            (image["registry"].clone(), image["args"].clone())
        };
        assert_eq!(told(&pull_request), (json!("pull"), json!({"A": "b"})));
        pull_request.trust = Trust::Untrusted { fork: None };
        let own = json!({"A": "b", "BUILDKIT_CACHE_MOUNT_NS": "roadstead-shop-pull-request-7"});
        assert_eq!(told(&pull_request), (json!("none"), own));
    }
}
