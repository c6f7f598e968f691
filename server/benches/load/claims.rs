//! Jobs that wait for many runners, and a server that is killed while all of them are in flight.

use crate::child::{PROJECTS, Server};
use crate::fill;
use crate::quantiles::Quantiles;
use crate::runners::{self, Attempt, Runner};
use anyhow::ensure;
use roadstead_protocol::{AttemptRef, HEARTBEAT_SECONDS, LEASE_SECONDS};
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

pub(crate) async fn measure() -> anyhow::Result<()> {
    println!("claims: {JOBS} jobs, {RUNNERS} runners");
    let server = with_jobs(JOBS).await?;
    let mut runners = vec![];
    for number in 0..RUNNERS {
        runners.push(Runner::register(&server.address, &format!("runner-{number}")).await?);
    }
    let mut busy = drain(&server, runners.clone(), JOBS).await?;
    end_the_first(&server, &mut busy).await?;
    latency(&server, &runners).await?;
    restart(server, busy).await
}

/// A server with `count` jobs that wait.
async fn with_jobs(count: u64) -> anyhow::Result<Server> {
    let server = Server::start()?;
    let client = reqwest::Client::new();
    for number in 0..PROJECTS {
        runners::push(&client, &server, number).await?;
    }
    let queued = "select count(*) from runs where word = 'queued'";
    server.until(queued, &PROJECTS.to_string()).await?;
    let (folder, commits) = server.kill()?;
    fill::runs(
        &folder.path().join(Server::DATABASE),
        count - PROJECTS as u64,
    )?;
    Server::again(folder, commits)
}

/// All runners take jobs until there are none: how many a second.
async fn drain(server: &Server, runners: Vec<Runner>, jobs: u64) -> anyhow::Result<Vec<Busy>> {
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

/// Every runner waits for a job while runs are asked for, one after the other.
async fn latency(server: &Server, runners: &[Runner]) -> anyhow::Result<()> {
    let taken = Arc::new(AtomicU64::new(0));
    let mut waiting = vec![];
    for runner in runners {
        let (runner, taken) = (runner.clone(), Arc::clone(&taken));
        waiting.push(tokio::spawn(async move {
            while taken.load(Ordering::Relaxed) < ASKED {
                if runner.poll(1, &[]).await?.is_some() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        }));
    }
    let client = reqwest::Client::new();
    let login = server.sign_in(&client).await?;
    let before = "select coalesce(max(sequence), 0) from events";
    let before = fill::query(&server.database(), before)?.concat();
    let begun = Instant::now();
    for number in 0..ASKED {
        tokio::time::sleep_until((begun + APART * u32::try_from(number)?).into()).await;
        let run = format!("load-{}.1", number % PROJECTS as u64);
        let url = format!("{}/api/v1/runs/{run}/retry", server.address);
        let asked = client.post(url).header("cookie", &login).send().await?;
        ensure!(asked.status().is_success(), "{}", asked.text().await?);
    }
    while taken.load(Ordering::Relaxed) < ASKED {
        ensure!(begun.elapsed() < PATIENCE, "a job was not taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for runner in waiting {
        // Those that wait still are answered within one long poll.
        runner.abort();
    }
    let times = fill::query(
        &server.database(),
        &format!(
            "select claimed.at - queued.at from events claimed join events queued using (subject) \
             where claimed.what = 'job_claimed' and queued.what = 'sources_read' \
             and queued.sequence > {before}"
        ),
    )?;
    let times = times
        .iter()
        .map(|micros| micros.parse().map(Duration::from_micros));
    let times = times.collect::<Result<Vec<_>, _>>()?;
    ensure!(
        times.len() as u64 == ASKED,
        "{} claims are in the trail",
        times.len()
    );
    println!(
        "  from waiting to claimed, {} a second: {}",
        1000 / APART.as_millis(),
        Quantiles::of(times)
    );
    Ok(())
}

/// The server is killed and started again; every runner goes on, and nothing is run twice.
async fn restart(server: Server, busy: Vec<Busy>) -> anyhow::Result<()> {
    let live = "select count(*) from attempts where ended_at is null and accepted_at is not null";
    let attempts: u64 = busy.iter().map(|busy| busy.running.len() as u64).sum();
    let (folder, commits) = server.kill()?;
    let begun = Instant::now();
    let server = Server::again(folder, commits)?;
    let ready = begun.elapsed();
    let end = begun + Duration::from_secs(LEASE_SECONDS * 2);
    let mut beats = vec![];
    for Busy { runner, running } in busy {
        let runner = runner.at(&server.address);
        beats.push(tokio::spawn(async move {
            let mut lost = 0;
            while Instant::now() < end {
                lost += runner.beat(&named(&running)).await?.len();
                tokio::time::sleep(Duration::from_secs(HEARTBEAT_SECONDS)).await;
            }
            anyhow::Ok(lost)
        }));
    }
    let mut lost = 0;
    for beat in beats {
        lost += beat.await??;
    }
    let left = fill::query(&server.database(), live)?;
    println!(
        "  killed with {attempts} jobs in flight: ready again in {:.2} s; after two leases {lost} lost, {} alive",
        ready.as_secs_f64(),
        left.first().map_or("none", String::as_str)
    );
    ensure!(lost == 0, "attempts were lost by a restart");
    Ok(())
}
