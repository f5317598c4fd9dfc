//! Plans that hold although devices are slower than was measured.
//!
//! A measured time has a spread: the interquartile range of its samples over their median. Where samples are normal, that
//! is 1.349 standard deviations, so at a quantile `q` a device takes `1 + z(q) * spread / 1.349` times as long.
//!
//! *Quantile*: every device is as slow as that. *Budget* (Bertsimas and Sim, "The price of robustness", Operations
//! Research 52, 2004): at most `gamma` devices are, whichever they are. What a plan is worth then is the worst over all
//! sets of so many devices. A stage is slowed by its own device alone, and requests in flight by the sum over all of
//! them, so the worst is among few sets: the `gamma` devices whose slowness delays a request most, and, for each device,
//! it and the `gamma - 1` others that do.
//!
//! The best such plan is looked for by scenarios: the best plan against one set of slow devices bounds all plans, since
//! none is worth more against all sets than against this one; its own worst set is the next scenario. The bound is the
//! least of theirs.

use crate::assemble::{Found, certify};
use crate::budget::{Budget, relative_gap};
use crate::door;
use crate::outcome::{Outcome, PlanError};
use crate::sustained;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::sustained::Envelope;

/// Interquartile range of a normal distribution in standard deviations: twice the quantile at three quarters.
const QUARTILES: f64 = 1.348_979_500_392_163_5;
/// Most sets of slow devices that are planned for.
const SCENARIOS_MAX: usize = 8;
/// Share of the time that is left for each of several plans.
const FIRST: f64 = 0.3;
/// Shares of full slowness at which all devices are slowed for further candidates.
const SHARES: [f64; 3] = [0.25, 0.5, 1.0];

/// What a plan is guarded against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Guard {
    /// Every device is as slow as at the quantile.
    Quantile,
    /// So many devices are, whichever they are.
    Budget(usize),
}

/// How slow devices may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uncertainty {
    /// What a plan is guarded against.
    pub guard: Guard,
    /// Quantile of a device's times, above one half and below 1.
    pub quantile: f64,
    /// Interquartile range over median of a device of which no spread is known.
    pub assumed: f64,
}

/// A plan, and what it is worth though devices are slow.
#[derive(Debug, Clone, PartialEq)]
pub struct Robust {
    /// The plan, valued as measured.
    pub outcome: Outcome,
    /// What it is worth at the worst, in the unit of the objective.
    pub worst: f64,
    /// The devices that are slow then.
    pub slow: Vec<String>,
    /// No plan is worth more at its worst; absent where nothing is known.
    pub bound: Option<f64>,
    /// Who vouches for that.
    pub bound_kind: BoundKind,
    /// What the plan that is best as measured is worth at its worst.
    pub nominal_worst: Option<f64>,
    /// Sets of slow devices that were planned for.
    pub scenarios: usize,
}

impl Robust {
    /// How much more another plan might be worth at its worst, as a share.
    #[must_use]
    pub fn gap(&self) -> Option<f64> {
        self.bound.map(|bound| relative_gap(self.worst, bound))
    }
}

/// For each device, by its position, how many times as long it takes when it is slow.
#[must_use]
pub fn slowness(problem: &PlacementProblem, uncertainty: &Uncertainty) -> Vec<f64> {
    let deviations = quantile(uncertainty.quantile).max(0.0);
    let of = |id| {
        let measured = problem.profile(id).and_then(|profile| profile.spread);
        1.0 + deviations * measured.unwrap_or(uncertainty.assumed).max(0.0) / QUARTILES
    };
    problem.graph.device_ids().map(of).collect()
}

/// The plan that is worth most at its worst.
///
/// # Errors
/// The solver failed, or the checker refused what was found.
pub fn robust(
    problem: &PlacementProblem,
    uncertainty: &Uncertainty,
    budget: &Budget<'_>,
) -> Result<Result<Robust, Outcome>, PlanError> {
    let slowness = slowness(problem, uncertainty);
    let count = slowness.len();
    let all: Vec<usize> = (0..count).collect();
    let gamma = match uncertainty.guard {
        Guard::Quantile => count,
        Guard::Budget(gamma) => gamma.min(count),
    };
    let better = |a: f64, b: f64| if problem.objective.maximises() { a > b } else { a < b };
    let mut best: Option<(Plan, f64, Vec<usize>)> = None;
    let mut offer = |plan: &Plan| -> Option<(f64, Vec<usize>)> {
        let plan = restated(problem, plan)?;
        let (value, set) = worst(&plan, problem, &slowness, gamma)?;
        if best.as_ref().is_none_or(|(_, known, _)| better(value, *known)) {
            best = Some((plan, value, set.clone()));
        }
        Some((value, set))
    };
    let first = budget.part(FIRST, |budget| door::plan(problem, budget))?;
    let Some(nominal) = first.plan().map(|found| found.plan().clone()) else { return Ok(Err(first)) };
    let certificate = nominal.certificate.clone();
    let (mut bound, mut kind) = certificate.map_or((None, BoundKind::None), |c| (c.bound, c.bound_kind));
    let nominal_worst = offer(&nominal);
    let mut next = if gamma == count { Some(all.clone()) } else { nominal_worst.as_ref().map(|(_, set)| set.clone()) };
    let mut seen: Vec<Vec<usize>> = Vec::new();
    while let Some(set) = next.take().filter(|set| !seen.contains(set)) {
        if seen.len() >= SCENARIOS_MAX || budget.exhausted().is_some() {
            break;
        }
        let outcome = budget.part(FIRST, |budget| door::plan(&slowed(problem, &slowness, &set, 1.0), budget))?;
        seen.push(set);
        let Some(found) = outcome.plan().map(|found| found.plan().clone()) else { continue };
        let stated = found.certificate.as_ref().map(|c| (c.bound, c.bound_kind));
        if let Some((Some(stated), stated_kind)) = stated
            && bound.is_none_or(|known| better(known, stated))
        {
            (bound, kind) = (Some(stated), stated_kind);
        }
        next = offer(&found).map(|(_, set)| set);
    }
    // Between no device and all of them slow lie other divisions of the layers.
    for share in SHARES.into_iter().filter(|_| gamma < count && gamma > 0) {
        if budget.exhausted().is_some() {
            break;
        }
        let outcome = budget.part(FIRST, |budget| door::plan(&slowed(problem, &slowness, &all, share), budget))?;
        if let Some(found) = outcome.plan() {
            offer(found.plan());
        }
    }
    let Some((plan, worst, set)) = best else { return Ok(Err(first)) };
    let name = |&device: &usize| problem.graph.devices()[device].name.clone();
    let slow: Vec<String> = set.iter().map(name).collect();
    let method = format!("guarded against slow devices by {} scenarios", seen.len());
    let none = Found { bound: None, evidence: Vec::new(), method, solver: None, nodes: None, stopped: None };
    let outcome = certify(problem, plan, none)?;
    let nominal_worst = nominal_worst.map(|(value, _)| value);
    Ok(Ok(Robust { outcome, worst, slow, bound, bound_kind: kind, nominal_worst, scenarios: seen.len() }))
}

/// The problem in which these devices are slow, by a share of how slow they may be.
fn slowed(problem: &PlacementProblem, slowness: &[f64], set: &[usize], share: f64) -> PlacementProblem {
    problem.at_speeds(|id| {
        let factor = 1.0 + share * (slowness[id.index()] - 1.0);
        set.contains(&id.index()).then(|| problem.speed(id) / factor)
    })
}

/// A plan of a problem with slow devices as one of the problem itself.
fn restated(problem: &PlacementProblem, plan: &Plan) -> Option<Plan> {
    let envelope = Envelope::of(problem);
    if envelope.is_empty() || problem.limits.cold {
        return Some(plan.clone());
    }
    sustained::fitted(problem, plan.clone(), &envelope.ceilings)
}

/// What a plan is worth when those devices are slow that harm it most, and which they are.
#[must_use]
pub fn worst(plan: &Plan, problem: &PlacementProblem, slowness: &[f64], gamma: usize) -> Option<(f64, Vec<usize>)> {
    let held: Vec<usize> = plan
        .stages
        .iter()
        .flat_map(|stage| &stage.devices)
        .filter_map(|name| Some(problem.graph.find(name)?.index()))
        .collect();
    let mut order: Vec<(f64, usize)> =
        held.iter().map(|&device| (delay(plan, problem, device) * (slowness[device] - 1.0), device)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let ranked: Vec<usize> = order.into_iter().map(|(_, device)| device).collect();
    let mut sets: Vec<Vec<usize>> = vec![ranked.iter().copied().take(gamma).collect()];
    if gamma > 0 && gamma < ranked.len() {
        for &device in &ranked {
            let others = ranked.iter().copied().filter(|&other| other != device).take(gamma - 1);
            sets.push(std::iter::once(device).chain(others).collect());
        }
    }
    let mut worst: Option<(f64, Vec<usize>)> = None;
    for mut set in sets {
        set.sort_unstable();
        let value = evaluate(plan, &slowed(problem, slowness, &set, 1.0)).value(problem.objective)?;
        let worse = |known: f64| if problem.objective.maximises() { value < known } else { value > known };
        if worst.as_ref().is_none_or(|(known, _)| worse(*known)) {
            worst = Some((value, set));
        }
    }
    worst
}

/// Time that a request spends on a device, weighted by the share of the requests that pass it.
fn delay(plan: &Plan, problem: &PlacementProblem, device: usize) -> f64 {
    let Some(id) = problem.graph.device_ids().nth(device) else { return 0.0 };
    let name = &problem.graph.device(id).name;
    let Some(at) = plan.stages.iter().position(|stage| stage.devices.contains(name)) else { return 0.0 };
    let passes = |route: &&isotherm_core::plan::Route| route.stages.iter().any(|stop| stop.stage as usize == at);
    let share: f64 = plan.routes.iter().filter(passes).map(|route| route.share).sum();
    let layers = plan.stages[at].layers;
    let batch = plan.batch.or(problem.batches().first().copied()).unwrap_or(1);
    let time = match problem.objective {
        isotherm_core::problem::Objective::Tpot => problem.decode_time(id, layers),
        isotherm_core::problem::Objective::Ttft => problem.prefill_time(id, layers),
        _ => problem.residence(id, layers, &problem.life(batch)),
    };
    share * time.map_or(0.0, |time| time.value())
}

/// Quantile of the standard normal distribution (Acklam's rational approximation, relative error below 1.2e-9).
#[must_use]
pub fn quantile(share: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    const LOW: f64 = 0.024_25;
    let polynomial = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |q: f64| polynomial(&C, q) / (polynomial(&D, q) * q + 1.0);
    if share <= 0.0 {
        f64::NEG_INFINITY
    } else if share >= 1.0 {
        f64::INFINITY
    } else if share < LOW {
        tail((-2.0 * share.ln()).sqrt())
    } else if share > 1.0 - LOW {
        -tail((-2.0 * (1.0 - share).ln()).sqrt())
    } else {
        let q = share - 0.5;
        let r = q * q;
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (share, printed) in
            [(0.5, 0.0), (0.75, 0.674_490), (0.95, 1.644_854), (0.99, 2.326_348), (0.01, -2.326_348)]
        {
            assert!((quantile(share) - printed).abs() < 1e-6, "{share}: {}", quantile(share));
        }
    }
}
