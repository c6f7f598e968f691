//! The audit trail: taking a copy of it, and checking that nobody changed it.

use super::client;
use crate::Exit;
use crate::client::ServerArgs;
use anyhow::Context;
use clap::Subcommand;
use roadstead_server::audit::{Broken, Head, Line, Verifier};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum AuditVerb {
    /// Prints the whole trail as JSON Lines.
    Export {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Recomputes every hash, names the first entry that does not hold, and prints the heads to be
    /// kept elsewhere. Status 1 when something does not hold.
    Verify {
        /// An export; without it the server is asked for one.
        file: Option<PathBuf>,
        /// A head that an earlier verification printed, `project/shop=12:HASH`; may be repeated.
        #[arg(long = "head", value_name = "HEAD", value_parser = head)]
        heads: Vec<Head>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text).ok_or_else(|| {
        "expected `installation=LENGTH:HASH` or `project/NAME=LENGTH:HASH`".to_owned()
    })
}

pub(super) async fn audit(verb: AuditVerb) -> anyhow::Result<()> {
    match verb {
        AuditVerb::Export { server } => {
            let mut answer = client(&server)?.stream("/audit/export").await?;
            let mut out = std::io::stdout().lock();
            while let Some(piece) = answer.chunk().await.context(BROKE_OFF)? {
                out.write_all(&piece)?;
            }
            Ok(out.flush()?)
        }
        AuditVerb::Verify {
            file,
            heads,
            server,
        } => {
            let mut lines = Lines::new(heads);
            if let Some(file) = file {
                let named = || format!("cannot read {}", file.display());
                let opened = File::open(&file).with_context(named)?;
                for line in BufReader::new(opened).split(b'\n') {
                    lines.line(&line.with_context(named)?)?;
                }
            } else {
                let mut answer = client(&server)?.stream("/audit/export").await?;
                while let Some(piece) = answer.chunk().await.context(BROKE_OFF)? {
                    lines.piece(&piece)?;
                }
            }
            let (entries, heads) = lines.finish()?;
            if server.json {
                println!(
                    "{}",
                    serde_json::json!({"entries": entries, "heads": heads})
                );
                return Ok(());
            }
            println!("{entries} entries hold. Keep the heads where nobody who can write to the");
            println!("database can: `roadstead audit verify --head HEAD` compares with them.");
            for head in heads {
                println!("{head}");
            }
            Ok(())
        }
    }
}

const BROKE_OFF: &str = "the server's answer broke off";

/// Lines as they come, in pieces that end anywhere.
struct Lines {
    verifier: Verifier,
    number: u64,
    entries: u64,
    rest: Vec<u8>,
}

impl Lines {
    fn new(heads: Vec<Head>) -> Self {
        Self {
            verifier: Verifier::new(heads),
            number: 0,
            entries: 0,
            rest: vec![],
        }
    }

    fn piece(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.rest.extend_from_slice(piece);
        let whole = std::mem::take(&mut self.rest);
        let mut lines = whole.split(|byte| *byte == b'\n');
        self.rest = lines.next_back().unwrap_or_default().to_vec();
        lines.try_for_each(|line| self.line(line))
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.number += 1;
        if line.is_empty() {
            return Ok(());
        }
        let line = std::str::from_utf8(line)
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(Line::parse(text)?))
            .with_context(|| format!("line {} is no line of an export", self.number))?;
        let held = match &line {
            Line::Entry(entry) => {
                self.entries += 1;
                self.verifier.entry(entry)
            }
            Line::Head(head) => self.verifier.head(head),
        };
        held.map_err(|what| broken(&what))
    }

    fn finish(mut self) -> anyhow::Result<(u64, Vec<Head>)> {
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest)?;
        let heads = self.verifier.finish().map_err(|what| broken(&what))?;
        Ok((self.entries, heads))
    }
}

fn broken(what: &Broken) -> anyhow::Error {
    Exit {
        status: 1,
        message: format!("the audit trail does not hold: {what}"),
    }
    .into()
}
