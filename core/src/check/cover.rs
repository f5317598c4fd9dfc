//! The clip bound on throughput, without any solver.
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

use super::certificate::BoundFault;
use super::{holds, in_flight};
use crate::exact::{Exact, exact, larger, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem};
use num_traits::{Signed, Zero};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most intervals of layers, over all devices, whose rates are tabulated.
pub(super) const INTERVALS_MAX: u128 = 50_000_000;

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
    let variants = problem.variants();
    let lives = in_flight::open(problem, &variants, above);
    let mut by_table: BTreeMap<Vec<(u32, u64)>, Vec<DeviceId>> = BTreeMap::new();
    for device in problem.graph.device_ids() {
        let table = greatest_rates(&variants, device, &lives);
        by_table.entry(table.into_iter().map(|(k, rate)| (k, rate.to_bits())).collect()).or_default().push(device);
    }
    let class = |(table, devices): (Vec<(u32, u64)>, Vec<DeviceId>)| {
        let rates = table.into_iter().filter_map(|(k, bits)| Some((k, exact(f64::from_bits(bits))?))).collect();
        Class { devices, rates }
    };
    Ok(by_table.into_iter().map(class).collect())
}

/// For each number of layers that fits somewhere, the greatest rate over the intervals of that length. A rate depends
/// on an interval's length, its format and on which ends of the model it holds, so at most four are asked for.
fn greatest_rates(variants: &[Cow<'_, PlacementProblem>], device: DeviceId, lives: &[Life]) -> Vec<(u32, f64)> {
    let mut table: BTreeMap<u32, f64> = BTreeMap::new();
    for problem in variants.iter().filter(|problem| problem.usable(device)) {
        for (k, rate) in rates_of(problem, device, lives) {
            let greatest = table.entry(k).or_insert(rate);
            *greatest = greatest.max(rate);
        }
    }
    table.into_iter().collect()
}

fn rates_of(problem: &PlacementProblem, device: DeviceId, lives: &[Life]) -> Vec<(u32, f64)> {
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

pub(super) fn clipped(rate: &Exact, at: &Exact) -> Exact {
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
