//! Instants to the second, as RFC 3339 text in UTC.
//!
//! The crate owns no clock: whoever calls it says what time it is. One spelling per instant (`2026-11-23T06:55:00Z`,
//! no fraction, no offset) keeps signed text canonical.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The last second that four year digits can write: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;
const SECONDS_PER_DAY: u64 = 86_400;

/// An instant in whole seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

/// A text or number that is no instant this crate writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instant; write it as 2026-11-23T06:55:00Z, in UTC, between 1970 and 9999")]
pub struct NotATimestamp(String);

impl Timestamp {
    /// The instant that many seconds after the start of 1970, UTC.
    ///
    /// Errors: the year would have five digits.
    pub fn from_unix_seconds(seconds: u64) -> Result<Self, NotATimestamp> {
        if seconds > LAST_SECOND {
            return Err(NotATimestamp(seconds.to_string()));
        }
        Ok(Self(seconds))
    }

    /// Seconds since the start of 1970, UTC.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0
    }

    /// The instant `seconds` later, or the last second of the year 9999 if that comes first.
    #[must_use]
    pub fn later_by(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds).min(LAST_SECOND))
    }
}

/// Year, month and day of a day number since 1970-01-01, in the proleptic Gregorian calendar.
///
/// Source: H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day_of_month)
}

/// The day number of a date from 1970 on; the inverse of [`civil`], from the same source.
fn day_number(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / SECONDS_PER_DAY);
        let second = self.0 % SECONDS_PER_DAY;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        let refused = || NotATimestamp(text.chars().take(40).collect());
        let bytes = text.as_bytes();
        let shape = b"dddd-dd-ddTdd:dd:ddZ";
        let fits = bytes.len() == shape.len()
            && bytes
                .iter()
                .zip(shape)
                .all(|(byte, like)| if *like == b'd' { byte.is_ascii_digit() } else { byte == like });
        if !fits {
            return Err(refused());
        }
        let number = |range: std::ops::Range<usize>| {
            bytes[range].iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
        let plausible = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !plausible || hour > 23 || minute > 59 || second > 59 {
            return Err(refused());
        }
        let instant = Self(day_number(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second);
        // The 31st of a month with 30 days turns into another date: only a text that comes back is one.
        if instant.to_string() == text { Ok(instant) } else { Err(refused()) }
    }
}

impl From<Timestamp> for String {
    fn from(instant: Timestamp) -> Self {
        instant.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = NotATimestamp;

    fn try_from(text: String) -> Result<Self, NotATimestamp> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the calendar a day at a time, knowing only month lengths and the leap-year rule.
    #[test]
    fn every_day_until_9999_is_the_one_a_calendar_walk_reaches() {
        let (mut year, mut month, mut day) = (1970_u64, 1_u64, 1_u64);
        for number in 0..=LAST_SECOND / SECONDS_PER_DAY {
            assert_eq!(civil(number), (year, month, day));
            assert_eq!(day_number(year, month, day), number);
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let length = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }

    #[test]
    fn an_instant_survives_its_text() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
        ] {
            let instant = Timestamp::from_unix_seconds(seconds).expect("before the year 10000");
            assert_eq!(instant.to_string(), text);
            assert_eq!(text.parse(), Ok(instant));
        }
    }

    #[test]
    fn other_spellings_and_impossible_dates_are_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T06:55:00",
            "2026-11-23T06:55:00z",
            "2026-11-23t06:55:00Z",
            "2026-11-23T06:55:00.0Z",
            "2026-11-23T06:55:00+00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "+026-01-01T00:00:00Z",
            "２026-01-01T00:00Z",
            "2026-01-01T00:00:0éZ",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert!(Timestamp::from_unix_seconds(LAST_SECOND + 1).is_err());
    }
}
