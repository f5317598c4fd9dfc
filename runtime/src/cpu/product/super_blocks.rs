//! Products of super-blocks: Q4_K, Q5_K and Q6_K. See [`crate::cpu::pack`] for how they lie in memory.
//!
//! A *run* is what one scale covers: 32 columns with `HIGH` zero or one, 16 with two. Per run `p` is the sum of value times
//! activation, then `y = fma(p, d s, y)` and `y = fma(m, a, y)`, with `a` the sum of the run's activations, and `m` minus
//! the part's minimum, or `-32 d s` with six bits. Products of a half-precision scale with a byte are exact.

use super::super::lanes::Lanes;
use super::super::pack::{BLOCK, PANEL_ROWS, SUPER_BLOCK};
use super::blocks::{bytes_of, four_bytes, in_steps, value};
use super::{AHEAD, Family, Operands, column, words_of, zeros};

/// Bytes of scales and minima of one panel in one super-block.
const fn scale_bytes(high: usize) -> usize {
    (if high == 2 { 18 } else { 20 }) * PANEL_ROWS
}

/// Scale and minimum of run `run` of a super-block, `scales` being those of one panel.
#[inline(always)]
unsafe fn scale_of<V: Lanes, const HIGH: usize>(scales: *const u8, run: usize) -> (V, V) {
    // SAFETY: the panel holds the scales of its super-block.
    unsafe {
        let whole = V::load_half(scales);
        if HIGH == 2 {
            let scale = whole.mul(V::load_signed_bytes(scales.add((2 + run) * PANEL_ROWS)));
            (scale, scale.mul(V::splat(-32.0)))
        } else {
            let scale = whole.mul(V::load_bytes(scales.add((4 + run) * PANEL_ROWS)));
            let minimum = V::load_half(scales.add(2 * PANEL_ROWS));
            let minimum = minimum.mul(V::load_bytes(scales.add((12 + run) * PANEL_ROWS)));
            (scale, minimum.mul(V::splat(-1.0)))
        }
    }
}

/// Adds the sums of one run, scaled, and its minimum times the sum of its activations.
#[inline(always)]
unsafe fn add_run<V: Lanes, const HIGH: usize, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    run: usize,
    part: &[[V; T]; G],
    totals: &mut [[V; T]; G],
) {
    let runs = o.columns / if HIGH == 2 { BLOCK / 2 } else { BLOCK };
    let each = SUPER_BLOCK / if HIGH == 2 { BLOCK / 2 } else { BLOCK };
    let sums = if HIGH == 2 { o.half_sums } else { o.sums };
    for g in 0..G {
        // SAFETY: each panel holds the scales of its blocks, each token the sums of its runs.
        unsafe {
            let at = o.scales.add(block * o.step + g * scale_bytes(HIGH));
            let (scale, minimum) = scale_of::<V, HIGH>(at, run);
            for t in 0..T {
                let total = part[g][t].fma(scale, totals[g][t]);
                let sum = V::splat(*sums.add(t * runs + block * each + run));
                totals[g][t] = minimum.fma(sum, total);
            }
        }
    }
}

/// Asks for the scales of the next super-block.
#[inline(always)]
unsafe fn prefetch_scales<V: Lanes, const HIGH: usize, const G: usize>(o: &Operands, block: usize) {
    for g in 0..G {
        for line in (0..scale_bytes(HIGH)).step_by(64) {
            // SAFETY: any address may be asked for.
            unsafe {
                V::prefetch(o.scales.wrapping_add(block * o.step + g * scale_bytes(HIGH) + line + AHEAD));
            }
        }
    }
}

/// Where the bits above group `j` of a part are: in which word, and from which bit on.
const fn above_of(high: usize, j: usize) -> (usize, u32) {
    if high == 2 { (j / 2, 2 * (j % 2) as u32) } else { (0, j as u32) }
}

/// The words with the bits above the nibbles of part `part`; zeros where there are none.
#[inline(always)]
unsafe fn words_above<V: Lanes, const HIGH: usize, const G: usize>(
    o: &Operands,
    block: usize,
    part: usize,
) -> [[V::Words; G]; 2] {
    // SAFETY: panels hold `4 + HIGH` groups for each part.
    unsafe {
        let mut above = [[V::splat_words(0); G]; 2];
        for (h, words) in above.iter_mut().enumerate().take(HIGH) {
            *words = words_of::<V, G>(o.weights.add(block * o.step + (part * (4 + HIGH) + 4 + h) * o.groups_apart));
        }
        above
    }
}

/// Super-blocks with single-precision activations; `HIGH` bits above the nibbles.
pub(super) struct Parts<const HIGH: usize>;

impl<const HIGH: usize> Family for Parts<HIGH> {
    const WIDENS: bool = true;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: panels hold `4 + HIGH` groups for each part of 32 columns, tokens 32 activations.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / SUPER_BLOCK {
                prefetch_scales::<V, HIGH, G>(o, b);
                for part in 0..SUPER_BLOCK / BLOCK {
                    let above = words_above::<V, HIGH, G>(o, b, part);
                    let mut run = zeros::<V, G, T>();
                    for j in 0..4 {
                        let at = o.weights.add(b * o.step + (part * (4 + HIGH) + j) * o.groups_apart);
                        let words = words_of::<V, G>(at);
                        let (word, place) = above_of(HIGH, j);
                        let x = o.scaled.add(b * SUPER_BLOCK + part * BLOCK + 8 * j);
                        macro_rules! columns {
                            ($($i:literal)*) => {$(
                                let mut weights = [V::splat(0.0); G];
                                for g in 0..G {
                                    weights[g] = value::<V, HIGH, $i>(words[g], above[word][g], place);
                                }
                                column(weights, x.add($i), o.columns, &mut run);
                            )*};
                        }
                        columns!(0 1 2 3 4 5 6 7);
                        if HIGH == 2 && j % 2 == 1 {
                            add_run::<V, HIGH, G, T>(o, b, 2 * part + j / 2, &run, &mut totals);
                            run = zeros::<V, G, T>();
                        }
                    }
                    if HIGH < 2 {
                        add_run::<V, HIGH, G, T>(o, b, part, &run, &mut totals);
                    }
                }
            }
            totals
        }
    }
}

/// Super-blocks with eight-bit activations.
pub(super) struct RoundedParts<const HIGH: usize>;

impl<const HIGH: usize> Family for RoundedParts<HIGH> {
    const WIDENS: bool = false;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: as for `Parts`, with 32 rounded activations.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / SUPER_BLOCK {
                prefetch_scales::<V, HIGH, G>(o, b);
                for part in 0..SUPER_BLOCK / BLOCK {
                    let block_of_32 = b * (SUPER_BLOCK / BLOCK) + part;
                    let above = words_above::<V, HIGH, G>(o, b, part);
                    let mut run = [[V::splat_words(0); T]; G];
                    for j in 0..4 {
                        let at = o.weights.add(b * o.step + (part * (4 + HIGH) + j) * o.groups_apart);
                        let words = words_of::<V, G>(at);
                        let (word, place) = above_of(HIGH, j);
                        for g in 0..G {
                            let [even, odd] = bytes_of::<V, HIGH>(words[g], above[word][g], place);
                            for t in 0..T {
                                let x = o.interleaved.add(t * o.columns + block_of_32 * BLOCK + 8 * j);
                                let sum = V::dot_nibbles(run[g][t], even, four_bytes(x));
                                run[g][t] = V::dot_nibbles(sum, odd, four_bytes(x.add(4)));
                            }
                        }
                        if HIGH == 2 && j % 2 == 1 {
                            let numbers = in_steps::<V, G, T>(o, block_of_32, &run, 1.0);
                            add_run::<V, HIGH, G, T>(o, b, 2 * part + j / 2, &numbers, &mut totals);
                            run = [[V::splat_words(0); T]; G];
                        }
                    }
                    if HIGH < 2 {
                        let numbers = in_steps::<V, G, T>(o, block_of_32, &run, 1.0);
                        add_run::<V, HIGH, G, T>(o, b, part, &numbers, &mut totals);
                    }
                }
            }
            totals
        }
    }
}
