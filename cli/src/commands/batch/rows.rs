//! What is known of one point, as a row of the tables of results and of times.

use isotherm_core::digest::Digest;
use isotherm_core::plan::{BoundKind, Status};
use isotherm_reports::tables::Values;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Schema of a kept row.
pub const KEPT_SCHEMA: &str = "isotherm.batch-row/v2";
/// Schema of the table of results.
pub const RESULTS_SCHEMA: &str = "isotherm.batch-results/v2";
/// Schema of the table of times.
pub const SOLVE_SCHEMA: &str = "isotherm.batch-solve/v1";

/// A row as it is kept until all are known, and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub schema: String,
    /// Digest over everything that decides the row.
    pub key: Digest,
    pub row: Row,
    pub solve: Solve,
}

/// How long a point took; no part of any digest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Solve {
    pub plan_seconds: Option<f64>,
    pub plan_cpu_seconds: Option<f64>,
    pub simulate_seconds: Option<f64>,
    pub simulate_cpu_seconds: Option<f64>,
    pub nodes: Option<u64>,
    /// Whether the plan of a point with the same placement problem was taken, and checked again.
    pub reused: bool,
    pub machine: Option<String>,
}

/// One point's results.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    pub point: String,
    pub scenario: String,
    pub number: u64,
    pub name: Option<String>,
    pub question: Option<String>,
    /// What varies: by path, as written and in base units.
    #[serde(default)]
    pub varied: BTreeMap<String, (String, Option<f64>)>,
    pub status: Option<Status>,
    pub objective_name: Option<String>,
    pub objective_value: Option<f64>,
    pub unit: Option<String>,
    pub bound: Option<f64>,
    pub gap: Option<f64>,
    pub bound_kind: Option<BoundKind>,
    pub model: Option<String>,
    pub quantisation: Option<String>,
    pub bottleneck: Option<String>,
    pub stages: Option<u64>,
    pub routes: Option<u64>,
    pub batch: Option<u64>,
    pub devices: Option<u64>,
    pub devices_used: Option<u64>,
    pub pile: Option<String>,
    pub pile_price: Option<f64>,
    pub used_price: Option<f64>,
    pub currency: Option<String>,
    pub seeds: Option<u64>,
    pub requests: Option<u64>,
    /// Means, half widths of their intervals and percentiles, by column.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
    pub ttft_cause: Option<String>,
    pub tpot_cause: Option<String>,
    pub hottest: Option<String>,
    pub throttled_devices: Option<u64>,
    pub note: Option<String>,
    pub plan: Option<Digest>,
    pub simulation: Option<Digest>,
    pub scenario_text: Option<Digest>,
    pub devices_digest: Option<Digest>,
    pub model_digest: Option<Digest>,
    pub events: Option<Digest>,
}

/// Columns of simulated figures; each is null where it is unknown.
pub const FIGURES: [&str; 24] = [
    "ttft_seconds",
    "ttft_ci95_seconds",
    "ttft_p50_seconds",
    "ttft_p90_seconds",
    "ttft_p99_seconds",
    "tpot_seconds",
    "tpot_ci95_seconds",
    "tpot_p50_seconds",
    "tpot_p90_seconds",
    "tpot_p99_seconds",
    "e2e_seconds",
    "e2e_p50_seconds",
    "e2e_p90_seconds",
    "e2e_p99_seconds",
    "tokens_per_second",
    "tokens_per_second_ci95",
    "goodput_share",
    "energy_joules",
    "joules_per_token",
    "electricity_per_million_tokens",
    "temperature_max_celsius",
    "throttled_seconds",
    "throttled_after_seconds",
    "availability",
];

/// Headings of the rows that are printed.
pub const HEADING: [&str; 10] =
    ["scenario", "no.", "status", "objective", "value", "gap", "devices", "TTFT", "TPOT", "tokens/s"];

fn word<T: std::fmt::Debug>(value: T) -> String {
    format!("{value:?}").to_lowercase()
}

impl Row {
    /// The row for people, under [`HEADING`].
    pub fn cells(&self) -> Vec<String> {
        use crate::commands::plan::quantity;
        let dash = || "-".to_owned();
        let figure = |name: &str| self.figures.get(name).copied();
        let time = |name: &str| figure(name).map_or_else(dash, |seconds| quantity(seconds, "s"));
        let used = self.devices_used.zip(self.devices);
        vec![
            self.scenario.clone(),
            self.number.to_string(),
            self.status.map_or_else(|| "failed".to_owned(), word),
            self.objective_name.clone().unwrap_or_else(dash),
            self.objective_value.zip(self.unit.as_deref()).map_or_else(dash, |(value, unit)| quantity(value, unit)),
            self.gap.map_or_else(dash, |gap| format!("{:.3} %", gap * 100.0)),
            used.map_or_else(dash, |(used, all)| format!("{used} of {all}")),
            time("ttft_seconds"),
            time("tpot_seconds"),
            figure("tokens_per_second").map_or_else(dash, |rate| format!("{rate:.1}")),
        ]
    }
}

/// Rows as the columns of the table of results; what a row lacks is null. The columns depend on `paths` alone, so that
/// all parts of a batch have the same.
pub fn columns(rows: &[Row], paths: &[String]) -> Vec<(String, Values)> {
    let words = |get: &dyn Fn(&Row) -> Option<String>| Values::Text(rows.iter().map(get).collect());
    let counts = |get: &dyn Fn(&Row) -> Option<u64>| Values::Counts(rows.iter().map(get).collect());
    let numbers = |get: &dyn Fn(&Row) -> Option<f64>| Values::Numbers(rows.iter().map(get).collect());
    let digest = |get: &dyn Fn(&Row) -> Option<Digest>| words(&|row| get(row).map(|digest| digest.to_string()));
    let mut columns = vec![
        ("point", words(&|row| Some(row.point.clone()))),
        ("scenario", words(&|row| Some(row.scenario.clone()))),
        ("number", counts(&|row| Some(row.number))),
        ("name", words(&|row| row.name.clone())),
        ("question", words(&|row| row.question.clone())),
        ("status", words(&|row| row.status.map(word))),
        ("objective_name", words(&|row| row.objective_name.clone())),
        ("objective_value", numbers(&|row| row.objective_value)),
        ("unit", words(&|row| row.unit.clone())),
        ("bound", numbers(&|row| row.bound)),
        ("gap", numbers(&|row| row.gap)),
        ("bound_kind", words(&|row| row.bound_kind.map(word))),
        ("model", words(&|row| row.model.clone())),
        ("quantisation", words(&|row| row.quantisation.clone())),
        ("bottleneck", words(&|row| row.bottleneck.clone())),
        ("stages", counts(&|row| row.stages)),
        ("routes", counts(&|row| row.routes)),
        ("batch", counts(&|row| row.batch)),
        ("devices", counts(&|row| row.devices)),
        ("devices_used", counts(&|row| row.devices_used)),
        ("pile", words(&|row| row.pile.clone())),
        ("pile_price", numbers(&|row| row.pile_price)),
        ("used_price", numbers(&|row| row.used_price)),
        ("currency", words(&|row| row.currency.clone())),
        ("seeds", counts(&|row| row.seeds)),
        ("requests", counts(&|row| row.requests)),
    ];
    columns.extend(FIGURES.map(|name| (name, numbers(&|row| row.figures.get(name).copied()))));
    columns.extend([
        ("ttft_cause", words(&|row| row.ttft_cause.clone())),
        ("tpot_cause", words(&|row| row.tpot_cause.clone())),
        ("hottest", words(&|row| row.hottest.clone())),
        ("throttled_devices", counts(&|row| row.throttled_devices)),
        ("note", words(&|row| row.note.clone())),
        ("plan", digest(&|row| row.plan)),
        ("simulation", digest(&|row| row.simulation)),
        ("scenario_digest", digest(&|row| row.scenario_text)),
        ("devices_digest", digest(&|row| row.devices_digest)),
        ("model_digest", digest(&|row| row.model_digest)),
        ("events_digest", digest(&|row| row.events)),
    ]);
    let mut named: Vec<(String, Values)> =
        columns.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    for path in paths {
        let of = |row: &Row| row.varied.get(path).cloned();
        named.push((format!("vary.{path}"), words(&|row| of(row).map(|(text, _)| text))));
        named.push((format!("vary.{path}.base"), numbers(&|row| of(row).and_then(|(_, base)| base))));
    }
    named
}

/// Times as columns, beside the point that they are of.
pub fn solve_columns(rows: &[(Row, Solve)]) -> Vec<(String, Values)> {
    let numbers = |get: &dyn Fn(&Solve) -> Option<f64>| Values::Numbers(rows.iter().map(|(_, s)| get(s)).collect());
    let columns = [
        ("point", Values::Text(rows.iter().map(|(row, _)| Some(row.point.clone())).collect())),
        ("scenario", Values::Text(rows.iter().map(|(row, _)| Some(row.scenario.clone())).collect())),
        ("number", Values::Counts(rows.iter().map(|(row, _)| Some(row.number)).collect())),
        ("plan_seconds", numbers(&|solve| solve.plan_seconds)),
        ("plan_cpu_seconds", numbers(&|solve| solve.plan_cpu_seconds)),
        ("simulate_seconds", numbers(&|solve| solve.simulate_seconds)),
        ("simulate_cpu_seconds", numbers(&|solve| solve.simulate_cpu_seconds)),
        ("nodes", Values::Counts(rows.iter().map(|(_, solve)| solve.nodes).collect())),
        ("reused", Values::Text(rows.iter().map(|(_, solve)| Some(solve.reused.to_string())).collect())),
        ("machine", Values::Text(rows.iter().map(|(_, solve)| solve.machine.clone()).collect())),
    ];
    columns.map(|(name, values)| (name.to_owned(), values)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_reports::tables::{Format, write_columns};

    #[test]
    fn a_row_that_failed_lacks_all_it_does_not_know() {
        let rows = [Row { scenario: "a".into(), note: Some("first, \"second\"".into()), ..Row::default() }];
        let mut text = Vec::new();
        write_columns(RESULTS_SCHEMA, columns(&rows, &["x.y".into()]), Format::Csv, &mut text).expect("written");
        let text = String::from_utf8(text).expect("UTF-8");
        let (heading, row) = text.trim_end().split_once('\n').expect("a heading and a row");
        assert!(heading.ends_with(",vary.x.y,vary.x.y.base"), "{heading}");
        assert!(row.starts_with("\"\",a,0,,,,") && row.contains(",\"first, \"\"second\"\"\","), "{row}");
    }
}
