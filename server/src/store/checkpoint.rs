//! Keeps SQLite's write-ahead log from growing without end.
//!
//! SQLite copies the log back by itself, but begins it anew only in a moment without a reader in it. With
//! enough pages open there is no such moment, and the file grows for as long as they come. So the writer,
//! between two batches, makes one: it copies everything back and waits shortly for the readers of before;
//! readers that begin meanwhile find all in the database and need the log no more. A reader that stays
//! (a backup that copies the database) makes this fail; it is tried again, also when nobody writes.

use super::conn::{Address, AnyConnection};
use super::{Result, StoreError};
use diesel::connection::SimpleConnection;
use diesel::sql_types::Integer;
use diesel::{QueryableByName, RunQueryDsl};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A log of this size is taken back, in bytes: some seconds of full load, and a restart reads it within
/// one.
const LARGE: u64 = 32 << 20;
/// How long the writer waits for readers of before, in milliseconds; as long nothing is written.
const PATIENCE_MS: u32 = 50;
/// What a connection waits for others otherwise (see `conn`), in milliseconds.
const USUAL_PATIENCE_MS: u32 = 5_000;
/// How soon a failed try is made again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(QueryableByName)]
struct Outcome {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// The log of one database.
pub(super) struct Checkpoints {
    /// None beside PostgreSQL.
    log: Option<PathBuf>,
    failed_at: Option<Instant>,
}

impl Checkpoints {
    pub(super) fn of(address: &Address) -> Self {
        let log = match address {
            Address::Sqlite(path) => {
                let mut name = path.as_os_str().to_owned();
                name.push("-wal");
                Some(PathBuf::from(name))
            }
            Address::Postgres(_) => None,
        };
        Self {
            log,
            failed_at: None,
        }
    }

    /// How long the writer may rest before it has to come here again; none: until there is work.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.is_large().then_some(AGAIN)
    }

    fn is_large(&self) -> bool {
        let length = self
            .log
            .as_ref()
            .and_then(|log| std::fs::metadata(log).ok())
            .map_or(0, |log| log.len());
        length >= LARGE
    }

    /// Takes the log back if it is large, and if the last try was not just now.
    pub(super) fn take_back(&mut self, connection: &mut AnyConnection) {
        let just_failed = self.failed_at.is_some_and(|at| at.elapsed() < AGAIN);
        if just_failed || !self.is_large() {
            return;
        }
        match truncate(connection) {
            Ok(true) => self.failed_at = None,
            Ok(false) => {
                tracing::debug!("the write-ahead log stays: somebody reads in it");
                self.failed_at = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!("the write-ahead log could not be taken back: {error}");
                self.failed_at = Some(Instant::now());
            }
        }
    }
}

/// Copies all of the log back and empties it; false when a reader is in the way.
fn truncate(connection: &mut AnyConnection) -> Result<bool> {
    let AnyConnection::Sqlite(connection) = connection else {
        return Ok(true);
    };
    connection.batch_execute(&format!("PRAGMA busy_timeout = {PATIENCE_MS};"))?;
    let done: std::result::Result<Outcome, StoreError> =
        diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)")
            .get_result(connection)
            .map_err(StoreError::from);
    connection.batch_execute(&format!("PRAGMA busy_timeout = {USUAL_PATIENCE_MS};"))?;
    Ok(done?.busy == 0)
}
