//! The verbs about the pipeline file that need no server, from the command line.

use std::path::Path;
use std::process::{Command, Output};

fn roadstead(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("roadstead can be started")
}

#[test]
fn the_schema_is_printed_as_it_is() {
    let Output { status, stdout, .. } = roadstead(Path::new("."), &["schema"]);
    assert!(status.success());
    let printed = String::from_utf8(stdout).expect("UTF-8");
    assert_eq!(printed, roadstead_pipelines::spec::SCHEMA);
}
