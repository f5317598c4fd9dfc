//! `isotherm bench targets`: every target with what was achieved on this host, or why that cannot be measured here.

mod measures;

use super::bench_load::{System, interval, median};
use crate::args::BenchTargets;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_reports::{Grid, GridRow, Sheet, markdown};
use serde::{Deserialize, Serialize};

const TARGETS: &str = include_str!("bench_targets/targets.toml");

/// One target as it is written down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    id: String,
    what: String,
    target: String,
    #[serde(default)]
    attainable: Option<String>,
    method: String,
    #[serde(default)]
    measure: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    below: Option<f64>,
    #[serde(default)]
    at_least: Option<f64>,
    #[serde(default)]
    why: Option<String>,
}

#[derive(Deserialize)]
struct Targets {
    target: Vec<Target>,
}

/// One row of the result.
#[derive(Debug, Clone, Serialize)]
struct Row {
    id: String,
    what: String,
    target: String,
    /// Median of what was measured; absent where it cannot be here.
    achieved: Option<f64>,
    /// 95 % interval of the median over runs.
    spread: Option<(f64, f64)>,
    unit: Option<String>,
    runs: usize,
    /// Whether the target is met; absent where nothing was measured.
    met: Option<bool>,
    attainable: Option<String>,
    method: String,
    /// Why there is no figure.
    not_measured: Option<String>,
}

#[derive(Serialize)]
struct Record {
    schema: &'static str,
    tool_version: &'static str,
    started: String,
    system: System,
    rows: Vec<Row>,
}

fn targets() -> Vec<Target> {
    toml::from_str::<Targets>(TARGETS).map(|targets| targets.target).unwrap_or_default()
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchTargets) -> Done {
    if args.runs < 5 {
        return Err(Failure::new(Code::Usage, "--runs must be at least 5"));
    }
    crate::access::timing(&["cpu"])?;
    let (started, system) = (jiff::Timestamp::now().to_string(), System::read());
    let mut rows = Vec::new();
    for target in targets() {
        ui.note(format!("  {}", target.what));
        rows.push(row(target, args.runs));
    }
    let (schema, tool_version) = ("isotherm.bench-targets/v1", TOOL_VERSION);
    let record = Record { schema, tool_version, started, system, rows };
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("targets.json"), &record)?;
        files::write(&folder.join("targets.md"), markdown(&sheet(&record)).as_bytes())?;
    }
    ui.result(&record, || text(&record))
}

fn row(target: Target, runs: u32) -> Row {
    let measured = target.measure.as_deref().map(|name| measures::measure(name, runs));
    let (values, why) = match measured {
        Some(Ok(values)) => (values, None),
        Some(Err(why)) => (Vec::new(), Some(why)),
        None => (Vec::new(), target.why.clone()),
    };
    let achieved = median(&values);
    let met = achieved.map(|value| {
        target.below.is_none_or(|limit| value < limit) && target.at_least.is_none_or(|limit| value >= limit)
    });
    Row {
        id: target.id,
        what: target.what,
        target: target.target,
        achieved,
        spread: interval(&values, 1),
        unit: target.unit,
        runs: values.len(),
        met,
        attainable: target.attainable,
        method: target.method,
        not_measured: why,
    }
}

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

fn text(record: &Record) -> String {
    let mut rows = vec![["target", "asked", "achieved", "95 % interval", ""].map(str::to_owned).to_vec()];
    rows.extend(
        record
            .rows
            .iter()
            .map(|row| vec![row.what.clone(), row.target.clone(), achieved(row), spread(row), met(row).to_owned()]),
    );
    let count = |met: Option<bool>| record.rows.iter().filter(|row| row.met == met).count();
    let processor = record.system.processor.as_deref().unwrap_or("unknown processor");
    let mut text = table(&rows, &[2]);
    text.push_str(&format!(
        "\n  {} met, {} not met, {} not measurable here; {processor}, {} cores, load {}\n",
        count(Some(true)),
        count(Some(false)),
        count(None),
        record.system.cores,
        record.system.load.map_or_else(|| "unknown".to_owned(), |load| load.to_string()),
    ));
    for row in record.rows.iter().filter(|row| row.achieved.is_none()) {
        text.push_str(&format!("  {}: {}\n", row.what, row.not_measured.as_deref().unwrap_or("unknown why")));
    }
    text
}

fn sheet(record: &Record) -> Sheet {
    let columns = ["target", "asked", "achieved", "95 % interval", "met", "attainable", "method", "why not"];
    let cells = |row: &Row| GridRow {
        row: None,
        cells: vec![
            row.what.clone(),
            row.target.clone(),
            achieved(row),
            spread(row),
            met(row).to_owned(),
            row.attainable.clone().unwrap_or_default(),
            row.method.clone(),
            row.not_measured.clone().unwrap_or_default(),
        ],
    };
    let system = &record.system;
    let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
    Sheet {
        schema: "isotherm.bench-targets-page/v1",
        title: "Targets".to_owned(),
        headline: format!(
            "{} of {} targets were measured on this host.",
            record.rows.iter().filter(|r| r.achieved.is_some()).count(),
            record.rows.len()
        ),
        tables: vec![Grid {
            title: "Targets".to_owned(),
            note: String::new(),
            columns: columns.map(|name| (name.to_owned(), false)).to_vec(),
            rows: record.rows.iter().map(cells).collect(),
        }],
        facts: vec![
            ["processor".to_owned(), known(system.processor.clone())],
            ["cores".to_owned(), system.cores.to_string()],
            ["load".to_owned(), known(system.load.map(|load| load.to_string()))],
            ["began".to_owned(), record.started.clone()],
        ],
        commands: vec!["isotherm bench targets".to_owned()],
        ..Sheet::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_measured_or_says_why_not_and_every_measure_is_known() {
        let targets = targets();
        assert!(targets.len() >= 28, "{}", targets.len());
        for target in targets {
            assert!(target.measure.is_some() != target.why.is_some(), "{}", target.id);
            if let Some(measure) = target.measure {
                assert!(measures::NAMES.contains(&measure.as_str()), "{measure}");
                assert!(
                    target.unit.is_some() && (target.below.is_some() != target.at_least.is_some()),
                    "{}",
                    target.id
                );
            }
        }
    }
}
