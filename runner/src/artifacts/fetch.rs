//! Brings what steps of earlier jobs left into a workspace.
//!
//! A file arrives beside its place under a name of its own, is compared with length and SHA-256 that were told, and
//! takes its place whole. Both sides are hostile: names are checked before they are paths, and steps that run meanwhile
//! can put links where folders are; everything is opened beneath the workspace ([`cap_std`]), no link is walked
//! through, and one at the end of a path is replaced and not followed.

use super::{PIECE, shelf::Shelf};
use crate::{
    client::{AttemptClient, Backoff, CallError, RESULT_PATIENCE},
    logs::StepLog,
};
use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions, OpenOptionsExt},
};
use futures_util::StreamExt;
use roadstead_protocol::{
    ArtifactOffered, LARGEST_ARTIFACT, MOST_ARTIFACT_BYTES, MOST_FETCHED_ARTIFACTS,
    check_artifact_name,
};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

/// Who has them.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A server.
    Server(&'a AttemptClient),
    /// A folder of this machine.
    Shelf(&'a Shelf),
}

/// Why a step cannot have them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Another attempt would meet it again: it is the file's fault.
    Step(String),
    /// It may go better another time.
    Runner(String),
}

impl Trouble {
    fn step(why: impl Into<String>) -> Self {
        Self::Step(why.into())
    }
}

/// Brings everything that `step` gets of the steps `from`, and says in the log what came.
///
/// # Errors
/// Why it is not all there.
pub(crate) async fn bring(
    workspace: &Path,
    step: &str,
    from: &[String],
    source: Source<'_>,
    log: &StepLog,
) -> Result<(), Trouble> {
    let offered = match source {
        Source::Server(client) => asked(client, step).await?,
        Source::Shelf(shelf) => shelf.offered(from).map_err(|error| {
            Trouble::Runner(format!(
                "the artifacts of earlier jobs cannot be read: {error}"
            ))
        })?,
    };
    check(&offered, from)?;
    let folder = Dir::open_ambient_dir(workspace, ambient_authority());
    let folder = Arc::new(folder.map_err(|error| Trouble::Runner(error.to_string()))?);
    for artifact in &offered {
        match source {
            Source::Server(client) => download(client, step, &folder, artifact).await?,
            Source::Shelf(shelf) => {
                let file = shelf.open(&artifact.step, &artifact.name);
                let file = file.map_err(|error| Trouble::Runner(error.to_string()))?;
                copy(&folder, artifact, file).await?;
            }
        }
    }
    for name in from {
        let its = offered.iter().filter(|it| it.step == *name);
        let (files, bytes) = its.fold((0, 0), |(files, bytes), it| (files + 1, bytes + it.length));
        let line = match files {
            0 => format!("artifacts: step {name} has left none"),
            files => format!("artifacts: {files} files of step {name}, {bytes} bytes"),
        };
        // A log that cannot take this line shows when it is closed.
        let _ = log.line(&line).await;
    }
    Ok(())
}

/// Asks until the server answers.
async fn asked(client: &AttemptClient, step: &str) -> Result<Vec<ArtifactOffered>, Trouble> {
    let mut backoff = Backoff::new(RESULT_PATIENCE);
    loop {
        match client.artifacts_for(step).await {
            Ok(offered) => return Ok(offered.artifacts),
            Err(error) => wait(&mut backoff, error).await?,
        }
    }
}

/// Waits when another try may help.
async fn wait(backoff: &mut Backoff, error: CallError) -> Result<(), Trouble> {
    if error.is_transient()
        && let Some(pause) = backoff.next_pause_after(&error)
    {
        tokio::time::sleep(pause).await;
        return Ok(());
    }
    let why = format!("the artifacts of earlier jobs did not come: {error}");
    Err(match error {
        CallError::Refused { .. } => Trouble::Step(why),
        _ => Trouble::Runner(why),
    })
}

/// Whether what is offered can be taken: plain paths, of steps that were named, each path once, within the limits.
fn check(offered: &[ArtifactOffered], from: &[String]) -> Result<(), Trouble> {
    if offered.len() > MOST_FETCHED_ARTIFACTS {
        let files = offered.len();
        return Err(Trouble::step(format!(
            "{files} artifacts of earlier jobs are too many: a step gets at most {MOST_FETCHED_ARTIFACTS}"
        )));
    }
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    let mut bytes = 0_u64;
    for ArtifactOffered {
        step, name, length, ..
    } in offered
    {
        let shown = name.escape_debug();
        if let Err(why) = check_artifact_name(name) {
            return Err(Trouble::step(format!(
                "artifact `{shown}` of step {step} {why}"
            )));
        }
        if !from.contains(step) {
            let why =
                format!("the server offers `{shown}` of step {step}, which was not asked for");
            return Err(Trouble::Runner(why));
        }
        if *length > LARGEST_ARTIFACT {
            let why = format!(
                "artifact `{shown}` of step {step} has {length} bytes, at most {LARGEST_ARTIFACT} come"
            );
            return Err(Trouble::Step(why));
        }
        bytes = bytes.saturating_add(*length);
        if let Some(other) = places.insert(name, step) {
            return Err(Trouble::step(format!(
                "steps {other} and {step} have both left `{shown}`: give one of them another name, or take one alone"
            )));
        }
    }
    if bytes > MOST_ARTIFACT_BYTES {
        return Err(Trouble::step(format!(
            "the artifacts of earlier jobs have {bytes} bytes: a step gets at most {MOST_ARTIFACT_BYTES}"
        )));
    }
    Ok(())
}

async fn download(
    client: &AttemptClient,
    step: &str,
    folder: &Arc<Dir>,
    artifact: &ArtifactOffered,
) -> Result<(), Trouble> {
    let mut backoff = Backoff::new(RESULT_PATIENCE);
    loop {
        let mut arriving = begin(folder, artifact).await?;
        let broken = match client.artifact(step, artifact).await {
            Err(error) => error,
            Ok(response) => {
                let mut pieces = response.bytes_stream();
                loop {
                    match pieces.next().await {
                        Some(Ok(bytes)) => arriving = arriving.write(bytes.to_vec()).await?,
                        Some(Err(error)) => {
                            break CallError::Unreachable(error.without_url().to_string());
                        }
                        None if arriving.length < artifact.length => {
                            break CallError::Unreachable("the bytes broke off".to_owned());
                        }
                        None => return arriving.put().await,
                    }
                }
            }
        };
        drop(arriving);
        wait(&mut backoff, broken).await?;
    }
}

/// Takes a file of this machine.
async fn copy(
    folder: &Arc<Dir>,
    artifact: &ArtifactOffered,
    mut file: File,
) -> Result<(), Trouble> {
    let mut arriving = begin(folder, artifact).await?;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece)?;
            piece.truncate(read);
            io::Result::Ok((file, piece))
        });
        let read = read.await.map_err(io::Error::other).flatten();
        let (rest, piece) = read.map_err(|error| Trouble::Runner(error.to_string()))?;
        if piece.is_empty() {
            return arriving.put().await;
        }
        file = rest;
        arriving = arriving.write(piece).await?;
    }
}

/// A file whose bytes are coming, under a name that nobody looks for.
struct Arriving {
    artifact: ArtifactOffered,
    folder: Dir,
    temporary: String,
    last: String,
    file: Option<cap_std::fs::File>,
    sum: Sha256,
    length: u64,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = self.folder.remove_file(&self.temporary);
        }
    }
}

async fn begin(root: &Arc<Dir>, artifact: &ArtifactOffered) -> Result<Arriving, Trouble> {
    let (root, artifact) = (Arc::clone(root), artifact.clone());
    let shown = artifact.name.clone();
    let begun = tokio::task::spawn_blocking(move || {
        let (above, last) = match artifact.name.rsplit_once('/') {
            Some((above, last)) => (Some(above.to_owned()), last.to_owned()),
            None => (None, artifact.name.clone()),
        };
        let folder = walk(&root, above.as_deref())?;
        let temporary = format!(".roadstead-{:016x}", rand::random::<u64>());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let file = folder.open_with(&temporary, &options)?;
        io::Result::Ok(Arriving {
            artifact,
            folder,
            temporary,
            last,
            file: Some(file),
            sum: Sha256::new(),
            length: 0,
        })
    });
    let begun = begun.await.map_err(io::Error::other).flatten();
    begun.map_err(|error| not_placed(&shown, &error))
}

fn not_placed(name: &str, error: &io::Error) -> Trouble {
    let shown = name.escape_debug();
    Trouble::step(format!("`{shown}` has no place in the workspace: {error}"))
}

/// The folder at `path`, made where it is missing; through no link.
pub(crate) fn walk(root: &Dir, path: Option<&str>) -> io::Result<Dir> {
    let mut folder = root.try_clone()?;
    for part in path.into_iter().flat_map(|path| path.split('/')) {
        match folder.create_dir(part) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        folder = folder_in(&folder, part).map_err(|error| {
            io::Error::new(error.kind(), format!("`{part}` on its way is no folder"))
        })?;
    }
    Ok(folder)
}

/// The folder of that name in another one; not what a link leads to.
pub(crate) fn folder_in(folder: &Dir, name: impl AsRef<Path>) -> io::Result<Dir> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    options.read(true).custom_flags(flags.bits().cast_signed());
    let opened = folder.open_with(name, &options)?;
    Ok(Dir::from_std_file(opened.into_std()))
}

impl Arriving {
    async fn write(mut self, bytes: Vec<u8>) -> Result<Self, Trouble> {
        let name = self.artifact.name.clone();
        let written = tokio::task::spawn_blocking(move || {
            self.length += bytes.len() as u64;
            if self.length > self.artifact.length {
                return Err(io::Error::other("more bytes came than were told"));
            }
            self.sum.update(&bytes);
            if let Some(file) = &mut self.file {
                file.write_all(&bytes)?;
            }
            Ok(self)
        });
        let written = written.await.map_err(io::Error::other).flatten();
        written.map_err(|error| {
            Trouble::Runner(format!(
                "`{}` cannot be written: {error}",
                name.escape_debug()
            ))
        })
    }

    /// Puts it in its place, whatever file or link was there.
    async fn put(mut self) -> Result<(), Trouble> {
        let sum = hex::encode(self.sum.clone().finalize());
        let shown = self.artifact.name.escape_debug().to_string();
        if self.length != self.artifact.length || sum != self.artifact.sha256 {
            let why = format!(
                "`{shown}` of step {} came with other bytes than were kept",
                self.artifact.step
            );
            return Err(Trouble::Runner(why));
        }
        let put = tokio::task::spawn_blocking(move || {
            self.folder
                .rename(&self.temporary, &self.folder, &self.last)?;
            // It has its place: dropping this does not remove it.
            drop(self.file.take());
            io::Result::Ok(())
        });
        let put = put.await.map_err(io::Error::other).flatten();
        put.map_err(|error| not_placed(&shown, &error))
    }
}

#[cfg(test)]
mod tests;
