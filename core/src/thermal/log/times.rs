//! Times as logs write them.

use crate::calendar::days_since_1970;

/// Seconds of a time: a number as it stands, or a date and time of day as seconds since 1970 (UTC where no offset is
/// given). None where it is neither.
pub(super) fn seconds(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite()).or_else(|| date_time(text))
}

/// Whether a time is a date, which needs no unit.
pub(super) fn is_date(text: &str) -> bool {
    text.parse::<f64>().is_err() && date_time(text).is_some()
}

/// Whether a time is a time of day without a date.
pub(super) fn is_of_day(text: &str) -> bool {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.contains(':') && !whole.contains(['-', '/', 'T', ' '])
}

/// `2025-02-27T03:29:31.958Z`, `2025/02/27 03:29:31.958`, with an optional offset `+01:00`; or a time of day alone.
fn date_time(text: &str) -> Option<f64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (Some(date), time.trim()),
        None => (None, text),
    };
    let days = match date {
        Some(date) => {
            let mut parts = date.split(['-', '/']);
            let mut next = || parts.next()?.parse::<u32>().ok();
            let (year, month, day) = (next()?, next()?, next()?);
            if parts.next().is_some() || !(1970..=9999).contains(&year) {
                return None;
            }
            let is_day = (1..=12).contains(&month) && (1..=31).contains(&day);
            is_day.then(|| days_since_1970(year.into(), month, day))?
        }
        None => 0,
    };
    let time = time.strip_suffix(" UTC").unwrap_or(time);
    let (time, offset) = match time.strip_suffix('Z') {
        Some(time) => (time, 0.0),
        None => match time.rfind(['+', '-']) {
            Some(at) => {
                let sign = if time[at..].starts_with('-') { -1.0 } else { 1.0 };
                let (hours, minutes) = time[at + 1..].split_once(':').unwrap_or((&time[at + 1..], "0"));
                (
                    &time[..at],
                    sign * (hours.parse::<u8>().ok()?.min(24) as f64 * 60.0 + f64::from(minutes.parse::<u8>().ok()?))
                        * 60.0,
                )
            }
            None => (time, 0.0),
        },
    };
    let mut parts = time.split(':');
    let hours: u32 = parts.next()?.parse().ok().filter(|&h| h <= 24)?;
    let minutes: u32 = parts.next()?.parse().ok().filter(|&m| m < 60)?;
    let seconds: f64 = parts.next().unwrap_or("0").parse().ok().filter(|s| (0.0..=60.0).contains(s))?;
    if parts.next().is_some() {
        return None;
    }
    Some(days as f64 * 86_400.0 + f64::from(hours) * 3_600.0 + f64::from(minutes) * 60.0 + seconds - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, exact) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2025/02/27 03:29:31.958", 1_740_626_971.958),
            ("2024-02-29T12:00:00+01:30", 1_709_202_600.0),
            ("2000-03-01 00:00:00", 951_868_800.0),
            ("01:02:03.5", 3_723.5),
            ("17.25", 17.25),
        ] {
            let read = seconds(text).expect(text);
            assert!((read - exact).abs() < 1e-6, "{text}: {read} {exact}");
        }
        for text in ["", "yesterday", "2025-13-01T00:00:00", "2025-02-27T99:00:00", "1:2:3:4", "ü:00:00", "inf"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
