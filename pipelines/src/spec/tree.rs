//! A YAML document as a tree in which every key and value knows its place.
//!
//! Scalars keep the text that stands in the file: `1.10` stays `1.10` and `8080` stays `8080`,
//! whatever YAML takes them for. Input is bounded before and while it is read, so no file can cost
//! more than a few megabytes of memory. Booleans are YAML 1.2's: `yes` is a text.

use super::diagnostic::{At, Reporter};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};
use std::fmt;

/// Levels of nesting; the format itself needs seven.
const DEEPEST: usize = 24;
/// Mappings, lists and scalars in one file.
const MOST_NODES: usize = 20_000;
/// Nodes that aliases may add.
const MOST_REPLAYED: usize = 20_000;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the file's order, keys possibly more than once.
    Map(Vec<Entry>),
}

/// A text, and what YAML takes it for.
#[derive(Debug)]
pub(super) struct Scalar {
    /// As in the file, quotes and escapes undone.
    pub(super) text: String,
    /// `true` or `false` without quotes.
    pub(super) boolean: Option<bool>,
}

/// One key of a mapping with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) value: Node,
}

impl Node {
    /// Its kind in words, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Says of this node and all below it which file they are in.
    pub(super) fn is_of(&mut self, file: u16) {
        self.at.file = file;
        match &mut self.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.is_of(file)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.at.file = file;
                    entry.value.is_of(file);
                }
            }
        }
    }

    /// The entry below this node at `path`; an index counts as a key.
    fn entry(&self, path: &[&str]) -> Option<(At, &Self)> {
        let mut found = (self.at, self);
        for key in path {
            found = match &found.1.value {
                Value::Map(entries) => {
                    let entry = entries.iter().find(|entry| entry.key == *key)?;
                    (entry.at, &entry.value)
                }
                Value::List(items) => {
                    let item = items.get(key.parse::<usize>().ok()?)?;
                    (item.at, item)
                }
                Value::Null | Value::Scalar(_) => return None,
            };
        }
        Some(found)
    }

    /// The place of the key at `path`, or of the nearest key above it that exists.
    pub(super) fn key_at(&self, path: &[&str]) -> At {
        let lengths = (0..=path.len()).rev();
        let mut found = lengths.filter_map(|length| self.entry(&path[..length]));
        found.next().map_or(At::START, |(at, _)| at)
    }

    /// The place of the value at `path`, or of the nearest key above it that exists.
    pub(super) fn value_at(&self, path: &[&str]) -> At {
        self.entry(path)
            .map_or_else(|| self.key_at(path), |(_, node)| node.at)
    }
}

/// Reads one document; `None` when it is no YAML, which is reported.
pub(super) fn read(text: &str, reporter: &mut Reporter<'_>) -> Option<Node> {
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()) {
        Ok(root) => Some(Converter { text, reporter }.node(root)),
        Err(error) => {
            report(&error, reporter);
            None
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,

            max_events: 4 * MOST_NODES,
            max_nodes: MOST_NODES,
            // One more than allowed, so that the second is named as such.
            max_documents: 2,
            max_anchors: 200,
            max_aliases: 1_000,
            max_merge_keys: 200,
            max_recorded_anchor_events: 4 * MOST_NODES,
            max_recorded_anchor_bytes: 2 * super::LARGEST_FILE,
            max_total_scalar_bytes: 4 * super::LARGEST_FILE,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MOST_REPLAYED,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        strict_booleans: true,
        with_snippet: false,
    }
}

/// The error itself, without what says through which alias it came.
fn innermost(error: &Error) -> &Error {
    match error.without_snippet() {
        Error::AliasError { error, .. } => innermost(error),
        other => other,
    }
}

fn report(error: &Error, reporter: &mut Reporter<'_>) {
    let error = innermost(error);
    let at = error.location().map_or(At::START, |location| At {
        file: 0,
        line: u32::try_from(location.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX).max(1),
        width: 1,
    });
    match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => reporter.error_with_help(
            at,
            format!(
                "the file is too complex: at most {DEEPEST} levels and {MOST_NODES} values are read"
            ),
            "write it out with fewer levels and aliases",
        ),
        Error::MultipleDocuments { .. } => reporter.error_with_help(
            at,
            "the file holds more than one document",
            "remove the `---` line and what follows it",
        ),
        Error::UnknownAnchor { .. } => reporter.error(at, "no anchor of this name stands above"),
        other => {
            let message = UserMessageFormatter.format_message(other);
            reporter.error(at, format!("this is not valid YAML: {message}"));
        }
    }
}

/// A value as the YAML reader hands it over.
enum Raw {
    Null,
    Text(String),
    /// What it is taken for is only the fallback: its text is cut out of the file.
    Bool(bool),
    Number(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<Self>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Turns what the reader handed over into a [`Node`], looking up texts in the file.
struct Converter<'c, 'r> {
    text: &'c str,
    reporter: &'c mut Reporter<'r>,
}

impl<'c> Converter<'c, '_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let location = raw.defined;
        let source = self.source(location);
        let at = At {
            file: 0,
            line: u32::try_from(location.line()).unwrap_or(u32::MAX),
            column: u32::try_from(location.column()).unwrap_or(u32::MAX),
            width: match raw.value {
                Raw::List(_) | Raw::Map(_) => 1,
                _ => first_line_width(source),
            },
        };
        let spelled = |fallback: String| {
            let plain = source.trim();
            let usable = !plain.is_empty() && !plain.starts_with(['"', '\'', '!', '&', '*']);
            if usable { plain.to_owned() } else { fallback }
        };
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Text(text) => Value::Scalar(Scalar {
                text,
                boolean: None,
            }),
            Raw::Bool(boolean) => {
                let text = spelled(boolean.to_string());
                Value::Scalar(Scalar {
                    text,
                    boolean: Some(boolean),
                })
            }
            Raw::Number(number) => Value::Scalar(Scalar {
                text: spelled(number),
                boolean: None,
            }),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| self.node(item)).collect())
            }
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .filter_map(|(key, value)| self.entry(key, value))
                    .collect(),
            ),
        };
        Node { at, value }
    }

    fn entry(&mut self, key: Spanned<Raw>, value: Spanned<Raw>) -> Option<Entry> {
        let key = self.node(key);
        let value = self.node(value);
        match key.value {
            Value::Scalar(Scalar { text, .. }) => Some(Entry {
                key: text,
                at: key.at,
                value,
            }),
            Value::Null | Value::List(_) | Value::Map(_) => {
                let kind = key.kind();
                self.reporter
                    .error(key.at, format!("a key has to be a text, this is {kind}"));
                None
            }
        }
    }

    /// The piece of the file at `location`.
    fn source(&self, location: Location) -> &'c str {
        let span = location.span();
        let range = span
            .byte_offset()
            .zip(span.byte_len())
            .and_then(|(start, length)| {
                let start = usize::try_from(start).ok()?;
                Some(start..start.checked_add(usize::try_from(length).ok()?)?)
            });
        range
            .and_then(|range| self.text.get(range))
            .unwrap_or_default()
    }
}

fn first_line_width(source: &str) -> u32 {
    let line = source.lines().next().unwrap_or_default();
    u32::try_from(line.trim_end().chars().count())
        .unwrap_or(u32::MAX)
        .max(1)
}
