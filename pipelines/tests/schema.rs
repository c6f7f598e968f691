//! The JSON Schema and the reader judge alike, as an independent validator sees the schema.

use roadstead_pipelines::spec::{self, parse};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const DOCUMENTATION: &str = include_str!("../../docs/pipeline-file.md");

/// Refused files whose mistake a schema cannot see: where names lead, and what two values make together, and what
/// YAML's own readers drop.
const ONLY_THE_READER_SEES: [&str; 17] = [
    "groups_and_their_steps",
    "variants_of_no_environment",
    "artifacts_from",
    "circle_of_environments",
    "circle_of_steps",
    "image_built_by_no_step",
    "one_ecs_service_twice",
    "promotion_order",
    "references",
    "unknown_tag",
    "secret_of_no_environment",
    "variable_of_an_input",
    "task_definition_without_file",
    "create_without_file",
    "matrix_and_its_step",
    "names_of_a_matrix",
    "dockerfile_outside",
];

/// What the reader says of such mistakes.
const ONLY_THE_READER_SAYS: [&str; 30] = [
    "has the limit",
    "cannot be read from here",
    "includes itself",
    "gets another variant of image",
    "keeps no artifacts",
    "does not need",
    "there is no ",
    "is built by no step",
    "is built by step",
    "is pushed to",
    "has no environment to look at",
    "is not before",
    "stands below",
    "are both",
    "could never roll",
    "holds the input",
    "is none of its options",
    "`cron`: ",
    "stands in `schedule` twice",
    "have no `file` to go into",
    "has no `file` to begin with",
    "cannot be without `subnets`",
    "the matrix has no ",
    "is no value of ",
    "leaves no combination",
    "would be called",
    "has a name of more than 63",
    "with its matrix, ",
    "cannot be called",
    "leaves the repository: it is relative",
];

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(spec::SCHEMA).expect("the schema is JSON");
    jsonschema::draft7::new(&schema).expect("the schema is one of draft 7")
}

/// A YAML text as a validator sees it; `None` when it is no YAML, or a mapping has a key twice.
fn instance(text: &str) -> Option<Value> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).ok()
}

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("a folder can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yml"))
        .map(|path| {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).expect("a text"))
        })
        .collect();
    files.sort();
    files
}

/// Every accepted file: the examples and those of the documentation.
fn accepted() -> Vec<(String, Value)> {
    let of_documentation = DOCUMENTATION.split("```yaml\n").skip(1).enumerate();
    let of_documentation = of_documentation.map(|(number, piece)| {
        let text = piece.split("\n```").next().unwrap_or(piece).to_owned();
        (format!("docs {number}"), text)
    });
    // The only one that cannot stand alone, and so is read by a test of its own.
    let (_, include) = DOCUMENTATION
        .split_once("\n## `include`\n")
        .expect("its section");
    let include = include.split("```yml\n").nth(1).expect("an example");
    let include = include.split("\n```").next().unwrap_or(include).to_owned();
    let all = files("examples").into_iter().chain(of_documentation);
    let all = all.chain([("include".to_owned(), include)]);
    all.map(|(name, text)| {
        let value = instance(&text).unwrap_or_else(|| panic!("{name} is no YAML"));
        (name, value)
    })
    .collect()
}

#[test]
fn every_example_fits_the_schema() {
    let validator = validator();
    let files = accepted();
    assert!(files.len() >= 10, "the examples are gone");
    for (name, value) in files {
        if let Err(error) = validator.validate(&value) {
            panic!("{name}: {error} at {}", error.instance_path());
        }
    }
}

#[test]
fn every_refused_file_is_refused_by_the_schema_where_one_can_tell() {
    let validator = validator();
    let mut looked_at = 0;
    for (name, text) in files("tests/refused") {
        let Some(value) = instance(&text) else {
            continue;
        };
        looked_at += 1;
        let expected = ONLY_THE_READER_SEES.contains(&name.as_str());
        assert_eq!(validator.is_valid(&value), expected, "{name}");
    }
    assert!(looked_at >= 20, "{looked_at} files");
}

/// The keys of the schema's mappings, each as the pointer to its description.
fn keys(schema: &Value, pointer: &str, found: &mut BTreeSet<String>) {
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/properties/{key}");
        assert!(
            below["description"]
                .as_str()
                .is_some_and(|text| text.len() > 8),
            "{pointer} has no description"
        );
        keys(below, &pointer, found);
        found.insert(pointer);
    }
    for inner in ["items", "additionalProperties", "anyOf/1"] {
        if let Some(below) = schema
            .pointer(&format!("/{inner}"))
            .filter(|below| below.is_object())
        {
            keys(below, &format!("{pointer}/{inner}"), found);
        }
    }
}

/// The keys of the schema that a value has.
fn used(schema: &Value, value: &Value, pointer: &str, found: &mut BTreeSet<String>) {
    for (key, below) in value.as_object().into_iter().flatten() {
        let inner = [
            "properties/".to_owned() + key,
            "additionalProperties".to_owned(),
            format!("anyOf/1/properties/{key}"),
        ];
        for inner in inner {
            if let Some(schema) = schema
                .pointer(&format!("/{inner}"))
                .filter(|it| it.is_object())
            {
                let pointer = format!("{pointer}/{inner}");
                used(schema, below, &pointer, found);
                found.insert(pointer);
                break;
            }
        }
    }
    for below in value.as_array().into_iter().flatten() {
        used(&schema["items"], below, &format!("{pointer}/items"), found);
    }
}

#[test]
fn every_key_has_a_description_and_an_example() {
    let schema: Value = serde_json::from_str(spec::SCHEMA).unwrap();
    let mut all = BTreeSet::new();
    keys(&schema, "", &mut all);
    assert!(all.len() >= 70, "{} keys", all.len());
    let mut seen = BTreeSet::new();
    for (_, value) in accepted() {
        used(&schema, &value, "", &mut seen);
    }
    // An override's target has the keys of the environment's own, which have theirs.
    let without: Vec<_> = all
        .difference(&seen)
        .filter(|key| !key.contains("/overrides/"))
        .collect();
    assert!(without.is_empty(), "no example shows {without:#?}");
}

/// Every way to a value within `value`.
fn ways(value: &Value, way: &str, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, below)| (key.clone(), below))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(n, it)| (n.to_string(), it))
            .collect(),
        _ => Vec::new(),
    };
    for (key, below) in inner {
        let way = format!("{way}/{}", key.replace('~', "~0").replace('/', "~1"));
        found.push(way.clone());
        ways(below, &way, found);
    }
}

/// `value` with one thing changed at `way`, each with its name.
fn changed(value: &Value, way: &str) -> Vec<(String, Value)> {
    let (parent, key) = way.rsplit_once('/').expect("a way has a last part");
    let mut results = Vec::new();
    let mut change = |name: &str, act: &dyn Fn(&mut Value)| {
        let mut copy = value.clone();
        act(copy.pointer_mut(parent).expect("the way leads there"));
        results.push((format!("{way} {name}"), copy));
    };
    change("removed", &|parent| match parent {
        Value::Object(map) => drop(map.shift_remove(key)),
        Value::Array(items) => drop(items.remove(key.parse().expect("an index"))),
        _ => {}
    });
    change("beside a key that does not exist", &|parent| {
        if let Value::Object(map) = parent {
            map.insert("no_such_key".into(), json!("x"));
        }
    });
    let others = [
        json!(null),
        json!(""),
        json!(" "),
        json!("word"),
        json!("No Name"),
        json!("../x"),
        json!("-1s"),
        json!("0s"),
        json!("10m"),
        json!(0),
        json!(-1),
        json!(7),
        json!(1.5),
        json!(1_000_000_000),
        json!([]),
        json!(["word"]),
        json!(["word", "word"]),
        json!([null]),
        json!([[]]),
        json!({}),
        json!({"word": "x"}),
        json!({"word": {}}),
        json!({"word": null}),
    ];
    for other in others {
        let name = format!("is {other}");
        change(&name, &|parent| match parent {
            Value::Object(map) => drop(map.insert(key.into(), other.clone())),
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = other.clone(),
            _ => {}
        });
    }
    results
}

/// Each value of each example is taken away or replaced, and both have to say the same of what is left.
#[test]
fn the_schema_and_the_reader_say_the_same_of_a_changed_file() {
    let validator = validator();
    let mut judged = [0, 0];
    let mut differences = Vec::new();
    let mut known = BTreeSet::new();
    for (name, value) in accepted() {
        let mut all = Vec::new();
        ways(&value, "", &mut all);
        all.retain(|way| known.insert(way.clone()));
        for (change, value) in all.iter().flat_map(|way| changed(&value, way)) {
            // JSON is YAML.
            let read = parse("pipeline.yml", &value.to_string());
            let fits = validator.is_valid(&value);
            judged[usize::from(fits)] += 1;
            let alike = match &read {
                // To the reader `7` is a text, which the schema wants in quotes.
                Ok(_) => fits || change.ends_with(|c: char| c.is_ascii_digit()),
                Err(diagnostics) if fits => diagnostics.list().iter().all(|found| {
                    ONLY_THE_READER_SAYS
                        .iter()
                        .any(|said| found.message.contains(said))
                }),
                Err(_) => true,
            };
            if !alike {
                differences.push(format!(
                    "{name}: {change}: the schema says {fits}, the reader {read:?}"
                ));
            }
        }
    }
    assert!(judged.iter().all(|count| *count > 500), "{judged:?}");
    let shown = differences.len().min(10);
    assert!(
        differences.is_empty(),
        "{}\n{:#?}",
        differences.len(),
        &differences[..shown]
    );
}
