//! `isotherm batch`: every scenario of a directory planned and simulated, in parallel, resumable, one row each.

use crate::args::{Batch, Format, Sources};
use crate::commands::{plan, report, simulate};
use crate::failure::{Done, Failure};
use crate::files;
use crate::question;
use crate::ui::{Ui, table};
use isotherm_core::artefact::Header;
use isotherm_core::digest::Digest;
use isotherm_core::plan::{BoundKind, Plan, Status};
use isotherm_core::record::SimulationReport;
use isotherm_core::units::Seconds;
use isotherm_planner::Outcome;
use isotherm_reports::tables::{Values, write_columns};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Schema of a batch row.
const ROW_SCHEMA: &str = "isotherm.batch-row/v1";
/// Schema of the table of all rows.
const RESULTS_SCHEMA: &str = "isotherm.batch-results/v1";
/// Longest that one scenario may be solved for.
const TIME_LIMIT_SECONDS: f64 = 60.0;

/// What came of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    header: Header,
    /// Path of the scenario below the directory.
    scenario: String,
    /// Its name.
    name: String,
    /// Runs that were simulated.
    seeds: u32,
    status: Option<Status>,
    objective_name: String,
    objective_value: Option<f64>,
    unit: String,
    bound: Option<f64>,
    gap: Option<f64>,
    bound_kind: Option<BoundKind>,
    stages: usize,
    devices_used: usize,
    devices: usize,
    ttft_seconds: Option<f64>,
    tpot_seconds: Option<f64>,
    tokens_per_second: Option<f64>,
    temperature_max_celsius: Option<f64>,
    energy_joules: Option<f64>,
    /// Why there is no plan or no simulation.
    note: Option<String>,
    plan: Option<Digest>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Batch) -> Done {
    let scenarios = scenarios(&args.directory)?;
    if scenarios.is_empty() {
        return Err(Failure::file(&args.directory, "holds no scenario")
            .remedy("name a folder with .toml scenarios; `isotherm scenario new -o FILE` writes one"));
    }
    let jobs = args.jobs.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|e| Failure::io(format!("cannot start {jobs} workers: {e}")))?;
    let (finished, resumed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let quiet = Ui { quiet: true, ..*ui };
    let rows: Vec<Result<Row, Failure>> = pool.install(|| {
        scenarios
            .par_iter()
            .map(|path| {
                let row = one(&quiet, args, path, &resumed);
                let done = finished.fetch_add(1, Ordering::Relaxed) + 1;
                ui.note(format!("  {done}/{} {}", scenarios.len(), path.display()));
                row
            })
            .collect()
    });
    let rows: Vec<Row> = rows.into_iter().collect::<Result<_, _>>()?;
    for (format, ending) in report::FORMATS {
        let path = args.output.join(format!("results.{ending}"));
        report::write_table(&path, |out| write_columns(RESULTS_SCHEMA, columns(&rows), format, out))?;
    }
    if ui.format == Format::Json {
        return ui.result(&rows, String::new);
    }
    ui.note(format!("{} scenarios, {} taken from an earlier run", rows.len(), resumed.load(Ordering::Relaxed)));
    let unread = rows.iter().any(|row| row.status.is_none());
    if unread {
        ui.note("what is wrong with a scenario that failed: isotherm scenario check FILE");
    }
    ui.result(&rows, || {
        let [csv, parquet] = ["results.csv", "results.parquet"].map(|name| args.output.join(name));
        format!("{}\n  {}\n  {}\n", text(&rows), csv.display(), parquet.display())
    })
}

/// Every scenario below a directory, in order of path; tables of models and devices are none, nor are copies beside
/// results.
fn scenarios(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| Failure::file(&folder, e))? {
            let path = entry.map_err(|e| Failure::file(&folder, e))?.path();
            let table = path.is_dir() && path.file_name().is_some_and(|name| name == "models" || name == "devices");
            let result = ["row.json", "simulation.json"].iter().any(|name| path.join(name).is_file());
            if path.is_dir() && !table && !result {
                open.push(path);
            } else if path.is_file() && path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Plans and simulates one scenario, or takes its row from an earlier run with the same inputs. A scenario that
/// cannot be read is a row that says so; only a result that cannot be written fails the batch.
fn one(ui: &Ui, args: &Batch, path: &Path, resumed: &AtomicUsize) -> Result<Row, Failure> {
    let shown = path.strip_prefix(&args.directory).unwrap_or(path).with_extension("");
    let folder = args.output.join(&shown);
    let row_path = folder.join("row.json");
    let question = match question::load(ui, path, &Sources::default(), None) {
        Ok(question) => question,
        Err(failure) => return Ok(Row::failed(&shown, args.seeds, &failure.message)),
    };
    let inputs = question.problem.inputs.clone();
    if let Ok((row, _)) = files::read_artefact::<Row>(&row_path, ROW_SCHEMA)
        && row.header == Header::new(ROW_SCHEMA, inputs.clone())
        && row.seeds == args.seeds
    {
        resumed.fetch_add(1, Ordering::Relaxed);
        return Ok(row);
    }
    let solved = plan::solve(ui, &question.problem, Seconds::of(TIME_LIMIT_SECONDS), 1e-6);
    let (outcome, plan) = match solved {
        Ok(solved) => solved,
        Err(failure) => return Ok(Row::failed(&shown, args.seeds, &failure.message)),
    };
    files::write(&folder.join("scenario.toml"), &files::read(path)?)?;
    files::write_json(&folder.join("plan.json"), &plan)?;
    files::write_json(&folder.join("devices.json"), question.problem.graph.file())?;
    let mut row = Row::of(&shown, args.seeds, inputs, &plan, question.problem.graph.devices().len());
    if let Outcome::Optimal(feasible) | Outcome::Feasible { plan: feasible, .. } = &outcome {
        match simulate::predict(feasible, &question.problem, simulate::Seeds { count: args.seeds, first: 1 }) {
            Ok(report) => {
                files::write_json(&folder.join("simulation.json"), &report)?;
                row.take(&report);
            }
            Err(failure) => row.note = Some(failure.message),
        }
    }
    files::write_json(&row_path, &row)?;
    Ok(row)
}

impl Row {
    fn empty(scenario: &Path, seeds: u32, inputs: Vec<Digest>) -> Self {
        Self {
            header: Header::new(ROW_SCHEMA, inputs),
            scenario: scenario.display().to_string(),
            name: String::new(),
            seeds,
            status: None,
            objective_name: String::new(),
            objective_value: None,
            unit: String::new(),
            bound: None,
            gap: None,
            bound_kind: None,
            stages: 0,
            devices_used: 0,
            devices: 0,
            ttft_seconds: None,
            tpot_seconds: None,
            tokens_per_second: None,
            temperature_max_celsius: None,
            energy_joules: None,
            note: None,
            plan: None,
        }
    }

    /// A scenario without an answer; `isotherm scenario check` tells all its faults, a table their number.
    fn failed(scenario: &Path, seeds: u32, why: &str) -> Self {
        let first = why.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
        Self { note: Some(first), ..Self::empty(scenario, seeds, Vec::new()) }
    }

    fn of(scenario: &Path, seeds: u32, inputs: Vec<Digest>, plan: &Plan, devices: usize) -> Self {
        let certificate = plan.certificate.as_ref();
        Self {
            name: plan.scenario.clone(),
            status: Some(plan.status),
            objective_name: plan.objective_name.clone(),
            objective_value: plan.objective_value,
            unit: plan.unit.clone(),
            bound: certificate.and_then(|c| c.bound),
            gap: certificate.and_then(|c| c.gap),
            bound_kind: certificate.map(|c| c.bound_kind),
            stages: plan.stages.len(),
            devices_used: plan.stages.iter().map(|stage| stage.devices.len()).sum(),
            devices,
            note: (!plan.reasons.is_empty()).then(|| plan.reasons.join("; ")),
            plan: Some(plan.digest()),
            ..Self::empty(scenario, seeds, inputs)
        }
    }

    fn take(&mut self, report: &SimulationReport) {
        let mean = |name: &str| report.metrics.get(name).map(|statistic| statistic.mean);
        self.ttft_seconds = mean("ttft_seconds");
        self.tpot_seconds = mean("tpot_seconds");
        self.tokens_per_second = mean("tokens_per_second");
        let hottest = report.devices.iter().filter_map(|device| device.temperature_max_celsius);
        self.temperature_max_celsius = hottest.map(|t| t.value()).max_by(f64::total_cmp);
        // Energy is known only where it is known of every device.
        self.energy_joules = report.devices.iter().map(|device| device.energy_joules.map(|e| e.value())).sum();
    }
}

/// The rows as columns; what a row lacks is null.
fn columns(rows: &[Row]) -> Vec<(&'static str, Values)> {
    let words = |get: &dyn Fn(&Row) -> Option<String>| Values::Text(rows.iter().map(get).collect());
    let counts = |get: &dyn Fn(&Row) -> usize| Values::Counts(rows.iter().map(|row| Some(get(row) as u64)).collect());
    let numbers = |get: &dyn Fn(&Row) -> Option<f64>| Values::Numbers(rows.iter().map(get).collect());
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    vec![
        ("scenario", words(&|row| some(&row.scenario))),
        ("name", words(&|row| some(&row.name))),
        ("status", words(&|row| row.status.map(|status| format!("{status:?}").to_lowercase()))),
        ("objective_name", words(&|row| some(&row.objective_name))),
        ("objective_value", numbers(&|row| row.objective_value)),
        ("unit", words(&|row| some(&row.unit))),
        ("bound", numbers(&|row| row.bound)),
        ("gap", numbers(&|row| row.gap)),
        ("bound_kind", words(&|row| row.bound_kind.map(|kind| format!("{kind:?}").to_lowercase()))),
        ("stages", counts(&|row| row.stages)),
        ("devices_used", counts(&|row| row.devices_used)),
        ("devices", counts(&|row| row.devices)),
        ("seeds", counts(&|row| row.seeds as usize)),
        ("ttft_seconds", numbers(&|row| row.ttft_seconds)),
        ("tpot_seconds", numbers(&|row| row.tpot_seconds)),
        ("tokens_per_second", numbers(&|row| row.tokens_per_second)),
        ("temperature_max_celsius", numbers(&|row| row.temperature_max_celsius)),
        ("energy_joules", numbers(&|row| row.energy_joules)),
        ("plan", words(&|row| row.plan.map(|plan| plan.to_string()))),
        ("note", words(&|row| row.note.clone())),
    ]
}

fn text(rows: &[Row]) -> String {
    let heading = ["scenario", "status", "objective", "value", "gap", "devices", "simulated TPOT", "tokens/s"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    let dash = || "-".to_owned();
    cells.extend(rows.iter().map(|row| {
        let status = row.status.map_or_else(|| "failed".to_owned(), |s| format!("{s:?}").to_lowercase());
        vec![
            row.scenario.clone(),
            status,
            row.objective_name.clone(),
            row.objective_value.map_or_else(dash, |value| shown(value, &row.unit)),
            row.gap.map_or_else(dash, |gap| format!("{:.3} %", gap * 100.0)),
            format!("{} of {}", row.devices_used, row.devices),
            row.tpot_seconds.and_then(|t| Seconds::new(t).ok()).map_or_else(dash, |t| t.to_string()),
            row.tokens_per_second.map_or_else(dash, |rate| format!("{rate:.1}")),
        ]
    }));
    let mut text = table(&cells, &[3, 4, 5, 6, 7]);
    for row in rows.iter().filter(|row| row.status.is_none()) {
        text.push_str(&format!("\n  {} failed: {}\n", row.scenario, row.note.as_deref().unwrap_or("unknown")));
    }
    text
}

/// A value of an objective for people.
fn shown(value: f64, unit: &str) -> String {
    match Seconds::new(value) {
        Ok(time) if unit == "s" => time.to_string(),
        _ => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_failed_lacks_all_it_does_not_know() {
        let rows = [Row::failed(Path::new("a"), 1, "first, \"second\":\n\nthird")];
        let mut text = Vec::new();
        write_columns(RESULTS_SCHEMA, columns(&rows), isotherm_reports::tables::Format::Csv, &mut text)
            .expect("written");
        let text = String::from_utf8(text).expect("UTF-8");
        let (heading, row) = text.trim_end().split_once('\n').expect("a heading and a row");
        assert_eq!(heading.split(',').count(), columns(&rows).len());
        assert_eq!(row, "a,,,,,,,,,0,0,0,1,,,,,,,\"first, \"\"second\"\"\"");
    }
}
