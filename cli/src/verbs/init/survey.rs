//! What lies in a repository: Dockerfiles, a compose file, manifests of languages, environment files.
//!
//! Reads and decides nothing about the pipeline file but names. Links are not followed.

use super::languages::{self, Tests};
use anyhow::Context;
use roadstead_pipelines::id::ProjectName;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are looked into below the root.
const DEEPEST: usize = 4;
/// Files that are looked at; what lies beyond is left out.
const MOST_FILES: usize = 50_000;
/// Folders of other people's code, and of what is built.
const NOT_OURS: [&str; 8] = [
    "node_modules",
    "target",
    "vendor",
    "dist",
    "build",
    "third_party",
    "venv",
    "testdata",
];
const COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// An image that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) context: String,
    /// From the context.
    pub(super) dockerfile: String,
    pub(super) target: Option<String>,
    pub(super) args: Vec<(String, String)>,
    /// From its HEALTHCHECK.
    pub(super) health_path: Option<String>,
    /// Where it was found, and what about it is a guess.
    pub(super) origin: String,
}

/// A helper that tests may need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helper {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) env: Vec<(String, String)>,
}

/// Tests of one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestStep {
    pub(super) name: String,
    /// `.` is the root.
    pub(super) folder: String,
    pub(super) tests: Tests,
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) project: String,
    pub(super) images: Vec<Image>,
    pub(super) helpers: Vec<Helper>,
    pub(super) tests: Vec<TestStep>,
    /// Files of the repository, relative to its root.
    pub(super) files: BTreeSet<String>,
    /// Dockerfiles that nothing was made of.
    pub(super) unused_dockerfiles: Vec<String>,
    /// For people.
    pub(super) seen: Vec<String>,
}

/// Looks at the repository at `root`.
///
/// # Errors
/// When the root cannot be listed. What else cannot be read counts as not there.
pub(super) fn look(root: &Path) -> anyhow::Result<Survey> {
    let mut files = BTreeSet::new();
    list(root, "", 0, &mut files).with_context(|| format!("cannot list {}", root.display()))?;
    let project = as_name(
        &root.file_name().unwrap_or_default().to_string_lossy(),
        "project",
    );
    let mut survey = Survey {
        project,
        images: Vec::new(),
        helpers: Vec::new(),
        tests: Vec::new(),
        files,
        unused_dockerfiles: Vec::new(),
        seen: Vec::new(),
    };
    survey.compose(root);
    survey.dockerfiles(root);
    survey.languages(root);
    if survey.images.is_empty() && survey.tests.is_empty() {
        survey
            .seen
            .push("found neither a Dockerfile nor a manifest of a language".into());
    }
    Ok(survey)
}

fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        let path = format!("{prefix}{name}");
        if kind.is_file() && found.len() < MOST_FILES {
            found.insert(path);
        } else if kind.is_dir()
            && depth < DEEPEST
            && !name.starts_with('.')
            && !NOT_OURS.contains(&name.as_str())
        {
            // A folder that may not be read has nothing for us.
            let _ = list(&entry.path(), &format!("{path}/"), depth + 1, found);
        }
    }
    Ok(())
}

impl Survey {
    /// Services that are built become images, the databases among the others helpers of tests.
    fn compose(&mut self, root: &Path) {
        let name = COMPOSE_FILES
            .into_iter()
            .find(|name| self.files.contains(*name));
        let Some(name) = name else {
            return;
        };
        let text = fs::read_to_string(root.join(name)).unwrap_or_default();
        let Ok(compose) = serde_saphyr::from_str::<Value>(&text) else {
            self.seen
                .push(format!("{name} cannot be read and was left out"));
            return;
        };
        let (mut built, mut helpers) = (Vec::new(), Vec::new());
        for (service, value) in compose["services"].as_object().into_iter().flatten() {
            if let Some(image) = self.of_compose(root, name, service, &value["build"]) {
                built.push(image.name.clone());
                self.images.push(image);
            } else if let Some(helper) = helper(service, value) {
                helpers.push(helper.name.clone());
                self.helpers.push(helper);
            }
        }
        let or_none = |names: &[String]| {
            if names.is_empty() {
                "nothing".into()
            } else {
                names.join(", ")
            }
        };
        self.seen.push(format!(
            "{name}: builds {}; beside tests {}",
            or_none(&built),
            or_none(&helpers)
        ));
    }

    fn of_compose(&self, root: &Path, file: &str, service: &str, build: &Value) -> Option<Image> {
        let context = plain(build.as_str().or_else(|| build["context"].as_str())?)?;
        let dockerfile = plain(build["dockerfile"].as_str().unwrap_or("Dockerfile"))?;
        if !self.files.contains(&joined(&context, &dockerfile)) {
            return None;
        }
        let args = pairs(&build["args"]);
        Some(Image {
            name: self.free_name(service),
            health_path: health_path(&root.join(joined(&context, &dockerfile))),
            target: build["target"].as_str().map(str::to_owned),
            // What compose fills in from its environment is not known here.
            args: args
                .into_iter()
                .filter(|(_, value)| !value.contains('$'))
                .collect(),
            context,
            dockerfile,
            origin: format!("service `{service}` of {file}"),
        })
    }

    /// Those that no compose file builds.
    fn dockerfiles(&mut self, root: &Path) {
        let known: BTreeSet<String> = self
            .images
            .iter()
            .map(|image| joined(&image.context, &image.dockerfile))
            .collect();
        let files: Vec<String> = self
            .files
            .iter()
            .filter(|path| !known.contains(*path))
            .cloned()
            .collect();
        for path in files {
            let (folder, file) = path.rsplit_once('/').unwrap_or((".", &path));
            let (name, context, dockerfile, guess) = if file == "Dockerfile" {
                let name = if folder == "." {
                    &self.project
                } else {
                    folder.rsplit('/').next().unwrap_or(folder)
                };
                (name.to_owned(), folder.to_owned(), file.to_owned(), "")
            } else if let Some(name) = file.strip_suffix(".Dockerfile") {
                (
                    name.to_owned(),
                    ".".to_owned(),
                    path.clone(),
                    "; TODO: its context is a guess",
                )
            } else {
                if file.starts_with("Dockerfile.") && !file.ends_with(".dockerignore") {
                    self.unused_dockerfiles.push(path.clone());
                }
                continue;
            };
            let image = Image {
                name: self.free_name(&name),
                context,
                dockerfile,
                target: None,
                args: Vec::new(),
                health_path: health_path(&root.join(&path)),
                origin: format!("{path}{guess}"),
            };
            self.seen.push(format!("{path}: image `{}`", image.name));
            self.images.push(image);
        }
    }

    /// Manifests at the root, or else in the contexts of images and one folder below the root.
    fn languages(&mut self, root: &Path) {
        let mut folders = vec![".".to_owned()];
        if languages::tests_of(root).is_empty() {
            folders = self
                .images
                .iter()
                .map(|image| image.context.clone())
                .collect();
            let below = self.files.iter().filter_map(|path| path.split_once('/'));
            folders.extend(
                below
                    .filter(|(_, rest)| !rest.contains('/'))
                    .map(|(folder, _)| folder.to_owned()),
            );
        }
        let folders: BTreeSet<String> = folders.into_iter().collect();
        for folder in folders {
            let place = if folder == "." {
                PathBuf::from(root)
            } else {
                root.join(&folder)
            };
            for tests in languages::tests_of(&place) {
                let wanted = if folder == "." {
                    "test".to_owned()
                } else {
                    format!("test-{}", folder.rsplit('/').next().unwrap_or_default())
                };
                let taken = |name: &str| self.tests.iter().any(|step| step.name == name);
                let name = free(&as_name(&wanted, "test"), taken);
                self.seen
                    .push(format!("{}: step `{name}`", joined(&folder, &tests.seen)));
                self.tests.push(TestStep {
                    name,
                    folder: folder.clone(),
                    tests,
                });
            }
        }
    }

    fn free_name(&self, wanted: &str) -> String {
        free(&as_name(wanted, "app"), |name| {
            self.images.iter().any(|image| image.name == name)
        })
    }
}

/// A path below a folder; `.` is the folder itself.
fn joined(folder: &str, path: &str) -> String {
    if folder == "." {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

/// A path without `./` before and `/` behind; none that leaves the repository or is not known here.
fn plain(path: &str) -> Option<String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let strange = path.starts_with('/') || path.contains(['$', '\\', ':']) || parts.contains(&"..");
    let joined = parts.join("/");
    (!strange).then(|| {
        if joined.is_empty() {
            ".".to_owned()
        } else {
            joined
        }
    })
}

/// Names with values, which a compose file gives as a mapping or as a list of `NAME=value`.
fn pairs(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), scalar(value)?)))
            .collect(),
        Value::Array(list) => list
            .iter()
            .filter_map(|item| item.as_str()?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        _ => Vec::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        _ => None,
    }
}

/// A service of compose that tests may need, such as a database: it has an image that people know, and
/// says in its variables how it is entered.
fn helper(service: &str, value: &Value) -> Option<Helper> {
    const KNOWN: [&str; 14] = [
        "postgres",
        "postgis",
        "mysql",
        "mariadb",
        "mongo",
        "redis",
        "valkey",
        "rabbitmq",
        "memcached",
        "nats",
        "elasticsearch",
        "opensearch",
        "minio",
        "localstack",
    ];
    let image = value["image"]
        .as_str()
        .filter(|image| !image.contains('$'))?;
    let last = image.rsplit('/').next().unwrap_or(image);
    let kind = last.split([':', '@']).next().unwrap_or(last);
    if !KNOWN.contains(&kind) {
        return None;
    }
    let env = pairs(&value["environment"])
        .into_iter()
        .filter(|(_, value)| !value.contains('$'))
        .collect();
    Some(Helper {
        name: as_name(service, "helper"),
        image: image.to_owned(),
        env,
    })
}

/// Where a HEALTHCHECK asks, `/healthz`.
fn health_path(dockerfile: &Path) -> Option<String> {
    let text = fs::read_to_string(dockerfile).ok()?.replace("\\\n", " ");
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("HEALTHCHECK"))?;
    let (_, address) = line.split_once("http://")?;
    let address = address.split([' ', '"', '\'', ',', '|', ';', ')']).next()?;
    let path = &address[address.find('/')?..];
    let fine = path
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    fine.then(|| path.to_owned())
}

/// `My Shop_App` is `my-shop-app`; `otherwise` when nothing is left.
fn as_name(text: &str, otherwise: &str) -> String {
    let mut name = String::new();
    for character in text.to_lowercase().chars() {
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(50);
    let name = name.trim_end_matches('-');
    match ProjectName::parse(name) {
        Ok(name) => name.to_string(),
        Err(_) => otherwise.to_owned(),
    }
}

/// The name, or the first with a number behind it that is not taken.
fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names
        .find(|name| !taken(name))
        .unwrap_or_else(|| name.to_owned())
}
