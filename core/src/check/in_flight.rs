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
    let kinds = if all.len() > WAYS_DEVICES_MAX { kinds(&all) } else { Vec::new() };
    let reaches = |life: &Life| {
        // Nothing is known of the time of a device with rates alone.
        let seconds = match (timed, kinds.as_slice()) {
            (false, _) => 0.0,
            (true, []) => shortest(problem.layers(), &all, life),
            (true, kinds) => shortest_without_ways(problem.layers(), kinds, life),
        };
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

/// One of each set of holders that hold the same layers in the same time.
fn kinds<'a>(all: &[Holder<'a>]) -> Vec<Holder<'a>> {
    let mut kinds: Vec<Holder<'a>> = Vec::new();
    for &(problem, device) in all {
        let like = |&(variant, known): &Holder<'a>| {
            variant.memory(known) == problem.memory(device)
                && variant.format(known) == problem.format(device)
                && variant.profile(known) == problem.profile(device)
                && variant.speed(known) == problem.speed(device)
                && variant.offload(known) == problem.offload(device)
        };
        if !kinds.iter().any(like) {
            kinds.push((problem, device));
        }
    }
    kinds
}

/// The intervals that a holder can hold, and how long a request stays there.
fn stays(layers: u32, (problem, device): Holder<'_>, life: &Life) -> Vec<(u32, u32, f64)> {
    let mut stays = Vec::new();
    for start in 0..layers {
        let fitting = (start + 1..=layers).map(|end| Layers::new(start, end));
        for interval in fitting.take_while(|&interval| holds(problem, device, interval)) {
            if let Some(residence) = problem.residence(device, interval, life) {
                stays.push((start, interval.end, residence.value()));
            }
        }
    }
    stays
}

/// Least time that any request spends, ways included; infinite where there is no path.
fn shortest(layers: u32, all: &[Holder<'_>], life: &Life) -> f64 {
    let known = |time: Option<Seconds>| time.map_or(f64::INFINITY, Seconds::value);
    let stays: Vec<Vec<(u32, u32, f64)>> = all.iter().map(|&holder| stays(layers, holder, life)).collect();
    let way = |&(problem, from): &Holder<'_>, &(_, to): &Holder<'_>| {
        if from == to { f64::INFINITY } else { known(problem.hop_residence(from, to, life)) }
    };
    let ways: Vec<Vec<f64>> = all.iter().map(|from| all.iter().map(|to| way(from, to)).collect()).collect();
    // Least time until so many layers are passed, the last of them on a holder.
    let mut passed = vec![vec![f64::INFINITY; all.len()]; layers as usize + 1];
    for start in 0..layers {
        for (to, &(problem, device)) in all.iter().enumerate() {
            let arrives = match start {
                0 => known(problem.entry_residence(device, life)),
                _ => passed[start as usize].iter().zip(&ways).map(|(t, way)| t + way[to]).fold(f64::INFINITY, f64::min),
            };
            for &(_, end, stay) in stays[to].iter().filter(|stay| stay.0 == start) {
                let known = &mut passed[end as usize][to];
                *known = known.min(arrives + stay);
            }
        }
    }
    let leaves = |(last, &(problem, device)): (usize, &Holder<'_>)| {
        passed[layers as usize][last] + known(problem.exit_residence(device, life))
    };
    all.iter().enumerate().map(leaves).fold(f64::INFINITY, f64::min)
}

/// The same with ways that take no time.
fn shortest_without_ways(layers: u32, kinds: &[Holder<'_>], life: &Life) -> f64 {
    let mut spent = vec![f64::INFINITY; layers as usize + 1];
    spent[0] = 0.0;
    let mut intervals: Vec<(u32, u32, f64)> = kinds.iter().flat_map(|&kind| stays(layers, kind, life)).collect();
    intervals.sort_by_key(|&(start, ..)| start);
    for (start, end, stay) in intervals {
        spent[end as usize] = spent[end as usize].min(spent[start as usize] + stay);
    }
    spent[layers as usize]
}
