//! Plans of which none is better than another in every respect.
//!
//! The ends of the frontier are the best plans for one figure alone, as certain as their certificates. Between them lie
//! plans of an epsilon-constraint sweep. For what serving costs: the least cost of each rate on a ladder from that of the
//! cheapest plan to the greatest; a point that is proven to cost least at its rate is as certain as that proof. For depth,
//! which is what a request waits for: the greatest throughput with one stage less per route, again and again; these are
//! *heuristic*, since other constraints might give points in between, or better ones.

use crate::budget::Budget;
use crate::door;
use crate::outcome::PlanError;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::plan::BoundKind;
use isotherm_core::problem::{Goal, Objective, PlacementProblem};
use isotherm_core::spending::figure;

/// Steps of the sweep over depth.
const DEPTHS_MAX: usize = 16;
/// Rates between the cheapest plan and the fastest at which the least cost is asked for.
const RATES: usize = 6;
/// Relative difference of figures that counts as none.
const NEARLY: f64 = 2e-5;

/// Who vouches for a point being on the frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// It is the best for one figure, at its rate where that is a cost; certified.
    Certified,
    /// The same on the solver's word.
    Solver,
    /// Nobody: it is what the sweep found.
    Heuristic,
}

/// A plan on the frontier.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The plan; it names the objective that it was made for.
    pub plan: FeasiblePlan,
    /// Its figures, axis by axis.
    pub figures: Vec<f64>,
    /// How sure it is.
    pub vouched: Vouched,
    /// How much better a plan for its objective and goals might be, as a share; absent without a bound.
    pub gap: Option<f64>,
}

/// The frontier as far as the sweep finds it, in order of the first axis, best first. An axis is the figure that an
/// objective asks for. Plans that lack a figure are left out; with a power unknown there is no point with energy.
///
/// # Errors
/// The solver failed.
pub fn frontier(problem: &PlacementProblem, axes: &[Objective], budget: &Budget<'_>) -> Result<Vec<Point>, PlanError> {
    let mut points: Vec<Point> = Vec::new();
    let of = |objective| {
        let mut other = problem.clone();
        other.objective = objective;
        other
    };
    let serving = of(Objective::Throughput);
    let mut offer = |found: &FeasiblePlan, end: bool| {
        let of_axis = |axis: &Objective| figure(found.plan(), problem, *axis);
        let figures = axes.iter().map(of_axis).collect::<Option<Vec<f64>>>()?;
        let kind = found.plan().certificate.as_ref().map(|c| (c.bound_kind, c.gap.unwrap_or(f64::INFINITY)));
        let vouched = match kind {
            Some((BoundKind::Certified, gap)) if end && gap <= budget.gap_target.max(1e-6) => Vouched::Certified,
            Some((BoundKind::Solver, gap)) if end && gap <= budget.gap_target.max(1e-6) => Vouched::Solver,
            _ => Vouched::Heuristic,
        };
        let gap = kind.map(|(_, gap)| gap).filter(|gap| end && gap.is_finite());
        points.push(Point { plan: found.clone(), figures, vouched, gap });
        figure(found.plan(), problem, Objective::Throughput)
    };
    let fastest = budget.part(0.2, |budget| door::plan(&serving, budget))?;
    let Some(fastest) = fastest.plan().cloned() else { return Ok(points) };
    let most = offer(&fastest, axes.contains(&Objective::Throughput));
    for &axis in axes.iter().filter(|axis| !axis.serves()) {
        if let Some(found) = budget.part(0.2, |budget| door::plan(&of(axis), budget))?.plan() {
            offer(found, true);
        }
    }
    if axes.iter().any(|axis| !axis.serves()) {
        let mut depth = longest(&fastest);
        for _ in 0..DEPTHS_MAX {
            if depth <= 1 || problem.limits.stages_exact.is_some() || budget.exhausted().is_some() {
                break;
            }
            let mut shorter = serving.clone();
            shorter.limits.stages_max = Some(depth - 1);
            match budget.part(0.1, |budget| door::plan(&shorter, budget))?.plan() {
                Some(found) => {
                    depth = longest(found).min(depth - 1);
                    offer(&restated(&serving, found)?, false);
                }
                None => break,
            }
        }
    }
    for &axis in axes.iter().filter(|axis| axis.spends()) {
        let cheapest = budget.part(0.2, |budget| door::plan(&of(axis), budget))?;
        let Some(cheapest) = cheapest.plan() else { continue };
        let Some((least, most)) = offer(cheapest, true).zip(most).filter(|(least, most)| least < most) else {
            continue;
        };
        let mut reached = least;
        for step in 1..=RATES {
            let rate = least * (most / least).powf(step as f64 / RATES as f64);
            // A plan that is fast enough for the next rate costs least there too.
            if rate <= reached || budget.exhausted().is_some() {
                continue;
            }
            let mut asked = of(axis);
            // The last is the rate of the fastest plan, but for what its solver may have left.
            let limit = if step == RATES { rate * (1.0 - 0.5 * NEARLY) } else { rate };
            asked.limits.goals.push(Goal { figure: Objective::Throughput, limit });
            let share = 1.0 / (RATES - step + 2) as f64;
            if let Some(found) = budget.part(share, |budget| door::plan(&asked, budget))?.plan() {
                reached = offer(found, true).unwrap_or(reached).max(reached);
            }
        }
    }
    let beaten = |point: &Point| points.iter().any(|other| dominates(axes, &other.figures, &point.figures));
    let mut kept: Vec<Point> = Vec::new();
    for point in points.iter().filter(|point| !beaten(point)) {
        match kept.iter_mut().find(|known| known.figures == point.figures) {
            Some(known) if known.vouched == Vouched::Heuristic && point.vouched != Vouched::Heuristic => {
                *known = point.clone();
            }
            Some(_) => {}
            None => kept.push(point.clone()),
        }
    }
    kept.sort_by(|a, b| {
        let (a, b) = (a.figures.first().unwrap_or(&0.0), b.figures.first().unwrap_or(&0.0));
        if axes.first().is_some_and(|axis| axis.maximises()) { b.total_cmp(a) } else { a.total_cmp(b) }
    });
    Ok(kept)
}

fn longest(plan: &FeasiblePlan) -> u32 {
    let longest = plan.plan().routes.iter().map(|route| route.stages.len()).max().unwrap_or(0);
    u32::try_from(longest).unwrap_or(u32::MAX)
}

/// The plan of a problem with more limits as a plan of the one with fewer; what bounded the former bounds nothing there.
fn restated(problem: &PlacementProblem, found: &FeasiblePlan) -> Result<FeasiblePlan, PlanError> {
    use crate::assemble::{Found, certify};
    let mut plan = found.plan().clone();
    let method = plan.certificate.take().map_or_else(String::new, |certificate| certificate.method);
    let none = Found { bound: None, evidence: Vec::new(), method, solver: None, nodes: None, stopped: None };
    let outcome = certify(problem, plan, none)?;
    Ok(outcome.plan().cloned().unwrap_or_else(|| found.clone()))
}

/// Whether the first figures are nowhere worse, and somewhere better, than solvers leave.
fn dominates(axes: &[Objective], a: &[f64], b: &[f64]) -> bool {
    let gain = |axis: &Objective, a: f64, b: f64| if axis.maximises() { a / b - 1.0 } else { b / a - 1.0 };
    let gains: Vec<f64> = axes.iter().zip(a.iter().zip(b)).map(|(axis, (&a, &b))| gain(axis, a, b)).collect();
    gains.iter().all(|&gain| gain >= -NEARLY) && gains.iter().any(|&gain| gain > 5.0 * NEARLY)
}
