//! The disk of the servers: a file system of its own in a file, which can be full. Needs root, to mount it.

use crate::parts::{PATIENCE, until};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// How large it is: enough for what a run keeps, and little to fill.
const SIZE: &str = "1G";
/// The file that leaves no room.
const FILLER: &str = "filler";

/// A mounted file system.
pub(crate) struct Disk {
    /// Where it is mounted.
    pub(crate) folder: PathBuf,
}

async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

impl Disk {
    /// Makes and mounts an empty one in a folder.
    pub(crate) async fn mount(folder: &Path) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("a disk that gets full has to be mounted, which root alone may");
        }
        let image = folder.join("disk.img").display().to_string();
        let folder = folder.join("disk");
        std::fs::create_dir(&folder)?;
        run("truncate", &["--size", SIZE, &image]).await?;
        // Nothing is kept back for root, as whom the servers run here.
        run("mkfs.ext4", &["-q", "-m", "0", &image]).await?;
        let place = folder.display().to_string();
        run("mount", &["-o", "loop", &image, &place]).await?;
        Ok(Self { folder })
    }

    /// Takes all the room that there is; whether there was some to take.
    pub(crate) fn fill(&self) -> anyhow::Result<bool> {
        if self.folder.join(FILLER).exists() {
            return Ok(false);
        }
        let free = rustix::fs::statvfs(&self.folder)?;
        let file = std::fs::File::create(self.folder.join(FILLER))?;
        // Servers write meanwhile, so that the last blocks may be gone before they are taken.
        for kept in [0, 16, 256, 1_024] {
            let bytes = free.f_bavail.saturating_sub(kept) * free.f_frsize;
            let flags = rustix::fs::FallocateFlags::empty();
            if bytes == 0 || rustix::fs::fallocate(&file, flags, 0, bytes).is_ok() {
                return Ok(true);
            }
        }
        bail!("the disk cannot be filled")
    }

    /// Gives it back.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.folder.join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Unmounts it, once nobody has it in use; what it holds stays in its file. One that is dropped mounted, as by
    /// a run that could not begin, is unmounted as soon as nobody has it in use.
    pub(crate) async fn unmount(&self) -> anyhow::Result<()> {
        let folder = self.folder.display().to_string();
        until("the disk to be free", PATIENCE, async || {
            Ok(run("umount", &[&folder]).await.ok())
        })
        .await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        umount.arg("--lazy").arg(&self.folder);
        // One that is unmounted already is not mounted.
        drop(umount.stderr(std::process::Stdio::null()).status());
    }
}
