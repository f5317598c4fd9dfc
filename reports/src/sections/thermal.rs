//! Temperature and energy of each device: simulated, measured where there is a sensor, and said plainly where not.

use super::{Mark, cite_all, figures, left_out, legend, section};
use crate::figures::temperature::{Curves, chart, points, sources};
use crate::html::{Cell, Html, element, element_with, name, seq, table};
use crate::measure::Spread;
use crate::report::{Case, Report, Step};
use crate::show;
use crate::verdict::label;
use isotherm_core::figure::Figure;
use isotherm_core::record::DeviceSummary;
use isotherm_core::trace::DeviceRecord;
use isotherm_core::units::Celsius;
use std::collections::BTreeSet;

const CURVES_MAX: usize = 6;
const ROWS_MAX: usize = 24;

/// The section; nothing where no device is known by time.
pub(crate) fn temperature(report: &Report) -> Html {
    let mut rows: Vec<(f64, Vec<Cell>)> = Vec::new();
    let mut charts: Vec<(f64, Html)> = Vec::new();
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    let mut origins: BTreeSet<String> = BTreeSet::new();
    for (i, case) in report.cases.iter().enumerate() {
        for device in devices(case) {
            let label = label(report, i);
            let entry = Entry::of(report, case, device);
            rows.push((entry.hottest(), entry.row(&label)));
            origins.insert(entry.origin());
            let curves = Curves {
                label: format!("{device}, {label}"),
                predicted: entry.predicted,
                measured: entry.hottest_run,
                throttle: entry.throttle,
            };
            let (predicted, measured) = sources(&curves);
            if !points(entry.predicted).is_empty() || !points(entry.hottest_run).is_empty() {
                told.insert((predicted, measured));
                charts.push((entry.hottest(), chart(&curves)));
            }
        }
    }
    if rows.is_empty() {
        return Html::none();
    }
    let curves = charts.len();
    keep_hottest(&mut charts, CURVES_MAX);
    let mut caption = Html::from("Temperature over a run.");
    for (predicted, measured) in told.iter().take(4) {
        caption.push(format!(" Predicted: {predicted}. Measured: {measured}."));
    }
    if curves > CURVES_MAX {
        caption.push(format!(" The {CURVES_MAX} hottest of {curves} curves."));
    }
    let simulations = report.cases.iter().filter_map(|case| case.simulation.as_ref()).map(|s| &s.digest);
    let cited = cite_all(report, simulations);
    if !cited.is_empty() {
        caption.push(seq![" Simulations: ", cited, "."]);
    }
    let marks = [
        (Mark::Line, "predicted"),
        (Mark::Dot, "measured, in the hottest run"),
        (Mark::Limit, "limit at which the device slows itself"),
    ];
    let drawings = charts.into_iter().map(|c| c.1).collect();
    let mut inside = figures(report, drawings, legend(&marks), caption, &[Step::Simulate, Step::Run]);
    if inside.is_empty() {
        inside = element_with("p", &[("class", "note")], "No temperature was simulated or measured over time.");
    }
    let all = rows.len();
    keep_hottest(&mut rows, ROWS_MAX);
    let mut columns = vec![
        "plan",
        "device",
        "hottest, predicted",
        "hottest, measured",
        "limit",
        "throttled, predicted",
        "throttled, measured",
        "energy, predicted",
        "energy, measured",
        "predicted from",
    ];
    let mut caption = Html::from("Temperature, and energy of one run. A measured figure needs a sensor.");
    if let [source] = origins.iter().collect::<Vec<_>>().as_slice() {
        // One source for all is said once; the last column would only repeat it.
        caption.push(format!(" Predicted figures: {source}."));
        columns.pop();
        for (_, row) in &mut rows {
            row.pop();
        }
    }
    inside.push(table(caption, &columns, rows.into_iter().map(|r| r.1).collect()));
    inside.push(left_out(all, ROWS_MAX, "devices"));
    section("temperature", "Temperature and energy", inside)
}

/// Keeps the entries with the highest temperature, in their order.
fn keep_hottest<T>(entries: &mut Vec<(f64, T)>, most: usize) {
    if entries.len() > most {
        let mut temperatures: Vec<f64> = entries.iter().map(|e| e.0).collect();
        temperatures.sort_by(|a, b| b.total_cmp(a));
        let least = temperatures[most - 1];
        entries.retain(|e| e.0.total_cmp(&least).is_ge());
        entries.truncate(most);
    }
}

/// Names of the devices that simulation or runs speak of.
fn devices(case: &Case) -> Vec<&str> {
    let simulated = case.simulation.iter().flat_map(|s| s.value.devices.iter().map(|d| d.name.as_str()));
    let measured = case.runs.iter().flat_map(|r| r.value.trace.devices.iter().map(|d| d.name.as_str()));
    let mut seen = BTreeSet::new();
    simulated.chain(measured).filter(|name| seen.insert(*name)).collect()
}

/// All that is known of one device in one case.
struct Entry<'a> {
    device: &'a str,
    summary: Option<&'a DeviceSummary>,
    predicted: Option<&'a DeviceRecord>,
    measured: Vec<&'a DeviceRecord>,
    hottest_run: Option<&'a DeviceRecord>,
    throttle: Option<&'a Figure<Celsius>>,
}

fn record_hottest(record: &DeviceRecord) -> Option<f64> {
    let sampled = record.samples.iter().filter_map(|s| s.temperature_celsius).map(Celsius::value);
    sampled.chain(record.temperature_max_celsius.map(Celsius::value)).reduce(f64::max)
}

/// A time spent throttled.
fn duration(seconds: f64) -> Option<String> {
    if seconds == 0.0 { Some("never".to_owned()) } else { show::seconds(seconds) }
}

/// Whether a record holds any reading of a sensor.
fn read(record: &DeviceRecord) -> bool {
    record_hottest(record).is_some() || record.energy_joules.is_some() || record.throttled_ns.is_some()
}

impl<'a> Entry<'a> {
    fn of(report: &'a Report, case: &'a Case, device: &'a str) -> Self {
        let simulation = case.simulation.as_ref().map(|s| &s.value);
        let measured: Vec<&DeviceRecord> =
            case.runs.iter().flat_map(|r| &r.value.trace.devices).filter(|d| d.name == device).collect();
        let heat = |r: &&&DeviceRecord| record_hottest(r).unwrap_or(f64::NEG_INFINITY);
        let graph = &report.devices.value;
        Self {
            device,
            summary: simulation.and_then(|s| s.devices.iter().find(|d| d.name == device)),
            predicted: simulation.and_then(|s| s.trace.as_ref()?.devices.iter().find(|d| d.name == device)),
            hottest_run: measured.iter().max_by(|a, b| heat(a).total_cmp(&heat(b))).copied(),
            measured,
            throttle: graph.find(device).and_then(|id| graph.device(id).thermal.as_ref()?.throttle_celsius.as_ref()),
        }
    }

    /// Hottest it is predicted or measured to be.
    fn hottest(&self) -> f64 {
        let predicted = self.summary.and_then(|s| s.temperature_max_celsius).map(Celsius::value);
        let measured = self.measured.iter().filter_map(|r| record_hottest(r));
        measured.chain(predicted).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Where the predicted figures come from.
    fn origin(&self) -> String {
        match self.summary {
            Some(s) if s.temperature_max_celsius.is_some() || s.energy_joules.is_some() => s.source.clone(),
            Some(_) => "neither temperature nor energy was simulated".to_owned(),
            None => "not simulated".to_owned(),
        }
    }

    fn row(&self, label: &str) -> Vec<Cell> {
        let ran = !self.measured.is_empty();
        let absent = if ran { "no sensor" } else { "not measured" };
        let hottest = self.measured.iter().filter_map(|r| record_hottest(r)).reduce(f64::max);
        let throttled = Spread::of(self.measured.iter().filter_map(|r| Some(r.throttled_ns?.seconds().value())));
        let energy = Spread::of(self.measured.iter().filter_map(|r| Some(r.energy_joules?.value())));
        let celsius = |value: f64| Celsius::new(value).ok().map(|t| t.to_string());
        let sensors: BTreeSet<&str> = self.measured.iter().filter(|r| read(r)).map(|r| r.source.as_str()).collect();
        let sensors = sensors.into_iter().take(3).collect::<Vec<_>>().join(", ");
        let sensed = |value: Option<String>| {
            value.map_or_else(
                || Cell::absent(absent),
                |shown| Cell::Number(seq![shown, " ", element("small", seq!["by ", name(&sensors)])]),
            )
        };
        let summary = self.summary;
        vec![
            Cell::Label(label.to_owned()),
            Cell::Words(name(self.device)),
            Cell::number_or(summary.and_then(|s| s.temperature_max_celsius).map(|t| t.to_string()), "not simulated"),
            sensed(hottest.and_then(celsius)),
            self.throttle.map_or_else(
                || Cell::absent("unknown"),
                |f| Cell::Number(seq![f.value.to_string(), " ", super::devices::known(f)]),
            ),
            Cell::number_or(
                summary.and_then(|s| s.throttled_seconds).and_then(|t| duration(t.value())),
                "not simulated",
            ),
            sensed(throttled.and_then(|s| duration(s.max))),
            Cell::number_or(summary.and_then(|s| s.energy_joules).map(|e| e.to_string()), "not simulated"),
            sensed(energy.and_then(|s| show::joules(s.median))),
            Cell::Words(self.origin().into()),
        ]
    }
}
