//! Runs as rows, and what pages show of them.

use super::codec::{Row, json, micros, signed};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{branch_files, lanes, runs};
use super::{
    Attempt, Result, RunDetail, RunLine, RunsBefore, Store, StoreError, attempts, audit, effects,
    groups, lane,
};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::RunFact;
use roadstead_pipelines::git_ref::GitRef;
use roadstead_pipelines::id::{CommitSha, JobName, ProjectName, RunId};
use roadstead_pipelines::pull_request::{BaseFile, RunApproval};
use roadstead_pipelines::release::TaskDefinitions;
use roadstead_pipelines::run::{BUILDING, CONFIRMED, CONFIRMING, Run, RunState, SUCCEEDED};
use roadstead_pipelines::spec::{InputValues, LeftOut, Trigger};
use roadstead_pipelines::started_by::StartedBy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// So many of the newest files that were read are asked what they say.
const FILES_READ_LATELY: i64 = 20;
/// Among so many runs it is looked for one that a push started. Where there is none, nothing counts as checked.
const LOOKED_THROUGH: i64 = 200;

#[derive(Queryable, Insertable, AsChangeset)]
#[diesel(table_name = runs, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct Record {
    id: String,
    project: String,
    number: i64,
    commit_sha: String,
    git_ref: String,
    message: String,
    author: String,
    created_at: i64,
    ended_at: Option<i64>,
    word: String,
    state: String,
    pipeline: Option<String>,
    variables: String,
    repositories: String,
    authorship: Option<String>,
    decided: String,
}

/// What started a run, and what was decided of it when its file was read.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Decided {
    #[serde(skip_serializing_if = "StartedBy::is_push")]
    started_by: StartedBy,
    #[serde(skip_serializing_if = "InputValues::is_empty")]
    inputs: InputValues,
    left_out: LeftOut,
    supersedes: BTreeSet<RunId>,
    #[serde(skip_serializing_if = "TaskDefinitions::is_empty")]
    task_definitions: TaskDefinitions,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_file: Option<BaseFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<RunApproval>,
}

/// When a run was over.
pub(super) fn ended_at(state: &RunState) -> Option<Timestamp> {
    match state {
        RunState::Fetching
        | RunState::WaitingForApproval { .. }
        | RunState::Preparing
        | RunState::Building { .. }
        | RunState::Cancelling { .. }
        | RunState::Confirming { .. }
        | RunState::Confirmed { .. } => None,
        RunState::Succeeded { at, .. }
        | RunState::Skipped { at, .. }
        | RunState::Failed { at, .. }
        | RunState::TimedOut { at, .. }
        | RunState::Cancelled { at, .. } => Some(*at),
    }
}

impl Record {
    fn of(run: &Run) -> Result<Self> {
        Ok(Self {
            id: run.id.to_string(),
            project: run.project.to_string(),
            number: signed(run.id.number()),
            commit_sha: run.commit.to_string(),
            git_ref: run.git_ref.clone(),
            message: run.message.clone(),
            author: run.author.clone(),
            created_at: micros(run.created_at),
            ended_at: ended_at(&run.state).map(micros),
            word: run.state.word().to_owned(),
            state: json(&run.state)?,
            pipeline: run.pipeline.as_ref().map(json).transpose()?,
            variables: json(&run.variables)?,
            repositories: json(&run.repositories)?,
            authorship: run.authorship.as_ref().map(json).transpose()?,
            decided: json(&Decided {
                started_by: run.started_by.clone(),
                inputs: run.inputs.clone(),
                left_out: run.left_out.clone(),
                supersedes: run.supersedes.clone(),
                task_definitions: run.task_definitions.clone(),
                base_file: run.base_file.clone(),
                approval: run.approval.clone(),
            })?,
        })
    }

    pub(super) fn read(self) -> Result<Run> {
        let row = Row("run", &self.id);
        let decided: Decided = row.json("decided", &self.decided)?;
        Ok(Run {
            id: row.word("id", &self.id)?,
            project: row.word("project", &self.project)?,
            commit: row.word("commit_sha", &self.commit_sha)?,
            created_at: row.time(self.created_at)?,
            pipeline: self
                .pipeline
                .as_deref()
                .map(|text| row.json("pipeline", text))
                .transpose()?,
            variables: row.json("variables", &self.variables)?,
            authorship: self
                .authorship
                .as_deref()
                .map(|text| row.json("authorship", text))
                .transpose()?,
            started_by: decided.started_by,
            inputs: decided.inputs,
            left_out: decided.left_out,
            supersedes: decided.supersedes,
            task_definitions: decided.task_definitions,
            base_file: decided.base_file,
            approval: decided.approval,
            repositories: row.json("repositories", &self.repositories)?,
            state: row.json("state", &self.state)?,
            git_ref: self.git_ref,
            message: self.message,
            author: self.author,
        })
    }
}

pub(super) fn find(connection: &mut AnyConnection, id: &RunId) -> Result<Run> {
    let found: Option<Record> = runs::table.find(id.as_str()).first(connection).optional()?;
    match found {
        Some(record) => record.read(),
        None => Err(missing(connection, id)?),
    }
}

/// There is no such run yet, or no more.
fn missing(connection: &mut AnyConnection, id: &RunId) -> Result<StoreError> {
    let next: Option<i64> = lanes::table
        .find(id.project().as_str())
        .select(lanes::next_run)
        .first(connection)
        .optional()?;
    let was_there = next.is_some_and(|next| signed(id.number()) < next);
    let any_more = if was_there {
        " any more: retention has removed it"
    } else {
        ""
    };
    Ok(StoreError::not_found(format!("run {id}{any_more}")))
}

/// Stores what a fact has made of a run: mostly its state alone, the smallest part of it.
pub(super) fn save(
    connection: &mut AnyConnection,
    found: &Run,
    next: &Run,
    fact: &RunFact,
) -> Result<()> {
    let row = runs::table.find(next.id.as_str());
    if !fact.moves_state_alone() {
        diesel::update(row)
            .set(Record::of(next)?)
            .execute(connection)?;
        return Ok(());
    }
    debug_assert_eq!(
        *next,
        Run {
            state: next.state.clone(),
            ..found.clone()
        }
    );
    diesel::update(row)
        .set((
            runs::state.eq(json(&next.state)?),
            runs::word.eq(next.state.word()),
            runs::ended_at.eq(ended_at(&next.state).map(micros)),
        ))
        .execute(connection)?;
    Ok(())
}

/// Whether a push or a pull request started a run. Of one ref there are only runs of the one or of the other.
fn told_by_forge(id: &str, decided: &str) -> Result<bool> {
    let decided: Decided = Row("run", id).json("decided", decided)?;
    Ok(decided.started_by.is_told_by_forge())
}

/// Makes a run with the next number, and its event.
pub(super) fn create(
    connection: &mut AnyConnection,
    project: &ProjectName,
    (commit, git_ref, started_by): (&CommitSha, &str, &StartedBy),
    actor: &str,
    now: Timestamp,
) -> Result<RunId> {
    let number = lane::take_run_number(connection, project)?;
    let id = RunId::new(project, number);
    let mut run = Run::asked_for(id.clone(), commit.clone(), git_ref.to_owned(), now);
    run.started_by = started_by.clone();
    let detail = if started_by.is_push() {
        json!({ "commit": commit, "git_ref": git_ref })
    } else {
        json!({ "commit": commit, "git_ref": git_ref, "started_by": started_by })
    };
    diesel::insert_into(runs::table)
        .values(Record::of(&run)?)
        .execute(connection)?;
    let line = Line {
        at: now,
        project: Some(project),
        subject: id.as_str(),
        actor,
        what: "asked_for",
        before: Value::Null,
        after: json!(run.state.word()),
        detail: &detail,
    };
    audit::append(connection, &line)?;
    Ok(id)
}

type LineRecord = (
    String,
    String,
    String,
    String,
    String,
    i64,
    Option<i64>,
    String,
    String,
);

fn read_line(record: LineRecord) -> Result<RunLine> {
    let (id, commit, git_ref, message, author, created_at, ended_at, state, decided) = record;
    let row = Row("run", &id);
    let decided: Decided = row.json("decided", &decided)?;
    Ok(RunLine {
        id: row.word("id", &id)?,
        commit: row.word("commit_sha", &commit)?,
        created_at: row.time(created_at)?,
        ended_at: row.maybe_time(ended_at)?,
        state: row.json("state", &state)?,
        git_ref,
        started_by: decided.started_by,
        message,
        author,
    })
}

/// Runs of a project with a number below `before`, newest first.
pub(super) fn lines(
    connection: &mut AnyConnection,
    project: &ProjectName,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<RunLine>> {
    let found: Vec<LineRecord> = runs::table
        .filter(runs::project.eq(project.as_str()))
        .filter(runs::number.lt(before.map_or(i64::MAX, signed)))
        .order(runs::number.desc())
        .limit(i64::from(limit))
        .select((
            runs::id,
            runs::commit_sha,
            runs::git_ref,
            runs::message,
            runs::author,
            runs::created_at,
            runs::ended_at,
            runs::state,
            runs::decided,
        ))
        .load(connection)?;
    found.into_iter().map(read_line).collect()
}

impl RunDetail {
    /// The attempts at a job, the first one first.
    pub fn attempts_at<'d>(
        &'d self,
        job: &JobName,
    ) -> impl DoubleEndedIterator<Item = &'d Attempt> {
        let job = job.clone();
        self.attempts.iter().filter(move |it| it.job == job)
    }

    /// The newest attempt that had a step of this name.
    #[must_use]
    pub fn newest_with(&self, step: &str) -> Option<&Attempt> {
        let mut rows = self.steps.iter();
        let row = rows.rfind(|row| row.name.as_str() == step)?;
        self.attempts.iter().find(|it| it.id == row.attempt)
    }
}

impl Store {
    /// Commits, and the refs that they were pushed to, of runs that have a runner or had one and are not over: each
    /// may be released next. Those of pull requests are not among them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Data`].
    pub async fn commits_being_built(
        &self,
        project: &ProjectName,
    ) -> Result<Vec<(CommitSha, String)>> {
        let project = project.clone();
        self.read(move |c| {
            let found: Vec<(String, String, String)> = runs::table
                .filter(runs::project.eq(project.as_str()))
                .filter(runs::ended_at.is_null())
                .filter(runs::word.eq_any([BUILDING, CONFIRMING, CONFIRMED]))
                .select((runs::id, runs::commit_sha, runs::git_ref))
                .load(c)?;
            let released = found
                .into_iter()
                .filter(|(_, _, git_ref)| !matches!(GitRef::of(git_ref), GitRef::PullRequest(_)));
            let read = released.map(|(id, commit, git_ref)| {
                Ok((Row("run", &id).word("commit_sha", &commit)?, git_ref))
            });
            read.collect()
        })
        .await
    }

    /// Makes a run as a push would, for a person who asks for it: a retry.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project.
    pub async fn ask_for_run(
        &self,
        project: &ProjectName,
        commit: CommitSha,
        git_ref: String,
        actor: &str,
        now: Timestamp,
    ) -> Result<RunId> {
        let (project, actor) = (project.clone(), actor.to_owned());
        let work = move |c: &mut AnyConnection| {
            let what = (&commit, git_ref.as_str(), &StartedBy::Push);
            create(c, &project, what, &actor, now)
        };
        self.write(work).await
    }

    /// A project's runs, newest first; `before` is a run's number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_runs(
        &self,
        project: &ProjectName,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RunLine>> {
        let project = project.clone();
        self.read(move |c| lines(c, &project, before, limit)).await
    }

    /// A run with its attempts, steps and effects.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_run(&self, id: &RunId) -> Result<RunDetail> {
        let id = id.clone();
        self.read(move |c| {
            let run = find(c, &id)?;
            let (attempts, steps) = attempts::of_run(c, &id)?;
            Ok(RunDetail {
                ended_at: ended_at(&run.state),
                effects: effects::of_subject(c, id.as_str())?,
                lines: groups::lines_of(c, &run)?,
                run,
                attempts,
                steps,
            })
        })
        .await
    }

    /// What came of the runs before a run on its branch or tag. `commits` are the ids that the run's commit
    /// goes by: its own, and what was pushed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn runs_before(&self, run: &Run, commits: [&CommitSha; 2]) -> Result<RunsBefore> {
        let (project, git_ref) = (run.project.clone(), run.git_ref.clone());
        let number = signed(run.id.number());
        let commits = commits.map(ToString::to_string);
        self.read(move |c| {
            let before = || {
                runs::table
                    .filter(runs::project.eq(project.as_str()))
                    .filter(runs::git_ref.eq(&git_ref))
                    .filter(runs::number.lt(number))
            };
            let of_commit: Vec<(String, String, bool)> = before()
                .filter(runs::commit_sha.eq_any(&commits))
                .order(runs::number)
                .limit(LOOKED_THROUGH)
                .select((runs::id, runs::decided, runs::pipeline.is_not_null()))
                .load(c)?;
            let known = branch_files::table.find((project.as_str(), &git_ref));
            let known: Option<i64> = known.select(branch_files::run_number).first(c).optional()?;
            let file_read = known.is_some() && of_commit.iter().any(|(.., read)| *read);
            let mut same_commit = false;
            for (id, decided, _) in &of_commit {
                same_commit |= told_by_forge(id, decided)?;
            }
            let succeeded: Vec<(String, String, String)> = before()
                .filter(runs::word.eq(SUCCEEDED))
                .order(runs::number.desc())
                .limit(LOOKED_THROUGH)
                .select((runs::id, runs::decided, runs::commit_sha))
                .load(c)?;
            let mut last_succeeded = None;
            for (id, decided, commit) in &succeeded {
                if told_by_forge(id, decided)? {
                    last_succeeded = Some(Row("run", id).word("commit_sha", commit)?);
                    break;
                }
            }
            let open: Vec<(String, String, String, String)> = before()
                .filter(runs::ended_at.is_null())
                .select((runs::id, runs::decided, runs::commit_sha, runs::state))
                .load(c)?;
            let mut building = BTreeMap::new();
            for (id, decided, commit, state) in open {
                let row = Row("run", &id);
                let state: RunState = row.json("state", &state)?;
                if state.can_be_cancelled() && told_by_forge(&id, &decided)? {
                    building.insert(row.word("id", &id)?, row.word("commit_sha", &commit)?);
                }
            }
            Ok(RunsBefore {
                same_commit,
                file_read,
                last_succeeded,
                building,
            })
        })
        .await
    }

    /// The triggers of the file that holds now and of those that were read by the newest runs that read one; none
    /// when none was ever read: then there is no telling what the project wants. A run that has not read its
    /// own yet says nothing, or each of many tags would let in the next.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project.
    pub async fn triggers_read_lately(&self, project: &ProjectName) -> Result<Vec<Trigger>> {
        #[derive(Deserialize)]
        struct File {
            trigger: Trigger,
        }
        let project = project.clone();
        self.read(move |c| {
            let newest: Vec<(String, Option<String>)> = runs::table
                .filter(runs::project.eq(project.as_str()))
                .filter(runs::pipeline.is_not_null())
                .order(runs::number.desc())
                .limit(FILES_READ_LATELY)
                .select((runs::id, runs::pipeline))
                .load(c)?;
            let holds = lane::get(c, &project)?.pipeline;
            let read = newest
                .iter()
                .filter_map(|(id, file)| Some((id.as_str(), file.as_deref()?)));
            read.chain(holds.as_deref().map(|file| (project.as_str(), file)))
                .map(|(id, file)| {
                    let file: File = Row("run", id).json("pipeline", file)?;
                    Ok(file.trigger)
                })
                .collect()
        })
        .await
    }

    /// The commit of the newest run for a ref: what a gap filler compares a branch's head with.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn newest_commit(
        &self,
        project: &ProjectName,
        git_ref: &str,
    ) -> Result<Option<CommitSha>> {
        let (project, git_ref) = (project.clone(), git_ref.to_owned());
        self.read(move |c| {
            let found: Option<(String, String)> = runs::table
                .filter(runs::project.eq(project.as_str()))
                .filter(runs::git_ref.eq(&git_ref))
                .order(runs::number.desc())
                .select((runs::id, runs::commit_sha))
                .first(c)
                .optional()?;
            found
                .map(|(id, commit)| Row("run", &id).word("commit_sha", &commit))
                .transpose()
        })
        .await
    }
}
