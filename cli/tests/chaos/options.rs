//! What a run is asked for.

use clap::ValueEnum;
use std::time::Duration;

/// Where the server keeps its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Database {
    Sqlite,
    Postgresql,
}

impl Database {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgresql => "PostgreSQL",
        }
    }
}

/// A run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// For how long work and faults are drawn; healing and checking come after.
    pub(crate) length: Duration,
    pub(crate) database: Database,
    /// How many servers share the database.
    pub(crate) servers: usize,
    pub(crate) runners: usize,
    /// Whether the servers have a disk of their own, which may get full.
    pub(crate) full_disk: bool,
    /// Whether the folder stays in any case.
    pub(crate) keep: bool,
}

impl Options {
    /// Only a long run has the time for what lasts longer than a runner's lease.
    pub(crate) fn outlasts_leases(&self) -> bool {
        self.length >= Duration::from_secs(120)
    }
}
