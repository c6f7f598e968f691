//! Caches of a step: folders and files of its workspace that the next runs find there.

use super::decode::{map, some_globs};
use super::diagnostic::Reporter;
use super::fields::{Fields, items};
use super::tree::{Entry, Value};
use super::{keys, step_files::MOST_PATTERNS, values};
use crate::id::{InvalidName, StepName};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Most caches of one step.
pub(super) const MOST_CACHES: usize = 8;
/// Most paths of one cache.
pub(super) const MOST_CACHE_PATHS: usize = 32;

/// One cache of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Folders and files below the workspace, none below another.
    pub paths: Vec<String>,
    /// Globs over files whose content makes the key, those with `!` taking away. Not empty.
    pub key: Vec<String>,
}

/// Reads `caches` of a step.
pub(super) fn of_step(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> IndexMap<String, Cache> {
    // The rules of a step's name are right for what is part of an address and a log's line.
    let name = |text: &str| {
        let named = StepName::parse(text).map_err(|error| InvalidName {
            what: "cache name",
            ..error
        });
        named.map(|name| name.to_string())
    };
    let caches = map(fields, "caches", name, cache, reporter);
    if caches.len() > MOST_CACHES
        && let Some(entry) = fields.get("caches", reporter)
    {
        let message = format!(
            "a step has at most {MOST_CACHES} caches, this has {}",
            caches.len()
        );
        reporter.error(entry.at, message);
    }
    let mut all: Vec<&String> = vec![];
    for path in caches.values().flat_map(|cache| &cache.paths) {
        if let Some(other) = all.iter().find(|other| overlap(other, path))
            && let Some(entry) = fields.get("caches", reporter)
        {
            let message = format!("`{path}` and `{other}` of `caches` lie in each other");
            reporter.error_with_help(entry.at, message, "name the outer one alone");
        }
        all.push(path);
    }
    caches
}

/// One is the other, or below it.
fn overlap(one: &str, other: &str) -> bool {
    let is_in = |path: &str, of: &str| {
        path.strip_prefix(of)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_in(one, other) || is_in(other, one)
}

fn cache(name: &str, entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Cache> {
    let fields = Fields::read(&entry.value, Some(name), entry.at, &keys::CACHE, reporter)?;
    let paths = paths(&fields, reporter);
    fields.require("key", reporter)?;
    let key = some_globs(&fields, "key", reporter);
    if key.len() > MOST_PATTERNS {
        let message = format!("`key` has at most {MOST_PATTERNS} patterns");
        reporter.error(entry.at, message);
    }
    Some(Cache { paths: paths?, key })
}

fn paths(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Vec<String>> {
    let entry = fields.require("paths", reporter)?;
    if let Value::List(_) = &entry.value.value
        && items(entry, reporter)?.is_empty()
    {
        reporter.error(entry.value.at, "`paths` is empty");
    }
    let mut found = vec![];
    for (text, at) in fields.texts("paths", reporter)? {
        match path(text) {
            Ok(path) => found.push(path),
            Err(reason) => reporter.error(at, format!("`paths`: `{text}` {reason}")),
        }
    }
    if found.len() > MOST_CACHE_PATHS {
        let message = format!("a cache has at most {MOST_CACHE_PATHS} paths");
        reporter.error(entry.value.at, message);
    }
    Some(found)
}

/// A folder or file below the workspace, and not the workspace itself.
fn path(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("is empty");
    }
    if text.contains(['*', '?', '[', ']', '{', '}']) {
        return Err("looks like a pattern: name the folder, all of it is kept");
    }
    match values::path(text)?.as_str() {
        "." => Err("is the whole workspace: name folders in it"),
        path => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{StepAction, parse};

    fn read(caches: &str) -> Result<IndexMap<String, Cache>, String> {
        let text = format!(
            "version: 1\nname: shop\nsteps:\n  test: {{ image: a, run: b, caches: {caches} }}\n"
        );
        let pipeline = parse("f", &text).map_err(|diagnostics| diagnostics.to_string())?;
        match &pipeline.steps[0].action {
            StepAction::Run { files, .. } => Ok(files.caches.clone()),
            StepAction::Build { .. } => panic!("it runs a script"),
        }
    }

    #[test]
    fn a_cache_has_paths_and_a_key() {
        let caches =
            read("{ cargo: { paths: [./.cargo/registry/, target], key: ['**/Cargo.lock'] } }");
        let caches = caches.unwrap();
        assert_eq!(caches["cargo"].paths, [".cargo/registry", "target"]);
        assert_eq!(caches["cargo"].key, ["**/Cargo.lock"]);
    }

    #[test]
    fn what_leads_out_or_caches_nothing_is_refused() {
        for (wrong, said) in [
            ("{}", "`caches` is empty"),
            ("{ a: { paths: [x] } }", "needs `key`"),
            ("{ a: { key: [x] } }", "needs `paths`"),
            ("{ a: { paths: [], key: [x] } }", "`paths` is empty"),
            ("{ a: { paths: [x], key: [] } }", "`key` is empty"),
            (
                "{ a: { paths: [../x], key: [x] } }",
                "leaves the repository",
            ),
            (
                "{ a: { paths: [x/../../y], key: [x] } }",
                "leaves the repository",
            ),
            ("{ a: { paths: [/opt/tools], key: [x] } }", "is absolute"),
            ("{ a: { paths: [.], key: [x] } }", "is the whole workspace"),
            (
                "{ a: { paths: ['dist/**'], key: [x] } }",
                "looks like a pattern",
            ),
            ("{ a: { paths: [x, x/y], key: [x] } }", "lie in each other"),
            (
                "{ a: { paths: [x], key: [x] }, b: { paths: [x], key: [x] } }",
                "lie in each other",
            ),
            ("{ 'a/b': { paths: [x], key: [x] } }", "cache name"),
            ("{ a: { path: [x], key: [x] } }", "paths"),
        ] {
            let told = read(wrong).unwrap_err();
            assert!(told.contains(said), "{wrong}: {told}");
        }
        assert!(read("{ a: { paths: [x, xy, x.y], key: [x] } }").is_ok());
        let many: String = (0..=MOST_CACHES)
            .map(|n| format!("c{n}: {{ paths: [p{n}], key: [x] }}, "))
            .collect();
        let told = read(&format!("{{ {many} }}")).unwrap_err();
        assert!(told.contains("at most 8 caches"), "{told}");
    }
}
