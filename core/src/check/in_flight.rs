//! Which batches Little's law leaves open at a rate.
//!
//! No more than `requests_max` requests are in flight, and each stays at least as long as the cheapest way of passing
//! all layers: a shortest path over layer borders, each interval on whichever device is quickest, ways left aside. So
//! no plan in batches of `b` is faster than `requests_max * output / shortest path`. With partial inference a stage
//! takes a request as long as all that it holds, which is no less than what it serves.
//!
//! The path adds floats that are zero or more; rounding loses at most one part in `2^53` with each addition, and the
//! sum is lowered by more than that before it is used.

use super::holds;
use crate::exact::{Exact, exact, mean, positive, whole};
use crate::ids::{DeviceId, Layers};
use crate::problem::{Life, PlacementProblem};

/// The batches in which `above` is not ruled out, by their lives.
pub(super) fn open(problem: &PlacementProblem, above: &Exact) -> Vec<Life> {
    let kinds = kinds(problem);
    let in_flight = whole(problem.serving.requests_max.into()) * mean(problem.workload.output_tokens);
    let reaches = |life: &Life| {
        let least = exact(shortest(problem, &kinds, life)).filter(positive);
        least.is_none_or(|least| &in_flight / least >= *above)
    };
    problem.batches().into_iter().map(|batch| problem.life(batch)).filter(reaches).collect()
}

/// One of each set of usable devices that hold the same layers in the same time.
fn kinds(problem: &PlacementProblem) -> Vec<DeviceId> {
    let mut kinds: Vec<DeviceId> = Vec::new();
    for device in problem.graph.device_ids().filter(|&device| problem.usable(device)) {
        let like = |&known: &DeviceId| {
            problem.memory(known) == problem.memory(device)
                && problem.profile(known).is_some()
                && problem.profile(known) == problem.profile(device)
        };
        if !kinds.iter().any(like) {
            kinds.push(device);
        }
    }
    kinds
}

/// Least time that any request spends on devices, rounded down; zero where rates alone are known somewhere.
fn shortest(problem: &PlacementProblem, kinds: &[DeviceId], life: &Life) -> f64 {
    let layers = problem.layers();
    let mut spent = vec![f64::INFINITY; layers as usize + 1];
    spent[0] = 0.0;
    for &kind in kinds {
        if problem.profile(kind).is_none() {
            return 0.0;
        }
    }
    for start in 0..layers {
        for &kind in kinds {
            for end in start + 1..=layers {
                let interval = Layers::new(start, end);
                if !holds(problem, kind, interval) {
                    break;
                }
                let Some(residence) = problem.residence(kind, interval, life) else { continue };
                let through = spent[start as usize] + residence.value();
                spent[end as usize] = spent[end as usize].min(through);
            }
        }
    }
    let slack = f64::from(layers + 4) * f64::EPSILON;
    spent[layers as usize] * (1.0 - slack)
}
