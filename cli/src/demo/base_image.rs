//! The image that the shop's image and its test step stand on: one static busybox, nothing pulled.

use super::docker::docker;
use crate::own_files;
use anyhow::Context;
use std::fs;
use std::path::Path;

/// The name that this process gives to it.
pub(super) fn name() -> String {
    format!("roadstead-demo-base:{}", std::process::id())
}

/// Builds it.
///
/// # Errors
/// When there is no static busybox, or Docker Engine does not build.
pub(super) async fn build(data: &Path, name: &str) -> anyhow::Result<()> {
    let folder = data.join("base");
    own_files::folder(&folder)?;
    fs::copy("/bin/busybox", folder.join("busybox"))
        .context("a static busybox is missing: run `make setup`")?;
    fs::write(
        folder.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n",
    )?;
    let folder = folder.display().to_string();
    docker(&["build", "--quiet", "--tag", name, &folder])
        .await
        .context("the base image does not build")?;
    Ok(())
}

/// Removes it.
pub(super) async fn remove(name: &str) {
    // What stays behind is an image of 2 MB; the story's outcome does not hang on it.
    drop(docker(&["image", "rm", "--force", name]).await);
}
