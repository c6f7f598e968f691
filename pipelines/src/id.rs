//! Names and ids as types, so that one cannot be taken for another.
//!
//! Names come from people and are checked; ids are made here from a project's counters, so a plan
//! made twice from one world names the same things.

use crate::job::DEFAULT_JOB;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A name that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a valid {what}: use 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit"
)]
pub struct InvalidName {
    /// The word for the kind of name.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
}

/// Lower-case letters, digits and hyphens, 1–63, no hyphen first: fits host names, ECR and ECS.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.len(), 1..=63)
        && bytes[0] != b'-'
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        text_type!($(#[$doc])* $name);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            /// [`InvalidName`] when it is not 1–63 of `a-z0-9-` beginning with a letter or digit.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, name: text.to_owned() })
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// One repository under Roadstead's care.
    ProjectName,
    "project name"
);
name_type!(
    /// A place in the promotion order, `staging`.
    EnvironmentName,
    "environment name"
);
name_type!(
    /// A service of the pipeline file.
    ServiceName,
    "service name"
);
name_type!(
    /// An image of the pipeline file.
    ImageName,
    "image name"
);
name_type!(
    /// A step of the pipeline file.
    StepName,
    "step name"
);
name_type!(
    /// A job of a run.
    JobName,
    "job name"
);
impl JobName {
    /// The job that a step has for itself.
    #[must_use]
    pub fn of_step(step: &StepName) -> Self {
        Self(step.0.clone())
    }
    /// The job of the steps without one of their own, behind so many jobs of single steps.
    #[must_use]
    pub fn shared(behind: usize) -> Self {
        Self(match behind {
            0 => DEFAULT_JOB.to_owned(),
            more => format!("{DEFAULT_JOB}-{}", more + 1),
        })
    }
    /// Whether steps share a job of this name; a step of such a name has none for itself.
    #[must_use]
    pub fn is_of_shared(text: &str) -> bool {
        text.strip_prefix(DEFAULT_JOB).is_some_and(|rest| {
            let number = rest.strip_prefix('-');
            rest.is_empty()
                || number.is_some_and(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_digit()))
        })
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        text_type!($(#[$doc])* $name);

        impl $name {
            /// The `number`-th of a project.
            #[must_use]
            pub fn new(project: &ProjectName, number: u64) -> Self {
                Self(format!("{project}.{}{number}", $prefix))
            }
            /// Reads an id; `None` when it is no id of this kind.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let (project, rest) = text.split_once('.')?;
                let number = rest.strip_prefix($prefix)?;
                let canonical = number.parse::<u64>().ok()?.to_string() == number;
                (is_name(project) && canonical).then(|| Self(text.to_owned()))
            }
            /// The project it belongs to.
            #[must_use]
            pub fn project(&self) -> ProjectName {
                ProjectName(self.0.split('.').next().unwrap_or_default().to_owned())
            }
            /// Its number within the project.
            #[must_use]
            pub fn number(&self) -> u64 {
                let (_, rest) = self.0.split_once('.').unwrap_or_default();
                rest.trim_start_matches($prefix).parse().unwrap_or_default()
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text)
                    .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an id of this kind")))
            }
        }
    };
}

id_type!(
    /// One execution of a pipeline for a commit, `shop.12`.
    RunId,
    ""
);
id_type!(
    /// A commit with its image digests, `shop.r7`.
    ReleaseId,
    "r"
);
id_type!(
    /// One try to put a release into an environment, `shop.d31`.
    DeploymentId,
    "d"
);

text_type!(
    /// A git commit: 40 lower-case hex digits.
    CommitSha
);
impl CommitSha {
    /// Reads a full object id; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (text.len() == 40 && hex).then(|| Self(text.to_owned()))
    }
    /// The first seven digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}
impl<'de> Deserialize<'de> for CommitSha {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a commit id")))
    }
}

text_type!(
    /// The digest of an image's manifest: `sha256:` and 64 hex digits.
    ImageDigest
);
impl ImageDigest {
    /// Reads a digest; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let lower_hex = hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (hex.len() == 64 && lower_hex).then(|| Self(text.to_owned()))
    }
}
impl<'de> Deserialize<'de> for ImageDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an image digest")))
    }
}

/// One service in one environment: the unit that is deployed, queued and held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The environment.
    pub environment: EnvironmentName,
    /// The service.
    pub service: ServiceName,
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.environment, self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_do_not_mix() {
        let shop = ProjectName::parse("shop").unwrap();
        let run = RunId::new(&shop, 12);
        assert_eq!(run.as_str(), "shop.12");
        assert_eq!(RunId::parse("shop.12"), Some(run.clone()));
        assert_eq!((run.project(), run.number()), (shop.clone(), 12));
        assert_eq!(ReleaseId::new(&shop, 7).number(), 7);
        assert_eq!(RunId::parse("shop.r7"), None);
        assert_eq!(DeploymentId::parse("shop.r7"), None);
        assert_eq!(RunId::parse("shop.012"), None);
        assert_eq!(RunId::parse("../x.1"), None);
    }

    #[test]
    fn names_are_checked() {
        assert!(ProjectName::parse("shop-2").is_ok());
        for bad in ["", "Shop", "a.b", "-a", "a/b", &"x".repeat(64)] {
            assert!(ProjectName::parse(bad).is_err(), "{bad}");
        }
    }
}
