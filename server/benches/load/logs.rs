//! Logs of many steps at once, through the runner's protocol: large pieces, as of a build that
//! floods, and small ones, as of steps that trickle. Every log is sealed with its length and SHA-256,
//! which the server compares with what it stored.

use crate::child::{self, PROJECTS, STEPS, Server};
use crate::database::Kind;
use crate::figures::{Figures, Goal};
use crate::floors;
use crate::quantiles::Quantiles;
use crate::runners::{self, Attempt};
use anyhow::{Context, ensure};
use reqwest::StatusCode;
use roadstead_protocol as wire;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// Bytes of each log in the two loads, and of each piece that it is sent in.
const FLOOD: (usize, usize) = (20_000_000, wire::LOG_CHUNK_BYTES);
const TRICKLE: (usize, usize) = (400_000, 2_000);

/// What one log's pieces took to be acknowledged.
struct Sent {
    latencies: Vec<Duration>,
    sealed_in: Duration,
}

/// Text that looks like a build's: it compresses about as such text does.
pub(crate) fn text(seed: usize, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 200);
    let mut number = seed as u64 + 1;
    while text.len() < bytes {
        // A linear congruential generator: cheap, and never the same line twice.
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let (a, b) = (number >> 40, (number >> 20) & 0xf_ffff);
        let line = format!("   Compiling crate-{a} v1.{b}.0 (/builds/shop/vendor/crate-{a})\n");
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(bytes);
    text
}

async fn send(attempt: Attempt, step: String, text: Vec<u8>, piece: usize) -> anyhow::Result<Sent> {
    let latencies = append(&attempt, &step, &text, piece).await?;
    let sealed_in = seal(&attempt, &step, &text).await?;
    Ok(Sent {
        latencies,
        sealed_in,
    })
}

/// Sends a log in pieces; how long each took to be acknowledged.
pub(crate) async fn append(
    attempt: &Attempt,
    step: &str,
    text: &[u8],
    piece: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = vec![];
    for (number, bytes) in text.chunks(piece).enumerate() {
        let rest = format!("steps/{step}/log?offset={}", number * piece);
        let append = attempt
            .call(reqwest::Method::PATCH, &rest)
            .body(bytes.to_vec());
        let begun = Instant::now();
        let status = append.send().await?.status();
        latencies.push(begun.elapsed());
        ensure!(status == StatusCode::NO_CONTENT, "a log answered {status}");
    }
    Ok(latencies)
}

/// Says that a log ends here; how long that took.
pub(crate) async fn seal(attempt: &Attempt, step: &str, text: &[u8]) -> anyhow::Result<Duration> {
    let seal = wire::LogSeal {
        fence: attempt.assignment.attempt.fence,
        length: text.len() as u64,
        sha256: hex::encode(Sha256::digest(text)),
    };
    let begun = Instant::now();
    let seal = attempt
        .call(reqwest::Method::POST, &format!("steps/{step}/log/seal"))
        .json(&seal);
    let status = seal.send().await?.status();
    ensure!(status == StatusCode::NO_CONTENT, "a seal answered {status}");
    Ok(begun.elapsed())
}

pub(crate) async fn measure(kind: Kind, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    println!("logs: {} at once", PROJECTS * STEPS);
    println!(
        "  floor: a file of 1 GB copied and synced, {:.0} MB/s",
        floors::copy(folder.path(), 1_000)?
    );
    println!(
        "  floor: {:.0} appends of 2 kB with fdatasync a second, one after the other",
        floors::syncs(folder.path(), TRICKLE.1)?
    );
    for (bytes, piece) in [FLOOD, TRICKLE] {
        let server = Server::start(kind)?;
        let attempts = runners::attempts(&server).await?;
        let texts: Vec<_> = (0..PROJECTS * STEPS)
            .map(|seed| text(seed, bytes))
            .collect();
        let before = server.processor_seconds()?;
        let begun = Instant::now();
        let logs: Vec<_> = texts
            .into_iter()
            .enumerate()
            .map(|(number, text)| {
                let attempt = attempts[number % PROJECTS].clone();
                let step = child::step(number / PROJECTS);
                tokio::spawn(send(attempt, step, text, piece))
            })
            .collect();
        let mut all = vec![];
        let mut seals = vec![];
        for log in logs {
            let sent = log.await??;
            all.extend(sent.latencies);
            seals.push(sent.sealed_in);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let used = (server.processor_seconds()? - before) / seconds;
        let (resident, own) = server.memory()?;
        let rate = (bytes * PROJECTS * STEPS) as f64 / 1e6 / seconds;
        if piece == wire::LOG_CHUNK_BYTES {
            figures.add("logs, in large pieces", rate, "MB/s", Goal::AtLeast(80.0));
        }
        println!(
            "  roadstead, pieces of {piece} bytes: {:.0} MB/s, {:.0} pieces/s, {}, longest seal {:.0} ms",
            rate,
            all.len() as f64 / seconds,
            Quantiles::of(all),
            seals.iter().max().context("none")?.as_secs_f64() * 1e3
        );
        println!(
            "    {used:.2} processors, {:.1} MB resident, {:.1} MB of it its own",
            resident as f64 / 1e6,
            own as f64 / 1e6
        );
    }
    Ok(())
}
