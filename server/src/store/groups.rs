//! The lines of groups as rows: who stands where is kept here, who gets a place is decided in the core.
//!
//! Written under the project's lane, in the transaction that changes a run: what one server lets in no other one
//! sees as free. A run whose file names no group costs no query. A job that waits in a line has no row among the
//! [`super::pending`] jobs, so that it is in nobody's way there, however long the line.

use super::Result;
use super::codec::{Row, signed};
use super::conn::AnyConnection;
use super::schema::group_places;
use diesel::dsl::max;
use diesel::prelude::*;
use indexmap::IndexMap;
use roadstead_pipelines::group::{self, Lines, Place};
use roadstead_pipelines::id::{JobName, ProjectName, RunId};
use roadstead_pipelines::job::Job;
use roadstead_pipelines::run::{Run, RunState};
use roadstead_pipelines::spec::Group;
use std::collections::BTreeSet;

/// Of those that wait in a line so many are looked at when places become free: more than a group may have.
const MOST_WAITING: i64 = 128;

type Record = (String, String, String, i64, bool);

fn read((name, run, job, most, holds): Record) -> Result<(String, Place)> {
    let key = format!("{run} {job}");
    let row = Row("place of a group", &key);
    let place = Place {
        run: row.word("run", &run)?,
        job: row.word("job", &job)?,
        limit: row.number("most", most)?,
        holds,
    };
    Ok((name, place))
}

/// The beginning of a line, as far as it can be let in: those that hold places, and the first who wait.
fn beginning(
    connection: &mut AnyConnection,
    project: &ProjectName,
    name: &str,
) -> Result<Vec<Place>> {
    use group_places::dsl;
    let of_line = || {
        dsl::group_places
            .filter(dsl::project.eq(project.as_str()))
            .filter(dsl::job_group.eq(name))
            .order(dsl::place)
            .select((dsl::job_group, dsl::run, dsl::job, dsl::most, dsl::holds))
    };
    let mut found: Vec<Record> = of_line().filter(dsl::holds.eq(true)).load(connection)?;
    let waiting: Vec<Record> = of_line()
        .filter(dsl::holds.eq(false))
        .limit(MOST_WAITING)
        .load(connection)?;
    found.extend(waiting);
    let places = found.into_iter().map(|record| Ok(read(record)?.1));
    places.collect()
}

/// Some of a project's lines, whole: those of `names`, or all.
pub(super) fn lines(
    connection: &mut AnyConnection,
    project: &ProjectName,
    names: Option<Vec<String>>,
) -> Result<Lines> {
    use group_places::dsl;
    let mut query = dsl::group_places
        .filter(dsl::project.eq(project.as_str()))
        .order(dsl::place)
        .select((dsl::job_group, dsl::run, dsl::job, dsl::most, dsl::holds))
        .into_boxed();
    if let Some(names) = names {
        query = query.filter(dsl::job_group.eq_any(names));
    }
    let found: Vec<Record> = query.load(connection)?;
    let mut lines = Lines::new();
    for record in found {
        let (name, place) = read(record)?;
        lines.entry(name).or_default().push(place);
    }
    Ok(lines)
}

/// The lines in which jobs of a run stand; none of one that is over or names no group.
pub(super) fn lines_of(connection: &mut AnyConnection, run: &Run) -> Result<Lines> {
    if run.state.jobs().is_none() || !group::are_named_by(run) {
        return Ok(Lines::new());
    }
    let plan = run.jobs();
    let names: BTreeSet<&String> = group::in_line(&plan, &run.state)
        .values()
        .map(|group| &group.name)
        .collect();
    if names.is_empty() {
        return Ok(Lines::new());
    }
    let names = names.into_iter().cloned().collect();
    lines(connection, &run.project, Some(names))
}

/// Whether a job may be at work, as far as its group goes.
pub(super) fn lets(
    connection: &mut AnyConnection,
    run: &RunId,
    job: &JobName,
    plan: &IndexMap<JobName, Job>,
) -> Result<bool> {
    if plan.get(job).is_none_or(|job| job.group.is_none()) {
        return Ok(true);
    }
    let holds: Option<bool> = group_places::table
        .find((run.as_str(), job.as_str()))
        .select(group_places::holds)
        .first(connection)
        .optional()?;
    Ok(holds == Some(true))
}

/// What a change of a run made of lines.
#[derive(Default)]
pub(super) struct Moved {
    /// The run's own jobs that joined a line.
    pub(super) joined: BTreeSet<JobName>,
    /// Jobs that got a place, of this run and of others.
    pub(super) entered: Vec<(RunId, JobName)>,
}

/// Lets the jobs of a run, whose state has changed from `before`, into their lines and out of them, and gives the
/// places that are free then to the next.
pub(super) fn follow(
    connection: &mut AnyConnection,
    before: &RunState,
    run: &Run,
    plan: &IndexMap<JobName, Job>,
) -> Result<Moved> {
    let (was, is) = (
        group::in_line(plan, before),
        group::in_line(plan, &run.state),
    );
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    let mut moved = Moved::default();
    for (job, group) in was.iter().filter(|(job, _)| !is.contains_key(*job)) {
        diesel::delete(group_places::table.find((run.id.as_str(), job.as_str())))
            .execute(connection)?;
        touched.insert(&group.name);
    }
    for (job, group) in is.iter().filter(|(job, _)| !was.contains_key(*job)) {
        join(connection, run, job, group)?;
        moved.joined.insert((*job).clone());
        touched.insert(&group.name);
    }
    for name in touched {
        let line = beginning(connection, &run.project, name)?;
        for place in group::let_in(&line).into_iter().map(|index| &line[index]) {
            let (of, job) = (&place.run, &place.job);
            diesel::update(group_places::table.find((of.as_str(), job.as_str())))
                .set(group_places::holds.eq(true))
                .execute(connection)?;
            moved.entered.push((of.clone(), job.clone()));
        }
    }
    Ok(moved)
}

/// At the end of the line.
fn join(connection: &mut AnyConnection, run: &Run, job: &JobName, group: &Group) -> Result<()> {
    use group_places::dsl;
    let last: Option<i64> = dsl::group_places
        .filter(dsl::project.eq(run.project.as_str()))
        .filter(dsl::job_group.eq(&group.name))
        .select(max(dsl::place))
        .first(connection)?;
    diesel::insert_into(dsl::group_places)
        .values((
            dsl::run.eq(run.id.as_str()),
            dsl::job.eq(job.as_str()),
            dsl::project.eq(run.project.as_str()),
            dsl::job_group.eq(&group.name),
            dsl::place.eq(last.unwrap_or_default() + 1),
            dsl::most.eq(signed(group.limit.into())),
            dsl::holds.eq(false),
        ))
        .execute(connection)?;
    Ok(())
}
