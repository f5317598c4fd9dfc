//! `isotherm simulate`: what a plan will do, before anything is touched.

use crate::args::{PlanAndScenario, Router, Service, Simulate};
use crate::commands::{plan, report};
use crate::failure::{Code, Done, Failure};
use crate::ui::Ui;
use crate::{files, interrupt, models};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::record::SimulationReport;
use isotherm_core::trace::Trace;
use isotherm_core::units::Seconds;
use isotherm_core::workload::Arrivals;
use isotherm_core::workload::replay::Replay;
use isotherm_reports::tables::Source;
use isotherm_sim::{Asked, Options};
use std::path::{Path, PathBuf};

mod describe;

/// Which runs to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// Number of independent runs.
    pub count: u32,
    /// Seed of the first.
    pub first: u64,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { count: 5, first: 1 }
    }
}

/// Most steps of a trace: what a browser still opens.
const STEPS_MAX: usize = 200_000;

/// Runs the command.
pub fn run(ui: &Ui, args: &Simulate) -> Done {
    if args.seeds == Some(0) {
        return Err(Failure::new(Code::Usage, "--seeds is 0; simulate at least one run"));
    }
    if args.service.first == Some(0) {
        return Err(Failure::new(Code::Usage, "--first is 0; replay at least one request"));
    }
    let named =
        PlanAndScenario { plan: args.plan.clone(), scenario: args.scenario.clone(), sources: args.sources.clone() };
    let (feasible, mut question) = plan::load_feasible(ui, &named)?;
    let slo = &mut question.problem.conditions.slo;
    slo.ttft = args.analysis.slo_ttft.or(slo.ttft);
    slo.tpot = args.analysis.slo_tpot.or(slo.tpot);
    let load = recorded(ui, &args.service)?;
    let drawn = load.is_none() || args.service.router == Router::Random || question.problem.conditions.draw();
    let count = args.seeds.unwrap_or(if drawn { Seeds::default().count } else { 1 });
    if args.analysis.fallback.is_some() && question.problem.conditions.failures.is_empty() {
        let what = format!("{} states no failure, and --fallback is for one", args.scenario.display());
        return Err(Failure::new(Code::Usage, what).remedy("add [[failures]], or leave --fallback out"));
    }
    let options =
        Options { policy: args.service.policy.into(), router: args.service.router.into(), ..of(count, args.seed) };
    let steps_max = if args.analysis.trace_out.is_some() { STEPS_MAX } else { 0 };
    let options = Options { steps_max, ..options };
    let mut report = match &args.analysis.fallback {
        Some(kept) => {
            let other = args.analysis.fallback_scenario.clone();
            let scenario = other.unwrap_or_else(|| named.scenario.clone());
            let named = PlanAndScenario { plan: kept.clone(), scenario, ..named };
            let (kept, _) = plan::load_feasible(ui, &named)?;
            let problem = &question.problem;
            isotherm_sim::rehearse(&feasible, &kept, problem, asked(problem, load.as_ref()), &options)
                .map_err(|e| Failure::io(format!("failed to rehearse {}: {}", problem.name, models::causes(&e))))?
        }
        None => serve(&feasible, &question.problem, load.as_ref(), &options)?,
    };
    if args.analysis.sensitivity {
        let asked = asked(&question.problem, load.as_ref());
        let found = isotherm_sim::sensitivity::sensitivity(&feasible, &question.problem, asked, &options);
        report.sensitivity =
            Some(found.map_err(|e| Failure::io(format!("failed to move a figure: {}", models::causes(&e))))?);
    }
    if let (Some(path), Some(trace)) = (&args.analysis.trace_out, &mut report.trace) {
        if trace.steps.len() == STEPS_MAX {
            ui.note(format!("  the trace ends after {STEPS_MAX} steps; simulate fewer requests for all of them"));
        }
        files::write(path, isotherm_reports::chrome_json(trace).as_bytes())?;
        // They are in that file, and would be most of any other.
        trace.steps.clear();
    }
    if let Some(directory) = &args.output {
        write(directory, args, &feasible, &question.problem, &report)?;
    }
    if let (Some(path), Some(trace)) = (&args.requests_out, &report.trace) {
        files::write(path, requests_csv(trace).as_bytes())?;
    }
    ui.result(&report, || describe::describe(&report))?;
    keeps_promise(&feasible, &question.problem, &report)
}

/// The prediction and its tables, with plan, scenario and devices where the folder lacks them: all that a report needs.
fn write(
    directory: &Path,
    args: &Simulate,
    plan: &FeasiblePlan,
    problem: &PlacementProblem,
    report: &SimulationReport,
) -> Done {
    for (path, otherwise) in [(&args.plan, "plan.json"), (&args.scenario, "scenario.toml")] {
        let name = path.file_name().map_or_else(|| otherwise.into(), PathBuf::from);
        files::keep(&directory.join(name), &files::read(path)?)?;
    }
    let devices = match &args.sources.devices {
        Some(path) => files::read(path)?,
        None => files::json(problem.graph.file())?,
    };
    files::keep(&directory.join("devices.json"), &devices)?;
    let record = files::write_json(&directory.join("simulation.json"), report)?;
    let sources = report.trace.as_ref().map(|trace| Source {
        scenario: &plan.plan().scenario,
        plan: plan.plan().digest(),
        record,
        trace,
    });
    report::write_tables(directory, sources.as_slice())
}

/// Share by which a simulated time may exceed what the plan states before the promise counts as broken.
const PROMISE_SHARE: f64 = 0.05;

/// A plan for least time states the time of a request that has the devices to itself. With one client that is what is
/// simulated, so the plan must keep it: a device that throttles, or a link that is shared, breaks it.
fn keeps_promise(plan: &FeasiblePlan, problem: &PlacementProblem, report: &SimulationReport) -> Done {
    let alone = matches!(report.workload.arrivals, Arrivals::ClosedLoop { clients: 1 });
    let metric = match problem.objective {
        Objective::Tpot => "tpot_seconds",
        Objective::Ttft => "ttft_seconds",
        _ => return Ok(()),
    };
    let (Some(promised), Some(found)) = (plan.plan().objective_value, report.metrics.get(metric)) else {
        return Ok(());
    };
    if !alone || found.mean <= promised * (1.0 + PROMISE_SHARE) {
        return Ok(());
    }
    let name = problem.objective.name();
    let (promised, found) = (Seconds::of(promised), Seconds::of(found.mean));
    Err(Failure::new(Code::Promise, format!("the plan promises a {name} of {promised}, the simulation finds {found}"))
        .remedy("see which device throttles or waits above, and plan without it or with more cooling"))
}

fn of(seeds: u32, seed: u64) -> Options {
    Options { seeds, seed, trace: true, attribution: true, interrupt: Some(interrupt::flag()), ..Options::default() }
}

/// The recorded load that the user names.
fn recorded(ui: &Ui, service: &Service) -> Result<Option<Replay>, Failure> {
    let Some(path) = &service.workload else { return Ok(None) };
    let load = Replay::parse(&files::read_text(path)?).map_err(|e| Failure::io(format!("{}: {e}", path.display())))?;
    if load.dropped() > 0 {
        ui.note(format!("  {} requests without prompt or answer are left out", load.dropped()));
    }
    Ok(Some(match service.first {
        Some(count) => load.first(count),
        None => load,
    }))
}

/// Simulates a plan under its own workload, with the trace of the first run.
pub fn predict(plan: &FeasiblePlan, problem: &PlacementProblem, seeds: Seeds) -> Result<SimulationReport, Failure> {
    serve(plan, problem, None, &of(seeds.count, seeds.first))
}

/// The recorded load, or the problem's own.
fn asked<'a>(problem: &'a PlacementProblem, load: Option<&'a Replay>) -> Asked<'a> {
    load.map_or(Asked::Drawn(&problem.workload), Asked::Recorded)
}

/// Simulates a plan under a recorded load, or under its own.
fn serve(
    plan: &FeasiblePlan,
    problem: &PlacementProblem,
    load: Option<&Replay>,
    options: &Options,
) -> Result<SimulationReport, Failure> {
    match load {
        Some(load) => isotherm_sim::replay(plan, problem, load, options),
        None => isotherm_sim::simulate(plan, problem, &problem.workload, options),
    }
    .map_err(|e| Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))))
}

/// One row per request: the columns of the `--requests-out` contract.
pub fn requests_csv(trace: &Trace) -> String {
    let mut text = String::from("id,arrival_seconds,prompt_tokens,output_tokens,ttft_seconds,e2e_seconds\n");
    for request in &trace.requests {
        text.push_str(&format!(
            "{},{:.9},{},{},{:.9},{:.9}\n",
            request.id,
            request.arrival_ns.seconds().value(),
            request.prompt_tokens,
            request.output_tokens,
            request.ttft().seconds().value(),
            request.e2e().seconds().value(),
        ));
    }
    text
}
