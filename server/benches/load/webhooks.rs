//! Signed pushes at a fixed rate, whether the server keeps up or not; then the server is killed, and
//! what was acknowledged is looked for in its database.

use crate::child::{self, PROJECTS, SECRET, Server};
use crate::database::Kind;
use crate::figures::{Figures, Goal};
use crate::floors;
use crate::quantiles::Quantiles;
use anyhow::ensure;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::Sha256;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections that the load comes over, as from a proxy that keeps them.
const CONNECTIONS: u64 = 128;

/// What one push was answered.
struct Sent {
    number: u64,
    status: u16,
    /// Since it should have been sent, so that a server that stalls is told every push that waited.
    took: Duration,
}

/// What a whole load came to.
struct Load {
    sent: Vec<Sent>,
    seconds: f64,
}

impl Load {
    fn acknowledged(&self) -> impl Iterator<Item = &Sent> {
        self.sent
            .iter()
            .filter(|sent| (200..300).contains(&sent.status))
    }

    fn rate(&self) -> f64 {
        self.acknowledged().count() as f64 / self.seconds
    }

    fn latencies(&self) -> Quantiles {
        Quantiles::of(self.sent.iter().map(|sent| sent.took).collect())
    }
}

/// What GitHub tells of a push to a repository of an organization: 6 to 7 kB, most of it addresses.
fn body(name: &str, commit: &str) -> String {
    let repository_urls: serde_json::Map<String, serde_json::Value> = [
        "archive",
        "assignees",
        "blobs",
        "branches",
        "collaborators",
        "comments",
        "commits",
        "compare",
        "contents",
        "contributors",
        "deployments",
        "downloads",
        "events",
        "forks",
        "git_commits",
        "git_refs",
        "git_tags",
        "hooks",
        "issue_comment",
        "issue_events",
        "issues",
        "keys",
        "labels",
        "languages",
        "merges",
        "milestones",
        "notifications",
        "pulls",
        "releases",
        "stargazers",
        "statuses",
        "subscribers",
        "subscription",
        "tags",
        "teams",
        "trees",
    ]
    .iter()
    .map(|kind| {
        let url =
            format!("https://api.example.com/repos/load/{name}/{kind}{{/something_optional}}");
        (format!("{kind}_url"), json!(url))
    })
    .collect();
    let person = json!({"name": "A Developer", "email": "a.developer@example.com", "username": "a-developer"});
    let told = json!({
        "id": commit, "tree_id": commit, "distinct": true,
        "message": "Give the basket a total that rounds as the shop's tax office wants it to round",
        "timestamp": "2026-11-26T10:00:00+00:00", "author": person, "committer": person,
        "url": format!("https://example.com/load/{name}/commit/{commit}"),
        "added": [], "removed": [], "modified": ["src/basket.rs", "src/total.rs", "tests/rounding.rs"],
    });
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(39) + "1", "after": commit,
        "repository": {"id": 1, "name": name, "urls": repository_urls},
        "pusher": person, "created": false, "deleted": false, "forced": false,
        "compare": format!("https://example.com/load/{name}/compare/{commit}"),
        "commits": [told, told, told], "head_commit": told,
    })
    .to_string()
}

/// Stands in a template for the commit, as long as one.
const COMMIT: &str = "-----------------the-commit-------------";

/// The body of a project's pushes. Making it anew for each would cost as much as the server's answer to it.
fn template(number: usize) -> String {
    body(&child::project(number), COMMIT)
}

fn commit(number: u64) -> String {
    format!("{:040x}", number + 0x1000_0000_0000)
}

fn delivery(number: u64) -> String {
    format!("load-{number}")
}

async fn connect(address: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let host = address.trim_start_matches("http://");
    let stream = tokio::net::TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends push `n` at `n / rate` seconds after the start, for as long as `length`.
async fn load(address: &str, rate: u64, length: Duration) -> anyhow::Result<Load> {
    let bodies: Arc<Vec<String>> = Arc::new((0..PROJECTS).map(template).collect());
    let all = (length.as_secs_f64() * rate as f64) as u64;
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut senders = vec![];
    for _ in 0..CONNECTIONS.min(all) {
        let (next, address) = (Arc::clone(&next), address.to_owned());
        let bodies = Arc::clone(&bodies);
        senders.push(tokio::spawn(async move {
            let mut connection = connect(&address).await?;
            let mut sent = vec![];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= all {
                    return anyhow::Ok(sent);
                }
                let due = begun + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due.into()).await;
                let request = push(&bodies, number)?;
                connection.ready().await?;
                let response = connection.send_request(request).await?;
                let status = response.status().as_u16();
                response.into_body().collect().await?;
                let took = due.elapsed();
                sent.push(Sent {
                    number,
                    status,
                    took,
                });
            }
        }));
    }
    let mut sent = vec![];
    for sender in senders {
        sent.extend(sender.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Load { sent, seconds })
}

fn push(bodies: &[String], number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
    let body = bodies[number as usize % PROJECTS].replace(COMMIT, &commit(number));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(body.as_bytes());
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let project = child::project(number as usize % PROJECTS);
    Ok(Request::post(format!("/webhooks/github/{project}"))
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery(number))
        .header("x-hub-signature-256", signature)
        .body(Full::new(Bytes::from(body)))?)
}

pub(crate) async fn measure(
    kind: Kind,
    rate: u64,
    length: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let size = template(0).len();
    println!(
        "webhooks: {rate}/s for {} s, bodies of {size} bytes, {PROJECTS} projects",
        length.as_secs()
    );
    ensure!(size >= 6_000, "bodies of {size} bytes are too small");

    let folder = tempfile::tempdir()?;
    let syncs = floors::syncs(folder.path(), 8_192)?;
    println!("  floor: {syncs:.0} appends of 8 kB with fdatasync a second, one after the other");
    let (address, handle) = floors::bare_handler().await?;
    let bare = load(&address, rate, length.min(Duration::from_secs(10))).await?;
    handle.stop(false).await;
    tell("floor: a bare actix handler", &bare);

    let server = Server::start(kind)?;
    let before = server.processor_seconds()?;
    let load = load(&server.address, rate, length).await?;
    let used = (server.processor_seconds()? - before) / load.seconds;
    tell("roadstead", &load);
    let (resident, own) = server.memory()?;
    println!(
        "    {:.2} processors, {:.1} MB resident, {:.1} MB of it its own",
        used,
        resident as f64 / 1e6,
        own as f64 / 1e6
    );
    let what = format!("webhooks at {rate}/s for {} s", length.as_secs());
    // What a clock that stops a moment after the last one may take away.
    figures.add(
        &what,
        load.rate(),
        "a second",
        Goal::AtLeast(rate as f64 * 0.995),
    );
    figures.p99(&what, &load.latencies(), 100.0);
    let kept = server.kill()?;
    let stored = kept.database.query("select delivery_id from deliveries")?;
    let distinct: BTreeSet<&str> = stored.iter().map(String::as_str).collect();
    let lost = load
        .acknowledged()
        .filter(|sent| !distinct.contains(delivery(sent.number).as_str()))
        .count();
    let doubled = stored.len() - distinct.len();
    println!(
        "    killed; {} acknowledged, {} stored, {lost} lost, {doubled} doubled",
        load.acknowledged().count(),
        distinct.len()
    );
    ensure!(
        lost == 0 && doubled == 0,
        "acknowledged webhooks were lost or doubled"
    );
    Ok(())
}

fn tell(who: &str, load: &Load) {
    let refused = load.sent.len() - load.acknowledged().count();
    println!(
        "  {who}: {:.0}/s acknowledged, {}, {refused} refused",
        load.rate(),
        load.latencies()
    );
}
