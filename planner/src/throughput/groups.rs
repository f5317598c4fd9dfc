//! Divides sites into groups, each of which holds the whole model, and finds a plan of blocks for each.
//!
//! Sites that are joined by slow ways may each serve requests alone, or some may follow one another. What a set of sites
//! carries is estimated by a short search; the best division of all sites into such sets is then searched for long.

use super::Flows;
use super::annealing::Annealing;
use super::blocks::{Block, Rail, State, Type, Yard};
use super::clip::{Span, Weights, bound};
use super::network::Network;
use super::rails::lay_rail;
use super::replay::Carried;
use super::sharpen::sharpen;
use super::sites::Sites;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;

/// Most sites that are told apart; more are taken together, those with the fastest ways first.
pub(super) const SITES_MAX: usize = 5;
/// Lengths of blocks that searches start from.
const LENGTHS: [usize; 14] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 27, 40, 1000];
/// Moves of a search for each node that the budget allows.
const NODE_MOVES: u64 = 150;
/// The same for each pair of devices: small problems need no more.
const PAIR_MOVES: u64 = 4000;
/// Share of them for looks at sets of sites.
const LOOKS: u64 = 4;
/// Rates tried, each a little lower than the last, until a rail can be laid out.
const LOWERED: usize = 160;
/// How much lower.
const LOWER: f64 = 0.9975;
/// Further searches from the best plan, for a little more than it carries.
const AGAIN: u64 = 6;

/// The yard of all sites.
pub(super) fn yard(flows: &Flows<'_>, sites: &Sites, spans: &[Vec<Span>]) -> Yard {
    let (tables, network) = (flows.tables, flows.network);
    let mut types: Vec<Type> = Vec::new();
    for (site, members) in sites.members.iter().enumerate() {
        for &device in members {
            let kind = tables.candidates[device].kind;
            match types.iter_mut().find(|t| (t.site, t.kind) == (site, kind)) {
                Some(known) => known.count += 1,
                None => types.push(Type { site, kind, count: 1 }),
            }
        }
    }
    let n = sites.members.len();
    let mut trunk = vec![vec![f64::INFINITY; n]; n];
    let mut site_of = vec![0; tables.candidates.len()];
    for (site, members) in sites.members.iter().enumerate() {
        members.iter().for_each(|&device| site_of[device] = site);
    }
    for shared in &network.shared {
        let mut used = vec![vec![0; n]; n];
        shared.pairs.iter().for_each(|&(a, b)| used[site_of[a]][site_of[b]] += 1);
        for a in 0..n {
            for b in (0..n).filter(|&b| b != a) {
                if used[a][b] == sites.members[a].len() * sites.members[b].len() {
                    trunk[a][b] = trunk[a][b].min(shared.rate);
                }
            }
        }
    }
    Yard::new(network.layers, types, spans, sites.between.clone(), trunk)
}

/// Sites within which ways are as fast as may be, few enough to be told apart.
pub(crate) fn sites(network: &Network, above: f64) -> Sites {
    // No way needs to carry more than all of a plan, unless several ways share a capacity.
    let most = if network.shared.is_empty() { above } else { f64::INFINITY };
    let positive = network.pair.iter().flatten().copied().filter(|&rate| rate > 0.0);
    let mut rates: Vec<f64> = positive.map(|rate| rate.min(most)).collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    rates.dedup();
    let few = |rate: f64| Some(Sites::close(network, rate)).filter(|sites| sites.members.len() <= SITES_MAX);
    // A slower way joins more, so the first rate that leaves few sites is found by halving.
    let (mut low, mut high) = (0, rates.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if few(rates[middle]).is_some() { high = middle } else { low = middle + 1 }
    }
    rates.get(low).and_then(|&rate| few(rate)).unwrap_or_else(|| Sites::close(network, 0.0))
}

/// The best plan that was found, no plan being faster than `above`.
pub(crate) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    known: Option<&[Link]>,
    above: f64,
    round: u64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = sites(flows.network, above);
    let (yard, n) = (yard(flows, &sites, spans), sites.members.len());
    let devices = flows.tables.candidates.len() as u64;
    let moves = (budget.nodes_max.saturating_mul(NODE_MOVES)).min(devices * devices * PAIR_MOVES);
    let enough = above / (1.0 + budget.gap_target.max(1e-9));
    // By set of sites, as bits: the best state of a short search and its rate.
    let mut looked: Vec<Option<(f64, State)>> = vec![None; 1 << n];
    // All sites in a row first; then what sets of them do by themselves.
    let whole = (1_usize << n) - 1;
    let row = round.is_multiple_of(2);
    for set in if row { whole..=whole } else { 1..=whole } {
        let order: Vec<usize> = (0..n).filter(|site| set >> site & 1 == 1).collect();
        let most = most(&yard, spans, &order).min(above);
        if most <= 0.0 || budget.exhausted().is_some() {
            continue;
        }
        let starts = LENGTHS.iter().filter_map(|&length| State::spread(&yard, &order, length.min(yard.layers)));
        let mut starts: Vec<(f64, State)> = starts.map(|state| (state.rate(&yard), state)).collect();
        starts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let kept = if n == 1 { 4 } else { 2 };
        let sets = if row { 1 } else { whole as u64 };
        let short = (moves / LOOKS / (kept * sets)).max(1);
        let found = starts.into_iter().take(kept as usize).map(|(_, start)| {
            let state = Annealing::new(&yard, start, set as u64 + (round << 32)).run(most, short, 1.0, budget);
            (state.rate(&yard), state)
        });
        looked[set] = found.reduce(|a, b| if b.0 > a.0 { b } else { a }).filter(|found| found.0 > 0.0);
    }
    let mut best: Option<(Vec<Link>, Carried)> = None;
    let chosen = if row { vec![whole] } else { divide(&looked) };
    let share = moves / chosen.len().max(1) as u64;
    let mut placement = Vec::new();
    for set in chosen {
        let order: Vec<usize> = (0..n).filter(|site| set >> site & 1 == 1).collect();
        let most = most(&yard, spans, &order).min(above);
        let Some((_, start)) = looked[set].take() else { continue };
        let mut states = vec![start.clone()];
        // What is had already, where it passes the same sites.
        let blocks = known.and_then(|known| as_blocks(flows, &yard, &sites, known, false));
        let known = blocks.and_then(|blocks| State::of(&yard, blocks)).filter(|state| state.passes(&order));
        states.extend(known);
        let goal = if order.len() == n { enough } else { most };
        let mut found = states
            .into_iter()
            .enumerate()
            .map(|(i, state)| {
                let heat = if i == 0 { 1.0 } else { 0.1 };
                Annealing::new(&yard, state, 7 + (round << 32)).run(goal, share / 6, heat, budget)
            })
            .map(|state| (state.rate(&yard), state))
            .reduce(|a, b| if b.0 > a.0 { b } else { a });
        for again in 0..AGAIN {
            let Some((rate, state)) = found.as_mut().filter(|(rate, _)| *rate < goal) else { break };
            let (much, heat) = if again % 2 == 0 { (1.01, 0.2) } else { (1.004, 0.03) };
            let target = goal.min(*rate * much);
            let next =
                Annealing::new(&yard, state.clone(), 11 + again + (round << 32)).run(target, share / 8, heat, budget);
            let reached = next.rate(&yard);
            if reached > *rate {
                (*rate, *state) = (reached, next);
            }
        }
        let Some((rate, state)) = found else { continue };
        let state = match sharpen(&yard, spans, &state, most, budget)? {
            Some(sharper) if sharper.rate(&yard) > rate => sharper,
            _ => state,
        };
        if let Some(links) = lay_out(flows, &yard, &sites, state.in_order()) {
            placement.extend(links);
        }
    }
    if !placement.is_empty() && flows.fits(&placement) && flows.pins(&placement) {
        let carried = flows.carried(&placement)?;
        best = Some((placement, carried));
    }
    Ok(best)
}

/// No plan of these sites alone is faster.
pub(super) fn most(yard: &Yard, spans: &[Vec<Span>], order: &[usize]) -> f64 {
    let mut counts = vec![0; spans.len()];
    yard.types.iter().filter(|t| order.contains(&t.site)).for_each(|t| counts[t.kind] += t.count);
    bound(&counts, spans, yard.layers, Weights::PLAIN)
}

/// The division of all sites into sets of the greatest sum of rates; some sites may be left out.
fn divide(looked: &[Option<(f64, State)>]) -> Vec<usize> {
    let rate = |set: usize| looked[set].as_ref().map_or(0.0, |(rate, _)| *rate);
    let mut best = vec![(0.0, 0); looked.len()];
    for whole in 1..looked.len() {
        // Parts that hold the lowest site, or leave it out.
        let lowest = 1 << whole.trailing_zeros();
        best[whole] = (best[whole ^ lowest].0, lowest);
        let mut part = whole;
        while part > 0 {
            let sum = rate(part) + best[whole ^ part].0;
            if part & lowest != 0 && sum > best[whole].0 {
                best[whole] = (sum, part);
            }
            part = (part - 1) & whole;
        }
    }
    let (mut left, mut chosen) = (looked.len() - 1, Vec::new());
    while left > 0 {
        let part = best[left].1;
        chosen.extend(Some(part).filter(|&part| looked[part].is_some() && rate(part) > 0.0));
        left ^= part;
    }
    chosen
}

/// The blocks of a placement: between two layers that no interval passes over, intervals are strung into rails. None
/// where a block has devices of several sites, unless those are to be `mixed`: then each rail is of one.
pub(super) fn as_blocks(
    flows: &Flows<'_>,
    yard: &Yard,
    sites: &Sites,
    placement: &[Link],
    mixed: bool,
) -> Option<Vec<Block>> {
    let site_at = |t: u16| yard.types[t as usize].site;
    let site_of = |device: usize| sites.members.iter().position(|members| members.contains(&device));
    let whole = |at: &usize| placement.iter().all(|&(_, start, end)| end <= *at || start >= *at);
    let cuts: Vec<usize> = (0..=yard.layers).filter(whole).collect();
    let block = |bounds: &[usize]| {
        let (from, to) = (bounds[0], bounds[1]);
        let mut inside: Vec<Link> = placement.iter().copied().filter(|link| from <= link.1 && link.2 <= to).collect();
        inside.sort_by_key(|link| (link.1, link.2));
        let site = site_of(inside.first()?.0)?;
        let mut rails: Vec<(usize, Vec<u16>)> = Vec::new();
        for (device, start, end) in inside {
            let (kind, own) = (flows.tables.candidates[device].kind, site_of(device)?);
            let t = yard.types.iter().position(|t| (t.site, t.kind) == (own, kind))? as u16;
            if own != site && !mixed {
                return None;
            }
            match rails.iter_mut().find(|(at, types)| *at == start && start > from && site_at(types[0]) == own) {
                Some((at, types)) => {
                    types.push(t);
                    *at = end;
                }
                None => rails.push((end, vec![t])),
            }
        }
        let rails = rails.into_iter().map(|(_, types)| Rail { types, rate: 0.0 }).collect();
        Some(Block { site, layers: to - from, rails, flow: 0.0 })
    };
    cuts.windows(2).map(block).collect()
}

/// Gives each block its layers and each rail its devices.
pub(super) fn lay_out<'a>(
    flows: &Flows<'_>,
    yard: &Yard,
    sites: &Sites,
    blocks: impl IntoIterator<Item = &'a Block>,
) -> Option<Vec<Link>> {
    let of_type = |t: &Type| -> Vec<usize> {
        let alike = |device: &&usize| flows.tables.candidates[**device].kind == t.kind;
        sites.members[t.site].iter().rev().filter(alike).copied().collect()
    };
    let mut waiting: Vec<Vec<usize>> = yard.types.iter().map(of_type).collect();
    let (mut placement, mut start) = (Vec::new(), 0);
    for block in blocks {
        let end = start + block.layers;
        for rail in &block.rails {
            let devices: Option<Vec<usize>> = rail.types.iter().map(|&t| waiting[t as usize].pop()).collect();
            let mut devices = devices?;
            if rail.rate <= 0.0 {
                continue;
            }
            // Ends of the model cost more, so another device there, or a lower rate, may be needed.
            let mut rate = rail.rate;
            let laid = (0..LOWERED).find_map(|_| {
                let tried = (0..devices.len()).find_map(|_| {
                    devices.rotate_left(1);
                    lay_rail(flows, &devices, (start, end), rate)
                });
                rate *= LOWER;
                tried
            });
            placement.extend(laid.unwrap_or_default());
        }
        start = end;
    }
    (start == flows.network.layers).then_some(placement)
}
