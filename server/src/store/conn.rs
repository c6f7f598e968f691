//! One connection, to either database: opening it, and the only way in which a transaction begins
//! and ends.
//!
//! Transactions go through the enum's own transaction manager, never through raw statements: with
//! those a nested transaction would silently commit the outer one on PostgreSQL.

use super::{Result, StoreError};
use crate::private;
use diesel::connection::{
    AnsiTransactionManager, Connection as _, SimpleConnection, TransactionManager,
};
use diesel::{PgConnection, QueryResult, QueryableByName, RunQueryDsl, SqliteConnection};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// A connection to SQLite or PostgreSQL. Only rooms of the store look inside.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    /// The embedded database.
    Sqlite(SqliteConnection),
    /// The database for several servers.
    Postgres(PgConnection),
}

type Manager = <AnyConnection as diesel::Connection>::TransactionManager;

/// Which database, read from a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Address {
    /// Reads `sqlite:PATH`, `postgres://…` or `postgresql://…`.
    pub(super) fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:")
            && !path.is_empty()
        {
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        Err(StoreError::unavailable(
            "the store's url has to be `sqlite:PATH` or `postgres://user:password@host/database`",
        ))
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Changes rows.
    Write,
    /// Sees one snapshot and changes nothing.
    Read,
}

/// The oldest SQLite without known faults in what is used here (WAL after a crash).
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

/// What a connection to PostgreSQL is told unless its URL says it otherwise: a server that vanishes
/// without a word, as in a failover, is given up within about ten seconds. Linux by itself waits for
/// a quarter of an hour, or for two hours when nothing was sent.
const HEARD_WHEN_GONE: [(&str, &str); 5] = [
    ("connect_timeout", "5"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "2"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
];

fn heard_when_gone(url: &str) -> String {
    let (_, given) = url.split_once('?').unwrap_or_default();
    let is_given = |name: &str| {
        let mut pairs = given.split('&').map(|pair| pair.split('=').next());
        pairs.any(|key| key == Some(name))
    };
    let mut whole = url.to_owned();
    for (name, value) in HEARD_WHEN_GONE.iter().filter(|(name, _)| !is_given(name)) {
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(&format!("{name}={value}"));
    }
    whole
}

impl AnyConnection {
    /// Connects and sets the session up.
    pub(super) fn connect(address: &Address, access: Access) -> Result<Self> {
        match address {
            Address::Sqlite(path) => {
                let refused =
                    |error: String| StoreError::unavailable(format!("{}: {error}", path.display()));
                let text = path
                    .to_str()
                    .ok_or_else(|| refused("the path is not UTF-8".into()))?;
                // SQLite gives its other files the mode of this one.
                private::file(path).map_err(|e| refused(e.to_string()))?;
                let mut connection =
                    SqliteConnection::establish(text).map_err(|e| refused(e.to_string()))?;
                // busy_timeout first: setting WAL needs the lock for a moment. Each closure of a batch has
                // a savepoint: what that would undo is kept in memory, not in a file.
                let query_only = if access == Access::Read { "ON" } else { "OFF" };
                // No copying back within a commit, for which callers wait: see `checkpoint`.
                connection.batch_execute(&format!(
                    "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
                     PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                     PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; \
                     PRAGMA query_only = {query_only};"
                ))?;
                check_version(&mut connection)?;
                Ok(Self::Sqlite(connection))
            }
            Address::Postgres(url) => PgConnection::establish(&heard_when_gone(url))
                .map(Self::Postgres)
                .map_err(|error| StoreError::unavailable(error.to_string())),
        }
    }

    fn begin(&mut self, access: Access) -> QueryResult<()> {
        match (self, access) {
            // Immediate: a deferred one fails with "locked" when it first writes after a read.
            (Self::Sqlite(c), Access::Write) => {
                AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE")
            }
            (Self::Sqlite(c), Access::Read) => {
                AnsiTransactionManager::begin_transaction_sql(c, "BEGIN")
            }
            (Self::Postgres(c), Access::Write) => {
                AnsiTransactionManager::begin_transaction_sql(c, "BEGIN")
            }
            (Self::Postgres(c), Access::Read) => AnsiTransactionManager::begin_transaction_sql(
                c,
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            ),
        }
    }

    /// Opens the outer transaction of a batch.
    pub(super) fn begin_batch(&mut self) -> Result<()> {
        Ok(self.begin(Access::Write)?)
    }

    /// Commits the outer transaction; after an error nothing of it is stored.
    pub(super) fn commit(&mut self) -> Result<()> {
        match Manager::commit_transaction(self) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }

    /// Gives the innermost open transaction up.
    pub(super) fn roll_back(&mut self) {
        if let Err(error) = Manager::rollback_transaction(self) {
            // The connection is then marked broken and not used again.
            tracing::warn!("a transaction could not be rolled back: {error}");
        }
    }

    /// Whether the connection can still be used outside a transaction.
    pub(super) fn is_broken(&mut self) -> bool {
        use diesel::connection::TransactionManagerStatus;
        match Manager::transaction_manager_status_mut(self) {
            TransactionManagerStatus::Valid(status) => status.transaction_depth().is_some(),
            TransactionManagerStatus::InError => true,
        }
    }

    /// Runs `work` in a transaction of its own, with its panics as errors.
    pub(super) fn transact<T>(
        &mut self,
        access: Access,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.begin(access)?;
        match guarded(self, work) {
            Ok(value) => self.commit().map(|()| value),
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Runs `work` in a savepoint of the open batch. The outer `Err` says that the batch is lost.
    pub(super) fn in_savepoint<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Result<T>> {
        Manager::begin_transaction(self)?;
        match guarded(self, work) {
            Ok(value) => {
                Manager::commit_transaction(self)?;
                Ok(Ok(value))
            }
            Err(error) => {
                Manager::rollback_transaction(self)?;
                Ok(Err(error))
            }
        }
    }
}

/// A panic of one caller's closure is that caller's error and nobody else's.
fn guarded<T>(
    connection: &mut AnyConnection,
    work: impl FnOnce(&mut AnyConnection) -> Result<T>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(|| work(connection))) {
        Ok(result) => result,
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into());
            Err(StoreError::Panicked { message })
        }
    }
}

fn check_version(connection: &mut SqliteConnection) -> Result<()> {
    let found: Version =
        diesel::sql_query("SELECT sqlite_version() AS version").get_result(connection)?;
    refuse_older(&found.version)
}

fn refuse_older(version: &str) -> Result<()> {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let numbers = [(); 3].map(|()| parts.next().unwrap_or(0));
    if numbers < OLDEST_SQLITE {
        return Err(StoreError::unavailable(format!(
            "SQLite {version} is too old: 3.51.3 or later is needed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_what_it_says_and_is_told_the_rest() {
        let all = "connect_timeout=5&keepalives_idle=5&keepalives_interval=2&keepalives_count=3\
                   &tcp_user_timeout=10000";
        assert_eq!(
            heard_when_gone("postgres://u:p@db/rows"),
            format!("postgres://u:p@db/rows?{all}")
        );
        let own = heard_when_gone("postgres://db/rows?sslmode=require&connect_timeout=30");
        assert!(own.starts_with("postgres://db/rows?sslmode=require&connect_timeout=30&keep"));
        assert_eq!(own.matches("connect_timeout").count(), 1);
    }

    #[test]
    fn an_sqlite_with_known_faults_is_refused() {
        for new in ["3.51.3", "3.53.2", "4.0"] {
            refuse_older(new).unwrap();
        }
        for old in ["3.40.1", "3.51.2", "3.51", "2.99.99", ""] {
            let error = refuse_older(old).unwrap_err().to_string();
            assert!(error.contains("3.51.3 or later"), "{error}");
        }
    }
}
