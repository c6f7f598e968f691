//! Deployments as rows, and what pages show of them.

use super::codec::{Row, json, micros, signed};
use super::conn::AnyConnection;
use super::schema::deployments;
use super::{DeploymentDetail, DeploymentFilter, Result, Store, StoreError, effects, releases};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use jiff::Timestamp;
use roadstead_pipelines::deployment::{Deployment, DeploymentState};
use roadstead_pipelines::id::{DeploymentId, Place, ProjectName};
use roadstead_pipelines::world::Verified;
use std::collections::BTreeSet;

/// So many proofs are read per place: what one may roll back to.
const VERIFIED_PER_PLACE: i64 = 50;

#[derive(Queryable, Insertable, AsChangeset)]
#[diesel(table_name = deployments, treat_none_as_null = true, treat_none_as_default_value = false)]
struct Record {
    id: String,
    project: String,
    number: i64,
    environment: String,
    service: String,
    release: String,
    kind: String,
    asked_by: String,
    created_at: i64,
    ended_at: Option<i64>,
    word: String,
    state: String,
}

/// When a deployment was over.
fn ended_at(state: &DeploymentState) -> Option<Timestamp> {
    match state {
        DeploymentState::Queued
        | DeploymentState::RollingOut { .. }
        | DeploymentState::Verifying { .. }
        | DeploymentState::RollingBack { .. } => None,
        DeploymentState::Deployed { at, .. }
        | DeploymentState::Failed { at, .. }
        | DeploymentState::RolledBack { at, .. }
        | DeploymentState::RollbackFailed { at, .. }
        | DeploymentState::Superseded { at, .. }
        | DeploymentState::Cancelled { at, .. }
        | DeploymentState::TimedOut { at, .. } => Some(*at),
    }
}

impl Record {
    fn of(deployment: &Deployment) -> Result<Self> {
        Ok(Self {
            id: deployment.id.to_string(),
            project: deployment.id.project().to_string(),
            number: signed(deployment.id.number()),
            environment: deployment.place.environment.to_string(),
            service: deployment.place.service.to_string(),
            release: deployment.release.to_string(),
            kind: json(&deployment.kind)?,
            asked_by: json(&deployment.trigger)?,
            created_at: micros(deployment.created_at),
            ended_at: ended_at(&deployment.state).map(micros),
            word: deployment.state.word().to_owned(),
            state: json(&deployment.state)?,
        })
    }

    fn read(self) -> Result<Deployment> {
        let row = Row("deployment", &self.id);
        Ok(Deployment {
            id: row.word("id", &self.id)?,
            place: Place {
                environment: row.word("environment", &self.environment)?,
                service: row.word("service", &self.service)?,
            },
            release: row.word("release", &self.release)?,
            kind: row.json("kind", &self.kind)?,
            trigger: row.json("asked_by", &self.asked_by)?,
            created_at: row.time(self.created_at)?,
            state: row.json("state", &self.state)?,
        })
    }
}

pub(super) fn insert(connection: &mut AnyConnection, deployment: &Deployment) -> Result<()> {
    diesel::insert_into(deployments::table)
        .values(Record::of(deployment)?)
        .execute(connection)?;
    Ok(())
}

pub(super) fn save(connection: &mut AnyConnection, deployment: &Deployment) -> Result<()> {
    diesel::update(deployments::table.find(deployment.id.as_str()))
        .set(Record::of(deployment)?)
        .execute(connection)?;
    Ok(())
}

pub(super) fn find(connection: &mut AnyConnection, id: &DeploymentId) -> Result<Deployment> {
    let found: Option<Record> = deployments::table
        .find(id.as_str())
        .first(connection)
        .optional()?;
    found
        .ok_or_else(|| StoreError::not_found(format!("deployment {id}")))?
        .read()
}

/// Deployments of a project that are not over.
pub(super) fn live(
    connection: &mut AnyConnection,
    project: &ProjectName,
) -> Result<Vec<Deployment>> {
    let found: Vec<Record> = deployments::table
        .filter(deployments::project.eq(project.as_str()))
        .filter(deployments::ended_at.is_null())
        .load(connection)?;
    found.into_iter().map(Record::read).collect()
}

/// Deployments by id; ids without a row are left out.
pub(super) fn some(
    connection: &mut AnyConnection,
    ids: &BTreeSet<DeploymentId>,
) -> Result<Vec<Deployment>> {
    let ids: Vec<_> = ids.iter().map(DeploymentId::as_str).collect();
    let found: Vec<Record> = deployments::table
        .filter(deployments::id.eq_any(ids))
        .load(connection)?;
    found.into_iter().map(Record::read).collect()
}

/// Releases that were verified in a place, newest proof first.
pub(super) fn verified(
    connection: &mut AnyConnection,
    project: &ProjectName,
    place: &Place,
) -> Result<Vec<Verified>> {
    let found: Vec<Record> = deployments::table
        .filter(deployments::project.eq(project.as_str()))
        .filter(deployments::environment.eq(place.environment.as_str()))
        .filter(deployments::service.eq(place.service.as_str()))
        // Spelled out, as in the index of what was deployed: with a bound value SQLite would not take it.
        .filter(sql::<Bool>("word = 'deployed'"))
        .order((deployments::ended_at.desc(), deployments::number.desc()))
        .limit(VERIFIED_PER_PLACE)
        .load(connection)?;
    let mut verified = vec![];
    for record in found {
        let deployment = record.read()?;
        if let DeploymentState::Deployed {
            task_definition,
            at,
        } = deployment.state
        {
            verified.push(Verified {
                release: deployment.release,
                task_definition,
                deployment: deployment.id,
                at,
            });
        }
    }
    Ok(verified)
}

impl Store {
    /// A project's deployments, newest first; `before` is a deployment's number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_deployments(
        &self,
        project: &ProjectName,
        filter: DeploymentFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Deployment>> {
        let project = project.clone();
        self.read(move |c| {
            let mut query = deployments::table
                .filter(deployments::project.eq(project.as_str()))
                .filter(deployments::number.lt(before.map_or(i64::MAX, signed)))
                .order(deployments::number.desc())
                .limit(i64::from(limit))
                .into_boxed();
            if let Some(environment) = &filter.environment {
                query = query.filter(deployments::environment.eq(environment.as_str()));
            }
            if let Some(service) = &filter.service {
                query = query.filter(deployments::service.eq(service.as_str()));
            }
            if let Some(release) = &filter.release {
                query = query.filter(deployments::release.eq(release.as_str()));
            }
            let found: Vec<Record> = query.load(c)?;
            found.into_iter().map(Record::read).collect()
        })
        .await
    }

    /// A deployment with its release and effects.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_deployment(&self, id: &DeploymentId) -> Result<DeploymentDetail> {
        let id = id.clone();
        self.read(move |c| {
            let deployment = find(c, &id)?;
            Ok(DeploymentDetail {
                ended_at: ended_at(&deployment.state),
                release: releases::find(c, &deployment.release)?,
                effects: effects::of_subject(c, id.as_str())?,
                deployment,
            })
        })
        .await
    }
}
