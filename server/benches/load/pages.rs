//! Pages of a server that has kept a million runs.

use crate::child::{PROJECTS, Server, project};
use crate::database::Kind;
use crate::figures::{Figures, Goal};
use crate::quantiles::Quantiles;
use crate::{floors, runners};
use anyhow::ensure;
use reqwest::Client;
use std::time::Instant;

/// How often each page is asked for.
const TIMES: usize = 300;

pub(crate) async fn measure(kind: Kind, total: u64, figures: &mut Figures) -> anyhow::Result<()> {
    println!("pages: {total} runs");
    let server = Server::start(kind)?;
    for attempt in runners::attempts(&server).await? {
        attempt.succeed().await?;
    }
    let over = "select count(*) from runs where word = 'succeeded'";
    server.until(over, &PROJECTS.to_string()).await?;
    let kept = server.kill()?;
    let begun = Instant::now();
    let there = kept.database.runs(total)?;
    println!(
        "  {there} runs in a database of {:.1} GB, filled in {:.0} s",
        kept.database.size()? as f64 / 1e9,
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    let server = Server::again(kept)?;
    println!("  ready in {:.2} s", begun.elapsed().as_secs_f64());

    let client = Client::builder().tcp_nodelay(true).build()?;
    let login = server.sign_in().await?;
    let (address, handle) = floors::bare_handler().await?;
    tell(
        "floor: a bare actix handler",
        &ask(&client, &format!("{address}/"), "", TIMES).await?,
    );
    handle.stop(false).await;
    let middle = format!("{}.{}", project(0), there / PROJECTS as u64 / 2);
    let mut slowest: f64 = 0.0;
    for path in [
        "/".to_owned(),
        format!("/projects/{}", project(0)),
        format!("/projects/{}?page=2", project(0)),
        format!("/projects/{}?page=100", project(0)),
        format!("/runs/{middle}"),
        "/deliveries".to_owned(),
        "/deliveries?page=100".to_owned(),
        "/runners".to_owned(),
        format!("/api/v1/projects/{}/runs", project(0)),
        format!("/api/v1/runs/{middle}"),
    ] {
        let url = format!("{}{path}", server.address);
        let took = ask(&client, &url, &login, TIMES).await?;
        tell(&path, &took);
        slowest = slowest.max(took.at(0.99));
    }
    let goal = Goal::AtMost(20.0);
    figures.add(
        &format!("the slowest page of {total} runs, p99"),
        slowest,
        "ms",
        goal,
    );
    let (resident, own) = server.memory()?;
    println!(
        "    {:.1} MB resident, {:.1} MB of it its own",
        resident as f64 / 1e6,
        own as f64 / 1e6
    );
    Ok(())
}

/// How long each of so many answers took, one after the other.
async fn ask(client: &Client, url: &str, login: &str, times: usize) -> anyhow::Result<Quantiles> {
    let mut took = vec![];
    for _ in 0..times {
        let begun = Instant::now();
        let answer = client
            .get(url)
            .header("cookie", login)
            .header("accept", "text/html, application/json")
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        took.push(begun.elapsed());
        ensure!(
            login.is_empty() || status.is_success(),
            "{url} answered {status}: {text}"
        );
    }
    Ok(Quantiles::of(took))
}

fn tell(what: &str, took: &Quantiles) {
    println!("  {what}: {took}");
}
