//! The long form of the chaos runs: `make chaos ARGS="--minutes 30 --seed 7"`. Status 1 when a promise
//! was broken; the folder with all data then stays.

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

use clap::Parser;
use options::{Database, Options};
use std::process::ExitCode;
use std::time::Duration;

/// Breaks the product at random moments and checks afterwards that no promise was broken.
#[derive(Parser)]
struct Arguments {
    /// For how long work and faults are drawn.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// What they are drawn from; a new one without it.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, value_enum, default_value_t = Database::Postgresql)]
    database: Database,
    /// Servers on one PostgreSQL; the embedded database takes one.
    #[arg(long, default_value_t = 1)]
    servers: usize,
    #[arg(long, default_value_t = 3)]
    runners: usize,
    /// Give the servers a disk of their own, which gets full at times; needs root.
    #[arg(long)]
    full_disk: bool,
    /// Keep the folder with all data.
    #[arg(long)]
    keep: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let options = Options {
        seed: arguments.seed.unwrap_or_else(rand::random),
        length: Duration::try_from_secs_f64(arguments.minutes * 60.0)?,
        database: arguments.database,
        servers: arguments.servers,
        runners: arguments.runners,
        full_disk: arguments.full_disk,
        keep: arguments.keep,
    };
    let report = run::run(&options).await?;
    println!("{report}");
    Ok(if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
