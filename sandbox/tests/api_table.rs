//! The page of what the sandbox takes is true: it is made of the sandbox's lists and AWS's models.

#[path = "clients/python.rs"]
mod python;

use python::{check, python};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn the_page_of_operations_and_members_is_what_the_sandbox_does() {
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut asked = Command::new(python())
        .arg("-B")
        .arg(house.join("tests/clients/api_table.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let catalog = roadstead_sandbox::catalog().to_string();
    // Dropped at the end of the statement, so that the script sees the end.
    asked
        .stdin
        .take()
        .unwrap()
        .write_all(catalog.as_bytes())
        .unwrap();
    let answer = asked.wait_with_output().unwrap();
    check("the lists beside AWS's models", &answer);
    let page = String::from_utf8(answer.stdout).unwrap();
    let path = house.join("../docs/sandbox-api.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == page,
        "docs/sandbox-api.md is not what the sandbox does; UPDATE_DOCS=1 writes it anew"
    );
}
