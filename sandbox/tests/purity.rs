//! The scheduler decides and does nothing: its sources name nothing that could do something.

use std::path::Path;

/// What would make it impure, and the rooms that it must not know.
const FORBIDDEN: [&str; 14] = [
    "tokio",
    "hyper",
    "bollard",
    "rand::",
    "std::fs",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "crate::services",
    "crate::wire",
    "crate::state",
    "crate::backends",
    "async ",
];

#[test]
fn the_scheduler_is_pure() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scheduler");
    let mut files = 0;
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in FORBIDDEN {
                assert!(
                    !line.contains(word),
                    "{}:{}: the scheduler must not know `{word}`",
                    path.display(),
                    number + 1
                );
            }
        }
        files += 1;
    }
    assert!(files >= 5, "only {files} source files were found");
}
