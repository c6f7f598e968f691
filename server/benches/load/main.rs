//! What one server takes: webhooks that are acknowledged only once they are on the disk, the logs of many
//! steps at once, jobs that many runners ask for, viewers of a log, and pages after a million runs; beside
//! the floors of this machine, measured in the same run.
//!
//! Every part starts a server of its own in a process of its own, on a new database in a folder that
//! goes with it, and talks to it over TCP. Load comes from this process, on the same processors, so
//! that the figures are those of a server and its callers together.
//!
//! `cargo bench --package roadstead-server --bench load -- [PART…] [--postgresql] [--seconds N] [--rate N] [--runs N]
//! [--keep FOLDER]`, where a part is `webhooks` (`--seconds`, `--rate`), `logs`, `claims`, `tail` or `pages` (`--runs`);
//! without one, all. `--keep` adds the figures to those in a folder and draws them anew.

mod child;
mod claims;
mod database;
mod figures;
mod floors;
mod logs;
mod pages;
mod quantiles;
mod runners;
mod tail;
mod webhooks;

use anyhow::Context;
use database::Kind;
use figures::Figures;
use std::path::PathBuf;
use std::time::Duration;
use tikv_jemallocator::Jemalloc;

/// The program's own, set as there: cli/src/main.rs.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[expect(unsafe_code, reason = "the name by which jemalloc finds it")]
#[used]
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 26] = b"narenas:2,tcache_max:1024\0";

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Webhooks,
    Logs,
    Claims,
    Tail,
    Pages,
}

impl Part {
    const ALL: [Self; 5] = [
        Self::Webhooks,
        Self::Logs,
        Self::Claims,
        Self::Tail,
        Self::Pages,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::Logs => "logs",
            Self::Claims => "claims",
            Self::Tail => "tail",
            Self::Pages => "pages",
        }
    }
}

/// What is measured, and how much of it.
struct Arguments {
    parts: Vec<Part>,
    seconds: u64,
    rate: u64,
    runs: u64,
    kind: Kind,
    keep: Option<PathBuf>,
}

impl Arguments {
    fn parse(given: &[String]) -> anyhow::Result<Self> {
        let mut arguments = Self {
            parts: vec![],
            seconds: 60,
            rate: 5_000,
            runs: 1_000_000,
            kind: Kind::Sqlite,
            keep: None,
        };
        let mut given = given.iter().map(String::as_str);
        while let Some(word) = given.next() {
            let mut number = || -> anyhow::Result<u64> {
                let text = given.next().unwrap_or_default();
                text.parse()
                    .map_err(|_| anyhow::anyhow!("{word} takes a number, not `{text}`"))
            };
            match word {
                "--seconds" => arguments.seconds = number()?,
                "--rate" => arguments.rate = number()?,
                "--runs" => arguments.runs = number()?,
                "--postgresql" => arguments.kind = Kind::Postgresql,
                "--keep" => {
                    let folder = given.next().map(PathBuf::from);
                    arguments.keep = Some(folder.context("--keep takes a folder")?);
                }
                // cargo's own.
                "--bench" => {}
                other => match Part::ALL.iter().find(|part| part.word() == other) {
                    Some(part) => arguments.parts.push(*part),
                    None => anyhow::bail!(
                        "`{other}` is none of {}, --postgresql, --seconds N, --rate N, --runs N, --keep FOLDER",
                        Part::ALL.map(Part::word).join(", ")
                    ),
                },
            }
        }
        if arguments.parts.is_empty() {
            arguments.parts = Part::ALL.to_vec();
        }
        Ok(arguments)
    }
}

fn main() -> anyhow::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let [word, folder, database @ ..] = &given[..]
        && word == child::SERVE
    {
        let database = database.first().map(String::as_str);
        return runtime.block_on(child::be_the_server(folder.as_ref(), database));
    }
    let arguments = Arguments::parse(&given)?;
    let (kind, mut figures) = (arguments.kind, Figures::default());
    println!("on {kind}");
    runtime.block_on(async {
        for part in &arguments.parts {
            match part {
                Part::Webhooks => {
                    let length = Duration::from_secs(arguments.seconds);
                    webhooks::measure(kind, arguments.rate, length, &mut figures).await?;
                }
                Part::Logs => logs::measure(kind, &mut figures).await?,
                Part::Claims => claims::measure(kind, &mut figures).await?,
                Part::Tail => tail::measure(kind, &mut figures).await?,
                Part::Pages => pages::measure(kind, arguments.runs, &mut figures).await?,
            }
        }
        match arguments.keep {
            Some(folder) => figures.keep(&folder, kind),
            None => Ok(()),
        }
    })
}
