//! Reads `.dockerignore` and decides what a build context leaves out, as Docker's client does.
//!
//! Owns the pattern language: `#` comments, `!` exceptions, `*`, `?`, `[a-z]`, `**`, `\` before a
//! special character; the last pattern that matches decides, and a pattern that matches a folder
//! covers what is in it. Pure: knows paths only as `/`-separated texts relative to the context.

use regex::Regex;

/// The patterns of one `.dockerignore`, in their order.
#[derive(Debug, Default)]
pub(crate) struct DockerIgnore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    exception: bool,
    matcher: Regex,
    /// Its folders, for the question whether an exception may lie under a folder.
    text: String,
}

/// Why a `.dockerignore` was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(".dockerignore line {line}: {message}")]
pub(crate) struct DockerIgnoreError {
    /// Line, from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl DockerIgnore {
    /// Reads the text of a `.dockerignore`.
    pub(crate) fn parse(text: &str) -> Result<Self, DockerIgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let refuse = |message: String| DockerIgnoreError {
                line: index + 1,
                message,
            };
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (exception, body) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if body.is_empty() {
                return Err(refuse(
                    "`!` alone excepts nothing; write a path after it".into(),
                ));
            }
            let text = clean(body);
            if text.is_empty() {
                // `.` and `/` mean the context itself, which Docker never leaves out.
                continue;
            }
            let matcher = translate(&text).map_err(refuse)?;
            patterns.push(Pattern {
                exception,
                matcher,
                text,
            });
        }
        Ok(Self { patterns })
    }

    /// Whether `path` is left out, by its own name or by a folder above it.
    pub(crate) fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.patterns {
            // Only a pattern that would change the answer needs to be tried.
            if pattern.exception == excluded && pattern.matches_self_or_parent(path) {
                excluded = !pattern.exception;
            }
        }
        excluded
    }

    /// Whether something below the excluded folder `folder` could still be taken in.
    pub(crate) fn may_except_below(&self, folder: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.exception && pattern.may_lie_below(folder))
    }
}

impl Pattern {
    /// Never wrongly no: a wildcard is taken to match.
    fn may_lie_below(&self, folder: &str) -> bool {
        for (wanted, present) in self.text.split('/').zip(folder.split('/')) {
            if wanted.contains("**") {
                return true;
            }
            if wanted != present && !wanted.contains(['*', '?', '[', '\\']) {
                return false;
            }
        }
        true
    }

    fn matches_self_or_parent(&self, path: &str) -> bool {
        self.matcher.is_match(path)
            || path
                .match_indices('/')
                .any(|(end, _)| self.matcher.is_match(&path[..end]))
    }
}

/// Resolves `.` and `..` by the text alone and drops leading and trailing slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The regular expression of a cleaned pattern.
fn translate(pattern: &str) -> Result<Regex, String> {
    let mut expression = String::from("^");
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.peek() == Some(&'*') => {
                while characters.peek() == Some(&'*') {
                    characters.next();
                }
                if characters.peek() == Some(&'/') {
                    characters.next();
                    expression.push_str("(.*/)?");
                } else {
                    expression.push_str(".*");
                }
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                let mut closed = false;
                let mut first = true;
                while let Some(inner) = characters.next() {
                    match inner {
                        ']' if !first => {
                            closed = true;
                            break;
                        }
                        '^' if first => expression.push('^'),
                        '-' => expression.push('-'),
                        '\\' => {
                            let escaped = characters
                                .next()
                                .ok_or("a `\\` at the end escapes nothing")?;
                            expression.push_str(&regex::escape(&escaped.to_string()));
                        }
                        inner => expression.push_str(&regex::escape(&inner.to_string())),
                    }
                    first = first && inner == '^';
                }
                if !closed {
                    return Err(format!("`[` without `]` in `{pattern}`"));
                }
                expression.push(']');
            }
            '\\' => {
                let escaped = characters
                    .next()
                    .ok_or("a `\\` at the end escapes nothing")?;
                expression.push_str(&regex::escape(&escaped.to_string()));
            }
            other => expression.push_str(&regex::escape(&other.to_string())),
        }
    }
    expression.push('$');
    regex::RegexBuilder::new(&expression)
        .dot_matches_new_line(true)
        .build()
        .map_err(|error| format!("`{pattern}` is no pattern: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(ignore: &str, path: &str) -> bool {
        DockerIgnore::parse(ignore).unwrap().excludes(path)
    }

    #[test]
    fn patterns_decide_as_docker_documents_them() {
        for (ignore, path, expected) in [
            ("*/temp*", "somedir/temporary.txt", true),
            ("*/temp*", "somedir/temp", true),
            ("*/temp*", "temp", false),
            ("*/*/temp*", "somedir/subdir/temporary.txt", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("**/*.go", "main.go", true),
            ("**/*.go", "a/b/c.go", true),
            ("**/*.go", "a/b/c.gox", false),
            ("*.md\n!README.md", "README.md", false),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                "README-secret.md",
                true,
            ),
            (
                "*.md\nREADME-secret.md\n!README*.md",
                "README-secret.md",
                false,
            ),
            ("node_modules", "node_modules/left/pad.js", true),
            ("node_modules", "app/node_modules/left/pad.js", false),
            ("**/node_modules", "app/node_modules/left/pad.js", true),
            ("/target/", "target/debug/x", true),
            ("./build", "build/x", true),
            ("a/../b", "b", true),
            ("docs\n!docs/keep.md", "docs/keep.md", false),
            ("docs\n!docs/keep.md", "docs/drop.md", true),
            ("# comment\n\n  *.log  ", "x.log", true),
            ("#x", "#x", false),
            ("*", "anything/at/all", true),
            ("*\n!src/**", "src/main.rs", false),
            ("*\n!src/**", "tests/main.rs", true),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("[^a-c].txt", "d.txt", true),
            (r"\*.txt", "*.txt", true),
            (r"\*.txt", "a.txt", false),
            ("a.b", "axb", false),
            ("dir/**", "dir/x/y", true),
            ("dir/**", "dir", false),
            (".", "x", false),
        ] {
            assert_eq!(excluded(ignore, path), expected, "{ignore:?} on {path}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = DockerIgnore::parse("ok\n!\n").unwrap_err();
        assert_eq!(error.line, 2);
        let error = DockerIgnore::parse("[a").unwrap_err();
        assert_eq!((error.line, error.message.contains("without")), (1, true));
    }

    #[test]
    fn an_excluded_folder_is_entered_only_for_an_exception_below_it() {
        let ignore = DockerIgnore::parse("*\n!docs/guide/index.md\n!**/keep").unwrap();
        assert!(ignore.may_except_below("docs"));
        assert!(ignore.may_except_below("docs/guide"));
        assert!(ignore.may_except_below("other/deep/down"));
        let ignore = DockerIgnore::parse("*\n!docs/guide/index.md").unwrap();
        assert!(!ignore.may_except_below("other"));
        assert!(!ignore.may_except_below("docs/other"));
    }
}
