//! Jobs that wait for many runners, and a server that is killed while all of them are in flight.

use crate::child::{PROJECTS, Server};
use crate::database::Kind;
use crate::figures::{Figures, Goal};
use crate::quantiles::Quantiles;
use crate::runners::{self, Attempt, Runner};
use anyhow::{Context, ensure};
use jiff::Timestamp;
use roadstead_protocol::{AttemptRef, HEARTBEAT_SECONDS, LEASE_SECONDS};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Jobs that wait, and runners that ask for them.
const JOBS: u64 = 10_000;
const RUNNERS: u64 = 1_000;
/// Runs that are asked for while all runners wait, and how far apart.
const ASKED: u64 = 400;
const APART: Duration = Duration::from_millis(50);
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// A runner and what it works on.
struct Busy {
    runner: Runner,
    running: Vec<Attempt>,
}

fn named(running: &[Attempt]) -> Vec<AttemptRef> {
    let names = running.iter().map(|attempt| &attempt.assignment.attempt);
    names.cloned().collect()
}

pub(crate) async fn measure(kind: Kind, figures: &mut Figures) -> anyhow::Result<()> {
    println!("claims: {JOBS} jobs, {RUNNERS} runners");
    idle(kind, figures).await?;
    let server = with_jobs(kind, JOBS).await?;
    let runners = register(&server).await?;
    let mut busy = drain(&server, runners, JOBS, figures).await?;
    end_the_first(&server, &mut busy).await?;
    let far = Instant::now() + PATIENCE * 10;
    let kept: Vec<_> = busy
        .iter()
        .map(|busy| tokio::spawn(keep(busy.runner.clone(), named(&busy.running), far)))
        .collect();
    latency(&server, &busy, "all at work", figures).await?;
    for beat in kept {
        beat.abort();
    }
    restart(server, busy, figures).await
}

async fn register(server: &Server) -> anyhow::Result<Vec<Runner>> {
    let mut runners = vec![];
    for number in 0..RUNNERS {
        runners.push(Runner::register(&server.address, &format!("runner-{number}")).await?);
    }
    Ok(runners)
}

/// The runners wait, and none of them has anything else to do.
async fn idle(kind: Kind, figures: &mut Figures) -> anyhow::Result<()> {
    let server = with_jobs(kind, PROJECTS as u64).await?;
    let runners = register(&server).await?;
    for runner in runners.iter().take(PROJECTS) {
        runner.take(&[]).await?.succeed().await?;
    }
    let over = "select count(*) from runs where word = 'succeeded'";
    server.until(over, &PROJECTS.to_string()).await?;
    let waiting = runners.into_iter().map(|runner| Busy {
        runner,
        running: vec![],
    });
    let waiting: Vec<_> = waiting.collect();
    latency(&server, &waiting, "none at work", figures).await
}

/// A server with `count` jobs that wait, one of each project at least.
async fn with_jobs(kind: Kind, count: u64) -> anyhow::Result<Server> {
    let server = Server::start(kind)?;
    let client = reqwest::Client::new();
    for number in 0..PROJECTS {
        runners::push(&client, &server, number).await?;
    }
    let queued = "select count(*) from runs where word = 'queued'";
    server.until(queued, &PROJECTS.to_string()).await?;
    let kept = server.kill()?;
    let more = count - PROJECTS as u64;
    if more > 0 {
        kept.database.runs(more)?;
    }
    Server::again(kept)
}

/// All runners take jobs until there are none: how many a second.
async fn drain(
    server: &Server,
    runners: Vec<Runner>,
    jobs: u64,
    figures: &mut Figures,
) -> anyhow::Result<Vec<Busy>> {
    let left = Arc::new(AtomicU64::new(jobs));
    let before = server.processor_seconds()?;
    let begun = Instant::now();
    let mut takers = vec![];
    for runner in runners {
        let left = Arc::clone(&left);
        takers.push(tokio::spawn(async move {
            let mut running = vec![];
            let mut took = vec![];
            while left
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
            {
                let begun = Instant::now();
                let attempt = runner.take(&named(&running)).await?;
                took.push(begun.elapsed());
                running.push(attempt);
            }
            anyhow::Ok((Busy { runner, running }, took))
        }));
    }
    let (mut busy, mut took) = (vec![], vec![]);
    for taker in takers {
        let (runner, times) = taker.await??;
        busy.push(runner);
        took.extend(times);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = (server.processor_seconds()? - before) / seconds;
    println!(
        "  drained: {:.0} claims/s, each accepted, {}, {used:.2} processors",
        jobs as f64 / seconds,
        Quantiles::of(took)
    );
    let rate = jobs as f64 / seconds;
    figures.add(
        "claims, each accepted",
        rate,
        "a second",
        Goal::AtLeast(2_000.0),
    );
    let (resident, own) = server.memory()?;
    println!(
        "    {:.1} MB resident, {:.1} MB of it its own",
        resident as f64 / 1e6,
        own as f64 / 1e6
    );
    Ok(busy)
}

/// The first run of each project ends, so that it can be asked for again.
async fn end_the_first(server: &Server, busy: &mut [Busy]) -> anyhow::Result<()> {
    for busy in busy {
        let is_first = |attempt: &mut Attempt| attempt.assignment.run.ends_with(".1");
        for attempt in busy.running.extract_if(.., is_first) {
            attempt.succeed().await?;
        }
    }
    let over = "select count(*) from runs where word = 'succeeded'";
    server.until(over, &PROJECTS.to_string()).await
}

/// Runs are asked for, one after the other, while every runner waits for a job: from the answer that there is a
/// run until a runner holds its job, so that reading the sources is in it; and from the moment at which the server
/// began to write that it can be begun, by its own clock, which is the same.
async fn latency(
    server: &Server,
    runners: &[Busy],
    meanwhile: &str,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (told, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = vec![];
    for busy in runners {
        // An attempt that its runner does not name is lost.
        let (runner, running, told) = (busy.runner.clone(), named(&busy.running), told.clone());
        waiting.push(tokio::spawn(async move {
            loop {
                if let Some(attempt) = runner.poll(1, &running).await? {
                    let at = (Instant::now(), Timestamp::now());
                    attempt.accept().await?;
                    attempt.succeed().await?;
                    if told.send((attempt.assignment.run, at)).is_err() {
                        return anyhow::Ok(());
                    }
                }
            }
        }));
    }
    let client = reqwest::Client::new();
    let login = server.sign_in().await?;
    let begun = Instant::now();
    let mut asked = BTreeMap::new();
    for number in 0..ASKED {
        tokio::time::sleep_until((begun + APART * u32::try_from(number)?).into()).await;
        let run = format!("load-{}.1", number % PROJECTS as u64);
        let url = format!("{}/api/v1/runs/{run}/retry", server.address);
        let answer = client.post(url).header("cookie", &login).send().await?;
        let made: serde_json::Value = answer.error_for_status()?.json().await?;
        let run = made["run"].as_str().context("a retry names its run")?;
        asked.insert(run.to_owned(), Instant::now());
    }
    let (mut took, mut held) = (vec![], BTreeMap::new());
    while took.len() < asked.len() {
        let next = tokio::time::timeout(PATIENCE, taken.recv()).await?;
        let (run, (at, time)) = next.context("no runner waits any more")?;
        let asked = asked.get(&run).context("nobody asked for this run")?;
        took.push(at.saturating_duration_since(*asked));
        held.insert(run, time);
    }
    for runner in waiting {
        runner.abort();
    }
    println!(
        "  from asked for to held by a runner, {meanwhile}, {} a second: {}",
        1000 / APART.as_millis(),
        Quantiles::of(took)
    );
    let begun =
        "select subject || ' ' || min(at) from events where after = '\"queued\"' group by subject";
    let mut took = vec![];
    for line in server.database().query(begun)? {
        let (run, at) = line.split_once(' ').context("a run and a time")?;
        if let Some(held) = held.get(run) {
            let at = Timestamp::from_microsecond(at.parse()?)?;
            took.push(held.duration_since(at).unsigned_abs());
        }
    }
    ensure!(
        took.len() == held.len(),
        "{} of {} were queued",
        took.len(),
        held.len()
    );
    let took = Quantiles::of(took);
    println!("  from a job that can be begun to a runner that holds it, {meanwhile}: {took}");
    let what = format!("a job that can be begun, to its claim, {meanwhile}");
    figures.p99(&what, &took, 20.0);
    Ok(())
}

/// Keeps the leases of all that a runner works on until `end`; the attempts that the server gave up.
async fn keep(
    runner: Runner,
    running: Vec<AttemptRef>,
    end: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut lost = vec![];
    while Instant::now() < end {
        match runner.beat(&running).await {
            Ok(given_up) => lost.extend(given_up),
            // Said again with the next one, as runners do.
            Err(error) => eprintln!("  a heartbeat was not answered: {error}"),
        }
        tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
    }
    Ok(lost)
}

/// The server is killed and started again; every runner goes on, and nothing is run twice.
async fn restart(server: Server, busy: Vec<Busy>, figures: &mut Figures) -> anyhow::Result<()> {
    let live = "select count(*) from attempts where ended_at is null and accepted_at is not null";
    let attempts: usize = busy.iter().map(|busy| busy.running.len()).sum();
    let kept = server.kill()?;
    let begun = Instant::now();
    let server = Server::again(kept)?;
    let ready = begun.elapsed();
    let goal = Goal::AtMost(5.0);
    figures.add(
        "ready again with 10,000 jobs in flight",
        ready.as_secs_f64(),
        "s",
        goal,
    );
    let end = begun + Duration::from_secs(LEASE_SECONDS * 2);
    let beats: Vec<_> = busy
        .into_iter()
        .map(|Busy { runner, running }| {
            tokio::spawn(keep(runner.at(&server.address), named(&running), end))
        })
        .collect();
    let mut lost = BTreeSet::new();
    for beat in beats {
        lost.extend(beat.await??);
    }
    let left = server.database().query(live)?.concat();
    println!(
        "  killed with {attempts} jobs in flight: ready again in {:.2} s; after two leases {} lost, {left} alive",
        ready.as_secs_f64(),
        lost.len()
    );
    ensure!(lost.is_empty(), "attempts were lost by a restart");
    Ok(())
}
