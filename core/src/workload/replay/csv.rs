//! Recorded loads as CSV, with arrivals in seconds or as dates.

use super::{Recorded, Replay, ReplayError, shortened};
use crate::calendar::days_since_1970;
use crate::units::SimTime;

const TIMES: [&str; 7] =
    ["arrived_at", "TIMESTAMP", "Timestamp", "timestamp", "arrival_seconds", "arrival_time", "arrival"];
const PROMPTS: [&str; 5] = ["num_prefill_tokens", "ContextTokens", "Request tokens", "prompt_tokens", "input_length"];
const OUTPUTS: [&str; 5] =
    ["num_decode_tokens", "GeneratedTokens", "Response tokens", "output_tokens", "output_length"];

const SECOND: u64 = 1_000_000_000;

pub(super) fn parse(text: &str) -> Result<Replay, ReplayError> {
    let mut replay = Replay::of(text);
    let mut rows = text.lines().zip(1..).filter(|(row, _)| !row.trim().is_empty());
    let Some((head, _)) = rows.next() else { return Ok(replay) };
    let names: Vec<&str> = fields(head).collect();
    let column = |known: &[&str], what: &'static str| {
        let fit: Vec<&str> = names.iter().copied().filter(|name| known.contains(name)).collect();
        if fit.len() > 1 {
            return Err(ReplayError::Ambiguous { what, count: fit.len(), names: fit.join(", ") });
        }
        Ok(names.iter().position(|name| known.contains(name)))
    };
    let (time, prompt) = (column(&TIMES, "the arrival")?, column(&PROMPTS, "prompt tokens")?);
    let (Some(time), Some(prompt), Some(output)) = (time, prompt, column(&OUTPUTS, "output tokens")?) else {
        for (delimiter, found) in [(';', "semicolons"), ('\t', "tabulators")] {
            if names.len() == 1 && head.contains(delimiter) {
                return Err(ReplayError::Delimiter { found, line: shortened(head) });
            }
        }
        return Err(ReplayError::Columns {
            found: shortened(head),
            times: TIMES.join(", "),
            prompts: PROMPTS.join(", "),
            outputs: OUTPUTS.join(", "),
        });
    };
    // Moments since the year 0 where arrivals are dates; they count from the earliest.
    let mut dated: Option<i128> = None;
    let mut moments: Vec<i128> = Vec::new();
    for (row, line) in rows {
        let field = |position: usize| fields(row).nth(position).unwrap_or_default();
        let tokens = |position: usize, what| {
            let text = field(position);
            let must = "a whole number of tokens";
            text.parse().map_err(|_| ReplayError::Field { line, what, value: shortened(text), must })
        };
        let stated = field(time);
        let moment = moment(stated).ok_or_else(|| ReplayError::Field {
            line,
            what: "the arrival",
            value: shortened(stated),
            must: "seconds, at least 0 and below 584 years, or a date as 2023-11-16 18:15:46.68",
        })?;
        let arrival = match moment {
            Moment::Seconds(time) => time,
            Moment::Date(nanoseconds) => {
                dated = Some(dated.map_or(nanoseconds, |earliest| earliest.min(nanoseconds)));
                moments.push(nanoseconds);
                SimTime::ZERO
            }
        };
        let before = replay.requests.len();
        replay.push(Recorded {
            arrival,
            prompt_tokens: tokens(prompt, "the number of prompt tokens")?,
            output_tokens: tokens(output, "the number of output tokens")?,
            content: (0, 0),
        })?;
        if replay.requests.len() == before {
            moments.pop();
        }
        if dated.is_some() && moments.len() != replay.requests.len() {
            let (what, must) = ("the arrival", "a date like those before, or seconds throughout");
            return Err(ReplayError::Field { line, what, value: shortened(stated), must });
        }
    }
    if let Some(earliest) = dated {
        for (request, moment) in replay.requests.iter_mut().zip(moments) {
            request.arrival = SimTime(u64::try_from(moment - earliest).unwrap_or(u64::MAX));
        }
    }
    Ok(replay)
}

fn fields(row: &str) -> impl Iterator<Item = &str> {
    row.split(',').map(|field| field.trim().trim_matches('"'))
}

enum Moment {
    Seconds(SimTime),
    /// Nanoseconds since the beginning of the year 0.
    Date(i128),
}

fn moment(text: &str) -> Option<Moment> {
    if let Some(nanoseconds) = seconds(text) {
        return (nanoseconds < SimTime::NEVER.0).then_some(Moment::Seconds(SimTime(nanoseconds)));
    }
    date(text).map(Moment::Date)
}

/// Nanoseconds of a number of seconds, the tenth decimal rounded half up; none where it is no such number, or too long
/// a time.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) {
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        return whole.checked_mul(SECOND)?.checked_add(decimals(fraction));
    }
    // Other ways of writing a number, as 1e-05.
    let number: f64 = text.parse().ok()?;
    let nanoseconds = libm::round(number * 1e9);
    (number >= 0.0 && nanoseconds < u64::MAX as f64).then_some(nanoseconds as u64)
}

/// Nanoseconds of the digits behind a decimal point.
fn decimals(digits: &str) -> u64 {
    let place = |i: usize| digits.as_bytes().get(i).map_or(0, |byte| u64::from(byte - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, i| sum * 10 + place(i));
    nanoseconds + u64::from(place(9) >= 5)
}

/// A date `YYYY-MM-DD hh:mm:ss[.fraction][zone]`, `T` for the blank allowed, zone `Z` or `+hh:mm`.
fn date(text: &str) -> Option<i128> {
    let (day, clock) = text.split_once([' ', 'T'])?;
    let mut parts = day.split('-');
    let mut number = |digits: usize, max: u32| {
        let part = parts.next()?;
        let fits = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|&value| fits && value <= max)
    };
    let (year, month, day) = (number(4, 9_999)?, number(2, 12)?, number(2, 31)?);
    if parts.next().is_some() || month == 0 || day == 0 {
        return None;
    }
    let (clock, zone) = match clock.find(['Z', '+', '-']) {
        Some(at) => clock.split_at(at),
        None => (clock, ""),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut parts = clock.split(':').map(|part| part.parse::<u32>().ok().filter(|_| part.len() == 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if hour > 23 || minute > 59 || second > 60 || parts.next().is_some() {
        return None;
    }
    let offset: i64 = match zone {
        "" | "Z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let minutes = hours.parse::<u8>().ok()? as i64 * 60 + minutes.parse::<u8>().ok()? as i64;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = days_since_1970(year.into(), month, day) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second)
        - offset * 60;
    Some(i128::from(seconds) * i128::from(SECOND) + i128::from(decimals(fraction)))
}
