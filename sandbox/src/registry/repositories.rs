//! What ECR knows and the registry does not: repositories, tokens, when an image was pushed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::services::ecr::scans::Scan;

/// Everything kept, in one file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EcrRecords {
    pub repositories: BTreeMap<String, Repository>,
    /// Hex SHA-256 of a token's password → when it ends. The passwords themselves are not kept.
    pub(super) tokens: BTreeMap<String, Time>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub created_at: Time,
    pub mutability: TagMutability,
    /// By digest. An image that the registry has and that is not here was pushed just before a
    /// crash.
    pub images: BTreeMap<String, PushedImage>,
    /// What was told of scans, by digest.
    #[serde(default)]
    pub scans: BTreeMap<String, Scan>,
    /// The text of its lifecycle policy as it came.
    #[serde(default)]
    pub lifecycle_policy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PushedImage {
    pub pushed_at: Time,
    pub media_type: String,
}

/// Which tags may be moved to another image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagMutability {
    /// Tags stay where they are, except those that a filter names.
    pub immutable: bool,
    /// Patterns with `*` for tags to which the opposite applies.
    pub exclusions: Vec<String>,
}

impl TagMutability {
    /// Whether `tag` may be moved once it exists.
    pub(crate) fn allows_moving(&self, tag: &str) -> bool {
        let excluded = self.exclusions.iter().any(|filter| wildcard(filter, tag));
        self.immutable == excluded
    }

    /// AWS's name for it.
    pub(crate) fn name(&self) -> &'static str {
        match (self.immutable, self.exclusions.is_empty()) {
            (false, true) => "MUTABLE",
            (true, true) => "IMMUTABLE",
            (false, false) => "MUTABLE_WITH_EXCLUSION",
            (true, false) => "IMMUTABLE_WITH_EXCLUSION",
        }
    }
}

/// Whether `text` has the form of `pattern`, in which `*` stands for anything.
fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_turn_immutability_around() {
        let plain = TagMutability::default();
        assert!(plain.allows_moving("latest"));
        let immutable = TagMutability {
            immutable: true,
            exclusions: vec!["latest*".to_owned(), "build*cache-*x".to_owned()],
        };
        for (tag, moves) in [
            ("latest", true),
            ("latest-arm", true),
            ("v1", false),
            ("not-latest", false),
            ("buildcache-x", true),
            ("build-1-cache-2-x", true),
            ("buildcache-", false),
        ] {
            assert_eq!(immutable.allows_moving(tag), moves, "{tag}");
        }
        assert_eq!(immutable.name(), "IMMUTABLE_WITH_EXCLUSION");
    }
}
