//! Effects as rows: stored once under their key, leased by executors, finished with the facts that
//! they brought in one transaction.

use super::codec::{Row, json, micros};
use super::commit::{self, By};
use super::conn::AnyConnection;
use super::schema::effects;
use super::{EffectRow, EffectState, Result, Store, StoreError, lane};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::effect::{Counterpart, Effect};
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::id::ProjectName;
use std::collections::HashSet;

type Record = (
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    Option<String>,
    i64,
    Option<i64>,
    Option<String>,
    String,
);

fn read(record: Record) -> Result<EffectRow> {
    let (key, project, _, effect, state, attempts, not_before, _, last_error, created_at, _, _, _) =
        record;
    let row = Row("effect", &key);
    let state = match state.as_str() {
        "pending" => EffectState::Pending,
        "leased" => EffectState::Leased,
        "done" => EffectState::Done,
        "failed" => EffectState::Failed,
        other => return Err(row.broken(format!("state: {other}"))),
    };
    Ok(EffectRow {
        project: row.word("project", &project)?,
        effect: row.json("effect", &effect)?,
        state,
        attempts: row.number("attempts", attempts)?,
        not_before: row.time(not_before)?,
        last_error,
        created_at: row.time(created_at)?,
        key,
    })
}

fn find(connection: &mut AnyConnection, key: &str) -> Result<EffectRow> {
    let found: Option<Record> = effects::table.find(key).first(connection).optional()?;
    read(found.ok_or_else(|| StoreError::not_found(format!("effect {key}")))?)
}

/// Keys in one question: SQLite takes 32,766 values in a statement.
const KEYS_PER_LOOK: usize = 10_000;

/// Which of these keys are stored.
fn known(connection: &mut AnyConnection, keys: &[String]) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for keys in keys.chunks(KEYS_PER_LOOK) {
        let stored: Vec<String> = effects::table
            .filter(effects::key.eq_any(keys.iter().map(String::as_str)))
            .select(effects::key)
            .load(connection)?;
        found.extend(stored);
    }
    Ok(found)
}

/// Stores effects whose key is new. One that is stored stays as it is, done or not: its facts came
/// with its end, so a plan that still needs it waits for something else.
pub(super) fn store_new(
    connection: &mut AnyConnection,
    project: &ProjectName,
    planned: &[Effect],
    now: Timestamp,
) -> Result<()> {
    let keys: Vec<String> = planned.iter().map(Effect::key).collect();
    let mut stored = known(connection, &keys)?;
    for (effect, key) in planned.iter().zip(keys) {
        if stored.contains(&key) {
            continue;
        }
        diesel::insert_into(effects::table)
            .values((
                effects::key.eq(&key),
                effects::project.eq(project.as_str()),
                effects::subject.eq(effect.subject()),
                effects::effect.eq(json(effect)?),
                effects::state.eq("pending"),
                effects::attempts.eq(0),
                effects::not_before.eq(micros(now)),
                effects::created_at.eq(micros(now)),
                effects::counterpart.eq(effect.counterpart().word()),
            ))
            .execute(connection)?;
        stored.insert(key);
    }
    Ok(())
}

/// Effects of a run or deployment, oldest first.
pub(super) fn of_subject(connection: &mut AnyConnection, subject: &str) -> Result<Vec<EffectRow>> {
    let found: Vec<Record> = effects::table
        .filter(effects::subject.eq(subject))
        .order((effects::created_at, effects::key))
        .load(connection)?;
    found.into_iter().map(read).collect()
}

/// Makes what was leased due again.
pub(super) fn release_leases(connection: &mut AnyConnection) -> Result<()> {
    diesel::update(effects::table.filter(effects::state.eq("leased")))
        .set((
            effects::state.eq("pending"),
            effects::leased_until.eq(None::<i64>),
            effects::leased_by.eq(None::<String>),
        ))
        .execute(connection)?;
    Ok(())
}

/// What of the effects that are due is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many.
    pub limit: u32,
    /// Those that wait for one of these.
    pub of: Vec<Counterpart>,
    /// None of these projects.
    pub not_of: Vec<ProjectName>,
}

impl From<u32> for Wanted {
    /// At most so many, whatever they are.
    fn from(limit: u32) -> Self {
        Self {
            limit,
            of: Counterpart::ALL.to_vec(),
            not_of: vec![],
        }
    }
}

/// The effects that are due and wanted. A macro, because a query's type cannot be written down.
macro_rules! wanted {
    ($wanted:expr, $now:expr) => {
        effects::table
            .filter(effects::finished_at.is_null())
            .filter(effects::not_before.le(micros($now)))
            .filter(
                effects::leased_until
                    .is_null()
                    .or(effects::leased_until.lt(micros($now))),
            )
            .filter(effects::counterpart.eq_any($wanted.of.iter().map(|it| it.word())))
            .filter(effects::project.ne_all($wanted.not_of.iter().map(ProjectName::as_str)))
    };
}

/// Keys of effects that are due, the longest due first; on PostgreSQL they are locked, and those
/// that another server has locked are left to it.
fn due(connection: &mut AnyConnection, wanted: &Wanted, now: Timestamp) -> Result<Vec<String>> {
    let query = wanted!(wanted, now)
        .order((effects::not_before, effects::key))
        .limit(i64::from(wanted.limit))
        .select(effects::key);
    Ok(match connection {
        AnyConnection::Sqlite(c) => query.load(c)?,
        AnyConnection::Postgres(c) => query.for_update().skip_locked().load(c)?,
    })
}

/// How an effect ends.
enum End<'a> {
    Done,
    Failed(&'a str),
}

fn finish(
    connection: &mut AnyConnection,
    key: &str,
    end: &End<'_>,
    changes: &[Change],
    now: Timestamp,
) -> Result<()> {
    let project = find(connection, key)?.project;
    lane::bump(connection, &project)?;
    let (state, error) = match end {
        End::Done => ("done", None),
        End::Failed(error) => ("failed", Some(*error)),
    };
    let open = effects::table
        .find(key)
        .filter(effects::finished_at.is_null());
    let finished = diesel::update(open)
        .set((
            effects::state.eq(state),
            effects::finished_at.eq(Some(micros(now))),
            effects::leased_until.eq(None::<i64>),
            effects::leased_by.eq(None::<String>),
            effects::last_error.eq(error),
        ))
        .execute(connection)?;
    if finished == 0 {
        // Two executors did it, which effects allow; the first one's facts count.
        return Ok(());
    }
    let by = By {
        actor: "Roadstead",
        now,
    };
    commit::apply_what_fits(connection, &project, changes, by)
}

impl Store {
    /// Those of `planned` that are not stored yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn effects_not_stored(&self, planned: Vec<Effect>) -> Result<Vec<Effect>> {
        if planned.is_empty() {
            return Ok(planned);
        }
        self.read(move |c| {
            let keys: Vec<String> = planned.iter().map(Effect::key).collect();
            let stored = known(c, &keys)?;
            let mut planned = planned;
            planned.retain(|effect| !stored.contains(&effect.key()));
            Ok(planned)
        })
        .await
    }

    /// Effects that are due, as many as are wanted, leased by this server until `until`. One whose lease
    /// ran out is due.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn lease_effects(
        &self,
        wanted: impl Into<Wanted>,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<EffectRow>> {
        let wanted = wanted.into();
        let looked_for = wanted.clone();
        // Mostly nothing is due: looking is not to wait for the writer.
        let any = self
            .read(move |c| {
                let earliest: Option<i64> = wanted!(looked_for, now)
                    .select(effects::not_before)
                    .first(c)
                    .optional()?;
                Ok(earliest.is_some())
            })
            .await?;
        if !any {
            return Ok(vec![]);
        }
        let holder = self.id().to_owned();
        self.write(move |c| {
            let mut leased = vec![];
            for key in due(c, &wanted, now)? {
                diesel::update(effects::table.find(&key))
                    .set((
                        effects::state.eq("leased"),
                        effects::leased_until.eq(Some(micros(until))),
                        effects::leased_by.eq(Some(&holder)),
                        effects::attempts.eq(effects::attempts + 1),
                    ))
                    .execute(c)?;
                leased.push(find(c, &key)?);
            }
            Ok(leased)
        })
        .await
    }

    /// Prolongs this server's leases of effects. Those of `keys` that it holds no longer are returned:
    /// another server has them, or they are finished.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prolong_effects(
        &self,
        keys: Vec<String>,
        until: Timestamp,
    ) -> Result<Vec<String>> {
        let holder = self.id().to_owned();
        self.write(move |c| {
            let mut lost = vec![];
            for key in &keys {
                let held = effects::table
                    .find(key)
                    .filter(effects::finished_at.is_null())
                    .filter(effects::leased_by.eq(Some(&holder)));
                let prolonged = diesel::update(held)
                    .set(effects::leased_until.eq(Some(micros(until))))
                    .execute(c)?;
                if prolonged == 0 {
                    lost.push(key.clone());
                }
            }
            Ok(lost)
        })
        .await
    }

    /// Marks an effect done and applies what it brought. Facts that no longer fit are dropped, with
    /// an event; finishing twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such effect.
    pub async fn finish_effect(
        &self,
        key: &str,
        changes: Vec<Change>,
        now: Timestamp,
    ) -> Result<()> {
        let key = key.to_owned();
        self.write(move |c| finish(c, &key, &End::Done, &changes, now))
            .await
    }

    /// Gives an effect up for good; `changes` tell its run or deployment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such effect.
    pub async fn fail_effect(
        &self,
        key: &str,
        changes: Vec<Change>,
        error: &str,
        now: Timestamp,
    ) -> Result<()> {
        let (key, error) = (key.to_owned(), error.to_owned());
        self.write(move |c| finish(c, &key, &End::Failed(&error), &changes, now))
            .await
    }

    /// An effect is tried again, not before `not_before`; `error` says why. One that another server
    /// has leased meanwhile is that one's, and stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn retry_effect(&self, key: &str, not_before: Timestamp, error: &str) -> Result<()> {
        self.put_back(key, not_before, Some(error.to_owned())).await
    }

    /// An effect goes well and is not over: it is looked at again, not before `not_before`. Tries are
    /// counted from there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn go_on_with_effect(&self, key: &str, not_before: Timestamp) -> Result<()> {
        self.put_back(key, not_before, None).await
    }

    async fn put_back(
        &self,
        key: &str,
        not_before: Timestamp,
        error: Option<String>,
    ) -> Result<()> {
        let (key, holder) = (key.to_owned(), self.id().to_owned());
        self.write(move |c| {
            let open = effects::table
                .find(&key)
                .filter(effects::finished_at.is_null())
                .filter(
                    effects::leased_by
                        .is_null()
                        .or(effects::leased_by.eq(Some(&holder))),
                );
            diesel::update(open)
                .set((
                    effects::state.eq("pending"),
                    effects::not_before.eq(micros(not_before)),
                    effects::leased_until.eq(None::<i64>),
                    effects::leased_by.eq(None::<String>),
                    effects::last_error.eq(&error),
                ))
                .execute(c)?;
            if error.is_none() {
                diesel::update(open)
                    .set(effects::attempts.eq(0))
                    .execute(c)?;
            }
            Ok(())
        })
        .await
    }
}
