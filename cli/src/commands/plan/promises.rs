//! `isotherm plan --slo-...`: a plan that keeps times in simulation.

use crate::args::planning::Promises;
use crate::failure::{Code, Failure};
use crate::ui::{Ui, table};
use crate::{interrupt, models};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::conditions::Slo;
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Seconds;
use isotherm_planner::refine::{Metric, Promise, RefineError, Refined, Round, refine};
use isotherm_planner::{Budget, Outcome};
use isotherm_sim::{Options, SimulateError};
use std::time::Instant;

/// Fewest runs, on other seeds than those by which plans are chosen, in which a plan has to keep its promises too.
const SEEDS: u32 = 10;
/// The first of these seeds.
const AGAIN: u64 = 0x51_0a6a;

/// The promises asked for; none where no time is.
pub fn asked(promises: &Promises) -> Result<Vec<Promise>, Failure> {
    if !(promises.slo_percentile > 0.0 && promises.slo_percentile <= 100.0) {
        let what = format!("--slo-percentile is {}; give a percentage above 0, at most 100", promises.slo_percentile);
        return Err(Failure::new(Code::Usage, what));
    }
    if promises.rounds == 0 || promises.seeds == 0 {
        return Err(Failure::new(Code::Usage, "--rounds and --seeds are at least 1"));
    }
    let percent = promises.slo_percentile;
    let times = [(Metric::Ttft, promises.slo_ttft), (Metric::Tpot, promises.slo_tpot)];
    let promise = |(metric, most): (Metric, Option<Seconds>)| most.map(|most| Promise { metric, percent, most });
    let asked: Vec<Promise> = times.into_iter().filter_map(promise).collect();
    match asked.iter().find(|promise| promise.most <= Seconds::ZERO) {
        Some(promise) => Err(Failure::new(Code::Usage, format!("--slo-{} is 0 or less; give a time", promise.metric))),
        None => Ok(asked),
    }
}

/// The promises that a scenario's times are, for so many percent of the requests.
pub fn of_scenario(slo: &Slo, percent: f64) -> Promises {
    Promises { slo_ttft: slo.ttft, slo_tpot: slo.tpot, slo_percentile: percent, rounds: 12, seeds: 2 }
}

/// The best plan that keeps them in simulation.
pub fn keep(
    ui: &Ui,
    problem: &PlacementProblem,
    promises: &[Promise],
    how: &Promises,
    limit: Seconds,
) -> Result<(Outcome, Plan), Failure> {
    let begin = Instant::now();
    let remaining = || Seconds::of(limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let options = Options { seeds: how.seeds, trace: false, interrupt: Some(interrupt::flag()), ..Options::default() };
    let judge = |plan: &FeasiblePlan| -> Result<Vec<f64>, SimulateError> {
        let times = |options: Options| -> Result<Vec<f64>, SimulateError> {
            let report = isotherm_sim::simulate(plan, problem, &problem.workload, &options)?;
            Ok(promises.iter().map(|promise| percentile(&report, promise)).collect())
        };
        let first = times(Options { trace: true, ..options.clone() })?;
        if first.iter().zip(promises).any(|(found, promise)| *found > promise.most.value()) {
            return Ok(first);
        }
        // What was kept by chance is not kept in other runs.
        let again = times(Options { trace: true, seeds: how.seeds.max(SEEDS), seed: AGAIN, ..options.clone() })?;
        Ok(first.into_iter().zip(again).map(|(one, other)| one.max(other)).collect())
    };
    let found = refine(problem, promises, how.rounds, &budget, judge).map_err(|e| match e {
        RefineError::Plan(e) => Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)),
        RefineError::Judge(e) => Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))),
    })?;
    match found {
        Refined::Kept { outcome, rounds } => {
            ui.note(described(&rounds, promises));
            let mut plan = outcome.artefact(problem);
            plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
            plan.provenance.machine = Some(crate::trust::host_id());
            Ok((outcome, plan))
        }
        Refined::NoPlan(outcome) => {
            let plan = outcome.artefact(problem);
            Ok((outcome, plan))
        }
        Refined::Broken { proven: Some((promise, least)), .. } => {
            let what = format!(
                "no plan has a {} of {}: a request that has the devices to itself takes at least {least} (certified)",
                promise.metric, promise.most
            );
            Err(Failure::new(Code::Promise, what).remedy(format!("ask for {least} or more, or add a faster device")))
        }
        Refined::Broken { rounds, stopped, .. } => {
            ui.note(described(&rounds, promises));
            let nearest = nearest(&rounds, promises).unwrap_or_else(|| "nothing".to_owned());
            let left = stopped.map_or_else(String::new, |limit| format!("; {}", limit.before("all cuts were tried")));
            let what = format!("no plan that was simulated keeps the promises (heuristic cuts, no proof){left}");
            Err(Failure::new(Code::Promise, what).remedy(format!("the nearest that was seen: {nearest}")))
        }
    }
}

/// A percentile of a simulation, in seconds: from the requests of the first run where the report has no such
/// percentile.
fn percentile(report: &isotherm_core::record::SimulationReport, promise: &Promise) -> f64 {
    let name = format!("{}_seconds", promise.metric);
    let known = report.percentiles.get(&name).and_then(|all| all.iter().find(|p| p.percent == promise.percent));
    if let Some(known) = known {
        return known.value;
    }
    let Some(trace) = &report.trace else { return f64::INFINITY };
    let mut times: Vec<f64> = trace
        .requests
        .iter()
        .filter_map(|request| match promise.metric {
            Metric::Ttft => Some(request.ttft().seconds().value()),
            Metric::Tpot => request.tpot_seconds(),
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rank = (promise.percent / 100.0 * times.len() as f64).ceil() as usize;
    times.get(rank.max(1) - 1).copied().unwrap_or(f64::INFINITY)
}

/// The times of the round that came nearest, in words.
fn nearest(rounds: &[Round], promises: &[Promise]) -> Option<String> {
    let worst =
        |round: &&Round| round.found.iter().zip(promises).map(|(found, p)| found / p.most.value()).fold(0.0, f64::max);
    let judged = rounds.iter().filter(|round| !round.found.is_empty());
    let best = judged.min_by(|a, b| worst(a).total_cmp(&worst(b)))?;
    let time = |(found, promise): (&f64, &Promise)| format!("{} {}", promise.metric, Seconds::of(*found));
    Some(best.found.iter().zip(promises).map(time).collect::<Vec<_>>().join(", "))
}

fn described(rounds: &[Round], promises: &[Promise]) -> String {
    let mut heading =
        vec!["round".to_owned(), "batch at most".to_owned(), "stages at most".to_owned(), "planned".to_owned()];
    let divided = rounds.iter().any(|round| round.divided);
    heading.extend(divided.then(|| "divided".to_owned()));
    heading.extend(promises.iter().map(|p| format!("{} p{} (at most {})", p.metric, p.percent, p.most)));
    heading.push("kept".to_owned());
    let mut rows = vec![heading];
    for (i, round) in rounds.iter().enumerate() {
        let cut = |cut: Option<u32>| cut.map_or_else(|| "-".to_owned(), |most| most.to_string());
        let mut row = vec![(i + 1).to_string(), cut(round.batch_max), cut(round.stages_max)];
        row.push(round.value.map_or_else(|| "no plan".to_owned(), |value| format!("{value:.3}")));
        row.extend(divided.then(|| if round.divided { "yes" } else { "no" }.to_owned()));
        let found = |at: usize| round.found.get(at).map_or_else(|| "-".to_owned(), |&s| Seconds::of(s).to_string());
        row.extend((0..promises.len()).map(found));
        row.push(if round.kept { "yes" } else { "no" }.to_owned());
        rows.push(row);
    }
    format!("\n  plans that were simulated (cuts are heuristic):\n{}", table(&rows, &[0, 1, 2, 3]))
}
