//! `check`: finds what is wrong before anything starts.

use crate::Exit;
use roadstead_server::config::Config;
use std::path::Path;

/// Checks the server's configuration, then what it names: the data folder, the database, each
/// project's repository, and AWS.
pub(crate) async fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    println!("{}: ok", file.display());
    let mut failed = false;
    for finding in roadstead_server::check(&config).await {
        let mark = if finding.ok { "ok    " } else { "FAILED" };
        failed |= !finding.ok;
        println!("  {mark}  {}: {}", finding.what, finding.detail);
    }
    if failed {
        return Err(Exit {
            status: 1,
            message: "not everything answers (see above)".into(),
        }
        .into());
    }
    Ok(())
}
