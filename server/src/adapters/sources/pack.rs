//! Packs for runners: the sources of one commit, or what changed since a commit that the runner has.
//!
//! A pack holds the commit, its trees and files, and need not hold its history. Deltas are not searched
//! (see the mirror's configuration): a mirror that was fetched once is best sent as the pack that came,
//! and what changes between two commits is small.

use super::{Mirror, Sources, SourcesError};
use bytes::Bytes;
use futures_util::Stream;
use git2::{ObjectType, Oid, PackBuilder, Repository};
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// Larger than this, a pack of the mirror is history more than sources.
const LARGEST_OWN_PACK: u64 = 256 * 1024 * 1024;
/// Bytes per piece of the stream.
const PIECE: usize = 128 * 1024;
/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 8;

/// The bytes of a pack, as they are made. An error in the middle ends the stream: what came before is
/// then no pack, which its checksum shows.
#[derive(Debug)]
pub struct Pack {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stream for Pack {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}

impl Sources {
    /// The sources of `commit`, which was fetched. With `have`, a commit whose objects the reader
    /// holds, only what differs; a `have` that the mirror does not know counts as none.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold `commit`. What goes wrong afterwards is
    /// an item of the stream.
    pub async fn pack(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
        have: Option<&CommitSha>,
    ) -> Result<Pack, SourcesError> {
        let mirror = self.mirror(project);
        let (commit, have) = (commit.clone(), have.cloned());
        let (ready, began) = oneshot::channel();
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            stream(&mirror, &commit, have.as_ref(), ready, &pieces);
        });
        match began.await {
            Ok(Ok(())) => Ok(Pack { pieces: receiver }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(SourcesError::Mirror {
                project: project.to_string(),
                reason: "the pack could not be begun".into(),
            }),
        }
    }
}

fn stream(
    mirror: &Mirror,
    commit: &CommitSha,
    have: Option<&CommitSha>,
    ready: oneshot::Sender<Result<(), SourcesError>>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) {
    let repository = match mirror.open(false) {
        Ok(repository) => repository,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let trees = || {
        let new = mirror.tree(&repository, commit)?;
        let old = have.and_then(|have| mirror.tree(&repository, have).ok());
        Ok((new, old))
    };
    let (new, old) = match trees() {
        Ok(trees) => trees,
        Err(error) => return drop(ready.send(Err(error))),
    };
    // The reader may be gone already; then nobody misses the pack.
    if ready.send(Ok(())).is_err() {
        return;
    }
    let sent = match old.is_none().then(|| own_pack(mirror)).flatten() {
        Some(file) => send_file(file, pieces),
        None => build(
            &repository,
            commit,
            new.id(),
            old.map(|old| old.id()),
            pieces,
        )
        .map_err(|error| io::Error::other(error.message().to_owned())),
    };
    if let Err(error) = sent {
        tracing::warn!(project = %mirror.project, %commit, %error, "a pack broke off");
        let _ = pieces.blocking_send(Err(error));
    }
}

/// The mirror's only pack, when it is sane to send it as it is. It holds everything that was fetched,
/// as long as there is no object beside it.
fn own_pack(mirror: &Mirror) -> Option<File> {
    let objects = mirror.path.join("objects");
    let mut packs: Vec<PathBuf> = vec![];
    for entry in std::fs::read_dir(objects.join("pack")).ok()?.flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            packs.push(entry.path());
        }
    }
    let [pack] = packs.as_slice() else {
        return None;
    };
    let loose = std::fs::read_dir(&objects)
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().len() == 2);
    let file = File::open(pack).ok()?;
    let sane = !loose && file.metadata().ok()?.len() <= LARGEST_OWN_PACK;
    sane.then_some(file)
}

fn send_file(mut file: File, pieces: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() || pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
}

fn build(
    repository: &Repository,
    commit: &CommitSha,
    new: Oid,
    old: Option<Oid>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), git2::Error> {
    let mut builder = repository.packbuilder()?;
    builder.insert_object(super::oid(commit)?, None)?;
    if old != Some(new) {
        insert_difference(repository, &mut builder, new, old)?;
    }
    let mut waiting = Vec::with_capacity(PIECE);
    let mut reader_is_there = true;
    builder.foreach(|bytes| {
        waiting.extend_from_slice(bytes);
        if waiting.len() >= PIECE {
            let piece = std::mem::replace(&mut waiting, Vec::with_capacity(PIECE));
            reader_is_there = pieces.blocking_send(Ok(piece.into())).is_ok();
        }
        reader_is_there
    })?;
    if reader_is_there && !waiting.is_empty() {
        let _ = pieces.blocking_send(Ok(waiting.into()));
    }
    Ok(())
}

/// Inserts `new` and everything below it that `old` does not hold at the same place. Trees may be as
/// deep as a stranger likes, so this does not recurse.
fn insert_difference(
    repository: &Repository,
    builder: &mut PackBuilder<'_>,
    new: Oid,
    old: Option<Oid>,
) -> Result<(), git2::Error> {
    let mut trees = vec![(new, old)];
    while let Some((new, old)) = trees.pop() {
        builder.insert_object(new, None)?;
        let new = repository.find_tree(new)?;
        let old = old.map(|old| repository.find_tree(old)).transpose()?;
        for entry in &new {
            let before = old
                .as_ref()
                .and_then(|old| old.get_name_bytes(entry.name_bytes()));
            if before
                .as_ref()
                .is_some_and(|before| before.id() == entry.id())
            {
                continue;
            }
            match entry.kind() {
                Some(ObjectType::Tree) => {
                    let before = before.filter(|before| before.kind() == Some(ObjectType::Tree));
                    trees.push((entry.id(), before.map(|before| before.id())));
                }
                Some(ObjectType::Blob) => builder.insert_object(entry.id(), None)?,
                // A submodule is another repository's commit: not followed.
                _ => {}
            }
        }
    }
    Ok(())
}
