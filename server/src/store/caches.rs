//! Caches of steps: which there are. Their bytes are [`crate::caches`]'s.
//!
//! A row is there before its bytes come and until they are gone, so whatever is killed in between leaves nothing that
//! nobody knows of. One that is stored never changes, and there is one of a key: the first. No decision reads them.

use super::codec::{Row, micros, signed};
use super::conn::AnyConnection;
use super::schema::caches;
use super::{Result, Store, attempts, lane};
use diesel::prelude::*;
use jiff::{SignedDuration, Timestamp};
use roadstead_pipelines::id::{ProjectName, RunId};

/// Its bytes are coming; nobody is told of it.
const ARRIVING: &str = "arriving";
/// It is there.
const STORED: &str = "stored";
/// Its bytes are to be removed; nobody is told of it.
const LEAVING: &str = "leaving";
/// How long bytes may be on their way: longer than any runner waits.
const LONGEST_ARRIVAL: SignedDuration = SignedDuration::from_hours(2);
/// Rows that are looked at in one transaction.
const LOOK: i64 = 100;

/// A cache that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// What its bytes are named by.
    pub id: String,
    /// The full name of the ref whose runs left it.
    pub scope: String,
    /// Over the files that make the key.
    pub key: String,
    /// Its size in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// Which cache is looked for: the scopes in which, the nearest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSearch {
    /// The project.
    pub project: ProjectName,
    /// Full names of refs.
    pub scopes: Vec<String>,
    /// A sum over what has to be alike.
    pub kind: String,
    /// Over the files that make the key.
    pub key: String,
}

/// A cache whose bytes are about to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCache {
    /// What its bytes are named by; never used before.
    pub id: String,
    /// The attempt's id.
    pub attempt: String,
    /// Its fence.
    pub fence: u64,
    /// The run.
    pub run: RunId,
    /// The project.
    pub project: ProjectName,
    /// The full name of the run's ref.
    pub scope: String,
    /// Its name in the pipeline file.
    pub name: String,
    /// A sum over what has to be alike.
    pub kind: String,
    /// Over the files that make the key.
    pub key: String,
    /// Its size in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

/// What becomes of a new cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has its place.
    Free,
    /// Another one of that key is there.
    Taken,
    /// The attempt is over or belongs to another fence.
    Lost,
}

type Record = (String, String, String, i64, String);

fn read((id, scope, key, length, sha256): Record) -> Result<Cache> {
    let length = Row("cache", &id).number("length", length)?;
    Ok(Cache {
        id,
        scope,
        key,
        length,
        sha256,
    })
}

const COLUMNS: (
    caches::id,
    caches::scope,
    caches::key,
    caches::length,
    caches::sha256,
) = (
    caches::id,
    caches::scope,
    caches::key,
    caches::length,
    caches::sha256,
);

/// The stored one of exactly this key in a scope, or the newest one there.
fn find_in(
    connection: &mut AnyConnection,
    search: &CacheSearch,
    scope: &str,
    exactly: bool,
) -> Result<Option<Cache>> {
    let mut query = caches::table
        .filter(caches::project.eq(search.project.as_str()))
        .filter(caches::scope.eq(scope))
        .filter(caches::kind.eq(&search.kind))
        .filter(caches::state.eq(STORED))
        .order((caches::stored_at.desc(), caches::id))
        .select(COLUMNS)
        .into_boxed();
    if exactly {
        query = query.filter(caches::key.eq(&search.key));
    }
    let found: Option<Record> = query.first(connection).optional()?;
    found.map(read).transpose()
}

fn place_for(connection: &mut AnyConnection, new: &NewCache) -> Result<Place> {
    if !attempts::find(connection, &new.attempt)?.takes(new.fence) {
        return Ok(Place::Lost);
    }
    let search = CacheSearch {
        project: new.project.clone(),
        scopes: vec![],
        kind: new.kind.clone(),
        key: new.key.clone(),
    };
    let present = find_in(connection, &search, &new.scope, true)?;
    Ok(present.map_or(Place::Free, |_| Place::Taken))
}

/// Lets caches go that were used least lately until the others fit; `newest` stays.
fn make_room(
    connection: &mut AnyConnection,
    project: &ProjectName,
    most_bytes: u64,
    newest: Option<&str>,
) -> Result<()> {
    let of_project = caches::table
        .filter(caches::project.eq(project.as_str()))
        .filter(caches::state.eq(STORED));
    let by_use: Vec<(String, i64)> = of_project
        .order((caches::used_at.desc(), caches::id))
        .select((caches::id, caches::length))
        .load(connection)?;
    let (first, rest): (Vec<_>, Vec<_>) = by_use
        .into_iter()
        .partition(|(id, _)| Some(id.as_str()) == newest);
    let mut bytes = 0_u64;
    let mut gone = vec![];
    for (id, length) in first.into_iter().chain(rest) {
        bytes = bytes.saturating_add(length.unsigned_abs());
        if bytes > most_bytes && Some(id.as_str()) != newest {
            gone.push(id);
        }
    }
    leave(connection, &gone)
}

fn leave(connection: &mut AnyConnection, ids: &[String]) -> Result<()> {
    if !ids.is_empty() {
        diesel::update(caches::table.filter(caches::id.eq_any(ids)))
            .set(caches::state.eq(LEAVING))
            .execute(connection)?;
    }
    Ok(())
}

impl Store {
    /// The cache of exactly this key in the nearest scope that has one, or else the newest of its kind in the nearest
    /// scope that has any.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn find_cache(&self, search: &CacheSearch) -> Result<Option<Cache>> {
        let search = search.clone();
        self.read(move |c| {
            for exactly in [true, false] {
                for scope in &search.scopes {
                    if let Some(found) = find_in(c, &search, scope, exactly)? {
                        return Ok(Some(found));
                    }
                }
            }
            Ok(None)
        })
        .await
    }

    /// A stored cache of this kind in one of these scopes, which is noted as used now.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn use_cache(
        &self,
        search: &CacheSearch,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<Cache>> {
        let (search, id) = (search.clone(), id.to_owned());
        self.write(move |c| {
            let found: Option<Record> = caches::table
                .find(&id)
                .filter(caches::project.eq(search.project.as_str()))
                .filter(caches::scope.eq_any(&search.scopes))
                .filter(caches::kind.eq(&search.kind))
                .filter(caches::state.eq(STORED))
                .select(COLUMNS)
                .first(c)
                .optional()?;
            if found.is_some() {
                diesel::update(caches::table.find(&id))
                    .set(caches::used_at.eq(micros(now)))
                    .execute(c)?;
            }
            found.map(read).transpose()
        })
        .await
    }

    /// Notes a cache whose bytes are about to come, if there is a place for it.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn begin_cache(&self, new: &NewCache, now: Timestamp) -> Result<Place> {
        let new = new.clone();
        self.write(move |c| {
            let place = place_for(c, &new)?;
            if place == Place::Free {
                diesel::insert_into(caches::table)
                    .values((
                        caches::id.eq(&new.id),
                        caches::project.eq(new.project.as_str()),
                        caches::scope.eq(&new.scope),
                        caches::name.eq(&new.name),
                        caches::kind.eq(&new.kind),
                        caches::key.eq(&new.key),
                        caches::length.eq(signed(new.length)),
                        caches::sha256.eq(&new.sha256),
                        caches::state.eq(ARRIVING),
                        caches::run.eq(new.run.as_str()),
                        caches::stored_at.eq(micros(now)),
                        caches::used_at.eq(micros(now)),
                    ))
                    .execute(c)?;
            }
            Ok(place)
        })
        .await
    }

    /// Stores that a cache's bytes are safe, if no other of its key came first, and lets others of its project go that
    /// do not fit into `most_bytes` with it.
    ///
    /// # Errors
    /// [`super::StoreError::NotFound`] when there is no such attempt.
    pub async fn record_cache(
        &self,
        new: &NewCache,
        most_bytes: u64,
        now: Timestamp,
    ) -> Result<Place> {
        let new = new.clone();
        self.write(move |c| {
            lane::lock(c, &new.project)?;
            attempts::lock(c, &new.attempt)?;
            let mut place = place_for(c, &new)?;
            if place == Place::Free {
                let arriving = caches::table
                    .find(&new.id)
                    .filter(caches::state.eq(ARRIVING));
                let stored = diesel::update(arriving)
                    .set((
                        caches::state.eq(STORED),
                        caches::stored_at.eq(micros(now)),
                        caches::used_at.eq(micros(now)),
                    ))
                    .execute(c)?;
                // It took so long that it was taken for given up.
                if stored == 0 {
                    place = Place::Lost;
                } else {
                    make_room(c, &new.project, most_bytes, Some(&new.id))?;
                }
            }
            Ok(place)
        })
        .await
    }

    /// Lets a cache go: nobody is told of it any more.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn leave_cache(&self, id: &str) -> Result<()> {
        let ids = [id.to_owned()];
        self.write(move |c| leave(c, &ids)).await
    }

    /// Lets the caches of a project go that were not used since, those above `most_bytes` and those that never came
    /// whole, and gives some whose bytes are to be removed.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn caches_to_go(
        &self,
        project: &ProjectName,
        used_since: Option<Timestamp>,
        most_bytes: u64,
        now: Timestamp,
    ) -> Result<Vec<String>> {
        let project = project.clone();
        self.write(move |c| {
            let given_up = caches::table
                .filter(caches::project.eq(project.as_str()))
                .filter(caches::state.eq(ARRIVING))
                .filter(caches::stored_at.lt(micros(now - LONGEST_ARRIVAL)));
            diesel::update(given_up)
                .set(caches::state.eq(LEAVING))
                .execute(c)?;
            if let Some(since) = used_since {
                let unused = caches::table
                    .filter(caches::project.eq(project.as_str()))
                    .filter(caches::state.eq(STORED))
                    .filter(caches::used_at.lt(micros(since)));
                diesel::update(unused)
                    .set(caches::state.eq(LEAVING))
                    .execute(c)?;
            }
            make_room(c, &project, most_bytes, None)?;
            Ok(caches::table
                .filter(caches::project.eq(project.as_str()))
                .filter(caches::state.eq(LEAVING))
                .order(caches::id)
                .limit(LOOK)
                .select(caches::id)
                .load(c)?)
        })
        .await
    }

    /// Forgets caches whose bytes are gone.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`].
    pub async fn forget_caches(&self, ids: Vec<String>) -> Result<()> {
        self.write(move |c| {
            let gone = caches::table
                .filter(caches::id.eq_any(&ids))
                .filter(caches::state.eq(LEAVING));
            diesel::delete(gone).execute(c)?;
            Ok(())
        })
        .await
    }
}
