//! Attempts and their steps as rows: what a runner reports, and what ends an attempt.
//!
//! An attempt that is over stays over: every report carries the fence and is refused when the
//! attempt has ended or the fence is another's.

use super::codec::{Row, json, micros};
use super::commit::{self, By};
use super::conn::AnyConnection;
use super::schema::{attempts, runners, runs, steps};
use super::{Attempt, Report, Result, StepRow, Store, StoreError, lane, runs as run_rows};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_pipelines::run::{AttemptOutcome, Run, RunState};
use roadstead_protocol::{LEASE_SECONDS, StepState};

type Record = (
    String,
    String,
    i64,
    String,
    String,
    i64,
    Option<i64>,
    i64,
    Option<i64>,
    Option<String>,
    String,
);

pub(super) fn read(record: Record) -> Result<Attempt> {
    let (id, run, number, runner, _, claimed_at, accepted_at, lease_until, ended_at, outcome, job) =
        record;
    let row = Row("attempt", &id);
    Ok(Attempt {
        run: row.word("run", &run)?,
        number: row.number("number", number)?,
        job: row.word("job", &job)?,
        claimed_at: row.time(claimed_at)?,
        accepted_at: row.maybe_time(accepted_at)?,
        lease_until: row.time(lease_until)?,
        ended_at: row.maybe_time(ended_at)?,
        outcome: outcome.map(|text| row.json("outcome", &text)).transpose()?,
        id,
        runner,
    })
}

pub(super) fn find(connection: &mut AnyConnection, id: &str) -> Result<Attempt> {
    let found: Option<Record> = attempts::table.find(id).first(connection).optional()?;
    read(found.ok_or_else(|| StoreError::not_found(format!("attempt {id}")))?)
}

/// Keeps others from changing an attempt until the transaction ends. On SQLite nobody else writes.
pub(super) fn lock(connection: &mut AnyConnection, id: &str) -> Result<()> {
    if let AnyConnection::Postgres(c) = connection {
        let attempt = attempts::table.find(id).select(attempts::id);
        let _found: Option<String> = attempt.for_update().first(c).optional()?;
    }
    Ok(())
}

/// When a lease that begins now ends.
pub(super) fn lease_end(now: Timestamp) -> Timestamp {
    now + SignedDuration::from_secs(LEASE_SECONDS.cast_signed())
}

/// Gives every live attempt a whole lease from now.
pub(super) fn renew_leases(connection: &mut AnyConnection, now: Timestamp) -> Result<()> {
    let until = micros(lease_end(now));
    let live = attempts::table
        .filter(attempts::ended_at.is_null())
        .filter(attempts::lease_until.lt(until));
    diesel::update(live)
        .set(attempts::lease_until.eq(until))
        .execute(connection)?;
    Ok(())
}

type StepRecord = (String, String, i64, String, Option<i64>, Option<i64>);

fn read_step(record: StepRecord) -> Result<StepRow> {
    let (attempt, name, position, state, started_at, ended_at) = record;
    let key = format!("{attempt} {name}");
    let row = Row("step", &key);
    Ok(StepRow {
        name: row.word("name", &name)?,
        position: row.number("position", position)?,
        state: row.json("state", &state)?,
        started_at: row.maybe_time(started_at)?,
        ended_at: row.maybe_time(ended_at)?,
        attempt,
    })
}

/// A run's attempts, the first one first, and their steps in the order of the job.
pub(super) fn of_run(
    connection: &mut AnyConnection,
    run: &RunId,
) -> Result<(Vec<Attempt>, Vec<StepRow>)> {
    let found: Vec<Record> = attempts::table
        .filter(attempts::run.eq(run.as_str()))
        .order(attempts::number)
        .load(connection)?;
    let found: Vec<Attempt> = found.into_iter().map(read).collect::<Result<_>>()?;
    let mut all_steps = vec![];
    for attempt in &found {
        all_steps.extend(steps_of(connection, &attempt.id)?);
    }
    Ok((found, all_steps))
}

fn steps_of(connection: &mut AnyConnection, attempt: &str) -> Result<Vec<StepRow>> {
    let found: Vec<StepRecord> = steps::table
        .filter(steps::attempt.eq(attempt))
        .order(steps::position)
        .load(connection)?;
    found.into_iter().map(read_step).collect()
}

fn is_over(state: &StepState) -> bool {
    match state {
        StepState::Waiting | StepState::Running | StepState::Retrying { .. } => false,
        StepState::Succeeded
        | StepState::Failed { .. }
        | StepState::Skipped
        | StepState::Cancelled
        | StepState::TimedOut => true,
    }
}

/// Ends every attempt of a run but those that its state names, with the steps left open.
pub(super) fn close_other_than_current(
    connection: &mut AnyConnection,
    run: &Run,
    now: Timestamp,
) -> Result<()> {
    let at_work = run.state.at_work();
    let current: Vec<i64> = at_work.map(|work| i64::from(work.attempt)).collect();
    let open: Vec<(String, Option<String>)> = attempts::table
        .filter(attempts::run.eq(run.id.as_str()))
        .filter(attempts::ended_at.is_null())
        .filter(attempts::number.ne_all(current))
        .select((attempts::id, attempts::outcome))
        .load(connection)?;
    for (attempt, outcome) in open {
        let row = Row("attempt", &attempt);
        let outcome = outcome.map(|text| row.json("outcome", &text)).transpose()?;
        diesel::update(attempts::table.find(&attempt))
            .set(attempts::ended_at.eq(Some(micros(now))))
            .execute(connection)?;
        for step in steps_of(connection, &attempt)? {
            let state = match (&step.state, &run.state, &outcome) {
                (state, ..) if is_over(state) => continue,
                (StepState::Waiting, ..) => StepState::Skipped,
                (_, RunState::Cancelling { .. } | RunState::Cancelled { .. }, _)
                | (.., Some(AttemptOutcome::Cancelled)) => StepState::Cancelled,
                (.., Some(AttemptOutcome::TimedOut { .. })) => StepState::TimedOut,
                _ => StepState::Failed {
                    exit_code: None,
                    reason: "its attempt ended before it did".into(),
                },
            };
            set_step(connection, &step, &state, now)?;
        }
    }
    Ok(())
}

fn set_step(
    connection: &mut AnyConnection,
    step: &StepRow,
    state: &StepState,
    now: Timestamp,
) -> Result<()> {
    let begun = !matches!(state, StepState::Waiting | StepState::Skipped);
    let started_at = step.started_at.or(begun.then_some(now));
    let ended_at = is_over(state).then_some(now);
    diesel::update(steps::table.find((step.attempt.as_str(), step.name.as_str())))
        .set((
            steps::state.eq(json(state)?),
            steps::started_at.eq(started_at.map(micros)),
            steps::ended_at.eq(ended_at.map(micros)),
        ))
        .execute(connection)?;
    Ok(())
}

impl Attempt {
    /// A report with this fence is for this attempt, and the attempt goes on.
    pub(super) fn takes(&self, fence: u64) -> bool {
        u64::from(self.number) == fence && self.ended_at.is_none()
    }
}

impl Store {
    /// The attempt that a token belongs to, over or not, with its run.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn attempt_by_token(&self, token_hash: &str) -> Result<Option<(Attempt, Run)>> {
        let token_hash = token_hash.to_owned();
        self.read(move |c| {
            let found: Option<Record> = attempts::table
                .filter(attempts::token_hash.eq(&token_hash))
                .first(c)
                .optional()?;
            let Some(attempt) = found.map(read).transpose()? else {
                return Ok(None);
            };
            let run = run_rows::find(c, &attempt.run)?;
            Ok(Some((attempt, run)))
        })
        .await
    }

    /// Stores how a step stands. A step that is over stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the attempt or its step does not exist.
    pub async fn report_step(
        &self,
        attempt: &str,
        fence: u64,
        step: &str,
        state: StepState,
        now: Timestamp,
    ) -> Result<Report> {
        let (attempt, step) = (attempt.to_owned(), step.to_owned());
        self.write(move |c| {
            if !find(c, &attempt)?.takes(fence) {
                return Ok(Report::Lost);
            }
            let found: Option<StepRecord> = steps::table
                .find((attempt.as_str(), step.as_str()))
                .first(c)
                .optional()?;
            let found = found.ok_or_else(|| {
                StoreError::not_found(format!("step `{step}` in attempt {attempt}"))
            })?;
            let found = read_step(found)?;
            if is_over(&found.state) || found.state == state {
                return Ok(Report::Repeated);
            }
            set_step(c, &found, &state, now)?;
            Ok(Report::Recorded)
        })
        .await
    }

    /// Stores how an attempt ended, and what follows for its run. Idempotent on attempt and fence.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such attempt.
    pub async fn end_attempt(
        &self,
        attempt: &str,
        fence: u64,
        outcome: AttemptOutcome,
        now: Timestamp,
    ) -> Result<Report> {
        let id = attempt.to_owned();
        self.write(move |c| {
            let run = find(c, &id)?.run;
            let project = run.project();
            lane::bump(c, &project)?;
            // Read again: until the lane was ours, another server might have ended it.
            let attempt = find(c, &id)?;
            if u64::from(attempt.number) == fence && attempt.outcome.as_ref() == Some(&outcome) {
                return Ok(Report::Repeated);
            }
            if !attempt.takes(fence) {
                return Ok(Report::Lost);
            }
            diesel::update(attempts::table.find(&id))
                .set(attempts::outcome.eq(Some(json(&outcome)?)))
                .execute(c)?;
            let change = Change::Run {
                run,
                fact: RunFact::AttemptEnded {
                    attempt: attempt.number,
                    outcome: outcome.clone(),
                },
            };
            let by = By {
                actor: &attempt.runner,
                now,
            };
            commit::apply(c, &project, &change, by)?;
            Ok(Report::Recorded)
        })
        .await
    }

    /// Gives every live attempt a whole lease from now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew_leases(&self, now: Timestamp) -> Result<()> {
        self.write(move |c| renew_leases(c, now)).await
    }

    /// Attempts whose lease ran out are lost: their jobs go back to the queue or fail.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn expire_attempts(&self, now: Timestamp) -> Result<usize> {
        let overdue: Vec<String> = self
            .read(move |c| {
                Ok(attempts::table
                    .filter(attempts::ended_at.is_null())
                    .filter(attempts::lease_until.lt(micros(now)))
                    .order(attempts::lease_until)
                    .select(attempts::id)
                    .load(c)?)
            })
            .await?;
        let mut lost = 0;
        for id in overdue {
            if self.write(move |c| lose(c, &id, now)).await? {
                lost += 1;
            }
        }
        Ok(lost)
    }
}

/// Calls an attempt lost, unless it was heard or ended meanwhile.
fn lose(connection: &mut AnyConnection, id: &str, now: Timestamp) -> Result<bool> {
    let run = find(connection, id)?.run;
    let project = run.project();
    lane::bump(connection, &project)?;
    // The lock on this row makes a heartbeat that comes at the same time wait, or be seen.
    let still_overdue = attempts::table
        .find(id)
        .filter(attempts::ended_at.is_null())
        .filter(attempts::lease_until.lt(micros(now)));
    let ended = diesel::update(still_overdue)
        .set(attempts::lease_until.eq(attempts::lease_until))
        .execute(connection)?;
    if ended == 0 {
        return Ok(false);
    }
    let attempt = find(connection, id)?;
    let reason = match attempt.accepted_at {
        Some(_) => format!(
            "runner {} was not heard for {LEASE_SECONDS} seconds",
            attempt.runner
        ),
        None if has_left(connection, &attempt.runner)? => {
            format!("runner {} left before it accepted it", attempt.runner)
        }
        None => format!("runner {} did not accept it in time", attempt.runner),
    };
    let change = Change::Run {
        run: run.clone(),
        fact: RunFact::AttemptLost {
            attempt: attempt.number,
            reason,
        },
    };
    let by = By {
        actor: "Roadstead",
        now,
    };
    commit::apply_what_fits(connection, &project, &[change], by)?;
    // Also when the fact did not fit: the run has moved on without this attempt.
    let found = run_rows::find(connection, &run)?;
    close_other_than_current(connection, &found, now)?;
    Ok(true)
}

/// Whether a runner said goodbye, and was not heard of since.
fn has_left(connection: &mut AnyConnection, runner: &str) -> Result<bool> {
    let left: i64 = runners::table
        .find(runner)
        .filter(runners::left_at.is_not_null())
        .count()
        .get_result(connection)?;
    Ok(left > 0)
}

/// Makes the rows of a new attempt, with each of its steps as it begins.
pub(super) fn insert(
    connection: &mut AnyConnection,
    attempt: &Attempt,
    token_hash: &str,
    first: &[(&StepName, StepState)],
) -> Result<()> {
    diesel::insert_into(attempts::table)
        .values((
            attempts::id.eq(&attempt.id),
            attempts::run.eq(attempt.run.as_str()),
            attempts::number.eq(i64::from(attempt.number)),
            attempts::job.eq(attempt.job.as_str()),
            attempts::runner.eq(&attempt.runner),
            attempts::token_hash.eq(token_hash),
            attempts::claimed_at.eq(micros(attempt.claimed_at)),
            attempts::lease_until.eq(micros(attempt.lease_until)),
        ))
        .execute(connection)?;
    for (position, (name, state)) in (0_i64..).zip(first) {
        diesel::insert_into(steps::table)
            .values((
                steps::attempt.eq(&attempt.id),
                steps::name.eq(name.as_str()),
                steps::position.eq(position),
                steps::state.eq(json(state)?),
            ))
            .execute(connection)?;
    }
    Ok(())
}

/// Whether the run of an attempt is being cancelled.
pub(super) fn is_being_cancelled(
    connection: &mut AnyConnection,
    attempt: &Attempt,
) -> Result<bool> {
    let word: String = runs::table
        .find(attempt.run.as_str())
        .select(runs::word)
        .first(connection)?;
    Ok(word == "cancelling")
}
