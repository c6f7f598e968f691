//! Brings a database to this version's tables. The twin folders hold the same migrations.

use super::conn::Access;
use super::conn::AnyConnection;
use super::{Result, StoreError, audit};
use diesel::RunQueryDsl;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");
/// Several servers may start on one database at once: the key of the lock that lets one migrate.
const MIGRATION_LOCK: i64 = 0x0726_f616_4737_4656;

/// Runs what is missing.
pub(super) fn up(connection: &mut AnyConnection) -> Result<()> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        StoreError::unavailable(format!("its tables could not be set up: {error}"))
    };
    match connection {
        AnyConnection::Sqlite(c) => {
            c.run_pending_migrations(SQLITE).map_err(failed)?;
            connection.transact(Access::Write, audit::chain_what_is_not)
        }
        AnyConnection::Postgres(c) => {
            let lock = format!("SELECT pg_advisory_lock({MIGRATION_LOCK})");
            let unlock = format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})");
            diesel::sql_query(lock).execute(c)?;
            let done = c.run_pending_migrations(POSTGRES).map(|_| ());
            let done = done
                .map_err(failed)
                .and_then(|()| connection.transact(Access::Write, audit::chain_what_is_not));
            diesel::sql_query(unlock).execute(connection)?;
            done
        }
    }
}

#[cfg(test)]
pub(super) fn down(connection: &mut AnyConnection) -> Result<()> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        StoreError::unavailable(format!("its tables could not be taken down: {error}"))
    };
    match connection {
        AnyConnection::Sqlite(c) => c
            .revert_all_migrations(SQLITE)
            .map(|_| ())
            .map_err(failed)?,
        AnyConnection::Postgres(c) => c
            .revert_all_migrations(POSTGRES)
            .map(|_| ())
            .map_err(failed)?,
    }
    Ok(())
}
