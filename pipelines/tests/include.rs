//! A pipeline file whose entries stand in several files.

use roadstead_pipelines::spec::{
    Included, LARGEST_FILE, MOST_INCLUDES, Pipeline, includes, parse, parse_with,
};

const FILE: &str = ".roadstead/pipeline.yml";

/// A file that includes these, with their texts.
fn read(own: &str, files: &[(&str, &str)]) -> Result<Pipeline, String> {
    let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
    let text = format!(
        "version: 1\nname: shop\ninclude: [{}]\n{own}",
        paths.join(", ")
    );
    let texts = files.iter();
    let texts: Included = texts
        .map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned())))
        .collect();
    parse_with(FILE, &text, &texts).map_err(|found| found.to_string())
}

fn names<'n, N: AsRef<str> + 'n>(names: impl Iterator<Item = &'n N>) -> Vec<&'n str> {
    names.map(AsRef::as_ref).collect()
}

#[test]
fn entries_of_included_files_come_before_the_own_ones() {
    let steps = "steps:\n  lint: { image: a, run: b }\n";
    let places = "environments:\n  staging: { ecs: { cluster: a, service: web } }\n";
    let own = "images: { web: { repository: web } }\nsteps:\n  build: { build: [web], needs: [lint] }\n\
               services: { web: { image: web } }\nenvironments:\n  production: { after: staging, ecs: { \
               cluster: b, service: web } }\n";
    let files = [("ci/steps.yml", steps), ("ci/places.yml", places)];
    let pipeline = read(own, &files).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(names(pipeline.steps.keys()), ["lint", "build"]);
    assert_eq!(
        names(pipeline.environments.keys()),
        ["staging", "production"]
    );
    // Whatever is not the own one's may be all in others.
    let whole = read("", &[("ci/steps.yml", steps)]).unwrap();
    assert_eq!(names(whole.steps.keys()), ["lint"]);
    // As if it stood there: the same pipeline.
    let written = format!("version: 1\nname: shop\n{steps}");
    assert_eq!(whole, parse(FILE, &written).unwrap());
}

#[test]
fn a_mistake_is_said_with_the_file_that_it_is_in() {
    let said = |own: &str, files: &[(&str, &str)]| read(own, files).unwrap_err();
    let ok = "steps:\n  lint: { image: a, run: b }\n";

    let found = said(
        "",
        &[
            ("a.yml", ok),
            ("b.yml", "steps:\n  test: { image: a, rnu: b }\n"),
        ],
    );
    assert!(
        found.starts_with(
            "b.yml:2:21: unknown key `rnu` in step `test`\n2 |   test: { image: a, rnu: b }\n"
        ),
        "{found}"
    );
    let found = said(
        "",
        &[
            (
                "a.yml",
                "steps:\n  test: { image: a, run: b, needs: [lnit] }\n",
            ),
            ("b.yml", ok),
        ],
    );
    assert!(
        found.starts_with("a.yml:2:37: there is no step `lnit`\n"),
        "{found}"
    );
    assert!(found.ends_with("= help: did you mean `lint`?"), "{found}");

    // No entry is laid over another one, of the own file or of an included one.
    let found = said("steps:\n  lint: { image: c, run: d }\n", &[("a.yml", ok)]);
    let expected = ".roadstead/pipeline.yml:5:3: `lint` of `steps` stands in a.yml already\n";
    assert!(found.starts_with(expected), "{found}");
    assert!(found.contains("rename or remove one of the two"), "{found}");
    let found = said("", &[("a.yml", ok), ("b.yml", ok)]);
    assert!(
        found.starts_with("b.yml:2:3: `lint` of `steps` stands in a.yml already\n"),
        "{found}"
    );
    let twice = format!("{ok}  lint: {{ image: a, run: b }}\n");
    let found = said("", &[("a.yml", &twice)]);
    assert!(found.starts_with("a.yml:3:3: "), "{found}");

    let found = said(
        "",
        &[(
            "a.yml",
            "name: other\ninclude: [b.yml]\nsteps: [x]\nimages:\n",
        )],
    );
    let lines: Vec<&str> = found
        .lines()
        .filter(|line| line.starts_with("a.yml:"))
        .collect();
    assert_eq!(
        lines,
        [
            "a.yml:1:1: an included file cannot have `name`",
            "a.yml:2:1: an included file cannot have `include`",
            "a.yml:3:8: `steps` has to be a mapping, this is a list",
            "a.yml:4:1: `images` has no value",
        ],
        "{found}"
    );
    let found = said("", &[("a.yml", "steps: {")]);
    assert!(found.starts_with("a.yml:1:"), "{found}");
    let found = said("", &[("a.yml", "")]);
    assert!(
        found.starts_with(".roadstead/pipeline.yml:3:11: `a.yml` is empty\n"),
        "{found}"
    );
    let found = said("", &[("a.yml", "- x\n")]);
    assert!(
        found.starts_with("a.yml:1:1: an included file has to be a mapping, this is a list"),
        "{found}"
    );
    let large = format!("{ok}#{}", "x".repeat(LARGEST_FILE));
    let found = said("", &[("a.yml", &large)]);
    assert!(
        found.contains("pipeline.yml:3:11: `a.yml` has 262"),
        "{found}"
    );
}

#[test]
fn what_cannot_be_included_is_refused_where_it_is_named() {
    let said = |include: &str| {
        let text = format!(
            "version: 1\nname: shop\ninclude: {include}\nsteps: {{ a: {{ image: a, run: b }} }}\n"
        );
        let reason = Err("b.yml does not exist at commit c0ffee0".to_owned());
        let texts = Included::from([("b.yml".to_owned(), reason)]);
        let found = parse_with(FILE, &text, &texts).unwrap_err().to_string();
        let first = found.lines().next().unwrap_or_default();
        first.replace(".roadstead/pipeline.yml:", "")
    };
    assert_eq!(
        said("[b.yml]"),
        "3:11: `include`: b.yml does not exist at commit c0ffee0"
    );
    assert_eq!(said("[a.yml]"), "3:11: `a.yml` cannot be read from here");
    assert_eq!(
        said("[./b.yml, b.yml]"),
        "3:11: `include`: b.yml does not exist at commit c0ffee0"
    );
    assert_eq!(
        said("[../b.yml]"),
        "3:11: `include`: `../b.yml` leaves the repository, `..` is not allowed"
    );
    assert_eq!(
        said("[/b.yml]"),
        "3:11: `include`: `/b.yml` is absolute, write it relative to the repository"
    );
    assert_eq!(
        said("[.roadstead/pipeline.yml]"),
        "3:11: `.roadstead/pipeline.yml` includes itself"
    );
    assert_eq!(
        said("[./.roadstead//pipeline.yml]"),
        "3:11: `.roadstead/pipeline.yml` includes itself"
    );
    assert_eq!(said("[]"), "3:10: `include` is empty");
    assert_eq!(said(""), "3:1: `include` has no value");
    assert_eq!(
        said("b.yml"),
        "3:10: `include` has to be a list, this is a single value"
    );
    let many: Vec<String> = (0..=MOST_INCLUDES)
        .map(|number| format!("{number}.yml"))
        .collect();
    let many = format!("[{}]", many.join(", "));
    assert_eq!(said(&many), "3:10: `include` has at most 10 files");
    assert_eq!(includes(&format!("include: {many}\n")).len(), MOST_INCLUDES);
    assert_eq!(includes("include: [a.yml, ../b.yml, a.yml]\n"), ["a.yml"]);
    assert_eq!(includes("include: [a.yml"), [""; 0]);
}

#[test]
fn the_documented_example_is_read() {
    let documentation = include_str!("../../docs/pipeline-file.md");
    let (_, section) = documentation.split_once("\n## `include`\n").unwrap();
    let blocks: Vec<&str> = section.split("```yml\n").skip(1).take(2).collect();
    let texts = blocks
        .iter()
        .map(|it| it.split("\n```").next().unwrap().to_owned());
    let [own, common] = texts.collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(includes(&own), [".roadstead/common.yml"]);
    let texts = Included::from([(".roadstead/common.yml".to_owned(), Ok(common))]);
    let pipeline = parse_with(FILE, &own, &texts).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(names(pipeline.steps.keys()), ["lint", "images"]);
}
