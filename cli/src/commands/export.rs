//! `isotherm export`: a plan as the command line or configuration of another engine, and what that engine cannot
//! express.

mod engines;
mod makers;

use crate::args::{Engine, Export};
use crate::commands::plan;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{self, Ui};
use isotherm_core::device::DeviceKind;
use isotherm_core::plan::{Plan, Route};
use isotherm_core::problem::{Parallel, PlacementProblem};
use makers::Maker;
use serde::Serialize;

/// A stage of the chain that is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    /// First of its devices.
    device: String,
    /// All of its devices.
    devices: Vec<String>,
    host: String,
    kind: DeviceKind,
    backend: String,
    maker: Maker,
    /// How several devices divide it.
    parallel: Parallel,
    /// First layer, and the one after the last.
    layers: (u32, u32),
    /// How many of the layers lie elsewhere.
    away: u32,
}

impl Stage {
    const fn count(&self) -> u32 {
        self.layers.1 - self.layers.0
    }
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    /// Longest request in tokens.
    context: u64,
    /// Requests at once.
    requests: u32,
    /// Tokens of one step.
    step_tokens: u32,
}

/// What an engine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// Stages in the order that requests pass them.
    stages: Vec<Stage>,
    /// Layers of the model.
    layers: u32,
    /// How requests come; none where the scenario does not say.
    load: Option<Load>,
    /// Host where requests come in.
    entry: String,
}

/// A configuration, and what it does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Written {
    /// Lines of a shell script, without its comments.
    script: String,
    /// What of the plan the engine cannot express, in whole sentences.
    lost: Vec<String>,
    /// What to see to.
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    engine: &'static str,
    script: &'a str,
    cannot_express: &'a [String],
    notes: &'a [String],
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Export) -> Done {
    let (feasible, question) = plan::load_feasible(ui, &args.question)?;
    let (chain, mut lost) = chain(feasible.plan(), &question.problem)?;
    let (engine, mut written) = match args.to {
        Engine::LlamaCpp => ("llama.cpp", engines::llama_cpp(&chain)),
        Engine::Vllm => ("vLLM", engines::vllm(&chain)),
        Engine::Exo => ("exo", engines::exo(&chain)),
        Engine::Prima => ("prima.cpp", engines::prima(&chain)),
        Engine::Mlx => ("MLX distributed", engines::mlx(&chain)),
    };
    lost.append(&mut written.lost);
    let away: u32 = feasible.plan().stages.iter().map(|stage| stage.bytes.away_layers).sum();
    if away > 0 {
        lost.push(format!("{away} layers that lie elsewhere and are brought while others are computed."));
    }
    let script = commented(engine, &question.problem.name, &written.script, &lost, &written.notes);
    if let Some(path) = &args.output {
        files::write(path, script.as_bytes())?;
    }
    let answer =
        Answer { schema: "isotherm.export/v1", engine, script: &script, cannot_express: &lost, notes: &written.notes };
    match (&args.output, ui.format) {
        (None, crate::args::Format::Text) => ui::print(script.as_bytes()),
        _ => ui.result(&answer, || {
            let sentences: String = lost.iter().map(|sentence| format!("  not expressed: {sentence}\n")).collect();
            let shown = args.output.as_ref().map_or_else(String::new, |path| path.display().to_string());
            format!("{shown}: {} for {engine}\n{sentences}", question.problem.name)
        }),
    }
}

/// The script under a heading that says what it leaves out.
fn commented(engine: &str, name: &str, script: &str, lost: &[String], notes: &[String]) -> String {
    let mut text =
        format!("#!/bin/sh\n# The plan of {} for {engine}. Host names stand for addresses.\n", one_line(name));
    for (heading, sentences) in [("Not expressed here", lost), ("To see to", notes)] {
        if !sentences.is_empty() {
            text.push_str(&format!("# {heading}:\n"));
            text.extend(sentences.iter().map(|sentence| format!("#   {}\n", one_line(sentence))));
        }
    }
    text.push('\n');
    text.push_str(script);
    text
}

/// Without line breaks, which would end a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The chain of the route with the largest share, and what is lost by taking one chain of whole stages.
fn chain(plan: &Plan, problem: &PlacementProblem) -> Result<(Chain, Vec<String>), Failure> {
    let largest = plan.routes.iter().max_by(|a, b| a.share.total_cmp(&b.share));
    let Some(route) = largest else {
        return Err(Failure::new(Code::Infeasible, format!("the plan of {} has no route", plan.scenario)));
    };
    let mut lost = Vec::new();
    if plan.is_divided() {
        lost.push(
            "The plan prefills on some devices and decodes on others; the chain that is written does both.".into(),
        );
    }
    if plan.routes.len() > 1 {
        let share = route.share * 100.0;
        lost.push(format!(
            "The plan has {} routes; one chain is written, the one that takes {share:.1} % of the requests. Start one \
             instance for each route and share the requests out to have the others.",
            plan.routes.len()
        ));
    }
    if plan.routes.iter().any(|route| partly(plan, route)) {
        lost.push(
            "Requests enter a stage in the middle of its layers; each stage is written with what it serves.".into(),
        );
    }
    let mut stages = Vec::new();
    for stop in &route.stages {
        let (stage, layers) = (&plan.stages[stop.stage as usize], (stop.layers.start, stop.layers.end));
        let device = stage.devices.first().and_then(|name| problem.graph.find(name)).map(|id| problem.graph.device(id));
        let Some(device) = device else {
            return Err(Failure::new(Code::Verification, format!("a stage of {} has no known device", plan.scenario)));
        };
        stages.push(Stage {
            device: device.name.clone(),
            devices: stage.devices.clone(),
            host: device.host.clone(),
            kind: device.kind,
            backend: device.backend.clone(),
            maker: makers::maker(device),
            parallel: stage.parallel,
            layers,
            away: stage.bytes.away_layers.min(layers.1 - layers.0),
        });
    }
    let used = route.stages.iter().map(|stop| &plan.stages[stop.stage as usize].quantisation);
    let formats: std::collections::BTreeSet<&String> = used.collect();
    if formats.len() > 1 {
        lost.push("Stages hold the weights in different formats; an engine loads one model file in one format.".into());
    }
    if plan.stages.iter().any(|stage| stage.power_cap_watts.is_some()) {
        lost.push("Power caps of devices; set them with the vendor's tool.".into());
    }
    let entry = problem.graph.file().coordinator.as_deref();
    let entry = entry.map(|name| problem.graph.find(name).map_or(name, |id| &problem.graph.device(id).host));
    let entry = entry.map(|name| name.trim_start_matches("host:").to_owned());
    let chain = Chain {
        layers: problem.layers(),
        load: load(problem),
        entry: entry.or_else(|| stages.first().map(|stage| stage.host.clone())).unwrap_or_default(),
        stages,
    };
    Ok((chain, lost))
}

/// How requests come. A flow problem knows nothing of it: of its model there are only the layers, and the single tokens
/// of its requests stand for nothing.
fn load(problem: &PlacementProblem) -> Option<Load> {
    let context = u64::from(problem.workload.prompt_tokens.max) + u64::from(problem.workload.output_tokens.max);
    let serving = &problem.serving;
    let load = Load { context, requests: serving.requests_max, step_tokens: serving.step_tokens_max };
    (problem.model.hidden > 0 || context > 2).then_some(load)
}

/// Whether a route serves less of a stage than it holds.
fn partly(plan: &Plan, route: &Route) -> bool {
    route.stages.iter().any(|stop| plan.stages[stop.stage as usize].layers != stop.layers)
}
