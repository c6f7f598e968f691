//! `roadstead approve-run`: lets untrusted code run.

use super::{client, show};
use crate::client::ServerArgs;
use clap::Args;
use serde_json::json;

#[derive(Args)]
pub(crate) struct ApproveRunArgs {
    /// The run's id (`shop.12`).
    run: String,
    /// The commit that you have looked at, all 40 digits; it is for this one alone.
    commit: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn approve_run(args: ApproveRunArgs) -> anyhow::Result<()> {
    let ApproveRunArgs {
        run,
        commit,
        server,
    } = args;
    let path = format!("/runs/{run}/approve");
    let done = client(&server)?
        .post(&path, &json!({ "commit": commit }))
        .await?;
    show(&server, &done, |_| println!("{run}: may run"))
}
