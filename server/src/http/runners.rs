//! How a runner stands, for the pages and the API alike.

use crate::store::Runner;
use jiff::{SignedDuration, Timestamp};

/// A runner polls or sends a heartbeat much more often than this.
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How a runner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for work.
    Idle,
    /// It works, and may have room for more.
    Busy,
    /// It takes nothing because its disk is nearly full.
    LowDisk,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It has nothing to do and takes nothing, whether its process is there or not.
    Drained,
    /// It said goodbye.
    Gone,
    /// It fell silent.
    Lost,
}

impl Standing {
    pub(super) fn of(runner: &Runner, now: Timestamp) -> Self {
        let busy = !runner.running.is_empty();
        let is_heard_of = now.duration_since(runner.last_seen_at) <= LOST_AFTER;
        let for_good = runner.left.is_some_and(|left| left.for_good);
        match runner.left {
            _ if runner.drain && !busy && !for_good => Self::Drained,
            Some(_) => Self::Gone,
            None if !is_heard_of => Self::Lost,
            None if runner.drain => Self::Draining,
            None if busy => Self::Busy,
            None if runner.free_slots == 0 && runner.disk_free_bytes.is_some() => Self::LowDisk,
            None => Self::Idle,
        }
    }

    /// Whether it takes jobs, now or when it has room.
    pub(super) fn takes_work(self) -> bool {
        matches!(self, Self::Idle | Self::Busy)
    }

    /// The word for it in the API.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::LowDisk => "low_disk",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Gone => "gone",
            Self::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Left;

    #[test]
    fn a_runner_stands_as_it_last_said() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        let left = |for_good| Some(Left { at: now, for_good });
        let one = |seen, busy: bool, drain, left, free_slots| Runner {
            id: "a".into(),
            name: "a".into(),
            labels: vec![],
            registered_at: ago(9_999),
            last_seen_at: ago(seen),
            disk_free_bytes: Some(1),
            free_slots,
            drain,
            left,
            running: busy.then(|| "shop.1.a1".to_owned()).into_iter().collect(),
        };
        for (runner, standing) in [
            (one(60, false, false, None, 1), Standing::Idle),
            (one(61, false, false, None, 1), Standing::Lost),
            (one(61, true, false, None, 1), Standing::Lost),
            (one(1, true, false, None, 0), Standing::Busy),
            (one(1, false, false, None, 0), Standing::LowDisk),
            (one(1, true, true, None, 1), Standing::Draining),
            (one(61, true, true, None, 1), Standing::Lost),
            (one(1, false, true, None, 1), Standing::Drained),
            (one(61, false, true, None, 1), Standing::Drained),
            (one(61, false, true, left(false), 0), Standing::Drained),
            (one(61, true, true, left(false), 0), Standing::Gone),
            (one(1, false, false, left(false), 0), Standing::Gone),
            (one(61, false, true, left(true), 0), Standing::Gone),
        ] {
            assert_eq!(Standing::of(&runner, now), standing, "{runner:?}");
        }
    }
}
