//! Command lines of a folder in which nobody recorded any, put together from what its artefacts say of themselves.

use isotherm_core::digest::Digest;
use isotherm_core::plan::Plan;
use isotherm_reports::{Command, Step, Stored};
use std::path::Path;

/// What one plan's lines are made of.
pub struct Made<'a> {
    /// The plan.
    pub plan: &'a Stored<Plan>,
    /// File and seeds of its prediction.
    pub simulation: Option<(&'a str, u32)>,
    /// File of its manifest, and the model's file.
    pub manifest: Option<(&'a str, Option<&'a str>)>,
    /// Files of its runs.
    pub runs: Vec<&'a str>,
}

/// The scenario files of a folder, with their digests, in order of their names.
fn scenarios(directory: &Path) -> Vec<(String, Digest)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<(String, Digest)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.extension().filter(|ending| *ending == "toml")?;
            Some((path.file_name()?.to_string_lossy().into_owned(), Digest::of(&std::fs::read(&path).ok()?)))
        })
        .collect();
    found.sort();
    found
}

/// The lines, to be run in the folder itself, in the order of the work. A plan whose scenario is not there has none of its own.
pub fn inferred(directory: &Path, devices: &str, plans: &[Made<'_>]) -> Vec<Command> {
    let scenarios = scenarios(directory);
    let mut commands = Vec::new();
    let mut add = |step: Step, line: String| commands.push(Command { step, line });
    for made in plans {
        let (plan, file) = (&made.plan.value, &made.plan.file);
        let Some((scenario, _)) = scenarios.iter().find(|(_, digest)| plan.header.inputs.contains(digest)) else {
            continue;
        };
        let model = made.manifest.and_then(|(_, model)| model);
        let sources = model.map_or_else(String::new, |model| format!(" --model {model}"));
        let sources = format!("{scenario} --devices {devices}{sources}");
        let objective = plan.objective_name.replace('_', "-");
        add(Step::Plan, format!("isotherm plan {sources} --objective {objective} -o {file}"));
        if let Some((_, seeds)) = made.simulation {
            add(Step::Simulate, format!("isotherm simulate {file} {sources} --seeds {seeds} -o predicted"));
        }
        if let Some((manifest, Some(model))) = made.manifest {
            let pinned = made.simulation.map_or_else(String::new, |(file, _)| format!(" --simulation {file}"));
            add(
                Step::Seal,
                format!("isotherm seal {file} {scenario} --devices {devices} --model {model}{pinned} -o {manifest}"),
            );
        }
        for run in &made.runs {
            let Some((manifest, _)) = made.manifest else { continue };
            add(Step::Run, format!("isotherm run {manifest} --prompt TEXT -o {run}"));
        }
    }
    add(Step::Report, "isotherm report .".to_owned());
    commands
}
