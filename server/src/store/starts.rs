//! Runs that somebody asks for, and what the branches' newest files say of that.

use super::codec::{Row, json, signed};
use super::conn::AnyConnection;
use super::schema::{branch_files, run_keys};
use super::{Asked, BranchFile, NewRun, Result, Store, StoreError, lane, runs};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::SourcesRead;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::{ProjectName, RunId};
use roadstead_pipelines::run::Run;
use roadstead_pipelines::schedule::{Standing, standing};
use roadstead_pipelines::spec::Trigger;
use roadstead_pipelines::started_by::StartedBy;

fn start(
    connection: &mut AnyConnection,
    project: &ProjectName,
    new: &NewRun,
    actor: &str,
    now: Timestamp,
) -> Result<Asked> {
    // A person's keys are their own.
    let key = new.key.as_ref().map(|key| format!("{actor} {key}"));
    if let Some(key) = &key {
        // The lane first: another server may be making the same run.
        lane::lock(connection, project)?;
        let before: Option<String> = run_keys::table
            .find((project.as_str(), key))
            .select(run_keys::run)
            .first(connection)
            .optional()?;
        if let Some(before) = before {
            let id: RunId = Row("run's key", key).word("run", &before)?;
            let run = runs::find(connection, &id)?;
            let named = matches!(
                new.started_by,
                StartedBy::Manual {
                    commit_named: true,
                    ..
                }
            );
            let same = run.git_ref == new.git_ref
                && run.started_by == new.started_by
                && (run.commit == new.commit || !named);
            return Ok(if same {
                Asked::Before(id)
            } else {
                Asked::Other(id)
            });
        }
    }
    let what = (&new.commit, new.git_ref.as_str(), &new.started_by);
    let run = runs::create(connection, project, what, actor, now)?;
    if let Some(key) = &key {
        diesel::insert_into(run_keys::table)
            .values((
                run_keys::project.eq(project.as_str()),
                run_keys::key.eq(key),
                run_keys::run.eq(run.as_str()),
            ))
            .execute(connection)?;
    }
    Ok(Asked::Made(run))
}

/// Forgets under which key a run was asked for.
pub(super) fn forget(connection: &mut AnyConnection, run: &str) -> Result<()> {
    diesel::delete(run_keys::table.filter(run_keys::run.eq(run))).execute(connection)?;
    Ok(())
}

/// Notes what a file that was read says of starting runs, if it is its branch's newest.
pub(super) fn note(
    connection: &mut AnyConnection,
    run: &Run,
    read: &SourcesRead,
    now: Timestamp,
) -> Result<()> {
    if !read.newest_of_branch || !matches!(GitRef::of(&run.git_ref), GitRef::Branch(_)) {
        return Ok(());
    }
    let number = signed(run.id.number());
    let row = branch_files::table.find((run.project.as_str(), &run.git_ref));
    let known: Option<(i64, String)> = row
        .select((branch_files::run_number, branch_files::schedules))
        .first(connection)
        .optional()?;
    let trigger = &read.pipeline.trigger;
    let before: Vec<Standing> = match &known {
        Some((_, schedules)) => Row("branch", &run.git_ref).json("schedules", schedules)?,
        None => vec![],
    };
    let schedules = json(&standing(&trigger.schedules, &before, now))?;
    let started_by = json(trigger)?;
    match known {
        // Two may be read in another order than they were pushed in.
        Some((known, _)) if known > number => {}
        Some(_) => {
            diesel::update(row)
                .set((
                    branch_files::run_number.eq(number),
                    branch_files::started_by.eq(started_by),
                    branch_files::schedules.eq(schedules),
                ))
                .execute(connection)?;
        }
        None => {
            diesel::insert_into(branch_files::table)
                .values((
                    branch_files::project.eq(run.project.as_str()),
                    branch_files::git_ref.eq(&run.git_ref),
                    branch_files::run_number.eq(number),
                    branch_files::started_by.eq(started_by),
                    branch_files::schedules.eq(schedules),
                ))
                .execute(connection)?;
        }
    }
    Ok(())
}

type Record = (String, i64, String);

fn read(project: &ProjectName, (git_ref, number, started_by): Record) -> Result<BranchFile> {
    let trigger: Trigger = Row("branch", &git_ref).json("started_by", &started_by)?;
    Ok(BranchFile {
        run: RunId::new(project, number.unsigned_abs()),
        trigger,
        git_ref,
    })
}

impl Store {
    /// Makes a run that somebody asks for, once under its key.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project.
    pub async fn start_run(
        &self,
        project: &ProjectName,
        new: NewRun,
        actor: &str,
        now: Timestamp,
    ) -> Result<Asked> {
        let (project, actor) = (project.clone(), actor.to_owned());
        let work = move |c: &mut AnyConnection| start(c, &project, &new, &actor, now);
        match self.write(work.clone()).await {
            // Another server made the same run between our look and our write: look again.
            Err(StoreError::Conflict { .. }) => self.write(work).await,
            done => done,
        }
    }

    /// What the newest files of a project's branches say of starting runs: of one branch, or of all.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn branch_files(
        &self,
        project: &ProjectName,
        git_ref: Option<&str>,
    ) -> Result<Vec<BranchFile>> {
        let (project, git_ref) = (project.clone(), git_ref.map(str::to_owned));
        self.read(move |c| {
            let mut query = branch_files::table
                .filter(branch_files::project.eq(project.as_str()))
                .order(branch_files::run_number.desc())
                .select((
                    branch_files::git_ref,
                    branch_files::run_number,
                    branch_files::started_by,
                ))
                .into_boxed();
            if let Some(git_ref) = &git_ref {
                query = query.filter(branch_files::git_ref.eq(git_ref));
            }
            let found: Vec<Record> = query.load(c)?;
            found
                .into_iter()
                .map(|record| read(&project, record))
                .collect()
        })
        .await
    }
}
