//! Variants: an image as it is built for one environment, where the pipeline file gives that environment build
//! arguments or a Dockerfile of its own.
//!
//! All variants of a commit's image are built in the same run and are siblings of each other. A release holds all of
//! them, and which one an environment gets is a question to the release alone: so what was proved, promoted or rolled
//! back to never changes with a newer file. Nothing here knows of builds or registries.

use crate::id::{EnvironmentName, ImageName, InvalidName, Place};
use crate::release::{ImageRef, Release};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What one build makes: `web` for every environment without a variant, `production/web` for that one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ImageVariant {
    /// The image's name in the pipeline file.
    pub image: ImageName,
    /// The environment that it is for; none of the plain image.
    pub environment: Option<EnvironmentName>,
}

impl ImageVariant {
    /// Reads `IMAGE` or `ENVIRONMENT/IMAGE`.
    ///
    /// # Errors
    /// What is no name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (environment, image) = match text.split_once('/') {
            Some((environment, image)) => (Some(EnvironmentName::parse(environment)?), image),
            None => (None, text),
        };
        Ok(Self {
            image: ImageName::parse(image)?,
            environment,
        })
    }

    /// An image as it is built for an environment.
    #[must_use]
    pub fn of(image: &ImageName, environment: &EnvironmentName) -> Self {
        Self {
            image: image.clone(),
            environment: Some(environment.clone()),
        }
    }

    /// What it is tagged with where the plain image has the tag `plain`: `git-<commit>-production`.
    #[must_use]
    pub fn tag(&self, plain: &str) -> String {
        match &self.environment {
            Some(environment) => format!("{plain}-{environment}"),
            None => plain.to_owned(),
        }
    }
}

impl fmt::Display for ImageVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.environment {
            Some(environment) => write!(f, "{environment}/{}", self.image),
            None => write!(f, "{}", self.image),
        }
    }
}

impl From<ImageName> for ImageVariant {
    fn from(image: ImageName) -> Self {
        Self {
            image,
            environment: None,
        }
    }
}

impl From<ImageVariant> for String {
    fn from(variant: ImageVariant) -> Self {
        variant.to_string()
    }
}

impl TryFrom<String> for ImageVariant {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(&text)
    }
}

impl Release {
    /// What it brings of an image to an environment: the variant that was built for it, else the plain image. None
    /// when it holds neither.
    #[must_use]
    pub fn image(
        &self,
        environment: &EnvironmentName,
        image: &ImageName,
    ) -> Option<(&ImageVariant, &ImageRef)> {
        let own = ImageVariant::of(image, environment);
        let plain = || ImageVariant::from(image.clone());
        let found = self.images.get_key_value(&own);
        found.or_else(|| self.images.get_key_value(&plain()))
    }

    /// Whether it brings other bytes to a place than the environment `before` proves: a sibling of the same run.
    #[must_use]
    pub fn brings_a_sibling(
        &self,
        place: &Place,
        image: &ImageName,
        before: &EnvironmentName,
    ) -> bool {
        let digest = |environment| Some(&self.image(environment, image)?.1.digest);
        let here = digest(&place.environment);
        here.is_some() && here != digest(before)
    }

    /// What is to be said of the image that it brings to a place behind `before`, if that is not the very one that is
    /// proved there.
    #[must_use]
    pub fn sibling_note(
        &self,
        place: &Place,
        image: &ImageName,
        before: &EnvironmentName,
    ) -> Option<String> {
        if !self.brings_a_sibling(place, image, before) {
            return None;
        }
        let (here, _) = self.image(&place.environment, image)?;
        let which = match &here.environment {
            Some(environment) => format!("{environment} variant"),
            None => "plain image".to_owned(),
        };
        Some(format!(
            "same commit, {which}: {before} proves its sibling, built in the same run"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_reads_back_and_an_image_alone_is_the_plain_one() {
        let web = ImageName::parse("web").unwrap();
        let production = EnvironmentName::parse("production").unwrap();
        let own = ImageVariant::of(&web, &production);
        assert_eq!(own.to_string(), "production/web");
        assert_eq!(ImageVariant::parse("production/web"), Ok(own.clone()));
        assert_eq!(ImageVariant::parse("web"), Ok(web.clone().into()));
        assert_eq!(own.tag("git-c0ffee"), "git-c0ffee-production");
        assert_eq!(ImageVariant::from(web).tag("git-c0ffee"), "git-c0ffee");
        for bad in ["", "/web", "a/b/c", "Production/web", "production/"] {
            assert!(ImageVariant::parse(bad).is_err(), "{bad}");
        }
    }
}
