//! Throughput bounds by the cheapest route, with prices for work on devices and for time in flight.
//!
//! Let a request pay `price` for each token and second in flight, and `u_d` for each second that device `d` works for it. In
//! a plan of rate `F`, a device that passes `f` while it holds the interval `I` works for its requests no more than all the
//! time if each token is counted `1 / min(T_d(I), F)` seconds: `f` is at most `T_d(I)`, and at most `F`, for no route passes a
//! device twice. So every second all requests pay at most
//!
//! ```text
//! sum of u_d + price in_flight
//! ```
//!
//! by Little's law. Each token takes some route over all layers, on which it pays no less than on the cheapest one: a
//! [shortest path](super::in_flight) over (layers passed, device) that may come back to a device. Where `F` times that is
//! more than all requests may pay, no plan reaches `F`. A greater `F` makes a token pay no less for `F` of them, so neither
//! does any faster plan. With partial inference a stage works and keeps a request for all that it holds, which is no less
//! than for what it serves.
//!
//! What a route pays is a sum of floats that are zero or more, lowered by more than what rounding adds; the rest is exact.

use super::certificate::BoundFault;
use super::cover::tabulable;
use super::in_flight::{self, Prices, Routes};
use crate::exact::{Exact, exact, nearest};
use crate::ids::DeviceId;
use crate::problem::{Life, PlacementProblem};
use num_traits::{Signed, Zero};
use std::collections::BTreeMap;

/// Evidence as a certificate gives it.
pub(super) struct Claim<'a> {
    /// What a token pays for each second in flight.
    pub price: f64,
    /// What it pays for each second of a device's work, by name; absent is nothing.
    pub worths: &'a BTreeMap<String, f64>,
    /// The batch it speaks of; all that are open where there is none.
    pub batch: Option<u32>,
}

/// Proves that no plan reaches `above`, or says why not.
pub(super) fn prove(problem: &PlacementProblem, bound: f64, above: &Exact, claim: &Claim<'_>) -> Vec<BoundFault> {
    let Some(price) = exact(claim.price).filter(|price| !price.is_negative()) else {
        return vec![BoundFault::Price { price: claim.price }];
    };
    let wrong =
        |(name, worth): &(&String, &f64)| problem.graph.find(name).is_none() || !(worth.is_finite() && **worth >= 0.0);
    let faults: Vec<BoundFault> = claim
        .worths
        .iter()
        .filter(wrong)
        .map(|(name, &worth)| BoundFault::Worth { device: name.clone(), worth })
        .collect();
    if !faults.is_empty() {
        return faults;
    }
    if let Err(fault) = tabulable(problem) {
        return vec![fault];
    }
    let variants = problem.variants();
    let Some(routes) = Routes::new(problem, &variants) else { return vec![BoundFault::Untimed] };
    let lives = match claim.batch {
        Some(batch) => vec![problem.life(batch)],
        None => in_flight::open(problem, &variants, above),
    };
    let sum = claim.worths.values().filter_map(|&worth| exact(worth)).fold(Exact::zero(), |sum, worth| sum + worth);
    let most = sum + price * in_flight::tokens(problem);
    let worth = |device: DeviceId| claim.worths.get(&problem.graph.device(device).name).copied().unwrap_or(0.0);
    // No less than the rate itself.
    let at = nearest(above) * (1.0 + 2.0 * f64::EPSILON);
    let prices = Prices { second: claim.price, worth: Some(&worth), at };
    let refuted = |life: &Life| {
        let cheapest = routes.cheapest(life, &prices);
        // Where no route passes all layers there is no plan in these batches.
        let binds =
            above.is_positive() && at.is_normal() && exact(cheapest).is_none_or(|cheapest| above * cheapest > most);
        (!binds).then(|| BoundFault::RoutesNotBinding {
            batch: life.batch,
            bound,
            paid: nearest(above) * cheapest,
            most: nearest(&most),
        })
    };
    lives.iter().filter_map(refuted).collect()
}
