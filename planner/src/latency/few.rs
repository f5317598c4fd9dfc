//! Prices where there are many devices: the walk goes over few of them, until no other is of use to it.
//!
//! A step over all devices looks at all pairs of them, and most devices are so far from any good chain that no price
//! ever matters to them. So prices are improved with a few classes alone, those of which the quickest walks are; then
//! a walk over all says what the prices prove. Classes that it would rather use join, and it is done again. Whatever
//! the few are, the bound is that of a walk over all.

use super::chains::{Band, Chains, Link, Prices};
use super::labels::{Ground, glance};
use super::prices::{self, Priced};
use super::walk::Completions;
use crate::budget::Budget;

/// Classes from which on few are looked at first.
const CLASSES_MIN: usize = 48;
/// Classes looked at first, and where steps are of one phase.
const FEW: usize = 24;
const FEW_OF_SHARES: usize = 36;
/// Classes that may join at once, as a divisor of those there are.
const JOIN: usize = 2;
/// Labels of a layer that a glance at a chain of the few takes up.
const WIDTH: usize = 32;
/// Most rounds.
const ROUNDS: usize = 6;
/// What the few prove beyond all, as a share of what is left to prove, that is of no interest.
const NEAR: f64 = 0.02;

impl Chains<'_> {
    /// Whether there are so many classes that prices are improved with few.
    pub fn many(&self) -> bool {
        self.classes.len() >= CLASSES_MIN
    }

    /// The chain problem of some classes alone.
    fn with_classes(&self, kept: &[usize]) -> Self {
        let n = self.classes.len();
        let ways = |phase: usize| {
            let row = |&from: &usize| kept.iter().map(move |&to| self.ways[phase][from * n + to]);
            kept.iter().flat_map(row).collect()
        };
        let classes = kept.iter().map(|&class| self.classes[class].clone()).collect();
        Self {
            tables: self.tables,
            costs: self.costs,
            count: self.count,
            classes,
            ways: (0..self.ways.len()).map(ways).collect(),
        }
    }
}

/// How far to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Additions that all steps may take.
    pub additions: usize,
    /// Fewest and most steps of a round.
    pub steps: (usize, usize),
}

/// Improves prices as [`prices::search`] does; `kept` are the classes to begin with, and then those it came to.
pub(crate) fn search(
    chains: &Chains<'_>,
    band: &Band,
    start: Prices,
    kept: &mut Vec<usize>,
    (known, enough): (f64, f64),
    effort: Effort,
    budget: &Budget<'_>,
) -> Priced {
    let steps = |chains: &Chains<'_>| {
        let (n, layers) = (chains.classes.len(), chains.costs.layers);
        let each = (chains.count.levels() + 1) * chains.costs.phases() * n * layers * (n + layers);
        (effort.additions / each.max(1)).clamp(effort.steps.0, effort.steps.1)
    };
    if !chains.many() {
        return prices::search(chains, band, start, (known, enough), steps(chains), budget);
    }
    let mut found = Priced { prices: start.clone(), bound: f64::NEG_INFINITY, best: None };
    let (mut prices, mut upper) = (start, known);
    let mut proved = f64::INFINITY;
    for round in 0..ROUNDS {
        // Where others have chosen, theirs are good to begin with.
        if round > 0 || kept.is_empty() {
            let completions = chains.completions(band, &prices);
            let bound = chains.bound(&prices, &completions);
            if bound > found.bound {
                (found.bound, found.prices) = (bound, prices.clone());
            }
            // Without a chain, a tenth of the bound stands for what is left to prove.
            let open = if upper.is_finite() { upper - found.bound } else { 0.1 * found.bound.abs() };
            let near = round > 0 && proved - found.bound <= NEAR * open;
            if near || found.bound >= upper * enough || round + 1 == ROUNDS || budget.exhausted().is_some() {
                break;
            }
            if !join(chains, band, &prices, &completions, upper, kept) {
                break;
            }
        }
        let few = chains.with_classes(kept);
        let own = Prices {
            class: kept.iter().map(|&class| prices.class[class]).collect(),
            byte: prices.byte.clone(),
            shares: prices.shares.clone(),
        };
        let mut offer = |chain: Option<(Vec<Link>, f64)>| {
            if let Some(chain) = chain.filter(|chain| chain.1 < upper) {
                upper = chain.1;
                found.best = Some(chain);
            }
            upper
        };
        let glanced = |prices: &Prices, limit: f64| {
            let completions = few.completions(band, prices);
            glance(Ground { chains: &few, band, prices, completions: &completions }, limit, WIDTH, budget)
        };
        if known.is_infinite() && round == 0 {
            offer(glanced(&own, f64::INFINITY));
        }
        let before = offer(None);
        let better = prices::search(&few, band, own, (before, enough), steps(&few), budget);
        proved = better.bound;
        kept.iter().zip(&better.prices.class).for_each(|(&class, price)| prices.class[class] = *price);
        prices.byte.clone_from(&better.prices.byte);
        prices.shares.clone_from(&better.prices.shares);
        let limit = offer(better.best);
        if proved < limit * enough {
            offer(glanced(&better.prices, limit));
        }
    }
    found
}

/// Takes the classes up that walks over all would rather use; false where there are none.
fn join(
    chains: &Chains<'_>,
    band: &Band,
    prices: &Prices,
    completions: &Completions,
    upper: f64,
    kept: &mut Vec<usize>,
) -> bool {
    let all = chains.classes.len();
    let Some(walk) = chains.walk(band, prices, completions) else { return false };
    let before = kept.len();
    if before == 0 {
        kept.extend((0..all).filter(|&class| chains.pinned(class)));
    }
    let least = chains.at_least_with(band, prices);
    let mut others: Vec<usize> = (0..all).filter(|class| !kept.contains(class) && least[*class] < upper).collect();
    others.sort_by(|&a, &b| least[a].total_cmp(&least[b]).then(a.cmp(&b)));
    let few = if prices.shares.is_some() { FEW_OF_SHARES } else { FEW };
    let at_once = if before == 0 { few } else { before / JOIN };
    let joins = |(i, class): (usize, usize)| (i < at_once || walk.iter().any(|link| link.0 == class)).then_some(class);
    kept.extend(others.into_iter().enumerate().filter_map(joins));
    kept.sort_unstable();
    kept.len() > before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::chains::StageCount;
    use crate::latency::costs::Costs;
    use crate::latency::scale::mesh::{Ways, problem};
    use crate::tables::Tables;
    use isotherm_core::problem::Objective;

    #[test]
    fn what_few_prove_is_the_bound_of_a_walk_over_all_and_no_less_than_without_prices() {
        for objective in [Objective::Tpot, Objective::Ttft] {
            let problem = problem(3, 60, Ways::Any, objective);
            let tables = Tables::new(&problem, true);
            let costs = if objective == Objective::Tpot { Costs::decode(&tables) } else { Costs::prefill(&tables) };
            let chains = Chains::new(&tables, &costs, StageCount::Any);
            let (band, effort) = (Band::all(&costs), Effort { additions: 50_000_000, steps: (5, 100) });
            let mut kept = Vec::new();
            let limits = (f64::INFINITY, 1.0);
            let found = search(&chains, &band, chains.no_prices(), &mut kept, limits, effort, &Budget::default());
            let of_all = |prices: &Prices| chains.bound(prices, &chains.completions(&band, prices));
            assert_eq!(found.bound, of_all(&found.prices));
            assert!(found.bound > of_all(&chains.no_prices()), "{objective:?}");
            let (chain, value) = found.best.expect("few devices make a chain");
            assert!((chains.value(&chain) - value).abs() <= 1e-12 * value && value >= found.bound);
            assert!(kept.len() < chains.classes.len(), "{} of all", kept.len());
        }
    }
}
