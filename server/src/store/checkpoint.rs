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
const PATIENCE_MS: u32 = 100;
/// What a connection waits for others otherwise (see `conn`), in milliseconds.
const USUAL_PATIENCE_MS: u32 = 5_000;
/// A try that failed is made again once the log has grown by so many bytes; by twice as many after each
/// further one, because a reader that stays is not to cost others their time again and again.
const FIRST_STEP: u64 = 4 << 20;
const LARGEST_STEP: u64 = 256 << 20;
/// How soon it is made again when nobody writes.
const AGAIN_AT_REST: Duration = Duration::from_secs(1);
/// How soon it is made again at the latest.
const AGAIN: Duration = Duration::from_secs(10);

#[derive(QueryableByName)]
struct Outcome {
    #[diesel(sql_type = Integer)]
    busy: i32,
}

/// A try that a reader was in the way of.
struct Failed {
    at: Instant,
    step: u64,
    /// The log's length that makes it worth another one.
    next: u64,
}

/// The log of one database.
pub(super) struct Checkpoints {
    /// None beside PostgreSQL.
    log: Option<PathBuf>,
    failed: Option<Failed>,
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
        Self { log, failed: None }
    }

    /// How long the writer may rest before it has to come here again; none: until there is work.
    pub(super) fn rest(&self) -> Option<Duration> {
        (self.length() >= LARGE).then_some(AGAIN_AT_REST)
    }

    fn length(&self) -> u64 {
        self.log
            .as_ref()
            .and_then(|log| std::fs::metadata(log).ok())
            .map_or(0, |log| log.len())
    }

    /// Takes the log back if it is large, unless that has just failed. `at_rest`: nobody waits.
    pub(super) fn take_back(&mut self, connection: &mut AnyConnection, at_rest: bool) {
        let length = self.length();
        let pause = if at_rest { AGAIN_AT_REST } else { AGAIN };
        let too_soon = self
            .failed
            .as_ref()
            .is_some_and(|failed| length < failed.next && failed.at.elapsed() < pause);
        if length < LARGE || too_soon {
            return;
        }
        match truncate(connection) {
            Ok(true) => {
                self.failed = None;
                return;
            }
            Ok(false) => tracing::debug!("the write-ahead log stays: somebody reads in it"),
            Err(error) => {
                tracing::warn!("the write-ahead log could not be taken back: {error}");
            }
        }
        let step = self
            .failed
            .as_ref()
            .map_or(FIRST_STEP, |failed| (failed.step * 2).min(LARGEST_STEP));
        self.failed = Some(Failed {
            at: Instant::now(),
            step,
            next: length + step,
        });
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
