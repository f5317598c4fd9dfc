//! Sharpens a plan of blocks: each site in turn is asked for regions of rails at a little more than the plan carries.
//!
//! Annealing finds which site holds how many layers and how borders are made; where a site has few kinds of devices, what
//! is left is a matter of whole numbers, which an integer program settles better. All sites together must hold all layers.

use super::blocks::{Block, Rail, State, Yard, handed};
use super::clip::{Span, Weights};
use super::rails::regions;
use super::worths::Covers;
use crate::budget::Budget;
use crate::formulation::rails::{Door, Rails, Region, Stock, fill};
use crate::formulation::solve::SolverFault;

/// Steps of the search for a rate.
const STEPS: usize = 9;
/// Relative distance at which it ends.
const NEAR: f64 = 3e-4;
/// Most rails of a region.
const RAILS_MAX: usize = 12;
/// Layers that a site is asked for beyond those it holds.
const MORE: usize = 2;

/// A better plan than `state`, no plan of its sites being faster than `above`; none where none was found.
pub(crate) fn sharpen(
    yard: &Yard,
    spans: &[Vec<Span>],
    state: &State,
    above: f64,
    budget: &Budget<'_>,
) -> Result<Option<State>, SolverFault> {
    let (mut low, mut high, mut best) = (state.rate(yard), above, None);
    for step in 0..STEPS {
        if high - low <= NEAR * high || budget.exhausted().is_some() {
            break;
        }
        let target = if step == 0 { (low * 1.003).min(f64::midpoint(low, high)) } else { f64::midpoint(low, high) };
        let from = best.as_ref().unwrap_or(state);
        match at_rate(yard, spans, from, target, budget)?.map(|found| (found.rate(yard), found)) {
            Some((rate, found)) if rate > low => {
                low = rate;
                best = Some(found);
            }
            _ => high = target,
        }
    }
    Ok(best)
}

/// The plan remade at a rate.
fn at_rate(
    yard: &Yard,
    spans: &[Vec<Span>],
    state: &State,
    rate: f64,
    budget: &Budget<'_>,
) -> Result<Option<State>, SolverFault> {
    let old: Vec<&Block> = state.in_order();
    let mut order: Vec<usize> = old.iter().map(|block| block.site).collect();
    order.dedup();
    let (mut made, mut whole): (Vec<Block>, usize) = (Vec::new(), 0);
    for (i, &site) in order.iter().enumerate() {
        let held: usize = old.iter().filter(|block| block.site == site).map(|block| block.layers).sum();
        let ways = |a: usize, b: usize| if yard.trunk[a][b] >= rate { yard.between[a][b] } else { 0.0 };
        let before: Option<(Rails, f64)> = made.last().map(|block| (rates(block, rate), ways(block.site, site)));
        let next = order.get(i + 1).and_then(|&next| old.iter().find(|block| block.site == next));
        let after: Option<(Rails, f64)> = next.map(|block| (rates(block, rate), ways(site, block.site)));
        let enough = rate * (1.0 - 1e-9);
        let begins = before.as_ref().map(|(rails, way)| move |kind: &Rails| handed(rails, kind, *way) >= enough);
        let ends = after.as_ref().map(|(rails, way)| move |kind: &Rails| handed(kind, rails, *way) >= enough);
        let stock = stock(yard, spans, site, held + if order.len() > 1 { MORE } else { 0 });
        let mut kinds = regions(&stock, rate);
        let mut covers = Covers::new(&stock.counts[0], spans, held, Weights::PLAIN);
        kinds.extend(covers.patterns(rate, budget)?);
        kinds.extend(old.iter().filter(|block| block.site == site).map(|block| rates(block, rate)));
        kinds.retain(|kind| kind.len() <= RAILS_MAX);
        let begin: Door<'_> = begins.as_ref().map(|fits| fits as &dyn Fn(&Rails) -> bool);
        let end: Door<'_> = ends.as_ref().map(|fits| fits as &dyn Fn(&Rails) -> bool);
        let Some(found) = fill(&stock, &kinds, (begin, end), held.saturating_sub(MORE), budget)? else {
            return Ok(None);
        };
        whole += found.iter().map(|region| region.layers).sum::<usize>();
        made.extend(found.iter().map(|region| block(yard, site, region)));
    }
    // What is too much is taken from the longest blocks.
    let Some(over) = whole.checked_sub(yard.layers) else { return Ok(None) };
    for _ in 0..over {
        if let Some(longest) = made.iter_mut().max_by_key(|block| block.layers).filter(|block| block.layers > 1) {
            longest.layers -= 1;
        }
    }
    Ok(State::of(yard, made))
}

/// Rates of a block's rails, made to add to `rate`.
fn rates(block: &Block, rate: f64) -> Rails {
    let share = rate / block.flow.max(f64::MIN_POSITIVE);
    let mut rails: Rails = block.rails.iter().map(|rail| rail.rate * share).filter(|rate| *rate > 0.0).collect();
    rails.sort_by(|a, b| b.total_cmp(a));
    rails
}

fn stock(yard: &Yard, spans: &[Vec<Span>], site: usize, layers: usize) -> Stock {
    let mut counts = vec![0; spans.len()];
    yard.types.iter().filter(|t| t.site == site).for_each(|t| counts[t.kind] += t.count);
    let greatest = |spans: &Vec<Span>| {
        let mut rates = vec![0.0_f64; yard.layers];
        spans.iter().for_each(|span| rates[span.held - 1] = rates[span.held - 1].max(span.rate));
        rates
    };
    // Kinds that are elsewhere make no regions here.
    let here = |(kind, spans): (usize, &Vec<Span>)| {
        if counts[kind] > 0 { greatest(spans) } else { vec![0.0; yard.layers] }
    };
    let greatest = spans.iter().enumerate().map(here).collect();
    Stock { counts: vec![counts], greatest, layers, between: vec![vec![0.0]] }
}

fn block(yard: &Yard, site: usize, region: &Region) -> Block {
    let rail = |(rate, kinds): &(f64, Vec<usize>)| {
        let types = kinds.iter().enumerate().flat_map(|(kind, &count)| {
            let t = yard.types.iter().position(|t| (t.site, t.kind) == (site, kind)).unwrap_or(0);
            std::iter::repeat_n(t as u16, count)
        });
        Rail { types: types.collect(), rate: *rate }
    };
    let rails: Vec<Rail> = region.rails.iter().map(rail).collect();
    Block { site, layers: region.layers, flow: rails.iter().map(|rail| rail.rate).sum(), rails }
}
