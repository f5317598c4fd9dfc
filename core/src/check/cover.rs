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
use std::collections::{BTreeMap, BTreeSet};

/// Most intervals of layers, over all devices, whose rates are tabulated.
const INTERVALS_MAX: u128 = 50_000_000;

/// An interval: number of layers, whether it holds the first, the last.
pub(super) type Shape = (u32, bool, bool);

/// Devices with the same rates.
pub(super) struct Class {
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// Greatest rate by shape; only what fits.
    pub rates: Vec<(Shape, Exact)>,
}

/// Whether all intervals of layers on all devices may be looked at. Errors: too many of them.
pub(super) fn tabulable(problem: &PlacementProblem) -> Result<(), BoundFault> {
    let layers = u128::from(problem.layers());
    let count = layers * (layers + 1) / 2 * problem.graph.devices().len() as u128;
    if count > INTERVALS_MAX {
        return Err(BoundFault::TooLarge { what: "intervals of layers on devices", count, max: INTERVALS_MAX });
    }
    Ok(())
}

/// The devices by equal tables of rates, as far as they matter to plans of rate `above`, in batches of one size where one
/// is named. Errors: too many intervals to tabulate.
pub(super) fn classes(problem: &PlacementProblem, above: &Exact, only: Option<u32>) -> Result<Vec<Class>, BoundFault> {
    tabulable(problem)?;
    let variants = problem.variants();
    let lives = match only {
        Some(batch) => vec![problem.life(batch)],
        None => in_flight::open(problem, &variants, above),
    };
    let mut by_table: BTreeMap<Vec<(Shape, u64)>, Vec<DeviceId>> = BTreeMap::new();
    for device in problem.graph.device_ids() {
        by_table.entry(greatest_rates(&variants, device, &lives)).or_default().push(device);
    }
    let class = |(table, devices): (Vec<(Shape, u64)>, Vec<DeviceId>)| {
        let rates: Vec<_> = table.into_iter().filter_map(|(s, bits)| Some((s, exact(f64::from_bits(bits))?))).collect();
        Class { devices, rates }
    };
    Ok(by_table.into_iter().map(class).filter(|class| !class.rates.is_empty()).collect())
}

/// For each shape that fits somewhere, its greatest rate in any format and batch, as bits. A rate depends on the shape, the
/// format and the batch alone.
fn greatest_rates(variants: &[Cow<'_, PlacementProblem>], device: DeviceId, lives: &[Life]) -> Vec<(Shape, u64)> {
    let mut greatest: BTreeMap<Shape, f64> = BTreeMap::new();
    for problem in variants.iter().filter(|problem| problem.usable(device)) {
        let mut seen: BTreeSet<Shape> = BTreeSet::new();
        let total = problem.layers();
        for k in 1..=total {
            for start in 0..=total - k {
                let layers = Layers::new(start, start + k);
                let shape = (k, start == 0, layers.end == total);
                if !seen.contains(&shape) && holds(problem, device, layers) {
                    seen.insert(shape);
                    let rates = lives.iter().filter_map(|life| problem.rate(device, layers, life));
                    let rate = rates.map(|rate| rate.value()).fold(0.0, f64::max);
                    let known = greatest.entry(shape).or_insert(rate);
                    *known = known.max(rate);
                }
            }
        }
    }
    greatest.into_iter().filter(|(_, rate)| *rate > 0.0).map(|(shape, rate)| (shape, rate.to_bits())).collect()
}

pub(super) fn clipped(rate: &Exact, at: &Exact) -> Exact {
    if rate < at { rate.clone() } else { at.clone() }
}

/// Proves that no plan reaches `above`, or says why not.
pub(super) fn clip(problem: &PlacementProblem, bound: f64, above: &Exact, only: Option<u32>) -> Vec<BoundFault> {
    let classes = match classes(problem, above, only) {
        Ok(classes) => classes,
        Err(fault) => return vec![fault],
    };
    let most = |class: &Class| {
        class.rates.iter().map(|((k, ..), rate)| clipped(rate, above) * whole((*k).into())).fold(Exact::zero(), larger)
    };
    let sum = classes.iter().fold(Exact::zero(), |sum, class| sum + most(class) * whole(class.devices.len() as u64));
    if above.is_positive() && sum < above * whole(problem.layers().into()) {
        return Vec::new();
    }
    let covered = if above.is_positive() { nearest(&(sum / above)) } else { f64::INFINITY };
    vec![BoundFault::ClipNotBinding { bound, covered, layers: problem.layers() }]
}
