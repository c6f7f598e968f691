//! What the story made on this machine, and how that goes again: after its end, and also when it was
//! broken off at whatever moment.

use super::crew::Crew;
use super::scene::Scene;
use super::{base_image, docker};
use crate::children::until;
use crate::own_files;
use anyhow::Context;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long a sandbox that was killed may take until its folder is free.
const LET_GO: Duration = Duration::from_secs(10);
/// Repositories that the story pushes to.
const REPOSITORIES: [&str; 2] = ["placeholder", "shop"];

/// Where the story keeps its files.
pub(super) struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
    /// No sandbox was there before, so nobody misses the one that the story leaves.
    own_sandbox: bool,
}

impl Folder {
    /// The given folder, or a new one below the system's for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn make(given: Option<&Path>) -> anyhow::Result<Self> {
        let (path, temporary) = match given {
            Some(path) => {
                own_files::folder(path)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                (path.to_owned(), None)
            }
            None => {
                let made = temporary("roadstead-demo-")?;
                (made.path().to_owned(), Some(made))
            }
        };
        let path = path.canonicalize()?;
        let own_sandbox = !path.join("sandbox").exists();
        Ok(Self {
            path,
            temporary,
            own_sandbox,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, and says where that is.
    pub(super) fn keep(self) {
        if let Some(temporary) = self.temporary {
            eprintln!("logs are in {}", temporary.keep().display());
        }
    }

    /// Removes it if it is a temporary one.
    pub(super) fn remove(self) {
        if let Some(Err(error)) = self.temporary.map(TempDir::close) {
            eprintln!("{error}");
        }
    }
}

/// A new folder with a name that nobody can guess, which only its owner may look into. Dropping it
/// removes it.
///
/// # Errors
/// When the system's folder for temporary files cannot be written to.
pub(super) fn temporary(prefix: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("cannot make a temporary folder")
}

/// What the story made so far.
#[derive(Default)]
pub(super) struct Made {
    /// The base image's name.
    pub(super) base: Option<String>,
    /// Where the sandbox's registry listens, once the parts were started.
    pub(super) registry: Option<SocketAddr>,
    pub(super) scene: Option<Scene>,
    pub(super) crew: Option<Crew>,
}

impl Made {
    /// Ends the parts and removes what the story left in Docker Engine. Says what stays; true when
    /// nothing does.
    pub(super) async fn take_down(&mut self, folder: &Folder) -> bool {
        let mut left = vec![];
        let mut put_away = Ok(());
        if let Some(crew) = &mut self.crew {
            if let Some(scene) = &self.scene {
                put_away = scene.put_away(crew).await;
            }
            crew.dismiss().await;
        }
        let sandbox = folder.path.join("sandbox");
        let ended = if folder.own_sandbox {
            purge(&sandbox).await
        } else {
            // Somebody's own tasks may run in it.
            put_away
        };
        if let Err(error) = ended {
            left.push(error.context(format!(
                "tasks of the sandbox may still run (`roadstead sandbox --purge --data {}` ends them)",
                sandbox.display()
            )));
        }
        left.extend(remove_runners(folder).await.err());
        if let Some(registry) = self.registry {
            for repository in REPOSITORIES {
                let images = docker::remove_images(&format!("{registry}/{repository}")).await;
                left.extend(images.err());
            }
        }
        if let Some(base) = &self.base {
            base_image::remove(base).await;
        }
        for error in &left {
            eprintln!("{error:#}");
        }
        left.is_empty()
    }
}

/// Removes what the sandbox left.
async fn purge(sandbox: &Path) -> anyhow::Result<()> {
    let mut failed = None;
    let purged = until(
        "the sandbox's end",
        LET_GO,
        async || match roadstead_sandbox::purge(sandbox).await {
            Ok(_) => Ok(Some(())),
            Err(error) => {
                failed = Some(error);
                Ok(None)
            }
        },
    )
    .await;
    purged.map_err(|late| failed.unwrap_or(late))
}

/// Removes what the runner left; one that ended by itself left nothing.
async fn remove_runners(folder: &Folder) -> anyhow::Result<()> {
    let Some(label) = roadstead_runner::label(&folder.path.join("runner"))? else {
        return Ok(());
    };
    docker::remove_labelled(&label).await
}
