//! The three long-running parts: each gets a runtime of the size it needs, logs on standard error,
//! and stops cleanly on SIGTERM or Ctrl-C. A runner finishes what it has on SIGQUIT.

use crate::resident;
use anyhow::Context;
use clap::Args;
use roadstead_runner::Ends;
use roadstead_server::config::Config;
use rustix::fs::Mode;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(Args)]
pub(crate) struct RunnerArgs {
    /// The server's address.
    #[arg(long, env = "ROADSTEAD_SERVER")]
    server: String,
    /// The token that lets runners register; needed the first time only.
    #[arg(long, env = "ROADSTEAD_REGISTRATION_TOKEN", hide_env_values = true)]
    registration_token: Option<String>,
    /// How people call it.
    #[arg(long, default_value = "runner")]
    name: String,
    /// Words that steps may ask for.
    #[arg(long = "label")]
    labels: Vec<String>,
    /// Take one job, finish it and end, for good.
    #[arg(long)]
    once: bool,
    /// Where it works.
    #[arg(long, default_value = "runner-data")]
    data: PathBuf,
    /// How many attempts it runs at once.
    #[arg(long, default_value_t = 2)]
    slots: usize,
    /// CPU units that a step may use, 1024 are one processor [default: all processors].
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u32).range(16..))]
    step_cpu: Option<u32>,
    /// Memory that a step may use, in MiB [default: nine tenths of the machine's].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(8..))]
    step_memory: Option<u32>,
    /// Processes and threads that a step may have.
    #[arg(long, value_name = "N", default_value_t = roadstead_runner::STEP_PROCESSES,
        value_parser = clap::value_parser!(u32).range(16..))]
    step_processes: u32,
}

/// For everything that is not the server or a runner.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// Logs on standard error, from `least` on unless `ROADSTEAD_LOG` says otherwise.
pub(crate) fn logs(least: &str) {
    let filter = EnvFilter::try_from_env("ROADSTEAD_LOG").unwrap_or_else(|_| EnvFilter::new(least));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Threads that wait for a peer or a disk get so long once a part has stopped.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Runs a part. A thread that blocks cannot be stopped: a fetch from a forge that is silent would
/// keep the process for minutes, so it is left behind.
fn to_its_end<T>(runtime: Runtime, part: impl Future<Output = T>) -> T {
    runtime.spawn(resident::give_back_when_idle());
    let ended = runtime.block_on(part);
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}

/// Returns at the first SIGTERM or SIGINT.
pub(crate) async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the signals end the process at once, which is stopping too.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

pub(crate) fn server(file: &Path) -> anyhow::Result<()> {
    logs("info");
    // Mirrors too are for nobody else on this machine; libgit2 makes them.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let config = Config::load(file)?;
    to_its_end(runtime()?, roadstead_server::serve(config, asked_to_stop()))
}

pub(crate) fn sandbox(config: roadstead_sandbox::Config) -> anyhow::Result<()> {
    logs("info");
    to_its_end(
        runtime()?,
        roadstead_sandbox::serve(config, asked_to_stop()),
    )
}

pub(crate) fn purge_sandbox(data: &Path) -> anyhow::Result<()> {
    let removed = runtime()?.block_on(roadstead_sandbox::purge(data))?;
    println!("removed {removed} containers");
    Ok(())
}

pub(crate) fn runner(args: RunnerArgs) -> anyhow::Result<()> {
    logs("info");
    let config = roadstead_runner::Config {
        server: args.server.parse().context("`--server` is no address")?,
        registration_token: args.registration_token.map(roadstead_runner::Secret::new),
        name: args.name,
        labels: args.labels,
        data: args.data,
        slots: args.slots,
        docker_socket: None,
        disk_watermark_bytes: roadstead_runner::DISK_WATERMARK_BYTES,
        disk_least_bytes: roadstead_runner::DISK_LEAST_BYTES,
        step_most: roadstead_runner::StepMost {
            cpu: args.step_cpu,
            memory: args.step_memory,
            processes: args.step_processes,
        },
        once: args.once,
    };
    let ends = Ends::default();
    // One worker: a runner waits, Docker Engine works.
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    to_its_end(runtime, async {
        let mut quit = signal(SignalKind::quit()).context("cannot wait for SIGQUIT")?;
        let Ends { stop, finish } = ends.clone();
        tokio::spawn(async move {
            asked_to_stop().await;
            stop.cancel();
        });
        tokio::spawn(async move {
            quit.recv().await;
            tracing::info!("asked to finish what runs and to take nothing new");
            finish.cancel();
        });
        roadstead_runner::run(config, ends).await
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_that_waits_for_ever_does_not_keep_a_part() {
        let (open, nothing) = channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let ended = to_its_end(runtime().unwrap(), async {
            tokio::task::spawn_blocking(move || {
                let _ = begun.send(());
                // Bounds a failure.
                nothing.recv_timeout(Duration::from_secs(60))
            });
            has_begun.await
        });
        assert_eq!(ended, Ok(()));
        assert!(open.send(()).is_ok(), "the thread waits still");
    }
}
