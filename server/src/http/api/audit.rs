//! The audit trail as JSON Lines: every chain's entries in their order, each chain's head behind them
//! (see [`crate::audit`]).

use super::super::App;
use super::super::auth::{Admin, Allowed};
use super::super::error::HttpError;
use crate::audit::Chain;
use crate::store::{Result, Store};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use std::collections::VecDeque;

/// Entries that are read at a time, and held in memory for one reader.
const PIECE: u32 = 500;

/// Every route of this file.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.route("/audit/export", web::get().to(export));
}

/// What is still to be sent.
struct Export {
    store: Store,
    chains: VecDeque<Chain>,
    /// Sequence number behind which the first chain goes on.
    after: i64,
}

impl Export {
    /// The next lines; none when all were sent.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let Some(chain) = self.chains.front() else {
            return Ok(None);
        };
        let page = self.store.audit_page(chain, self.after, PIECE).await?;
        let mut lines = vec![];
        for entry in &page.entries {
            write(&mut lines, entry);
        }
        if page.whole {
            write(&mut lines, &page.head);
            self.chains.pop_front();
            self.after = 0;
        } else {
            self.after = page.last;
        }
        Ok(Some(lines.into()))
    }
}

fn write(lines: &mut Vec<u8>, line: &impl Serialize) {
    // Strings, numbers and values read from JSON: there is nothing that could not be written. If there
    // were, the verification would miss the line.
    if serde_json::to_writer(&mut *lines, line).is_ok() {
        lines.push(b'\n');
    }
}

/// All of it. When the database fails on the way the answer breaks off, without the last heads.
async fn export(app: web::Data<App>, _: Allowed<Admin>) -> Result<HttpResponse, HttpError> {
    let export = Export {
        chains: app.store.audit_chains().await?.into(),
        store: app.store.clone(),
        after: 0,
    };
    let pieces = stream::try_unfold(export, |mut export| async move {
        match export.piece().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, export))),
            Err(error) => {
                tracing::error!("an export of the audit trail broke off: {error}");
                Err(error)
            }
        }
    });
    Ok(HttpResponse::Ok()
        .content_type("application/jsonl")
        .streaming(pieces))
}
