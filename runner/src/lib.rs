//! The runner: takes attempts from a server, runs their steps in containers, builds and pushes
//! images, and tells how it went.
//!
//! Owns one data folder, a share of one Docker Engine (what carries its label) and outbound calls
//! to one server; it opens no port. It trusts neither the repository's files nor the steps' words,
//! and holds no forge credentials. The server decides what runs; a runner decides nothing but how
//! much it takes.
//!
//! | room | owns |
//! |---|---|
//! | [`run`], `poll`, `heartbeat`, `board` | the conversation with the server and what runs here |
//! | `client` | the protocol's calls, tries and credentials |
//! | `attempt`, `steps`, `limits`, `stop` | one attempt, the order of its steps, how they end |
//! | `audience` | who hears how they go |
//! | `local` | a job without a server: a working tree, a terminal |
//! | `sources`, `checkout`, `workspace` | files of a commit |
//! | `engine`, `network`, `images`, `registry` | containers, networks, images |
//! | `build`, `logins` | contexts, BuildKit, pushes |
//! | `logs` | logs on their way, with secrets taken out of them |
//! | `secret`, `secrets` | what nobody is to see, and how a step gets it |
//! | `allowance`, `disk` | how much of the machine a step may use, and what is left of it |
//! | `state`, `sweep` | what survives this process |
//!
//! Idle it needs little memory; give it a current-thread runtime or two workers.

mod allowance;
mod artifacts;
mod attempt;
mod audience;
mod board;
mod build;
mod caches;
mod checkout;
mod client;
mod disk;
mod engine;
mod engine_address;
mod heartbeat;
mod images;
mod limits;
mod local;
mod logins;
mod logs;
mod network;
mod poll;
mod registry;
mod reports;
mod secret;
mod secrets;
mod sources;
mod state;
mod steps;
mod stop;
mod sweep;
mod workspace;

pub use allowance::{STEP_PROCESSES, StepMost};
pub use artifacts::shelf::Shelf;
pub use local::{LocalEnd, LocalRun, WorkingTree, run_local};
pub use reqwest::Url;
pub use secret::Secret;
pub use tokio_util::sync::CancellationToken;

use allowance::Allowance;
use anyhow::{Context, bail};
use board::Board;
use build::ImageBuilder;
use client::{Backoff, CallError, Client};
use disk::Disk;
use engine::Engine;
use engine_address::EngineAddress;
use roadstead_protocol::{Register, Registered};
use sources::Sources;
use state::{Identity, State};
use std::{path::PathBuf, sync::Arc, time::Duration};
use workspace::Workspaces;

/// Free bytes below which a runner takes no work, unless its [`Config`] says otherwise.
pub const DISK_WATERMARK_BYTES: u64 = 2 << 30;
/// Free bytes below which a runner stops its steps, unless its [`Config`] says otherwise.
pub const DISK_LEAST_BYTES: u64 = 512 << 20;

/// The label, as `key=value`, of everything that the runner with this data folder makes on Docker
/// Engine; none before its first start.
///
/// # Errors
/// When the folder holds the label but it cannot be read.
pub fn label(data: &std::path::Path) -> anyhow::Result<Option<String>> {
    let instance = state::instance(data)?;
    Ok(instance.map(|instance| format!("{}={instance}", engine::RUNNER_LABEL)))
}

/// How a runner is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's address; its path may have a prefix.
    pub server: Url,
    /// Trades for the runner's own credential; not needed once it has one in its data folder.
    pub registration_token: Option<Secret>,
    /// How people call this runner: 1–64 characters.
    pub name: String,
    /// Free words that steps may ask for.
    pub labels: Vec<String>,
    /// Folder for the credential, sources, workspaces and logs under way; one process at a time.
    pub data: PathBuf,
    /// How many attempts run at a time, at least 1; as many steps of one attempt.
    pub slots: usize,
    /// Docker Engine's socket; without one `DOCKER_HOST`, or else the usual place.
    pub docker_socket: Option<PathBuf>,
    /// Free bytes in `data` below which no work is taken; see [`DISK_WATERMARK_BYTES`].
    pub disk_watermark_bytes: u64,
    /// Free bytes below which steps are stopped, in `data` and where Docker Engine keeps containers; see
    /// [`DISK_LEAST_BYTES`].
    pub disk_least_bytes: u64,
    /// What a step may use of the machine.
    pub step_most: StepMost,
    /// Takes one job, finishes it and ends; `slots` are how many of its steps run at a time.
    pub once: bool,
}

/// How a runner is asked to end.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Stop what runs, report it, and leave, which takes about 45 s at most.
    pub stop: CancellationToken,
    /// Finish what runs, take nothing new, and leave.
    pub finish: CancellationToken,
}

/// What the rooms share.
struct Runner {
    /// As the server knows it, which is by its name.
    id: String,
    labels: Vec<String>,
    slots: usize,
    once: bool,
    /// It takes no more work, and ends when nothing runs.
    finish: CancellationToken,
    data: PathBuf,
    disk_watermark_bytes: u64,
    credential: Secret,
    client: Client,
    engine: Engine,
    disk: Disk,
    builder: ImageBuilder,
    board: Board,
    sources: Sources,
    workspaces: Workspaces,
    spools: Workspaces,
    state: Arc<State>,
}

impl Runner {
    /// How many attempts it runs at a time.
    fn most(&self) -> usize {
        if self.once { 1 } else { self.slots }
    }

    /// An attempt is this runner's: of a one-shot runner the only one.
    fn has_accepted(&self) {
        if self.once {
            self.finish.cancel();
        }
    }

    /// Tells the server that this runner ends. One that takes one job only is not seen again, and does not need its
    /// credential any more.
    async fn say_goodbye(&self) {
        let is_heard = self.client.goodbye(&self.credential, self.once).await;
        if self.once
            && is_heard
            && let Err(error) = self.with_state(State::forget_identity).await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "keeps a credential that has ended"
            );
        }
    }

    /// Works on the data folder in a thread that may wait for the disk.
    async fn with_state<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || work(&state))
            .await
            .context("a thread that keeps notes panicked")?
    }
}

/// Runs until the server drains this runner, its one job is done, or it is asked to end. Prints `runner ready` on
/// a line of its own once the server knows the runner and it polls for work. Whoever ends in good order says goodbye.
///
/// A server that does not answer is waited for.
///
/// # Errors
/// A configuration that cannot work, a data folder in use, no Docker Engine, a refused
/// registration, or a server that forgot this runner.
pub async fn run(config: Config, ends: Ends) -> anyhow::Result<()> {
    if config.slots == 0 {
        bail!("a runner needs at least one slot");
    }
    if config.name.is_empty() || config.name.chars().count() > 64 {
        bail!(
            "a runner's name has 1 to 64 characters; `{}` does not",
            config.name
        );
    }
    let client = Client::new(&config.server)?;
    let data = config.data.clone();
    let state = Arc::new(tokio::task::spawn_blocking(move || State::open(&data)).await??);
    let workspaces = Workspaces::new(absolute(&state.subfolder("workspaces"))?);
    let spools = Workspaces::new(state.subfolder("spool"));
    let docker = Engine::connect(config.docker_socket.as_deref()).await?;

    let machine = Engine::machine(&docker).await?;
    let allowance = Allowance::of(&machine, config.step_most)?;
    let disk = Disk::of(&machine, &config.data, config.disk_least_bytes);
    let engine = Engine::new(docker, &state.instance()?, allowance);
    let unfinished = sweep::at_start(&state, &engine, &[&workspaces, &spools]).await?;

    let identity = tokio::select! {
        identity = sign_in(&client, &config, &state) => identity?,
        () = ends.stop.cancelled() => return Ok(()),
        () = ends.finish.cancelled() => return Ok(()),
    };
    let runner = Arc::new(assemble(
        config,
        client,
        Machine { engine, disk },
        state,
        identity,
        (workspaces, spools),
        ends.finish,
    ));
    tracing::info!(runner = runner.id, slots = runner.slots, "polls for work");
    println!("runner ready");
    let reporting = tokio::spawn(sweep::report(Arc::clone(&runner), unfinished));
    let end = tokio::select! {
        end = poll::run(&runner, &ends.stop) => end,
        () = heartbeat::run(&runner) => Ok(()),
        () = sweep::regularly(&runner) => Ok(()),
    };
    reporting.abort();
    // Whoever waits for this function may start the next runner on the same folder at once.
    let _ = reporting.await;
    if end.is_ok() {
        runner.say_goodbye().await;
    }
    sweep::at_end(&runner.engine).await;
    end
}

/// Where steps run.
struct Machine {
    engine: Engine,
    disk: Disk,
}

fn assemble(
    config: Config,
    client: Client,
    Machine { engine, disk }: Machine,
    state: Arc<State>,
    identity: Identity,
    (workspaces, spools): (Workspaces, Workspaces),
    finish: CancellationToken,
) -> Runner {
    let address = EngineAddress::of(config.docker_socket.as_deref());
    let builder = ImageBuilder::new(engine.clone(), address);
    Runner {
        id: identity.runner_id,
        labels: config.labels,
        slots: config.slots,
        once: config.once,
        finish,
        data: config.data,
        disk_watermark_bytes: config.disk_watermark_bytes,
        credential: identity.credential,
        client,
        builder,
        engine,
        disk,
        board: Board::default(),
        sources: Sources::new(state.subfolder("sources")),
        workspaces,
        spools,
        state,
    }
}

/// How long a runner waits for its name: somewhat longer than the server keeps one for a runner that is
/// not heard of any more (45 s).
const NAME_PATIENCE: Duration = Duration::from_secs(60);

/// Docker Engine takes no relative path for a mount.
fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path)
        .with_context(|| format!("cannot tell the whole path of {}", path.display()))
}

/// Makes sure that the server knows this runner, however long the server takes to come up.
async fn sign_in(client: &Client, config: &Config, state: &Arc<State>) -> anyhow::Result<Identity> {
    if let Some(known) = state.identity()? {
        match patiently(|| client.heartbeat(&known.credential, vec![])).await {
            Ok(_) => return Ok(known),
            Err(CallError::Unauthorized(message)) => {
                tracing::warn!(
                    message,
                    "the server does not know this runner; registers anew"
                );
            }
            Err(error) => bail!("the server does not take this runner: {error}"),
        }
    }
    let Some(token) = &config.registration_token else {
        bail!(
            "this runner has no credential that the server knows ({}); start it with a registration \
             token",
            state.identity_path().display()
        );
    };
    let register = Register {
        registration_token: token.expose().to_owned(),
        name: config.name.clone(),
        labels: config.labels.clone(),
    };
    let until = tokio::time::Instant::now() + NAME_PATIENCE;
    let answer = loop {
        match patiently(|| client.register(&register)).await {
            // This runner's own past, when its answer or its folder was lost; or really another one.
            Err(CallError::Lost(message)) if tokio::time::Instant::now() < until => {
                tracing::warn!(message, "its name is taken; waits for it to be free");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            other => break other,
        }
    };
    let registered: Registered = match answer {
        Ok(registered) => registered,
        Err(CallError::Lost(message)) => bail!("cannot register this runner: {message}"),
        Err(CallError::Unauthorized(message)) => {
            bail!("the server does not accept the registration token: {message}")
        }
        Err(error) => bail!("cannot register this runner: {error}"),
    };
    let identity = Identity {
        runner_id: registered.runner_id.clone(),
        credential: Secret::new(registered.credential.clone()),
    };
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || state.set_identity(&registered)).await??;
    Ok(identity)
}

/// Asks again until the server answers, and says so each time the pauses have grown long.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut backoff = Backoff::new(Duration::MAX / 4);
    let mut tries: u32 = 0;
    loop {
        match call().await {
            Err(error) if error.is_transient() => {
                if tries.is_multiple_of(8) {
                    tracing::warn!(%error, "waits for the server");
                }
                tries += 1;
                let pause = backoff.next_pause().unwrap_or(Duration::from_secs(5));
                tokio::time::sleep(pause.min(Duration::from_secs(5))).await;
            }
            other => return other,
        }
    }
}
