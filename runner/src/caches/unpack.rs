//! Unpacks a cache and moves it to its place.
//!
//! An archive is hostile: each name is a plain path at or below one of the cache's, links stay in the workspace, several
//! names of one file are names of files of this archive, and there is nothing else. What does not hold is refused as a
//! whole, and nothing of it reaches the workspace: it is unpacked in a folder of the runner's own, through no link, and
//! each path of the cache is moved from there by one rename. Long names are read here, within a limit.

use super::{Halting, PIECE, pack::within_limits};
use crate::artifacts::fetch::walk;
use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions, OpenOptionsExt},
};
use rustix::fs::{AtFlags, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid};
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use tar::{Archive, EntryType, Header};

/// Longest path or target of a link, in bytes.
const LONGEST_NAME: u64 = 4_096;

/// A folder whose mode and time are set once nothing is put into it any more.
struct Folder {
    path: PathBuf,
    mode: u32,
    times: Timestamps,
}

/// What lies unpacked in a folder of the runner's own.
pub(super) struct Unpacked {
    root: Dir,
    /// The paths of the cache that are folders: a folder that may not be written to cannot be moved.
    folders: Vec<Folder>,
}

/// Unpacks an archive of `paths` into the empty folder `staging`, which no step sees.
///
/// # Errors
/// When it is no archive that [`pack`](super::pack) makes, or cannot be written.
pub(super) fn unpack(
    file: File,
    staging: &Path,
    paths: &[String],
    halt: &Arc<AtomicBool>,
) -> io::Result<Unpacked> {
    let file = Halting {
        inner: file,
        halt: Arc::clone(halt),
    };
    let bytes = zstd::Decoder::with_buffer(BufReader::with_capacity(PIECE, file))?;
    let mut archive = Archive::new(bytes);
    let root = Dir::open_ambient_dir(staging, ambient_authority())?;
    let mut unpacking = Unpacking {
        near: (PathBuf::new(), root.try_clone()?),
        root,
        paths: paths.iter().map(PathBuf::from).collect(),
        folders: vec![],
        files: HashSet::new(),
        // Whoever is not root cannot give files away.
        gives_owners: rustix::process::geteuid().is_root(),
        entries: 0,
        bytes: 0,
    };
    let (mut long_name, mut long_link) = (None, None);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                long_name = Some(text_of(&mut entry)?);
                continue;
            }
            EntryType::GNULongLink => {
                long_link = Some(text_of(&mut entry)?);
                continue;
            }
            _ => {}
        }
        let header = entry.header().clone();
        let name = match long_name.take() {
            Some(name) => name,
            None => path_from(&header.path_bytes()),
        };
        let link = match long_link.take() {
            Some(link) => Some(link),
            None => {
                let bytes = header.link_name_bytes();
                bytes.map(|bytes| path_from(bytes.as_ref()))
            }
        };
        let shown = name.display().to_string();
        unpacking
            .add(&name, link.as_deref(), &header, &mut entry)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("`{}`: {error}", shown.escape_debug()))
            })?;
    }
    unpacking.finish()
}

fn path_from(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// A long name: its bytes are those of an entry before the one that it belongs to.
fn text_of(entry: &mut impl Read) -> io::Result<PathBuf> {
    let mut bytes = vec![];
    entry.take(LONGEST_NAME + 2).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST_NAME + 1 {
        return Err(io::Error::other("a name is too long"));
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(path_from(&bytes))
}

struct Unpacking {
    root: Dir,
    paths: Vec<PathBuf>,
    /// The folder that was used last.
    near: (PathBuf, Dir),
    folders: Vec<Folder>,
    files: HashSet<PathBuf>,
    gives_owners: bool,
    entries: u64,
    bytes: u64,
}

impl Unpacking {
    fn add(
        &mut self,
        path: &Path,
        link: Option<&Path>,
        header: &Header,
        bytes: &mut impl Read,
    ) -> io::Result<()> {
        if !is_plain(path) {
            return Err(io::Error::other("its name leads out of the workspace"));
        }
        if !self.paths.iter().any(|of| path.starts_with(of)) {
            return Err(io::Error::other("it is of none of the cache's paths"));
        }
        let length = header.entry_size()?;
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(length);
        within_limits(self.entries, self.bytes)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let above = path.parent().unwrap_or(Path::new(""));
        match header.entry_type() {
            EntryType::Directory => self.folder(path, header),
            EntryType::Regular => {
                let folder = self.folder_at(above)?;
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                let mut file = folder.open_with(&name, &options)?.into_std();
                if io::copy(&mut bytes.take(length), &mut file)? < length {
                    return Err(io::Error::other("the archive breaks off"));
                }
                self.files.insert(path.to_owned());
                if self.gives_owners {
                    let (owner, group) = owner_of(header)?;
                    rustix::fs::fchown(&file, Some(owner), Some(group))?;
                }
                rustix::fs::fchmod(&file, Mode::from_raw_mode(header.mode()? & 0o777))?;
                Ok(rustix::fs::futimens(&file, &times_of(header)?)?)
            }
            EntryType::Symlink => {
                let target = link.ok_or_else(|| io::Error::other("it links to nothing"))?;
                if !stays_inside(path, target) {
                    return Err(io::Error::other("it links out of the workspace"));
                }
                let folder = self.folder_at(above)?;
                folder.symlink_contents(target, &name)?;
                let (folder, flags) = (folder.try_clone()?, AtFlags::SYMLINK_NOFOLLOW);
                if self.gives_owners {
                    let (owner, group) = owner_of(header)?;
                    rustix::fs::chownat(&folder, &name, Some(owner), Some(group), flags)?;
                }
                Ok(rustix::fs::utimensat(
                    &folder,
                    &name,
                    &times_of(header)?,
                    flags,
                )?)
            }
            EntryType::Link => {
                let first = link.ok_or_else(|| io::Error::other("it links to nothing"))?;
                if !self.files.contains(first) {
                    let message = "it is another name of a file that is not in the archive";
                    return Err(io::Error::other(message));
                }
                let folder = self.folder_at(above)?.try_clone()?;
                self.root.hard_link(first, &folder, &name)?;
                self.files.insert(path.to_owned());
                Ok(())
            }
            _ => Err(io::Error::other("it is neither file, folder nor link")),
        }
    }

    /// Makes a folder that can be written to as long as this goes on.
    fn folder(&mut self, path: &Path, header: &Header) -> io::Result<()> {
        let gives_owners = self.gives_owners;
        let folder = self.folder_at(path)?;
        if gives_owners {
            let (owner, group) = owner_of(header)?;
            rustix::fs::fchown(folder, Some(owner), Some(group))?;
        }
        self.folders.push(Folder {
            path: path.to_owned(),
            mode: header.mode()? & 0o777,
            times: times_of(header)?,
        });
        Ok(())
    }

    /// The folder at a path, made where it is missing; through no link.
    fn folder_at(&mut self, path: &Path) -> io::Result<&Dir> {
        if self.near.0 != path {
            let text = path
                .to_str()
                .ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
            let folder = walk(&self.root, (!text.is_empty()).then_some(text))?;
            self.near = (path.to_owned(), folder);
        }
        Ok(&self.near.1)
    }

    /// Sets what could not be set before. Folders come before what is in them, so the last ones first.
    fn finish(self) -> io::Result<Unpacked> {
        let (outer, inner): (Vec<_>, Vec<_>) = self
            .folders
            .into_iter()
            .partition(|it| self.paths.contains(&it.path));
        for folder in inner.iter().rev() {
            folder.settle(&self.root)?;
        }
        Ok(Unpacked {
            root: self.root,
            folders: outer,
        })
    }
}

impl Folder {
    fn settle(&self, root: &Dir) -> io::Result<()> {
        let text = self
            .path
            .to_str()
            .ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        let folder = walk(root, Some(text))?;
        rustix::fs::fchmod(&folder, Mode::from_raw_mode(self.mode))?;
        Ok(rustix::fs::futimens(&folder, &self.times)?)
    }
}

fn owner_of(header: &Header) -> io::Result<(Uid, Gid)> {
    let number = |number: u64| {
        let number = u32::try_from(number).ok().filter(|it| *it != u32::MAX);
        number.ok_or_else(|| io::Error::other("it has an owner that cannot be"))
    };
    let (owner, group) = (number(header.uid()?)?, number(header.gid()?)?);
    Ok((Uid::from_raw(owner), Gid::from_raw(group)))
}

fn times_of(header: &Header) -> io::Result<Timestamps> {
    let seconds = i64::try_from(header.mtime()?).map_err(io::Error::other)?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(Timestamps {
        last_access: time,
        last_modification: time,
    })
}

/// A path below a folder: names alone, no `..`, and not the folder itself.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && !path.as_os_str().as_bytes().contains(&0)
}

/// Whether a link at `path` leads to something in the workspace, whatever other such links are on its way: it goes up at its
/// beginning alone, and not above the workspace.
pub(super) fn stays_inside(path: &Path, target: &Path) -> bool {
    let depth = path.components().count().saturating_sub(1);
    let mut parts = target.components().peekable();
    let mut up = 0;
    while let Some(Component::ParentDir | Component::CurDir) = parts.peek() {
        up += usize::from(parts.next() == Some(Component::ParentDir));
    }
    !target.as_os_str().is_empty()
        && up <= depth
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Whether all of `paths` are in the workspace already, and none is an empty folder.
pub(super) fn all_there(workspace: &Path, paths: &[String]) -> bool {
    let Ok(root) = Dir::open_ambient_dir(workspace, ambient_authority()) else {
        return false;
    };
    paths.iter().all(|path| {
        let is_empty = root.read_dir(path).is_ok_and(|mut it| it.next().is_none());
        root.symlink_metadata(path).is_ok() && !is_empty
    })
}

/// Moves each of `paths` that is unpacked to its place in the workspace; gives those whose place is taken.
///
/// # Errors
/// When there is no place for one; those before it are in theirs then.
pub(super) fn place(
    unpacked: &Unpacked,
    workspace: &Path,
    paths: &[String],
) -> io::Result<Vec<String>> {
    let root = Dir::open_ambient_dir(workspace, ambient_authority())?;
    let mut taken = vec![];
    for path in paths {
        let (above, last) = match path.rsplit_once('/') {
            Some((above, last)) => (Some(above), last),
            None => (None, path.as_str()),
        };
        let from = walk(&unpacked.root, above)?;
        if from.symlink_metadata(last).is_err() {
            continue;
        }
        let to = walk(&root, above)?;
        // A folder without anything in it is nobody's.
        let _ = to.remove_dir(last);
        match rustix::fs::renameat_with(&from, last, &to, last, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                taken.push(path.clone());
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(folder) = unpacked
            .folders
            .iter()
            .find(|it| it.path == Path::new(path))
        {
            folder.settle(&root)?;
        }
    }
    Ok(taken)
}
