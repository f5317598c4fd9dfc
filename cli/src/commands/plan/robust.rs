//! `isotherm plan --robust`: a plan that holds although devices are slower than was measured.

use crate::args::planning::Guarded;
use crate::failure::{Code, Failure};
use crate::ui::{Ui, plain_percent};
use crate::{interrupt, models};
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::units::Seconds;
use isotherm_planner::robust::{Guard, Robust, Uncertainty, quantile, robust, slowness};
use isotherm_planner::{Budget, Outcome};
use isotherm_sim::Options;
use isotherm_sim::random::Stream;
use std::time::Instant;

/// The plan that is worth most at its worst, and what Monte Carlo makes of it.
pub fn guard(
    ui: &Ui,
    problem: &PlacementProblem,
    guard: Guard,
    asked: &Guarded,
    limit: Seconds,
) -> Result<(Outcome, Plan), Failure> {
    let share = |name: &str, value: f64, low: f64, high: f64| {
        let what = format!("--{name} is {value}; give a number above {low} and below {high}");
        if value > low && value < high { Ok(()) } else { Err(Failure::new(Code::Usage, what)) }
    };
    share("robust-quantile", asked.robust_quantile, 0.5, 1.0)?;
    share("assumed-spread", asked.assumed_spread, -1e-12, 1e3)?;
    let uncertainty = Uncertainty { guard, quantile: asked.robust_quantile, assumed: asked.assumed_spread };
    let begin = Instant::now();
    let remaining = || Seconds::of(limit.value() - begin.elapsed().as_secs_f64());
    let budget = Budget { remaining: Some(&remaining), interrupt: Some(interrupt::flag()), ..Budget::default() };
    let found = robust(problem, &uncertainty, &budget)
        .map_err(|e| Failure::new(Code::Limit, format!("failed to plan {}: {e}", problem.name)))?;
    let found = match found {
        Ok(found) => found,
        Err(outcome) => {
            let plan = outcome.artefact(problem);
            return Ok((outcome, plan));
        }
    };
    let mut plan = found.outcome.artefact(problem);
    plan.provenance.solve_seconds = Some(begin.elapsed().as_secs_f64());
    plan.provenance.machine = Some(crate::trust::host_id());
    ui.note(described(problem, &found, &uncertainty));
    if asked.monte_carlo > 0
        && let Some(feasible) = found.outcome.plan()
    {
        ui.note(drawn(problem, feasible, &found, &uncertainty, asked.monte_carlo)?);
    }
    Ok((found.outcome, plan))
}

fn described(problem: &PlacementProblem, found: &Robust, uncertainty: &Uncertainty) -> String {
    let unit = problem.objective.unit();
    let value = |value: f64| super::quantity(value, unit);
    let against = match uncertainty.guard {
        Guard::Quantile => "every device".to_owned(),
        Guard::Budget(gamma) => format!("any {gamma} devices"),
    };
    let mut text = format!(
        "\n  at its worst, {against} as slow as at quantile {} of what was measured: {} = {}",
        uncertainty.quantile,
        problem.objective.name(),
        value(found.worst)
    );
    if !found.slow.is_empty() {
        text.push_str(&format!(", with {} slow", found.slow.join(" and ")));
    }
    let vouched = match found.bound_kind {
        BoundKind::Certified => "certified",
        BoundKind::Solver => "on the solver's word",
        BoundKind::None => "unknown",
    };
    if let (Some(bound), Some(gap)) = (found.bound, found.gap()) {
        text.push_str(&format!(
            "\n  no plan is worth more at its worst than {} ({vouched}), gap {:.3} %; {} scenarios",
            value(bound),
            gap * 100.0,
            found.scenarios
        ));
    }
    if let Some(nominal) = found.nominal_worst {
        text.push_str(&format!("\n  the plan that is best as measured is worth {} at its worst", value(nominal)));
    }
    let unknown =
        problem.graph.device_ids().filter(|&id| problem.profile(id).is_none_or(|p| p.spread.is_none())).count();
    if unknown > 0 {
        text.push_str(&format!("\n  of {unknown} devices no spread is known; {} is assumed", uncertainty.assumed));
    }
    if let Guard::Budget(gamma) = uncertainty.guard {
        let held = found.outcome.plan().map_or(1, |plan| plan.plan().stages.iter().map(|s| s.devices.len()).sum());
        let above = (gamma as f64 - 1.0) / (held as f64).sqrt();
        text.push_str(&format!(
            "\n  were deviations independent, symmetric and never beyond that, at most {} of draws would be worse",
            plain_percent(1.0 - normal(above))
        ));
    }
    text
}

/// Share of a normal distribution below a number of deviations: the inverse of [`quantile`], by bisection.
fn normal(deviations: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if quantile(middle) < deviations { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Simulates the plan with speeds drawn from what was measured, and says how many draws keep what was promised. A device
/// faster than its median counts as at its median, so that only slowness is drawn.
fn drawn(
    problem: &PlacementProblem,
    plan: &FeasiblePlan,
    found: &Robust,
    uncertainty: &Uncertainty,
    draws: u32,
) -> Result<String, Failure> {
    let (metric, more) = match problem.objective {
        Objective::Tpot => ("tpot_seconds", false),
        Objective::Ttft => ("ttft_seconds", false),
        _ => ("tokens_per_second", true),
    };
    let deviations = quantile(uncertainty.quantile).max(f64::MIN_POSITIVE);
    let slowness = slowness(problem, uncertainty);
    let options = Options { interrupt: Some(interrupt::flag()), ..Options::default() };
    let simulate = |problem: &PlacementProblem, seed: u64| -> Result<Option<f64>, Failure> {
        let options = Options { seed, ..options.clone() };
        let report = isotherm_sim::simulate(plan, problem, &problem.workload, &options)
            .map_err(|e| Failure::io(format!("failed to simulate {}: {}", problem.name, models::causes(&e))))?;
        Ok(report.metrics.get(metric).map(|statistic| statistic.mean))
    };
    let mut stream = Stream::new(1, 0, "speeds of devices");
    let mut values = Vec::new();
    for draw in 0..draws {
        let factors: Vec<f64> = slowness
            .iter()
            .map(|slow| 1.0 + (slow - 1.0) / deviations * quantile(stream.unit()).clamp(0.0, 8.0))
            .collect();
        let slowed = problem.at_speeds(|id| Some(problem.speed(id) / factors[id.index()]));
        values.extend(simulate(&slowed, u64::from(draw) + 1)?);
    }
    let nominal = simulate(problem, 1)?;
    values.sort_by(f64::total_cmp);
    let keeps = |&&value: &&f64| if more { value >= found.worst } else { value <= found.worst };
    let kept = values.iter().filter(keeps).count();
    let unit = if more { "tok/s" } else { "s" };
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.max(1) - 1).map_or_else(|| "-".to_owned(), |&value| super::quantity(value, unit))
    };
    let (bad, middle) = if more { (0.05, 0.5) } else { (0.95, 0.5) };
    Ok(format!(
        "  Monte Carlo, {} simulated draws of all devices' speeds: {kept} of them ({}) keep the worst that is stated; \
         median {}, worst twentieth {}; without slowness {}",
        values.len(),
        plain_percent(kept as f64 / values.len().max(1) as f64),
        at(middle),
        at(bad),
        nominal.map_or_else(|| "-".to_owned(), |value| super::quantity(value, unit)),
    ))
}
