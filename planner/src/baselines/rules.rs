//! Rules that make one chain: who takes how many layers, in the order of the device graph or by speed.

use crate::latency::chains::Link;
use crate::latency::costs::Costs;
use crate::tables::{Candidate, Intervals, Tables};
use crate::throughput::network::Network;
use isotherm_core::problem::Objective;

/// Time of a stage, by kind.
pub(super) struct Times(Vec<Intervals<f64>>);

impl Times {
    /// Times for batches of one life, which the network is for.
    pub fn new(tables: &Tables<'_>, network: &Network) -> Self {
        let layers = tables.layers;
        if tables.problem.objective.serves() {
            let slow = |rates: &Intervals<f64>| {
                Intervals::of(layers, |s, e| {
                    let rate = rates.at(s, e);
                    if rate > 0.0 { 1.0 / rate } else { f64::INFINITY }
                })
            };
            return Self(network.stage.iter().map(slow).collect());
        }
        let decode = tables.problem.objective == Objective::Tpot;
        let costs = if decode { Costs::decode(tables) } else { Costs::prefill(tables) };
        let all = |kind: usize| {
            let (times, reach) = (costs.all_chunks(kind), &tables.kinds[kind].reach);
            Intervals::of(layers, |s, e| if e <= reach[s] { times.at(s, e) } else { f64::INFINITY })
        };
        Self((0..tables.kinds.len()).map(all).collect())
    }

    pub fn at(&self, tables: &Tables<'_>, (device, start, end): Link) -> f64 {
        self.0[tables.candidates[device].kind].at(start, end)
    }
}

/// The same number of layers on every device.
pub(super) fn equal(tables: &Tables<'_>) -> Option<Vec<Link>> {
    divided(tables, &vec![1.0; tables.candidates.len()])
}

/// Layers in proportion to memory; where no memory is known, to the most layers with a rate.
pub(super) fn memory_proportional(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let part = |(device, candidate): (usize, &Candidate)| {
        let memory = tables.problem.memory(candidate.id).map(|bytes| bytes.0 as f64);
        memory.unwrap_or_else(|| most(tables, times, device) as f64)
    };
    divided(tables, &tables.candidates.iter().enumerate().map(part).collect::<Vec<_>>())
}

/// Most layers that a device can hold wherever they are, ends of the model included, at a known speed.
pub(super) fn most(tables: &Tables<'_>, times: &Times, device: usize) -> usize {
    let (layers, reach) = (tables.layers, &tables.kind(device).reach);
    let last = (0..layers).find(|&start| reach[start] == layers).map_or(0, |start| layers - start);
    let fits = reach[0].min(last);
    (1..=fits).rev().find(|&k| times.at(tables, (device, 0, k)).is_finite()).unwrap_or(0)
}

/// Time per layer of a device.
fn pace(tables: &Tables<'_>, times: &Times, device: usize) -> f64 {
    let k = most(tables, times, device).max(1);
    let start = (tables.layers - k) / 2;
    times.at(tables, (device, start, start + k)) / k as f64
}

/// Least time over numbers of layers with memory as the only limit. Times are linear in the layers and links cost
/// nothing, as in Halda, so filling up the fastest first is the optimum of its integer program. The chain is in the
/// order of the device graph, as its ring is in that of its ranks.
pub(super) fn halda(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let mut order: Vec<usize> = (0..tables.candidates.len()).collect();
    order.sort_by(|&a, &b| pace(tables, times, a).total_cmp(&pace(tables, times, b)).then(a.cmp(&b)));
    let mut left = tables.layers;
    let mut layers = vec![0; tables.candidates.len()];
    for device in order {
        layers[device] = most(tables, times, device).min(left);
        left -= layers[device];
    }
    chained(tables, &layers)
}

/// The chain of devices in order with so many layers each; none where that is not all layers.
fn chained(tables: &Tables<'_>, layers: &[usize]) -> Option<Vec<Link>> {
    let (mut chain, mut at) = (Vec::new(), 0);
    for (device, &count) in layers.iter().enumerate().filter(|(_, count)| **count > 0) {
        chain.push((device, at, at + count));
        at += count;
    }
    (at == tables.layers).then_some(chain)
}

/// Layers in proportion to `parts`, rounded down, what is left to the largest remainders. Devices with none are left
/// out.
fn divided(tables: &Tables<'_>, parts: &[f64]) -> Option<Vec<Link>> {
    let whole: f64 = parts.iter().sum();
    let ideal: Vec<f64> = parts.iter().map(|part| part / whole * tables.layers as f64).collect();
    let mut layers: Vec<usize> = ideal.iter().map(|ideal| ideal.floor() as usize).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| (ideal[b] - ideal[b].floor()).total_cmp(&(ideal[a] - ideal[a].floor())).then(a.cmp(&b)));
    let left = tables.layers.checked_sub(layers.iter().sum())?;
    order.iter().cycle().take(if order.is_empty() { 0 } else { left }).for_each(|&device| layers[device] += 1);
    chained(tables, &layers)
}

/// The fastest device takes all that fits, then the next.
pub(super) fn greedy(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let mut order: Vec<usize> = (0..tables.candidates.len()).collect();
    order.sort_by(|&a, &b| pace(tables, times, a).total_cmp(&pace(tables, times, b)).then(a.cmp(&b)));
    let (mut at, mut chain) = (0, Vec::new());
    for device in order {
        if at == tables.layers {
            break;
        }
        let known = |end: &usize| times.at(tables, (device, at, *end)).is_finite();
        if let Some(end) = (at + 1..=tables.kind(device).reach[at]).rev().find(known) {
            chain.push((device, at, end));
            at = end;
        }
    }
    (at == tables.layers).then_some(chain)
}

/// The division that makes the slowest stage fastest.
pub(super) fn min_max(tables: &Tables<'_>, times: &Times) -> Option<Vec<Link>> {
    let (layers, devices) = (tables.layers, tables.candidates.len());
    // best[d][l]: least slowest stage of the first d devices holding the first l layers, and where the last begins.
    let mut best = vec![vec![(f64::INFINITY, 0); layers + 1]; devices + 1];
    best[0][0] = (0.0, 0);
    for device in 0..devices {
        for end in 0..=layers {
            best[device + 1][end] = (best[device][end].0, end);
            for start in 0..end {
                let slowest = best[device][start].0.max(times.at(tables, (device, start, end)));
                if slowest < best[device + 1][end].0 {
                    best[device + 1][end] = (slowest, start);
                }
            }
        }
    }
    if !best[devices][layers].0.is_finite() {
        return None;
    }
    let (mut end, mut chain) = (layers, Vec::new());
    for device in (0..devices).rev() {
        let start = best[device + 1][end].1;
        if start < end {
            chain.push((device, start, end));
        }
        end = start;
    }
    chain.reverse();
    Some(chain)
}
