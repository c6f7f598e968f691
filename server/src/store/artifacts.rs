//! Artifacts of steps: which there are. Their bytes are [`crate::artifacts`]'s.
//!
//! A row says that the bytes are safe. What one attempt at a step may keep is counted in the transaction that adds to
//! it, so no number of calls at the same time goes beyond it. No decision reads them.

use super::codec::{Row, micros, signed};
use super::conn::AnyConnection;
use super::schema::artifacts;
use super::{Result, Store, attempts};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_protocol::{MOST_ARTIFACT_BYTES, MOST_ARTIFACTS};

/// A file that a step left, and that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The run.
    pub run: RunId,
    /// The attempt's number.
    pub attempt: u32,
    /// The step.
    pub step: StepName,
    /// Its path in the workspace.
    pub name: String,
    /// Its size in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// What an attempt wants to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// The attempt's id.
    pub attempt: String,
    /// Its fence.
    pub fence: u64,
    /// The step, one of the run.
    pub step: StepName,
    /// Its path in the workspace.
    pub name: String,
    /// Its size in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// Whether there is space for an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// There is; or it is stored now.
    Free,
    /// It is there already, with the same bytes.
    Taken,
    /// Another one of that name is there.
    TakenByOther,
    /// The step keeps [`MOST_ARTIFACTS`] already.
    TooMany,
    /// The step would keep more than [`MOST_ARTIFACT_BYTES`].
    TooLarge,
    /// The attempt is over or belongs to another fence.
    Lost,
}

type Record = (String, i64, String, String, i64, String, i64);

fn read((run, attempt, step, name, length, sha256, stored_at): Record) -> Result<Artifact> {
    let row = Row("artifact", &name);
    Ok(Artifact {
        run: row.word("run", &run)?,
        attempt: row.number("attempt", attempt)?,
        step: row.word("step", &step)?,
        length: row.number("length", length)?,
        stored_at: row.time(stored_at)?,
        sha256,
        name: name.clone(),
    })
}

fn space_for(connection: &mut AnyConnection, new: &NewArtifact) -> Result<(Space, RunId)> {
    let attempt = attempts::find(connection, &new.attempt)?;
    if !attempt.takes(new.fence) {
        return Ok((Space::Lost, attempt.run));
    }
    let key = (
        attempt.run.as_str(),
        i64::from(attempt.number),
        new.step.as_str(),
    );
    let present: Option<(i64, String)> = artifacts::table
        .find((key.0, key.1, key.2, new.name.as_str()))
        .select((artifacts::length, artifacts::sha256))
        .first(connection)
        .optional()?;
    if let Some((length, sha256)) = present {
        let same = length == signed(new.length) && sha256 == new.sha256;
        let space = if same {
            Space::Taken
        } else {
            Space::TakenByOther
        };
        return Ok((space, attempt.run));
    }
    let of_step = artifacts::table
        .filter(artifacts::run.eq(key.0))
        .filter(artifacts::attempt.eq(key.1))
        .filter(artifacts::step.eq(key.2));
    let files: i64 = of_step.count().get_result(connection)?;
    let lengths: Vec<i64> = of_step.select(artifacts::length).load(connection)?;
    let bytes: u64 = lengths.iter().map(|length| length.unsigned_abs()).sum();
    let space = if files.unsigned_abs() >= MOST_ARTIFACTS as u64 {
        Space::TooMany
    } else if bytes.saturating_add(new.length) > MOST_ARTIFACT_BYTES {
        Space::TooLarge
    } else {
        Space::Free
    };
    Ok((space, attempt.run))
}

/// Forgets the artifacts of a run, whose bytes are gone.
pub(super) fn forget(connection: &mut AnyConnection, run: &str) -> Result<()> {
    diesel::delete(artifacts::table.filter(artifacts::run.eq(run))).execute(connection)?;
    Ok(())
}

impl Store {
    /// Whether there is space for an artifact, before its bytes are taken.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn space_for_artifact(&self, new: &NewArtifact) -> Result<Space> {
        let new = new.clone();
        self.read(move |c| Ok(space_for(c, &new)?.0)).await
    }

    /// Stores that an artifact's bytes are safe, if there is space for it still. Idempotent on attempt, step, name
    /// and bytes.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn record_artifact(&self, new: &NewArtifact, now: Timestamp) -> Result<Space> {
        let new = new.clone();
        self.write(move |c| {
            attempts::lock(c, &new.attempt)?;
            let (space, run) = space_for(c, &new)?;
            if space == Space::Free {
                diesel::insert_into(artifacts::table)
                    .values((
                        artifacts::run.eq(run.as_str()),
                        artifacts::attempt.eq(signed(new.fence)),
                        artifacts::step.eq(new.step.as_str()),
                        artifacts::name.eq(&new.name),
                        artifacts::length.eq(signed(new.length)),
                        artifacts::sha256.eq(&new.sha256),
                        artifacts::stored_at.eq(micros(now)),
                    ))
                    .execute(c)?;
            }
            Ok(space)
        })
        .await
    }

    /// The artifacts of these attempts of a run, by step and name.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn list_artifacts(&self, run: &RunId, attempts: &[u32]) -> Result<Vec<Artifact>> {
        let run = run.to_string();
        let attempts: Vec<i64> = attempts.iter().copied().map(i64::from).collect();
        self.read(move |c| {
            let found: Vec<Record> = artifacts::table
                .filter(artifacts::run.eq(&run))
                .filter(artifacts::attempt.eq_any(attempts))
                .order((artifacts::step, artifacts::name))
                .load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }

    /// One artifact of one of these attempts, the newest one's where several left it.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn get_artifact(
        &self,
        run: &RunId,
        attempts: &[u32],
        step: &str,
        name: &str,
    ) -> Result<Option<Artifact>> {
        let (run, step, name) = (run.to_string(), step.to_owned(), name.to_owned());
        let attempts: Vec<i64> = attempts.iter().copied().map(i64::from).collect();
        self.read(move |c| {
            let found: Option<Record> = artifacts::table
                .filter(artifacts::run.eq(&run))
                .filter(artifacts::attempt.eq_any(attempts))
                .filter(artifacts::step.eq(&step))
                .filter(artifacts::name.eq(&name))
                .order(artifacts::attempt.desc())
                .first(c)
                .optional()?;
            found.map(read).transpose()
        })
        .await
    }
}
