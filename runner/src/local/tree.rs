//! The files that somebody works on, as a commit of them would bring them to a runner.
//!
//! Owns which files these are: what git tracks or would track, as it lies there now, changed or not; what
//! git ignores stays out, as do the insides of submodules. The rules for links are a checkout's.
//! Synchronous.

use crate::checkout::checked_target;
use anyhow::{Context, bail};
use git2::{ErrorCode, Repository, Status, StatusOptions, StatusShow};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

/// A checked-out repository.
#[derive(Debug, Clone)]
pub struct WorkingTree {
    /// The folder of `.git`.
    pub root: PathBuf,
    /// The commit that was checked out, 40 hexadecimal digits; zeros before the first one.
    pub commit: String,
    /// Its branch, `refs/heads/main`; `HEAD` when there is none.
    pub git_ref: String,
}

impl WorkingTree {
    /// The repository that `folder` lies in.
    ///
    /// # Errors
    /// When it lies in none, or in one without files.
    pub fn around(folder: &Path) -> anyhow::Result<Self> {
        let repository = Repository::discover(folder).map_err(|error| {
            let place = folder.display();
            let text = match error.code() {
                ErrorCode::NotFound => format!(
                    "{place} lies in no git repository: git tells which files a run gets, so begin \
                     with `git init`"
                ),
                _ => format!(
                    "cannot open the git repository of {place}: {}",
                    error.message()
                ),
            };
            anyhow::Error::msg(text)
        })?;
        let Some(root) = repository.workdir() else {
            bail!("{} is a bare repository and has no files", folder.display());
        };
        let head = repository.head().ok();
        let commit = head.as_ref().and_then(|head| head.peel_to_commit().ok());
        let name = head.as_ref().and_then(|head| head.name().ok());
        Ok(Self {
            root: root.to_owned(),
            commit: commit.map_or_else(|| "0".repeat(40), |commit| commit.id().to_string()),
            git_ref: name.unwrap_or("HEAD").to_owned(),
        })
    }

    /// Copies the files into `folder`, which exists and is empty.
    ///
    /// # Errors
    /// A link that leads out of the repository, which a runner refuses too, or a file that cannot be read
    /// or written.
    pub(crate) fn copy(&self, folder: &Path) -> anyhow::Result<()> {
        for path in self.paths()? {
            self.copy_one(&path, folder)
                .with_context(|| format!("cannot copy `{}`", path.display()))?;
        }
        Ok(())
    }

    fn paths(&self) -> anyhow::Result<BTreeSet<PathBuf>> {
        let repository = Repository::open(&self.root)
            .with_context(|| format!("cannot open the repository {}", self.root.display()))?;
        let to_path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        let index = repository.index().context("cannot read git's index")?;
        let mut paths: BTreeSet<_> = index.iter().map(|entry| to_path(&entry.path)).collect();
        let mut options = StatusOptions::new();
        options
            .show(StatusShow::Workdir)
            .include_untracked(true)
            .recurse_untracked_dirs(true)
            .exclude_submodules(true);
        let statuses = repository
            .statuses(Some(&mut options))
            .context("git does not tell which files are new")?;
        let new = statuses
            .iter()
            .filter(|entry| entry.status().contains(Status::WT_NEW));
        paths.extend(new.map(|entry| to_path(entry.path_bytes())));
        Ok(paths)
    }

    fn copy_one(&self, path: &Path, folder: &Path) -> anyhow::Result<()> {
        let from = self.root.join(path);
        let to = folder.join(path);
        let metadata = match fs::symlink_metadata(&from) {
            Ok(metadata) => metadata,
            // Tracked, and removed since: a commit would not have it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        // A submodule, or a repository within this one, whose inside is not this one's.
        let of_its_own = metadata.is_dir();
        let parent = if of_its_own {
            Some(to.as_path())
        } else {
            to.parent()
        };
        if let Some(parent) = parent {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)?;
        }
        if metadata.is_symlink() {
            let target = fs::read_link(&from)?;
            let depth = path.components().count().saturating_sub(1);
            symlink(checked_target(target.as_os_str().as_bytes(), depth)?, &to)?;
        } else if metadata.is_file() {
            fs::copy(&from, &to)?;
            let executable = metadata.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
        }
        // Sockets, pipes and devices cannot be committed.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{IndexAddOption, Signature};

    /// A repository with one commit of these files.
    fn repository(files: &[(&str, &str)]) -> (tempfile::TempDir, Repository) {
        let place = tempfile::tempdir().unwrap();
        let repository = Repository::init(place.path()).unwrap();
        for (path, text) in files {
            write(place.path(), path, text);
        }
        let mut index = repository.index().unwrap();
        index.add_all(["*"], IndexAddOption::FORCE, None).unwrap();
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let author = Signature::now("tester", "tester@example.org").unwrap();
        repository
            .commit(Some("HEAD"), &author, &author, "test", &tree, &[])
            .unwrap();
        drop(tree);
        (place, repository)
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn copy(root: &Path) -> anyhow::Result<tempfile::TempDir> {
        let folder = tempfile::tempdir().unwrap();
        WorkingTree::around(root)?.copy(folder.path())?;
        Ok(folder)
    }

    fn list(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(inner) = folders.pop() {
            for entry in fs::read_dir(inner).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_git_tracks_or_would_track_is_copied_as_it_lies_there() {
        let (place, _) = repository(&[
            (".gitignore", "*.log\ntarget/\n"),
            ("kept.log", "tracked although ignored"),
            ("changed", "old"),
            ("removed", "x"),
            ("src/main", "x"),
        ]);
        let root = place.path();
        write(root, "changed", "new");
        fs::remove_file(root.join("removed")).unwrap();
        write(root, "new/deep/file", "x");
        write(root, "noise.log", "x");
        write(root, "target/debug/app", "x");
        fs::set_permissions(root.join("src/main"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("main", root.join("src/link")).unwrap();

        let copy = copy(&root.join("src")).unwrap();
        let copy = copy.path();
        assert_eq!(
            list(copy),
            [
                ".gitignore",
                "changed",
                "kept.log",
                "new",
                "new/deep",
                "new/deep/file",
                "src",
                "src/link",
                "src/main"
            ]
        );
        assert_eq!(fs::read_to_string(copy.join("changed")).unwrap(), "new");
        let mode = |path| fs::metadata(copy.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("src/main"), mode("changed")), (0o755, 0o644));
        assert_eq!(
            fs::read_link(copy.join("src/link")).unwrap(),
            Path::new("main")
        );
    }

    #[test]
    fn a_repository_within_is_an_empty_folder() {
        let (place, _) = repository(&[("a", "x")]);
        Repository::init(place.path().join("inner")).unwrap();
        write(place.path(), "inner/file", "x");
        assert_eq!(list(copy(place.path()).unwrap().path()), ["a", "inner"]);
    }

    #[test]
    fn a_link_that_leads_out_is_refused_by_name() {
        let (place, _) = repository(&[("a", "x")]);
        symlink("/etc/hostname", place.path().join("out")).unwrap();
        let error = format!("{:#}", copy(place.path()).unwrap_err());
        assert!(error.contains("cannot copy `out`"), "{error}");
        assert!(error.contains("is not inside the repository"), "{error}");
    }

    #[test]
    fn commit_and_branch_are_told_also_before_the_first_commit() {
        let (place, repository) = repository(&[("a", "x")]);
        let tree = WorkingTree::around(place.path()).unwrap();
        let head = repository.head().unwrap();
        assert_eq!(tree.commit, head.target().unwrap().to_string());
        assert_eq!(tree.git_ref, head.name().unwrap());
        let empty = tempfile::tempdir().unwrap();
        Repository::init(empty.path()).unwrap();
        let tree = WorkingTree::around(empty.path()).unwrap();
        assert_eq!(
            (tree.commit, tree.git_ref.as_str()),
            ("0".repeat(40), "HEAD")
        );
        assert_eq!(
            list(copy(empty.path()).unwrap().path()),
            Vec::<String>::new()
        );
    }
}
