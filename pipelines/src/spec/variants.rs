//! Variants of images: what is different of a build for single environments, and whether a service takes one that
//! no environment before has proved.

use super::check::unknown_name;
use super::decode::map;
use super::diagnostic::Reporter;
use super::fields::{self, Fields};
use super::model::{Gate, Image, Pipeline};
use super::tree::{Entry, Node, Value};
use super::values;
use crate::id::{EnvironmentName, ImageName};
use crate::variant::ImageVariant;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What a service takes of variants that no environment before its own has proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variants {
    /// Those that somebody approved.
    #[default]
    Approved,
    /// All: a sibling of what was proved is as good.
    Trusted,
}

impl Variants {
    /// It is what holds when the file says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The words of `variants`.
pub(super) const VARIANTS: [(&str, Variants); 2] = [
    ("approved", Variants::Approved),
    ("trusted", Variants::Trusted),
];

/// The keys of an image that make variants, each a mapping from environments.
const KEYS: [&str; 2] = ["args_by_environment", "dockerfile_by_environment"];

/// Build arguments of an image by environment.
pub(super) fn args(
    fields: &Fields<'_>,
    reporter: &mut Reporter<'_>,
) -> IndexMap<EnvironmentName, IndexMap<String, String>> {
    let read = |_: &str, entry: &Entry, reporter: &mut Reporter<'_>| {
        if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty()) {
            let help = "give it build arguments, or remove it";
            reporter.error_with_help(entry.at, format!("`{}` is empty", entry.key), help);
        }
        fields::variables_of(entry, reporter)
    };
    map(fields, KEYS[0], EnvironmentName::parse, read, reporter)
}

/// Dockerfiles of an image by environment.
pub(super) fn dockerfiles(
    fields: &Fields<'_>,
    reporter: &mut Reporter<'_>,
) -> IndexMap<EnvironmentName, String> {
    let read = |name: &str, entry: &Entry, reporter: &mut Reporter<'_>| {
        let text = fields::text(entry, reporter)?;
        let read = values::file_path_from_folder(text);
        let wrong = |reason| reporter.error(entry.value.at, format!("`{name}`: `{text}` {reason}"));
        read.map_err(wrong).ok()
    };
    map(fields, KEYS[1], EnvironmentName::parse, read, reporter)
}

impl Image {
    /// Whether it is built anew for an environment.
    #[must_use]
    pub fn has_variant(&self, environment: &EnvironmentName) -> bool {
        self.args_by_environment.contains_key(environment)
            || self.dockerfile_by_environment.contains_key(environment)
    }

    /// The build arguments of one of its builds: an environment's own are laid over the image's.
    #[must_use]
    pub fn args_for(&self, environment: Option<&EnvironmentName>) -> IndexMap<String, String> {
        let own = environment.and_then(|name| self.args_by_environment.get(name));
        let mut args = self.args.clone();
        args.extend(own.cloned().unwrap_or_default());
        args
    }

    /// The Dockerfile of one of its builds.
    #[must_use]
    pub fn dockerfile_for(&self, environment: Option<&EnvironmentName>) -> &str {
        let own = environment.and_then(|name| self.dockerfile_by_environment.get(name));
        own.unwrap_or(&self.dockerfile)
    }
}

impl Pipeline {
    /// Everything that is built of an image: the plain one where some environment has no variant, and each variant,
    /// in promotion order. None of a name that is no image.
    #[must_use]
    pub fn variants_of(&self, name: &ImageName) -> Vec<ImageVariant> {
        let Some(image) = self.images.get(name) else {
            return vec![];
        };
        let (with, without): (Vec<_>, Vec<_>) = self
            .environments
            .keys()
            .partition(|environment| image.has_variant(environment));
        let is_plain = with.is_empty() || !without.is_empty();
        let plain = is_plain.then(|| ImageVariant::from(name.clone()));
        let variants = with.into_iter().map(|it| ImageVariant::of(name, it));
        plain.into_iter().chain(variants).collect()
    }
}

/// Variants are for environments that exist, Dockerfiles stay in the repository, and what no environment has proved
/// goes behind another one after somebody's yes alone.
pub(super) fn check(pipeline: &Pipeline, root: &Node, reporter: &mut Reporter<'_>) {
    let environments = &pipeline.environments;
    for (name, image) in &pipeline.images {
        let args = image.args_by_environment.keys().map(|it| (KEYS[0], it));
        let dockerfiles = image.dockerfile_by_environment.keys();
        let dockerfiles = dockerfiles.map(|it| (KEYS[1], it));
        let named = args.chain(dockerfiles);
        for (key, unknown) in named.filter(|(_, it)| !environments.contains_key(*it)) {
            let at = root.key_at(&["images", name.as_str(), key, unknown.as_str()]);
            let known = environments.keys();
            unknown_name(at, "environment", unknown.as_str(), known, reporter);
        }
        for (environment, dockerfile) in &image.dockerfile_by_environment {
            let path = ["images", name.as_str(), KEYS[1], environment.as_str()];
            refuse_outside(image, dockerfile, &path, root, reporter);
        }
    }
    for (name, environment) in environments {
        let Some(before) = &environment.after else {
            continue;
        };
        let asks = |gate: &Gate| matches!(gate, Gate::Approval { .. });
        if environment.gates.iter().any(asks) {
            continue;
        }
        for (service, spec) in &pipeline.services {
            let image = pipeline.images.get(&spec.image);
            let is_other = image.is_some_and(|it| it.has_variant(name) || it.has_variant(before));
            if is_other && spec.variants == Variants::Approved {
                let message = format!(
                    "`{service}` gets another variant of image `{}` in `{name}` than `{before}` proves",
                    spec.image
                );
                let help = format!(
                    "give `{name}` a gate `approval`, or say `variants: trusted` at service `{service}`"
                );
                let at = root.key_at(&["environments", name.as_str()]);
                reporter.error_with_help(at, message, help);
            }
        }
    }
}

/// A Dockerfile may lie outside of its context, not outside of the repository.
pub(super) fn refuse_outside(
    image: &Image,
    dockerfile: &str,
    path: &[&str],
    root: &Node,
    reporter: &mut Reporter<'_>,
) {
    let parts =
        |path: &str, is_wanted: fn(&&str) -> bool| path.split('/').filter(is_wanted).count();
    let above = parts(dockerfile, |part| *part == "..");
    if above > parts(&image.context, |part| *part != ".") {
        let message = format!(
            "`{dockerfile}` leaves the repository: it is relative to `context`, which is `{}`",
            image.context
        );
        reporter.error(root.value_at(path), message);
    }
}
