//! Which schedules are due. Each moment of one starts at most one run, and of moments that were missed, as when no
//! server was up, the newest is made up for.
//!
//! Knows nothing of where the files were read nor of how it is kept what has started.

use crate::Timestamp;
use crate::spec::Schedule;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A moment that lies further back is not made up for. Of a daily schedule one is always nearer.
pub const MADE_UP_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// A schedule that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it says.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Since when it holds: moments before were none of its.
    pub since: Timestamp,
}

/// The schedules of a branch's newest file that hold for this branch: those that name it, and those that name none if
/// it is the repository's own. One that the file before had holds since then.
#[must_use]
pub fn standing(schedules: &[Schedule], before: &[Standing], now: Timestamp) -> Vec<Standing> {
    let standing = schedules.iter().map(|schedule| {
        let known = before.iter().find(|known| known.schedule == *schedule);
        Standing {
            schedule: schedule.clone(),
            since: known.map_or(now, |known| known.since),
        }
    });
    standing.collect()
}

/// Whether a schedule in the file of `branch` is one of that branch.
#[must_use]
pub fn is_of(schedule: &Schedule, branch: &str, default: Option<&str>) -> bool {
    match &schedule.branch {
        Some(named) => named == branch,
        None => default == Some(branch),
    }
}

/// The moment for which a schedule has to start a run now, if there is one. `started` are moments that have started
/// one, or were passed over.
///
/// When the clock was put back, moments before one that has started are over: a later one that is nearer than
/// [`MADE_UP_WITHIN`] says so. What lies further ahead is of a clock that was wrong.
#[must_use]
pub fn due(
    standing: &Standing,
    started: &BTreeSet<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let after = standing.since.max(now - MADE_UP_WITHIN);
    if after >= now {
        return None;
    }
    let moment = standing.schedule.newest(after, now)?;
    let over = started
        .range(moment..=now + MADE_UP_WITHIN)
        .next()
        .is_some();
    (!over).then_some(moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn schedule(cron: &str) -> Schedule {
        Schedule {
            cron: cron.into(),
            timezone: "UTC".into(),
            branch: None,
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}Z").parse().unwrap()
    }

    fn nightly() -> Standing {
        Standing {
            schedule: schedule("0 3 * * *"),
            since: at("05T12:00:00"),
        }
    }

    fn none() -> BTreeSet<Timestamp> {
        BTreeSet::new()
    }

    #[test]
    fn a_moment_is_due_once_it_has_come_and_once() {
        let nightly = nightly();
        assert_eq!(due(&nightly, &none(), at("06T02:59:59")), None);
        let moment = at("06T03:00:00");
        assert_eq!(due(&nightly, &none(), moment), Some(moment));
        let later = at("06T03:00:07");
        assert_eq!(due(&nightly, &none(), later), Some(moment));
        assert_eq!(due(&nightly, &[moment].into(), later), None);
        let next = at("07T03:00:00");
        assert_eq!(due(&nightly, &[moment].into(), next), Some(next));
    }

    #[test]
    fn of_what_was_missed_the_newest_is_made_up_for_within_a_day() {
        let nightly = nightly();
        let started = [at("06T03:00:00")].into();
        let after_the_weekend = at("09T11:00:00");
        let missed = due(&nightly, &started, after_the_weekend);
        assert_eq!(missed, Some(at("09T03:00:00")), "one, not three");
        let weekly = Standing {
            schedule: schedule("0 3 * * mon"),
            ..nightly
        };
        assert_eq!(
            due(&weekly, &none(), at("13T02:59:59")),
            Some(at("12T03:00:00"))
        );
        assert_eq!(due(&weekly, &none(), at("13T03:00:00")), None, "too old");
    }

    #[test]
    fn what_was_before_the_file_is_none_of_its() {
        let nightly = nightly();
        assert_eq!(due(&nightly, &none(), at("05T12:00:00")), None);
        assert_eq!(due(&nightly, &none(), at("05T23:00:00")), None);
    }

    #[test]
    fn a_clock_that_is_put_back_starts_nothing_again() {
        let hourly = Standing {
            schedule: schedule("0 * * * *"),
            since: at("05T00:00:00"),
        };
        let started = [at("06T10:00:00")].into();
        for now in ["06T10:30:00", "06T10:00:00", "06T09:30:00", "06T08:00:00"] {
            assert_eq!(due(&hourly, &started, at(now)), None, "{now}");
        }
        // Of a clock that was a week ahead nothing is left once it is right.
        let ahead = [at("13T10:00:00")].into();
        let now = at("06T10:00:00");
        assert_eq!(due(&hourly, &ahead, now), Some(now));
    }

    #[test]
    fn a_schedule_that_stays_in_the_file_holds_since_it_came() {
        let (noon, night) = (schedule("0 12 * * *"), schedule("0 3 * * *"));
        let first = standing(std::slice::from_ref(&night), &[], at("05T00:00:00"));
        let second = standing(&[noon, night.clone()], &first, at("06T00:00:00"));
        assert_eq!(second[0].since, at("06T00:00:00"));
        assert_eq!(second[1], first[0]);
        let gone = standing(&[], &second, at("07T00:00:00"));
        let again = standing(&[night], &gone, at("08T00:00:00"));
        assert_eq!(again[0].since, at("08T00:00:00"));
    }

    #[test]
    fn a_schedule_is_one_of_its_own_branch_alone() {
        let (own, release) = (
            schedule("0 3 * * *"),
            Schedule {
                branch: Some("release".into()),
                ..schedule("0 3 * * *")
            },
        );
        assert!(is_of(&own, "main", Some("main")) && is_of(&release, "release", Some("main")));
        assert!(!is_of(&own, "topic", Some("main")), "its file is a copy");
        assert!(!is_of(&own, "main", None), "nobody knows yet");
        assert!(!is_of(&release, "main", Some("main")));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// However the clock goes, within a day, and however often somebody looks, no moment starts two.
        #[test]
        fn no_moment_is_due_twice(jumps in proptest::collection::vec(-7_200_i64..7_200, 1..60), minutes in 1_i64..50) {
            let standing = Standing {
                schedule: schedule(&format!("*/{minutes} * * * *")),
                since: at("05T00:00:00"),
            };
            let mut now = at("10T00:00:00");
            let mut started = none();
            let mut newest = Timestamp::MIN;
            for jump in jumps {
                now += SignedDuration::from_secs(jump);
                if let Some(moment) = due(&standing, &started, now) {
                    prop_assert!(moment <= now && moment > now - MADE_UP_WITHIN);
                    prop_assert!(moment > newest, "{moment} after {newest}");
                    newest = moment;
                    started.insert(moment);
                    prop_assert_eq!(due(&standing, &started, now), None);
                }
            }
        }
    }
}
