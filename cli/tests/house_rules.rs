//! The rules between the houses, held by tests: who may use whom, what a pure room must not know,
//! how long a file may get, and that what the documentation names is there.
//!
//! Dependencies are read from `cargo tree`, names from the sources. Comments may name anything that
//! code may not, but nobody's machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
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
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Another test's own folder, gone meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && !found.is_empty() => continue,
            Err(error) => panic!("{}: {error}", folder.display()),
        };
        for entry in entries {
            let path = entry.expect("a folder can be read to its end").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !name.starts_with("target") && name != "node_modules" {
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
        let text = read(&path);
        let shown = shown(&path);
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

/// Whether code uses one of AWS's crates, which are called `aws_sdk_…`, `aws_config` and so on.
fn names_aws(line: &str) -> bool {
    ["aws_config", "aws_sdk", "aws_smithy", "aws_types"]
        .iter()
        .any(|family| names(line, family))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Names below `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<&str> {
    let of_section = manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    of_section
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

/// Every text that people wrote.
fn texts() -> Vec<PathBuf> {
    let endings = [
        "rs", "md", "toml", "yml", "yaml", "sh", "py", "html", "css", "js", "svg", "sql", "snap",
    ];
    let mut found = files(".", &endings);
    for name in [
        "Makefile",
        "Dockerfile",
        ".dockerignore",
        ".env.example",
        ".ci/run",
    ] {
        found.push(root().join(name));
    }
    found
}

/// A registry's host, or a folder of somebody's machine, in a line.
fn elsewhere(line: &str) -> Option<&'static str> {
    const HOSTS: [&str; 6] = [
        "docker.io/",
        "ghcr.io",
        "gcr.io",
        "quay.io",
        "public.ecr.aws",
        ".dkr.ecr.",
    ];
    const FOLDERS: [&str; 2] = ["/root/", "/home/"];
    let host = HOSTS.into_iter().find(|host| line.contains(host));
    host.or_else(|| {
        FOLDERS.into_iter().find(|folder| {
            line.match_indices(folder).any(|(at, _)| {
                // Within a longer path or address it is only a part of that one.
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/)}>".contains(c))
            })
        })
    })
}

/// Where links of a Markdown text lead, within the repository; comments and code are left out.
fn links(text: &str) -> Vec<&str> {
    let mut found = vec![];
    let mut in_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        }
        if in_code || line.starts_with("<!--") {
            continue;
        }
        for part in line.split("](").skip(1) {
            let Some((target, _)) = part.split_once(')') else {
                continue;
            };
            if !target.contains("://") {
                found.push(target);
            }
        }
    }
    found
}

/// What headings of a Markdown text can be linked as.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
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
    let allowed: [(&str, &[&str]); 7] = [
        ("pipelines", &[]),
        ("protocol", &[]),
        ("masking", &[]),
        ("sandbox", &[]),
        ("web", &[]),
        ("runner", &["masking", "protocol"]),
        ("server", &["masking", "pipelines", "protocol", "web"]),
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
    for house in ["pipelines", "protocol", "masking", "web"] {
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
    for room in [
        "pipelines/src",
        "masking/src",
        "web/src",
        "sandbox/src/scheduler",
    ] {
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
        "masking",
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
fn the_wire_needs_serde_and_the_pages_need_templates() {
    let allowed: [(&str, &[&str]); 2] = [
        ("protocol", &["serde", "serde_json"]),
        ("web", &["askama", "rust-embed", "serde", "vte"]),
    ];
    for (house, may) in allowed {
        let manifest = read(&root().join(house).join("Cargo.toml"));
        let used = dependencies(&manifest);
        assert!(!used.is_empty(), "no dependencies read of {house}");
        let more: Vec<_> = used.iter().filter(|name| !may.contains(name)).collect();
        assert!(more.is_empty(), "{house} may use {may:?}, not {more:?}");
    }
}

#[test]
fn only_adapters_reach_the_world_outside() {
    let mut lines = code("server/src");
    lines.retain(|(place, _)| !place.starts_with("server/src/adapters"));
    let found = places(&lines, |line| {
        ["git2", "reqwest", "object_store"]
            .iter()
            .any(|family| names(line, family))
            || names_aws(line)
    });
    assert!(
        found.is_empty(),
        "git, AWS and outgoing HTTP stay in server/src/adapters:{found}"
    );
}

#[test]
fn nothing_names_a_registry_or_somebodys_machine() {
    let mut broken = vec![];
    for path in texts() {
        // This file has to name what it forbids.
        if path.ends_with("cli/tests/house_rules.rs") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if let Some(word) = elsewhere(line) {
                broken.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "the repository says nothing of where it is built: {broken:#?}"
    );
}

#[test]
fn what_is_elsewhere_is_told_from_what_is_not() {
    assert_eq!(elsewhere("FROM ghcr.io/a/b"), Some("ghcr.io"));
    assert_eq!(
        elsewhere("docker pull docker.io/library/x"),
        Some("docker.io/")
    );
    assert_eq!(elsewhere("see `/root/.cargo`"), Some("/root/"));
    assert_eq!(elsewhere("/home/maya/x"), Some("/home/"));
    assert_eq!(elsewhere("need docker.io dockerd"), None);
    assert_eq!(elsewhere("the folder tree/root/ and `a.root/`"), None);
    assert_eq!(elsewhere("src/home/page.rs"), None);
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let mut broken = vec![];
    let mut seen = 0;
    for path in files(".", &["md"]) {
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let text = read(&path);
        for target in links(&text) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            seen += 1;
            let headed =
                heading.is_empty() || (file.is_file() && anchors(&read(&file)).contains(heading));
            if !file.exists() || !headed {
                broken.push(format!("{}: {target}", shown(&path)));
            }
        }
    }
    assert!(seen > 20, "only {seen} links were read");
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn the_map_names_rooms_that_exist() {
    let text = read(&root().join("docs/ARCHITECTURE.md"));
    let houses = [
        "",
        "pipelines",
        "protocol",
        "masking",
        "server",
        "runner",
        "web",
        "sandbox",
        "cli",
    ];
    let bases: Vec<_> = houses
        .iter()
        .flat_map(|house| {
            [
                root().join(house),
                root().join(house).join("src"),
                root().join("migrations"),
            ]
        })
        .collect();
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = !word.contains([' ', ':', '*', '<', '{'])
            && word.contains('/')
            && (word.ends_with('/') || Path::new(word).extension().is_some());
        if is_path && !word.starts_with('.') {
            named += 1;
            assert!(
                bases.iter().any(|base| base.join(word).exists()),
                "docs/ARCHITECTURE.md names `{word}`, which is nowhere"
            );
        }
    }
    assert!(named > 40, "only {named} paths were read");
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
        let text = read(&path);
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

/// A mutant that no longer fits the sources breaks nothing, and nobody would know until it is run.
#[test]
fn every_mutant_fits_the_sources() {
    let folder = root().join("cli/tests/chaos/mutants");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the mutants are there") {
        let path = entry.expect("a folder can be read").path();
        let output = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            .output()
            .expect("git can be started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", path.display());
        count += 1;
    }
    assert!(count >= 15, "only {count} mutants");
}
