//! Files of a step's workspace that outlive it.

use crate::StepCache;
use serde::{Deserialize, Serialize};

/// Most files that one attempt at a step keeps.
pub const MOST_ARTIFACTS: usize = 1_000;
/// Largest file that is kept, in bytes: 1 GiB, as the largest log.
pub const LARGEST_ARTIFACT: u64 = 1 << 30;
/// Most bytes that one attempt at a step keeps in all: 4 GiB.
pub const MOST_ARTIFACT_BYTES: u64 = 4 << 30;
/// Longest name of an artifact, in bytes.
pub const LONGEST_ARTIFACT_NAME: usize = 1_024;

/// What becomes of files in a step's workspace after its container has ended, and what it finds there before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepFiles {
    /// Patterns of files that are kept by the server; the last one that matches decides, `!` taking away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Patterns of JUnit reports that are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub junit: Vec<String>,
    /// What later runs find in their workspace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<StepCache>,
}

impl StepFiles {
    /// Says nothing.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }
}

/// What a runner says of the artifact whose bytes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactSent {
    /// The fence of the attempt.
    pub fence: u64,
    /// Its path in the workspace, see [`check_artifact_name`].
    pub name: String,
    /// All bytes of it, at most [`LARGEST_ARTIFACT`].
    pub length: u64,
    /// SHA-256 of all bytes, hexadecimal in small letters.
    pub sha256: String,
}

/// Most files that a step gets of earlier jobs; of bytes it gets [`MOST_ARTIFACT_BYTES`] at most.
pub const MOST_FETCHED_ARTIFACTS: usize = 10_000;

/// A file that a step of an earlier job has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactOffered {
    /// That step.
    pub step: String,
    /// Its path in the workspace, see [`check_artifact_name`].
    pub name: String,
    /// Its size in bytes.
    pub length: u64,
    /// SHA-256 of its bytes, hexadecimal in small letters.
    pub sha256: String,
}

/// What a step gets of earlier jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactsOffered {
    /// By the steps as they are named, and by name.
    pub artifacts: Vec<ArtifactOffered>,
}

/// Whether `name` is a path that stays below the folder that it is relative to: parts between single slashes,
/// none of them `.` or `..`, no control characters, at most [`LONGEST_ARTIFACT_NAME`] bytes.
///
/// # Errors
/// What is wrong with it, in words that follow on the name.
pub fn check_artifact_name(name: &str) -> Result<(), &'static str> {
    if name.len() > LONGEST_ARTIFACT_NAME {
        return Err("is longer than 1,024 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character in it");
    }
    if name.contains('\\') {
        return Err("has a `\\` in it, which some systems take for a `/`");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("is not a plain path below the workspace");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_its_folder() {
        for name in [
            "a",
            "dist/app.js",
            "..a/b..",
            ".env",
            "ü ü/%2e%2e/100%",
            "...",
            "a:b",
        ] {
            assert_eq!(check_artifact_name(name), Ok(()), "{name}");
        }
        let long = "x".repeat(LONGEST_ARTIFACT_NAME + 1);
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\nb",
            "a\0",
            "\u{7f}",
            "..\\x",
            &long,
        ] {
            assert!(check_artifact_name(name).is_err(), "{name:?}");
        }
    }
}
