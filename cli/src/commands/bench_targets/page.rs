//! Targets as text and as a page.

use super::{FILE, Record, Row, SCHEMA};
use crate::failure::Failure;
use crate::files;
use crate::ui::table;
use isotherm_core::digest::Digest;
use isotherm_reports::{Grid, GridRow, Sheet};
use std::path::Path;

/// A measured figure may be better than its bound by this share before that is called a contradiction.
const NOISE: f64 = 0.05;

fn shown(value: f64, unit: Option<&str>) -> String {
    match unit {
        Some("s") if value.is_finite() && value >= 0.0 => isotherm_core::units::Seconds::of(value).to_string(),
        Some(unit) if value.abs() >= 1000.0 => format!("{value:.0} {unit}"),
        Some(unit) => format!("{value:.3} {unit}"),
        None => format!("{value:.3}"),
    }
}

fn achieved(row: &Row) -> String {
    row.achieved.map_or_else(|| "not measurable here".to_owned(), |value| shown(value, row.unit.as_deref()))
}

fn spread(row: &Row) -> String {
    let unit = row.unit.as_deref();
    row.spread.map_or_else(String::new, |(low, high)| format!("{} to {}", shown(low, unit), shown(high, unit)))
}

fn met(row: &Row) -> &'static str {
    match row.met {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "-",
    }
}

/// What is attainable: the number that was found here, and what it is.
fn attainable(row: &Row) -> String {
    match (row.bound, &row.bound_missing) {
        (Some(bound), _) => format!("{}: {}", shown(bound, row.unit.as_deref()), row.attainable),
        (None, Some(why)) => format!("unknown here ({why}): {}", row.attainable),
        (None, None) => row.attainable.clone(),
    }
}

/// How far what was achieved is from what is attainable, as a factor; above 1 where there is room. A slow link can slow a
/// plan by more than it must, never by less.
fn room(row: &Row) -> Option<f64> {
    let (achieved, bound) = (row.achieved?, row.bound?);
    let more_is_better = matches!(row.unit.as_deref(), Some("/s" | "%" | "times" | "devices" | "users"))
        && !["distributed-overhead", "telemetry-overhead", "throughput-mobile"].contains(&row.id.as_str());
    let (over, under) = if more_is_better { (bound, achieved) } else { (achieved, bound) };
    (under > 0.0).then(|| over / under)
}

/// Rows that are better than what is called attainable: the bound or the measurement is wrong there.
fn contradictions(record: &Record) -> impl Iterator<Item = &Row> {
    record.rows.iter().filter(|row| room(row).is_some_and(|room| room < 1.0 - NOISE))
}

fn counted(record: &Record, met: Option<bool>) -> usize {
    record.rows.iter().filter(|row| row.met == met).count()
}

/// For people.
pub(super) fn text(record: &Record) -> String {
    let mut rows = vec![["target", "asked", "achieved", "95 % interval", "attainable", ""].map(str::to_owned).to_vec()];
    rows.extend(record.rows.iter().map(|row| {
        let bound = row.bound.map_or_else(String::new, |bound| shown(bound, row.unit.as_deref()));
        vec![row.what.clone(), row.target.clone(), achieved(row), spread(row), bound, met(row).to_owned()]
    }));
    let processor = record.system.processor.as_deref().unwrap_or("unknown processor");
    let mut text = table(&rows, &[2, 4]);
    text.push_str(&format!(
        "\n  {} met, {} not met, {} not measurable here; {processor}, {} cores, load {}\n",
        counted(record, Some(true)),
        counted(record, Some(false)),
        counted(record, None),
        record.system.cores,
        record.system.load.map_or_else(|| "unknown".to_owned(), |load| load.to_string()),
    ));
    for row in record.rows.iter().filter(|row| row.achieved.is_none()) {
        text.push_str(&format!("  {}: {}\n", row.what, row.not_measured.as_deref().unwrap_or("unknown why")));
    }
    for row in contradictions(record) {
        text.push_str(&format!("  {}: better than what is called attainable; one of the two is wrong\n", row.what));
    }
    text
}

/// The sheet of a folder's record.
pub fn sheet_of(folder: &Path) -> Result<Sheet, Failure> {
    let (record, digest) = files::read_artefact::<Record>(&folder.join(FILE), SCHEMA)?;
    Ok(sheet(&record, digest))
}

fn sheet(record: &Record, digest: Digest) -> Sheet {
    let number = |row: &Row| match (row.bound, &row.bound_missing) {
        (Some(bound), _) => shown(bound, row.unit.as_deref()),
        (None, Some(_)) => "unknown here".to_owned(),
        (None, None) => "see below".to_owned(),
    };
    let figures = |row: &Row| GridRow {
        row: None,
        cells: vec![
            row.what.clone(),
            row.target.clone(),
            achieved(row),
            if row.runs == 1 { "none: nothing scatters".to_owned() } else { spread(row) },
            number(row),
            room(row).map_or_else(String::new, |room| format!("{room:.3} times")),
            met(row).to_owned(),
        ],
    };
    let grounds = |row: &Row| GridRow {
        row: None,
        cells: vec![
            row.what.clone(),
            attainable(row),
            row.not_measured.as_ref().map_or_else(|| row.method.clone(), |why| format!("{}: {why}", row.method)),
            row.hardware.clone(),
            if row.runs > 0 { row.runs.to_string() } else { String::new() },
            row.taken.clone(),
        ],
    };
    let grid = |title: &str, note: String, columns: &[(&str, bool)], rows: Vec<GridRow>| Grid {
        title: title.to_owned(),
        note,
        columns: columns.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
        rows,
    };
    let system = &record.system;
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    let mut sentences = system.notes();
    sentences.extend(
        record
            .rows
            .iter()
            .filter(|row| row.met == Some(false))
            .map(|row| format!("Not met: {}: asked {}, achieved {}.", row.what, row.target, achieved(row))),
    );
    sentences.extend(
        contradictions(record)
            .map(|row| format!("{}: better than what is called attainable; one of the two is wrong.", row.what)),
    );
    Sheet {
        schema: "isotherm.bench-targets-page/v1",
        title: "Targets".to_owned(),
        headline: format!(
            "{} targets met, {} not met, {} not measurable on this host.",
            counted(record, Some(true)),
            counted(record, Some(false)),
            counted(record, None)
        ),
        sentences,
        tables: vec![
            grid(
                "Targets",
                format!(
                    "From record {}. Room is by which factor the achieved figure is worse than the attainable one.",
                    digest.short()
                ),
                &[
                    ("target", false),
                    ("asked", false),
                    ("achieved", true),
                    ("95 % interval", true),
                    ("attainable", true),
                    ("room", true),
                    ("met", false),
                ],
                record.rows.iter().map(figures).collect(),
            ),
            grid(
                "What is attainable, and how each figure was found",
                "Where a figure is missing, why stands after its method.".to_owned(),
                &[
                    ("target", false),
                    ("attainable", false),
                    ("method", false),
                    ("hardware", false),
                    ("runs", true),
                    ("taken", false),
                ],
                record.rows.iter().map(grounds).collect(),
            ),
        ],
        facts: vec![
            ["processor".to_owned(), known(system.processor.clone())],
            ["cores".to_owned(), system.cores.to_string()],
            ["memory".to_owned(), known(system.memory_bytes.map(|b| isotherm_core::units::Bytes(b).to_string()))],
            ["kernel".to_owned(), known(system.kernel.clone())],
            ["load when it began".to_owned(), known(system.load.map(|load| load.to_string()))],
            ["began".to_owned(), record.started.clone()],
            ["record".to_owned(), digest.to_string()],
            ["version".to_owned(), record.tool_version.clone()],
        ],
        commands: vec![record.command.clone(), "isotherm report DIR".to_owned()],
        ..Sheet::default()
    }
}
