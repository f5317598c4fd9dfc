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

use crate::assemble::{Found, certify, restate_unused};
use crate::budget::{Budget, GAP_NONE, Limit};
use crate::door;
use crate::infeasible::certain;
use crate::outcome::{Outcome, PlanError, Reason, Reasons};
use crate::tables::Tables;
use candidates::{Best, Search};
use isotherm_core::plan::{BoundKind, Certificate, Evidence};
use isotherm_core::problem::{Division, Goal, Objective, PlacementProblem};

/// A gap of the certified bound up to which it is preferred to a tighter one on the solver's word.
const CERTIFIED_GAP: f64 = 0.01;

/// Share of the time for the best plan by throughput.
const FIRST: f64 = 0.4;
/// Share of the rest for the best plan by the figure of a goal.
const OTHERS: f64 = 0.3;

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
    if let Some(reasons) = unpriced(problem, &free) {
        return Ok(Outcome::Infeasible(reasons));
    }
    let mut best = Best::new(problem);
    best.offer(found.clone());
    // The best by a goal's figure reaches it, if any plan does.
    for goal in problem.limits.goals.iter().filter(|goal| !goal.figure.spends() && goal.figure != free.objective) {
        if !best.holds() {
            let by_goal = budget.part(OTHERS, |budget| door::plan(&freed(problem, goal.figure), budget))?;
            by_goal.plan().into_iter().for_each(|found| {
                best.offer(found.plan().clone());
            });
        }
    }
    // What bounds all plans bounds those that reach goals.
    let of_all = certificate.clone().filter(|_| !problem.objective.spends());
    if let Some(certificate) = of_all.as_ref().filter(|c| best.holds() && c.gap.is_some_and(|gap| gap <= GAP_NONE)) {
        return finished(problem, best, &Bounds { solver: None, given: Some(certificate.clone()) }, None);
    }
    let search = Search { problem, budget, most: certificate.as_ref().and_then(|c| c.bound) };
    let solver = search.run(&free, &mut best)?;
    finished(problem, best, &Bounds { solver, given: of_all }, budget.exhausted())
}

/// Why no plan can be valued: too few devices of which power and prices are known that the objective or a goal asks for.
fn unpriced(problem: &PlacementProblem, free: &PlacementProblem) -> Option<Reasons> {
    let goals = problem.limits.goals.iter().map(|goal| goal.figure);
    let figures: Vec<Objective> = goals.chain([problem.objective]).filter(|figure| figure.spends()).collect();
    let mut known = free.clone();
    let mut reasons = Vec::new();
    for candidate in Tables::new(free, !free.objective.serves()).candidates {
        let Some(figure) = figures.iter().find(|&&figure| free.cost(candidate.id, figure).is_none()) else { continue };
        let device = free.graph.device(candidate.id).name.clone();
        known.limits.banned.push(device.clone());
        let what = match figure {
            Objective::MoneyPerHour => "its price by the hour",
            Objective::Money => "its price by the hour, or its power and the price of energy,",
            _ => "its power",
        };
        let why = format!("{what} is not known, and {} is asked for; state it in the scenario", figure.name());
        reasons.push(Reason::LeftOut { device, why });
    }
    if reasons.is_empty() {
        return None;
    }
    let rest = certain(&Tables::new(&known, !known.objective.serves()));
    let short = !rest.is_empty();
    reasons.extend(rest.into_iter().filter(|reason| matches!(reason, Reason::TooLarge { .. })));
    short.then_some(Reasons(reasons))
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
    let Some((mut plan, value, how)) = best.into_plan() else {
        return Ok(Outcome::Unknown { stopped_by: stopped.unwrap_or(Limit::Searches) });
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
    restate_unused(problem, &mut plan, found.bound);
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
