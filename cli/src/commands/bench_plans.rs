//! `isotherm bench plans`: what plans come to in simulation, this planner's and those of others in the same runs.
//!
//! For each scenario the plan with everything on (heat, power, times to keep) and the plans of other planners are
//! simulated under the same load with the same seeds. A plan's promise is what it is worth, or what it came to on other
//! seeds where it was chosen by simulation; the table says how far the simulation is from it, and how far the hottest
//! device is from the temperature that the plan states. Another planner
//! *wins* where its mean is better by more than both confidence intervals together: a defect, or a finding.

use crate::args::BenchPlans;
use crate::commands::bench_planner::within;
use crate::commands::plan::{promises, quantity, trials};
use crate::failure::{Code, Done, Failure};
use crate::question;
use crate::ui::{Ui, percent, table};
use crate::{files, interrupt, models};
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::ids::Layers;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::record::SimulationReport;
use isotherm_core::workload::{Arrivals, Length};
use isotherm_planner::baselines::{Baseline, baseline};
use isotherm_sim::Options;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Name of this planner in the table.
const OURS: &str = "isotherm";
/// Share within which a promise counts as kept.
const KEPT: f64 = 0.05;
/// Most requests that follow one another.
const ALONE_MAX: u32 = 100;
/// Most devices for Helix's integer program, which has a column for every link.
const LINK_PLANNERS_MAX: usize = 60;

/// One planner's plan on one scenario.
#[derive(Debug, Clone, Serialize)]
struct Row {
    scenario: String,
    planner: String,
    metric: &'static str,
    /// What the plan is worth.
    planned: Option<f64>,
    /// What it came to in the simulations by which it was chosen, on other seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<f64>,
    /// For times: mean over runs in which requests follow one another, each with the devices to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<f64>,
    /// Mean over the runs.
    simulated: Option<f64>,
    /// Half width of its 95 % confidence interval.
    ci95: Option<f64>,
    /// Simulated over expected, or over planned where nothing is, less 1; for times that of a request by itself.
    error: Option<f64>,
    /// Share of the requests that keep the times asked for, where any are.
    kept: Option<f64>,
    /// Hottest device in simulation.
    celsius: Option<f64>,
    /// Hottest device as the plan states it.
    celsius_planned: Option<f64>,
    /// `wins`, `loses` or `even` against isotherm.
    verdict: Option<&'static str>,
    note: Option<String>,
}

#[derive(Serialize)]
struct Record<'a> {
    schema: &'static str,
    tool_version: &'static str,
    machine: String,
    seeds: u32,
    rows: &'a [Row],
}

/// Runs the command.
pub fn run(ui: &Ui, args: &BenchPlans) -> Done {
    if args.seeds == 0 || args.cap.value() <= 0.0 {
        return Err(Failure::new(Code::Usage, "--seeds and --cap must be above zero"));
    }
    let mut rows: Vec<Row> = Vec::new();
    for path in &args.scenarios {
        if interrupt::flag().load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        compare(ui, path, args, &mut rows)?;
    }
    let (schema, tool_version, machine) = ("isotherm.bench-plans/v1", TOOL_VERSION, crate::trust::host_id());
    let record = Record { schema, tool_version, machine, seeds: args.seeds, rows: &rows };
    let text = describe(&rows, args);
    if let Some(folder) = &args.output {
        files::write_json(&folder.join("plans.json"), &record)?;
        files::write(&folder.join("plans.txt"), text.as_bytes())?;
    }
    ui.result(&record, || text)
}

fn compare(ui: &Ui, path: &Path, args: &BenchPlans, rows: &mut Vec<Row>) -> Done {
    let scenario = question::read(path)?;
    let mut problem = question::of_scenario(path, &scenario)?;
    if let Some(ambient) = args.ambient {
        problem.ambient = ambient;
        problem.conditions.air.clear();
    }
    problem.workload.requests = args.requests.unwrap_or(problem.workload.requests);
    if let Some(clients) = args.clients {
        if clients == 0 {
            return Err(Failure::new(Code::Usage, "--clients is 0; give at least one"));
        }
        problem.workload.arrivals = Arrivals::ClosedLoop { clients };
        problem.serving.requests_max = clients;
    }
    if let Some(tokens) = args.output_tokens {
        problem.workload.output_tokens = Length::fixed(tokens.max(1));
    }
    let ours = ours(ui, &problem, args)?;
    let (plan, expected) = match &ours {
        Ok((plan, expected)) => (Ok(plan), *expected),
        Err(why) => (Err(why.clone()), None),
    };
    let mut first = row(ui, &problem, OURS, plan, args)?;
    first.expected = expected;
    if let (Some(expected), Some(simulated)) = (expected, first.simulated) {
        first.error = Some(simulated / expected - 1.0);
    }
    for rule in Baseline::ALL {
        let made = if rule == Baseline::HelixMilp && problem.graph.devices().len() > LINK_PLANNERS_MAX {
            Err(format!("not run: a column for every link, more than {LINK_PLANNERS_MAX} devices"))
        } else {
            within(args.cap, |budget| baseline(&problem, rule, budget))
                .map_err(|e| Failure::new(Code::Limit, format!("{} failed on {}: {e}", rule.name(), problem.name)))?
                .ok_or_else(|| "gives no plan that holds".to_owned())
        };
        let mut other = row(ui, &problem, rule.name(), made.as_ref().map_err(Clone::clone), args)?;
        other.verdict = verdict(problem.objective, &first, &other);
        rows.push(other);
    }
    for file in &args.placement {
        let given: BTreeMap<String, (u32, u32)> =
            serde_json::from_slice(&files::read(file)?).map_err(|e| Failure::file(file, e))?;
        let placement: Vec<(String, Layers)> =
            given.into_iter().map(|(name, (start, end))| (name, Layers { start, end })).collect();
        let made = isotherm_planner::baselines::placed(&problem, &placement, None, "nobody")
            .map_err(|e| Failure::file(file, e))?
            .ok_or_else(|| "is no plan that holds".to_owned());
        let name = file.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut other = row(ui, &problem, &name, made.as_ref().map_err(Clone::clone), args)?;
        other.verdict = verdict(problem.objective, &first, &other);
        rows.push(other);
    }
    let at = rows.len() - Baseline::ALL.len() - args.placement.len();
    rows.insert(at, first);
    Ok(())
}

/// This planner's plan and what is expected of it beyond its worth; or why there is none.
type Ours = Result<(FeasiblePlan, Option<f64>), String>;

fn ours(ui: &Ui, problem: &PlacementProblem, args: &BenchPlans) -> Result<Ours, Failure> {
    let slo = problem.conditions.slo;
    if problem.objective == Objective::Throughput && !slo.is_none() {
        let how = promises::of_scenario(&slo, args.percentile);
        let asked = promises::asked(&how)?;
        return Ok(match promises::keep(ui, problem, &asked, &how, args.cap) {
            Ok((outcome, _)) => outcome.plan().cloned().map(|plan| (plan, None)).ok_or_else(|| "no plan".to_owned()),
            Err(failure) => Err(failure.message),
        });
    }
    if problem.objective == Objective::Throughput && args.trials > 0 {
        let (outcome, plan) = trials::take(ui, problem, args.trials, args.cap, 1e-6)?;
        let expected = plan.provenance.simulated.map(|simulated| simulated.tokens_per_second);
        return Ok(outcome.plan().cloned().map(|plan| (plan, expected)).ok_or_else(|| plan.reasons.join("; ")));
    }
    let outcome = within(args.cap, |budget| isotherm_planner::plan(problem, budget))
        .map_err(|e| Failure::new(Code::Limit, format!("{OURS} failed on {}: {e}", problem.name)))?;
    let plan = outcome.plan().cloned().map(|plan| (plan, None));
    Ok(plan.ok_or_else(|| outcome.artefact(problem).reasons.join("; ")))
}

/// A plan in simulation.
fn row(
    ui: &Ui,
    problem: &PlacementProblem,
    planner: &str,
    plan: Result<&FeasiblePlan, String>,
    args: &BenchPlans,
) -> Result<Row, Failure> {
    let metric = match problem.objective {
        Objective::Tpot => "tpot_seconds",
        Objective::Ttft => "ttft_seconds",
        _ => "tokens_per_second",
    };
    let mut row = Row {
        scenario: problem.name.clone(),
        planner: planner.to_owned(),
        metric,
        planned: None,
        expected: None,
        alone: None,
        simulated: None,
        ci95: None,
        error: None,
        kept: None,
        celsius: None,
        celsius_planned: None,
        verdict: None,
        note: None,
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(why) => {
            row.note = Some(why);
            return Ok(row);
        }
    };
    let figure = if problem.objective.spends() { Objective::Throughput } else { problem.objective };
    row.planned = isotherm_core::spending::figure(plan.plan(), problem, figure);
    let stated = plan.plan().sustained.iter().flat_map(|sustained| &sustained.devices);
    row.celsius_planned = stated.filter_map(|device| Some(device.celsius?.value())).reduce(f64::max);
    let options = Options { seeds: args.seeds, seed: 1, interrupt: Some(interrupt::flag()), ..Options::default() };
    match isotherm_sim::simulate(plan, problem, &problem.workload, &options) {
        Ok(report) => found(&mut row, &report),
        Err(e) => row.note = Some(format!("not simulated: {}", models::causes(&e))),
    }
    if !problem.objective.serves() {
        alone(&mut row, plan, problem, &options);
    }
    let shown = row.simulated.map_or_else(|| "nothing".to_owned(), |value| quantity(value, unit(&row)));
    ui.note(format!("  {} by {planner}: {shown}", problem.name));
    Ok(row)
}

fn found(row: &mut Row, report: &SimulationReport) {
    if let Some(statistic) = report.metrics.get(row.metric) {
        (row.simulated, row.ci95) = (Some(statistic.mean), statistic.ci95);
        row.error = row.planned.map(|planned| statistic.mean / planned - 1.0);
    }
    row.kept = report.goodput.as_ref().map(|goodput| goodput.share);
    let hottest = report.devices.iter().filter_map(|device| Some(device.temperature_max_celsius?.value()));
    row.celsius = hottest.reduce(f64::max);
}

/// A time is promised to a request that has the devices to itself, so that is what it is compared with: the same
/// requests, one after another. What the load makes of it stays beside it, and is what planners are compared by.
fn alone(row: &mut Row, plan: &FeasiblePlan, problem: &PlacementProblem, options: &Options) {
    let mut load = problem.workload.clone();
    load.arrivals = Arrivals::ClosedLoop { clients: 1 };
    load.requests = load.requests.min(ALONE_MAX);
    let report = isotherm_sim::simulate(plan, problem, &load, options);
    let one = report.ok().and_then(|report| report.metrics.get(row.metric).map(|metric| metric.mean));
    row.alone = one;
    row.error = one.zip(row.planned).map(|(one, planned)| one / planned - 1.0);
}

fn unit(row: &Row) -> &'static str {
    if row.metric == "tokens_per_second" { "tok/s" } else { "s" }
}

/// How another planner's plan did against this one's, beyond what seeds explain.
fn verdict(objective: Objective, ours: &Row, other: &Row) -> Option<&'static str> {
    let (Some(own), Some(theirs)) = (ours.simulated, other.simulated) else {
        return ours.simulated.and(Some("loses"));
    };
    let noise = ours.ci95.unwrap_or(0.0) + other.ci95.unwrap_or(0.0) + 1e-6 * own;
    let ahead = if objective.serves() { theirs - own } else { own - theirs };
    Some(match ahead {
        ahead if ahead > noise => "wins",
        ahead if ahead < -noise => "loses",
        _ => "even",
    })
}

fn describe(rows: &[Row], args: &BenchPlans) -> String {
    let heading =
        ["scenario", "planner", "planned", "expected", "simulated", "±", "error", "SLO kept", "hottest", "planned", ""];
    let mut cells = vec![heading.map(str::to_owned).to_vec()];
    let dash = || "-".to_owned();
    for row in rows {
        let shown = |value: Option<f64>| value.map_or_else(dash, |value| quantity(value, unit(row)));
        let celsius = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.1} °C"));
        cells.push(vec![
            row.scenario.clone(),
            row.planner.clone(),
            shown(row.planned),
            shown(row.expected),
            shown(row.simulated),
            shown(row.ci95),
            row.error.map_or_else(dash, |error| format!("{:+.1} %", error * 100.0)),
            row.kept.map_or_else(dash, percent),
            celsius(row.celsius),
            celsius(row.celsius_planned),
            row.verdict.unwrap_or_default().to_owned(),
        ]);
    }
    let mut text = table(&cells, &[2, 3, 4, 5, 6, 7, 8, 9]);
    let ours = || rows.iter().filter(|row| row.planner == OURS && row.error.is_some());
    let kept = ours().filter(|row| row.error.is_some_and(|error| error.abs() <= KEPT)).count();
    let of = |word: &str| rows.iter().filter(|row| row.verdict == Some(word)).count();
    text.push_str(&format!(
        "\n  {} runs each; promises within {:.0} %: {kept} of {}; other planners: {} win, {} even, {} lose\n",
        args.seeds,
        KEPT * 100.0,
        ours().count(),
        of("wins"),
        of("even"),
        of("loses"),
    ));
    for row in rows.iter().filter(|row| row.verdict == Some("wins")) {
        text.push_str(&format!("  {} wins on {}\n", row.planner, row.scenario));
    }
    for row in ours().filter(|row| row.verdict.is_none()) {
        if let (Some(alone), Some(simulated)) = (row.alone, row.simulated)
            && (simulated / alone - 1.0).abs() > KEPT
        {
            let (alone, under) = (quantity(alone, unit(row)), quantity(simulated, unit(row)));
            text.push_str(&format!(
                "  {}: {alone} for a request by itself, which is what is planned; {under} under the scenario's load\n",
                row.scenario
            ));
        }
    }
    for row in rows {
        if let Some(note) = &row.note {
            text.push_str(&format!("  {} on {}: {note}\n", row.planner, row.scenario));
        }
    }
    text
}
