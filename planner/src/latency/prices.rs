//! Prices that make the cheapest walk a good bound, by subgradient steps (Held, Wolfe and Crowder 1974): raise the
//! price of what a walk uses twice, lower that of what it leaves.

use super::chains::{Band, Chains, ClassLink, Link, Prices};
use crate::budget::Budget;

/// Steps over which a bound must gain something, or the search ends.
const WINDOW: usize = 40;

/// When steps become shorter, and when they end.
struct Patience {
    /// Steps without a better bound after which the step length is shortened.
    steps: usize,
    /// What is left of a step length then.
    shorter: f64,
    /// Least gain of a window, in shares of the distance to the known chain.
    gain_min: f64,
}

const OF_PRICES: Patience = Patience { steps: 6, shorter: 0.6, gain_min: 0.003 };
/// Prices and shares pull at each other, so that more steps fail.
const OF_SHARES: Patience = Patience { steps: 12, shorter: 0.75, gain_min: 0.001 };

/// What the prices found.
pub(crate) struct Priced {
    /// The best prices.
    pub prices: Prices,
    /// The bound they give; infinite where there is no walk, and so no chain.
    pub bound: f64,
    /// The best chain met on the way, and its value.
    pub best: Option<(Vec<Link>, f64)>,
}

/// Improves prices from `start` in at most `steps` steps, knowing a chain of value `known` (infinite where none is);
/// ends where the bound reaches `enough` of the best chain.
pub(crate) fn search(
    chains: &Chains<'_>,
    band: &Band,
    start: Prices,
    (known, enough): (f64, f64),
    steps: usize,
    budget: &Budget<'_>,
) -> Priced {
    let mut found = Priced { prices: start.clone(), bound: f64::NEG_INFINITY, best: None };
    let (mut prices, mut length, mut waited, mut upper) = (start, 1.0, 0, known);
    let mut before = f64::NEG_INFINITY;
    let patience = if prices.shares.is_some() { OF_SHARES } else { OF_PRICES };
    for count in 0..steps {
        if budget.exhausted().is_some() {
            break;
        }
        let completions = chains.completions(band, &prices);
        let bound = chains.bound(&prices, &completions);
        if bound > found.bound {
            found.bound = bound;
            found.prices.clone_from(&prices);
            waited = 0;
        } else {
            waited += 1;
            if waited >= patience.steps {
                (length, waited) = (length * patience.shorter, 0);
                prices.clone_from(&found.prices);
            }
        }
        let Some(walk) = chains.walk(band, &prices, &completions) else { break };
        if let Some(chain) = chains.chain(&walk) {
            let value = chains.value(&chain);
            if value < upper {
                (upper, found.best) = (value, Some((chain, value)));
            }
        }
        if count % WINDOW == WINDOW - 1 {
            if found.bound - before < patience.gain_min * (upper - found.bound) {
                break;
            }
            before = found.bound;
        }
        if found.bound >= upper * enough {
            break;
        }
        let shares = prices.shares.as_ref().map(|shares| shares.step(chains, &band.paths, &walk, length / bound));
        if !step(chains, &mut prices, &walk, (upper, bound), length) && shares.is_none() {
            break;
        }
        prices.shares = shares;
    }
    found
}

/// One step; false where the walk breaks nothing, so that no price would change.
fn step(chains: &Chains<'_>, prices: &mut Prices, walk: &[ClassLink], (upper, bound): (f64, f64), length: f64) -> bool {
    let tables = chains.tables;
    let mut uses: Vec<f64> = chains.classes.iter().map(|class| -(class.len() as f64)).collect();
    let mut drawn: Vec<f64> = vec![-1.0; tables.pools.len()];
    // In shares of the pool, so that devices and bytes move at one pace.
    let size = |pool: usize| (tables.pools[pool].size as f64).max(1.0);
    for &(class, start, end) in walk {
        uses[class] += 1.0;
        if let Some(pool) = chains.pool(class) {
            drawn[pool] += chains.kind(class).bytes.at(start, end) as f64 / size(pool);
        }
    }
    // A price at zero does not fall below.
    let held = |price: f64, slope: f64, free: bool| if !free && price <= 0.0 && slope < 0.0 { 0.0 } else { slope };
    for (class, slope) in uses.iter_mut().enumerate() {
        *slope = held(prices.class[class], *slope, chains.pinned(class));
    }
    for (pool, slope) in drawn.iter_mut().enumerate() {
        *slope = held(prices.byte[pool], *slope, false);
    }
    let norm: f64 = uses.iter().chain(&drawn).map(|slope| slope * slope).sum();
    if norm == 0.0 {
        return false;
    }
    // Without a chain to aim at, aim a tenth above the bound.
    let distance = if upper.is_finite() { upper - bound } else { bound.abs() * 0.1 };
    if !distance.is_finite() || distance <= 0.0 {
        return false;
    }
    let pace = length * distance / norm;
    for (class, slope) in uses.iter().enumerate() {
        let price = prices.class[class] + pace * slope;
        prices.class[class] = if chains.pinned(class) { price } else { price.max(0.0) };
    }
    for (pool, slope) in drawn.iter().enumerate() {
        prices.byte[pool] = (prices.byte[pool] + pace * slope / size(pool)).max(0.0);
    }
    true
}
