//! The clip bound: a closed form that bounds every plan's rate, whatever the network.
//!
//! In a plan of rate `F` the devices that hold a layer have rates that add to at least `F`, also when each is clipped
//! at `F`. Summed over `L` layers: `sum over devices of max over k of k * min(T(k), F) >= L * F`. Divided by `F` the
//! left side only falls, so bisection finds the largest `F` that passes.

use super::network::Network;
use crate::tables::Tables;

/// Halvings of the interval that holds the bound: more than a float has bits.
const HALVINGS: usize = 80;

/// For each candidate's kind: greatest rate with so many layers, wherever they lie, by number of layers from 1.
pub(crate) fn greatest_rates(tables: &Tables<'_>, network: &Network) -> Vec<Vec<f64>> {
    let layers = network.layers;
    let greatest = |kind: usize, k: usize| {
        (0..=layers - k).map(|start| network.stage[kind].at(start, start + k)).fold(0.0, f64::max)
    };
    (0..tables.kinds.len()).map(|kind| (1..=layers).map(|k| greatest(kind, k)).collect()).collect()
}

/// Layers that all devices cover at rate `at`, by the clip bound's count.
pub(crate) fn covered(counts: &[usize], greatest: &[Vec<f64>], at: f64) -> f64 {
    let most = |rates: &Vec<f64>| {
        rates.iter().enumerate().map(|(i, rate)| (i + 1) as f64 * (rate / at).min(1.0)).fold(0.0, f64::max)
    };
    counts.iter().zip(greatest).map(|(&count, rates)| count as f64 * most(rates)).sum()
}

/// Number of candidates of each kind.
pub(crate) fn counts(tables: &Tables<'_>) -> Vec<usize> {
    let mut counts = vec![0; tables.kinds.len()];
    tables.candidates.iter().for_each(|c| counts[c.kind] += 1);
    counts
}

/// No plan is faster than this; zero where the devices cannot cover the layers at any rate.
pub(crate) fn bound(tables: &Tables<'_>, network: &Network) -> f64 {
    let (counts, greatest) = (counts(tables), greatest_rates(tables, network));
    let layers = network.layers as f64;
    let all = greatest.iter().zip(&counts).map(|(rates, &n)| n as f64 * rates.iter().copied().fold(0.0, f64::max));
    let (mut low, mut high) = (0.0, all.sum::<f64>());
    if covered(&counts, &greatest, high) >= layers {
        return high;
    }
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if covered(&counts, &greatest, middle) >= layers { low = middle } else { high = middle }
    }
    if low == 0.0 { 0.0 } else { high }
}
