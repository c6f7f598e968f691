//! `roadstead`: one binary for the server, the runner, the sandbox and the command line.
//!
//! Exit status: 0 ok · 1 failed · 2 usage · 3 cancelled or timed out · 4 authentication · 5 the run or
//! deployment ended unsuccessfully.

mod backup;
mod children;
mod client;
mod configuration;
mod demo;
mod own_files;
mod ports;
mod resident;
mod serve;
mod up;
mod verbs;

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// Gives large blocks back to the system when they are free, which the C library's does not do: it keeps
/// 19 MiB for each thread that ever checked a password.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How jemalloc is set. Each thread keeps what it frees for itself, and most of a server's threads wait most of the
/// time: blocks above 1 kB are left in the two pools that all share (docs/adr/0010).
#[expect(unsafe_code, reason = "the name by which jemalloc finds it")]
#[used]
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 26] = b"narenas:2,tcache_max:1024\0";

/// A self-hosted build-and-deploy server for Amazon ECS.
#[derive(Parser)]
#[command(name = "roadstead", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Server, one runner and a sandbox on this machine.
    Up(up::UpArgs),
    /// The whole story on this machine: real pushes, builds, deployments and rollbacks.
    Demo(demo::DemoArgs),
    /// The server.
    Server(ConfigArgs),
    /// A runner.
    Runner(serve::RunnerArgs),
    /// A local ECS, ECR and load balancer on Docker Engine.
    Sandbox(SandboxArgs),
    /// Checks a pipeline file and the environment files that it names.
    Validate(verbs::ValidateArgs),
    /// Prints the JSON Schema of the pipeline file, for editors.
    Schema,
    /// Checks the server's configuration, and whether everything it names answers.
    Check(ConfigArgs),
    /// Copies the embedded database and the logs while the server runs.
    Backup(backup::BackupArgs),
    /// Moves all rows of the embedded database to an empty PostgreSQL; the server has to be stopped.
    Migrate(backup::MigrateArgs),
    /// Puts a backup where a configuration wants it; nothing is overwritten.
    Restore(backup::RestoreArgs),
    #[command(flatten)]
    Verb(verbs::Verb),
}

#[derive(Args)]
struct ConfigArgs {
    /// The configuration; `ROADSTEAD__SECTION__KEY` is laid over it.
    #[arg(long, default_value = "roadstead.toml")]
    config: PathBuf,
}

#[derive(Args)]
struct SandboxArgs {
    /// Where every AWS service answers.
    #[arg(long, default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// Where the registry answers.
    #[arg(long, default_value = "127.0.0.1:4570")]
    registry: SocketAddr,
    /// A registry that runs elsewhere and keeps the images, http://HOST:PORT; it must ask for no
    /// credentials. Without it the sandbox starts its own.
    #[arg(long)]
    registry_upstream: Option<roadstead_sandbox::RegistryAddress>,
    /// State, logs and images.
    #[arg(long, default_value = "sandbox-data")]
    data: PathBuf,
    /// `docker` or `simulated`.
    #[arg(long, default_value = "docker")]
    backend: roadstead_sandbox::BackendKind,
    /// How many times faster than AWS the sandbox's own waits pass.
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Start nothing: remove the containers and the network that a sandbox left in Docker Engine.
    #[arg(long)]
    purge: bool,
    /// Time stands still until `POST /_sandbox/clock` lets it pass; with `--backend simulated`.
    #[arg(long)]
    virtual_clock: bool,
    /// What identifiers and the chances of tasks are drawn from, to repeat a run; with `--backend
    /// simulated`.
    #[arg(long)]
    seed: Option<u64>,
    /// Ignore members that the sandbox would have to refuse, and name them in the log.
    #[arg(long)]
    lenient: bool,
    /// Keep answers, too, in the call log.
    #[arg(long)]
    record_answers: bool,
    /// The circuit breaker also counts tasks that nothing checks and that exit after they ran.
    #[arg(long)]
    strict: bool,
}

/// Ends the process with a status of its own.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exit {
    /// The status.
    pub(crate) status: u8,
    /// What is printed.
    pub(crate) message: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let status = error.downcast_ref::<Exit>().map_or(1, |exit| exit.status);
            let text = format!("{error:#}");
            if !text.is_empty() {
                eprintln!("roadstead: {text}");
            }
            ExitCode::from(status)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Server(args) => serve::server(&args.config),
        Command::Runner(args) => serve::runner(args),
        Command::Sandbox(args) if args.purge => serve::purge_sandbox(&args.data),
        Command::Sandbox(args) => {
            let mut config = roadstead_sandbox::Config::new(args.data);
            config.listen = args.listen;
            config.registry_listen = args.registry;
            config.registry_upstream = args.registry_upstream;
            config.backend = args.backend;
            config.time_scale = args.time_scale;
            config.virtual_clock = args.virtual_clock;
            config.seed = args.seed;
            config.lenient = args.lenient;
            config.record_answers = args.record_answers;
            config.strict_breaker = args.strict;
            serve::sandbox(config)
        }
        Command::Up(args) => serve::runtime()?.block_on(up::up(args)),
        Command::Demo(args) => serve::runtime()?.block_on(demo::demo(args)),
        Command::Validate(args) => verbs::validate(&args),
        Command::Schema => {
            print!("{}", roadstead_pipelines::spec::SCHEMA);
            Ok(())
        }
        Command::Check(args) => serve::runtime()?.block_on(configuration::check(&args.config)),
        Command::Backup(args) => backup::take(&args),
        Command::Migrate(args) => backup::migrate(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Verb(verb) => serve::runtime()?.block_on(verbs::run(verb)),
    }
}
