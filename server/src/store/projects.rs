//! Projects and their lanes' birth.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{deployments, lanes, projects, runs};
use super::{Project, Result, Store, StoreError, audit, lane};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::ProjectName;
use serde_json::{Value, json};

type Record = (
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
);

fn read(record: Record) -> Result<Project> {
    let (name, repository, webhook_secret, created_at, compared, _, default_branch) = record;
    let row = Row("project", &name);
    Ok(Project {
        name: row.word("name", &name)?,
        created_at: row.time(created_at)?,
        heads_compared_at: row.maybe_time(compared)?,
        repository,
        webhook_secret,
        default_branch,
    })
}

pub(super) fn all(connection: &mut AnyConnection) -> Result<Vec<Project>> {
    let found: Vec<Record> = projects::table.order(projects::name).load(connection)?;
    found.into_iter().map(read).collect()
}

/// A project that a reconciler may have to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneMark {
    /// The project.
    pub project: ProjectName,
    /// Grows with every change of what a decision may rest on.
    pub generation: i64,
    /// A run or deployment is not over, so time alone may change what follows.
    pub live: bool,
}

fn insert(
    connection: &mut AnyConnection,
    name: &ProjectName,
    (repository, webhook_secret): (String, String),
    now: Timestamp,
) -> Result<()> {
    diesel::insert_into(projects::table)
        .values((
            projects::name.eq(name.as_str()),
            projects::repository.eq(repository),
            projects::webhook_secret.eq(webhook_secret),
            projects::created_at.eq(micros(now)),
        ))
        .execute(connection)?;
    diesel::insert_into(lanes::table)
        .values((
            lanes::project.eq(name.as_str()),
            lanes::generation.eq(0),
            lanes::next_run.eq(1),
            lanes::next_release.eq(1),
            lanes::next_deployment.eq(1),
        ))
        .execute(connection)?;
    audit::begin_chain(connection, name)
}

impl Store {
    /// Makes a project, or changes its address and key.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn upsert_project(
        &self,
        name: ProjectName,
        repository: String,
        webhook_secret: String,
        now: Timestamp,
    ) -> Result<()> {
        let work = move |c: &mut AnyConnection| {
            let known: Option<(String, String)> = projects::table
                .find(name.as_str())
                .select((projects::repository, projects::webhook_secret))
                .first(c)
                .optional()?;
            let new = (repository.clone(), webhook_secret.clone());
            let (what, before) = match known {
                Some(known) if known == new => return Ok(()),
                Some((before, _)) => {
                    lane::bump(c, &name)?;
                    let row = projects::table.find(name.as_str());
                    let values = (
                        projects::repository.eq(&repository),
                        projects::webhook_secret.eq(&webhook_secret),
                    );
                    diesel::update(row).set(values).execute(c)?;
                    if before != repository {
                        // What stands in another repository was not pushed since.
                        let anew = (
                            projects::heads_compared_at.eq(None::<i64>),
                            projects::default_branch.eq(None::<String>),
                        );
                        diesel::update(row).set(anew).execute(c)?;
                    }
                    ("project_changed", json!(before))
                }
                None => {
                    insert(c, &name, new, now)?;
                    ("project_added", Value::Null)
                }
            };
            let line = Line {
                at: now,
                project: Some(&name),
                subject: "project",
                actor: "Roadstead",
                what,
                before,
                after: json!(repository),
                detail: &json!({"reason": "the server's configuration says so"}),
            };
            audit::append(c, &line)
        };
        match self.write(work.clone()).await {
            // Another server that starts was faster: now it is there.
            Err(StoreError::Conflict { .. }) => self.write(work).await,
            done => done,
        }
    }

    /// Every project, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_projects(&self) -> Result<Vec<Project>> {
        self.read(all).await
    }

    /// One project.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_project(&self, name: &ProjectName) -> Result<Project> {
        let name = name.clone();
        self.read(move |c| {
            let found: Option<Record> = projects::table.find(name.as_str()).first(c).optional()?;
            let found = found.ok_or_else(|| StoreError::not_found(format!("project `{name}`")))?;
            read(found)
        })
        .await
    }

    /// Every lane, cheaply: to tell whether there is anything to plan.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn lane_marks(&self) -> Result<Vec<LaneMark>> {
        self.read(|c| {
            let lanes: Vec<(String, i64)> = lanes::table
                .select((lanes::project, lanes::generation))
                .order(lanes::project)
                .load(c)?;
            let mut live: Vec<String> = runs::table
                .filter(runs::ended_at.is_null())
                .select(runs::project)
                .distinct()
                .load(c)?;
            let deploying: Vec<String> = deployments::table
                .filter(deployments::ended_at.is_null())
                .select(deployments::project)
                .distinct()
                .load(c)?;
            live.extend(deploying);
            lanes
                .into_iter()
                .map(|(project, generation)| {
                    Ok(LaneMark {
                        project: Row("lane", &project).word("project", &project)?,
                        generation,
                        live: live.contains(&project),
                    })
                })
                .collect()
        })
        .await
    }
}
