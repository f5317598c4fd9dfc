//! The independent checker. It shares no code with any planner but the coefficients of [`crate::cost`] and
//! [`crate::problem`], the definition of the figures in [`crate::objective`] and the searches for bridges ([`Ground`])
//! and layer by layer ([`layered`]); it reads floats as the exact rationals they are, reports every violation at once, and
//! verifies certified bounds itself.
//!
//! What it promises of a [`FeasiblePlan`]: every layer is passed once and in order on every route; every stage fits
//! its device's memory and its pool's; devices, links and times are known; the user's pins, bans and limits hold; the
//! stated figures are what the plan is worth, within `1e-9` relative; the certificate is consistent and, where it
//! calls itself certified, proved here.

mod beginnings;
mod bridges;
mod cases;
mod certificate;
mod cover;
mod crossing;
mod divided;
mod enumeration;
mod floors;
mod in_flight;
mod layered;
mod laying;
mod long_run;
mod priced;
mod record;
mod routes;
mod shares;
mod spending;
mod tabled;
mod violation;
mod walk;
mod worths;

pub use bridges::BRIDGE_STEPS_MAX;
pub use bridges::search::{BridgeSet, BridgeWay, Bridging, Ground, Stretch, UNIT};
pub use certificate::{BoundFault, GAP_OPTIMAL_MAX, open_batches};
pub use crossing::crossing_rates;
pub use divided::DIVISIONS_MAX;
pub use enumeration::ENUMERATED_MAX;
pub use in_flight::WAYS_DEVICES_MAX;
pub use layered::{Alike, LAYERED_KINDS_MAX, LAYERED_MAX, Layered, layered};
pub use record::{PROBLEM_SCHEMA, ProblemRecord};
pub use violation::Violation;
pub use walk::{WALK_WORK_MAX, WalkFault};
pub use worths::COVERS_MAX;

use crate::exact::{Exact, agree, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::objective::evaluate_exactly;
use crate::plan::{PLAN_SCHEMA, Plan, Route, Stage, Status};
use crate::problem::{Objective, PlacementProblem, Role};
use crate::units::Bytes;
use num_traits::{Signed, Zero};
use std::collections::BTreeMap;

/// A plan that holds for one problem. Only [`Plan::check`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct FeasiblePlan(Plan);

impl FeasiblePlan {
    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.0
    }

    /// The plan, the proof given up.
    #[must_use]
    pub fn into_plan(self) -> Plan {
        self.0
    }
}

impl Plan {
    /// Proves that this plan holds for `problem`. Errors: everything wrong with it, at once; an answer without a
    /// plan (infeasible, unknown) is no feasible plan, however well formed.
    pub fn check(self, problem: &PlacementProblem) -> Result<FeasiblePlan, Vec<Violation>> {
        let mut found = self.violations(problem);
        if !self.status.has_plan() {
            found.insert(0, Violation::NoPlan { status: self.status });
        }
        if found.is_empty() { Ok(FeasiblePlan(self)) } else { Err(found) }
    }

    /// Everything that is wrong with this answer to `problem`; nothing for a well-formed answer, be it a plan or the
    /// statement that there is none. Never panics, whatever the plan says.
    #[must_use]
    pub fn violations(&self, problem: &PlacementProblem) -> Vec<Violation> {
        // What heat and power leave is part of the question, unless the plan was made as if nothing got hot.
        let sustained = self.sustained.is_some().then(|| problem.sustained());
        let problem = sustained.as_ref().unwrap_or(problem);
        let asked = divided::asked(self, problem);
        let problem = &*asked;
        let (chosen, spoken) = problem.spoken(self);
        let chosen = chosen.capped(&spoken);
        let index = chosen.graph.devices().iter().zip(chosen.graph.device_ids()).map(|(d, id)| (d.name.as_str(), id));
        let (index, found) = (index.collect(), Vec::new());
        let sides = spoken.is_divided().then(|| Role::ALL.map(|role| chosen.side(role)));
        let roles = spoken.stage_roles();
        let mut check =
            Check { stated: self, asked: problem, plan: &spoken, problem: &chosen, sides, roles, index, found };
        check.header();
        if self.status.has_plan() {
            check.division();
            check.stages();
            check.memory();
            check.routes();
            check.limits();
            check.devices();
            check.objective();
            check.goals();
            check.found.extend(long_run::faults(self, check.asked));
        } else {
            check.no_plan();
        }
        check.found
    }
}

impl Status {
    /// Whether an answer of this status holds a plan.
    #[must_use]
    pub const fn has_plan(self) -> bool {
        matches!(self, Self::Optimal | Self::Feasible)
    }
}

struct Check<'a> {
    /// The plan as it is stored.
    stated: &'a Plan,
    /// The plan in the terms of the problem that it speaks of: a group is a device there.
    plan: &'a Plan,
    /// The problem as it was asked, with all its choices.
    asked: &'a PlacementProblem,
    /// The problem that the plan speaks of.
    problem: &'a PlacementProblem,
    /// Its sides, where the plan is divided.
    sides: Option<[PlacementProblem; 2]>,
    /// The role of each stage.
    roles: Vec<Option<Role>>,
    index: BTreeMap<&'a str, DeviceId>,
    found: Vec<Violation>,
}

impl<'a> Check<'a> {
    fn word(&mut self, field: &'static str, found: &str, expected: &str) {
        if found != expected {
            self.found.push(Violation::Word { field, found: found.to_owned(), expected: expected.to_owned() });
        }
    }

    fn header(&mut self) {
        let (plan, problem) = (self.plan, self.problem);
        if let Err(wrong) = plan.header.expect(PLAN_SCHEMA) {
            self.found.push(wrong.into());
        }
        let sorted = |digests: &[crate::digest::Digest]| {
            let mut sorted = digests.to_vec();
            sorted.sort_unstable();
            sorted
        };
        if sorted(&plan.header.inputs) != sorted(&problem.inputs) {
            let (found, expected) = (plan.header.inputs.clone(), problem.inputs.clone());
            self.found.push(Violation::Inputs { found, expected });
        }
        self.word("scenario", &plan.scenario, &problem.name);
        self.word("model", &plan.model, &problem.model.name);
        self.word("objective_name", &plan.objective_name, problem.objective.name());
        self.word("unit", &plan.unit, problem.objective.unit());
    }

    fn no_plan(&mut self) {
        let (plan, status) = (self.plan, self.plan.status);
        for (what, count) in [
            ("batches", usize::from(plan.batch.is_some())),
            ("stages", plan.stages.len()),
            ("routes", plan.routes.len()),
            ("objective values", usize::from(plan.objective_value.is_some())),
            ("certificates", usize::from(plan.certificate.is_some())),
        ] {
            if count > 0 {
                self.found.push(Violation::PartsWithoutPlan { status, what, count });
            }
        }
        let blank = plan.reasons.iter().any(|reason| reason.trim().is_empty());
        if blank || (status == Status::Infeasible && plan.reasons.is_empty()) {
            self.found.push(Violation::NoReasons);
        }
    }

    /// The device of a stage; none where it names none or several or one that is not there.
    fn device(&self, stage: &Stage) -> Option<DeviceId> {
        match stage.devices.as_slice() {
            [name] => self.index.get(name.as_str()).copied(),
            _ => None,
        }
    }

    fn stages(&mut self) {
        let (plan, problem) = (self.plan, self.problem);
        if plan.stages.is_empty() {
            self.found.push(Violation::Nothing("stages"));
        }
        if !plan.reasons.is_empty() {
            self.found.push(Violation::ReasonsBesidePlan(plan.reasons.len()));
        }
        if let Some(batch) = plan.batch {
            let known = problem.batches();
            if !problem.objective.serves() || !known.contains(&batch) {
                self.found.push(Violation::Batch { batch, known, objective: problem.objective.name() });
            }
        }
        let layers_total = problem.layers();
        self.holders();
        for (i, stage) in plan.stages.iter().enumerate() {
            if !problem.formats().contains(&stage.quantisation) {
                let (found, expected) = (stage.quantisation.clone(), problem.formats().join(" or "));
                self.found.push(Violation::Quantisation { stage: i, found, expected });
            }
            if let Some(watts) = stage.power_cap_watts.filter(|cap| cap.value() <= 0.0) {
                self.found.push(Violation::PowerCap { stage: i, watts });
            }
            let range = stage.layers;
            if range.is_empty() || range.end > layers_total {
                self.found.push(Violation::StageLayers { stage: i, layers: range, layers_total });
            } else if let Some(device) = self.device(stage) {
                self.stage_on(i, stage, device);
            }
        }
    }

    /// The devices of each stage are there, may hold it together, and hold nothing else.
    fn holders(&mut self) {
        let (stated, asked) = (self.stated, self.asked);
        let chosen = asked.chosen(stated);
        let mut holder: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, stage) in stated.stages.iter().enumerate() {
            if stage.devices.is_empty() {
                self.found.push(Violation::GroupSize { stage: i, devices: 0 });
            }
            for name in &stage.devices {
                if asked.graph.find(name).is_none() {
                    self.found.push(Violation::UnknownDevice { place: format!("stage {i}"), name: name.clone() });
                }
                if let Some(first) = holder.insert(name, i) {
                    self.found.push(Violation::TwoStages { device: name.clone(), first, second: i });
                }
            }
            let members: Option<Vec<DeviceId>> = stage.devices.iter().map(|name| asked.graph.find(name)).collect();
            let several = members.filter(|members| members.len() > 1);
            if let Some(reason) = several.and_then(|members| chosen.group_fault_as(&members, stage.parallel)) {
                self.found.push(Violation::Group { stage: i, reason });
            }
        }
    }

    /// What a route, or a stage, of this role is judged by.
    fn side(&self, role: Option<Role>) -> &PlacementProblem {
        match (role, &self.sides) {
            (Some(Role::Prefill), Some([prefill, _])) => prefill,
            (Some(Role::Decode), Some([_, decode])) => decode,
            _ => self.problem,
        }
    }

    /// A stage with layers that exist on a device that exists.
    fn stage_on(&mut self, i: usize, stage: &Stage, device: DeviceId) {
        let (problem, stated) = (self.problem, &stage.bytes);
        let name = || problem.graph.device(device).name.clone();
        if let Some(reason) = problem.exclusion(device) {
            self.found.push(Violation::Excluded { device: name(), reason });
        }
        let side = self.side(self.roles[i]);
        let needed = side.stage_bytes(device, stage.layers);
        let timed = match problem.objective {
            Objective::Tpot => problem.decode_time(device, stage.layers).is_some(),
            Objective::Ttft => problem.prefill_time(device, stage.layers).is_some(),
            _ => side.rate(device, stage.layers, &side.life(1)).is_some(),
        };
        for (part, stated, expected) in [
            ("weights", stated.weights, needed.weights),
            ("key-value cache", stated.kv, needed.kv),
            ("activations", stated.activations, needed.activations),
            ("reserve", stated.reserve, needed.reserve),
            ("total", stated.total, needed.total),
            ("layers elsewhere", stated.away, needed.away),
            ("number of layers elsewhere", Bytes(stated.away_layers.into()), Bytes(needed.away_layers.into())),
        ] {
            if stated != expected {
                let (stated, expected) = (stated.0, expected.0);
                self.found.push(Violation::StageBytes { stage: i, part, stated, expected });
            }
        }
        if !timed {
            self.found.push(Violation::NoTime { device: name(), layers: stage.layers });
        }
        match problem.memory(device) {
            // A device of a flow problem holds no bytes, so nothing needs to be known about its memory.
            None if needed.total > Bytes::ZERO => {
                self.found.push(Violation::UnknownMemory { device: name(), needed: needed.total });
            }
            Some(memory) if needed.total > memory => {
                self.found.push(Violation::OverMemory { device: name(), needed: needed.total, memory });
            }
            _ => {}
        }
    }

    /// Memory that several devices share.
    fn memory(&mut self) {
        let mut needed_on: BTreeMap<DeviceId, Bytes> = BTreeMap::new();
        for (stage, &role) in self.plan.stages.iter().zip(&self.roles) {
            if let Some(device) = self.device(stage)
                && stage.layers.end <= self.problem.layers()
            {
                let needed = needed_on.entry(device).or_default();
                *needed = needed.saturating_add(self.side(role).stage_bytes(device, stage.layers).total);
            }
        }
        for (members, memory) in self.problem.memory_pools() {
            let holders: Vec<DeviceId> = members.into_iter().filter(|d| needed_on.contains_key(d)).collect();
            let needed: Bytes = holders.iter().map(|d| needed_on[d]).sum();
            let name = |id: &DeviceId| self.problem.graph.device(*id).name.clone();
            match memory {
                // A lone stage that exceeds its own device's memory is reported with the stage.
                Some(memory)
                    if needed > memory && !matches!(holders[..], [one] if self.problem.memory(one) < Some(needed)) =>
                {
                    let devices = holders.iter().map(name).collect();
                    self.found.push(Violation::OverPool { devices, needed, memory });
                }
                // One member's unknown memory makes the pool's unknown; its own is reported with its stage.
                None if needed > Bytes::ZERO => {
                    for device in holders.iter().filter(|d| self.problem.memory(**d).is_some()) {
                        let needed = needed_on[device];
                        self.found.push(Violation::UnknownMemory { device: name(device), needed });
                    }
                }
                _ => {}
            }
        }
    }

    fn routes(&mut self) {
        let plan = self.plan;
        if plan.routes.is_empty() {
            self.found.push(Violation::Nothing("routes"));
            return;
        }
        // Those of a divided plan add to one on each side.
        let mut sums: BTreeMap<Option<Role>, Exact> = BTreeMap::new();
        for (i, route) in plan.routes.iter().enumerate() {
            let sum = sums.entry(route.role).or_insert_with(Exact::zero);
            match exact(route.share) {
                Some(share) if share.is_positive() && share <= whole(1) => *sum += share,
                share => {
                    self.found.push(Violation::Share { route: i, share: route.share });
                    *sum += share.unwrap_or_else(Exact::zero);
                }
            }
            self.route(i, route);
        }
        let slack = Exact::new(1.into(), 1_000_000_000_000_u64.into());
        for sum in sums.into_values().filter(|sum| (sum - whole(1)).abs() > slack) {
            self.found.push(Violation::ShareSum { sum: nearest(&sum) });
        }
        for i in 0..plan.stages.len() {
            if !plan.routes.iter().flat_map(|r| &r.stages).any(|stop| stop.stage as usize == i) {
                self.found.push(Violation::IdleStage(i));
            }
        }
    }

    fn route(&mut self, i: usize, route: &Route) {
        let (plan, partial) = (self.plan, self.problem.limits.partial);
        let mut next = 0;
        let mut before: Option<DeviceId> = None;
        for (position, stop) in route.stages.iter().enumerate() {
            if stop.layers.start != next {
                self.found.push(Violation::LayerOrder { route: i, found: stop.layers.start, expected: next });
            }
            next = stop.layers.end;
            if route.stages[..position].iter().any(|other| other.stage == stop.stage) {
                self.found.push(Violation::StageTwice { route: i, stage: stop.stage });
            }
            let Some(stage) = plan.stages.get(stop.stage as usize) else {
                let (stage, stages) = (stop.stage, plan.stages.len());
                self.found.push(Violation::UnknownStage { route: i, stage, stages });
                before = None;
                continue;
            };
            let (served, held) = (stop.layers, stage.layers);
            let fault = if served.is_empty() || !held.contains(served) {
                Some("be at least one of these")
            } else if !partial && served != held {
                Some("be all of these, as limits.partial is off")
            } else {
                None
            };
            if let Some(must) = fault {
                self.found.push(Violation::StopLayers { route: i, stage: stop.stage, served, held, must });
            }
            let device = self.device(stage);
            if let (Some(from), Some(to)) = (before, device) {
                self.way(i, from, to);
            }
            before = device;
        }
        if next != self.problem.layers() {
            // The route ends, or goes on past the end.
            self.found.push(Violation::LayerOrder { route: i, found: self.problem.layers(), expected: next });
        }
        self.ends(i, route);
    }

    /// A way between two devices exists and its figures are known, as far as the objective needs them.
    fn way(&mut self, route: usize, from: DeviceId, to: DeviceId) {
        let problem = self.problem;
        let known = match problem.objective {
            Objective::Tpot => problem.decode_hop(from, to).is_some(),
            Objective::Ttft => problem.prefill_hop(from, to).is_some(),
            _ => problem.hop_rate(from, to).is_some(),
        };
        if !known {
            let name = |id| problem.graph.device(id).name.clone();
            self.found.push(Violation::NoWay { route, from: name(from), to: name(to) });
        }
    }

    /// Requests reach the first device and answers leave the last.
    fn ends(&mut self, i: usize, route: &Route) {
        let (plan, problem) = (self.plan, self.problem);
        let end = |stop: Option<&crate::plan::Stop>| {
            let stage = plan.stages.get(stop?.stage as usize)?;
            self.device(stage)
        };
        let (first, last) = (end(route.stages.first()), end(route.stages.last()));
        let name = |id| problem.graph.device(id).name.clone();
        let coordinator = problem.graph.file().coordinator.clone().unwrap_or_default();
        let mut missing = Vec::new();
        if let Some(first) = first.filter(|&d| problem.entry(d, 1).is_none()) {
            missing.push((coordinator.clone(), name(first)));
        }
        if let Some(last) = last.filter(|&d| problem.exit(d, 1).is_none()) {
            missing.push((name(last), coordinator));
        }
        if problem.objective.serves() {
            let (into, out) = (crate::objective::SOURCE, crate::objective::SINK);
            // Prompts come to who prefills, answers leave from who decodes.
            let role = route.role.or(problem.role());
            let (prefills, decodes) = (role != Some(Role::Decode), role != Some(Role::Prefill));
            let first = first.filter(|_| prefills);
            if let Some(first) = first.filter(|&d| !crate::objective::reached_from_source(problem, d)) {
                missing.push((into.to_owned(), name(first)));
            }
            let last = last.filter(|_| decodes);
            if let Some(last) = last.filter(|&d| !crate::objective::reaches_sink(problem, d)) {
                missing.push((name(last), out.to_owned()));
            }
        }
        self.found.extend(missing.into_iter().map(|(from, to)| Violation::NoWay { route: i, from, to }));
    }

    fn limits(&mut self) {
        let (plan, limits) = (self.plan, &self.problem.limits);
        for name in &limits.pinned {
            if !plan.stages.iter().any(|stage| stage.devices.contains(name)) {
                self.found.push(Violation::PinnedUnused(name.clone()));
            }
        }
        if let Some(max) = limits.stages_max {
            for (route, stages) in plan.routes.iter().map(|r| r.stages.len()).enumerate() {
                if stages as u64 > u64::from(max) {
                    self.found.push(Violation::TooManyStages { route, stages, max });
                }
            }
        }
        if let Some(exact) = limits.stages_exact {
            let (stages, routes) = (plan.stages.len(), plan.routes.len());
            if stages as u64 != u64::from(exact) || routes != 1 {
                self.found.push(Violation::NotExactly { stages, routes, exact });
            }
        }
        if !self.problem.objective.serves() && plan.routes.len() > 1 {
            let (objective, routes) = (self.problem.objective.name(), plan.routes.len());
            self.found.push(Violation::SeveralRoutes { objective, routes });
        }
    }

    /// The plan reaches what it, or the question, says that it has to.
    fn goals(&mut self) {
        let (stated, asked) = (self.stated, self.asked);
        for goal in asked.limits.goals.iter().chain(&stated.goals) {
            let figure = spending::figure(stated, asked, goal.figure);
            if !goal.reached(figure) {
                let figure = figure.map_or_else(|| "not known".to_owned(), |figure| figure.to_string());
                self.found.push(Violation::Goal { goal: goal.to_string(), figure });
            }
        }
    }

    /// Every device holds a stage or is listed as unused, with a reason.
    fn devices(&mut self) {
        let names = self.asked.graph.devices().iter().map(|device| (device.name.as_str(), (0, 0)));
        let mut count: BTreeMap<&str, (usize, usize)> = names.collect();
        for name in self.stated.stages.iter().flat_map(|stage| &stage.devices) {
            if let Some((stages, _)) = count.get_mut(name.as_str()) {
                *stages += 1;
            }
        }
        for unused in &self.stated.unused {
            match count.get_mut(unused.device.as_str()) {
                Some((_, listed)) => *listed += 1,
                None => {
                    let (place, name) = ("the list of unused devices".to_owned(), unused.device.clone());
                    self.found.push(Violation::UnknownDevice { place, name });
                }
            }
            if unused.reason.trim().is_empty() {
                self.found.push(Violation::UnusedReason(unused.device.clone()));
            }
        }
        for (name, (stages, listed)) in count {
            // Two stages on one device are reported with the stages.
            if stages.min(1) + listed != 1 {
                self.found.push(Violation::Accounted { device: name.to_owned(), listed, stages });
            }
        }
    }

    fn objective(&mut self) {
        let (plan, problem) = (self.plan, self.problem);
        let Some(stated) = plan.objective_value else {
            self.found.push(Violation::NoObjective);
            return;
        };
        let Some(stated_exactly) = exact(stated) else {
            self.found.push(Violation::NotFinite { what: "objective_value", value: stated });
            return;
        };
        let objective = problem.objective.name();
        match evaluate_exactly(plan, problem, problem.objective) {
            Some(recomputed) if !agree(&stated_exactly, &recomputed) => {
                let recomputed = nearest(&recomputed);
                self.found.push(Violation::ObjectiveValue { objective, stated, recomputed });
            }
            // What is missing has been reported, or this says at least that something is.
            None if self.found.is_empty() => self.found.push(Violation::Unevaluated { objective }),
            _ => {}
        }
        self.found.extend(certificate::faults(self.stated, self.asked, stated).into_iter().map(Violation::Bound));
    }
}

/// Whether a device can hold these layers by itself: it may be used, its times are known and they fit its memory.
fn holds(problem: &PlacementProblem, device: DeviceId, layers: Layers) -> bool {
    let needed = problem.stage_bytes(device, layers).total;
    needed == Bytes::ZERO || problem.memory(device).is_some_and(|memory| needed <= memory)
}
