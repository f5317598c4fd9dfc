//! Several chunks: prices and shares of paths for all chains at once, then what beginnings of walks prove beyond them,
//! then a search over chains where there are few devices.

use super::chains::Chains;
use super::labels::Ground;
use super::shares::Shares;
use super::{BestChain, LABELS_PER_NODE, closed, enough, fronts, glance, improve, join, offer, polish, search, value};
use crate::budget::{Budget, Limit};

/// Beginnings of walks kept in all, per node of the budget, and at one time: each takes a checker about two
/// microseconds.
const BEGINNINGS_PER_NODE: u64 = 15;
const BEGINNINGS_MAX: u64 = 120_000;
/// Times as many at one time where more seconds than these are left.
const PATIENT: (u64, f64) = (3, 5.0);
/// What may be left open, as a share of what prices leave open: another look at beginnings costs more.
const NEAR: f64 = 0.02;
/// Share of the steps towards better prices, as a divisor.
const SHARE: usize = 2;

/// Finds the best chain, `best` being what is known without a search.
pub(super) fn find(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    let part = &mut best.parts[0];
    part.prices.shares = Some(Shares::even(chains.costs));
    part.bound = chains.bound(&part.prices, &chains.completions(&part.band, &part.prices));
    (part.priced, part.walked, best.bound) = (part.bound, part.bound, part.bound);
    if !chains.many() {
        glance(chains, best, budget);
    }
    improve(chains, best, budget, SHARE);
    glance(chains, best, budget);
    better(chains, best, budget);
    walked(chains, best, budget);
    // Exact, but out of reach where there are many devices: there it is for finding a chain at all.
    if !closed(best, budget) && (!chains.many() || best.chain.is_none()) {
        search(chains, best, budget, (budget.nodes_max / 2).saturating_mul(LABELS_PER_NODE));
    } else if !closed(best, budget) {
        best.stopped = budget.exhausted().or(Some(Limit::Nodes));
    }
}

/// The chain in hand, made better.
fn better(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    if closed(best, budget) {
        return;
    }
    let few = &best.parts[0].few;
    let others: Vec<usize> = if few.is_empty() {
        (0..chains.tables.candidates.len()).collect()
    } else {
        few.iter().flat_map(|&class| chains.classes[class].iter().copied()).collect()
    };
    let polished = best.chain.as_ref().and_then(|(chain, _)| polish::polish(chains, chain, &others, budget));
    offer(best, polished);
}

/// What beginnings of walks prove beyond prices. Looks go from what is proved towards what there is, because the nearer
/// a target, the more beginnings there are. Where a walk that takes less than the target uses devices again, they are
/// used once from there on.
fn walked(chains: &Chains<'_>, best: &mut BestChain, budget: &Budget<'_>) {
    if closed(best, budget) || best.chain.is_none() {
        return;
    }
    let part = &best.parts[0];
    let (band, prices, priced) = (part.band.clone(), part.prices.clone(), part.priced);
    let completions = chains.completions(&band, &prices);
    let ground = Ground { chains, band: &band, prices: &prices, completions: &completions };
    best.method = "device prices and shares of paths";
    let mut once: Vec<usize> = Vec::new();
    let mut left = budget.nodes_max.saturating_mul(BEGINNINGS_PER_NODE);
    let mut proved = priced;
    // How much of what is open the next look is to prove.
    let mut reach = 0.5;
    while !closed(best, budget) && budget.exhausted().is_none() && left > 0 {
        let goal = value(best) * enough(budget);
        let target = proved + reach * (goal - proved);
        if target - proved < NEAR * (goal - priced) {
            break;
        }
        let patient = budget.remaining.is_some_and(|left| left().value() > PATIENT.1);
        let most = left.min(if patient { PATIENT.0 * BEGINNINGS_MAX } else { BEGINNINGS_MAX });
        let look = fronts::search(ground, &once, target, most, budget);
        best.nodes += look.kept;
        left = left.saturating_sub(look.kept);
        match look.sought {
            fronts::Sought::Nothing => {
                proved = target;
                best.parts[0].once.clone_from(&once);
                let times = |factor: u64| look.kept.saturating_mul(factor) <= most;
                reach = if times(16) {
                    1.0
                } else if times(3) {
                    0.5
                } else {
                    0.25
                };
            }
            fronts::Sought::Walk(value, walk) => {
                proved = proved.max(value);
                best.parts[0].once.clone_from(&once);
                let chain = chains.chain(&walk).map(|chain| (chain.clone(), chains.value(&chain)));
                offer(best, chain);
                let again = |class: &usize| walk.iter().filter(|link| link.0 == *class).count() > 1;
                let single = |class: &usize| chains.classes[*class].len() == 1;
                let room = fronts::ONCE_MAX - once.len();
                let more: Vec<usize> = (0..chains.classes.len()).filter(again).filter(single).take(room).collect();
                if more.is_empty() {
                    break;
                }
                once.extend(more);
            }
            fronts::Sought::Stopped => reach *= 0.5,
        }
        let part = &mut best.parts[0];
        part.walked = part.walked.max(proved);
        part.bound = part.bound.max(proved);
        join(best, budget);
    }
}
