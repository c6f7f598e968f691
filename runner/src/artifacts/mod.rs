//! Sends the files that a step left to be kept.
//!
//! Owns which files those are, and that each arrives as it was at one moment or not at all. A step is hostile: it can
//! put links and pipes where its files are, also while they are looked for and read. Everything is opened beneath
//! the workspace ([`cap_std`]), a link at the end of a path is never followed, and a pipe never waited for. What
//! is left out is told in the step's log.

pub(crate) mod fetch;
pub(crate) mod find;
pub(crate) mod shelf;

use crate::{
    client::{AttemptClient, Backoff, CallError, RESULT_PATIENCE},
    logs::StepLog,
};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use find::Found;
use reqwest::StatusCode;
use roadstead_protocol::{ArtifactSent, LARGEST_ARTIFACT, MOST_ARTIFACT_BYTES, MOST_ARTIFACTS};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use shelf::Shelf;
use std::{
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    sync::Arc,
};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

/// Bytes of a file that are read at once: 128 KiB.
const PIECE: usize = 128 << 10;
/// How often a file is read again that was written to while it was read.
const MOST_READINGS: u32 = 3;

/// Who keeps files.
#[derive(Clone, Copy)]
pub(crate) enum Keeper<'a> {
    /// A server.
    Server(&'a AttemptClient),
    /// A folder of this machine, for later jobs.
    Shelf(&'a Shelf),
}

/// Has the files of `workspace` kept that `patterns` name, and says in the log what became of them. Without a
/// `keeper` it says only that nobody keeps them.
///
/// # Errors
/// Why some of them are not kept, for a person.
pub(crate) async fn keep(
    workspace: &Path,
    step: &str,
    patterns: &[String],
    keeper: Option<Keeper<'_>>,
    log: &StepLog,
) -> Result<(), String> {
    let said = async |line: String| {
        // A log that cannot take this line shows when it is closed.
        let _ = log.line(&line).await;
    };
    let found = match search(workspace, patterns).await {
        Ok(found) => found,
        Err(error) => {
            let reason = format!("the artifacts could not be looked for: {error}");
            said(reason.clone()).await;
            return Err(reason);
        }
    };
    if found.files.is_empty() && found.trouble.is_empty() {
        said(format!("artifacts: {}", found.nothing(patterns))).await;
        return Ok(());
    }
    let Some(keeper) = keeper else {
        let files = found.files.len();
        said(format!(
            "artifacts: {files} files, which a run on this machine leaves out"
        ))
        .await;
        return Ok(());
    };
    let (mut files, mut bytes, mut trouble) = (0_usize, 0_u64, 0_usize);
    for line in found.trouble {
        trouble += 1;
        said(format!("artifacts: {line}")).await;
    }
    let folder = Arc::new(found.folder);
    for name in found.files {
        let kept = Kept { files, bytes };
        let sent = match keeper {
            Keeper::Server(client) => send(client, step, &folder, &name, kept).await,
            Keeper::Shelf(shelf) => put(shelf, step, &folder, &name, kept).await,
        };
        match sent {
            Ok(length) => {
                files += 1;
                bytes += length;
            }
            Err(Left::Out(why)) => {
                trouble += 1;
                said(format!("artifacts: `{name}` {why}")).await;
            }
            Err(Left::All(why)) => {
                said(format!("artifacts: {why}")).await;
                return Err(format!("its artifacts are not kept: {why}"));
            }
        }
    }
    said(format!("artifacts: {files} files kept, {bytes} bytes")).await;
    if trouble > 0 {
        return Err(format!(
            "{trouble} of its artifacts are not kept; its log says why"
        ));
    }
    Ok(())
}

async fn search(workspace: &Path, patterns: &[String]) -> io::Result<Found> {
    let (workspace, patterns) = (workspace.to_owned(), patterns.to_vec());
    tokio::task::spawn_blocking(move || find::find(&workspace, &patterns))
        .await
        .map_err(io::Error::other)?
}

/// What the step keeps already.
#[derive(Clone, Copy)]
struct Kept {
    files: usize,
    bytes: u64,
}

/// Why a file is not kept.
enum Left {
    /// This one; the words follow on its name.
    Out(String),
    /// Neither this one nor those that follow.
    All(String),
}

/// Sends one file; gives its length.
async fn send(
    keeper: &AttemptClient,
    step: &str,
    folder: &Arc<Dir>,
    name: &str,
    kept: Kept,
) -> Result<u64, Left> {
    let mut backoff = Backoff::new(RESULT_PATIENCE);
    let mut readings = 0;
    loop {
        readings += 1;
        let Some(read) = read(folder, name).await? else {
            // A folder or a link by now.
            return Err(Left::Out("is no regular file any more".into()));
        };
        fits(read.length, kept)?;
        let sent = ArtifactSent {
            fence: keeper.fence(),
            name: name.to_owned(),
            length: read.length,
            sha256: read.sha256,
        };
        let file = tokio::fs::File::from_std(read.file).take(read.length);
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, PIECE));
        let changed = match keeper.put_artifact(step, &sent, body).await {
            Ok(()) => return Ok(read.length),
            Err(CallError::Refused { status, .. })
                if status == StatusCode::UNPROCESSABLE_ENTITY =>
            {
                true
            }
            Err(CallError::Refused { message, .. }) => {
                return Err(Left::Out(format!("is not kept: {message}")));
            }
            Err(error) if error.is_transient() => {
                let shrunk = is_shorter(folder, name, read.length).await;
                if !shrunk {
                    let Some(pause) = backoff.next_pause_after(&error) else {
                        return Err(Left::All(error.to_string()));
                    };
                    tokio::time::sleep(pause).await;
                    readings = 0;
                }
                shrunk
            }
            Err(error) => return Err(Left::All(error.to_string())),
        };
        if changed && readings >= MOST_READINGS {
            return Err(Left::Out("was written to while it was read".into()));
        }
    }
}

/// Puts one file on the shelf; gives its length.
async fn put(
    shelf: &Shelf,
    step: &str,
    folder: &Arc<Dir>,
    name: &str,
    kept: Kept,
) -> Result<u64, Left> {
    let Some(read) = read(folder, name).await? else {
        return Err(Left::Out("is no regular file any more".into()));
    };
    fits(read.length, kept)?;
    let (shelf, step, name) = (shelf.clone(), step.to_owned(), name.to_owned());
    let put = tokio::task::spawn_blocking(move || {
        shelf.keep(&step, &name, read.file, read.length)?;
        io::Result::Ok(read.length)
    });
    let put = put.await.map_err(io::Error::other).flatten();
    put.map_err(|error| Left::Out(format!("is not kept: {error}")))
}

fn fits(length: u64, kept: Kept) -> Result<(), Left> {
    let why = if length > LARGEST_ARTIFACT {
        format!("has {length} bytes; a file that is kept has at most {LARGEST_ARTIFACT}")
    } else if kept.files >= MOST_ARTIFACTS {
        format!("is one too many: a step keeps at most {MOST_ARTIFACTS} files")
    } else if kept.bytes + length > MOST_ARTIFACT_BYTES {
        format!("does not fit: a step keeps at most {MOST_ARTIFACT_BYTES} bytes")
    } else {
        return Ok(());
    };
    Err(Left::Out(why))
}

/// A file as it was read once: so many of its bytes have this sum.
struct AsItWas {
    file: File,
    length: u64,
    sha256: String,
}

/// Reads a regular file as far as it goes now; what is added meanwhile does not count. `None` when it is not
/// a regular file.
async fn read(folder: &Arc<Dir>, name: &str) -> Result<Option<AsItWas>, Left> {
    let (folder, path) = (Arc::clone(folder), name.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let Some(mut file) = open(&folder, &path)? else {
            return Ok(None);
        };
        let most = file.metadata()?.len();
        // What is too large is told by its size alone.
        let (length, sha256) = if most > LARGEST_ARTIFACT {
            (most, String::new())
        } else {
            sum_of(&mut file, most)?
        };
        io::Result::Ok(Some(AsItWas {
            file,
            length,
            sha256,
        }))
    });
    let read = read.await.map_err(io::Error::other).flatten();
    read.map_err(|error| Left::Out(format!("cannot be read: {error}")))
}

/// Length and SHA-256 of the first `most` bytes of a file, which stands at its beginning again.
pub(crate) fn sum_of(file: &mut File, most: u64) -> io::Result<(u64, String)> {
    let mut sum = Sha256::new();
    let mut length = 0;
    let mut piece = vec![0; PIECE];
    let mut first = file.take(most);
    loop {
        let read = first.read(&mut piece)?;
        if read == 0 {
            break;
        }
        sum.update(&piece[..read]);
        length += read as u64;
    }
    file.rewind()?;
    Ok((length, hex::encode(sum.finalize())))
}

/// Opens a regular file below `folder`; neither a link nor a pipe is followed or waited for.
pub(crate) fn open(folder: &Dir, path: &str) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = match folder.open_with(path, &options) {
        Ok(file) => file.into_std(),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Whether a file has fewer bytes by now than were promised: then sending them breaks off, whoever is at fault.
async fn is_shorter(folder: &Arc<Dir>, name: &str, length: u64) -> bool {
    let (folder, name) = (Arc::clone(folder), name.to_owned());
    let look = tokio::task::spawn_blocking(move || folder.symlink_metadata(name));
    match look.await {
        Ok(Ok(found)) => found.len() < length,
        Ok(Err(_)) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
