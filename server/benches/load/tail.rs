//! A line on its way to a browser, and a log of a million lines that somebody opens.

use crate::child::{self, Server};
use crate::database::Kind;
use crate::figures::{Figures, Goal};
use crate::logs;
use crate::quantiles::Quantiles;
use crate::runners::{self, Attempt};
use anyhow::{Context, ensure};
use reqwest::{Client, StatusCode};
use roadstead_protocol as wire;
use std::time::{Duration, Instant};

/// Lines that are printed, and how far apart.
const LINES: usize = 400;
const APART: Duration = Duration::from_millis(25);
/// Lines of the long log, and how often it is opened.
const MANY: usize = 1_000_000;
const TIMES: usize = 50;
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(kind: Kind, figures: &mut Figures) -> anyhow::Result<()> {
    println!(
        "tail: {LINES} lines, {} a second, to 64 viewers",
        1000 / APART.as_millis()
    );
    let server = Server::start(kind)?;
    let attempts = runners::attempts(&server).await?;
    let client = Client::builder().tcp_nodelay(true).build()?;
    let login = server.sign_in().await?;
    let attempt = attempts.first().context("no attempt")?;
    let took = live(&server, &client, &login, attempt).await?;
    let goal = Goal::AtMost(300.0);
    figures.add("a log's line to a browser, p95", took.at(0.95), "ms", goal);
    let took = long(&server, &client, &login, attempt).await?;
    figures.p99("a log of 1,000,000 lines, opened", &took, 300.0);
    Ok(())
}

fn page(server: &Server, attempt: &Attempt, step: &str) -> String {
    format!(
        "{}/runs/{}?step={step}",
        server.address, attempt.assignment.run
    )
}

fn events(server: &Server, attempt: &Attempt, step: &str) -> String {
    let run = &attempt.assignment.run;
    format!(
        "{}/runs/{run}/steps/{step}/log/events?attempt=1&from=1",
        server.address
    )
}

/// Line by line: from the piece that carries it until a viewer has it, beside 63 other viewers.
async fn live(
    server: &Server,
    client: &Client,
    login: &str,
    attempt: &Attempt,
) -> anyhow::Result<Quantiles> {
    let step = child::step(0);
    let url = events(server, attempt, &step);
    let watch = || client.get(&url).header("cookie", login).send();
    let mut others = vec![];
    for _ in 0..63 {
        let mut other = watch().await?.error_for_status()?;
        others.push(tokio::spawn(async move {
            while let Ok(Some(_)) = other.chunk().await {}
        }));
    }
    let mut viewer = watch().await?.error_for_status()?;
    let seen = tokio::spawn(async move {
        let mut text = String::new();
        let mut seen = vec![];
        while seen.len() < LINES {
            let chunk = tokio::time::timeout(PATIENCE, viewer.chunk()).await??;
            text += &String::from_utf8_lossy(&chunk.context("the stream ended")?);
            while text.contains(&mark(seen.len())) {
                seen.push(Instant::now());
            }
        }
        anyhow::Ok(seen)
    });
    let (mut offset, mut sent) = (0, vec![]);
    let begun = Instant::now();
    for number in 0..LINES {
        tokio::time::sleep_until((begun + APART * u32::try_from(number)?).into()).await;
        let line = format!("{}\n", mark(number));
        let rest = format!("steps/{step}/log?offset={offset}");
        offset += line.len();
        sent.push(Instant::now());
        let append = attempt.call(reqwest::Method::PATCH, &rest).body(line);
        let status = append.send().await?.status();
        ensure!(status == StatusCode::NO_CONTENT, "a log answered {status}");
    }
    let seen = seen.await??;
    let took = sent.iter().zip(&seen).map(|(sent, seen)| *seen - *sent);
    let took = Quantiles::of(took.collect());
    println!("  from a runner's piece to a viewer: {took}");
    for other in others {
        other.abort();
    }
    Ok(took)
}

/// A line that no other one begins with.
fn mark(number: usize) -> String {
    format!("<line-{number:06}>").replace(['<', '>'], "-")
}

/// A log of many lines: opened while it grows, once it is sealed, and in its middle.
async fn long(
    server: &Server,
    client: &Client,
    login: &str,
    attempt: &Attempt,
) -> anyhow::Result<Quantiles> {
    let step = child::step(1);
    let mut text = logs::text(7, MANY * 76);
    text.push(b'\n');
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    logs::append(attempt, &step, &text, wire::LOG_CHUNK_BYTES).await?;
    let page = page(server, attempt, &step);
    let open = async |what: &str, url: &str| -> anyhow::Result<Quantiles> {
        let mut took = vec![];
        for _ in 0..TIMES {
            let begun = Instant::now();
            let answer = client.get(url).header("cookie", login).send().await?;
            answer.error_for_status()?.text().await?;
            took.push(begun.elapsed());
        }
        let took = Quantiles::of(took);
        println!("  {lines} lines, {what}: {took}");
        Ok(took)
    };
    open("not sealed", &page).await?;
    let sealed_in = logs::seal(attempt, &step, &text).await?;
    println!("  sealed in {:.0} ms", sealed_in.as_secs_f64() * 1e3);
    let sealed = open("sealed", &page).await?;
    let middle = format!("{page}&from={}", lines / 2);
    open("sealed, in its middle", &middle).await?;
    Ok(sealed)
}
