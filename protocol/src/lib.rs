//! What server and runner say to each other: HTTP/JSON, outbound from the runner, versioned.
//!
//! Owns the wire types and the paths; knows nothing of either side's insides. Everything a runner
//! sends is hostile until the server has checked it: structs are flat, unknown members are refused
//! and every text has a limit that the server enforces.
//!
//! | call | credential | answer |
//! |---|---|---|
//! | `POST /runner/v1/register` [`Register`] | registration token | [`Registered`] |
//! | `POST /runner/v1/poll` [`Poll`] | runner | [`PollReply`], after at most [`POLL_SECONDS`] |
//! | `POST /runner/v1/heartbeat` [`Heartbeat`] | runner | [`HeartbeatReply`] |
//! | `POST /runner/v1/goodbye` [`Goodbye`] | runner | 204; what was assigned and not accepted is lost at once |
//! | `POST /runner/v1/attempts/{attempt}/accept` | attempt | 204; unaccepted after [`ACCEPT_SECONDS`] it is lost |
//! | `GET /runner/v1/attempts/{attempt}/sources?have=<commit>` | attempt | a git pack; `have` is a commit whose objects the runner holds (may be absent) |
//! | `GET /runner/v1/attempts/{attempt}/sources?stored=true` | attempt | a git pack as the server stores it, behind its index, see [`INDEX_BYTES_HEADER`]; without that header a git pack |
//! | `GET /runner/v1/attempts/{attempt}/sources?beside=<pack>` | attempt | a git pack of what a stored pack lacks, which [`PACK_HEADER`] named |
//! | `GET /runner/v1/attempts/{attempt}/registry-credentials` | attempt | [`RegistryCredentials`] |
//! | `GET /runner/v1/attempts/{attempt}/secrets?fence=N` | attempt | [`Secrets`]: all that its steps name, told to a live lease alone |
//! | `PUT /runner/v1/attempts/{attempt}/steps/{step}` [`StepReport`] | attempt | 204 |
//! | `PATCH /runner/v1/attempts/{attempt}/steps/{step}/log?offset=N` bytes | attempt | 204, or 416 with [`LOG_OFFSET_HEADER`] |
//! | `POST /runner/v1/attempts/{attempt}/steps/{step}/log/seal` [`LogSeal`] | attempt | 204, or 412 with [`LOG_OFFSET_HEADER`] |
//! | `PUT /runner/v1/attempts/{attempt}/steps/{step}/artifact?…` [`ArtifactSent`] as the query, bytes | attempt | 204, idempotent; 413 over a limit; 422 when the bytes are others than was told |
//! | `GET /runner/v1/attempts/{attempt}/steps/{step}/artifacts` | attempt | [`ArtifactsOffered`]: what the step gets of those in [`Step::artifacts_from`] |
//! | `GET /runner/v1/attempts/{attempt}/steps/{step}/artifacts/{from}/{name}` | attempt | the bytes of one of them |
//! | `GET /runner/v1/attempts/{attempt}/steps/{step}/caches/{cache}?…` [`CacheWanted`] as the query | attempt | [`CacheAnswer`] |
//! | `GET /runner/v1/attempts/{attempt}/steps/{step}/caches/{cache}/{id}` | attempt | its bytes; 404 when it is gone by now |
//! | `PUT /runner/v1/attempts/{attempt}/steps/{step}/caches/{cache}?…` [`CacheSent`] as the query, bytes | attempt | [`CacheKept`]; 403 when the run stores none; 413 over a limit; 422 when the bytes are others than was told |
//! | `PUT /runner/v1/attempts/{attempt}/steps/{step}/tests` [`TestReport`] | attempt | 204; the first one stands |
//! | `PUT /runner/v1/attempts/{attempt}/result` [`AttemptResult`] | attempt | 204, idempotent |
//!
//! A credential travels as `Authorization: Bearer …`. An attempt's calls answer 409 when its lease
//! is lost or it has ended: the runner then stops its containers and forgets it. Errors are
//! [`Problem`] with the fitting status.

mod artifact;
mod cache;
mod goodbye;
mod image;
mod report;
mod secret;

pub use artifact::{
    ArtifactOffered, ArtifactSent, ArtifactsOffered, LARGEST_ARTIFACT, LONGEST_ARTIFACT_NAME,
    MOST_ARTIFACT_BYTES, MOST_ARTIFACTS, MOST_FETCHED_ARTIFACTS, StepFiles, check_artifact_name,
};
pub use cache::{
    CacheAnswer, CacheFound, CacheKept, CacheSent, CacheWanted, LARGEST_CACHE,
    LARGEST_UNPACKED_CACHE, LONGEST_ARCHITECTURE, MOST_CACHE_ENTRIES, StepCache, is_architecture,
    is_sha256,
};
pub use goodbye::Goodbye;
pub use image::{ImageBuild, RegistryUse};
pub use report::{
    FailedCase, LARGEST_REPORT, LARGEST_TEST_REPORT, LONGEST_CASE_MESSAGE, LONGEST_CASE_NAME,
    MOST_FAILED_CASES, MOST_REPORTS, TestReport,
};
pub use secret::{ImageSecret, Secrets, StepSecret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The protocol's version; a server speaks the older ones too, so that it can be brought to a new one before its
/// runners are.
///
/// | version | what came with it |
/// |---|---|
/// | 1 | |
/// | 2 | secrets of steps ([`StepSecret`]), [`Step::retry`], limits of steps ([`StepLimits`]) |
/// | 3 | secrets of image builds ([`ImageSecret`]), artifacts and reports of steps ([`StepFiles`]) |
/// | 4 | artifacts of earlier jobs ([`Step::artifacts_from`]), images that are not pushed ([`RegistryUse`]) |
/// | 5 | caches of steps ([`StepCache`]) |
pub const PROTOCOL_VERSION: u32 = 5;
/// The oldest version that a server speaks.
pub const OLDEST_PROTOCOL_VERSION: u32 = 1;
/// Longest wait of one poll, in seconds.
pub const POLL_SECONDS: u64 = 25;
/// Between two heartbeats, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 5;
/// How long an attempt lives without a heartbeat, in seconds.
pub const LEASE_SECONDS: u64 = 30;
/// How long an assignment may stay unaccepted, in seconds.
pub const ACCEPT_SECONDS: u64 = 15;
/// Between SIGTERM and SIGKILL when an attempt is cancelled, in seconds.
pub const CANCEL_GRACE_SECONDS: u64 = 10;
/// Largest body of one log `PATCH`, in bytes.
pub const LOG_CHUNK_BYTES: usize = 1 << 20;
/// Tells the offset at which the server goes on (decimal bytes).
pub const LOG_OFFSET_HEADER: &str = "roadstead-log-offset";
/// Tells the commit at the tip of a pack of sources.
pub const COMMIT_HEADER: &str = "roadstead-commit";

/// Tells how many bytes of the answer are the index of the git pack that follows. Such a pack need not
/// hold all of the commit: `beside` gives the rest.
pub const INDEX_BYTES_HEADER: &str = "roadstead-index-bytes";
/// Tells the name of a stored pack: 40 hexadecimal digits.
pub const PACK_HEADER: &str = "roadstead-pack";

/// Why a call was refused, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What happened, where, and what to do.
    pub message: String,
}

/// A new runner introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The token that an administrator set for runners.
    pub registration_token: String,
    /// How people call this runner: 1–64 characters.
    pub name: String,
    /// Free words that steps may ask for.
    pub labels: Vec<String>,
}

/// The runner's own credential, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The runner's id.
    pub runner_id: String,
    /// The secret that it polls with; the server keeps its hash.
    pub credential: String,
}

/// One attempt as both sides name it; `fence` grows with each attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptRef {
    /// The attempt's id.
    pub attempt: String,
    /// Its fencing number.
    pub fence: u64,
}

/// What a runner offers and does, once per long poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// [`PROTOCOL_VERSION`] of the runner.
    pub protocol_version: u32,
    /// Labels of the runner.
    pub labels: Vec<String>,
    /// How many more attempts it would take; zero still hears of cancels.
    pub free_slots: u32,
    /// Free bytes where attempts work.
    pub disk_free_bytes: u64,
    /// The attempts that it runs now.
    pub running: Vec<AttemptRef>,
}

/// The answer to a poll; empty when nothing came in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollReply {
    /// Work to start.
    pub assign: Option<Assignment>,
    /// Attempts to stop because somebody cancelled them.
    pub cancel: Vec<String>,
    /// Attempts that are no longer this runner's: stop, report nothing.
    pub lost: Vec<String>,
    /// Take no more work and leave when the running attempts end.
    pub drain: bool,
}

/// Says that attempts are alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The attempts that it runs now.
    pub running: Vec<AttemptRef>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Attempts to stop because somebody cancelled them.
    pub cancel: Vec<String>,
    /// Attempts that are no longer this runner's.
    pub lost: Vec<String>,
}

/// One attempt at a run's job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Id and fence.
    #[serde(flatten)]
    pub attempt: AttemptRef,
    /// Bearer token for this attempt's calls.
    pub token: String,
    /// The project's name.
    pub project: String,
    /// The run's id.
    pub run: String,
    /// The commit, 40 hex digits.
    pub commit: String,
    /// The ref that was pushed, `refs/heads/main`.
    pub git_ref: String,
    /// Steps in an order that respects `needs`.
    pub steps: Vec<Step>,
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name in the pipeline file.
    pub name: String,
    /// Steps that must have succeeded.
    pub needs: Vec<String>,
    /// Seconds that each try may take.
    pub timeout_seconds: u64,
    /// How often it is tried again after it failed.
    #[serde(default)]
    pub retry: u32,
    /// Steps of earlier jobs whose artifacts are brought into its workspace before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts_from: Vec<String>,
    /// What it does.
    pub action: StepAction,
}

impl Step {
    /// The version of the protocol that a runner has to speak: one that speaks an older would leave out what it
    /// does not know.
    #[must_use]
    pub fn protocol_version(&self) -> u32 {
        let of_action = match &self.action {
            StepAction::Run { files, .. } if !files.caches.is_empty() => 5,
            StepAction::Run { files, .. } if !files.is_silent() => 3,
            StepAction::Run {
                secrets, limits, ..
            } if !secrets.is_empty() || !limits.is_silent() => 2,
            StepAction::Build { images } => images
                .iter()
                .map(ImageBuild::protocol_version)
                .max()
                .unwrap_or(1),
            StepAction::Run { .. } => 1,
        };
        let of_retry = if self.retry > 0 { 2 } else { 1 };
        let of_artifacts = if self.artifacts_from.is_empty() { 1 } else { 4 };
        of_artifacts.max(of_retry).max(of_action)
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepAction {
    /// Runs a shell text in a container.
    Run {
        /// The container's image.
        image: String,
        /// Text for `/bin/sh -eu`.
        run: String,
        /// Environment variables.
        env: BTreeMap<String, String>,
        /// Helpers on the step's private network, reached by name.
        sidecars: BTreeMap<String, Sidecar>,
        /// The secrets that it gets, by name; their values are asked for.
        #[serde(default)]
        secrets: Vec<StepSecret>,
        /// How much of the runner's machine it may use.
        #[serde(default, skip_serializing_if = "StepLimits::is_silent")]
        limits: StepLimits,
        /// What becomes of files in its workspace.
        #[serde(default, skip_serializing_if = "StepFiles::is_silent")]
        files: StepFiles,
    },
    /// Builds images and pushes them.
    Build {
        /// The images, in the file's order.
        images: Vec<ImageBuild>,
    },
}

/// How much of a runner's machine a step's container may use; what is not said is the runner's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepLimits {
    /// CPU units: 1024 are one processor.
    pub cpu: Option<u32>,
    /// Memory in MiB.
    pub memory: Option<u32>,
}

impl StepLimits {
    /// Says nothing.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        *self == Self::default()
    }
}

/// A helper container beside a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Its image.
    pub image: String,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Overrides the image's command when not empty.
    pub command: Vec<String>,
}

/// A login for the registry; lives as long as the registry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredentials {
    /// Registry address as image names carry it, `127.0.0.1:4570`.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// The fence of the attempt.
    pub fence: u64,
    /// The state.
    pub state: StepState,
}

/// A step's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepState {
    /// Waits for what it needs.
    Waiting,
    /// Runs.
    Running,
    /// Runs again after it failed.
    Retrying {
        /// Which try it is, from 2.
        number: u32,
    },
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed {
        /// The container's exit status, when there was one.
        exit_code: Option<i64>,
        /// What happened, for a person (at most 4 kB).
        reason: String,
    },
    /// Never ran because something that it needs failed.
    Skipped,
    /// Stopped on request.
    Cancelled,
    /// Ran into its timeout.
    TimedOut,
}

/// `2nd`, as in the second try.
#[must_use]
pub fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Closes a step's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSeal {
    /// The fence of the attempt.
    pub fence: u64,
    /// All bytes of the log.
    pub length: u64,
    /// SHA-256 of all bytes, hexadecimal.
    pub sha256: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptResult {
    /// The fence of the attempt.
    pub fence: u64,
    /// The end.
    pub outcome: Outcome,
    /// Images that were pushed, by digest.
    pub images: Vec<BuiltImage>,
}

/// The ends of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Every step succeeded.
    Succeeded,
    /// The user's code failed.
    Failed {
        /// The step that failed first.
        step: String,
        /// What happened, for a person.
        reason: String,
    },
    /// The runner or something under it failed; another attempt may do.
    Errored {
        /// What happened, for a person.
        reason: String,
    },
    /// Stopped on request.
    Cancelled,
    /// A step ran into its timeout.
    TimedOut {
        /// That step.
        step: String,
    },
}

/// A pushed image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltImage {
    /// Its name in the pipeline file.
    pub name: String,
    /// `registry/repository`.
    pub repository_uri: String,
    /// `sha256:…` of the manifest.
    pub digest: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_reads_as_it_was_written() {
        let assignment = Assignment {
            attempt: AttemptRef {
                attempt: "shop.12.a1".into(),
                fence: 1,
            },
            token: "t".into(),
            project: "shop".into(),
            run: "shop.12".into(),
            commit: "0".repeat(40),
            git_ref: "refs/heads/main".into(),
            steps: vec![Step {
                name: "build".into(),
                needs: vec![],
                timeout_seconds: 60,
                retry: 1,
                artifacts_from: vec!["test".into()],
                action: StepAction::Build { images: vec![] },
            }],
        };
        let text = serde_json::to_string(&assignment).unwrap();
        assert_eq!(
            serde_json::from_str::<Assignment>(&text).unwrap(),
            assignment
        );
    }

    #[test]
    fn a_step_is_nothing_for_a_runner_that_would_leave_out_what_it_asks_for() {
        let version = |limits, files| {
            let action = StepAction::Run {
                image: "busybox".into(),
                run: "make".into(),
                env: BTreeMap::new(),
                sidecars: BTreeMap::new(),
                secrets: vec![],
                limits,
                files,
            };
            let step = Step {
                name: "test".into(),
                needs: vec![],
                timeout_seconds: 60,
                retry: 0,
                artifacts_from: vec![],
                action,
            };
            step.protocol_version()
        };
        let none = StepFiles::default;
        assert_eq!(version(StepLimits::default(), none()), 1);
        let memory = Some(512);
        assert_eq!(version(StepLimits { cpu: None, memory }, none()), 2);
        let artifacts = vec!["dist/**".to_owned()];
        let kept = StepFiles {
            artifacts,
            ..none()
        };
        assert_eq!(version(StepLimits::default(), kept), 3);
        let junit = vec!["*.xml".to_owned()];
        let read = StepFiles { junit, ..none() };
        assert_eq!(version(StepLimits::default(), read), 3);
        let caches = vec![StepCache {
            name: "cargo".into(),
            paths: vec!["target".into()],
            key: vec!["Cargo.lock".into()],
        }];
        let found = StepFiles { caches, ..none() };
        assert_eq!(version(StepLimits::default(), found), 5);
    }

    #[test]
    fn an_image_is_nothing_for_a_runner_that_would_leave_out_how_it_is_built() {
        let version = |secrets, registry| {
            let image = ImageBuild {
                name: "web".into(),
                repository_uri: "registry/web".into(),
                tag: "git-1".into(),
                context: ".".into(),
                dockerfile: "Dockerfile".into(),
                target: None,
                args: BTreeMap::new(),
                secrets,
                registry,
            };
            let step = Step {
                name: "build".into(),
                needs: vec![],
                timeout_seconds: 60,
                retry: 1,
                artifacts_from: vec![],
                action: StepAction::Build {
                    images: vec![image],
                },
            };
            let mut gets = step.clone();
            gets.artifacts_from = vec!["test".into()];
            assert_eq!(gets.protocol_version(), 4);
            step.protocol_version()
        };
        let push = RegistryUse::Push;
        assert_eq!(version(vec![], push), 2, "it is tried again");
        // One of a fork, which an older runner would push.
        for not_pushed in [RegistryUse::Pull, RegistryUse::None] {
            assert_eq!(version(vec![], not_pushed), 4);
        }
        let secret = ImageSecret {
            secret: "staging/TOKEN".into(),
            id: "staging.TOKEN".into(),
        };
        assert_eq!(version(vec![secret], push), 3);
    }

    #[test]
    fn ordinals_read_as_people_say_them() {
        let said = [1, 2, 3, 4, 6, 11, 12, 21].map(ordinal);
        assert_eq!(
            said,
            ["1st", "2nd", "3rd", "4th", "6th", "11th", "12th", "21st"]
        );
    }

    #[test]
    fn debug_tells_no_value() {
        let secrets = Secrets {
            values: [("TOKEN".to_owned(), "hunter2-hunter2".to_owned())].into(),
            withheld: BTreeMap::new(),
        };
        let shown = format!("{secrets:?}");
        assert!(
            shown.contains("TOKEN") && !shown.contains("hunter"),
            "{shown}"
        );
    }

    #[test]
    fn what_a_runner_sends_may_hold_nothing_unknown() {
        let text = r#"{"running":[],"admin":true}"#;
        assert!(
            serde_json::from_str::<Heartbeat>(text)
                .unwrap_err()
                .to_string()
                .contains("admin")
        );
    }
}
