//! Releases as rows: written once, never changed.

use super::codec::{Row, json, micros, signed};
use super::conn::AnyConnection;
use super::schema::releases;
use super::{Result, Store, StoreError};
use diesel::prelude::*;
use roadstead_pipelines::authorship::Authorship;
use roadstead_pipelines::id::{ProjectName, ReleaseId};
use roadstead_pipelines::release::Release;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Queryable, Insertable)]
#[diesel(table_name = releases, treat_none_as_default_value = false)]
struct Record {
    id: String,
    project: String,
    number: i64,
    run: Option<String>,
    commit_sha: String,
    message: String,
    author: String,
    images: String,
    variables: String,
    created_at: i64,
    authorship: Option<String>,
    descendants: String,
    task_definitions: String,
}

impl Record {
    fn read(self) -> Result<Release> {
        let row = Row("release", &self.id);
        Ok(Release {
            id: row.word("id", &self.id)?,
            run: self
                .run
                .as_deref()
                .map(|id| row.word("run", id))
                .transpose()?,
            commit: row.word("commit_sha", &self.commit_sha)?,
            descendants: row.json("descendants", &self.descendants)?,
            images: row.json("images", &self.images)?,
            variables: row.json("variables", &self.variables)?,
            task_definitions: row.json("task_definitions", &self.task_definitions)?,
            created_at: row.time(self.created_at)?,
            authorship: self
                .authorship
                .as_deref()
                .map(|text| row.json("authorship", text))
                .transpose()?,
            message: self.message,
            author: self.author,
        })
    }
}

pub(super) fn insert(connection: &mut AnyConnection, release: &Release) -> Result<()> {
    let record = Record {
        id: release.id.to_string(),
        project: release.id.project().to_string(),
        number: signed(release.id.number()),
        run: release.run.as_ref().map(ToString::to_string),
        commit_sha: release.commit.to_string(),
        message: release.message.clone(),
        author: release.author.clone(),
        images: json(&release.images)?,
        variables: json(&release.variables)?,
        created_at: micros(release.created_at),
        authorship: release.authorship.as_ref().map(json).transpose()?,
        descendants: json(&release.descendants)?,
        task_definitions: json(&release.task_definitions)?,
    };
    diesel::insert_into(releases::table)
        .values(record)
        .execute(connection)?;
    Ok(())
}

pub(super) fn find(connection: &mut AnyConnection, id: &ReleaseId) -> Result<Release> {
    let found: Option<Record> = releases::table
        .find(id.as_str())
        .first(connection)
        .optional()?;
    found
        .ok_or_else(|| StoreError::not_found(format!("release {id}")))?
        .read()
}

/// Releases by id; ids without a row are left out.
pub(super) fn some(
    connection: &mut AnyConnection,
    ids: &BTreeSet<ReleaseId>,
) -> Result<Vec<Release>> {
    let ids: Vec<_> = ids.iter().map(ReleaseId::as_str).collect();
    let found: Vec<Record> = releases::table
        .filter(releases::id.eq_any(ids))
        .load(connection)?;
    found.into_iter().map(Record::read).collect()
}

/// Releases of a project with a number below `before`, newest first.
pub(super) fn newest(
    connection: &mut AnyConnection,
    project: &ProjectName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Release>> {
    let found: Vec<Record> = releases::table
        .filter(releases::project.eq(project.as_str()))
        .filter(releases::number.lt(before.map_or(i64::MAX, signed)))
        .order(releases::number.desc())
        .limit(i64::from(limit))
        .load(connection)?;
    found.into_iter().map(Record::read).collect()
}

/// Who made releases, from number `from` on; those of which it is not known are left out.
pub(super) fn authorship(
    connection: &mut AnyConnection,
    project: &ProjectName,
    from: u64,
    limit: i64,
) -> Result<BTreeMap<ReleaseId, Authorship>> {
    let found: Vec<(String, Option<String>)> = releases::table
        .filter(releases::project.eq(project.as_str()))
        .filter(releases::number.ge(signed(from)))
        .filter(releases::authorship.is_not_null())
        .order(releases::number.desc())
        .limit(limit)
        .select((releases::id, releases::authorship))
        .load(connection)?;
    let mut all = BTreeMap::new();
    for (id, text) in found {
        let row = Row("release", &id);
        if let Some(text) = &text {
            all.insert(row.word("id", &id)?, row.json("authorship", text)?);
        }
    }
    Ok(all)
}

impl Store {
    /// One release.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_release(&self, id: &ReleaseId) -> Result<Release> {
        let id = id.clone();
        self.read(move |c| find(c, &id)).await
    }

    /// A project's releases, newest first; `before` is a release's number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_releases(
        &self,
        project: &ProjectName,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Release>> {
        let project = project.clone();
        self.read(move |c| newest(c, &project, before, limit)).await
    }
}
