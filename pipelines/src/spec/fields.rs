//! Reads a mapping key by key, and says everything that is wrong with it.
//!
//! A reader never stops at the first mistake: what cannot be read is reported and left out, so one
//! look at a file finds all of them. Which keys exist is data ([`Keys`]), shared with the tests that
//! compare them with the documentation.

use super::diagnostic::{At, Reporter};
use super::tree::{Entry, Node, Scalar, Value};
use crate::durations::{InvalidDuration, Seconds};
use crate::id::InvalidName;
use indexmap::IndexMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The keys of one kind of mapping.
pub(super) struct Keys {
    /// Its name in messages: `image`, or the dotted path of a mapping that has no name of its own.
    pub(super) what: &'static str,
    /// What may stand there.
    pub(super) known: &'static [&'static str],
    /// What belongs to the format but is not built yet.
    pub(super) later: &'static [&'static str],
    /// What other products call a key of ours.
    pub(super) elsewhere: &'static [(&'static str, &'static str)],
}

/// One mapping whose keys have been checked.
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    /// For messages: `image \`api\``.
    pub(super) title: String,
    /// Where the mapping hangs: the place for what is missing.
    pub(super) owner: At,
    /// Keys that unknown ones were most likely meant to be; nobody has to be told twice.
    meant: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Checks that `node` is a mapping with `keys` alone. `name` is the key that it hangs on when
    /// that is a name people gave.
    pub(super) fn read(
        node: &'n Node,
        name: Option<&str>,
        owner: At,
        keys: &Keys,
        reporter: &mut Reporter<'_>,
    ) -> Option<Self> {
        let title = match name {
            Some(name) => format!("{} `{name}`", keys.what),
            None => in_quotes(keys.what),
        };
        let Value::Map(entries) = &node.value else {
            let found = node.kind();
            let message = format!("{title} has to be a mapping, this is {found}");
            reporter.error_with_help(
                node.at,
                message,
                format!("its keys are {}", list(keys.known, "and")),
            );
            return None;
        };
        unique(entries, &title, reporter);
        let meant = entries
            .iter()
            .filter_map(|entry| check_key(entry, &title, keys, reporter))
            .collect();
        Some(Self {
            entries,
            title,
            owner,
            meant,
        })
    }

    /// The entry of `key`; one without a value is reported and left out.
    pub(super) fn get(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<&'n Entry> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.value.value, Value::Null) {
            no_value(entry, reporter);
            return None;
        }
        Some(entry)
    }

    /// As [`Self::get`], and says so when it is missing.
    pub(super) fn require(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<&'n Entry> {
        if !self.has(key) && !self.meant.contains(&key) {
            reporter.error(self.owner, format!("{} needs `{key}`", self.title));
        }
        self.get(key, reporter)
    }

    /// Whether `key` stands there, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<&'n str> {
        self.get(key, reporter)
            .and_then(|entry| text(entry, reporter))
    }

    /// A text that is not empty and has to be there.
    pub(super) fn require_text(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<&'n str> {
        self.require(key, reporter)
            .and_then(|entry| text(entry, reporter))
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        reporter: &mut Reporter<'_>,
    ) -> Option<u32> {
        let entry = self.get(key, reporter)?;
        number(&entry.value, key, range, reporter)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<bool> {
        let entry = self.get(key, reporter)?;
        let scalar = scalar(&entry.value, key, reporter)?;
        if scalar.boolean.is_none() {
            let found = &scalar.text;
            let message = format!("`{key}` has to be true or false, this is `{found}`");
            match meant_word(found, &["true", "false"]) {
                Some(help) => reporter.error_with_help(entry.value.at, message, help),
                None => reporter.error(entry.value.at, message),
            }
        }
        scalar.boolean
    }

    /// A length of time.
    pub(super) fn duration(&self, key: &str, reporter: &mut Reporter<'_>) -> Option<Seconds> {
        let entry = self.get(key, reporter)?;
        let scalar = scalar(&entry.value, key, reporter)?;
        match scalar.text.parse() {
            Ok(seconds) => Some(seconds),
            Err(error @ InvalidDuration::Malformed(_)) => {
                let help = "write a number and a unit: `90s`, `10m`, `2h` or `1d`";
                reporter.error_with_help(entry.value.at, format!("`{key}`: {error}"), help);
                None
            }
            Err(error @ InvalidDuration::TooLong(_)) => {
                reporter.error(entry.value.at, format!("`{key}`: {error}"));
                None
            }
        }
    }

    /// A length of time that is more than nothing.
    pub(super) fn positive_duration(
        &self,
        key: &str,
        reporter: &mut Reporter<'_>,
    ) -> Option<Seconds> {
        let seconds = self.duration(key, reporter)?;
        if seconds.is_zero() {
            let at = self
                .get(key, reporter)
                .map_or(self.owner, |entry| entry.value.at);
            reporter.error(at, format!("`{key}` has to be longer than nothing"));
            return None;
        }
        Some(seconds)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&'static str, T)],
        reporter: &mut Reporter<'_>,
    ) -> Option<T> {
        let entry = self.get(key, reporter)?;
        let scalar = scalar(&entry.value, key, reporter)?;
        choose(&scalar.text, entry.value.at, key, choices, reporter)
    }

    /// A list of texts, none empty and none twice, each with its place.
    pub(super) fn texts(
        &self,
        key: &str,
        reporter: &mut Reporter<'_>,
    ) -> Option<Vec<(&'n str, At)>> {
        let entry = self.get(key, reporter)?;
        let mut found: Vec<(&str, At)> = Vec::new();
        for item in items(entry, reporter)? {
            let Some(text) = scalar(item, key, reporter).map(|scalar| scalar.text.as_str()) else {
                continue;
            };
            if text.is_empty() {
                reporter.error(item.at, format!("`{key}` holds an empty text"));
            } else if found.iter().any(|(other, _)| *other == text) {
                reporter.error(item.at, format!("`{text}` stands in `{key}` twice"));
            } else {
                found.push((text, item.at));
            }
        }
        Some(found)
    }

    /// A list of names.
    pub(super) fn names<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, InvalidName>,
        reporter: &mut Reporter<'_>,
    ) -> Option<Vec<T>> {
        let texts = self.texts(key, reporter)?;
        Some(
            texts
                .into_iter()
                .filter_map(|(text, at)| name(text, at, &parse, reporter))
                .collect(),
        )
    }

    /// A mapping of variables: names as shells allow them, values as they are spelled.
    pub(super) fn variables(
        &self,
        key: &str,
        reporter: &mut Reporter<'_>,
    ) -> Option<IndexMap<String, String>> {
        variables_of(self.get(key, reporter)?, reporter)
    }
}

/// What [`Fields::variables`] reads.
pub(super) fn variables_of(
    entry: &Entry,
    reporter: &mut Reporter<'_>,
) -> Option<IndexMap<String, String>> {
    let mut variables = IndexMap::new();
    for variable in named(entry, reporter)? {
        let Some(value) = scalar(&variable.value, &variable.key, reporter) else {
            continue;
        };
        if !is_variable_name(&variable.key) {
            reporter.error_with_help(
                variable.at,
                format!("`{}` cannot be the name of a variable", variable.key),
                "use letters, digits and `_`, not a digit first",
            );
        } else if value.text.contains('\0') {
            reporter.error(variable.value.at, "a variable cannot hold a NUL character");
        } else {
            variables.insert(variable.key.clone(), value.text.clone());
        }
    }
    Some(variables)
}

/// The entries of a mapping whose keys are free, each with a value and no key twice.
pub(super) fn named<'n>(
    entry: &'n Entry,
    reporter: &mut Reporter<'_>,
) -> Option<impl Iterator<Item = &'n Entry> + use<'n>> {
    let Value::Map(entries) = &entry.value.value else {
        let found = entry.value.kind();
        let message = format!("`{}` has to be a mapping, this is {found}", entry.key);
        reporter.error(entry.value.at, message);
        return None;
    };
    unique(entries, &format!("`{}`", entry.key), reporter);
    for entry in entries
        .iter()
        .filter(|entry| matches!(entry.value.value, Value::Null))
    {
        no_value(entry, reporter);
    }
    Some(
        entries
            .iter()
            .filter(|entry| !matches!(entry.value.value, Value::Null)),
    )
}

/// The items of a list.
pub(super) fn items<'n>(entry: &'n Entry, reporter: &mut Reporter<'_>) -> Option<&'n [Node]> {
    match &entry.value.value {
        Value::List(items) => Some(items),
        Value::Scalar(Scalar { text, .. }) => {
            let message = format!("`{}` has to be a list, this is a single value", entry.key);
            reporter.error_with_help(entry.value.at, message, format!("write `[{text}]`"));
            None
        }
        Value::Null | Value::Map(_) => {
            let found = entry.value.kind();
            let message = format!("`{}` has to be a list, this is {found}", entry.key);
            reporter.error(entry.value.at, message);
            None
        }
    }
}

/// The text of an entry, which must not be empty.
pub(super) fn text<'n>(entry: &'n Entry, reporter: &mut Reporter<'_>) -> Option<&'n str> {
    let scalar = scalar(&entry.value, &entry.key, reporter)?;
    if scalar.text.trim().is_empty() {
        reporter.error(entry.value.at, format!("`{}` is empty", entry.key));
        return None;
    }
    Some(&scalar.text)
}

/// A single value.
pub(super) fn scalar<'n>(
    node: &'n Node,
    key: &str,
    reporter: &mut Reporter<'_>,
) -> Option<&'n Scalar> {
    if let Value::Scalar(scalar) = &node.value {
        return Some(scalar);
    }
    let found = node.kind();
    reporter.error(
        node.at,
        format!("`{key}` has to be a single value, this is {found}"),
    );
    None
}

/// A whole number within `range`.
pub(super) fn number(
    node: &Node,
    key: &str,
    range: RangeInclusive<u32>,
    reporter: &mut Reporter<'_>,
) -> Option<u32> {
    let found = scalar(node, key, reporter)?.text.as_str();
    let digits = found.bytes().all(|byte| byte.is_ascii_digit());
    let number = found
        .parse()
        .ok()
        .filter(|number| digits && range.contains(number));
    if number.is_none() {
        let (least, most) = (range.start(), range.end());
        let message =
            format!("`{key}` has to be a whole number from {least} to {most}, this is `{found}`");
        reporter.error(node.at, message);
    }
    number
}

/// One of a few words.
pub(super) fn choose<T: Copy>(
    found: &str,
    at: At,
    key: &str,
    choices: &[(&'static str, T)],
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == found) {
        return Some(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let help =
        meant_word(found, &words).unwrap_or_else(|| format!("it can be {}", list(&words, "or")));
    reporter.error_with_help(at, format!("`{key}` cannot be `{found}`"), help);
    None
}

/// The question after the word of `words` that was meant, if one is near; case aside.
pub(super) fn meant_word(found: &str, words: &[&str]) -> Option<String> {
    nearest(&found.to_lowercase(), words.iter().copied())
        .map(|word| format!("did you mean `{word}`?"))
}

/// A name, or what is wrong with it.
pub(super) fn name<T>(
    text: &str,
    at: At,
    parse: impl Fn(&str) -> Result<T, InvalidName>,
    reporter: &mut Reporter<'_>,
) -> Option<T> {
    parse(text)
        .map_err(|error| reporter.error(at, error.to_string()))
        .ok()
}

/// Letters, digits and `_`, not a digit first.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `a, b and c`, each in backticks.
pub(super) fn list<T: Display>(words: &[T], conjunction: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("{} {conjunction} `{last}`", most.join(", "))
        }
    }
}

/// The word of `words` that `text` most likely stands for: at most one letter in three is wrong.
#[must_use]
pub fn nearest<'w>(text: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    words
        .into_iter()
        .map(|word| (strsim::osa_distance(text, word), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A mapping without a name of its own: `ecs`, but the file.
fn in_quotes(what: &str) -> String {
    if what.contains(' ') {
        what.to_owned()
    } else {
        format!("`{what}`")
    }
}

/// Reports a key that may not stand there; the answer is the key that was meant.
fn check_key(
    entry: &Entry,
    title: &str,
    keys: &Keys,
    reporter: &mut Reporter<'_>,
) -> Option<&'static str> {
    let key = entry.key.as_str();
    if keys.known.contains(&key) {
        return None;
    }
    if keys.later.contains(&key) {
        let message = format!("`{key}` is not supported yet");
        reporter.error_with_help(entry.at, message, "remove it until it is");
        return None;
    }
    let elsewhere = keys
        .elsewhere
        .iter()
        .find(|(theirs, _)| *theirs == key)
        .map(|(_, ours)| *ours);
    let meant = elsewhere.or_else(|| nearest(key, keys.known.iter().copied()));
    let help = match meant {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!(
            "keys of {} are {}",
            in_quotes(keys.what),
            list(keys.known, "and")
        ),
    };
    reporter.error_with_help(entry.at, format!("unknown key `{key}` in {title}"), help);
    meant
}

/// Reports each key that stands there a second time.
fn unique(entries: &[Entry], title: &str, reporter: &mut Reporter<'_>) {
    let mut seen: IndexMap<&str, At> = IndexMap::with_capacity(entries.len());
    for entry in entries {
        match seen.get(entry.key.as_str()) {
            Some(first) => {
                let line = first.line;
                let message = format!(
                    "`{}` stands in {title} twice, first in line {line}",
                    entry.key
                );
                reporter.error_with_help(entry.at, message, "keep one of the two");
            }
            None => {
                seen.insert(&entry.key, entry.at);
            }
        }
    }
}

pub(super) fn no_value(entry: &Entry, reporter: &mut Reporter<'_>) {
    reporter.error_with_help(
        entry.at,
        format!("`{}` has no value", entry.key),
        "give it one, or remove the key; an empty text is written `\"\"`",
    );
}
