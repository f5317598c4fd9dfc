//! Plans that spend little, and plans that have to reach something beside being the best.
//!
//! The best plan by throughput comes first: it says whether a floor under the rate can be had, and how fast any plan is.
//! Then, batch by batch, integer programs over positions (see `formulation/spending.rs`) look for what costs less
//! while it reaches all goals. What they find is routed, slowed where heat asks for it, and valued like any other plan.
//! The bound comes of prices of layers (`goals/prices.rs`), which the checker verifies; where the programs say more, of the
//! solver.
//!
//! *First this, then that* (lexicographic): the best by the first figure, then the best by the second among plans that lose
//! no more of the first than a share, and so on.

mod candidates;
mod prices;

use crate::assemble::{Found, certify};
use crate::budget::{Budget, GAP_NONE, Limit};
use crate::door;
use crate::outcome::{Outcome, PlanError, Reason, Reasons};
use candidates::{Best, Search};
use isotherm_core::plan::{BoundKind, Certificate, Evidence};
use isotherm_core::problem::{Division, Goal, Objective, PlacementProblem};

/// A gap of the certified bound up to which it is preferred to a tighter one on the solver's word.
const CERTIFIED_GAP: f64 = 0.01;

/// Share of the time for the best plan by throughput.
const FIRST: f64 = 0.4;

/// Whether a problem is answered here.
pub(crate) fn concerns(problem: &PlacementProblem) -> bool {
    problem.objective.spends() || !problem.limits.goals.is_empty()
}

/// The best plan that reaches all goals.
pub(crate) fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let free = freed(problem, if problem.objective.serves() { Objective::Throughput } else { problem.objective });
    let fastest = budget.part(FIRST, |budget| door::plan(&free, budget))?;
    let Some(found) = fastest.plan().map(|found| found.plan().clone()) else { return Ok(fastest) };
    let certificate = found.certificate.clone();
    if let Some(reasons) = beyond(problem, certificate.as_ref()) {
        return Ok(Outcome::Infeasible(reasons));
    }
    let mut best = Best::new(problem);
    best.offer(found.clone());
    // What bounds all plans bounds those that reach goals.
    let of_all = certificate.clone().filter(|_| !problem.objective.spends());
    if let Some(certificate) = of_all.as_ref().filter(|c| best.holds() && c.gap.is_some_and(|gap| gap <= GAP_NONE)) {
        return finished(problem, best, &Bounds { solver: None, given: Some(certificate.clone()) }, None);
    }
    let search = Search { problem, budget, most: certificate.as_ref().and_then(|c| c.bound) };
    let solver = search.run(&free, &mut best)?;
    finished(problem, best, &Bounds { solver, given: of_all }, budget.exhausted())
}

/// The problem without goals, by another objective.
fn freed(problem: &PlacementProblem, objective: Objective) -> PlacementProblem {
    let mut free = problem.clone();
    free.limits.goals.clear();
    // What is bought is not divided.
    if problem.objective.spends() {
        free.limits.division = Division::Never;
    }
    free.objective = objective;
    free
}

/// Why no plan reaches the goals, where a certified bound says so.
fn beyond(problem: &PlacementProblem, fastest: Option<&Certificate>) -> Option<Reasons> {
    let mut reasons = Vec::new();
    for goal in &problem.limits.goals {
        let bound = match goal.figure {
            Objective::Throughput if problem.objective.serves() => {
                fastest.filter(|c| c.bound_kind == BoundKind::Certified).and_then(|c| c.bound)
            }
            figure if figure.spends() => {
                let mut other = problem.clone();
                other.objective = figure;
                prices::best(&other).map(|(bound, _)| bound)
            }
            _ => None,
        };
        // A bound is right to a billionth.
        let missed = |bound: f64| {
            if goal.figure.maximises() { bound * (1.0 + 1e-8) < goal.limit } else { bound * (1.0 - 1e-8) > goal.limit }
        };
        if let Some(bound) = bound.filter(|&bound| missed(bound)) {
            reasons.push(Reason::Goal { goal: *goal, bound });
        }
    }
    (!reasons.is_empty()).then_some(Reasons(reasons))
}

/// What is known of all plans.
struct Bounds {
    /// On the word of the solver.
    solver: Option<f64>,
    /// That of the plan without goals.
    given: Option<Certificate>,
}

/// The best plan with the bound that says most.
fn finished(
    problem: &PlacementProblem,
    best: Best<'_>,
    bounds: &Bounds,
    stopped: Option<Limit>,
) -> Result<Outcome, PlanError> {
    let Some((plan, value, how)) = best.into_plan() else {
        return Ok(Outcome::Unknown { stopped_by: stopped.unwrap_or(Limit::Nodes) });
    };
    let spends = problem.objective.spends();
    let (proved, evidence) = if spends {
        let found = prices::best(problem);
        (found.as_ref().map(|(bound, _)| *bound), found.map(|(_, prices)| Evidence::LayerPrices { prices }))
    } else {
        let certified = bounds.given.as_ref().filter(|c| c.bound_kind == BoundKind::Certified);
        (certified.and_then(|c| c.bound), certified.and_then(|c| c.evidence.clone()))
    };
    let given = bounds.given.as_ref().and_then(|c| c.bound);
    let gap = |bound: f64| (bound - value).abs() / value.abs();
    let solver = match (bounds.solver, given) {
        (Some(a), Some(b)) if problem.objective.maximises() => Some(a.min(b)),
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    };
    let certified = proved.filter(|&bound| match solver {
        Some(other) => gap(bound) <= CERTIFIED_GAP || gap(bound) <= gap(other) * 1.05,
        None => true,
    });
    let by_solver = certified.is_none() && solver.is_some();
    let found = Found {
        bound: certified.or(solver),
        evidence: evidence.filter(|_| certified.is_some()).into_iter().collect(),
        method: how,
        solver: by_solver.then(|| crate::formulation::solve::HIGHS.to_owned()),
        nodes: None,
        stopped,
    };
    certify(problem, plan, found)
}

/// The best plan by the last of several objectives, among those that are nearly the best by the ones before: a later one
/// may cost an earlier one no more than a share `give`.
///
/// # Errors
/// Planning failed.
pub fn in_turn(
    problem: &PlacementProblem,
    objectives: &[Objective],
    give: f64,
    budget: &Budget<'_>,
) -> Result<Outcome, PlanError> {
    let mut asked = problem.clone();
    let Some((&last, before)) = objectives.split_last() else { return door::plan(problem, budget) };
    for (i, &objective) in before.iter().enumerate() {
        asked.objective = objective;
        let share = 1.0 / (objectives.len() - i) as f64;
        let outcome = budget.part(share, |budget| door::plan(&asked, budget))?;
        let Some(value) = outcome.plan().and_then(|found| found.plan().objective_value) else { return Ok(outcome) };
        let limit = if objective.maximises() { value * (1.0 - give) } else { value * (1.0 + give) };
        asked.limits.goals.push(Goal { figure: objective, limit });
    }
    asked.objective = last;
    door::plan(&asked, budget)
}
