//! Keeps SQLite's write-ahead log from growing without end.
//!
//! By itself SQLite copies the log back within a commit, and whoever waits for that one waits for two more syncs; under
//! load it does so at nearly every commit, and the same pages go back to the database each time. So a thread of its own copies,
//! one stretch of the log after the other, while the writer goes on.
//!
//! The log begins anew only in a moment without a reader in it. With
//! enough pages open there is no such moment, and the file grows for as long as they come. So the writer,
//! between two batches, makes one: it copies back what is left and waits shortly for the readers of before;
//! readers that begin meanwhile find all in the database and need the log no more. A reader that stays
//! (a backup that copies the database) makes this fail; it is tried again, also when nobody writes.

use super::conn::{Access, Address, AnyConnection};
use super::{Result, StoreError};
use diesel::connection::SimpleConnection;
use diesel::sql_types::Integer;
use diesel::{QueryableByName, RunQueryDsl};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// A log of this size is taken back, in bytes: some seconds of full load, and a restart reads it within
/// one.
const LARGE: u64 = 32 << 20;
/// A stretch of so many bytes is copied back while the writer goes on.
const STRETCH: u64 = 8 << 20;
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
    copier: Option<Copier>,
    failed: Option<Failed>,
}

/// The way to the thread that copies. When it is dropped, the thread ends.
struct Copier {
    sender: Sender<()>,
    /// From the order until it is carried out.
    busy: Arc<AtomicBool>,
    /// How long the log was at the last order, in bytes; it begins anew with 0.
    ordered_at: u64,
}

impl Copier {
    /// None when there is no thread to be had: then the writer copies all.
    fn start(address: &Address) -> Option<Self> {
        let (sender, orders) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let (address, carried_out) = (address.clone(), Arc::clone(&busy));
        std::thread::Builder::new()
            .name("store-copier".into())
            .spawn(move || copy(&address, &orders, &carried_out))
            .inspect_err(|error| tracing::warn!("no thread copies the write-ahead log: {error}"))
            .ok()?;
        Some(Self {
            sender,
            busy,
            ordered_at: 0,
        })
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn order(&mut self, length: u64) {
        self.ordered_at = length;
        self.busy.store(true, Ordering::Release);
        if self.sender.send(()).is_err() {
            // The thread is gone: the writer has to do it.
            self.busy.store(false, Ordering::Release);
        }
    }
}

/// Copies what is in the log at each order; nobody waits for it, and a reader of before ends where it may copy to.
fn copy(address: &Address, orders: &Receiver<()>, busy: &AtomicBool) {
    let mut connection = None;
    for () in orders {
        let copied = match connection.take() {
            Some(open) => Ok(open),
            None => AnyConnection::connect(address, Access::Write),
        }
        .and_then(|mut open| checkpoint(&mut open, "PASSIVE").map(|_| open));
        match copied {
            Ok(open) => connection = Some(open),
            Err(error) => tracing::warn!("the write-ahead log could not be copied: {error}"),
        }
        busy.store(false, Ordering::Release);
    }
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
        let copier = log.as_ref().and_then(|_| Copier::start(address));
        Self {
            log,
            copier,
            failed: None,
        }
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

    /// Has a stretch copied, or takes the log back if it is large, unless that has just failed. `at_rest`: nobody waits.
    pub(super) fn take_back(&mut self, connection: &mut AnyConnection, at_rest: bool) {
        let length = self.length();
        if let Some(copier) = &mut self.copier {
            if copier.is_busy() {
                // One at a time; a large log is a little larger then.
                return;
            }
            if length < LARGE && length >= copier.ordered_at + STRETCH {
                copier.order(length);
                return;
            }
        }
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
                if let Some(copier) = &mut self.copier {
                    copier.ordered_at = 0;
                }
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
    let patience = |ms: u32| format!("PRAGMA busy_timeout = {ms};");
    if let AnyConnection::Sqlite(connection) = connection {
        connection.batch_execute(&patience(PATIENCE_MS))?;
    }
    let done = checkpoint(connection, "TRUNCATE");
    if let AnyConnection::Sqlite(connection) = connection {
        connection.batch_execute(&patience(USUAL_PATIENCE_MS))?;
    }
    done
}

/// A checkpoint of a mode; false when somebody is in the way.
fn checkpoint(connection: &mut AnyConnection, mode: &str) -> Result<bool> {
    let AnyConnection::Sqlite(connection) = connection else {
        return Ok(true);
    };
    let done: std::result::Result<Outcome, StoreError> =
        diesel::sql_query(format!("PRAGMA wal_checkpoint({mode})"))
            .get_result(connection)
            .map_err(StoreError::from);
    Ok(done?.busy == 0)
}
