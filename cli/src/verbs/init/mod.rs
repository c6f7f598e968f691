//! `init`: looks at a repository and writes a first pipeline file.
//!
//! Owns the order: look (`survey`), say it as a file (`draft`), see that it is one, write it where none is.
//! What could not be known stands in the file as a comment that begins with `TODO`.

mod draft;
mod languages;
mod survey;

use anyhow::{Context, bail};
use clap::Args;
use roadstead_pipelines::spec::{self, FILE_NAME};
use roadstead_runner::WorkingTree;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct InitArgs {
    /// The repository [default: the one around this folder].
    folder: Option<PathBuf>,
}

pub(crate) fn init(args: InitArgs) -> anyhow::Result<()> {
    let here = match args.folder {
        Some(folder) => folder,
        None => std::env::current_dir()?,
    };
    let tree = WorkingTree::around(&here)?;
    let root = fs::canonicalize(&tree.root)?;
    let path = root.join(FILE_NAME);
    if path.exists() {
        bail!(already_there(&path));
    }
    let branch = tree.git_ref.strip_prefix("refs/heads/").unwrap_or("main");
    let found = survey::look(&root)?;
    let text = draft::write(&found, branch);
    let pipeline = spec::parse(FILE_NAME, &text).map_err(|diagnostics| {
        anyhow::anyhow!(
            "what was found here makes no pipeline file that holds, which is a defect of `roadstead \
             init`:\n{diagnostics}"
        )
    })?;
    create(&path, &text)?;

    println!("wrote {FILE_NAME}");
    for line in &found.seen {
        println!("  {line}");
    }
    let todos = text.matches("TODO").count();
    println!("\nNext:");
    println!("  1. read it; `TODO` marks the {todos} things that could not be known from here");
    println!("  2. roadstead validate          says what is wrong with it");
    println!(
        "  3. roadstead run --local       runs its steps and builds its images on this machine"
    );
    println!(
        "  4. commit it, give the server a project `{}` and its webhook:",
        pipeline.name
    );
    println!(
        "     README, \"Your first repository\"; every key is explained in docs/pipeline-file.md"
    );
    Ok(())
}

fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(already_there(path)),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot write {}", path.display()));
        }
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn already_there(path: &Path) -> String {
    format!(
        "{} is there already and stays as it is; `roadstead validate` checks it",
        path.display()
    )
}
