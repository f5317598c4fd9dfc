//! `isotherm report`: gathers the artefacts of a run directory into one page, and its requests and runs into tables.

use crate::args::Report as Args;
use crate::commands::audit::identity_if_any;
use crate::commands::report_commands::{Made, inferred};
use crate::commands::report_sheet;
use crate::commands::run::summary;
use crate::failure::{Code, Done, Failure};
use crate::session::{self, Session};
use crate::ui::Ui;
use crate::{files, trust};
use isotherm_audit::log::{Entry, EventKind};
use isotherm_audit::manifest::{ExecutionManifest, Manifest};
use isotherm_audit::statement::{MODEL, PLAN, SCENARIO};
use isotherm_audit::{Inspected, figures};
use isotherm_core::artefact::{Header, TOOL_VERSION};
use isotherm_core::digest::Digest;
use isotherm_core::frontier::{FRONTIER_SCHEMA, Frontier};
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::plan::{PLAN_SCHEMA, Plan};
use isotherm_core::record::{RUN_SCHEMA, RunRecord, SIMULATION_SCHEMA, SimulationReport, TruthRow};
use isotherm_reports::tables::{self, Format, Source, TableError};
use isotherm_reports::{
    Case, Environment, Event, Evidence, FileDigest, LogEntry, Manifest as ManifestFacts, Report, RunStatistic, Sealed,
    SealedFigure, Stored,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, args: &Args) -> Done {
    if let Some(sheet) = report_sheet::of(&args.directory)? {
        return report_sheet::write(ui, &sheet, args);
    }
    let output = args.output.clone().unwrap_or_else(|| args.directory.join("report.html"));
    if output.extension().is_some_and(|ending| ending != "html") {
        let what = format!("the report of a run is a page, and {} is none", output.display());
        return Err(Failure::new(Code::Usage, what)
            .remedy("name a .html file; requests and runs are written beside it as .parquet and .csv"));
    }
    let rows = write(&args.directory, &output)?;
    ui.result(&rows, || format!("{}\n", output.display()))
}

/// Writes the report of a directory, and its tables beside the page; gives its rows of predicted against measured figures.
pub fn write(directory: &Path, output: &Path) -> Result<Vec<TruthRow>, Failure> {
    let found = Found::read(directory)?;
    let report = found.report(directory)?;
    let rows = report.cases.iter().flat_map(|case| case.truth.clone()).collect();
    files::write(output, isotherm_reports::render(&report).as_bytes())?;
    let mut sources = tables::sources(&report);
    sources.extend(found.apart().into_iter().map(|(plan, run)| Source {
        scenario: &plan.value.scenario,
        plan: run.value.plan,
        record: run.digest,
        trace: &run.value.trace,
    }));
    write_tables(output.parent().unwrap_or(Path::new("")), &sources)?;
    Ok(rows)
}

/// Requests and runs as Parquet and CSV; none where no trace was kept.
pub fn write_tables(directory: &Path, sources: &[Source<'_>]) -> Done {
    if sources.is_empty() {
        return Ok(());
    }
    for (format, ending) in FORMATS {
        let place = |name: &str| directory.join(format!("{name}.{ending}"));
        write_table(&place("requests"), |out| tables::write_requests(sources, format, out))?;
        write_table(&place("runs"), |out| tables::write_runs(sources, format, out))?;
    }
    Ok(())
}

/// File formats of a table and the endings of their names.
pub const FORMATS: [(Format, &str); 2] = [(Format::Parquet, "parquet"), (Format::Csv, "csv")];

/// Writes one table whole or not at all.
pub fn write_table(path: &Path, fill: impl FnOnce(&mut Vec<u8>) -> Result<usize, TableError>) -> Done {
    let mut bytes = Vec::new();
    fill(&mut bytes).map_err(|e| Failure::file(path, crate::models::causes(&e)))?;
    files::write(path, &bytes)
}

/// The artefacts of a directory, by kind.
#[derive(Default)]
struct Found {
    devices: Option<Stored<DeviceGraph>>,
    plans: Vec<Stored<Plan>>,
    simulations: Vec<Stored<SimulationReport>>,
    runs: Vec<Stored<RunRecord>>,
    frontier: Option<Stored<Frontier>>,
    manifests: Vec<(String, Inspected<ExecutionManifest>)>,
    unverified: Vec<(String, Digest, String)>,
    session: Session,
}

impl Found {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
            .map_err(|e| Failure::file(directory, e))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        paths.sort();
        let mut found = Self::default();
        for path in paths {
            found.take(&path)?;
        }
        // Plans of a frontier have a folder of their own, so that none of them is taken for the plan that was made.
        let frontier = directory.join("frontier").join("frontier.json");
        if frontier.is_file() {
            found.take(&frontier)?;
        }
        if found.plans.is_empty() {
            return Err(Failure::file(directory, "holds no plan; nothing to report").remedy(
                "name a folder that `isotherm tour`, `isotherm bench truth` or `isotherm simulate -o` wrote, or one \
                     scenario's folder of `isotherm batch`",
            ));
        }
        Ok(found)
    }

    /// Sorts one file in; files of other kinds are left alone.
    fn take(&mut self, path: &Path) -> Done {
        let bytes = files::read(path)?;
        let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let digest = Digest::of(&bytes);
        let damaged = |e: serde_json::Error| Failure::file(path, format!("is damaged: {e}"));
        let schema = serde_json::from_slice::<Header>(&bytes).map(|header| header.schema).unwrap_or_default();
        match schema.as_str() {
            DEVICES_SCHEMA => {
                let parsed: DevicesFile = serde_json::from_slice(&bytes).map_err(damaged)?;
                let value = DeviceGraph::new(parsed).map_err(|e| Failure::all(Code::Io, path.display(), &e))?;
                self.devices = Some(Stored { file, digest, value });
            }
            PLAN_SCHEMA => {
                let value = serde_json::from_slice(&bytes).map_err(damaged)?;
                self.plans.push(Stored { file, digest, value });
            }
            SIMULATION_SCHEMA => {
                let value = serde_json::from_slice(&bytes).map_err(damaged)?;
                self.simulations.push(Stored { file, digest, value });
            }
            RUN_SCHEMA => {
                let value = serde_json::from_slice(&bytes).map_err(damaged)?;
                self.runs.push(Stored { file, digest, value });
            }
            FRONTIER_SCHEMA => {
                let value = serde_json::from_slice(&bytes).map_err(damaged)?;
                self.frontier = Some(Stored { file, digest, value });
            }
            session::SCHEMA => self.session = serde_json::from_slice(&bytes).map_err(damaged)?,
            _ if file.starts_with("manifest") => self.take_manifest(file, digest, &bytes),
            _ => {}
        }
        Ok(())
    }

    fn take_manifest(&mut self, file: String, digest: Digest, bytes: &[u8]) {
        // Who trusts nobody yet still gets the page, with the manifest as unverified as it is to him.
        let inspected = match trust::trusted(1) {
            Ok(trusted) => match trust::now() {
                Ok(now) => trusted.inspect(bytes, now).map_err(|error| crate::models::causes(&error)),
                Err(failure) => Err(failure.message),
            },
            Err(_) => Err("no key is trusted on this host".to_owned()),
        };
        match inspected {
            Ok(inspected) => self.manifests.push((file, inspected)),
            Err(reason) => self.unverified.push((file, digest, reason)),
        }
    }

    fn report(&self, directory: &Path) -> Result<Report, Failure> {
        let devices = self.devices.clone().ok_or_else(|| {
            Failure::file(directory, "holds no devices.json").remedy("copy the devices the plans were made with there")
        })?;
        let mut cases: Vec<Case> = self.plans.iter().map(|plan| self.case(plan)).collect();
        cases.sort_by_key(|case| case.plan.stages.len());
        let recorded = self.session.commands();
        let commands_inferred = recorded.is_empty();
        let commands = if commands_inferred { inferred(directory, &devices.file, &self.made()) } else { recorded };
        let first = &cases[0].plan;
        // What only was predicted did not happen on this host.
        let place =
            if self.runs.is_empty() { format!("for {}", first.scenario) } else { format!("on {}", trust::host_id()) };
        Ok(Report {
            title: self.session.title.clone().unwrap_or_else(|| format!("{} {place}", first.model)),
            scenario: first.scenario.clone(),
            question: self.session.question.clone().or_else(|| question(directory, first)).unwrap_or_default(),
            notice: None,
            notes: self.notes(),
            model: self.session.model.clone(),
            environment: environment(&devices.value, &self.session),
            devices,
            run_statistic: RunStatistic::Mean,
            cases,
            frontier: self.frontier.clone(),
            failures: Vec::new(),
            evidence: self.evidence()?,
            commands,
            commands_inferred,
        })
    }

    fn case(&self, plan: &Stored<Plan>) -> Case {
        let digest = plan.value.digest();
        let manifest = self.manifests.iter().find(|(_, m)| m.statement.subject(PLAN) == Some(plan.digest));
        let sealed =
            manifest.map(|(_, m)| Sealed { manifest: m.payload_digest, figures: sealed_figures(&m.statement) });
        let simulation = self.simulations.iter().find(|s| s.value.plan == digest).cloned();
        let runs: Vec<_> =
            self.runs.iter().filter(|run| run.value.plan == digest && self.is_compared(&run.value)).cloned().collect();
        let truth = sealed.as_ref().map_or_else(Vec::new, |sealed| truth(&plan.value, sealed, &runs));
        Case { plan: plan.value.clone(), sealed, simulation, runs, truth }
    }

    /// What each plan's command lines are made of.
    fn made(&self) -> Vec<Made<'_>> {
        let one = |plan| {
            let plan: &Stored<Plan> = plan;
            let digest = plan.value.digest();
            let simulation = self.simulations.iter().find(|simulation| simulation.value.plan == digest);
            let manifest = self.manifests.iter().find(|(_, m)| m.statement.subject(PLAN) == Some(plan.digest));
            Made {
                plan,
                simulation: simulation.map(|simulation| (simulation.file.as_str(), simulation.value.seeds)),
                manifest: manifest.map(|(file, inspected)| (file.as_str(), model_file(&inspected.statement))),
                runs: self.runs.iter().filter(|run| run.value.plan == digest).map(|run| run.file.as_str()).collect(),
            }
        };
        self.plans.iter().map(one).collect()
    }

    /// Whether a run is set beside the prediction. One of another load than the predicted has nothing to be compared with.
    fn is_compared(&self, run: &RunRecord) -> bool {
        let simulation = self.simulations.iter().find(|s| s.value.plan == run.plan);
        simulation.is_none_or(|s| s.value.workload == run.workload)
    }

    /// Runs of the directory's plans that are not compared.
    fn apart(&self) -> Vec<(&Stored<Plan>, &Stored<RunRecord>)> {
        let apart = self.runs.iter().filter(|run| !self.is_compared(&run.value));
        apart.filter_map(|run| Some((self.plans.iter().find(|p| p.value.digest() == run.value.plan)?, run))).collect()
    }

    /// What the session noted, and each run that is not compared, so that none goes unmentioned.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.session.notes.clone();
        for (_, run) in self.apart() {
            if !notes.iter().any(|note| note.contains(&run.file)) {
                let what = summary(&run.value);
                notes
                    .push(format!("{}, of another load than the predicted one and so not compared: {what}.", run.file));
            }
        }
        notes
    }

    fn evidence(&self) -> Result<Evidence, Failure> {
        let mut manifests: Vec<ManifestFacts> = self
            .manifests
            .iter()
            .map(|(file, inspected)| ManifestFacts {
                file: file.clone(),
                // Runs and log name a manifest by its signed payload, which further signatures do not change.
                digest: inspected.payload_digest,
                signers: inspected.signers.iter().map(ToString::to_string).collect(),
                threshold: 1,
                not_before: Some(inspected.statement.predicate.not_before.to_string()),
                expires: Some(inspected.statement.predicate.expires_on.to_string()),
                verification: Some(Ok(())),
            })
            .collect();
        manifests.extend(self.unverified.iter().map(|(file, digest, reason)| ManifestFacts {
            file: file.clone(),
            digest: *digest,
            signers: Vec::new(),
            threshold: 1,
            not_before: None,
            expires: None,
            verification: Some(Err(reason.clone())),
        }));
        let mut files: Vec<FileDigest> = Vec::new();
        for (_, inspected) in &self.manifests {
            for role in [SCENARIO, MODEL] {
                let Some(subject) = inspected.statement.subjects.iter().find(|s| s.name == role) else { continue };
                let hint = Path::new(subject.path_hint.as_deref().unwrap_or(role));
                let file = hint.file_name().map_or_else(|| role.to_owned(), |name| name.to_string_lossy().into_owned());
                let listed = FileDigest { role: role.to_owned(), file, digest: subject.digest };
                if !files.contains(&listed) {
                    files.push(listed);
                }
            }
        }
        let (log, checkpoint) = self.log()?;
        Ok(Evidence { manifests, log, checkpoint, files })
    }

    /// The log's entries about any artefact of the directory, and its signed state.
    fn log(&self) -> Result<(Vec<LogEntry>, Option<String>), Failure> {
        // Who only predicted has signed nothing yet, and so has no log.
        let Some(identity) = identity_if_any()? else { return Ok((Vec::new(), None)) };
        let view = trust::read_log(&identity)?;
        let mut about: BTreeSet<Digest> = self.manifests.iter().map(|(_, m)| m.payload_digest).collect();
        about.extend(self.plans.iter().map(|plan| plan.digest));
        about.extend(self.devices.iter().map(|devices| devices.digest));
        about.extend(self.runs.iter().map(|run| run.digest));
        let mut entries = Vec::new();
        for entry in view.iter() {
            let entry = entry.map_err(|e| Failure::new(Code::Verification, crate::models::causes(&e)))?;
            if entry.subjects.values().any(|digest| about.contains(digest)) {
                entries.push(log_entry(&entry));
            }
        }
        Ok((entries, Some(view.note().to_owned())))
    }
}

/// Name of the model's file that a manifest pins, where it says so.
fn model_file(statement: &Manifest) -> Option<&str> {
    let hint = statement.subjects.iter().find(|subject| subject.name == MODEL)?.path_hint.as_deref()?;
    Path::new(hint).file_name()?.to_str()
}

fn log_entry(entry: &Entry) -> LogEntry {
    let (event, role) = match entry.event_kind() {
        Some(EventKind::Probe) => (Event::Probe, "devices"),
        Some(EventKind::Plan) => (Event::Plan, "plan"),
        Some(EventKind::Simulate) => (Event::Simulate, "simulation"),
        Some(EventKind::Seal) => (Event::Seal, "manifest"),
        Some(EventKind::RunFinished) => (Event::Run, "run"),
        Some(EventKind::RunStarted) => (Event::Other("run started".to_owned()), "manifest"),
        _ => (Event::Other(entry.kind.clone()), "manifest"),
    };
    let subject = entry.subjects.get(role).or_else(|| entry.subjects.values().next()).copied();
    LogEntry { index: entry.index, time: entry.time.to_string(), event, subject }
}

/// The question of the scenario that a plan answers, where the scenario's file lies beside it.
fn question(directory: &Path, plan: &Plan) -> Option<String> {
    /// The part of a scenario that a page shows.
    #[derive(serde::Deserialize)]
    struct Asked {
        question: String,
    }
    let paths = std::fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let texts = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|path| files::read_text(&path).ok());
    let answered = |text: &String| plan.header.inputs.contains(&Digest::of(text.as_bytes()));
    Some(toml::from_str::<Asked>(&texts.into_iter().find(answered)?).ok()?.question)
}

/// The sealed predictions, back in seconds and tokens per second.
pub fn sealed_figures(manifest: &Manifest) -> Vec<SealedFigure> {
    let predicted = &manifest.predicate.predicted;
    [
        ("tpot", figures::TPOT_NS, 1e9),
        ("ttft", figures::TTFT_NS, 1e9),
        ("tokens_per_second", figures::TOKENS_PER_SECOND_MILLI, 1e3),
    ]
    .into_iter()
    .filter_map(|(metric, name, scale)| {
        Some(SealedFigure { metric: metric.to_owned(), value: predicted.get(name)? as f64 / scale })
    })
    .collect()
}

/// Sealed figures beside the median over all runs of each run's mean.
fn truth(plan: &Plan, sealed: &Sealed, runs: &[Stored<RunRecord>]) -> Vec<TruthRow> {
    let stages = u32::try_from(plan.stages.len()).unwrap_or(u32::MAX);
    sealed
        .figures
        .iter()
        .filter_map(|figure| {
            let name = if figure.metric == "tokens_per_second" {
                "tokens_per_second".to_owned()
            } else {
                format!("{}_seconds", figure.metric)
            };
            let mut means: Vec<f64> =
                runs.iter().filter_map(|run| run.value.metrics.get(&name)).map(|statistic| statistic.mean).collect();
            means.sort_by(f64::total_cmp);
            let middle = *means.get(means.len() / 2)?;
            let median = if means.len() % 2 == 1 { middle } else { f64::midpoint(middle, means[means.len() / 2 - 1]) };
            Some(TruthRow::new(stages, figure.metric.clone(), figure.value, median))
        })
        .collect()
}

fn environment(devices: &DeviceGraph, session: &Session) -> Environment {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
    Environment {
        tool_version: TOOL_VERSION.to_owned(),
        kernel,
        load: session.load.clone(),
        host: devices.file().host.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}
