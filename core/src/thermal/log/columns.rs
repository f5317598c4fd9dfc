//! Which column holds what, and in which unit.

use super::units::{self, Unit, number, unit};
use super::{LogError, times};

/// What a log may hold; the position in a row of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Time,
    Power,
    Temperature,
    Ambient,
    Fan,
    Clock,
    Cap,
    Utilisation,
    Memory,
}

impl Column {
    pub(super) const ALL: [Self; 9] = [
        Self::Time,
        Self::Power,
        Self::Temperature,
        Self::Ambient,
        Self::Fan,
        Self::Clock,
        Self::Cap,
        Self::Utilisation,
        Self::Memory,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Power => "power",
            Self::Temperature => "temperature",
            Self::Ambient => "ambient temperature",
            Self::Fan => "fan speed",
            Self::Clock => "clock",
            Self::Cap => "power cap",
            Self::Utilisation => "utilisation",
            Self::Memory => "memory utilisation",
        }
    }

    /// How well a heading fits, higher is better; none where it does not. `words` are its lower-case words.
    fn fit(self, words: &[&str]) -> Option<u32> {
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        let starts = |list: &[&str]| words.iter().any(|word| list.iter().any(|start| word.starts_with(start)));
        let memory = has(&["mem", "memory", "vram", "hbm", "dram"]);
        let air = has(&["ambient", "room", "inlet", "air", "intake"]);
        let limit = starts(&["cap", "limit", "max", "min", "default", "slowdown", "shutdown", "target", "threshold"]);
        let power = starts(&["power", "watt"]) || has(&["pwr", "draw", "p"]);
        let temperature = starts(&["temp", "gtemp", "celsius", "degc", "fahrenheit", "degf", "kelvin"]);
        match self {
            Self::Time => {
                let fits = starts(&["time", "date", "elapsed", "epoch", "clock_time"])
                    || has(&["t", "seconds", "sec", "unix", "ts", "minutes", "hours", "milliseconds"]);
                // `min` is the minute here, not the least of something.
                let limit = starts(&["cap", "limit", "max", "default", "slowdown", "shutdown", "target", "threshold"]);
                (fits && !limit && !power && !temperature).then(|| if has(&["timestamp", "time"]) { 3 } else { 2 })
            }
            Self::Power => {
                let fits = power && !limit && !memory && !starts(&["state", "pstate", "manag", "smooth", "mode"]);
                let exact = 1 + u32::from(starts(&["power"])) + u32::from(has(&["draw", "usage", "gpu", "w"]));
                fits.then(|| exact - u32::from(has(&["instant", "average", "avg"])))
            }
            Self::Temperature => {
                let fits = (temperature || has(&["tgpu", "tj"])) && !limit && !memory && !air && !has(&["tlimit"]);
                fits.then(|| 2 + u32::from(has(&["gpu", "core", "die", "junction", "edge"])))
            }
            Self::Ambient => (air && (temperature || words.len() <= 2)).then_some(2),
            Self::Fan => (starts(&["fan"]) && !limit).then_some(2),
            Self::Clock => {
                let fits = starts(&["clock", "freq", "mhz", "sclk", "smclk", "pclk"]) && !memory && !limit && !power;
                let better = has(&["sm", "graphics", "gr", "core", "gpu"]);
                (fits && !has(&["video", "time", "reasons", "event"])).then(|| 1 + u32::from(better))
            }
            Self::Cap => {
                let fits = starts(&["cap", "limit", "powercap"]) && (power || words.len() == 1) && !temperature;
                let less = u32::from(has(&["default", "max", "min"])) + u32::from(has(&["enforced"]));
                fits.then(|| 3 - less)
            }
            Self::Utilisation => {
                (starts(&["util", "load", "usage", "busy"]) && !memory && !power && !temperature).then_some(2)
            }
            Self::Memory => (starts(&["util"]) && memory).then_some(2),
        }
    }
}

/// The columns of a log.
#[derive(Debug)]
pub(super) struct Columns {
    headings: Vec<String>,
    /// For each of [`Column::ALL`], where it stands and the unit in its heading.
    places: Vec<Option<(usize, Option<Unit>)>>,
}

/// `PowerCap` as `power cap`, `power.draw [W]` as `power draw w`, `time_ms` as `time ms`.
fn words(heading: &str) -> String {
    let mut text = String::new();
    let mut before = ' ';
    let mut rest = heading.chars().take(200).peekable();
    while let Some(c) = rest.next() {
        // A word begins where a capital stands between small letters; `mW` is one word.
        let next = rest.peek().is_some_and(char::is_ascii_lowercase);
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() && next {
            text.push(' ');
        }
        text.extend(if c.is_alphanumeric() || c == '%' || c == '°' { c.to_lowercase().next() } else { Some(' ') });
        before = c;
    }
    text
}

impl Columns {
    pub(super) fn find(headings: &[&str]) -> Result<Self, LogError> {
        let split: Vec<String> = headings.iter().map(|heading| words(heading)).collect();
        let mut places = Vec::with_capacity(Column::ALL.len());
        for column in Column::ALL {
            let mut best: Option<(u32, usize)> = None;
            for (i, text) in split.iter().enumerate() {
                let list: Vec<&str> = text.split_whitespace().collect();
                if let Some(score) = column.fit(&list)
                    && best.is_none_or(|(most, _)| score > most)
                {
                    best = Some((score, i));
                }
            }
            let place = match best {
                Some((_, i)) => Some((i, units::of_heading(column, headings[i], &split[i])?)),
                None => None,
            };
            places.push(place);
        }
        let found: Vec<&str> = headings.iter().copied().take(30).collect();
        for (column, example) in
            [(Column::Time, "time_s"), (Column::Power, "power.draw [W]"), (Column::Temperature, "temperature.gpu")]
        {
            if places[column as usize].is_none() {
                return Err(LogError::NoColumn { what: column.word(), found: found.join(", "), example });
            }
        }
        Ok(Self { headings: headings.iter().map(|&h| h.to_owned()).collect(), places })
    }

    /// The cell of a row that holds a column; empty where there is none.
    pub(super) fn cell<'c>(&self, column: Column, cells: &[&'c str]) -> &'c str {
        self.places[column as usize].and_then(|(place, _)| cells.get(place).copied()).unwrap_or_default()
    }

    /// The values of a row, in the unit of their cells where one stands there; `comma` says that a comma is a decimal
    /// point. Errors: what is not readable.
    pub(super) fn read(&self, cells: &[&str], comma: bool) -> Result<Vec<Option<f64>>, String> {
        let mut values = vec![None; Column::ALL.len()];
        for column in Column::ALL {
            let Some((place, heading)) = self.places[column as usize] else { continue };
            let cell = cells.get(place).copied().unwrap_or_default();
            let pointed = if comma { cell.replace(',', ".") } else { cell.to_owned() };
            let dated = if column == Column::Time { times::seconds(&pointed) } else { None };
            let value = if let Some(seconds) = dated {
                // A date is in seconds whatever the heading says.
                let date = times::is_date(&pointed);
                Some(if date { heading.map_or(seconds, |unit| unit.back(seconds)) } else { seconds })
            } else if let Some((value, behind)) = number(&pointed) {
                let own = unit(column, &behind.to_lowercase());
                if own.is_none() && !behind.is_empty() && column != Column::Fan {
                    return Err(units::unknown_behind(column, cell, behind));
                }
                // Brought to the heading's unit, so that one factor serves the whole column.
                Some(own.map_or(value, |own| {
                    heading.unwrap_or(Unit { factor: Self::plain(column), offset: 0.0 }).back(own.of(value))
                }))
            } else {
                None
            };
            let needed = matches!(column, Column::Time | Column::Power | Column::Temperature);
            if needed && value.is_none() {
                return Err(format!("{:?} is no {}", cell.chars().take(40).collect::<String>(), column.word()));
            }
            values[column as usize] = value;
        }
        Ok(values)
    }

    /// The factor of a column without a unit whose numbers have the customary size.
    const fn plain(column: Column) -> f64 {
        if matches!(column, Column::Utilisation | Column::Memory) { 1e-2 } else { 1.0 }
    }

    /// The unit of a column's numbers: that in the heading, else by their size.
    pub(super) fn scale(&self, column: Column, values: impl Iterator<Item = f64>) -> Unit {
        let heading = self.places[column as usize].map_or(Some(Unit { factor: 1.0, offset: 0.0 }), |(_, unit)| unit);
        heading.unwrap_or_else(|| Unit { factor: Self::by_size(column, values), offset: 0.0 })
    }

    fn by_size(column: Column, values: impl Iterator<Item = f64>) -> f64 {
        let most = values.map(f64::abs).fold(0.0, f64::max);
        match column {
            // Seconds since 1970 are near 2e9.
            Column::Time if most > 1e17 => 1e-9,
            Column::Time if most > 1e14 => 1e-6,
            Column::Time if most > 1e11 => 1e-3,
            Column::Power | Column::Cap if most > 5_000.0 => 1e-3,
            Column::Temperature | Column::Ambient if most > 1_000.0 => 1e-3,
            Column::Clock if most > 1e8 => 1e-6,
            Column::Clock if most > 1e5 => 1e-3,
            Column::Utilisation | Column::Memory if most <= 1.0 => 1.0,
            _ => Self::plain(column),
        }
    }

    /// What was read as what.
    pub(super) fn notes(&self, scales: &[Unit]) -> Vec<String> {
        let of = |column: Column| {
            let (place, unit) = self.places[column as usize]?;
            let guessed = unit.is_none() && scales[column as usize].factor != Self::plain(column);
            let factor = if guessed { format!(" times {}", scales[column as usize].factor) } else { String::new() };
            Some(format!("{} from column {:?}{factor}", column.word(), self.headings[place]))
        };
        Column::ALL.into_iter().filter_map(of).collect()
    }
}
