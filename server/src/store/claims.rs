//! Who works on which job: claims, leases and heartbeats.

use super::attempts::{self, lease_end};
use super::codec::{Row, json, micros, signed};
use super::commit::{self, By};
use super::conn::AnyConnection;
use super::schema::{attempts as attempt_rows, runners, runs};
use super::{Attempt, Claim, Heard, Offer, Report, Result, Store, lane, runs as run_rows};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::{RunId, StepName};
use roadstead_pipelines::run::{Run, RunState};
use roadstead_protocol::{ACCEPT_SECONDS, AttemptRef, HEARTBEAT_SECONDS};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Other servers may be claiming the same jobs: so many of the oldest are tried.
const MOST_TRIES: u32 = 16;
/// Jobs that wait are looked at in portions of so many.
const PORTION: i64 = 16;

/// Visits the jobs that wait for a runner, the oldest first, until one visit gives something.
fn visit_waiting<T>(
    connection: &mut AnyConnection,
    mut visit: impl FnMut(&mut AnyConnection, &Run) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut after = (i64::MIN, String::new());
    loop {
        let portion = waiting(connection, &after)?;
        for (_, id) in &portion {
            let run = run_rows::find(connection, &Row("run", id).word("id", id)?)?;
            if let Some(found) = visit(connection, &run)? {
                return Ok(Some(found));
            }
        }
        match portion.into_iter().next_back() {
            Some(last) => after = last,
            None => return Ok(None),
        }
    }
}

/// Jobs that wait for a runner behind the one at `after`, by time and id, the oldest first.
fn waiting(
    connection: &mut AnyConnection,
    (created_at, id): &(i64, String),
) -> Result<Vec<(i64, String)>> {
    let behind = runs::created_at
        .gt(created_at)
        .or(runs::created_at.eq(created_at).and(runs::id.gt(id)));
    Ok(runs::table
        // Spelled out, as in the index of what is queued: with a bound value SQLite would not take it.
        .filter(sql::<Bool>("word = 'queued'"))
        .filter(behind)
        .order((runs::created_at, runs::id))
        .limit(PORTION)
        .select((runs::created_at, runs::id))
        .load(connection)?)
}

fn claim(
    connection: &mut AnyConnection,
    run: &RunId,
    runner: &str,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<Claim>> {
    let project = run.project();
    lane::bump(connection, &project)?;
    // Read only now that the lane is ours: another server may have been faster.
    let found = run_rows::find(connection, run)?;
    let RunState::Queued {
        attempt: number, ..
    } = found.state
    else {
        return Ok(None);
    };
    let change = Change::Run {
        run: run.clone(),
        fact: RunFact::JobClaimed {
            attempt: number,
            runner: runner.to_owned(),
        },
    };
    commit::apply(connection, &project, &change, By { actor: runner, now })?;
    let attempt = Attempt {
        id: format!("{run}.a{number}"),
        run: run.clone(),
        number,
        runner: runner.to_owned(),
        claimed_at: now,
        accepted_at: None,
        lease_until: now + SignedDuration::from_secs(ACCEPT_SECONDS.cast_signed()),
        ended_at: None,
        outcome: None,
    };
    let steps: Vec<&str> = found
        .pipeline
        .as_ref()
        .map(|pipeline| {
            pipeline
                .steps_in_order()
                .into_iter()
                .map(StepName::as_str)
                .collect()
        })
        .unwrap_or_default();
    attempts::insert(connection, &attempt, token_hash, &steps, &found.left_out)?;
    let run: Run = run_rows::find(connection, run)?;
    Ok(Some(Claim {
        attempt: attempt.id,
        number,
        run,
    }))
}

/// What a runner has to hear, and the attempts whose lease goes on.
fn hear(
    connection: &mut AnyConnection,
    runner: &str,
    running: &[AttemptRef],
) -> Result<(Heard, Vec<Attempt>)> {
    let drain: Option<bool> = runners::table
        .find(runner)
        .select(runners::drain)
        .first(connection)
        .optional()?;
    let mut heard = Heard {
        drain: drain.unwrap_or(false),
        ..Heard::default()
    };
    let mut alive = vec![];
    for named in running {
        let found = match attempts::find(connection, &named.attempt) {
            Ok(found) => Some(found),
            Err(super::StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let ours = found.filter(|attempt| {
            attempt.runner == runner
                && u64::from(attempt.number) == named.fence
                && attempt.ended_at.is_none()
        });
        let Some(attempt) = ours else {
            heard.lost.push(named.attempt.clone());
            continue;
        };
        if attempts::is_being_cancelled(connection, &attempt)? {
            heard.cancel.push(named.attempt.clone());
        }
        alive.push(attempt);
    }
    Ok((heard, alive))
}

/// Whether the rows say already what this heartbeat would make them say, to one heartbeat: a poll
/// that looks again every second need not write each time.
fn is_fresh(
    connection: &mut AnyConnection,
    runner: &str,
    alive: &[Attempt],
    offer: Option<&Offer>,
    now: Timestamp,
) -> Result<bool> {
    let slack = SignedDuration::from_secs(HEARTBEAT_SECONDS.cast_signed());
    let row: Option<(i64, i64, String)> = runners::table
        .find(runner)
        .select((runners::last_seen_at, runners::free_slots, runners::labels))
        .first(connection)
        .optional()?;
    let leases = alive
        .iter()
        .all(|attempt| attempt.lease_until >= lease_end(now) - slack);
    let known = match row {
        // There is nothing to write of a runner without a row.
        None => true,
        Some((last_seen_at, free_slots, labels)) => {
            let same_offer = match offer {
                None => true,
                Some(offer) => {
                    i64::from(offer.free_slots) == free_slots && json(&offer.labels)? == labels
                }
            };
            same_offer && last_seen_at >= micros(now - slack)
        }
    };
    Ok(leases && known)
}

impl Store {
    /// So many jobs at most [`Self::jobs_that_wait`] tells at once.
    pub const PORTION_OF_JOBS: usize = PORTION as usize;

    /// Runs whose jobs wait for a runner behind the one at `after`, by when they were asked for and by id, the
    /// first ones first.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn jobs_that_wait(&self, after: Option<(Timestamp, RunId)>) -> Result<Vec<Run>> {
        let after = after.map_or((i64::MIN, String::new()), |(at, id)| {
            (micros(at), id.to_string())
        });
        self.read(move |c| {
            let portion = waiting(c, &after)?;
            let found = portion.into_iter().map(|(_, id)| {
                let run = Row("run", &id).word("id", &id)?;
                run_rows::find(c, &run)
            });
            found.collect()
        })
        .await
    }

    /// Runners that have something to hear: attempts to stop, or to take no more work.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn runners_to_call(&self) -> Result<BTreeSet<String>> {
        self.read(|c| {
            let cancelling: Vec<String> = runs::table
                // Spelled out, as in the index of what is being cancelled.
                .filter(sql::<Bool>("word = 'cancelling'"))
                .select(runs::id)
                .load(c)?;
            let stopping = attempt_rows::table
                .filter(attempt_rows::run.eq_any(cancelling))
                .filter(attempt_rows::ended_at.is_null())
                .select(attempt_rows::runner)
                .load::<String>(c)?;
            let drained = runners::table
                .filter(runners::drain.eq(true))
                .select(runners::id)
                .load::<String>(c)?;
            Ok(stopping.into_iter().chain(drained).collect())
        })
        .await
    }

    /// Gives the oldest queued job to a runner, leased for [`ACCEPT_SECONDS`]. `token_hash` is the
    /// hash of the new attempt's token. A draining runner gets nothing.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn claim_job(
        &self,
        runner: &str,
        token_hash: String,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        self.claim_job_that(|_| true, runner, token_hash, now).await
    }

    /// The same, of those that the runner `can_do`.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn claim_job_that(
        &self,
        can_do: impl Fn(&Run) -> bool + Send + Sync + 'static,
        runner: &str,
        token_hash: String,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        // Most polls find nothing: they are not to wait for the writer.
        let can_do = Arc::new(can_do);
        let could = Arc::clone(&can_do);
        let look =
            move |c: &mut AnyConnection| visit_waiting(c, |_, run| Ok(could(run).then_some(())));
        if self.read(look).await?.is_none() {
            return Ok(None);
        }
        let runner = runner.to_owned();
        self.write(move |c| {
            let drain: Option<bool> = runners::table
                .find(&runner)
                .select(runners::drain)
                .first(c)
                .optional()?;
            if drain == Some(true) {
                return Ok(None);
            }
            let mut tries = 0;
            let found = visit_waiting(c, |c, run| {
                if !can_do(run) {
                    return Ok(None);
                }
                tries += 1;
                let claimed = claim(c, &run.id, &runner, &token_hash, now)?;
                let is_over = claimed.is_some() || tries == MOST_TRIES;
                Ok(is_over.then_some(claimed))
            });
            Ok(found?.flatten())
        })
        .await
    }

    /// The runner works on the attempt from now on, leased for [`roadstead_protocol::LEASE_SECONDS`].
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn accept_attempt(&self, attempt: &str, now: Timestamp) -> Result<Report> {
        let id = attempt.to_owned();
        self.write(move |c| {
            let open = attempt_rows::table
                .find(&id)
                .filter(attempt_rows::ended_at.is_null())
                .filter(attempt_rows::accepted_at.is_null());
            let accepted = diesel::update(open)
                .set((
                    attempt_rows::accepted_at.eq(Some(micros(now))),
                    attempt_rows::lease_until.eq(micros(lease_end(now))),
                ))
                .execute(c)?;
            if accepted == 1 {
                return Ok(Report::Recorded);
            }
            Ok(match attempts::find(c, &id)?.ended_at {
                None => Report::Repeated,
                Some(_) => Report::Lost,
            })
        })
        .await
    }

    /// Prolongs the leases of what a runner runs, and tells it what to stop. With an offer (in a
    /// poll) also stores what the runner says of itself.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn heartbeat(
        &self,
        runner: &str,
        running: Vec<AttemptRef>,
        offer: Option<Offer>,
        now: Timestamp,
    ) -> Result<Heard> {
        let (name, named, said) = (runner.to_owned(), running.clone(), offer.clone());
        let (mut heard, alive, fresh) = self
            .read(move |c| {
                let (heard, alive) = hear(c, &name, &named)?;
                let fresh = is_fresh(c, &name, &alive, said.as_ref(), now)?;
                Ok((heard, alive, fresh))
            })
            .await?;
        if fresh {
            return Ok(heard);
        }
        let runner = runner.to_owned();
        let lost = self.write(move |c| {
            let mut lost = vec![];
            for attempt in &alive {
                let open = attempt_rows::table
                    .find(&attempt.id)
                    .filter(attempt_rows::ended_at.is_null());
                // Zero: its lease ran out, or it ended, just now.
                let prolonged = diesel::update(open)
                    .set(attempt_rows::lease_until.eq(micros(lease_end(now))))
                    .execute(c)?;
                if prolonged == 0 {
                    lost.push(attempt.id.clone());
                }
            }
            diesel::update(runners::table.find(&runner))
                .set(runners::last_seen_at.eq(micros(now)))
                .execute(c)?;
            if let Some(offer) = &offer {
                diesel::update(runners::table.find(&runner))
                    .set((
                        runners::labels.eq(json(&offer.labels)?),
                        runners::free_slots.eq(i64::from(offer.free_slots)),
                        runners::disk_free_bytes.eq(Some(signed(offer.disk_free_bytes))),
                    ))
                    .execute(c)?;
            }
            Ok(lost)
        });
        for id in lost.await? {
            heard.cancel.retain(|cancelled| *cancelled != id);
            heard.lost.push(id);
        }
        Ok(heard)
    }
}
