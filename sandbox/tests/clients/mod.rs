//! AWS clients that nobody here wrote.

pub(crate) mod answers;
pub(crate) mod python;

use python::{check, python};
use std::path::Path;
use std::process::Command;

/// Runs one story of a script and fails when it does not hold. Blocks until it ends.
pub(crate) fn tell(script: &str, endpoint: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let told = Command::new(python())
        // Nothing is written beside the sources.
        .arg("-B")
        .arg(script)
        .args(["--endpoint", endpoint])
        .args(arguments)
        .output()
        .expect("python starts");
    check(&arguments.join(" "), &told);
}
