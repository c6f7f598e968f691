//! `validate`: finds what is wrong with a pipeline file, and with the environment files and task definitions
//! that it names, before a push.
//!
//! An error is what the server would refuse. A warning is what it takes and somebody may have forgotten.

use super::included;
use crate::Exit;
use anyhow::Context;
use clap::Args;
use roadstead_pipelines::spec::{self, EnvFiles, FILE_NAME, Pipeline};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Variables for machines of people, where there are any.
const LOCAL_ENV_FILE: &str = "env/local.env";

/// Stands for the Region of environments that name none.
const REGION_OF_THE_SERVER: &str = "region";

#[derive(Args)]
pub(crate) struct ValidateArgs {
    /// The file.
    #[arg(default_value = FILE_NAME)]
    file: PathBuf,
    /// Where the files that it includes, its environment files and task definitions lie [default: the repository of a file `.roadstead/pipeline.yml`; those of
    /// other files are not read].
    #[arg(long)]
    root: Option<PathBuf>,
    /// Warnings are errors.
    #[arg(long)]
    strict: bool,
}

/// Checks a pipeline file and prints its plan in a few lines, then warnings.
pub(crate) fn validate(args: &ValidateArgs) -> anyhow::Result<()> {
    let file = &args.file;
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let root = args.root.clone().or_else(|| root_of(file));
    let pipeline = included::parse(&file.display().to_string(), &text, root.as_deref())
        .map_err(|diagnostics| errors("the file has errors", diagnostics))?;
    let environments = match &root {
        Some(root) => {
            task_definitions(root, &pipeline)?;
            environment_files(root, &pipeline)?
        }
        None => Vec::new(),
    };
    print_plan(file, &pipeline);
    let warnings = spec::missing_keys(&environments);
    for warning in &warnings {
        println!("\nwarning: {warning}");
    }
    if !warnings.is_empty() {
        let count = warnings.len();
        let summary = format!(
            "{count} {}",
            if count == 1 { "warning" } else { "warnings" }
        );
        if args.strict {
            return Err(errors(&summary, "`--strict` takes them for errors"));
        }
        println!("\n{summary}");
    }
    Ok(())
}

fn errors(what: &str, which: impl std::fmt::Display) -> anyhow::Error {
    let message = format!("{what}\n{which}");
    Exit { status: 1, message }.into()
}

/// The repository around a file that lies where the server looks for it.
fn root_of(file: &Path) -> Option<PathBuf> {
    let root = fs::canonicalize(file).ok()?;
    root.ends_with(FILE_NAME).then_some(())?;
    root.ancestors()
        .nth(Path::new(FILE_NAME).components().count())
        .map(Path::to_owned)
}

/// The files of every environment, as far as the server would take them.
fn environment_files(root: &Path, pipeline: &Pipeline) -> anyhow::Result<Vec<EnvFiles>> {
    let mut wrong = Vec::new();
    let mut looked_at = BTreeSet::new();
    let mut read = |name: &str, what: &str| {
        let path = root.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                wrong.push(format!("{what}: cannot read {}: {error}", path.display()));
                return None;
            }
        };
        // Two environments may name one file, whose mistakes are said once.
        if looked_at.insert(name.to_owned())
            && let Err(diagnostics) = spec::parse_env_file(name, &text)
        {
            wrong.push(diagnostics.to_string());
        }
        Some((name.to_owned(), text))
    };
    let mut all = Vec::new();
    for (name, environment) in &pipeline.environments {
        let what = format!("`env_file` of environment `{name}`");
        let files = environment
            .env_files
            .iter()
            .filter_map(|file| read(file, &what));
        all.push(EnvFiles {
            environment: name.to_string(),
            files: files.collect(),
            variables: environment.variables.keys().cloned().collect(),
        });
    }
    if root.join(LOCAL_ENV_FILE).exists() {
        all.push(EnvFiles {
            environment: "local".to_owned(),
            files: read(LOCAL_ENV_FILE, "variables of `run --local`")
                .into_iter()
                .collect(),
            variables: Vec::new(),
        });
    }
    if wrong.is_empty() {
        Ok(all)
    } else {
        Err(errors(
            "the environment files have errors",
            wrong.join("\n\n"),
        ))
    }
}

/// Checks the files of task definitions as every place takes them.
fn task_definitions(root: &Path, pipeline: &Pipeline) -> anyhow::Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    // Which Region the server has is not known here; which one it is makes no mistake.
    for (place, from) in pipeline.definitions_from_files(REGION_OF_THE_SERVER) {
        let what = format!("`task_definition` of {place}");
        let path = root.join(&from.file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                wrong.push(format!("{what}: cannot read {}: {error}", path.display()));
                continue;
            }
        };
        let service = pipeline.services.get(&place.service);
        let container = service.and_then(|service| service.container.as_deref());
        let read = spec::parse_task_definition(&from.file, &text, &from.variables, container);
        if let Err(diagnostics) = read {
            let said = diagnostics.to_string();
            // What is wrong everywhere is said once.
            if !wrong.iter().any(|told| told.ends_with(&said)) {
                wrong.push(format!("{what}:\n{said}"));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let what = "the task definitions have errors";
    Err(errors(what, wrong.join("\n\n")))
}

fn print_plan(file: &Path, pipeline: &Pipeline) {
    fn join<T: ToString>(names: impl Iterator<Item = T>, by: &str) -> String {
        let names: Vec<String> = names.map(|name| name.to_string()).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(by)
        }
    }
    println!("{}: ok", file.display());
    println!("  project       {}", pipeline.name);
    let images = pipeline.images.keys();
    let built = images.flat_map(|image| pipeline.variants_of(image));
    println!("  images        {}", join(built, ", "));
    println!("  steps         {}", join(pipeline.steps.keys(), ", "));
    println!("  services      {}", join(pipeline.services.keys(), ", "));
    println!(
        "  environments  {}",
        join(pipeline.environments.keys(), " → ")
    );
}
