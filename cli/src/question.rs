//! From a scenario file, and what the user puts in the place of its devices and model, to a placement problem.

use crate::args::Sources;
use crate::failure::{Code, Failure};
use crate::ui::Ui;
use crate::{builtin, files, models};
use isotherm_core::graph::{DEVICES_SCHEMA, DevicesFile};
use isotherm_core::model::Model;
use isotherm_core::problem::{Objective, PlacementProblem, ProblemParts};
use isotherm_core::scenario::{Kind, ModelSource, Scenario, ScenarioError};
use std::path::{Path, PathBuf};

/// What is asked.
pub struct Question {
    /// The problem, with the user's devices, model and objective in it.
    pub problem: PlacementProblem,
}

/// Reads a scenario and makes its problem. An objective given here stands in the place of the scenario's.
pub fn load(ui: &Ui, path: &Path, sources: &Sources, objective: Option<Objective>) -> Result<Question, Failure> {
    let scenario = read(path)?;
    let devices = match &sources.devices {
        Some(devices) => Some(files::read_artefact::<DevicesFile>(devices, DEVICES_SCHEMA)?.0),
        None => None,
    };
    let model = match (&sources.model, &scenario.model) {
        (Some(named), _) => Some(models::open(ui, named)?.model),
        (None, ModelSource::File(file)) => Some(models::open_file(ui, &beside(path, file))?.model),
        (None, ModelSource::Written(_)) => None,
    };
    let problem = made(path, &scenario, devices, model, objective)?;
    Ok(Question { problem: overridden(problem, sources, path)? })
}

/// The same problem in other air, with more devices pinned and banned, where the user asks for that.
fn overridden(problem: PlacementProblem, sources: &Sources, path: &Path) -> Result<PlacementProblem, Failure> {
    let mut problem = problem;
    if let Some(ambient) = sources.ambient {
        problem.ambient = ambient;
        problem.conditions.air.clear();
    }
    if sources.pin.is_empty() && sources.ban.is_empty() {
        return Ok(problem);
    }
    if let Some(both) = sources.pin.iter().find(|name| sources.ban.contains(name)) {
        return Err(Failure::new(Code::Usage, format!("--pin and --ban both name {both:?}; keep one of them")));
    }
    let limits = &mut problem.limits;
    // What is said now stands in the place of what the scenario says.
    limits.banned.retain(|name| !sources.pin.contains(name));
    limits.pinned.retain(|name| !sources.ban.contains(name));
    for (list, more) in [(&mut limits.pinned, &sources.pin), (&mut limits.banned, &sources.ban)] {
        list.extend(more.iter().cloned());
        list.sort();
        list.dedup();
    }
    let objective = problem.objective;
    with_objective(problem, objective, path)
}

/// The problem of a scenario that was read, with its own devices and model.
pub fn of_scenario(path: &Path, scenario: &Scenario) -> Result<PlacementProblem, Failure> {
    let quiet = Ui { quiet: true, format: crate::args::Format::Text };
    let model = match &scenario.model {
        ModelSource::File(file) => Some(models::open_file(&quiet, &beside(path, file))?.model),
        ModelSource::Written(_) => None,
    };
    made(path, scenario, None, model, None)
}

/// The tables that a scenario's text refers to: their folder, name and text, those built in included.
pub fn tables_of(path: &Path, text: &str) -> Vec<(&'static str, String, String)> {
    let folders = table_folders(path);
    let mut used = Vec::new();
    let mut lookup = |kind: Kind, name: &str| {
        let found = table(&folders, kind, name);
        if let Ok(text) = &found {
            let folder = match kind {
                Kind::Model => "models",
                Kind::Device => "devices",
            };
            used.push((folder, name.to_owned(), text.clone()));
        }
        found
    };
    let _ = Scenario::parse(text, &mut lookup);
    used
}

/// A file that a scenario names, from the scenario's own folder.
fn beside(path: &Path, file: &str) -> PathBuf {
    let file = Path::new(file);
    if file.is_absolute() { file.to_owned() } else { path.parent().unwrap_or(Path::new("")).join(file) }
}

/// The problem of a scenario that was read, with devices, model and objective that were read as well.
pub fn made(
    path: &Path,
    scenario: &Scenario,
    devices: Option<DevicesFile>,
    model: Option<Model>,
    objective: Option<Objective>,
) -> Result<PlacementProblem, Failure> {
    let problem = scenario.problem(devices, model).map_err(|faults| Failure::all(Code::Io, path.display(), &faults))?;
    match objective {
        Some(objective) if objective != problem.objective => with_objective(problem, objective, path),
        _ => Ok(problem),
    }
}

/// Reads a scenario; every fault of it is reported with its line, cause and remedy.
pub fn read(path: &Path) -> Result<Scenario, Failure> {
    parse(path, &files::read_text(path)?)
}

/// Reads the text of a scenario that stands, or will stand, at a path.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, Failure> {
    let folders = table_folders(path);
    let mut lookup = |kind: Kind, name: &str| table(&folders, kind, name);
    Scenario::parse(text, &mut lookup).map_err(|faults| explain(path, text, &faults))
}

/// The same problem under another objective.
pub fn with_objective(
    problem: PlacementProblem,
    objective: Objective,
    path: &Path,
) -> Result<PlacementProblem, Failure> {
    let (conditions, prices) = (problem.conditions, problem.prices);
    let parts = ProblemParts {
        name: problem.name,
        model: problem.model,
        graph: problem.graph,
        workload: problem.workload,
        serving: problem.serving,
        objective,
        limits: problem.limits,
        ambient: problem.ambient,
        inputs: problem.inputs,
    };
    let made = PlacementProblem::new(parts).map_err(|faults| Failure::all(Code::Io, path.display(), &faults));
    let mut made = made?;
    (made.conditions, made.prices) = (conditions, prices);
    Ok(made)
}

/// Folders that may hold `models/` and `devices/`: those from the scenario upwards, their `scenarios` folders, and
/// the user's own.
fn table_folders(path: &Path) -> Vec<PathBuf> {
    let start = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let start = if start.as_os_str().is_empty() { PathBuf::from(".") } else { start };
    let start = start.canonicalize().unwrap_or(start);
    let mut folders: Vec<PathBuf> =
        start.ancestors().flat_map(|folder| [folder.to_owned(), folder.join("scenarios")]).collect();
    folders.extend(files::home().ok());
    folders
}

/// The text of a table, of a folder before a built-in one; or the names there are.
fn table(folders: &[PathBuf], kind: Kind, name: &str) -> Result<String, Vec<String>> {
    let place = match kind {
        Kind::Model => "models",
        Kind::Device => "devices",
    };
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let mut known = Vec::new();
    for folder in folders.iter().map(|folder| folder.join(place)) {
        let file = folder.join(format!("{name}.toml"));
        if plain && file.is_file() {
            return files::read_text(&file).map_err(|_| Vec::new());
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let names = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        known.extend(
            names
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())),
        );
    }
    let built_in = builtin::of(kind);
    if let Some((_, text)) = built_in.iter().find(|(built_in, _)| *built_in == name) {
        return Ok((*text).to_owned());
    }
    known.extend(built_in.iter().map(|(name, _)| (*name).to_owned()));
    known.sort();
    known.dedup();
    Err(known)
}

/// The faults of a scenario, each underlined in its text where it stands in the scenario itself.
fn explain(path: &Path, text: &str, faults: &[ScenarioError]) -> Failure {
    let blocks: Vec<String> = faults.iter().map(|fault| block(path, text, fault)).collect();
    let noun = if faults.len() == 1 { "fault" } else { "faults" };
    Failure::io(format!("{} has {} {noun}:\n\n{}", path.display(), faults.len(), blocks.join("\n")))
}

fn block(path: &Path, text: &str, fault: &ScenarioError) -> String {
    use isotherm_core::scenario::Origin;
    let place = match &fault.origin {
        Origin::Scenario => path.display().to_string(),
        Origin::Table(kind, name) => format!("{} table {name}", kind.word()),
    };
    let mut shown = format!("  {place}:{}:{}: {}\n", fault.line, fault.column, fault.fault);
    if matches!(fault.origin, Origin::Scenario)
        && let Some(line) = text.lines().nth(fault.line.saturating_sub(1))
    {
        let number = fault.line.to_string();
        let before: String =
            line.chars().take(fault.column.saturating_sub(1)).map(|c| if c == '\t' { c } else { ' ' }).collect();
        let marked = text.get(fault.start..fault.end).map_or(1, |m| m.lines().next().unwrap_or("").chars().count());
        let room = line.chars().count().saturating_sub(fault.column.saturating_sub(1)).max(1);
        let underline = "^".repeat(marked.clamp(1, room));
        shown.push_str(&format!("    {number} | {line}\n    {} | {before}{underline}\n", " ".repeat(number.len())));
    }
    shown.push_str(&format!("    what to do: {}\n", fault.fault.remedy()));
    shown
}
