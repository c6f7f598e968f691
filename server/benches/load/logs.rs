//! Logs of many steps at once, through the runner's protocol: large pieces, as of a build that
//! floods, and small ones, as of steps that trickle. Every log is sealed with its length and SHA-256,
//! which the server compares with what it stored.

use crate::child::{self, PROJECTS, REGISTRATION, SECRET, STEPS, Server};
use crate::floors;
use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder, StatusCode};
use roadstead_protocol as wire;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// Bytes of each log in the two loads, and of each piece that it is sent in.
const FLOOD: (usize, usize) = (20_000_000, wire::LOG_CHUNK_BYTES);
const TRICKLE: (usize, usize) = (400_000, 2_000);
/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// One attempt and what its calls need.
#[derive(Clone)]
struct Attempt {
    client: Client,
    address: String,
    assignment: wire::Assignment,
}

impl Attempt {
    fn call(&self, method: reqwest::Method, rest: &str) -> RequestBuilder {
        let id = &self.assignment.attempt.attempt;
        let url = format!("{}/runner/v1/attempts/{id}/{rest}", self.address);
        self.client
            .request(method, url)
            .bearer_auth(&self.assignment.token)
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> anyhow::Result<T> {
    Ok(request.send().await?.error_for_status()?.json().await?)
}

/// Pushes to every project and takes the jobs that come of it, one runner for each.
async fn attempts(server: &Server) -> anyhow::Result<Vec<Attempt>> {
    let client = Client::builder().tcp_nodelay(true).build()?;
    let mut taken = vec![];
    for (number, commit) in server.commits.iter().enumerate() {
        let body = json!({"ref": "refs/heads/main", "after": commit}).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let url = format!("{}/webhooks/git/{}", server.address, child::project(number));
        let push = client.post(url).header("x-hub-signature-256", signature);
        push.body(body).send().await?.error_for_status()?;

        let introduction = wire::Register {
            registration_token: REGISTRATION.to_owned(),
            name: format!("load-{number}"),
            labels: vec![],
        };
        let url = format!("{}/runner/v1/register", server.address);
        let registered: wire::Registered = answer(client.post(url).json(&introduction)).await?;
        let poll = wire::Poll {
            protocol_version: wire::PROTOCOL_VERSION,
            labels: vec![],
            free_slots: 1,
            disk_free_bytes: 1 << 40,
            running: vec![],
        };
        let begun = Instant::now();
        let assignment = loop {
            let url = format!("{}/runner/v1/poll", server.address);
            let ask = client.post(url).bearer_auth(&registered.credential);
            let reply: wire::PollReply = answer(ask.json(&poll)).await?;
            if let Some(assignment) = reply.assign {
                break assignment;
            }
            ensure!(begun.elapsed() < PATIENCE, "no job came of a push");
        };
        let attempt = Attempt {
            client: client.clone(),
            address: server.address.clone(),
            assignment,
        };
        let accept = attempt.call(reqwest::Method::POST, "accept");
        accept.send().await?.error_for_status()?;
        tokio::spawn(heartbeats(attempt.clone(), registered.credential));
        taken.push(attempt);
    }
    Ok(taken)
}

/// Keeps the lease until the server is gone.
async fn heartbeats(attempt: Attempt, credential: String) {
    let beat = wire::Heartbeat {
        running: vec![attempt.assignment.attempt.clone()],
    };
    let url = format!("{}/runner/v1/heartbeat", attempt.address);
    loop {
        let sent = attempt
            .client
            .post(&url)
            .bearer_auth(&credential)
            .json(&beat)
            .send();
        if sent.await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(wire::HEARTBEAT_SECONDS)).await;
    }
}

/// What one log's pieces took to be acknowledged.
struct Sent {
    latencies: Vec<Duration>,
    sealed_in: Duration,
}

/// Text that looks like a build's: it compresses about as such text does.
fn text(seed: usize, bytes: usize) -> Vec<u8> {
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
    let seal = wire::LogSeal {
        fence: attempt.assignment.attempt.fence,
        length: text.len() as u64,
        sha256: hex::encode(Sha256::digest(&text)),
    };
    let begun = Instant::now();
    let seal = attempt
        .call(reqwest::Method::POST, &format!("steps/{step}/log/seal"))
        .json(&seal);
    let status = seal.send().await?.status();
    ensure!(status == StatusCode::NO_CONTENT, "a seal answered {status}");
    Ok(Sent {
        latencies,
        sealed_in: begun.elapsed(),
    })
}

pub(crate) async fn measure() -> anyhow::Result<()> {
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
        let server = Server::start()?;
        let attempts = attempts(&server).await?;
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
        all.sort();
        let at = |part: f64| -> anyhow::Result<f64> {
            let found = all
                .get((all.len() as f64 * part) as usize)
                .context("none")?;
            Ok(found.as_secs_f64() * 1e3)
        };
        let used = (server.processor_seconds()? - before) / seconds;
        let (resident, own) = server.memory()?;
        let megabytes = (bytes * PROJECTS * STEPS) as f64 / 1e6;
        println!(
            "  roadstead, pieces of {piece} bytes: {:.0} MB/s, {:.0} pieces/s, p50 {:.1} ms, p99 {:.1} ms, longest seal {:.0} ms",
            megabytes / seconds,
            all.len() as f64 / seconds,
            at(0.5)?,
            at(0.99)?,
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
