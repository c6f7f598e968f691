use super::super::{input, trigger, values};
use super::*;
use crate::durations::{LONGEST, Seconds};
use crate::id::StepName;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

#[test]
fn the_committed_schema_is_what_is_made_here() {
    let made = format!("{:#}\n", schema());
    if std::env::var_os("ROADSTEAD_WRITE_SCHEMA").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline.schema.json");
        return std::fs::write(file, made).unwrap();
    }
    assert!(
        made == crate::spec::SCHEMA,
        "pipelines/pipeline.schema.json is not what the reader's keys and docs/pipeline-file.md \
         say: run `make schema` and look at what changed"
    );
}

#[test]
fn links_are_their_text() {
    let text = "As [ecs](#ecs), or `[text]`; see [verify](#verify).";
    let expected = "As ecs, or `[text]`; see verify.";
    assert_eq!(without_links("See [a](#b) and [c](#d)."), "See a and c.");
    assert_eq!(without_links(text), expected);
}

type Reader = fn(&str) -> bool;

/// Each pattern beside what the reader does with the same text.
const READERS: [(&str, Reader); 25] = [
    (pattern::NAME, |text| StepName::parse(text).is_ok()),
    (pattern::INPUT, input::is_input_name),
    (pattern::LINE, |text| {
        !text.is_empty() && input::input_line(text).is_ok()
    }),
    (pattern::VARIABLE, super::super::fields::is_variable_name),
    (pattern::TEXT, |text| !blank(text)),
    (pattern::PATH, |text| {
        !blank(text) && values::path(text).is_ok()
    }),
    (pattern::FILE_PATH, |text| {
        !blank(text) && values::file_path(text).is_ok()
    }),
    (pattern::FILE_PATH_FROM_FOLDER, |text| {
        !blank(text) && values::file_path_from_folder(text).is_ok()
    }),
    (pattern::REPOSITORY, |text| values::repository(text).is_ok()),
    (pattern::CONTAINER_IMAGE, |text| {
        super::super::matrix::container_image(text).is_ok()
    }),
    (pattern::LABEL, |text| values::label(text).is_ok()),
    (pattern::GROUP, |text| {
        groups::name(text).is_ok() && groups::unknown_place(text).is_none()
    }),
    (pattern::STAGE, |text| {
        !blank(text) && values::stage(text).is_ok()
    }),
    (pattern::ECS_NAME, |text| values::ecs_name(text).is_ok()),
    (pattern::ECS_SERVICE, |text| {
        values::ecs_service(text).is_ok()
    }),
    (pattern::REGION, |text| values::region(text).is_ok()),
    (pattern::SUBNET, |text| values::subnet(text).is_ok()),
    (pattern::SECURITY_GROUP, |text| {
        values::security_group(text).is_ok()
    }),
    (pattern::ARN, |text| values::arn(text).is_ok()),
    (pattern::HOST, |text| values::host(text).is_ok()),
    (pattern::ADDRESS, |text| values::address(text).is_ok()),
    (pattern::HEALTH_PATH, |text| {
        values::health_path(text).is_ok()
    }),
    (pattern::SCRIPT, |text| {
        !blank(text) && values::script(text).is_ok()
    }),
    (pattern::DURATION, |text| text.parse::<Seconds>().is_ok()),
    (pattern::POSITIVE_DURATION, |text| {
        text.parse::<Seconds>()
            .is_ok_and(|seconds| !seconds.is_zero())
    }),
];

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Texts near the borders of some pattern.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "B",
        "0",
        "7",
        "-",
        "_",
        ".",
        "..",
        "/",
        "//",
        ":",
        "@",
        "?",
        "#",
        " ",
        "\t",
        "\n",
        "\\",
        "\u{1}",
        "\u{85}",
        "ü",
        "!",
        "{service}",
        "{branch}",
        "{matrix.a}",
        "{",
        "}",
        "https://",
        "http://",
        "eu",
        "-west-",
        "arn:",
        "arn:a:b:c:",
        "subnet-",
        "sg-",
        "s",
        "m",
        "h",
        "d",
        "*",
        "**",
        "[",
    ]);
    prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_pattern_takes_what_the_reader_takes(text in texts()) {
        thread_local! {
            static VALIDATORS: Vec<jsonschema::Validator> = READERS
                .map(|(pattern, _)| jsonschema::draft7::new(&json!({"pattern": pattern})).unwrap())
                .into();
        }
        VALIDATORS.with(|validators| {
            for (validator, (pattern, read)) in validators.iter().zip(READERS) {
                let taken = validator.is_valid(&json!(text));
                prop_assert_eq!(taken, read(&text), "{:?} by {}", text, pattern);
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_pattern_of_a_trigger_is_refused_that_the_reader_takes(text in texts()) {
        thread_local! {
            static VALIDATOR: jsonschema::Validator =
                jsonschema::draft7::new(&json!({"pattern": pattern::GLOB})).unwrap();
        }
        if trigger::check_pattern(&text).is_ok() {
            prop_assert!(VALIDATOR.with(|validator| validator.is_valid(&json!(text))));
        }
    }
}

#[test]
fn long_texts_are_judged_alike() {
    for length in [1, 2, 63, 64, 254, 255, 256, 257, 511, 512, 513] {
        let text = "a".repeat(length);
        for (pattern, read) in READERS {
            let validator = jsonschema::draft7::new(&json!({"pattern": pattern})).unwrap();
            assert_eq!(
                validator.is_valid(&json!(text)),
                read(&text),
                "{length} {pattern}"
            );
        }
    }
    // The one thing about a length of time that a pattern cannot tell.
    assert!(
        format!("{}s", LONGEST.get() + 1)
            .parse::<Seconds>()
            .is_err()
    );
}
