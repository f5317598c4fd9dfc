//! Attention time over four counts, as measured on a grid that is rarely complete.
//!
//! The counts are those of one step: tokens of a prefill chunk, tokens cached before it, decoding sequences, tokens
//! cached of each. Which points a profiler visited depends on its limits, so the grid is completed once: along one
//! axis after the other (decode context, cached tokens, sequences, chunk), linearly between known points, with the
//! slope of the last two beyond the last, and with the first known value before the first. Where a count is zero the
//! count that belongs to it means nothing, and the one value known there stands for all.

use super::TableError;
use crate::units::Seconds;

/// The counts that a point of an [`AttentionTable`] is over, in order.
pub const AXES: [&str; 4] = ["prefill chunk", "cached tokens", "decoding sequences", "decode context"];

/// Most points of a completed table: a bound on what foreign text can make us allocate.
const POINTS_MAX: usize = 1 << 22;

/// Seconds over (chunk, cached, sequences, context), one layer, completed to a full grid.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionTable {
    knots: [Vec<u32>; 4],
    /// Values in row-major order of the axes.
    seconds: Vec<f64>,
    strides: [usize; 4],
    /// Points that were measured.
    measured: usize,
    /// Errors of measured points predicted from measured neighbours.
    residuals: Vec<f64>,
}

/// Where a count lies on an axis: the knots around it, and how far from the first to the second, above 1 beyond the
/// last.
#[derive(Debug, Clone, Copy)]
struct Place {
    low: usize,
    high: usize,
    share: f64,
}

fn place(knots: &[u32], at: f64) -> Place {
    let last = knots.len() - 1;
    if last == 0 || at <= f64::from(knots[0]) {
        return Place { low: 0, high: 0, share: 0.0 };
    }
    let high = knots.partition_point(|&k| f64::from(k) < at).clamp(1, last);
    let (a, b) = (f64::from(knots[high - 1]), f64::from(knots[high]));
    Place { low: high - 1, high, share: (at - a) / (b - a) }
}

impl AttentionTable {
    /// A table through these points, `(counts, seconds)`; the last of equal points counts. Errors: no point, a time
    /// below zero, or axes whose product is beyond four million.
    pub fn new(points: &[([u32; 4], Seconds)]) -> Result<Self, TableError> {
        if points.is_empty() {
            return Err(TableError::Empty);
        }
        if let Some((_, time)) = points.iter().find(|(_, time)| time.value() < 0.0) {
            return Err(TableError::Negative(time.value()));
        }
        let knots: [Vec<u32>; 4] = std::array::from_fn(|axis| {
            let mut knots: Vec<u32> = points.iter().map(|(at, _)| at[axis]).collect();
            knots.sort_unstable();
            knots.dedup();
            knots
        });
        let size = knots.iter().try_fold(1usize, |product, axis| product.checked_mul(axis.len()));
        let Some(size) = size.filter(|&size| size <= POINTS_MAX) else {
            let (rows, columns) = (knots[0].len() * knots[1].len(), knots[2].len() * knots[3].len());
            return Err(TableError::Shape { rows, columns, values: points.len() });
        };
        let strides =
            [knots[1].len() * knots[2].len() * knots[3].len(), knots[2].len() * knots[3].len(), knots[3].len(), 1];
        let mut known: Vec<Option<f64>> = vec![None; size];
        for (at, time) in points {
            let index: usize = (0..4).map(|axis| strides[axis] * position(&knots[axis], at[axis])).sum();
            known[index] = Some(time.value());
        }
        let measured = known.iter().flatten().count();
        let residuals = residuals(&known, &knots, strides);
        // A value that is alone on its line says how the time depends on that count only where the count means nothing:
        // the context of no decodes, what was cached before no chunk. Elsewhere other axes may know better, so that
        // lone values are carried along their lines only in a second pass, which leaves no hole.
        let means_nothing = |axis: usize, index: usize| match axis {
            1 => knots[0][index / strides[0]] == 0,
            3 => knots[2][index / strides[2] % knots[2].len()] == 0,
            _ => false,
        };
        for axis in [3, 1, 2, 0] {
            complete(&mut known, &knots[axis], strides[axis], |index| means_nothing(axis, index));
        }
        for axis in [3, 1, 2, 0] {
            complete(&mut known, &knots[axis], strides[axis], |_| true);
        }
        let seconds = known.into_iter().map(|value| value.unwrap_or(0.0)).collect();
        Ok(Self { knots, seconds, strides, measured, residuals })
    }

    /// The time of one kernel with a chunk of `chunk` tokens after `cached`, and `sequences` decodes at `context` each.
    #[must_use]
    pub fn at(&self, chunk: f64, cached: f64, sequences: f64, context: f64) -> Seconds {
        let places = [
            place(&self.knots[0], chunk),
            place(&self.knots[1], cached),
            place(&self.knots[2], sequences),
            place(&self.knots[3], context),
        ];
        let low: [usize; 4] = std::array::from_fn(|axis| places[axis].low * self.strides[axis]);
        let high: [usize; 4] = std::array::from_fn(|axis| places[axis].high * self.strides[axis]);
        let along = |base: usize| {
            let (a, b) = (self.seconds[base + low[3]], self.seconds[base + high[3]]);
            a + (b - a) * places[3].share
        };
        let blend = |a: f64, b: f64, axis: usize| a + (b - a) * places[axis].share;
        let plane = |base: usize| blend(along(base + low[2]), along(base + high[2]), 2);
        let space = |base: usize| blend(plane(base + low[1]), plane(base + high[1]), 1);
        Seconds::of(blend(space(low[0]), space(high[0]), 0).max(0.0))
    }

    /// Knots of each axis, rising.
    #[must_use]
    pub const fn knots(&self) -> &[Vec<u32>; 4] {
        &self.knots
    }

    /// Points that were measured; the others are completed.
    #[must_use]
    pub const fn measured(&self) -> usize {
        self.measured
    }

    /// Relative errors of measured points that lie between measured neighbours on a line, when each is predicted from
    /// these. What was completed counts nowhere.
    #[must_use]
    pub fn residuals(&self) -> &[f64] {
        &self.residuals
    }
}

fn residuals(known: &[Option<f64>], knots: &[Vec<u32>; 4], strides: [usize; 4]) -> Vec<f64> {
    let mut errors = Vec::new();
    for (knots, stride) in knots.iter().zip(strides) {
        for (at, truth) in known.iter().enumerate() {
            let i = at / stride % knots.len();
            if i == 0 || i + 1 == knots.len() {
                continue;
            }
            let (Some(low), Some(truth), Some(high)) = (known[at - stride], *truth, known[at + stride]) else {
                continue;
            };
            if truth > 0.0 {
                let (a, x, b) = (f64::from(knots[i - 1]), f64::from(knots[i]), f64::from(knots[i + 1]));
                errors.push((low + (high - low) * (x - a) / (b - a)) / truth - 1.0);
            }
        }
    }
    errors
}

fn position(knots: &[u32], at: u32) -> usize {
    knots.partition_point(|&k| k < at)
}

/// Fills the holes of each line along one axis from the known values of that line: two or more, or one where `lone`
/// says so of the index of the line's first point.
fn complete(values: &mut [Option<f64>], knots: &[u32], stride: usize, lone: impl Fn(usize) -> bool) {
    let block = stride * knots.len();
    for start in (0..values.len()).filter(|i| i % block < stride) {
        let known: Vec<(usize, f64)> =
            (0..knots.len()).filter_map(|i| values[start + i * stride].map(|value| (i, value))).collect();
        if known.is_empty() || known.len() == knots.len() || (known.len() == 1 && !lone(start)) {
            continue;
        }
        for i in 0..knots.len() {
            let at = start + i * stride;
            if values[at].is_none() {
                values[at] = Some(between(&known, knots, i));
            }
        }
    }
}

fn between(known: &[(usize, f64)], knots: &[u32], i: usize) -> f64 {
    let right = known.partition_point(|&(k, _)| k < i);
    let ((a, low), (b, high)) = match (right, known) {
        (_, [only]) => return only.1,
        (0, [first, ..]) => return first.1,
        (right, known) if right == known.len() => (known[right - 2], known[right - 1]),
        (right, known) => (known[right - 1], known[right]),
    };
    let (from, to) = (f64::from(knots[a]), f64::from(knots[b]));
    (low + (high - low) * (f64::from(knots[i]) - from) / (to - from)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(points: &[([u32; 4], f64)]) -> AttentionTable {
        let points: Vec<_> = points.iter().map(|&(at, time)| (at, Seconds::of(time))).collect();
        AttentionTable::new(&points).expect("a table")
    }

    /// A full grid of made-up times, and the sum over all sixteen corners around a place, each with its weight: the
    /// definition of multilinear interpolation, without any index of the table.
    #[test]
    fn between_knots_the_time_is_the_weighted_sum_of_the_sixteen_corners() {
        let axes = [[0u32, 16, 64], [0, 32, 512], [1, 4, 256], [16, 128, 4096]];
        let time = |at: [u32; 4]| f64::from((at[0] * 7 + at[1] * 3 + at[2] * 11 + at[3]) % 97) + 1.0;
        let mut points = Vec::new();
        for a in axes[0] {
            for b in axes[1] {
                for c in axes[2] {
                    for d in axes[3] {
                        points.push(([a, b, c, d], time([a, b, c, d])));
                    }
                }
            }
        }
        let table = table(&points);
        for at in
            [[3.0, 31.0, 2.5, 17.0], [40.0, 100.0, 200.0, 1000.0], [16.0, 32.0, 4.0, 128.0], [0.0, 0.0, 1.0, 16.0]]
        {
            let mut expected = 0.0;
            for (corner, value) in &points {
                let mut weight = 1.0;
                for axis in 0..4 {
                    let knots = axes[axis];
                    let k = knots.iter().position(|&k| k == corner[axis]).expect("a knot");
                    let x = f64::from(knots[k]);
                    // The hat function of the knot at this place.
                    let left =
                        if k > 0 { (at[axis] - f64::from(knots[k - 1])) / (x - f64::from(knots[k - 1])) } else { 1.0 };
                    let right =
                        if k < 2 { (f64::from(knots[k + 1]) - at[axis]) / (f64::from(knots[k + 1]) - x) } else { 1.0 };
                    weight *= left.min(right).clamp(0.0, 1.0);
                }
                expected += weight * value;
            }
            let got = table.at(at[0], at[1], at[2], at[3]).value();
            assert!((got - expected).abs() < 1e-9, "{at:?}: {got} instead of {expected}");
        }
    }

    #[test]
    fn a_function_linear_in_each_count_survives_holes() {
        let f = |c: u32, k: u32, n: u32, d: u32| {
            5.0 + f64::from(c) * 0.5 + f64::from(k) * 0.01 + f64::from(n) * (1.0 + f64::from(d) * 0.1)
        };
        let mut points = Vec::new();
        for c in [0u32, 16, 32, 64] {
            for k in if c == 0 { vec![0] } else { vec![0u32, 64, 128] } {
                for n in [0u32, 1, 8, 16] {
                    for d in if n == 0 { vec![0] } else { vec![16u32, 64, 256] } {
                        // As a profiler leaves them out: too many tokens for one step, and nothing at all.
                        if c + n > 64 || c + n == 0 {
                            continue;
                        }
                        points.push(([c, k, n, d], f(c, if c == 0 { 0 } else { k }, n, d)));
                    }
                }
            }
        }
        let table = table(&points);
        assert_eq!(table.measured(), points.len());
        for (c, k, n, d) in [(64, 64, 12, 100), (40, 128, 16, 256), (16, 90, 4, 30), (64, 128, 16, 512)] {
            let got = table.at(f64::from(c), f64::from(k), f64::from(n), f64::from(d)).value();
            assert!((got - f(c, k, n, d)).abs() < 1e-9, "{c} {k} {n} {d}: {got} instead of {}", f(c, k, n, d));
        }
    }

    #[test]
    fn without_decodes_their_context_does_not_matter_and_without_a_chunk_what_was_cached() {
        let table = table(&[([0, 0, 2, 16], 3.0), ([0, 0, 2, 32], 4.0), ([8, 0, 0, 0], 5.0), ([8, 64, 0, 0], 7.0)]);
        assert_eq!(table.at(8.0, 32.0, 0.0, 0.0), table.at(8.0, 32.0, 0.0, 999.0));
        assert_eq!(table.at(0.0, 0.0, 2.0, 24.0), table.at(0.0, 50.0, 2.0, 24.0));
        assert_eq!(table.at(0.0, 0.0, 2.0, 24.0), Seconds::of(3.5));
    }

    #[test]
    fn only_measured_points_between_measured_neighbours_tell_how_well_a_table_is_known() {
        let table = table(&[([0, 0, 1, 16], 1.0), ([0, 0, 1, 32], 4.0), ([0, 0, 1, 48], 3.0), ([8, 0, 0, 0], 5.0)]);
        assert_eq!(table.residuals(), [-0.5]);
    }

    #[test]
    fn empty_and_negative_tables_are_refused() {
        assert_eq!(AttentionTable::new(&[]), Err(TableError::Empty));
        assert_eq!(AttentionTable::new(&[([0; 4], Seconds::of(-1.0))]), Err(TableError::Negative(-1.0)));
    }
}
