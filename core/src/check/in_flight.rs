//! Which batches Little's law leaves open at a rate.
//!
//! No more than `requests_max` requests are in flight, and each stays at least as long as the quickest way of passing
//! all layers: a shortest path over (layers passed, device), each interval on any device that holds it, with the ways
//! between devices. A path may come back to a device that it left. So no plan in batches of `b` is faster than
//! `requests_max * output / shortest path`. With partial inference a stage takes a request as long as all that it
//! holds, which is no less than what it serves. Where there are many devices, ways are left aside and only one of each
//! kind of device is looked at.
//!
//! The path adds floats that are zero or more; rounding loses at most one part in `2^53` with each addition, and the
//! sum is lowered by more than that before it is used. The same search finds the cheapest route at prices of seconds and
//! of work on devices, for [evidence by routes](super::routes).

use super::holds;
use crate::exact::{Exact, exact, mean, positive, whole};
use crate::graph::Path;
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem};
use crate::units::Seconds;
use std::borrow::Cow;

/// Most devices, in all formats, between which ways are looked at.
pub const WAYS_DEVICES_MAX: usize = 64;

/// What a request pays on a stage is taken as no more than this, so that no sum of such is infinite, and what is less than
/// the other as nothing, so that all roundings are relative ones.
const PAID_MAX: f64 = 1e300;
const PAID_MIN: f64 = 1e-290;

/// A device in one format.
type Holder<'a> = (&'a PlacementProblem, DeviceId);

/// The batches in which `above` is not ruled out, by their lives.
pub(super) fn open(problem: &PlacementProblem, variants: &[Cow<'_, PlacementProblem>], above: &Exact) -> Vec<Life> {
    let in_flight = tokens(problem);
    let known = Known::timed(problem.layers(), variants);
    let reaches = |life: &Life| {
        // Nothing is known of the time of a device with rates alone.
        let seconds = known.as_ref().map_or(0.0, |known| known.least(life, &Prices::SECONDS));
        if seconds.is_infinite() {
            // No way passes all layers: there is no plan in these batches.
            return false;
        }
        let slack = f64::from(2 * problem.layers() + 4) * f64::EPSILON;
        let least = exact(seconds * (1.0 - slack)).filter(positive);
        least.is_none_or(|least| &in_flight / least >= *above)
    };
    batches_of(variants).into_iter().map(|batch| problem.life(batch)).filter(reaches).collect()
}

/// Tokens whose requests are in flight at most.
pub(super) fn tokens(problem: &PlacementProblem) -> Exact {
    whole(problem.serving.requests_max.into()) * mean(problem.workload.output_tokens)
}

/// What requests pay on their way.
pub(super) struct Prices<'a> {
    /// For a second of their stay.
    pub second: f64,
    /// For each second that a device works for one of them.
    pub worth: Option<&'a dyn Fn(DeviceId) -> f64>,
    /// No device works for a token for less than one second in so many: the rate of a plan.
    pub at: f64,
}

impl Prices<'_> {
    /// Seconds themselves.
    const SECONDS: Self = Self { second: 1.0, worth: None, at: f64::INFINITY };
}

/// The cheapest routes through all layers at any prices.
pub(super) struct Routes<'a>(Known<'a>);

impl<'a> Routes<'a> {
    /// Over devices in any format; none where the times of one are unknown.
    pub fn new(problem: &PlacementProblem, variants: &'a [Cow<'a, PlacementProblem>]) -> Option<Self> {
        Known::timed(problem.layers(), variants).map(Self)
    }

    /// What a token pays on any route, at least; infinite where there is none.
    pub fn cheapest(&self, life: &Life, prices: &Prices<'_>) -> f64 {
        let slack = f64::from(2 * self.0.layers + 16) * f64::EPSILON;
        self.0.least(life, prices) * (1.0 - slack)
    }
}

/// The same, by their sizes.
pub(super) fn batches(problem: &PlacementProblem, above: &Exact) -> Vec<u32> {
    open(problem, &problem.variants(), above).into_iter().map(|life| life.batch).collect()
}

/// The batches of plans in any format: one may bring times where another has rates alone, and with them batches.
pub(super) fn batches_of(variants: &[Cow<'_, PlacementProblem>]) -> Vec<u32> {
    let mut batches: Vec<u32> = variants.iter().flat_map(|variant| variant.batches()).collect();
    batches.sort_unstable_by(|a, b| b.cmp(a));
    batches.dedup();
    batches
}

/// One of each set of holders that hold the same layers in the same time, and of which set each is.
fn kinds<'a>(all: &[Holder<'a>]) -> (Vec<Holder<'a>>, Vec<usize>) {
    let (mut kinds, mut of) = (Vec::<Holder<'a>>::new(), Vec::with_capacity(all.len()));
    for &(problem, device) in all {
        let like = |&(variant, known): &Holder<'a>| {
            variant.memory(known) == problem.memory(device)
                && variant.format(known) == problem.format(device)
                && variant.degree(known) == problem.degree(device)
                && variant.profile(known) == problem.profile(device)
                && (variant.speed(known), variant.duty(known)) == (problem.speed(device), problem.duty(device))
                && variant.graph.device(known).rates == problem.graph.device(device).rates
                && variant.offload(known) == problem.offload(device)
        };
        of.push(kinds.iter().position(like).unwrap_or_else(|| {
            kinds.push((problem, device));
            kinds.len() - 1
        }));
    }
    (kinds, of)
}

/// What is the same for every batch.
struct Known<'a> {
    layers: u32,
    all: Vec<Holder<'a>>,
    kinds: Vec<Holder<'a>>,
    /// Of which kind each holder is.
    of: Vec<usize>,
    /// By kind and first layer, the greatest end of what it can hold.
    reach: Vec<Vec<u32>>,
    /// The quickest ways from each holder to every device, where ways are looked at.
    paths: Vec<Vec<Option<Path>>>,
}

impl<'a> Known<'a> {
    /// None where the times of a device are unknown.
    fn timed(layers: u32, variants: &'a [Cow<'a, PlacementProblem>]) -> Option<Self> {
        let of_variant = |variant: &'a Cow<'a, PlacementProblem>| {
            let problem: &PlacementProblem = variant;
            problem.graph.device_ids().filter(|&device| problem.usable(device)).map(move |device| (problem, device))
        };
        let all: Vec<Holder<'_>> = variants.iter().flat_map(of_variant).collect();
        let timed = all.iter().all(|(variant, device)| variant.profile(*device).is_some());
        timed.then(|| Self::of(layers, &all))
    }

    fn of(layers: u32, all: &[Holder<'a>]) -> Self {
        let (kinds, of) = kinds(all);
        let reach = |&(problem, device): &Holder<'_>| -> Vec<u32> {
            let held = |start: u32, end: &u32| holds(problem, device, Layers::new(start, *end));
            let reach = |start| (start + 1..=layers).take_while(|end| held(start, end)).last().unwrap_or(start);
            (0..layers).map(reach).collect()
        };
        let ways = |&(problem, from): &Holder<'_>| {
            let row = problem.model.boundary_bytes_per_token();
            problem.graph.paths_from(from, row)
        };
        let near = all.len() <= WAYS_DEVICES_MAX;
        Self {
            layers,
            reach: kinds.iter().map(reach).collect(),
            paths: if near { all.iter().map(ways).collect() } else { Vec::new() },
            all: all.to_vec(),
            kinds,
            of,
        }
    }

    /// A figure of a holder of each kind, by the number of layers and whether they begin and end the model: a step's time
    /// depends on nothing else of an interval. Infinite where there is none.
    fn by_shape(&self, figure: impl Fn(&PlacementProblem, DeviceId, Layers) -> Option<f64>) -> Vec<Vec<[f64; 4]>> {
        let never = [f64::INFINITY; 4];
        let of_kind = |(&(problem, device), reach): (&Holder<'_>, &Vec<u32>)| {
            let mut found = vec![never; self.layers as usize + 1];
            for (start, &reach) in (0..).zip(reach) {
                for end in start + 1..=reach {
                    let known = &mut found[(end - start) as usize][ends(self.layers, start, end)];
                    if known.is_infinite()
                        && let Some(value) = figure(problem, device, Layers::new(start, end))
                    {
                        *known = value;
                    }
                }
            }
            found
        };
        self.kinds.iter().zip(&self.reach).map(of_kind).collect()
    }

    /// Least that any request pays; infinite where there is no path.
    fn least(&self, life: &Life, prices: &Prices<'_>) -> f64 {
        let stays = self.by_shape(|problem, device, layers| Some(problem.residence(device, layers, life)?.value()));
        let seconds_per_token = |problem: &PlacementProblem, device, layers| {
            let rate = problem.rate(device, layers, life)?.value();
            (rate > 0.0).then(|| (1.0 / rate.min(prices.at)).min(f64::MAX))
        };
        let work = prices.worth.map(|worth| (worth, self.by_shape(seconds_per_token)));
        let paid = |(holder, kind): (usize, usize), length: usize, ends: usize| {
            let stay = stays[kind][length][ends];
            let Some((worth, work)) = &work else { return stay };
            let work = work[kind][length][ends];
            if stay.is_infinite() || work.is_infinite() {
                return f64::INFINITY;
            }
            priced(prices.second, stay) + priced(worth(self.all[holder].1), work)
        };
        let second = |time: f64| if time.is_infinite() { time } else { priced(prices.second, time) };
        if self.paths.is_empty() { self.least_without_ways(&paid) } else { self.least_by_ways(life, &paid, &second) }
    }

    fn least_by_ways(
        &self,
        life: &Life,
        paid: &dyn Fn((usize, usize), usize, usize) -> f64,
        second: &dyn Fn(f64) -> f64,
    ) -> f64 {
        let known = |time: Option<Seconds>| second(time.map_or(f64::INFINITY, Seconds::value));
        let layers = self.layers;
        let way = |(&(problem, from), paths): (&Holder<'_>, &Vec<Option<Path>>), &(_, to): &Holder<'_>| {
            let path = || problem.residence_on(paths[to.index()].as_ref(), (from, to), life);
            if from == to { f64::INFINITY } else { known(path()) }
        };
        // By where a way leads, and where it comes from.
        let from = |to: &Holder<'_>| self.all.iter().zip(&self.paths).map(|from| way(from, to)).collect();
        let ways: Vec<Vec<f64>> = self.all.iter().map(from).collect();
        // Least until so many layers are passed, the last of them on a holder.
        let mut passed = vec![vec![f64::INFINITY; self.all.len()]; layers as usize + 1];
        for start in 0..layers {
            for (to, &(problem, device)) in self.all.iter().enumerate() {
                let arrives = match start {
                    0 => known(problem.entry_residence(device, life)),
                    _ => passed[start as usize]
                        .iter()
                        .zip(&ways[to])
                        .map(|(t, way)| t + way)
                        .fold(f64::INFINITY, f64::min),
                };
                if arrives.is_infinite() {
                    continue;
                }
                let kind = self.of[to];
                for end in start + 1..=self.reach[kind][start as usize] {
                    let stage = paid((to, kind), (end - start) as usize, ends(layers, start, end));
                    let known = &mut passed[end as usize][to];
                    *known = known.min(arrives + stage);
                }
            }
        }
        let leaves = |(last, &(problem, device)): (usize, &Holder<'_>)| {
            passed[layers as usize][last] + known(problem.exit_residence(device, life))
        };
        self.all.iter().enumerate().map(leaves).fold(f64::INFINITY, f64::min)
    }

    /// The same with ways that take no time.
    fn least_without_ways(&self, paid: &dyn Fn((usize, usize), usize, usize) -> f64) -> f64 {
        let layers = self.layers;
        // Of one number of layers and one pair of ends, whoever asks for least.
        let mut stage = vec![[f64::INFINITY; 4]; layers as usize + 1];
        for (holder, &kind) in self.of.iter().enumerate() {
            for (length, known) in stage.iter_mut().enumerate().skip(1) {
                for (ends, known) in known.iter_mut().enumerate() {
                    *known = known.min(paid((holder, kind), length, ends));
                }
            }
        }
        let mut spent = vec![f64::INFINITY; layers as usize + 1];
        spent[0] = 0.0;
        for start in 0..layers {
            for end in start + 1..=layers {
                let stage = stage[(end - start) as usize][ends(layers, start, end)];
                spent[end as usize] = spent[end as usize].min(spent[start as usize] + stage);
            }
        }
        spent[layers as usize]
    }
}

/// A price for so much, within limits in which sums are finite and roundings relative.
fn priced(price: f64, amount: f64) -> f64 {
    let paid = (price * amount).min(PAID_MAX);
    if paid < PAID_MIN { 0.0 } else { paid }
}

/// Which ends of the model are in an interval, as a number below 4.
fn ends(layers: u32, start: u32, end: u32) -> usize {
    usize::from(start == 0) + 2 * usize::from(end == layers)
}
