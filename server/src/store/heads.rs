//! Where branches stood when they were compared last, and which pushes were told.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::schema::{branch_files, branch_heads, deliveries, projects, schedule_moments};
use super::{Result, Store, StoreError};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::heads::{Branches, Heads};
use roadstead_pipelines::id::{CommitSha, ProjectName};

/// What names a push, whoever tells of it and however often.
pub(super) fn semantic_key(
    project: &ProjectName,
    git_ref: &str,
    commit: &CommitSha,
    event: &str,
) -> String {
    format!("{project} {git_ref} {commit} {event}")
}

fn noted(connection: &mut AnyConnection, project: &ProjectName) -> Result<Heads> {
    let rows: Vec<(String, String)> = branch_heads::table
        .filter(branch_heads::project.eq(project.as_str()))
        .select((branch_heads::git_ref, branch_heads::commit_sha))
        .load(connection)?;
    rows.into_iter()
        .map(|(git_ref, commit)| {
            let commit = Row("branch", &git_ref).word("commit_sha", &commit)?;
            Ok((git_ref, commit))
        })
        .collect()
}

impl Store {
    /// Where the branches of a project's repository stood when they were noted last; `None` when they
    /// never were, or `repository` is the project's no longer: another server has a newer configuration.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project.
    pub async fn noted_heads(
        &self,
        project: &ProjectName,
        repository: &str,
    ) -> Result<Option<Heads>> {
        let (project, repository) = (project.clone(), repository.to_owned());
        self.read(move |c| {
            let known: Option<(String, Option<i64>)> = projects::table
                .find(project.as_str())
                .select((projects::repository, projects::heads_compared_at))
                .first(c)
                .optional()?;
            let (known, at) =
                known.ok_or_else(|| StoreError::not_found(format!("project `{project}`")))?;
            let at = at.filter(|_| known == repository);
            at.map(|_| noted(c, &project)).transpose()
        })
        .await
    }

    /// Those of these pushes that no delivery told of.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn untold(&self, project: &ProjectName, pushes: Heads) -> Result<Heads> {
        let project = project.clone();
        self.read(move |c| {
            let mut untold = Heads::new();
            for (git_ref, commit) in pushes {
                let key = semantic_key(&project, &git_ref, &commit, "push");
                let told: Option<i64> = deliveries::table
                    .filter(deliveries::semantic_key.eq(Some(key)))
                    .select(deliveries::id)
                    .first(c)
                    .optional()?;
                if told.is_none() {
                    untold.insert(git_ref, commit);
                }
            }
            Ok(untold)
        })
        .await
    }

    /// Notes where the branches of a project's repository stand: these and no others, and which one it names as
    /// its own. Nothing is noted when `repository` is the project's no longer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn note_heads(
        &self,
        project: &ProjectName,
        repository: &str,
        Branches { heads, default }: Branches,
        now: Timestamp,
    ) -> Result<()> {
        let (project, repository) = (project.clone(), repository.to_owned());
        self.write(move |c| {
            // Of servers that note at the same time the second waits here.
            let ours = projects::table
                .find(project.as_str())
                .filter(projects::repository.eq(&repository));
            let noted_now = (
                projects::heads_compared_at.eq(micros(now)),
                projects::default_branch.eq(default.as_deref()),
            );
            if diesel::update(ours).set(noted_now).execute(c)? == 0 {
                return Ok(());
            }
            let before = noted(c, &project)?;
            for git_ref in before.keys().filter(|it| !heads.contains_key(*it)) {
                let gone = branch_heads::table.find((project.as_str(), git_ref));
                diesel::delete(gone).execute(c)?;
                let file = branch_files::table.find((project.as_str(), git_ref));
                diesel::delete(file).execute(c)?;
                let moments = schedule_moments::table
                    .filter(schedule_moments::project.eq(project.as_str()))
                    .filter(schedule_moments::git_ref.eq(git_ref));
                diesel::delete(moments).execute(c)?;
            }
            for (git_ref, commit) in &heads {
                match before.get(git_ref) {
                    Some(noted) if noted == commit => {}
                    Some(_) => {
                        let known = branch_heads::table.find((project.as_str(), git_ref));
                        diesel::update(known)
                            .set(branch_heads::commit_sha.eq(commit.as_str()))
                            .execute(c)?;
                    }
                    None => {
                        diesel::insert_into(branch_heads::table)
                            .values((
                                branch_heads::project.eq(project.as_str()),
                                branch_heads::git_ref.eq(git_ref),
                                branch_heads::commit_sha.eq(commit.as_str()),
                            ))
                            .execute(c)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }
}
