//! Keeps a runner from new work, or lets it take work again.

use super::{client, show, text};
use crate::client::ServerArgs;
use clap::Args;
use serde_json::json;

#[derive(Args)]
pub(crate) struct DrainRunnerArgs {
    /// The runner's name.
    name: String,
    /// Let it take work again.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn drain_runner(args: DrainRunnerArgs) -> anyhow::Result<()> {
    let verb = if args.resume { "resume" } else { "drain" };
    let name = roadstead_web::urls::encode(&args.name);
    let done = client(&args.server)?
        .post(&format!("/runners/{name}/{verb}"), &json!({}))
        .await?;
    show(&args.server, &done, |runner| {
        let running = runner["running"].as_array().into_iter().flatten();
        let running: Vec<_> = running.map(text).collect();
        let name = &args.name;
        if args.resume {
            println!("{name}: takes work again");
        } else if running.is_empty() {
            println!("{name}: drained, it has nothing to do");
        } else {
            println!("{name}: draining, it finishes {}", running.join(", "));
        }
    })
}
