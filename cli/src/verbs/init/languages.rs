//! How a folder in some language is tested, by what its manifest says.

use serde_json::Value;
use std::fs;
use std::path::Path;

/// A way to test a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tests {
    /// What was found, `package.json (npm)`.
    pub(super) seen: String,
    /// The image to run in.
    pub(super) image: String,
    /// Lines of shell.
    pub(super) lines: Vec<String>,
    /// What is a guess.
    pub(super) doubt: Option<&'static str>,
}

/// The tests of `folder`, one for each manifest in it.
pub(super) fn tests_of(folder: &Path) -> Vec<Tests> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let there = |name: &str| folder.join(name).is_file();
    let mut found = Vec::new();
    let mut push = |seen: &str, image: &str, lines: &[&str], doubt| {
        found.push(Tests {
            seen: seen.to_owned(),
            image: image.to_owned(),
            lines: lines.iter().map(ToString::to_string).collect(),
            doubt,
        });
    };
    if there("Cargo.toml") {
        let doubt = "TODO: the toolchain that the code wants, `rust:1.95` for one";
        push(
            "Cargo.toml",
            "rust:1",
            &["cargo test --workspace"],
            Some(doubt),
        );
    }
    if let Some(text) = read("go.mod") {
        let version = text.lines().find_map(|line| line.strip_prefix("go "));
        let image = format!("golang:{}", minor(version.unwrap_or("1")));
        push("go.mod", &image, &["go vet ./...", "go test ./..."], None);
    }
    if let Some(text) = read("package.json") {
        node(&text, &there, &mut push);
    }
    python(&read, &mut push);
    if there("pom.xml") {
        let doubt = "TODO: the Java that the code wants";
        push(
            "pom.xml",
            "maven:3-eclipse-temurin-21",
            &["mvn --batch-mode verify"],
            Some(doubt),
        );
    } else if there("gradlew") {
        let doubt = "TODO: the Java that the code wants";
        push(
            "gradlew",
            "eclipse-temurin:21",
            &["./gradlew check"],
            Some(doubt),
        );
    }
    if there("Gemfile") {
        let task = if folder.join("spec").is_dir() {
            "bundle exec rspec"
        } else {
            "bundle exec rake test"
        };
        push(
            "Gemfile",
            "ruby:3",
            &["bundle install", task],
            Some("TODO: the Ruby that the code wants"),
        );
    }
    if let Some(text) = read("composer.json") {
        let script = serde_json::from_str::<Value>(&text)
            .is_ok_and(|it| it["scripts"]["test"] != Value::Null);
        let task = if script {
            "composer test"
        } else {
            "vendor/bin/phpunit"
        };
        let doubt = (!script).then_some("TODO: how its tests are run");
        push(
            "composer.json",
            "composer:2",
            &["composer install --no-interaction", task],
            doubt,
        );
    }
    if there("mix.exs") {
        let lines = [
            "mix local.hex --force",
            "mix local.rebar --force",
            "mix deps.get",
            "mix test",
        ];
        push("mix.exs", "elixir:1", &lines, None);
    }
    found
}

type Push<'p> = &'p mut dyn FnMut(&str, &str, &[&str], Option<&'static str>);

fn node(text: &str, there: &dyn Fn(&str) -> bool, push: Push<'_>) {
    let manifest: Value = serde_json::from_str(text).unwrap_or_default();
    let script = manifest["scripts"]["test"].as_str();
    // What `npm init` writes is no test.
    let tested = script.is_some_and(|script| !script.contains("no test specified"));
    let wanted = manifest["engines"]["node"].as_str().unwrap_or_default();
    let digits: String = wanted
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let image = format!("node:{}", if digits.is_empty() { "22" } else { &digits });
    let (manager, mut lines) = if there("pnpm-lock.yaml") {
        (
            "pnpm",
            vec!["corepack enable", "pnpm install --frozen-lockfile"],
        )
    } else if there("yarn.lock") {
        ("yarn", vec!["corepack enable", "yarn install --immutable"])
    } else if there("package-lock.json") {
        ("npm", vec!["npm ci"])
    } else {
        ("npm", vec!["npm install"])
    };
    let seen = format!("package.json ({manager})");
    let build = manifest["scripts"]["build"].is_string();
    let (script, doubt) = match (tested, build) {
        (true, _) => (format!("{manager} test"), None),
        (false, true) => (
            format!("{manager} run build"),
            Some("TODO: package.json has no `test` script; this only sees whether it builds"),
        ),
        (false, false) => return,
    };
    lines.push(&script);
    push(&seen, &image, &lines, doubt);
}

fn python(read: &dyn Fn(&str) -> Option<String>, push: Push<'_>) {
    let (project, requirements) = (read("pyproject.toml"), read("requirements.txt"));
    let development = read("requirements-dev.txt");
    let seen = match (&project, &requirements) {
        (Some(_), _) => "pyproject.toml",
        (None, Some(_)) => "requirements.txt",
        (None, None) => return,
    };
    let pytest = [&project, &requirements, &development]
        .into_iter()
        .flatten()
        .any(|text| text.contains("pytest"));
    let install = if requirements.is_some() && development.is_some() {
        "pip install -r requirements.txt -r requirements-dev.txt"
    } else if requirements.is_some() {
        "pip install -r requirements.txt"
    } else {
        "pip install ."
    };
    let mut lines = vec![install];
    if pytest {
        // It may be in a group of its own, which pip does not install by itself.
        lines.extend(["pip install pytest", "python -m pytest"]);
    } else {
        lines.push("python -m unittest discover");
    }
    push(
        seen,
        "python:3",
        &lines,
        Some("TODO: the Python that the code wants"),
    );
}

/// `1.24.3` and `1.24` are `1.24`.
fn minor(version: &str) -> String {
    let parts: Vec<&str> = version.trim().split('.').take(2).collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.iter().all(digits) {
        parts.join(".")
    } else {
        "1".to_owned()
    }
}
