//! Plans found from the first layer to the last.
//!
//! Blocks of rails nest: what begins side by side ends side by side. The best plans often do not, since a slow device
//! may begin beside one row of others and end beside the next. Here a plan is made from left to right: wherever devices
//! end, others begin, so many that all that hold the next layer carry the rate. At the worths of devices that bound the
//! rate ([`super::worths`]) such devices are paid 1 or more for a layer, so what is paid beyond that is *waste*, and all
//! that a plan may waste is what all devices are worth beyond all layers. Of the beginnings of plans that end at a layer
//! those of least waste are kept, if what requests take between their devices is a flow of the rate, of several sites
//! in some sweeps a few of each number of devices left. Shaken worths keep others. Where ways between two sites share a
//! capacity, what crosses is added up from border to border, and using it up counts a little like waste.

use super::Flows;
use super::blocks::{Type, Yard};
use super::clip::Span;
use super::groups;
use super::profiles::placed;
use super::random::Random;
use super::replay::Carried;
use super::worths::Covers;
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use flow::Flow;
use std::collections::BTreeSet;

mod crossing;
mod flow;
mod turns;

/// Beginnings kept for each layer.
const WIDTH: usize = 160;
/// The same at several sites, where many quick sweeps get further than a few wide ones.
const WIDTH_APART: usize = 80;
/// Beginnings looked at for each that is kept.
const LOOKED: usize = 4;
/// Those with as many devices left at each site that are taken up before others have their turn, in every second sweep
/// over several sites: what has stayed within one site has wasted least so far, and may have no way on.
const ALIKE: usize = 2;
/// Sets of devices that one beginning goes on with, at most, and how many are looked at for it.
const BRANCHES: usize = 24;
const SETS: usize = 1_000;
/// Shares of what a beginning may still waste that its next devices may waste on one layer, in turn, until there are sets
/// enough.
const WASTES: [f64; 5] = [1.0 / 256.0, 1.0 / 64.0, 1.0 / 16.0, 0.25, 1.0];
/// Most devices that begin together: without a limit, many slow ones would be all that is looked at.
const TOGETHER: usize = 4;
/// Parts of the rate by which is told what devices are paid at least.
const PARTS: usize = 256;
/// Share by which the worth of devices falls of which all are left over where none of others are.
const LEARNT: f64 = 0.08;
/// Share by which worths are shaken.
const SHAKEN: f64 = 0.12;
/// The same where devices are of several sites, worths being shaken so in two sweeps of four: what a device is worth
/// there depends on how it is reached, of which the worths that bound the rate know nothing.
const LEARNT_APART: f64 = 0.2;
const SHAKEN_APART: f64 = 0.3;
/// What waste may be more than what is left of worths, in layers: shaken worths are not those of the bound.
const LENIENT: f64 = 0.5;
/// What luck weighs, in layers, in turn: much of it keeps other beginnings, little of it the best.
const LUCKS: [f64; 5] = [0.03, 0.1, 0.03, 0.3, 0.03];
/// Where between what is had and the bound a rate is looked at, in turn.
const TARGETS: [f64; 6] = [0.5, 0.2, 0.9, 0.08, 0.35, 0.7];
/// The same where devices are of several sites: the bound knows little of what joins them, and may be far off.
const TARGETS_APART: [f64; 7] = [0.5, 0.2, 0.1, 0.05, 0.35, 0.02, 0.15];
/// Sweeps over several sites after which what was learnt is forgotten if none found a plan: what is learnt from sweeps
/// that fail leads further and further away.
const FORGETS: usize = 6;
/// Sweeps of one search.
const SWEEPS: u64 = 60;
/// Work of looking at one set.
const SET_WORK: u64 = 10;
/// Plans whose flow is computed at the end of one sweep.
const ENDS: usize = 4;
/// Beginnings after which the budget is asked again.
const ASKED: usize = 16;
/// What makes up for rounding.
const ROUNDING: f64 = 1e-9;

/// Intervals: type of the device, first layer, end.
type Laid = Vec<(usize, usize, usize)>;

/// A way to use a device: its type, how many layers it holds, at what rate, and what it is paid for each of them.
#[derive(Debug, Clone, Copy)]
struct Way {
    of: usize,
    held: usize,
    rate: f64,
    price: f64,
    /// Price per rate.
    by_rate: f64,
}

/// The beginning of a plan.
struct Beginning {
    /// The one it goes on from, and which devices began where that ends; none for nothing.
    step: Option<(usize, Set)>,
    /// Where that one ends.
    start: usize,
    free: Vec<u16>,
    /// Ways and where they end, of those that hold the next layer or end before it.
    active: Vec<(usize, usize)>,
    waste: f64,
    /// What has crossed between two sites, the lower first, on all ways together; nothing where none share a capacity.
    crossed: Vec<f64>,
}

/// Devices that may begin where a beginning ends: most are never looked at, so that they take no more room than this.
#[derive(Clone, Copy)]
struct Next {
    before: usize,
    set: Set,
    waste: f64,
    luck: f64,
    /// When those with as many devices left at each site take turns, the turn it has.
    turn: usize,
}

/// Ways of devices that begin together, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    ways: [u16; TOGETHER],
    count: u16,
}

impl Set {
    const NONE: Self = Self { ways: [0; TOGETHER], count: 0 };

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.ways[..self.len()].iter().map(|&way| usize::from(way))
    }

    fn len(&self) -> usize {
        usize::from(self.count)
    }

    fn push(&mut self, way: usize) {
        self.ways[self.len()] = way as u16;
        self.count += 1;
    }

    fn pop(&mut self) {
        self.count -= 1;
        self.ways[self.len()] = 0;
    }
}

/// Beginnings of plans at some worths of types.
struct Sweep<'a> {
    yard: &'a Yard,
    /// The rate of the plan.
    rate: f64,
    /// Cheapest per rate first.
    ways: Vec<Way>,
    /// What so many devices that pass so many parts of the rate are paid, at least.
    least: Vec<Vec<f64>>,
    /// What a plan may waste.
    slack: f64,
    /// What luck weighs.
    luck: f64,
    /// Beginnings taken up.
    kept: Vec<Beginning>,
    looked: u64,
    /// Devices by type that the best beginning has left over of those that get furthest.
    left: Option<Vec<u16>>,
    /// Beginnings kept for each layer.
    width: usize,
    /// Of those with as many devices left at each site, how many have their turn at once, where they take turns.
    alike: Option<usize>,
}

/// A search for sets of devices that begin together.
struct Sets<'a> {
    sweep: &'a Sweep<'a>,
    /// Positions of the ways that are of use, and the ways, each at the rate of what is handed over to it.
    ways: Vec<(usize, Way)>,
    /// What they may be paid, at most.
    most: f64,
    free: Vec<u16>,
    chosen: Set,
    found: Vec<(f64, Set)>,
    left: usize,
}

impl Sets<'_> {
    /// Goes on from a position of the ways, where so much is still to be passed and so much is paid.
    fn add(&mut self, from: usize, need: f64, paid: f64) {
        let dust = ROUNDING * self.sweep.rate;
        if need <= dust {
            self.found.push((paid, self.chosen));
            return;
        }
        if self.chosen.len() == TOGETHER {
            return;
        }
        for position in from..self.ways.len() {
            let (at, Way { of, rate, price, by_rate, .. }) = self.ways[position];
            if self.left == 0 || paid + need * by_rate > self.most {
                return;
            }
            let others = TOGETHER - 1 - self.chosen.len();
            if self.free[of] == 0 || paid + price + self.sweep.least(need - rate, others) > self.most {
                continue;
            }
            self.left -= 1;
            self.free[of] -= 1;
            self.chosen.push(at);
            self.add(position, need - rate, paid + price);
            self.chosen.pop();
            self.free[of] += 1;
        }
    }
}

impl<'a> Sweep<'a> {
    /// Of devices that are worth so much, by type.
    fn new(yard: &'a Yard, rate: f64, worths: &[f64], luck: f64) -> Self {
        let whole = rate;
        let mut ways = Vec::new();
        for (of, worth) in worths.iter().enumerate() {
            for held in 1..=yard.layers {
                let rate = yard.rate_of(of, held).min(whole);
                if rate > 0.0 {
                    let price = worth / held as f64;
                    ways.push(Way { of, held, rate, price, by_rate: price / rate });
                }
            }
        }
        ways.sort_by(|a, b| a.by_rate.total_cmp(&b.by_rate).then(b.held.cmp(&a.held)));
        let all: f64 = yard.types.iter().zip(worths).map(|(t, worth)| t.count as f64 * worth).sum();
        let slack = all - yard.layers as f64;
        ways.truncate(usize::from(u16::MAX));
        let mut least = vec![vec![f64::INFINITY; PARTS + 1]; TOGETHER + 1];
        least[0][0] = 0.0;
        for count in 1..=TOGETHER {
            for way in &ways {
                let parts = (way.rate / rate * PARTS as f64).ceil() as usize;
                for need in 0..=PARTS {
                    let price = way.price + least[count - 1][need.saturating_sub(parts)];
                    least[count][need] = least[count][need].min(price).min(least[count - 1][need]);
                }
            }
        }
        Self {
            yard,
            rate,
            ways,
            least,
            slack,
            luck,
            kept: Vec::new(),
            looked: 0,
            left: None,
            width: WIDTH,
            alike: None,
        }
    }

    /// What at most so many devices that pass so much are paid, at least.
    fn least(&self, need: f64, devices: usize) -> f64 {
        // As a whole number, what is less than nothing is 0.
        let parts = (need / self.rate - ROUNDING) * PARTS as f64;
        self.least[devices][(parts as usize).min(PARTS)]
    }

    /// The devices of a beginning: ways and first layers.
    fn devices(&self, beginning: &Beginning) -> Vec<(usize, usize)> {
        let mut devices = Vec::new();
        let mut at = beginning;
        while let Some((before, set)) = &at.step {
            devices.extend(set.iter().map(|way| (way, at.start)));
            at = &self.kept[*before];
        }
        devices
    }

    /// The site of a way.
    fn site(&self, way: usize) -> usize {
        self.yard.types[self.ways[way].of].site
    }

    /// What devices hand over to others of a site, each of them having a way of its own.
    fn handed(&self, from: impl Iterator<Item = usize>, to: usize) -> f64 {
        let way = |way: usize| {
            let site = self.site(way);
            let between = if site == to { f64::INFINITY } else { self.yard.between[site][to] };
            self.ways[way].rate.min(between)
        };
        from.map(way).sum()
    }

    /// Whether what is held before `end` passes the rate on to it.
    fn flows(&self, beginning: &Beginning, end: usize) -> bool {
        let devices = self.devices(beginning);
        let held = |&(way, start): &(usize, usize)| {
            let way = self.ways[way];
            (self.yard.types[way.of].site, start, start + way.held, way.rate)
        };
        let held: Vec<_> = devices.iter().map(held).collect();
        let rate = self.rate;
        Flow::new(self.yard, &held, end).most(rate) >= rate * (1.0 - ROUNDING)
    }

    /// What may follow a beginning that ends at a layer: where each ends.
    fn after(&mut self, before: usize, at: usize, random: &mut Random) -> Vec<(usize, Next)> {
        let beginning = &self.kept[before];
        let going = || beginning.active.iter().filter(|(_, end)| *end > at);
        let ended = || beginning.active.iter().filter(|(_, end)| *end <= at).map(|&(way, _)| way);
        let passed: f64 = going().map(|&(way, _)| self.ways[way].rate).sum();
        let handed = |to: usize| if at == 0 { f64::INFINITY } else { self.handed(ended(), to) };
        let handed: Vec<f64> = (0..self.yard.sites).map(handed).collect();
        let need = self.rate - passed;
        let paid: f64 = going().map(|&(way, _)| self.ways[way].price).sum();
        let first = going().map(|&(_, end)| end).min().unwrap_or(usize::MAX);
        let (room, dust) = (self.yard.layers - at, ROUNDING * self.rate);
        let of_use = |&position: &usize| {
            let way = self.ways[position];
            way.held <= room && beginning.free[way.of] > 0 && handed[self.site(position)] > dust
        };
        let passes = |at: usize| {
            let way = self.ways[at];
            (at, Way { rate: way.rate.min(handed[self.site(at)]), ..way })
        };
        let mut sets = Sets {
            sweep: self,
            ways: (0..self.ways.len()).filter(of_use).map(passes).collect(),
            most: 1.0 - paid + self.slack + LENIENT - beginning.waste,
            free: beginning.free.clone(),
            chosen: Set::NONE,
            found: Vec::new(),
            left: SETS,
        };
        // What wastes little is looked for by itself: in order of price, a set that wastes much hides many others.
        let (least, mut looked) = (1.0 - paid, 0);
        let most = sets.most;
        for share in WASTES {
            (sets.most, sets.left) = (least + (most - least) * share, SETS);
            sets.found.clear();
            sets.add(0, need, 0.0);
            looked += (SETS - sets.left) as u64;
            if sets.found.len() >= BRANCHES {
                break;
            }
        }
        let follows = |&(more, set): &(f64, Set)| {
            // What those that end here get rid of.
            let most = |way: usize| self.ways[way].rate.min(self.handed(set.iter(), self.site(way)));
            if at > 0 && ended().map(most).sum::<f64>() < need * (1.0 - ROUNDING) {
                return None;
            }
            let end = set.iter().map(|way| at + self.ways[way].held).fold(first, usize::min);
            let waste = beginning.waste + (paid + more - 1.0) * end.saturating_sub(at) as f64;
            (waste <= self.slack + LENIENT && end > at && end < usize::MAX).then_some((waste, end, set))
        };
        let mut found: Vec<(f64, usize, Set)> = sets.found.iter().filter_map(follows).collect();
        let order = |a: &(f64, usize, Set), b: &(f64, usize, Set)| a.0.total_cmp(&b.0).then_with(|| a.2.cmp(&b.2));
        if beginning.crossed.is_empty() && found.len() > BRANCHES {
            found.select_nth_unstable_by(BRANCHES, order);
            found.truncate(BRANCHES);
        }
        found.sort_unstable_by(order);
        let next = |(waste, end, set)| {
            let spent = self.spent(&self.crossed(beginning, at, &set)?);
            Some((end, Next { before, set, waste, luck: waste + self.luck * random.real() + spent, turn: 0 }))
        };
        let next = found.into_iter().filter_map(next).take(BRANCHES).collect();
        self.looked += looked;
        next
    }

    /// A beginning that goes on from another which ends at `start`.
    fn begun(&self, next: &Next, start: usize) -> Beginning {
        let before = &self.kept[next.before];
        let mut active: Vec<(usize, usize)> = before.active.iter().copied().filter(|(_, end)| *end > start).collect();
        active.extend(next.set.iter().map(|way| (way, start + self.ways[way].held)));
        active.sort_unstable();
        let mut free = before.free.clone();
        next.set.iter().for_each(|way| free[self.ways[way].of] -= 1);
        let crossed = self.crossed(before, start, &next.set).unwrap_or_default();
        Beginning { step: Some((next.before, next.set)), start, free, active, waste: next.waste, crossed }
    }

    /// Intervals of plans of the rate, by type.
    fn plans(&mut self, random: &mut Random, budget: &Budget<'_>) -> Vec<Laid> {
        let layers = self.yard.layers;
        let count = |t: &Type| u16::try_from(t.count).unwrap_or(u16::MAX);
        let free = self.yard.types.iter().map(count).collect();
        let shared = self.yard.trunk.iter().flatten().any(|trunk| trunk.is_finite());
        let crossed = vec![0.0; if shared { self.yard.sites * self.yard.sites } else { 0 }];
        self.kept.push(Beginning { step: None, start: 0, free, active: Vec::new(), waste: 0.0, crossed });
        let mut waiting: Vec<Vec<(usize, Next)>> = vec![Vec::new(); layers + 1];
        for (end, next) in self.after(0, 0, random) {
            waiting[end].push((0, next));
        }
        for at in 1..layers {
            let mut here = std::mem::take(&mut waiting[at]);
            // What is the same keeps the order in which it was found.
            here.sort_by(|a, b| a.1.luck.total_cmp(&b.1.luck));
            self.take_turns(&mut here);
            let (mut known, mut kept) = (BTreeSet::new(), 0);
            for (number, (start, next)) in here.into_iter().take(LOOKED * self.width).enumerate() {
                if kept == self.width || number % ASKED == 0 && budget.exhausted().is_some() {
                    break;
                }
                let beginning = self.begun(&next, start);
                if !known.insert((beginning.free.clone(), beginning.active.clone())) || !self.flows(&beginning, at) {
                    continue;
                }
                kept += 1;
                if kept == 1 {
                    self.left = Some(beginning.free.clone());
                }
                self.kept.push(beginning);
                for (end, next) in self.after(self.kept.len() - 1, at, random) {
                    waiting[end].push((at, next));
                }
            }
        }
        let mut all = std::mem::take(&mut waiting[layers]);
        all.sort_by(|a, b| a.1.waste.total_cmp(&b.1.waste));
        let whole = all.iter().map(|(start, next)| self.begun(next, *start));
        let whole = whole.filter(|beginning| self.flows(beginning, layers)).take(ENDS);
        let laid = |beginning: Beginning| {
            let held = |(way, start): (usize, usize)| (self.ways[way].of, start, start + self.ways[way].held);
            self.devices(&beginning).into_iter().map(held).collect()
        };
        budget.did(self.looked * SET_WORK);
        whole.map(laid).collect()
    }
}

/// Worths shaken, all together being worth as much as before.
fn shaken(yard: &Yard, worths: &[f64], bias: &[f64], much: f64, random: &mut Random) -> Vec<f64> {
    let all = |worths: &[f64]| yard.types.iter().zip(worths).map(|(t, worth)| t.count as f64 * worth).sum::<f64>();
    let mut of_type = |(worth, bias): (&f64, &f64)| worth * bias * (1.0 + much * (random.real() - 0.5));
    let other: Vec<f64> = worths.iter().zip(bias).map(&mut of_type).collect();
    let scale = all(worths) / all(&other).max(f64::MIN_POSITIVE);
    other.into_iter().map(|worth| worth * scale).collect()
}

/// The best plan faster than `rate` that was found, no plan being faster than `above`. `bias` is what searches before
/// have learnt of the worths of types; none at first.
pub(super) fn search(
    flows: &Flows<'_>,
    spans: &[Vec<Span>],
    covers: &mut Covers,
    (rate, above): (f64, f64),
    (seed, bias): (u64, &mut Vec<f64>),
    budget: &Budget<'_>,
) -> Result<Option<(Vec<Link>, Carried)>, SolverFault> {
    let sites = groups::sites(flows.network, if seed.is_multiple_of(2) { f64::INFINITY } else { above });
    let yard = groups::yard(flows, &sites, spans);
    let (mut best, mut low): (Option<(Vec<Link>, Carried)>, f64) = (None, rate);
    let apart = yard.sites > 1;
    let learn = if apart { LEARNT_APART } else { LEARNT };
    let targets: &[f64] = if apart { &TARGETS_APART } else { &TARGETS };
    let mut turn = 0;
    if bias.len() != yard.types.len() {
        *bias = vec![1.0; yard.types.len()];
    }
    for round in 0..SWEEPS {
        if budget.exhausted().is_some() || low >= above * (1.0 - 1e-6) {
            break;
        }
        let target = low + (above - low) * targets[turn % targets.len()];
        if apart && turn > 0 && turn.is_multiple_of(FORGETS) {
            bias.fill(1.0);
        }
        turn += 1;
        let Some(worths) = covers.worths(target, budget)? else { continue };
        let mut random = Random::new(seed * 1000 + round);
        let worths: Vec<f64> = yard.types.iter().map(|t| worths[t.kind]).collect();
        let much = match round {
            0 => 0.0,
            _ if apart && round % 4 > 1 => SHAKEN_APART,
            _ => SHAKEN,
        };
        let worths = shaken(&yard, &worths, bias, much, &mut random);
        let mut sweep = Sweep::new(&yard, target, &worths, LUCKS[(round % LUCKS.len() as u64) as usize]);
        if apart {
            sweep.width = WIDTH_APART;
            sweep.alike = (round % 2 == 1).then_some(ALIKE);
        }
        let laid = sweep.plans(&mut random, budget);
        // What beginnings of plans leave over is worth less than was thought.
        if laid.is_empty()
            && let Some(free) = &sweep.left
        {
            let of_type = |(t, free): (&Type, &u16)| f64::from(*free) / t.count as f64;
            let over: Vec<f64> = yard.types.iter().zip(free).map(of_type).collect();
            let mean = over.iter().sum::<f64>() / over.len() as f64;
            bias.iter_mut().zip(over).for_each(|(bias, over)| *bias *= 1.0 + learn * (mean - over));
        }
        for laid in laid {
            let Some(placement) = placed(flows, &yard, &sites, &laid) else { continue };
            let carried = flows.carried(&placement)?;
            if carried.rate > low {
                (low, turn) = (carried.rate, 0);
                best = Some((placement, carried));
            }
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_whose_rows_do_not_nest_is_found_and_has_no_device_twice() {
        // At 10, six layers: two of rate 8 with three layers each, beside them one of 2 with four layers and one with two.
        let span = |held: usize, rate: f64| Span { held, first: false, last: false, rate };
        let kinds = [vec![span(3, 8.0)], vec![span(4, 2.0)], vec![span(2, 2.0)]];
        let types = [2, 1, 1].into_iter().enumerate().map(|(kind, count)| Type { site: 0, kind, count }).collect();
        let open = vec![vec![f64::INFINITY]];
        let yard = Yard::new(6, types, &kinds, open.clone(), open);
        let mut sweep = Sweep::new(&yard, 10.0, &[2.4, 0.8, 0.4], LUCKS[0]);
        let found = sweep.plans(&mut Random::new(1), &Budget::default());
        assert!(!found.is_empty());
        for laid in found {
            for layer in 0..6 {
                let here = laid.iter().filter(|(_, start, end)| (*start..*end).contains(&layer));
                let passed: f64 = here.map(|&(t, ..)| [8.0, 2.0, 2.0][t]).sum();
                assert!(passed >= 10.0, "layer {layer} of {laid:?}");
            }
            for (t, count) in [2, 1, 1].into_iter().enumerate() {
                assert!(laid.iter().filter(|(of, ..)| *of == t).count() <= count, "{laid:?}");
            }
        }
        // A little more is too much for them.
        let mut more = Sweep::new(&yard, 10.1, &[2.4, 0.8, 0.4], LUCKS[0]);
        assert!(more.plans(&mut Random::new(1), &Budget::default()).is_empty());
    }

    /// Plans of 10 over six layers, two of which one site holds and four the other, at ways and a trunk of such rates.
    fn two_sites(rate: f64, count: usize, way: f64, trunk: f64) -> Vec<Laid> {
        let kinds = [2, 4].map(|held| vec![Span { held, first: false, last: false, rate }]);
        let types = [0, 1].into_iter().map(|site| Type { site, kind: site, count }).collect();
        let between = |rate: f64| vec![vec![f64::INFINITY, rate], vec![rate, f64::INFINITY]];
        let yard = Yard::new(6, types, &kinds, between(way), between(trunk));
        let worths = [2.0, 4.0].map(|worth| worth / count as f64);
        Sweep::new(&yard, 10.0, &worths, LUCKS[0]).plans(&mut Random::new(1), &Budget::default())
    }

    #[test]
    fn devices_side_by_side_cross_where_all_their_ways_together_carry_the_rate() {
        // Two senders and two receivers have four ways.
        assert!(!two_sites(5.0, 2, 2.5, f64::INFINITY).is_empty());
        assert!(two_sites(5.0, 2, 2.4, f64::INFINITY).is_empty());
    }

    #[test]
    fn no_more_crosses_than_what_sites_share() {
        assert!(!two_sites(10.0, 1, f64::INFINITY, 10.0).is_empty());
        assert!(two_sites(10.0, 1, f64::INFINITY, 9.9).is_empty());
    }

    #[test]
    fn no_devices_that_pass_a_part_are_paid_less_than_the_table_says() {
        let span = |held: usize, rate: f64| Span { held, first: false, last: false, rate };
        let kinds = [vec![span(1, 9.0), span(3, 4.0)], vec![span(2, 7.0), span(5, 2.5)], vec![span(4, 1.0)]];
        let types = (0..3).map(|kind| Type { site: 0, kind, count: 9 }).collect();
        let open = vec![vec![f64::INFINITY]];
        let yard = Yard::new(6, types, &kinds, open.clone(), open);
        let sweep = Sweep::new(&yard, 10.0, &[1.7, 1.3, 0.4], LUCKS[0]);
        let all = 0..sweep.ways.len();
        let mut tight = 0;
        for (a, b) in all.clone().flat_map(|a| all.clone().map(move |b| (a, b))) {
            let (a, b) = (sweep.ways[a], sweep.ways[b]);
            let (passed, paid) = ((a.rate + b.rate).min(10.0), a.price + b.price);
            assert!(sweep.least(passed, 2) <= paid + ROUNDING && sweep.least(passed, 3) <= sweep.least(passed, 2));
            assert!(sweep.least(a.rate, 1) <= a.price + ROUNDING);
            tight += usize::from((sweep.least(passed, 2) - paid).abs() < ROUNDING);
        }
        assert!(tight > 3 && sweep.least(10.0, 1) == f64::INFINITY, "{tight}");
    }
}
