//! Every file of `tests/refused` is refused, and what is said about it is the snapshot beside it.

use roadstead_pipelines::spec::{LARGEST_FILE, parse};
use std::path::Path;

#[test]
fn each_mistake_is_said_as_its_snapshot_says_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&directory);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        let mut names: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".yml").map(str::to_owned))
            .collect();
        names.sort();
        assert!(names.len() >= 30, "the files are gone");
        for name in names {
            let text = std::fs::read_to_string(directory.join(format!("{name}.yml"))).unwrap();
            match parse(".roadstead/pipeline.yml", &text) {
                Ok(pipeline) => panic!("{name}.yml was accepted: {pipeline:#?}"),
                Err(diagnostics) => {
                    assert!(!diagnostics.list().is_empty());
                    insta::assert_snapshot!(name.as_str(), diagnostics);
                }
            }
        }
    });
}

#[test]
fn a_file_above_the_limit_is_not_looked_at() {
    let within = format!("{}\nname: [", "#".repeat(LARGEST_FILE - 8));
    assert_eq!(within.len(), LARGEST_FILE);
    let said = parse("pipeline.yml", &within).unwrap_err().to_string();
    assert!(said.contains("not valid YAML"), "{said}");
    let above = format!("{within}#");
    let said = parse("pipeline.yml", &above).unwrap_err().to_string();
    assert_eq!(
        said,
        "pipeline.yml:1:1: the file has 262145 bytes, at most 262144 are read"
    );
}

/// Ten files that make readers of YAML run out of memory, of stack or of time.
#[test]
fn bombs_are_refused() {
    let doubling = (0..60).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let next = level + 1;
        format!("{text}a{next}: &a{next} [*a{level}, *a{level}]\n")
    });
    let merging = (0..100).fold("m0: &m0 { a: 1 }\n".to_owned(), |text, level| {
        let next = level + 1;
        format!("{text}m{next}: &m{next} {{ <<: [*m{level}, *m{level}], b{level}: 1 }}\n")
    });
    let many = 60_000;
    let block = (0..500).fold(String::new(), |text, level| {
        format!("{text}{}k:\n", " ".repeat(level))
    });
    for (what, text) in [
        ("doubling aliases", doubling),
        ("doubling merges", merging),
        ("flow lists", "[".repeat(100_000)),
        ("flow mappings", "{a: ".repeat(50_000)),
        ("block lists", "- ".repeat(100_000)),
        ("block mappings", block),
        (
            "many values",
            format!("version: 1\nname: [{}]\n", "a,".repeat(many)),
        ),
        (
            "many keys",
            (0..many / 2).fold(String::new(), |text, n| format!("{text}{n}: 1\n")),
        ),
        (
            "many anchors",
            (0..9_000).fold(String::new(), |text, n| format!("{text}k{n}: &a{n} 1\n")),
        ),
        ("an alias of itself", "a: &a [*a]\n".to_owned()),
    ] {
        assert!(
            text.len() <= LARGEST_FILE,
            "{what} would be refused for its size alone"
        );
        let said = parse("pipeline.yml", &text).expect_err(what);
        assert!(said.list().len() <= 50, "{what}");
    }
}
