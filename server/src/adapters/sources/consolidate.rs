//! Makes one pack of the many small ones that fetches leave: each look-up goes through every pack.
//!
//! Large packs stay as they are: they are dear to build, and the largest is what new runners are sent.
//! No object is dropped, whether a ref leads to it or not, for runs and releases name commits for ever.
//!
//! The new pack is whole, on disk and looked through before an old one goes, and an old one goes
//! with its index first. A kill at any moment therefore leaves every object in some pack; what is left
//! over goes the next time. Readers need no lock: a pack that they opened stays theirs when its name
//! goes, and one that they had only listed is looked for anew by libgit2 and found in the new one.
//! Fetches do need it: the caller holds the mirror's.

use super::Mirror;
use super::pack::{PackName, lone_packs};
use anyhow::Context as _;
use git2::{Odb, Oid};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// With more small packs than this they are made one.
const MOST_SMALL_PACKS: usize = 50;
/// In bytes; a larger pack is left alone.
const SMALL: u64 = 32 * 1024 * 1024;

/// Makes one pack of the mirror's small ones when there are too many; gives how many that were.
///
/// # Errors
/// When the disk or a pack fails. Every object is then still where it was.
pub(super) fn consolidate(mirror: &Mirror) -> anyhow::Result<usize> {
    let folder = mirror.path.join("objects/pack");
    if small_packs(&folder)?.len() <= MOST_SMALL_PACKS {
        return Ok(0);
    }
    sweep(&folder)?;
    let old = small_packs(&folder)?;
    let new = write_one(mirror, &folder, &old)?;
    for name in old.iter().filter(|name| **name != new) {
        remove(&folder, name)?;
    }
    Ok(old.len())
}

fn file_of(folder: &Path, name: &PackName, ending: &str) -> PathBuf {
    folder.join(format!("pack-{}.{ending}", name.as_str()))
}

fn name_of(path: &Path) -> Option<PackName> {
    PackName::parse(path.file_stem()?.to_str()?.strip_prefix("pack-")?)
}

/// Small packs that have an index; the others cannot be read.
fn small_packs(folder: &Path) -> anyhow::Result<Vec<PackName>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension() != Some(OsStr::new("idx")) {
            continue;
        }
        let pack = path.with_extension("pack");
        if let (Some(name), Ok(about)) = (name_of(&path), fs::metadata(&pack))
            && about.len() < SMALL
        {
            found.push(name);
        }
    }
    Ok(found)
}

/// Removes what a kill left: packs that lost their index, and files that never got their name.
fn sweep(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_pack = name_of(&path).is_some();
        let lone =
            path.extension() == Some(OsStr::new("pack")) && !path.with_extension("idx").exists();
        let unnamed = path
            .file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.starts_with("pack_"));
        if (is_pack && lone) || unnamed {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes a pack of every object of `old`, and makes sure of it.
fn write_one(mirror: &Mirror, folder: &Path, old: &[PackName]) -> anyhow::Result<PackName> {
    let repository = mirror.open(false)?;
    let ids = ids_of(mirror, old)?;
    let mut builder = repository.packbuilder()?;
    for id in &ids {
        builder.insert_object(*id, None)?;
    }
    builder.write(folder, 0o444)?;
    let name = builder.name()?.and_then(PackName::parse);
    let name = name.context("the new pack has no name")?;
    for ending in ["pack", "idx"] {
        let path = file_of(folder, &name, ending);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        file.sync_all()?;
    }
    File::open(folder)?.sync_all()?;
    let missing = {
        let alone = lone_packs(mirror, [&name])?;
        let odb = Odb::new()?;
        odb.add_disk_alternate(&alone.path().display().to_string())?;
        ids.into_iter().find(|id| !odb.exists(*id))
    };
    match missing {
        None => Ok(name),
        Some(id) => anyhow::bail!("the new pack lacks {id}; the old ones stay"),
    }
}

fn ids_of(mirror: &Mirror, packs: &[PackName]) -> anyhow::Result<Vec<Oid>> {
    let alone = lone_packs(mirror, packs)?;
    let odb = Odb::new()?;
    odb.add_disk_alternate(&alone.path().display().to_string())?;
    let mut ids = vec![];
    odb.foreach(|id| {
        ids.push(*id);
        true
    })?;
    Ok(ids)
}

fn remove(folder: &Path, name: &PackName) -> anyhow::Result<()> {
    // Objects are found by the index, so what it leads to goes after it.
    for ending in ["idx", "rev", "pack"] {
        let path = file_of(folder, name, ending);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;
    use git2::Repository;
    use roadstead_pipelines::id::ProjectName;
    use tempfile::TempDir;

    struct World {
        mirror: Mirror,
        folder: PathBuf,
        ids: Vec<Oid>,
        _data: TempDir,
    }

    impl World {
        /// A mirror with one pack per object, as many fetches leave it.
        fn with_packs(count: usize) -> Self {
            let data = tempfile::tempdir().unwrap();
            let mirror = Sources::new(data.path()).mirror(&ProjectName::parse("shop").unwrap());
            let mut world = Self {
                folder: mirror.path.join("objects/pack"),
                mirror,
                ids: vec![],
                _data: data,
            };
            world.add(count);
            world
        }

        fn add(&mut self, count: usize) {
            let repository = self.mirror.open(true).unwrap();
            for _ in 0..count {
                let text = format!("object {}", self.ids.len());
                let id = repository.blob(text.as_bytes()).unwrap();
                let mut builder = repository.packbuilder().unwrap();
                builder.insert_object(id, None).unwrap();
                builder.write(&self.folder, 0o444).unwrap();
                let name = id.to_string();
                let loose = format!("objects/{}/{}", &name[..2], &name[2..]);
                let loose = self.mirror.path.join(loose);
                fs::remove_file(loose).unwrap();
                self.ids.push(id);
            }
        }

        fn packs(&self) -> usize {
            small_packs(&self.folder).unwrap().len()
        }

        fn reads_all(&self, repository: &Repository) {
            for (number, id) in self.ids.iter().enumerate() {
                let blob = repository.find_blob(*id).unwrap();
                assert_eq!(blob.content(), format!("object {number}").as_bytes());
            }
        }
    }

    #[test]
    fn many_packs_become_one_and_readers_go_on() {
        let mut world = World::with_packs(MOST_SMALL_PACKS);
        assert_eq!(consolidate(&world.mirror).unwrap(), 0, "not too many yet");
        world.add(1);
        // One reader has listed the packs and opened one of them, another has opened all.
        let some = world.mirror.open(false).unwrap();
        some.find_blob(world.ids[0]).unwrap();
        let all = world.mirror.open(false).unwrap();
        world.reads_all(&all);
        let before = MOST_SMALL_PACKS + 1;
        assert_eq!(consolidate(&world.mirror).unwrap(), before);
        assert_eq!(world.packs(), 1);
        assert_eq!(fs::read_dir(&world.folder).unwrap().count(), 2);
        world.reads_all(&some);
        world.reads_all(&all);
        world.reads_all(&world.mirror.open(false).unwrap());
        // And again, with the first one among them.
        world.add(MOST_SMALL_PACKS);
        assert_eq!(consolidate(&world.mirror).unwrap(), before);
        assert_eq!(world.packs(), 1);
        world.reads_all(&world.mirror.open(false).unwrap());
    }

    #[test]
    fn a_kill_at_any_moment_loses_nothing() {
        let count = MOST_SMALL_PACKS + 1;
        // Before the new pack has its name; after it; and after so many files of old ones went.
        for files_gone in [None, Some(0), Some(1), Some(2), Some(7)] {
            let mut world = World::with_packs(count);
            fs::write(world.folder.join("pack_git2_half"), "half").unwrap();
            if let Some(files_gone) = files_gone {
                let old = small_packs(&world.folder).unwrap();
                write_one(&world.mirror, &world.folder, &old).unwrap();
                let files = old.iter().flat_map(|name| {
                    ["idx", "pack"].map(|ending| file_of(&world.folder, name, ending))
                });
                for file in files.take(files_gone) {
                    fs::remove_file(file).unwrap();
                }
            }
            world.reads_all(&world.mirror.open(false).unwrap());
            world.add(count);
            consolidate(&world.mirror).unwrap();
            assert_eq!(world.packs(), 1);
            let left = fs::read_dir(&world.folder).unwrap().count();
            assert_eq!(left, 2, "{files_gone:?}");
            world.reads_all(&world.mirror.open(false).unwrap());
        }
    }

    #[test]
    fn where_a_pack_cannot_be_read_all_stay() {
        let world = World::with_packs(MOST_SMALL_PACKS + 1);
        let broken = &small_packs(&world.folder).unwrap()[0];
        let path = file_of(&world.folder, broken, "pack");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "no pack").unwrap();
        consolidate(&world.mirror).unwrap_err();
        assert_eq!(world.packs(), MOST_SMALL_PACKS + 1);
    }
}
