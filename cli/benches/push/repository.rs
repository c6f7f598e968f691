//! What is pushed: files of a given size, a Dockerfile and a pipeline in a work tree, and the bare
//! repository with the hook that starts a turn.
//!
//! Half of the bytes are as good as random, as pictures and archives are; the other half is text that
//! halves when it is compressed. No two repositories share a file of them, so that no side finds the
//! layers of another turn in the engine's cache.

use crate::engine::Engine;
use anyhow::{Context, bail};
use rand::Rng as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;
use tokio::process::Command;

/// Files of a large context are this large; a small context has a hundred files.
const LARGEST_FILE: usize = 100_000;
const FEWEST_FILES: usize = 100;
/// Sixteen letters, so that a random byte makes text that compresses to half.
const LETTERS: &[u8; 16] = b"etaoinshrdlucm \n";

/// A work tree and the bare repository that it is pushed to.
pub(crate) struct Repository {
    work: PathBuf,
    bare: PathBuf,
}

impl Repository {
    /// Makes both below `folder`. `project` is the pipeline's name.
    pub(crate) async fn create(
        folder: &Path,
        engine: &Engine,
        project: &str,
        megabytes: usize,
    ) -> anyhow::Result<Self> {
        let (work, bare) = (folder.join("work"), folder.join("bare.git"));
        fs::create_dir_all(&work)?;
        fs::create_dir_all(&bare)?;
        git(
            &bare,
            &["init", "--quiet", "--bare", "--initial-branch=main"],
        )
        .await?;
        git(&work, &["init", "--quiet", "--initial-branch=main"]).await?;
        let address = bare.display().to_string();
        git(&work, &["remote", "add", "origin", &address]).await?;
        let files = work.join("vendor");
        let bytes = megabytes * 1_000_000;
        tokio::task::spawn_blocking(move || write_files(&files, bytes)).await??;
        fs::create_dir_all(work.join("src"))?;
        fs::write(work.join("src/main.sh"), "#!/bin/sh\ncat version\n")?;
        fs::write(work.join("src/version"), version())?;
        fs::write(work.join("Dockerfile"), engine.dockerfile())?;
        fs::create_dir_all(work.join(".roadstead"))?;
        fs::write(
            work.join(".roadstead/pipeline.yml"),
            format!(
                "version: 1\nname: {project}\ntrigger:\n  push: {{ branches: [main] }}\n\
                 images:\n  app: {{ repository: {project} }}\nsteps:\n  image:\n    build: [app]\n"
            ),
        )?;
        Ok(Self { work, bare })
    }

    /// The bare repository's folder.
    pub(crate) fn address(&self) -> &Path {
        &self.bare
    }

    /// Sets what every push starts: a mark whose time is the turn's beginning, then `lines`, which
    /// find the new commit in `$new`.
    pub(crate) fn hook(&self, lines: &str) -> anyhow::Result<()> {
        let hook = self.bare.join("hooks/post-receive");
        let mark = self.mark();
        fs::write(
            &hook,
            format!(
                "#!/bin/sh\n: >'{}'\nread -r old new ref\n{lines}\n",
                mark.display()
            ),
        )?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    fn mark(&self) -> PathBuf {
        self.bare.join("pushed")
    }

    /// When the last push started its hook.
    pub(crate) fn triggered(&self) -> anyhow::Result<SystemTime> {
        let mark = fs::metadata(self.mark()).context("the hook left no mark")?;
        Ok(mark.modified()?)
    }

    /// Changes the one small file.
    pub(crate) fn change(&self) -> anyhow::Result<()> {
        fs::write(self.work.join("src/version"), version())?;
        Ok(())
    }

    /// Commits everything and gives the commit.
    pub(crate) async fn commit(&self) -> anyhow::Result<String> {
        git(&self.work, &["add", "--all"]).await?;
        git(&self.work, &["commit", "--quiet", "-m", "Go on"]).await?;
        git(&self.work, &["rev-parse", "HEAD"]).await
    }

    /// Pushes; the hook has run when this returns.
    pub(crate) async fn push(&self) -> anyhow::Result<()> {
        git(&self.work, &["push", "--quiet", "origin", "main"]).await?;
        Ok(())
    }
}

fn version() -> String {
    format!("{:032x}\n", rand::random::<u128>())
}

fn write_files(folder: &Path, bytes: usize) -> anyhow::Result<()> {
    let size = LARGEST_FILE.min(bytes / FEWEST_FILES);
    let mut content = vec![0; size];
    for number in 0..bytes / size {
        rand::rng().fill_bytes(&mut content);
        let ending = if number % 2 == 0 {
            "bin"
        } else {
            for byte in &mut content {
                *byte = LETTERS[usize::from(*byte & 15)];
            }
            "txt"
        };
        let below = folder.join(format!("{:02}", number % 20));
        fs::create_dir_all(&below)?;
        fs::write(below.join(format!("{number:05}.{ending}")), &content)?;
    }
    Ok(())
}

async fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Maya", "-c", "user.email=maya@shop.example"])
        .args(["-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .await
        .context("git is missing: run `make setup`")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
