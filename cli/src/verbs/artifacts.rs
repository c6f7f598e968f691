//! `artifacts`: the files that a run's steps left to be kept.
//!
//! What they are called comes from a step, so names are checked here as well, and files are made beneath the given
//! folder only.

use super::{client, list, show, text};
use crate::client::{Client, ServerArgs};
use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use clap::Args;
use roadstead_protocol::check_artifact_name;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct ArtifactsArgs {
    /// The run's id.
    run: String,
    /// Only those of this step.
    #[arg(long)]
    step: Option<String>,
    /// Those of this attempt [default: the newest].
    #[arg(long)]
    attempt: Option<u32>,
    /// Saves them in this folder, those of each step in a folder of its name. It is made when missing; a file that is
    /// there is not replaced.
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn artifacts(args: ArtifactsArgs) -> anyhow::Result<()> {
    let client = client(&args.server)?;
    let attempt = args.attempt.map(|number| format!("?attempt={number}"));
    let path = format!(
        "/runs/{}/artifacts{}",
        args.run,
        attempt.unwrap_or_default()
    );
    let mut found = client.get(&path).await?;
    if let (Some(step), Some(all)) = (&args.step, found["artifacts"].as_array_mut()) {
        all.retain(|artifact| artifact["step"] == step.as_str());
    }
    if let Some(folder) = &args.save {
        save(&client, &found, folder).await?;
    }
    show(&args.server, &found, |found| list(found, "artifacts", line))
}

fn line(artifact: &Value) -> String {
    let bytes = artifact["length"].as_u64().unwrap_or_default();
    let sum = text(&artifact["sha256"]).get(..12).unwrap_or("-");
    // Somebody else named it, and a terminal obeys what it is sent.
    let name = text(&artifact["name"]).escape_debug();
    format!("{:<16} {bytes:>12}  {sum}  {name}", text(&artifact["step"]))
}

async fn save(client: &Client, found: &Value, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = Dir::open_ambient_dir(folder, ambient_authority())
        .with_context(|| format!("cannot use {}", folder.display()))?;
    for artifact in found["artifacts"].as_array().into_iter().flatten() {
        let (run, step, name) = (
            &found["run"],
            text(&artifact["step"]),
            text(&artifact["name"]),
        );
        let path = format!("{step}/{name}");
        if let Err(why) = check_artifact_name(&path) {
            bail!("`{}` {why}: it is not saved", path.escape_debug());
        }
        let attempt = u32::try_from(artifact["attempt"].as_u64().unwrap_or_default())?;
        let address = roadstead_web::urls::artifact(text(run), step, attempt, name);
        fetch(client, &address, artifact, (&folder, &path))
            .await
            .with_context(|| format!("cannot save `{path}`"))?;
    }
    Ok(())
}

async fn fetch(
    client: &Client,
    address: &str,
    artifact: &Value,
    (folder, path): (&Dir, &str),
) -> anyhow::Result<()> {
    if let Some((above, _)) = path.rsplit_once('/') {
        folder.create_dir_all(above)?;
    }
    let mut options = cap_std::fs::OpenOptions::new();
    let mut file = folder.open_with(path, options.write(true).create_new(true))?;
    let mut answer = client.stream(address).await?;
    let mut sum = Sha256::new();
    while let Some(piece) = answer.chunk().await? {
        file.write_all(&piece)?;
        sum.update(&piece);
    }
    if artifact["sha256"] != hex::encode(sum.finalize()) {
        bail!("what came has another checksum than was told");
    }
    Ok(())
}
