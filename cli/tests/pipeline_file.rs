//! The verbs about the pipeline file that need no server, from the command line.

use std::path::Path;
use std::process::{Command, Output};

fn roadstead(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("roadstead can be started")
}

#[test]
fn the_schema_is_printed_as_it_is() {
    let Output { status, stdout, .. } = roadstead(Path::new("."), &["schema"]);
    assert!(status.success());
    let printed = String::from_utf8(stdout).expect("UTF-8");
    assert_eq!(printed, roadstead_pipelines::spec::SCHEMA);
}

const PIPELINE: &str = "version: 1\nname: shop\nimages: { app: { repository: shop } }\n\
    services: { app: { image: app } }\nenvironments:\n  staging:\n    \
    ecs: { cluster: staging, service: shop }\n    env_file: [env/common.env, env/staging.env]\n  \
    production:\n    ecs: { cluster: production, service: shop }\n    env_file: env/production.env\n    \
    variables: { COMMON: own }\n";

/// What `validate` says of a repository with these files: status, standard output, standard error.
fn validated(files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let place = tempfile::tempdir().expect("a folder");
    for (path, text) in [(".roadstead/pipeline.yml", PIPELINE)].iter().chain(files) {
        let path = place.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    let arguments = [&["validate"], arguments].concat();
    let Output {
        status,
        stdout,
        stderr,
    } = roadstead(place.path(), &arguments);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn what_a_file_includes_is_read_out_of_its_repository_and_no_link_is_followed() {
    let file = "version: 1\nname: shop\ninclude: [ci/steps.yml]\n";
    let main = (".roadstead/pipeline.yml", file);
    let (status, said, _) = validated(
        &[
            main,
            ("ci/steps.yml", "steps: { test: { image: a, run: b } }\n"),
        ],
        &[],
    );
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("steps         test\n"), "{said}");
    let (status, _, said) = validated(
        &[main, ("ci/steps.yml", "steps: { test: { image: a } }\n")],
        &[],
    );
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("\nci/steps.yml:1:10: "), "{said}");
    let (_, _, said) = validated(&[main], &[]);
    assert!(
        said.contains("pipeline.yml:3:11: `include`: ci/steps.yml does not exist"),
        "{said}"
    );
    let linked = &[
        main,
        (
            "elsewhere/steps.yml",
            "steps: { test: { image: a, run: b } }\n",
        ),
    ];
    let place = tempfile::tempdir().expect("a folder");
    for (path, text) in linked {
        let path = place.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    std::os::unix::fs::symlink("elsewhere", place.path().join("ci")).expect("a link");
    let output = roadstead(place.path(), &["validate"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`ci` is a symbolic link"), "{said}");
}

#[test]
fn a_key_that_one_environment_lacks_is_a_warning_and_strictly_an_error() {
    let files = [
        ("env/common.env", "COMMON=1\n"),
        ("env/staging.env", "BOTH=1\nDSN=x\n"),
        ("env/production.env", "BOTH=2\n"),
    ];
    let (status, said, _) = validated(&files, &[]);
    assert_eq!(status, Some(0), "{said}");
    let warning =
        "warning: env/staging.env:2:1: `DSN` is set here and missing in `production`\n2 | DSN=x\n";
    assert!(said.contains(warning), "{said}");
    assert!(
        said.contains("help: set it in env/production.env"),
        "{said}"
    );
    assert!(said.ends_with("\n1 warning\n"), "{said}");
    let (status, _, said) = validated(&files, &["--strict"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("1 warning"), "{said}");

    let local = [
        &files[..],
        &[("env/local.env", "COMMON=1\nBOTH=\nDSN=\nLOCAL=1\n")],
    ]
    .concat();
    let (_, said, _) = validated(&local, &[]);
    let warning = "`LOCAL` is set here and missing in `staging` and `production`";
    assert!(said.contains(warning), "{said}");

    let alike = [&files[..2], &[("env/production.env", "BOTH=2\nDSN=\n")]].concat();
    let (status, said, _) = validated(&alike, &["--strict"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn an_environment_file_that_the_server_would_refuse_is_an_error() {
    let (status, _, said) = validated(&[("env/common.env", "=1\n"), ("env/staging.env", "")], &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("env/common.env:1:1: no name stands before the `=`"),
        "{said}"
    );
    assert!(
        said.contains("`env_file` of environment `production`: cannot read "),
        "{said}"
    );
}

#[test]
fn environment_files_of_a_pipeline_file_elsewhere_are_read_when_somebody_says_where() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("shop.yml"), PIPELINE).expect("a file");
    let alone = roadstead(place.path(), &["validate", "shop.yml"]);
    assert!(alone.status.success(), "{alone:?}");
    let with = roadstead(place.path(), &["validate", "shop.yml", "--root", "."]);
    assert_eq!(with.status.code(), Some(1), "{with:?}");
}

const WITH_DEFINITION: &str = "version: 1\nname: shop\nimages: { app: { repository: shop } }\nservices:\n  \
    web: { image: app, container: app, task_definition: { file: ecs/web.json } }\nenvironments:\n  staging:\n    \
    ecs: { cluster: staging, service: web, task_definition: { variables: { COLOUR: green } } }\n  \
    production:\n    after: staging\n    ecs: { cluster: production, service: web }\n";

#[test]
fn a_task_definition_is_checked_as_every_environment_takes_it() {
    let with = |definition: &str| {
        let files = [
            (".roadstead/pipeline.yml", WITH_DEFINITION),
            ("ecs/web.json", definition),
        ];
        validated(&files, &[])
    };
    let file = |family: &str| {
        format!(
            "{{\n  \"family\": \"{family}\",\n  \"containerDefinitions\": [{{ \"name\": \"app\" }}]\n}}\n"
        )
    };
    let (status, said, _) = with(&file("web-${environment}-${region}"));
    assert_eq!(status, Some(0), "{said}");
    let (status, _, said) = with(&file("web-${COLOUR}"));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains(
            "`task_definition` of production/web:\necs/web.json:2:13: there is no variable \
             `COLOUR`, which `family` names\n2 |   \"family\": \"web-${COLOUR}\",\n  |             ^^^^^^^^^^^^^^^\n"
        ),
        "{said}"
    );
    assert!(!said.contains("staging/web"), "{said}");
    let (_, _, said) = with("{ \"revision\": 7 }");
    assert_eq!(
        said.matches("`revision` is set by ECS").count(),
        1,
        "{said}"
    );
    let files = [(".roadstead/pipeline.yml", WITH_DEFINITION)];
    let (status, _, said) = validated(&files, &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("`task_definition` of staging/web: cannot read "),
        "{said}"
    );
}
