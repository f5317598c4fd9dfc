//! What a placement carries on the true links: a maximum flow, and the routes that it decomposes into.

use super::network::Network;
use crate::latency::chains::Link;
use crate::tables::Tables;
use petgraph::algo::dinics;
use petgraph::graph::{DiGraph, NodeIndex};

/// Flow units of the fastest rate: rates become whole numbers, so that the flow is exact and the search for it ends.
const UNITS: f64 = (1_u64 << 50) as f64;

/// A way through stages, and what passes along it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    /// Positions in the placement, in order.
    pub stops: Vec<usize>,
    /// Output tokens per second.
    pub rate: f64,
}

/// An arc of the flow: from a stage or the source, to a stage or the sink.
type Arc = (Option<usize>, Option<usize>);

/// What a placement carries.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Carried {
    /// Output tokens per second over all paths.
    pub rate: f64,
    /// The paths.
    pub paths: Vec<Path>,
}

/// Whether requests may pass from one stage to the next.
pub(crate) fn follows(partial: bool, before: Link, after: Link) -> bool {
    if partial { after.1 <= before.2 && before.2 < after.2 } else { before.2 == after.1 }
}

/// Maximum flow through a placement, shared capacities left aside.
pub(crate) fn replay(tables: &Tables<'_>, network: &Network, placement: &[Link]) -> Carried {
    let rates: Vec<f64> = placement
        .iter()
        .map(|&(device, start, end)| network.stage[tables.candidates[device].kind].at(start, end))
        .collect();
    let most = rates.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return Carried::default();
    }
    let unit = most / UNITS;
    // No way carries more than both its ends, so clipping an unlimited one changes nothing.
    let units = |rate: f64| (rate.min(most) / unit) as u64;
    let partial = tables.problem.limits.partial;
    let mut graph = DiGraph::<(), u64>::new();
    let (source, sink) = (graph.add_node(()), graph.add_node(()));
    let into: Vec<NodeIndex> = placement.iter().map(|_| graph.add_node(())).collect();
    let out: Vec<NodeIndex> = placement.iter().map(|_| graph.add_node(())).collect();
    let mut arcs: Vec<Arc> = Vec::new();
    for (i, &stage) in placement.iter().enumerate() {
        graph.add_edge(into[i], out[i], units(rates[i]));
        arcs.push((None, None));
        if stage.1 == 0 {
            graph.add_edge(source, into[i], units(network.source[stage.0]));
            arcs.push((None, Some(i)));
        }
        if stage.2 == network.layers {
            graph.add_edge(out[i], sink, units(network.sink[stage.0]));
            arcs.push((Some(i), None));
        }
        for (j, &next) in placement.iter().enumerate() {
            if i != j && follows(partial, stage, next) && network.pair[stage.0][next.0] > 0.0 {
                graph.add_edge(out[i], into[j], units(network.pair[stage.0][next.0]));
                arcs.push((Some(i), Some(j)));
            }
        }
    }
    let (_, flows) = dinics(&graph, source, sink);
    let carried =
        arcs.into_iter().zip(flows).filter(|&((from, to), flow)| flow > 0 && (from.is_some() || to.is_some()));
    let mut carried: Vec<(Arc, u64)> = carried.collect();
    // In the order in which layers end, so that one round over all arcs finds the widest path to every stage.
    carried.sort_by_key(|((from, _), _)| from.map(|from| placement[from].2));
    paths(placement.len(), carried, unit)
}

/// Takes the widest path out of a flow until none is left. Stages pass layers on in order, so there are no circles.
fn paths(stages: usize, mut arcs: Vec<(Arc, u64)>, unit: f64) -> Carried {
    let mut carried = Carried::default();
    while let Some((stops, width)) = widest(stages, &arcs) {
        let uses = |(from, to): Arc| match (from, to) {
            (None, to) => to == stops.first().copied(),
            (from, None) => from == stops.last().copied(),
            (Some(from), Some(to)) => stops.windows(2).any(|pair| pair == [from, to]),
        };
        for (arc, flow) in &mut arcs {
            if uses(*arc) {
                *flow -= width;
            }
        }
        arcs.retain(|(_, flow)| *flow > 0);
        carried.rate += width as f64 * unit;
        carried.paths.push(Path { stops, rate: width as f64 * unit });
    }
    carried
}

/// The path of the largest least flow, and that flow.
fn widest(stages: usize, arcs: &[(Arc, u64)]) -> Option<(Vec<usize>, u64)> {
    let mut width = vec![0_u64; stages];
    let mut before = vec![None; stages];
    for &((from, to), flow) in arcs {
        if let (None, Some(to)) = (from, to) {
            width[to] = flow;
        }
    }
    // Bellman-Ford over widths: as many rounds as a path has stages.
    for _ in 0..stages {
        let mut changed = false;
        for &((from, to), flow) in arcs {
            if let (Some(from), Some(to)) = (from, to) {
                let through = width[from].min(flow);
                if through > width[to] {
                    (width[to], before[to], changed) = (through, Some(from), true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    let ends = arcs.iter().filter_map(|&((from, to), flow)| from.filter(|_| to.is_none()).map(|last| (last, flow)));
    let (last, best) =
        ends.map(|(last, flow)| (last, width[last].min(flow))).reduce(|a, b| if b.1 > a.1 { b } else { a })?;
    if best == 0 {
        return None;
    }
    let mut stops = vec![last];
    while let Some(previous) = before[*stops.last()?] {
        stops.push(previous);
    }
    stops.reverse();
    Some((stops, best))
}
