//! AWS's API models say whether answers are AWS's.

use super::python::{check, python};
use std::path::Path;
use std::process::Command;

/// Holds every answer in the call log of a data directory against the models. The calls must have
/// been recorded with their answers.
pub(crate) fn check_answers(data: &Path) {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../sandbox/tests/clients/answers.py"
    );
    let checked = Command::new(python())
        .args(["-B", script])
        .arg(data.join("calls.jsonl"))
        // Where what looks at all checks reads what each saw: `sandbox/tests/answered.rs`.
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("answers"))
        .output()
        .expect("python starts");
    check("the answers", &checked);
}
