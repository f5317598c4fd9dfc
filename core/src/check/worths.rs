//! Throughput bounds from worths of devices, without any solver.
//!
//! In a plan of rate `F` the tokens of each layer pass through devices whose rates add to at least `F`; with and without
//! partial inference, and for any network. Rates are the greatest in any format that may be
//! chosen and in any of the batches that [Little's law](super::in_flight) leaves open at the rate in question.
//!
//! *Device worths.* Layers weigh `w`: 1, but for the first and the last, which may weigh more. Give each device `d` a
//! worth `u_d >= 0` and let it pay `u_d * w / w(I)` on each layer of the interval `I` it holds, `w(I)` being the weight of
//! all of them. Where (a) any devices whose rates add to at least `F0` have `sum of u_d / w(I_d) >= 1`, whatever they
//! hold, and (b) all worths add to less than the weight of all layers, no plan reaches `F0`: its layers would collect at
//! least their weight, and the devices pay less.
//!
//! *Sites.* Let devices be divided into sites such that no way between two sites carries `F0`, and let no site alone be
//! worth all layers. Were every layer passed by one device only, the plan would be a chain, and some two consecutive
//! devices of it would lie in two sites: all of `F0` would pass between them. So some layer is passed by two devices or
//! more. Where all such covers have `sum of u_d / w(I_d) >= 1 + m`, it suffices for (b) that all worths add to less than
//! the weight of all layers and `m`.
//!
//! (a) is an exhaustive search for a cheaper cover, pruned only by its own fractional bound. It is first made in whole
//! numbers of a fixed size, rates rounded up and prices down, so that what it does not find is not there; where it finds
//! something, the search is made again without rounding.

use super::certificate::BoundFault;
use super::cover::{Class, Shape, classes, clipped};
use crate::exact::{Exact, exact, nearest, whole};
use crate::ids::DeviceId;
use crate::plan::EndWeights;
use crate::problem::PlacementProblem;
use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::collections::{BTreeMap, BTreeSet};

/// Most partial covers that the search for a cheap cover looks at.
pub const COVERS_MAX: u64 = 2_000_000;

/// Most ways to use devices on a layer: the search goes as deep, and has a stack of 2 MiB at least.
pub(super) const SLOTS_MAX: usize = 4000;

/// Parts into which the rate asked for, and the price of a layer, are divided where numbers have a fixed size.
pub(super) const PARTS_BITS: u32 = 50;

/// What a certificate says of devices, layers and sites.
pub(super) struct Claim<'a> {
    /// Worth by device name; absent is none.
    pub worths: &'a BTreeMap<String, f64>,
    /// What the ends of the model weigh beyond 1.
    pub ends: EndWeights,
    /// Names of the devices of each site; none where ways are left aside.
    pub sites: &'a [Vec<String>],
    /// The batch that it speaks of; all where none is named.
    pub batch: Option<u32>,
}

/// Proves from worths that no plan reaches `above`, or says why not.
pub(super) fn worths(problem: &PlacementProblem, above: &Exact, claim: &Claim<'_>) -> Vec<BoundFault> {
    let mut faults: Vec<BoundFault> = claim
        .worths
        .iter()
        .filter(|(name, worth)| problem.graph.find(name).is_none() || !(worth.is_finite() && **worth >= 0.0))
        .map(|(name, &worth)| BoundFault::Worth { device: name.clone(), worth })
        .collect();
    let end = |value: f64| exact(value).filter(|v| !v.is_negative());
    let (Some(first), Some(last)) = (end(claim.ends.first), end(claim.ends.last)) else {
        faults.push(BoundFault::EndWeights { first: claim.ends.first, last: claim.ends.last });
        return faults;
    };
    if !faults.is_empty() {
        return faults;
    }
    if !above.is_positive() {
        return vec![BoundFault::CheapCover { cost: 0.0, cover: vec!["no device".to_owned()] }];
    }
    let classes = match classes(problem, above, claim.batch) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let worth = |device: DeviceId| {
        claim.worths.get(&problem.graph.device(device).name).copied().and_then(exact).unwrap_or_else(Exact::zero)
    };
    let weight = |(k, begins, ends): Shape| {
        let end = |there: bool, weight: &Exact| if there { weight.clone() } else { Exact::zero() };
        whole(k.into()) + end(begins, &first) + end(ends, &last)
    };
    let mut sum = Exact::zero();
    let (mut slots, mut copies_of) = (Vec::new(), Vec::new());
    for class in &classes {
        let mut copies: BTreeMap<Exact, Vec<DeviceId>> = BTreeMap::new();
        for &device in &class.devices {
            sum += worth(device);
            copies.entry(worth(device)).or_default().push(device);
        }
        for (worth, devices) in copies {
            slots.extend(undominated(class, &worth, &weight, (devices[0], copies_of.len()), above));
            copies_of.push(devices.len() as u64);
        }
    }
    let layers = problem.layers();
    let all = weight((layers, true, true));
    let mut need = Need { rate: above, price: Exact::one(), several: false };
    faults.extend(need.refute(problem, &slots, &copies_of));
    if sum < all {
        return faults;
    }
    if claim.sites.is_empty() {
        faults.push(BoundFault::WorthSum { sum: nearest(&sum), whole: nearest(&all) });
        return faults;
    }
    let candidates: Vec<DeviceId> = classes.iter().flat_map(|class| class.devices.iter().copied()).collect();
    faults.extend(sites(problem, above, claim.sites, &candidates, &worth, &all));
    // The least that makes the layers collect more than all worths.
    need.price = (&sum - &all + Exact::one()) * (Exact::one() + Exact::new(1.into(), 1_000_000_000_000_u64.into()));
    need.several = true;
    faults.extend(need.refute(problem, &slots, &copies_of));
    faults
}

/// Sites between which no way carries `above`, and none of which is worth all layers.
fn sites(
    problem: &PlacementProblem,
    above: &Exact,
    sites: &[Vec<String>],
    candidates: &[DeviceId],
    worth: &dyn Fn(DeviceId) -> Exact,
    all: &Exact,
) -> Vec<BoundFault> {
    let (mut faults, mut site_of) = (Vec::new(), BTreeMap::new());
    for (site, names) in sites.iter().enumerate() {
        for name in names {
            let known = problem.graph.find(name);
            if known.is_none_or(|device| site_of.insert(device, site).is_some()) {
                faults.push(BoundFault::Site { device: name.clone() });
            }
        }
    }
    for &device in candidates {
        // A device that nobody names might be anywhere.
        if !site_of.contains_key(&device) {
            faults.push(BoundFault::Site { device: problem.graph.device(device).name.clone() });
        }
    }
    if !faults.is_empty() {
        return faults;
    }
    for site in site_of.values().copied().collect::<BTreeSet<usize>>() {
        let members = candidates.iter().filter(|device| site_of[device] == site);
        let sum = members.fold(Exact::zero(), |sum, &device| sum + worth(device));
        if sum >= *all {
            faults.push(BoundFault::SiteSum { site, sum: nearest(&sum), whole: nearest(all) });
        }
    }
    let name = |device: DeviceId| problem.graph.device(device).name.clone();
    for &from in candidates {
        for &to in candidates.iter().filter(|to| site_of[to] != site_of[&from]) {
            let Some(rate) = problem.hop_rate(from, to).map(|rate| rate.value()) else { continue };
            if exact(rate).is_none_or(|rate| rate >= *above) {
                faults.push(BoundFault::FastWay { from: name(from), to: name(to), rate });
                return faults;
            }
        }
    }
    faults
}

/// A way to use any of some equal devices of one worth on a layer.
#[derive(Clone)]
struct Slot {
    /// One of the devices.
    device: DeviceId,
    /// Which set of equal devices it draws from; each device is one slot of a layer at most.
    set: usize,
    /// Number of layers it holds.
    k: u32,
    /// What it adds to the rate of a layer, at most the rate asked for.
    rate: Exact,
    /// What it pays on a layer of weight 1.
    price: Exact,
}

/// The slots of some equal devices of one worth, less those that a heavier interval makes at least as fast and no
/// dearer.
fn undominated(
    class: &Class,
    worth: &Exact,
    weight: &dyn Fn(Shape) -> Exact,
    (device, set): (DeviceId, usize),
    above: &Exact,
) -> Vec<Slot> {
    let mut ways: Vec<(Exact, u32, Exact)> =
        class.rates.iter().map(|(shape, rate)| (weight(*shape), shape.0, clipped(rate, above))).collect();
    ways.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| b.2.cmp(&a.2)));
    let mut kept: Vec<Slot> = Vec::new();
    for (weight, k, rate) in ways {
        if kept.last().is_none_or(|heavier| heavier.rate < rate) {
            kept.push(Slot { device, set, k, rate, price: worth / weight });
        }
    }
    kept
}

/// What a cover must do to refute a claim: reach a rate for less than a price.
struct Need<'a> {
    rate: &'a Exact,
    price: Exact,
    /// Whether by two devices or more.
    several: bool,
}

impl Need<'_> {
    /// A cover that does it, as a fault; none where there is none.
    fn refute(&self, problem: &PlacementProblem, slots: &[Slot], free: &[u64]) -> Option<BoundFault> {
        if slots.len() > SLOTS_MAX {
            let (count, max) = (slots.len() as u128, SLOTS_MAX as u128);
            return Some(BoundFault::TooLarge { what: "ways to use devices on a layer", count, max });
        }
        let set_of: Vec<usize> = slots.iter().map(|slot| slot.set).collect();
        let sets: Vec<Set> = free.iter().map(|&free| Set { free, part: Some(0) }).collect();
        if let Some(figures) = self.rounded(slots)
            && let Ok(None) = Search::new(set_of.clone(), sets.clone(), figures, COVERS_MAX).cheap_cover()
        {
            return None;
        }
        match Search::new(set_of, sets, self.exactly(slots), COVERS_MAX).cheap_cover() {
            Ok(None) => None,
            Ok(Some(chosen)) => {
                let used = || slots.iter().zip(&chosen).filter(|(_, count)| **count > 0);
                let cost = used().fold(Exact::zero(), |sum, (slot, &n)| sum + &slot.price * whole(n));
                let named = |(slot, count): (&Slot, &u64)| {
                    format!("{count} x {} with {} layers", problem.graph.device(slot.device).name, slot.k)
                };
                let (cost, least) = (nearest(&cost), nearest(&self.price));
                let cover = used().map(named).collect();
                Some(if self.several {
                    BoundFault::CheapSeveral { cost, cover, least }
                } else {
                    BoundFault::CheapCover { cost, cover }
                })
            }
            Err(fault) => Some(fault),
        }
    }

    const fn besides(&self) -> Besides {
        if self.several { Besides::Device } else { Besides::Nothing }
    }

    /// In parts of the rate and of the price of a layer, rounded so that no cover is missed; none where the price is too
    /// high for numbers of this size.
    fn rounded(&self, slots: &[Slot]) -> Option<Figures<u128>> {
        let parts = whole(1 << PARTS_BITS);
        let up = |value: Exact| value.ceil().to_integer().to_u128();
        let most = up(&self.price * &parts).filter(|&most| most <= u128::from(u64::MAX))?;
        let rate = |slot: &Slot| up(&slot.rate / self.rate * &parts).unwrap_or(1 << PARTS_BITS);
        let price = |slot: &Slot| (&slot.price * &parts).floor().to_integer().to_u128().unwrap_or(most).min(most);
        Some(Figures {
            rates: slots.iter().map(rate).collect(),
            prices: slots.iter().map(price).collect(),
            need: 1 << PARTS_BITS,
            price: most,
            besides: self.besides(),
        })
    }

    /// Over common denominators.
    fn exactly(&self, slots: &[Slot]) -> Figures<BigInt> {
        let rate_unit = common_denominator(slots.iter().map(|s| &s.rate).chain([self.rate]));
        let price_unit = common_denominator(slots.iter().map(|s| &s.price).chain([&self.price]));
        let scaled = |value: &Exact, unit: &BigInt| value.numer() * (unit / value.denom());
        Figures {
            rates: slots.iter().map(|s| scaled(&s.rate, &rate_unit)).collect(),
            prices: slots.iter().map(|s| scaled(&s.price, &price_unit)).collect(),
            need: scaled(self.rate, &rate_unit),
            price: scaled(&self.price, &price_unit),
            besides: self.besides(),
        }
    }
}

fn common_denominator<'a>(values: impl Iterator<Item = &'a Exact>) -> BigInt {
    values.fold(BigInt::one(), |common, value| {
        let ratio = Exact::new(common.clone(), value.denom().clone());
        // common / gcd(common, denominator) * denominator
        ratio.numer() * value.denom()
    })
}

/// What a cover must have beside enough devices.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Besides {
    /// Nothing.
    Nothing,
    /// A second device.
    Device,
    /// A device of a second part.
    Part,
}

/// Rates and prices of slots in whole numbers, and what a cover must reach and stay below.
pub(super) struct Figures<N> {
    pub rates: Vec<N>,
    pub prices: Vec<N>,
    pub need: N,
    pub price: N,
    pub besides: Besides,
}

/// Whole numbers that a search can be made in.
pub(super) trait Number: Clone + Ord + Zero {
    /// A multiple.
    fn times(&self, count: u64) -> Self;
    /// A product.
    fn product(&self, other: &Self) -> Self;
    /// A difference, zero at least.
    fn less(&self, other: &Self) -> Self;
    /// How many of `each` reach this much.
    fn reached_by(&self, each: &Self) -> u64;
}

impl Number for u128 {
    // Rates and prices are below 2^64 each, and a product of two such fits.
    fn times(&self, count: u64) -> Self {
        self.saturating_mul(count.into())
    }

    fn product(&self, other: &Self) -> Self {
        self.saturating_mul(*other)
    }

    fn less(&self, other: &Self) -> Self {
        self.saturating_sub(*other)
    }

    fn reached_by(&self, each: &Self) -> u64 {
        u64::try_from(self.div_ceil((*each).max(1))).unwrap_or(u64::MAX)
    }
}

impl Number for BigInt {
    fn times(&self, count: u64) -> Self {
        self * count
    }

    fn product(&self, other: &Self) -> Self {
        self * other
    }

    fn less(&self, other: &Self) -> Self {
        if self > other { self - other } else { Self::zero() }
    }

    fn reached_by(&self, each: &Self) -> u64 {
        let (whole, over) = (self / each, self % each);
        whole.to_u64().unwrap_or(u64::MAX).saturating_add(u64::from(!over.is_zero()))
    }
}

/// A set of equal devices: how many there are, and the part of all devices that they belong to.
#[derive(Clone, Copy)]
pub(super) struct Set {
    /// How many.
    pub free: u64,
    /// Position of the part; none where its devices belong to none, and a cover with one of them to no single part.
    pub part: Option<usize>,
}

/// Depth-first search for slots whose rates reach a need and whose prices stay below another.
pub(super) struct Search<N> {
    /// Positions of the slots in the order of the search: cheapest rate first, so that what is left can be bought no
    /// cheaper than at the next slot's price per rate.
    order: Vec<usize>,
    /// The set of each slot.
    set_of: Vec<usize>,
    figures: Figures<N>,
    /// The slots that are the cheapest of their parts, cheapest first.
    cheapest: Vec<usize>,
    /// Devices of each set that are still free.
    sets: Vec<Set>,
    /// Partial covers looked at so far.
    pub looked: u64,
    /// How many may be looked at.
    limit: u64,
    chosen: Vec<u64>,
}

impl<N: Number> Search<N> {
    /// Of slots of these sets.
    pub fn new(set_of: Vec<usize>, sets: Vec<Set>, figures: Figures<N>, limit: u64) -> Self {
        let mut order: Vec<usize> = (0..set_of.len()).collect();
        let (rates, prices) = (&figures.rates, &figures.prices);
        order.sort_by(|&a, &b| prices[a].product(&rates[b]).cmp(&prices[b].product(&rates[a])).then(a.cmp(&b)));
        let mut cheapest: Vec<usize> = (0..set_of.len()).collect();
        cheapest.sort_by(|&a, &b| prices[a].cmp(&prices[b]).then(a.cmp(&b)));
        let mut seen = BTreeSet::new();
        cheapest.retain(|&slot| seen.insert(sets[set_of[slot]].part));
        let chosen = vec![0; set_of.len()];
        Self { order, set_of, cheapest, sets, looked: 0, limit, chosen, figures }
    }

    /// How many of each slot make a cheap cover; none where there is no such cover.
    pub fn cheap_cover(&mut self) -> Result<Option<Vec<u64>>, BoundFault> {
        let need = self.figures.need.clone();
        Ok(self.cheaper(0, &need, &N::zero())?.then(|| self.chosen.clone()))
    }

    /// What has to stand by the devices chosen; `Err` where nothing can.
    fn second(&self) -> Result<Option<usize>, ()> {
        let mut chosen = (0..self.chosen.len()).filter(|&slot| self.chosen[slot] > 0);
        let part = |slot: usize| self.sets[self.set_of[slot]].part;
        match self.figures.besides {
            Besides::Nothing => Ok(None),
            Besides::Device if self.chosen.iter().sum::<u64>() >= 2 => Ok(None),
            Besides::Device => Ok(self.cheapest.first().copied()),
            Besides::Part => {
                let Some(first) = chosen.next().and_then(part) else { return Ok(None) };
                if chosen.any(|slot| part(slot) != Some(first)) {
                    return Ok(None);
                }
                self.cheapest.iter().find(|&&slot| part(slot) != Some(first)).map(|&slot| Some(slot)).ok_or(())
            }
        }
    }

    /// Whether the slots from `i` on can meet `need` while the whole stays below the price, `spent` being spent.
    fn cheaper(&mut self, i: usize, need: &N, spent: &N) -> Result<bool, BoundFault> {
        if need.is_zero() {
            let Ok(second) = self.second() else { return Ok(false) };
            let price = second.map_or_else(N::zero, |second| self.figures.prices[second].clone());
            let cheap = spent.clone() + price < self.figures.price;
            if let Some(second) = second {
                self.chosen[second] += u64::from(cheap);
            }
            return Ok(cheap);
        }
        self.looked += 1;
        if self.looked > self.limit {
            let (count, max) = (self.looked.into(), self.limit.into());
            return Err(BoundFault::TooLarge { what: "partial covers of a layer", count, max });
        }
        let Some(&slot) = self.order.get(i) else { return Ok(false) };
        let (rate, price) = (self.figures.rates[slot].clone(), self.figures.prices[slot].clone());
        // Even in fractions, what is left costs at least need * price / rate.
        if spent.product(&rate) + need.product(&price) >= self.figures.price.product(&rate) {
            return Ok(false);
        }
        let set = self.set_of[slot];
        let free = self.sets[set].free;
        // More devices than needed only cost more.
        for count in (0..=free.min(need.reached_by(&rate))).rev() {
            (self.chosen[slot], self.sets[set].free) = (count, free - count);
            let spent = spent.clone() + price.times(count);
            if self.cheaper(i + 1, &need.less(&rate.times(count)), &spent)? {
                return Ok(true);
            }
        }
        (self.chosen[slot], self.sets[set].free) = (0, free);
        Ok(false)
    }
}
