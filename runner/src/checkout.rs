//! Writes a commit's tree into an empty folder.
//!
//! Owns the rules for names and links: nothing is written outside the folder, no `.git` appears,
//! executable bits are kept, a link may only point to something inside. The objects come from a
//! repository that anybody can push to, so everything in a tree is hostile. Synchronous; knows
//! nothing of where the objects came from.

use anyhow::{Context, bail};
use git2::{ObjectType, Oid, Repository, Tree};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
};

/// Deeper trees are refused: no real project has them, and each level costs stack.
const DEEPEST: usize = 256;
/// Files are written by this many threads; more gain nothing on one disk.
const WRITERS: usize = 2;
/// Fewer files than this are not worth a second thread.
const FILES_WORTH_A_THREAD: usize = 256;

const MODE_EXECUTABLE: i32 = 0o100755;
const MODE_LINK: i32 = 0o120000;
const MODE_SUBMODULE: i32 = 0o160000;

/// A file that the tree wants.
struct Entry {
    path: PathBuf,
    object: Oid,
    kind: EntryKind,
    /// Folders between the root and the entry.
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File { executable: bool },
    Link,
}

/// Writes the tree of `commit` from the repository at `store` into `folder`, which must exist and
/// be empty. Returns when the commit was made, in seconds since 1970.
///
/// # Errors
/// An object that is missing, a name or a link that could leave the folder, or a full disk; the
/// message names the path. The folder is then half-written.
pub(crate) fn write_tree(store: &Path, commit: &str, folder: &Path) -> anyhow::Result<i64> {
    let repository = open(store)?;
    let commit = repository
        .find_commit(Oid::from_str(commit).context("the commit is no object id")?)
        .with_context(|| format!("commit {commit} is not among the sources"))?;
    let mut entries = Vec::new();
    collect(
        &repository,
        &commit.tree()?,
        folder,
        Path::new(""),
        0,
        &mut entries,
    )?;
    let writers = if entries.len() < FILES_WORTH_A_THREAD {
        1
    } else {
        WRITERS
    };
    let share = entries.len().div_ceil(writers).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = entries
            .chunks(share)
            .map(|share| scope.spawn(move || write_entries(store, folder, share)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a thread that writes files panicked"))?
            })
            .collect::<anyhow::Result<Vec<()>>>()
    })?;
    Ok(commit.time().seconds())
}

fn open(store: &Path) -> anyhow::Result<Repository> {
    Repository::open_bare(store)
        .with_context(|| format!("cannot open the object store {}", store.display()))
}

/// Makes the folders and lists the files.
fn collect(
    repository: &Repository,
    tree: &Tree<'_>,
    folder: &Path,
    prefix: &Path,
    depth: usize,
    entries: &mut Vec<Entry>,
) -> anyhow::Result<()> {
    if depth > DEEPEST {
        bail!("{} lies more than {DEEPEST} folders deep", prefix.display());
    }
    for entry in tree {
        let name = checked_name(entry.name_bytes())
            .with_context(|| format!("in folder `{}`", prefix.display()))?;
        let path = prefix.join(name);
        let mode = entry.filemode();
        match entry.kind() {
            Some(ObjectType::Tree) => {
                make_folder(&folder.join(&path))?;
                let below = repository.find_tree(entry.id()).with_context(|| {
                    format!("folder {} is not among the sources", path.display())
                })?;
                collect(repository, &below, folder, &path, depth + 1, entries)?;
            }
            Some(ObjectType::Blob) => entries.push(Entry {
                path,
                object: entry.id(),
                kind: if mode == MODE_LINK {
                    EntryKind::Link
                } else {
                    EntryKind::File {
                        executable: mode == MODE_EXECUTABLE,
                    }
                },
                depth,
            }),
            // A submodule: git leaves an empty folder where it was not initialised.
            Some(ObjectType::Commit) if mode == MODE_SUBMODULE => make_folder(&folder.join(&path))?,
            kind => bail!("{} is {kind:?}, which no folder can hold", path.display()),
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    // `create` fails on anything that is already there, a link above all.
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make folder {}", path.display()))
}

fn write_entries(store: &Path, folder: &Path, entries: &[Entry]) -> anyhow::Result<()> {
    let repository = open(store)?;
    for entry in entries {
        let blob = repository
            .find_blob(entry.object)
            .with_context(|| format!("file {} is not among the sources", entry.path.display()))?;
        let path = folder.join(&entry.path);
        match entry.kind {
            EntryKind::Link => {
                let target = checked_target(blob.content(), entry.depth)
                    .with_context(|| format!("link {}", entry.path.display()))?;
                symlink(target, &path)
            }
            EntryKind::File { executable } => {
                let mode = if executable { 0o755 } else { 0o644 };
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(&path)
                    .and_then(|mut file| {
                        file.write_all(blob.content())?;
                        // The umask may have taken bits away that the image would then lack.
                        file.set_permissions(fs::Permissions::from_mode(mode))
                    })
            }
        }
        .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A name that stays in its folder and is not git's own.
fn checked_name(name: &[u8]) -> anyhow::Result<&str> {
    let name = std::str::from_utf8(name).context("a name is not UTF-8")?;
    let lower = name.to_lowercase();
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        bail!("`{}` cannot be a file's name", name.escape_debug());
    }
    if lower == ".git" || lower == "git~1" {
        bail!("`{name}` belongs to git and is refused in a tree");
    }
    Ok(name)
}

/// A link's target, when whatever follows it stays inside.
///
/// Leading `..` step through real folders, because a link's folder is written as a folder; later
/// ones could step out of another link's target and are refused.
pub(crate) fn checked_target(target: &[u8], depth: usize) -> anyhow::Result<&str> {
    let target = std::str::from_utf8(target).context("its target is not UTF-8")?;
    if target.is_empty() || target.contains('\0') || target.starts_with('/') {
        bail!(
            "its target `{}` is not inside the repository",
            target.escape_debug()
        );
    }
    let mut ups = 0;
    let mut went_down = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if went_down => {
                bail!("its target `{target}` goes down and up again; write it plainly")
            }
            ".." => ups += 1,
            part => {
                checked_name(part.as_bytes())?;
                went_down = true;
            }
        }
    }
    if ups > depth {
        bail!("its target `{target}` is not inside the repository");
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{Signature, TreeBuilder};

    /// Builds a tree with names that git's own tools would refuse.
    fn commit(
        repository: &Repository,
        fill: impl FnOnce(&Repository, &mut TreeBuilder<'_>),
    ) -> String {
        let mut builder = repository.treebuilder(None).unwrap();
        fill(repository, &mut builder);
        commit_tree(repository, builder.write().unwrap())
    }

    fn commit_tree(repository: &Repository, tree: Oid) -> String {
        let tree = repository.find_tree(tree).unwrap();
        let author = Signature::now("tester", "tester@example.org").unwrap();
        repository
            .commit(None, &author, &author, "test", &tree, &[])
            .unwrap()
            .to_string()
    }

    fn blob(repository: &Repository, text: &str) -> Oid {
        repository.blob(text.as_bytes()).unwrap()
    }

    fn setup() -> (tempfile::TempDir, Repository, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(place.path().join("store")).unwrap();
        // Hostile trees come over the wire, where nothing has checked them.
        let folder = place.path().join("tree");
        fs::create_dir(&folder).unwrap();
        (place, repository, folder)
    }

    /// A tree object from raw bytes, past every check of libgit2's builder.
    fn raw_tree(repository: &Repository, entries: &[(&str, &str, Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, object) in entries {
            bytes.extend(format!("{mode} {name}\0").into_bytes());
            bytes.extend(object.as_bytes());
        }
        repository
            .odb()
            .unwrap()
            .write(ObjectType::Tree, &bytes)
            .unwrap()
    }

    #[test]
    fn files_folders_bits_and_links_are_kept() {
        let (_place, repository, folder) = setup();
        let commit = commit(&repository, |repository, root| {
            let mut below = repository.treebuilder(None).unwrap();
            below
                .insert("run.sh", blob(repository, "#!/bin/sh\n"), MODE_EXECUTABLE)
                .unwrap();
            below
                .insert("up", blob(repository, "../plain.txt"), MODE_LINK)
                .unwrap();
            root.insert("bin", below.write().unwrap(), 0o040000)
                .unwrap();
            root.insert("plain.txt", blob(repository, "hello\n"), 0o100644)
                .unwrap();
        });
        write_tree(repository.path(), &commit, &folder).unwrap();
        assert_eq!(
            fs::read_to_string(folder.join("bin/up")).unwrap(),
            "hello\n"
        );
        assert!(folder.join("bin/up").is_symlink());
        let mode = |path: &str| {
            fs::metadata(folder.join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("bin/run.sh"), mode("plain.txt")), (0o755, 0o644));
    }

    #[test]
    fn many_files_are_written_by_several_threads() {
        let (_place, repository, folder) = setup();
        let commit = commit(&repository, |repository, root| {
            for number in 0..FILES_WORTH_A_THREAD + 7 {
                root.insert(
                    format!("f{number}"),
                    blob(repository, &number.to_string()),
                    0o100644,
                )
                .unwrap();
            }
        });
        write_tree(repository.path(), &commit, &folder).unwrap();
        for number in 0..FILES_WORTH_A_THREAD + 7 {
            let text = fs::read_to_string(folder.join(format!("f{number}"))).unwrap();
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["..", ".", ".git", ".GIT", "git~1", "a/b"] {
            let (place, repository, folder) = setup();
            let file = blob(&repository, "x");
            let tree = raw_tree(&repository, &[("100644", name, file)]);
            let commit = commit_tree(&repository, tree);
            let error = write_tree(repository.path(), &commit, &folder).unwrap_err();
            assert!(
                fs::read_dir(&folder).unwrap().next().is_none(),
                "{name}: {error:#}"
            );
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "{name}");
        }
    }

    #[test]
    fn links_that_leave_the_folder_are_refused() {
        for target in [
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "",
            ".git/config",
        ] {
            let (_place, repository, folder) = setup();
            let commit = commit(&repository, |repository, root| {
                root.insert("link", blob(repository, target), MODE_LINK)
                    .unwrap();
            });
            let error = write_tree(repository.path(), &commit, &folder).unwrap_err();
            assert!(
                format!("{error:#}").contains("link link"),
                "{target}: {error:#}"
            );
            assert!(!folder.join("link").is_symlink(), "{target}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_of_the_same_name() {
        let (place, repository, folder) = setup();
        let file = blob(&repository, "owned");
        let link = blob(&repository, "elsewhere");
        let below = raw_tree(&repository, &[("100644", "file", file)]);
        let tree = raw_tree(&repository, &[("120000", "a", link), ("40000", "a", below)]);
        let commit = commit_tree(&repository, tree);
        assert!(write_tree(repository.path(), &commit, &folder).is_err());
        assert!(!place.path().join("elsewhere").exists());
        assert!(!folder.join("elsewhere").exists());
    }

    #[test]
    fn a_missing_object_is_named() {
        let (_place, repository, folder) = setup();
        let absent = Oid::from_str("1111111111111111111111111111111111111111").unwrap();
        let tree = raw_tree(&repository, &[("100644", "gone.txt", absent)]);
        let commit = commit_tree(&repository, tree);
        let error = write_tree(repository.path(), &commit, &folder).unwrap_err();
        assert!(format!("{error:#}").contains("gone.txt"), "{error:#}");
    }
}
