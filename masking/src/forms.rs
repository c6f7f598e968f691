//! What a secret may look like in a log.

use super::SHORTEST;
use base64::{Engine as _, prelude::*};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use zeroize::Zeroize;

/// Shorter lines of a secret, such as `}`, are in every log.
const SHORTEST_LINE: usize = 8;
/// Where `base64`, PEM files and `xxd -p` break lines, in characters.
const BASE64_WIDTHS: [usize; 2] = [76, 64];
const HEX_WIDTH: usize = 60;
/// What base64 that breaks anywhere may take, in bytes of forms, of which each place of a break is one: about
/// forty tokens of 40 bytes. Each byte is about thirty in the automaton.
const MOST_WRAPPED: usize = 256 << 10;

/// Forms of secrets; wiped when they are dropped.
#[derive(Default)]
pub(crate) struct Forms {
    all: BTreeSet<Vec<u8>>,
    /// Bytes of those that break anywhere.
    wrapped: usize,
}

/// The same, as a list to search for.
pub(crate) struct List(Vec<Vec<u8>>);

impl std::ops::Deref for List {
    type Target = [Vec<u8>];

    fn deref(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = &'a Vec<u8>;
    type IntoIter = std::slice::Iter<'a, Vec<u8>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Forms {
    /// Adds every form of `secret`. Blanks around it are not of it: they are lost on the way.
    pub(crate) fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return;
        }
        self.take(secret.into());
        let lines = secret.lines().map(str::trim);
        for line in lines.filter(|line| line.len() >= SHORTEST_LINE) {
            self.take(line.into());
        }
        for ascii in [false, true] {
            for html in [false, true] {
                for large in [false, true] {
                    let escaped = json(secret, ascii, html, large);
                    self.take(escaped.replace('/', "\\/"));
                    self.take(escaped);
                }
            }
        }
        for kept in ["-._~", "-._~!'()*", "*-._"] {
            for large in [true, false] {
                let escaped = url(secret, kept, large);
                self.take(escaped.replace("%20", "+"));
                self.take(escaped);
            }
        }
        for quotes in [
            ["\"", "'"],
            ["&quot;", "'"],
            ["&quot;", "&apos;"],
            ["&quot;", "&#39;"],
            ["&quot;", "&#x27;"],
            ["&#34;", "&#39;"],
        ] {
            self.take(xml(secret, quotes));
        }
        self.take(secret.replace('\'', "'\\''"));
        self.take(secret.replace('\'', "'\"'\"'"));
        let digits = hex::encode(secret);
        self.take(wrapped(&digits, HEX_WIDTH, 0));
        self.take(digits);
        self.take(hex::encode_upper(secret));
        self.base64(secret);
    }

    /// Base64 of a text in which the secret stands after 0, 1 or 2 bytes (or any more threes of them):
    /// only the characters that nothing around the secret takes part in.
    fn base64(&mut self, secret: &str) {
        for before in 0..3 {
            let text = [&b"xx"[..before], secret.as_bytes()].concat();
            // The first characters hold bits of what comes before, the last one of what comes after.
            let first = (before * 8).div_ceil(6);
            let end = text.len() * 8 / 6;
            let standard = BASE64_STANDARD_NO_PAD.encode(&text);
            let alone = &standard[first..end];
            self.take(alone.into());
            self.take(alone.replace('+', "-").replace('/', "_"));
            for width in BASE64_WIDTHS {
                // Where the first character stands in its line: all of four stand in one.
                for column in (first..width).step_by(4) {
                    if column == 0 {
                        let wrapped = wrapped(alone, width, 0);
                        let lines = wrapped.lines().filter(|line| line.len() == width);
                        lines.for_each(|line| self.take(line.into()));
                        self.take(wrapped);
                    } else if self.wrapped + alone.len() <= MOST_WRAPPED {
                        self.wrapped += alone.len();
                        self.take(wrapped(alone, width, column));
                    }
                }
            }
        }
    }

    fn take(&mut self, form: String) {
        if form.len() >= SHORTEST {
            self.all.insert(form.into_bytes());
        }
    }

    pub(crate) fn into_set(self) -> List {
        List(self.all.into_iter().collect())
    }
}

/// Lines of `width` characters; the first one begins at `column`.
fn wrapped(text: &str, width: usize, column: usize) -> String {
    let mut lines = String::with_capacity(text.len() + text.len() / width);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && (column + index).is_multiple_of(width) {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines
}

/// As it stands within a JSON text: all but ASCII escaped, or not; `<`, `>` and `&` escaped, or not; with
/// large or small digits.
fn json(text: &str, ascii: bool, html: bool, large: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            other if other < ' ' || ascii && !other.is_ascii() || html && "<>&".contains(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing into a String does not fail.
                    let _ = match large {
                        true => write!(out, "\\u{unit:04X}"),
                        false => write!(out, "\\u{unit:04x}"),
                    };
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// Percent-encoded, but for letters, digits and `kept`, with large or small digits.
fn url(text: &str, kept: &str, large: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            out.push(char::from(byte));
            continue;
        }
        // Writing into a String does not fail.
        let _ = match large {
            true => write!(out, "%{byte:02X}"),
            false => write!(out, "%{byte:02x}"),
        };
    }
    out
}

fn xml(text: &str, [double, single]: [&str; 2]) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', double)
        .replace('\'', single)
}
