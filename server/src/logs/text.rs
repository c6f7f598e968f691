//! What is done with the bytes of a log wherever they lie: lines are found, secrets are blotted.

use super::{Lines, MOST_LINES};
use bytes::Bytes;
use roadstead_masking::Patterns;
use zeroize::Zeroizing;

/// At most `count` lines from line `from` on, of bytes that begin with line `line`.
pub(super) fn lines_of(bytes: &[u8], mut line: u64, from: u64, count: usize) -> Lines {
    let wanted = count.min(MOST_LINES);
    let mut lines = vec![];
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line >= from {
            lines.push(text.strip_suffix(b"\n").unwrap_or(text).to_vec());
        }
        line += 1;
        if lines.len() == wanted {
            break;
        }
    }
    Lines { first: from, lines }
}

/// What blotting makes of bytes that follow on others.
pub(super) struct Blotted {
    /// What is to be stored in their place.
    pub(super) new: Bytes,
    /// What is to be stored in the place of earlier ones, each with its offset. It may be there already.
    pub(super) earlier: Vec<(u64, Vec<u8>)>,
    /// The last bytes as they were sent: what follows may make more of them a secret.
    pub(super) sent: Zeroizing<Vec<u8>>,
}

/// How many bytes before those that arrive at `length` have to be known.
pub(super) fn window(patterns: &Patterns, length: u64) -> u64 {
    length.min(patterns.longest() as u64 - 1)
}

/// Finds secrets in `bytes` and where they end in them; `before` are those that stand before them, as many as
/// [`window`] says, and `length` of all that do. `None` when there is no secret.
pub(super) fn blot(
    patterns: &Patterns,
    length: u64,
    before: &[u8],
    bytes: &[u8],
) -> Option<Blotted> {
    let mut text = Zeroizing::new(Vec::with_capacity(before.len() + bytes.len()));
    text.extend_from_slice(before);
    text.extend_from_slice(bytes);
    let sent = text.clone();
    let spans = patterns.blot(&mut text);
    if spans.is_empty() {
        return None;
    }
    let last = sent.len().saturating_sub(patterns.longest() - 1);
    let new = text.split_off(before.len());
    // Only what is blotted now: beside it may be what is blotted there, and not here, because its
    // beginning is too far away to be seen.
    let earlier = spans.iter().filter(|span| span.start < text.len());
    let earlier = earlier.map(|span| {
        let offset = length - before.len() as u64 + span.start as u64;
        let changed = &text[span.start..span.end.min(text.len())];
        (offset, changed.to_vec())
    });
    Some(Blotted {
        new: new.into(),
        earlier: earlier.collect(),
        sent: Zeroizing::new(sent[last..].to_vec()),
    })
}
