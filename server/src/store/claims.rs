//! Who works on which job: claims, leases and heartbeats.

use super::attempts::{self, lease_end};
use super::codec::{Row, json, micros, signed};
use super::commit::{self, By};
use super::conn::AnyConnection;
use super::groups;
use super::pending::{self, Pending};
use super::schema::{attempts as attempt_rows, runners, runs};
use super::{
    Attempt, Claim, Heard, JobThatWaits, Offer, Report, Result, Store, lane, runs as run_rows,
};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::group;
use roadstead_pipelines::id::{JobName, RunId, StepName};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::spec::Pipeline;
use roadstead_protocol::{ACCEPT_SECONDS, AttemptRef, HEARTBEAT_SECONDS, StepState};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Other servers may be claiming the same jobs: so many of the oldest are tried.
const MOST_TRIES: u32 = 16;
/// So many jobs of projects that others are at work in are passed by in one look.
const MOST_PASSED: u32 = 256;
/// How often a look that found others at work in every lane is made again.
const MOST_LOOKS: u32 = 16;
/// Jobs that wait are told so many at a time.
const PORTION_OF_JOBS: i64 = 64;

/// What a look for a job came to.
enum Looked {
    Claimed(Box<Claim>),
    Nothing,
    /// Others are at work in the lanes of all that it could have taken.
    Busy,
}

/// One look for a job, in a transaction. It waits for a lane only while it has none, and only if it `may_wait`:
/// servers that claim at the same time take jobs of different projects, and never wait for each other in a circle.
fn look(
    connection: &mut AnyConnection,
    can_do: &impl Fn(&Run, &JobName) -> bool,
    runner: &str,
    token_hash: &str,
    now: Timestamp,
    mut may_wait: bool,
) -> Result<Looked> {
    // A poll may go on hanging behind a proxy when its runner has left.
    let takes_none = runners::table
        .find(runner)
        .filter(runners::drain.eq(true).or(runners::left_at.is_not_null()))
        .count();
    if takes_none.get_result::<i64>(connection)? > 0 {
        return Ok(Looked::Nothing);
    }
    let labels = labels_of(connection, runner)?;
    let (mut ours, mut busy) = (BTreeSet::new(), BTreeSet::new());
    let (mut tries, mut passed) = (0, 0);
    let found = pending::visit(connection, &labels, |c, waits| {
        let project = waits.run.project();
        if busy.contains(&project) {
            passed += 1;
            return Ok((passed == MOST_PASSED).then_some(None));
        }
        if !can_do(&run_rows::find(c, &waits.run)?, &waits.job) {
            return Ok(None);
        }
        if !ours.contains(&project) {
            if std::mem::take(&mut may_wait) {
                lane::lock(c, &project)?;
            } else if !lane::try_lock(c, &project)? {
                busy.insert(project);
                return Ok(None);
            }
            ours.insert(project);
        }
        tries += 1;
        let claimed = claim(c, waits, runner, token_hash, now)?;
        let is_over = claimed.is_some() || tries == MOST_TRIES;
        Ok(is_over.then_some(claimed))
    })?;
    Ok(match found.flatten() {
        Some(claim) => Looked::Claimed(Box::new(claim)),
        None if busy.is_empty() => Looked::Nothing,
        None => Looked::Busy,
    })
}

/// The labels that a runner last told.
fn labels_of(connection: &mut AnyConnection, runner: &str) -> Result<BTreeSet<String>> {
    let labels: Option<String> = runners::table
        .find(runner)
        .select(runners::labels)
        .first(connection)
        .optional()?;
    let read = |text: String| Row("runner", runner).json("labels", &text);
    labels.map_or_else(|| Ok(BTreeSet::new()), read)
}

fn claim(
    connection: &mut AnyConnection,
    pending: &Pending,
    runner: &str,
    token_hash: &str,
    now: Timestamp,
) -> Result<Option<Claim>> {
    let (run, job) = (&pending.run, &pending.job);
    let project = run.project();
    lane::bump(connection, &project)?;
    // Read only now that the lane is ours: another server may have been faster.
    let found = run_rows::find(connection, run)?;
    let Some(jobs) = found.state.jobs() else {
        return Ok(None);
    };
    if !found.state.claimable().any(|(name, _)| name == job) {
        return Ok(None);
    }
    if group::are_named_by(&found) && !groups::lets(connection, run, job, &found.jobs())? {
        return Ok(None);
    }
    let number = jobs.attempts + 1;
    let fact = RunFact::JobClaimed {
        job: job.clone(),
        attempt: number,
        runner: runner.to_owned(),
    };
    let claimed = found.apply(&fact, now)?;
    let change = Change::Run {
        run: run.clone(),
        fact,
    };
    commit::apply(connection, &project, &change, By { actor: runner, now })?;
    let attempt = Attempt {
        id: format!("{run}.a{number}"),
        run: run.clone(),
        number,
        job: job.clone(),
        runner: runner.to_owned(),
        claimed_at: now,
        accepted_at: None,
        lease_until: now + SignedDuration::from_secs(ACCEPT_SECONDS.cast_signed()),
        ended_at: None,
        outcome: None,
    };
    attempts::insert(connection, &attempt, token_hash, &steps_of(&found, job))?;
    Ok(Some(Claim {
        attempt: attempt.id,
        number,
        run: claimed,
        job: job.clone(),
    }))
}

/// The steps of a job, in their order, and with the run's first job those that the run leaves out; each with how
/// it begins.
fn steps_of<'r>(run: &'r Run, job: &JobName) -> Vec<(&'r StepName, StepState)> {
    let jobs = run.jobs();
    let is_first = jobs.keys().next() == Some(job);
    let ordered = run.pipeline.iter().flat_map(Pipeline::steps_in_order);
    let begins = |name: &'r StepName| {
        if run.left_out.contains_key(name) {
            return is_first.then_some((name, StepState::Skipped));
        }
        let is_its = jobs.get(job).is_some_and(|job| job.steps.contains(name));
        is_its.then_some((name, StepState::Waiting))
    };
    ordered.filter_map(begins).collect()
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
    /// Jobs that wait for a runner behind the one at `after`, of the run that was asked for first first.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn jobs_that_wait(
        &self,
        after: Option<(Timestamp, RunId, JobName)>,
    ) -> Result<Vec<JobThatWaits>> {
        let after = after.map(|(at, run, job)| (micros(at), run.to_string(), job.to_string()));
        self.read(move |c| {
            let after = after.unwrap_or(pending::BEFORE_ALL);
            let portion = pending::behind(c, &after, PORTION_OF_JOBS)?;
            let read = portion.into_iter().map(|it| {
                Ok(JobThatWaits {
                    run: run_rows::find(c, &it.run)?,
                    job: it.job,
                    labels: it.labels,
                })
            });
            read.collect()
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

    /// Gives the oldest queued job to a runner that has its labels, leased for [`ACCEPT_SECONDS`]. `token_hash` is the
    /// hash of the new attempt's token. A runner that drains or has left gets nothing.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn claim_job(
        &self,
        runner: &str,
        token_hash: String,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        self.claim_job_that(|_, _| true, runner, token_hash, now)
            .await
    }

    /// The same, of those that the runner `can_do`.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn claim_job_that(
        &self,
        can_do: impl Fn(&Run, &JobName) -> bool + Send + Sync + 'static,
        runner: &str,
        token_hash: String,
        now: Timestamp,
    ) -> Result<Option<Claim>> {
        // Most polls find nothing: they are not to wait for the writer. What its version keeps a runner from is
        // seen there.
        let looks = runner.to_owned();
        let is_there_any = move |c: &mut AnyConnection| {
            let labels = labels_of(c, &looks)?;
            pending::visit(c, &labels, |_, _| Ok(Some(())))
        };
        if self.read(is_there_any).await?.is_none() {
            return Ok(None);
        }
        let can_do = Arc::new(can_do);
        for number in 0..MOST_LOOKS {
            let (can_do, runner) = (Arc::clone(&can_do), runner.to_owned());
            let token_hash = token_hash.clone();
            let looked =
                self.write(move |c| look(c, &*can_do, &runner, &token_hash, now, number > 0));
            match looked.await? {
                Looked::Claimed(claim) => return Ok(Some(*claim)),
                Looked::Nothing => return Ok(None),
                Looked::Busy => {}
            }
        }
        // The runner asks again.
        Ok(None)
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
