//! Bounds on what a token costs, from prices of layers.
//!
//! In a plan of rate `F` let a share `s` of all tokens pass a device of `k` layers, of rate `T` (`T'` where heat did
//! not limit how much it works). It costs `held + worked * s F / T'`, and passes no more than it can: `s F <= T`. All
//! tokens pass all `L` layers, so the shares times layers of all devices add to at least `L`. For any price `p` of a
//! layer, and rates from `low` to `high`, a plan's cost per token is therefore at least
//!
//! ```text
//! L p - sum over devices of the greatest of 0 and, over what it may hold and 0 < s <= min(1, T / low),
//!       p k s - held * max(1 / high, s / T) - worked * least(s low / T') / low
//! ```
//!
//! where `least` is the least load of work at any operating point, convex and 0 at 0 (see [`crate::power`]; without
//! points `least(w) = w`, and so `s / T'`). In `s` that is concave and bends where `held` does and at the corners of
//! `least`, so its greatest value is at a bend or at the end. A cost per hour is bounded in the same way:
//! `p k s - held - worked * least(s low / T')`. The spans of rates begin at the least that the plan's goals allow, or at nothing, and
//! the last has no end. Batches that [Little's law](super::in_flight) rules out at the beginning of a span need no
//! price there. Sums are of floats; what they may have rounded is taken off.

use super::certificate::BoundFault;
use super::cover::tabulable;
use super::{holds, in_flight};
use crate::exact::{agreement, exact, nearest, whole};
use crate::ids::{DeviceId, Layers};
use crate::plan::LayerPrice;
use crate::power::Draw;
use crate::problem::{Goal, Objective, PlacementProblem, floor};
use crate::spending::Cost;
pub(super) use crate::spending::figure;
use std::collections::BTreeSet;

/// Share of all that is summed that rounding may have added: a sum of some thousand terms, each right to 1e-16.
const ROUNDED: f64 = 1e-12;

/// What a device may do in batches of one size: layers, rate, rate without heat.
type Choice = (f64, f64, f64);

/// A device: what it costs, what it draws at each speed where that is known, and what it may do.
type Known = (Cost, Option<Draw>, Vec<Choice>);

/// Proves that no plan that reaches its goals costs less than `bound`, or says why not.
pub(super) fn prices(problem: &PlacementProblem, goals: &[Goal], bound: f64, prices: &[LayerPrice]) -> Vec<BoundFault> {
    if let Err(fault) = tabulable(problem) {
        return vec![fault];
    }
    let begin = floor(goals).max(floor(&problem.limits.goals));
    let variants = problem.variants();
    let mut faults = Vec::new();
    for batch in in_flight::batches_of(&variants) {
        let spans: Vec<&LayerPrice> = prices.iter().filter(|price| price.batch == batch).collect();
        let devices = choices(problem, batch);
        let mut low = begin;
        let mut ended = false;
        for span in spans {
            let high = span.rate_max.unwrap_or(f64::INFINITY);
            if ended || high.is_nan() || high <= low || !span.price.is_finite() {
                let what = "must have spans of rising rates, each with a price, the last without an end";
                return vec![BoundFault::Batch { batch, what }];
            }
            let proved = at_least(problem, &devices, (low, high), span.price);
            if proved.is_nan() || proved < bound * (1.0 - 1e-9) {
                faults.push(BoundFault::LayerPrice { batch, proved, bound });
            }
            (low, ended) = (high, high.is_infinite());
        }
        if !ended && open(problem, batch, low) {
            faults.push(BoundFault::Batch { batch, what: "has no price of a layer for all rates that it may have" });
        }
    }
    faults
}

/// Whether plans in batches of this size may have a rate above this.
fn open(problem: &PlacementProblem, batch: u32, low: f64) -> bool {
    let above = exact(low).map(|low| low * (whole(1) - agreement()));
    above.is_none_or(|above| nearest(&above) <= 0.0 || in_flight::batches(problem, &above).contains(&batch))
}

/// What each device costs and may do.
fn choices(problem: &PlacementProblem, batch: u32) -> Vec<Known> {
    let (variants, layers) = (problem.variants(), problem.layers());
    let mut devices = Vec::new();
    for device in problem.graph.device_ids() {
        // A device whose cost is not known is in no plan whose cost is.
        let Some(cost) = problem.cost(device, problem.objective) else { continue };
        let mut all: Vec<Choice> = Vec::new();
        for variant in variants.iter().filter(|variant| variant.usable(device)) {
            let (life, cool) = (variant.life(batch), variant.at_duties(|_| Some(1.0)));
            let mut seen: BTreeSet<(u32, bool, bool)> = BTreeSet::new();
            for k in 1..=layers {
                for start in 0..=layers - k {
                    let interval = Layers::new(start, start + k);
                    let shape = (k, start == 0, interval.end == layers);
                    if seen.contains(&shape) || !holds(variant, device, interval) {
                        continue;
                    }
                    seen.insert(shape);
                    let rate = |problem: &PlacementProblem, device: DeviceId| {
                        problem.rate(device, interval, &life).map(|rate| rate.value())
                    };
                    if let (Some(rate), Some(cool)) = (rate(variant, device), rate(&cool, device)) {
                        all.push((f64::from(k), rate, cool));
                    }
                }
            }
        }
        devices.push((cost, problem.draw(device), all));
    }
    devices
}

/// The least that a plan with a rate in this span costs, at this price of a layer.
fn at_least(problem: &PlacementProblem, devices: &[Known], (low, high): (f64, f64), price: f64) -> f64 {
    let hourly = problem.objective == Objective::MoneyPerHour;
    let gained = |cost: Cost, draw: Option<&Draw>, (layers, rate, cool): Choice, share: f64| {
        let load = PlacementProblem::least_load(draw, share / cool, low);
        if hourly {
            price * layers * share - cost.held - cost.worked * load * low
        } else {
            let held = cost.held * (1.0 / high).max(share / rate);
            price * layers * share - PlacementProblem::figure_of_cost(problem.objective, held + cost.worked * load, 1.0)
        }
    };
    let most = |(cost, draw, choices): &Known| {
        let of_choice = |&choice: &Choice| {
            let end = if low > 0.0 { (choice.1 / low).min(1.0) } else { 1.0 };
            let bend = if high.is_finite() { (choice.1 / high).min(end) } else { end };
            let corners = draw.iter().flat_map(Draw::corners).filter(|_| low > 0.0);
            let corners = corners.map(|(work, _)| (work * choice.2 / low).min(end));
            let bends = corners.chain([end, bend]);
            bends.map(|share| gained(*cost, draw.as_ref(), choice, share)).fold(0.0, f64::max)
        };
        choices.iter().map(of_choice).fold(0.0, f64::max)
    };
    let whole = price * f64::from(problem.layers());
    let gains: Vec<f64> = devices.iter().map(most).collect();
    let (all, sizes) = (gains.iter().sum::<f64>(), whole.abs() + gains.iter().map(|gain| gain.abs()).sum::<f64>());
    whole - all - ROUNDED * sizes
}
