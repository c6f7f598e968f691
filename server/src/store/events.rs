//! The history: append-only, written in the transaction of what it tells, never read for decisions.

use super::codec::{Row, json, micros};
use super::conn::AnyConnection;
use super::schema::events;
use super::{Event, Result, Store};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::ProjectName;
use serde_json::{Value, json};

/// A line to be written.
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) project: Option<&'a ProjectName>,
    pub(super) subject: &'a str,
    pub(super) actor: &'a str,
    pub(super) what: &'a str,
    pub(super) detail: &'a Value,
}

pub(super) fn add(connection: &mut AnyConnection, line: &Line<'_>) -> Result<()> {
    diesel::insert_into(events::table)
        .values((
            events::at.eq(micros(line.at)),
            events::project.eq(line.project.map(ProjectName::as_str)),
            events::subject.eq(line.subject),
            events::actor.eq(line.actor),
            events::what.eq(line.what),
            events::detail.eq(json(line.detail)?),
        ))
        .execute(connection)?;
    Ok(())
}

/// Subject, word and particulars of a change. Whole pipeline files stay out: the run has them.
pub(super) fn describe(change: &Change) -> (String, &'static str, Value) {
    match change {
        Change::Run { run, fact } => {
            let detail = match fact {
                RunFact::SourcesRead(read) => json!({
                    "message": read.message,
                    "author": read.author,
                    "skip": read.skip,
                }),
                other => json!(other),
            };
            (run.to_string(), fact.word(), detail)
        }
        Change::Deployment { deployment, fact } => {
            (deployment.to_string(), fact.word(), json!(fact))
        }
        Change::MakeRelease { release } => {
            let detail =
                json!({ "run": release.run, "commit": release.commit, "images": release.images });
            (release.id.to_string(), "release_made", detail)
        }
        Change::OpenDeployment {
            deployment,
            place,
            release,
            kind,
            trigger,
        } => {
            let detail = json!({
                "place": place.to_string(), "release": release, "kind": kind, "trigger": trigger,
            });
            (deployment.to_string(), "opened", detail)
        }
        Change::SetHold { place, hold } => (place.to_string(), "held", json!(hold)),
        Change::ReleaseHold { place, by } => (place.to_string(), "resumed", json!({ "by": by })),
        Change::Approve { place, approval } => (place.to_string(), "approved", json!(approval)),
        Change::AdoptPipeline { pipeline } => {
            let environments: Vec<_> = pipeline.environments.keys().collect();
            let detail = json!({ "environments": environments });
            ("pipeline".to_owned(), "pipeline_adopted", detail)
        }
    }
}

type Record = (i64, i64, Option<String>, String, String, String, String);

fn read(record: Record) -> Result<Event> {
    let (sequence, at, project, subject, actor, what, detail) = record;
    let key = sequence.to_string();
    let row = Row("event", &key);
    Ok(Event {
        sequence,
        at: row.time(at)?,
        project: project.map(|name| row.word("project", &name)).transpose()?,
        detail: row.json("detail", &detail)?,
        subject,
        actor,
        what,
    })
}

impl Store {
    /// The history, newest first: of a project, or all of it; of a subject when one is given.
    /// `before` is a sequence number.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn list_events(
        &self,
        project: Option<&ProjectName>,
        subject: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Event>> {
        let (project, subject) = (project.cloned(), subject.map(str::to_owned));
        self.read(move |c| {
            let mut query = events::table
                .filter(events::sequence.lt(before.unwrap_or(i64::MAX)))
                .order(events::sequence.desc())
                .limit(i64::from(limit))
                .into_boxed();
            if let Some(project) = &project {
                query = query.filter(events::project.eq(project.as_str()));
            }
            if let Some(subject) = subject {
                query = query.filter(events::subject.eq(subject));
            }
            let found: Vec<Record> = query.load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }

    /// Writes a line for what is no change of a lane.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn add_event(
        &self,
        project: Option<ProjectName>,
        subject: &str,
        actor: &str,
        what: &str,
        detail: Value,
        now: Timestamp,
    ) -> Result<()> {
        let (subject, actor, what) = (subject.to_owned(), actor.to_owned(), what.to_owned());
        self.write(move |c| {
            let line = Line {
                at: now,
                project: project.as_ref(),
                subject: &subject,
                actor: &actor,
                what: &what,
                detail: &detail,
            };
            add(c, &line)
        })
        .await
    }
}
