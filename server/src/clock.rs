//! The one place that reads the time of day, cut to microseconds: PostgreSQL keeps no finer, and a
//! time has to read back as it was written.

use jiff::Timestamp;

/// Now, in whole microseconds.
#[must_use]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
