//! `isotherm import`: other people's measurements as scenarios.

use crate::args::{ImportCommand, ImportHelix, ImportHelixFlow, ImportLlmServingSim};
use crate::failure::{Done, Failure};
use crate::llmservingsim::{Profile, shape};
use crate::ui::Ui;
use crate::{files, question};
use isotherm_core::import::helix::{Phase, Texts};
use isotherm_core::import::{Imported, helix, helix_flow, llmservingsim};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(ui: &Ui, command: &ImportCommand) -> Done {
    match command {
        ImportCommand::HelixFlow(args) => flow(ui, args),
        ImportCommand::Helix(args) => cluster(ui, args),
        ImportCommand::LlmServingSim(args) => profile(ui, args),
    }
}

fn flow(ui: &Ui, args: &ImportHelixFlow) -> Done {
    let text = files::read_text(&args.file)?;
    let imported = helix_flow::scenario(&text, &args.instance).map_err(|e| Failure::file(&args.file, e))?;
    keep(ui, &imported, &args.output)
}

fn cluster(ui: &Ui, args: &ImportHelix) -> Done {
    let machines = match &args.machines {
        Some(path) => path.clone(),
        None => beside(&args.cluster)?,
    };
    let (cluster, machines) = (files::read_text(&args.cluster)?, files::read_text(&machines)?);
    let mut unread = None;
    let mut profile = |machine: &str, phase: Phase| {
        let phase = match phase {
            Phase::Prompt => "prompt",
            Phase::Decode => "decode",
        };
        let path = args.profiles.join(format!("{}_{machine}_{phase}_bs2time.csv", args.model));
        files::read_text(&path).map_err(|failure| unread = Some(failure.message)).ok()
    };
    let name =
        args.cluster.file_stem().map_or_else(|| "cluster".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let name = format!("{name}-{}", args.model);
    let mut texts =
        Texts { cluster: &cluster, machines: &machines, profile: &mut profile, model: &args.model, name: &name };
    let imported = helix::scenario(&mut texts);
    let imported = imported.map_err(|e| match &unread {
        Some(message) => Failure::io(format!("{e}: {message}")),
        None => Failure::file(&args.cluster, e),
    })?;
    keep(ui, &imported, &args.output)
}

fn profile(ui: &Ui, args: &ImportLlmServingSim) -> Done {
    let named = args.model.clone().unwrap_or_default();
    let found = Profile::find(&args.profile, &named, 1, "bf16")?;
    let name = args.model.clone().or_else(|| found.catalogue.meta.model.clone()).unwrap_or_default();
    let model = shape(&name, &args.shape)?;
    let facts = llmservingsim::DeviceFacts { memory: args.memory, count: args.count };
    let imported = llmservingsim::scenario(&found.catalogue, &model, facts);
    keep(ui, &imported.map_err(|e| Failure::file(&found.folder, e))?, &args.output)
}

/// The one machine file beside a cluster file.
fn beside(cluster: &Path) -> Result<PathBuf, Failure> {
    let folder = cluster.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))?;
    let named = |path: &PathBuf| path.to_string_lossy().ends_with("machine_profiles.ini");
    let mut found: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(named).collect();
    match (found.pop(), found.is_empty()) {
        (Some(path), true) => Ok(path),
        (one, _) => {
            let count = found.len() + usize::from(one.is_some());
            Err(Failure::file(folder, format!("holds {count} files called *machine_profiles.ini instead of one"))
                .remedy("name the machine file with --machines"))
        }
    }
}

#[derive(Serialize)]
struct Kept<'a> {
    scenario: &'a Path,
    name: String,
    devices: usize,
    classes: usize,
    links: usize,
    notes: &'a [String],
}

/// Writes a scenario, after reading it as `isotherm plan` will.
fn keep(ui: &Ui, imported: &Imported, output: &Path) -> Done {
    let scenario = question::parse(output, &imported.text)?;
    files::write(output, imported.text.as_bytes())?;
    let mut classes: Vec<&str> = scenario.devices.devices.iter().map(|d| d.class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    let kept = Kept {
        scenario: output,
        name: scenario.name.clone(),
        devices: scenario.devices.devices.len(),
        classes: classes.len(),
        links: scenario.devices.links.len(),
        notes: &imported.notes,
    };
    ui.result(&kept, || {
        let notes: String = kept.notes.iter().map(|note| format!("  {note}\n")).collect();
        let (devices, classes, links) = (kept.devices, kept.classes, kept.links);
        let shown = output.display();
        format!(
            "{shown}: {devices} devices of {classes} classes, {links} links\n{notes}  next: isotherm plan {shown}\n"
        )
    })
}
