//! Dumb on purpose: tries every placement and values it with the objective's one definition.

use isotherm_core::artefact::Header;
use isotherm_core::ids::{DeviceId, Layers};
use isotherm_core::objective::evaluate;
use isotherm_core::plan::{PLAN_SCHEMA, Plan, Provenance, Route, Stage, Status, Stop};
use isotherm_core::problem::{Division, Life, Objective, Parallel, PlacementProblem};
use isotherm_core::sustained::Envelope;
use isotherm_core::units::Bytes;
use microlp::{ComparisonOp, OptimizationDirection, Problem};
use std::collections::BTreeMap;

type Placement = Vec<(DeviceId, Layers)>;

thread_local! {
    /// Factor on what loads take of heat and power.
    static RESERVE: std::cell::Cell<f64> = const { std::cell::Cell::new(1.0) };
}

/// The same with every load counted this many times.
pub fn best_with_reserve(problem: &PlacementProblem, reserve: f64) -> Option<f64> {
    RESERVE.with(|cell| cell.set(reserve));
    let found = best(problem);
    RESERVE.with(|cell| cell.set(1.0));
    found
}

/// The value of the best plan; none where there is no plan.
pub fn best(problem: &PlacementProblem) -> Option<f64> {
    let mut best: Option<f64> = None;
    let mut offer = |value: Option<f64>| {
        let better = |known: f64, value: f64| if problem.objective.maximises() { value > known } else { value < known };
        if let Some(value) = value
            && best.is_none_or(|known| better(known, value))
        {
            best = Some(value);
        }
    };
    if problem.objective == Objective::Throughput {
        let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&d| problem.usable(d)).collect();
        placements(problem, &devices, &mut Vec::new(), &mut |placement| offer(best_rate(problem, placement)));
    } else {
        chains(problem, 0, &mut Vec::new(), &mut |chain| offer(value_of_chain(problem, chain)));
    }
    best
}

fn chains(problem: &PlacementProblem, at: u32, chain: &mut Placement, visit: &mut dyn FnMut(&Placement)) {
    if at == problem.layers() {
        visit(chain);
        return;
    }
    for device in problem.graph.device_ids() {
        if !problem.usable(device) || chain.iter().any(|(used, _)| *used == device) {
            continue;
        }
        for end in at + 1..=problem.layers() {
            chain.push((device, Layers::new(at, end)));
            chains(problem, end, chain, visit);
            chain.pop();
        }
    }
}

/// Every choice of an interval or nothing for each device.
fn placements(
    problem: &PlacementProblem,
    devices: &[DeviceId],
    placement: &mut Placement,
    visit: &mut dyn FnMut(&Placement),
) {
    let Some((&device, rest)) = devices.split_first() else {
        visit(placement);
        return;
    };
    placements(problem, rest, placement, visit);
    for start in 0..problem.layers() {
        for end in start + 1..=problem.layers() {
            placement.push((device, Layers::new(start, end)));
            placements(problem, rest, placement, visit);
            placement.pop();
        }
    }
}

fn fits(problem: &PlacementProblem, placement: &Placement) -> bool {
    let pinned = problem
        .limits
        .pinned
        .iter()
        .all(|pin| placement.iter().any(|(device, _)| &problem.graph.device(*device).name == pin));
    pinned
        && problem.memory_pools().iter().all(|(members, size)| {
            let needed: Bytes = placement
                .iter()
                .filter(|(device, _)| members.contains(device))
                .map(|&(device, layers)| problem.stage_bytes(device, layers).total)
                .sum();
            needed == Bytes::ZERO || size.is_some_and(|size| needed <= size)
        })
}

fn allowed(problem: &PlacementProblem, stages: usize) -> bool {
    problem.limits.stages_max.is_none_or(|most| stages <= most as usize)
        && problem.limits.stages_exact.is_none_or(|exact| stages == exact as usize)
}

fn value_of_chain(problem: &PlacementProblem, chain: &Placement) -> Option<f64> {
    if !fits(problem, chain) || !allowed(problem, chain.len()) {
        return None;
    }
    let stops = (0..chain.len()).collect();
    evaluate(&as_plan(problem, chain, &[(stops, 1.0)]), problem).value(problem.objective)
}

fn as_plan(problem: &PlacementProblem, placement: &Placement, routes: &[(Vec<usize>, f64)]) -> Plan {
    let stages: Vec<Stage> = placement
        .iter()
        .map(|&(device, layers)| Stage {
            devices: vec![problem.graph.device(device).name.clone()],
            layers,
            quantisation: problem.format(device).to_owned(),
            bytes: problem.stage_bytes(device, layers),
            parallel: Parallel::Tensor,
            power_cap_watts: None,
        })
        .collect();
    let route = |(stops, share): &(Vec<usize>, f64)| Route {
        stages: stops.iter().map(|&i| Stop { stage: i as u32, layers: placement[i].1 }).collect(),
        share: *share,
        role: None,
    };
    Plan {
        header: Header::new(PLAN_SCHEMA, problem.inputs.clone()),
        scenario: problem.name.clone(),
        model: problem.model.name.clone(),
        status: Status::Feasible,
        objective_name: problem.objective.name().into(),
        objective_value: None,
        unit: problem.objective.unit().into(),
        certificate: None,
        stages,
        routes: routes.iter().map(route).collect(),
        unused: Vec::new(),
        reasons: Vec::new(),
        batch: None,
        division: Division::Never,
        sustained: None,
        goals: Vec::new(),
        provenance: Provenance::default(),
    }
}

/// Highest rate of a placement: a linear program over all its routes, every capacity a row.
fn best_rate(problem: &PlacementProblem, placement: &Placement) -> Option<f64> {
    if !fits(problem, placement) {
        return None;
    }
    let exact = problem.limits.stages_exact;
    if exact.is_some_and(|exact| placement.len() != exact as usize) {
        return None;
    }
    let mut routes = Vec::new();
    for first in 0..placement.len() {
        if placement[first].1.start == 0 {
            extend(problem, placement, &mut vec![first], 0, &mut routes);
        }
    }
    // A pinned device counts only where a route passes it; in one chain every stage must be passed.
    routes.retain(|route| exact.is_none_or(|_| route.len() == placement.len()));
    let limits = &problem.limits;
    let pins: Vec<usize> =
        (0..placement.len()).filter(|&i| limits.pinned.contains(&problem.graph.device(placement[i].0).name)).collect();
    if routes.is_empty() || pins.iter().any(|pin| !routes.iter().any(|route| route.contains(pin))) {
        return None;
    }
    if exact.is_some() {
        return routes.iter().filter_map(|r| rate(problem, placement, &[(r.clone(), 1.0)])).reduce(f64::max);
    }
    problem.batches().into_iter().filter_map(|batch| linear(problem, placement, &routes, batch)).reduce(f64::max)
}

fn rate(problem: &PlacementProblem, placement: &Placement, routes: &[(Vec<usize>, f64)]) -> Option<f64> {
    evaluate(&as_plan(problem, placement, routes), problem).value(Objective::Throughput)
}

/// All sequences of stages that serve every layer in order. With partial inference each passes on as early as the next
/// can take over, which leaves most room.
fn extend(
    problem: &PlacementProblem,
    placement: &Placement,
    route: &mut Vec<usize>,
    entered: u32,
    found: &mut Vec<Vec<usize>>,
) {
    let Some(&last) = route.last() else { return };
    let held = placement[last].1;
    if problem.limits.stages_max.is_some_and(|most| route.len() > most as usize) {
        return;
    }
    if held.end == problem.layers() && problem.exit(placement[last].0, 1).is_some() {
        let first = placement[route[0]].0;
        if problem.entry(first, 1).is_some() {
            found.push(route.clone());
        }
    }
    for next in 0..placement.len() {
        let after = placement[next].1;
        let cut = if problem.limits.partial { (entered + 1).max(after.start) } else { held.end };
        let follows = if problem.limits.partial { cut <= held.end && cut < after.end } else { after.start == cut };
        if follows && !route.contains(&next) && problem.hop_rate(placement[last].0, placement[next].0).is_some() {
            route.push(next);
            extend(problem, placement, route, cut, found);
            route.pop();
        }
    }
}

/// Rows of a linear program over what routes carry: a capacity, and what each unit on each route takes of it.
type Rows = BTreeMap<String, (f64, Vec<f64>)>;

/// The same in batches of one size, one row more: requests in flight.
fn linear(problem: &PlacementProblem, placement: &Placement, routes: &[Vec<usize>], batch: u32) -> Option<f64> {
    let mut program = Problem::new(OptimizationDirection::Maximize);
    let columns: Vec<_> = routes.iter().map(|_| program.add_var(1.0, (0.0, f64::INFINITY))).collect();
    for (capacity, loads) in rows(problem, placement, routes, batch)?.into_values() {
        let terms: Vec<_> = columns.iter().copied().zip(loads).collect();
        program.add_constraint(terms, ComparisonOp::Le, capacity);
    }
    let solution = program.solve().ok()?.into_solution().ok()?;
    Some(solution.objective())
}

/// The least that a token, or an hour, costs over all placements, batches and routes, every device of a placement being
/// paid for; none where no plan reaches the rate asked for. The rate is that of the plan: it runs as fast as it can.
pub fn least_cost(problem: &PlacementProblem, figure: Objective, floor: f64) -> Option<f64> {
    let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&d| problem.usable(d)).collect();
    let mut best: Option<f64> = None;
    placements(problem, &devices, &mut Vec::new(), &mut |placement| {
        for batch in problem.batches() {
            let found = cost_of(problem, placement, batch, figure, floor);
            best = [best, found].into_iter().flatten().reduce(f64::min);
        }
    });
    best
}

/// The highest rate of all placements, batches and routes whose cost stays within a limit, every device of a placement
/// being paid for.
pub fn best_within_cost(problem: &PlacementProblem, figure: Objective, limit: f64) -> Option<f64> {
    let devices: Vec<DeviceId> = problem.graph.device_ids().filter(|&d| problem.usable(d)).collect();
    let mut best: Option<f64> = None;
    placements(problem, &devices, &mut Vec::new(), &mut |placement| {
        for batch in problem.batches() {
            let found = rate_within(problem, placement, batch, figure, limit);
            best = [best, found].into_iter().flatten().reduce(f64::max);
        }
    });
    best
}

/// All routes through a placement; none where it is not allowed.
fn routes_of(problem: &PlacementProblem, placement: &Placement) -> Option<Vec<Vec<usize>>> {
    if placement.is_empty() || !fits(problem, placement) || !allowed(problem, placement.len()) {
        return None;
    }
    let mut routes = Vec::new();
    for first in 0..placement.len() {
        if placement[first].1.start == 0 {
            extend(problem, placement, &mut vec![first], 0, &mut routes);
        }
    }
    Some(routes)
}

/// The cost is what devices cost while they hold a stage and what each unit of the rate adds; the limit is for each
/// unit.
fn rate_within(
    problem: &PlacementProblem,
    placement: &Placement,
    batch: u32,
    figure: Objective,
    limit: f64,
) -> Option<f64> {
    let routes = routes_of(problem, placement)?;
    let life = problem.life(batch);
    let costs: Vec<_> = placement.iter().map(|(device, _)| problem.cost(*device, figure)).collect::<Option<_>>()?;
    let held: f64 = costs.iter().map(|cost| cost.held).sum();
    let limit = limit / PlacementProblem::figure_of_cost(figure, 1.0, 1.0);
    let mut program = Problem::new(OptimizationDirection::Maximize);
    let columns: Vec<_> = routes.iter().map(|_| program.add_var(1.0, (0.0, f64::INFINITY))).collect();
    let mut spent = Vec::new();
    for (route, &column) in routes.iter().zip(&columns) {
        let mut each = -limit;
        for &stop in route {
            let (device, layers) = placement[stop];
            each += costs[stop].worked / problem.rate(device, layers, &life)?.value();
        }
        spent.push((column, each));
    }
    program.add_constraint(spent, ComparisonOp::Le, -held);
    for (capacity, loads) in rows(problem, placement, &routes, batch)?.into_values() {
        let terms: Vec<_> = columns.iter().copied().zip(loads).collect();
        program.add_constraint(terms, ComparisonOp::Le, capacity);
    }
    let solution = program.solve().ok()?.into_solution().ok()?;
    Some(solution.objective()).filter(|&rate| rate > 0.0)
}

/// With `t` the seconds of a token and `y` the shares of routes, capacities are `sum of y <= capacity * t` and the cost
/// is linear (Charnes and Cooper 1962).
fn cost_of(
    problem: &PlacementProblem,
    placement: &Placement,
    batch: u32,
    figure: Objective,
    floor: f64,
) -> Option<f64> {
    let routes = routes_of(problem, placement)?;
    let life = problem.life(batch);
    let mut program = Problem::new(OptimizationDirection::Minimize);
    let costs: Vec<_> = placement.iter().map(|(device, _)| problem.cost(*device, figure)).collect::<Option<_>>()?;
    let held: f64 = costs.iter().map(|cost| cost.held).sum();
    let t = program.add_var(held, (0.0, if floor > 0.0 { 1.0 / floor } else { f64::INFINITY }));
    let mut columns = Vec::new();
    for route in &routes {
        let mut each = 0.0;
        for &stop in route {
            let (device, layers) = placement[stop];
            each += costs[stop].worked / problem.rate(device, layers, &life)?.value();
        }
        columns.push(program.add_var(each, (0.0, 1.0)));
    }
    let all: Vec<_> = columns.iter().map(|&column| (column, 1.0)).collect();
    program.add_constraint(all, ComparisonOp::Eq, 1.0);
    for (capacity, loads) in rows(problem, placement, &routes, batch)?.into_values() {
        let mut terms: Vec<_> = columns.iter().copied().zip(loads).collect();
        terms.push((t, -capacity));
        program.add_constraint(terms, ComparisonOp::Le, 0.0);
    }
    let solution = program.solve().ok()?.into_solution().ok()?;
    Some(PlacementProblem::figure_of_cost(figure, solution.objective(), 1.0))
}

fn rows(problem: &PlacementProblem, placement: &Placement, routes: &[Vec<usize>], batch: u32) -> Option<Rows> {
    let reserve = RESERVE.with(std::cell::Cell::get);
    let life = problem.life(batch);
    let mut rows = Rows::new();
    let mut load = |name: String, capacity: f64, route: usize| {
        let row = rows.entry(name).or_insert_with(|| (capacity, vec![0.0; routes.len()]));
        row.1[route] += 1.0;
    };
    let output = problem.workload.output_tokens.mean();
    let row_bytes = problem.model.boundary_bytes_per_token();
    let moved = row_bytes.0 as f64 * (problem.workload.prompt_tokens.mean() + output - 1.0) / output;
    for (r, route) in routes.iter().enumerate() {
        for &stop in route {
            let (device, layers) = placement[stop];
            load(format!("stage {stop}"), problem.rate(device, layers, &life)?.value(), r);
        }
        for pair in route.windows(2) {
            let (from, to) = (placement[pair[0]].0, placement[pair[1]].0);
            load(format!("pair {from:?} {to:?}"), problem.hop_rate(from, to)?.value(), r);
            for id in problem.graph.device_path(from, to, row_bytes)?.links {
                let link = problem.graph.link(id);
                load(format!("link {id:?}"), link.bandwidth_bytes_per_second.as_ref()?.value.value() / moved, r);
                for group in problem.graph.file().groups.iter().filter(|g| link.groups.contains(&g.name)) {
                    let capacity = group.bandwidth_bytes_per_second.value.value() / moved;
                    load(format!("group {}", group.name), capacity, r);
                }
            }
        }
    }
    // Heat and power: what a device adds at full load, times the share of the time that a token takes of it.
    for (i, limit) in Envelope::of(problem).rows.iter().enumerate().filter(|_| !problem.limits.cold) {
        let mut loads = vec![0.0; routes.len()];
        for (r, route) in routes.iter().enumerate() {
            for &stop in route {
                let (device, layers) = placement[stop];
                let each = limit.terms.iter().find(|(id, _)| *id == device).map_or(0.0, |(_, each)| *each);
                loads[r] += each / problem.rate(device, layers, &life)?.value() * reserve;
            }
        }
        rows.insert(format!("limit {i}"), (limit.most.max(0.0), loads));
    }
    let stays: Vec<f64> = routes.iter().map(|route| stay(problem, placement, route, &life)).collect::<Option<_>>()?;
    rows.insert("in flight".to_owned(), (problem.tokens_in_flight(), stays));
    Some(rows)
}

/// Time that a request spends on a route.
fn stay(problem: &PlacementProblem, placement: &Placement, route: &[usize], life: &Life) -> Option<f64> {
    let at = |stop: usize| placement[stop];
    let mut seconds = problem.entry_residence(at(*route.first()?).0, life)?.value();
    seconds += problem.exit_residence(at(*route.last()?).0, life)?.value();
    for &stop in route {
        seconds += problem.residence(at(stop).0, at(stop).1, life)?.value();
    }
    for pair in route.windows(2) {
        seconds += problem.hop_residence(at(pair[0]).0, at(pair[1]).0, life)?.value();
    }
    Some(seconds)
}
