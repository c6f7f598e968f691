//! What steps leave for later jobs of a run on this machine: files of a folder, gone with the run.
//!
//! Only steps that a later one names are kept. Nothing that runs in a container sees the folder.

use crate::state::make_private;
use anyhow::Context;
use roadstead_protocol::ArtifactOffered;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The folder, and whose files come into it. It is one run's as long as this lives.
#[derive(Debug, Clone)]
pub struct Shelf {
    folder: PathBuf,
    steps: BTreeSet<String>,
    /// Locked; the system unlocks it when the process dies.
    _lock: Arc<File>,
}

impl Shelf {
    /// Takes the folder `artifacts` of a data folder for what `steps` leave, and removes what a run left there that was
    /// killed.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn take(data: &Path, steps: BTreeSet<String>) -> anyhow::Result<Self> {
        make_private(data)?;
        let lock = File::create(data.join("artifacts.lock"))?;
        lock.try_lock()
            .context("this working tree is run by another process already")?;
        let shelf = Self {
            folder: data.join("artifacts"),
            steps,
            _lock: Arc::new(lock),
        };
        shelf.clear()?;
        Ok(shelf)
    }

    /// Whether a later step gets what this one leaves.
    pub(crate) fn wants(&self, step: &str) -> bool {
        self.steps.contains(step)
    }

    /// Keeps the first `length` bytes of a file. The name has passed
    /// [`check_artifact_name`](roadstead_protocol::check_artifact_name).
    pub(crate) fn keep(&self, step: &str, name: &str, file: File, length: u64) -> io::Result<()> {
        let path = self.folder.join(step).join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let copied = io::copy(&mut file.take(length), &mut File::create(path)?)?;
        if copied < length {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        Ok(())
    }

    /// What these steps have left, by step and name.
    pub(crate) fn offered(&self, from: &[String]) -> io::Result<Vec<ArtifactOffered>> {
        let mut found = vec![];
        for step in from {
            let root = self.folder.join(step);
            if root.is_dir() {
                look(&root, &root, step, &mut found)?;
            }
        }
        Ok(found)
    }

    pub(crate) fn open(&self, step: &str, name: &str) -> io::Result<File> {
        File::open(self.folder.join(step).join(name))
    }

    /// Removes all of it, if there is anything.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn look(
    root: &Path,
    folder: &Path,
    step: &str,
    found: &mut Vec<ArtifactOffered>,
) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            look(root, &path, step, found)?;
            continue;
        }
        let mut file = File::open(&path)?;
        let (length, sha256) = super::sum_of(&mut file, u64::MAX)?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        found.push(ArtifactOffered {
            step: step.to_owned(),
            name: name.to_string_lossy().into_owned(),
            length,
            sha256,
        });
    }
    Ok(())
}
