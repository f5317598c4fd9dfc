//! A chain with layers handed on, so that less of it is where heat or power binds.
//!
//! Where requests in flight hold a plan back, many ways to divide the layers are worth the same, and the planner takes
//! one without a look at heat. Slowing that one costs throughput; a layer moved to a cooler neighbour may cost nothing.

use super::{fits_at, slowed, with_caps};
use crate::budget::Budget;
use isotherm_core::plan::{Plan, Stop};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::sustained::{Envelope, burden};

/// Most layers that are handed on.
const MOVES_MAX: usize = 64;
/// Most stages of a chain that is changed.
const STAGES_MAX: usize = 16;

/// A chain of the same devices in the same order that is worth more within heat and power than the plan slowed down;
/// none where none was found.
pub(super) fn relieved(problem: &PlacementProblem, plan: &Plan, speeds: &[f64], budget: &Budget<'_>) -> Option<Plan> {
    let one = |stage: &isotherm_core::plan::Stage| stage.devices.len() == 1;
    if plan.routes.len() != 1 || plan.stages.len() > STAGES_MAX || !plan.stages.iter().all(one) {
        return None;
    }
    let envelope = Envelope::of(problem);
    let mut chain = plan.clone();
    let mut tight = tightness(problem, &envelope, &chain, speeds)?;
    let mut best: Option<Plan> = None;
    for _ in 0..MOVES_MAX {
        if tight <= 1.0 || budget.exhausted().is_some() {
            break;
        }
        let mut next: Option<(f64, Plan)> = None;
        // From any stage to any other; those between pass it on.
        for from in (0..chain.stages.len()).take_while(|_| budget.exhausted().is_none()) {
            for to in (0..chain.stages.len()).filter(|&to| to != from) {
                let Some(moved) = handed(problem, &chain, from, to) else { continue };
                let Some(found) = tightness(problem, &envelope, &moved, speeds) else { continue };
                if found < next.as_ref().map_or(tight, |(known, _)| *known) * (1.0 - 1e-9) {
                    next = Some((found, moved));
                }
            }
        }
        let Some((found, moved)) = next else { break };
        (tight, chain) = (found, moved);
        let fitting = slowed(problem, chain.clone(), speeds);
        let value = |plan: &Option<Plan>| plan.as_ref().and_then(|plan| plan.objective_value).unwrap_or(0.0);
        if value(&fitting) > value(&best) {
            best = fitting;
        }
        if fits_at(problem, &chain, speeds) {
            break;
        }
    }
    best
}

/// The greatest share that the plan at these speeds takes of a limit.
fn tightness(problem: &PlacementProblem, envelope: &Envelope, plan: &Plan, speeds: &[f64]) -> Option<f64> {
    let loads = burden(&with_caps(problem, plan.clone(), |device| speeds[device]), problem)?;
    let share = |row: &isotherm_core::sustained::Row| {
        let used = row.used(&loads);
        if used == 0.0 {
            0.0
        } else if row.most > 0.0 {
            used / row.most
        } else {
            f64::INFINITY
        }
    };
    Some(envelope.rows.iter().map(share).fold(0.0, f64::max))
}

/// The chain with one layer less on a stage and one more on another; none where a stage would hold nothing, or more
/// than its device can.
fn handed(problem: &PlacementProblem, plan: &Plan, from: usize, to: usize) -> Option<Plan> {
    let route = &plan.routes[0];
    let order: Vec<usize> = route.stages.iter().map(|stop| stop.stage as usize).collect();
    if order.len() != plan.stages.len() {
        return None;
    }
    let mut moved = plan.clone();
    let mut at = 0;
    for (position, &stage) in order.iter().enumerate() {
        let layers = &mut moved.stages[stage].layers;
        let mut held = layers.end.checked_sub(layers.start)?;
        held = if position == from { held.checked_sub(1)? } else { held + u32::from(position == to) };
        if held == 0 {
            return None;
        }
        (layers.start, layers.end) = (at, at + held);
        at += held;
    }
    for &stage in &order {
        let of = &mut moved.stages[stage];
        let id = problem.graph.find(&of.devices[0])?;
        of.bytes = problem.stage_bytes(id, of.layers);
        if problem.memory(id).is_none_or(|size| of.bytes.total > size) {
            return None;
        }
    }
    moved.routes[0].stages = order
        .iter()
        .map(|&stage| Stop { stage: u32::try_from(stage).unwrap_or(u32::MAX), layers: moved.stages[stage].layers })
        .collect();
    Some(moved)
}
