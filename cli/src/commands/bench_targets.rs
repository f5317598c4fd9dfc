//! `isotherm bench targets`: every target with what was achieved on this host, or why that cannot be measured here.

mod measures;
mod page;

pub use page::sheet_of;

use super::bench_load::{System, interval, mean, mean_interval, median};
use crate::args::BenchTargets;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::interrupt;
use crate::ui::Ui;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_reports::{markdown, render_sheet};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::atomic::Ordering;

const TARGETS: &str = include_str!("bench_targets/targets.toml");
const SCHEMA: &str = "isotherm.bench-targets/v2";
/// Name of the record in its folder.
pub const FILE: &str = "targets.json";

/// One target as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    id: String,
    what: String,
    target: String,
    /// What is possible at all, and what that follows from.
    attainable: String,
    /// The number among it that is measured, proven or computed here.
    #[serde(default)]
    bound: Option<String>,
    method: String,
    /// What the figure is of, where it is not of this host.
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    measure: Option<String>,
    #[serde(default)]
    unit: Option<String>,
    #[serde(default)]
    below: Option<f64>,
    #[serde(default)]
    at_least: Option<f64>,
    /// Whether runs are draws from one whole, whose mean it is that speaks for it: what few points take long by counts.
    #[serde(default)]
    of_a_whole: bool,
    #[serde(default)]
    why: Option<String>,
}

#[derive(Deserialize)]
struct Targets {
    target: Vec<Target>,
}

/// One row of the result.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    id: String,
    what: String,
    target: String,
    /// Median of what was measured, mean of draws from a whole; absent where it cannot be here.
    achieved: Option<f64>,
    /// 95 % interval of the same over runs; absent of a figure that has no scatter.
    spread: Option<(f64, f64)>,
    unit: Option<String>,
    runs: usize,
    /// Whether the target is met; absent where nothing was measured.
    met: Option<bool>,
    /// What is attainable, in words.
    attainable: String,
    /// What is attainable, as a number in the row's unit; absent where it is not known here.
    bound: Option<f64>,
    /// Why there is no such number, where there should be one.
    bound_missing: Option<String>,
    method: String,
    /// What the figure is of.
    hardware: String,
    /// When it was taken, RFC 3339.
    taken: String,
    /// Digest of all that the figure depends on beside this host's mood: target, method, inputs, runs, hardware, version.
    basis: Digest,
    /// Why there is no figure.
    not_measured: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    schema: String,
    tool_version: String,
    started: String,
    system: System,
    rows: Vec<Row>,
    /// The command line.
    command: String,
}

fn targets() -> Vec<Target> {
    toml::from_str::<Targets>(TARGETS).map(|targets| targets.target).unwrap_or_default()
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchTargets) -> Done {
    if args.runs < 5 {
        return Err(Failure::new(Code::Usage, "--runs must be at least 5"));
    }
    let targets = targets();
    if let Some(unknown) = args.only.iter().find(|id| !targets.iter().any(|target| target.id == **id)) {
        let known: Vec<&str> = targets.iter().map(|target| target.id.as_str()).collect();
        return Err(Failure::new(Code::Usage, format!("there is no target {unknown:?}"))
            .remedy(format!("name some of {}", known.join(", "))));
    }
    crate::access::timing(&["cpu"])?;
    let before = args.output.as_deref().map(before).transpose()?.flatten().map_or_else(Vec::new, |record| record.rows);
    let (schema, tool_version) = (SCHEMA.to_owned(), TOOL_VERSION.to_owned());
    let (started, system) = (jiff::Timestamp::now().to_string(), System::read());
    let mut record = Record { schema, tool_version, started, system, rows: Vec::new(), command: line(args) };
    let mut measured = 0;
    let mut draws = measures::Draws::open(args.output.as_deref(), args.keep)?;
    for target in targets {
        interrupted(measured)?;
        let asked = args.only.is_empty() || args.only.contains(&target.id);
        let basis = basis(&target, args.runs, &record.system);
        if let Some(row) = kept(&before, &target, basis, asked, args.keep) {
            record.rows.push(row.clone());
            continue;
        }
        if !asked {
            continue;
        }
        ui.note(format!("  {}", target.what));
        let row = row(target, args.runs, basis, &record.system, &mut draws);
        // A row that was cut short is none.
        interrupted(measured)?;
        record.rows.push(row);
        measured += 1;
        // After each row, so that whoever is stopped keeps what was measured; rows yet to come are kept from before.
        if let Some(folder) = &args.output {
            let seen = |row: &&Row| !record.rows.iter().any(|new| new.id == row.id);
            let rest: Vec<Row> = before.iter().filter(seen).cloned().collect();
            let rows = record.rows.iter().cloned().chain(rest).collect();
            files::write_json(&folder.join(FILE), &Record { rows, ..record.shallow() })?;
        }
    }
    if let Some(folder) = &args.output {
        files::write_json(&folder.join(FILE), &record)?;
        let sheet = sheet_of(folder)?;
        files::write(&folder.join("targets.md"), markdown(&sheet).as_bytes())?;
        files::write(&folder.join("report.html"), render_sheet(&sheet).as_bytes())?;
    }
    ui.result(&record, || page::text(&record))
}

/// Errors: the user asked to stop.
fn interrupted(measured: usize) -> Done {
    if !interrupt::flag().load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::new(Code::Limit, format!("interrupted after {measured} of the targets"))
        .remedy("run it again with -o DIR --keep, and it goes on"))
}

impl Record {
    /// The same without rows.
    fn shallow(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            tool_version: self.tool_version.clone(),
            started: self.started.clone(),
            system: self.system.clone(),
            rows: Vec::new(),
            command: self.command.clone(),
        }
    }
}

/// The record that lies in a folder; none where there is none. Errors: it is of another form, so that writing over it
/// would lose what it holds.
fn before(folder: &Path) -> Result<Option<Record>, Failure> {
    let path = folder.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let read = files::read_artefact::<Record>(&path, SCHEMA);
    let (record, _) = read.map_err(|failure| failure.remedy("move it away, or name another folder with -o"))?;
    Ok(Some(record))
}

/// The row of before that stays. One that was not asked for stays whatever it was taken of, as it says of itself; one
/// that was asked for only where it is of the same, and what could not be measured is tried again, unless it never can be.
fn kept<'a>(before: &'a [Row], target: &Target, basis: Digest, asked: bool, keep: bool) -> Option<&'a Row> {
    let row = before.iter().find(|row| row.id == target.id)?;
    let whole = row.achieved.is_some() || target.measure.is_none();
    (!asked || (keep && row.basis == basis && whole)).then_some(row)
}

fn line(args: &BenchTargets) -> String {
    let mut line = "isotherm bench targets".to_owned();
    if let Some(folder) = &args.output {
        line.push_str(&format!(" -o {}", folder.display()));
    }
    if !args.only.is_empty() {
        line.push_str(&format!(" --only {}", args.only.join(",")));
    }
    if args.keep {
        line.push_str(" --keep");
    }
    format!("{line} --runs {}", args.runs)
}

/// Digest of what a row's figure depends on.
fn basis(target: &Target, runs: u32, system: &System) -> Digest {
    let inputs = target.measure.as_deref().filter(|name| name.starts_with("batch")).map(|_| measures::sweeps());
    let parts = (target, runs, TOOL_VERSION, &system.machine, &system.processor, system.cores, inputs);
    Digest::of(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
}

fn row(target: Target, runs: u32, basis: Digest, system: &System, draws: &mut measures::Draws) -> Row {
    let measured = target.measure.as_deref().map(|name| measures::measure(name, runs, draws));
    let (found, why) = match measured {
        Some(Ok(found)) => (Some(found), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, target.why.clone()),
    };
    let bound = found.as_ref().zip(target.bound.as_deref()).map(|(found, name)| measures::bound(name, runs, found));
    let values = found.map(|found| found.values).unwrap_or_default();
    let (achieved, spread) = match target.of_a_whole {
        true => (mean(&values), mean_interval(&values, 1)),
        false => (median(&values), interval(&values, 1)),
    };
    // An estimate from draws must be sure.
    let ends = spread.filter(|_| target.of_a_whole).or(achieved.map(|value| (value, value)));
    let met = ends.map(|(low, high)| {
        target.below.is_none_or(|limit| high < limit) && target.at_least.is_none_or(|limit| low >= limit)
    });
    let host = || {
        let processor = system.processor.as_deref().unwrap_or("an unknown processor");
        format!("this host: {processor}, {} cores", system.cores)
    };
    let hardware = match (&target.subject, achieved) {
        (_, None) => "none: not measured".to_owned(),
        (Some(subject), _) => format!("{subject}; computed on {}", host()),
        (None, _) => host(),
    };
    let (bound, bound_missing) = match bound {
        Some(Ok(bound)) => (Some(bound), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    Row {
        id: target.id,
        what: target.what,
        target: target.target,
        achieved,
        spread: spread.filter(|_| values.len() > 1),
        unit: target.unit,
        runs: values.len(),
        met,
        attainable: target.attainable,
        bound,
        bound_missing,
        method: target.method,
        hardware,
        taken: jiff::Timestamp::now().to_string(),
        basis,
        not_measured: why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every performance target that a system of this kind is held to, as its list has them: latency and throughput of
    /// three kinds of network; PCIe; starts; discovery; copies between cards; distribution; two unlike devices; placement;
    /// telemetry; state; single operations; scale; availability; coverage. The last two are of batches.
    const ROWS: [&str; 32] = [
        "rtt-wired",
        "rtt-wifi",
        "rtt-mobile",
        "throughput-wired",
        "throughput-wifi",
        "throughput-mobile",
        "pcie",
        "gpu-start",
        "gpu-start-four",
        "array-library-start",
        "discovery",
        "p2p",
        "distributed-overhead",
        "two-unlike",
        "solver",
        "greedy",
        "telemetry-overhead",
        "telemetry",
        "state-update",
        "memory-state",
        "memory-device",
        "allocate",
        "synchronise",
        "monitor-query",
        "permission",
        "scale-devices",
        "scale-users",
        "audit-rate",
        "availability",
        "coverage",
        "batch",
        "batch-threads",
    ];

    #[test]
    fn the_list_of_targets_is_whole_and_each_says_what_is_attainable() {
        let targets = targets();
        let ids: Vec<&str> = targets.iter().map(|target| target.id.as_str()).collect();
        assert_eq!(ids, ROWS);
        for target in &targets {
            let derived = target.attainable.starts_with("none stated: ")
                || target.bound.is_some()
                || target.attainable.contains(|c: char| c.is_ascii_digit())
                || target.id == "gpu-start-four";
            assert!(derived, "{} says neither a bound nor why there is none", target.id);
            assert!(!target.what.is_empty() && !target.target.is_empty() && !target.method.is_empty(), "{}", target.id);
        }
    }

    #[test]
    fn every_target_is_measured_or_says_why_not_and_every_measure_is_known() {
        for target in targets() {
            assert!(target.measure.is_some() != target.why.is_some(), "{}", target.id);
            assert_eq!(target.bound.is_some(), target.measure.is_some(), "{}: a measured row has a bound", target.id);
            if let Some(bound) = &target.bound {
                assert!(measures::BOUNDS.contains(&bound.as_str()), "{bound}");
            }
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

    #[test]
    fn a_row_is_kept_only_for_the_same_target_runs_and_inputs() {
        let (system, targets) = (System::read(), targets());
        let digests: std::collections::BTreeSet<Digest> =
            targets.iter().flat_map(|target| [5, 6].map(|runs| basis(target, runs, &system))).collect();
        assert_eq!(digests.len(), 2 * targets.len());
        let mut other = system.clone();
        other.cores += 1;
        assert_ne!(basis(&targets[0], 5, &system), basis(&targets[0], 5, &other));
    }

    #[test]
    fn a_row_that_was_not_asked_for_stays_though_it_is_of_other_runs() {
        let system = System::read();
        let target = targets().into_iter().find(|target| target.id == "permission").expect("a target");
        let (five, twenty) = (basis(&target, 5, &system), basis(&target, 20, &system));
        let old = [row(target.clone(), 5, five, &system, &mut measures::Draws::default())];
        let stays = |basis, asked, keep| kept(&old, &target, basis, asked, keep).is_some();
        assert!(stays(twenty, false, false) && stays(twenty, false, true), "not asked for: left alone");
        assert!(!stays(five, true, false) && !stays(twenty, true, true), "asked for: measured anew");
        assert!(stays(five, true, true), "asked for, to be kept, and of the same");
        let failed = [Row { achieved: None, ..old[0].clone() }];
        assert!(kept(&failed, &target, five, true, true).is_none(), "what failed is tried again");
    }

    #[test]
    fn a_folder_with_a_record_of_another_form_is_refused_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(before(folder.path()).expect("an empty folder").is_none());
        for text in ["{", r#"{"schema": "isotherm.bench-targets/v1", "tool_version": "0.1.0", "rows": []}"#] {
            std::fs::write(folder.path().join(FILE), text).expect("writable");
            let failure = before(folder.path()).err().expect("another form");
            assert!(failure.message.contains(FILE), "{}", failure.message);
            assert!(failure.remedy.expect("something to do").contains("-o"));
        }
        std::fs::write(folder.path().join("draws.json"), "{").expect("writable");
        let failure = measures::Draws::open(Some(folder.path()), true).expect_err("damaged");
        assert!(failure.message.contains("draws.json"), "{}", failure.message);
        assert!(measures::Draws::open(Some(folder.path()), false).is_ok(), "all are made anew");
    }

    #[test]
    fn what_a_row_achieves_stands_beside_what_is_attainable() {
        let system = System::read();
        for id in ["throughput-mobile", "two-unlike", "synchronise", "permission", "greedy", "availability"] {
            let target = targets().into_iter().find(|target| target.id == id).expect("a target");
            // A host with one core cannot hand anything over.
            if id == "synchronise" && system.cores < 2 {
                eprintln!("skipped: {id} needs two cores");
                continue;
            }
            let row = row(target.clone(), 5, basis(&target, 5, &system), &system, &mut measures::Draws::default());
            let achieved = row.achieved.expect(id);
            let Some(bound) = row.bound else { panic!("{id}: {:?}", row.bound_missing) };
            assert!(achieved > 0.0 && bound > 0.0 && !row.hardware.is_empty(), "{row:?}");
            if id == "two-unlike" {
                assert!(achieved > 1.0 && achieved <= bound * (1.0 + 1e-9), "{row:?}");
            }
            if id == "availability" {
                assert!((achieved - bound).abs() < 0.1, "{row:?}");
            }
            if id == "throughput-mobile" {
                assert!(achieved >= bound * (1.0 - 1e-9), "{row:?}");
            }
        }
    }
}
