//! Plans in which several sites pass the same layers side by side, where what joins sites is slow.
//!
//! A *profile* divides the layers into segments, in each of which every site passes a fixed share of the rate. Where shares
//! change from one segment to the next, requests cross between sites, and a trunk carries the sum over all borders. Within
//! a segment a site is by itself: its blocks ([`super::series`]) hold the layers at its share, and no block need end where
//! those of other sites do. Where each pair of devices has a way of its own, which carries less than what crosses at a
//! border, the blocks there have ends that pass little enough each.
//!
//! For a profile, a linear program packs most layers into the devices there are, with a column for each way to make a block
//! of so many layers at so large a share; blocks are made at its duals. The same duals price a layer by site and share, and
//! so every other segment: the change of a profile that they speak for is tried, and kept where more layers are held. Where
//! there is room for all layers and a little more, blocks are taken one after another, or by the program in whole numbers,
//! and the next rate is looked at.

mod shares;
mod taking;

use super::Flows;
use super::blocks::{Type, Yard};
use super::clip::Span;
use super::groups;
use super::random::Random;
use super::replay::Carried;
use super::series::{Holds, Piece, Series};
use super::sites::Sites;
use crate::budget::Budget;
use crate::formulation::program::{Program, Relation};
use crate::formulation::solve::{SolverFault, Verdict, solve};
use crate::latency::chains::Link;
use shares::Ways;
use taking::Taken;

/// Parts of the rate that shares, and devices side by side, are told apart by.
const PARTS: usize = 400;
/// Most segments, in turn: more fit better in fractions, fewer in whole devices.
const SEGMENTS: [usize; 4] = [3, 5, 2, 4];
/// Most layers of a block.
const BLOCK_MAX: usize = 24;
/// Rounds of making blocks for one profile.
const ROUNDS: usize = 2;
/// A profile that holds this share of the layers of the best one is worth making blocks for.
const PROMISING: f64 = 0.94;
/// Share by which prices are shaken to make other blocks.
const SHAKEN: f64 = 0.1;
/// Changes of profiles that are looked at before one rate is given up.
const CHANGES: usize = 40;
/// Every so many changes one is left to luck.
const LUCK: usize = 6;
/// Layers of a segment that is of no use: each has one at least.
const NOTHING: f64 = 1.0 + 1e-6;
/// Branch-and-bound nodes of one integer program.
const NODES: u64 = 200;
/// Steps of the rate above the best plan: the greatest, the least, and the one that follows where the least led nowhere.
const STEP_MOST: f64 = 0.03;
const STEP_LEAST: f64 = 0.002;
const STEP_AGAIN: f64 = 0.01;
/// Share of the layers that are to be held for a plan to be looked for, and how many more each time that none was found.
const ENOUGH: f64 = 1.005;
const MORE: f64 = 0.4;
/// Devices where each pair has a way of its own, at least: fewer are soon placed by others; and at most: many of them hand
/// over what profiles do not tell.
const DEVICES_MIN: usize = 12;
const DEVICES_MAX: usize = 64;
/// Dives for a plan by one profile.
const DIVES: usize = 2;
/// Plans looked for at one rate.
const ATTEMPTS: usize = 5;
/// Devices that a stretch loses because it has whole ones, on the average.
const LOSS: f64 = 0.1;
/// What a block loses in the linear program for the square of its layers.
const SHORTER: f64 = 1e-5;
/// Rates looked at.
const RATES: u64 = 24;
/// Share of the bound that is looked at first where nothing is known.
const BEGIN: f64 = 0.3;

/// Intervals: type of the device, first layer, end.
type Laid = Vec<(usize, usize, usize)>;

/// Shares by segment and site.
type Profile = Vec<Vec<usize>>;

/// A block: its site, share and layers, the devices by type, and how they are joined.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    site: usize,
    level: usize,
    /// What a device at one of its ends passes at most; its share where that is left open.
    most: usize,
    layers: usize,
    counts: Vec<u16>,
    piece: Piece,
}

/// Consecutive segments in which a site has one share.
#[derive(Debug, Clone, PartialEq)]
struct Stretch {
    site: usize,
    level: usize,
    segments: std::ops::Range<usize>,
    /// What a device at its first and at its last layer passes at most, so that ways to other sites carry what crosses there;
    /// its share where they do anyway.
    ends: [usize; 2],
}

impl Stretch {
    /// What is asked of so many of its blocks.
    fn doors(&self) -> Vec<(usize, usize)> {
        let [begin, end] = self.ends;
        let mut asked: Vec<(usize, usize)> =
            self.ends.into_iter().filter(|&most| most < self.level).map(|most| (most, 1)).collect();
        if asked.len() == 2 {
            asked.push((begin.max(end), 2));
        }
        asked
    }
}

/// What a linear program says of a profile.
struct Packed {
    layers: f64,
    /// Layers by segment.
    held: Vec<f64>,
    /// Prices of devices by type.
    prices: Vec<f64>,
}

struct Search<'a> {
    yard: &'a Yard,
    ways: Ways,
    holds: Holds,
    longest: usize,
    blocks: Vec<Block>,
    /// Prices of types at the last profile that was worth making blocks for.
    prices: Vec<f64>,
    random: Random,
}

/// The stretches of a profile, of shares above nothing.
fn stretches(profile: &Profile, ways: &Ways) -> Vec<Stretch> {
    let mut found = Vec::new();
    for site in 0..profile[0].len() {
        let mut from = 0;
        for to in 1..=profile.len() {
            let level = profile[from][site];
            if to == profile.len() || profile[to][site] != level {
                if level > 0 {
                    found.push(Stretch { site, level, segments: from..to, ends: [level; 2] });
                }
                from = to;
            }
        }
    }
    for (border, a, b, share) in ways.doors(profile) {
        for stretch in &mut found {
            let most = (share * stretch.level as f64).floor() as usize;
            if stretch.site == a && stretch.segments.end == border {
                stretch.ends[1] = stretch.ends[1].min(most);
            }
            if stretch.site == b && stretch.segments.start == border {
                stretch.ends[0] = stretch.ends[0].min(most);
            }
        }
    }
    found
}

impl Search<'_> {
    /// Makes the cheapest blocks of each site at some prices, for these stretches; whether there are new ones.
    fn make(&mut self, stretches: &[Stretch], prices: &[f64], free: &[u16]) -> bool {
        let before = self.blocks.len();
        for site in 0..self.yard.sites {
            let here = stretches.iter().filter(|s| s.site == site);
            let mut levels: Vec<(usize, usize)> =
                here.flat_map(|s| [s.level, s.ends[0], s.ends[1]].map(|most| (s.level, most))).collect();
            levels.sort_unstable();
            levels.dedup();
            if levels.is_empty() {
                continue;
            }
            let price = |((t, price), free): ((&Type, &f64), &u16)| (t.site == site && *free > 0).then_some(*price);
            let mut prices: Vec<Option<f64>> = self.yard.types.iter().zip(prices).zip(free).map(price).collect();
            // A block may ask for more of a type than there are: those become dearer, and it is made again.
            for _ in 0..2 {
                let series = Series::new(&self.holds, &prices, self.longest);
                let mut wanted = vec![false; prices.len()];
                for &(level, most) in &levels {
                    for layers in 1..=if most < level { self.longest.div_ceil(2) } else { self.longest } {
                        let piece = if most < level {
                            series.rails(layers, most).and_then(|rails| rails.made(level))
                        } else {
                            series.made(layers, level)
                        };
                        let Some(piece) = piece else { continue };
                        let mut counts = vec![0; prices.len()];
                        piece.count(&mut counts);
                        let mut fits = true;
                        for ((wanted, used), free) in wanted.iter_mut().zip(&counts).zip(free) {
                            if used > free {
                                (*wanted, fits) = (true, false);
                            }
                        }
                        let alike = |b: &Block| {
                            (b.site, b.level, b.most, b.layers) == (site, level, most, layers) && b.counts == counts
                        };
                        if fits && !self.blocks.iter().any(alike) {
                            self.blocks.push(Block { site, level, most, layers, counts, piece });
                        }
                    }
                }
                if wanted.iter().all(|wanted| !wanted) {
                    break;
                }
                for (price, _) in prices.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted) {
                    *price = price.map(|price| price * 1.6 + 0.02);
                }
            }
        }
        self.blocks.len() > before
    }

    /// The program of a profile: segments' layers first, then blocks by stretch, beside what is taken.
    fn program(
        &self,
        profile: &Profile,
        stretches: &[Stretch],
        taken: &Taken,
        whole: bool,
    ) -> (Program, Vec<(usize, usize)>) {
        let mut program = Program { maximise: true, ..Program::default() };
        let layers = self.yard.layers as f64;
        let most = if whole { layers } else { 2.0 * layers };
        let segments: Vec<usize> = profile.iter().map(|_| program.column(1.0, 1.0, most, whole)).collect();
        let (mut columns, mut devices) = (Vec::new(), vec![Vec::new(); self.yard.types.len()]);
        let mut doors: Vec<(Vec<(usize, f64)>, f64)> = Vec::new();
        for (s, stretch) in stretches.iter().enumerate() {
            let mut terms: Vec<(usize, f64)> = stretch.segments.clone().map(|j| (segments[j], -1.0)).collect();
            let asked = stretch.doors();
            let first = doors.len();
            let open = |&(most, count): &(usize, usize)| count as f64 - taken.doors(self, s, most) as f64;
            doors.extend(asked.iter().map(|asked| (Vec::new(), open(asked))));
            for (b, block) in self.blocks.iter().enumerate() {
                if (block.site, block.level) != (stretch.site, stretch.level)
                    || block.counts.iter().zip(&taken.free).any(|(used, free)| used > free)
                {
                    continue;
                }
                // Of ways that cost the same, short blocks: fewer of them are left in fractions.
                let long = (block.layers * block.layers) as f64;
                let x = program.column(-SHORTER * long, 0.0, layers, whole);
                columns.push((s, b));
                terms.push((x, block.layers as f64));
                for (door, _) in asked.iter().enumerate().filter(|(_, (most, _))| block.most <= *most) {
                    doors[first + door].0.push((x, 1.0));
                }
                for (t, &n) in block.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                    devices[t].push((x, f64::from(n)));
                }
            }
            program.row(terms, Relation::AtLeast, -(taken.held(self, s) as f64));
        }
        for (terms, &free) in devices.into_iter().zip(&taken.free) {
            program.row(terms, Relation::AtMost, f64::from(free));
        }
        for (terms, open) in doors.into_iter().filter(|(_, open)| *open > 0.0) {
            program.row(terms, Relation::AtLeast, open);
        }
        if whole {
            program.row(segments.iter().map(|&j| (j, 1.0)).collect(), Relation::AtMost, layers);
        }
        (program, columns)
    }

    fn pack(&self, profile: &Profile, budget: &Budget<'_>) -> Result<Option<Packed>, SolverFault> {
        let stretches = stretches(profile, &self.ways);
        let (program, _) = self.program(profile, &stretches, &Taken::nothing(self), false);
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let duals = answer.duals.iter().skip(stretches.len()).take(self.yard.types.len());
        let prices = duals.map(|dual| dual.max(0.0)).collect();
        let held = at[..profile.len()].to_vec();
        Ok(Some(Packed { layers: held.iter().sum(), held, prices }))
    }

    /// Most layers that devices hold by a profile, and the profile without segments of no use; blocks are made where it is
    /// not much worse than `best`.
    fn value(&mut self, profile: Profile, best: f64, budget: &Budget<'_>) -> Result<(f64, Profile), SolverFault> {
        let all = stretches(&profile, &self.ways);
        let made = |s: &Stretch| {
            let some = |most: usize| self.blocks.iter().any(|b| (b.site, b.level, b.most) == (s.site, s.level, most));
            some(s.level) && s.ends.into_iter().all(some)
        };
        let lacking: Vec<Stretch> = all.iter().filter(|s| !made(s)).cloned().collect();
        if !lacking.is_empty() {
            let prices = self.prices.clone();
            self.make(&lacking, &prices, &Taken::nothing(self).free);
        }
        let (mut value, mut held) = (0.0, Vec::new());
        for _ in 0..ROUNDS {
            let Some(packed) = self.pack(&profile, budget)? else { return Ok((value, profile)) };
            (value, held) = (packed.layers, packed.held);
            if value < PROMISING * best || budget.exhausted().is_some() {
                break;
            }
            let shaken: Vec<f64> =
                packed.prices.iter().map(|price| price * (1.0 + SHAKEN * (self.random.real() - 0.5))).collect();
            self.prices = packed.prices;
            if !self.make(&all, &shaken, &Taken::nothing(self).free) {
                break;
            }
        }
        let mut kept = held.iter();
        let mut slim = profile.clone();
        slim.retain(|_| kept.next().is_none_or(|&layers| layers > NOTHING));
        slim.dedup();
        let slim = if !slim.is_empty() && self.ways.carry(&slim) { slim } else { profile };
        Ok((value, slim))
    }

    /// What a layer costs at the last prices, by site and share.
    fn costs(&self) -> Vec<Vec<f64>> {
        let of_site = |site: usize| {
            let price = |(t, price): (&Type, &f64)| (t.site == site).then_some(*price);
            let prices: Vec<Option<f64>> = self.yard.types.iter().zip(&self.prices).map(price).collect();
            let series = Series::new(&self.holds, &prices, self.longest);
            let least = |parts: usize| {
                let each = |layers: usize| f64::from(series.price(layers, parts)) / layers as f64;
                (1..=self.longest).map(each).fold(f64::INFINITY, f64::min)
            };
            std::iter::once(0.0).chain((1..=PARTS).map(least)).collect()
        };
        (0..self.yard.sites).map(of_site).collect()
    }

    /// A plan by a profile and what it carries; none where none was found.
    fn made(
        &mut self,
        profile: &Profile,
        (flows, sites): (&Flows<'_>, &Sites),
        budget: &Budget<'_>,
    ) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
        let mut laid = None;
        for _ in 0..DIVES {
            laid = laid.or(self.dive(profile, budget)?);
            if laid.is_some() {
                break;
            }
        }
        if laid.is_none() {
            laid = self.plan(profile, budget)?;
        }
        let Some(placement) = laid.and_then(|laid| placed(flows, self.yard, sites, &laid)) else { return Ok(None) };
        let carried = flows.carried(&placement)?;
        Ok(Some((placement, carried)))
    }

    /// The change of a profile that its prices speak for.
    fn cheaper(&mut self, profile: &Profile, tried: &[Profile]) -> Option<Profile> {
        let costs = self.costs();
        self.ways.cheaper(profile, &costs, tried, &mut self.random)
    }

    /// Where to begin: each site alone, all by what they can do, rows of sites.
    fn beginnings(&mut self, power: &[f64]) -> Vec<Profile> {
        let sites = self.yard.sites;
        let alone = |site: usize| (0..sites).map(|s| if s == site { PARTS } else { 0 }).collect::<Vec<usize>>();
        let sum: f64 = power.iter().sum();
        let mut even: Vec<usize> = power.iter().map(|p| (p / sum * PARTS as f64).floor() as usize).collect();
        let strongest = (0..sites).max_by(|&a, &b| power[a].total_cmp(&power[b])).unwrap_or(0);
        even[strongest] += PARTS - even.iter().sum::<usize>();
        let mut found: Vec<Profile> = vec![vec![even], vec![alone(strongest)]];
        for _ in 0..3 * sites {
            let mut order: Vec<usize> = (0..sites).collect();
            for i in (1..sites).rev() {
                order.swap(i, self.random.below(i + 1));
            }
            for length in 2..=sites.min(self.ways.segments) {
                found.push(order[..length].iter().map(|&site| alone(site)).collect());
            }
        }
        found.sort();
        found.dedup();
        found.retain(|profile| self.ways.carry(profile));
        found
    }

    /// The intervals of a plan by a profile, by type; none where whole blocks do not hold all layers.
    fn plan(&self, profile: &Profile, budget: &Budget<'_>) -> Result<Option<Laid>, SolverFault> {
        let stretches = stretches(profile, &self.ways);
        let (program, columns) = self.program(profile, &stretches, &Taken::nothing(self), true);
        let few = Budget { progress: None, nodes_max: NODES.min(budget.nodes_max), ..*budget };
        let answer = solve(&program, None, 1e-6, &few)?;
        let Some(at) = answer.assignment else { return Ok(None) };
        let held: Vec<usize> = at[..profile.len()].iter().map(|w| w.round().max(0.0) as usize).collect();
        if held.iter().sum::<usize>() != self.yard.layers {
            return Ok(None);
        }
        let mut taken = Vec::new();
        for (&column, x) in columns.iter().zip(&at[profile.len()..]) {
            taken.extend(std::iter::repeat_n(column, x.round().max(0.0) as usize));
        }
        Ok(self.laid(&stretches, &held, &taken))
    }

    /// The intervals of blocks, by position of the stretch and of the block, where segments have so many layers; none where
    /// they hold too few.
    fn laid(&self, stretches: &[Stretch], segments: &[usize], taken: &[(usize, usize)]) -> Option<Laid> {
        let mut laid = Vec::new();
        for (s, stretch) in stretches.iter().enumerate() {
            let mut start: usize = segments[..stretch.segments.start].iter().sum();
            let end: usize = segments[..stretch.segments.end].iter().sum();
            let here = || taken.iter().filter(|(of, _)| *of == s).map(|&(_, b)| &self.blocks[b]);
            let mut over = here().map(|block| block.layers).sum::<usize>().checked_sub(end - start)?;
            // The first that can be shorter is; blocks that are not needed at all are left out.
            let mut pieces: Vec<(usize, Piece)> = Vec::new();
            let mut longest: Vec<&Block> = here().collect();
            longest.sort_by_key(|block| (block.most < block.level, std::cmp::Reverse(block.layers)));
            for block in longest {
                if block.layers <= over && block.most == block.level {
                    over -= block.layers;
                    continue;
                }
                let shorter = block.piece.shorter(over, block.level, &self.holds);
                if shorter.is_some() {
                    over = 0;
                }
                pieces.push((block.most, shorter.unwrap_or_else(|| block.piece.clone())));
            }
            if over > 0 {
                return None;
            }
            // A block that may stand at the end does, and one at the beginning.
            for (at, &most) in stretch.ends.iter().enumerate().filter(|(_, most)| **most < stretch.level) {
                // The widest that will do: another end may ask for less.
                let door = (0..pieces.len()).filter(|&i| pieces[i].0 <= most).max_by_key(|&i| pieces[i].0)?;
                let piece = pieces.remove(door);
                if at == 0 { pieces.insert(0, piece) } else { pieces.push(piece) }
            }
            for (_, piece) in pieces {
                start = piece.lay(start, &mut |t, from, to| laid.push((t, from, to)));
            }
            if start != end {
                return None;
            }
        }
        Some(laid)
    }
}

/// The best plan faster than `rate` that was found, no plan being faster than `above`.
pub(crate) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    rate: f64,
    above: f64,
    seed: u64,
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    // Sites that are joined well enough may be told apart as well: their ways to others may differ.
    let sites = groups::sites(flows.network, if seed.is_multiple_of(2) { f64::INFINITY } else { above });
    let trunks = !flows.network.shared.is_empty();
    let apart = !trunks && !(DEVICES_MIN..=DEVICES_MAX).contains(&flows.tables.candidates.len());
    if apart || !(2..=groups::SITES_MAX).contains(&sites.members.len()) {
        return Ok(None);
    }
    let yard = groups::yard(flows, &sites, spans);
    let power: Vec<f64> = (0..yard.sites).map(|site| groups::most(&yard, spans, &[site]).max(1e-9)).collect();
    let devices: usize = yard.types.iter().map(|t| t.count).sum();
    let longest = (BLOCK_MAX * yard.layers / devices.max(1)).clamp(6, BLOCK_MAX);
    let (mut best, mut low): (Option<(Vec<Link>, Carried)>, f64) = (None, rate);
    let mut kept: Vec<Profile> = Vec::new();
    let mut step = STEP_MOST;
    for round in 0..RATES.min(budget.nodes_max / NODES) {
        let target = if low > 0.0 { (low * (1.0 + step)).min(above) } else { BEGIN * above };
        if budget.exhausted().is_some() || target <= low * (1.0 + 1e-4) {
            break;
        }
        let holds = Holds::new(&yard, target, PARTS);
        let ways = Ways::new(&yard, target, SEGMENTS[round as usize % SEGMENTS.len()]);
        let random = Random::new(seed * 1000 + round);
        let (blocks, prices) = (Vec::new(), vec![1.0; yard.types.len()]);
        let mut search = Search { yard: &yard, ways, holds, longest, blocks, prices, random };
        let mut known = if round % 3 == 2 { Vec::new() } else { kept.clone() };
        known.retain(|profile| search.ways.carry(profile));
        if known.is_empty() || step < STEP_LEAST {
            known.extend(search.beginnings(&power));
        }
        let mut found: Option<(f64, Profile)> = None;
        for profile in known {
            let (value, profile) = search.value(profile, found.as_ref().map_or(0.0, |found| found.0), budget)?;
            if found.as_ref().is_none_or(|found| value > found.0) {
                found = Some((value, profile));
            }
        }
        let Some((mut value, mut profile)) = found else { break };
        let layers = yard.layers as f64;
        // What stretches lose by whole devices; layers from which on a plan is looked for.
        let loss = LOSS * layers / devices.max(1) as f64;
        let score = |value: f64, profile: &Profile, ways: &Ways| value - loss * stretches(profile, ways).len() as f64;
        let (mut enough, mut attempts) = (f64::NEG_INFINITY, 0);
        let (mut tried, mut reached): (Vec<Profile>, bool) = (Vec::new(), false);
        for change in 0..=CHANGES {
            let now = score(value, &profile, &search.ways);
            if value >= layers * ENOUGH && now >= enough || change == CHANGES && value >= layers {
                (enough, attempts) = (now + MORE, attempts + 1);
                let got = search.made(&profile, (flows, &sites), budget)?;
                if let Some((placement, carried)) = got
                    && carried.rate > low
                {
                    low = carried.rate;
                    reached = low >= target * 0.999;
                    best = Some((placement, carried));
                }
            }
            if reached || attempts == ATTEMPTS || budget.exhausted().is_some() || change == CHANGES {
                break;
            }
            let next = if change % LUCK == LUCK - 1 { None } else { search.cheaper(&profile, &tried) };
            let Some(next) = next.or_else(|| search.ways.drawn(&profile, &mut search.random)) else { break };
            tried.push(next.clone());
            let (other, next) = search.value(next, value, budget)?;
            if score(other, &next, &search.ways) >= now {
                (value, profile) = (other, next);
            }
        }
        kept.retain(|known| *known != profile);
        kept.insert(0, profile);
        kept.truncate(3);
        step = match reached {
            true => STEP_MOST.min(step * 1.5),
            false if step < STEP_LEAST => STEP_AGAIN,
            false => 0.4 * step,
        };
    }
    Ok(best)
}

/// Gives each interval a device of its type.
pub(super) fn placed(
    flows: &Flows<'_>,
    yard: &Yard,
    sites: &Sites,
    laid: &[(usize, usize, usize)],
) -> Option<Vec<Link>> {
    let of_type = |t: &Type| -> Vec<usize> {
        let alike = |device: &&usize| flows.tables.candidates[**device].kind == t.kind;
        sites.members[t.site].iter().rev().filter(alike).copied().collect()
    };
    let mut waiting: Vec<Vec<usize>> = yard.types.iter().map(of_type).collect();
    let placement: Option<Vec<Link>> =
        laid.iter().map(|&(t, start, end)| waiting[t].pop().map(|device| (device, start, end))).collect();
    placement.filter(|placement| flows.fits(placement) && flows.pins(placement))
}
