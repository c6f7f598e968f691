//! Files of `KEY=VALUE` lines, as `env_file` names them.
//!
//! A line is empty, a comment beginning with `#`, or `KEY=VALUE`, `export ` before it allowed. A value
//! without quotes ends before ` #` and loses the blanks around it; in single quotes everything stands
//! for itself; in double quotes `\n`, `\t`, `\r`, `\"`, `\\` and `\$` are escapes. Nothing is ever
//! expanded: `$` is a dollar sign.

use super::diagnostic::{At, Diagnostic, Diagnostics, Reporter};
use super::fields::{is_variable_name, list};
use indexmap::IndexMap;
use std::collections::BTreeSet;

/// Reads such a file; `name` is its name for messages.
///
/// # Errors
/// Everything that is wrong with it: lines that are none, names that cannot be, keys given twice,
/// quotes that stay open. A file above [`super::LARGEST_FILE`] is not looked at.
pub fn parse_env_file(name: &str, text: &str) -> Result<IndexMap<String, String>, Diagnostics> {
    super::refuse_large(name, text)?;
    let mut reporter = Reporter::new(name, text);
    let mut variables = IndexMap::new();
    let mut lines_of: IndexMap<&str, usize> = IndexMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = if index == 0 {
            line.trim_start_matches('\u{feff}')
        } else {
            line
        };
        match read_line(line) {
            Ok(None) => {}
            Ok(Some((key, value))) => {
                if let Some(first) = lines_of.insert(key, index + 1) {
                    let message = format!("`{key}` is set twice, first in line {first}");
                    reporter.error_with_help(at(line, index, key), message, "keep one of the two");
                }
                variables.insert(key.to_owned(), value);
            }
            Err(Mistake {
                piece,
                message,
                help,
            }) => {
                reporter.error_with_help(at(line, index, piece), message, help);
            }
        }
    }
    reporter.finish(Some(variables))
}

/// The environment files of one environment.
#[derive(Debug, Clone)]
pub struct EnvFiles {
    /// The environment, or `local` for machines of people.
    pub environment: String,
    /// Name and text of each.
    pub files: Vec<(String, String)>,
    /// Names of variables that the environment has otherwise.
    pub variables: Vec<String>,
}

/// Says of every key in one environment's files where it is missing: where another environment has files
/// and neither they nor its variables set it. Lines that are none are passed over; [`parse_env_file`] finds
/// those.
#[must_use]
pub fn missing_keys(environments: &[EnvFiles]) -> Vec<Diagnostic> {
    let with_files = environments.iter().filter(|it| !it.files.is_empty());
    let known: Vec<(&EnvFiles, BTreeSet<&str>)> = with_files
        .map(|environment| {
            let in_files = environment.files.iter().flat_map(|(_, text)| keys(text));
            let variables = environment.variables.iter().map(String::as_str);
            (
                environment,
                in_files.map(|(key, _)| key).chain(variables).collect(),
            )
        })
        .collect();
    let mut said = BTreeSet::new();
    let mut found = Vec::new();
    for (_, (name, text)) in known
        .iter()
        .flat_map(|(it, _)| it.files.iter().map(move |file| (it, file)))
    {
        let mut reporter = Reporter::new(name, text);
        for (key, at) in keys(text) {
            let without = known.iter().filter(|(_, keys)| !keys.contains(key));
            let without: Vec<&EnvFiles> = without.map(|(environment, _)| *environment).collect();
            let Some(first) = without.first() else {
                continue;
            };
            if !said.insert(key) {
                continue;
            }
            let places: Vec<&str> = without.iter().map(|it| it.environment.as_str()).collect();
            let message = format!(
                "`{key}` is set here and missing in {}",
                list(&places, "and")
            );
            let file = first.files.last().map_or("", |(name, _)| name);
            let help = format!(
                "set it in {file}, if only to nothing, so that nobody wonders whether it was forgotten"
            );
            reporter.error_with_help(at, message, help);
        }
        if let Err(diagnostics) = reporter.finish(Some(())) {
            found.extend_from_slice(diagnostics.list());
        }
    }
    found
}

/// The keys of a file, with their places.
fn keys(text: &str) -> impl Iterator<Item = (&str, At)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim_start_matches('\u{feff}');
        let (key, _) = read_line(line).ok()??;
        Some((key, at(line, index, key)))
    })
}

/// What is wrong with a line, at a piece of it.
struct Mistake<'l> {
    piece: &'l str,
    message: String,
    help: &'static str,
}

impl<'l> Mistake<'l> {
    fn new(piece: &'l str, message: impl Into<String>, help: &'static str) -> Self {
        Self {
            piece,
            message: message.into(),
            help,
        }
    }
}

fn read_line(line: &str) -> Result<Option<(&str, String)>, Mistake<'_>> {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') {
        return Ok(None);
    }
    let assignment = match trimmed.split_once(char::is_whitespace) {
        Some(("export", rest)) => rest.trim_start(),
        _ => trimmed,
    };
    let Some((key, value)) = assignment.split_once('=') else {
        let help = "write `KEY=VALUE`, or begin a comment with `#`";
        return Err(Mistake::new(assignment, "this line sets nothing", help));
    };
    if key.is_empty() {
        let help = "write `KEY=VALUE`";
        return Err(Mistake::new(
            assignment,
            "no name stands before the `=`",
            help,
        ));
    }
    if !is_variable_name(key) {
        let message = format!("`{key}` cannot be the name of a variable");
        let help = "use letters, digits and `_`, not a digit first, and no blank before `=`";
        return Err(Mistake::new(key, message, help));
    }
    let value = value_of(value.trim_start())?;
    if value.contains('\0') {
        let help = "remove the character";
        return Err(Mistake::new(
            key,
            "a variable cannot hold a NUL character",
            help,
        ));
    }
    Ok(Some((key, value)))
}

fn value_of(text: &str) -> Result<String, Mistake<'_>> {
    let Some(quote) = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''))
    else {
        let end = if text.starts_with('#') {
            Some(0)
        } else {
            comment_start(text)
        };
        return Ok(text[..end.unwrap_or(text.len())].trim_end().to_owned());
    };
    let mut value = String::with_capacity(text.len());
    let mut characters = text.char_indices().skip(1);
    while let Some((place, character)) = characters.next() {
        if character == quote {
            return rest_is_comment(&text[place + quote.len_utf8()..]).map(|()| value);
        }
        if character != '\\' || quote == '\'' {
            value.push(character);
            continue;
        }
        match characters.next() {
            Some((_, 'n')) => value.push('\n'),
            Some((_, 't')) => value.push('\t'),
            Some((_, 'r')) => value.push('\r'),
            Some((_, escaped @ ('"' | '\\' | '$'))) => value.push(escaped),
            Some(_) => {
                let help = "escapes are \\n \\t \\r \\\" \\\\ \\$; in single quotes a \\ stands for itself";
                return Err(Mistake::new(
                    &text[place..],
                    "this escape does not exist",
                    help,
                ));
            }
            None => break,
        }
    }
    Err(Mistake::new(
        text,
        "the quote is not closed",
        "end the value with the same quote on its line",
    ))
}

/// Where ` #` begins a comment.
fn comment_start(text: &str) -> Option<usize> {
    text.match_indices('#')
        .map(|(place, _)| place)
        .find(|place| {
            text[..*place]
                .chars()
                .next_back()
                .is_some_and(char::is_whitespace)
        })
}

fn rest_is_comment(rest: &str) -> Result<(), Mistake<'_>> {
    let trimmed = rest.trim_start();
    let comment = trimmed.starts_with('#') && trimmed.len() < rest.len();
    if trimmed.is_empty() || comment {
        return Ok(());
    }
    let help = "put the whole value into the quotes, escape a quote within it with `\\`";
    Err(Mistake::new(
        trimmed,
        "something follows the closing quote",
        help,
    ))
}

/// The place of `piece`, a part of `line`.
fn at(line: &str, index: usize, piece: &str) -> At {
    let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    let before = line.find(piece).map_or("", |place| &line[..place]);
    At {
        file: 0,
        line: u32::try_from(index + 1).unwrap_or(u32::MAX),
        column: count(before).saturating_add(1),
        width: count(piece).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn read(text: &str) -> Vec<(String, String)> {
        let variables = parse_env_file("env/staging.env", text).unwrap_or_else(|e| panic!("{e}"));
        variables.into_iter().collect()
    }

    fn value(line: &str) -> String {
        read(line).remove(0).1
    }

    #[test]
    fn values_are_what_stands_there() {
        for (line, expected) in [
            ("A=", ""),
            ("A=b", "b"),
            ("A= b ", "b"),
            ("A=b c", "b c"),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=# c", ""),
            ("A=b=c", "b=c"),
            ("A=$B ${C} `d`", "$B ${C} `d`"),
            ("A=\"b # c\" # d", "b # c"),
            ("A=\"b\\nc\\t\\\"\\\\\\$\"", "b\nc\t\"\\$"),
            ("A='b\\n$c \"d\"'", "b\\n$c \"d\""),
            ("A=''", ""),
            ("A=it's", "it's"),
            ("export A=b", "b"),
            ("  A=b\r", "b"),
            ("\u{feff}A=b", "b"),
            ("A=ü", "ü"),
        ] {
            assert_eq!(value(line), expected, "{line:?}");
        }
    }

    #[test]
    fn order_comments_and_blank_lines() {
        let read = read("# first\n\nB=1\n  # more\nA=2\n");
        assert_eq!(
            read,
            [
                ("B".to_owned(), "1".to_owned()),
                ("A".to_owned(), "2".to_owned())
            ]
        );
    }

    #[test]
    fn every_mistake_is_shown_with_its_place() {
        let text = "A=1\nnothing\n1B=2\nC =3\nD=\"open\nE='a'b\nF=\"\\x\"\n  A=2\n=4\nexport\n";
        let diagnostics = parse_env_file("env/staging.env", text).unwrap_err();
        insta::assert_snapshot!(diagnostics);
    }

    fn files(environment: &str, text: &str, variables: &[&str]) -> EnvFiles {
        EnvFiles {
            environment: environment.to_owned(),
            files: vec![(format!("env/{environment}.env"), text.to_owned())],
            variables: variables.iter().map(ToString::to_string).collect(),
        }
    }

    fn missing(environments: &[EnvFiles]) -> Vec<String> {
        let found = missing_keys(environments).into_iter();
        found
            .map(|it| format!("{}:{}: {}", it.file, it.line, it.message))
            .collect()
    }

    #[test]
    fn a_key_of_one_environment_is_missed_in_the_others_once() {
        let staging = files("staging", "# x\nBOTH=1\nexport ONLY=2\nnonsense\n", &[]);
        let mut production = files("production", "BOTH=1\n", &["LEVEL"]);
        production
            .files
            .push(("env/more.env".into(), "MORE=1\n".into()));
        let qa = files("qa", "BOTH=1\nLEVEL=x\nMORE=\n", &[]);
        assert_eq!(
            missing(&[staging, production, qa]),
            [
                "env/staging.env:3: `ONLY` is set here and missing in `production` and `qa`",
                "env/more.env:1: `MORE` is set here and missing in `staging`",
                "env/qa.env:2: `LEVEL` is set here and missing in `staging`",
            ]
        );
    }

    #[test]
    fn what_variables_set_or_an_environment_without_files_lacks_is_not_missed() {
        let staging = files("staging", "LEVEL=debug\n", &[]);
        let production = files("production", "", &["LEVEL"]);
        let without = EnvFiles {
            files: vec![],
            ..files("qa", "", &[])
        };
        assert_eq!(
            missing(&[staging, production, without]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_above_the_limit_is_not_looked_at() {
        let text = "#".repeat(crate::spec::LARGEST_FILE + 1);
        let diagnostics = parse_env_file("big.env", &text).unwrap_err();
        assert!(
            diagnostics.to_string().contains("at most 262144 are read"),
            "{diagnostics}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_panics(text in "[A-C=\\\\\"'# \n\r\tü$]{0,40}") {
            let _ = parse_env_file("f", &text);
        }

        #[test]
        fn what_is_quoted_reads_back(value in "[^\\x00\\r\\n]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parse_env_file("f", &format!("KEY=\"{escaped}\"\n"));
            prop_assert_eq!(read.map(|variables| variables["KEY"].clone()), Ok(value));
        }
    }
}
