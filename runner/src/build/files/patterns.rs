//! The pattern language of `.dockerignore`, as Docker's client matches it.
//!
//! Owns `!` exceptions, `*`, `?`, `[a-z]`, `**`, `\` before a special character; the last pattern that
//! matches decides, and a pattern that matches a folder covers what is in it. Pure: knows paths only as
//! `/`-separated texts relative to the context. Comments and empty lines are gone by now: the engine reads
//! the file.

use regex::Regex;

/// Patterns in their order.
#[derive(Debug)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
}

/// Which patterns match a folder, so that they cover what is in it.
pub(super) type Covering = Vec<bool>;

#[derive(Debug)]
pub(super) struct Pattern {
    exception: bool,
    matcher: Matcher,
    /// Its folders, for the question whether something may match under a folder.
    text: String,
}

#[derive(Debug)]
enum Matcher {
    /// Without special characters, as most are.
    Text,
    /// `**` and a text: how paths end.
    End(String),
    /// A text and `**`: how paths begin.
    Beginning(String),
    Expression(Regex),
}

impl Patterns {
    /// Reads patterns; `None` when there are none.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(super) fn parse(texts: &[String]) -> Result<Option<Self>, String> {
        let texts = texts.iter().map(|text| text.trim());
        let patterns = texts
            .filter(|text| !text.is_empty())
            .map(Pattern::parse)
            .collect::<Result<Vec<_>, _>>()?;
        Ok((!patterns.is_empty()).then_some(Self { patterns }))
    }

    /// Whether `path` matches, by its own name or because `covering` says so of the folder that it is in;
    /// and what it covers itself, should it be a folder. `covering` is empty for what is in the root.
    pub(super) fn matches(&self, path: &str, covering: &Covering) -> (bool, Covering) {
        let mut matched = false;
        let mut covers = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let covered = covering.get(index).copied().unwrap_or_default();
            // Only a pattern that would change the answer is tried, and covers; Docker's client does so, too.
            covers[index] = covered || (pattern.exception == matched && pattern.matches(path));
            if covers[index] {
                matched = !pattern.exception;
            }
        }
        (matched, covers)
    }

    /// Whether something below `folder`, which does not match, could; never wrongly no.
    pub(super) fn may_match_below(&self, folder: &str) -> bool {
        self.may_lie_below(folder, false)
    }

    /// Whether something below `folder`, which matches, could be an exception; never wrongly no.
    pub(super) fn may_except_below(&self, folder: &str) -> bool {
        self.may_lie_below(folder, true)
    }

    fn may_lie_below(&self, folder: &str, exception: bool) -> bool {
        let mut patterns = self.patterns.iter();
        patterns.any(|pattern| pattern.exception == exception && pattern.may_lie_below(folder))
    }
}

impl Pattern {
    /// Reads one pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (exception, body) = match text.strip_prefix('!') {
            Some("") => return Err("`!` alone excepts nothing; write a path after it".to_owned()),
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = clean(body);
        Ok(Self {
            exception,
            matcher: Matcher::of(&text)?,
            text,
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Text => path == self.text,
            Matcher::End(end) => {
                path.ends_with(end.as_str()) || end.strip_prefix('/') == Some(path)
            }
            Matcher::Beginning(beginning) => path.starts_with(beginning.as_str()),
            Matcher::Expression(expression) => expression.is_match(path),
        }
    }

    /// Never wrongly no: a wildcard is taken to match.
    fn may_lie_below(&self, folder: &str) -> bool {
        let mut wanted = self.text.split('/');
        for present in folder.split('/') {
            match wanted.next() {
                Some(wanted) if wanted.contains("**") => return true,
                Some(wanted) if wanted == present => {}
                Some(wanted) if wanted.contains(['*', '?', '[', '\\']) => {}
                Some(_) | None => return false,
            }
        }
        wanted.next().is_some()
    }
}

impl Matcher {
    fn of(text: &str) -> Result<Self, String> {
        const SPECIAL: [char; 5] = ['*', '?', '[', ']', '\\'];
        let is_plain = |text: &str| !text.contains(SPECIAL);
        if is_plain(text) {
            return Ok(Self::Text);
        }
        if let Some(end) = text.strip_prefix("**").filter(|end| is_plain(end)) {
            return Ok(Self::End(end.to_owned()));
        }
        if let Some(beginning) = text.strip_suffix("**").filter(|rest| is_plain(rest)) {
            return Ok(Self::Beginning(beginning.to_owned()));
        }
        translate(text).map(Self::Expression)
    }
}

/// Resolves `.` and `..` by the text alone, as Go's `filepath.Clean` does: a leading `/` stays, and so does
/// a `..` that leads out.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let slash = if path.starts_with('/') { "/" } else { "" };
    match (slash, parts.as_slice()) {
        ("", []) => ".".to_owned(),
        _ => format!("{slash}{}", parts.join("/")),
    }
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
                }
                // In front of something it stands for folders, even without a `/` of its own.
                expression.push_str(if characters.peek().is_some() {
                    "(.*/)?"
                } else {
                    ".*"
                });
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

    /// As a walk from the root finds out.
    fn matched(patterns: &str, path: &str) -> bool {
        let texts: Vec<_> = patterns.lines().map(str::to_owned).collect();
        let patterns = Patterns::parse(&texts).unwrap().unwrap();
        let ends = path
            .match_indices('/')
            .map(|(end, _)| end)
            .chain([path.len()]);
        let mut state = (false, Covering::new());
        for end in ends {
            state = patterns.matches(&path[..end], &state.1);
        }
        state.0
    }

    #[test]
    fn patterns_decide_as_docker_documents_them() {
        for (patterns, path, expected) in [
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
            ("**/node_modules", "node_modules", true),
            ("target/", "target/debug/x", true),
            ("./build", "build/x", true),
            ("a/../b", "b", true),
            ("docs\n!docs/keep.md", "docs/keep.md", false),
            ("docs\n!docs/keep.md", "docs/drop.md", true),
            ("  *.log  ", "x.log", true),
            ("*", "anything/at/all", true),
            ("**", "anything/at/all", true),
            ("*\n!src/**", "src/main.rs", false),
            ("*\n!src/**", "tests/main.rs", true),
            ("*\n!src", "src/deep/main.rs", false),
            // An exception in front of what it excepts does nothing, even for its folder.
            ("docs/drop.md\n!docs", "docs/drop.md", true),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("[^a-c].txt", "d.txt", true),
            (r"\*.txt", "*.txt", true),
            (r"\*.txt", "a.txt", false),
            ("a.b", "axb", false),
            ("dir/**", "dir/x/y", true),
            ("dir/**", "dir", false),
            ("a**b", "ab", true),
            ("a**b", "axb", false),
            ("a**b", "ax/b", true),
            ("**.txt", "deep/a.txt", true),
            ("dir**", "directory/x", true),
            (".", "x", false),
            ("/x", "x", false),
            ("../x", "x", false),
        ] {
            assert_eq!(matched(patterns, path), expected, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let parse = |text: &str| Patterns::parse(&[text.to_owned()]).unwrap_err();
        assert!(parse("!").contains("excepts nothing"));
        assert!(parse("[a").contains("`[` without `]` in `[a`"));
        assert!(Patterns::parse(&[" ".to_owned()]).unwrap().is_none());
    }

    #[test]
    fn a_folder_is_entered_only_for_what_may_match_below_it() {
        let parse = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            Patterns::parse(&texts).unwrap().unwrap()
        };
        let patterns = parse(&["*", "!docs/guide/index.md", "!**/keep"]);
        assert!(patterns.may_except_below("docs"));
        assert!(patterns.may_except_below("docs/guide"));
        assert!(patterns.may_except_below("other/deep/down"));
        let patterns = parse(&["*", "!docs/guide/index.md"]);
        assert!(!patterns.may_except_below("other"));
        assert!(!patterns.may_except_below("docs/other"));
        let patterns = parse(&["src/main.rs", "t?sts/*.rs", "*.md"]);
        assert!(patterns.may_match_below("src") && patterns.may_match_below("tests"));
        assert!(!patterns.may_match_below("src/bin") && !patterns.may_match_below("docs/deep"));
    }
}
