//! Keeps secrets out of streams of bytes, in the encodings that happen by accident.
//!
//! Owns what a secret may look like ([`forms`]), the search for all of it at once ([`Patterns`]) and the
//! stream ([`Masker`]). Pure; knows neither logs nor who has secrets. Invariants: whatever is covered by
//! an occurrence of a form is masked, also where two of them overlap; how a stream is cut into pieces
//! changes nothing; everything else comes out in order and as it was. It guards against accidents:
//! whoever wants to show a secret can encode it in a way that nobody knows.

mod forms;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::{contiguous, noncontiguous};
use std::ops::Range;
use zeroize::Zeroizing;

/// What stands in a stream where a secret stood.
pub const MASK: &[u8] = b"***";
/// Shorter texts are not masked: they would tear holes into every log without hiding anything.
pub const SHORTEST: usize = 6;

/// Most bytes of secrets that are searched for at once: their forms are many times as much, in memory.
pub const MOST_BYTES: usize = 128 << 10;

/// Secrets cannot be kept out of a stream, because they are too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = MOST_BYTES >> 10;
        write!(
            f,
            "the secrets are more than the {most} KiB that can be kept out of logs: name fewer or smaller ones"
        )
    }
}

impl std::error::Error for TooMuch {}

/// Every form of some secrets, ready to be searched for.
pub struct Patterns {
    automaton: contiguous::NFA,
    start: StateID,
    /// How many bytes of a form each state has seen, by state.
    depths: Vec<(StateID, usize)>,
    longest: usize,
}

impl Patterns {
    /// The forms of `secrets`; those below [`SHORTEST`] bytes have none. `None` when nothing is left.
    ///
    /// # Errors
    /// [`TooMuch`], before memory is taken for it.
    pub fn of<S: AsRef<str>>(
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<Option<Self>, TooMuch> {
        let mut all = forms::Forms::default();
        let mut bytes = 0;
        for secret in secrets {
            bytes += secret.as_ref().len();
            if bytes > MOST_BYTES {
                return Err(TooMuch);
            }
            all.add(secret.as_ref());
        }
        let all = all.into_set();
        let Some(longest) = all.iter().map(|form| form.len()).max() else {
            return Ok(None);
        };
        let nfa = noncontiguous::Builder::new().build(&*all);
        let automaton = contiguous::Builder::new()
            .dense_depth(3)
            .build_from_noncontiguous(&nfa.map_err(|_| TooMuch)?)
            .map_err(|_| TooMuch)?;
        let start = automaton.start_state(Anchored::No).map_err(|_| TooMuch)?;
        let mut depths = vec![];
        for form in &all {
            let mut state = start;
            for (index, byte) in form.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, *byte);
                depths.push((state, index + 1));
            }
        }
        depths.sort_unstable();
        depths.dedup();
        Ok(Some(Self {
            automaton,
            start,
            depths,
            longest,
        }))
    }

    /// Bytes of the longest form.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Replaces each byte of a secret by `*`, but for line feeds, so that neither the length nor the lines
    /// change. Gives where, in order.
    pub fn blot(&self, bytes: &mut [u8]) -> Vec<Range<usize>> {
        let mut spans = vec![];
        self.scan(self.start, bytes, 0, &mut spans);
        for span in &spans {
            for byte in &mut bytes[span.clone()] {
                if *byte != b'\n' {
                    *byte = b'*';
                }
            }
        }
        spans
    }

    /// Reads `bytes` from `from` on and adds what is covered to `spans`, which are in order and do not
    /// touch; gives the state at the end.
    fn scan(
        &self,
        mut state: StateID,
        bytes: &[u8],
        from: usize,
        spans: &mut Vec<Range<usize>>,
    ) -> StateID {
        for (index, byte) in bytes.iter().enumerate().skip(from) {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            if self.automaton.is_special(state) && self.automaton.is_match(state) {
                let ends = (0..self.automaton.match_len(state))
                    .map(|index| self.automaton.match_pattern(state, index));
                let longest = ends.map(|form| self.automaton.pattern_len(form)).max();
                let mut end = index + 1;
                let mut start = end - longest.unwrap_or_default().min(end);
                while let Some(last) = spans.pop_if(|last| last.end >= start) {
                    start = start.min(last.start);
                    end = end.max(last.end);
                }
                spans.push(start..end);
            }
        }
        state
    }

    fn depth(&self, state: StateID) -> usize {
        let found = self
            .depths
            .binary_search_by_key(&state, |(state, _)| *state);
        found.map_or(0, |at| self.depths[at].1)
    }
}

/// Replaces secrets in a stream of bytes by [`MASK`].
#[derive(Default)]
pub struct Masker {
    secrets: Vec<Zeroizing<String>>,
    patterns: Option<Patterns>,
    state: Option<StateID>,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    /// How many held bytes the state has seen.
    seen: usize,
    /// What is covered of the held bytes.
    spans: Vec<Range<usize>>,
    /// The mask of the first span, which begins the held bytes, has come out already.
    told: bool,
}

impl Masker {
    /// Masks `secrets`, too, from now on.
    ///
    /// # Errors
    /// [`TooMuch`]: the new ones are not masked then.
    pub fn hide<S: AsRef<str>>(
        &mut self,
        secrets: impl IntoIterator<Item = S>,
    ) -> Result<(), TooMuch> {
        let before = self.secrets.len();
        for secret in secrets {
            let secret = secret.as_ref();
            if !self.secrets.iter().any(|known| known.as_str() == secret) {
                self.secrets.push(Zeroizing::new(secret.to_owned()));
            }
        }
        if self.secrets.len() > before {
            match Patterns::of(self.secrets.iter().map(|secret| secret.as_str())) {
                Ok(patterns) => self.patterns = patterns,
                Err(error) => {
                    self.secrets.truncate(before);
                    return Err(error);
                }
            }
            // What is held is looked at anew: it may be the beginning of a new one.
            self.state = None;
            self.seen = 0;
        }
        Ok(())
    }

    /// Takes `bytes` and gives what may be shown by now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(patterns) = &self.patterns else {
            return bytes.to_vec();
        };
        self.held.extend_from_slice(bytes);
        let state = self.state.unwrap_or(patterns.start);
        let state = patterns.scan(state, &self.held, self.seen, &mut self.spans);
        // The longest form that may be under way begins here, and any other one later.
        let decided = self.held.len() - patterns.depth(state);
        self.state = Some(state);
        self.seen = self.held.len() - decided;
        self.show(decided)
    }

    /// Gives what was held back at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = self.show(self.held.len());
        self.state = None;
        self.seen = 0;
        self.spans.clear();
        self.told = false;
        rest
    }

    /// Takes the first `decided` bytes out of those that are held.
    fn show(&mut self, decided: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(decided);
        let mut at = 0;
        let mut told = std::mem::take(&mut self.told);
        for span in std::mem::take(&mut self.spans) {
            let told = std::mem::take(&mut told);
            if !told && span.start >= decided {
                self.spans.push(span.start - decided..span.end - decided);
                continue;
            }
            shown.extend_from_slice(&self.held[at..span.start]);
            if !told {
                shown.extend_from_slice(MASK);
            }
            at = span.end.min(decided);
            if span.end >= decided {
                self.spans.push(0..span.end - decided);
                self.told = true;
            }
        }
        shown.extend_from_slice(&self.held[at..decided]);
        self.held.drain(..decided);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, prelude::*};
    use proptest::prelude::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut masker = Masker::default();
        masker.hide(secrets).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(masker.push(piece));
        }
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    /// The text cut in two at every place.
    fn cut_everywhere(secrets: &[&str], text: &str, expected: &str) {
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            let found = masked(secrets, &[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(found, expected, "{text} cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(masked(secrets, &single), expected, "{text} byte by byte");
    }

    #[test]
    fn a_secret_is_hidden_wherever_the_pieces_are_cut() {
        let secret = &["hunter2-hunter2"];
        cut_everywhere(
            secret,
            "login with hunter2-hunter2 done",
            "login with *** done",
        );
        cut_everywhere(secret, "say hunter2-hunter", "say hunter2-hunter");
        cut_everywhere(secret, "hunter2-hunter2-hunter2", "***");
        cut_everywhere(secret, "hunter2-hunter2hunter2-hunter2!", "***!");
    }

    #[test]
    fn of_two_that_overlap_both_are_hidden() {
        let secrets = &["secret", "secret-long", "long-tail"];
        cut_everywhere(secrets, "a secret-long-tail b secret-lo", "a *** b ***-lo");
        cut_everywhere(&["abcabcabd", "bcabca"], "xabcabcaby", "xa***by");
        cut_everywhere(&["abcabcabd", "bcabca"], "xabcabcabdy", "x***y");
    }

    #[test]
    fn short_words_are_left_alone() {
        assert_eq!(
            masked(&["a", "", "12345"], &[b"a cat 12345"]),
            "a cat 12345"
        );
        assert!(Patterns::of(["short"]).unwrap().is_none());
    }

    #[test]
    fn what_is_too_much_is_refused_and_not_shown_as_masked() {
        let large = "x".repeat(MOST_BYTES);
        let mut masker = Masker::default();
        masker.hide(["first-secret"]).unwrap();
        assert_eq!(masker.hide([large.as_str()]), Err(TooMuch));
        let mut out = masker.push(b"first-secret");
        out.extend(masker.finish());
        assert_eq!(out, MASK);
    }

    #[test]
    fn a_secret_that_is_told_later_is_hidden_from_then_on() {
        let mut masker = Masker::default();
        masker.hide(["first-secret"]).unwrap();
        let mut out = masker.push(b"second-secret first-sec");
        masker.hide(["second-secret"]).unwrap();
        out.extend(masker.push(b"ret second-secret"));
        out.extend(masker.finish());
        assert_eq!(out, b"second-secret *** ***");
    }

    #[test]
    fn a_blot_keeps_length_and_lines() {
        let patterns = Patterns::of(["first line\nsecond line", "top-secret"])
            .unwrap()
            .unwrap();
        let mut text = *b"say first line\nsecond line, TOP-SECRET top-secret.";
        assert_eq!(patterns.blot(&mut text), [4..26, 39..49]);
        assert_eq!(
            &text,
            b"say **********\n***********, TOP-SECRET **********."
        );
        assert!(patterns.blot(&mut text).is_empty());
    }

    /// What people and programs make of a text on its way into a log.
    fn encodings(text: &str, prefix: usize) -> Vec<(&'static str, String)> {
        let bytes = text.as_bytes();
        let mut found = vec![
            ("raw", text.to_owned()),
            (
                "json",
                text.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n"),
            ),
            ("hex", hex::encode(bytes)),
            ("HEX", hex::encode_upper(bytes)),
            (
                "url",
                bytes
                    .iter()
                    .map(|byte| match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                            char::from(*byte).to_string()
                        }
                        _ => format!("%{byte:02X}"),
                    })
                    .collect(),
            ),
            (
                "xml",
                text.replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('>', "&gt;")
                    .replace('"', "&quot;")
                    .replace('\'', "&#39;"),
            ),
            ("shell", text.replace('\'', "'\\''")),
        ];
        found.push(("PHP's json", found[1].1.replace('/', "\\/")));
        let large = found[1].1.replace('<', "\\u003C").replace('>', "\\u003E");
        found.push(("json with large digits", large.replace('&', "\\u0026")));
        for width in [76, 64] {
            let whole = BASE64_STANDARD.encode(format!("{}{text}", "p".repeat(prefix)));
            let lines: Vec<_> = whole.as_bytes().chunks(width).collect();
            let wrapped = String::from_utf8(lines.join(&b'\n')).unwrap();
            found.push(("base64 behind a prefix", wrapped));
        }
        for before in ["", "x", "xy"] {
            for after in ["", "\n", ": and more"] {
                let whole = format!("{before}{text}{after}");
                found.push(("base64", BASE64_STANDARD.encode(&whole)));
                found.push(("base64url", BASE64_URL_SAFE_NO_PAD.encode(&whole)));
            }
        }
        found
    }

    /// Most characters of base64 that stay: those of what stands around the secret, and those in which its
    /// bytes are mixed with it.
    const EDGES: usize = 20;

    proptest! {
        // Each case makes all forms of a secret ready some fifty times.
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Every encoding × every split × more than one line.
        #[test]
        fn no_encoding_shows_a_secret_however_it_is_cut(
            secret in "[ -~\\n]{8,80}",
            cuts in proptest::collection::vec(0_usize..400, 0..6),
            prefix in 0_usize..120,
        ) {
            prop_assume!(secret.trim().len() >= 8);
            let secret = secret.trim();
            for (name, encoded) in encodings(secret, prefix) {
                let text = format!("<<<{encoded}>>>");
                let bytes = text.as_bytes();
                let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
                cuts.extend([0, bytes.len()]);
                cuts.sort_unstable();
                let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
                let whole = masked(&[secret], &[bytes]);
                prop_assert_eq!(&masked(&[secret], &pieces), &whole, "{}", name);
                prop_assert!(whole.contains("***"), "{} {} {}", name, encoded, whole);
                let left = whole.replace("***", "");
                let around = match name {
                    "base64 behind a prefix" => EDGES + prefix * 4 / 3 + prefix / 48,
                    "base64" | "base64url" => EDGES,
                    _ => 0,
                };
                prop_assert!(left.len() <= 6 + around, "{}: {} of {}", name, whole, encoded);
            }
        }

        /// Cutting a stream elsewhere never changes what comes out, whatever overlaps.
        #[test]
        fn pieces_make_no_difference(
            pieces in proptest::collection::vec("(abcabc|bcabca|cabcab|abc|ab|c|x){0,4}", 0..8),
        ) {
            let secrets = ["abcabcab", "bcabca", "cabcabx", "xabcabcabc"];
            let whole = pieces.concat();
            let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let mut expected = whole.clone().into_bytes();
            Patterns::of(secrets).unwrap().unwrap().blot(&mut expected);
            // Runs of `*` become one mask.
            let mut runs = String::new();
            for byte in expected {
                if byte != b'*' {
                    runs.push(char::from(byte));
                } else if !runs.ends_with('*') {
                    runs.push_str("***");
                }
            }
            prop_assert_eq!(&masked(&secrets, &pieces), &runs);
            prop_assert_eq!(&masked(&secrets, &[whole.as_bytes()]), &runs);
        }
    }

    #[test]
    fn lines_of_a_secret_are_hidden_on_their_own() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n}\nhkiG9w0BAQEFAASC\n-----END KEY-----\n";
        assert_eq!(
            masked(
                &[key],
                &[b"1 MIIEvQIBADANBgkq\r\n2 }\n3 hkiG9w0BAQEFAASC\n"]
            ),
            "1 ***\r\n2 }\n3 ***\n"
        );
        let wrapped: Vec<String> = BASE64_STANDARD
            .encode(key)
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect();
        let shown = masked(&[key], &[wrapped.join("\n").as_bytes()]);
        assert!(shown.starts_with("***") && shown.len() <= 8, "{shown}");
    }
}
