//! Plans of blocks in which devices of several sites stand side by side, for sites whose pairs of devices have slow
//! ways.
//!
//! Where all requests leave one site for another at once, many pairs of devices have to stand at that border, each with
//! few layers to pass little enough. But a block may have rails of both sites: then a part of the requests crosses
//! before it and the rest after it, over every pair of rails that meet there, and blocks of the usual few rails carry
//! what crosses. So blocks here follow one another in any order, each rail is of one site, and what is handed over
//! between two blocks is a maximum flow between their rails: within a site whatever comes, between two sites what the
//! way of a pair carries.
//!
//! Searches begin from the best plan, from plans by [`stairs`](super::stairs), and where many devices hold each layer from one
//! that was made as if all ways were fast, unless there are stairs; they are annealed ([`moves`]).

mod moves;

use super::Flows;
use super::blocks::{Block, Yard, lacking};
use super::clip::Span;
use super::dive::Dives;
use super::groups;
use super::network::Network;
use super::replay::Carried;
use super::stairs::{Climb, Stairs};
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use moves::Annealing;

/// What a border between two blocks weighs, in layers.
const BORDER: f64 = 2.0;
/// Dives for a plan as if all ways were fast, and the share of what is asked for at which they end.
const DIVES: u64 = 120;
const NEARLY: f64 = 0.995;
/// Moves of the first search for each node that the budget allows.
const NODE_MOVES: u64 = 400;
/// The same for each device.
const DEVICE_MOVES: u64 = 40_000;
/// Share of the time that is left that it may take.
const FIRST: f64 = 0.6;
/// Further searches from the best plan, for a little more than it carries; how many of them in a row may gain nothing.
const AGAIN: u64 = 40;
const LOST_MAX: u64 = 6;
/// How much shorter they are, and the share of the time that is left that one may take; or after stairs, into how many
/// parts it is divided.
const SHORTER: u64 = 4;
const NEXT: f64 = 0.4;
const PARTS_AGAIN: u64 = 5;
/// Plans by stairs that are looked at, and the share of the time in which they are.
const STAIRS: u64 = 12;
const STAIRS_SHARE: f64 = 0.7;
/// Devices for each layer from which on none are looked at, and rails pass what they may: searches from plans find the
/// steps by themselves.
const STAIRS_EACH_MAX: usize = 4;
/// Share of the time that is left that a search from one may take, and how much of the heat it begins with.
const STAIRS_NEXT: f64 = 0.1;
const COOL: f64 = 0.1;
/// Devices for each layer from which on plans are made as if all ways were fast, where there are no stairs.
const DEVICES_EACH: usize = 2;
/// Share of what is carried without regard to ways that is asked for with regard to them.
const KEPT: f64 = 0.98;

/// Blocks in the order in which requests pass them.
#[derive(Debug, Clone)]
pub(super) struct Mixed {
    pub blocks: Vec<Block>,
    /// The blocks that have layers.
    pub order: Vec<usize>,
    /// Devices left over, by type.
    pub free: Vec<u16>,
    /// By block: the one that follows, as of when it was looked at, and what is handed over to it.
    pub edges: Vec<(usize, f64)>,
    /// Whether each rail passes its share of what its block does, so that where every border hands over all that is asked
    /// for, all of them together do. Else some of it may have to go elsewhere within a block, which matters little where
    /// rails are many.
    pub even: bool,
}

/// No block.
pub(super) const NOBODY: usize = usize::MAX;

/// Rates by rail, and by pair of rails.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    out: Vec<(usize, f64)>,
    into: Vec<(usize, f64)>,
    flow: Vec<f64>,
    /// How a rail was reached: rails of the one block, then those of the other.
    from: Vec<usize>,
    queue: Vec<usize>,
}

impl Scratch {
    /// What rails of one block hand over to those of the next, up to `enough`.
    pub fn handed(&mut self, yard: &Yard, (from, to): (&Block, &Block), enough: f64, even: bool) -> f64 {
        let site = |t: u16| yard.types[t as usize].site;
        self.out.clear();
        self.into.clear();
        let ends = |block: &Block, ends: &mut Vec<(usize, f64)>| {
            let scale = if even { (enough / block.flow).min(1.0) } else { 1.0 };
            ends.extend(block.rails.iter().filter_map(|rail| Some((site(*rail.types.first()?), rail.rate * scale))));
        };
        ends(from, &mut self.out);
        ends(to, &mut self.into);
        let width = self.into.len();
        self.flow.clear();
        self.flow.resize(self.out.len() * width, 0.0);
        let mut sum = 0.0;
        for near in [true, false] {
            for (a, out) in self.out.iter_mut().enumerate() {
                for (b, into) in self.into.iter_mut().enumerate() {
                    if (out.0 == into.0) == near {
                        let way = if near { f64::INFINITY } else { yard.between[out.0][into.0] };
                        let much = out.1.min(into.1).min(way);
                        out.1 -= much;
                        into.1 -= much;
                        self.flow[a * width + b] = much;
                        sum += much;
                    }
                }
            }
        }
        let least = 1e-9 * enough;
        while sum < enough - least {
            let more = self.augment(yard, least);
            if more <= least {
                break;
            }
            sum += more;
        }
        sum.min(enough)
    }

    /// Sends more by a shortest way that has room; how much.
    fn augment(&mut self, yard: &Yard, least: f64) -> f64 {
        let (rails, width) = (self.out.len(), self.into.len());
        self.from.clear();
        self.from.resize(rails + width, NOBODY);
        self.queue.clear();
        for a in (0..rails).filter(|&a| self.out[a].1 > least) {
            self.from[a] = a;
            self.queue.push(a);
        }
        let room = |flow: f64, a: usize, b: usize| if a == b { f64::INFINITY } else { yard.between[a][b] - flow };
        let mut next = 0;
        let mut end = None;
        while let Some(&at) = self.queue.get(next).filter(|_| end.is_none()) {
            next += 1;
            if at < rails {
                for b in 0..width {
                    let room = room(self.flow[at * width + b], self.out[at].0, self.into[b].0);
                    if self.from[rails + b] == NOBODY && room > least {
                        self.from[rails + b] = at;
                        self.queue.push(rails + b);
                        if self.into[b].1 > least {
                            end = Some(b);
                            break;
                        }
                    }
                }
            } else {
                for a in 0..rails {
                    if self.from[a] == NOBODY && self.flow[a * width + at - rails] > least {
                        self.from[a] = at;
                        self.queue.push(a);
                    }
                }
            }
        }
        let Some(end) = end else { return 0.0 };
        // Back along the way: how much, and then taking it.
        let mut much = self.into[end].1;
        for taking in [false, true] {
            let mut b = end;
            loop {
                let a = self.from[rails + b];
                let flow = &mut self.flow[a * width + b];
                if taking {
                    *flow += much;
                } else {
                    much = much.min(room(*flow, self.out[a].0, self.into[b].0));
                }
                let before = self.from[a];
                if before == a {
                    if taking {
                        self.out[a].1 -= much;
                    } else {
                        much = much.min(self.out[a].1);
                    }
                    break;
                }
                b = before - rails;
                let flow = &mut self.flow[a * width + b];
                if taking { *flow -= much } else { much = much.min(*flow) }
            }
        }
        self.into[end].1 -= much;
        much
    }
}

impl Mixed {
    /// Of blocks that follow one another; none where they have more devices than there are, or not all layers.
    fn of(yard: &Yard, blocks: Vec<Block>, even: bool) -> Option<Self> {
        let mut left: Vec<usize> = yard.types.iter().map(|t| t.count).collect();
        for &t in blocks.iter().flat_map(|block| &block.rails).flat_map(|rail| &rail.types) {
            left[t as usize] = left[t as usize].checked_sub(1)?;
        }
        let whole = blocks.iter().map(|block| block.layers).sum::<usize>() == yard.layers;
        let free = left.iter().enumerate().flat_map(|(t, &count)| std::iter::repeat_n(t as u16, count)).collect();
        let count = blocks.len();
        let mut mixed = Self { blocks, order: (0..count).collect(), free, edges: vec![(NOBODY, 0.0); count], even };
        (0..count).for_each(|b| mixed.refresh(yard, b, &Block::default()));
        whole.then_some(mixed)
    }

    /// Rates of the rails of a block, after a change to what it was.
    pub fn refresh(&mut self, yard: &Yard, block: usize, before: &Block) {
        let block = &mut self.blocks[block];
        block.rails.retain(|rail| !rail.types.is_empty());
        let layers = block.layers;
        for (i, rail) in block.rails.iter_mut().enumerate() {
            let alike = before.rails.get(i).filter(|old| before.layers == layers && old.types == rail.types);
            if let Some(old) = alike {
                rail.rate = old.rate;
                continue;
            }
            // The devices of a rail are of one site.
            let site = |t: &u16| yard.types[*t as usize].site;
            let one = rail.types.iter().all(|t| site(t) == site(&rail.types[0]));
            rail.rate = if one { yard.rail_of(&rail.types, layers) } else { 0.0 };
        }
        block.flow = block.rails.iter().map(|rail| rail.rate).sum();
    }

    /// Looks again at borders between blocks that did not follow one another.
    pub fn join(&mut self, yard: &Yard, target: f64, scratch: &mut Scratch) {
        for at in 1..self.order.len() {
            let (a, b) = (self.order[at - 1], self.order[at]);
            if self.edges[a].0 != b {
                self.edges[a] = (b, scratch.handed(yard, (&self.blocks[a], &self.blocks[b]), target, self.even));
            }
        }
        if let Some(&last) = self.order.last() {
            self.edges[last] = (NOBODY, f64::INFINITY);
        }
    }

    /// What all blocks lack of a target, and all borders that need not be looked at again.
    pub fn short(&self, target: f64) -> f64 {
        let mut sum = 0.0;
        for (at, &b) in self.order.iter().enumerate() {
            let (block, (next, handed)) = (&self.blocks[b], self.edges[b]);
            sum += block.layers as f64 * lacking(block.flow, target);
            if self.order.get(at + 1) == Some(&next) {
                sum += BORDER * lacking(handed, target);
            }
        }
        sum
    }

    /// Rate of the weakest block or border, which all of them together may miss where it is less than was asked for.
    pub fn rate(&self) -> f64 {
        let of = |&b: &usize| self.blocks[b].flow.min(self.edges[b].1);
        self.order.iter().map(of).fold(f64::INFINITY, f64::min)
    }
}

/// The same ways, all of them as fast as may be.
fn joined(network: &Network) -> Network {
    let n = network.pair.len();
    Network { pair: vec![vec![f64::INFINITY; n]; n], ..network.clone() }
}

/// Whether plans by stairs are looked at, which take most of the time.
pub(super) fn by_stairs(flows: &Flows<'_>) -> bool {
    flows.tables.candidates.len() / flows.network.layers.max(1) < STAIRS_EACH_MAX
}

/// The best plan faster than `known` that was found; none is faster than `above`, and one of `goal` is enough.
pub(super) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    known: Option<(&[Link], f64)>,
    (above, goal): (f64, f64),
    stairs: &mut Option<Stairs>,
    round: u64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = groups::sites(flows.network, above);
    if sites.members.len() < 2 || !flows.network.shared.is_empty() {
        return Ok(None);
    }
    let yard = groups::yard(flows, &sites, spans);
    let rate = known.map_or(0.0, |(_, rate)| rate);
    // Where several devices hold each layer, many blocks have devices of several sites anyway.
    let each = flows.tables.candidates.len() / flows.network.layers.max(1);
    let even = by_stairs(flows);
    let mixed = |placement: &[Link]| Mixed::of(&yard, groups::as_blocks(flows, &yard, &sites, placement, true)?, even);
    let devices = flows.tables.candidates.len() as u64;
    let moves = (budget.nodes_max.saturating_mul(NODE_MOVES)).min(devices * DEVICE_MOVES);
    let seed = |number: u64| number + (round << 32);
    let mut best = known.and_then(|(placement, rate)| Some((rate, mixed(placement)?)));
    let mut offered: Option<(Vec<Link>, Carried)> = None;
    let plans = if even { STAIRS } else { 0 };
    let mut stepped = false;
    let begun = budget.seconds_left();
    for number in 0..plans {
        let reached = best.as_ref().map_or(rate, |(reached, _)| *reached);
        let known = offered.as_ref().map_or(rate, |(_, carried)| carried.rate).max(reached);
        if known >= goal {
            break;
        }
        // Of the share of all, what is left of it.
        let spent = begun.zip(budget.seconds_left()).map_or(0.0, |(begun, left)| 1.0 - left / begun.max(1e-9));
        if spent >= STAIRS_SHARE {
            break;
        }
        let stairs = stairs.get_or_insert_with(|| Stairs::new(flows, spans, above));
        let found = budget.part((STAIRS_SHARE - spent) / (1.0 - spent), |budget| stairs.next(flows, known, budget))?;
        let Some(Climb { placement, blocks, target }) = found else { break };
        let start = Mixed::of(&yard, blocks, even);
        let carried = flows.carried(&placement)?;
        if carried.rate > offered.as_ref().map_or(rate, |offered| offered.1.rate) && flows.pins(&placement) {
            offered = Some((placement, carried));
        }
        if let Some(start) = start {
            stepped = true;
            let short = (moves / SHORTER, STAIRS_NEXT);
            let found = Annealing::new(&yard, start, seed(100 + number)).run(target.min(goal), short, COOL, budget);
            best = best.into_iter().chain([(found.rate(), found)]).reduce(|a, b| if b.0 > a.0 { b } else { a });
        }
    }
    let open = round.is_multiple_of(2) && each >= DEVICES_EACH && !stepped;
    if open && best.as_ref().is_none_or(|(reached, _)| *reached < goal) {
        let network = joined(flows.network);
        let joined = Flows { network: &network, seen: None, ..*flows };
        let found = Dives::new(&joined, spans, above).search(&joined, 0.0, goal * NEARLY, DIVES, budget)?;
        let start = found.and_then(|(placement, carried)| Some((carried.rate, mixed(&placement)?)));
        if let Some((rate, start)) = start {
            let target = rate.min(goal) * KEPT;
            let found = Annealing::new(&yard, start, seed(5)).run(target, (moves, FIRST), 1.0, budget);
            best = best.into_iter().chain([(found.rate(), found)]).reduce(|a, b| if b.0 > a.0 { b } else { a });
        }
    }
    let mut lost = 0;
    for again in 0..AGAIN {
        let Some((rate, state)) = best.as_mut().filter(|(rate, _)| *rate < goal) else { break };
        if lost == LOST_MAX || budget.exhausted().is_some() {
            break;
        }
        let (much, heat) = if again % 2 == 0 { (1.01, 0.2) } else { (1.004, 0.03) };
        let target = goal.min(*rate * much);
        let next = Annealing::new(&yard, state.clone(), seed(11 + again));
        // Of so many parts of the time one, or half of what is left.
        let part = 1.0 / PARTS_AGAIN.saturating_sub(again).max(2) as f64;
        let share = if stepped { part } else { NEXT };
        let next = next.run(target, (moves / SHORTER, share), heat, budget);
        let reached = next.rate();
        lost = if reached > *rate { 0 } else { lost + 1 };
        if reached > *rate {
            (*rate, *state) = (reached, next);
        }
    }
    let blocks = best.iter().flat_map(|(_, state)| state.order.iter().map(|&b| &state.blocks[b]));
    let laid = groups::lay_out(flows, &yard, &sites, blocks);
    if let Some(placement) = laid.filter(|placement| flows.fits(placement) && flows.pins(placement)) {
        let carried = flows.carried(&placement)?;
        if carried.rate > offered.as_ref().map_or(rate, |offered| offered.1.rate) {
            offered = Some((placement, carried));
        }
    }
    Ok(offered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throughput::blocks::{Rail, Type};
    use crate::throughput::random::Random;

    /// Devices at two sites, so many at each, which carry 2 with one layer and 1 with two, and a way between each two
    /// of them.
    fn yard(counts: [usize; 2], layers: usize, way: f64) -> Yard {
        let types = (0..2).map(|site| Type { site, kind: 0, count: counts[site] }).collect();
        let between = vec![vec![f64::INFINITY, way], vec![way, f64::INFINITY]];
        Yard::new(layers, types, &[Span::falling(2.0, 2)], between, vec![vec![f64::INFINITY; 2]; 2])
    }

    fn block(layers: usize, rails: &[(u16, f64)]) -> Block {
        let rails: Vec<Rail> = rails.iter().map(|&(t, rate)| Rail { types: vec![t], rate }).collect();
        let flow = rails.iter().map(|rail| rail.rate).sum();
        Block { site: 0, layers, rails, flow }
    }

    /// The least cut between the rails of two blocks, by trying all.
    fn least_cut(from: &[(u16, f64)], to: &[(u16, f64)], way: f64) -> f64 {
        let mut least = f64::INFINITY;
        for cut in 0..1_usize << (from.len() + to.len()) {
            let in_cut = |i: usize| cut >> i & 1 == 1;
            let rails = from.iter().chain(to).enumerate().filter(|(i, _)| in_cut(*i)).map(|(_, rail)| rail.1);
            let mut sum: f64 = rails.sum();
            for (_, out) in from.iter().enumerate().filter(|(a, _)| !in_cut(*a)) {
                let left = to.iter().enumerate().filter(|(b, _)| !in_cut(from.len() + b));
                sum += left.map(|(_, into)| if into.0 == out.0 { f64::INFINITY } else { way }).sum::<f64>();
            }
            least = least.min(sum);
        }
        least
    }

    /// What rails of blocks that follow one another pass on, by ways of augmentation through a matrix.
    fn passed(blocks: &[Vec<(u16, f64)>], way: f64) -> f64 {
        let rails: Vec<(usize, u16, f64)> = blocks
            .iter()
            .enumerate()
            .flat_map(|(b, rails)| rails.iter().map(move |&(site, rate)| (b, site, rate)))
            .collect();
        // Each rail is a node where it is entered and one where it is left; then come the source and the sink.
        let (count, source, sink) = (rails.len(), 2 * rails.len(), 2 * rails.len() + 1);
        let mut room = vec![vec![0.0_f64; sink + 1]; sink + 1];
        for (i, &(a, site, rate)) in rails.iter().enumerate() {
            room[i][count + i] = rate;
            if a == 0 {
                room[source][i] = f64::MAX;
            }
            if a + 1 == blocks.len() {
                room[count + i][sink] = f64::MAX;
            }
            for (j, _) in rails.iter().enumerate().filter(|(_, other)| other.0 == a + 1) {
                room[count + i][j] = if rails[j].1 == site { f64::MAX } else { way };
            }
        }
        let mut sum = 0.0;
        loop {
            let mut from = vec![usize::MAX; sink + 1];
            let mut waiting = std::collections::VecDeque::from([source]);
            while let Some(at) = waiting.pop_front() {
                for next in 0..=sink {
                    if next != source && from[next] == usize::MAX && room[at][next] > 1e-9 {
                        from[next] = at;
                        waiting.push_back(next);
                    }
                }
            }
            if from[sink] == usize::MAX {
                return sum;
            }
            let way = std::iter::successors(Some(sink), |&at| Some(from[at]).filter(|&before| before != usize::MAX));
            let nodes: Vec<usize> = way.collect();
            let much = nodes.windows(2).map(|w| room[w[1]][w[0]]).fold(f64::INFINITY, f64::min);
            for w in nodes.windows(2) {
                room[w[1]][w[0]] -= much;
                room[w[0]][w[1]] += much;
            }
            sum += much;
        }
    }

    #[test]
    fn blocks_in_a_row_carry_what_is_said_of_each_border_alone() {
        let (mut random, mut scratch, mut slower) = (Random::new(5), Scratch::default(), 0);
        let (mut bound, mut missed) = (0, 0);
        for _ in 0..300 {
            let way = 2.0 * random.real();
            let yard = yard([9, 9], 4, way);
            let rails: Vec<Vec<(u16, f64)>> = (0..4)
                .map(|_| (0..=random.below(3)).map(|_| (random.below(2) as u16, 0.5 + 3.0 * random.real())).collect())
                .collect();
            let blocks: Vec<Block> = rails.iter().map(|rails| block(1, rails)).collect();
            let enough = blocks.iter().map(|block| block.flow).fold(f64::INFINITY, f64::min);
            let mut whole = |even| {
                let borders = blocks.windows(2).map(|pair| scratch.handed(&yard, (&pair[0], &pair[1]), enough, even));
                borders.fold(f64::INFINITY, f64::min) >= enough * (1.0 - 1e-9)
            };
            // Where every border hands over all, all is carried.
            let carried = passed(&rails, way);
            let is_carried = carried >= enough * (1.0 - 1e-6);
            let said = whole(true);
            assert!(!said || is_carried, "{rails:?} by {way}: {carried} of {enough}");
            slower += usize::from(!is_carried);
            let is_mixed = rails.iter().flatten().any(|rail| rail.0 != rails[0][0].0);
            bound += usize::from(said && is_mixed && passed(&rails, 0.0) < enough * (1.0 - 1e-6));
            missed += usize::from(whole(false) && !is_carried);
        }
        assert!(slower > 30, "ways bound {slower} times only");
        assert!(bound > 5, "all was carried over ways {bound} times only");
        assert!(missed > 0, "rails that pass what they may have to be wrong somewhere");
    }

    #[test]
    fn what_a_border_hands_over_is_the_least_cut_of_all_between_its_rails() {
        let (mut random, mut scratch, mut bound) = (Random::new(9), Scratch::default(), 0);
        for _ in 0..300 {
            let way = 2.0 * random.real();
            let yard = yard([9, 9], 2, way);
            let mut rails = || -> Vec<(u16, f64)> {
                (0..=random.below(4)).map(|_| (random.below(2) as u16, 3.0 * random.real())).collect()
            };
            let (from, to) = (rails(), rails());
            let least = least_cut(&from, &to, way);
            let handed = scratch.handed(&yard, (&block(1, &from), &block(1, &to)), 1e6, true);
            assert!((handed - least).abs() < 1e-4, "{from:?} to {to:?} by {way}: {handed}, not {least}");
            let all = |rails: &[(u16, f64)]| rails.iter().map(|rail| rail.1).sum::<f64>();
            bound += usize::from(least < all(&from).min(all(&to)) - 1e-3);
            assert!(scratch.handed(&yard, (&block(1, &from), &block(1, &to)), 0.5 * least, false) <= least);
        }
        assert!(bound > 30, "ways were the least cut {bound} times only");
    }

    #[test]
    fn annealing_puts_devices_of_two_sites_side_by_side_where_neither_site_has_enough_of_them() {
        // Three devices hold each layer at a rate of 6; one site has four of them and the other two.
        for way in [0.0, 1.0] {
            let yard = yard([4, 2], 2, way);
            let start = vec![block(1, &[(0, 2.0); 4]), block(1, &[(1, 2.0); 2])];
            let start = Mixed::of(&yard, start, true).expect("all layers and no more devices than there are");
            let found = Annealing::new(&yard, start, 3).run(6.0, (40_000, 1.0), 1.0, &Budget::default());
            assert_eq!(found.rate(), 6.0, "{found:?}");
            assert_eq!(found.order.iter().map(|&b| found.blocks[b].layers).sum::<usize>(), 2);
            for (t, most) in [(0, 4), (1, 2)] {
                let rails = found.order.iter().flat_map(|&b| &found.blocks[b].rails);
                assert!(rails.flat_map(|rail| &rail.types).filter(|&&own| own == t).count() <= most, "{found:?}");
            }
            let last = found.order[1];
            let mut scratch = Scratch::default();
            let handed = scratch.handed(&yard, (&found.blocks[found.order[0]], &found.blocks[last]), 6.0, true);
            assert!(handed >= 6.0 - 1e-9, "{found:?}");
        }
    }

    #[test]
    fn a_rail_of_two_sites_carries_nothing_and_more_devices_than_there_are_are_refused() {
        let yard = yard([1, 1], 2, 9.0);
        let mut across = block(2, &[(0, 0.0)]);
        across.rails[0].types.push(1);
        assert_eq!(Mixed::of(&yard, vec![across], true).expect("a start").blocks[0].flow, 0.0);
        assert!(Mixed::of(&yard, vec![block(2, &[(0, 1.0), (0, 1.0)])], true).is_none());
        assert!(Mixed::of(&yard, vec![block(1, &[(0, 2.0)])], true).is_none(), "a layer is missing");
    }

    #[test]
    fn rates_that_are_kept_after_a_change_are_those_of_a_new_look() {
        let yard = yard([9, 9], 4, 1.0);
        let mut random = Random::new(17);
        let start = vec![block(2, &[(0, 0.0), (1, 0.0), (0, 0.0)]), block(2, &[(0, 0.0), (1, 0.0)])];
        let mut mixed = Mixed::of(&yard, start, true).expect("all layers");
        for _ in 0..300 {
            let (b, before) = (random.below(2), mixed.blocks.clone());
            let block = &mut mixed.blocks[b];
            match random.below(4) {
                0 => block.layers = 1 + random.below(3),
                1 => block.rails.push(Rail { types: vec![random.below(2) as u16], rate: 0.0 }),
                2 if block.rails.len() > 1 => block.rails[random.below(2)].types.clear(),
                _ => block.rails[0].types.push(random.below(2) as u16),
            }
            let mut anew = mixed.clone();
            mixed.refresh(&yard, b, &before[b]);
            anew.refresh(&yard, b, &Block::default());
            assert_eq!(mixed.blocks[b], anew.blocks[b]);
            mixed.blocks[b].rails.truncate(4);
            mixed.blocks[b].rails[0].types.truncate(3);
            mixed.refresh(&yard, b, &Block::default());
        }
    }
}
