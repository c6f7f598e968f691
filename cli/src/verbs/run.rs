//! `run --local`: a pipeline's steps and image builds on this machine, without a server.
//!
//! Owns what stands in files: which steps are wanted, and which variables they get. The runner runs them.

use super::included;
use crate::Exit;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use roadstead_pipelines::id::{JobName, StepName};
use roadstead_pipelines::job::{jobs, needs_of};
use roadstead_pipelines::spec::{self, Event, FILE_NAME, InputValues, LeftOut, Pipeline};
use roadstead_pipelines::variant::ImageVariant;
use roadstead_protocol::{Outcome, Step};
use roadstead_runner::{CancellationToken, LocalEnd, LocalRun, Shelf, WorkingTree, run_local};
use roadstead_server::http::runner_api::{Decided, steps_of};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Variables for machines of people, where there are any.
const LOCAL_ENV_FILE: &str = "env/local.env";
/// The tag of images that are built here.
const TAG: &str = "local";

#[derive(Args)]
pub(crate) struct RunArgs {
    /// On this machine's Docker Engine, without a server; `roadstead start` starts a run on one.
    #[arg(long, required = true)]
    local: bool,
    /// These steps and what they need; without any, all.
    steps: Vec<String>,
    /// The pipeline file, from the repository's root.
    #[arg(long, default_value = FILE_NAME)]
    file: PathBuf,
    /// Variables of every step, `KEY=VALUE` lines; of several files the later wins [default: env/local.env,
    /// where it exists].
    #[arg(long = "env-file")]
    env_files: Vec<PathBuf>,
    /// A value for an input of the file.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = given_input)]
    inputs: Vec<(String, String)>,
    /// Only this environment's variant of each image; without it, all are built.
    #[arg(long)]
    environment: Option<String>,
    /// How many steps run at once, as with a runner's.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// Where files and logs lie while steps run [default: a folder of the repository's own in the user's
    /// cache].
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let RunArgs {
        local: _,
        steps: wanted,
        file,
        env_files,
        inputs,
        environment: variant,
        slots,
        data,
    } = args;
    crate::serve::logs("warn");
    let tree = WorkingTree::around(&std::env::current_dir()?)?;
    let pipeline = only_for(variant.as_deref(), read_pipeline(&tree.root, &file)?)?;
    let environment = read_environment(&tree.root, &env_files)?;
    let inputs = spec::told_inputs(&pipeline.trigger.inputs, &inputs.into_iter().collect())
        .map_err(|wrong| anyhow!(wrong.join("\n")))?;
    // As a push would, if one of every path.
    let mut left_out = spec::left_out(&pipeline, &tree.git_ref, Event::Push, None);
    left_out.retain(|step, _| !wanted.iter().any(|name| name == step.as_str()));
    let jobs = wanted_jobs(&pipeline, &left_out, &inputs, &wanted)?;
    for (step, reason) in left_out {
        println!("step {step} is left out: {reason}");
    }
    let data = match data {
        Some(data) => data,
        None => cache_of(&tree.root)?,
    };
    let shelf = Shelf::take(&data, given_on(&jobs))?;
    let project = pipeline.name.to_string();
    let run = |steps| LocalRun {
        project: project.clone(),
        steps,
        environment: environment.clone(),
        tree: tree.clone(),
        data: data.clone(),
        side_by_side: usize::from(slots),
        colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        shelf: shelf.clone(),
    };
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(on_signals(stop.clone(), kill.clone()));
    let end = one_after_the_other(jobs, run, &stop, &kill).await;
    signals.abort();
    shelf.clear()?;
    tell(end?)
}

/// A job with what this machine does of it.
struct LocalJob {
    name: JobName,
    needs: BTreeSet<JobName>,
    steps: Vec<Step>,
}

/// The steps whose artifacts others get.
fn given_on(jobs: &[LocalJob]) -> BTreeSet<String> {
    let steps = jobs.iter().flat_map(|job| &job.steps);
    steps.flat_map(|step| step.artifacts_from.clone()).collect()
}

/// Runs jobs in their order, each with a fresh copy of the files, as a server's runners would: what needs one that
/// did not succeed is not run, the others are. The end is that of the first that did not.
async fn one_after_the_other(
    jobs: Vec<LocalJob>,
    run: impl Fn(Vec<Step>) -> LocalRun,
    stop: &CancellationToken,
    kill: &CancellationToken,
) -> anyhow::Result<LocalEnd> {
    let several = jobs.len() > 1;
    let mut all = LocalEnd {
        outcome: Outcome::Succeeded,
        images: vec![],
    };
    let mut undone: BTreeSet<JobName> = BTreeSet::new();
    for LocalJob { name, needs, steps } in jobs {
        if stop.is_cancelled() {
            break;
        }
        if let Some(needed) = needs.iter().find(|need| undone.contains(*need)) {
            println!("job {name} is not run: job {needed}, which it needs, did not succeed");
            undone.insert(name);
            continue;
        }
        if several {
            println!("job {name}");
        }
        let end = run_local(run(steps), stop.clone(), kill.clone()).await?;
        all.images.extend(end.images);
        if end.outcome != Outcome::Succeeded {
            undone.insert(name);
            if all.outcome == Outcome::Succeeded {
                all.outcome = end.outcome;
            }
        }
    }
    Ok(all)
}

/// `name=value`.
pub(super) fn given_input(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no `=`: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The first signal stops the steps, the second kills them.
async fn on_signals(stop: CancellationToken, kill: CancellationToken) {
    crate::serve::asked_to_stop().await;
    eprintln!("roadstead: stops the steps; once more kills them");
    stop.cancel();
    crate::serve::asked_to_stop().await;
    kill.cancel();
}

fn tell(end: LocalEnd) -> anyhow::Result<()> {
    for image in &end.images {
        let tag =
            ImageVariant::parse(&image.name).map_or_else(|_| TAG.to_owned(), |it| it.tag(TAG));
        println!(
            "image {}: {}:{tag} ({})",
            image.name, image.repository_uri, image.digest
        );
    }
    let (status, message) = match end.outcome {
        Outcome::Succeeded => {
            println!("succeeded");
            return Ok(());
        }
        Outcome::Failed { step, reason } => (1, format!("step `{step}` failed: {reason}")),
        Outcome::Errored { reason } => (1, reason),
        Outcome::Cancelled => (3, "stopped".to_owned()),
        Outcome::TimedOut { step } => (3, format!("step `{step}` timed out")),
    };
    Err(Exit { status, message }.into())
}

fn read_pipeline(root: &Path, file: &Path) -> anyhow::Result<Pipeline> {
    let path = root.join(file);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}; `roadstead init` writes a first one",
            path.display()
        )
    })?;
    included::parse(&file.display().to_string(), &text, Some(root)).map_err(|diagnostics| {
        let message = format!("the file has errors\n{diagnostics}");
        Exit { status: 1, message }.into()
    })
}

/// The file without the other environments, if one is named: then there is one variant of each image.
fn only_for(environment: Option<&str>, mut pipeline: Pipeline) -> anyhow::Result<Pipeline> {
    let Some(name) = environment else {
        return Ok(pipeline);
    };
    let known: Vec<&str> = pipeline.environments.keys().map(AsRef::as_ref).collect();
    if !known.contains(&name) {
        let help = match spec::nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => "the file has none".to_owned(),
            None => format!("the file has `{}`", known.join("`, `")),
        };
        bail!("there is no environment `{name}`; {help}");
    }
    pipeline
        .environments
        .retain(|known, _| known.as_str() == name);
    Ok(pipeline)
}

/// The variables of `files`, or of `env/local.env` where there is one.
fn read_environment(root: &Path, files: &[PathBuf]) -> anyhow::Result<BTreeMap<String, String>> {
    let usual = root.join(LOCAL_ENV_FILE);
    let mut variables = BTreeMap::new();
    let files = match files {
        [] if usual.exists() => vec![usual],
        files => files.to_vec(),
    };
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let read =
            spec::parse_env_file(&file.display().to_string(), &text).map_err(|diagnostics| {
                Exit {
                    status: 1,
                    message: format!("the file has errors\n{diagnostics}"),
                }
            })?;
        variables.extend(read);
    }
    Ok(variables)
}

/// The jobs as runners take them, each behind those that it needs: the steps that are `wanted` and what they need,
/// but none that are `left_out`.
fn wanted_jobs(
    pipeline: &Pipeline,
    left_out: &LeftOut,
    inputs: &InputValues,
    wanted: &[String],
) -> anyhow::Result<Vec<LocalJob>> {
    let repositories = pipeline
        .images
        .iter()
        .map(|(name, image)| (name.clone(), image.repository.clone()))
        .collect();
    let decided = Decided {
        project: pipeline.name.as_str(),
        left_out,
        inputs,
        repositories: &repositories,
        tag: TAG,
        pull_request: None,
    };
    let needed = needed_steps(pipeline, left_out, wanted)?;
    let mut wanted = vec![];
    for (name, job) in jobs(pipeline, left_out) {
        let mut steps = steps_of(pipeline, &job, decided);
        steps.retain(|step| needed.contains(step.name.as_str()));
        if !steps.is_empty() {
            let needs = job.needs;
            wanted.push(LocalJob { name, needs, steps });
        }
    }
    Ok(wanted)
}

/// The names of the steps that are wanted, and of all that they need; without any, all. The name of a step with a
/// matrix stands for all its combinations.
fn needed_steps<'p>(
    pipeline: &'p Pipeline,
    left_out: &LeftOut,
    wanted: &[String],
) -> anyhow::Result<BTreeSet<&'p str>> {
    let kept = pipeline.steps_in_order().into_iter();
    let kept: Vec<&StepName> = kept.filter(|name| !left_out.contains_key(*name)).collect();
    if wanted.is_empty() {
        return Ok(kept.into_iter().map(StepName::as_str).collect());
    }
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for name in wanted {
        let is_meant = |step: &&&StepName| {
            let matrix = &pipeline.steps[**step].matrix;
            let family = matrix.as_ref().map(|it| it.of.as_str());
            step.as_str() == name || family == Some(name)
        };
        let meant: Vec<&str> = kept.iter().filter(is_meant).map(|it| it.as_str()).collect();
        if meant.is_empty() {
            bail!(no_step(name, &kept));
        }
        needed.extend(meant);
    }
    // What a step needs stands before it.
    for name in kept.iter().rev() {
        if needed.contains(name.as_str()) {
            let needs = needs_of(&pipeline.steps[*name], pipeline, left_out).into_iter();
            needed.extend(needs.map(StepName::as_str));
        }
    }
    Ok(needed)
}

fn no_step(name: &str, steps: &[&StepName]) -> String {
    let names: Vec<&str> = steps.iter().map(|step| step.as_str()).collect();
    match spec::nearest(name, names.iter().copied()) {
        Some(meant) => format!("there is no step `{name}`; did you mean `{meant}`?"),
        None => format!(
            "there is no step `{name}`; the file has `{}`",
            names.join("`, `")
        ),
    }
}

/// The same folder for the same repository, so that a run finds what a killed one left.
fn cache_of(root: &Path) -> anyhow::Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let Some(cache) = cache else {
        bail!("neither XDG_CACHE_HOME nor HOME is set: say with `--data` where files may lie");
    };
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    Ok(cache
        .join("roadstead/run")
        .join(format!("{name}-{:016x}", hasher.finish())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_protocol::StepAction;

    fn names(wanted: &[&str]) -> Result<Vec<String>, String> {
        let steps = steps(wanted, &[])?;
        Ok(steps.into_iter().map(|step| step.name).collect())
    }

    fn steps(wanted: &[&str], left_out_names: &[&str]) -> Result<Vec<Step>, String> {
        let text = "version: 1\nname: shop\nimages: { api: { repository: shop/api } }\nsteps:\n  \
                    image: { build: [api], needs: [test] }\n  test: { image: a, run: b, needs: [lint] }\n  \
                    lint: { image: a, run: b }\n  docs: { image: a, run: b }\n";
        let pipeline = spec::parse("f", text).unwrap_or_else(|e| panic!("{e}"));
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let left_out = pipeline.steps.keys();
        let left_out = left_out
            .filter(|step| left_out_names.contains(&step.as_str()))
            .map(|step| (step.clone(), "a reason".to_owned()))
            .collect();
        let inputs = InputValues::from([("target".to_owned(), "here".to_owned())]);
        let jobs = wanted_jobs(&pipeline, &left_out, &inputs, &wanted);
        let jobs = jobs.map_err(|error| error.to_string())?;
        Ok(jobs.into_iter().flat_map(|job| job.steps).collect())
    }

    #[test]
    fn what_needs_a_step_that_is_left_out_needs_what_that_one_needs() {
        let all = steps(&[], &["test"]).unwrap();
        let image = all.iter().find(|step| step.name == "image").unwrap();
        assert_eq!(image.needs, ["lint"]);
        assert!(all.iter().all(|step| step.name != "test"));
        let first: Vec<_> = all.iter().map(|step| step.name.as_str()).collect();
        let place = |name| first.iter().position(|step| *step == name);
        assert!(place("lint") < place("image"), "{first:?}");
    }

    #[test]
    fn one_environments_variant_is_built_alone() {
        let text = "version: 1\nname: shop\nimages:\n  web: { repository: shop/web, args_by_environment: { \
                    production: { A: b } } }\nservices: { web: { image: web, variants: trusted } }\n\
                    environments:\n  staging: { ecs: { cluster: a, service: web } }\n  production: { after: \
                    staging, ecs: { cluster: b, service: web } }\n";
        let built = |environment: Option<&str>| {
            let pipeline = spec::parse("f", text).unwrap_or_else(|e| panic!("{e}"));
            let pipeline = only_for(environment, pipeline).map_err(|error| error.to_string())?;
            let (left_out, inputs) = (LeftOut::default(), InputValues::default());
            let jobs = wanted_jobs(&pipeline, &left_out, &inputs, &[]).unwrap();
            let StepAction::Build { images } = &jobs[0].steps[0].action else {
                panic!("it builds");
            };
            let named = images.iter().map(|it| format!("{} {}", it.name, it.tag));
            Ok::<_, String>(named.collect::<Vec<_>>())
        };
        let both = ["web local", "production/web local-production"];
        assert_eq!(built(None).unwrap(), both);
        assert_eq!(built(Some("production")).unwrap(), both[1..]);
        assert_eq!(built(Some("staging")).unwrap(), both[..1]);
        assert_eq!(
            built(Some("stagnig")).unwrap_err(),
            "there is no environment `stagnig`; did you mean `staging`?"
        );
    }

    #[test]
    fn a_step_finds_the_inputs_in_its_variables() {
        let all = steps(&[], &[]).unwrap();
        let test = all.iter().find(|step| step.name == "test").unwrap();
        let StepAction::Run { env, .. } = &test.action else {
            panic!("it runs a script: {test:?}");
        };
        assert_eq!(env.get("INPUT_TARGET").map(String::as_str), Some("here"));
    }

    #[test]
    fn a_step_brings_what_it_needs_and_nothing_else() {
        let mut everything = names(&[]).unwrap();
        everything.sort();
        assert_eq!(everything, ["docs", "image", "lint", "test"]);
        assert_eq!(names(&["image"]).unwrap(), ["lint", "test", "image"]);
        assert_eq!(names(&["test", "lint"]).unwrap(), ["lint", "test"]);
        assert_eq!(names(&["docs"]).unwrap(), ["docs"]);
    }

    #[test]
    fn a_step_that_is_not_there_is_named_with_the_nearest() {
        assert_eq!(
            names(&["tset"]).unwrap_err(),
            "there is no step `tset`; did you mean `test`?"
        );
        let error = names(&["deploy"]).unwrap_err();
        assert!(
            error.starts_with("there is no step `deploy`; the file has `"),
            "{error}"
        );
    }
}
