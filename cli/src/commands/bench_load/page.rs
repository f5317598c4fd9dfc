//! A benchmark's record as text and as a page.

use super::{BENCH_SCHEMA, Better, Case, Record};
use crate::failure::Failure;
use crate::files;
use crate::ui::table;
use isotherm_core::digest::Digest;
use isotherm_reports::{Axis, Chart, Grid, GridRow, Mark, Sheet};
use std::collections::BTreeMap;
use std::path::Path;

/// Reads a folder's or file's record.
pub fn read(path: &Path) -> Result<(Record, Digest), Failure> {
    let file = if path.is_dir() { path.join("bench.json") } else { path.to_owned() };
    files::read_artefact(&file, BENCH_SCHEMA)
}

/// The sheet of a folder's record.
pub fn sheet(folder: &Path) -> Result<Sheet, Failure> {
    of(&read(folder)?.0, folder)
}

/// Four significant digits with a unit.
pub fn shown(value: f64, unit: &str) -> String {
    if unit == "s" && value.is_finite() && value >= 0.0 {
        return isotherm_core::units::Seconds::of(value).to_string();
    }
    let (scale, prefix) = match value.abs() {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        _ => (1.0, ""),
    };
    format!("{:.4} {prefix}{unit}", value / scale)
}

fn load_words(scenario: &str) -> &str {
    match scenario {
        "single_stream" => "SingleStream",
        "multi_stream" => "MultiStream",
        "server" => "Server",
        "offline" => "Offline",
        other => other,
    }
}

fn cells(case: &Case) -> Vec<String> {
    let value = |value: Option<f64>| value.map_or_else(String::new, |value| shown(value, &case.unit));
    let interval =
        case.interval.map(|(low, high)| format!("{} to {}", shown(low, &case.unit), shown(high, &case.unit)));
    let needed = case.queries_min.map_or_else(String::new, |needed| needed.to_string());
    let mut note = case.note.clone().unwrap_or_default();
    if !case.throttled_runs.is_empty() {
        note.push_str(&format!("; {} throttled runs are left out", case.throttled_runs.len()));
    }
    vec![
        case.subject.clone(),
        load_words(&case.scenario).to_owned(),
        case.query.clone(),
        case.metric.replace('_', " "),
        value(case.median),
        interval.unwrap_or_default(),
        case.runs.len().to_string(),
        case.queries.to_string(),
        needed,
        note,
    ]
}

const COLUMNS: [(&str, bool); 10] = [
    ("subject", false),
    ("load", false),
    ("query", false),
    ("figure", false),
    ("median", true),
    ("95 % interval", true),
    ("runs", true),
    ("queries", true),
    ("needed", true),
    ("note", false),
];

/// The record as text.
pub fn text(record: &Record) -> String {
    let keep = [0, 1, 3, 4, 5, 6, 7];
    let mut rows = vec![keep.iter().map(|&i| COLUMNS[i].0.to_owned()).collect::<Vec<_>>()];
    for case in &record.cases {
        let all = cells(case);
        rows.push(keep.iter().map(|&i| if all[i].is_empty() { "-".to_owned() } else { all[i].clone() }).collect());
    }
    let mut text = table(&rows, &[3, 4, 5, 6]);
    text.extend(record.notes.iter().map(|note| format!("\n  {note}")));
    for case in record.cases.iter().filter(|case| case.median.is_none()) {
        let why = case.note.as_deref().unwrap_or("no run gave it");
        text.push_str(&format!("\n  {} {} {}: {why}", case.subject, load_words(&case.scenario), case.metric));
    }
    text
}

/// The sheet of a record that lies in a folder.
pub fn of(record: &Record, folder: &Path) -> Result<Sheet, Failure> {
    let digest = Digest::of_json(record).map_err(|e| Failure::io(format!("a record is no JSON: {e}")))?;
    let known = record.cases.iter().filter(|case| case.median.is_some()).count();
    let mut sheet = Sheet {
        schema: "isotherm.bench-page/v1",
        title: "Benchmark of isotherm".to_owned(),
        headline: format!("{known} of {} figures have enough runs and queries to be stated.", record.cases.len()),
        sentences: record.notes.clone(),
        commands: vec![record.command.clone(), format!("isotherm report {}", folder.display())],
        ..Sheet::default()
    };
    let mut by_unit: BTreeMap<(&str, bool), Vec<(usize, &Case)>> = BTreeMap::new();
    for (i, case) in record.cases.iter().enumerate() {
        by_unit.entry((&case.unit, case.better == Better::Lower)).or_default().push((i, case));
    }
    for ((unit, lower), cases) in by_unit {
        let mark = |(rank, &(i, case)): (usize, &(usize, &Case))| {
            let y = case.median?;
            let interval = case
                .interval
                .map_or_else(String::new, |(low, high)| format!("\n{} to {}", shown(low, unit), shown(high, unit)));
            let words = format!(
                "{}, {}, {}\n{}{interval}",
                case.subject,
                load_words(&case.scenario),
                case.metric,
                shown(y, unit)
            );
            let group = case.subject.clone();
            Some(Mark { x: rank as f64 + 1.0, y, interval: case.interval, words, group, row: i as u64 })
        };
        let marks: Vec<Mark> = cases.iter().enumerate().filter_map(mark).collect();
        if marks.len() > 1 {
            let way = if lower { "less is better" } else { "more is better" };
            sheet.charts.push(Chart {
                title: format!("Medians in {unit}, {way}"),
                x: Axis { name: "Figures, in the order of the table".to_owned(), ..Axis::default() },
                y: Axis { name: "Median over runs".to_owned(), unit: unit.to_owned(), log: true },
                marks,
                note: "Lines are 95 % bootstrap intervals of the median over independent runs.".to_owned(),
                remake: record.command.clone(),
                source: digest.to_string(),
                ..Chart::default()
            });
        }
    }
    let row = |(i, case): (usize, &Case)| GridRow { row: Some(i as u64), cells: cells(case) };
    sheet.tables.push(Grid {
        title: "Figures".to_owned(),
        note: "Loads are those of MLPerf Inference; queries needed are those of its early-stopping rule.".to_owned(),
        columns: COLUMNS.map(|(name, number)| (name.to_owned(), number)).to_vec(),
        rows: record.cases.iter().enumerate().map(row).collect(),
    });
    let system = serde_json::to_value(&record.system).map_err(|e| Failure::io(format!("no JSON: {e}")))?;
    let fact = |(name, value): (&String, &serde_json::Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        [name.replace('_', " "), if value == "null" { "unknown".to_owned() } else { value }]
    };
    sheet.facts = system.as_object().into_iter().flatten().map(fact).collect();
    sheet.facts.push(["began".to_owned(), record.started.clone()]);
    sheet.facts.push(["seed".to_owned(), record.seed.to_string()]);
    sheet.facts.push(["record".to_owned(), digest.to_string()]);
    Ok(sheet)
}
