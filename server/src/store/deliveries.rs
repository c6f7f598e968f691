//! Webhook calls as rows: stored before they are answered, each at most once.

use super::codec::{Row, micros};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::deliveries;
use super::{
    Accepted, Decision, Delivery, GAP_FILLER, NewDelivery, Redelivery, Result, Store, StoreError,
    audit, body, heads, lane, pull_requests, runs,
};
use diesel::prelude::*;
use roadstead_pipelines::id::{CommitSha, ProjectName, RunId};
use roadstead_pipelines::started_by::StartedBy;
use serde_json::{Value, json};
use std::sync::Arc;

type Record = (
    i64,
    String,
    String,
    String,
    String,
    i64,
    String,
    String,
    Option<String>,
    Option<i64>,
);

const COLUMNS: (
    deliveries::id,
    deliveries::project,
    deliveries::forge,
    deliveries::delivery_id,
    deliveries::event,
    deliveries::received_at,
    deliveries::decision,
    deliveries::reason,
    deliveries::run,
    deliveries::redelivery_of,
) = (
    deliveries::id,
    deliveries::project,
    deliveries::forge,
    deliveries::delivery_id,
    deliveries::event,
    deliveries::received_at,
    deliveries::decision,
    deliveries::reason,
    deliveries::run,
    deliveries::redelivery_of,
);

fn read(record: Record) -> Result<Delivery> {
    let (id, project, forge, delivery_id, event, received_at, decision, reason, run, of) = record;
    let key = id.to_string();
    let row = Row("delivery", &key);
    Ok(Delivery {
        id,
        project: row.word("project", &project)?,
        received_at: row.time(received_at)?,
        run: run.map(|run| row.word("run", &run)).transpose()?,
        redelivery_of: of,
        forge,
        delivery_id,
        event,
        decision,
        reason,
    })
}

/// The same push, whoever tells of it and however often. A person who redelivers wants it again.
fn semantic_key(new: &NewDelivery) -> Option<String> {
    if new.redelivery.is_some() {
        return None;
    }
    let (git_ref, commit, event) = match &new.decision {
        Decision::Build { git_ref, commit } => (git_ref, commit, new.event.clone()),
        Decision::BuildPullRequest {
            git_ref,
            commit,
            occasion,
            ..
        } => match occasion {
            Some(occasion) => (git_ref, commit, format!("{} {occasion}", new.event)),
            None => (git_ref, commit, new.event.clone()),
        },
        Decision::ClosePullRequest { .. } | Decision::Ignore { .. } => return None,
    };
    Some(heads::semantic_key(&new.project, git_ref, commit, &event))
}

/// What is stored of the decision.
struct Outcome {
    decision: &'static str,
    reason: String,
    semantic_key: Option<String>,
    run: Option<RunId>,
}

/// The run of an earlier delivery; the outer `None` says that there is no such delivery.
fn earlier_run(found: Option<Option<String>>, row: &Row<'_>) -> Result<Option<Option<RunId>>> {
    found
        .map(|run| run.map(|id| row.word("run", &id)).transpose())
        .transpose()
}

/// The button's own line of the history.
fn tell_again(connection: &mut AnyConnection, new: &NewDelivery, again: &Redelivery) -> Result<()> {
    let line = Line {
        at: new.received_at,
        project: Some(&new.project),
        subject: &format!("delivery {}", again.of),
        actor: &again.by,
        what: "redelivered",
        before: Value::Null,
        after: Value::Null,
        detail: &json!({ "delivery": again.of }),
    };
    audit::append(connection, &line)
}

/// Makes the run that a delivery asks for.
fn made(
    connection: &mut AnyConnection,
    new: &NewDelivery,
    what: (&CommitSha, &str, &StartedBy),
    semantic_key: Option<String>,
) -> Result<(Accepted, Outcome)> {
    let actor = match &new.redelivery {
        Some(again) => again.by.clone(),
        None if new.forge == GAP_FILLER => GAP_FILLER.to_owned(),
        None => format!("{} webhook", new.forge),
    };
    let run = runs::create(connection, &new.project, what, &actor, new.received_at)?;
    let outcome = Outcome {
        decision: "built",
        reason: String::new(),
        semantic_key,
        run: Some(run.clone()),
    };
    Ok((Accepted::Run(run), outcome))
}

fn accept(
    connection: &mut AnyConnection,
    new: &NewDelivery,
    packed_body: &[u8],
) -> Result<Accepted> {
    // The lane first: another server may be storing the same call. A run that is made moves it on.
    if !matches!(new.decision, Decision::Ignore { .. }) {
        lane::lock(connection, &new.project)?;
    }
    if let Some(again) = &new.redelivery {
        tell_again(connection, new, again)?;
    }
    let row = Row("delivery", &new.delivery_id);
    let same_call = deliveries::table
        .filter(deliveries::project.eq(new.project.as_str()))
        .filter(deliveries::delivery_id.eq(&new.delivery_id))
        .select(deliveries::run)
        .first(connection)
        .optional()?;
    if let Some(run) = earlier_run(same_call, &row)? {
        return Ok(Accepted::Duplicate { run });
    }
    let semantic_key = semantic_key(new);
    let same_push = match &semantic_key {
        Some(key) => deliveries::table
            .filter(deliveries::semantic_key.eq(Some(key)))
            .select(deliveries::run)
            .first(connection)
            .optional()?,
        None => None,
    };
    let (accepted, outcome) = match (&new.decision, earlier_run(same_push, &row)?) {
        (Decision::Ignore { reason }, _) => {
            let outcome = Outcome {
                decision: "ignored",
                reason: reason.clone(),
                semantic_key: None,
                run: None,
            };
            (Accepted::Ignored, outcome)
        }
        (Decision::ClosePullRequest { git_ref, number }, _) => {
            let reason = pull_requests::close(connection, new, git_ref, *number)?;
            let outcome = Outcome {
                decision: "closed",
                reason,
                semantic_key: None,
                run: None,
            };
            (Accepted::Ignored, outcome)
        }
        (Decision::Build { .. } | Decision::BuildPullRequest { .. }, Some(run)) => {
            let outcome = Outcome {
                decision: "duplicate",
                reason: "this push was delivered before".into(),
                semantic_key: None,
                run: run.clone(),
            };
            (Accepted::Duplicate { run }, outcome)
        }
        (Decision::Build { git_ref, commit }, None) => made(
            connection,
            new,
            (commit, git_ref, &StartedBy::Push),
            semantic_key,
        )?,
        (
            Decision::BuildPullRequest {
                git_ref,
                commit,
                pull_request,
                ..
            },
            None,
        ) => {
            let started_by = StartedBy::PullRequest(pull_request.clone());
            made(
                connection,
                new,
                (commit, git_ref, &started_by),
                semantic_key,
            )?
        }
    };
    diesel::insert_into(deliveries::table)
        .values((
            deliveries::project.eq(new.project.as_str()),
            deliveries::forge.eq(&new.forge),
            deliveries::delivery_id.eq(&new.delivery_id),
            deliveries::semantic_key.eq(outcome.semantic_key),
            deliveries::event.eq(&new.event),
            deliveries::received_at.eq(micros(new.received_at)),
            deliveries::body.eq(""),
            deliveries::packed_body.eq(packed_body),
            deliveries::decision.eq(outcome.decision),
            deliveries::reason.eq(outcome.reason),
            deliveries::run.eq(outcome.run.as_ref().map(RunId::as_str)),
            deliveries::redelivery_of.eq(new.redelivery.as_ref().map(|again| again.of)),
        ))
        .execute(connection)?;
    Ok(accepted)
}

impl Store {
    /// Stores a webhook call and, when it asks for one, its run, in one transaction. The same call,
    /// or the same push told again, makes no second run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such project; [`StoreError::Unavailable`]: then
    /// nothing may be acknowledged.
    pub async fn accept_delivery(&self, mut delivery: NewDelivery) -> Result<Accepted> {
        let packed = body::pack(std::mem::take(&mut delivery.body)).await?;
        let (delivery, packed) = (Arc::new(delivery), Arc::<[u8]>::from(packed));
        let (again, packed_again) = (Arc::clone(&delivery), Arc::clone(&packed));
        match self.write(move |c| accept(c, &delivery, &packed)).await {
            // Another server stored the same call between our look and our write: look again.
            Err(StoreError::Conflict { .. }) => {
                self.write(move |c| accept(c, &again, &packed_again)).await
            }
            other => other,
        }
    }

    /// A project's deliveries, newest first; `before` is a delivery's number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_deliveries(
        &self,
        project: &ProjectName,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>> {
        let project = project.clone();
        self.read(move |c| {
            let found: Vec<Record> = deliveries::table
                .filter(deliveries::project.eq(project.as_str()))
                .filter(deliveries::id.lt(before.unwrap_or(i64::MAX)))
                .order(deliveries::id.desc())
                .limit(i64::from(limit))
                .select(COLUMNS)
                .load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }

    /// The deliveries of all projects, newest first, without the `offset` first ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list_all_deliveries(&self, offset: u32, limit: u32) -> Result<Vec<Delivery>> {
        self.read(move |c| {
            let found: Vec<Record> = deliveries::table
                .order(deliveries::id.desc())
                .offset(i64::from(offset))
                .limit(i64::from(limit))
                .select(COLUMNS)
                .load(c)?;
            found.into_iter().map(read).collect()
        })
        .await
    }

    /// A delivery and its body. To deliver it again: decide on the body again, and
    /// [`Store::accept_delivery`] with `redelivery` set and a new `delivery_id`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get_delivery(&self, id: i64) -> Result<(Delivery, String)> {
        self.read(move |c| {
            let found: Option<(Record, String, Option<Vec<u8>>)> = deliveries::table
                .find(id)
                .select((COLUMNS, deliveries::body, deliveries::packed_body))
                .first(c)
                .optional()?;
            let (record, body, packed) =
                found.ok_or_else(|| StoreError::not_found(format!("delivery {id}")))?;
            let body = match packed {
                Some(packed) => body::unpack(&Row("delivery", &id.to_string()), &packed)?,
                None => body,
            };
            Ok((read(record)?, body))
        })
        .await
    }
}
