//! A project's lane: its generation and its counters. Moving the generation on locks the lane's row
//! until the transaction ends, so it comes first in every transaction that changes a decision's rows.

use super::codec::signed;
use super::conn::AnyConnection;
use super::schema::lanes;
use super::{Result, StoreError};
use diesel::prelude::*;
use roadstead_pipelines::id::ProjectName;

/// A lane's row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = lanes)]
pub(super) struct Lane {
    pub(super) project: String,
    pub(super) generation: i64,
    pub(super) next_release: i64,
    pub(super) next_deployment: i64,
    pub(super) pipeline: Option<String>,
}

/// Moves the generation on, whatever it is.
pub(super) fn bump(connection: &mut AnyConnection, project: &ProjectName) -> Result<()> {
    let moved = diesel::update(lanes::table.find(project.as_str()))
        .set(lanes::generation.eq(lanes::generation + 1))
        .execute(connection)?;
    match moved {
        0 => Err(StoreError::not_found(format!("project `{project}`"))),
        _ => Ok(()),
    }
}

/// Keeps others from changing the project until the transaction ends, without changing it. On SQLite nobody
/// else writes.
pub(super) fn lock(connection: &mut AnyConnection, project: &ProjectName) -> Result<()> {
    if let AnyConnection::Postgres(c) = connection {
        let lane = lanes::table.find(project.as_str()).select(lanes::project);
        let _found: Option<String> = lane.for_update().first(c).optional()?;
    }
    Ok(())
}

/// Like [`lock`], but waits for nobody: false when somebody else is changing the project. Whoever has a lane already may
/// take another one in this way alone, else two of them could wait for each other.
pub(super) fn try_lock(connection: &mut AnyConnection, project: &ProjectName) -> Result<bool> {
    let AnyConnection::Postgres(c) = connection else {
        return Ok(true);
    };
    let lane = lanes::table.find(project.as_str()).select(lanes::project);
    let found: Option<String> = lane.for_update().skip_locked().first(c).optional()?;
    Ok(found.is_some())
}

/// Moves the generation of every lane on: what changed counts in all projects.
pub(super) fn bump_all(connection: &mut AnyConnection) -> Result<()> {
    diesel::update(lanes::table)
        .set(lanes::generation.eq(lanes::generation + 1))
        .execute(connection)?;
    Ok(())
}

/// Moves the generation on from `generation`; false when it has moved on already.
pub(super) fn swap(
    connection: &mut AnyConnection,
    project: &ProjectName,
    generation: i64,
) -> Result<bool> {
    let lane = lanes::table
        .find(project.as_str())
        .filter(lanes::generation.eq(generation));
    let moved = diesel::update(lane)
        .set(lanes::generation.eq(generation + 1))
        .execute(connection)?;
    Ok(moved == 1)
}

/// The lane as it stands.
pub(super) fn get(connection: &mut AnyConnection, project: &ProjectName) -> Result<Lane> {
    lanes::table
        .find(project.as_str())
        .select(Lane::as_select())
        .first(connection)
        .optional()?
        .ok_or_else(|| StoreError::not_found(format!("project `{project}`")))
}

/// Moves the lane on and takes the number of a new run.
pub(super) fn take_run_number(
    connection: &mut AnyConnection,
    project: &ProjectName,
) -> Result<u64> {
    let taken = diesel::update(lanes::table.find(project.as_str()))
        .set((
            lanes::generation.eq(lanes::generation + 1),
            lanes::next_run.eq(lanes::next_run + 1),
        ))
        .returning(lanes::next_run);
    let next: Option<i64> = match connection {
        AnyConnection::Sqlite(c) => taken.get_result(c).optional()?,
        AnyConnection::Postgres(c) => taken.get_result(c).optional()?,
    };
    let next = next.ok_or_else(|| StoreError::not_found(format!("project `{project}`")))?;
    Ok(next.unsigned_abs() - 1)
}

/// Notes that a release's number is taken.
pub(super) fn release_taken(
    connection: &mut AnyConnection,
    project: &ProjectName,
    number: u64,
) -> Result<()> {
    let next = signed(number) + 1;
    let lane = lanes::table
        .find(project.as_str())
        .filter(lanes::next_release.lt(next));
    diesel::update(lane)
        .set(lanes::next_release.eq(next))
        .execute(connection)?;
    Ok(())
}

/// Notes that a deployment's number is taken.
pub(super) fn deployment_taken(
    connection: &mut AnyConnection,
    project: &ProjectName,
    number: u64,
) -> Result<()> {
    let next = signed(number) + 1;
    let lane = lanes::table
        .find(project.as_str())
        .filter(lanes::next_deployment.lt(next));
    diesel::update(lane)
        .set(lanes::next_deployment.eq(next))
        .execute(connection)?;
    Ok(())
}

/// The file whose environments and gates hold from now on.
pub(super) fn adopt(
    connection: &mut AnyConnection,
    project: &ProjectName,
    pipeline: String,
) -> Result<()> {
    diesel::update(lanes::table.find(project.as_str()))
        .set(lanes::pipeline.eq(Some(pipeline)))
        .execute(connection)?;
    Ok(())
}
