//! Takes what a repository on this machine holds as files, as `git clone` does for a path: a pack is
//! linked in no time, where asking libgit2 for it builds it anew.
//!
//! Packs and loose objects never change once they have their name, so a link is as good as a copy; a
//! copy is made where a link is not possible. A push that lands meanwhile may leave its commit here
//! without all that belongs to it. So a commit counts as whole only when a ref of the mirror leads to
//! it, and a ref is set only to what the repository led to before the first object was taken. While
//! even that need not hold, the mark of a taking under way lies beside the mirror. Whatever does not
//! fit (alternates, a shallow clone, a repack at the same moment) is an error, upon which the caller
//! fetches in the ordinary way.

use super::{Mirror, commit_behind};
use git2::{Oid, Repository};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

/// The mark of a taking that has not come to its end.
const UNDER_WAY: &str = "taking";

/// Why a ref of the mirror moved, in its own log.
const TAKEN: &str = "taken from the same machine";

/// Whether a taking was cut off: then a commit that is there need not be whole.
pub(super) fn was_cut_off(mirror: &Mirror) -> bool {
    mirror.path.join(UNDER_WAY).exists()
}

/// Takes all objects of the repository at `folder`, its `git_ref` if it has that, and `wanted` by its
/// id if the ref does not lead to it.
pub(super) fn take(
    mirror: &Mirror,
    into: &Repository,
    folder: &Path,
    git_ref: &str,
    wanted: Oid,
) -> anyhow::Result<()> {
    let from = Repository::open(folder)?;
    let objects = from.commondir().join("objects");
    anyhow::ensure!(!from.is_shallow(), "it is a shallow clone");
    for elsewhere in ["info/alternates", "info/http-alternates"] {
        anyhow::ensure!(!objects.join(elsewhere).exists(), "it has {elsewhere}");
    }
    // Read before the objects: whatever they lead to is then among them. Of a commit that no ref leads
    // to any more, all was there when its push was told of.
    let tip = from.refname_to_id(git_ref).ok();
    let had_wanted = commit_behind(&from, wanted).is_ok();
    let under_way = mirror.path.join(UNDER_WAY);
    fs::File::create(&under_way)?.sync_all()?;
    let to = mirror.path.join("objects");
    // What a repack replaces this moment is found at the second look.
    take_objects(&objects, &to).or_else(|_| take_objects(&objects, &to))?;
    if let Some(tip) = tip {
        // What a forced push left behind is not reached by the ref any more, and is whole still.
        if let Ok(left) = into.refname_to_id(git_ref)
            && !leads_to(into, tip, left)
        {
            keep(into, left)?;
        }
        into.reference(git_ref, tip, true, TAKEN)?;
    }
    if had_wanted && !tip.is_some_and(|tip| leads_to(into, tip, wanted)) {
        keep(into, wanted)?;
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

/// Whether the mirror holds a commit, or an annotated tag, with all that belongs to it: some ref leads to
/// the commit, and no taking was cut off.
pub(super) fn is_whole(mirror: &Mirror, repository: &Repository, wanted: Oid) -> bool {
    let is_there = |commit: git2::Commit<'_>| is_reached(repository, commit.id());
    !was_cut_off(mirror) && commit_behind(repository, wanted).is_ok_and(is_there)
}

fn is_reached(repository: &Repository, commit: Oid) -> bool {
    if repository.refname_to_id(&kept(commit)).is_ok() {
        return true;
    }
    let walk = || {
        let mut walk = repository.revwalk()?;
        walk.push_glob("*")?;
        // Newest first, so that it ends soon for what was just pushed.
        Ok::<_, git2::Error>(walk.map_while(Result::ok).any(|one| one == commit))
    };
    walk().unwrap_or(false)
}

fn leads_to(repository: &Repository, tip: Oid, commit: Oid) -> bool {
    tip == commit || repository.graph_descendant_of(tip, commit).unwrap_or(false)
}

/// Lets the mirror know a commit as whole that no branch leads to.
fn keep(repository: &Repository, commit: Oid) -> Result<(), git2::Error> {
    repository.reference(&kept(commit), commit, true, TAKEN)?;
    Ok(())
}

fn kept(commit: Oid) -> String {
    format!("refs/roadstead/{commit}")
}
