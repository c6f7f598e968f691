//! Takes what a repository on this machine holds as files, as `git clone` does for a path: a pack is
//! linked in no time, where asking libgit2 for it builds it anew.
//!
//! Packs and loose objects never change once they have their name, so a link is as good as a copy; a
//! copy is made where a link is not possible. Invariant: while the mirror may hold a commit without
//! all that belongs to it, the mark of a taking under way lies beside it. Whatever does not fit
//! (alternates, a shallow clone, a repack at the same moment) is an error, upon which the caller
//! fetches in the ordinary way.

use super::Mirror;
use git2::{Oid, Repository};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

/// The mark of a taking that has not come to its end.
const UNDER_WAY: &str = "taking";

/// Whether a taking was cut off: then a commit that is there need not be whole.
pub(super) fn was_cut_off(mirror: &Mirror) -> bool {
    mirror.path.join(UNDER_WAY).exists()
}

/// Takes all objects of the repository at `folder`, and its `git_ref` if it has that.
pub(super) fn take(
    mirror: &Mirror,
    into: &Repository,
    folder: &Path,
    git_ref: &str,
) -> anyhow::Result<()> {
    let from = Repository::open(folder)?;
    let objects = from.commondir().join("objects");
    anyhow::ensure!(!from.is_shallow(), "it is a shallow clone");
    for elsewhere in ["info/alternates", "info/http-alternates"] {
        anyhow::ensure!(!objects.join(elsewhere).exists(), "it has {elsewhere}");
    }
    // Read before the objects: whatever it leads to is then among them.
    let tip = from.refname_to_id(git_ref).ok();
    let under_way = mirror.path.join(UNDER_WAY);
    fs::File::create(&under_way)?.sync_all()?;
    let to = mirror.path.join("objects");
    // What a repack replaces this moment is found at the second look.
    take_objects(&objects, &to).or_else(|_| take_objects(&objects, &to))?;
    if let Some(tip) = tip {
        into.reference(git_ref, tip, true, "taken from the same machine")?;
    }
    fs::remove_file(&under_way)?;
    Ok(())
}

fn take_objects(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_fan(&name) {
            let (from, to) = (entry.path(), to.join(&name));
            fs::create_dir_all(&to)?;
            for object in fs::read_dir(&from)? {
                let name = object?.file_name();
                // Others are files that somebody writes this moment.
                if name.to_str().is_some_and(|name| is_hex(name, 38)) {
                    link(&from.join(&name), &to.join(&name))?;
                }
            }
        }
    }
    // Packs come last: what is packed meanwhile is then found here.
    let (from, to) = (from.join("pack"), to.join("pack"));
    for entry in fs::read_dir(&from)? {
        let index = entry?.path();
        if index.extension() != Some(OsStr::new("idx")) {
            continue;
        }
        // Objects are found by the index, so it comes after what it leads to.
        let pack = index.with_extension("pack");
        for file in [&pack, &index] {
            if let Some(name) = file.file_name() {
                link(file, &to.join(name))?;
            }
        }
    }
    Ok(())
}

/// One of the 256 folders of loose objects.
fn is_fan(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| is_hex(name, 2))
}

fn is_hex(name: &str, length: usize) -> bool {
    name.len() == length && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Links a file that never changes, or copies it; one that is there already is the same.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // Another file system, or files of somebody else that the kernel lets nobody link.
        Err(_) => copy(from, to),
        Ok(()) => Ok(()),
    }
}

/// Copies under another name first, so that nobody finds half a file.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    fs::copy(from, &part)?;
    fs::rename(&part, to)
}

/// Whether the mirror holds a commit and nothing says that it may not be whole.
pub(super) fn is_whole(mirror: &Mirror, repository: &Repository, commit: Oid) -> bool {
    !was_cut_off(mirror) && repository.find_commit(commit).is_ok()
}
