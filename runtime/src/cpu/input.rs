//! Activations, laid out as the product kernels want them.

use super::Arithmetic;
use super::isa::{self, Isa, Kernel};
use super::lanes::{Lanes, tree_max, tree_sum};
use super::pack::{BLOCK, PanelKind};
use super::share::{PARTS_MAX, Pieces};
use super::team::Team;

/// What the matrices about to be multiplied need besides the plain activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Activations scaled for nibbles, and sums of blocks.
    scaled: bool,
    /// Sums of half blocks.
    halves: bool,
    /// Activations rounded to eight bits.
    rounded: bool,
}

impl Needs {
    /// The needs of a matrix.
    pub(crate) fn of(kind: PanelKind, arithmetic: Arithmetic) -> Self {
        let nibbles = kind.is_blocked() && kind != PanelKind::Bytes;
        Self {
            halves: kind == PanelKind::Sixes,
            scaled: nibbles && arithmetic == Arithmetic::F32,
            rounded: kind.is_blocked() && arithmetic == Arithmetic::Int8,
        }
    }

    /// The needs of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            scaled: self.scaled || other.scaled,
            halves: self.halves || other.halves,
            rounded: self.rounded || other.rounded,
        }
    }
}

/// A table of activations, one row per token, with the forms that kernels read.
pub(crate) struct Input {
    tokens: usize,
    width: usize,
    plain: Vec<f32>,
    scaled: Vec<f32>,
    sums: Vec<f32>,
    half_sums: Vec<f32>,
    scales: Vec<f32>,
    rounded: Vec<i8>,
    interleaved: Vec<i8>,
    rounded_sums: Vec<i32>,
    rounded_half_sums: Vec<i32>,
}

/// Where the forms of one table lie, for kernels.
#[derive(Clone, Copy)]
pub(super) struct Forms<'a> {
    /// Tokens in the table.
    pub tokens: usize,
    /// Activations of a token.
    pub width: usize,
    /// `[token][column]`.
    pub plain: &'a [f32],
    /// `[token][column]`, column `c` divided by 16 to the power of `c % 8`, but 7 taken as 0.
    pub scaled: &'a [f32],
    /// `[token][block]`: sum of a block, of the rounded activations when those are in use.
    pub sums: &'a [f32],
    /// `[token][half block]`: the same of runs of sixteen.
    pub half_sums: &'a [f32],
    /// `[token][block]`: what one step of the rounded activations is worth.
    pub scales: &'a [f32],
    /// `[token][column]`.
    pub rounded: &'a [i8],
    /// `[token][column]`, each run of eight in the order 0 2 4 6 1 3 5 7.
    pub interleaved: &'a [i8],
    /// `[token][block]`: sum of the rounded activations.
    pub rounded_sums: &'a [i32],
    /// `[token][half block]`: the same of runs of sixteen.
    pub rounded_half_sums: &'a [i32],
}

impl Input {
    /// Room for `tokens_max` tokens of `width_max` activations.
    pub(crate) fn new(tokens_max: usize, width_max: usize) -> Self {
        let (all, blocks) = (tokens_max * width_max, tokens_max * width_max.div_ceil(BLOCK));
        Self {
            tokens: 0,
            width: width_max,
            plain: vec![0.0; all],
            scaled: vec![0.0; all],
            sums: vec![0.0; blocks],
            half_sums: vec![0.0; 2 * blocks],
            scales: vec![0.0; blocks],
            rounded: vec![0; all],
            interleaved: vec![0; all],
            rounded_sums: vec![0; blocks],
            rounded_half_sums: vec![0; 2 * blocks],
        }
    }

    /// Makes a table of `tokens` rows of `width`: `fill` writes the plain form, this derives the others.
    ///
    /// `fill(first, rows)` is called by any worker with adjacent rows, the first being that of token `first`, a multiple
    /// of `together`; each row is in one call.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn fill(
        &mut self,
        team: &Team,
        isa: Isa,
        needs: Needs,
        tokens: usize,
        width: usize,
        together: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        self.tokens = tokens;
        self.width = width;
        let blocks = width / BLOCK;
        let each = tokens.div_ceil(PARTS_MAX).next_multiple_of(together);
        let all = tokens * width;
        let (plain, scaled) =
            (Pieces::new(&mut self.plain[..all], each * width), Pieces::new(&mut self.scaled[..all], each * width));
        let (rounded, interleaved) = (
            Pieces::new(&mut self.rounded[..all], each * width),
            Pieces::new(&mut self.interleaved[..all], each * width),
        );
        let of_blocks = (tokens * blocks, (each * blocks).max(1));
        let sums = Pieces::new(&mut self.sums[..of_blocks.0], of_blocks.1);
        let half_sums = Pieces::new(&mut self.half_sums[..2 * of_blocks.0], 2 * of_blocks.1);
        let scales = Pieces::new(&mut self.scales[..of_blocks.0], of_blocks.1);
        let rounded_sums = Pieces::new(&mut self.rounded_sums[..of_blocks.0], of_blocks.1);
        let rounded_half_sums = Pieces::new(&mut self.rounded_half_sums[..2 * of_blocks.0], 2 * of_blocks.1);
        team.run(tokens.div_ceil(each), &|part| {
            let rows = plain.take(part);
            fill(part * each, rows);
            if needs.scaled {
                let halves = if needs.halves { half_sums.take(part) } else { &mut [] };
                let kernel = Scale { plain: rows, scaled: scaled.take(part), sums: sums.take(part), halves };
                // SAFETY: `isa` comes from `Isa::available`; the slices are of matching lengths.
                unsafe { isa::call(isa, kernel) };
            }
            if needs.rounded {
                let kernel = Round {
                    halves: rounded_half_sums.take(part),
                    plain: rows,
                    rounded: rounded.take(part),
                    interleaved: interleaved.take(part),
                    sums: sums.take(part),
                    scales: scales.take(part),
                    rounded_sums: rounded_sums.take(part),
                };
                // SAFETY: as above.
                unsafe { isa::call(isa, kernel) };
            }
        });
    }

    /// What kernels read.
    pub(super) fn forms(&self) -> Forms<'_> {
        Forms {
            tokens: self.tokens,
            width: self.width,
            plain: &self.plain,
            scaled: &self.scaled,
            sums: &self.sums,
            half_sums: &self.half_sums,
            scales: &self.scales,
            rounded: &self.rounded,
            interleaved: &self.interleaved,
            rounded_sums: &self.rounded_sums,
            rounded_half_sums: &self.rounded_half_sums,
        }
    }
}

/// One over sixteen to the power of `i % 8`; one for 7, whose nibble comes unscaled.
const NIBBLE_SCALE: [f32; 16] = {
    let mut scale = [1.0; 16];
    let mut i = 0;
    while i < 16 {
        let power = i % 8;
        if power < 7 {
            scale[i] = 1.0 / (1_u32 << (4 * power)) as f32;
        }
        i += 1;
    }
    scale
};

/// Fills the scaled form and the sums of blocks.
struct Scale<'a> {
    plain: &'a [f32],
    scaled: &'a mut [f32],
    sums: &'a mut [f32],
    /// Sums of half blocks; empty where nobody needs them.
    halves: &'a mut [f32],
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let blocks = self.plain.chunks_exact(BLOCK).zip(self.scaled.chunks_exact_mut(BLOCK)).zip(self.sums);
        for (b, ((plain, scaled), sum)) in blocks.enumerate() {
            // SAFETY: each chunk holds 32 numbers.
            unsafe {
                let factor = V::load(NIBBLE_SCALE.as_ptr());
                let (low, high) = (V::load(plain.as_ptr()), V::load(plain.as_ptr().add(16)));
                low.mul(factor).store(scaled.as_mut_ptr());
                high.mul(factor).store(scaled.as_mut_ptr().add(16));
                let mut lanes = [0.0; 16];
                low.add(high).store(lanes.as_mut_ptr());
                *sum = tree_sum(lanes);
                if let Some(halves) = self.halves.get_mut(2 * b..2 * b + 2) {
                    low.store(lanes.as_mut_ptr());
                    halves[0] = tree_sum(lanes);
                    high.store(lanes.as_mut_ptr());
                    halves[1] = tree_sum(lanes);
                }
            }
        }
    }
}

/// Fills the rounded forms: each block of 32 in steps of its largest magnitude over 127, as ggml's Q8_0 and Q8_1.
struct Round<'a> {
    plain: &'a [f32],
    rounded: &'a mut [i8],
    interleaved: &'a mut [i8],
    sums: &'a mut [f32],
    scales: &'a mut [f32],
    rounded_sums: &'a mut [i32],
    /// Sums of half blocks.
    halves: &'a mut [i32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (b, plain) in self.plain.chunks_exact(BLOCK).enumerate() {
            let rounded = &mut self.rounded[b * BLOCK..][..BLOCK];
            let mut halves = [0; 2];
            // SAFETY: `plain` and `rounded` hold 32 elements, `lanes` sixteen.
            let scale = unsafe {
                let runs = [V::load(plain.as_ptr()), V::load(plain.as_ptr().add(16))];
                let mut lanes = [0.0; 16];
                magnitude::<V>(runs, &mut lanes);
                let scale = tree_max(lanes) / 127.0;
                // A block too small for a normal scale counts as zero: its inverse would overflow.
                let (scale, inverse) = if scale >= f32::MIN_POSITIVE { (scale, 1.0 / scale) } else { (0.0, 0.0) };
                for (half, x) in runs.into_iter().enumerate() {
                    let whole = x.mul(V::splat(inverse)).round().min(V::splat(127.0)).max(V::splat(-127.0));
                    whole.store_bytes(rounded.as_mut_ptr().add(16 * half));
                }
                scale
            };
            for (half, run) in halves.iter_mut().zip(rounded.chunks_exact(16)) {
                *half = run.iter().map(|&value| i32::from(value)).sum::<i32>();
            }
            let interleaved = &mut self.interleaved[b * BLOCK..][..BLOCK];
            for (to, from) in interleaved.chunks_exact_mut(8).zip(rounded.chunks_exact(8)) {
                to.copy_from_slice(&even_then_odd([
                    from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7],
                ]));
            }
            self.halves[2 * b..2 * b + 2].copy_from_slice(&halves);
            let sum = halves[0] + halves[1];
            self.rounded_sums[b] = sum;
            self.scales[b] = scale;
            self.sums[b] = scale * sum as f32;
        }
    }
}

/// The larger magnitude of each two lanes.
#[inline(always)]
unsafe fn magnitude<V: Lanes>(runs: [V; 2], lanes: &mut [f32; 16]) {
    // SAFETY: `lanes` holds sixteen numbers.
    unsafe {
        let zero = V::splat(0.0);
        let [low, high] = runs;
        let largest = low.max(zero.sub(low)).max(high.max(zero.sub(high)));
        largest.store(lanes.as_mut_ptr());
    }
}

/// Eight bytes in the order 0 2 4 6 1 3 5 7.
#[inline(always)]
fn even_then_odd(bytes: [i8; 8]) -> [i8; 8] {
    let word = u64::from_le_bytes(bytes.map(|byte| byte as u8));
    let (even, odd) = (every_second(word), every_second(word >> 8));
    (even | odd << 32).to_le_bytes().map(|byte| byte as i8)
}

/// Bytes 0, 2, 4 and 6, side by side.
#[inline(always)]
const fn every_second(word: u64) -> u64 {
    let x = word & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_bytes_come_first() {
        assert_eq!(even_then_odd([0, -1, 2, -3, 4, -5, 6, -7]), [0, 2, 4, 6, -1, -3, -5, -7]);
    }
}
