//! Lengths of time as people write them: `90s`, `10m`, `2h`, `1d`.
//!
//! Whole seconds only: nothing that Roadstead waits for is finer. The longest is [`LONGEST`], so that
//! adding a length to any timestamp of this millennium cannot overflow.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest length that a file may name: 366 days.
pub const LONGEST: Seconds = Seconds(366 * 24 * 60 * 60);

/// A length of time in whole seconds. Shown, and read, as `90s`, `10m`, `2h` or `1d`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seconds(pub u64);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not a number with a unit.
    #[error("`{0}` is not a length of time")]
    Malformed(String),
    /// More than [`LONGEST`].
    #[error("`{0}` is too long, at most 366d is allowed")]
    TooLong(String),
}

/// Units from the largest, with their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Seconds {
    /// From minutes.
    #[must_use]
    pub const fn from_minutes(minutes: u64) -> Self {
        Self(minutes.saturating_mul(60))
    }

    /// The number of seconds.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// No time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Seconds {
    /// The largest unit that loses nothing: 600 is `10m`, 90 is `90s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS
            .iter()
            .find(|(_, length)| self.0 != 0 && self.0.is_multiple_of(*length));
        let (unit, length) = fitting.unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0 / length)
    }
}

impl FromStr for Seconds {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || InvalidDuration::Malformed(text.to_owned());
        let too_long = || InvalidDuration::TooLong(text.to_owned());
        let unit = text.chars().next_back().ok_or_else(malformed)?;
        let (_, length) = UNITS
            .iter()
            .find(|(known, _)| *known == unit)
            .ok_or_else(malformed)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let seconds = Self(number.checked_mul(*length).ok_or_else(too_long)?);
        if seconds > LONGEST {
            Err(too_long())
        } else {
            Ok(seconds)
        }
    }
}

/// A length of time in a sentence: `45 s`, `3 min 20 s`, `52 min`, `5 h 20 min`, `3 d`. The second
/// unit is told as long as it says something; what is below it is cut off, never rounded up.
#[must_use]
pub fn in_words(seconds: u64) -> String {
    const WORDS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let largest = WORDS
        .iter()
        .position(|(_, length)| seconds >= *length)
        .unwrap_or(WORDS.len() - 1);
    let (word, length) = WORDS[largest];
    let whole = seconds / length;
    let (rest, next) = match WORDS.get(largest + 1) {
        Some((next, shorter)) => (seconds % length / shorter, *next),
        None => (0, ""),
    };
    if whole < 10 && rest > 0 {
        format!("{whole} {word} {rest} {next}")
    } else {
        format!("{whole} {word}")
    }
}

/// How long ago something was, as [`in_words`]; nothing at all when the clocks disagree.
#[must_use]
pub fn since(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    in_words(u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    #[test]
    fn lengths_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("2h", 7_200),
            ("1d", 86_400),
            ("0s", 0),
            ("0m", 0),
        ] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in [
            "", "s", "10", "m10", "1.5h", "-1m", "+1m", "10 m", "10min", "1h30m", "٣m", "5µ",
        ] {
            let refused = text.parse::<Seconds>();
            assert_eq!(
                refused,
                Err(InvalidDuration::Malformed(text.to_owned())),
                "{text}"
            );
        }
        for text in ["367d", "99999999999999999999s", "18446744073709551615d"] {
            let refused = text.parse::<Seconds>();
            assert_eq!(
                refused,
                Err(InvalidDuration::TooLong(text.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_sentence_tells_a_length_in_what_says_something() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (200, "3 min 20 s"),
            (3_115, "51 min"),
            (3_600, "1 h"),
            (19_200, "5 h 20 min"),
            (86_399, "23 h"),
            (100_000, "1 d 3 h"),
            (864_000, "10 d"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_is_shown_reads_back(seconds in 0..=LONGEST.0) {
            let seconds = Seconds(seconds);
            prop_assert_eq!(seconds.to_string().parse(), Ok(seconds));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,8}") {
            let _ = text.parse::<Seconds>();
        }
    }
}
