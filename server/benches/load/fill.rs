//! The server's database, read and filled from outside while no server has it open.

use anyhow::{Context, ensure};
use std::path::Path;
use std::process::Command;

fn python(script: &str, database: &Path, argument: &str) -> anyhow::Result<String> {
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(database)
        .arg(argument)
        .output()
        .context("python3 reads the database from outside")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Makes `total` more runs of those that are there; how many there are then.
pub(crate) fn runs(database: &Path, total: u64) -> anyhow::Result<u64> {
    let told = python(include_str!("fill.py"), database, &total.to_string())?;
    Ok(told.trim().parse()?)
}

/// The first column of what a query gives.
pub(crate) fn query(database: &Path, sql: &str) -> anyhow::Result<Vec<String>> {
    let script = "import sqlite3,sys\nfor row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2]): print(row[0])";
    let told = python(script, database, sql)?;
    Ok(told.lines().map(str::to_owned).collect())
}
