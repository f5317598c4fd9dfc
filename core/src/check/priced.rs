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
use crate::graph::Path;
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
    let paths = paths(&variants);
    let covered = |life: &Life| {
        let mut tables = Tables { variants: &variants, life, paths: &paths, known: Vec::new() };
        let mut classes: BTreeMap<Vec<(Shape, Bits)>, u64> = BTreeMap::new();
        for device in problem.graph.device_ids() {
            *classes.entry(tables.table(device).into_iter().collect()).or_default() += 1;
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

/// Shapes that a device holds, each with the rate and the seconds that a request stays.
type Held = Vec<(Shape, f64, f64)>;

/// Tables of devices in batches of one life. What devices of the same time and memory hold is found once.
struct Tables<'a> {
    variants: &'a [Cow<'a, PlacementProblem>],
    life: &'a Life,
    /// By variant, the quickest ways from each device to every other; nothing where there are too many.
    paths: &'a [Vec<Vec<Option<Path>>>],
    known: Vec<(usize, DeviceId, Held)>,
}

/// The quickest ways of each variant, where there are few enough devices to look at them.
fn paths(variants: &[Cow<'_, PlacementProblem>]) -> Vec<Vec<Vec<Option<Path>>>> {
    let of = |problem: &Cow<'_, PlacementProblem>| {
        let usable = problem.graph.device_ids().filter(|&other| problem.usable(other)).count();
        if usable * variants.len() > WAYS_DEVICES_MAX {
            return Vec::new();
        }
        let row = problem.model.boundary_bytes_per_token();
        problem.graph.device_ids().map(|from| problem.graph.paths_from(from, row)).collect()
    };
    variants.iter().map(of).collect()
}

impl Tables<'_> {
    /// For each shape that fits, the greatest rate and the least stay of a device in any format.
    fn table(&mut self, device: DeviceId) -> BTreeMap<Shape, Bits> {
        let mut table: BTreeMap<Shape, Bits> = BTreeMap::new();
        for variant in (0..self.variants.len()).filter(|&v| self.variants[v].usable(device)) {
            let Ways { entry, between, exit } =
                Ways::of(&self.variants[variant], &self.paths[variant], device, self.life);
            for &(shape, rate, stage) in self.held(variant, device) {
                let way = (if shape.1 { entry } else { between }) + (if shape.2 { exit } else { 0.0 });
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
        table
    }

    /// What a device holds: of each shape the first interval that fits, since time and rate depend on the shape alone.
    fn held(&mut self, variant: usize, device: DeviceId) -> &Held {
        let problem = &self.variants[variant];
        let alike = |other: DeviceId| {
            problem.memory(other) == problem.memory(device)
                && problem.format(other) == problem.format(device)
                && problem.degree(other) == problem.degree(device)
                && problem.profile(other) == problem.profile(device)
                && problem.offload(other) == problem.offload(device)
                && problem.graph.device(other).rates == problem.graph.device(device).rates
                && (problem.speed(other), problem.duty(other)) == (problem.speed(device), problem.duty(device))
        };
        let known = self.known.iter().position(|(of, other, _)| *of == variant && alike(*other));
        let at = known.unwrap_or_else(|| {
            self.known.push((variant, device, held(problem, device, self.life)));
            self.known.len() - 1
        });
        &self.known[at].2
    }
}

fn held(problem: &PlacementProblem, device: DeviceId, life: &Life) -> Held {
    let total = problem.layers();
    let mut held = Held::new();
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
            held.push((shape, rate, problem.residence(device, layers, life).map_or(0.0, Seconds::value)));
        }
    }
    held
}

/// The least that ways to and from a device take, in seconds; infinite where there is none.
struct Ways {
    entry: f64,
    between: f64,
    exit: f64,
}

impl Ways {
    fn of(problem: &PlacementProblem, paths: &[Vec<Option<Path>>], device: DeviceId, life: &Life) -> Self {
        if paths.is_empty() {
            return Self { entry: 0.0, between: 0.0, exit: 0.0 };
        }
        let known = |time: Option<Seconds>| time.map_or(f64::INFINITY, Seconds::value);
        let others = problem.graph.device_ids().filter(|&other| problem.usable(other) && other != device);
        let way = |from: DeviceId| {
            let path = paths[from.index()][device.index()].as_ref();
            known(problem.residence_on(path, (from, device), life))
        };
        Self {
            entry: known(problem.entry_residence(device, life)),
            between: others.map(way).fold(f64::INFINITY, f64::min),
            exit: known(problem.exit_residence(device, life)),
        }
    }
}
