//! Starts every room in order, serves, and stops them in reverse.

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::backends::simulated::Simulated;
use crate::backends::{Backend, docker};
use crate::calls::CallLog;
use crate::clock::Clock;
use crate::conductor::{self, Conductor};
use crate::config::{BackendKind, Config};
use crate::disk::write_atomically;
use crate::faults::Faults;
use crate::pins::Pins;
use crate::proxy::Balancer;
use crate::registry::Registry;
use crate::state::{self, Store};
use crate::targets::TargetHealth;
use crate::time_travel;
use crate::timeline::Timeline;
use crate::wake::Wake;
use crate::wire;

/// The file in the data directory that holds the address to call.
const ENDPOINT: &str = "endpoint";

/// Runs a sandbox until `shutdown` completes. Prints `sandbox ready` on a line of its own once it
/// answers, after writing its address to the file `endpoint` in the data directory. Containers of
/// its tasks stay; the next start on the same directory adopts them.
///
/// Fails when the directory is in use, an address is taken, or Docker Engine (with its backend)
/// does not answer.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    config.check()?;
    let clock = Clock::new(config.time_scale)?;
    let timeline = Arc::new(Timeline::new(clock, config.virtual_clock, config.seed));
    let wake = Arc::new(Wake::default());
    let _lock = state::lock_directory(&config.data)?;
    let store = Arc::new(Store::open(&config.data, Arc::clone(&timeline))?);
    let calls = Arc::new(CallLog::open(&config.data)?);
    let faults = Faults::default();
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let balancer = Balancer::open(&config, clock, Arc::clone(&wake))
        .await
        .context("cannot open the load balancer")?;
    let (reports, incoming) = mpsc::unbounded_channel();
    let backend: Arc<dyn Backend>;
    let targets: Arc<dyn TargetHealth>;
    let registry;
    match config.backend {
        BackendKind::Docker => {
            let started = Registry::start(&config, clock, faults.clone(), Arc::clone(&calls))
                .await
                .context("cannot start the registry")?;
            let pins = Pins::new(Arc::clone(&store), Arc::clone(&started));
            backend = docker::connect(&config, clock, reports, Arc::clone(&started), pins).await?;
            let balancer: Arc<Balancer> = Arc::clone(&balancer);
            targets = balancer;
            registry = Some(started);
        }
        BackendKind::Simulated => {
            let simulated = Arc::new(Simulated::new(
                Arc::clone(&timeline),
                reports,
                Arc::clone(&wake),
            ));
            let as_backend: Arc<Simulated> = Arc::clone(&simulated);
            backend = as_backend;
            targets = simulated;
            registry = None;
        }
    }
    let (advances, requests) = mpsc::unbounded_channel();
    let app = Arc::new(App {
        config,
        clock: timeline,
        store,
        backend,
        targets,
        balancer,
        registry,
        calls,
        faults,
        remembered: wire::Remembered::default(),
        wake,
        advances,
    });
    conductor::resume(&app)
        .await
        .context("cannot take over the tasks of an earlier run")?;
    let stop = CancellationToken::new();
    let conductor = Conductor::new(Arc::clone(&app), incoming);
    let mut conductor = if app.clock.is_virtual() {
        tokio::spawn(time_travel::run(conductor, requests, stop.clone()))
    } else {
        tokio::spawn(conductor.run(stop.clone()))
    };
    let sweeper = tokio::spawn(conductor::sweep(Arc::clone(&app), stop.clone()));
    let mut server = tokio::spawn(wire::serve(Arc::clone(&app), listener, stop.clone()));
    write_atomically(
        &app.config.data.join(ENDPOINT),
        format!("http://{address}\n").as_bytes(),
    )
    .context("cannot write the endpoint file")?;
    tracing::info!(%address, "the sandbox answers");
    println!("sandbox ready");
    // Both run until `stop`: one that ends sooner has failed, and the sandbox must not seem well.
    let ended = tokio::select! {
        () = shutdown => {
            stop.cancel();
            match server.await.context("the server failed") {
                Ok(()) => conductor.await.context("the scheduler failed"),
                failed => failed,
            }
        }
        ended = &mut server => ended.context("the server failed"),
        ended = &mut conductor => ended.context("the scheduler failed"),
    };
    // Nothing may look after tasks when the next sandbox on this directory begins.
    stop.cancel();
    let swept = sweeper.await.context("the sweeper failed");
    app.backend.shut_down().await;
    app.balancer.shut_down().await;
    if let Some(registry) = &app.registry {
        registry.shut_down().await;
    }
    ended.and(swept)
}
