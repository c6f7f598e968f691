//! The time of a file in a build context, which its content picks.
//!
//! BuildKit keeps the files of the last build and asks only for those whose size, mode or time is another
//! one. A fresh checkout has fresh times, which would send everything again; one time for all would miss a
//! change that leaves the size alone. So a file's time is a moment of [`DAY`] that follows from its
//! content: the same content has the same time in every attempt, and another content another one, but for
//! one pair in 8·10¹³.
//!
//! Layers hold whole seconds. These follow from the content alone, so that every runner makes the same
//! layers. The rest of the moment is also the runner's own: whoever may have builds run here cannot look
//! for a content that passes for another one without asking this runner a thousand million times.

use sha2::{Digest, Sha256};

/// 1980-01-01, the earliest day that zip files can hold, in seconds since 1970.
pub(super) const DAY: i64 = 315_532_800;
const SECONDS_PER_DAY: u64 = 86_400;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What identifies a content.
pub(super) type ContentDigest = [u8; 32];

/// The moments that one runner gives to contents.
#[derive(Clone)]
pub(crate) struct Moments {
    keyed: Sha256,
}

impl Moments {
    /// Those of the runner that alone knows `key`.
    pub(crate) fn new(key: &str) -> Self {
        Self {
            keyed: Sha256::new_with_prefix(Sha256::digest(key)),
        }
    }

    /// The time of a file with this content, in nanoseconds since 1970.
    pub(super) fn of(&self, content: &ContentDigest) -> i64 {
        let keyed: ContentDigest = self.keyed.clone().chain_update(content).finalize().into();
        let second = DAY + (number(content) % SECONDS_PER_DAY) as i64;
        second * NANOS_PER_SECOND as i64 + (number(&keyed) % NANOS_PER_SECOND) as i64
    }

    /// The time of what has no content: folders and links.
    pub(super) fn of_nothing() -> i64 {
        DAY * NANOS_PER_SECOND as i64
    }
}

fn number(digest: &ContentDigest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> ContentDigest {
        Sha256::digest(text).into()
    }

    #[test]
    fn a_moment_follows_from_the_content_and_lies_on_that_day() {
        let moments = Moments::new("key");
        let second = 1_000_000_000;
        let mut seen = std::collections::HashSet::new();
        for number in 0..10_000 {
            let moment = moments.of(&content(&number.to_string()));
            assert_eq!(moment, moments.of(&content(&number.to_string())));
            assert!((DAY * second..(DAY + 86_400) * second).contains(&moment));
            assert!(seen.insert(moment), "{number}");
        }
    }

    #[test]
    fn runners_agree_on_the_second_alone() {
        let (one, other) = (Moments::new("one"), Moments::new("other"));
        let (one, other) = (one.of(&content("x")), other.of(&content("x")));
        assert_ne!(one, other);
        assert_eq!(one / 1_000_000_000, other / 1_000_000_000);
    }
}
