//! A release: one commit with the digests of its images, made once and never changed.

use crate::authorship::Authorship;
use crate::id::{CommitSha, EnvironmentName, ImageDigest, Place, ReleaseId, RunId, ServiceName};
use crate::spec::{Diagnostics, parse_task_definition};
use crate::variant::ImageVariant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Where an image stands and which bytes it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// `registry/repository`, as the registry told it.
    pub repository_uri: String,
    /// The manifest's digest.
    pub digest: ImageDigest,
}

impl ImageRef {
    /// The name that a task definition carries, `registry/repository@sha256:…`.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.repository_uri, self.digest)
    }
}

/// What a run built, by name: of an image with variants each one.
pub type Images = BTreeMap<ImageVariant, ImageRef>;

/// Environment variables per environment, read at the release's commit.
pub type Variables = BTreeMap<EnvironmentName, BTreeMap<String, String>>;

/// Which file of the repository a place's task definition is, and what its variables stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromFile {
    /// The file's path.
    pub file: String,
    /// All variables, those that Roadstead sets among them.
    pub variables: BTreeMap<String, String>,
}

/// Task definitions that come out of files, read at the release's commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinitions {
    /// The texts of the files, by path.
    pub files: BTreeMap<String, String>,
    /// What each service of each environment takes. The others' are not in files.
    pub places: BTreeMap<EnvironmentName, BTreeMap<ServiceName, FromFile>>,
}

impl TaskDefinitions {
    /// The definition of a place, with its variables put in; none when it comes out of no file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn of(&self, place: &Place) -> Option<Result<Value, Diagnostics>> {
        let from = self.places.get(&place.environment)?.get(&place.service)?;
        let text = self.files.get(&from.file).map_or("", String::as_str);
        let read = parse_task_definition(&from.file, text, &from.variables, None);
        Some(read)
    }

    /// Whether a place's definition comes out of a file.
    #[must_use]
    pub fn has(&self, place: &Place) -> bool {
        let services = self.places.get(&place.environment);
        services.is_some_and(|services| services.contains_key(&place.service))
    }

    /// Nothing comes out of a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// What is deployed, promoted and rolled back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its id; a higher number is a newer release of the project.
    pub id: ReleaseId,
    /// The run that built it; none when it was registered through the API.
    pub run: Option<RunId>,
    /// The commit.
    pub commit: CommitSha,
    /// Commits that come after it and were released, or on their way to a release, when this was made:
    /// its push was told late, or built slowly. Automation does not go back to it (I4).
    pub descendants: BTreeSet<CommitSha>,
    /// First line of the commit's message.
    pub message: String,
    /// Who wrote the commit, as the forge or git tells it.
    pub author: String,
    /// The images, all built in its run; [`Release::image`] tells which of them a place gets.
    pub images: Images,
    /// Who made its commits; none when it was made before that was noted.
    pub authorship: Option<Authorship>,
    /// Variables per environment.
    pub variables: Variables,
    /// Task definitions that come out of files.
    pub task_definitions: TaskDefinitions,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Release {
    /// Whether `other` is of a commit that comes after this one's, although this was made later.
    #[must_use]
    pub fn is_overtaken_by(&self, other: &Self) -> bool {
        self.descendants.contains(&other.commit)
    }
}
