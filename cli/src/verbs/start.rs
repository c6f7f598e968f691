//! `start`: a run of a branch or tag, on a server.

use super::run::given_input;
use super::{client, one_run, show, text};
use crate::Exit;
use crate::client::{Client, ServerArgs};
use clap::Args;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[derive(Args)]
pub(crate) struct StartArgs {
    /// Project.
    project: String,
    /// Branch or tag [default: the repository's own branch].
    #[arg(long = "ref", value_name = "NAME")]
    git_ref: Option<String>,
    /// A commit of that branch, 40 hexadecimal digits [default: where it stands].
    #[arg(long)]
    commit: Option<String>,
    /// A value for an input of the pipeline file. Not for secrets: everybody sees it.
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = given_input)]
    inputs: Vec<(String, String)>,
    /// Asked for again under the same key, it is the same run.
    #[arg(long)]
    key: Option<String>,
    /// Wait for the run's end; status 5 unless it succeeded.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn start(args: StartArgs) -> anyhow::Result<()> {
    let client = client(&args.server)?;
    let inputs: Map<String, Value> = args
        .inputs
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect();
    let body = json!({
        "ref": args.git_ref, "commit": args.commit, "inputs": inputs, "key": args.key,
    });
    let path = format!("/projects/{}/runs", args.project);
    let started = client.post(&path, &body).await?;
    let run = text(&started["run"]).to_owned();
    if !args.wait {
        return show(&args.server, &started, |_| println!("{run}"));
    }
    wait_for(&client, &args.server, &run).await
}

/// Says how a run goes on until it is over.
pub(super) async fn wait_for(
    client: &Client,
    server: &ServerArgs,
    run: &str,
) -> anyhow::Result<()> {
    let mut last = String::new();
    loop {
        let found = client.get(&format!("/runs/{run}")).await?;
        let word = text(&found["run"]["state"]["state"]).to_owned();
        if word != last && !server.json {
            println!("{run}: {word}");
        }
        if found["ended_at"].is_string() {
            show(server, &found, |found| {
                if word != "succeeded" {
                    one_run(found);
                }
            })?;
            let status = match word.as_str() {
                "succeeded" => return Ok(()),
                "cancelled" | "timed_out" => 3,
                _ => 5,
            };
            let message = format!("{run} ended {word}");
            return Err(Exit { status, message }.into());
        }
        last = word;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
