//! `include`: images, steps, services and environments that stand in other files of the same repository.
//!
//! An included file's entries come before the pipeline file's own, as if they were written there, and every mistake in
//! them is said with the file that it is in. An entry stands in one file: nothing is laid over another, so what a name
//! means is read in one place. Files are read by whoever asks for a pipeline, from where the pipeline file is.

use super::LARGEST_FILE;
use super::diagnostic::{At, Diagnostics, Reporter};
use super::fields;
use super::tree::{self, Entry, Node, Value};
use super::values;
use std::collections::BTreeMap;

/// Files that one pipeline file may include.
pub const MOST_INCLUDES: usize = 10;

/// What an included file may have.
const SECTIONS: [&str; 4] = ["images", "steps", "services", "environments"];

/// The texts of included files by their paths, or why one cannot be read.
pub type Included = BTreeMap<String, Result<String, String>>;

/// The files that a pipeline file includes, in its order. Of a text with mistakes those that can be told: reading it
/// says what is wrong.
#[must_use]
pub fn includes(text: &str) -> Vec<String> {
    if text.len() > LARGEST_FILE {
        return vec![];
    }
    let mut unheard = Reporter::new("", text);
    let Some(root) = tree::read(text, &mut unheard) else {
        return vec![];
    };
    let listed = listed(&root, "", &mut unheard).into_iter();
    listed.map(|(path, _)| path).collect()
}

/// What `include` of a file lists: at most [`MOST_INCLUDES`] paths, each once.
fn listed(root: &Node, file_name: &str, reporter: &mut Reporter<'_>) -> Vec<(String, At)> {
    let Value::Map(entries) = &root.value else {
        return vec![];
    };
    let Some(entry) = entries.iter().find(|entry| entry.key == "include") else {
        return vec![];
    };
    if matches!(entry.value.value, Value::Null) {
        fields::no_value(entry, reporter);
        return vec![];
    }
    let items = fields::items(entry, reporter).unwrap_or_default();
    if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
        let help = "name a file, or remove it";
        reporter.error_with_help(entry.value.at, "`include` is empty", help);
    }
    if items.len() > MOST_INCLUDES {
        let message = format!("`include` has at most {MOST_INCLUDES} files");
        reporter.error(entry.value.at, message);
    }
    let mut found: Vec<(String, At)> = vec![];
    for item in items.iter().take(MOST_INCLUDES) {
        let Some(text) = fields::scalar(item, "include", reporter).map(|it| it.text.as_str())
        else {
            continue;
        };
        match values::file_path(text) {
            Err(reason) => reporter.error(item.at, format!("`include`: `{text}` {reason}")),
            Ok(path) if path == file_name => {
                reporter.error(item.at, format!("`{path}` includes itself"));
            }
            Ok(path) if found.iter().any(|(other, _)| *other == path) => {
                reporter.error(item.at, format!("`{path}` stands in `include` twice"));
            }
            Ok(path) => found.push((path, item.at)),
        }
    }
    found
}

/// Puts the entries of all files that `root` includes into it, before its own.
///
/// # Errors
/// What is wrong with an included file that is no YAML. All other mistakes are reported.
pub(super) fn put_in<'t>(
    root: &mut Node,
    file_name: &str,
    included: &'t Included,
    reporter: &mut Reporter<'t>,
) -> Result<(), Diagnostics> {
    let mut sections: [Vec<Entry>; SECTIONS.len()] = Default::default();
    let mut places = [At::START; SECTIONS.len()];
    for (path, at) in listed(root, file_name, reporter) {
        let text = match included.get_key_value(&path) {
            Some((path, Ok(text))) if text.len() <= LARGEST_FILE => (path, text),
            Some((_, Ok(text))) => {
                let size = text.len();
                let message = format!("`{path}` has {size} bytes, at most {LARGEST_FILE} are read");
                reporter.error(at, message);
                continue;
            }
            Some((_, Err(reason))) => {
                reporter.error(at, format!("`include`: {reason}"));
                continue;
            }
            None => {
                reporter.error(at, format!("`{path}` cannot be read from here"));
                continue;
            }
        };
        let (path, text) = text;
        let mut own = Reporter::new(path, text);
        let read = tree::read(text, &mut own);
        let mut node = own.finish(read)?;
        let file = reporter.add(path, text);
        node.is_of(file);
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => {
                reporter.error(at, format!("`{path}` is empty"));
                continue;
            }
            Value::Scalar(_) | Value::List(_) => {
                let message = format!(
                    "an included file has to be a mapping, this is {}",
                    node.kind()
                );
                reporter.error(node.at, message);
                continue;
            }
        };
        for entry in entries {
            let Some(section) = SECTIONS.iter().position(|name| *name == entry.key) else {
                refuse(&entry, reporter);
                continue;
            };
            match entry.value.value {
                Value::Map(named) => {
                    if sections[section].is_empty() {
                        places[section] = entry.at;
                    }
                    add(&mut sections[section], named, &entry.key, reporter);
                }
                Value::Null => fields::no_value(&entry, reporter),
                Value::Scalar(_) | Value::List(_) => {
                    let found = entry.value.kind();
                    let message = format!("`{}` has to be a mapping, this is {found}", entry.key);
                    reporter.error(entry.value.at, message);
                }
            }
        }
    }
    let Value::Map(entries) = &mut root.value else {
        return Ok(());
    };
    for ((mut all, key), at) in sections.into_iter().zip(SECTIONS).zip(places) {
        if all.is_empty() {
            continue;
        }
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(own) => {
                // Anything else is refused where the file is read.
                if let Value::Map(named) = &mut own.value.value {
                    add(&mut all, std::mem::take(named), key, reporter);
                    *named = all;
                }
            }
            None => {
                let value = Value::Map(all);
                let key = key.to_owned();
                let value = Node { at, value };
                entries.push(Entry { key, at, value });
            }
        }
    }
    Ok(())
}

/// Adds the entries of one file to those of the files before it. One that is given twice in a file is found later.
fn add(all: &mut Vec<Entry>, more: Vec<Entry>, section: &str, reporter: &mut Reporter<'_>) {
    let before = all.len();
    for entry in more {
        let taken = all[..before].iter().find(|it| it.key == entry.key);
        let Some(taken) = taken else {
            all.push(entry);
            continue;
        };
        let file = reporter.name_of(taken.at).to_owned();
        let message = format!("`{}` of `{section}` stands in {file} already", entry.key);
        let help = "an entry stands in one file: rename or remove one of the two";
        reporter.error_with_help(entry.at, message, help);
    }
}

fn refuse(entry: &Entry, reporter: &mut Reporter<'_>) {
    let help = if entry.key == "include" {
        "a file that is included includes no others: list them in the pipeline file".to_owned()
    } else {
        let sections = fields::list(&SECTIONS.map(|name| format!("`{name}`")), "and");
        format!("it has {sections}; everything else stands in the pipeline file")
    };
    let message = format!("an included file cannot have `{}`", entry.key);
    reporter.error_with_help(entry.at, message, help);
}
