//! Prices that make the cheapest walk a good bound, by subgradient steps (Held, Wolfe and Crowder 1974): raise the
//! price of what a walk uses twice, lower that of what it leaves.

use super::walk::{Chains, Link, Prices};
use crate::budget::{Budget, GAP_NONE, relative_gap};

/// Most subgradient steps.
const STEPS: usize = 150;
/// Steps without a better bound after which the step length is halved.
const PATIENCE: usize = 8;

/// What the prices found.
pub(crate) struct Priced {
    /// The best prices.
    pub prices: Prices,
    /// The bound they give; infinite where there is no walk, and so no chain.
    pub bound: f64,
    /// The best chain met on the way, and its value.
    pub best: Option<(Vec<Link>, f64)>,
}

/// Improves prices from `start`, knowing a chain of value `known` perhaps.
pub(crate) fn search(chains: &Chains<'_>, start: Prices, known: Option<f64>, budget: &Budget<'_>) -> Priced {
    let mut found = Priced { prices: start.clone(), bound: f64::NEG_INFINITY, best: None };
    let (mut prices, mut length, mut waited) = (start, 1.0, 0);
    for _ in 0..STEPS {
        if budget.exhausted().is_some() {
            break;
        }
        let completions = chains.completions(&prices);
        let bound = chains.bound(&prices, &completions);
        if bound > found.bound {
            found.bound = bound;
            found.prices.clone_from(&prices);
            waited = 0;
        } else {
            waited += 1;
            if waited >= PATIENCE {
                (length, waited) = (length * 0.5, 0);
                prices.clone_from(&found.prices);
            }
        }
        let Some(walk) = chains.walk(&prices, &completions) else { break };
        if chains.holds(&walk) {
            let value = chains.value(&walk);
            if found.best.as_ref().is_none_or(|(_, best)| value < *best) {
                found.best = Some((walk.clone(), value));
            }
        }
        let upper = found.best.as_ref().map(|b| b.1).into_iter().chain(known).fold(f64::INFINITY, f64::min);
        if relative_gap(upper, found.bound) <= GAP_NONE || !step(chains, &mut prices, &walk, upper - bound, length) {
            break;
        }
    }
    found
}

/// One step; false where the walk breaks nothing, so that no price would change.
fn step(chains: &Chains<'_>, prices: &mut Prices, walk: &[Link], distance: f64, length: f64) -> bool {
    let tables = chains.tables;
    let mut uses = vec![-1.0; tables.candidates.len()];
    let mut drawn: Vec<f64> = vec![-1.0; tables.pools.len()];
    for &(device, start, end) in walk {
        uses[device] += 1.0;
        let candidate = tables.candidates[device];
        if let Some(pool) = candidate.pool {
            // In shares of the pool, so that devices and bytes move at one pace.
            let size = (tables.pools[pool].size as f64).max(1.0);
            drawn[pool] += tables.kinds[candidate.kind].bytes.at(start, end) as f64 / size;
        }
    }
    // A price at zero does not fall below.
    let held = |price: f64, slope: f64, free: bool| if !free && price <= 0.0 && slope < 0.0 { 0.0 } else { slope };
    for (device, slope) in uses.iter_mut().enumerate() {
        *slope = held(prices.device[device], *slope, tables.candidates[device].pinned);
    }
    for (pool, slope) in drawn.iter_mut().enumerate() {
        *slope = held(prices.byte[pool], *slope, false);
    }
    let norm: f64 = uses.iter().chain(&drawn).map(|slope| slope * slope).sum();
    if norm == 0.0 {
        return false;
    }
    // Without a chain to aim at, aim at twice the walk's own cost.
    let distance = if distance.is_finite() { distance.max(0.0) } else { chains.value(walk).abs() };
    if !distance.is_finite() || distance == 0.0 {
        return false;
    }
    let pace = length * distance / norm;
    for (device, slope) in uses.iter().enumerate() {
        let price = prices.device[device] + pace * slope;
        prices.device[device] = if tables.candidates[device].pinned { price } else { price.max(0.0) };
    }
    for (pool, slope) in drawn.iter().enumerate() {
        let size = (tables.pools[pool].size as f64).max(1.0);
        prices.byte[pool] = (prices.byte[pool] + pace * slope / size).max(0.0);
    }
    true
}
