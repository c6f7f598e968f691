//! How a runner takes its leave.

use serde::{Deserialize, Serialize};

/// The runner ends in good order. A server that does not know the call answers 404, and finds the runner's end by
/// its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goodbye {
    /// It does not come back: its credential ends, and its name is free at once.
    pub for_good: bool,
}
