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
//! sum is lowered by more than that before it is used.

use super::holds;
use crate::exact::{Exact, exact, mean, positive, whole};
use crate::graph::Path;
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem};
use crate::units::Seconds;
use std::borrow::Cow;

/// Most devices, in all formats, between which ways are looked at.
pub const WAYS_DEVICES_MAX: usize = 64;

/// A device in one format.
type Holder<'a> = (&'a PlacementProblem, DeviceId);

/// The batches in which `above` is not ruled out, by their lives.
pub(super) fn open(problem: &PlacementProblem, variants: &[Cow<'_, PlacementProblem>], above: &Exact) -> Vec<Life> {
    let of_variant = |problem: &'_ PlacementProblem| -> Vec<DeviceId> {
        problem.graph.device_ids().filter(|&device| problem.usable(device)).collect()
    };
    let all: Vec<Holder<'_>> =
        variants.iter().flat_map(|variant| of_variant(variant).into_iter().map(|id| (&**variant, id))).collect();
    let in_flight = whole(problem.serving.requests_max.into()) * mean(problem.workload.output_tokens);
    let timed = all.iter().all(|(variant, device)| variant.profile(*device).is_some());
    let known = if timed { Some(Known::of(problem.layers(), &all)) } else { None };
    let reaches = |life: &Life| {
        // Nothing is known of the time of a device with rates alone.
        let seconds = known.as_ref().map_or(0.0, |known| known.shortest(life));
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
                && variant.speed(known) == problem.speed(device)
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

    /// How long a request stays on a holder of each kind, by the number of layers and whether they begin and end the
    /// model: a step's time depends on nothing else of an interval.
    fn stays(&self, life: &Life) -> Vec<Vec<[f64; 4]>> {
        let never = [f64::INFINITY; 4];
        let of_kind = |((problem, device), reach): (&Holder<'_>, &Vec<u32>)| {
            let mut stays = vec![never; self.layers as usize + 1];
            for (start, &reach) in (0..).zip(reach) {
                for end in start + 1..=reach {
                    let known = &mut stays[(end - start) as usize][ends(self.layers, start, end)];
                    if known.is_infinite()
                        && let Some(residence) = problem.residence(*device, Layers::new(start, end), life)
                    {
                        *known = residence.value();
                    }
                }
            }
            stays
        };
        self.kinds.iter().zip(&self.reach).map(of_kind).collect()
    }

    /// Least time that any request spends; infinite where there is no path.
    fn shortest(&self, life: &Life) -> f64 {
        if self.paths.is_empty() { self.shortest_without_ways(life) } else { self.shortest_by_ways(life) }
    }

    fn shortest_by_ways(&self, life: &Life) -> f64 {
        let known = |time: Option<Seconds>| time.map_or(f64::INFINITY, Seconds::value);
        let (layers, stays) = (self.layers, self.stays(life));
        let way = |(&(problem, from), paths): (&Holder<'_>, &Vec<Option<Path>>), &(_, to): &Holder<'_>| {
            let path = || problem.residence_on(paths[to.index()].as_ref(), (from, to), life);
            if from == to { f64::INFINITY } else { known(path()) }
        };
        // By where a way leads, and where it comes from.
        let from = |to: &Holder<'_>| self.all.iter().zip(&self.paths).map(|from| way(from, to)).collect();
        let ways: Vec<Vec<f64>> = self.all.iter().map(from).collect();
        // Least time until so many layers are passed, the last of them on a holder.
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
                let kind = self.of[to];
                for end in start + 1..=self.reach[kind][start as usize] {
                    let stay = stays[kind][(end - start) as usize][ends(layers, start, end)];
                    let known = &mut passed[end as usize][to];
                    *known = known.min(arrives + stay);
                }
            }
        }
        let leaves = |(last, &(problem, device)): (usize, &Holder<'_>)| {
            passed[layers as usize][last] + known(problem.exit_residence(device, life))
        };
        self.all.iter().enumerate().map(leaves).fold(f64::INFINITY, f64::min)
    }

    /// The same with ways that take no time.
    fn shortest_without_ways(&self, life: &Life) -> f64 {
        let (layers, stays) = (self.layers, self.stays(life));
        let mut spent = vec![f64::INFINITY; layers as usize + 1];
        spent[0] = 0.0;
        for start in 0..layers {
            for (reach, stays) in self.reach.iter().zip(&stays) {
                for end in start + 1..=reach[start as usize] {
                    let stay = stays[(end - start) as usize][ends(layers, start, end)];
                    spent[end as usize] = spent[end as usize].min(spent[start as usize] + stay);
                }
            }
        }
        spent[layers as usize]
    }
}

/// Which ends of the model are in an interval, as a number below 4.
fn ends(layers: u32, start: u32, end: u32) -> usize {
    usize::from(start == 0) + 2 * usize::from(end == layers)
}
