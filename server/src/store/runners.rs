//! Runners as rows. A runner's id is its name: one that registers again under its name takes the
//! place of the one before, whose credential then ends; but not while that one is still heard of. Two
//! that were started with one name would otherwise throw each other out for ever.
//!
//! A drain is of the name, too: it holds whatever becomes of the runner, until a person ends it.

use super::codec::{Row, json, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{attempts, runners};
use super::{Left, Result, Runner, Store, StoreError, audit};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// So long after its last sign of life a runner's name is its own: an idle one is heard of at the latest
/// when its long poll of 25 s ends.
pub const A_NAME_IS_HELD_FOR: SignedDuration = SignedDuration::from_secs(45);

type Record = (
    String,
    String,
    String,
    i64,
    i64,
    Option<i64>,
    i64,
    bool,
    Option<i64>,
    bool,
);

fn read(connection: &mut AnyConnection, record: Record) -> Result<Runner> {
    let (
        id,
        _,
        labels,
        registered_at,
        last_seen_at,
        disk_free_bytes,
        free_slots,
        drain,
        left_at,
        for_good,
    ) = record;
    let row = Row("runner", &id);
    let running = attempts::table
        .filter(attempts::runner.eq(&id))
        .filter(attempts::ended_at.is_null())
        .order(attempts::id)
        .select(attempts::id)
        .load(connection)?;
    Ok(Runner {
        labels: row.json("labels", &labels)?,
        registered_at: row.time(registered_at)?,
        last_seen_at: row.time(last_seen_at)?,
        disk_free_bytes: disk_free_bytes.map(i64::unsigned_abs),
        free_slots: row.number("free_slots", free_slots)?,
        left: row.maybe_time(left_at)?.map(|at| Left { at, for_good }),
        name: id.clone(),
        id,
        drain,
        running,
    })
}

fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<Runner>> {
    let found: Option<Record> = runners::table.find(id).first(connection).optional()?;
    found.map(|record| read(connection, record)).transpose()
}

impl Store {
    /// Makes a runner, or gives the one with this name a new credential.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one of this name was heard of within [`A_NAME_IS_HELD_FOR`], unless it left for
    /// good.
    pub async fn register_runner(
        &self,
        name: &str,
        credential_hash: String,
        labels: Vec<String>,
        now: Timestamp,
    ) -> Result<Runner> {
        let id = name.to_owned();
        self.write(move |c| {
            let values = (
                runners::credential_hash.eq(&credential_hash),
                runners::labels.eq(json(&labels)?),
                runners::registered_at.eq(micros(now)),
                runners::last_seen_at.eq(micros(now)),
                runners::free_slots.eq(0_i64),
                runners::left_at.eq(None::<i64>),
                runners::left_for_good.eq(false),
            );
            if let Some(known) = find(c, &id)? {
                let quiet = now.duration_since(known.last_seen_at);
                let is_free = known.left.is_some_and(|left| left.for_good);
                if !is_free && quiet < A_NAME_IS_HELD_FOR {
                    return Err(StoreError::conflict(format!(
                        "there is a runner `{id}` already, last heard of {} s ago: give this one another \
                         name (`--name`), or stop that one; {} s after it was last heard of, its name is \
                         free",
                        quiet.as_secs().max(0),
                        A_NAME_IS_HELD_FOR.as_secs()
                    )));
                }
                diesel::update(runners::table.find(&id))
                    .set(values)
                    .execute(c)?;
            } else {
                diesel::insert_into(runners::table)
                    .values((runners::id.eq(&id), runners::drain.eq(false), values))
                    .execute(c)?;
            }
            find(c, &id)?.ok_or_else(|| StoreError::not_found(format!("runner {id}")))
        })
        .await
    }

    /// The runner that a credential belongs to.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn runner_by_credential(&self, credential_hash: &str) -> Result<Option<Runner>> {
        let credential_hash = credential_hash.to_owned();
        self.read(move |c| {
            let found: Option<Record> = runners::table
                .filter(runners::credential_hash.eq(&credential_hash))
                .first(c)
                .optional()?;
            found.map(|record| read(c, record)).transpose()
        })
        .await
    }

    /// One runner, with what it runs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_runner(&self, runner: &str) -> Result<Runner> {
        let id = runner.to_owned();
        self.read(move |c| {
            find(c, &id)?.ok_or_else(|| StoreError::not_found(format!("runner {id}")))
        })
        .await
    }

    /// Every runner, by name, with what it runs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_runners(&self) -> Result<Vec<Runner>> {
        self.read(|c| {
            let found: Vec<Record> = runners::table.order(runners::id).load(c)?;
            found.into_iter().map(|record| read(c, record)).collect()
        })
        .await
    }

    /// A runner ends in good order. What it was assigned and has not accepted is overdue at once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leave(&self, runner: &str, for_good: bool, now: Timestamp) -> Result<()> {
        let id = runner.to_owned();
        self.write(move |c| {
            diesel::update(runners::table.find(&id))
                .set((
                    runners::left_at.eq(Some(micros(now))),
                    runners::left_for_good.eq(for_good),
                    runners::last_seen_at.eq(micros(now)),
                    runners::free_slots.eq(0_i64),
                ))
                .execute(c)?;
            let not_begun = attempts::table
                .filter(attempts::runner.eq(&id))
                .filter(attempts::ended_at.is_null())
                .filter(attempts::accepted_at.is_null());
            diesel::update(not_begun)
                .set(attempts::lease_until.eq(micros(now) - 1))
                .execute(c)?;
            Ok(())
        })
        .await
    }

    /// A runner that left, and not for good, is heard of again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn come_back(&self, runner: &str) -> Result<()> {
        let id = runner.to_owned();
        self.write(move |c| {
            let left = runners::table
                .find(&id)
                .filter(runners::left_for_good.eq(false));
            diesel::update(left)
                .set(runners::left_at.eq(None::<i64>))
                .execute(c)?;
            Ok(())
        })
        .await
    }

    /// Forgets at most so many runners, and tells it: those that left for good before `left_since`, and those that were
    /// last heard of before `heard_since`, unless they are drained. One with an attempt that is not over stays.
    /// Attempts go on naming whoever had them. Gives how many went.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: then none went.
    pub async fn forget_runners(
        &self,
        limit: u32,
        heard_since: Timestamp,
        left_since: Timestamp,
        now: Timestamp,
    ) -> Result<usize> {
        let old = move || {
            let at_work = attempts::table
                .filter(attempts::ended_at.is_null())
                .select(attempts::runner);
            let silent = runners::last_seen_at
                .lt(micros(heard_since))
                .and(runners::drain.eq(false));
            let gone = runners::left_for_good
                .eq(true)
                .and(runners::last_seen_at.lt(micros(left_since)));
            runners::id.ne_all(at_work).and(silent.or(gone))
        };
        let found: Vec<String> = self
            .read(move |c| {
                Ok(runners::table
                    .filter(old())
                    .order(runners::id)
                    .limit(i64::from(limit))
                    .select(runners::id)
                    .load(c)?)
            })
            .await?;
        if found.is_empty() {
            return Ok(0);
        }
        self.write(move |c| {
            let mut gone = vec![];
            for id in &found {
                // It may have been heard of meanwhile.
                let still = runners::table.find(id).filter(old());
                if diesel::delete(still).execute(c)? > 0 {
                    gone.push(id);
                }
            }
            if !gone.is_empty() {
                let line = Line {
                    at: now,
                    project: None,
                    subject: "retention",
                    actor: "Roadstead",
                    what: "runners_removed",
                    before: Value::Null,
                    after: Value::Null,
                    detail: &json!({ "removed": gone }),
                };
                audit::append(c, &line)?;
            }
            Ok(gone.len())
        })
        .await
    }

    /// Drains a runner, or lets it take work again, and tells who did that. A draining one gets no more work, and
    /// neither does whoever registers under its name. Gives whether anything changed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_drain(
        &self,
        runner: &str,
        drain: bool,
        by: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let (id, by) = (runner.to_owned(), by.to_owned());
        self.write(move |c| {
            let other = runners::table.find(&id).filter(runners::drain.ne(drain));
            let changed = diesel::update(other)
                .set(runners::drain.eq(drain))
                .execute(c)?;
            if changed == 0 {
                return match find(c, &id)? {
                    Some(_) => Ok(false),
                    None => Err(StoreError::not_found(format!("runner {id}"))),
                };
            }
            let line = Line {
                at: now,
                project: None,
                subject: &format!("runner {id}"),
                actor: &by,
                what: if drain {
                    "runner_drained"
                } else {
                    "runner_resumed"
                },
                before: Value::Null,
                after: Value::Null,
                detail: &json!({}),
            };
            audit::append(c, &line)?;
            Ok(true)
        })
        .await
    }
}
