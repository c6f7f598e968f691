//! A look into a PostgreSQL database beside the product.

use std::process::Command;

/// What a query answers, its rows as lines, without spaces around it.
pub(crate) fn sql(url: &str, query: &str) -> String {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--tuples-only", "--no-align"])
        .args(["--command", query, url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{query}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
