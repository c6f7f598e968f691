//! The history: append-only, written in the transaction of what it tells, never read for decisions.
//! `audit` gives each event its place in a chain.

use super::codec::Row;
use super::schema::events;
use super::{Event, Result, Store};
use diesel::prelude::*;
use jiff::Timestamp;
use roadstead_pipelines::fact::{Change, RunFact};
use roadstead_pipelines::id::ProjectName;
use serde_json::{Value, json};

/// What is told, before `audit` gives it its place in a chain.
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    pub(super) project: Option<&'a ProjectName>,
    pub(super) subject: &'a str,
    pub(super) actor: &'a str,
    pub(super) what: &'a str,
    /// How it stood; null when there was nothing, or nothing that this changed.
    pub(super) before: Value,
    /// How it stands then.
    pub(super) after: Value,
    /// Particulars, without fractions: what is read back has to be written the same.
    pub(super) detail: &'a Value,
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
                // What else it holds is told by the attempts' own events.
                RunFact::RerunRequested { by, again, .. } => json!({ "by": by, "again": again }),
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

type Record = (
    i64,
    i64,
    Option<String>,
    String,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
);

const COLUMNS: (
    events::sequence,
    events::at,
    events::project,
    events::subject,
    events::actor,
    events::what,
    events::detail,
    events::reason,
    events::before,
    events::after,
) = (
    events::sequence,
    events::at,
    events::project,
    events::subject,
    events::actor,
    events::what,
    events::detail,
    events::reason,
    events::before,
    events::after,
);

fn read(record: Record) -> Result<Event> {
    let (sequence, at, project, subject, actor, what, detail, reason, before, after) = record;
    let key = sequence.to_string();
    let row = Row("event", &key);
    let value =
        |column, text: Option<String>| text.map_or(Ok(Value::Null), |text| row.json(column, &text));
    Ok(Event {
        sequence,
        at: row.time(at)?,
        project: project.map(|name| row.word("project", &name)).transpose()?,
        detail: row.json("detail", &detail)?,
        before: value("before", before)?,
        after: value("after", after)?,
        reason,
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
                .select(COLUMNS)
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

    /// The history of everything, newest first, without the `offset` first entries.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn list_all_events(&self, offset: u32, limit: u32) -> Result<Vec<Event>> {
        self.read(move |c| {
            let found: Vec<Record> = events::table
                .order(events::sequence.desc())
                .offset(i64::from(offset))
                .limit(i64::from(limit))
                .select(COLUMNS)
                .load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }
}
