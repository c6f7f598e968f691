//! Terminal text made safe: a line of a log in, escaped HTML out.
//!
//! What a step prints is hostile. Only colours and weights (SGR) survive, as classes from a
//! fixed set; every other sequence (cursor moves, titles, hyperlinks, device strings) is
//! swallowed, and every printed character is escaped. The result holds no attribute besides
//! `class`, its spans are balanced, and its text is what a terminal would leave on the line
//! after carriage returns. True colour is rounded to the 6 × 6 × 6 cube of the 256 palette,
//! so that no inline style is needed.

use std::fmt::Write as _;

use vte::{Params, Parser, Perform};

/// Characters of one line that are shown; the raw log has the rest.
const LINE_LIMIT: usize = 16_384;

/// Turns one line, with or without its line end, into HTML. Each line starts without colour.
/// Bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn to_html(line: impl AsRef<[u8]>) -> String {
    let bytes = line.as_ref();
    let mut painter = Painter::default();
    Parser::new().advance(&mut painter, bytes);
    painter.finish()
}

/// The style sheet of the colours that [`to_html`] uses above the first sixteen, which the
/// main style sheet names itself.
#[must_use]
pub fn style_sheet() -> String {
    let mut css = String::with_capacity(12_000);
    for index in 16..=255_u8 {
        let (red, green, blue) = palette(index);
        let _ = writeln!(css, ".f{index}{{color:#{red:02x}{green:02x}{blue:02x}}}");
        let _ = writeln!(
            css,
            ".b{index}{{background:#{red:02x}{green:02x}{blue:02x}}}"
        );
    }
    css
}

/// Red, green and blue of a palette entry from 16 on: the cube, then the greys.
fn palette(index: u8) -> (u8, u8, u8) {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    if index >= 232 {
        let grey = 8 + (index - 232) * 10;
        return (grey, grey, grey);
    }
    let cube = index.saturating_sub(16);
    let level = |part: u8| {
        LEVELS
            .get(usize::from(part % 6))
            .copied()
            .unwrap_or_default()
    };
    (level(cube / 36), level(cube / 6), level(cube))
}

/// The entry of the cube that is nearest to a true colour.
fn nearest(red: u16, green: u16, blue: u16) -> u8 {
    let level = |part: u16| -> u8 {
        match part {
            0..48 => 0,
            48..115 => 1,
            115..155 => 2,
            155..195 => 3,
            195..235 => 4,
            _ => 5,
        }
    };
    16 + 36 * level(red) + 6 * level(green) + level(blue)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    inverse: bool,
    struck: bool,
}

impl Style {
    fn classes(self) -> String {
        let mut classes = String::new();
        let mut push = |name: &str| {
            if !classes.is_empty() {
                classes.push(' ');
            }
            classes.push_str(name);
        };
        if let Some(index) = self.foreground {
            push(&format!("f{index}"));
        }
        if let Some(index) = self.background {
            push(&format!("b{index}"));
        }
        for (on, name) in [
            (self.bold, "bold"),
            (self.dim, "faint"),
            (self.italic, "it"),
            (self.underline, "ul"),
            (self.inverse, "inv"),
            (self.struck, "st"),
        ] {
            if on {
                push(name);
            }
        }
        classes
    }

    fn apply(&mut self, params: &Params) {
        let mut codes = params.iter();
        while let Some(code) = codes.next() {
            let Some(&first) = code.first() else { continue };
            match first {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                // `4:0` is "no underline".
                4 => self.underline = code.get(1) != Some(&0),
                7 => self.inverse = true,
                9 => self.struck = true,
                21 | 24 => self.underline = first == 21,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                27 => self.inverse = false,
                29 => self.struck = false,
                30..=37 => self.foreground = index(first - 30),
                40..=47 => self.background = index(first - 40),
                90..=97 => self.foreground = index(first - 90 + 8),
                100..=107 => self.background = index(first - 100 + 8),
                39 => self.foreground = None,
                49 => self.background = None,
                38 | 48 => {
                    let colour = if code.len() > 1 {
                        extended(&code[1..])
                    } else {
                        // The old form spreads the colour over parameters of their own.
                        let mut next = || codes.next().and_then(|code| code.first()).copied();
                        match next() {
                            Some(5) => next().and_then(index),
                            Some(2) => match (next(), next(), next()) {
                                (Some(red), Some(green), Some(blue)) => {
                                    Some(nearest(red, green, blue))
                                }
                                _ => None,
                            },
                            _ => None,
                        }
                    };
                    match (first, colour) {
                        (_, None) => {}
                        (38, colour) => self.foreground = colour,
                        (_, colour) => self.background = colour,
                    }
                }
                _ => {}
            }
        }
    }
}

/// The colour of the form with colons: `5:n`, `2:r:g:b` or `2:space:r:g:b`.
fn extended(code: &[u16]) -> Option<u8> {
    match code {
        [5, colour, ..] => index(*colour),
        [2, red, green, blue] | [2, _, red, green, blue, ..] => Some(nearest(*red, *green, *blue)),
        _ => None,
    }
}

fn index(code: u16) -> Option<u8> {
    u8::try_from(code).ok()
}

/// Builds the HTML of one line while the parser reads it.
#[derive(Debug, Default)]
struct Painter {
    html: String,
    style: Style,
    /// The style of the span that is open.
    open: Option<Style>,
    /// Characters printed so far.
    printed: usize,
    /// A carriage return was read; the next printed character starts the line anew.
    returned: bool,
}

impl Painter {
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.html.push_str("</span>");
        }
    }

    fn finish(mut self) -> String {
        self.close();
        if self.printed > LINE_LIMIT {
            self.html
                .push_str("<span class=\"cut\"> … line cut here; the raw log has all of it</span>");
        }
        self.html
    }

    fn put_character(&mut self, character: char) {
        if self.returned {
            self.html.clear();
            self.open = None;
            self.printed = 0;
            self.returned = false;
        }
        self.printed = self.printed.saturating_add(1);
        if self.printed > LINE_LIMIT {
            return;
        }
        if self.open.unwrap_or_default() != self.style {
            self.close();
            if self.style != Style::default() {
                let _ = write!(self.html, "<span class=\"{}\">", self.style.classes());
                self.open = Some(self.style);
            }
        }
        match character {
            '&' => self.html.push_str("&amp;"),
            '<' => self.html.push_str("&lt;"),
            '>' => self.html.push_str("&gt;"),
            '"' => self.html.push_str("&quot;"),
            '\'' => self.html.push_str("&#39;"),
            // C1 controls and the marks that reorder text can make a line lie.
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                self.html.push('\u{fffd}');
            }
            other => self.html.push(other),
        }
    }
}

impl Perform for Painter {
    fn print(&mut self, character: char) {
        self.put_character(character);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.put_character('\t'),
            b'\r' => self.returned = true,
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if action == 'm' && intermediates.is_empty() && !ignore {
            self.style.apply(params);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes() {
        assert_eq!(to_html("plain"), "plain");
        assert_eq!(
            to_html("\x1b[1;31merror\x1b[0m: no"),
            "<span class=\"f1 bold\">error</span>: no"
        );
        assert_eq!(to_html("\x1b[38;5;208mx"), "<span class=\"f208\">x</span>");
        assert_eq!(
            to_html("\x1b[48;2;255;0;0mx"),
            "<span class=\"b196\">x</span>"
        );
        assert_eq!(
            to_html("\x1b[38:2::255:255:255mx"),
            "<span class=\"f231\">x</span>"
        );
        assert_eq!(
            to_html("\x1b[92mx\x1b[39my"),
            "<span class=\"f10\">x</span>y"
        );
        assert_eq!(
            to_html("\x1b[31mx\x1b[34my\x1b[m"),
            "<span class=\"f1\">x</span><span class=\"f4\">y</span>"
        );
        assert_eq!(to_html("\x1b[38;5;999mx"), "x");
    }

    #[test]
    fn carriage_returns_leave_what_a_terminal_leaves() {
        assert_eq!(to_html("10%\r50%\r100%\r\n"), "100%");
        assert_eq!(
            to_html("\x1b[32m10%\r\x1b[K100%"),
            "<span class=\"f2\">100%</span>"
        );
    }

    #[test]
    fn hostile_text_stays_text() {
        let cases = [
            "<script>alert(1)</script>",
            "\x1b]8;;javascript:alert(1)\x07click\x1b]8;;\x07",
            "\x1b]0;<img src=x onerror=alert(1)>\x07",
            "\x1b[31m\"><script>alert(1)</script>",
            "\x1bP<script>alert(1)</script>\x1b\\",
            "\x1b[31;<script>m",
            "\x1b[<script>alert(1)</script>",
            "' onmouseover='alert(1)",
            "\x1b[38;5;\"><b>m<i>",
            "a\u{202e}b\u{9b}31m",
            "\x1b_<script>\x1b\\\x1b^<script>\x1b\\",
            "unfinished \x1b[",
            "unfinished \x1b]8;;http://x",
        ];
        for case in cases {
            assert_harmless(&to_html(case));
        }
        assert_eq!(to_html("<b>&\"'"), "&lt;b&gt;&amp;&quot;&#39;");
        assert_eq!(
            to_html("\x1b]8;;http://evil/\x07click\x1b]8;;\x07"),
            "click"
        );
        assert_eq!(to_html(b"caf\xe9 <"), "caf\u{fffd} &lt;");
    }

    #[test]
    fn every_short_mix_of_control_bytes_is_harmless() {
        let alphabet: [&[u8]; 14] = [
            b"\x1b", b"[", b"]", b"m", b";", b"31", b"<", b">", b"\"", b"\r", b"\x07", b"P",
            b"\xc2", b"\x9b",
        ];
        let mut words: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..4 {
            words = words
                .iter()
                .flat_map(|word| {
                    alphabet
                        .iter()
                        .map(move |part| [word.as_slice(), part].concat())
                })
                .collect();
            for word in &words {
                assert_harmless(&to_html(word));
            }
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let html = to_html("<".repeat(LINE_LIMIT + 5));
        assert_eq!(html.matches("&lt;").count(), LINE_LIMIT);
        assert!(html.contains("line cut here"));
    }

    #[test]
    fn the_style_sheet_has_every_colour() {
        let css = style_sheet();
        for index in 16..=255 {
            assert!(css.contains(&format!(".f{index}{{")) && css.contains(&format!(".b{index}{{")));
        }
        assert!(css.contains(".f196{color:#ff0000}"));
        assert!(css.contains(".f231{color:#ffffff}"));
    }

    /// The only tags are `<span class="[a-z0-9 ]+">` and `</span>`, balanced.
    fn assert_harmless(html: &str) {
        let mut depth = 0_u32;
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            let before = &rest[..at];
            assert!(
                !before.contains(['>', '"', '\'', '\x1b', '\r', '\n']),
                "{html:?}"
            );
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("</span>") {
                depth = depth.checked_sub(1).unwrap_or_else(|| panic!("{html:?}"));
                rest = after;
            } else {
                let after = rest
                    .strip_prefix("<span class=\"")
                    .unwrap_or_else(|| panic!("{html:?}"));
                let (classes, after) = after
                    .split_once("\">")
                    .unwrap_or_else(|| panic!("{html:?}"));
                let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ' ';
                assert!(!classes.is_empty() && classes.chars().all(fine), "{html:?}");
                depth += 1;
                rest = after;
            }
        }
        assert!(
            !rest.contains(['>', '"', '\'', '\x1b', '\r', '\n']),
            "{html:?}"
        );
        assert_eq!(depth, 0, "{html:?}");
    }
}
