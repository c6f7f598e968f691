//! Cron expressions of five fields: when the moments are that one names.
//!
//! The fields are minute, hour, day of the month, month and day of the week; each is `*`, a number, a range `1-5`, a
//! list `1,3`, or any of these with a step, `*/15`. Months and days of the week may be words, `jan`, `mon`; Sunday is 0
//! and 7. As cron has it, a day has to fit both fields for days when one of them begins with `*`, and either of them
//! otherwise.
//!
//! Time zones are those that were built in, never the machine's: so the same file means the same moments at every
//! server. Where clocks are put forward, a time that is left out comes as much later as they are put; where they are
//! put back, a time that comes twice is meant the first time, and both times where every hour is meant.

use super::fields::{list, nearest};
use crate::Timestamp;
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use std::ops::RangeInclusive;

/// The days of a month, in a leap year: what no month has never comes.
const DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrongCron {
    /// Characters before the place.
    pub(super) offset: usize,
    /// How many it takes.
    pub(super) width: usize,
    pub(super) message: String,
    pub(super) help: String,
}

/// One field: which numbers it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// Bit n: n is named.
    named: u64,
    /// It begins with `*`.
    any: bool,
}

impl Field {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| number < 64 && self.named & (1 << number) != 0)
    }
}

/// What a field is called, and what may stand there.
struct Kind {
    what: &'static str,
    range: RangeInclusive<u8>,
    /// Words for the numbers from the range's first on.
    words: &'static [&'static str],
}

const KINDS: [Kind; 5] = [
    Kind {
        what: "minute",
        range: 0..=59,
        words: &[],
    },
    Kind {
        what: "hour",
        range: 0..=23,
        words: &[],
    },
    Kind {
        what: "day of the month",
        range: 1..=31,
        words: &[],
    },
    Kind {
        what: "month",
        range: 1..=12,
        words: &MONTHS,
    },
    Kind {
        what: "day of the week",
        range: 0..=7,
        words: &WEEKDAYS,
    },
];

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Cron {
    /// Reads an expression.
    pub(super) fn parse(text: &str) -> Result<Self, WrongCron> {
        let mut fields = Vec::with_capacity(KINDS.len());
        let mut place = 0;
        for part in text.split(' ') {
            let width = part.chars().count();
            if width > 0 {
                fields.push((place, part));
            }
            place += width + 1;
        }
        if fields.len() != KINDS.len() {
            let names = KINDS.map(|kind| kind.what);
            let help = if text.trim_start().starts_with('@') {
                "write the fields: `@daily` is `0 0 * * *`".to_owned()
            } else {
                format!("write {}, as in `30 3 * * mon-fri`", list(&names, "and"))
            };
            return Err(WrongCron {
                offset: 0,
                width: text.chars().count().max(1),
                message: format!("a cron expression has 5 fields, this has {}", fields.len()),
                help,
            });
        }
        let mut read = [Field {
            named: 0,
            any: false,
        }; 5];
        for ((kind, (offset, text)), read) in KINDS.iter().zip(fields).zip(&mut read) {
            *read = field(kind, offset, text)?;
        }
        let [minute, hour, day, month, mut weekday] = read;
        if weekday.has(7) {
            weekday.named |= 1;
        }
        let cron = Self {
            minute,
            hour,
            day,
            month,
            weekday,
        };
        if cron.never_comes() {
            return Err(WrongCron {
                offset: 0,
                width: text.chars().count(),
                message: "no month that it names has such a day".to_owned(),
                help: "it would never come: name a day or month that there is".to_owned(),
            });
        }
        Ok(cron)
    }

    fn never_comes(&self) -> bool {
        // A day of the week comes in every month.
        if !self.day.any && !self.weekday.any {
            return false;
        }
        let months = (1_i8..).zip(DAYS);
        !months
            .filter(|(month, _)| self.month.has(*month))
            .any(|(_, days)| {
                (1..=days).any(|day| i8::try_from(day).is_ok_and(|day| self.day.has(day)))
            })
    }

    fn is_on(&self, date: Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        let fits = if self.day.any || self.weekday.any {
            day && weekday
        } else {
            day || weekday
        };
        fits && self.month.has(date.month())
    }

    /// The newest moment that it names after one and up to another, if there is one.
    pub(super) fn newest(
        &self,
        zone: &TimeZone,
        after: Timestamp,
        until: Timestamp,
    ) -> Option<Timestamp> {
        // A day more on both sides: where clocks are put back or forward a moment may be of the next day's date.
        let first = zone
            .to_datetime(after - SignedDuration::from_hours(24))
            .date();
        let mut date = zone
            .to_datetime(until + SignedDuration::from_hours(24))
            .date();
        let mut newest: Option<Timestamp> = None;
        while date >= first {
            if self.is_on(date) {
                let moments = self.moments_on(date, zone);
                let fitting = moments
                    .into_iter()
                    .filter(|moment| *moment > after && *moment <= until);
                newest = newest.max(fitting.max());
            }
            let Ok(before) = date.yesterday() else { break };
            date = before;
        }
        newest
    }

    fn moments_on(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let mut moments = vec![];
        for hour in (0..24).filter(|hour| self.hour.has(*hour)) {
            for minute in (0..60).filter(|minute| self.minute.has(*minute)) {
                let Ok(time) = Time::new(hour, minute, 0, 0) else {
                    continue;
                };
                self.moments_at(date.to_datetime(time), zone, &mut moments);
            }
        }
        moments
    }

    fn moments_at(&self, local: DateTime, zone: &TimeZone, moments: &mut Vec<Timestamp>) {
        let ambiguous = zone.to_ambiguous_timestamp(local);
        if self.hour.any
            && let AmbiguousOffset::Fold { after, .. } = ambiguous.offset()
        {
            moments.extend(after.to_timestamp(local));
        }
        moments.extend(ambiguous.compatible());
    }
}

fn field(kind: &Kind, offset: usize, text: &str) -> Result<Field, WrongCron> {
    let mut named = 0;
    let mut place = offset;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let after = place + range.chars().count() + 1;
        let step_by = match step {
            None => 1,
            Some(text) => {
                let step = text.parse().ok();
                let step = step.filter(|step| (1..=*kind.range.end()).contains(step));
                step.ok_or_else(|| wrong_step(kind, after, text))?
            }
        };
        let (first, last) = if range == "*" {
            (*kind.range.start(), *kind.range.end())
        } else if let Some((first, last)) = range.split_once('-') {
            let behind = place + first.chars().count() + 1;
            let (first, last) = (number(kind, place, first)?, number(kind, behind, last)?);
            if first > last {
                return Err(WrongCron {
                    offset: place,
                    width: range.chars().count(),
                    message: format!("`{range}` goes backwards"),
                    help: format!("write the lower {} first, or two ranges", kind.what),
                });
            }
            (first, last)
        } else {
            let first = number(kind, place, range)?;
            // `5/10` is 5, 15, 25 and so on.
            let last = if step.is_some() {
                *kind.range.end()
            } else {
                first
            };
            (first, last)
        };
        for number in (first..=last).step_by(usize::from(step_by)) {
            named |= 1_u64 << number;
        }
        place += part.chars().count() + 1;
    }
    Ok(Field {
        named,
        any: text.starts_with('*'),
    })
}

fn wrong_step(kind: &Kind, offset: usize, text: &str) -> WrongCron {
    WrongCron {
        offset,
        width: text.chars().count().max(1),
        message: format!("`{text}` is no step of the field {}", kind.what),
        help: format!("write a number from 1 to {}", kind.range.end()),
    }
}

fn number(kind: &Kind, offset: usize, text: &str) -> Result<u8, WrongCron> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits {
        text.parse().ok()
    } else {
        let word = text.to_ascii_lowercase();
        let place = kind.words.iter().position(|known| *known == word);
        place
            .and_then(|place| u8::try_from(place).ok())
            .map(|place| place + kind.range.start())
    };
    if let Some(number) = number.filter(|number| kind.range.contains(number)) {
        return Ok(number);
    }
    let (least, most) = (kind.range.start(), kind.range.end());
    let meant = nearest(&text.to_ascii_lowercase(), kind.words.iter().copied());
    let help = match meant {
        Some(word) => format!("did you mean `{word}`?"),
        None if kind.words.is_empty() => format!("write a number from {least} to {most}, or `*`"),
        None => format!(
            "write a number from {least} to {most}, {}, or `*`",
            list(kind.words, "or")
        ),
    };
    Err(WrongCron {
        offset,
        width: text.chars().count().max(1),
        message: format!("`{text}` is no {}", kind.what),
        help,
    })
}

/// A time zone by its name, `Europe/Berlin`.
pub(super) fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The zone that a misspelt name most likely stands for.
pub(super) fn nearest_zone(name: &str) -> Option<String> {
    let zones = TimeZoneDatabase::bundled();
    let names: Vec<String> = zones.available().map(|name| name.to_string()).collect();
    let exact = names.iter().find(|known| known.eq_ignore_ascii_case(name));
    let near = || nearest(name, names.iter().map(String::as_str));
    exact.map(String::as_str).or_else(near).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The moments of an expression after one and up to another, oldest first.
    fn moments(cron: &str, zone_name: &str, after: &str, until: &str) -> Vec<String> {
        let cron = Cron::parse(cron).unwrap();
        let zone = zone(zone_name).unwrap();
        let (after, mut until) = (at(after), at(until));
        let mut found = vec![];
        while let Some(moment) = cron.newest(&zone, after, until) {
            found.push(moment.to_string());
            until = moment - SignedDuration::from_secs(1);
        }
        found.reverse();
        found
    }

    #[test]
    fn moments_are_told_in_their_time_zone() {
        let berlin = moments(
            "30 3 * * mon-fri",
            "Europe/Berlin",
            "2026-01-02T00:00:00Z",
            "2026-01-06T12:00:00Z",
        );
        let expected = [
            "2026-01-02T02:30:00Z",
            "2026-01-05T02:30:00Z",
            "2026-01-06T02:30:00Z",
        ];
        assert_eq!(berlin, expected);
        let utc = moments(
            "0 */12 1,15 * *",
            "UTC",
            "2026-01-14T00:00:00Z",
            "2026-02-02T00:00:00Z",
        );
        let expected = [
            "2026-01-15T00:00:00Z",
            "2026-01-15T12:00:00Z",
            "2026-02-01T00:00:00Z",
            "2026-02-01T12:00:00Z",
        ];
        assert_eq!(utc, expected);
        // After the one, up to the other.
        let edge = moments(
            "0 0 * * *",
            "UTC",
            "2026-01-01T00:00:00Z",
            "2026-01-02T00:00:00Z",
        );
        assert_eq!(edge, ["2026-01-02T00:00:00Z"]);
    }

    #[test]
    fn a_day_fits_both_fields_or_either_as_cron_has_it() {
        let days = |cron: &str| {
            let all = moments(cron, "UTC", "2026-02-01T12:00:00Z", "2026-03-01T12:00:00Z");
            all.len()
        };
        assert_eq!(
            days("0 0 13 * fri"),
            4,
            "Fridays, and the 13th, which is one"
        );
        assert_eq!(days("0 0 14 * fri"), 5, "Fridays, and the 14th");
        assert_eq!(days("0 0 * * sun"), 4);
        assert_eq!(days("0 0 * * 7"), 4, "Sunday is 0 and 7");
        assert_eq!(
            days("0 0 */2 * sun"),
            2,
            "the 15th and the 1st; a step keeps the `*`"
        );
    }

    #[test]
    fn a_time_that_is_left_out_comes_later_and_one_that_comes_twice_once() {
        let berlin =
            |cron: &str, after: &str, until: &str| moments(cron, "Europe/Berlin", after, until);
        // From 2:00 to 3:00 on 29 March 2026.
        let spring = berlin("30 2 * * *", "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z");
        let expected = [
            "2026-03-28T01:30:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-30T00:30:00Z",
        ];
        assert_eq!(spring, expected, "2:30 comes at 3:30 that day");
        // From 3:00 to 2:00 on 25 October 2026.
        let autumn = berlin("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(autumn, expected, "the first 2:30 that day");
        let hourly = berlin("30 * * * *", "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z");
        assert_eq!(hourly.len(), 4, "every hour is every hour: {hourly:?}");
        let spring = berlin("30 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z");
        assert_eq!(spring.len(), 3, "{spring:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wrong = |text: &str| {
            let wrong = Cron::parse(text).unwrap_err();
            let marked: String = text.chars().skip(wrong.offset).take(wrong.width).collect();
            (marked, wrong.message, wrong.help)
        };
        let told = |marked: &str, message: &str, help: &str| {
            (marked.to_owned(), message.to_owned(), help.to_owned())
        };
        assert_eq!(
            wrong("0 3 * * mno"),
            told("mno", "`mno` is no day of the week", "did you mean `mon`?")
        );
        assert_eq!(
            wrong("60 3 * * *"),
            told(
                "60",
                "`60` is no minute",
                "write a number from 0 to 59, or `*`"
            )
        );
        assert_eq!(
            wrong("0  3,24 * * *"),
            told(
                "24",
                "`24` is no hour",
                "write a number from 0 to 23, or `*`"
            )
        );
        assert_eq!(wrong("0 5-2 * * *").1, "`5-2` goes backwards");
        assert_eq!(wrong("*/0 * * * *").0, "0");
        assert_eq!(wrong("*/x * * * *").1, "`x` is no step of the field minute");
        assert_eq!(
            wrong("0 3 * *").1,
            "a cron expression has 5 fields, this has 4"
        );
        assert_eq!(
            wrong("0 0 3 * * *").1,
            "a cron expression has 5 fields, this has 6"
        );
        assert!(wrong("@daily").2.contains("0 0 * * *"));
        assert_eq!(
            wrong("0 0 30 feb *").1,
            "no month that it names has such a day"
        );
        assert!(Cron::parse("0 0 29 feb *").is_ok());
        assert!(Cron::parse("0 0 30 feb mon").is_ok(), "Mondays come");
        for odd in [
            "",
            "+1 * * * *",
            "1- * * * *",
            "-1 * * * *",
            "1,, * * * *",
            "٣ * * * *",
        ] {
            assert!(Cron::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn zones_are_built_in() {
        assert!(zone("Europe/Berlin").is_some() && zone("UTC").is_some());
        assert!(zone("Europe/Berln").is_none());
        assert_eq!(
            nearest_zone("Europe/Berln").as_deref(),
            Some("Europe/Berlin")
        );
        assert_eq!(
            nearest_zone("europe/berlin").as_deref(),
            Some("Europe/Berlin")
        );
    }

    fn fields() -> impl Strategy<Value = String> {
        let minute = "[0-5]?[0-9]|\\*|\\*/[1-9]|[1-5],[1-5]?[0-9]";
        let hour = "1?[0-9]|\\*|2-4|\\*/[1-9]";
        let day = "[1-9]|\\*|2[0-9]|\\*/[2-5]|1-15";
        let month = "[1-9]|\\*|\\*/2|feb|mar-nov";
        let weekday = "[0-7]|\\*|mon-fri|sun,3";
        (minute, hour, day, month, weekday).prop_map(|(minute, hour, day, month, weekday)| {
            format!("{minute} {hour} {day} {month} {weekday}")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            cases: 128,
            ..ProptestConfig::default()
        })]

        /// Minute by minute, where no clock is ever put forward or back.
        #[test]
        fn the_newest_moment_is_the_newest_minute_that_fits(cron in fields(), start in 0_i64..40_000_000, hours in 1_i64..50) {
            let Ok(cron) = Cron::parse(&cron) else { return Ok(()) };
            let until = Timestamp::from_second(1_760_000_000 + start).unwrap();
            let after = until - SignedDuration::from_hours(hours);
            let fits = |moment: Timestamp| {
                let local = TimeZone::UTC.to_datetime(moment);
                cron.minute.has(local.minute()) && cron.hour.has(local.hour()) && cron.is_on(local.date())
            };
            let minute = until.as_second().div_euclid(60) * 60;
            let minutes = (0..hours * 60 + 1).map(|back| Timestamp::from_second(minute - back * 60).unwrap());
            let expected = minutes.filter(|moment| *moment > after && fits(*moment)).max();
            prop_assert_eq!(cron.newest(&TimeZone::UTC, after, until), expected);
        }

        #[test]
        fn no_text_panics_and_its_place_is_within_it(text in "(?s).{0,20}|[0-9*/, a-z-]{0,24}") {
            if let Err(wrong) = Cron::parse(&text) {
                prop_assert!(wrong.offset <= text.chars().count());
                prop_assert!(wrong.width >= 1);
            }
        }
    }
}
