//! The clip bound: a closed form that bounds every plan's rate, whatever the network.
//!
//! In a plan of rate `F` the devices that hold a layer have rates that add to at least `F`, also when each is clipped
//! at `F`. Weigh the layers by any `w >= 0` and sum over them: `sum over devices of max over intervals of
//! w(interval) * min(T(interval), F) >= w(all layers) * F`. Divided by `F` the left side only falls, so bisection finds
//! the largest `F` that passes.
//!
//! With all weights 1 this is the plain clip bound. The ends of the model cost more than its middle (embedding and head),
//! as if they were several layers; giving the first and the last layer so much more weight makes the bound tight where
//! that cost matters. The bound is quasiconvex in the weights, so each is found by a ternary search.

use super::network::Network;
use crate::tables::Tables;

/// Halvings of the interval that holds the bound: more than a float has bits.
const HALVINGS: usize = 80;
/// Steps of one search for a weight, each leaving two thirds.
const THIRDS: usize = 24;
/// Searches for each of the two weights.
const ROUNDS: usize = 2;
/// Most that an end of the model may weigh, in layers of the model.
const WEIGHT_MAX: f64 = 4.0;

/// A way to hold layers: how many, which ends of the model among them, and the greatest rate of any such interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    /// Number of layers.
    pub held: usize,
    /// Whether the first layer is one of them.
    pub first: bool,
    /// Whether the last layer is one of them.
    pub last: bool,
    /// The rate.
    pub rate: f64,
}

#[cfg(test)]
impl Span {
    /// Those of a device of so many layers at most, whose rate is `speed / k` while it holds `k`.
    pub(crate) fn falling(speed: f64, most: usize) -> Vec<Self> {
        let ends = [(false, false), (true, false), (false, true), (true, true)];
        let of = |held: usize| ends.map(|(first, last)| Self { held, first, last, rate: speed / held as f64 });
        (1..=most).flat_map(of).collect()
    }
}

/// Weights of layers: 1 but for the first and the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights {
    /// What the first layer weighs beyond 1.
    pub first: f64,
    /// What the last layer weighs beyond 1.
    pub last: f64,
}

impl Weights {
    /// All layers alike.
    pub const PLAIN: Self = Self { first: 0.0, last: 0.0 };

    /// Weight of a span.
    pub fn of(self, span: Span) -> f64 {
        let end = |there: bool, weight: f64| if there { weight } else { 0.0 };
        span.held as f64 + end(span.first, self.first) + end(span.last, self.last)
    }

    /// Weight of all layers.
    pub fn whole(self, layers: usize) -> f64 {
        layers as f64 + self.first + self.last
    }
}

/// For each kind, the ways to hold layers at some rate.
pub(crate) fn spans(tables: &Tables<'_>, network: &Network) -> Vec<Vec<Span>> {
    let layers = network.layers;
    let of_kind = |kind: usize| {
        let mut spans: Vec<Span> = Vec::new();
        for held in 1..=layers {
            for start in 0..=layers - held {
                let rate = network.stage[kind].at(start, start + held);
                let (first, last) = (start == 0, start + held == layers);
                if rate <= 0.0 {
                    continue;
                }
                let alike = |s: &&mut Span| (s.held, s.first, s.last) == (held, first, last);
                match spans.iter_mut().rev().take(4).find(alike) {
                    Some(span) => span.rate = span.rate.max(rate),
                    None => spans.push(Span { held, first, last, rate }),
                }
            }
        }
        spans
    };
    (0..tables.kinds.len()).map(of_kind).collect()
}

/// Greatest rate by kind and number of layers from 1; zero where so many are not held.
pub(crate) fn greatest_rates(tables: &Tables<'_>, network: &Network) -> Vec<Vec<f64>> {
    let greatest = |spans: Vec<Span>| {
        let mut rates = vec![0.0_f64; network.layers];
        spans.iter().for_each(|span| rates[span.held - 1] = rates[span.held - 1].max(span.rate));
        rates
    };
    spans(tables, network).into_iter().map(greatest).collect()
}

/// Number of candidates of each kind.
pub(crate) fn counts(tables: &Tables<'_>) -> Vec<usize> {
    let mut counts = vec![0; tables.kinds.len()];
    tables.candidates.iter().for_each(|c| counts[c.kind] += 1);
    counts
}

/// Weight that all devices cover at rate `at`.
fn covered(counts: &[usize], spans: &[Vec<Span>], weights: Weights, at: f64) -> f64 {
    let most = |spans: &Vec<Span>| spans.iter().map(|&s| weights.of(s) * (s.rate / at).min(1.0)).fold(0.0, f64::max);
    counts.iter().zip(spans).map(|(&count, spans)| count as f64 * most(spans)).sum()
}

/// No plan is faster than this; zero where the devices cannot cover the layers at any rate.
pub(crate) fn bound(counts: &[usize], spans: &[Vec<Span>], layers: usize, weights: Weights) -> f64 {
    let whole = weights.whole(layers);
    let all = spans.iter().zip(counts).map(|(spans, &n)| n as f64 * spans.iter().map(|s| s.rate).fold(0.0, f64::max));
    let (mut low, mut high) = (0.0, all.sum::<f64>());
    if high <= 0.0 || covered(counts, spans, weights, high) >= whole {
        return high;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if covered(counts, spans, weights, middle) >= whole { low = middle } else { high = middle }
    }
    if low == 0.0 { 0.0 } else { high }
}

/// Worths of a device of each kind that say the same as the clip bound: its share of a layer is at least its share of the
/// rate, so devices that carry a layer pay for it.
pub(crate) fn worths(spans: &[Vec<Span>], weights: Weights, bound: f64) -> Vec<f64> {
    let at = bound * (1.0 + 1e-9);
    let most = |spans: &Vec<Span>| spans.iter().map(|&s| weights.of(s) * (s.rate / at).min(1.0)).fold(0.0, f64::max);
    // What makes up for rounding.
    spans.iter().map(|spans| most(spans) * (1.0 + 1e-12)).collect()
}

/// Weights that make the bound small, and the bound.
pub(crate) fn weigh(counts: &[usize], spans: &[Vec<Span>], layers: usize) -> (Weights, f64) {
    let value = |weights: Weights| bound(counts, spans, layers, weights);
    let mut best = (Weights::PLAIN, value(Weights::PLAIN));
    for _ in 0..ROUNDS {
        for first in [true, false] {
            let with = |weight: f64| {
                if first { Weights { first: weight, ..best.0 } } else { Weights { last: weight, ..best.0 } }
            };
            let (mut low, mut high) = (0.0, WEIGHT_MAX * layers as f64);
            for _ in 0..THIRDS {
                let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                if value(with(a)) <= value(with(b)) { high = b } else { low = a }
            }
            let found = with(f64::midpoint(low, high));
            let bound = value(found);
            if bound < best.1 {
                best = (found, bound);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans of a device that takes `step + layers + ends` units of time for its layers.
    fn device(layers: usize, step: f64, head: f64) -> Vec<Span> {
        let mut spans = Vec::new();
        for held in 1..=layers {
            for (first, last) in [(false, false), (true, false), (false, true), (true, true)] {
                let fits = if first && last { held == layers } else { held < layers };
                if fits {
                    let time = step + held as f64 + if last { head } else { 0.0 };
                    spans.push(Span { held, first, last, rate: 1.0 / time });
                }
            }
        }
        spans
    }

    #[test]
    fn a_weight_on_the_head_closes_the_bound_for_devices_that_hold_everything() {
        let spans = [device(10, 0.5, 3.0), device(10, 0.2, 3.0)];
        let best = 2.0 / 13.5 + 1.0 / 13.2;
        let plain = bound(&[2, 1], &spans, 10, Weights::PLAIN);
        let (weights, weighed) = weigh(&[2, 1], &spans, 10);
        assert!(plain > best * 1.1, "{plain} should miss the head");
        assert!((weighed - best).abs() < 1e-6 * best, "{weighed} instead of {best} at {weights:?}");
    }

    #[test]
    fn four_equal_devices_are_bound_by_their_rate_with_a_quarter_of_the_layers() {
        let spans = [[2.0, 1.2, 0.9]
            .iter()
            .enumerate()
            .map(|(i, &rate)| Span { held: i + 1, first: false, last: false, rate })
            .collect()];
        let found = bound(&[4], &spans, 8, Weights::PLAIN);
        assert!((found - 1.35).abs() < 1e-9, "4 devices cover 3 layers at 0.9 each: 10.8 / 8, not {found}");
    }
}
