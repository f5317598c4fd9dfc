//! Exact results, and how far from them a backend may be.
//!
//! Every function gives pairs of a result in double precision and a bound on the error of a single-precision
//! computation in any order. A sum of `n` products is off by at most about `n` units times the sum of magnitudes (N.
//! Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), the magnitudes being those of whatever is
//! really added up: for quantised weights scale and minimum may be taken apart.

use crate::backend::op::Heads;
use crate::cpu::Arithmetic;
use crate::model::format::{BlockFormat, six_bit_scale_and_minimum};
use crate::model::geometry::RopePairs;

/// One unit of single precision, twice the largest relative rounding error.
pub(super) const EPS: f64 = f32::EPSILON as f64;

/// What is below the smallest ordinary number may be taken for zero.
const TINY: f64 = 1.2e-38;

/// A number, and how far from it a computed one may be.
pub(super) type Exact = (f64, f64);

/// Numbers as they are.
pub(super) fn plain(numbers: &[f32]) -> Vec<Exact> {
    numbers.iter().map(|&number| (f64::from(number), 0.0)).collect()
}

/// The norm of each row.
pub(super) fn norm(numbers: &[f32], weight: &[f32], epsilon: f32) -> Vec<Exact> {
    let width = weight.len() as f64;
    let row = |row: &[f32]| -> Vec<Exact> {
        let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / width;
        let scale = 1.0 / (mean + f64::from(epsilon)).sqrt();
        // The relative error of the mean halves under the root; division and root of a GPU are off by a few units.
        let relative = (0.5 * width + 10.0) * EPS;
        let one = |(&x, &w): (&f32, &f32)| {
            let exact = f64::from(x) * scale * f64::from(w);
            (exact, exact.abs() * relative + TINY)
        };
        row.iter().zip(weight).map(one).collect()
    };
    numbers.chunks_exact(weight.len()).flat_map(row).collect()
}

/// A packed matrix, read: weights, and the magnitudes of what is added up for each.
pub(super) struct Weights {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
    magnitudes: Vec<f64>,
}

impl Weights {
    pub(super) fn read(format: BlockFormat, rows: usize, columns: usize, packed: &[u8]) -> Self {
        let mut values = vec![0.0; rows * columns];
        format.dequantise_row(packed, &mut values);
        let per_block = format.values_per_block();
        let magnitudes = packed
            .chunks_exact(format.bytes_per_block())
            .zip(values.chunks_exact(per_block))
            .flat_map(|(block, values)| (0..per_block).map(move |i| magnitude(format, block, values, i)))
            .collect();
        Self { rows, columns, values, magnitudes }
    }

    /// A row as a lookup gives it. Where a minimum is added, the device may round once instead of twice.
    pub(super) fn row(&self, row: usize, minimum: bool) -> impl Iterator<Item = Exact> + '_ {
        let range = row * self.columns..(row + 1) * self.columns;
        let bound = move |magnitude: f64| if minimum { EPS * magnitude } else { 0.0 };
        let weights = self.values[range.clone()].iter().zip(&self.magnitudes[range]);
        weights.map(move |(&w, &magnitude)| (f64::from(w), bound(magnitude)))
    }

    /// `[token][row]` for tokens of activations, each with its own bound.
    pub(super) fn product(&self, input: &[Exact], arithmetic: Arithmetic) -> Vec<Exact> {
        let mut out = Vec::new();
        for x in input.chunks_exact(self.columns) {
            // Rounding to eight bits moves an activation by at most half a step, 1/127 of the largest of its block.
            let steps: Vec<f64> = x
                .chunks(32)
                .map(|block| match arithmetic {
                    Arithmetic::F32 => 0.0,
                    Arithmetic::Int8 => 0.51 / 127.0 * block.iter().fold(0.0_f64, |m, x| m.max(x.0.abs() + x.1)),
                })
                .collect();
            for r in 0..self.rows {
                let range = r * self.columns..(r + 1) * self.columns;
                let (mut exact, mut sum, mut given) = (0.0, 0.0, 0.0);
                let weights = self.values[range.clone()].iter().zip(&self.magnitudes[range]);
                for (i, ((&w, magnitude), x)) in weights.zip(x).enumerate() {
                    exact += f64::from(w) * x.0;
                    sum += magnitude * (x.0.abs() + x.1);
                    given += f64::from(w).abs() * (x.1 + steps[i / 32]);
                }
                out.push((exact, (self.columns as f64 + 8.0) * EPS * sum + given + TINY));
            }
        }
        out
    }
}

/// Magnitude of what a kernel may add up for weight `i` of a block, per unit of activation.
fn magnitude(format: BlockFormat, block: &[u8], values: &[f32], i: usize) -> f64 {
    let half = |at: usize| f64::from(half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()).abs();
    let packed = |steps: f64| {
        let scales: &[u8; 12] = block[4..16].try_into().expect("a range of twelve bytes has twelve bytes");
        let (scale, minimum) = six_bit_scale_and_minimum(scales, i / 32);
        steps * half(0) * f64::from(scale) + half(2) * f64::from(minimum)
    };
    match format {
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => f64::from(values[i]).abs(),
        BlockFormat::Q8_0 => 128.0 * half(0),
        BlockFormat::Q4_0 => (15.0 + 8.0) * half(0),
        BlockFormat::Q5_0 => (31.0 + 16.0) * half(0),
        BlockFormat::Q4_1 => 15.0 * half(0) + half(2),
        BlockFormat::Q5_1 => 31.0 * half(0) + half(2),
        BlockFormat::Q4K => packed(15.0),
        BlockFormat::Q5K => packed(31.0),
        BlockFormat::Q6K => (63.0 + 32.0) * half(208) * f64::from(block[192 + i / 16] as i8).abs(),
    }
}

/// The gate: `silu(gate) * up`.
pub(super) fn gated(gate: &[Exact], up: &[Exact]) -> Vec<Exact> {
    let one = |(&(g, eg), &(u, eu)): (&Exact, &Exact)| {
        let silu = g / (1.0 + (-g).exp());
        let exact = silu * u;
        // The slope of silu is nowhere above 1.1. `exp` may be off by 3 + 2|x| units (the WGSL specification, section
        // 15.7.4), division by 2.5.
        let bound = 1.1 * eg * (u.abs() + eu) + silu.abs() * eu + exact.abs() * (16.0 + 2.0 * g.abs()) * EPS;
        (exact, bound + TINY)
    };
    gate.iter().zip(up).map(one).collect()
}

/// A rotation as both sides know it.
pub(super) struct Turn {
    /// `[position][pair][cosine, sine]`.
    pub(super) table: Vec<f32>,
    pub(super) dimensions: usize,
    pub(super) pairs: RopePairs,
}

impl Turn {
    /// Heads of `size` numbers, all at one position.
    pub(super) fn rotate(&self, heads: &[f32], size: usize, position: usize) -> Vec<Exact> {
        let angles = &self.table[position * self.dimensions..][..self.dimensions];
        let mut out = plain(heads);
        for (head, out) in heads.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
            for (i, angle) in angles.chunks_exact(2).enumerate() {
                let (a, b) = match self.pairs {
                    RopePairs::Adjacent => (2 * i, 2 * i + 1),
                    RopePairs::SplitHalves => (i, i + self.dimensions / 2),
                };
                let (x, y) = (f64::from(head[a]), f64::from(head[b]));
                let (cosine, sine) = (f64::from(angle[0]), f64::from(angle[1]));
                let bound = 2.0 * EPS * (x.abs() + y.abs()) + TINY;
                out[a] = (x * cosine - y * sine, bound);
                out[b] = (x * sine + y * cosine, bound);
            }
        }
        out
    }
}

/// Keys and values of one sequence: `[position][kv head][number]`.
pub(super) struct Past {
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

/// Attention of one row over the first `seen` positions of its sequence.
pub(super) fn attend(query: &[f32], past: &Past, heads: Heads, scale: f32, seen: usize) -> Vec<Exact> {
    let (kv, size) = (heads.kv as usize, heads.size as usize);
    let group = (heads.query / heads.kv) as usize;
    let mut out = Vec::new();
    for (head, query) in query.chunks_exact(size).enumerate() {
        let at = |position: usize| (position * kv + head / group) * size;
        let mut scores = Vec::new();
        let mut off = 0.0_f64;
        for position in 0..seen {
            let terms = past.keys[at(position)..][..size].iter().zip(query);
            let terms = terms.map(|(&k, &q)| f64::from(k) * f64::from(q) * f64::from(scale));
            scores.push(terms.clone().sum::<f64>());
            off = off.max((size as f64 + 4.0) * EPS * terms.map(f64::abs).sum::<f64>());
        }
        let largest = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
        let smallest = scores.iter().fold(f64::INFINITY, |m, &s| m.min(s));
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        // Each weight is off by the error of its score and of the largest, and of `exp`; sums by their length. Weights
        // are divided by their sum, which is off by as much.
        let relative = 2.0 * (2.0 * off + (seen as f64 + 24.0 + 2.0 * (largest - smallest)) * EPS);
        for i in 0..size {
            let terms =
                weights.iter().enumerate().map(|(position, w)| w * f64::from(past.values[at(position) + i]) / sum);
            let magnitude: f64 = terms.clone().map(f64::abs).sum();
            out.push((terms.sum(), relative * magnitude + TINY));
        }
    }
    out
}
