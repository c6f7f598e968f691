//! Chaos: the real processes under a seeded stream of work and faults, then healed, then held against
//! the promises of docs/reliability.md. These are the short runs; `make chaos` runs the long form.

#![expect(
    clippy::unwrap_used,
    reason = "a run that cannot be set up is a failed test"
)]

#[path = "../../src/demo/aws.rs"]
mod aws;
mod checks;
mod database;
mod disk;
#[path = "../../src/demo/docker.rs"]
mod docker;
mod draw;
mod forge;
mod ledger;
mod options;
mod parts;
mod report;
mod run;
mod tcp;
mod work;
mod world;

use options::{Database, Options};
use std::time::Duration;

/// A run's seeds are fixed here, so that a failure names one that fails again.
async fn short(database: Database, seed: u64) {
    let options = Options {
        seed,
        length: Duration::from_secs(25),
        database,
        servers: 1,
        runners: 2,
        full_disk: false,
        keep: false,
    };
    let report = run::run(&options).await.unwrap();
    assert!(report.violations.is_empty(), "{report}");
    // A run in which nothing happened would hold all promises.
    assert!(
        report.faults.len() >= 4 && report.work["deliveries acknowledged"] >= 10,
        "{report}"
    );
    eprintln!("{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_on_sqlite_keeps_every_promise() {
    short(Database::Sqlite, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_on_postgresql_keeps_every_promise() {
    short(Database::Postgresql, 12).await;
}
