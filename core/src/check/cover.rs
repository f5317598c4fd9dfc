//! Throughput bounds from covering layers, without any solver.
//!
//! Let `T_d(k)` be the greatest rate of device `d` over all intervals of `k` layers that fit its memory, in any of the
//! batches that [Little's law](super::in_flight) leaves open at the rate in question. In a plan of
//! rate `F`, the tokens of each layer pass through devices whose rates add to at least `F`, and a device passes no
//! more than `F`. This holds with and without partial inference and for any network.
//!
//! *Clip bound.* Adding this over all `L` layers: `sum over d of max over k of k * min(T_d(k), F) >= L * F`. Both
//! sides divided by `F`, the left one only falls as `F` grows. So where
//!
//! ```text
//! sum over d of max over k of k * min(T_d(k), F0) < L * F0        at F0 = bound * (1 + 1e-9)
//! ```
//!
//! no plan reaches `F0`.
//!
//! *Device worths.* Give each device `d` a worth `u_d >= 0` and let it pay `u_d / k` on each of the `k` layers it
//! holds. Where (a) any devices whose rates add to at least `F0` pay at least 1 together, whatever number of layers
//! each holds, and (b) all worths add to less than `L`, no plan reaches `F0`: its layers would collect at least `L`,
//! and the devices pay less. (a) is an exhaustive search for a cheaper cover, pruned only by its own fractional
//! bound, in integers without rounding.

use super::certificate::BoundFault;
use super::{holds, in_flight};
use crate::exact::{Exact, exact, larger, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem};
use num_bigint::BigInt;
use num_traits::{One, Signed, Zero};
use std::collections::BTreeMap;

/// Most partial covers that the search for a cheap cover looks at.
pub const COVERS_MAX: u64 = 2_000_000;

/// Most intervals of layers, over all devices, whose rates are tabulated.
const INTERVALS_MAX: u128 = 50_000_000;

/// Devices with the same rates.
struct Class {
    devices: Vec<DeviceId>,
    /// Number of layers, greatest rate with so many; only what fits.
    rates: Vec<(u32, Exact)>,
}

/// The devices by equal tables of rates, as far as they matter to plans of rate `above`. Errors: too many intervals to
/// tabulate.
fn classes(problem: &PlacementProblem, above: &Exact) -> Result<Vec<Class>, BoundFault> {
    let layers = u128::from(problem.layers());
    let count = layers * (layers + 1) / 2 * problem.graph.devices().len() as u128;
    if count > INTERVALS_MAX {
        return Err(BoundFault::TooLarge { what: "intervals of layers on devices", count, max: INTERVALS_MAX });
    }
    let lives = in_flight::open(problem, above);
    let mut by_table: BTreeMap<Vec<(u32, u64)>, Vec<DeviceId>> = BTreeMap::new();
    for device in problem.graph.device_ids() {
        let table = greatest_rates(problem, device, &lives);
        by_table.entry(table.into_iter().map(|(k, rate)| (k, rate.to_bits())).collect()).or_default().push(device);
    }
    let class = |(table, devices): (Vec<(u32, u64)>, Vec<DeviceId>)| {
        let rates = table.into_iter().filter_map(|(k, bits)| Some((k, exact(f64::from_bits(bits))?))).collect();
        Class { devices, rates }
    };
    Ok(by_table.into_iter().map(class).collect())
}

/// For each number of layers that fits somewhere, the greatest rate over the intervals of that length. A rate depends
/// on an interval's length and on which ends of the model it holds, so at most four are asked for.
fn greatest_rates(problem: &PlacementProblem, device: DeviceId, lives: &[Life]) -> Vec<(u32, f64)> {
    if problem.exclusion(device).is_some() {
        return Vec::new();
    }
    let total = problem.layers();
    let greatest = |k: u32| {
        let mut asked: [Option<Option<f64>>; 4] = [None; 4];
        for start in 0..=total - k {
            let layers = Layers::new(start, start + k);
            let ends = usize::from(start == 0) + 2 * usize::from(layers.end == total);
            if asked[ends].is_none() && holds(problem, device, layers) {
                let rates = lives.iter().filter_map(|life| problem.rate(device, layers, life));
                asked[ends] = Some(rates.map(|rate| rate.value()).max_by(f64::total_cmp));
            }
        }
        asked.into_iter().flatten().flatten().filter(|&rate| rate > 0.0).max_by(f64::total_cmp)
    };
    (1..=total).filter_map(|k| Some((k, greatest(k)?))).collect()
}

fn clipped(rate: &Exact, at: &Exact) -> Exact {
    if rate < at { rate.clone() } else { at.clone() }
}

/// Proves that no plan reaches `above`, or says why not.
pub(super) fn clip(problem: &PlacementProblem, bound: f64, above: &Exact) -> Vec<BoundFault> {
    let classes = match classes(problem, above) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let most = |class: &Class| {
        class.rates.iter().map(|(k, rate)| clipped(rate, above) * whole((*k).into())).fold(Exact::zero(), larger)
    };
    let sum = classes.iter().fold(Exact::zero(), |sum, class| sum + most(class) * whole(class.devices.len() as u64));
    if above.is_positive() && sum < above * whole(problem.layers().into()) {
        return Vec::new();
    }
    let covered = if above.is_positive() { nearest(&(sum / above)) } else { f64::INFINITY };
    vec![BoundFault::ClipNotBinding { bound, covered, layers: problem.layers() }]
}

/// Proves from the devices' worths that no plan reaches `above`, or says why not.
pub(super) fn worths(problem: &PlacementProblem, above: &Exact, worths: &BTreeMap<String, f64>) -> Vec<BoundFault> {
    let mut faults: Vec<BoundFault> = worths
        .iter()
        .filter(|(name, worth)| problem.graph.find(name).is_none() || !(worth.is_finite() && **worth >= 0.0))
        .map(|(name, &worth)| BoundFault::Worth { device: name.clone(), worth })
        .collect();
    if !faults.is_empty() {
        return faults;
    }
    if !above.is_positive() {
        return vec![BoundFault::CheapCover { cost: 0.0, cover: vec!["no device".to_owned()] }];
    }
    let classes = match classes(problem, above) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let worth = |device: DeviceId| {
        worths.get(&problem.graph.device(device).name).copied().and_then(exact).unwrap_or_else(Exact::zero)
    };
    let mut sum = Exact::zero();
    let (mut slots, mut copies_of) = (Vec::new(), Vec::new());
    for class in classes.iter().filter(|class| !class.rates.is_empty()) {
        let mut copies: BTreeMap<Exact, Vec<DeviceId>> = BTreeMap::new();
        for &device in &class.devices {
            sum += worth(device);
            copies.entry(worth(device)).or_default().push(device);
        }
        for (worth, devices) in copies {
            slots.extend(undominated(class, &worth, devices[0], copies_of.len(), above));
            copies_of.push(devices.len() as u64);
        }
    }
    let layers = problem.layers();
    if sum >= whole(layers.into()) {
        faults.push(BoundFault::WorthSum { sum: nearest(&sum), layers });
    }
    match Search::new(slots, copies_of, above).cheap_cover() {
        Ok(None) => {}
        Ok(Some((cost, cover))) => {
            let named = |(device, k, count): (DeviceId, u32, u64)| {
                format!("{count} x {} with {k} layers", problem.graph.device(device).name)
            };
            let cover = cover.into_iter().map(named).collect();
            faults.push(BoundFault::CheapCover { cost: nearest(&cost), cover });
        }
        Err(fault) => faults.push(fault),
    }
    faults
}

/// A way to use any of some equal devices of one worth on a layer.
struct Slot {
    /// One of the devices.
    device: DeviceId,
    /// Which set of equal devices it draws from; each device is one slot of a layer at most.
    set: usize,
    /// Number of layers it holds.
    k: u32,
    /// What it adds to the rate of a layer, at most the rate asked for.
    rate: Exact,
    /// What it pays.
    price: Exact,
}

/// The slots of some equal devices of one worth, less those that a longer interval makes at least as fast and no
/// dearer.
fn undominated(class: &Class, worth: &Exact, device: DeviceId, set: usize, above: &Exact) -> Vec<Slot> {
    let mut kept: Vec<Slot> = Vec::new();
    for (k, rate) in class.rates.iter().rev() {
        let rate = clipped(rate, above);
        if kept.iter().any(|longer| longer.rate >= rate) {
            continue;
        }
        let price = worth / whole((*k).into());
        kept.push(Slot { device, set, k: *k, rate, price });
    }
    kept
}

/// Depth-first search for slots whose rates add to `need` and whose prices add to less than 1, in whole numbers:
/// rates and prices over their common denominators.
struct Search {
    slots: Vec<Slot>,
    rates: Vec<BigInt>,
    prices: Vec<BigInt>,
    need: BigInt,
    one: BigInt,
    /// Devices of each set that are still free.
    free: Vec<u64>,
    looked: u64,
    chosen: Vec<u64>,
}

fn common_denominator<'a>(values: impl Iterator<Item = &'a Exact>) -> BigInt {
    values.fold(BigInt::one(), |common, value| {
        let ratio = Exact::new(common.clone(), value.denom().clone());
        // common / gcd(common, denominator) * denominator
        ratio.numer() * value.denom()
    })
}

impl Search {
    fn new(mut slots: Vec<Slot>, free: Vec<u64>, need: &Exact) -> Self {
        // Cheapest rate first: then what is left can be bought no cheaper than at the next slot's price per rate.
        slots.sort_by(|a, b| (&a.price * &b.rate).cmp(&(&b.price * &a.rate)));
        let rate_unit = common_denominator(slots.iter().map(|s| &s.rate).chain([need]));
        let price_unit = common_denominator(slots.iter().map(|s| &s.price));
        let scaled = |value: &Exact, unit: &BigInt| value.numer() * (unit / value.denom());
        Self {
            rates: slots.iter().map(|s| scaled(&s.rate, &rate_unit)).collect(),
            prices: slots.iter().map(|s| scaled(&s.price, &price_unit)).collect(),
            need: scaled(need, &rate_unit),
            one: price_unit,
            free,
            looked: 0,
            chosen: vec![0; slots.len()],
            slots,
        }
    }

    #[expect(clippy::type_complexity, reason = "a cover and its cost, used once")]
    fn cheap_cover(mut self) -> Result<Option<(Exact, Vec<(DeviceId, u32, u64)>)>, BoundFault> {
        let need = self.need.clone();
        if !self.cheaper(0, &need, &BigInt::zero())? {
            return Ok(None);
        }
        let mut cost = Exact::zero();
        let mut cover = Vec::new();
        for (slot, &count) in self.slots.iter().zip(&self.chosen).filter(|(_, count)| **count > 0) {
            cost += &slot.price * whole(count);
            cover.push((slot.device, slot.k, count));
        }
        Ok(Some((cost, cover)))
    }

    /// Whether the slots from `i` on can meet `need` while the whole stays below 1, `spent` being spent.
    fn cheaper(&mut self, i: usize, need: &BigInt, spent: &BigInt) -> Result<bool, BoundFault> {
        if !need.is_positive() {
            return Ok(*spent < self.one);
        }
        self.looked += 1;
        if self.looked > COVERS_MAX {
            let (count, max) = (self.looked.into(), COVERS_MAX.into());
            return Err(BoundFault::TooLarge { what: "partial covers of a layer", count, max });
        }
        let Some(rate) = self.rates.get(i).cloned() else { return Ok(false) };
        let price = self.prices[i].clone();
        // Even in fractions, what is left costs at least need * price / rate.
        if spent * &rate + need * &price >= &self.one * &rate {
            return Ok(false);
        }
        let set = self.slots[i].set;
        let free = self.free[set];
        for count in (0..=free).rev() {
            // More devices than needed only cost more.
            if count > 0 && &rate * (count - 1) >= *need {
                continue;
            }
            (self.chosen[i], self.free[set]) = (count, free - count);
            if self.cheaper(i + 1, &(need - &rate * count), &(spent + &price * count))? {
                return Ok(true);
            }
        }
        (self.chosen[i], self.free[set]) = (0, free);
        Ok(false)
    }
}
