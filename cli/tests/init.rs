//! `roadstead init` over repositories of real shapes: what it writes is accepted, says what it found, and
//! is never written over something.

#![expect(
    clippy::unwrap_used,
    reason = "a repository that cannot be made is a failed test"
)]

use roadstead_pipelines::spec::{Pipeline, StepAction, parse};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A repository in a folder of this name, with these files.
fn repository(name: &str, files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join(name);
    fs::create_dir(&root).unwrap();
    let git = Command::new("git")
        .args(["init", "--quiet", "--initial-branch=trunk"])
        .arg(&root)
        .status();
    assert!(git.unwrap().success());
    let git = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "x",
    ];
    assert!(
        Command::new("git")
            .args(git)
            .current_dir(&root)
            .status()
            .unwrap()
            .success()
    );
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    (place, root)
}

fn roadstead(root: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    let said = [stdout, stderr]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat();
    (status.code(), said)
}

/// What is written for such a repository, after every check: the text and what it means.
fn written(name: &str, files: &[(&str, &str)]) -> (String, Pipeline) {
    let (_place, root) = repository(name, files);
    let (status, said) = roadstead(&root, &["init"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("wrote .roadstead/pipeline.yml"), "{said}");
    let (status, said) = roadstead(&root, &["validate"]);
    assert_eq!(status, Some(0), "{said}");
    let text = fs::read_to_string(root.join(".roadstead/pipeline.yml")).unwrap();
    let pipeline = parse("pipeline.yml", &text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
    (text, pipeline)
}

fn names<T: ToString>(names: impl Iterator<Item = T>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

/// Image and script of a step.
fn script<'p>(pipeline: &'p Pipeline, step: &str) -> (&'p str, &'p str) {
    let found = pipeline
        .steps
        .iter()
        .find(|(name, _)| name.as_str() == step);
    let (_, found) = found.unwrap_or_else(|| panic!("no step {step}: {:?}", pipeline.steps.keys()));
    let StepAction::Run { image, run, .. } = &found.action else {
        panic!("{found:?}");
    };
    (image, run)
}

#[test]
fn a_service_with_a_dockerfile_gets_everything_up_to_production() {
    let (text, pipeline) = written(
        "hello",
        &[
            (
                "Dockerfile",
                "FROM node:22\nCOPY . .\nHEALTHCHECK --interval=5s \\\n  CMD curl -f http://localhost:8080/healthz || exit 1\n",
            ),
            (
                "package.json",
                r#"{"scripts": {"test": "jest"}, "engines": {"node": ">=20.1"}}"#,
            ),
            ("package-lock.json", "{}"),
            ("env/staging.env", "LOG_LEVEL=debug\n"),
        ],
    );
    insta::assert_snapshot!("one_service", text);
    assert_eq!(script(&pipeline, "test"), ("node:20", "npm ci\nnpm test\n"));
    let (_, service) = pipeline.services.first().unwrap();
    assert_eq!(service.health_path.as_deref(), Some("/healthz"));
    assert_eq!(pipeline.trigger.branches, ["trunk"]);
}

#[test]
fn a_monorepo_with_a_compose_file_gets_its_images_and_the_helpers_of_its_tests() {
    let compose = r#"
services:
  api:
    build: { context: ./services/api, target: runtime, args: { PROFILE: release, SHA: "${SHA}" } }
    depends_on: [db]
  web:
    build: services/web
  db:
    image: postgres:17
    environment: { POSTGRES_PASSWORD: test }
  cache: { image: "redis:7" }
  proxy: { image: "traefik:3" }
  gone: { build: ./nowhere }
"#;
    let (text, pipeline) = written(
        "My Shop_App",
        &[
            ("docker-compose.yml", compose),
            ("services/api/Dockerfile", "FROM scratch AS runtime\n"),
            ("services/api/go.mod", "module shop/api\n\ngo 1.24.3\n"),
            ("services/web/Dockerfile", "FROM scratch\n"),
            (
                "services/web/package.json",
                r#"{"scripts": {"test": "echo \"Error: no test specified\" && exit 1", "build": "vite build"}}"#,
            ),
            ("services/web/pnpm-lock.yaml", ""),
            ("services/web/node_modules/x/Dockerfile", "FROM scratch\n"),
            ("services/worker/Dockerfile", "FROM scratch\n"),
            ("services/worker/requirements.txt", "celery\n"),
            ("services/worker/requirements-dev.txt", "pytest\n"),
            ("services/web/Dockerfile.dev", "FROM scratch\n"),
        ],
    );
    insta::assert_snapshot!("monorepo", text);
    assert_eq!(pipeline.name.as_str(), "my-shop-app");
    assert_eq!(names(pipeline.images.keys()), ["api", "web", "worker"]);
    assert_eq!(script(&pipeline, "test-api").0, "golang:1.24");
    assert!(script(&pipeline, "test-web").1.contains("pnpm run build"));
    assert!(
        script(&pipeline, "test-worker")
            .1
            .starts_with("cd services/worker\n")
    );
    let (_, api) = pipeline.images.first().unwrap();
    assert_eq!(
        (api.target.as_deref(), api.args.len()),
        (Some("runtime"), 1)
    );
}

#[test]
fn a_library_without_a_dockerfile_gets_tests_alone() {
    let (text, pipeline) = written(
        "geometry",
        &[
            ("Cargo.toml", "[workspace]\n"),
            ("crates/a/Cargo.toml", "[package]\n"),
            ("src/lib.rs", ""),
        ],
    );
    assert_eq!(
        script(&pipeline, "test"),
        ("rust:1", "cargo test --workspace\n")
    );
    assert!(pipeline.images.is_empty() && pipeline.environments.is_empty());
    assert!(text.contains("TODO: there is no Dockerfile"), "{text}");
}

#[test]
fn other_languages_are_tested_as_their_people_do() {
    for (files, image, lines) in [
        (
            &[("pyproject.toml", "[project]\ndependencies = ['pytest']\n")][..],
            "python:3",
            "pip install .\npip install pytest\npython -m pytest\n",
        ),
        (
            &[("pom.xml", "<project/>")],
            "maven:3-eclipse-temurin-21",
            "mvn --batch-mode verify\n",
        ),
        (
            &[("gradlew", ""), ("build.gradle.kts", "")],
            "eclipse-temurin:21",
            "./gradlew check\n",
        ),
        (
            &[("Gemfile", ""), ("spec/a_spec.rb", "")],
            "ruby:3",
            "bundle install\nbundle exec rspec\n",
        ),
        (
            &[("composer.json", "{}")],
            "composer:2",
            "composer install --no-interaction\nvendor/bin/phpunit\n",
        ),
        (
            &[("mix.exs", "")],
            "elixir:1",
            "mix local.hex --force\nmix local.rebar --force\nmix deps.get\nmix test\n",
        ),
    ] {
        let (text, pipeline) = written("thing", files);
        assert_eq!(script(&pipeline, "test"), (image, lines), "{text}");
    }
}

#[test]
fn names_that_are_none_and_files_that_cannot_be_read_do_no_harm() {
    let (text, pipeline) = written(
        "___",
        &[
            ("compose.yaml", "services: [\n"),
            ("package.json", "no json"),
            ("docker/API server.Dockerfile", "FROM scratch\n"),
            ("a b/Dockerfile", "FROM scratch\n"),
            ("a'b/Dockerfile", "FROM scratch\n"),
            ("a'b/go.mod", "go nonsense\n"),
            ("x/Dockerfile", "FROM scratch\n"),
            ("y/x/Dockerfile", "FROM scratch\n"),
        ],
    );
    assert_eq!(pipeline.name.as_str(), "project");
    assert_eq!(
        names(pipeline.images.keys()),
        ["a-b", "a-b-2", "api-server", "x", "x-2"],
        "{text}"
    );
    assert_eq!(
        script(&pipeline, "test-a-b"),
        ("golang:1", "cd 'a'\\''b'\ngo vet ./...\ngo test ./...\n")
    );
}

#[test]
fn an_empty_repository_gets_a_step_that_runs() {
    let (text, pipeline) = written("a", &[]);
    assert_eq!(script(&pipeline, "test").0, "busybox:1");
    assert!(text.contains("TODO: how the code is tested"), "{text}");
}

#[test]
fn nothing_is_written_over_and_the_next_steps_are_said() {
    let (_place, root) = repository("hello", &[("Dockerfile", "FROM scratch\n")]);
    let below = root.join("src");
    fs::create_dir(&below).unwrap();
    let (status, said) = roadstead(&below, &["init"]);
    assert_eq!(status, Some(0), "{said}");
    for expected in [
        "Dockerfile: image `hello`",
        "roadstead validate",
        "roadstead run --local",
        "a project `hello`",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let file = root.join(".roadstead/pipeline.yml");
    fs::write(&file, "mine").unwrap();
    let (status, said) = roadstead(&root, &["init"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("is there already and stays as it is"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}
