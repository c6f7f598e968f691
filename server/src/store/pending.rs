//! Jobs that wait for a runner, as a small table of their own: a poll looks through it and reads no run that it
//! does not take. Those in a group are here once they have a place in it ([`super::groups`]).
//!
//! A row follows from the state of its run and is written in the transaction that changes that. Whoever claims
//! one takes the lane first, as everybody who changes a run does, and looks at the run then; rows are therefore not
//! locked by themselves, which would turn that order around.

use super::Result;
use super::codec::{Row, json, micros};
use super::conn::AnyConnection;
use super::groups::{self, Moved};
use super::runs;
use super::schema::pending_jobs;
use diesel::prelude::*;
use roadstead_pipelines::group;
use roadstead_pipelines::id::{JobName, RunId};
use roadstead_pipelines::job::Job;
use roadstead_pipelines::run::{Run, RunState};
use std::collections::BTreeSet;

/// Rows that are looked at at a time: few at first, since mostly the first one is taken, and then more and more.
const PORTIONS: (i64, i64) = (2, 256);

/// Where a job stands among those that wait: when its run was asked for, its run, its name.
pub(super) type Position = (i64, String, String);
/// Before the first of them.
pub(super) const BEFORE_ALL: Position = (i64::MIN, String::new(), String::new());

/// A job that waits.
pub(super) struct Pending {
    pub(super) run: RunId,
    pub(super) job: JobName,
    created_at: i64,
    /// What its runner has to have.
    pub(super) labels: BTreeSet<String>,
}

type Record = (String, String, i64, String);

fn read((run, job, created_at, labels): Record) -> Result<Pending> {
    let key = format!("{run} {job}");
    let row = Row("pending job", &key);
    Ok(Pending {
        run: row.word("run", &run)?,
        job: row.word("job", &job)?,
        created_at,
        labels: row.json("labels", &labels)?,
    })
}

/// Visits the jobs that wait for a runner with these labels, of the oldest run first, until one visit gives
/// something.
pub(super) fn visit<T>(
    connection: &mut AnyConnection,
    has: &BTreeSet<String>,
    mut visit: impl FnMut(&mut AnyConnection, &Pending) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let (mut after, mut limit) = (BEFORE_ALL, PORTIONS.0);
    loop {
        let portion = behind(connection, &after, limit)?;
        limit = (limit * 4).min(PORTIONS.1);
        for pending in portion.iter().filter(|it| it.labels.is_subset(has)) {
            if let Some(found) = visit(connection, pending)? {
                return Ok(Some(found));
            }
        }
        match portion.into_iter().next_back() {
            Some(last) => after = (last.created_at, last.run.to_string(), last.job.to_string()),
            None => return Ok(None),
        }
    }
}

/// At most so many jobs that wait behind the one at `after`, by time, run and name.
pub(super) fn behind(
    connection: &mut AnyConnection,
    (created_at, run, job): &Position,
    limit: i64,
) -> Result<Vec<Pending>> {
    use pending_jobs::dsl;
    let same_time = dsl::created_at.eq(created_at);
    let same_run = same_time.and(dsl::run.eq(run));
    let behind = dsl::created_at
        .gt(created_at)
        .or(same_time.and(dsl::run.gt(run)))
        .or(same_run.and(dsl::job.gt(job)));
    let found: Vec<Record> = dsl::pending_jobs
        // Says the same as the rest, in a form that an index serves.
        .filter(dsl::created_at.ge(created_at))
        .filter(behind)
        .order((dsl::created_at, dsl::run, dsl::job))
        .limit(limit)
        .select((dsl::run, dsl::job, dsl::created_at, dsl::labels))
        .load(connection)?;
    found.into_iter().map(read).collect()
}

/// Writes the rows of a run whose state has changed from `before`, and of those that got the places in groups that it
/// left.
pub(super) fn follow(connection: &mut AnyConnection, before: &RunState, run: &Run) -> Result<()> {
    let names = |state: &RunState| -> BTreeSet<JobName> {
        state.claimable().map(|(job, _)| job.clone()).collect()
    };
    let (was, is) = (names(before), names(&run.state));
    for job in was.difference(&is) {
        diesel::delete(pending_jobs::table.find((run.id.as_str(), job.as_str())))
            .execute(connection)?;
    }
    let in_groups = group::are_named_by(run);
    if is.is_subset(&was) && !in_groups {
        return Ok(());
    }
    let plan = run.jobs();
    let moved = if in_groups {
        groups::follow(connection, before, run, &plan)?
    } else {
        Moved::default()
    };
    // One that stood in its line before, as after a lost attempt, has its place.
    for job in is
        .difference(&was)
        .filter(|job| !moved.joined.contains(*job))
    {
        insert(connection, run, job, plan.get(job))?;
    }
    for (of, job) in moved.entered {
        if of == run.id {
            insert(connection, run, &job, plan.get(&job))?;
        } else {
            let other = runs::find(connection, &of)?;
            let its = other.jobs();
            insert(connection, &other, &job, its.get(&job))?;
        }
    }
    Ok(())
}

fn insert(
    connection: &mut AnyConnection,
    run: &Run,
    name: &JobName,
    job: Option<&Job>,
) -> Result<()> {
    let labels = job.map(|job| job.runs_on.clone()).unwrap_or_default();
    diesel::insert_into(pending_jobs::table)
        .values((
            pending_jobs::run.eq(run.id.as_str()),
            pending_jobs::job.eq(name.as_str()),
            pending_jobs::created_at.eq(micros(run.created_at)),
            pending_jobs::labels.eq(json(&labels)?),
        ))
        .execute(connection)?;
    Ok(())
}
