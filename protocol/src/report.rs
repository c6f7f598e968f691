//! What a step's test reports come to.

use serde::{Deserialize, Serialize};

/// Most files of reports that are read of one step.
pub const MOST_REPORTS: usize = 1_000;
/// Largest file of a report that is read, in bytes: 16 MiB.
pub const LARGEST_REPORT: u64 = 16 << 20;
/// Most failed cases that are told of one step; the others are only counted.
pub const MOST_FAILED_CASES: usize = 50;
/// Longest class and longest name of a case, in bytes.
pub const LONGEST_CASE_NAME: usize = 500;
/// Longest message of a failed case, in bytes.
pub const LONGEST_CASE_MESSAGE: usize = 2_000;
/// Largest body of a [`TestReport`], in bytes: all cases as long as they may be, and written out at six times that.
pub const LARGEST_TEST_REPORT: usize = 1 << 20;

/// What the test reports of a step come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestReport {
    /// The fence of the attempt.
    pub fence: u64,
    /// All cases.
    pub tests: u64,
    /// Those that failed, or broke off.
    pub failed: u64,
    /// Those that were not tried.
    pub skipped: u64,
    /// Files that could not be read; the step's log says why.
    pub unread: u64,
    /// The first cases that failed, at most [`MOST_FAILED_CASES`].
    pub cases: Vec<FailedCase>,
}

/// A case that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedCase {
    /// What it belongs to; may be empty.
    pub class: String,
    /// Its name.
    pub name: String,
    /// What it said, cut to [`LONGEST_CASE_MESSAGE`].
    pub message: String,
}
