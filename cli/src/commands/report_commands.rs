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
        // A folder for each plan, so that no prediction is written over another's.
        let predicted = format!("predicted/{}", file.strip_suffix(".json").unwrap_or(file));
        if let Some((_, seeds)) = made.simulation {
            add(Step::Simulate, format!("isotherm simulate {file} {sources} --seeds {seeds} -o {predicted}"));
        }
        if let Some((manifest, Some(model))) = made.manifest {
            let pinned =
                made.simulation.map_or_else(String::new, |_| format!(" --simulation {predicted}/simulation.json"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plan_is_predicted_into_its_own_folder_and_sealed_with_what_lies_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let scenario = b"name = \"two\"";
        std::fs::write(folder.path().join("two.toml"), scenario).expect("writable");
        let plan = |file: &str| {
            let text = serde_json::json!({
                "schema": "isotherm.plan/v1", "tool_version": "0", "inputs": [Digest::of(scenario)], "scenario": "two",
                "model": "m", "status": "feasible", "objective_name": "throughput", "unit": "tok/s", "stages": [],
                "routes": [], "unused": [],
            });
            let value: Plan = serde_json::from_value(text).expect("a plan");
            Stored { file: file.to_owned(), digest: Digest::of(file.as_bytes()), value }
        };
        let plans = [plan("plan-1.json"), plan("plan-2.json")];
        let made = plans.each_ref().map(|plan| Made {
            plan,
            simulation: Some(("simulation-old.json", 3)),
            manifest: Some(("manifest.json", Some("m.gguf"))),
            runs: Vec::new(),
        });
        let commands = inferred(folder.path(), "devices.json", &made);
        let lines: Vec<&str> = commands.iter().map(|command| command.line.as_str()).collect();
        for i in [1, 2] {
            let own = |line: &&&str| line.contains(&format!(" plan-{i}.json "));
            let of = |verb: &str| {
                let mut found = lines.iter().filter(|line| line.starts_with(verb)).filter(own);
                *found.next().expect(verb)
            };
            assert!(of("isotherm simulate").ends_with(&format!(" -o predicted/plan-{i}")), "{lines:?}");
            let pinned = format!(" --simulation predicted/plan-{i}/simulation.json ");
            assert!(of("isotherm seal").contains(&pinned), "{lines:?}");
        }
        assert!(lines.iter().all(|line| !line.contains("simulation-old")), "{lines:?}");
    }
}
