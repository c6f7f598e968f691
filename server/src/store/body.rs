//! Bodies of webhook calls, compressed: forges send 6 to 25 kB of JSON each, mostly addresses, of which a fifth is left.
//! What the one writer has to bring to the disk is what limits how many calls a second are taken.

use super::codec::Row;
use super::{Result, StoreError};
use std::cell::RefCell;
use zstd::bulk::Compressor;

/// Zstandard's quickest usual one: the difference to higher ones is small on what is short.
const LEVEL: i32 = 1;
/// What takes longer than a few hundred microseconds is not done on a thread that answers others, in bytes.
const LONG: usize = 256 << 10;

thread_local! {
    /// A compressor's tables outweigh what it compresses here.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn pack_here(body: &str) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let mut compressor = match kept.take() {
            Some(compressor) => compressor,
            None => Compressor::new(LEVEL)?,
        };
        let packed = compressor.compress(body.as_bytes())?;
        *kept = Some(compressor);
        Ok(packed)
    })
}

/// Compresses a body.
///
/// # Errors
/// [`StoreError::Unavailable`] without memory.
pub(super) async fn pack(body: String) -> Result<Vec<u8>> {
    let packed = if body.len() < LONG {
        pack_here(&body)
    } else {
        tokio::task::spawn_blocking(move || zstd::bulk::compress(body.as_bytes(), LEVEL))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    };
    packed.map_err(|error| StoreError::unavailable(format!("a body was not compressed: {error}")))
}

/// What [`pack`] was given.
///
/// # Errors
/// [`StoreError::Data`] when it is something else.
pub(super) fn unpack(row: &Row<'_>, packed: &[u8]) -> Result<String> {
    let unreadable = |error: String| row.broken(format!("packed_body: {error}"));
    let bytes = zstd::stream::decode_all(packed).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))
}
