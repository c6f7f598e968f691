//! Caches: files of a step's workspace that later runs find there.

use serde::{Deserialize, Serialize};

/// Largest cache, packed, in bytes: 4 GiB.
pub const LARGEST_CACHE: u64 = 4 << 30;
/// Most bytes of files in one cache, unpacked: 16 GiB.
pub const LARGEST_UNPACKED_CACHE: u64 = 16 << 30;
/// Most files, folders and links in one cache.
pub const MOST_CACHE_ENTRIES: u64 = 1_000_000;
/// Longest name of a processor architecture, in bytes.
pub const LONGEST_ARCHITECTURE: usize = 32;

/// A cache that a step names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCache {
    /// Its name in the pipeline file.
    pub name: String,
    /// Folders and files below the workspace, none below another.
    pub paths: Vec<String>,
    /// Patterns of files whose content makes the key; the last one that matches decides, `!` taking away.
    pub key: Vec<String>,
}

/// Which cache a runner looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheWanted {
    /// SHA-256 over the files that make the key, hexadecimal in small letters.
    pub key: String,
    /// The runner's processor, such as `x86_64`: lower-case letters, digits and `_`.
    pub architecture: String,
}

/// What there is for a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheAnswer {
    /// The one of that key, or else the newest of that name.
    pub found: Option<CacheFound>,
    /// Why nothing that the step leaves would be stored, for a person; none when it would.
    pub not_stored: Option<String>,
}

/// A cache that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFound {
    /// What its bytes are asked for with.
    pub id: String,
    /// Its key.
    pub key: String,
    /// The branch, tag or pull request that it is of, for a person.
    pub of: String,
    /// All bytes of it: a tar archive in one zstd stream.
    pub length: u64,
    /// SHA-256 of all bytes, hexadecimal in small letters.
    pub sha256: String,
}

/// What a runner says of the cache whose bytes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSent {
    /// The fence of the attempt.
    pub fence: u64,
    /// See [`CacheWanted::key`].
    pub key: String,
    /// See [`CacheWanted::architecture`].
    pub architecture: String,
    /// All bytes of it, at most [`LARGEST_CACHE`].
    pub length: u64,
    /// SHA-256 of all bytes, hexadecimal in small letters.
    pub sha256: String,
}

/// What became of a cache that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept", rename_all = "snake_case")]
pub enum CacheKept {
    /// It is stored.
    Stored,
    /// One of that key was there first, and stays.
    Taken,
}

/// Whether a text is the hexadecimal form of a SHA-256 sum, in small letters.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Whether a text can be an architecture's name.
#[must_use]
pub fn is_architecture(text: &str) -> bool {
    (1..=LONGEST_ARCHITECTURE).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
