//! AWS clients that nobody here wrote.

mod python;

use python::{check, python};
use std::path::Path;
use std::process::Command;

/// Runs one story of `ecs_story.py` and fails when it does not hold. Blocks until it ends.
pub(crate) fn tell(endpoint: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/ecs_story.py");
    let told = Command::new(python())
        .arg(script)
        .args(["--endpoint", endpoint])
        .args(arguments)
        .output()
        .expect("python starts");
    check(&arguments.join(" "), &told);
}
