//! The image that the shop's image and its test step stand on: one static busybox, nothing pulled.

use anyhow::{Context, bail};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Builds it and gives its name.
pub(crate) async fn build(data: &Path) -> anyhow::Result<String> {
    let folder = data.join("base");
    fs::create_dir_all(&folder)?;
    fs::copy("/bin/busybox", folder.join("busybox"))
        .context("a static busybox is missing: run `make setup`")?;
    fs::write(
        folder.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n",
    )?;
    let name = format!("roadstead-demo-base:{}", std::process::id());
    let output = Command::new("docker")
        .args(["build", "--quiet", "--tag", &name, "."])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .await
        .context("docker is missing: run `make setup`")?;
    if !output.status.success() {
        bail!(
            "the base image does not build: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(name)
}

/// Removes it.
pub(crate) async fn remove(name: &str) {
    let removed = Command::new("docker")
        .args(["image", "rm", "--force", name])
        .stdin(Stdio::null())
        .output()
        .await;
    // What stays behind is an image of 2 MB; the story's outcome does not hang on it.
    drop(removed);
}
