//! The clip bound with a price on requests in flight.
//!
//! Where fast devices are few, the clip bound lets slow ones help that keep requests for long, and Little's law alone lets
//! the fast ones serve more than they can. A price on the time in flight makes one bound of both; why it holds is said in
//! the checker. At a rate the sum is convex in price and weights, so the bound is quasiconvex in each, and found by
//! searches in turn.

use super::clip::{Span, Weights};
use super::network::Network;
use super::stay::Stay;
use crate::tables::Tables;
use isotherm_core::check::WAYS_DEVICES_MAX;

/// Halvings of the interval that holds the bound.
const HALVINGS: usize = 56;
/// The same where bounds are only compared.
const HALVINGS_COMPARED: usize = 34;
/// Steps of one search for a price or a weight, each leaving the golden section.
const STEPS: usize = 34;
/// What a step leaves of the interval: with it, one of the two points inside is an end or a point of the next.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
/// Searches for all of them in turn.
const ROUNDS: usize = 3;
/// Most that an end of the model may weigh, in layers of the model.
const WEIGHT_MAX: f64 = 4.0;
/// By what the least stay is lowered, for rounding.
const SLACK: f64 = 1e-12;

/// A bound, and the price and weights that prove it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Priced {
    /// No plan is faster.
    pub bound: f64,
    /// What a token pays for each second in flight, in weights of layers.
    pub price: f64,
    /// Weights of layers.
    pub weights: Weights,
}

/// A way to hold layers: the greatest rate and the least stay of any such interval.
struct Held {
    span: Span,
    stay: f64,
}

/// All that the bound depends on.
struct Question<'a> {
    counts: &'a [usize],
    held: Vec<Vec<Held>>,
    layers: usize,
    in_flight: f64,
}

/// Price and weights that make the bound small, and the bound; none where the devices cannot cover the layers at all.
pub(crate) fn bound(tables: &Tables<'_>, network: &Network, stay: &Stay, counts: &[usize]) -> Option<Priced> {
    let held = held(tables, network, stay);
    let question = Question { counts, held, layers: network.layers, in_flight: stay.in_flight };
    let all = |held: &Vec<Held>| held.iter().map(|way| way.span.rate).fold(0.0, f64::max);
    let most: f64 = question.held.iter().zip(counts).map(|(held, &count)| count as f64 * all(held)).sum();
    if most <= 0.0 || !question.in_flight.is_finite() {
        return None;
    }
    let mut best = Priced { bound: most, price: 0.0, weights: Weights::PLAIN };
    for round in 0..ROUNDS {
        let before = best.bound;
        let dearest = question.dearest(best.weights);
        question.better(&mut best, most, dearest, |best, price| Priced { price, ..best });
        let heaviest = WEIGHT_MAX * network.layers as f64;
        question.better(&mut best, most, heaviest, |best, first| Priced {
            weights: Weights { first, ..best.weights },
            ..best
        });
        question.better(&mut best, most, heaviest, |best, last| Priced {
            weights: Weights { last, ..best.weights },
            ..best
        });
        if round > 0 && best.bound > before * (1.0 - 1e-6) {
            break;
        }
    }
    Some(best)
}

impl Question<'_> {
    /// Weight covered at a rate, what requests in flight pay included, less that of all layers.
    fn over(&self, at: f64, price: f64, weights: Weights) -> f64 {
        let most = |held: &Vec<Held>| {
            let gain = |way: &Held| way.span.rate.min(at) * (weights.of(way.span) - price * way.stay);
            held.iter().map(gain).fold(0.0, f64::max)
        };
        let covered: f64 = self.counts.iter().zip(&self.held).map(|(&count, held)| count as f64 * most(held)).sum();
        covered + price * self.in_flight - weights.whole(self.layers) * at
    }

    /// The largest rate up to `most` that is not ruled out, from above.
    fn largest(&self, most: f64, asked: &Priced, halvings: usize) -> f64 {
        let (mut low, mut high) = (0.0, most);
        if self.over(high, asked.price, asked.weights) >= 0.0 {
            return high;
        }
        for _ in 0..halvings {
            let middle = f64::midpoint(low, high);
            if self.over(middle, asked.price, asked.weights) >= 0.0 { low = middle } else { high = middle }
        }
        high
    }

    /// A price at which nothing is worth holding.
    fn dearest(&self, weights: Weights) -> f64 {
        let ways = self.held.iter().flatten().filter(|way| way.stay > 0.0);
        ways.map(|way| weights.of(way.span) / way.stay).fold(0.0, f64::max)
    }

    fn better(&self, best: &mut Priced, most: f64, high: f64, with: impl Fn(Priced, f64) -> Priced) {
        let (mut low, mut high) = (0.0, high);
        // What the known one of two points reaches is enough to ask of the other: most often one look tells that it is
        // no better.
        let value = |at: f64, known: f64| {
            let found = self.largest(known, &with(*best, at), HALVINGS_COMPARED);
            if found < known || known >= most { found } else { f64::INFINITY }
        };
        let inside = |low: f64, high: f64| (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        let (mut a, mut b) = inside(low, high);
        let mut reached = (value(a, most), value(b, most));
        for _ in 0..STEPS {
            if reached.0 <= reached.1 {
                high = b;
                (a, b) = (inside(low, high).0, a);
                reached = (value(a, reached.0), reached.0);
            } else {
                low = a;
                (a, b) = (b, inside(low, high).1);
                reached = (reached.1, value(b, reached.1));
            }
        }
        let found = with(*best, f64::midpoint(low, high));
        let bound = self.largest(most, &found, HALVINGS);
        if bound < best.bound {
            *best = Priced { bound, ..found };
        }
    }
}

/// For each kind, the ways to hold layers.
fn held(tables: &Tables<'_>, network: &Network, stay: &Stay) -> Vec<Vec<Held>> {
    let layers = network.layers;
    let far = tables.candidates.len() * tables.problem.formats().len() > WAYS_DEVICES_MAX;
    let of_kind = |kind: usize| {
        let members = || (0..tables.candidates.len()).filter(move |&d| tables.candidates[d].kind == kind);
        let least = |times: &mut dyn Iterator<Item = f64>| if far { 0.0 } else { times.fold(f64::INFINITY, f64::min) };
        let entry = least(&mut members().map(|d| stay.source[d]));
        let exit = least(&mut members().map(|d| stay.sink[d]));
        let ways = members().flat_map(|to| (0..tables.candidates.len()).map(move |from| (from, to)));
        let between = least(&mut ways.filter(|(from, to)| from != to).map(|(from, to)| stay.pair[from][to]));
        let mut held: Vec<Held> = Vec::new();
        for count in 1..=layers {
            for start in 0..=layers - count {
                let rate = network.stage[kind].at(start, start + count);
                let (first, last) = (start == 0, start + count == layers);
                let way = (if first { entry } else { between }) + (if last { exit } else { 0.0 });
                if rate <= 0.0 || way.is_infinite() {
                    continue;
                }
                let time = (stay.stage[kind].at(start, start + count) + way) * (1.0 - SLACK);
                let alike = |way: &&mut Held| {
                    let span = way.span;
                    (span.held, span.first, span.last) == (count, first, last)
                };
                match held.iter_mut().rev().take(4).find(alike) {
                    Some(way) => (way.span.rate, way.stay) = (way.span.rate.max(rate), way.stay.min(time)),
                    None => held.push(Held { span: Span { held: count, first, last, rate }, stay: time }),
                }
            }
        }
        held
    };
    (0..tables.kinds.len()).map(of_kind).collect()
}
