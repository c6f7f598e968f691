//! What a process holds in memory, as the kernel counts it.

use anyhow::{Context, bail};
use serde::Serialize;
use std::fs;

/// In bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Resident {
    /// `VmRSS`: everything.
    pub(crate) all: u64,
    /// `RssAnon`: what belongs to the process alone; the rest is files that it maps, its binary above
    /// all, which processes share.
    pub(crate) own: u64,
}

/// The memory of the process `pid`, which must run.
pub(crate) fn resident(pid: u32) -> anyhow::Result<Resident> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kibibytes = |key: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        let Some(number) = number else {
            bail!("{path} has no {key}");
        };
        Ok(number.parse::<u64>()? * 1024)
    };
    Ok(Resident {
        all: kibibytes("VmRSS:")?,
        own: kibibytes("RssAnon:")?,
    })
}
