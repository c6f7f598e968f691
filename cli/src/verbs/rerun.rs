//! `rerun`: jobs of a run that ended badly, again.

use super::start::wait_for;
use super::{client, show, text};
use crate::client::ServerArgs;
use clap::Args;
use serde_json::json;

#[derive(Args)]
pub(crate) struct RerunArgs {
    /// The run's id.
    run: String,
    /// A job of it [default: all that did not end well].
    #[arg(long = "job", value_name = "NAME")]
    jobs: Vec<String>,
    /// Wait for the run's end; status 5 unless it succeeded.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn rerun(args: RerunArgs) -> anyhow::Result<()> {
    let client = client(&args.server)?;
    let path = format!("/runs/{}", args.run);
    let found = client.get(&path).await?;
    // Whoever asks at the same time has seen the same number, and one of both does it.
    let seen = found["attempts"].as_array().into_iter().flatten();
    let seen = seen.filter_map(|attempt| attempt["number"].as_u64()).max();
    let after = seen.filter(|_| found["ended_at"].is_string());
    let body = json!({ "jobs": args.jobs, "after": after });
    let done = client.post(&format!("{path}/rerun"), &body).await?;
    if args.wait {
        return wait_for(&client, &args.server, &args.run).await;
    }
    show(&args.server, &done, |done| {
        let jobs = done["jobs"].as_array().into_iter().flatten();
        let jobs: Vec<_> = jobs.map(text).collect();
        match jobs.as_slice() {
            [] => println!("{}: back at work already", args.run),
            jobs => println!("{}: back to work: {}", args.run, jobs.join(", ")),
        }
    })
}
