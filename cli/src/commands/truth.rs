//! `isotherm bench truth`: predicted against measured for one, two and three stages, from the probe alone.
//!
//! The order is the evidence: the devices are probed and logged, each plan is made, simulated and sealed, and only
//! then run, with prompts and contexts that the probe did not sample. Nothing is fitted to a run; every run is kept.

use crate::args::{ArithmeticName, Sources};
use crate::commands::{bench_load, plan, probe, report, seal, simulate, verify};
use crate::execution::{self, Job, Ready};
use crate::failure::{Code, Done, Failure};
use crate::models::{self, LocalModel};
use crate::session::Session;
use crate::ui::{Ui, percent, table};
use crate::{files, question, trust};
use isotherm_audit::keys::Identity;
use isotherm_audit::log::{EventKind, Severity};
use isotherm_core::cost::StepShape;
use isotherm_core::graph::DevicesFile;
use isotherm_core::ids::Layers;
use isotherm_core::plan::Plan;
use isotherm_core::record::{RunRecord, TruthRow};
use isotherm_core::units::Seconds;
use isotherm_core::workload::{Arrivals, Length, Workload};
use isotherm_planner::Outcome;
use isotherm_runtime::execute::{Arriving, Prompt, Verdict};
use isotherm_runtime::model::tokenizer::Tokenizer;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Tokens of each prompt: no shape that the probe samples.
const PROMPT_TOKENS: u32 = 91;
/// Tokens of each answer.
const OUTPUT_TOKENS: u32 = 48;
/// Requests of each run.
const REQUESTS: u32 = 3;
/// Time to measure devices.
const PROBE_SECONDS: f64 = 16.0;
/// Texts that prompts are cut from.
const TEXT: &str = "The measured speed of a machine is a fact about an afternoon: what else it was doing, how warm it had \
become, which of its caches still held something useful. A prediction worth having is made before that afternoon and \
written down where nobody can change it. Then the machine is asked to do the work, and the two figures are put side by \
side. Where they differ, the difference is the most useful thing on the page, because it says what was not understood. \
A planner that never looks back at its predictions learns nothing, and neither does its user.";

/// How far steps are from what a profile says, as `predicted / measured - 1`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Off {
    /// Those that decode, in the median.
    pub decode: f64,
    /// Those that take in a prompt.
    pub prompt: f64,
}

impl Off {
    /// The farther of the two.
    #[must_use]
    pub fn most(self) -> f64 {
        self.decode.abs().max(self.prompt.abs())
    }
}

/// Runs the command.
pub fn run(ui: &Ui, output: &Path, model: &str, runs: u32) -> Done {
    if runs == 0 {
        return Err(Failure::new(Code::Usage, "--runs is 0; make at least one"));
    }
    let model = models::open(ui, model)?;
    let bench = Bench::new(ui, model, output)?;
    bench.note_session("Predicted against measured", "bench truth", Vec::new())?;
    let mut manifests = Vec::new();
    for stages in 1..=3 {
        if let Some(sealed) = bench.prepare(ui, stages)? {
            manifests.push(sealed);
        }
    }
    bench.run_all(ui, &manifests, runs)?;
    let page = output.join("report.html");
    let rows = report::write(output, &page)?;
    let result = Rows { rows: &rows, report: page.clone(), runs };
    ui.result(&result, || format!("{}\n  report: {}\n", rows_text(&rows), page.display()))
}

#[derive(Serialize)]
struct Rows<'a> {
    rows: &'a [TruthRow],
    report: PathBuf,
    runs: u32,
}

/// Rows of predicted against measured figures, as text.
pub fn rows_text(rows: &[TruthRow]) -> String {
    let mut cells = vec![["stages", "metric", "predicted", "measured", "error"].map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let show = |value: f64| match Seconds::new(value) {
            Ok(seconds) if row.metric != "tokens_per_second" => seconds.to_string(),
            _ => format!("{value:.1} tok/s"),
        };
        let metric = match row.metric.as_str() {
            "tpot" => "time per output token",
            "ttft" => "time to first token",
            _ => "output rate",
        };
        vec![row.stages.to_string(), metric.to_owned(), show(row.predicted), show(row.measured), percent(row.error)]
    }));
    table(&cells, &[0, 2, 3, 4])
}

/// A probed machine and a model, about to be planned for.
pub struct Bench {
    /// The model.
    pub model: LocalModel,
    /// The devices.
    pub devices: DevicesFile,
    /// Who signs.
    pub identity: Identity,
    /// Folder of the artefacts.
    pub folder: PathBuf,
}

/// The devices of a bench: the processor whole and in parts, and every card.
const WANTED: probe::Wanted<'static> =
    probe::Wanted { split: 3, backends: &[], logical: 1, slow: &[], arithmetic: ArithmeticName::F32, offload: None };
/// Seconds for which [`Bench::drift`] looks.
const DRIFT_SECONDS: f64 = 1.0;

/// A plan that was sealed before anything ran.
pub struct Sealed {
    /// Its number of stages.
    pub stages: u32,
    /// Its file.
    pub plan_path: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// The manifest's file.
    pub manifest: PathBuf,
}

impl Bench {
    /// Clears the folder of an earlier bench's artefacts, and probes.
    pub fn new(ui: &Ui, model: LocalModel, folder: &Path) -> Result<Self, Failure> {
        clear(folder)?;
        let identity = trust::identity(ui)?;
        let (devices, _) = probe::measure(
            ui,
            &identity,
            None,
            &model,
            &WANTED,
            Seconds::of(PROBE_SECONDS),
            &folder.join("devices.json"),
        )?;
        Ok(Self { model, devices, identity, folder: folder.to_owned() })
    }

    /// Writes what the report should know beside the artefacts.
    pub fn note_session(&self, title: &str, command: &str, notes: Vec<String>) -> Done {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        let average =
            load.as_deref().and_then(|text| text.split(' ').next()).map(|one| format!("{one} over the last minute"));
        let line = |purpose: &str, text: String| (purpose.to_owned(), text);
        let file = self.model.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let session = Session {
            title: Some(format!("{title}: {}", self.model.model.name)),
            question: Some(
                "Which of this machine's devices should hold which layers, how fast will it be, and how true is that?"
                    .to_owned(),
            ),
            model: Some(self.model.model.clone()),
            load: average,
            notes,
            lines: vec![
                line("tour", format!("isotherm {command}")),
                line("probe", format!("isotherm probe --model {file} --split 3 -o devices.json")),
                line(
                    "plan",
                    format!("isotherm plan scenario-1.toml --devices devices.json --model {file} -o plan-1.json"),
                ),
                line(
                    "simulate",
                    format!("isotherm simulate plan-1.json scenario-1.toml --devices devices.json --model {file}"),
                ),
                line(
                    "seal",
                    format!(
                        "isotherm seal plan-1.json scenario-1.toml --devices devices.json --model {file} --simulation simulation-1.json -o manifest-1.json"
                    ),
                ),
                line("run", "isotherm run manifest-1.json --prompt TEXT".to_owned()),
                line("report", "isotherm report .".to_owned()),
            ],
            ..Session::default()
        };
        files::write_json(&self.folder.join("session.json"), &session).map(|_| ())
    }

    /// How far single steps, timed alone on a device now, are from what its profile says. What this differs by from one
    /// moment to another is the machine's own speed, and no model's. None where the device was not measured.
    pub fn drift(&self, device: &str) -> Result<Option<Off>, Failure> {
        let shapes = [
            StepShape::decode(1, 91.0),
            StepShape::decode(2, 91.0),
            StepShape::decode(3, 91.0),
            StepShape::prefill(91, 0, true),
        ];
        let total = self.model.model.layers();
        let whole = Layers::new(0, total);
        let known = self.devices.devices.iter().find(|known| known.name == device);
        let Some(profile) = known.and_then(|known| known.profiles.first()) else { return Ok(None) };
        let look = Seconds::of(DRIFT_SECONDS);
        let seen = probe::witnessed(&self.model, &WANTED, Some(device), whole, &shapes, look)?;
        let steps = seen.iter().flat_map(|(_, _, steps)| steps);
        let errors: Vec<(bool, f64)> = steps
            .map(|step| (step.shape.decodes > 0, profile.step(whole, total, &step.shape) / step.middle() - 1.0))
            .filter(|(_, error)| error.is_finite())
            .collect();
        let of = |decodes: bool| {
            let some: Vec<f64> = errors.iter().filter(|(is, _)| *is == decodes).map(|(_, error)| *error).collect();
            bench_load::median(&some)
        };
        Ok(of(true).zip(of(false)).map(|(decode, prompt)| Off { decode, prompt }))
    }

    /// Plans with so many stages, simulates and seals. None where the machine has no such plan.
    pub fn prepare(&self, ui: &Ui, stages: u32) -> Result<Option<Sealed>, Failure> {
        self.prepare_for(ui, stages, &self.scenario(stages))
    }

    /// The same for a scenario's text.
    pub fn prepare_for(&self, ui: &Ui, stages: u32, scenario: &str) -> Result<Option<Sealed>, Failure> {
        let scenario_path = self.folder.join(format!("scenario-{stages}.toml"));
        files::write(&scenario_path, scenario.as_bytes())?;
        let devices_path = self.folder.join("devices.json");
        let sources = Sources {
            devices: Some(devices_path.clone()),
            model: Some(self.model.path.display().to_string()),
            ..Sources::default()
        };
        let quiet = Ui { quiet: true, ..*ui };
        let problem = question::load(&quiet, &scenario_path, &sources, None)?.problem;
        let (outcome, artefact) = plan::solve(&quiet, &problem, Seconds::of(30.0), 1e-6)?;
        let (Outcome::Optimal(feasible) | Outcome::Feasible { plan: feasible, .. }) = outcome else {
            ui.note(format!("  {stages} stages: no plan ({})", artefact.reasons.join("; ")));
            return Ok(None);
        };
        let plan_path = self.folder.join(format!("plan-{stages}.json"));
        let plan_digest = files::write_json(&plan_path, &artefact)?;
        let about = |note: trust::Note| note.about("plan", plan_digest);
        trust::record(&self.identity, EventKind::Plan, Severity::Info, about(trust::Note::default()))?;
        let simulation = simulate::predict(&feasible, &problem, simulate::Seeds { count: 1, first: 1 })?;
        let simulation_path = self.folder.join(format!("simulation-{stages}.json"));
        let simulation_digest = files::write_json(&simulation_path, &simulation)?;
        let note = about(trust::Note::default().about("simulation", simulation_digest));
        trust::record(&self.identity, EventKind::Simulate, Severity::Info, note)?;
        let manifest = self.folder.join(format!("manifest-{stages}.json"));
        let pinned = seal::Pinned {
            plan: plan_path.clone(),
            scenario: scenario_path,
            devices: devices_path,
            model: self.model.path.clone(),
            simulation: simulation_path,
        };
        seal::seal(&self.identity, &feasible, &problem.graph, &pinned, Seconds::of(7.0 * 86_400.0), &manifest)?;
        Ok(Some(Sealed { stages, plan_path, plan: feasible.into_plan(), manifest }))
    }

    /// The scenario of so many stages. One stage may be any device; more are made of parts of the processor that share
    /// no core where that can be.
    fn scenario(&self, stages: u32) -> String {
        let banned = if stages > 1 { "banned = [\"cpu\"]\n" } else { "" };
        format!(
            "name = \"this-machine-{stages}\"\n\
             question = \"Which of this machine's devices should hold which layers, in {stages} stages?\"\n\n\
             [model]\nfile = \"model.gguf\"  # the file given with --model stands in its place\n\n\
             [workload]\nclients = 1\nprompt_tokens = {PROMPT_TOKENS}\noutput_tokens = {OUTPUT_TOKENS}\n\
             requests = {REQUESTS}\n\n\
             [objective]\nminimise = \"tpot\"\n\n\
             [limits]\nstages_exact = {stages}\n{banned}"
        )
    }

    /// Runs each sealed plan so many times, in turn, so that a disturbance of the machine spoils one run of each.
    pub fn run_all(&self, ui: &Ui, sealed: &[Sealed], runs: u32) -> Done {
        let quiet = Ui { quiet: true, ..*ui };
        let prompts = self.prompts()?;
        let ready = sealed
            .iter()
            .map(|one| {
                let bytes = files::read(&one.manifest)?;
                execution::ready(&quiet, &verify::open(&one.manifest, &bytes, &trust::trusted(1)?)?)
            })
            .collect::<Result<Vec<Ready>, Failure>>()?;
        let total = u64::from(runs) * sealed.len() as u64;
        let mut bar = ui.bar(total, "running");
        let mut done = 0;
        for run in 1..=runs {
            for (one, ready) in sealed.iter().zip(&ready) {
                let output = self.folder.join(format!("run-{}-{run}.json", one.stages));
                self.run_one(ready, &prompts, &output)?;
                done += 1;
                bar.at(done, total);
            }
        }
        bar.finish();
        Ok(())
    }

    fn run_one(&self, ready: &Ready, prompts: &[Prompt], output: &Path) -> Result<RunRecord, Failure> {
        let workload = Workload {
            arrivals: Arrivals::ClosedLoop { clients: 1 },
            prompt_tokens: Length::fixed(PROMPT_TOKENS),
            output_tokens: Length::fixed(OUTPUT_TOKENS),
            requests: REQUESTS,
        };
        // No token ends an answer: the load must be the one that was predicted.
        let job = Job { prompts, arriving: Arriving::Clients(1), workload, stop: &[], waiting_max: None, idle: &[] };
        let (record, executed) = execution::run(&self.identity, ready, &job, output, &mut |_| Verdict::GoOn)?;
        if executed.interrupted {
            return Err(Failure::io("interrupted; the runs made so far are kept"));
        }
        Ok(record)
    }

    /// Prompts of exactly the planned length, each from another place of the text.
    fn prompts(&self) -> Result<Vec<Prompt>, Failure> {
        let tokenizer = Tokenizer::from_gguf(&self.model.gguf).map_err(|e| Failure::file(&self.model.path, e))?;
        let mut tokens = tokenizer.encode_prompt(TEXT).map_err(|e| Failure::io(models::causes(&e)))?;
        let wanted = PROMPT_TOKENS as usize;
        // A small vocabulary makes more tokens of the text, a large one may make too few: then it is repeated.
        while tokens.len() < wanted * 2 {
            tokens.extend_from_within(..);
        }
        let step = (tokens.len() - wanted) / REQUESTS as usize;
        Ok((0..REQUESTS as usize)
            .map(|i| Prompt::greedy(tokens[i * step..i * step + wanted].to_vec(), OUTPUT_TOKENS))
            .collect())
    }
}

/// What the names of files begin with that a bench leaves, or a report of them.
const MADE: [&str; 11] = [
    "devices",
    "scenario-",
    "plan-",
    "simulation-",
    "manifest-",
    "run-",
    "runs.",
    "requests.",
    "load-",
    "session",
    "report",
];
/// The same of folders, for what was done again.
const AGAIN: &str = "again-";

/// Removes what an earlier bench left in its folder; a folder with anything else in it is refused as it is.
fn clear(folder: &Path) -> Done {
    if !folder.exists() {
        return Ok(());
    }
    let paths = made(folder)?;
    paths.iter().try_for_each(|path| {
        let removed = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        removed.map_err(|e| Failure::file(path, e))
    })
}

/// What an earlier bench left in a folder, what folders hold before them. Errors: something else is there.
fn made(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Failure::file(folder, e))?.path();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // A link to a folder is not what a bench makes.
        if path.is_dir() && !path.is_symlink() && name.starts_with(AGAIN) {
            paths.extend(made(&path)?);
        } else if !(path.is_file() && MADE.iter().any(|prefix| name.starts_with(prefix))) {
            return Err(Failure::file(
                folder,
                format!("holds {}, which is not an earlier result of this command", path.display()),
            )
            .remedy("choose another folder with -o"));
        }
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_cleared_of_what_a_bench_left_and_of_nothing_where_there_is_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str| std::fs::write(folder.path().join(name), b"{}").expect("written");
        std::fs::create_dir(folder.path().join("again-1")).expect("made");
        let left = ["devices.json", "run-1-1.signed.json", "runs.csv", "requests.parquet", "again-1/load-30.csv"];
        left.iter().for_each(|name| write(name));
        for other in ["again-1/letters.txt", "letters.txt"] {
            write(other);
            let refused = clear(folder.path()).expect_err("somebody else's");
            assert!(refused.message.contains("letters.txt"), "{}", refused.message);
            assert!(left.iter().all(|name| folder.path().join(name).exists()), "nothing is removed");
            std::fs::remove_file(folder.path().join(other)).expect("removed");
        }
        clear(folder.path()).expect("all its own");
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0);
        clear(&folder.path().join("absent")).expect("nothing to do");
    }
}
