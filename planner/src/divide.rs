//! Prompts and answers on devices of their own: which devices prefill, which decode, and whether that pays.
//!
//! Each side of a division is a problem of its own ([`PlacementProblem::side`]), and is solved like any other; the rate
//! of a divided plan is at most the smaller of both. More devices make a side no slower, and a quick bound on every
//! side is at hand (`divide/covers.rs`): divisions are looked at from the greatest bound down, the slower side first,
//! until no bound is above what is in hand. What a division gives is the rate of both sides' plans together, with the
//! cache that moves between them and the requests that they share.
//!
//! Devices that nobody can tell apart may be exchanged, so a division is a number of each class. Where there are too
//! many, those are looked at in which the devices that prefill are the best for it beside what they would decode, which
//! is how the bound over fractions of devices divides them.

mod covers;

use crate::assemble::{Found, certify};
use crate::budget::{Budget, GAP_NONE, Limit, relative_gap};
use crate::door;
use crate::outcome::{Outcome, PlanError, Reason, Reasons};
use covers::Covers;
use isotherm_core::graph::DeviceGraph;
use isotherm_core::ids::DeviceId;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{BoundKind, Certificate, Evidence, Plan, Route, Stage, Stop, Unused};
use isotherm_core::problem::{Division, PlacementProblem, Role};
use isotherm_core::units::Bytes;
use std::collections::BTreeMap;

/// Most divisions that are listed one by one.
const LISTED_MAX: usize = 4_096;
/// Share of the time for the plan that is not divided.
const WHOLE: f64 = 0.4;
/// Parts of the time that is left, of which each side of a division gets one.
const PARTS: f64 = 6.0;
/// A gap of the certified bound up to which it is preferred to a tighter one on the search's word.
const CERTIFIED_GAP: f64 = 0.01;

/// The best plan of a problem whose plans may or must be divided.
pub(crate) fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let always = problem.limits.division == Division::Always;
    let undivided = undivided(problem);
    if let Err(reason) = problem.divisible() {
        let none = || Outcome::Infeasible(Reasons(vec![Reason::Undividable(reason)]));
        return if always { Ok(none()) } else { door::undivided(&undivided, budget) };
    }
    let whole = if always { None } else { Some(budget.part(WHOLE, |budget| door::undivided(&undivided, budget))?) };
    let known = whole.as_ref().and_then(Outcome::plan).and_then(|found| found.plan().objective_value);
    let divided = Search::new(problem, budget, known.unwrap_or(0.0)).run()?;
    combined(problem, whole, &divided, budget)
}

/// The same problem for plans that are not divided.
pub(crate) fn undivided(problem: &PlacementProblem) -> PlacementProblem {
    let mut whole = problem.clone();
    whole.limits.division = Division::Never;
    whole.limits.prefill.clear();
    whole
}

/// The better of both, under a bound on both.
fn combined(
    problem: &PlacementProblem,
    whole: Option<Outcome>,
    divided: &Divided,
    budget: &Budget<'_>,
) -> Result<Outcome, PlanError> {
    let undivided = whole.as_ref().and_then(Outcome::plan).map(|found| found.plan().clone());
    let value = |plan: &Plan| plan.objective_value.unwrap_or(0.0);
    let better = match (&undivided, &divided.plan) {
        (Some(a), Some(b)) => Some(if value(b) > value(a) { b } else { a }),
        (a, b) => a.as_ref().or(b.as_ref()),
    };
    let Some(plan) = better.cloned() else {
        let unknown = |outcome: &Outcome| match outcome {
            Outcome::Unknown { stopped_by } => Some(*stopped_by),
            _ => None,
        };
        let stopped = cut_off(divided.stopped)
            .or_else(|| budget.exhausted())
            .or_else(|| whole.as_ref().and_then(unknown))
            .or(divided.stopped);
        return Ok(match (whole, divided.impossible) {
            (Some(outcome), true) => outcome,
            (None, true) => Outcome::Infeasible(Reasons(vec![Reason::Undividable(
                "no division leaves both sides devices that hold all layers".to_owned(),
            )])),
            // That none was found says nothing of those that were not looked for to the end.
            (_, false) => Outcome::Unknown { stopped_by: stopped.unwrap_or(Limit::Nodes) },
        });
    };
    let stated = undivided.as_ref().and_then(|plan| plan.certificate.clone());
    // Where plans may be undivided and none is known, they have to be impossible to say anything of all.
    let open = match (&whole, &stated) {
        (None, _) => Some(0.0),
        (Some(Outcome::Infeasible(_)), _) => Some(0.0),
        (Some(_), stated) => stated.as_ref().and_then(|c| c.bound),
    };
    let certified = |c: &&Certificate| c.bound_kind == BoundKind::Certified;
    let own = stated.as_ref().filter(certified).and_then(|c| c.evidence.clone());
    let proven = divided.covers.bound();
    let evidence = match (&whole, own, proven) {
        (None, _, Some((bound, weight))) => Some((bound, Evidence::Divided { weight, whole: None })),
        (Some(_), Some(own), Some((bound, weight))) => {
            let whole = Some(Box::new(own));
            open.map(|open| (bound.max(open), Evidence::Divided { weight, whole }))
        }
        _ => None,
    };
    let searched = open.zip(divided.bound).map(|(open, divided)| open.max(divided));
    let reached = value(&plan);
    let gap = |bound: f64| relative_gap(reached, bound.max(reached));
    let evidence = evidence.filter(|(bound, _)| {
        searched.is_none_or(|other| gap(*bound) <= CERTIFIED_GAP || gap(*bound) <= gap(other) * 1.05)
    });
    let certificate = plan.certificate.clone();
    let method = certificate.as_ref().map_or_else(String::new, |c| c.method.clone());
    let bound = evidence.as_ref().map(|(bound, _)| *bound).or(searched).map(|bound| bound.max(reached));
    let found = Found {
        bound,
        evidence: evidence.into_iter().map(|(_, evidence)| evidence).collect(),
        method: format!("{method}; {} of {} divisions planned for", divided.planned, divided.divisions),
        solver: certificate.as_ref().and_then(|c| c.solver.clone()),
        nodes: certificate.as_ref().and_then(|c| c.nodes),
        stopped: cut_off(divided.stopped)
            .or_else(|| budget.exhausted())
            .or(match whole {
                Some(Outcome::Feasible { stopped_by, .. } | Outcome::Unknown { stopped_by }) => Some(stopped_by),
                _ => None,
            })
            .or(divided.stopped),
    };
    certify(problem, plan, found)
}

/// What the search over divisions came to.
struct Divided {
    /// The best plan, valued.
    plan: Option<Plan>,
    /// No divided plan is better, on the search's word; none where it cannot say.
    bound: Option<f64>,
    covers: Covers,
    /// Divisions of which both sides were planned for, or ruled out by one.
    planned: usize,
    divisions: usize,
    /// Whether every division has a side of which it is known that it has no plan.
    impossible: bool,
    stopped: Option<Limit>,
}

/// Which devices prefill; the others decode.
type Side = Vec<bool>;

/// What one side of a division can do, in output tokens per second of the plan.
#[derive(Clone)]
struct Planned {
    plan: Option<Plan>,
    bound: f64,
    /// What ended the search where it found no plan and could not say that there is none.
    open: Option<Limit>,
}

struct Search<'a> {
    problem: &'a PlacementProblem,
    budget: &'a Budget<'a>,
    sides: [PlacementProblem; 2],
    covers: Covers,
    known: BTreeMap<(Role, Side), Planned>,
    best: Option<Plan>,
    /// What a plan has to beat.
    rate: f64,
    /// Whether a division was left of which nobody knows whether it has a plan.
    open: bool,
    /// Whether plans of both sides were found that do not go together.
    apart: bool,
    stopped: Option<Limit>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a PlacementProblem, budget: &'a Budget<'a>, rate: f64) -> Self {
        let sides = Role::ALL.map(|role| problem.side(role));
        let covers = Covers::new(problem, &sides, budget);
        Self {
            problem,
            budget,
            sides,
            covers,
            known: BTreeMap::new(),
            best: None,
            rate,
            open: false,
            apart: false,
            stopped: None,
        }
    }

    fn run(mut self) -> Result<Divided, PlanError> {
        let (divisions, complete) = self.divisions();
        let mut open: Vec<(f64, Side)> =
            divisions.into_iter().map(|division| (self.covers.of_division(&division), division)).collect();
        open.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let divisions = open.len();
        let (mut planned, mut closed) = (0, 0.0_f64);
        let mut left = 0.0_f64;
        for (bound, division) in open {
            // From here on no division is better.
            if bound <= self.rate.max(0.0) * (1.0 + self.budget.gap_target.max(GAP_NONE)) {
                left = left.max(bound);
                break;
            }
            // One is looked at in any case: its sides may have plans at once. The rest stays open.
            if let Some(limit) = self.budget.exhausted().filter(|_| planned > 0) {
                (self.open, self.stopped, left) = (true, Some(limit), left.max(bound));
                break;
            }
            planned += 1;
            closed = closed.max(self.look(bound, &division)?);
        }
        let known = complete || self.covers.bound().is_some();
        // What was not listed is under the bound over fractions of devices alone.
        let unlisted = if complete { 0.0 } else { self.covers.bound().map_or(f64::INFINITY, |(bound, _)| bound) };
        let bound = closed.max(left).max(unlisted);
        let bound = Some(bound).filter(|bound| known && bound.is_finite());
        let impossible = complete && !self.open && self.best.is_none();
        if self.apart && self.best.is_none() {
            self.stopped = self.stopped.or(Some(Limit::Sides));
        }
        let Self { best: plan, covers, stopped, .. } = self;
        Ok(Divided { plan, bound, covers, planned, divisions, impossible, stopped })
    }

    /// Plans for both sides of a division; gives the bound on it.
    fn look(&mut self, bound: f64, division: &Side) -> Result<f64, PlanError> {
        let quick = |role| self.covers.of_side(role, division);
        let mut order = Role::ALL;
        if quick(Role::Decode) < quick(Role::Prefill) {
            order.reverse();
        }
        let mut least = bound;
        let mut plans: BTreeMap<Role, Plan> = BTreeMap::new();
        for role in order {
            let found = self.side(role, division)?;
            least = least.min(found.bound);
            if found.open.is_some() {
                self.open = true;
                self.stopped = self.stopped.or(found.open);
            }
            match found.plan {
                Some(plan) if least > self.rate => plans.insert(role, plan),
                _ => return Ok(least),
            };
        }
        let (Some(prefill), Some(decode)) = (plans.get(&Role::Prefill), plans.get(&Role::Decode)) else {
            return Ok(least);
        };
        let joined = self.joined(division, prefill, decode)?;
        // Other plans of the sides might go together.
        if joined.is_none() {
            self.open = true;
            self.apart = true;
        }
        if let Some(plan) = joined
            && let Some(rate) = plan.objective_value.filter(|&rate| rate > self.rate || self.best.is_none())
        {
            self.rate = self.rate.max(rate);
            self.best = Some(plan);
            self.budget.report(Some(self.rate), Some(bound).filter(|bound| bound.is_finite()));
        }
        Ok(least)
    }

    /// The best plan of one side of a division, and a bound on all, in output tokens per second of the whole plan.
    fn side(&mut self, role: Role, division: &Side) -> Result<Planned, PlanError> {
        let own: Side = division.iter().map(|&prefills| prefills == (role == Role::Prefill)).collect();
        if let Some(known) = self.known.get(&(role, own.clone())) {
            return Ok(known.clone());
        }
        let side = self.alone(role, &own);
        let outcome = self.budget.part(1.0 / PARTS, |budget| door::undivided(&side, budget))?;
        let tokens = self.problem.outputs_per(role);
        let plan = outcome.plan().map(|found| found.plan().clone());
        let bound = match &outcome {
            Outcome::Infeasible(_) => 0.0,
            _ => plan.as_ref().and_then(|plan| plan.certificate.as_ref()?.bound).unwrap_or(f64::INFINITY) * tokens,
        };
        let open = match outcome {
            Outcome::Unknown { stopped_by } => Some(stopped_by),
            _ => None,
        };
        let found = Planned { plan, bound, open };
        self.known.insert((role, own), found.clone());
        Ok(found)
    }

    /// A side without the devices of the other.
    fn alone(&self, role: Role, own: &Side) -> PlacementProblem {
        let mut side = match role {
            Role::Prefill => self.sides[0].clone(),
            Role::Decode => self.sides[1].clone(),
        };
        let others = self.problem.graph.device_ids().filter(|id| !own[id.index()]);
        let others: Vec<String> = others.map(|id| self.problem.graph.device(id).name.clone()).collect();
        side.limits.pinned.retain(|pin| !others.contains(pin));
        side.limits.banned.extend(others);
        side
    }

    /// The plans of both sides as one. Where they overdraw a memory that they share, one of them is made again with
    /// what the other leaves.
    fn joined(&self, division: &Side, prefill: &Plan, decode: &Plan) -> Result<Option<Plan>, PlanError> {
        if let Some(plan) = joined(self.problem, division, prefill, decode) {
            return Ok(Some(plan));
        }
        let mut best: Option<Plan> = None;
        for (role, other) in [(Role::Decode, prefill), (Role::Prefill, decode)] {
            let own: Side = division.iter().map(|&prefills| prefills == (role == Role::Prefill)).collect();
            let Some(side) = beside(&self.alone(role, &own), &own, other) else { continue };
            let outcome = self.budget.part(1.0 / PARTS, |budget| door::undivided(&side, budget))?;
            let Some(again) = outcome.plan().map(|found| found.plan()) else { continue };
            let plan = match role {
                Role::Decode => joined(self.problem, division, prefill, again),
                Role::Prefill => joined(self.problem, division, again, decode),
            };
            let value = |plan: &Plan| plan.objective_value.unwrap_or(0.0);
            if let Some(plan) = plan.filter(|plan| best.as_ref().is_none_or(|known| value(plan) > value(known))) {
                best = Some(plan);
            }
        }
        Ok(best)
    }

    /// Divisions to look at, and whether any other is one of these with devices exchanged that nobody can tell apart.
    fn divisions(&self) -> (Vec<Side>, bool) {
        let problem = self.problem;
        let count = problem.graph.devices().len();
        if !problem.limits.prefill.is_empty() {
            let named = |id: DeviceId| problem.limits.prefill.contains(&problem.graph.device(id).name);
            return (vec![problem.graph.device_ids().map(named).collect()], true);
        }
        let classes = covers::alike(problem, &self.covers);
        let mut all: Vec<Side> = vec![vec![false; count]];
        for class in &classes {
            if all.len() * (class.len() + 1) > LISTED_MAX {
                return (self.covers.in_order(count), false);
            }
            let with = |given: &Side, number: usize| {
                let mut more = given.clone();
                class.iter().take(number).for_each(|&device| more[device] = true);
                more
            };
            all = all.iter().flat_map(|given| (0..=class.len()).map(move |number| with(given, number))).collect();
        }
        (all, true)
    }
}

/// A side with the memory that a plan of the other leaves of what its devices share with it; none where they share
/// none.
fn beside(side: &PlacementProblem, own: &Side, other: &Plan) -> Option<PlacementProblem> {
    let mut file = side.graph.file().clone();
    let mut shared = false;
    for (members, _) in side.memory_pools() {
        let name = |id: &DeviceId| side.graph.device(*id).name.clone();
        let members: Vec<(String, bool)> = members.iter().map(|id| (name(id), own[id.index()])).collect();
        let drawn = |(name, _): &(String, bool)| {
            let own = other.stages.iter().filter(|stage| stage.devices.contains(name));
            own.map(|stage| stage.bytes.total).sum::<Bytes>()
        };
        let held = members.iter().map(drawn).sum::<Bytes>();
        for device in file.devices.iter_mut().filter(|device| members.contains(&(device.name.clone(), true))) {
            if let Some(memory) = device.memory_bytes.as_mut().filter(|_| held > Bytes::ZERO) {
                memory.value = Bytes(memory.value.0.saturating_sub(held.0));
                shared = true;
            }
        }
    }
    let mut left = side.clone();
    left.graph = DeviceGraph::new(file).ok().filter(|_| shared)?;
    Some(left)
}

/// The plans of both sides as one, valued in its best batch; none where cache does not get from one to the other.
fn joined(problem: &PlacementProblem, division: &[bool], prefill: &Plan, decode: &Plan) -> Option<Plan> {
    let after = u32::try_from(prefill.stages.len()).ok()?;
    let of_role = |plan: &Plan, role: Role, shift: u32| -> Vec<Route> {
        let stop = |stop: &Stop| Stop { stage: stop.stage + shift, layers: stop.layers };
        let route = |route: &Route| Route {
            stages: route.stages.iter().map(stop).collect(),
            share: route.share,
            role: Some(role),
        };
        plan.routes.iter().map(route).collect()
    };
    let stages: Vec<Stage> = prefill.stages.iter().chain(&decode.stages).cloned().collect();
    // Devices of both sides may draw from one memory.
    let held = |device: &DeviceId| {
        let name = &problem.graph.device(*device).name;
        stages.iter().filter(|stage| stage.devices.contains(name)).map(|stage| stage.bytes.total).sum::<Bytes>()
    };
    let fits = |(members, size): (Vec<DeviceId>, Option<Bytes>)| {
        size.is_none_or(|size| members.iter().map(held).sum::<Bytes>() <= size)
    };
    if !problem.memory_pools().into_iter().all(fits) {
        return None;
    }
    let holds = |name: &String| stages.iter().any(|stage| stage.devices.contains(name));
    let reason = |name: &String| {
        let prefills = problem.graph.find(name).is_some_and(|id| division[id.index()]);
        let side = if prefills { prefill } else { decode };
        side.unused.iter().find(|unused| unused.device == *name).map(|unused| unused.reason.clone())
    };
    let names = problem.graph.devices().iter().map(|device| device.name.clone());
    let unused = names.filter(|name| !holds(name)).map(|device| {
        let reason = reason(&device).unwrap_or_else(|| "no gain on either side was found".to_owned());
        Unused { device, reason }
    });
    let unused = unused.collect();
    let certificate = decode.certificate.as_ref().map(|c| Certificate {
        method: format!("divided: {} for prompts, {} for answers", method(prefill), c.method),
        ..c.clone()
    });
    let routes = [of_role(prefill, Role::Prefill, 0), of_role(decode, Role::Decode, after)].concat();
    let mut plan =
        Plan { stages, routes, unused, certificate, batch: None, division: problem.limits.division, ..decode.clone() };
    let figures = evaluate(&plan, problem);
    (plan.objective_value, plan.batch) = (Some(figures.value(problem.objective)?), figures.batch);
    Some(plan)
}

fn method(plan: &Plan) -> &str {
    plan.certificate.as_ref().map_or("", |certificate| certificate.method.as_str())
}
/// What cut a search off, if anything did: that sides do not go together is what it found.
fn cut_off(stopped: Option<Limit>) -> Option<Limit> {
    stopped.filter(|limit| *limit != Limit::Sides)
}
