//! The rules between the houses, held by tests: who may use whom, what a pure room must not know,
//! and how long a file may get.
//!
//! Dependencies are read from `cargo tree`, names from the sources. Comments may name anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that act on the world; a decision needs none of them.
const ACTING: [&str; 8] = [
    "tokio", "diesel", "actix", "git2", "bollard", "aws", "hyper", "reqwest",
];

/// Calls that read a clock; whoever decides is told the time.
const CLOCKS: [&str; 4] = [
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
];

/// A file of code that is longer hides a room that wants a name of its own.
const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace is around this package")
        .to_owned()
}

/// Names of all packages that `package` is built with, itself included; tests' helpers do not count.
fn packages(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let names: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(
        names.contains(package),
        "cargo tree names no {package}:\n{text}"
    );
    names
}

/// Whether `name` is `family` or one of its parts: `aws-sdk-ecs` and `aws_sdk_ecs` are of `aws`.
fn is_of(name: &str, family: &str) -> bool {
    name.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Files below `folder` with one of the endings, without what is built or fetched.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("a folder can be read to its end").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|e| endings.iter().any(|ending| e == *ending))
            {
                found.push(path);
            }
        }
    }
    assert!(
        !found.is_empty(),
        "no {endings:?} below {folder}: the rule would hold of nothing"
    );
    found.sort();
    found
}

/// Lines of code with their places, `path:line`; comments are left out.
fn code(folder: &str) -> Vec<(String, String)> {
    let mut lines = vec![];
    for path in files(folder, &["rs"]) {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let shown = path
            .strip_prefix(root())
            .unwrap_or(&path)
            .display()
            .to_string();
        for (number, line) in text.lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                lines.push((format!("{shown}:{}", number + 1), line.to_owned()));
            }
        }
    }
    lines
}

/// Whether code uses a crate of `family`; `"arn:aws:ecs"` in a text does not.
fn names(line: &str, family: &str) -> bool {
    line.match_indices(family).any(|(start, _)| {
        let (before, from) = line.split_at(start);
        let end = from
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        whole
            && is_of(word, family)
            && (after.starts_with("::") || before.trim_end().ends_with("use"))
    })
}

fn places(lines: &[(String, String)], broken: impl Fn(&str) -> bool) -> String {
    let found = lines.iter().filter(|(_, line)| broken(line));
    found
        .map(|(place, line)| format!("\n  {place}: {}", line.trim()))
        .collect()
}

#[test]
fn a_name_is_told_from_one_that_only_looks_like_it() {
    assert!(names("use aws_sdk_ecs::Client;", "aws") && names("    tokio::spawn(x)", "tokio"));
    assert!(names("pub use diesel as d;", "diesel") && names("#[tokio::main]", "tokio"));
    assert!(!names("let laws = awsome::x;", "aws") && !names("tokiolike::run();", "tokio"));
    assert!(!names("\"arn:aws:ecs:eu-west-1:1:service/a\"", "aws"));
    assert!(is_of("aws-config", "aws") && !is_of("awscrt", "aws"));
}

#[test]
fn houses_use_only_the_houses_they_may() {
    let allowed: [(&str, &[&str]); 6] = [
        ("pipelines", &[]),
        ("protocol", &[]),
        ("sandbox", &[]),
        ("web", &[]),
        ("runner", &["protocol"]),
        ("server", &["pipelines", "protocol", "web"]),
    ];
    for (house, may) in allowed {
        let package = format!("roadstead-{house}");
        let used: BTreeSet<_> = packages(&package)
            .into_iter()
            .filter(|name| name.starts_with("roadstead-"))
            .collect();
        let expected: BTreeSet<_> = may
            .iter()
            .map(|house| format!("roadstead-{house}"))
            .chain([package])
            .collect();
        assert_eq!(used, expected, "houses that {house} is built with");
    }
}

#[test]
fn deciding_drawing_and_the_wire_are_built_without_anything_that_acts() {
    for house in ["pipelines", "protocol", "web"] {
        let used = packages(&format!("roadstead-{house}"));
        let acting: Vec<_> = used
            .iter()
            .filter(|name| ACTING.iter().any(|family| is_of(name, family)))
            .collect();
        assert!(
            acting.is_empty(),
            "{house} decides or draws, and must not act with {acting:?}"
        );
    }
}

#[test]
fn pure_rooms_name_nothing_that_acts_and_no_clock() {
    for room in ["pipelines/src", "web/src", "sandbox/src/scheduler"] {
        let lines = code(room);
        let acting = places(&lines, |line| {
            ACTING.iter().any(|family| names(line, family))
        });
        assert!(acting.is_empty(), "{room} only decides:{acting}");
        let clocks = places(&lines, |line| CLOCKS.iter().any(|call| line.contains(call)));
        assert!(
            clocks.is_empty(),
            "{room} is told the time and must not read it:{clocks}"
        );
    }
}

#[test]
fn the_database_is_named_in_the_store_alone() {
    for house in [
        "pipelines",
        "protocol",
        "server",
        "runner",
        "web",
        "sandbox",
        "cli",
    ] {
        let mut lines = code(&format!("{house}/src"));
        lines.retain(|(place, _)| !place.starts_with("server/src/store/"));
        let found = places(&lines, |line| names(line, "diesel"));
        assert!(found.is_empty(), "Diesel stays in server/src/store:{found}");
    }
}

#[test]
fn the_server_knows_neither_docker_nor_the_sandbox() {
    let docker = packages("roadstead-server")
        .into_iter()
        .find(|name| is_of(name, "bollard"));
    assert_eq!(
        docker, None,
        "the server asks runners and clusters, never Docker Engine"
    );
    // `endpoint_url` is how a sandbox is reached; its own ports and paths are nobody's business.
    let found = places(&code("server/src"), |line| {
        names(line, "bollard")
            || ["/_sandbox", "4566", "4570"]
                .iter()
                .any(|own| line.contains(own))
    });
    assert!(
        found.is_empty(),
        "the server talks to AWS, whoever answers:{found}"
    );
}

#[test]
fn no_test_is_skipped() {
    let skipped = places(&code("."), |line| line.trim_start().starts_with("#[ignore"));
    assert!(
        skipped.is_empty(),
        "what a test needs, `make setup` brings:{skipped}"
    );
}

#[test]
fn files_of_code_stay_short_enough_to_be_read() {
    let mut long = vec![];
    for path in files(".", &["rs", "js", "css", "html", "sql", "sh", "py"]) {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(
        long.is_empty(),
        "at most {LONGEST_FILE} lines, make rooms of: {long:#?}"
    );
}
