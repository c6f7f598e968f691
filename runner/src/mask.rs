//! Masks secrets in bytes that leave the runner, even when a secret is cut in two by a chunk's end.
//!
//! Owns the search; knows neither logs nor registries. Invariant: what was pushed comes out in
//! order and unchanged but for secrets, each of which becomes `***`.

use std::fmt;

/// What stands in a log where a secret stood.
const MASK: &[u8] = b"***";

/// Shorter secrets are not masked: they would tear holes into every log without hiding anything.
const SHORTEST_SECRET: usize = 6;

/// A text that must never be shown; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

/// Replaces secrets in a stream of bytes.
#[derive(Default)]
pub(crate) struct Masker {
    secrets: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Masker {
    /// Masks `secret` from now on.
    pub(crate) fn hide(&mut self, secret: &str) {
        let bytes = secret.as_bytes().to_vec();
        if bytes.len() >= SHORTEST_SECRET && !self.secrets.contains(&bytes) {
            self.secrets.push(bytes);
            // The longest first: a secret that begins like another is replaced as a whole.
            self.secrets
                .sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Takes `bytes` and gives what may be shown by now.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let (shown, used) = self.scan(false);
        self.held.drain(..used);
        shown
    }

    /// Gives what was held back at the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let (shown, _) = self.scan(true);
        self.held.clear();
        shown
    }

    /// Everything that can be decided, and how many held bytes that covers.
    fn scan(&self, at_end: bool) -> (Vec<u8>, usize) {
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            if let Some(secret) = self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                shown.extend_from_slice(MASK);
                at += secret.len();
            } else if !at_end && self.secrets.iter().any(|secret| secret.starts_with(rest)) {
                break;
            } else {
                shown.push(self.held[at]);
                at += 1;
            }
        }
        (shown, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], chunks: &[&str]) -> String {
        let mut masker = Masker::default();
        for secret in secrets {
            masker.hide(secret);
        }
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend(masker.push(chunk.as_bytes()));
        }
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_chunks_are_cut() {
        let text = "login with hunter2-hunter2 done";
        for cut in 0..text.len() {
            assert_eq!(
                masked(&["hunter2-hunter2"], &[&text[..cut], &text[cut..]]),
                "login with *** done",
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_only_begins_like_a_secret_comes_out_at_the_end() {
        assert_eq!(
            masked(&["hunter2-x"], &["say hunter2", "-"]),
            "say hunter2-"
        );
    }

    #[test]
    fn the_longer_of_two_secrets_wins() {
        assert_eq!(
            masked(&["secret", "secret-long"], &["a secret-long b"]),
            "a *** b"
        );
    }

    #[test]
    fn short_words_are_left_alone() {
        assert_eq!(masked(&["a", ""], &["a cat"]), "a cat");
    }

    #[test]
    fn debug_tells_nothing() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter"));
    }

    proptest::proptest! {
        /// Cutting the stream elsewhere never changes what comes out.
        #[test]
        fn chunks_make_no_difference(
            pieces in proptest::collection::vec("(secret-one|secret|one|s|[a-c]){0,4}", 0..8),
        ) {
            let secrets = ["secret-one", "secret"];
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let expected = whole.replace("secret-one", "***").replace("secret", "***");
            proptest::prop_assert_eq!(&masked(&secrets, &pieces), &expected);
            proptest::prop_assert_eq!(&masked(&secrets, &[&whole]), &expected);
        }
    }
}
