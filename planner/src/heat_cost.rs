//! What heat and power limits cost: the problem again as if nothing got hot, and without each limit that binds.

use crate::budget::Budget;
use crate::door;
use crate::outcome::PlanError;
use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::plan::Plan;
use isotherm_core::problem::PlacementProblem;
use isotherm_core::sustained::{Envelope, Subject, binding, hottest_air};
use isotherm_core::units::Celsius;

/// Share of a limit from which it is said to bind.
const NEAR: f64 = 0.01;
/// Most limits that are lifted, one by one.
const LIFTED_MAX: usize = 16;

/// What heat and power cost a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatCost {
    /// The warmest that the air gets.
    pub air: Celsius,
    /// The objective if nothing ever got hot and no power were limited; none without a plan.
    pub cold: Option<f64>,
    /// The objective without each limit that binds: what cooling that device enough, or that much more power, is worth.
    pub lifted: Vec<(Subject, Option<f64>)>,
}

/// The cost of the limits of a plan; none where there are none, or where the plan does not care.
///
/// # Errors
/// The solver failed.
pub(crate) fn cost(
    problem: &PlacementProblem,
    plan: &Plan,
    budget: &Budget<'_>,
) -> Result<Option<HeatCost>, PlanError> {
    if plan.sustained.is_none() || Envelope::of(problem).is_slack() {
        return Ok(None);
    }
    let mut careless = problem.clone();
    careless.limits.cold = true;
    let value = |problem: &PlacementProblem| -> Result<Option<f64>, PlanError> {
        Ok(door::plan(problem, budget)?.plan().and_then(|found| found.plan().objective_value))
    };
    let cold = value(&careless)?;
    let mut lifted = Vec::new();
    for subject in binding(plan, problem, NEAR).into_iter().take(LIFTED_MAX) {
        if budget.exhausted().is_some() {
            break;
        }
        if let Some(other) = without(problem, &subject) {
            let found = value(&other)?;
            lifted.push((subject, found));
        }
    }
    Ok(Some(HeatCost { air: hottest_air(problem), cold, lifted }))
}

/// The problem without one of its limits.
fn without(problem: &PlacementProblem, subject: &Subject) -> Option<PlacementProblem> {
    let mut other = problem.clone();
    match subject {
        Subject::Power(scope) => other.limits.power.retain(|limit| limit.scope != *scope),
        Subject::Temperature(name) => {
            let file = problem.graph.file();
            let mut devices = file.devices.clone();
            for device in devices.iter_mut().filter(|device| device.name == *name) {
                device.governor = None;
                if let Some(record) = &mut device.thermal {
                    record.throttle_celsius = None;
                }
            }
            other.graph = DeviceGraph::new(DevicesFile { devices, ..file.clone() }).ok()?;
        }
    }
    Some(other)
}
