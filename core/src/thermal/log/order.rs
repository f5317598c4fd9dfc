//! Which rows of a log are of one device, and in which order.

use super::columns::Column;
use super::{LogError, Row};
use std::collections::BTreeMap;

/// Names of columns that tell devices apart.
const TELLS: [&str; 16] = [
    "index",
    "gpu",
    "gpu index",
    "gpu id",
    "gpuid",
    "gpu idx",
    "idx",
    "device",
    "device id",
    "device index",
    "uuid",
    "gpu uuid",
    "bus id",
    "pci bus id",
    "gpu bus id",
    "card",
];
/// Most of the rows that may be out of order, as a share, and by how many usual intervals.
const OUT_OF_ORDER: (f64, f64) = (0.01, 8.0);
/// Half a day in seconds.
const HALF_DAY: f64 = 43_200.0;

/// The devices of a log, as far as a column tells them apart.
#[derive(Debug)]
pub(super) struct Devices {
    /// Where the column is, and its heading.
    place: Option<(usize, String)>,
    names: BTreeMap<String, usize>,
    /// The device of each row.
    of: Vec<usize>,
}

impl Devices {
    pub(super) fn of(headings: &[&str]) -> Self {
        let plain = |heading: &str| {
            let parts = heading.to_lowercase();
            let parts = parts.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
            parts.collect::<Vec<_>>().join(" ")
        };
        let found = headings.iter().position(|heading| TELLS.contains(&plain(heading).as_str()));
        Self { place: found.map(|at| (at, headings[at].to_owned())), names: BTreeMap::new(), of: Vec::new() }
    }

    /// Notes the device of one more row.
    pub(super) fn add(&mut self, cells: &[&str]) {
        let Some((place, _)) = &self.place else { return };
        let number = self.names.len();
        let name = cells.get(*place).copied().unwrap_or_default();
        self.of.push(*self.names.entry(name.to_owned()).or_insert(number));
    }

    /// Keeps the rows of the device that has most, the first of equals. A sentence where there were others.
    pub(super) fn most(&self, rows: &mut Vec<Row>) -> Option<String> {
        let (_, heading) = self.place.as_ref()?;
        let count = self.names.len();
        // Devices take turns; what is called the same and does not, a utilisation for example, is no device. Neither is a
        // count of rows.
        let turns = self.of.windows(2).filter(|pair| pair[0] != pair[1]).count();
        if count < 2 || count * 4 > rows.len() || turns * 4 < rows.len() {
            return None;
        }
        let mut sizes = vec![0_usize; count];
        self.of.iter().for_each(|&device| sizes[device] += 1);
        let kept = (0..count).max_by_key(|&device| (sizes[device], count - device))?;
        let name = self.names.iter().find(|(_, number)| **number == kept)?.0;
        let mut devices = self.of.iter();
        rows.retain(|_| devices.next() == Some(&kept));
        Some(format!(
            "column {heading:?} tells {count} devices apart; only {:?} was read: give each device a file of its own",
            name.chars().take(60).collect::<String>()
        ))
    }
}

fn time(row: &Row) -> f64 {
    row.1[Column::Time as usize].unwrap_or_default()
}

/// Times of day that start again at midnight go on from the day before.
pub(super) fn past_midnight(rows: &mut [Row]) {
    let (mut days, mut before) = (0.0, f64::NEG_INFINITY);
    for row in rows {
        let own = time(row);
        if own < before - HALF_DAY {
            days += 2.0 * HALF_DAY;
        }
        before = own;
        row.1[Column::Time as usize] = Some(own + days);
    }
}

/// Puts rows in order that are a little out of it: few of them, by a few intervals. A sentence where some were.
/// Errors: time goes back further, as where one run follows another.
pub(super) fn sort(rows: &mut [Row]) -> Result<Option<String>, LogError> {
    let mut gaps: Vec<f64> = rows.windows(2).map(|pair| (time(&pair[1]) - time(&pair[0])).abs()).collect();
    gaps.sort_by(f64::total_cmp);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    let (mut wrong, mut latest) = (0_usize, f64::NEG_INFINITY);
    for row in rows.iter() {
        let own = time(row);
        if own < latest {
            wrong += 1;
            if latest - own > OUT_OF_ORDER.1 * usual || wrong as f64 > OUT_OF_ORDER.0 * rows.len() as f64 + 1.0 {
                return Err(LogError::Backwards { line: row.0, before: latest, after: own });
            }
        }
        latest = latest.max(own);
    }
    rows.sort_by(|a, b| time(a).total_cmp(&time(b)));
    Ok((wrong > 0).then(|| format!("{wrong} rows were out of order by a few samples and were sorted")))
}
