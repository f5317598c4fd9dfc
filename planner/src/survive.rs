//! What is left after a loss: for each device, or host, a plan that is ready before it is needed.
//!
//! A fallback first keeps what the plan holds ([`crate::change`](mod@crate::change)); where that serves less than is asked
//! for, it is planned from scratch. As weights may be taken in after the loss, what a loss leaves at best is the best plan
//! without the lost devices, whatever ran before: a guarantee is the least of these over all losses.

use crate::assemble::{Found, certify};
use crate::budget::Budget;
use crate::change::{Change, Way, Weighing, change, least, moves};
use crate::door;
use crate::outcome::{Outcome, PlanError};
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::units::Bytes;

/// What is lost at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One device.
    Device,
    /// All devices of one host.
    Host,
}

/// A loss, and what is ready for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The devices that are lost.
    pub lost: Vec<String>,
    /// The plan that takes over, in the terms of the whole problem; none where nothing is left that serves.
    pub fallback: Option<Change>,
    /// Its pace as a share of that of the plan before the loss; 0 without one.
    pub share: f64,
}

/// A fallback for each loss that the plan would feel. `share_min` is the share of the plan's pace below which a repair is
/// not enough and the rest is planned from scratch.
///
/// # Errors
/// The solver failed, or the checker refused what was found.
pub fn survive(
    problem: &PlacementProblem,
    plan: &Plan,
    scope: Scope,
    share_min: f64,
    budget: &Budget<'_>,
) -> Result<Vec<Loss>, PlanError> {
    let held = |name: &String| plan.stages.iter().any(|stage| stage.devices.contains(name));
    let mut losses: Vec<Vec<String>> = Vec::new();
    for device in problem.graph.devices().iter().filter(|device| held(&device.name)) {
        let lost: Vec<String> = match scope {
            Scope::Device => vec![device.name.clone()],
            Scope::Host => {
                let together = problem.graph.devices().iter().filter(|other| other.host == device.host);
                together.map(|other| other.name.clone()).collect()
            }
        };
        if !losses.contains(&lost) {
            losses.push(lost);
        }
    }
    let mut all = Vec::with_capacity(losses.len());
    for lost in losses {
        all.push(prepared(problem, plan, lost, share_min, budget)?);
    }
    Ok(all)
}

fn prepared(
    problem: &PlacementProblem,
    plan: &Plan,
    lost: Vec<String>,
    share_min: f64,
    budget: &Budget<'_>,
) -> Result<Loss, PlanError> {
    let left = without(problem, &lost);
    let repaired = change(&left, plan, &Weighing::default(), budget)?;
    let share = |found: &Option<Change>| found.as_ref().map_or(0.0, |found| pace(problem, plan, found));
    let mut fallback = repaired;
    if share(&fallback) < share_min && fallback.as_ref().is_none_or(|found| found.way != Way::Afresh) {
        let outcome = door::plan(&left, budget)?;
        if let Some(fresh) = outcome.plan().map(|found| found.plan().clone()) {
            let moves = moves(&left, plan, &fresh);
            let moved: Bytes = moves.iter().map(|one| one.bytes).sum();
            let found = Some(Change { outcome, way: Way::Afresh, moved, least: least(&left, plan), moves });
            if share(&found) > share(&fallback) {
                fallback = found;
            }
        }
    }
    let share = share(&fallback);
    let fallback = fallback.map(|found| of_the_whole(problem, &lost, found)).transpose()?;
    Ok(Loss { lost, fallback, share })
}

/// The problem in which these devices may hold nothing.
fn without(problem: &PlacementProblem, lost: &[String]) -> PlacementProblem {
    let mut left = problem.clone();
    left.limits.pinned.retain(|pin| !lost.contains(pin));
    left.limits.banned.extend(lost.iter().cloned());
    left
}

/// Pace of a change as a share of that of the plan before.
fn pace(problem: &PlacementProblem, before: &Plan, found: &Change) -> f64 {
    let value = found.outcome.plan().and_then(|plan| plan.plan().objective_value);
    match (value, before.objective_value) {
        (Some(now), Some(then)) if problem.objective.maximises() && then > 0.0 => now / then,
        (Some(now), Some(then)) if now > 0.0 => then / now,
        _ => 0.0,
    }
}

/// The fallback as a plan of the whole problem, in which the lost devices hold nothing. What bounds plans without them
/// bounds no plan with them, so no bound is stated.
fn of_the_whole(problem: &PlacementProblem, lost: &[String], found: Change) -> Result<Change, PlanError> {
    let Some(mut plan) = found.outcome.plan().map(|plan| plan.plan().clone()) else { return Ok(found) };
    for unused in plan.unused.iter_mut().filter(|unused| lost.contains(&unused.device)) {
        unused.reason = "this plan is for when it is lost".to_owned();
    }
    let mut whole = problem.clone();
    whole.limits.pinned.retain(|pin| !lost.contains(pin));
    let method = plan.certificate.take().map_or_else(String::new, |certificate| certificate.method);
    let method = format!("{method}, for the loss of {}", lost.join(" and "));
    let known = Found { bound: None, evidence: Vec::new(), method, solver: None, nodes: None, stopped: None };
    let outcome: Outcome = certify(&whole, plan, known)?;
    Ok(Change { outcome, ..found })
}
