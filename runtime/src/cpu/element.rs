//! Operations on single rows: norm, rotation of positions, gate, largest element.

use super::isa::{self, Isa, Kernel};
use super::lanes::{Lanes, tree_sum};
use crate::model::geometry::{Activation, Rope, RopePairs};

/// `e` to the power of each lane, for lanes from -87 to 88; others are moved to the nearer end.
///
/// Range reduction and polynomial of the Cephes library's `expf` (S. Moshier): error below 2 units in the last place, and
/// exactly 1 at 0.
///
/// # Safety
/// As all of [`Lanes`].
#[inline(always)]
pub(super) unsafe fn exp<V: Lanes>(x: V) -> V {
    // SAFETY: arithmetic on registers only.
    unsafe {
        let x = x.max(V::splat(-87.0)).min(V::splat(88.0));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(V::splat(-0.693_359_4), x);
        let r = n.fma(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.987_569_1e-4);
        for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.fma(r, V::splat(coefficient));
        }
        let p = p.fma(r.mul(r), r).add(V::splat(1.0));
        p.mul(n.power_of_two())
    }
}

/// RMS norm of a row: `x / sqrt(mean(x^2) + epsilon) * weight`.
///
/// # Panics
/// When lengths differ or are no multiple of 16.
pub(crate) fn norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(
        x.len() == weight.len() && x.len() == out.len() && x.len().is_multiple_of(16),
        "norm of {} by {} into {}",
        x.len(),
        weight.len(),
        out.len()
    );
    let kernel = Norm { x, weight, epsilon, out };
    // SAFETY: `isa` comes from `Isa::available`; lengths are checked above.
    unsafe { isa::call(isa, kernel) }
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: all three rows are of one length, a multiple of 16.
        unsafe {
            let mut squares = V::splat(0.0);
            for x in self.x.chunks_exact(16) {
                let x = V::load(x.as_ptr());
                squares = x.fma(x, squares);
            }
            let mut lanes = [0.0; 16];
            squares.store(lanes.as_mut_ptr());
            let mean = tree_sum(lanes) / self.x.len() as f32;
            let scale = V::splat(1.0 / (mean + self.epsilon).sqrt());
            for i in (0..self.x.len()).step_by(16) {
                let x = V::load(self.x.as_ptr().add(i)).mul(scale);
                x.mul(V::load(self.weight.as_ptr().add(i))).store(self.out.as_mut_ptr().add(i));
            }
        }
    }
}

/// `gate = f(gate) * up`, element by element, where `f(x) = x / (1 + exp(-u))` with `u = x` for SiLU and
/// `u = 2 sqrt(2 / pi) (x + 0.044715 x^3)` for the tanh form of GELU.
///
/// # Panics
/// When lengths differ.
pub(crate) fn gate(isa: Isa, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up are of one length");
    // SAFETY: `isa` comes from `Isa::available`; lengths are equal.
    unsafe {
        match activation {
            Activation::Silu => isa::call(isa, Gate::<false> { gate, up }),
            Activation::Gelu => isa::call(isa, Gate::<true> { gate, up }),
        }
    }
}

struct Gate<'a, const GELU: bool> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl<const GELU: bool> Kernel for Gate<'_, GELU> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        // SAFETY: whole chunks hold sixteen numbers; the rest goes through buffers of sixteen.
        unsafe {
            let whole = self.gate.len() / 16 * 16;
            for i in (0..whole).step_by(16) {
                gate_sixteen::<V, GELU>(self.gate.as_mut_ptr().add(i), self.up.as_ptr().add(i));
            }
            let rest = self.gate.len() - whole;
            if rest > 0 {
                let (mut gate, mut up) = ([0.0; 16], [0.0; 16]);
                gate[..rest].copy_from_slice(&self.gate[whole..]);
                up[..rest].copy_from_slice(&self.up[whole..]);
                gate_sixteen::<V, GELU>(gate.as_mut_ptr(), up.as_ptr());
                self.gate[whole..].copy_from_slice(&gate[..rest]);
            }
        }
    }
}

/// [`gate`] for sixteen numbers. Not a closure: those are compiled without the kernel's instruction set.
#[inline(always)]
unsafe fn gate_sixteen<V: Lanes, const GELU: bool>(gate: *mut f32, up: *const f32) {
    // SAFETY: the caller's pointers hold sixteen numbers.
    unsafe {
        let x = V::load(gate);
        let u = if GELU {
            // 2 sqrt(2 / pi).
            let slope = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
            x.mul(x).fma(V::splat(slope * 0.044_715), V::splat(slope)).mul(x)
        } else {
            x
        };
        let grown = exp(V::splat(0.0).sub(u)).add(V::splat(1.0));
        x.div(grown).mul(V::load(up)).store(gate);
    }
}

/// Rotations of every position: cosines and sines, computed in double precision.
pub(crate) struct Rotations {
    pairs: RopePairs,
    dimensions: usize,
    /// `[position][pair][cosine, sine]`.
    table: Vec<f32>,
}

impl Rotations {
    /// Rotations for positions below `positions`.
    pub(crate) fn new(rope: &Rope, positions: usize) -> Self {
        let (frequencies, magnitude) = (rope.frequencies(), rope.magnitude());
        let mut table = Vec::with_capacity(positions * rope.dimensions);
        for position in 0..positions {
            for frequency in &frequencies {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                table.extend([(cosine * magnitude) as f32, (sine * magnitude) as f32]);
            }
        }
        Self { pairs: rope.pairs, dimensions: rope.dimensions, table }
    }

    /// Rotates one head in place. Numbers past the rotated dimensions stay.
    ///
    /// # Panics
    /// When the position is past the table or the head shorter than the rotated dimensions.
    pub(crate) fn rotate(&self, isa: Isa, position: usize, head: &mut [f32]) {
        let kernel = Rotate {
            pairs: self.pairs,
            table: &self.table[position * self.dimensions..][..self.dimensions],
            head: &mut head[..self.dimensions],
        };
        // SAFETY: `isa` comes from `Isa::available`.
        unsafe { isa::call(isa, kernel) }
    }
}

struct Rotate<'a> {
    pairs: RopePairs,
    table: &'a [f32],
    head: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let turns = self.table.chunks_exact(2);
        match self.pairs {
            RopePairs::Adjacent => {
                for (pair, turn) in self.head.chunks_exact_mut(2).zip(turns) {
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * turn[0] - b * turn[1];
                    pair[1] = a * turn[1] + b * turn[0];
                }
            }
            RopePairs::SplitHalves => {
                let (low, high) = self.head.split_at_mut(self.table.len() / 2);
                for ((a, b), turn) in low.iter_mut().zip(high).zip(turns) {
                    let (old_a, old_b) = (*a, *b);
                    *a = old_a * turn[0] - old_b * turn[1];
                    *b = old_a * turn[1] + old_b * turn[0];
                }
            }
        }
    }
}

/// Position of the largest element, the first of equals; NaN counts as smallest.
///
/// # Panics
/// When the row is empty.
pub(crate) fn largest(row: &[f32]) -> usize {
    assert!(!row.is_empty(), "the largest of no numbers");
    // Two passes: the first is a plain maximum over runs, which compilers make wide.
    let maximum = |run: &[f32]| {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let chunks = run.chunks_exact(16);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = if value > *lane { value } else { *lane };
            }
        }
        let all = lanes.iter().chain(rest);
        all.fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    };
    let (mut best, mut best_run) = (f32::NEG_INFINITY, 0);
    for (i, run) in row.chunks(1024).enumerate() {
        let value = maximum(run);
        if value > best {
            (best, best_run) = (value, i);
        }
    }
    let start = best_run * 1024;
    let within = row[start..].iter().position(|&v| v == best);
    start + within.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_the_first_of_equals() {
        let mut row = vec![0.0; 5000];
        row[1500] = 3.0;
        row[4000] = 3.0;
        row[17] = f32::NAN;
        assert_eq!(largest(&row), 1500);
        assert_eq!(largest(&[f32::NEG_INFINITY; 3]), 0);
    }

    struct Exp([f32; 16]);

    impl Kernel for Exp {
        type Output = [f32; 16];

        #[inline(always)]
        unsafe fn run<V: Lanes>(mut self) -> [f32; 16] {
            // SAFETY: the array holds sixteen numbers.
            unsafe { exp(V::load(self.0.as_ptr())).store(self.0.as_mut_ptr()) };
            self.0
        }
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place_on_every_instruction_set() {
        for step in -5568..5632 {
            let x = step as f32 / 64.0;
            let expected = f64::from(x).exp();
            for &isa in Isa::available() {
                // SAFETY: the instruction set is available.
                let got = unsafe { isa::call(isa, Exp([x; 16])) }[7];
                let unit = f64::from(f32::EPSILON) * expected;
                assert!((f64::from(got) - expected).abs() <= 2.0 * unit, "{isa:?} exp({x}) = {got}");
            }
        }
        for &isa in Isa::available() {
            // SAFETY: the instruction set is available.
            assert_eq!(unsafe { isa::call(isa, Exp([0.0; 16])) }, [1.0; 16]);
        }
    }
}
