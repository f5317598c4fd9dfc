//! Formats as a choice: which device holds its layers in which format.
//!
//! A device holds one stage, hence one format. A format is *dominated* on a device where another takes no more bytes
//! and no more time for anything; that leaves few. Each way to give every device one of its formats is a problem
//! without a choice; the best of their plans is the best plan, and the best of their bounds bounds all.

use crate::assemble::{Found, certify};
use crate::budget::{Budget, Limit};
use crate::door::without_choices;
use crate::outcome::{Outcome, PlanError};
use isotherm_core::cost::StepShape;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::plan::{BoundKind, Evidence, Plan};
use isotherm_core::problem::{Objective, PlacementProblem};
use std::borrow::Cow;

/// Most assignments of formats that are solved. Beyond, devices that are alike have the same format, and then each has
/// the one of fewest bytes; the bound is then no bound on all plans, and none is stated.
const ASSIGNMENTS_MAX: usize = 64;

/// The best plan over all formats.
pub(crate) fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let variants = problem.variants();
    let open: Vec<Vec<usize>> = problem.graph.device_ids().map(|id| undominated(&variants, id)).collect();
    let (assignments, complete) = assignments(problem, &open);
    let mut best = Best::new(problem, complete);
    for assignment in &assignments {
        if best.ends(budget) {
            break;
        }
        let of = |id: DeviceId| assignment.get(id.index()).map(|&format| problem.formats()[format].as_str());
        best.offer(without_choices(&problem.in_formats(of), budget)?, |plan| plan);
    }
    best.outcome()
}

/// The best of the plans of several problems that are all there is to choose, under a bound on all.
pub(crate) struct Best<'a> {
    problem: &'a PlacementProblem,
    /// The best plan in the terms of the problem, and the outcome that it came with.
    plan: Option<(Plan, Outcome)>,
    /// Bound on all plans so far.
    bound: Option<f64>,
    /// Whether every plan is under a bound.
    bounded: bool,
    nodes: u64,
    stopped: Option<Limit>,
    /// An outcome without a plan.
    none: Option<Outcome>,
    offers: usize,
}

impl<'a> Best<'a> {
    /// Nothing yet; `complete` says whether all there is to choose will be offered.
    pub fn new(problem: &'a PlacementProblem, complete: bool) -> Self {
        let (plan, bound, nodes, stopped, none, offers) = (None, None, 0, None, None, 0);
        Self { problem, plan, bound, bounded: complete, nodes, stopped, none, offers }
    }

    /// Whether the budget is used up while there is something in hand; then what is left is not under the bound.
    pub fn ends(&mut self, budget: &Budget<'_>) -> bool {
        let Some(limit) = budget.exhausted().filter(|_| self.plan.is_some()) else { return false };
        (self.bounded, self.stopped) = (false, Some(limit));
        true
    }

    /// One more outcome, whose plan `named` puts in the terms of the problem.
    pub fn offer(&mut self, outcome: Outcome, named: impl Fn(Plan) -> Plan) {
        let better = |a: f64, b: f64| if self.problem.objective.maximises() { a > b } else { a < b };
        self.offers += 1;
        if let Outcome::Feasible { stopped_by, .. } | Outcome::Unknown { stopped_by } = outcome {
            self.stopped = self.stopped.or(Some(stopped_by));
        }
        let Some(found) = outcome.plan().map(|found| found.plan().clone()) else {
            // What is not known to be impossible may be anything.
            self.bounded &= matches!(outcome, Outcome::Infeasible(_));
            self.none = Some(outcome);
            return;
        };
        let certificate = found.certificate.as_ref();
        self.nodes += certificate.and_then(|c| c.nodes).unwrap_or(0);
        match (certificate.and_then(|c| c.bound), self.bound) {
            (None, _) => self.bounded = false,
            (Some(stated), Some(known)) if !better(stated, known) => self.bound = Some(known),
            (stated, _) => self.bound = stated,
        }
        let value = |plan: &Plan| plan.objective_value.unwrap_or(f64::NAN);
        if self.plan.as_ref().is_none_or(|(known, _)| better(value(&found), value(known))) {
            self.plan = Some((named(found), outcome));
        }
    }

    /// The best, certified for the problem with all its choices.
    pub fn outcome(self) -> Result<Outcome, PlanError> {
        let Some((plan, outcome)) = self.plan else {
            return Ok(self.none.unwrap_or(Outcome::Unknown { stopped_by: self.stopped.unwrap_or(Limit::Nodes) }));
        };
        // Evidence that holds without groups need not hold with them.
        if self.offers == 1
            && self.bounded
            && !self.problem.may_group()
            && outcome.plan().is_some_and(|found| *found.plan() == plan)
        {
            return Ok(outcome);
        }
        let certificate = plan.certificate.clone();
        let certified = certificate.as_ref().filter(|c| c.bound_kind == BoundKind::Certified);
        let stated = certified.and_then(|c| c.evidence.clone());
        let clip = (self.problem.objective == Objective::Throughput).then_some(Evidence::ClipBound);
        let found = Found {
            bound: self.bound.filter(|_| self.bounded),
            evidence: stated.into_iter().chain(clip).collect(),
            method: certificate.as_ref().map_or_else(String::new, |c| c.method.clone()),
            solver: certificate.as_ref().and_then(|c| c.solver.clone()),
            nodes: Some(self.nodes).filter(|&nodes| nodes > 0),
            stopped: self.stopped,
        };
        certify(self.problem, plan, found)
    }
}

/// The formats of a device, as positions, that no other makes needless; at least one.
fn undominated(variants: &[Cow<'_, PlacementProblem>], device: DeviceId) -> Vec<usize> {
    let costs: Vec<Option<Vec<f64>>> = variants.iter().map(|variant| costs(variant, device)).collect();
    let mut kept: Vec<usize> = Vec::new();
    for (i, own) in costs.iter().enumerate() {
        let Some(own) = own else { continue };
        let beats = |(j, other): (usize, &Option<Vec<f64>>)| {
            let Some(other) = other else { return false };
            // The first of equals stays.
            let ahead = j < i || own != other;
            j != i && ahead && other.iter().zip(own).all(|(a, b)| a <= b)
        };
        // How many layers lie elsewhere hangs on more than these figures.
        if variants[i].offload(device).is_some() || !costs.iter().enumerate().any(beats) {
            kept.push(i);
        }
    }
    if kept.is_empty() { vec![0] } else { kept }
}

/// Bytes and times of a device in its format: a stage's, at every length and end of the model, are sums of these. None
/// where it cannot hold anything.
fn costs(problem: &PlacementProblem, device: DeviceId) -> Option<Vec<f64>> {
    if !problem.usable(device) {
        return None;
    }
    let layers = problem.layers();
    let mut costs: Vec<f64> =
        (0..layers).map(|layer| problem.weight_bytes(device, Layers::new(layer, layer + 1)).0 as f64).collect();
    let mut shapes: Vec<StepShape> = problem.prefill_chunks().collect();
    shapes.push(StepShape::decode(1, problem.mean_context()));
    for batch in problem.batches() {
        shapes.extend(problem.life(batch).steps.into_iter().map(|(_, shape)| shape));
    }
    // A time is linear in the number of layers for each of the four ways to hold the ends.
    let last = layers.saturating_sub(1);
    let ends = [(0, 1), (0, last), (last, layers), (1, layers), (0, layers), (1, 2), (1, last)];
    for (start, end) in ends.into_iter().filter(|(start, end)| start < end && *end <= layers) {
        for shape in &shapes {
            costs.push(problem.step(device, Layers::new(start, end), shape).map_or(0.0, |time| time.value()));
        }
    }
    Some(costs)
}

/// Ways to give every device one of its formats, and whether these are all.
fn assignments(problem: &PlacementProblem, open: &[Vec<usize>]) -> (Vec<Vec<usize>>, bool) {
    let mut all: Vec<Vec<usize>> = vec![Vec::new()];
    for formats in open {
        if all.len() * formats.len() > ASSIGNMENTS_MAX {
            return (by_class(problem, open), false);
        }
        all = all.iter().flat_map(|given| formats.iter().map(|&f| [given.as_slice(), &[f]].concat())).collect();
    }
    (all, true)
}

/// The same format for all devices of a class, as long as these are few ways; the last resort is the fewest bytes.
fn by_class(problem: &PlacementProblem, open: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let classes: Vec<&str> = problem.graph.devices().iter().map(|device| device.class.as_str()).collect();
    let mut distinct = classes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let mut all: Vec<Vec<usize>> = vec![Vec::new()];
    for class in &distinct {
        let first = classes.iter().position(|known| known == class).unwrap_or(0);
        if all.len() * open[first].len() > ASSIGNMENTS_MAX {
            let small = |(device, formats): (usize, &Vec<usize>)| {
                let id = problem.graph.device_ids().nth(device);
                let bytes = |&format: &usize| {
                    let chosen = problem.in_formats(|_| Some(problem.formats()[format].as_str()));
                    id.map(|id| chosen.weight_bytes(id, Layers::new(0, chosen.layers())))
                };
                formats.iter().copied().min_by_key(bytes).unwrap_or(0)
            };
            return vec![open.iter().enumerate().map(small).collect()];
        }
        all = all.iter().flat_map(|given| open[first].iter().map(|&f| [given.as_slice(), &[f]].concat())).collect();
    }
    let spread = |given: Vec<usize>| -> Vec<usize> {
        let of = |(device, class): (usize, &&str)| {
            let format = distinct.binary_search(class).ok().and_then(|at| given.get(at).copied()).unwrap_or(0);
            if open[device].contains(&format) { format } else { open[device][0] }
        };
        classes.iter().enumerate().map(of).collect()
    };
    all.into_iter().map(spread).collect()
}
