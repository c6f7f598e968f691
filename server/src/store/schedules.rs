//! Schedules as rows: those that hold, and the moments for which each has started a run, whichever server did.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::schema::{branch_files, schedule_moments};
use super::{Result, SCHEDULE, Scheduled, Store, StoreError, lane, runs};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::schedule::{MADE_UP_WITHIN, Standing};
use roadstead_pipelines::spec::Schedule;
use roadstead_pipelines::started_by::StartedBy;
use std::collections::BTreeSet;

/// Moments that are kept of each schedule: those of more than a day of every minute. By count and not by age, so that
/// a clock that is far ahead for a while makes nobody forget.
const MOMENTS_KEPT: i64 = 2_000;

fn started(
    connection: &mut AnyConnection,
    project: &ProjectName,
    git_ref: &str,
    schedule: &Schedule,
    since: Timestamp,
) -> Result<BTreeSet<Timestamp>> {
    let found: Vec<i64> = schedule_moments::table
        .filter(schedule_moments::project.eq(project.as_str()))
        .filter(schedule_moments::git_ref.eq(git_ref))
        .filter(schedule_moments::schedule.eq(schedule.to_string()))
        .filter(schedule_moments::moment.ge(micros(since)))
        .select(schedule_moments::moment)
        .load(connection)?;
    let key = schedule.to_string();
    let row = Row("schedule", &key);
    found.into_iter().map(|moment| row.time(moment)).collect()
}

/// Forgets the oldest moments of a schedule, if there are many.
fn prune(
    connection: &mut AnyConnection,
    project: &ProjectName,
    git_ref: &str,
    schedule: &str,
) -> Result<()> {
    let last: Option<i64> = schedule_moments::table
        .filter(schedule_moments::project.eq(project.as_str()))
        .filter(schedule_moments::git_ref.eq(git_ref))
        .filter(schedule_moments::schedule.eq(schedule))
        .order(schedule_moments::moment.desc())
        .offset(MOMENTS_KEPT)
        .select(schedule_moments::moment)
        .first(connection)
        .optional()?;
    if let Some(last) = last {
        let gone = schedule_moments::table
            .filter(schedule_moments::project.eq(project.as_str()))
            .filter(schedule_moments::git_ref.eq(git_ref))
            .filter(schedule_moments::schedule.eq(schedule))
            .filter(schedule_moments::moment.le(last));
        diesel::delete(gone).execute(connection)?;
    }
    Ok(())
}

fn start(
    connection: &mut AnyConnection,
    project: &ProjectName,
    (git_ref, schedule): (&str, &Schedule),
    (moment, commit): (Timestamp, Option<&CommitSha>),
    now: Timestamp,
) -> Result<Option<RunId>> {
    // The lane first: another server may be starting the same.
    lane::lock(connection, project)?;
    let name = schedule.to_string();
    let row = schedule_moments::table.find((project.as_str(), git_ref, &name, micros(moment)));
    let before: Option<String> = row
        .select(schedule_moments::schedule)
        .first(connection)
        .optional()?;
    if before.is_some() {
        return Ok(None);
    }
    let run = match commit {
        Some(commit) => {
            let started_by = StartedBy::Schedule {
                cron: schedule.cron.clone(),
                timezone: schedule.timezone.clone(),
                at: moment,
            };
            let what = (commit, git_ref, &started_by);
            Some(runs::create(connection, project, what, SCHEDULE, now)?)
        }
        None => None,
    };
    diesel::insert_into(schedule_moments::table)
        .values((
            schedule_moments::project.eq(project.as_str()),
            schedule_moments::git_ref.eq(git_ref),
            schedule_moments::schedule.eq(&name),
            schedule_moments::moment.eq(micros(moment)),
            schedule_moments::run.eq(run.as_ref().map(RunId::as_str)),
        ))
        .execute(connection)?;
    prune(connection, project, git_ref, &name)?;
    Ok(run)
}

impl Store {
    /// The schedules in the newest files of a project's branches, each with the moments of the last day, and of later
    /// than `now`, that have started a run.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn schedules(&self, project: &ProjectName, now: Timestamp) -> Result<Vec<Scheduled>> {
        let project = project.clone();
        self.read(move |c| {
            let files: Vec<(String, String)> = branch_files::table
                .filter(branch_files::project.eq(project.as_str()))
                .filter(branch_files::schedules.ne("[]"))
                .select((branch_files::git_ref, branch_files::schedules))
                .load(c)?;
            let mut all = vec![];
            for (git_ref, schedules) in files {
                let schedules: Vec<Standing> =
                    Row("branch", &git_ref).json("schedules", &schedules)?;
                for standing in schedules {
                    let since = now - MADE_UP_WITHIN;
                    let started = started(c, &project, &git_ref, &standing.schedule, since)?;
                    all.push(Scheduled {
                        git_ref: git_ref.clone(),
                        standing,
                        started,
                    });
                }
            }
            Ok(all)
        })
        .await
    }

    /// Starts the run of a schedule's moment, once whoever asks; `None` when it was started before. Without a commit,
    /// as the branch is gone, the moment is over and nothing starts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project.
    pub async fn start_scheduled(
        &self,
        project: &ProjectName,
        (git_ref, schedule): (&str, &Schedule),
        (moment, commit): (Timestamp, Option<CommitSha>),
        now: Timestamp,
    ) -> Result<Option<RunId>> {
        let (project, git_ref) = (project.clone(), git_ref.to_owned());
        let schedule = schedule.clone();
        let work = move |c: &mut AnyConnection| {
            let what = (git_ref.as_str(), &schedule);
            start(c, &project, what, (moment, commit.as_ref()), now)
        };
        match self.write(work.clone()).await {
            // Another server started it between our look and our write: look again.
            Err(StoreError::Conflict { .. }) => self.write(work).await,
            done => done,
        }
    }
}
