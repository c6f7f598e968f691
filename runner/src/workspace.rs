//! An attempt's own folder of files, made for it and removed after it.
//!
//! Owns the folder `workspaces/` of the runner's data; one folder per attempt, never shared.

use anyhow::Context;
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// All workspaces of this runner.
#[derive(Debug, Clone)]
pub(crate) struct Workspaces(PathBuf);

impl Workspaces {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Makes an empty folder for `attempt`; leftovers of the same name are removed first.
    pub(crate) async fn create(&self, attempt: &str) -> anyhow::Result<PathBuf> {
        self.remove(attempt).await?;
        let path = self.path(attempt);
        let made = path.clone();
        blocking(move || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&made)
                .with_context(|| format!("cannot make the workspace {}", made.display()))
        })
        .await?;
        Ok(path)
    }

    /// Where the attempt's folder is.
    pub(crate) fn path(&self, attempt: &str) -> PathBuf {
        self.0.join(attempt)
    }

    /// Removes the attempt's folder, if there is one.
    pub(crate) async fn remove(&self, attempt: &str) -> anyhow::Result<()> {
        let path = self.path(attempt);
        blocking(move || remove(&path)).await
    }

    /// Removes every folder; only while nothing runs.
    pub(crate) async fn remove_all(&self) -> anyhow::Result<()> {
        let path = self.0.clone();
        blocking(move || remove(&path)).await
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot remove the workspace {} (files that a container wrote belong to that \
                 container's user: run the runner as root, or steps as the runner's user)",
                path.display()
            )
        }),
    }
}

async fn blocking(
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a thread that handles workspaces panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_workspace_begins_empty_and_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::new(data.path().join("workspaces"));
        let path = workspaces.create("shop.1.a1").await.unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let again = workspaces.create("shop.1.a1").await.unwrap();
        assert_eq!(path, again);
        assert!(fs::read_dir(&again).unwrap().next().is_none());
        workspaces.remove("shop.1.a1").await.unwrap();
        workspaces.remove("shop.1.a1").await.unwrap();
        assert!(!path.exists());
        workspaces.create("shop.2.a1").await.unwrap();
        workspaces.remove_all().await.unwrap();
        assert!(!data.path().join("workspaces").exists());
    }
}
