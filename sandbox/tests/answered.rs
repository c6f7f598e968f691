//! What docs/sandbox-api.md says that answers have, some answer had. Looks at what the checks of all
//! other tests saw, so `make test` starts it last.

#[path = "clients/python.rs"]
mod python;

use python::{check, python};
use std::path::Path;
use std::process::Command;

#[test]
fn every_member_that_the_page_promises_was_in_some_answer() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let looked = Command::new(python())
        .arg("-B")
        .arg(house.join("tests/clients/members.py"))
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("answers"))
        .output()
        .unwrap();
    check("the members of answers", &looked);
}
