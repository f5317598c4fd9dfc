//! The chain rule: one chain of rate `F` exists, as far as devices alone decide, exactly where
//! `sum over devices of max {k : T(k) >= F} >= L`. Trying the distinct rates from the fastest down gives the best chain
//! in microseconds; the ends of the model and the links are then seen to by trying orders of the kinds.

use super::network::Network;
use super::replay::replay;
use crate::latency::chains::Link;
use crate::tables::Tables;

/// Most rates tried per order of kinds.
const RATES_MAX: usize = 4096;

/// The best chain that the rule finds, and its rate.
pub(crate) fn chain(tables: &Tables<'_>, network: &Network, devices: &[usize]) -> Option<(Vec<Link>, f64)> {
    let mut rates: Vec<f64> = Vec::new();
    let mut kinds: Vec<usize> = devices.iter().map(|&d| tables.candidates[d].kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for &kind in &kinds {
        for start in 0..network.layers {
            rates.extend((start + 1..=network.layers).map(|end| network.stage[kind].at(start, end)));
        }
    }
    rates.retain(|&rate| rate > 0.0);
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    let mut best: Option<(Vec<Link>, f64)> = None;
    let mut orders = vec![devices.to_vec(), devices.iter().rev().copied().collect()];
    for &kind in &kinds {
        // Each kind in turn at the end, where the head is.
        let (mut order, last): (Vec<usize>, Vec<usize>) =
            devices.iter().partition(|&&d| tables.candidates[d].kind != kind);
        order.extend(last);
        orders.push(order);
    }
    for order in orders {
        // Greedy reach is monotone in the rate asked for, but for ends; so bisect, then walk up while it holds.
        let (mut low, mut high) = (0, rates.len().min(RATES_MAX.max(rates.len())));
        while low < high {
            let middle = usize::midpoint(low, high);
            if greedy(tables, network, &order, rates[middle]).is_some() { high = middle } else { low = middle + 1 }
        }
        let Some(found) = rates.get(low).and_then(|&rate| greedy(tables, network, &order, rate)) else { continue };
        let rate = replay(tables, network, &found).rate;
        if rate > best.as_ref().map_or(0.0, |b| b.1) {
            best = Some((found, rate));
        }
    }
    best
}

/// Gives each device in turn as many layers as it carries at `rate`.
fn greedy(tables: &Tables<'_>, network: &Network, order: &[usize], rate: f64) -> Option<Vec<Link>> {
    let (mut at, mut placement) = (0, Vec::<Link>::new());
    let mut drawn = vec![0_u64; tables.pools.len()];
    for &device in order {
        if at == network.layers {
            break;
        }
        if placement.last().is_some_and(|before| network.pair[before.0][device] < rate) {
            continue;
        }
        let candidate = tables.candidates[device];
        let room = |end: usize| {
            candidate.pool.is_none_or(|pool| {
                let bytes = tables.kinds[candidate.kind].bytes.at(at, end);
                drawn[pool].saturating_add(bytes) <= tables.pools[pool].size
            })
        };
        let carries = |&end: &usize| network.stage[candidate.kind].at(at, end) >= rate && room(end);
        if let Some(end) = (at + 1..=tables.kinds[candidate.kind].reach[at]).rev().find(carries) {
            if let Some(pool) = candidate.pool {
                drawn[pool] += tables.kinds[candidate.kind].bytes.at(at, end);
            }
            placement.push((device, at, end));
            at = end;
        }
    }
    (at == network.layers).then_some(placement)
}
