//! Images that a step builds.

use crate::ImageSecret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One image to build and push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageBuild {
    /// Its name in the pipeline file.
    pub name: String,
    /// Where it is pushed, `registry/repository` as the registry told it.
    pub repository_uri: String,
    /// The tag that names the commit, `git-<sha>`.
    pub tag: String,
    /// Context folder in the repository.
    pub context: String,
    /// Dockerfile, relative to the context.
    pub dockerfile: String,
    /// Stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The secrets that instructions may mount; their values are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<ImageSecret>,
    /// What is done with the registry.
    #[serde(default, skip_serializing_if = "RegistryUse::is_push")]
    pub registry: RegistryUse,
}

impl ImageBuild {
    /// The version of the protocol that a runner has to speak.
    pub(crate) fn protocol_version(&self) -> u32 {
        match (self.registry, self.secrets.is_empty()) {
            (RegistryUse::Pull | RegistryUse::None, _) => 4,
            (RegistryUse::Push, false) => 3,
            (RegistryUse::Push, true) => 1,
        }
    }
}

/// What the build of an image does with the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryUse {
    /// It is logged in for base images, and the image is pushed.
    #[default]
    Push,
    /// It is logged in for base images; the image is built and forgotten.
    Pull,
    /// It is not logged in; the image is built and forgotten.
    None,
}

impl RegistryUse {
    /// The image is pushed.
    #[must_use]
    pub fn is_push(&self) -> bool {
        *self == Self::Push
    }
}
