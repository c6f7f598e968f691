//! What becomes of files in a step's workspace after it, and which of them it finds again.

use super::caches::{self, Cache};
use super::decode::some_globs;
use super::diagnostic::Reporter;
use super::fields::{self, Fields};
use super::keys;
use super::tree::{Entry, Value};
use super::trigger::{check_pattern, matches_patterns};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Most patterns of one step's artifacts.
pub(super) const MOST_PATTERNS: usize = 64;

/// What becomes of files in a step's workspace after its container has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepFiles {
    /// Globs over files that are kept, those with `!` taking away. Empty: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Globs over JUnit reports, those with `!` taking away. Empty: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub junit: Vec<String>,
    /// What the next runs find in their workspace, by name. Empty: nothing.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub caches: IndexMap<String, Cache>,
}

impl StepFiles {
    /// Says nothing.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the file at `path`, relative to the workspace, is kept.
    #[must_use]
    pub fn keeps(&self, path: &str) -> bool {
        !self.artifacts.is_empty() && matches_patterns(&self.artifacts, path)
    }
}

/// Reads the keys of a step that name files.
pub(super) fn of_step(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> StepFiles {
    let artifacts = some_globs(fields, "artifacts", reporter);
    if artifacts.len() > MOST_PATTERNS
        && let Some(entry) = fields.get("artifacts", reporter)
    {
        let message = format!(
            "a step has at most {MOST_PATTERNS} patterns of artifacts, this has {}",
            artifacts.len()
        );
        reporter.error(entry.at, message);
    }
    let junit = fields
        .get("reports", reporter)
        .and_then(|entry| reports(entry, reporter));
    StepFiles {
        artifacts,
        junit: junit.unwrap_or_default(),
        caches: caches::of_step(fields, reporter),
    }
}

fn reports(entry: &Entry, reporter: &mut Reporter<'_>) -> Option<Vec<String>> {
    let fields = Fields::read(&entry.value, None, entry.at, &keys::REPORTS, reporter)?;
    let entry = fields.require("junit", reporter)?;
    if let Value::List(_) = &entry.value.value {
        return Some(some_globs(&fields, "junit", reporter));
    }
    // One pattern needs no list.
    let pattern = &fields::scalar(&entry.value, "junit", reporter)?.text;
    match check_pattern(pattern) {
        Ok(()) => Some(vec![pattern.clone()]),
        Err(reason) => {
            let message = format!("`{pattern}` is no pattern: {reason}");
            reporter.error(entry.value.at, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{StepAction, parse};

    fn read(artifacts: &str) -> Result<StepFiles, String> {
        read_step(&format!("artifacts: {artifacts}"))
    }

    fn read_step(keys: &str) -> Result<StepFiles, String> {
        let text =
            format!("version: 1\nname: shop\nsteps:\n  test: {{ image: a, run: b, {keys} }}\n");
        let pipeline = parse("f", &text).map_err(|diagnostics| diagnostics.to_string())?;
        match &pipeline.steps[0].action {
            StepAction::Run { files, .. } => Ok(files.clone()),
            StepAction::Build { .. } => panic!("it runs a script"),
        }
    }

    #[test]
    fn files_are_kept_by_the_last_pattern_that_matches() {
        let files = read(r#"["dist/**", "*.log", "!dist/**/*.map"]"#).unwrap();
        let kept = ["dist/app.js", "dist/a/b.css", "test.log"];
        let left = ["dist/a/b.map", "dist", "sub/test.log", "src/main.rs"];
        assert!(kept.iter().all(|path| files.keeps(path)), "{files:?}");
        assert!(!left.iter().any(|path| files.keeps(path)), "{files:?}");
        assert!(!StepFiles::default().keeps("anything"));
    }

    #[test]
    fn reports_are_one_pattern_or_a_list() {
        let junit = |keys: &str| read_step(&format!("reports: {{ junit: {keys} }}"));
        assert_eq!(junit("'**/*.xml'").unwrap().junit, ["**/*.xml"]);
        assert_eq!(
            junit("[a.xml, '!b.xml']").unwrap().junit,
            ["a.xml", "!b.xml"]
        );
        for (wrong, said) in [
            ("[]", "`junit` is empty"),
            ("/a.xml", "begin without `/`"),
            ("['a[']", "is no pattern"),
        ] {
            let told = junit(wrong).unwrap_err();
            assert!(told.contains(said), "{wrong}: {told}");
        }
        let told = read_step("reports: {}").unwrap_err();
        assert!(told.contains("junit"), "{told}");
    }

    #[test]
    fn what_could_keep_nothing_is_refused() {
        for (wrong, said) in [
            ("[]", "`artifacts` is empty"),
            ("['/etc/passwd']", "patterns begin without `/`"),
            ("['!']", "nothing follows"),
            ("['a[']", "is no pattern"),
        ] {
            let told = read(wrong).unwrap_err();
            assert!(told.contains(said), "{wrong}: {told}");
        }
        let many: Vec<String> = (0..=MOST_PATTERNS).map(|n| format!("f{n}")).collect();
        let told = read(&format!("[{}]", many.join(", "))).unwrap_err();
        assert!(told.contains("at most 64 patterns"), "{told}");
    }
}
