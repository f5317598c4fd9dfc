//! Logs of power and temperature, as monitoring tools write them: text to numbers with known units.
//!
//! A log is delimited text with a heading. Columns are found by name: time, power and temperature must be there; clock,
//! power cap, utilisation, fan and ambient temperature are used where they are. A unit may stand in the heading
//! (`power.draw [W]`, `Power (mW)`, `time_ms`) or behind each value (`35.05 W`); where it stands nowhere, the size of
//! the numbers decides between the customary ones, and [`ThermalLog::notes`] says what was taken. A unit that is not
//! known is refused, never ignored. Where cells are not divided by commas, a comma may be a decimal point; a heading
//! behind `#` whose cells are divided by blanks, as `nvidia-smi dmon -o DT` writes it, is read too.
//!
//! Of several devices in one log, told apart by a column such as `index`, `gpu` or `uuid`, the one with most samples is
//! read. Times of day that start again at midnight go on; rows that are a little out of order are sorted.

mod columns;
mod order;
mod times;
mod units;

use columns::{Column, Columns};

/// Most samples of a log.
pub const SAMPLES_MAX: usize = 2_000_000;
/// Fewest samples that say anything of a device's heat.
pub const SAMPLES_MIN: usize = 20;

/// The number of a line, and its values by [`Column`].
type Row = (usize, Vec<Option<f64>>);

/// Power and temperature of one device over time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ThermalLog {
    /// Seconds, rising strictly. The origin is that of the log: an epoch, or its first sample.
    pub seconds: Vec<f64>,
    /// Power in W.
    pub watts: Vec<f64>,
    /// Temperature in °C.
    pub celsius: Vec<f64>,
    /// Temperature of the air in °C.
    pub ambient: Option<Vec<f64>>,
    /// Fan speed as a share of its greatest in the log, from 0 to 1.
    pub fan: Option<Vec<f64>>,
    /// Clock in MHz.
    pub clock: Option<Vec<f64>>,
    /// Power cap in W.
    pub cap: Option<Vec<f64>>,
    /// Utilisation as a share.
    pub utilisation: Option<Vec<f64>>,
    /// Utilisation of the memory as a share.
    pub memory: Option<Vec<f64>>,
    /// What was read as what, and what was left out, one sentence each.
    pub notes: Vec<String>,
}

/// Why a text is no log.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LogError {
    /// No heading, or nothing under it.
    #[error("the log is empty; it needs a heading and samples under it")]
    Empty,
    /// A needed column is not there.
    #[error("no column looks like {what}; the heading has {found}; name a column for example {example:?}")]
    NoColumn {
        /// What it would hold.
        what: &'static str,
        /// The columns there are.
        found: String,
        /// A name that is understood.
        example: &'static str,
    },
    /// A heading names a unit that is not known.
    #[error(
        "column {heading:?} gives {what} in {unit:?}, which is not a known unit; convert it, or name one of {known}"
    )]
    UnknownUnit {
        /// The heading.
        heading: String,
        /// What the column holds.
        what: &'static str,
        /// The unit as written.
        unit: String,
        /// The units that are known.
        known: String,
    },
    /// Too few rows are readable.
    #[error(
        "only {readable} of {rows} rows have a readable time, power and temperature ({reason}); \
         at least {SAMPLES_MIN} and half of them must"
    )]
    Unreadable {
        /// Rows that are.
        readable: usize,
        /// All rows.
        rows: usize,
        /// Why the first other one is not.
        reason: String,
    },
    /// Time runs backwards.
    #[error(
        "line {line}: time goes back from {before} s to {after} s; sort the log, or give each run a file of its own"
    )]
    Backwards {
        /// The line.
        line: usize,
        /// The time before it.
        before: f64,
        /// Its time.
        after: f64,
    },
    /// A value no device has.
    #[error("line {line}: a {what} of {value} is outside {limits}; check the unit in the heading")]
    Implausible {
        /// The line.
        line: usize,
        /// Which quantity.
        what: &'static str,
        /// The value.
        value: f64,
        /// What is plausible.
        limits: &'static str,
    },
    /// More samples than are read.
    #[error("the log has more than {SAMPLES_MAX} samples; give a part of it")]
    TooLong,
}

impl ThermalLog {
    /// Reads a log. Errors: see [`LogError`].
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.lines().enumerate().map(|(number, line)| (number, line.trim()));
        let comment = |line: &str| line.is_empty() || (line.starts_with('#') && !is_heading(line));
        let heading = lines.find(|(_, line)| !comment(line)).ok_or(LogError::Empty)?.1.trim_start_matches(['#', ' ']);
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let delimiter = [',', ';', '\t'].into_iter().max_by_key(|&d| (heading.matches(d).count(), d == ','));
        let delimiter = delimiter.filter(|&d| heading.contains(d)).unwrap_or(' ');
        let headings = cells(heading, delimiter);
        let columns = Columns::find(&headings)?;
        let mut devices = order::Devices::of(&headings);
        let mut rows: Vec<Row> = Vec::new();
        let (mut total, mut reason, mut of_day) = (0_usize, None, true);
        for (line, row) in lines {
            total += 1;
            if total > SAMPLES_MAX {
                return Err(LogError::TooLong);
            }
            let cells = cells(row, delimiter);
            match columns.read(&cells, delimiter != ',') {
                Ok(values) => {
                    of_day &= times::is_of_day(columns.cell(Column::Time, &cells));
                    devices.add(&cells);
                    rows.push((line + 1, values));
                }
                Err(why) => {
                    reason.get_or_insert_with(|| format!("line {}: {why}", line + 1));
                }
            }
        }
        if total == 0 {
            return Err(LogError::Empty);
        }
        if rows.len() < SAMPLES_MIN || rows.len() * 2 < total {
            let reason = reason.unwrap_or_else(|| "the log is short".to_owned());
            return Err(LogError::Unreadable { readable: rows.len(), rows: total, reason });
        }
        let readable = rows.len();
        let mut notes = devices.most(&mut rows).into_iter().collect::<Vec<_>>();
        let mut log = Self::of(&columns, &mut rows, of_day, &mut notes)?;
        if readable < total {
            let reason = reason.unwrap_or_default();
            notes.push(format!("{} of {total} rows were left out ({reason})", total - readable));
        }
        log.notes.append(&mut notes);
        log.check(&rows)?;
        Ok(log)
    }

    /// Numbers in their units.
    fn of(columns: &Columns, rows: &mut Vec<Row>, of_day: bool, notes: &mut Vec<String>) -> Result<Self, LogError> {
        let mut log = Self::default();
        let scale = |column: Column| columns.scale(column, rows.iter().filter_map(|(_, row)| row[column as usize]));
        let scales: Vec<units::Unit> = Column::ALL.iter().map(|&column| scale(column)).collect();
        for (_, row) in rows.iter_mut() {
            for (value, scale) in row.iter_mut().zip(&scales) {
                *value = value.map(|value| scale.of(value)).filter(|value| value.is_finite());
            }
        }
        if of_day {
            order::past_midnight(rows);
        }
        notes.extend(order::sort(rows)?);
        let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
        for (line, row) in rows.drain(..) {
            let time = row[Column::Time as usize].unwrap_or_default();
            if kept.last().is_none_or(|(_, last)| time > last[Column::Time as usize].unwrap_or_default()) {
                kept.push((line, row));
            }
        }
        let equal = kept.len();
        *rows = kept;
        let needed = |column: Column| rows.iter().map(|(_, row)| row[column as usize].unwrap_or_default()).collect();
        // A column with holes is of no use to a replay that needs a value at every sample: the last one is held.
        let optional = |column: Column| -> Option<Vec<f64>> {
            let values = || rows.iter().map(|(_, row)| row[column as usize]);
            let mut last = values().flatten().next()?;
            let held = values().map(|value| {
                last = value.unwrap_or(last);
                last
            });
            Some(held.collect())
        };
        log.seconds = needed(Column::Time);
        log.watts = needed(Column::Power);
        log.celsius = needed(Column::Temperature);
        log.ambient = optional(Column::Ambient);
        let share = |values: Vec<f64>| {
            let most = values.iter().copied().fold(0.0, f64::max);
            (most > 0.0).then(|| values.iter().map(|v| (v / most).clamp(0.0, 1.0)).collect())
        };
        log.fan = optional(Column::Fan).and_then(share);
        log.clock = optional(Column::Clock);
        log.cap = optional(Column::Cap);
        log.utilisation = optional(Column::Utilisation);
        log.memory = optional(Column::Memory);
        log.notes = columns.notes(&scales);
        if equal < SAMPLES_MIN {
            let reason = "the others repeat the time of the one before".to_owned();
            return Err(LogError::Unreadable { readable: equal, rows: rows.len(), reason });
        }
        Ok(log)
    }

    fn check(&self, rows: &[Row]) -> Result<(), LogError> {
        for (i, (line, _)) in rows.iter().enumerate() {
            let wrong = |what, value, limits| LogError::Implausible { line: *line, what, value, limits };
            if !(0.0..=100_000.0).contains(&self.watts[i]) {
                return Err(wrong("power in W", self.watts[i], "0 to 100000 W"));
            }
            if !(-60.0..=250.0).contains(&self.celsius[i]) {
                return Err(wrong("temperature in °C", self.celsius[i], "-60 to 250 °C"));
            }
            if let Some(ambient) = self.ambient.as_ref().map(|a| a[i])
                && !(-60.0..=90.0).contains(&ambient)
            {
                return Err(wrong("ambient temperature in °C", ambient, "-60 to 90 °C"));
            }
        }
        Ok(())
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty()
    }

    /// The usual time between two samples: the median.
    #[must_use]
    pub fn interval(&self) -> f64 {
        let mut gaps: Vec<f64> = self.seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        gaps.get(gaps.len() / 2).copied().unwrap_or(1.0)
    }

    /// A part of it.
    #[must_use]
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let of = |values: &Vec<f64>| values[range.clone()].to_vec();
        let some = |values: &Option<Vec<f64>>| values.as_ref().map(of);
        Self {
            seconds: of(&self.seconds),
            watts: of(&self.watts),
            celsius: of(&self.celsius),
            ambient: some(&self.ambient),
            fan: some(&self.fan),
            clock: some(&self.clock),
            cap: some(&self.cap),
            utilisation: some(&self.utilisation),
            memory: some(&self.memory),
            notes: Vec::new(),
        }
    }
}

/// Whether a line behind `#` is the heading and no remark.
fn is_heading(line: &str) -> bool {
    let line = line.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| line.contains(word));
    has(&["temp"]) && has(&["pwr", "power", "watt"]) && has(&["time", "date", "sec"])
}

/// The cells of a row: trimmed, without quotes. A delimiter inside quotes does not divide.
fn cells(row: &str, delimiter: char) -> Vec<&str> {
    if delimiter == ' ' {
        return row.split_whitespace().collect();
    }
    let mut cells = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (i, c) in row.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if c == delimiter && !quoted {
            cells.push(&row[start..i]);
            start = i + c.len_utf8();
        }
    }
    cells.push(&row[start..]);
    cells.into_iter().map(|cell| cell.trim().trim_matches('"').trim()).collect()
}

#[cfg(test)]
mod tests;
