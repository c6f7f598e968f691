//! Moves an installation from the embedded database to PostgreSQL: every row of every table, in one
//! transaction there, while nobody else has either of them.
//!
//! Tables and columns are read from the database and not named here, so none is forgotten. Rows travel
//! as JSON, which both databases write and read by themselves.

use super::conn::{Access, Address, AnyConnection};
use super::{Result, StoreError, migrate};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{Connection as _, QueryableByName, RunQueryDsl, SqliteConnection};
use std::collections::BTreeSet;

/// Rows that travel at a time. A row may have a webhook's body, 5 MB at most.
const PIECE: i64 = 100;
/// Its rows say which migrations ran, and each database has its own.
const MIGRATIONS: &str = "__diesel_schema_migrations";
/// The migrations put the heads of empty chains into an empty database.
const HEADS: &str = "audit_heads";

/// A table, and how many rows of it were moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub table: String,
    /// Rows, counted in both databases.
    pub rows: u64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

#[derive(QueryableByName)]
struct Piece {
    #[diesel(sql_type = Text)]
    rows: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

#[derive(QueryableByName)]
struct Sequence {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// Moves all rows of `from` (`sqlite:PATH`) to `to` (`postgres://…`), which has to be empty; tables are
/// made there. Gives what was moved, by table. The source stays as it is. Blocks.
///
/// # Errors
/// [`StoreError::Conflict`] when a server still has the source, the target is not empty, or a table has
/// another number of rows afterwards; [`StoreError::Unavailable`]. Nothing is in the target then.
pub fn transfer(from: &str, to: &str) -> Result<Vec<Moved>> {
    let (Address::Sqlite(path), target @ Address::Postgres(_)) =
        (Address::parse(from)?, Address::parse(to)?)
    else {
        return Err(StoreError::conflict(
            "rows are moved from an embedded database (`sqlite:PATH`) to PostgreSQL (`postgres://…`)",
        ));
    };
    if !path.exists() {
        let missing = format!("there is no database at {}", path.display());
        return Err(StoreError::unavailable(missing));
    }
    let mut source = alone(&path.display().to_string())?;
    migrate::up(&mut source)?;
    let mut target = AnyConnection::connect(&target, Access::Write)?;
    migrate::up(&mut target)?;
    source.transact(Access::Write, |source| {
        target.transact(Access::Write, |target| move_all(source, target))
    })
}

/// A connection to a database that nobody else has.
fn alone(path: &str) -> Result<AnyConnection> {
    let failed = |error: String| StoreError::unavailable(format!("{path}: {error}"));
    let mut connection =
        SqliteConnection::establish(path).map_err(|error| failed(error.to_string()))?;
    // With this a connection takes the whole file, which fails while another one is open; a server
    // always has some. The look is what takes it.
    let taken = connection.batch_execute(
        "PRAGMA busy_timeout = 1000; PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; \
         PRAGMA foreign_keys = ON; SELECT count(*) FROM sqlite_master;",
    );
    match taken {
        Ok(()) => Ok(AnyConnection::Sqlite(connection)),
        Err(error) if error.to_string().contains("locked") => Err(StoreError::conflict(format!(
            "{path} is in use: stop the server first"
        ))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn count(connection: &mut AnyConnection, table: &str) -> Result<i64> {
    let query = format!("SELECT count(*) AS count FROM \"{table}\"");
    let found: Count = diesel::sql_query(query).get_result(connection)?;
    Ok(found.count)
}

/// Every table, after those that it refers to.
fn tables(source: &mut AnyConnection) -> Result<Vec<String>> {
    let found: Vec<Name> = diesel::sql_query(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' \
         ESCAPE '\\' ORDER BY name",
    )
    .load(source)?;
    let mut left: Vec<(String, BTreeSet<String>)> = vec![];
    for Name { name } in found {
        if name == MIGRATIONS {
            continue;
        }
        let refers: Vec<Name> =
            diesel::sql_query("SELECT \"table\" AS name FROM pragma_foreign_key_list(?)")
                .bind::<Text, _>(&name)
                .load(source)?;
        let others = refers.into_iter().map(|to| to.name);
        left.push((name.clone(), others.filter(|to| *to != name).collect()));
    }
    let mut ordered: Vec<String> = vec![];
    while !left.is_empty() {
        let ready = left
            .iter()
            .position(|(_, refers)| refers.iter().all(|to| ordered.contains(to)))
            .ok_or_else(|| StoreError::conflict("the tables refer to each other in a circle"))?;
        ordered.push(left.remove(ready).0);
    }
    Ok(ordered)
}

/// How a row is written as JSON: `'name', "name", …`.
fn members(source: &mut AnyConnection, table: &str) -> Result<String> {
    let columns: Vec<Column> =
        diesel::sql_query("SELECT name, lower(type) AS kind FROM pragma_table_info(?)")
            .bind::<Text, _>(table)
            .load(source)?;
    let members: Vec<String> = columns
        .into_iter()
        .map(|Column { name, kind }| match kind.as_str() {
            // JSON has no bytes; PostgreSQL reads these.
            "blob" => format!("'{name}', iif(\"{name}\" IS NULL, NULL, '\\x' || hex(\"{name}\"))"),
            // SQLite keeps these as numbers.
            "boolean" => format!("'{name}', json(iif(\"{name}\", 'true', 'false'))"),
            _ => format!("'{name}', \"{name}\""),
        })
        .collect();
    Ok(members.join(", "))
}

fn move_all(source: &mut AnyConnection, target: &mut AnyConnection) -> Result<Vec<Moved>> {
    let tables = tables(source)?;
    let names: Vec<String> = tables.iter().map(|name| format!("\"{name}\"")).collect();
    // A server that starts there meanwhile waits, and finds the rows.
    target.batch_execute(&format!(
        "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
        names.join(", ")
    ))?;
    refuse_unless_empty(target, &tables)?;
    target.batch_execute(&format!("DELETE FROM {HEADS}"))?;
    let mut moved = vec![];
    for table in tables {
        move_table(source, target, &table)?;
        let (before, after) = (count(source, &table)?, count(target, &table)?);
        if before != after {
            return Err(StoreError::conflict(format!(
                "`{table}` has {before} rows, and {after} of them arrived: nothing was moved"
            )));
        }
        moved.push(Moved {
            table,
            rows: before.unsigned_abs(),
        });
    }
    go_on_counting(source, target)?;
    Ok(moved)
}

fn refuse_unless_empty(target: &mut AnyConnection, tables: &[String]) -> Result<()> {
    for table in tables {
        let rows = if table == HEADS {
            let begun = format!("SELECT count(*) AS count FROM {HEADS} WHERE length > 0");
            let found: Count = diesel::sql_query(begun).get_result(target)?;
            found.count
        } else {
            count(target, table)?
        };
        if rows > 0 {
            return Err(StoreError::conflict(format!(
                "the PostgreSQL database is not empty: `{table}` has {rows} rows; name an empty one"
            )));
        }
    }
    Ok(())
}

fn move_table(source: &mut AnyConnection, target: &mut AnyConnection, table: &str) -> Result<()> {
    let read = format!(
        "SELECT json_group_array(json_object({})) AS rows, max(row) AS last FROM \
         (SELECT rowid AS row, * FROM \"{table}\" WHERE rowid > ? ORDER BY rowid LIMIT {PIECE})",
        members(source, table)?
    );
    let write = format!(
        "INSERT INTO \"{table}\" OVERRIDING SYSTEM VALUE \
         SELECT * FROM json_populate_recordset(NULL::\"{table}\", $1::json)"
    );
    // Row ids begin at 1 unless somebody chose them.
    let mut after = i64::MIN;
    loop {
        let piece: Piece = diesel::sql_query(&read)
            .bind::<BigInt, _>(after)
            .get_result(source)?;
        let Some(last) = piece.last else {
            return Ok(());
        };
        diesel::sql_query(&write)
            .bind::<Text, _>(&piece.rows)
            .execute(target)?;
        after = last;
    }
}

/// Numbers that were given once are not given again, also those of rows that are gone.
fn go_on_counting(source: &mut AnyConnection, target: &mut AnyConnection) -> Result<()> {
    let counters: Vec<Sequence> =
        diesel::sql_query("SELECT name, seq FROM sqlite_sequence WHERE seq > 0").load(source)?;
    for Sequence { name, seq } in counters {
        let key: Name = diesel::sql_query(
            "SELECT column_name::text AS name FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 AND is_identity = 'YES'",
        )
        .bind::<Text, _>(&name)
        .get_result(target)?;
        diesel::sql_query("SELECT setval(pg_get_serial_sequence($1, $2), $3)")
            .bind::<Text, _>(&name)
            .bind::<Text, _>(&key.name)
            .bind::<BigInt, _>(seq)
            .execute(target)?;
    }
    Ok(())
}
