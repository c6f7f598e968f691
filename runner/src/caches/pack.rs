//! Packs paths of a workspace: a tar archive in one zstd stream.
//!
//! Steps that run meanwhile are hostile: everything is opened beneath the workspace, and no link is followed. Kept are
//! files, folders, links that stay in the workspace, modes, owners and times in whole seconds; several names of one file
//! stay one file. Pipes, devices and links that lead out are left out.

use super::{Halting, PIECE, unpack::stays_inside};
use crate::artifacts::fetch::folder_in;
use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, MetadataExt},
};
use roadstead_protocol::{LARGEST_CACHE, LARGEST_UNPACKED_CACHE, MOST_CACHE_ENTRIES};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use tar::{Builder, EntryType, Header};

/// Folders below each other that are looked into: each level costs stack.
const DEEPEST: usize = 256;

/// What was packed.
pub(super) struct Packed {
    pub(super) file: File,
    /// Bytes of the archive.
    pub(super) length: u64,
    /// SHA-256 of the archive, hexadecimal.
    pub(super) sha256: String,
    /// Bytes of the files in it.
    pub(super) bytes: u64,
    /// What is not in it: links that lead out, pipes and the like.
    pub(super) left_out: u64,
}

/// Packs what of `paths` is there into `file`, which is empty; `None` when nothing is.
///
/// # Errors
/// When something cannot be read, changes while it is read, or is more than a cache may hold.
pub(super) fn pack(
    workspace: &Path,
    paths: &[String],
    file: File,
    halt: &Arc<AtomicBool>,
) -> io::Result<Option<Packed>> {
    let root = Dir::open_ambient_dir(workspace, ambient_authority())?;
    let counting = Counting {
        file: Halting {
            inner: file,
            halt: Arc::clone(halt),
        },
        sum: Sha256::new(),
        length: 0,
    };
    let zstd = zstd::Encoder::new(BufWriter::with_capacity(PIECE, counting), 0)?;
    let mut packing = Packing {
        archive: Builder::new(zstd),
        names: HashMap::new(),
        entries: 0,
        bytes: 0,
        left_out: 0,
    };
    for path in paths {
        let (above, last) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(folder) = folder_at(&root, above)? {
            packing.add(&folder, Path::new(last), Path::new(path), 0)?;
        }
    }
    let Packing {
        archive,
        entries,
        bytes,
        left_out,
        ..
    } = packing;
    let written = archive.into_inner()?.finish()?;
    let counting = written.into_inner().map_err(io::Error::from)?;
    if entries == 0 {
        return Ok(None);
    }
    Ok(Some(Packed {
        file: counting.file.inner,
        length: counting.length,
        sha256: hex::encode(counting.sum.finalize()),
        bytes,
        left_out,
    }))
}

/// The folder at a path, if there is one; through no link.
fn folder_at(root: &Dir, path: &str) -> io::Result<Option<Dir>> {
    let mut folder = root.try_clone()?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        match folder.symlink_metadata(part) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        folder = folder_in(&folder, part)?;
    }
    Ok(Some(folder))
}

struct Counting {
    file: Halting<File>,
    sum: Sha256,
    length: u64,
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.length += written as u64;
        if self.length > LARGEST_CACHE {
            let message = format!("packed it has more than {LARGEST_CACHE} bytes");
            return Err(io::Error::other(message));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Packing {
    archive: Builder<zstd::Encoder<'static, BufWriter<Counting>>>,
    /// Files of several names, by device and number.
    names: HashMap<(u64, u64), PathBuf>,
    entries: u64,
    bytes: u64,
    left_out: u64,
}

impl Packing {
    /// Adds what `name` of a folder is, with all that is below it. What is gone is not there.
    fn add(&mut self, folder: &Dir, name: &Path, path: &Path, depth: usize) -> io::Result<()> {
        let added = self.add_one(folder, name, path, depth);
        added.map_err(|error| match error.to_string().starts_with('`') {
            // It is named already.
            true => error,
            false => io::Error::new(error.kind(), format!("`{}`: {error}", path.display())),
        })
    }

    fn add_one(&mut self, folder: &Dir, name: &Path, path: &Path, depth: usize) -> io::Result<()> {
        let metadata = match folder.symlink_metadata(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            return self.add_folder(&folder_in(folder, name)?, path, &metadata, depth);
        }
        if metadata.is_symlink() {
            let target = folder.read_link_contents(name)?;
            if !stays_inside(path, &target) {
                self.left_out += 1;
                return Ok(());
            }
            self.count(0)?;
            let mut header = header_of(EntryType::Symlink, &metadata, 0);
            return self.archive.append_link(&mut header, path, target);
        }
        if !metadata.is_file() {
            self.left_out += 1;
            return Ok(());
        }
        self.add_file(folder, name, path)
    }

    fn add_folder(
        &mut self,
        folder: &Dir,
        path: &Path,
        metadata: &Metadata,
        depth: usize,
    ) -> io::Result<()> {
        if depth >= DEEPEST {
            return Err(io::Error::other(format!(
                "it lies more than {DEEPEST} folders deep"
            )));
        }
        self.count(0)?;
        let mut header = header_of(EntryType::Directory, metadata, 0);
        self.archive.append_data(&mut header, path, io::empty())?;
        let mut names: Vec<_> = folder
            .entries()?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let below = path.join(&name);
            self.add(folder, Path::new(&name), &below, depth + 1)?;
        }
        Ok(())
    }

    fn add_file(&mut self, folder: &Dir, name: &Path, path: &Path) -> io::Result<()> {
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
        let Some(file) = crate::artifacts::open(folder, name)? else {
            self.left_out += 1;
            return Ok(());
        };
        let metadata = Metadata::from_file(&file)?;
        let number = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1
            && let Some(first) = self.names.get(&number)
        {
            let first = first.clone();
            self.count(0)?;
            let mut header = header_of(EntryType::Link, &metadata, 0);
            return self.archive.append_link(&mut header, path, first);
        }
        let length = metadata.len();
        self.count(length)?;
        let mut header = header_of(EntryType::Regular, &metadata, length);
        let mut whole = file.take(length);
        self.archive.append_data(&mut header, path, &mut whole)?;
        if whole.limit() > 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        if metadata.nlink() > 1 {
            self.names.insert(number, path.to_owned());
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        within_limits(self.entries, self.bytes)
    }
}

/// # Errors
/// Above what a cache may hold.
pub(super) fn within_limits(entries: u64, bytes: u64) -> io::Result<()> {
    let message = if entries > MOST_CACHE_ENTRIES {
        format!("it has more than {MOST_CACHE_ENTRIES} files")
    } else if bytes > LARGEST_UNPACKED_CACHE {
        format!("it has more than {LARGEST_UNPACKED_CACHE} bytes")
    } else {
        return Ok(());
    };
    Err(io::Error::other(message))
}

fn header_of(kind: EntryType, metadata: &Metadata, length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(length);
    header.set_mode(metadata.mode() & 0o777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header
}
