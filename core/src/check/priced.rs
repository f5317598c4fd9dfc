//! The clip bound with a price on requests in flight.
//!
//! Clip bound and Little's law ask for different plans: by the one many devices are fast together, by the other a request
//! is soon done. Let requests that stay on a device pay `price` for each token and second. A device that serves `f` while
//! holding the interval `I` covers `f w(I)`, in weights of layers, and what it serves pays `price f stay(I)`; it serves no more
//! than its rate and no more than the plan's. All that is paid is at most `price` times the tokens in flight, so in a plan
//! of rate `F`
//!
//! ```text
//! sum over d of max over I of min(T(I), F) max(0, w(I) - price stay(I)) + price in_flight >= w(all layers) F
//! ```
//!
//! Divided by `F` the left side only falls. The stay of an interval is the residence on the stage with the least that
//! any way to it takes, and with the way out where it ends the model. Where there are many devices, ways are left aside.
//! With partial inference what is served of an interval weighs less and stays as long.

use super::certificate::BoundFault;
use super::cover::{Shape, clipped, tabulable};
use super::holds;
use super::in_flight::{self, WAYS_DEVICES_MAX};
use crate::exact::{Exact, exact, larger, mean, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::plan::EndWeights;
use crate::problem::{Life, PlacementProblem};
use crate::units::Seconds;
use num_traits::{Signed, Zero};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Greatest rate and least stay of a shape, as bits.
type Bits = (u64, u64);

/// Evidence as a certificate gives it.
pub(super) struct Claim {
    /// What a token pays for each second in flight, in weights of layers.
    pub price: f64,
    /// What the ends of the model weigh.
    pub ends: EndWeights,
    /// The batch it speaks of; all that are open where there is none.
    pub batch: Option<u32>,
}

/// Proves that no plan reaches `above`, or says why not.
pub(super) fn prove(problem: &PlacementProblem, bound: f64, above: &Exact, claim: &Claim) -> Vec<BoundFault> {
    let known = |value: f64| exact(value).filter(|value| !value.is_negative());
    let Some(price) = known(claim.price) else { return vec![BoundFault::Price { price: claim.price }] };
    let (Some(first), Some(last)) = (known(claim.ends.first), known(claim.ends.last)) else {
        return vec![BoundFault::EndWeights { first: claim.ends.first, last: claim.ends.last }];
    };
    if let Err(fault) = tabulable(problem) {
        return vec![fault];
    }
    let weight = |(k, begins, ends): Shape| {
        let end = |there: bool, weight: &Exact| if there { weight.clone() } else { Exact::zero() };
        whole(k.into()) + end(begins, &first) + end(ends, &last)
    };
    let variants = problem.variants();
    let lives = match claim.batch {
        Some(batch) => vec![problem.life(batch)],
        None => in_flight::open(problem, &variants, above),
    };
    let tokens = whole(problem.serving.requests_max.into()) * mean(problem.workload.output_tokens);
    let all = weight((problem.layers(), true, true));
    let covered = |life: &Life| {
        let mut classes: BTreeMap<Vec<(Shape, Bits)>, u64> = BTreeMap::new();
        for device in problem.graph.device_ids() {
            *classes.entry(table(&variants, device, life).into_iter().collect()).or_default() += 1;
        }
        let gains = |(shape, (rate, stay)): &(Shape, Bits)| {
            let (rate, stay) = (exact(f64::from_bits(*rate))?, exact(f64::from_bits(*stay))?);
            let gain = weight(*shape) - &price * stay;
            gain.is_positive().then(|| clipped(&rate, above) * gain)
        };
        let most = |table: &Vec<_>| table.iter().filter_map(gains).fold(Exact::zero(), larger);
        classes.iter().fold(&price * &tokens, |sum, (table, &count)| sum + most(table) * whole(count))
    };
    let refuted = |life: &Life| {
        let covered = covered(life);
        let binds = above.is_positive() && covered < above * &all;
        let layers = if above.is_positive() { nearest(&(covered / above)) } else { f64::INFINITY };
        (!binds).then(|| BoundFault::PriceNotBinding {
            batch: life.batch,
            bound,
            covered: layers,
            whole: nearest(&all),
        })
    };
    lives.iter().filter_map(refuted).collect()
}

/// For each shape that fits, the greatest rate and the least stay of a device in any format.
fn table(variants: &[Cow<'_, PlacementProblem>], device: DeviceId, life: &Life) -> BTreeMap<Shape, Bits> {
    let mut table: BTreeMap<Shape, Bits> = BTreeMap::new();
    for problem in variants.iter().filter(|problem| problem.usable(device)) {
        let total = problem.layers();
        let Ways { entry, between, exit } = Ways::of(problem, variants.len(), device, life);
        let mut seen: BTreeSet<Shape> = BTreeSet::new();
        for k in 1..=total {
            for start in 0..=total - k {
                let layers = Layers::new(start, start + k);
                let shape = (k, start == 0, layers.end == total);
                if seen.contains(&shape) || !holds(problem, device, layers) {
                    continue;
                }
                seen.insert(shape);
                let Some(rate) = problem.rate(device, layers, life).map(|rate| rate.value()) else { continue };
                let stage = problem.residence(device, layers, life).map_or(0.0, Seconds::value);
                let way = (if start == 0 { entry } else { between }) + (if shape.2 { exit } else { 0.0 });
                if rate <= 0.0 || way.is_infinite() {
                    continue;
                }
                // Lower than the sum by more than its rounding.
                let stay = ((stage + way) * (1.0 - 8.0 * f64::EPSILON)).max(0.0);
                let known = table.entry(shape).or_insert((rate.to_bits(), stay.to_bits()));
                // The bits of floats of one sign are in the order of the floats.
                *known = (known.0.max(rate.to_bits()), known.1.min(stay.to_bits()));
            }
        }
    }
    table
}

/// The least that ways to and from a device take, in seconds; infinite where there is none.
struct Ways {
    entry: f64,
    between: f64,
    exit: f64,
}

impl Ways {
    fn of(problem: &PlacementProblem, formats: usize, device: DeviceId, life: &Life) -> Self {
        let usable = || problem.graph.device_ids().filter(|&other| problem.usable(other));
        if usable().count() * formats > WAYS_DEVICES_MAX {
            return Self { entry: 0.0, between: 0.0, exit: 0.0 };
        }
        let known = |time: Option<Seconds>| time.map_or(f64::INFINITY, Seconds::value);
        let others = usable().filter(|&other| other != device);
        let between = others.map(|from| known(problem.hop_residence(from, device, life)));
        Self {
            entry: known(problem.entry_residence(device, life)),
            between: between.fold(f64::INFINITY, f64::min),
            exit: known(problem.exit_residence(device, life)),
        }
    }
}
