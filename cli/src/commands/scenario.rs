//! `isotherm scenario`: a template to start from, and every fault of a file at once.

use crate::args::ScenarioCommand;
use crate::failure::{Done, Failure};
use crate::ui::{self, Ui};
use crate::{files, question};
use isotherm_core::digest::Digest;
use isotherm_core::scenario::Scenario;
use serde::Serialize;

/// Runs the command.
pub fn run(ui: &Ui, command: &ScenarioCommand) -> Done {
    match command {
        ScenarioCommand::New { output: None } => ui::print(Scenario::template().as_bytes()),
        ScenarioCommand::New { output: Some(path) } => {
            if path.exists() {
                return Err(Failure::file(path, "is there already").remedy("choose another name, or remove it first"));
            }
            files::write(path, Scenario::template().as_bytes())?;
            ui.note(format!("wrote {}; next: isotherm plan {}", path.display(), path.display()));
            Ok(())
        }
        ScenarioCommand::Check { scenario } => {
            let read = question::read(scenario)?;
            let facts = Facts {
                name: read.name.clone(),
                question: read.question.clone(),
                devices: read.devices.devices.len(),
                objective: read.objective.name(),
                digest: read.digest,
            };
            ui.result(&facts, || {
                format!(
                    "{}: {}\n  {} devices, objective {}, no faults\n",
                    facts.name, facts.question, facts.devices, facts.objective
                )
            })
        }
    }
}

#[derive(Serialize)]
struct Facts {
    name: String,
    question: String,
    devices: usize,
    objective: &'static str,
    digest: Digest,
}
