//! `backup`, `restore` and `migrate`: on the server's machine, with its configuration.

use anyhow::Context;
use clap::Args;
use roadstead_server::backup::{self, About, Database};
use roadstead_server::config::Config;
use roadstead_server::store::transfer::{Moved, transfer};
use rustix::fs::Mode;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// The folder that the backup becomes, or the file if the name ends in `.tar`; it must not be there
    /// yet.
    to: PathBuf,
    /// The server's configuration; `ROADSTEAD__SECTION__KEY` is laid over it.
    #[arg(long, default_value = "roadstead.toml")]
    config: PathBuf,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// A backup.
    from: PathBuf,
    /// The server's configuration; `ROADSTEAD__SECTION__KEY` is laid over it.
    #[arg(long, default_value = "roadstead.toml")]
    config: PathBuf,
    /// Only look whether the backup is whole and sound; no configuration is needed.
    #[arg(long)]
    verify: bool,
}

#[derive(Args)]
pub(crate) struct MigrateArgs {
    /// The empty database, `postgres://user:password@host/database`.
    #[arg(long, env = "ROADSTEAD_MIGRATE_TO", hide_env_values = true)]
    to: String,
    /// The server's configuration, with the embedded database as its store.
    #[arg(long, default_value = "roadstead.toml")]
    config: PathBuf,
}

/// Copies database and logs while the server runs.
pub(crate) fn take(args: &BackupArgs) -> anyhow::Result<()> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let config = Config::load(&args.config)?;
    let about = backup::take(&config, &args.to).context("there is no backup")?;
    println!("{}: {}", args.to.display(), told(&about));
    if about.database == Database::Postgres {
        println!(
            "The database is not in it: PostgreSQL is backed up by its own tools, before this."
        );
    }
    if let Some(place) = &about.logs_in {
        println!("Logs are not in it: they are in {place}, which wants copies of its own.");
    }
    Ok(())
}

/// Puts a backup where the configuration wants it.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let from: &Path = &args.from;
    if args.verify {
        let about = backup::verify(from)?;
        println!("{}: sound, {}", from.display(), told(&about));
        return Ok(());
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let config = Config::load(&args.config)?;
    let about = backup::restore(&config, from).context("nothing was restored")?;
    println!("{}: restored, {}", config.data.display(), told(&about));
    if let Some(place) = &about.logs_in {
        println!("Logs were not touched: they are in {place}, of now.");
    }
    println!(
        "ECS is of now and the database of then: see \"Backup and restore\" in the operations"
    );
    println!("guide before the server is started.");
    Ok(())
}

fn told(about: &About) -> String {
    format!(
        "as of {}, {} files of logs, {} bytes in all",
        about.begun_at, about.log_files, about.bytes
    )
}

/// Moves the rows to PostgreSQL and prints how many of each table arrived.
pub(crate) fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let moved = transfer(&config.store_url(), &args.to).context("nothing was moved")?;
    for Moved { table, rows } in &moved {
        println!("{rows:>10}  {table}");
    }
    println!(
        "All rows arrived. Logs and mirrors stay where they are: set store.url (keep it out of"
    );
    println!("the file: ROADSTEAD__STORE__URL), start the server, and put the old database away.");
    Ok(())
}
