//! Times, durations, sizes and ids as people read them. Reads no clock: `now` is an argument.

use crate::view::Time;

/// How long ago, in the largest unit that says something: `just now`, `40 s ago`, `3 m ago`,
/// `5 h ago`, `2 d ago`. A time ahead of `now` (clocks differ) is `just now`.
#[must_use]
pub fn age(now: &Time, then: &Time) -> String {
    let seconds = now.0.saturating_sub(then.0) / 1000;
    if seconds < 5 {
        "just now".to_owned()
    } else {
        format!("{} ago", coarse(seconds))
    }
}

/// For how long already: `for 3 m`; `just now` in the first seconds.
#[must_use]
pub fn lasting(now: &Time, since: &Time) -> String {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    if seconds < 5 {
        "just now".to_owned()
    } else {
        format!("for {}", coarse(seconds))
    }
}

/// How long until, rounded up to whole seconds: `in 3 m`; `any moment` when it has passed.
#[must_use]
pub fn until(now: &Time, then: &Time) -> String {
    let millis = then.0.saturating_sub(now.0);
    if millis <= 0 {
        "any moment".to_owned()
    } else {
        format!("in {}", coarse(ceil_seconds(millis)))
    }
}

/// The exact length from `start` to `end`, or to `now` while there is no end: `0.4 s`,
/// `12 s`, `3 m 05 s`, `2 h 07 m`.
#[must_use]
pub fn length(now: &Time, start: &Time, end: &Option<Time>) -> String {
    let millis = end.unwrap_or(*now).0.saturating_sub(start.0).max(0);
    let seconds = millis / 1000;
    match seconds {
        0 => format!("0.{} s", millis / 100),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number of seconds in its largest unit: `40 s`, `3 m`, `5 h`, `2 d`, `3 months`, `2 years`.
#[must_use]
pub fn coarse(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    match seconds {
        ..60 => format!("{} s", seconds.max(0)),
        60..3600 => format!("{} m", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        172_800..7_776_000 => format!("{} d", seconds / DAY),
        7_776_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

/// As [`coarse`], for lengths that are counted without a sign.
#[must_use]
pub fn span(seconds: &u64) -> String {
    coarse(i64::try_from(*seconds).unwrap_or(i64::MAX))
}

fn ceil_seconds(millis: i64) -> i64 {
    millis.saturating_add(999) / 1000
}

/// Date and time in UTC: `2026-11-25 14:02:11`.
#[must_use]
pub fn utc(time: &Time) -> String {
    let (year, month, day) = civil(time.0.div_euclid(86_400_000));
    format!("{year:04}-{month:02}-{day:02} {}", clock(time))
}

/// The time of day in UTC: `14:02:11`.
#[must_use]
pub fn clock(time: &Time) -> String {
    let seconds = time.0.div_euclid(1000).rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds % 3600 / 60,
        seconds % 60
    )
}

/// For the `datetime` attribute: `2026-11-25T14:02:11Z`.
#[must_use]
pub fn machine(time: &Time) -> String {
    let mut text = utc(time).replace(' ', "T");
    text.push('Z');
    text
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's
/// `civil_from_days`), exact for every day that fits.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The first seven characters of a commit id.
#[must_use]
pub fn sha(full: &str) -> &str {
    full.get(..7).unwrap_or(full)
}

/// The first twelve hexadecimal digits of a digest, without the name of the algorithm.
#[must_use]
pub fn digest(full: &str) -> &str {
    let hex = full.rsplit_once(':').map_or(full, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// A size in bytes with a decimal unit: `812 B`, `4.5 kB`, `81 MB`, `1.2 TB`.
#[must_use]
pub fn bytes(count: &u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut tenths = u128::from(*count) * 10;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 || tenths >= 100 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// `1 commit`, `3 commits`.
#[must_use]
pub fn count(number: &u64, one: &str, many: &str) -> String {
    format!("{number} {}", if *number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_795_622_531_000);

    #[test]
    fn ages_use_the_largest_unit_that_says_something() {
        let cases = [
            (0, "just now"),
            (-90, "just now"),
            (40, "40 s ago"),
            (200, "3 m ago"),
            (7200, "2 h ago"),
            (47 * 3600, "47 h ago"),
            (3 * 86_400, "3 d ago"),
            (100 * 86_400, "3 months ago"),
            (800 * 86_400, "2 years ago"),
        ];
        for (seconds, expected) in cases {
            let then = NOW.plus_seconds(-seconds);
            assert_eq!(age(&NOW, &then), expected);
            if let Some(span) = expected.strip_suffix(" ago") {
                assert_eq!(lasting(&NOW, &then), format!("for {span}"));
            } else {
                assert_eq!(lasting(&NOW, &then), expected);
            }
        }
        assert_eq!(until(&NOW, &Time(NOW.0 + 1)), "in 1 s");
        assert_eq!(until(&NOW, &NOW.plus_seconds(180)), "in 3 m");
        assert_eq!(until(&NOW, &NOW), "any moment");
    }

    #[test]
    fn lengths_count_to_the_end_or_to_now() {
        let start = NOW.plus_seconds(-185);
        assert_eq!(length(&NOW, &start, &None), "3 m 05 s");
        assert_eq!(length(&NOW, &start, &Some(start.plus_seconds(12))), "12 s");
        assert_eq!(length(&NOW, &start, &Some(Time(start.0 + 430))), "0.4 s");
        assert_eq!(length(&NOW, &NOW.plus_seconds(-7_650), &None), "2 h 07 m");
        assert_eq!(length(&NOW, &NOW.plus_seconds(5), &None), "0.0 s");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_999, "2024-02-29 23:59:59"),
            (-1, "1969-12-31 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ];
        for (millis, expected) in cases {
            assert_eq!(utc(&Time(millis)), expected);
        }
        assert_eq!(machine(&Time(0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn ids_and_sizes_are_short() {
        assert_eq!(sha("3f2a91c0d4e5"), "3f2a91c");
        assert_eq!(sha("3f2"), "3f2");
        assert_eq!(digest("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(bytes(&812), "812 B");
        assert_eq!(bytes(&4_512), "4.5 kB");
        assert_eq!(bytes(&81_000_000), "81 MB");
        assert_eq!(bytes(&u64::MAX), "18446744 TB");
        assert_eq!(count(&1, "commit", "commits"), "1 commit");
        assert_eq!(count(&0, "commit", "commits"), "0 commits");
    }
}
