//! Plans in which several sites pass the same layers side by side, where what joins sites is slow.
//!
//! A *profile* divides the layers into segments, in each of which every site passes a fixed share of the rate. Where shares
//! change from one segment to the next, requests cross between sites, and a trunk carries the sum over all borders. Within
//! a segment a site is by itself: its blocks ([`super::series`]) hold the layers at its share, and no block need end where
//! those of other sites do.
//!
//! For a profile, a linear program packs most layers into the devices there are, with a column for each way to make a block
//! of so many layers at so large a share; blocks are made at its duals. Profiles are changed a little at a time, and kept
//! where more layers are held. Where there is room for all layers, the same program in whole numbers makes a plan, and the
//! next rate is looked at.

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

/// Shares of the rate that are told apart.
const LEVELS: usize = 40;
/// Parts of the rate that devices side by side are told apart by.
const PARTS: usize = 400;
/// Most segments.
const SEGMENTS_MAX: usize = 5;
/// Most layers of a block.
const BLOCK_MAX: usize = 24;
/// Rounds of making blocks for one profile.
const ROUNDS: usize = 2;
/// A profile that holds this share of the layers of the best one is worth making blocks for.
const PROMISING: f64 = 0.94;
/// Share by which prices are shaken to make other blocks.
const SHAKEN: f64 = 0.1;
/// Changes of profiles that are looked at before one rate is given up.
const CHANGES: usize = 60;
/// Draws for a change that trunks can carry.
const DRAWS: usize = 40;
/// Branch-and-bound nodes of one integer program.
const NODES: u64 = 400;
/// Steps of the rate, upwards where a plan was found and downwards where none was.
const UP: f64 = 1.03;
const DOWN: f64 = 0.985;
/// Rates looked at.
const RATES: usize = 24;

/// Intervals: type of the device, first layer, end.
type Laid = Vec<(usize, usize, usize)>;

/// Shares by segment and site.
type Profile = Vec<Vec<usize>>;

/// A block: its site, share and layers, the devices by type, and how they are joined.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    site: usize,
    level: usize,
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
}

/// What a linear program says of a profile.
struct Packed {
    layers: f64,
    prices: Vec<f64>,
}

struct Search<'a> {
    yard: &'a Yard,
    rate: f64,
    holds: Holds,
    longest: usize,
    blocks: Vec<Block>,
    /// Prices of types at the last profile that was worth making blocks for.
    prices: Vec<f64>,
    random: Random,
}

/// The stretches of a profile, of shares above nothing.
fn stretches(profile: &Profile) -> Vec<Stretch> {
    let mut found = Vec::new();
    for site in 0..profile[0].len() {
        let mut from = 0;
        for to in 1..=profile.len() {
            let level = profile[from][site];
            if to == profile.len() || profile[to][site] != level {
                if level > 0 {
                    found.push(Stretch { site, level, segments: from..to });
                }
                from = to;
            }
        }
    }
    found
}

/// What crosses between sites at a border: shares from a site to another.
fn crossed(
    before: &[usize],
    after: &[usize],
    room: &mut dyn FnMut(usize, usize) -> usize,
) -> Option<Vec<(usize, usize, usize)>> {
    let mut out: Vec<usize> = before.iter().zip(after).map(|(b, a)| b.saturating_sub(*a)).collect();
    let mut into: Vec<usize> = after.iter().zip(before).map(|(a, b)| a.saturating_sub(*b)).collect();
    let mut moved = Vec::new();
    for (from, out) in out.iter_mut().enumerate() {
        // The widest way first.
        let mut ways: Vec<usize> = (0..into.len()).filter(|&to| into[to] > 0 && to != from).collect();
        ways.sort_by_key(|&to| (std::cmp::Reverse(room(from, to)), to));
        for to in ways {
            let much = (*out).min(into[to]).min(room(from, to));
            if much > 0 {
                *out -= much;
                into[to] -= much;
                moved.push((from, to, much));
            }
        }
    }
    out.iter().all(|&left| left == 0).then_some(moved)
}

impl Search<'_> {
    /// Whether trunks carry what crosses at all borders of a profile together.
    fn carried(&self, profile: &Profile) -> bool {
        let sites = self.yard.sites;
        let mut used = vec![vec![0_usize; sites]; sites];
        for pair in profile.windows(2) {
            let mut room = |a: usize, b: usize| {
                let trunk = self.yard.trunk[a][b].min(self.yard.between[a][b]) / self.rate * LEVELS as f64;
                (trunk.min(2.0 * LEVELS as f64) as usize).saturating_sub(used[a.min(b)][a.max(b)])
            };
            let Some(moved) = crossed(&pair[0], &pair[1], &mut room) else { return false };
            for (a, b, much) in moved {
                used[a.min(b)][a.max(b)] += much;
            }
        }
        true
    }

    /// Makes the cheapest blocks of each site at some prices, for these stretches; whether there are new ones.
    fn make(&mut self, stretches: &[Stretch], prices: &[f64]) -> bool {
        let before = self.blocks.len();
        for site in 0..self.yard.sites {
            let mut levels: Vec<usize> = stretches.iter().filter(|s| s.site == site).map(|s| s.level).collect();
            levels.sort_unstable();
            levels.dedup();
            if levels.is_empty() {
                continue;
            }
            let price = |(t, price): (&Type, &f64)| (t.site == site).then_some(*price);
            let mut prices: Vec<Option<f64>> = self.yard.types.iter().zip(prices).map(price).collect();
            // A block may ask for more of a type than there are: those become dearer, and it is made again.
            for _ in 0..2 {
                let series = Series::new(&self.holds, &prices, self.longest);
                let mut wanted = vec![false; prices.len()];
                for &level in &levels {
                    for layers in 1..=self.longest {
                        let Some(piece) = series.made(layers, level * PARTS / LEVELS) else { continue };
                        let mut counts = vec![0; prices.len()];
                        piece.count(&mut counts);
                        let over = |(used, t): (&u16, &Type)| usize::from(*used) > t.count;
                        let mut fits = true;
                        for (t, wanted) in wanted.iter_mut().enumerate() {
                            if over((&counts[t], &self.yard.types[t])) {
                                (*wanted, fits) = (true, false);
                            }
                        }
                        let alike =
                            |b: &Block| (b.site, b.level, b.layers) == (site, level, layers) && b.counts == counts;
                        if fits && !self.blocks.iter().any(alike) {
                            self.blocks.push(Block { site, level, layers, counts, piece });
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

    /// The program of a profile: segments' layers first, then blocks by stretch.
    fn program(&self, profile: &Profile, stretches: &[Stretch], whole: bool) -> (Program, Vec<(usize, usize)>) {
        let mut program = Program { maximise: true, ..Program::default() };
        let layers = self.yard.layers as f64;
        let most = if whole { layers } else { 2.0 * layers };
        let segments: Vec<usize> = profile.iter().map(|_| program.column(1.0, 0.0, most, whole)).collect();
        let (mut columns, mut devices) = (Vec::new(), vec![Vec::new(); self.yard.types.len()]);
        for (s, stretch) in stretches.iter().enumerate() {
            let mut terms: Vec<(usize, f64)> = stretch.segments.clone().map(|j| (segments[j], -1.0)).collect();
            for (b, block) in self.blocks.iter().enumerate() {
                if (block.site, block.level) != (stretch.site, stretch.level) {
                    continue;
                }
                let x = program.column(0.0, 0.0, layers, whole);
                columns.push((s, b));
                terms.push((x, block.layers as f64));
                for (t, &n) in block.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                    devices[t].push((x, f64::from(n)));
                }
            }
            program.row(terms, Relation::AtLeast, 0.0);
        }
        for (terms, t) in devices.into_iter().zip(&self.yard.types) {
            program.row(terms, Relation::AtMost, t.count as f64);
        }
        if whole {
            program.row(segments.iter().map(|&j| (j, 1.0)).collect(), Relation::AtMost, layers);
        }
        (program, columns)
    }

    fn pack(&self, profile: &Profile, budget: &Budget<'_>) -> Result<Option<Packed>, SolverFault> {
        let stretches = stretches(profile);
        let (program, _) = self.program(profile, &stretches, false);
        let answer = solve(&program, None, 0.0, &Budget { progress: None, ..*budget })?;
        let Some(at) = answer.assignment.filter(|_| answer.verdict == Verdict::Optimal) else { return Ok(None) };
        let prices = answer.duals.iter().skip(stretches.len()).map(|dual| dual.max(0.0)).collect();
        Ok(Some(Packed { layers: at[..profile.len()].iter().sum(), prices }))
    }

    /// Most layers that devices hold by a profile; blocks are made where it is not much worse than `best`.
    fn value(&mut self, profile: &Profile, best: f64, budget: &Budget<'_>) -> Result<f64, SolverFault> {
        let all = stretches(profile);
        let made = |s: &Stretch| self.blocks.iter().any(|b| (b.site, b.level) == (s.site, s.level));
        let lacking: Vec<Stretch> = all.iter().filter(|s| !made(s)).cloned().collect();
        if !lacking.is_empty() {
            let prices = self.prices.clone();
            self.make(&lacking, &prices);
        }
        let mut value = 0.0;
        for _ in 0..ROUNDS {
            let Some(packed) = self.pack(profile, budget)? else { return Ok(value) };
            value = packed.layers;
            if value < PROMISING * best || budget.exhausted().is_some() {
                break;
            }
            let shaken: Vec<f64> =
                packed.prices.iter().map(|price| price * (1.0 + SHAKEN * (self.random.real() - 0.5))).collect();
            self.prices = packed.prices;
            if !self.make(&all, &shaken) {
                break;
            }
        }
        Ok(value)
    }

    /// A profile a little different, which trunks can carry.
    fn changed(&mut self, profile: &Profile) -> Option<Profile> {
        let sites = self.yard.sites;
        for _ in 0..DRAWS {
            let mut next = profile.clone();
            let j = self.random.below(next.len());
            let (s, t) = (self.random.below(sites), self.random.below(sites));
            let shift = |shares: &mut Vec<usize>, much: usize| {
                let much = much.min(shares[s]);
                shares[s] -= much;
                shares[t] += much;
                much > 0
            };
            let much = [1, 1, 2, 3, 5, 8, 13, LEVELS][self.random.below(8)];
            let done = match self.random.below(8) {
                0..=2 => s != t && shift(&mut next[j], much),
                3 if s != t => next.iter_mut().map(|shares| shift(shares, much)).filter(|done| *done).count() > 0,
                4..=5 if next.len() < SEGMENTS_MAX && s != t => {
                    let mut other = next[j].clone();
                    let done = shift(&mut other, much);
                    next.insert(j + self.random.below(2), other);
                    done
                }
                6 if next.len() > 1 => {
                    next.remove(j);
                    true
                }
                7 if next.len() > 1 => {
                    let k = self.random.below(next.len());
                    next.swap(j, k);
                    j != k
                }
                _ => false,
            };
            next.dedup();
            if done && next != *profile && self.carried(&next) {
                return Some(next);
            }
        }
        None
    }

    /// Where to begin: each site alone, all by what they can do, rows of sites.
    fn beginnings(&mut self, power: &[f64]) -> Vec<Profile> {
        let sites = self.yard.sites;
        let alone = |site: usize| (0..sites).map(|s| if s == site { LEVELS } else { 0 }).collect::<Vec<usize>>();
        let sum: f64 = power.iter().sum();
        let mut even: Vec<usize> = power.iter().map(|p| (p / sum * LEVELS as f64).floor() as usize).collect();
        let strongest = (0..sites).max_by(|&a, &b| power[a].total_cmp(&power[b])).unwrap_or(0);
        even[strongest] += LEVELS - even.iter().sum::<usize>();
        let mut found: Vec<Profile> = vec![vec![even], vec![alone(strongest)]];
        for _ in 0..3 * sites {
            let mut order: Vec<usize> = (0..sites).collect();
            for i in (1..sites).rev() {
                order.swap(i, self.random.below(i + 1));
            }
            for length in 2..=sites.min(SEGMENTS_MAX) {
                found.push(order[..length].iter().map(|&site| alone(site)).collect());
            }
        }
        found.sort();
        found.dedup();
        found.retain(|profile| self.carried(profile));
        found
    }

    /// The intervals of a plan by a profile, by type; none where whole blocks do not hold all layers.
    fn plan(&self, profile: &Profile, budget: &Budget<'_>) -> Result<Option<Laid>, SolverFault> {
        let stretches = stretches(profile);
        let (program, columns) = self.program(profile, &stretches, true);
        let few = Budget { progress: None, nodes_max: NODES.min(budget.nodes_max), ..*budget };
        let answer = solve(&program, None, 1e-6, &few)?;
        let Some(at) = answer.assignment else { return Ok(None) };
        let held: Vec<usize> = at[..profile.len()].iter().map(|w| w.round().max(0.0) as usize).collect();
        if held.iter().sum::<usize>() != self.yard.layers {
            return Ok(None);
        }
        let mut laid = Vec::new();
        for (s, stretch) in stretches.iter().enumerate() {
            let mut start: usize = held[..stretch.segments.start].iter().sum();
            let end: usize = held[..stretch.segments.end].iter().sum();
            for (&(_, b), x) in columns.iter().zip(&at[profile.len()..]).filter(|((of, _), _)| *of == s) {
                for _ in 0..x.round().max(0.0) as usize {
                    let mut piece = self.blocks[b].piece.clone();
                    let over = (start + self.blocks[b].layers).saturating_sub(end);
                    if start >= end {
                        break;
                    }
                    piece.shorten(over);
                    start = piece.lay(start, &mut |t, from, to| laid.push((t, from, to)));
                }
            }
            if start != end {
                return Ok(None);
            }
        }
        Ok(Some(laid))
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
    let sites = groups::sites(flows.network, above);
    if !(2..=groups::SITES_MAX).contains(&sites.members.len()) || flows.network.shared.is_empty() {
        return Ok(None);
    }
    let yard = groups::yard(flows, &sites, spans);
    let power: Vec<f64> = (0..yard.sites).map(|site| groups::most(&yard, spans, &[site]).max(1e-9)).collect();
    let devices: usize = yard.types.iter().map(|t| t.count).sum();
    let longest = (BLOCK_MAX * yard.layers / devices.max(1)).clamp(6, BLOCK_MAX);
    let (mut best, mut low): (Option<(Vec<Link>, Carried)>, f64) = (None, rate);
    let mut kept: Vec<Profile> = Vec::new();
    let mut target = (rate * UP).min(above);
    let mut missed = 0;
    for round in 0..RATES as u64 {
        if budget.exhausted().is_some() || target <= low * (1.0 + 1e-4) {
            break;
        }
        let holds = Holds::new(&yard, target, PARTS);
        let random = Random::new(seed * 1000 + round);
        let (blocks, prices) = (Vec::new(), vec![1.0; yard.types.len()]);
        let mut search = Search { yard: &yard, rate: target, holds, longest, blocks, prices, random };
        let mut known = kept.clone();
        known.retain(|profile| search.carried(profile));
        if known.is_empty() || missed > 1 {
            known.extend(search.beginnings(&power));
        }
        let mut found: Option<(f64, Profile)> = None;
        for profile in known {
            let value = search.value(&profile, found.as_ref().map_or(0.0, |found| found.0), budget)?;
            if found.as_ref().is_none_or(|found| value > found.0) {
                found = Some((value, profile));
            }
        }
        let Some((mut value, mut profile)) = found else { break };
        let enough = yard.layers as f64 * 1.02;
        for _ in 0..CHANGES {
            if value >= enough || budget.exhausted().is_some() {
                break;
            }
            let Some(next) = search.changed(&profile) else { break };
            let other = search.value(&next, value, budget)?;
            if other >= value {
                (value, profile) = (other, next);
            }
        }
        let mut reached = false;
        if value >= yard.layers as f64 - 1e-6
            && let Some(laid) = search.plan(&profile, budget)?
            && let Some(placement) = placed(flows, &yard, &sites, &laid)
        {
            let carried = flows.carried(&placement)?;
            if carried.rate > low {
                reached = carried.rate >= target * 0.995;
                low = carried.rate;
                best = Some((placement, carried));
            }
        }
        kept.retain(|known| *known != profile);
        kept.insert(0, profile);
        kept.truncate(3);
        missed = if reached { 0 } else { missed + 1 };
        target = if reached {
            (low.max(target) * UP).min(above)
        } else {
            f64::midpoint(target * DOWN, low.max(target * 0.9))
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
