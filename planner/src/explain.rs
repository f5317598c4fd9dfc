//! Why a plan is as it is: what binds it, what each device is worth, what one more would give.
//!
//! Worths are found by solving again: without a device, and with one more like it beside it. Each answer is a plan of
//! its own, so a worth is as certain as the two plans it compares.

use crate::budget::Budget;
use crate::door::plan as solve;
use crate::heat_cost::{self, HeatCost};
use crate::outcome::{Outcome, PlanError};
use crate::split::{SplitVerdict, verdict};
use isotherm_core::device::Device;
use isotherm_core::graph::{DeviceGraph, DevicesFile};
use isotherm_core::ids::DeviceId;
use isotherm_core::objective::evaluate;
use isotherm_core::plan::Plan;
use isotherm_core::problem::{Division, Goal, Limits, PlacementProblem, ProblemParts, Role};
use isotherm_core::units::Bytes;
use std::collections::BTreeMap;

/// A stage whose device has hardly any memory left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TightMemory {
    /// The device.
    pub device: String,
    /// Memory left beside the stage.
    pub left: Bytes,
    /// What one more layer would take; no further layer fits when this is more than what is left.
    pub next_layer: Bytes,
}

/// What a device, or one more of its class, is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Worth {
    /// The device, or the class of which there would be one more.
    pub name: String,
    /// The objective then; none where there would be no plan.
    pub objective: Option<f64>,
    /// By what share the objective changes, above zero for the better; none like the objective.
    pub gain: Option<f64>,
    /// Whether nothing better is possible then: else a longer search may find more.
    pub proven: bool,
}

/// Why a plan is as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What bounds the throughput, in words; none where nothing is known.
    pub bottleneck: Option<String>,
    /// Stages whose devices cannot take one more layer.
    pub tight: Vec<TightMemory>,
    /// Whether it pays to split the model, and where that turns; none where that is not known.
    pub split: Option<SplitVerdict>,
    /// What dividing prompts from answers is worth; none where plans are not divided, or that is not known.
    pub division: Option<DivisionWorth>,
    /// What heat and power limits cost; none where they cost nothing, or where the plan does not care for them.
    pub heat: Option<HeatCost>,
    /// The objective without each of the goals: what each costs.
    pub goals: Vec<(Goal, Option<f64>)>,
    /// The objective without each device that the plan uses.
    pub without: Vec<Worth>,
    /// The objective with one more device of each class.
    pub one_more: Vec<Worth>,
    /// Goals, devices and classes of which there was no time to ask.
    pub unasked: Vec<String>,
}

/// The best plans with and without devices that only prefill and others that only decode.
#[derive(Debug, Clone, PartialEq)]
pub struct DivisionWorth {
    /// The objective of the best plan that divides them; none where there is none.
    pub divided: Option<f64>,
    /// Devices that prefill in it.
    pub prefill: Vec<String>,
    /// The objective of the best plan that does not.
    pub whole: Option<f64>,
}

/// Most devices and classes for which a problem is solved again.
pub const RESOLVED_MAX: usize = 64;
/// As how many problems it counts to look where splitting the model pays.
const SPLIT_PARTS: usize = 4;

/// Explains a plan for its problem. `budget` holds for all problems that are solved again; each goal, device
/// and class may take an equal part of what heat and division leave.
///
/// # Errors
/// The solver failed.
pub fn explain(problem: &PlacementProblem, plan: &Plan, budget: &Budget<'_>) -> Result<Explanation, PlanError> {
    let value = plan.objective_value;
    let heat = if plan.status.has_plan() { heat_cost::cost(problem, plan, budget)? } else { None };
    let division = if plan.status.has_plan() { division(problem, budget)? } else { None };
    let used: Vec<&String> = plan.stages.iter().flat_map(|stage| &stage.devices).take(RESOLVED_MAX).collect();
    let more: Vec<(String, DeviceId)> = classes(problem).into_iter().take(RESOLVED_MAX).collect();
    // Whether to split the model comes last, and is many questions.
    let lifted = if plan.status.has_plan() { problem.limits.goals.as_slice() } else { &[] };
    let mut open = lifted.len() + used.len() + more.len() + SPLIT_PARTS;
    let mut unasked = Vec::new();
    let mut asked = |problem: &PlacementProblem| {
        let share = 1.0 / open as f64;
        open -= 1;
        budget.part(share, |budget| solve(problem, budget))
    };
    let mut goals = Vec::new();
    for (i, &goal) in lifted.iter().enumerate() {
        if budget.exhausted().is_some() {
            unasked.push(format!("without {goal}"));
            continue;
        }
        let mut other = problem.clone();
        other.limits.goals.remove(i);
        goals.push((goal, asked(&other)?.plan().and_then(|found| found.plan().objective_value)));
    }
    let mut without = Vec::new();
    for device in used {
        if budget.exhausted().is_some() {
            unasked.push(device.clone());
            continue;
        }
        let limits = Limits {
            banned: problem.limits.banned.iter().cloned().chain([device.clone()]).collect(),
            pinned: problem.limits.pinned.iter().filter(|pinned| *pinned != device).cloned().collect(),
            ..problem.limits.clone()
        };
        if let Some(other) = changed(problem, problem.graph.clone(), limits) {
            without.push(worth(problem, device, value, &asked(&other)?));
        }
    }
    let mut one_more = Vec::new();
    for (class, twin) in more {
        if budget.exhausted().is_some() {
            unasked.push(format!("one more {class}"));
            continue;
        }
        let Some(graph) = with_one_more(problem, twin) else { continue };
        if let Some(mut other) = changed(problem, graph, problem.limits.clone()) {
            // It stands where the first of its class does.
            let first = &problem.graph.device(twin).name;
            for prices in [&mut other.prices.hours, &mut other.prices.devices] {
                if let Some(&price) = prices.get(first) {
                    prices.insert(format!("{first}+1"), price);
                }
            }
            for chassis in other.conditions.chassis.iter_mut().filter(|chassis| chassis.devices.contains(first)) {
                chassis.devices.push(format!("{first}+1"));
            }
            let mut found = worth(problem, &class, value, &asked(&other)?);
            // The plan itself is one: the device may stay unused.
            if found.gain.is_none_or(|gain| gain < 0.0) && value.is_some() {
                (found.objective, found.gain, found.proven) = (value, Some(0.0), false);
            }
            one_more.push(found);
        }
    }
    Ok(Explanation {
        bottleneck: evaluate(plan, problem).bottleneck.map(|what| what.to_string()),
        tight: tight(problem, plan),
        split: if plan.status.has_plan() { verdict(problem, budget)? } else { None },
        division,
        heat,
        goals,
        without,
        one_more,
        unasked,
    })
}

fn division(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Option<DivisionWorth>, PlanError> {
    if problem.limits.division.is_never() || problem.divisible().is_err() || budget.exhausted().is_some() {
        return Ok(None);
    }
    let best = |division: Division| {
        let mut asked = problem.clone();
        asked.limits.division = division;
        if division.is_never() {
            asked.limits.prefill.clear();
        }
        Ok::<_, PlanError>(solve(&asked, budget)?.plan().map(|found| found.plan().clone()))
    };
    let (divided, whole) = (best(Division::Always)?, best(Division::Never)?);
    let value = |plan: &Option<Plan>| plan.as_ref().and_then(|plan| plan.objective_value);
    let mut prefill = Vec::new();
    if let Some(plan) = &divided {
        let roles = plan.stages.iter().zip(plan.stage_roles());
        let own = roles.filter(|(_, role)| *role == Some(Role::Prefill));
        prefill.extend(own.flat_map(|(stage, _)| stage.devices.clone()));
    }
    Ok(Some(DivisionWorth { divided: value(&divided), prefill, whole: value(&whole) }))
}

fn worth(problem: &PlacementProblem, name: &str, value: Option<f64>, outcome: &Outcome) -> Worth {
    let objective = outcome.plan().and_then(|plan| plan.plan().objective_value);
    let gain = value
        .zip(objective)
        .filter(|(before, _)| *before > 0.0)
        .map(|(before, after)| if problem.objective.maximises() { after / before - 1.0 } else { 1.0 - after / before });
    Worth {
        name: name.to_owned(),
        objective,
        gain,
        proven: matches!(outcome, Outcome::Optimal(_) | Outcome::Infeasible(_)),
    }
}

/// One device of each class, the first, in order of class.
fn classes(problem: &PlacementProblem) -> BTreeMap<String, DeviceId> {
    let mut first = BTreeMap::new();
    for id in problem.graph.device_ids() {
        first.entry(problem.graph.device(id).class.clone()).or_insert(id);
    }
    first
}

/// The same problem on another graph under other limits; none where that is no problem at all.
fn changed(problem: &PlacementProblem, graph: DeviceGraph, limits: Limits) -> Option<PlacementProblem> {
    let parts = ProblemParts {
        name: problem.name.clone(),
        model: problem.model.clone(),
        graph,
        workload: problem.workload.clone(),
        serving: problem.serving,
        objective: problem.objective,
        limits,
        ambient: problem.ambient,
        inputs: problem.inputs.clone(),
    };
    let mut changed = PlacementProblem::new(parts).ok()?;
    changed.conditions = problem.conditions.clone();
    changed.prices = problem.prices.clone();
    Some(changed)
}

/// The graph with a twin of a device: the same figures, links like its own, and one to it and back like the quickest of
/// its own. Its memory is its own.
fn with_one_more(problem: &PlacementProblem, id: DeviceId) -> Option<DeviceGraph> {
    let file = problem.graph.file();
    let original = problem.graph.device(id);
    let twin = Device { name: format!("{}+1", original.name), memory_pool: None, ..original.clone() };
    let mut links = file.links.clone();
    for link in file.links.iter().filter(|link| link.from == original.name || link.to == original.name) {
        let mut like = link.clone();
        for end in [&mut like.from, &mut like.to] {
            if *end == original.name {
                end.clone_from(&twin.name);
            }
        }
        links.push(like);
    }
    // Without a junction between them, the two would know no way to one another.
    let out =
        file.links.iter().find(|link| link.from == original.name && file.devices.iter().any(|d| d.name == link.to));
    if let Some(link) = out {
        let (a, b) = (&original.name, &twin.name);
        for (from, to) in [(a, b), (b, a)] {
            links.push(isotherm_core::graph::Link { from: from.clone(), to: to.clone(), ..link.clone() });
        }
    }
    let devices = file.devices.iter().cloned().chain([twin]).collect();
    DeviceGraph::new(DevicesFile { devices, links, ..file.clone() }).ok()
}

fn tight(problem: &PlacementProblem, plan: &Plan) -> Vec<TightMemory> {
    let (problem, plan) = problem.spoken(plan);
    let mut found = Vec::new();
    for (stage, role) in plan.stages.iter().zip(plan.stage_roles()) {
        let problem = problem.side_of(role);
        for device in &stage.devices {
            let Some(id) = problem.graph.find(device) else { continue };
            let Some(memory) = problem.memory(id) else { continue };
            let mut longer = stage.layers;
            if longer.end < problem.layers() {
                longer.end += 1;
            } else if longer.start > 0 {
                longer.start -= 1;
            } else {
                continue;
            }
            let next_layer = problem.stage_bytes(id, longer).total.saturating_sub(stage.bytes.total);
            let left = memory.saturating_sub(stage.bytes.total);
            if next_layer > left {
                found.push(TightMemory { device: device.clone(), left, next_layer });
            }
        }
    }
    found
}
