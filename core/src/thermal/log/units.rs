//! Units as logs write them: in headings and behind numbers.

use super::LogError;
use super::columns::Column;

/// From the numbers of a log to those of [`super::ThermalLog`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    /// Multiplied by.
    pub(super) factor: f64,
    /// Then added.
    pub(super) offset: f64,
}

impl Unit {
    /// A number of the log in the unit of [`super::ThermalLog`].
    pub(super) fn of(self, value: f64) -> f64 {
        value.mul_add(self.factor, self.offset)
    }

    /// The number a log in this unit has for a value.
    pub(super) fn back(self, value: f64) -> f64 {
        (value - self.offset) / self.factor
    }
}

/// Degrees Fahrenheit at which a thermometer shows 0 °C.
const FREEZING_FAHRENHEIT: f64 = 32.0;
/// Kelvin at 0 °C (SI brochure, 9th edition, 2.3.1).
const FREEZING_KELVIN: f64 = 273.15;

const TIMES: &[(&str, f64)] = &[
    ("s", 1.0),
    ("sec", 1.0),
    ("secs", 1.0),
    ("second", 1.0),
    ("seconds", 1.0),
    ("ms", 1e-3),
    ("msec", 1e-3),
    ("millis", 1e-3),
    ("millisecond", 1e-3),
    ("milliseconds", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("usec", 1e-6),
    ("microseconds", 1e-6),
    ("ns", 1e-9),
    ("nanoseconds", 1e-9),
    ("min", 60.0),
    ("mins", 60.0),
    ("minute", 60.0),
    ("minutes", 60.0),
    ("h", 3_600.0),
    ("hr", 3_600.0),
    ("hrs", 3_600.0),
    ("hour", 3_600.0),
    ("hours", 3_600.0),
    ("days", 86_400.0),
];
const POWERS: &[(&str, f64)] = &[
    ("w", 1.0),
    ("watt", 1.0),
    ("watts", 1.0),
    ("mw", 1e-3),
    ("milliwatt", 1e-3),
    ("milliwatts", 1e-3),
    ("kw", 1e3),
    ("kilowatt", 1e3),
    ("kilowatts", 1e3),
    ("uw", 1e-6),
    ("µw", 1e-6),
    ("μw", 1e-6),
    ("microwatt", 1e-6),
    ("microwatts", 1e-6),
];
const TEMPERATURES: &[(&str, f64)] = &[
    ("c", 1.0),
    ("°c", 1.0),
    ("°", 1.0),
    ("celsius", 1.0),
    ("degc", 1.0),
    ("mc", 1e-3),
    ("m°c", 1e-3),
    ("millicelsius", 1e-3),
    ("f", 5.0 / 9.0),
    ("°f", 5.0 / 9.0),
    ("fahrenheit", 5.0 / 9.0),
    ("degf", 5.0 / 9.0),
    ("k", 1.0),
    ("kelvin", 1.0),
];
const FANS: &[(&str, f64)] = &[("%", 1.0), ("rpm", 1.0), ("pct", 1.0), ("percent", 1.0)];
const CLOCKS: &[(&str, f64)] = &[
    ("mhz", 1.0),
    ("megahertz", 1.0),
    ("ghz", 1e3),
    ("gigahertz", 1e3),
    ("khz", 1e-3),
    ("kilohertz", 1e-3),
    ("hz", 1e-6),
    ("hertz", 1e-6),
];
const SHARES: &[(&str, f64)] = &[("%", 1e-2), ("percent", 1e-2), ("pct", 1e-2)];

/// What stands in brackets and is no unit: which part was measured, how, and of which clock a time is.
const DESCRIBES: [&str; 46] = [
    "gpu",
    "cpu",
    "apu",
    "soc",
    "npu",
    "core",
    "die",
    "junction",
    "edge",
    "hotspot",
    "hot",
    "spot",
    "sensor",
    "board",
    "package",
    "chip",
    "total",
    "card",
    "device",
    "sm",
    "graphics",
    "gr",
    "sys",
    "system",
    "tgp",
    "tdp",
    "average",
    "avg",
    "mean",
    "instant",
    "instantaneous",
    "current",
    "draw",
    "usage",
    "tctl",
    "tdie",
    "tj",
    "utc",
    "gmt",
    "local",
    "unix",
    "epoch",
    "iso",
    "iso8601",
    "elapsed",
    "relative",
];
/// Units of other quantities, which none of these columns can be in.
const FOREIGN: [&str; 22] = [
    "j",
    "mj",
    "kj",
    "joule",
    "joules",
    "wh",
    "kwh",
    "mwh",
    "btu",
    "hp",
    "horsepower",
    "va",
    "kva",
    "dbm",
    "rankine",
    "amp",
    "amps",
    "ma",
    "volt",
    "volts",
    "mv",
    "weeks",
];

const fn table(column: Column) -> &'static [(&'static str, f64)] {
    match column {
        Column::Time => TIMES,
        Column::Power | Column::Cap => POWERS,
        Column::Temperature | Column::Ambient => TEMPERATURES,
        Column::Fan => FANS,
        Column::Clock => CLOCKS,
        Column::Utilisation | Column::Memory => SHARES,
    }
}

/// A unit by its lower-case name.
pub(super) fn unit(column: Column, word: &str) -> Option<Unit> {
    let bare = word.strip_prefix("deg ").or_else(|| word.strip_prefix("° ")).unwrap_or(word).trim_end_matches('.');
    let &(name, factor) = table(column).iter().find(|(name, _)| *name == bare)?;
    let offset = match name {
        "f" | "°f" | "fahrenheit" | "degf" => -FREEZING_FAHRENHEIT * factor,
        "k" | "kelvin" => -FREEZING_KELVIN,
        _ => 0.0,
    };
    Some(Unit { factor, offset })
}

fn known(column: Column) -> String {
    table(column).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The unit in a heading, whose lower-case words are given too; none where it names none. Errors: it names one that is
/// not known: what stands in brackets and describes nothing, a single letter at the end, a unit of something else.
pub(super) fn of_heading(column: Column, heading: &str, words: &str) -> Result<Option<Unit>, LogError> {
    if let Some(unit) = words.split_whitespace().rev().find_map(|word| unit(column, word)) {
        return Ok(Some(unit));
    }
    let refuse = |word: &str| LogError::UnknownUnit {
        heading: heading.chars().take(80).collect(),
        what: column.word(),
        unit: word.chars().take(40).collect(),
        known: known(column),
    };
    // A fan's speed counts as a share of its greatest, so its unit does not matter.
    if column == Column::Fan {
        return Ok(None);
    }
    for part in heading.split(['[', '(']).skip(1) {
        let inside = part.split([']', ')']).next().unwrap_or_default().trim();
        let lower = inside.to_lowercase();
        let mut parts = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let number = lower.chars().all(|c| c.is_ascii_digit() || c == '#');
        if !number && !parts.any(|word| DESCRIBES.contains(&word)) {
            return Err(refuse(inside));
        }
    }
    let mut list = words.split_whitespace();
    if let Some(word) = list.clone().find(|word| FOREIGN.contains(word) || (word.starts_with('°') && *word != "°")) {
        return Err(refuse(word));
    }
    let last = list.next_back().filter(|_| list.next().is_some());
    match last {
        Some(word)
            if word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && !["t", "p"].contains(&word) =>
        {
            Err(refuse(word))
        }
        _ => Ok(None),
    }
}

/// Number of a cell such as `35.05 W`, and what stands behind it; none for `[N/A]`.
pub(super) fn number(cell: &str) -> Option<(f64, &str)> {
    let end = cell.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(cell.len());
    let value: f64 = cell[..end].parse().ok()?;
    value.is_finite().then(|| (value, cell[end..].trim()))
}

/// What is said of a cell with something unknown behind its number.
pub(super) fn unknown_behind(column: Column, cell: &str, behind: &str) -> String {
    let short = |text: &str| text.chars().take(40).collect::<String>();
    format!(
        "{:?} is no {}: {:?} behind the number is not one of {}",
        short(cell),
        column.word(),
        short(behind),
        known(column)
    )
}
