//! `isotherm advise`: which models fit the devices at hand, how fast, and what one more device would give.

mod buy;
mod candidates;

use crate::args::Advise;
use crate::commands::plan;
use crate::failure::{Code, Done, Failure};
use crate::ui::{Ui, table};
use crate::{files, registry};
use buy::Purchase;
use candidates::Candidate;
use isotherm_core::graph::{DEVICES_SCHEMA, DeviceGraph, DevicesFile};
use isotherm_core::model::Model;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::{Limits, Objective, PlacementProblem, ProblemParts};
use isotherm_core::units::{Bytes, Celsius, Seconds};
use isotherm_core::workload::{Arrivals, Length, Serving, Workload};
use isotherm_planner::Outcome;
use serde::Serialize;

/// Gap that suffices for advice.
const GAP: f64 = 1e-3;

/// A planned figure and who vouches for its bound.
#[derive(Debug, Clone, Serialize)]
struct Figure {
    value: f64,
    gap: Option<f64>,
    bound_kind: BoundKind,
}

/// What comes of one model.
#[derive(Debug, Clone, Serialize)]
struct Row {
    model: String,
    quantisation: String,
    weight_bytes: u64,
    /// `table` for a known model in a stated format, `file` for a model file that is here.
    origin: &'static str,
    fits: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpot_seconds: Option<Figure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<Figure>,
    /// Devices of the plan for least time per token.
    devices: Vec<String>,
}

#[derive(Serialize)]
struct Advice<'a> {
    schema: &'static str,
    devices: Vec<&'a str>,
    clients: u32,
    prompt_tokens: u32,
    output_tokens: u32,
    models: &'a [Row],
    /// Model that purchases are judged by: the largest that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged_by: Option<&'a str>,
    purchases: &'a [Purchase],
    assumptions: &'a [String],
}

/// What is asked, beside devices and model.
#[derive(Debug, Clone, Copy)]
struct Load {
    clients: u32,
    prompt: u32,
    output: u32,
    time: Seconds,
}

/// Runs the command.
pub fn run(ui: &Ui, args: &Advise) -> Done {
    for (flag, count) in
        [("--clients", args.clients), ("--prompt-tokens", args.prompt_tokens), ("--output-tokens", args.output_tokens)]
    {
        if !(1..=1 << 20).contains(&count) {
            return Err(Failure::new(Code::Usage, format!("{flag} is {count}; give 1 to {}", 1 << 20)));
        }
    }
    let path = match &args.devices {
        Some(path) => path.clone(),
        None => registry::last_devices()?,
    };
    if !path.exists() && args.devices.is_none() {
        return Err(Failure::io("no devices have been measured on this host yet")
            .remedy("run `isotherm probe`, or name a devices.json with --devices"));
    }
    let (file, _) = files::read_artefact::<DevicesFile>(&path, DEVICES_SCHEMA)?;
    let file = candidates::completed(file);
    let prices = args.prices.as_deref().map(buy::prices).transpose()?;
    let load =
        Load { clients: args.clients, prompt: args.prompt_tokens, output: args.output_tokens, time: args.time_limit };
    let candidates = candidates::all(ui, args.models.as_deref())?;
    let mut rows = Vec::new();
    for (i, candidate) in candidates.iter().enumerate() {
        ui.note(format!("  {}/{} {} {}", i + 1, candidates.len(), candidate.name, candidate.model.quantisation));
        rows.push(judge(ui, candidate, &file, load)?);
    }
    // The largest that fits is what the pile is for; of two formats of one model the larger.
    let goal = rows.iter().zip(&candidates).filter(|(row, _)| row.fits).max_by_key(|(row, _)| row.weight_bytes);
    let purchases = buy::all(ui, args, &file, load, goal, rows.iter().zip(&candidates))?;
    let purchases: Vec<Purchase> = buy::priced(purchases, prices.as_ref());
    let assumptions = assumptions(args);
    let judged_by = goal.map(|(row, _)| format!("{} {}", row.model, row.quantisation));
    let advice = Advice {
        schema: "isotherm.advice/v1",
        devices: file.devices.iter().map(|device| device.name.as_str()).collect(),
        clients: load.clients,
        prompt_tokens: load.prompt,
        output_tokens: load.output,
        models: &rows,
        judged_by: judged_by.as_deref(),
        purchases: &purchases,
        assumptions: &assumptions,
    };
    ui.result(&advice, || describe(&rows, judged_by.as_deref(), &purchases, &assumptions))
}

fn assumptions(args: &Advise) -> Vec<String> {
    let (latency, bandwidth) = (args.link_latency, args.link_bandwidth);
    vec![
        format!("A new device is joined to every other by a way of {latency} and {bandwidth}."),
        "Where a device was not measured with a model, its times are estimated from its bandwidth and arithmetic."
            .into(),
        "A device that was measured with one format is taken to multiply the others too.".into(),
        "Bytes of a format are those of its blocks for every matrix; files mix formats and differ by some percent."
            .into(),
        "Of a model with experts, a step is taken to read all of them where they were not measured apart.".into(),
    ]
}

/// The problem of a model on devices; none, and why, where it is none.
fn problem(model: &Model, file: &DevicesFile, load: Load, objective: Objective) -> Result<PlacementProblem, String> {
    let listed = |errors: Vec<String>| errors.join("; ");
    let graph = DeviceGraph::new(file.clone())
        .map_err(|errors| listed(errors.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
    let parts = ProblemParts {
        name: model.name.clone(),
        model: model.clone(),
        graph,
        workload: Workload {
            arrivals: Arrivals::ClosedLoop { clients: load.clients },
            prompt_tokens: Length::fixed(load.prompt),
            output_tokens: Length::fixed(load.output),
            requests: load.clients,
        },
        serving: Serving { requests_max: load.clients, ..Serving::default() },
        objective,
        limits: Limits::default(),
        ambient: Celsius::of(25.0),
        inputs: Vec::new(),
    };
    PlacementProblem::new(parts).map_err(|errors| listed(errors.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

/// Plans one model for one objective: the plan and its figure, or why there is none.
fn planned(
    ui: &Ui,
    model: &Model,
    file: &DevicesFile,
    load: Load,
    objective: Objective,
) -> Result<Result<(Plan, Figure), String>, Failure> {
    let problem = match problem(model, file, load, objective) {
        Ok(problem) => problem,
        Err(why) => return Ok(Err(why)),
    };
    let quiet = Ui { quiet: true, ..*ui };
    let (outcome, plan) = plan::solve(&quiet, &problem, load.time, GAP)?;
    Ok(match (&outcome, plan.objective_value, &plan.certificate) {
        (Outcome::Optimal(_) | Outcome::Feasible { .. }, Some(value), Some(certificate)) => {
            let figure = Figure { value, gap: certificate.gap, bound_kind: certificate.bound_kind };
            Ok((plan, figure))
        }
        _ if plan.reasons.is_empty() => Err("nothing was found in the time given".to_owned()),
        _ => Err(plan.reasons.iter().take(2).cloned().collect::<Vec<_>>().join("; ")),
    })
}

fn judge(ui: &Ui, candidate: &Candidate, file: &DevicesFile, load: Load) -> Result<Row, Failure> {
    let model = &candidate.model;
    let mut row = Row {
        model: candidate.name.clone(),
        quantisation: model.quantisation.clone(),
        weight_bytes: model.weight_bytes(model.all_layers()).0,
        origin: candidate.origin,
        fits: false,
        why_not: None,
        tpot_seconds: None,
        tokens_per_second: None,
        devices: Vec::new(),
    };
    match planned(ui, model, file, load, Objective::Tpot)? {
        Ok((plan, figure)) => {
            row.fits = true;
            row.tpot_seconds = Some(figure);
            row.devices = plan.stages.iter().flat_map(|stage| stage.devices.clone()).collect();
        }
        Err(why) => row.why_not = Some(why),
    }
    if row.fits
        && let Ok((_, figure)) = planned(ui, model, file, load, Objective::Throughput)?
    {
        row.tokens_per_second = Some(figure);
    }
    Ok(row)
}

const fn vouched(kind: BoundKind) -> &'static str {
    match kind {
        BoundKind::Certified => "certified",
        BoundKind::Solver => "solver",
        BoundKind::None => "no bound",
    }
}

fn describe(rows: &[Row], judged_by: Option<&str>, purchases: &[Purchase], assumptions: &[String]) -> String {
    let heading = ["model", "format", "weights", "time per token", "bound", "tok/s", "bound", "devices"];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    for row in rows.iter().filter(|row| row.fits) {
        let figure = |figure: &Option<Figure>, show: &dyn Fn(f64) -> String| match figure {
            Some(figure) => (show(figure.value), vouched(figure.bound_kind).to_owned()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (tpot, tpot_kind) = figure(&row.tpot_seconds, &|value| plan::quantity(value, "s"));
        let (rate, rate_kind) = figure(&row.tokens_per_second, &|value| format!("{value:.1}"));
        let weights = Bytes(row.weight_bytes).to_string();
        let (model, format) = (row.model.clone(), row.quantisation.clone());
        cells.push(vec![model, format, weights, tpot, tpot_kind, rate, rate_kind, row.devices.join(" > ")]);
    }
    let mut text = String::from("What fits:\n");
    text.push_str(&table(&cells, &[2, 3, 5]));
    let others: Vec<&Row> = rows.iter().filter(|row| !row.fits).collect();
    if !others.is_empty() {
        text.push_str("\nWhat does not:\n");
        text.extend(others.iter().map(|row| {
            let why = row.why_not.as_deref().unwrap_or("unknown");
            format!("  {} {}: {why}\n", row.model, row.quantisation)
        }));
    }
    if !purchases.is_empty() {
        let goal = judged_by.map_or_else(|| "nothing fits yet".to_owned(), |goal| format!("judged by {goal}"));
        text.push_str(&format!("\nWhat one more device would give ({goal}):\n"));
        text.push_str(&buy::described(purchases));
    }
    text.push('\n');
    text.extend(assumptions.iter().map(|sentence| format!("  {sentence}\n")));
    text
}
