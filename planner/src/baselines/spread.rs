//! Rules that spread devices over the layers, several to each, and let requests find their way.

use crate::latency::chains::Link;
use crate::tables::Tables;
use crate::throughput::network::Network;

/// Most layers of a device from a position on, at a known rate.
fn most_from(tables: &Tables<'_>, network: &Network, device: usize, start: usize) -> usize {
    let kind = tables.candidates[device].kind;
    let end = tables.kinds[kind].reach[start].min(network.layers);
    (start + 1..=end).rev().find(|&end| network.stage[kind].at(start, end) > 0.0).map_or(0, |end| end - start)
}

/// Petals: each device in turn takes the window whose layers are served worst, compared from the worst layer up, and
/// holds as many as it can. Where requests may not enter a stage in the middle, windows begin where another ends, or
/// at the beginning; and where they must pass all of a stage, a window past the end of the model is cut there.
pub(super) fn petals(tables: &Tables<'_>, network: &Network) -> Vec<Link> {
    let (layers, partial) = (network.layers, tables.problem.limits.partial);
    let mut served = vec![0.0_f64; layers];
    let mut placement: Vec<Link> = Vec::new();
    for device in 0..tables.candidates.len() {
        let begins = |start: &usize| partial || *start == 0 || placement.iter().any(|link| link.2 == *start);
        let window = |start: usize| {
            let end = start + most_from(tables, network, device, start);
            let mut worst = served[start..end].to_vec();
            worst.sort_by(f64::total_cmp);
            (end > start).then_some((worst, start, end))
        };
        let best = (0..layers).filter(begins).filter_map(window).min_by(|a, b| {
            let by_layer = a.0.iter().zip(&b.0).map(|(x, y)| x.total_cmp(y)).find(|order| order.is_ne());
            // Of two windows that agree as far as they go, the longer serves more.
            by_layer.unwrap_or_else(|| b.0.len().cmp(&a.0.len()))
        });
        if let Some((_, start, end)) = best {
            let rate = network.stage[tables.candidates[device].kind].at(start, end);
            served[start..end].iter_mut().for_each(|sum| *sum += rate);
            placement.push((device, start, end));
        }
    }
    placement
}

/// Swarm: as few stages of equal length (but for one layer) as every device can hold one of; the fastest device
/// first, each to the stage that has least so far.
pub(super) fn swarm(tables: &Tables<'_>, network: &Network) -> Vec<Link> {
    let (layers, devices) = (network.layers, tables.candidates.len());
    let stages_of = |count: usize| -> Vec<(usize, usize)> {
        (0..count).map(|i| (i * layers / count, (i + 1) * layers / count)).collect()
    };
    let rate = |device: usize, (start, end): (usize, usize)| {
        let kind = tables.candidates[device].kind;
        if end > tables.kinds[kind].reach[start] { 0.0 } else { network.stage[kind].at(start, end) }
    };
    let fits = |count: &usize| {
        let stages = stages_of(*count);
        (0..devices).all(|device| stages.iter().all(|&stage| rate(device, stage) > 0.0))
    };
    let Some(count) = (1..=devices.min(layers)).find(fits) else { return Vec::new() };
    let stages = stages_of(count);
    let mut order: Vec<usize> = (0..devices).collect();
    order.sort_by(|&a, &b| rate(b, stages[0]).total_cmp(&rate(a, stages[0])).then(a.cmp(&b)));
    let mut sums = vec![0.0_f64; count];
    let mut placement = Vec::new();
    for device in order {
        let Some(stage) = (0..count).min_by(|&a, &b| sums[a].total_cmp(&sums[b])) else { break };
        sums[stage] += rate(device, stages[stage]);
        placement.push((device, stages[stage].0, stages[stage].1));
    }
    placement
}
