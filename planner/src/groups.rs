//! Groups as a choice: which alike devices of one host hold a stage together, dividing each matrix (tensor parallelism)
//! or the experts of a layer among them.
//!
//! Devices of one host that may hold a stage together are divided into groups in every way that tells them apart only
//! by how many are in how large a group. Each way is a problem in which groups are devices. Where members have unlike
//! ways, which of them are together would matter too: then the ways looked at are not all, and no bound is stated.

use crate::budget::Budget;
use crate::choices::Best;
use crate::door::alone;
use crate::outcome::{Outcome, PlanError};
use isotherm_core::ids::DeviceId;
use isotherm_core::plan::{Plan, Unused};
use isotherm_core::problem::{Group, Parallel, PlacementProblem, group_name};

/// Most ways to divide all devices that are solved. Beyond, only those in which all hosts have groups of one size.
const WAYS_MAX: usize = 64;

/// Devices that may hold a stage together, in the order of their identifiers.
type Cell = Vec<DeviceId>;

/// The best plan over all groups.
pub(crate) fn plan(problem: &PlacementProblem, budget: &Budget<'_>) -> Result<Outcome, PlanError> {
    let cells = cells(problem);
    let mut all: Vec<Vec<Group>> = Vec::new();
    let mut complete = cells.iter().all(|cell| alike_from_outside(problem, cell));
    for parallel in [Parallel::Tensor, Parallel::Experts] {
        let (ways, whole) = ways(problem, &cells, parallel);
        complete &= whole;
        let group = |members: &Cell| Group { members: members.clone(), parallel };
        // No group at all is a way of either.
        let ways = ways.iter().map(|way| way.iter().map(group).collect::<Vec<_>>());
        all.extend(ways.filter(|way| parallel == Parallel::Tensor || !way.is_empty()));
    }
    // Groups of both kinds beside one another are not looked at.
    let kinds = |kind| all.iter().any(|way| way.iter().any(|group| group.parallel == kind));
    complete &= !(kinds(Parallel::Tensor) && kinds(Parallel::Experts)) || all.iter().all(|way| way.len() < 2);
    let mut best = Best::new(problem, complete);
    for groups in &all {
        if best.ends(budget) {
            break;
        }
        let Some(grouped) = problem.grouped_as(groups) else { continue };
        best.offer(alone(&grouped, budget)?, |plan| in_members(problem, groups, plan));
    }
    best.outcome()
}

/// Sets of devices of which any two may hold a stage together, for some degree.
fn cells(problem: &PlacementProblem) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    let choices = &problem.limits.choices;
    let degrees = choices.tensor_parallel.iter().chain(&choices.expert_parallel);
    let degrees: Vec<u32> = degrees.copied().filter(|&d| d > 1).collect();
    for id in problem.graph.device_ids() {
        let joins = |cell: &&mut Cell| cell.iter().all(|&other| problem.pair_fault(other, id).is_none());
        match cells.iter_mut().find(joins) {
            Some(cell) => cell.push(id),
            None => cells.push(vec![id]),
        }
    }
    cells.retain(|cell| degrees.iter().any(|&degree| cell.len() >= degree as usize));
    cells
}

/// Ways to divide all cells into groups of one kind, and whether these are all.
fn ways(problem: &PlacementProblem, cells: &[Cell], parallel: Parallel) -> (Vec<Vec<Cell>>, bool) {
    let choices = &problem.limits.choices;
    let given = match parallel {
        Parallel::Tensor => &choices.tensor_parallel,
        Parallel::Experts => &choices.expert_parallel,
    };
    let mut degrees: Vec<usize> = given.iter().map(|&d| d as usize).collect();
    degrees.sort_unstable_by(|a, b| b.cmp(a));
    degrees.dedup();
    // A size that the model cannot be divided by is none.
    let able = |&degree: &usize| degree == 1 || cells.iter().any(|cell| whole(problem, cell, degree, parallel));
    degrees.retain(able);
    // One alone is a matter of course.
    degrees.retain(|&degree| degree > 1);
    let mut all: Vec<Vec<Cell>> = vec![Vec::new()];
    for cell in cells {
        let divided = divided(cell, &degrees);
        if all.len() * divided.len() > WAYS_MAX {
            let alike = |&degree: &usize| {
                cells.iter().flat_map(|cell| cell.chunks_exact(degree).map(<[DeviceId]>::to_vec)).collect()
            };
            let together: Vec<Vec<Cell>> = degrees.iter().map(alike).collect();
            return ([vec![Vec::new()], together].concat(), false);
        }
        all = all.iter().flat_map(|given| divided.iter().map(|more| [given.as_slice(), more].concat())).collect();
    }
    (all, true)
}

/// Whether the first of a cell may form a group of this size.
fn whole(problem: &PlacementProblem, cell: &Cell, degree: usize, parallel: Parallel) -> bool {
    cell.get(..degree).is_some_and(|members| problem.group_fault_as(members, parallel).is_none())
}

/// Ways to divide a cell into groups of these sizes, largest first, the rest being alone.
fn divided(cell: &[DeviceId], degrees: &[usize]) -> Vec<Vec<Cell>> {
    let Some((&degree, smaller)) = degrees.split_first() else { return vec![Vec::new()] };
    let mut ways = Vec::new();
    for groups in 0..=cell.len() / degree {
        let (together, rest) = cell.split_at(groups * degree);
        let together: Vec<Cell> = together.chunks_exact(degree).map(<[DeviceId]>::to_vec).collect();
        ways.extend(divided(rest, smaller).into_iter().map(|more| [together.clone(), more].concat()));
    }
    ways
}

/// Whether any two of a cell may be exchanged: equal ways between them, and to and from everybody else.
fn alike_from_outside(problem: &PlacementProblem, cell: &Cell) -> bool {
    let graph = &problem.graph;
    let row = problem.model.boundary_bytes_per_token();
    let way = |from: &str, to: &str| graph.path(from, to, row).map(|path| (path.latency, path.bandwidth));
    let names: Vec<&str> = cell.iter().map(|&id| graph.device(id).name.as_str()).collect();
    let places = graph.devices().iter().map(|device| device.name.as_str()).chain(graph.file().coordinator.as_deref());
    let outside: Vec<&str> = places.filter(|place| !names.contains(place)).collect();
    let pinned = |name: &&str| problem.limits.pinned.iter().any(|pin| pin == name);
    let inside = names.iter().flat_map(|&a| names.iter().filter(move |&&b| b != a).map(move |&b| (a, b)));
    let mut within = inside.map(|(a, b)| way(a, b));
    let first = within.next();
    !names.iter().any(pinned)
        && within.all(|other| Some(other) == first)
        && outside
            .iter()
            .all(|o| names.iter().all(|name| way(name, o) == way(names[0], o) && way(o, name) == way(o, names[0])))
}

/// The plan in the terms of the problem: groups named by their members.
fn in_members(problem: &PlacementProblem, groups: &[Group], mut plan: Plan) -> Plan {
    let name = |&id: &DeviceId| problem.graph.device(id).name.clone();
    let members = |device: &str| {
        let named =
            groups.iter().map(|group| (group.members.iter().map(name).collect::<Vec<String>>(), group.parallel));
        named.into_iter().find(|(group, _)| group_name(group.iter().map(String::as_str)) == device)
    };
    for stage in &mut plan.stages {
        if let [device] = stage.devices.as_slice()
            && let Some((group, parallel)) = members(device)
        {
            (stage.devices, stage.parallel) = (group, parallel);
        }
    }
    let split = |unused: Unused| match members(&unused.device) {
        None => vec![unused],
        Some((group, _)) => {
            let together =
                |device| Unused { device, reason: format!("as part of {}: {}", unused.device, unused.reason) };
            group.into_iter().map(together).collect()
        }
    };
    plan.unused = plan.unused.into_iter().flat_map(split).collect();
    plan
}
