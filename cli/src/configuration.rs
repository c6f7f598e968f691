//! `validate` and `check`: find what is wrong before anything starts.

use crate::Exit;
use anyhow::Context;
use roadstead_server::config::Config;
use std::path::Path;

/// Checks a pipeline file and prints its plan in a few lines.
pub(crate) fn validate(file: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let pipeline = roadstead_pipelines::spec::parse(&file.display().to_string(), &text).map_err(
        |diagnostics| Exit {
            status: 1,
            message: format!("the file has errors\n{diagnostics}"),
        },
    )?;
    println!("{}: ok", file.display());
    println!("  project       {}", pipeline.name);
    let join = |names: Vec<String>, by: &str| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(by)
        }
    };
    println!(
        "  images        {}",
        join(
            pipeline.images.keys().map(ToString::to_string).collect(),
            ", "
        )
    );
    println!(
        "  steps         {}",
        join(
            pipeline.steps.keys().map(ToString::to_string).collect(),
            ", "
        )
    );
    println!(
        "  services      {}",
        join(
            pipeline.services.keys().map(ToString::to_string).collect(),
            ", "
        )
    );
    println!(
        "  environments  {}",
        join(
            pipeline
                .environments
                .keys()
                .map(ToString::to_string)
                .collect(),
            " → "
        )
    );
    Ok(())
}

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
