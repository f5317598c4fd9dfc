//! `isotherm batch extract`: one point of a batch as a folder of its own.

use super::{point, store};
use crate::args::BatchExtract;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::Ui;
use isotherm_reports::tables::{Values, read_columns};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Extracted {
    point: String,
    scenario: String,
    number: u64,
    folder: String,
    files: Vec<String>,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BatchExtract) -> Done {
    let found = find(&args.batch, &args.point)?;
    let mut files_made = Vec::new();
    let mut copy = |kind: &str, digest: &Option<String>, ending: &str, name: &str| {
        let Some(digest) = digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:")) else { return Ok(()) };
        let bytes = files::read(&args.batch.join(kind).join(format!("{digest}.{ending}")))?;
        files_made.push(name.to_owned());
        files::keep(&args.output.join(name), &bytes)
    };
    copy("scenarios", &found.text, "toml", "scenario.toml")?;
    copy("plans", &found.plan, "json", "plan.json")?;
    copy("simulations", &found.simulation, "json", "simulation.json")?;
    if let Some(digest) = found.text.as_deref().and_then(|digest| digest.strip_prefix("sha256:")) {
        // Its tables are beside it in the batch, so the devices are those that were planned for.
        let scenario = args.batch.join("scenarios").join(format!("{digest}.toml"));
        let problem = point::read_again(&scenario)?;
        files::keep(&args.output.join("devices.json"), &files::json(problem.graph.file())?)?;
        files_made.push("devices.json".to_owned());
    }
    if files_made.is_empty() {
        let what = format!("{}#{} has no plan: {}", found.scenario, found.number, found.note.unwrap_or_default());
        return Err(Failure::new(Code::Infeasible, what));
    }
    let folder = args.output.display().to_string();
    let extracted =
        Extracted { point: found.point, scenario: found.scenario, number: found.number, folder, files: files_made };
    ui.result(&extracted, || {
        format!("{}#{}\n  {}: {}\n", extracted.scenario, extracted.number, extracted.folder, extracted.files.join(", "))
    })
}

struct Found {
    point: String,
    scenario: String,
    number: u64,
    text: Option<String>,
    plan: Option<String>,
    simulation: Option<String>,
    note: Option<String>,
}

fn find(batch: &Path, wanted: &str) -> Result<Found, Failure> {
    let (_, parts) = store::parts(&batch.join("results"))?;
    let mut found: Vec<Found> = Vec::new();
    for path in parts {
        let table = read_columns(&files::read(&path)?).map_err(|e| Failure::file(&path, crate::models::causes(&e)))?;
        let column = |name: &str| table.columns.iter().find(|(known, _)| known == name).map(|(_, values)| values);
        let text = |name: &str, row: usize| match column(name) {
            Some(Values::Text(words)) => words.get(row).cloned().flatten(),
            _ => None,
        };
        let number = |row: usize| match column("number") {
            Some(Values::Counts(counts)) => counts.get(row).copied().flatten(),
            _ => None,
        };
        let rows = column("point").map_or(0, Values::len);
        for row in 0..rows {
            let (Some(point), Some(scenario), Some(number)) = (text("point", row), text("scenario", row), number(row))
            else {
                continue;
            };
            let hex = point.trim_start_matches("sha256:");
            let named = wanted == format!("{scenario}#{number}") || (number == 0 && wanted == scenario);
            let begins = wanted.len() >= 6 && hex.starts_with(wanted.trim_start_matches("sha256:"));
            if named || begins {
                let of = |name: &str| text(name, row);
                let (text, plan, simulation) = (of("scenario_digest"), of("plan"), of("simulation"));
                found.push(Found { point, scenario, number, text, plan, simulation, note: of("note") });
            }
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        n => {
            let what = format!("{} has {n} points called {wanted:?}", batch.display());
            Err(Failure::new(Code::Usage, what)
                .remedy("name it as SCENARIO#NUMBER or by more of the digest in the column `point`"))
        }
    }
}
