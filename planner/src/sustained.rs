//! Plans that heat and power allow in the long run.
//!
//! With every device working as much as it bears while all others are idle, planning is as ever, and its bound bounds
//! every plan within heat and power. Where devices warm one another or share a power limit, the loads of that plan may
//! be more than they bear together. Then the *box* of loads is divided: each part leaves one device less, or leaves
//! others less because one has much; it is planned for at its greatest loads, which no plan in it beats, and ends where
//! that plan fits or its bound is no better than a plan in hand. What a part finds is slowed by power caps until it
//! fits, so every part gives a plan. A part's devices work as much as they can at its loads, whatever their operating
//! points; which points a plan has is chosen when it is made to fit (see `points`).

mod relief;

use crate::assemble::{Found, certify, restate_unused};
use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::door::unlimited;
use crate::outcome::{Outcome, PlanError};
use crate::points::{self, Effort};
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Plan};
use isotherm_core::problem::PlacementProblem;
use isotherm_core::sustained::{Envelope, exceeded, exceeded_at, least_burden, reserve, state, works};

/// Most parts of the box that are planned for.
const PARTS_MAX: usize = 96;
/// Parts after which a plan that lacks only the reserve for faster runs closes its part.
const PARTS_FEW: usize = 12;
/// Width of a side below which it is not divided again.
const SIDE_MIN: f64 = 1e-4;
/// Halvings when a plan is slowed until it fits.
const HALVINGS: usize = 48;

/// The best plan within heat and power.
pub(crate) fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let envelope = Envelope::of(problem);
    if problem.objective.serves() {
        Search::new(problem, &envelope).run(budget)
    } else {
        alone_or_without(problem, &envelope, budget)
    }
}

/// A part of the box of loads: no plan in it loads a device more than `upper`, nor less than `lower`.
struct Part {
    lower: Vec<f64>,
    upper: Vec<f64>,
    bound: f64,
}

struct Search<'a> {
    problem: &'a PlacementProblem,
    envelope: &'a Envelope,
    best: Option<(Plan, f64)>,
    open: Vec<Part>,
    /// Greatest bound of the parts that were closed with a plan in hand that need not be the best there.
    closed: f64,
    planned: usize,
    stopped: Option<Limit>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a PlacementProblem, envelope: &'a Envelope) -> Self {
        let upper = envelope.alone();
        let root = Part { lower: vec![0.0; upper.len()], upper, bound: f64::INFINITY };
        Self { problem, envelope, best: None, open: vec![root], closed: 0.0, planned: 0, stopped: None }
    }

    fn run(mut self, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
        let mut root = None;
        while let Some(at) = (0..self.open.len()).max_by(|&a, &b| self.open[a].bound.total_cmp(&self.open[b].bound)) {
            let value = self.best.as_ref().map_or(0.0, |(_, value)| *value);
            if root.is_some() && self.open[at].bound <= value * (1.0 + budget.gap_target.max(GAP_NONE)) {
                break;
            }
            let limit = if self.planned >= PARTS_MAX { Some(Limit::Nodes) } else { budget.exhausted() };
            if let Some(limit) = limit.filter(|_| self.best.is_some()) {
                self.stopped = Some(limit);
                break;
            }
            let part = self.open.swap_remove(at);
            let outcome = unlimited(&self.within(&part), budget)?;
            self.planned += 1;
            let found = outcome.plan().map(|found| found.plan().clone());
            let certificate = found.as_ref().and_then(|plan| plan.certificate.clone());
            let bound = match (&outcome, certificate.as_ref().and_then(|certificate| certificate.bound)) {
                (_, Some(bound)) => bound.min(part.bound),
                (Outcome::Infeasible(_), None) => 0.0,
                _ => part.bound,
            };
            if root.is_none() {
                if found.is_none() {
                    return Ok(outcome);
                }
                root = Some((certificate, bound));
            }
            self.stopped = self.stopped.or(match outcome {
                Outcome::Feasible { stopped_by, .. } | Outcome::Unknown { stopped_by } => Some(stopped_by),
                Outcome::Optimal(_) | Outcome::Infeasible(_) => None,
            });
            match found {
                Some(plan) => self.look(Part { bound, ..part }, plan, budget),
                None => self.closed = self.closed.max(bound),
            }
            budget.report(self.best.as_ref().map(|(_, value)| *value), Some(self.bound()));
        }
        self.at_points(budget)?;
        let bound = self.bound();
        if let Some((plan, value)) = &mut self.best
            && let Some(finer) = points::chosen(self.problem, plan.clone(), &self.envelope.ceilings, Effort::Each)
            && let Some(reached) = finer.objective_value.filter(|reached| reached > value)
        {
            (*plan, *value) = (finer, reached);
        }
        let Some((mut plan, value)) = self.best else { return Ok(Outcome::Unknown { stopped_by: Limit::Nodes }) };
        let (certificate, root_bound) = root.unwrap_or((None, f64::INFINITY));
        let bound = bound.max(value);
        // The evidence is for what the first part showed; what their division showed is nobody's but the search's.
        let proven = root_bound <= bound * (1.0 + 1e-12) || relative_gap(value, root_bound) <= GAP_NONE;
        let certified = certificate.as_ref().filter(|c| proven && c.bound_kind == BoundKind::Certified);
        let method = certificate.as_ref().map_or_else(String::new, |c| c.method.clone());
        let parts =
            if self.planned > 1 { format!(", {} divisions of what heat leaves", self.planned) } else { String::new() };
        let found = Found {
            bound: Some(if proven { root_bound } else { bound }).filter(|bound| bound.is_finite()),
            evidence: certified.and_then(|c| c.evidence.clone()).into_iter().collect(),
            method: format!("{method}, within heat and power{parts}"),
            solver: certificate.as_ref().and_then(|c| c.solver.clone()),
            nodes: certificate.as_ref().and_then(|c| c.nodes),
            stopped: self.stopped,
        };
        restate_unused(self.problem, &mut plan, found.bound);
        certify(self.problem, plan, found)
    }

    /// The problem of a part: its devices work as much as its loads allow at any speed.
    fn within(&self, part: &Part) -> PlacementProblem {
        self.problem.at_duties(|id| Some(self.envelope.work(id, part.upper[id.index()])))
    }

    /// Plans for devices that are at one point for good.
    fn at_points(&mut self, budget: &Budget<'_>) -> Result<(), PlanError> {
        for speeds in points::choices(self.problem) {
            let known = self.best.as_ref().map_or(0.0, |(_, value)| *value);
            if budget.exhausted().is_some() || relative_gap(known, self.bound()) <= budget.gap_target.max(GAP_NONE) {
                break;
            }
            let Some(fixed) = points::at(self.problem, &speeds) else { continue };
            let outcome = unlimited(&fixed.sustained(), budget)?;
            let Some(plan) = outcome.plan().map(|found| found.plan().clone()) else { continue };
            let finer = points::chosen(self.problem, plan, &self.envelope.ceilings, Effort::Each);
            if let Some((value, plan)) = finer.and_then(|plan| Some((plan.objective_value?, plan)))
                && value > known
            {
                self.best = Some((plan, value));
            }
        }
        Ok(())
    }

    /// Nothing is better than this.
    fn bound(&self) -> f64 {
        let value = self.best.as_ref().map_or(0.0, |(_, value)| *value);
        self.open.iter().map(|part| part.bound).fold(self.closed.max(value), f64::max)
    }

    /// Takes up what a part's plan gives, and divides the part where the plan does not fit.
    fn look(&mut self, part: Part, plan: Plan, budget: &Budget<'_>) {
        let asked = plan.objective_value.unwrap_or(f64::INFINITY);
        let within = self.within(&part);
        let over = least_burden(&plan, &within).map(|loads| exceeded_at(&loads, &within)).unwrap_or_default();
        let full = plan.clone();
        let fitting = fitted(self.problem, plan, &self.envelope.ceilings);
        let reached = fitting.as_ref().and_then(|plan| plan.objective_value).unwrap_or(0.0);
        if let Some(plan) = fitting
            && self.best.as_ref().is_none_or(|(_, known)| reached > *known)
        {
            self.best = Some((plan, reached));
        }
        let known = self.best.as_ref().map_or(0.0, |(_, value)| *value);
        if !over.is_empty()
            && asked > known * (1.0 + GAP_NONE)
            && let Some(plan) = relief::relieved(self.problem, &full, &self.envelope.ceilings, budget)
            && let Some(value) = plan.objective_value.filter(|value| *value > known)
            && certify(self.problem, plan.clone(), Found::nothing("layers handed on for heat and power")).is_ok()
        {
            self.best = Some((plan, value));
        }
        let tightest = over.iter().max_by(|a, b| (a.1 / a.0.most).total_cmp(&(b.1 / b.0.most)));
        let side = |device: usize| part.upper[device] - part.lower[device];
        let holds = |device: usize| {
            let name = &self.problem.graph.devices()[device].name;
            full.stages.iter().any(|stage| stage.devices.contains(name))
        };
        let ways = tightest.iter().flat_map(|(row, _)| row.terms.iter().map(|(id, each)| (id.index(), *each)));
        let wide = ways.filter(|&(device, _)| holds(device) && side(device) > SIDE_MIN);
        let widest = wide.max_by(|a, b| (a.1 * side(a.0)).total_cmp(&(b.1 * side(b.0))));
        // What is reserved for faster runs is not won back by dividing much further.
        let enough = if self.planned > PARTS_FEW { asked / reserve(&full, &within).unwrap_or(1.0) } else { asked };
        let Some((device, _)) = widest.filter(|_| reached < enough * (1.0 - 1e-9)) else {
            // Its plan fits, or there is nothing to divide: what is open here stays open.
            self.closed = self.closed.max(part.bound);
            return;
        };
        let middle = 0.5 * (part.lower[device] + part.upper[device]);
        let mut less = Part { lower: part.lower.clone(), upper: part.upper.clone(), bound: part.bound };
        less.upper[device] = middle;
        let mut more = Part { lower: part.lower, upper: part.upper, bound: part.bound };
        more.lower[device] = middle;
        for part in [less, more] {
            self.open.extend(tightened(self.envelope, part));
        }
    }
}

/// A part with what its least loads leave to the others; none where they do not fit by themselves.
fn tightened(envelope: &Envelope, mut part: Part) -> Option<Part> {
    for row in &envelope.rows {
        if !row.holds(&part.lower) {
            return None;
        }
        let least = row.used(&part.lower);
        for &(device, each) in &row.terms {
            let (device, others) = (device.index(), least - each * part.lower[device.index()]);
            let most = ((row.most - others) / each).max(0.0);
            part.upper[device] = part.upper[device].min(most).max(part.lower[device]);
        }
    }
    Some(part)
}

/// The plan with its stages at these speeds, or slower as far as they do not fit or cost less; valued, with the state
/// of its devices, and without certificate. None where it cannot be valued.
pub(crate) fn fitted(problem: &PlacementProblem, plan: Plan, speeds: &[f64]) -> Option<Plan> {
    points::chosen(problem, plan, speeds, Effort::Alike)
}

/// Whether the plan with its stages at these speeds is within heat and power.
pub(crate) fn fits_at(problem: &PlacementProblem, plan: &Plan, speeds: &[f64]) -> bool {
    let full = with_caps(problem, plan.clone(), |device| speeds[device]);
    problem.limits.cold || exceeded(&full, problem).is_some_and(|over| over.is_empty())
}

/// The plan with its stages at these speeds, or slower as far as they do not fit; otherwise as [`fitted`].
pub(crate) fn slowed(problem: &PlacementProblem, plan: Plan, speeds: &[f64]) -> Option<Plan> {
    let full = with_caps(problem, plan, |device| speeds[device]);
    let over = if problem.limits.cold { Vec::new() } else { exceeded(&full, problem)? };
    let mut plan = if over.is_empty() {
        full
    } else {
        let slowed: Vec<usize> = over.iter().flat_map(|(row, _)| row.terms.iter().map(|(id, _)| id.index())).collect();
        // A device that waits for others loses nothing while it is as fast as its work.
        let work = works(&full, problem)?;
        let at = |share: f64| {
            let speed = |device: usize| match share {
                _ if !slowed.contains(&device) => speeds[device],
                above if above > 1.0 => work[device] + (above - 1.0) * (speeds[device] - work[device]).max(0.0),
                below => work[device] * below,
            };
            with_caps(problem, full.clone(), speed)
        };
        let fits = |share: f64| exceeded(&at(share), problem).is_some_and(|over| over.is_empty());
        // Up to 1 all devices in question are slowed alike; from 1 to 2 only those that wait, and less and less.
        let (mut low, mut high) = (0.0, 2.0);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if fits(middle) { low = middle } else { high = middle }
        }
        if low <= 0.0 {
            return None;
        }
        at(low)
    };
    plan.objective_value = Some(evaluate(&plan, problem).value(problem.objective)?);
    let capped = plan.stages.iter().any(|stage| stage.power_cap_watts.is_some());
    let states = !problem.limits.cold && (capped || !Envelope::of(problem).is_empty());
    plan.sustained = if states { Some(state(&plan, problem)?) } else { None };
    plan.certificate = None;
    Some(plan)
}

/// The plan with a power cap on each stage that is not to be at full speed.
fn with_caps(problem: &PlacementProblem, mut plan: Plan, speed: impl Fn(usize) -> f64) -> Plan {
    for stage in &mut plan.stages {
        let members = stage.devices.iter().filter_map(|name| problem.graph.find(name));
        // All members wait for the slowest, and one cap is for each of them.
        let slowest = members.map(|id| (speed(id.index()), id)).min_by(|a, b| a.0.total_cmp(&b.0));
        stage.power_cap_watts = slowest.filter(|(speed, _)| *speed < 1.0).and_then(|(s, id)| problem.cap_at(id, s));
    }
    plan
}

/// For a time per token or to the first: plans on all devices, without each one that heat or power limits, and with
/// none of these; each slowed until it fits. A device that works a part of the time bears more than its sustained
/// speed, so the bound is that of plans that never get hot.
fn alone_or_without(
    problem: &PlacementProblem,
    envelope: &Envelope,
    budget: &Budget<'_>,
) -> Result<Outcome, PlanError> {
    let possible = problem.sustained();
    let most = envelope.alone();
    let first = unlimited(&possible, budget)?;
    let Some(certificate) = first.plan().map(|found| found.plan().certificate.clone()) else { return Ok(first) };
    let better = |a: f64, b: f64| if problem.objective.maximises() { a > b } else { a < b };
    let mut best: Option<Plan> = None;
    let mut take = |outcome: &Outcome, speeds: &[f64]| {
        let fitting = outcome.plan().and_then(|found| fitted(problem, found.plan().clone(), speeds));
        if let Some(plan) = fitting {
            let value = |plan: &Plan| plan.objective_value.unwrap_or(f64::NAN);
            if best.as_ref().is_none_or(|known| better(value(&plan), value(known))) {
                best = Some(plan);
            }
        }
    };
    let full = vec![1.0; most.len()];
    let slowest: Vec<f64> = problem
        .graph
        .device_ids()
        .map(|id| if most[id.index()] <= 0.0 { 0.0 } else { envelope.work(id, most[id.index()]) })
        .collect();
    take(&first, &full);
    take(&first, &slowest);
    let limited: Vec<usize> = (0..most.len()).filter(|&device| most[device] > 0.0 && most[device] < 1.0).collect();
    let mut ways: Vec<Vec<f64>> = vec![slowest.clone()];
    let without = |left_out: &[usize]| {
        (0..most.len()).map(|device| if left_out.contains(&device) { 0.0 } else { slowest[device].ceil() }).collect()
    };
    ways.extend(limited.iter().take(PARTS_MAX / 2).map(|&device| without(&[device])));
    ways.push(without(&limited));
    let mut planned = 1;
    for speeds in ways {
        if budget.exhausted().is_some() {
            break;
        }
        // Leaving a pinned device out leaves no plan.
        if let Ok(outcome) = unlimited(&problem.at_speeds(|id| Some(speeds[id.index()])), budget) {
            take(&outcome, &speeds);
            planned += 1;
        }
    }
    let Some(plan) = best else { return Ok(Outcome::Unknown { stopped_by: Limit::Nodes }) };
    let certified = certificate.as_ref().filter(|c| c.bound_kind == BoundKind::Certified);
    let method = certificate.as_ref().map_or("", |c| c.method.as_str());
    let found = Found {
        bound: certificate.as_ref().and_then(|c| c.bound),
        evidence: certified.and_then(|c| c.evidence.clone()).into_iter().collect(),
        method: format!("{method}, the best of {planned} plans within heat and power"),
        solver: certificate.as_ref().and_then(|c| c.solver.clone()),
        nodes: certificate.as_ref().and_then(|c| c.nodes),
        stopped: None,
    };
    certify(problem, plan, found)
}
