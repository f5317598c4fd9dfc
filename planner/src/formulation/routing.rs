//! Most requests through a fixed placement as a linear program: every capacity a row, also those that several ways
//! share, and routes of limited length.
//!
//! A *state* is (hop, stage, layer): a request at its `hop`-th stop that has passed the layers before `layer`. Where
//! requests pass whole stages, the only layer of a stage is its end. With partial inference a request may leave a stage
//! after any of its layers, for a stage that holds the next one.

use super::program::{Program, Relation};
use super::solve::{SolverFault, Verdict, solve_once};
use crate::budget::{Budget, Limit};
use crate::latency::chains::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;
use crate::throughput::replay::{Carried, Path, replay};
use crate::throughput::stay::Stay;
use isotherm_core::units::Seconds;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

type State = (usize, usize, usize);

/// A step of a request: from a state (none: the source) to a state (none: the sink).
type Step = (Option<State>, Option<State>);

/// Share of the whole below which a flow is the solver's rounding.
const DUST: f64 = 1e-9;
/// Time that a program of routes has at least, in seconds, and steps of routes for which a second is enough, about.
const SECONDS_MIN: f64 = 0.1;
const STEPS_PER_SECOND: f64 = 50_000.0;

/// The best routes through a placement, each of at most `stages_max` stages. Where the time left is too short for them,
/// requests stay on each stage to its end, if nothing but rates of stages and ways binds then; else nothing is carried.
pub(crate) fn route(
    tables: &Tables<'_>,
    network: &Network,
    placement: &[Link],
    (stages_max, until): (Option<usize>, Option<&Budget<'_>>),
) -> Result<Carried, SolverFault> {
    let rates: Vec<f64> =
        placement.iter().map(|&(d, s, e)| network.stage[tables.candidates[d].kind].at(s, e)).collect();
    let most: f64 = rates.iter().sum();
    if most <= 0.0 {
        return Ok(Carried::default());
    }
    let short = || {
        until.into_iter().for_each(Budget::by_clock);
        let carried = replay(tables, network, placement);
        let free = stages_max.is_none() && network.shared.is_empty();
        let held = |stay: &Stay| stay.exceeded(tables, placement, &carried);
        if free && !network.stay.as_ref().is_some_and(held) { carried } else { Carried::default() }
    };
    let left = || until.and_then(Budget::seconds_left).map(|left| left.max(SECONDS_MIN));
    let steps = steps(tables, network, placement, stages_max);
    if left().is_some_and(|left| steps.len() as f64 > STEPS_PER_SECOND * left) {
        return Ok(short());
    }
    let mut program = Program { maximise: true, ..Program::default() };
    let mut balance: BTreeMap<State, Vec<(usize, f64)>> = BTreeMap::new();
    let mut stages: Vec<Vec<(usize, f64)>> = vec![Vec::new(); placement.len()];
    let mut ends: BTreeMap<(usize, bool), Vec<(usize, f64)>> = BTreeMap::new();
    let mut pairs: BTreeMap<(usize, usize), Vec<(usize, f64)>> = BTreeMap::new();
    for &(from, to) in &steps {
        let column = program.column(f64::from(u8::from(from.is_none())), 0.0, f64::INFINITY, false);
        if let Some(from) = from {
            balance.entry(from).or_default().push((column, -1.0));
        }
        if let Some(to) = to {
            balance.entry(to).or_default().push((column, 1.0));
        }
        match (from, to) {
            (None, Some(to)) => {
                stages[to.1].push((column, 1.0));
                ends.entry((to.1, true)).or_default().push((column, 1.0));
            }
            (Some(from), None) => ends.entry((from.1, false)).or_default().push((column, 1.0)),
            (Some(from), Some(to)) if from.1 != to.1 => {
                stages[to.1].push((column, 1.0));
                pairs.entry((from.1, to.1)).or_default().push((column, 1.0));
            }
            _ => {}
        }
    }
    for terms in balance.into_values() {
        program.row(terms, Relation::Equal, 0.0);
    }
    for (terms, rate) in stages.into_iter().zip(&rates) {
        program.row(terms, Relation::AtMost, rate / most);
    }
    for ((stage, source), terms) in ends {
        let rate = if source { network.source[placement[stage].0] } else { network.sink[placement[stage].0] };
        if rate < most {
            program.row(terms, Relation::AtMost, rate / most);
        }
    }
    for shared in &network.shared {
        let uses =
            |&(from, to): &(usize, usize)| shared.pairs.binary_search(&(placement[from].0, placement[to].0)).is_ok();
        let terms: Vec<_> = pairs.iter().filter(|(pair, _)| uses(pair)).flat_map(|(_, terms)| terms.clone()).collect();
        if !terms.is_empty() {
            program.row(terms, Relation::AtMost, shared.rate / most);
        }
    }
    for ((from, to), terms) in pairs {
        let rate = network.pair[placement[from].0][placement[to].0];
        if rate < most {
            program.row(terms, Relation::AtMost, rate / most);
        }
    }
    if let Some(stay) = &network.stay {
        let share = |seconds: f64| seconds * most / stay.in_flight;
        let on = |stage: usize| {
            let (device, start, end) = placement[stage];
            stay.stage[tables.candidates[device].kind].at(start, end)
        };
        let spent = |&(from, to): &Step| match (from, to) {
            (None, Some(to)) => stay.source[placement[to.1].0] + on(to.1),
            (Some(from), None) => stay.sink[placement[from.1].0],
            (Some(from), Some(to)) if from.1 != to.1 => stay.pair[placement[from.1].0][placement[to.1].0] + on(to.1),
            _ => 0.0,
        };
        let terms = steps.iter().enumerate().map(|(column, step)| (column, share(spent(step))));
        program.row(terms.collect(), Relation::AtMost, 1.0);
    }
    let remaining = || Seconds::of(left().unwrap_or(f64::MAX));
    let begun = left();
    let budget = Budget { remaining: begun.map(|_| &remaining as _), ..Budget::default() };
    let answer = solve_once(&program, None, 0.0, &budget)?;
    if answer.verdict == Verdict::Stopped(Limit::Time) {
        return Ok(short());
    }
    let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else {
        return Ok(Carried::default());
    };
    Ok(paths(&steps, at, most))
}

fn steps(tables: &Tables<'_>, network: &Network, placement: &[Link], stages_max: Option<usize>) -> Vec<Step> {
    let partial = tables.problem.limits.partial;
    let hops = stages_max.map_or(1, |most| most.min(placement.len()));
    let next_hop = |hop: usize| if stages_max.is_none() { Some(0) } else { Some(hop + 1).filter(|&h| h < hops) };
    let mut steps = Vec::new();
    for (i, &(device, start, end)) in placement.iter().enumerate() {
        let entered = |from: usize| if partial { from + 1 } else { end };
        if start == 0 && network.source[device] > 0.0 && hops > 0 {
            steps.push((None, Some((0, i, entered(0)))));
        }
        for hop in 0..hops {
            if end == network.layers && network.sink[device] > 0.0 {
                steps.push((Some((hop, i, end)), None));
            }
            for layer in if partial { start + 1..end } else { end..end } {
                steps.push((Some((hop, i, layer)), Some((hop, i, layer + 1))));
            }
            let Some(after) = next_hop(hop) else { continue };
            for (j, &(next, first, last)) in placement.iter().enumerate() {
                if i == j || network.pair[device][next] <= 0.0 {
                    continue;
                }
                let leaves = if partial { start + 1..end + 1 } else { end..end + 1 };
                for layer in leaves.filter(|&l| if partial { first <= l && l < last } else { first == l }) {
                    let to = (after, j, if partial { layer + 1 } else { last });
                    steps.push((Some((hop, i, layer)), Some(to)));
                }
            }
        }
    }
    steps
}

/// A shortest path through one stage of a placement, whatever it carries; none where there is none.
pub(crate) fn path_through(
    tables: &Tables<'_>,
    network: &Network,
    placement: &[Link],
    stages_max: Option<usize>,
    stage: usize,
) -> Option<Vec<usize>> {
    let steps = steps(tables, network, placement, stages_max);
    // Breadth first over states, told apart by whether the stage has been passed; `came` holds the step taken to each.
    let mut came: BTreeMap<(State, bool), (Option<State>, bool, usize)> = BTreeMap::new();
    let mut frontier: Vec<(Option<State>, bool)> = vec![(None, false)];
    let mut last = None;
    while last.is_none() && !frontier.is_empty() {
        let mut next = Vec::new();
        for &(at, passed) in &frontier {
            for (i, &(from, to)) in steps.iter().enumerate().filter(|(_, step)| step.0 == at) {
                match to {
                    None if passed => last = last.or(from.map(|state| (state, passed))),
                    None => {}
                    Some(state) => {
                        let key = (state, passed || state.1 == stage);
                        if let Entry::Vacant(entry) = came.entry(key) {
                            entry.insert((at, passed, i));
                            next.push((Some(state), key.1));
                        }
                    }
                }
            }
        }
        frontier = next;
    }
    let mut taken = Vec::new();
    let mut at = last?;
    while let Some(&(before, passed, step)) = came.get(&at) {
        taken.push(step);
        let Some(before) = before else { break };
        at = (before, passed);
    }
    taken.reverse();
    let stops = stops(&steps, &taken);
    stops.contains(&stage).then_some(stops)
}

/// Takes paths out of a flow, each along the widest step, until what is left is rounding.
fn paths(steps: &[Step], mut at: Vec<f64>, most: f64) -> Carried {
    let mut leaving: BTreeMap<Option<State>, Vec<usize>> = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        leaving.entry(step.0).or_default().push(i);
    }
    let whole: f64 = leaving.get(&None).map_or(0.0, |first| first.iter().map(|&i| at[i]).sum());
    let mut carried = Carried::default();
    let mut together: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
    // Each path empties a step, so there are no more paths than steps.
    for _ in 0..=steps.len() {
        let (mut state, mut taken) = (None, Vec::new());
        while let Some(&widest) =
            leaving.get(&state).and_then(|out| out.iter().max_by(|a, b| at[**a].total_cmp(&at[**b])))
        {
            taken.push(widest);
            state = steps[widest].1;
            if state.is_none() || taken.len() > steps.len() {
                break;
            }
        }
        let width = taken.iter().map(|&i| at[i]).fold(f64::INFINITY, f64::min);
        if state.is_some() || taken.is_empty() || width <= DUST * whole {
            break;
        }
        taken.iter().for_each(|&i| at[i] -= width);
        *together.entry(stops(steps, &taken)).or_insert(0.0) += width;
    }
    for (stops, width) in together {
        carried.rate += width * most;
        carried.paths.push(Path { stops, rate: width * most });
    }
    carried.paths.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.stops.cmp(&b.stops)));
    carried
}

/// The stages of a path. One that is met again was never left: it holds all layers between.
fn stops(steps: &[Step], taken: &[usize]) -> Vec<usize> {
    let mut stops: Vec<usize> = Vec::new();
    for (_, stage, _) in taken.iter().filter_map(|&i| steps[i].1) {
        if let Some(known) = stops.iter().position(|&stop| stop == stage) {
            stops.truncate(known + 1);
        } else {
            stops.push(stage);
        }
    }
    stops
}
