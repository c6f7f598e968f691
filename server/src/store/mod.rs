//! Rows: the only room that knows Diesel, and the only one that knows which database it is.
//!
//! One query body serves SQLite and PostgreSQL; where they must differ there is a `match` on the
//! connection. Everything that can change a decision belongs to its project's *lane*: whoever
//! changes such a row first moves the lane's generation on, which also makes writers of one project
//! wait for each other. A plan carries the generations it was made from; [`Store::commit`] compares
//! and swaps them, so a plan made on a stale read stores nothing.
//!
//! Times are stored as whole microseconds since 1970 (BIGINT), states as a word (for queries) beside
//! the JSON of the core's own type (for reading back). What proves who somebody is arrives
//! here as SHA-256 hashes only, except a project's webhook key, which HMAC needs as it is; secrets of
//! projects arrive sealed.

mod accounts;
mod artifacts;
mod attempts;
mod audit;
pub mod backup;
mod body;
mod caches;
mod checkpoint;
mod claims;
mod codec;
mod commit;
mod conn;
mod deliveries;
mod deployments;
mod effects;
mod error;
mod events;
mod groups;
mod heads;
mod lane;
mod migrate;
mod pending;
mod projects;
mod pull_requests;
mod releases;
mod reruns;
mod retention;
mod runners;
mod runs;
mod schedules;
mod schema;
mod secrets;
mod servers;
mod starts;
mod statuses;
mod test_reports;
#[cfg(test)]
mod tests;
mod tokens;
pub mod transfer;
mod types;
mod world;
mod writer;

use conn::{Access, Address};
use diesel::r2d2::{ManageConnection, Pool};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use writer::Writer;

pub use artifacts::{Artifact, NewArtifact, Space};
pub use caches::{Cache, CacheSearch, NewCache, Place};
pub use conn::AnyConnection;
pub use effects::Wanted;
pub use error::StoreError;
pub use projects::LaneMark;
pub use runners::A_NAME_IS_HELD_FOR;
pub use servers::Carrier;
pub use statuses::DueStatus;
pub use test_reports::StepTests;
pub use types::*;

/// What every call answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Snapshots that are read at the same time.
const READERS: u32 = 4;
/// Transactions that write at the same time; SQLite has its one writer instead.
const POSTGRES_WRITERS: u32 = 4;
/// How long a call waits for a free connection. GitHub waits 10 s for its answer, which is to be a 503 by
/// then, not a silence.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// How often a transaction that PostgreSQL made give way is tried.
const MOST_TRIES: u32 = 10;

/// The database behind the server. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    urgency: Urgency,
}

/// Whose writes come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Somebody waits for the answer: a forge, a runner, a person.
    Asked,
    /// It follows from what is stored, and will a little later as well.
    Follows,
}

struct Inner {
    /// This server's name among those on one database, new with each start.
    id: String,
    address: Address,
    engine: Engine,
    /// As many as there are reading connections: a blocking thread never waits for one.
    reading: Semaphore,
    readers: Pool<Manager>,
}

enum Engine {
    Sqlite(Writer),
    Postgres {
        writing: Semaphore,
        /// One fewer, for what nobody waits for.
        following: Semaphore,
        writers: Pool<Manager>,
    },
}

struct Manager {
    address: Address,
    access: Access,
}

impl ManageConnection for Manager {
    type Connection = AnyConnection;
    type Error = StoreError;

    fn connect(&self) -> Result<AnyConnection> {
        AnyConnection::connect(&self.address, self.access)
    }

    fn is_valid(&self, connection: &mut AnyConnection) -> Result<()> {
        use diesel::r2d2::R2D2Connection;
        Ok(connection.ping()?)
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        connection.is_broken()
    }
}

fn pool(address: &Address, access: Access, size: u32) -> Result<Pool<Manager>> {
    let manager = Manager {
        address: address.clone(),
        access,
    };
    Pool::builder()
        .max_size(size)
        .min_idle(Some(1))
        .connection_timeout(CONNECTION_WAIT)
        .build(manager)
        .map_err(|error| StoreError::unavailable(error.to_string()))
}

/// SHA-256 in hexadecimal: all that the store keeps of tokens and credentials.
#[must_use]
pub fn hash_secret(secret: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(secret.as_bytes()))
}

impl Store {
    /// Opens `sqlite:PATH` or `postgres://…` and brings its tables to this version. When no other
    /// server lives, every live attempt gets one more lease: nobody could hear runners meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached or is too old.
    pub async fn open(url: &str) -> Result<Self> {
        let address = Address::parse(url)?;
        let opened = tokio::task::spawn_blocking(move || {
            let mut connection = AnyConnection::connect(&address, Access::Write)?;
            migrate::up(&mut connection)?;
            connection.transact(Access::Write, |c| {
                let now = crate::clock::now();
                if !servers::any_lives(c, now)? {
                    attempts::renew_leases(c, now)?;
                }
                // On SQLite no other server can be at work: what was leased was left behind.
                if let Address::Sqlite(_) = &address {
                    effects::release_leases(c)?;
                    statuses::release_leases(c)?;
                }
                Ok(())
            })?;
            let engine = match &address {
                Address::Sqlite(_) => Engine::Sqlite(Writer::start(address.clone(), connection)?),
                Address::Postgres(_) => Engine::Postgres {
                    writing: Semaphore::new(POSTGRES_WRITERS as usize),
                    following: Semaphore::new(POSTGRES_WRITERS as usize - 1),
                    writers: pool(&address, Access::Write, POSTGRES_WRITERS)?,
                },
            };
            let inner = Inner {
                id: servers::new_id(),
                engine,
                reading: Semaphore::new(READERS as usize),
                readers: pool(&address, Access::Read, READERS)?,
                address,
            };
            Ok(Self {
                inner: Arc::new(inner),
                urgency: Urgency::Asked,
            })
        });
        joined(opened.await)
    }

    /// The same database for work that nobody waits for: its writes come after those that somebody does, as long as
    /// there are any, and go on all the same.
    #[must_use]
    pub fn in_background(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            urgency: Urgency::Follows,
        }
    }

    /// Looks whether `sqlite:PATH` or `postgres://…` answers, and changes nothing there: a server may be
    /// at work.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached or is too old.
    pub async fn probe(url: &str) -> Result<()> {
        let address = Address::parse(url)?;
        let probing = tokio::task::spawn_blocking(move || {
            use diesel::r2d2::R2D2Connection;
            let mut connection = AnyConnection::connect(&address, Access::Read)?;
            Ok(connection.ping()?)
        });
        joined(probing.await)
    }

    /// Runs `work` in a transaction and answers once it is committed. It may run more than once:
    /// PostgreSQL may make it give way to another. It must not wait for anything but the database.
    ///
    /// # Errors
    /// Those of `work`, in which case nothing it wrote is stored; [`StoreError::Unavailable`] when
    /// the commit fails; [`StoreError::Panicked`].
    pub async fn write<T, F>(&self, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut AnyConnection) -> Result<T> + Send + 'static,
    {
        match &self.inner.engine {
            Engine::Sqlite(writer) => writer.run(self.urgency, work).await,
            Engine::Postgres {
                writing,
                following,
                writers,
            } => {
                let closed = |_| StoreError::unavailable("the store is closed");
                let _turn = match self.urgency {
                    Urgency::Asked => None,
                    Urgency::Follows => Some(following.acquire().await.map_err(closed)?),
                };
                let _permit = writing.acquire().await.map_err(closed)?;
                let writers = writers.clone();
                joined(
                    tokio::task::spawn_blocking(move || {
                        let mut connection = checked_out(&writers)?;
                        for tries in 1.. {
                            match connection.transact(Access::Write, &mut work) {
                                Err(error) if error.gave_way() && tries < MOST_TRIES => {
                                    std::thread::sleep(Duration::from_millis(5) * tries);
                                }
                                result => return result,
                            }
                        }
                        Err(StoreError::unavailable("the transaction kept giving way"))
                    })
                    .await,
                )
            }
        }
    }

    /// Runs `work` on one snapshot.
    ///
    /// # Errors
    /// Those of `work`; [`StoreError::Unavailable`]; [`StoreError::Panicked`].
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut AnyConnection) -> Result<T> + Send + 'static,
    {
        let _permit = self
            .inner
            .reading
            .acquire()
            .await
            .map_err(|_| StoreError::unavailable("the store is closed"))?;
        let readers = self.inner.readers.clone();
        joined(
            tokio::task::spawn_blocking(move || {
                checked_out(&readers)?.transact(Access::Read, work)
            })
            .await,
        )
    }

    /// Answers when the database does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<()> {
        self.read(|c| {
            use diesel::r2d2::R2D2Connection;
            Ok(c.ping()?)
        })
        .await
    }
}

fn checked_out(pool: &Pool<Manager>) -> Result<diesel::r2d2::PooledConnection<Manager>> {
    pool.get()
        .map_err(|error| StoreError::unavailable(error.to_string()))
}

fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.unwrap_or_else(|error| Err(StoreError::unavailable(error.to_string())))
}
