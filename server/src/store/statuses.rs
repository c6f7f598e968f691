//! What forges are to show beside commits: stored in the transaction of what it tells of, leased by whoever
//! tells it.
//!
//! A row holds the last word alone, see [`roadstead_pipelines::commit_status`]. No decision about runs reads it, so it
//! moves no lane on. Writers of one row wait for each other: on PostgreSQL each locks it first.

use super::codec::{Row, json, micros};
use super::conn::AnyConnection;
use super::schema::{commit_statuses, projects};
use super::{Result, Store};
use crate::forge::Forge;
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::commit_status::{Answer, Status, Telling};
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::run::Run;

/// A status that has to be told, leased by this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueStatus {
    /// The project.
    pub project: ProjectName,
    /// The commit.
    pub commit: CommitSha,
    /// The branch, tag or pull request whose status it is at the forge, `refs/heads/main`; that of the run.
    pub git_ref: String,
    /// What is told.
    pub telling: Telling,
    /// The row's own ref: empty or [`PULL_REQUESTS`] and a base where the forge keeps none apart.
    slot: String,
}

impl DueStatus {
    /// The branch that its pull request is to be merged to, where the forge keeps none apart.
    #[must_use]
    pub fn base_branch(&self) -> Option<&str> {
        self.slot.strip_prefix(PULL_REQUESTS)
    }
}

/// How the own refs begin of rows of pull requests, where the forge keeps none apart. Each base branch has its own: one of the
/// same commit to another branch, with another pipeline file, says nothing of it.
const PULL_REQUESTS: &str = "pull requests to ";

/// What names a row.
type Key<'a> = (&'a str, &'a str, &'a str);
type Record = (String, String, Option<String>);

/// A row's telling, and who has it leased; others wait for this transaction to change it.
fn locked(
    connection: &mut AnyConnection,
    key: Key<'_>,
) -> Result<Option<(Telling, Option<String>)>> {
    let query = commit_statuses::table.find(key).select((
        commit_statuses::run,
        commit_statuses::telling,
        commit_statuses::leased_by,
    ));
    let found: Option<Record> = match connection {
        AnyConnection::Sqlite(c) => query.first(c).optional()?,
        AnyConnection::Postgres(c) => query.for_update().first(c).optional()?,
    };
    found
        .map(|(run, telling, holder)| {
            Ok((
                Row("status of run", &run).json("telling", &telling)?,
                holder,
            ))
        })
        .transpose()
}

fn save(connection: &mut AnyConnection, key: Key<'_>, telling: &Telling) -> Result<()> {
    diesel::update(commit_statuses::table.find(key))
        .set((
            commit_statuses::run.eq(telling.run.as_str()),
            commit_statuses::telling.eq(json(telling)?),
            commit_statuses::due_at.eq(telling.due().map(micros)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Notes what a run's commit is to show, when a forge is told of this project. The lane has to be moved on
/// already: of two runs of a commit the second waits there.
pub(super) fn note(connection: &mut AnyConnection, run: &Run, now: Timestamp) -> Result<()> {
    let Some(status) = Status::of(run) else {
        return Ok(());
    };
    let told: Option<Option<String>> = projects::table
        .find(run.project.as_str())
        .select(projects::told_forge)
        .first(connection)
        .optional()?;
    let Some(forge) = told.flatten().as_deref().and_then(Forge::parse) else {
        return Ok(());
    };
    let slot = match run.pull_request() {
        _ if forge.keeps_refs_apart() => run.git_ref.clone(),
        // Shown beside that of the commit's branch, under a name of its own.
        Some(it) => format!("{PULL_REQUESTS}{}", it.base_branch()),
        None => String::new(),
    };
    let key = (run.project.as_str(), run.commit.as_str(), slot.as_str());
    if let Some((before, _)) = locked(connection, key)? {
        return match before.changed(&run.id, &status, now) {
            Some(next) => save(connection, key, &next),
            None => Ok(()),
        };
    }
    let telling = Telling::new(run.id.clone(), status, now);
    diesel::insert_into(commit_statuses::table)
        .values((
            commit_statuses::project.eq(key.0),
            commit_statuses::commit_sha.eq(key.1),
            commit_statuses::git_ref.eq(key.2),
            commit_statuses::run.eq(run.id.as_str()),
            commit_statuses::telling.eq(json(&telling)?),
            commit_statuses::due_at.eq(telling.due().map(micros)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Makes what was leased due again; it stays known that somebody had it.
pub(super) fn release_leases(connection: &mut AnyConnection) -> Result<()> {
    let leased = commit_statuses::table.filter(commit_statuses::leased_until.is_not_null());
    diesel::update(leased)
        .set(commit_statuses::leased_until.eq(None::<i64>))
        .execute(connection)?;
    Ok(())
}

/// Forgets what was told of a run that is removed.
pub(super) fn forget(connection: &mut AnyConnection, run: &str) -> Result<()> {
    diesel::delete(commit_statuses::table.filter(commit_statuses::run.eq(run)))
        .execute(connection)?;
    Ok(())
}

/// The longest due of a project that nobody has leased. On PostgreSQL it is locked, and one that another server
/// has locked is left to it.
fn longest_due(
    connection: &mut AnyConnection,
    project: &ProjectName,
    now: Timestamp,
) -> Result<Option<(String, String)>> {
    let query = commit_statuses::table
        .filter(commit_statuses::project.eq(project.as_str()))
        .filter(commit_statuses::due_at.le(micros(now)))
        .filter(
            commit_statuses::leased_until
                .is_null()
                .or(commit_statuses::leased_until.lt(micros(now))),
        )
        .order((
            commit_statuses::due_at,
            commit_statuses::commit_sha,
            commit_statuses::git_ref,
        ))
        .limit(1)
        .select((commit_statuses::commit_sha, commit_statuses::git_ref));
    Ok(match connection {
        AnyConnection::Sqlite(c) => query.first(c).optional()?,
        AnyConnection::Postgres(c) => query.for_update().skip_locked().first(c).optional()?,
    })
}

impl Store {
    /// Says which forge is told of a project's runs from now on. Another one than before is not told of what was:
    /// nobody noted meanwhile how that went on.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn set_told_forge(&self, project: &ProjectName, forge: Option<Forge>) -> Result<()> {
        let project = project.clone();
        self.write(move |c| {
            let word = forge.map(Forge::word);
            let row = projects::table.find(project.as_str());
            let before: Option<Option<String>> =
                row.select(projects::told_forge).first(c).optional()?;
            if before.flatten().as_deref() == word {
                return Ok(());
            }
            diesel::update(row)
                .set(projects::told_forge.eq(word))
                .execute(c)?;
            let its = commit_statuses::project.eq(project.as_str());
            diesel::delete(commit_statuses::table.filter(its)).execute(c)?;
            Ok(())
        })
        .await
    }

    /// Projects of which a status is due and not leased.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn projects_to_tell(&self, now: Timestamp) -> Result<Vec<ProjectName>> {
        self.read(move |c| {
            let found: Vec<String> = commit_statuses::table
                .filter(commit_statuses::due_at.le(micros(now)))
                .filter(
                    commit_statuses::leased_until
                        .is_null()
                        .or(commit_statuses::leased_until.lt(micros(now))),
                )
                .select(commit_statuses::project)
                .distinct()
                .load(c)?;
            let named = found.iter();
            named
                .map(|name| Row("status", name).word("project", name))
                .collect()
        })
        .await
    }

    /// The status of a project that is due longest, leased by this server until `until`. One whose lease ran out
    /// was left behind by its holder, who may have told it.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn lease_status(
        &self,
        project: &ProjectName,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<DueStatus>> {
        let (project, holder) = (project.clone(), self.id().to_owned());
        self.write(move |c| {
            let Some((commit, slot)) = longest_due(c, &project, now)? else {
                return Ok(None);
            };
            let key = (project.as_str(), commit.as_str(), slot.as_str());
            let Some((mut telling, before)) = locked(c, key)? else {
                return Ok(None);
            };
            if before.is_some() {
                telling = telling.left_behind(now);
            }
            save(c, key, &telling)?;
            diesel::update(commit_statuses::table.find(key))
                .set((
                    commit_statuses::leased_by.eq(Some(&holder)),
                    commit_statuses::leased_until.eq(Some(micros(until))),
                ))
                .execute(c)?;
            let git_ref: Option<String> = super::schema::runs::table
                .find(telling.run.as_str())
                .select(super::schema::runs::git_ref)
                .first(c)
                .optional()?;
            Ok(Some(DueStatus {
                commit: Row("status", &commit).word("commit_sha", &commit)?,
                git_ref: git_ref.unwrap_or_default(),
                project: project.clone(),
                telling,
                slot,
            }))
        })
        .await
    }

    /// Notes what came of telling a status, and gives how it stands now. When another server had it meanwhile, this one
    /// called the forge too late: that is all that is noted. `None` when its run was removed.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn status_answered(
        &self,
        due: &DueStatus,
        answer: Answer,
        now: Timestamp,
    ) -> Result<Option<Telling>> {
        let (due, own) = (due.clone(), self.id().to_owned());
        self.write(move |c| {
            let key = (due.project.as_str(), due.commit.as_str(), due.slot.as_str());
            match locked(c, key)? {
                None => Ok(None),
                Some((telling, holder)) if holder.as_deref() != Some(&own) => {
                    let next = telling.left_behind(now);
                    save(c, key, &next)?;
                    Ok(Some(next))
                }
                Some((telling, _)) => {
                    let next = telling.answered(&due.telling, &answer, now);
                    save(c, key, &next)?;
                    diesel::update(commit_statuses::table.find(key))
                        .set((
                            commit_statuses::leased_by.eq(None::<String>),
                            commit_statuses::leased_until.eq(None::<i64>),
                        ))
                        .execute(c)?;
                    Ok(Some(next))
                }
            }
        })
        .await
    }

    /// How telling the forge of a run stands; `None` when it is not told of it, or of a newer run of the commit.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn status_of_run(&self, run: &RunId) -> Result<Option<Telling>> {
        let id = run.to_string();
        self.read(move |c| {
            let found: Option<String> = commit_statuses::table
                .filter(commit_statuses::run.eq(&id))
                .select(commit_statuses::telling)
                .first(c)
                .optional()?;
            let row = Row("status of run", &id);
            found
                .map(|telling| row.json("telling", &telling))
                .transpose()
        })
        .await
    }
}
