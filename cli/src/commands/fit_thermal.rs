//! `isotherm fit-thermal`: how a device warms, from logs of its power and temperature.

use crate::args::{FitThermal, PowerSource};
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_core::artefact::Header;
use isotherm_core::digest::Digest;
use isotherm_core::thermal::fit::{Fit, FitError, Score, fit};
use isotherm_core::thermal::log::ThermalLog;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Schema of what this command writes.
const SCHEMA: &str = "isotherm.thermal-fit/v1";

/// The result as it is printed and stored.
#[derive(Serialize)]
struct Artefact<'f> {
    #[serde(flatten)]
    header: Header,
    #[serde(flatten)]
    fit: &'f Fit,
    /// Where the power of `train`, `cross_validation` and `test` came from.
    power: &'static str,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &FitThermal) -> Done {
    let mut inputs = Vec::new();
    let (train, test) = (read(ui, &args.train, &mut inputs)?, read(ui, &args.test, &mut inputs)?);
    let mut found = fit(&train, &test).map_err(failure)?;
    if args.power == PowerSource::Predicted {
        found = with_predicted_power(found)?;
    }
    let power = if args.power == PowerSource::Predicted { "predicted" } else { "measured" };
    let artefact = Artefact { header: Header::new(SCHEMA, inputs), fit: &found, power };
    if let Some(path) = &args.output {
        if path.extension().is_some_and(|extension| extension == "json") {
            files::write_json(path, &artefact)?;
        } else {
            files::write(path, record(&found, &args.train).as_bytes())?;
        }
    }
    ui.result(&artefact, || text(&found))
}

fn read(ui: &Ui, paths: &[PathBuf], inputs: &mut Vec<Digest>) -> Result<Vec<(String, ThermalLog)>, Failure> {
    let mut logs = Vec::new();
    for path in paths {
        let text = files::read_text(path)?;
        inputs.push(Digest::of(text.as_bytes()));
        let log = ThermalLog::parse(&text).map_err(|e| Failure::file(path, e))?;
        ui.note(format!("{}: {} samples; {}", path.display(), log.len(), log.notes.join(", ")));
        logs.push((path.display().to_string(), log));
    }
    Ok(logs)
}

fn failure(error: FitError) -> Failure {
    match error {
        FitError::Unphysical(reasons) => Failure::all(Code::Io, "the identification", &reasons)
            .remedy("record a step: idle, a load of some minutes, idle again; check that power and temperature are one device's"),
        other => Failure::io(other.to_string()),
    }
}

/// The headline figures for predicted power. Errors: the logs have no clock or utilisation.
fn with_predicted_power(mut found: Fit) -> Result<Fit, Failure> {
    let Some(predicted) = found.predicted_power.clone() else {
        return Err(Failure::io("power cannot be predicted: not all training logs have clock and utilisation columns")
            .remedy("record them, or leave --power measured"));
    };
    if found.test.is_some() && predicted.test.is_none() {
        return Err(Failure::io("power cannot be predicted: a test log lacks clock, utilisation or cap")
            .remedy("record them, or leave --power measured"));
    }
    found.train = predicted.train;
    found.cross_validation = predicted.cross_validation;
    found.test = predicted.test;
    // What was scored log by log was scored with measured power.
    found.train_files.clear();
    found.folds.clear();
    found.test_files.clear();
    Ok(found)
}

fn cells(name: &str, scores: [Option<Score>; 3]) -> Vec<String> {
    let one = |score: Option<Score>| {
        score.map_or_else(
            || "-".to_owned(),
            |s| format!("{:.2} / {:.2} / {:.2}", s.mae_celsius, s.p95_celsius, s.max_celsius),
        )
    };
    std::iter::once(name.to_owned()).chain(scores.map(one)).collect()
}

fn text(found: &Fit) -> String {
    let mut text = format!("{}, chosen with {}\n\n", found.model, found.scheme);
    let mut rows = vec![["parameter", "value", "95 % interval"].map(str::to_owned).to_vec()];
    for (name, value) in &found.parameters {
        let interval = found.intervals.get(name);
        let interval = interval.map_or_else(|| "unknown".to_owned(), |(low, high)| format!("{low:.4} to {high:.4}"));
        rows.push(vec![(*name).to_owned(), format!("{value:.4}"), interval]);
    }
    text += &table(&rows, &[1, 2]);
    let mut rows = vec![
        ["error in K: mean / p95 / max", "on its logs", "on logs left out", "on test logs"].map(str::to_owned).to_vec(),
    ];
    rows.push(cells(found.model, [Some(found.train), Some(found.cross_validation), found.test]));
    if let Some(p) = &found.predicted_power {
        let name = format!("  power predicted ({:.1} W off)", p.power_mae_watts);
        rows.push(cells(&name, [Some(p.train), Some(p.cross_validation), p.test]));
    }
    for b in &found.baselines {
        rows.push(cells(&format!("baseline {}", b.name), [Some(b.train), Some(b.cross_validation), b.test]));
    }
    for c in found.candidates.iter().filter(|c| c.model != found.model) {
        rows.push(cells(&format!("tried {}", c.model), [Some(c.train), Some(c.cross_validation), None]));
    }
    text += &format!("\n{}", table(&rows, &[1, 2, 3]));
    let files = found.folds.iter().map(|f| ("left out", f)).chain(found.test_files.iter().map(|f| ("test", f)));
    let mut rows = vec![["log", "", "mean", "p95", "max"].map(str::to_owned).to_vec()];
    for (kind, f) in files {
        let s = &f.score;
        let numbers = [s.mae_celsius, s.p95_celsius, s.max_celsius].map(|x| format!("{x:.2}"));
        rows.push([f.file.clone(), kind.to_owned()].into_iter().chain(numbers).collect());
    }
    text += &format!("\n{}", table(&rows, &[2, 3, 4]));
    for candidate in found.candidates.iter().filter(|c| !c.refused.is_empty()) {
        text += &format!("\nrefused {}: {}", candidate.model, candidate.refused.join("; "));
    }
    for note in &found.notes {
        text += &format!("\nnote: {note}");
    }
    text.push('\n');
    text
}

/// The parameters as keys of a device table.
fn record(found: &Fit, train: &[PathBuf]) -> String {
    let names: Vec<String> = train.iter().map(|path| file_name(path)).collect();
    let source = format!("isotherm fit-thermal {}", names.join(" ")).replace(['"', '\\'], "'");
    let value = |name: &str| found.parameters.get(name).copied();
    let figure = |name: &str, unit: &str| {
        let spread = found.intervals.get(name).map(|(low, high)| (high - low) / (2.0 * 1.96));
        let value = value(name).unwrap_or_default();
        let spread = spread.map(|s| s / value.abs()).filter(|s| s.is_finite() && *s < 1e6);
        let spread = spread.map_or_else(String::new, |s| format!(", spread = {s:.4}"));
        let quoted = if unit.is_empty() { format!("{value:.6}") } else { format!("\"{value:.6} {unit}\"") };
        format!("{{ value = {quoted}, samples = {}{spread} }}", found.train.samples)
    };
    let mut text = format!(
        "# Identified by isotherm fit-thermal: {}. Mean error {:.2} K on its logs, {:.2} K on logs left out.\n",
        found.model, found.train.mae_celsius, found.cross_validation.mae_celsius
    );
    if let Some(reference) = value("reference_celsius") {
        text += &format!("# Air around the device during the logs, as identified: {reference:.1} °C.\n");
    } else if let Some(over) = value("reference_over_ambient_kelvin") {
        text += &format!("# Air around the device was {over:.1} K over the ambient column; state the ambient there.\n");
    }
    text += "# Append to a device table. What the logs do not show is absent: at which temperature it throttles.\n";
    text += "[thermal]\n";
    text += &format!("resistance = {}\n", with_source(&figure("resistance_kelvin_per_watt", "K/W"), &source));
    text += &format!("capacity = {}\n", with_source(&figure("capacity_joules_per_kelvin", "J/K"), &source));
    let mut branch = |table: &str, resistance: &str, capacity: &str| {
        if value(resistance).is_some() {
            text += &format!("\n[thermal.{table}]\n");
            text += &format!("resistance = {}\n", with_source(&figure(resistance, "K/W"), &source));
            text += &format!("capacity = {}\n", with_source(&figure(capacity, "J/K"), &source));
        }
    };
    branch("die", "die_resistance_kelvin_per_watt", "die_capacity_joules_per_kelvin");
    branch("case", "case_resistance_kelvin_per_watt", "case_capacity_joules_per_kelvin");
    if value("fan_watts_per_kelvin_squared").is_some() {
        text += "\n[thermal.fan]\n";
        text += &format!("start = {}\n", with_source(&figure("fan_start_celsius", "°C"), &source));
        let slope = with_source(&figure("fan_watts_per_kelvin_squared", ""), &source);
        text += &format!("watts_per_kelvin_squared = {slope}\n");
    } else if let Some(full) = value("fan_watts_per_kelvin") {
        text += &format!(
            "# At full fan speed {full:.4} W/K more; how the fan follows the temperature was not identified.\n"
        );
    }
    text
}

fn with_source(figure: &str, source: &str) -> String {
    figure.replacen(" }", &format!(", how = \"measured\", source = \"{source}\" }}"), 1)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
