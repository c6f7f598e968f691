//! `make bench`: how long a push takes until its image is in the registry, beside a script of
//! `git clone`, `docker build` and `docker push` that the same push starts; and what memory server
//! and runner hold when nothing is left to do.
//!
//! Real parts only: the release binary's sandbox, server and runner as processes of their own, real
//! git pushes with hooks, Docker Engine, one registry for both sides. Owns the order of turns and the
//! definitions that docs/benchmarks.md gives: both sides are triggered by a hook, are seen to be done
//! by the same question to the registry, build files that no other turn had, and take turns in being
//! first. Everything that is made carries this process's number and is removed at the end.

mod engine;
mod floor;
mod memory;
mod parts;
mod registry;
mod report;
mod repository;

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use engine::Engine;
use floor::Floor;
use parts::Parts;
use report::{Case, Pair, Report};
use repository::Repository;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Longest wait for one image.
const LONGEST_TURN: Duration = Duration::from_secs(900);

/// Push to image in the registry, beside a script.
#[derive(Parser)]
struct Options {
    /// Sizes of build contexts, in MB.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 180])]
    contexts: Vec<usize>,
    /// Which states of the caches.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Warmth::Cold, Warmth::Warm])]
    states: Vec<Warmth>,
    /// Pairs of turns per case.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// Seconds without work before memory is read.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Everything is kept below this folder while it runs; the system's temporary folder when not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Leave logs and data where they are.
    #[arg(long)]
    keep: bool,
    /// What `cargo bench` passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What both sides find when the push comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Warmth {
    /// A repository that nobody has fetched, and files that no layer was ever made of.
    Cold,
    /// The push before was built too, and one small file differs.
    Warm,
}

impl Warmth {
    fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Floor,
    Roadstead,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Floor => "script",
            Self::Roadstead => "roadstead",
        }
    }
}

/// A line of progress, at once on its way, so that a run that is cut off leaves its figures.
fn say(began: Instant, text: &str) {
    eprintln!("{:7.1} s  {text}", began.elapsed().as_secs_f64());
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    if options.pairs == 0 || options.contexts.is_empty() || options.states.is_empty() {
        bail!("nothing to measure: give at least one pair, one context and one state");
    }
    let id = format!("rsbench{}", std::process::id());
    let above = options.data.clone().unwrap_or_else(std::env::temp_dir);
    let folder = above.join(&id);
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    let engine = Engine::find(&folder, &id).await?;
    let measured = tokio::select! {
        measured = measure(&options, &folder, &engine) => measured,
        () = interrupted() => Err(anyhow::anyhow!("interrupted; the figures so far are above")),
    };
    let cleaned = engine.clean().await;
    if options.keep || measured.is_err() {
        eprintln!("logs and data are in {}", folder.display());
    } else {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let report = measured?;
    cleaned?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

async fn interrupted() {
    let (Ok(mut term), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// One case's name in the names of projects, folders and repositories.
fn case_name(megabytes: usize, state: Warmth) -> String {
    format!("{}-{megabytes}", state.word())
}

async fn measure(options: &Options, folder: &Path, engine: &Engine) -> anyhow::Result<Report> {
    let began = Instant::now();
    // Every project that Roadstead will meet is configured from the start; none is known to it
    // before its first push.
    let mut projects = vec![];
    for &state in &options.states {
        for &megabytes in &options.contexts {
            let case = case_name(megabytes, state);
            match state {
                Warmth::Warm => projects.push(case),
                Warmth::Cold => {
                    projects.extend((0..options.pairs).map(|pair| format!("{case}-{pair}")));
                }
            }
        }
    }
    let mut parts = Parts::start(folder, &projects).await?;
    let floor = Floor::new(folder, engine, &parts.registry).await?;
    say(began, "sandbox, server and runner are up");
    let mut report = Report::new(engine.version());
    let measured = async {
        for &state in &options.states {
            for &megabytes in &options.contexts {
                let stage = Stage {
                    began,
                    folder,
                    engine,
                    parts: &parts,
                    floor: &floor,
                    megabytes,
                    state,
                };
                let case = stage.measure(options.pairs).await?;
                say(began, &case.line());
                report.cases.push(case);
                engine.clean_cache().await?;
            }
        }
        say(began, &format!("idle for {} s", options.idle));
        tokio::time::sleep(Duration::from_secs(options.idle)).await;
        report.memory = Some(parts.memory()?);
        Ok(report)
    };
    let measured = measured.await;
    parts.stop().await;
    measured
}

/// What one case's turns need.
struct Stage<'a> {
    began: Instant,
    folder: &'a Path,
    engine: &'a Engine,
    parts: &'a Parts,
    floor: &'a Floor,
    megabytes: usize,
    state: Warmth,
}

impl Stage<'_> {
    async fn measure(&self, pairs: usize) -> anyhow::Result<Case> {
        let case = case_name(self.megabytes, self.state);
        let mut case_of = Case::new(self.megabytes, self.state);
        let mut warm = None;
        if self.state == Warmth::Warm {
            // The push that everything is warm from; its time is not asked for.
            let sides = self.repositories(&case).await?;
            for side in [Side::Floor, Side::Roadstead] {
                let (seconds, _) = self.turn(side, sides.of(side), &case).await?;
                let word = side.word();
                say(
                    self.began,
                    &format!("{case}: {word} warms up, {seconds:.2} s"),
                );
            }
            warm = Some(sides);
        }
        for pair in 0..pairs {
            let name = match self.state {
                Warmth::Warm => case.clone(),
                Warmth::Cold => format!("{case}-{pair}"),
            };
            let sides = match warm.take() {
                Some(sides) => sides,
                None => self.repositories(&name).await?,
            };
            let order = if pair % 2 == 0 {
                [Side::Floor, Side::Roadstead]
            } else {
                [Side::Roadstead, Side::Floor]
            };
            let mut seen = Pair::new(order[0]);
            for side in order {
                if self.state == Warmth::Warm {
                    sides.of(side).change()?;
                }
                let (seconds, phases) = self.turn(side, sides.of(side), &name).await?;
                let line = format!(
                    "{case}: pair {} of {pairs}, {} {seconds:.2} s{}",
                    pair + 1,
                    side.word(),
                    report::phases(&phases)
                );
                say(self.began, &line);
                seen.note(side, seconds, phases);
            }
            case_of.pairs.push(seen);
            match self.state {
                Warmth::Warm => warm = Some(sides),
                Warmth::Cold => sides.remove()?,
            }
        }
        Ok(case_of)
    }

    async fn repositories(&self, name: &str) -> anyhow::Result<Sides> {
        let folder = self.folder.join("repositories").join(name);
        let floor =
            Repository::create(&folder.join("script"), self.engine, name, self.megabytes).await?;
        floor.hook(&self.floor.hook(name))?;
        let roadstead =
            Repository::create(&folder.join("roadstead"), self.engine, name, self.megabytes)
                .await?;
        self.parts.adopt(name, &roadstead)?;
        Ok(Sides {
            folder,
            floor,
            roadstead,
        })
    }

    /// Pushes, waits for the image, and gives the seconds between; then waits until the side is
    /// through with everything, and cleans up after it.
    async fn turn(
        &self,
        side: Side,
        repository: &Repository,
        name: &str,
    ) -> anyhow::Result<(f64, report::Phases)> {
        if side == Side::Floor {
            self.floor.prepare(name).await?;
        }
        let commit = repository.commit().await?;
        settle().await;
        repository.push().await?;
        let (image, tag) = match side {
            Side::Floor => (self.floor.repository().to_owned(), commit.clone()),
            Side::Roadstead => (name.to_owned(), format!("git-{commit}")),
        };
        let end = Instant::now() + LONGEST_TURN;
        let mut looks = 0_u32;
        let arrived = loop {
            if self.parts.registry.holds(&image, &tag).await? {
                break std::time::SystemTime::now();
            }
            looks += 1;
            if looks.is_multiple_of(50) {
                // What went wrong will never arrive.
                match side {
                    Side::Floor => self.floor.check()?,
                    Side::Roadstead => self.parts.check(name, &commit).await?,
                }
            }
            if Instant::now() > end {
                bail!(
                    "{} has no image of {name} after {LONGEST_TURN:?}",
                    side.word()
                );
            }
            tokio::time::sleep(registry::PAUSE).await;
        };
        let triggered = repository.triggered()?;
        let seconds = arrived.duration_since(triggered)?.as_secs_f64();
        let phases = match side {
            Side::Floor => {
                self.floor.ended().await?;
                self.engine.remove_image(&self.floor.image(&commit)).await?;
                report::Phases::default()
            }
            Side::Roadstead => self.parts.ended(name, &commit, triggered).await?,
        };
        Ok((seconds, phases))
    }
}

/// The two repositories of a pair: equal in size and shape, in no byte of their files.
struct Sides {
    folder: PathBuf,
    floor: Repository,
    roadstead: Repository,
}

impl Sides {
    fn of(&self, side: Side) -> &Repository {
        match side {
            Side::Floor => &self.floor,
            Side::Roadstead => &self.roadstead,
        }
    }

    fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

/// What one turn wrote must not weigh on the next.
async fn settle() {
    // It fails nowhere, and without it figures are only noisier.
    drop(tokio::process::Command::new("sync").status().await);
}
