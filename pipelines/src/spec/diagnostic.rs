//! What is wrong with a file, said as a compiler says it: where, what, the line itself, what to do.
//!
//! The texts of files come from strangers, so an excerpt is cut to a window of [`WINDOW`] characters
//! and holds no control characters. Nothing here knows YAML.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Characters of a line that an excerpt shows.
const WINDOW: usize = 100;
/// Characters before the marked place that a cut line keeps.
const LEAD: usize = 40;
/// Diagnostics kept for one file; further ones are only counted.
const MOST: usize = 50;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file as the reader knows it, `.roadstead/pipeline.yml`.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong, one line.
    pub message: String,
    /// The line with its number and a mark below the place, several lines; empty when the place is
    /// the file as a whole.
    pub excerpt: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            excerpt,
            help,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if !excerpt.is_empty() {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(help) = help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// Found, but beyond what is kept.
    omitted: usize,
}

impl Diagnostics {
    /// In the order of the file.
    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{diagnostic}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A place in a file: where a key or value begins, and how much of its line it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    /// Which file, as [`Reporter::add`] counted it; 0 is the first.
    pub(super) file: u16,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
    /// In characters, at least 1.
    pub(super) width: u32,
}

impl At {
    /// Where a file begins.
    pub(super) const START: Self = Self {
        file: 0,
        line: 1,
        column: 1,
        width: 1,
    };
}

/// Collects what is wrong with one file, and with those that it includes.
pub(super) struct Reporter<'a> {
    files: Vec<Text<'a>>,
    list: Vec<(u16, Diagnostic)>,
    omitted: usize,
}

struct Text<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Reporter<'a> {
    /// For the file `file` with the text `text`.
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let mut reporter = Self {
            files: Vec::new(),
            list: Vec::new(),
            omitted: 0,
        };
        reporter.add(file, text);
        reporter
    }

    /// Knows another file from now on; the number is for [`At::file`].
    pub(super) fn add(&mut self, name: &'a str, text: &'a str) -> u16 {
        let lines = text.lines().collect();
        self.files.push(Text { name, lines });
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// The name of the file that a place is in.
    pub(super) fn name_of(&self, at: At) -> &'a str {
        self.files
            .get(usize::from(at.file))
            .map_or("", |it| it.name)
    }

    /// A line of a file, from 1.
    fn line(&self, at: At) -> Option<&'a str> {
        let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
        let file = self.files.get(usize::from(at.file))?;
        file.lines.get(index).copied()
    }

    /// Nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.list.is_empty()
    }

    /// Something is wrong at `at`.
    pub(super) fn error(&mut self, at: At, message: impl Into<String>) {
        self.push(at, &message.into(), None);
    }

    /// Something is wrong at `at`, and this is what to do.
    pub(super) fn error_with_help(
        &mut self,
        at: At,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(at, &message.into(), Some(&help.into()));
    }

    /// A part of the text of a value that stands at `at`: so many characters on, and so wide.
    pub(super) fn within(&self, at: At, offset: usize, width: usize) -> At {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let line = self.line(at);
        let begins = usize::try_from(at.column)
            .ok()
            .and_then(|column| column.checked_sub(1));
        let quoted = line
            .zip(begins)
            .and_then(|(line, begins)| line.chars().nth(begins))
            .is_some_and(|first| ['"', '\''].contains(&first));
        At {
            file: at.file,
            line: at.line,
            column: at
                .column
                .saturating_add(number(offset))
                .saturating_add(u32::from(quoted)),
            width: number(width).max(1),
        }
    }

    fn push(&mut self, at: At, message: &str, help: Option<&str>) {
        if self.list.len() == MOST {
            self.omitted += 1;
            return;
        }
        let excerpt = self
            .line(at)
            .filter(|line| !line.trim().is_empty())
            .map(|line| excerpt(line, at))
            .unwrap_or_default();
        let found = Diagnostic {
            file: printable(self.name_of(at)),
            line: at.line,
            column: at.column,
            message: printable(message),
            excerpt,
            help: help.map(printable),
        };
        self.list.push((at.file, found));
    }

    /// What was made of the file, or what is wrong with it.
    pub(super) fn finish<T>(mut self, made: Option<T>) -> Result<T, Diagnostics> {
        match made {
            Some(made) if self.list.is_empty() => Ok(made),
            _ => {
                if self.list.is_empty() {
                    self.error(At::START, "the file could not be read");
                }
                self.list
                    .sort_by_key(|(file, found)| (*file, found.line, found.column));
                // What an alias repeats is wrong once.
                self.list.dedup();
                Err(Diagnostics {
                    list: self.list.into_iter().map(|(_, found)| found).collect(),
                    omitted: self.omitted,
                })
            }
        }
    }
}

/// `12 |   deply: manual` over `   |   ^^^^^`.
fn excerpt(line: &str, at: At) -> String {
    let column = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
    let characters: Vec<char> = line.chars().collect();
    let fits = characters.len() <= WINDOW;
    let first = if fits {
        0
    } else {
        column.saturating_sub(LEAD).min(characters.len())
    };
    let last = characters.len().min(first + WINDOW);
    let shown: String = characters[first..last]
        .iter()
        .map(|c| visible(*c))
        .collect();
    let before = if first > 0 { "…" } else { "" };
    let after = if last < characters.len() { "…" } else { "" };
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat(column - first.min(column) + before.chars().count());
    let room = last.saturating_sub(column).max(1);
    let width = usize::try_from(at.width).unwrap_or(1).clamp(1, room);
    format!(
        "{number} | {before}{}{after}\n{margin} | {indent}{}",
        shown.trim_end(),
        "^".repeat(width)
    )
}

/// One column of a terminal for a control character, too.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        c if is_unprintable(c) => '\u{fffd}',
        c => c,
    }
}

/// Control characters, and those that turn the direction of writing: both can make a terminal or a
/// page show something else than what stands there.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line, nothing hidden, and no longer than a screen.
fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut shown: String = text.chars().take(LONGEST).map(visible).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: At) -> String {
        let mut reporter = Reporter::new("f", text);
        reporter.error(at, "wrong");
        let diagnostics = reporter.finish::<()>(None).unwrap_err();
        diagnostics.list()[0].excerpt.clone()
    }

    #[test]
    fn a_short_line_is_shown_whole_with_its_mark() {
        let at = At {
            file: 0,
            line: 2,
            column: 3,
            width: 5,
        };
        assert_eq!(shown("a:\n  deply: x\n", at), "2 |   deply: x\n  |   ^^^^^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!("{}deply{}", "x".repeat(500), "y".repeat(500));
        let excerpt = shown(
            &text,
            At {
                file: 0,
                line: 1,
                column: 501,
                width: 5,
            },
        );
        let (line, mark) = excerpt.split_once('\n').unwrap();
        assert!(line.chars().count() <= WINDOW + 6, "{line}");
        let place = mark.chars().position(|c| c == '^').unwrap();
        let marked: String = line.chars().skip(place).take(5).collect();
        assert_eq!(marked, "deply");
    }

    #[test]
    fn places_outside_the_file_do_not_panic() {
        for (line, column) in [(0, 0), (9, 9), (1, 900), (u32::MAX, u32::MAX)] {
            let _ = shown(
                "ab\n",
                At {
                    file: 0,
                    line,
                    column,
                    width: u32::MAX,
                },
            );
        }
    }

    #[test]
    fn what_could_deceive_a_terminal_is_not_shown() {
        let excerpt = shown("a\u{1b}[2Jb\u{202e}c\td", At::START);
        assert!(
            !excerpt.contains(['\u{1b}', '\u{202e}', '\t']),
            "{excerpt:?}"
        );
    }

    #[test]
    fn only_so_many_are_kept_and_the_rest_is_counted() {
        let mut reporter = Reporter::new("f", "a");
        for place in 0..MOST + 3 {
            reporter.error(At::START, format!("wrong {place}"));
        }
        let diagnostics = reporter.finish::<()>(None).unwrap_err();
        assert_eq!(diagnostics.list().len(), MOST);
        assert!(diagnostics.to_string().ends_with("and 3 more"));
    }

    #[test]
    fn the_same_mistake_at_the_same_place_is_said_once() {
        let mut reporter = Reporter::new("f", "a\nb");
        for line in [2, 1, 2] {
            reporter.error(At { line, ..At::START }, "wrong");
        }
        let diagnostics = reporter.finish::<()>(None).unwrap_err();
        let lines: Vec<u32> = diagnostics.list().iter().map(|found| found.line).collect();
        assert_eq!(lines, [1, 2]);
    }
}
