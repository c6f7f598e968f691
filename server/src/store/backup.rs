//! A copy of the embedded database while others write to it, and whether a copy is sound.

use super::conn::{Access, Address, AnyConnection};
use super::{Result, StoreError};
use crate::private;
use diesel::sql_types::Text;
use diesel::{Connection as _, QueryableByName, RunQueryDsl, SqliteConnection};
use std::fs::File;
use std::path::Path;

/// Where a database is, as far as a backup is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of this machine.
    File(std::path::PathBuf),
    /// A server with backups of its own.
    Elsewhere,
}

/// Where the database behind a URL is.
///
/// # Errors
/// [`StoreError::Unavailable`] when it is no URL of a database.
pub fn place_of(url: &str) -> Result<Place> {
    Ok(match Address::parse(url)? {
        Address::Sqlite(path) => Place::File(path),
        Address::Postgres(_) => Place::Elsewhere,
    })
}

/// Copies a database into a file that is not there yet, as it is at one moment; its writers go on
/// meanwhile. The copy is on the disk once this returns. Blocks; takes about as long as reading the file
/// does, and keeps the write-ahead log from being taken back for that time.
///
/// # Errors
/// When there is no database, the disk is full, or the folder cannot be written to.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        let missing = format!("there is no database at {}", from.display());
        return Err(StoreError::unavailable(missing));
    }
    let failed = |error: String| StoreError::unavailable(format!("{}: {error}", to.display()));
    let path = to
        .to_str()
        .ok_or_else(|| failed("the path is not UTF-8".into()))?;
    // SQLite takes an empty file as one that is not there, and leaves it its mode.
    private::file(to).map_err(|error| failed(error.to_string()))?;
    let address = Address::Sqlite(from.to_owned());
    // Nothing is written to the database, but `query_only` would refuse the copy as well.
    let mut connection = AnyConnection::connect(&address, Access::Write)?;
    diesel::sql_query("VACUUM INTO ?")
        .bind::<Text, _>(path)
        .execute(&mut connection)?;
    // SQLite leaves it to the operating system when the copy reaches the disk.
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(|error| failed(error.to_string()))
}

#[derive(QueryableByName)]
struct Finding {
    #[diesel(sql_type = Text)]
    finding: String,
}

/// Reads the whole file and looks whether pages, indexes and references fit each other. Blocks.
///
/// # Errors
/// [`StoreError::Data`] with the first thing that does not fit.
pub fn check(file: &Path) -> Result<()> {
    let broken = |value: String| StoreError::Data {
        row: file.display().to_string(),
        value,
    };
    // Immutable: nothing is made beside a file that is only looked at.
    let mut address = format!("file:{}", file.display());
    for (plain, encoded) in [("%", "%25"), ("?", "%3f"), ("#", "%23")] {
        address = address.replace(plain, encoded);
    }
    let mut connection = SqliteConnection::establish(&format!("{address}?immutable=1"))
        .map_err(|error| broken(error.to_string()))?;
    let said: Vec<Finding> =
        diesel::sql_query("SELECT integrity_check AS finding FROM pragma_integrity_check")
            .load(&mut connection)?;
    if let Some(bad) = said.into_iter().find(|said| said.finding != "ok") {
        return Err(broken(bad.finding));
    }
    let dangling: Vec<Finding> = diesel::sql_query(
        "SELECT \"table\" || ' names a row of ' || parent || ' that is not there' AS finding \
         FROM pragma_foreign_key_check LIMIT 1",
    )
    .load(&mut connection)?;
    match dangling.into_iter().next() {
        Some(bad) => Err(broken(bad.finding)),
        None => Ok(()),
    }
}
