//! Packs for runners: the sources of one commit, or what changed since a commit that the runner has.
//!
//! A pack that is built holds the commit, its trees and files, and need not hold its history; deltas
//! are not searched (see the mirror's configuration). Building compresses every file again, which is
//! fine for a difference and takes seconds for a large repository. A runner that has nothing yet
//! therefore gets the mirror's largest pack as it is, with its index, so that neither side works on it,
//! and then a pack of what that one lacks.
//!
//! A pack occupies a thread for as long as its reader reads, and readers may be slow: so many are sent
//! at the same time and no more, and to nobody so many that others get none.

use super::{Mirror, Sources, SourcesError};
use bytes::Bytes;
use futures_util::Stream;
use git2::{ObjectType, Odb, OdbLookupFlags, Oid, PackBuilder, Repository};
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Larger than this, a pack of the mirror is history more than sources.
const LARGEST_STORED_PACK: u64 = 256 * 1024 * 1024;
/// A smaller one saves nothing.
const SMALLEST_STORED_PACK: u64 = 1024 * 1024;
/// Bytes per piece of the stream.
const PIECE: usize = 128 * 1024;
/// Pieces that wait for a slow reader.
const PIECES_AHEAD: usize = 8;
/// Packs that are sent at the same time.
const MOST_PACKS: usize = 8;
/// Of these, to one reader: one that broke off may not be noticed yet when it asks again.
const MOST_PACKS_OF_A_READER: usize = 2;
/// Whoever takes nothing for so long is gone, whatever the network says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a reader waits for its turn before it has to ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The bytes of a pack, as they are made. An error in the middle ends the stream: what came before is
/// then no pack, which its checksum shows.
#[derive(Debug)]
pub struct Pack {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

/// Who may be sent a pack now.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    readers: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
    /// Those of the one who reads, when that is known.
    own: Option<Arc<Semaphore>>,
}

/// Held by the thread that sends.
type Turn = (Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MOST_PACKS)),
            readers: Arc::default(),
            own: None,
        }
    }
}

impl Turns {
    fn of_a_reader(&self, reader: &str) -> Arc<Semaphore> {
        // A poisoned map is still a map of turns.
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = readers.get(reader).and_then(Weak::upgrade) {
            return known;
        }
        readers.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(MOST_PACKS_OF_A_READER));
        readers.insert(reader.to_owned(), Arc::downgrade(&turns));
        turns
    }

    /// Waits for a turn, before there is a thread: threads that wait would keep the store's work from
    /// running.
    async fn take(&self) -> Result<Turn, SourcesError> {
        let both = async {
            let own = match &self.own {
                Some(own) => Some(own.clone().acquire_owned().await?),
                None => None,
            };
            Ok((own, self.all.clone().acquire_owned().await?))
        };
        let taken: Result<Result<Turn, AcquireError>, _> =
            tokio::time::timeout(LONGEST_WAIT, both).await;
        match taken {
            Ok(Ok(turn)) => Ok(turn),
            // Nobody closes a semaphore of ours.
            Ok(Err(_)) | Err(_) => Err(SourcesError::Busy),
        }
    }
}

impl Stream for Pack {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}

/// What a mirror's pack is called: 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackName(String);

impl PackName {
    /// `None` when it is no such name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pack as the mirror stores it.
#[derive(Debug)]
pub struct StoredPack {
    /// Its name.
    pub name: PackName,
    /// How many bytes at the beginning of `pack` are its index.
    pub index_bytes: u64,
    /// The index, and behind it the pack.
    pub pack: Pack,
}

impl Sources {
    /// The same sources for one reader, to whom no more than two packs are sent at the same time.
    #[must_use]
    pub fn read_by(&self, reader: &str) -> Self {
        let mut own = self.clone();
        own.turns.own = Some(self.turns.of_a_reader(reader));
        own
    }

    /// The sources of `commit`, which was fetched. With `have`, a commit whose objects the reader
    /// holds, only what differs; a `have` that the mirror does not know counts as none.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold `commit`; [`SourcesError::Busy`] when
    /// too many packs are under way. What goes wrong afterwards is an item of the stream.
    pub async fn pack(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
        have: Option<&CommitSha>,
    ) -> Result<Pack, SourcesError> {
        let (commit, have) = (commit.clone(), have.cloned());
        self.send(project, move |mirror, repository| {
            let new = mirror.tree(repository, &commit)?.id();
            let old = have.and_then(|have| Some(mirror.tree(repository, &have).ok()?.id()));
            let id = super::oid(&commit).map_err(|error| mirror.error(&error))?;
            let mut builder = repository
                .packbuilder()
                .map_err(|error| mirror.error(&error))?;
            let mut insert = || {
                builder.insert_object(id, None)?;
                if old != Some(new) {
                    insert_difference(repository, &mut builder, new, old)?;
                }
                Ok(())
            };
            insert().map_err(|error| mirror.error(&error))?;
            Ok(builder)
        })
        .await
    }

    /// The mirror's largest pack as it is, when there is one that is worth it; it need not hold all
    /// of a commit, see [`Self::pack_beside`].
    ///
    /// # Errors
    /// [`SourcesError::Busy`] when too many packs are under way. What goes wrong afterwards is an item
    /// of the stream.
    pub async fn stored_pack(
        &self,
        project: &ProjectName,
    ) -> Result<Option<StoredPack>, SourcesError> {
        let mirror = self.mirror(project);
        let turn = self.turns.take().await?;
        let stored = super::blocking(move || open_stored(&mirror)).await;
        let Some((name, files, index_bytes)) = stored else {
            return Ok(None);
        };
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let sent = files
                .into_iter()
                .try_for_each(|file| send_file(file, &pieces));
            if let Err(error) = sent {
                let _ = pieces.blocking_send(Err(error));
            }
        });
        Ok(Some(StoredPack {
            name,
            index_bytes,
            pack: Pack { pieces: receiver },
        }))
    }

    /// What `commit` needs besides the mirror's pack `stored`; everything when there is no such pack.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub async fn pack_beside(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
        stored: &PackName,
    ) -> Result<Pack, SourcesError> {
        let (commit, stored) = (commit.clone(), stored.clone());
        self.send(project, move |mirror, repository| {
            let tree = mirror.tree(repository, &commit)?.id();
            let io = |error: io::Error| SourcesError::Mirror {
                project: mirror.project.to_string(),
                reason: error.to_string(),
            };
            let folder = lone_packs(mirror, [&stored]).map_err(io)?;
            let path = folder.path().display().to_string();
            let build = || {
                let id = super::oid(&commit)?;
                let packed = Odb::new()?;
                packed.add_disk_alternate(&path)?;
                let mut builder = repository.packbuilder()?;
                builder.insert_object(id, None)?;
                insert_missing(repository, &mut builder, tree, &packed)?;
                Ok(builder)
            };
            build().map_err(|error| mirror.error(&error))
        })
        .await
    }

    /// Streams what `choose` puts into a builder; its error is ours.
    async fn send(
        &self,
        project: &ProjectName,
        choose: impl for<'repo> FnOnce(
            &Mirror,
            &'repo Repository,
        ) -> Result<PackBuilder<'repo>, SourcesError>
        + Send
        + 'static,
    ) -> Result<Pack, SourcesError> {
        let mirror = self.mirror(project);
        let turn = self.turns.take().await?;
        let (ready, began) = oneshot::channel();
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let repository = match mirror.open(false) {
                Ok(repository) => repository,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let mut builder = match choose(&mirror, &repository) {
                Ok(builder) => builder,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // The reader may be gone already; then nobody misses the pack.
            if ready.send(Ok(())).is_ok()
                && let Err(error) = send_built(&mut builder, &pieces)
            {
                tracing::warn!(project = %mirror.project, %error, "a pack broke off");
                let error = io::Error::other(error.message().to_owned());
                let _ = pieces.blocking_send(Err(error));
            }
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

/// The mirror's largest pack: its name, its index and itself, and how long the index is.
fn open_stored(mirror: &Mirror) -> Option<(PackName, [File; 2], u64)> {
    let mut largest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(mirror.path.join("objects/pack"))
        .ok()?
        .flatten()
    {
        let path = entry.path();
        if path.extension() != Some(OsStr::new("pack")) {
            continue;
        }
        let bytes = entry.metadata().ok()?.len();
        let fits = (SMALLEST_STORED_PACK..=LARGEST_STORED_PACK).contains(&bytes);
        if fits && largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
            largest = Some((bytes, path));
        }
    }
    let (_, pack) = largest?;
    let name = PackName::parse(pack.file_stem()?.to_str()?.strip_prefix("pack-")?)?;
    let index = File::open(pack.with_extension("idx")).ok()?;
    let index_bytes = index.metadata().ok()?.len();
    Some((name, [index, File::open(pack).ok()?], index_bytes))
}

/// A folder of objects that holds these packs of the mirror and nothing else.
pub(super) fn lone_packs<'a>(
    mirror: &Mirror,
    names: impl IntoIterator<Item = &'a PackName>,
) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let packs = folder.path().join("pack");
    fs::create_dir(&packs)?;
    for name in names {
        for ending in ["pack", "idx"] {
            let file = format!("pack-{}.{ending}", name.as_str());
            let stored = std::path::absolute(mirror.path.join("objects/pack").join(&file))?;
            if stored.exists() {
                symlink(stored, packs.join(&file))?;
            }
        }
    }
    Ok(folder)
}

/// Waits until the reader has room for a piece; false when nobody reads any more.
fn hand_over(piece: Vec<u8>, pieces: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    Handle::current()
        .block_on(pieces.send_timeout(Ok(piece.into()), LONGEST_PAUSE))
        .is_ok()
}

fn send_file(mut file: File, pieces: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
        if piece.is_empty() || !hand_over(piece, pieces) {
            return Ok(());
        }
    }
}

fn send_built(
    builder: &mut PackBuilder<'_>,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), git2::Error> {
    let mut waiting = Vec::with_capacity(PIECE);
    let mut reader_is_there = true;
    builder.foreach(|bytes| {
        waiting.extend_from_slice(bytes);
        if waiting.len() >= PIECE {
            let piece = std::mem::replace(&mut waiting, Vec::with_capacity(PIECE));
            reader_is_there = hand_over(piece, pieces);
        }
        reader_is_there
    })?;
    if reader_is_there && !waiting.is_empty() {
        hand_over(waiting, pieces);
    }
    Ok(())
}

/// Inserts `root` and everything below it that `packed` does not hold. A tree that is there does not
/// tell of what is below it, so each is looked at; without recursion, see [`insert_difference`].
fn insert_missing(
    repository: &Repository,
    builder: &mut PackBuilder<'_>,
    root: Oid,
    packed: &Odb<'_>,
) -> Result<(), git2::Error> {
    let lacks = |id: Oid| !packed.exists_ext(id, OdbLookupFlags::NO_REFRESH);
    let mut seen = HashSet::from([root]);
    let mut trees = vec![root];
    while let Some(id) = trees.pop() {
        if lacks(id) {
            builder.insert_object(id, None)?;
        }
        for entry in &repository.find_tree(id)? {
            match entry.kind() {
                Some(ObjectType::Tree) if seen.insert(entry.id()) => trees.push(entry.id()),
                Some(ObjectType::Blob) if lacks(entry.id()) => {
                    builder.insert_object(entry.id(), None)?;
                }
                _ => {}
            }
        }
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
