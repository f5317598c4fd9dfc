//! Comma-separated tables with a header line: columns by name, rows by line.

use super::LlmServingSimError;
use crate::cost::Curve;
use crate::units::Seconds;
use std::collections::BTreeMap;

/// Longest time of one operator that is taken for one: a thousand seconds.
const MICROS_MAX: f64 = 1e9;

/// A table whose cells are looked up by column.
#[derive(Debug)]
pub(super) struct Table<'a> {
    file: &'static str,
    columns: Vec<&'a str>,
    /// Line number and cells.
    rows: Vec<(usize, Vec<&'a str>)>,
}

impl<'a> Table<'a> {
    /// Reads a table. Errors: no header, or a row with more or fewer cells than it.
    pub fn read(file: &'static str, text: &'a str) -> Result<Self, LlmServingSimError> {
        let text = text.trim_start_matches('\u{feff}');
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let Some((_, header)) = lines.next() else {
            return Err(LlmServingSimError::Document { file, problem: "holds no header line".to_owned() });
        };
        let columns: Vec<&str> = header.split(',').map(str::trim).collect();
        let mut rows = Vec::new();
        for (at, line) in lines {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            if cells.len() != columns.len() {
                let problem = format!("has {} cells and the header {}", cells.len(), columns.len());
                return Err(LlmServingSimError::Line { file, line: at + 1, problem });
            }
            rows.push((at + 1, cells));
        }
        Ok(Self { file, columns, rows })
    }

    /// Rows with their line numbers.
    pub fn rows(&self) -> &[(usize, Vec<&'a str>)] {
        &self.rows
    }

    /// The position of a column that must be there.
    pub fn column(&self, column: &'static str) -> Result<usize, LlmServingSimError> {
        self.columns.iter().position(|&c| c == column).ok_or_else(|| LlmServingSimError::Column {
            file: self.file,
            column,
            found: self.columns.join(", "),
        })
    }

    /// A count in a cell. Profilers write counts as `16` or `16.0`.
    pub fn count(&self, row: &(usize, Vec<&str>), column: usize) -> Result<u32, LlmServingSimError> {
        let text = row.1[column];
        let number = text.parse::<u32>().ok().or_else(|| {
            let float = text.parse::<f64>().ok()?;
            (float >= 0.0 && float <= f64::from(u32::MAX) && float.fract() == 0.0).then_some(float as u32)
        });
        number.ok_or_else(|| self.bad(row.0, format!("{text:?} is not a count")))
    }

    /// A finite number in a cell.
    pub fn number(&self, row: &(usize, Vec<&str>), column: usize) -> Result<f64, LlmServingSimError> {
        let text = row.1[column];
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| self.bad(row.0, format!("{text:?} is not a number")))
    }

    /// A time in a cell, stated in microseconds.
    pub fn micros(&self, row: &(usize, Vec<&str>), column: usize) -> Result<f64, LlmServingSimError> {
        let micros = self.number(row, column)?;
        if !(0.0..=MICROS_MAX).contains(&micros) {
            return Err(self.bad(row.0, format!("{micros} microseconds is not between 0 and {MICROS_MAX}")));
        }
        Ok(micros * 1e-6)
    }

    /// An error at a line.
    pub fn bad(&self, line: usize, problem: String) -> LlmServingSimError {
        LlmServingSimError::Line { file: self.file, line, problem }
    }
}

/// Several measurements of one point, as their mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    samples: u32,
}

/// Points by key, each the mean of its rows.
#[derive(Debug, Default)]
pub(super) struct Means<K: Ord>(BTreeMap<K, Mean>);

impl<K: Ord + Copy> Means<K> {
    /// Adds a measurement.
    pub fn add(&mut self, key: K, seconds: f64) {
        let mean = self.0.entry(key).or_default();
        mean.sum += seconds;
        mean.samples += 1;
    }

    /// The points, in order of their keys.
    pub fn points(&self) -> Vec<(K, Seconds)> {
        self.0.iter().map(|(&key, mean)| (key, Seconds::of(mean.sum / f64::from(mean.samples)))).collect()
    }
}

impl Means<u32> {
    /// The points as a curve. Errors: the times overflow, or there are none.
    pub fn curve(&self, file: &'static str) -> Result<Curve, LlmServingSimError> {
        Curve::new(self.points()).map_err(|source| LlmServingSimError::Table { file, source })
    }
}

/// Curves by operator, from a table of (layer, count, time).
pub(super) fn curves(
    file: &'static str,
    text: &str,
    count: &'static str,
) -> Result<BTreeMap<String, Curve>, LlmServingSimError> {
    let table = Table::read(file, text)?;
    let (layer, count, time) = (table.column("layer")?, table.column(count)?, table.column("time_us")?);
    let mut operators: BTreeMap<&str, Means<u32>> = BTreeMap::new();
    for row in table.rows() {
        let (at, seconds) = (table.count(row, count)?, table.micros(row, time)?);
        operators.entry(row.1[layer]).or_default().add(at, seconds);
    }
    operators.into_iter().map(|(name, means)| Ok((name.to_owned(), means.curve(file)?))).collect()
}
