//! The history as an audit trail: every event is an entry of a chain (see [`crate::audit`]), written in
//! the transaction of what it tells, and never changed or removed: triggers refuse both.
//!
//! A chain's head is a row of its own. Writers of one project wait for each other at it, as they do at
//! the project's lane already; writers of different projects do not. Within a chain the order of
//! sequence numbers is the order of positions, because a number is drawn while the head is locked.

use super::codec::{Row, json, micros, signed};
use super::conn::AnyConnection;
use super::events::Line;
use super::schema::{audit_heads, events, projects};
use super::{AuditPage, Result, Store, StoreError};
use crate::audit::{Chain, Entry, Head};
use diesel::prelude::*;
use roadstead_pipelines::id::ProjectName;
use serde_json::Value;

/// Entries of before chains were kept that are chained in one go.
const OLD_EVENTS: i64 = 1_000;
/// Only somebody at the database can have removed it.
const MISSING_HEAD: &str = "the row was removed from `audit_heads`: put it back from a backup, or insert \
     the chain with position and hash of its last event";

/// Makes the head of a new project's chain.
pub(super) fn begin_chain(connection: &mut AnyConnection, project: &ProjectName) -> Result<()> {
    let head = Head::of_nothing(Chain::Project(project.clone()));
    diesel::insert_into(audit_heads::table)
        .values((
            audit_heads::chain.eq(head.chain.to_string()),
            audit_heads::length.eq(0),
            audit_heads::hash.eq(head.head),
        ))
        .execute(connection)?;
    Ok(())
}

/// A chain's head, which nobody else moves until the transaction ends.
fn locked_head(connection: &mut AnyConnection, chain: &Chain) -> Result<Head> {
    let name = chain.to_string();
    let query = audit_heads::table
        .find(&name)
        .select((audit_heads::length, audit_heads::hash));
    let found: Option<(i64, String)> = match connection {
        AnyConnection::Sqlite(c) => query.first(c).optional()?,
        AnyConnection::Postgres(c) => query.for_update().first(c).optional()?,
    };
    // Without its head a chain cannot go on: nothing is done that the trail would not tell.
    let row = Row("audit head", &name);
    let (length, head) = found.ok_or_else(|| row.broken(MISSING_HEAD))?;
    Ok(Head {
        chain: chain.clone(),
        length: row.number("length", length)?,
        head,
    })
}

fn move_head(connection: &mut AnyConnection, head: &Head) -> Result<()> {
    diesel::update(audit_heads::table.find(head.chain.to_string()))
        .set((
            audit_heads::length.eq(signed(head.length)),
            audit_heads::hash.eq(&head.head),
        ))
        .execute(connection)?;
    Ok(())
}

/// Gives an entry its hash, and the head that then holds.
fn seal(entry: &mut Entry, before: &Head) -> Result<Head> {
    entry.hash = entry
        .hash_after(&before.head)
        .map_err(|error| StoreError::Data {
            row: format!("entry {} of {}", entry.position, entry.chain),
            value: error.to_string(),
        })?;
    Ok(Head {
        chain: entry.chain.clone(),
        length: entry.position,
        head: entry.hash.clone(),
    })
}

/// Why, where the particulars of an event say it: in a person's words, or the message of what failed.
fn reason_in(detail: &Value) -> &str {
    ["/reason", "/trigger/reason", "/failure/message"]
        .iter()
        .find_map(|place| detail.pointer(place)?.as_str())
        .unwrap_or_default()
}

/// Null is stored as such, everything else as JSON.
fn column(value: &Value) -> Result<Option<String>> {
    (!value.is_null()).then(|| json(value)).transpose()
}

/// Appends an entry to its chain.
pub(super) fn append(connection: &mut AnyConnection, line: &Line<'_>) -> Result<()> {
    let head = locked_head(connection, &Chain::of(line.project))?;
    let mut entry = Entry {
        chain: head.chain.clone(),
        position: head.length + 1,
        // As precise as it is stored.
        at: Row("entry", line.subject).time(micros(line.at))?,
        subject: line.subject.to_owned(),
        actor: line.actor.to_owned(),
        what: line.what.to_owned(),
        reason: reason_in(line.detail).to_owned(),
        before: line.before.clone(),
        after: line.after.clone(),
        detail: line.detail.clone(),
        hash: String::new(),
    };
    let moved = seal(&mut entry, &head)?;
    diesel::insert_into(events::table)
        .values((
            events::at.eq(micros(entry.at)),
            events::project.eq(line.project.map(ProjectName::as_str)),
            events::subject.eq(&entry.subject),
            events::actor.eq(&entry.actor),
            events::what.eq(&entry.what),
            events::detail.eq(json(&entry.detail)?),
            events::position.eq(signed(entry.position)),
            events::reason.eq(&entry.reason),
            events::before.eq(column(&entry.before)?),
            events::after.eq(column(&entry.after)?),
            events::hash.eq(&entry.hash),
        ))
        .execute(connection)?;
    move_head(connection, &moved)
}

type Record = (
    i64,
    i64,
    Option<String>,
    String,
    String,
    String,
    String,
    i64,
    String,
    Option<String>,
    Option<String>,
    String,
);

/// JSON as it is stored. Text that would not be written so was not written by us: as a string it gives
/// another hash, so that a verification finds it.
fn as_stored(text: Option<String>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if json(&value).is_ok_and(|written| written == text) => value,
        _ => Value::String(text),
    }
}

/// The sequence number and the entry of a row, whatever somebody may have made of it.
fn entry_of(record: Record) -> Result<(i64, Entry)> {
    let (
        sequence,
        at,
        project,
        subject,
        actor,
        what,
        detail,
        position,
        reason,
        before,
        after,
        hash,
    ) = record;
    let key = sequence.to_string();
    let row = Row("event", &key);
    let project: Option<ProjectName> =
        project.map(|name| row.word("project", &name)).transpose()?;
    let entry = Entry {
        chain: Chain::of(project.as_ref()),
        // One that is below zero stands before every other.
        position: u64::try_from(position).unwrap_or(0),
        at: row.time(at)?,
        subject,
        actor,
        what,
        reason,
        before: as_stored(before),
        after: as_stored(after),
        detail: as_stored(Some(detail)),
        hash,
    };
    Ok((sequence, entry))
}

/// Rows of a chain behind a sequence number.
fn rows_after(
    connection: &mut AnyConnection,
    chain: &Chain,
    after: i64,
    limit: i64,
) -> Result<Vec<Record>> {
    let query = events::table
        .filter(events::sequence.gt(after))
        .order(events::sequence)
        .limit(limit)
        .into_boxed();
    let query = match chain.project() {
        Some(name) => query.filter(events::project.eq(name.as_str())),
        None => query.filter(events::project.is_null()),
    };
    Ok(query.load(connection)?)
}

pub(super) fn chains(connection: &mut AnyConnection) -> Result<Vec<Chain>> {
    let names: Vec<String> = projects::table
        .select(projects::name)
        .order(projects::name)
        .load(connection)?;
    let mut found = vec![Chain::Installation];
    for name in names {
        let project = Row("project", &name).word("name", &name)?;
        found.push(Chain::Project(project));
    }
    Ok(found)
}

/// Chains the events of before there were chains, in their order. Only where no chain has begun: an
/// event without a hash behind one that has it was not written by us.
pub(super) fn chain_what_is_not(connection: &mut AnyConnection) -> Result<()> {
    for chain in chains(connection)? {
        let mut head = locked_head(connection, &chain)?;
        if head.length > 0 {
            continue;
        }
        let mut after = 0;
        loop {
            let rows = rows_after(connection, &chain, after, OLD_EVENTS)?;
            if rows.is_empty() {
                break;
            }
            for record in rows {
                let (sequence, mut entry) = entry_of(record)?;
                after = sequence;
                entry.position = head.length + 1;
                head = seal(&mut entry, &head)?;
                diesel::update(events::table.find(sequence))
                    .set((
                        events::position.eq(signed(entry.position)),
                        events::hash.eq(&entry.hash),
                    ))
                    .execute(connection)?;
            }
        }
        move_head(connection, &head)?;
    }
    Ok(())
}

impl Store {
    /// Every chain of the audit trail: the installation's, then the projects' by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Data`].
    pub async fn audit_chains(&self) -> Result<Vec<Chain>> {
        self.read(chains).await
    }

    /// At most `limit` entries of a chain behind the one with sequence number `after` (0: from the
    /// first), and the chain's head at the same moment. Fewer than `limit`: these are the last, and the
    /// head is theirs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Data`] when a row cannot be read at all.
    pub async fn audit_page(&self, chain: &Chain, after: i64, limit: u32) -> Result<AuditPage> {
        let chain = chain.clone();
        self.read(move |c| page(c, &chain, after, limit)).await
    }
}

pub(super) fn page(
    connection: &mut AnyConnection,
    chain: &Chain,
    after: i64,
    limit: u32,
) -> Result<AuditPage> {
    let rows = rows_after(connection, chain, after, i64::from(limit))?;
    let mut page = AuditPage {
        whole: rows.len() < limit as usize,
        last: after,
        entries: Vec::with_capacity(rows.len()),
        head: head(connection, chain)?,
    };
    for record in rows {
        let (sequence, entry) = entry_of(record)?;
        page.last = sequence;
        page.entries.push(entry);
    }
    Ok(page)
}

/// A chain's head; one whose row somebody removed has nothing before it, which its entries belie.
fn head(connection: &mut AnyConnection, chain: &Chain) -> Result<Head> {
    let found: Option<(i64, String)> = audit_heads::table
        .find(chain.to_string())
        .select((audit_heads::length, audit_heads::hash))
        .first(connection)
        .optional()?;
    Ok(match found {
        Some((length, head)) => Head {
            chain: chain.clone(),
            length: u64::try_from(length).unwrap_or(0),
            head,
        },
        None => Head::of_nothing(chain.clone()),
    })
}
