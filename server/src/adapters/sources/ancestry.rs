//! Which commits come after another one. What this server's mirror lacks is fetched first: of several
//! servers, another one may have read it, and a mirror that was made anew holds little.

use super::{Remote, Sources, SourcesError, commit_behind, oid};
use git2::{Oid, Sort};
use roadstead_pipelines::id::{CommitSha, ProjectName};
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Sources {
    /// The newest commit that is in the history of two that were fetched; `None` when there is none.
    ///
    /// # Errors
    /// [`SourcesError::Mirror`].
    pub async fn merge_base(
        &self,
        project: &ProjectName,
        one: &CommitSha,
        other: &CommitSha,
    ) -> Result<Option<CommitSha>, SourcesError> {
        let (one, other) = (one.clone(), other.clone());
        self.mirror(project)
            .with(move |mirror, repository| {
                let found = oid(&one)
                    .and_then(|one| Ok((one, oid(&other)?)))
                    .and_then(|(one, other)| repository.merge_base(one, other));
                match found {
                    Ok(id) => Ok(CommitSha::parse(&id.to_string())),
                    Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
                    Err(error) => Err(mirror.error(&error)),
                }
            })
            .await
    }

    /// Those of `others` that come after a commit; each is given with the ref that it was pushed to. An annotated
    /// tag counts as the commit that it names, and is told by its own id. One that the repository does not
    /// give any more comes after nothing.
    ///
    /// # Errors
    /// [`SourcesError::NoCommit`] when neither mirror nor repository have the commit itself; another
    /// one when the repository cannot be reached or refuses, as then nothing is known.
    pub async fn descendants(
        &self,
        project: &ProjectName,
        remote: &Remote,
        (commit, git_ref): (&CommitSha, &str),
        others: BTreeMap<CommitSha, String>,
    ) -> Result<BTreeSet<CommitSha>, SourcesError> {
        self.fetch(project, remote, commit, git_ref).await?;
        for (other, git_ref) in &others {
            // With one that is missing others often come, so each is looked for when it is its turn.
            if self.hold(project, other).await {
                continue;
            }
            match self.fetch(project, remote, other, git_ref).await {
                Err(error) if !error.is_absence() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let commit = commit.clone();
        self.mirror(project)
            .with(move |mirror, repository| {
                // One walk for all, parents first; it never goes behind the commit.
                let walked = || {
                    let base = oid(&commit)?;
                    let mut walk = repository.revwalk()?;
                    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
                    for other in others.keys() {
                        if let Ok(other) = commit_behind(repository, oid(other)?) {
                            walk.push(other.id())?;
                        }
                    }
                    walk.hide(base)?;
                    let mut after: HashSet<Oid> = HashSet::from([base]);
                    for id in walk {
                        let id = id?;
                        let walked = repository.find_commit(id)?;
                        if walked.parent_ids().any(|parent| after.contains(&parent)) {
                            after.insert(id);
                        }
                    }
                    after.remove(&base);
                    Ok::<_, git2::Error>(after)
                };
                let after = walked().map_err(|error| mirror.error(&error))?;
                let comes_after = |other: &CommitSha| {
                    oid(other)
                        .and_then(|id| commit_behind(repository, id))
                        .is_ok_and(|commit| after.contains(&commit.id()))
                };
                Ok(others.into_keys().filter(comes_after).collect())
            })
            .await
    }
}
