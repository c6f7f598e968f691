//! Reads commits, files and differences out of a mirror, by object id.

use super::{Mirror, Sources, SourcesError, commit_behind, oid};
use git2::{ObjectType, Oid, Repository, Tree};
use roadstead_pipelines::authorship::{Addresses, AuthorsSince, Authorship, address};
use roadstead_pipelines::id::{CommitSha, ProjectName, ReleaseId};
use std::collections::BTreeSet;

/// Of so many commits between two releases it is read who made them.
const MOST_COMMITS: usize = 10_000;
/// Bytes of a message that are read.
const LONGEST_MESSAGE: usize = 64 * 1024;
const MODE_SYMLINK: i32 = 0o120_000;

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSeen {
    /// Its id: another one than it was asked by, if that is an annotated tag's.
    pub id: CommitSha,
    /// First line of its message, at most 500 characters.
    pub message: String,
    /// Name of the author.
    pub author: String,
    /// Address of the author.
    pub email: String,
    /// The commits before it.
    pub parents: Vec<CommitSha>,
}

impl Sources {
    /// Reads a commit that was fetched, by its id or by that of an annotated tag that names it.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold it.
    pub async fn read_commit(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
    ) -> Result<CommitSeen, SourcesError> {
        let commit = commit.clone();
        self.mirror(project)
            .with(move |mirror, repository| {
                let id = oid(&commit).map_err(|error| mirror.error(&error))?;
                let behind = commit_behind(repository, id).ok();
                let id = behind.and_then(|found| CommitSha::parse(&found.id().to_string()));
                let id = id.unwrap_or(commit);
                let found = mirror.commit(repository, &id)?;
                let message = found.message_bytes();
                let first = message
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default();
                let author = found.author();
                let text = |bytes: &[u8]| {
                    String::from_utf8_lossy(bytes)
                        .trim()
                        .chars()
                        .take(500)
                        .collect::<String>()
                };
                Ok(CommitSeen {
                    id,
                    message: text(first),
                    author: text(author.name_bytes()),
                    email: text(author.email_bytes()),
                    parents: found
                        .parent_ids()
                        .filter_map(|id| CommitSha::parse(&id.to_string()))
                        .collect(),
                })
            })
            .await
    }

    /// The whole message of a commit that was fetched, at most 64 KiB of it.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold it.
    pub async fn read_message(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
    ) -> Result<String, SourcesError> {
        let commit = commit.clone();
        self.mirror(project)
            .with(move |mirror, repository| {
                let found = mirror.commit(repository, &commit)?;
                let message = found.message_bytes();
                let cut = message.get(..LONGEST_MESSAGE).unwrap_or(message);
                Ok(String::from_utf8_lossy(cut).into_owned())
            })
            .await
    }

    /// Who made a commit, and the commits that it has and each of `others` has not. One of these that
    /// the mirror does not hold, or that is [`MOST_COMMITS`] or more commits away, is left out.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold the commit.
    pub async fn read_authorship(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
        others: Vec<(ReleaseId, CommitSha)>,
    ) -> Result<Authorship, SourcesError> {
        let commit = commit.clone();
        self.mirror(project)
            .with(move |mirror, repository| {
                let mut authorship = Authorship {
                    commit: people_of(&mirror.commit(repository, &commit)?),
                    since: vec![],
                };
                for (release, other) in others {
                    if mirror.commit(repository, &other).is_err() {
                        continue;
                    }
                    let since = since(repository, &commit, release, &other);
                    authorship
                        .since
                        .extend(since.map_err(|error| mirror.error(&error))?);
                }
                Ok(authorship)
            })
            .await
    }

    /// Reads a file of a commit that was fetched. `path` is relative to the repository's root.
    ///
    /// # Errors
    /// [`SourcesError::NoFile`] when it does not exist; [`SourcesError::NotReadable`] when it, or a
    /// folder above it, is a symbolic link or no file, or when it has more than `limit` bytes.
    pub async fn read_blob(
        &self,
        project: &ProjectName,
        commit: &CommitSha,
        path: &str,
        limit: usize,
    ) -> Result<Vec<u8>, SourcesError> {
        let (commit, path) = (commit.clone(), path.to_owned());
        self.mirror(project)
            .with(move |mirror, repository| mirror.read_blob(repository, &commit, &path, limit))
            .await
    }

    /// The paths that differ between two commits that were fetched, sorted; `None` when the mirror
    /// does not hold `from`.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when the mirror does not hold `to`.
    pub async fn changed_paths(
        &self,
        project: &ProjectName,
        from: &CommitSha,
        to: &CommitSha,
    ) -> Result<Option<Vec<String>>, SourcesError> {
        let (from, to) = (from.clone(), to.clone());
        self.mirror(project)
            .with(move |mirror, repository| {
                let new = mirror.tree(repository, &to)?;
                let Ok(old) = mirror.tree(repository, &from) else {
                    return Ok(None);
                };
                let diff = repository
                    .diff_tree_to_tree(Some(&old), Some(&new), None)
                    .map_err(|error| mirror.error(&error))?;
                let mut paths = BTreeSet::new();
                for delta in diff.deltas() {
                    for file in [delta.old_file(), delta.new_file()] {
                        if let Some(path) = file.path_bytes() {
                            paths.insert(String::from_utf8_lossy(path).into_owned());
                        }
                    }
                }
                Ok(Some(paths.into_iter().collect()))
            })
            .await
    }
}

/// Author, committer and co-authors of a commit. One without an address leaves an empty one.
fn people_of(commit: &git2::Commit<'_>) -> Addresses {
    let text = |bytes: &[u8]| address(&String::from_utf8_lossy(bytes));
    let mut people = Addresses::from([
        text(commit.author().email_bytes()),
        text(commit.committer().email_bytes()),
    ]);
    let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
    // What is no trailer is prose: `Co-authored-by` counts where git and forges read it.
    if let Ok(trailers) = git2::message_trailers_strs(&message) {
        for (key, value) in trailers.iter() {
            if key.eq_ignore_ascii_case("co-authored-by") {
                let inside = value
                    .rsplit_once('<')
                    .and_then(|(_, rest)| rest.split_once('>'))
                    .map(|(email, _)| email);
                people.extend(inside.map(address));
            }
        }
    }
    people
}

/// Who made what `commit` has and `other` has not; `None` when that is too much to read.
fn since(
    repository: &Repository,
    commit: &CommitSha,
    release: ReleaseId,
    other: &CommitSha,
) -> Result<Option<AuthorsSince>, git2::Error> {
    let (to, from) = (oid(commit)?, oid(other)?);
    let mut walk = repository.revwalk()?;
    walk.push(to)?;
    walk.hide(from)?;
    let mut people = Addresses::new();
    for (number, id) in walk.enumerate() {
        if number >= MOST_COMMITS {
            return Ok(None);
        }
        people.extend(people_of(&repository.find_commit(id?)?));
    }
    let contained = to == from || repository.graph_descendant_of(to, from)?;
    Ok(Some(AuthorsSince {
        release,
        contained,
        people,
    }))
}

impl Mirror {
    pub(super) fn commit<'repo>(
        &self,
        repository: &'repo Repository,
        commit: &CommitSha,
    ) -> Result<git2::Commit<'repo>, SourcesError> {
        let id = oid(commit).map_err(|error| self.error(&error))?;
        repository
            .find_commit(id)
            .map_err(|_| SourcesError::NoCommit {
                commit: commit.to_string(),
                git_ref: "its branch".into(),
            })
    }

    pub(super) fn tree<'repo>(
        &self,
        repository: &'repo Repository,
        commit: &CommitSha,
    ) -> Result<Tree<'repo>, SourcesError> {
        self.commit(repository, commit)?
            .tree()
            .map_err(|error| self.error(&error))
    }

    fn read_blob(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        path: &str,
        limit: usize,
    ) -> Result<Vec<u8>, SourcesError> {
        let not_readable = |reason: String| SourcesError::NotReadable {
            path: path.to_owned(),
            reason,
        };
        let id = self.find(repository, self.tree(repository, commit)?, path, commit)?;
        let odb = repository.odb().map_err(|error| self.error(&error))?;
        let (size, _) = odb.read_header(id).map_err(|error| self.error(&error))?;
        if size > limit {
            return Err(not_readable(format!(
                "it has {size} bytes, at most {limit} are read"
            )));
        }
        let blob = repository
            .find_blob(id)
            .map_err(|error| self.error(&error))?;
        Ok(blob.content().to_vec())
    }

    /// The blob at `path`, found name by name so that no link is ever followed.
    fn find(
        &self,
        repository: &Repository,
        root: Tree<'_>,
        path: &str,
        commit: &CommitSha,
    ) -> Result<Oid, SourcesError> {
        let not_readable = |reason: &str| SourcesError::NotReadable {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let mut tree = root;
        let mut names = path.split('/').filter(|name| *name != ".").peekable();
        while let Some(name) = names.next() {
            let (id, mode, kind) = match tree.get_name(name) {
                Some(entry) => (entry.id(), entry.filemode_raw(), entry.kind()),
                None => {
                    return Err(SourcesError::NoFile {
                        path: path.to_owned(),
                        commit: commit.short().to_owned(),
                    });
                }
            };
            if mode == MODE_SYMLINK {
                return Err(not_readable(&format!(
                    "`{name}` is a symbolic link, which is not followed; commit the file itself"
                )));
            }
            match (names.peek().is_some(), kind) {
                (false, Some(ObjectType::Blob)) => return Ok(id),
                (false, _) => return Err(not_readable("it is not a file")),
                (true, Some(ObjectType::Tree)) => {
                    tree = repository
                        .find_tree(id)
                        .map_err(|error| self.error(&error))?;
                }
                (true, _) => return Err(not_readable(&format!("`{name}` is not a folder"))),
            }
        }
        Err(not_readable("it is not a path"))
    }
}
