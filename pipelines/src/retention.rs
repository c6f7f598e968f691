//! For how long finished things are kept, and what stays whatever their age.
//!
//! Knows ages and counts only: the store finds them, the server removes what goes.

use jiff::{SignedDuration, Timestamp};
use std::fmt;

/// For how long one kind of thing is kept, within each project. Where both are given, both have to
/// let it go; where neither is, everything is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// What ended within so many days stays.
    pub days: Option<u32>,
    /// The newest so many stay, however old.
    pub newest: Option<u32>,
}

/// What is known of something that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// When it was over; none while it is not.
    pub ended_at: Option<Timestamp>,
    /// How many of its kind and project are newer.
    pub newer: u64,
}

/// Why a run stays whatever its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It made a release that is listed, so that people may promote it.
    ListedRelease,
    /// A deployment, an approval or a place names the release that it made.
    NamedRelease,
    /// It is the newest of its branch: without it the branch's head would look as if never built.
    NewestOfItsRef,
}

impl Policy {
    /// Nothing ever goes.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.days.is_none() && self.newest.is_none()
    }

    /// What ended at or after this stays; none when age alone keeps nothing.
    #[must_use]
    pub fn kept_since(&self, now: Timestamp) -> Option<Timestamp> {
        let days = self.days?;
        let age = SignedDuration::from_hours(24 * i64::from(days));
        // Longer than there is time: everything is younger.
        Some(now.checked_sub(age).unwrap_or(Timestamp::MIN))
    }

    /// Whether something of this age goes.
    #[must_use]
    pub fn lets_go(&self, age: Age, now: Timestamp) -> bool {
        let Some(ended_at) = age.ended_at else {
            return false;
        };
        let old = self.kept_since(now).is_none_or(|since| ended_at < since);
        let many = self.newest.is_none_or(|kept| age.newer >= u64::from(kept));
        !self.keeps_all() && old && many
    }
}

/// Whether a run goes: its age lets it, and nothing pins it.
#[must_use]
pub fn run_goes(policy: &Policy, age: Age, pin: Option<Pin>, now: Timestamp) -> bool {
    pin.is_none() && policy.lets_go(age, now)
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.days, self.newest) {
            (None, None) => f.write_str("kept for ever"),
            (Some(days), None) => write!(f, "kept for {days} days"),
            (None, Some(newest)) => write!(f, "the newest {newest} of each project are kept"),
            (Some(days), Some(newest)) => write!(
                f,
                "kept for {days} days, the newest {newest} of each project for ever"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn policy(days: Option<u32>, newest: Option<u32>) -> Policy {
        Policy { days, newest }
    }

    #[test]
    fn days_and_counts_both_have_to_let_go() {
        let now: Timestamp = "2026-11-26T12:00:00Z".parse().unwrap();
        let cases = [
            (policy(None, None), 1_000, 1_000, false),
            (policy(Some(30), None), 31, 0, true),
            (policy(Some(30), None), 30, 1_000, false),
            (policy(None, Some(10)), 0, 10, true),
            (policy(None, Some(10)), 1_000, 9, false),
            (policy(Some(30), Some(10)), 31, 10, true),
            (policy(Some(30), Some(10)), 31, 9, false),
            (policy(Some(30), Some(10)), 30, 10, false),
            (policy(Some(0), None), 1, 0, true),
            (policy(Some(u32::MAX), None), 1_000, 1_000, false),
        ];
        for (policy, days, newer, goes) in cases {
            let age = Age {
                ended_at: Some(now - DAY * days),
                newer,
            };
            assert_eq!(policy.lets_go(age, now), goes, "{policy:?} {age:?}");
            assert_eq!(run_goes(&policy, age, None, now), goes);
            for pin in [Pin::ListedRelease, Pin::NamedRelease, Pin::NewestOfItsRef] {
                assert!(!run_goes(&policy, age, Some(pin), now));
            }
            let live = Age {
                ended_at: None,
                newer,
            };
            assert!(!policy.lets_go(live, now), "what is not over stays");
        }
    }

    #[test]
    fn a_policy_says_what_it_does() {
        assert_eq!(policy(None, None).to_string(), "kept for ever");
        assert_eq!(
            policy(Some(90), Some(100)).to_string(),
            "kept for 90 days, the newest 100 of each project for ever"
        );
    }
}
