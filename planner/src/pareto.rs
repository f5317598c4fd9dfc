//! Plans of which none is better than another in every respect.
//!
//! The ends of the frontier are the best plans for one figure alone, as certain as their certificates. Between them lie
//! plans of an epsilon-constraint sweep: the greatest throughput with one stage less per route, again and again, since
//! depth is what a request waits for; and, for energy, the greatest throughput without the device whose absence saves
//! most per token, again and again. These are *heuristic*: each is the best under its constraint as far as its own
//! certificate goes, but other constraints might give points in between, or better ones.

use crate::budget::Budget;
use crate::door;
use crate::outcome::PlanError;
use isotherm_core::check::FeasiblePlan;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::BoundKind;
use isotherm_core::problem::{Objective, PlacementProblem};
use isotherm_core::sustained::joules_per_token;

/// Devices that are left out, one after another, for less energy per token.
const LEFT_OUT_MAX: usize = 8;
/// Steps of the sweep over depth.
const DEPTHS_MAX: usize = 16;

/// A figure that plans are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    /// Output tokens per second, the more the better.
    Throughput,
    /// Seconds per output token of a request by itself, the less the better.
    Latency,
    /// Joules per output token at that throughput, the less the better.
    Energy,
}

/// Who vouches for a point being on the frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// It is the best for one figure, certified.
    Certified,
    /// It is the best for one figure on the solver's word.
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
}

/// The frontier as far as the sweep finds it, in order of the first axis, best first. Plans that lack a figure are left
/// out; with a power unknown there is no point with energy.
///
/// # Errors
/// The solver failed.
pub fn frontier(problem: &PlacementProblem, axes: &[Axis], budget: &Budget<'_>) -> Result<Vec<Point>, PlanError> {
    let mut points: Vec<Point> = Vec::new();
    let of = |objective| {
        let mut other = problem.clone();
        other.objective = objective;
        other
    };
    let serving = of(Objective::Throughput);
    let mut offer = |found: &FeasiblePlan, end: bool| {
        let Some(figures) = axes.iter().map(|axis| figure(found, problem, *axis)).collect::<Option<Vec<f64>>>() else {
            return;
        };
        let kind = found.plan().certificate.as_ref().map(|c| (c.bound_kind, c.gap.unwrap_or(f64::INFINITY)));
        let vouched = match kind {
            Some((BoundKind::Certified, gap)) if end && gap <= budget.gap_target.max(1e-6) => Vouched::Certified,
            Some((BoundKind::Solver, gap)) if end && gap <= budget.gap_target.max(1e-6) => Vouched::Solver,
            _ => Vouched::Heuristic,
        };
        points.push(Point { plan: found.clone(), figures, vouched });
    };
    let fastest = door::plan(&serving, budget)?;
    let Some(fastest) = fastest.plan().cloned() else { return Ok(points) };
    offer(&fastest, axes.contains(&Axis::Throughput));
    if axes.contains(&Axis::Latency) {
        if let Some(found) = door::plan(&of(Objective::Tpot), budget)?.plan() {
            offer(found, true);
        }
        let mut depth = longest(&fastest);
        for _ in 0..DEPTHS_MAX {
            if depth <= 1 || problem.limits.stages_exact.is_some() || budget.exhausted().is_some() {
                break;
            }
            let mut shorter = serving.clone();
            shorter.limits.stages_max = Some(depth - 1);
            match door::plan(&shorter, budget)?.plan() {
                Some(found) => {
                    depth = longest(found).min(depth - 1);
                    offer(&restated(&serving, found)?, false);
                }
                None => break,
            }
        }
    }
    if axes.contains(&Axis::Energy) {
        let (mut now, mut left) = (fastest, serving.clone());
        for _ in 0..LEFT_OUT_MAX {
            let Some((found, fewer)) = thriftier(&left, &now, problem, budget)? else { break };
            offer(&restated(&serving, &found)?, false);
            (now, left) = (found, fewer);
        }
    }
    let beaten = |point: &Point| points.iter().any(|other| dominates(axes, &other.figures, &point.figures));
    let mut kept: Vec<Point> = Vec::new();
    for point in points.iter().filter(|point| !beaten(point)) {
        match kept.iter_mut().find(|known| known.figures == point.figures) {
            Some(known) if known.vouched == Vouched::Heuristic => known.vouched = point.vouched,
            Some(_) => {}
            None => kept.push(point.clone()),
        }
    }
    kept.sort_by(|a, b| {
        let (a, b) = (a.figures.first().unwrap_or(&0.0), b.figures.first().unwrap_or(&0.0));
        if axes.first() == Some(&Axis::Throughput) { b.total_cmp(a) } else { a.total_cmp(b) }
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

/// The plan of greatest throughput without one of the devices, the one whose absence leaves least energy per token; none
/// where each leaves more than now, or nothing.
fn thriftier(
    left: &PlacementProblem,
    now: &FeasiblePlan,
    problem: &PlacementProblem,
    budget: &Budget<'_>,
) -> Result<Option<(FeasiblePlan, PlacementProblem)>, PlanError> {
    let Some(energy) = joules_per_token(now.plan(), problem) else { return Ok(None) };
    let mut best: Option<(f64, FeasiblePlan, PlacementProblem)> = None;
    for name in now.plan().stages.iter().flat_map(|stage| &stage.devices) {
        if left.limits.pinned.contains(name) || budget.exhausted().is_some() {
            continue;
        }
        let mut fewer = left.clone();
        fewer.limits.banned.push(name.clone());
        let outcome = door::plan(&fewer, budget)?;
        let Some(found) = outcome.plan() else { continue };
        let spent = joules_per_token(found.plan(), problem).unwrap_or(f64::INFINITY);
        if spent < energy && best.as_ref().is_none_or(|(known, ..)| spent < *known) {
            best = Some((spent, found.clone(), fewer));
        }
    }
    Ok(best.map(|(_, plan, fewer)| (plan, fewer)))
}

fn figure(found: &FeasiblePlan, problem: &PlacementProblem, axis: Axis) -> Option<f64> {
    let figures = || evaluate(found.plan(), problem);
    match axis {
        Axis::Throughput => figures().throughput.map(|rate| rate.value()),
        Axis::Latency => figures().tpot.map(|time| time.value()),
        Axis::Energy => joules_per_token(found.plan(), problem),
    }
}

/// Whether the first figures are nowhere worse and somewhere better, by more than rounding.
fn dominates(axes: &[Axis], a: &[f64], b: &[f64]) -> bool {
    let gain = |axis: &Axis, a: f64, b: f64| if *axis == Axis::Throughput { a / b - 1.0 } else { b / a - 1.0 };
    let gains: Vec<f64> = axes.iter().zip(a.iter().zip(b)).map(|(axis, (&a, &b))| gain(axis, a, b)).collect();
    gains.iter().all(|&gain| gain >= -1e-9) && gains.iter().any(|&gain| gain > 1e-9)
}
