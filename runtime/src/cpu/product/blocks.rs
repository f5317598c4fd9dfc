//! Products of nibbles, in blocks of 32 and in super-blocks of 256 columns, and of bytes.
//!
//! A *part* is 32 columns: four groups of nibbles, and the bits above them. A *run* is what one scale covers: a part, or half
//! of one with six bits. What the formats share, the walk over parts and runs, is written here once for unrounded and once
//! for rounded activations; where a format keeps its scales and minima is in [`super::scales`].

use super::super::lanes::Lanes;
use super::super::pack::{BLOCK, PANEL_ROWS};
use super::scales::{Minimum, Scales};
use super::{AHEAD, Family, Operands, column, words_of, zeros};
use std::marker::PhantomData;

/// Adds the sums of one run, scaled, and its minimum times the sum of its activations.
#[inline(always)]
unsafe fn add_run<V: Lanes, S: Scales, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    run: usize,
    minimum: Minimum,
    part: &[[V; T]; G],
    totals: &mut [[V; T]; G],
) {
    let (runs, each) = (o.columns / S::RUN, S::COLUMNS / S::RUN);
    let sums = if S::RUN == BLOCK { o.sums } else { o.half_sums };
    for g in 0..G {
        // SAFETY: each panel holds the scales of its blocks, each token the sums of its runs.
        unsafe {
            let at = o.scales.add(block * o.step + g * S::BYTES);
            let scale = S::scale::<V>(at, run);
            let minimum = match minimum {
                Minimum::None => None,
                Minimum::Middle => Some(scale.mul(V::splat(-(S::MIDDLE as f32)))),
                Minimum::Stored => Some(S::minimum::<V>(at, run)),
            };
            for t in 0..T {
                let mut total = part[g][t].fma(scale, totals[g][t]);
                if let Some(minimum) = minimum {
                    let sum = V::splat(*sums.add(t * runs + block * each + run));
                    total = minimum.fma(sum, total);
                }
                totals[g][t] = total;
            }
        }
    }
}

/// Asks for the scales that are needed next.
#[inline(always)]
unsafe fn prefetch_scales<V: Lanes, S: Scales, const G: usize>(o: &Operands, block: usize) {
    for line in (0..G * S::BYTES).step_by(64) {
        // SAFETY: any address may be asked for.
        unsafe { V::prefetch(o.scales.wrapping_add(block * o.step + line + AHEAD)) };
    }
}

/// Where the bits above group `j` of a part are: in which word, and from which bit on.
const fn above_of(high: usize, j: usize) -> (usize, u32) {
    if high == 2 { (j / 2, 2 * (j % 2) as u32) } else { (0, j as u32) }
}

/// The words with the bits above the nibbles of part `part`; zeros where there are none.
#[inline(always)]
unsafe fn words_above<V: Lanes, S: Scales, const G: usize>(
    o: &Operands,
    block: usize,
    part: usize,
) -> [[V::Words; G]; 2] {
    // SAFETY: panels hold `4 + HIGH` groups for each part.
    unsafe {
        let mut above = [[V::splat_words(0); G]; 2];
        for (h, words) in above.iter_mut().enumerate().take(S::HIGH) {
            let group = part * (4 + S::HIGH) + 4 + h;
            *words = words_of::<V, G>(o.weights.add(block * o.step + group * o.groups_apart));
        }
        above
    }
}

/// Column `I` of a group, the bits above its nibble put on, times `16^I` but for column 7. `above` holds those bits, `place`
/// tells where: those of column `i` begin at bit `4 i + place`.
#[inline(always)]
unsafe fn value<V: Lanes, const I: u32>(high: usize, words: V::Words, above: V::Words, place: u32) -> V {
    // SAFETY: arithmetic on registers only.
    unsafe {
        if high == 0 {
            return V::nibble::<I>(words);
        }
        let mask = if high == 1 { 16 } else { 48 };
        V::from_words(if I == 7 {
            let above = V::masked(V::moved_down(above, 24 + place), mask);
            V::either(V::moved_down(words, 28), above)
        } else {
            let above = V::masked(V::moved_up(above, 4 - place), mask << (4 * I));
            V::either(V::masked(words, 15 << (4 * I)), above)
        })
    }
}

/// The even and the odd columns of a group as bytes, with the bits above their nibbles.
#[inline(always)]
unsafe fn bytes_of<V: Lanes>(high: usize, words: V::Words, above: V::Words, place: u32) -> [V::Words; 2] {
    // SAFETY: arithmetic on registers only.
    unsafe {
        let (even, odd) = (V::low_nibbles(words), V::high_nibbles(words));
        if high == 0 {
            return [even, odd];
        }
        let mask = if high == 1 { 0x0101_0101 } else { 0x0303_0303 };
        let low = V::moved_up(V::masked(V::moved_down(above, place), mask), 4);
        let high = V::moved_up(V::masked(V::moved_down(above, 4 + place), mask), 4);
        [V::either(even, low), V::either(odd, high)]
    }
}

/// Nibbles with single-precision activations.
pub(super) struct Widened<S>(PhantomData<S>);

impl<S: Scales> Family for Widened<S> {
    const WIDENS: bool = true;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: panels hold `4 + HIGH` groups for each part of 32 columns, tokens 32 activations.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / S::COLUMNS {
                prefetch_scales::<V, S, G>(o, b);
                for part in 0..S::COLUMNS / BLOCK {
                    let above = words_above::<V, S, G>(o, b, part);
                    let mut run = zeros::<V, G, T>();
                    for j in 0..4 {
                        let at = o.weights.add(b * o.step + (part * (4 + S::HIGH) + j) * o.groups_apart);
                        let words = words_of::<V, G>(at);
                        let (word, place) = above_of(S::HIGH, j);
                        let x = o.scaled.add(b * S::COLUMNS + part * BLOCK + 8 * j);
                        macro_rules! columns {
                            ($($i:literal)*) => {$(
                                let mut weights = [V::splat(0.0); G];
                                for g in 0..G {
                                    weights[g] = value::<V, $i>(S::HIGH, words[g], above[word][g], place);
                                }
                                column(weights, x.add($i), o.columns, &mut run);
                            )*};
                        }
                        columns!(0 1 2 3 4 5 6 7);
                        if (8 * (j + 1)) % S::RUN == 0 {
                            let number = (part * BLOCK + 8 * j) / S::RUN;
                            add_run::<V, S, G, T>(o, b, number, S::MINIMUM, &run, &mut totals);
                            run = zeros::<V, G, T>();
                        }
                    }
                }
            }
            totals
        }
    }
}

/// Nibbles with eight-bit activations.
pub(super) struct Rounded<S>(PhantomData<S>);

impl<S: Scales> Family for Rounded<S> {
    const WIDENS: bool = false;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // A middle is taken off in integers, where it costs nothing and rounds nothing.
        let minimum = if S::MIDDLE > 0 { Minimum::None } else { S::MINIMUM };
        // SAFETY: as for `Widened`, with 32 rounded activations.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / S::COLUMNS {
                prefetch_scales::<V, S, G>(o, b);
                for part in 0..S::COLUMNS / BLOCK {
                    let block_of_32 = b * (S::COLUMNS / BLOCK) + part;
                    let above = words_above::<V, S, G>(o, b, part);
                    for half in 0..BLOCK / S::RUN {
                        let run = block_of_32 * (BLOCK / S::RUN) + half;
                        let mut sums = integers::<V, G, T>(o, S::RUN, run, S::MIDDLE);
                        for j in half * S::RUN / 8..(half + 1) * S::RUN / 8 {
                            let at = o.weights.add(b * o.step + (part * (4 + S::HIGH) + j) * o.groups_apart);
                            let words = words_of::<V, G>(at);
                            let (word, place) = above_of(S::HIGH, j);
                            for g in 0..G {
                                let [even, odd] = bytes_of::<V>(S::HIGH, words[g], above[word][g], place);
                                for t in 0..T {
                                    let x = o.interleaved.add(t * o.columns + block_of_32 * BLOCK + 8 * j);
                                    let sum = V::dot_nibbles(sums[g][t], even, four_bytes(x));
                                    sums[g][t] = V::dot_nibbles(sum, odd, four_bytes(x.add(4)));
                                }
                            }
                        }
                        let numbers = in_steps::<V, G, T>(o, block_of_32, &sums);
                        let number = part * (BLOCK / S::RUN) + half;
                        add_run::<V, S, G, T>(o, b, number, minimum, &numbers, &mut totals);
                    }
                }
            }
            totals
        }
    }
}

/// Integer sums of run `run` before its first product: minus `middle` for each of its rounded activations.
#[inline(always)]
unsafe fn integers<V: Lanes, const G: usize, const T: usize>(
    o: &Operands,
    each: usize,
    run: usize,
    middle: i32,
) -> [[V::Words; T]; G] {
    // SAFETY: each token holds the sums of its runs.
    unsafe {
        let mut sums = [[V::splat_words(0); T]; G];
        if middle > 0 {
            let from = if each == BLOCK { o.rounded_sums } else { o.rounded_half_sums };
            for t in 0..T {
                let sum = *from.add(t * (o.columns / each) + run);
                let start = V::splat_words(-middle * sum);
                for row in &mut sums {
                    row[t] = start;
                }
            }
        }
        sums
    }
}

/// Turns integer sums into numbers: each times the step of its token's block.
#[inline(always)]
unsafe fn in_steps<V: Lanes, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    part: &[[V::Words; T]; G],
) -> [[V; T]; G] {
    let blocks = o.columns / BLOCK;
    // SAFETY: each token holds the scales of its blocks.
    unsafe {
        let mut numbers = zeros::<V, G, T>();
        for t in 0..T {
            let step = V::splat(*o.token_scales.add(t * blocks + block));
            for g in 0..G {
                numbers[g][t] = V::from_words(part[g][t]).mul(step);
            }
        }
        numbers
    }
}

/// The four bytes at `at` as one word.
#[inline(always)]
unsafe fn four_bytes(at: *const u8) -> i32 {
    // SAFETY: the caller promises four readable bytes; the read is unaligned.
    unsafe { at.cast::<i32>().read_unaligned() }
}

/// Bytes with single-precision activations.
pub(super) struct Bytes;

impl Family for Bytes {
    const WIDENS: bool = true;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: panels hold eight groups of words per block, tokens 32 activations per block.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / BLOCK {
                let mut part = zeros::<V, G, T>();
                for j in 0..8 {
                    let at = o.weights.add(b * o.step + j * o.groups_apart);
                    let words = words_of::<V, G>(at);
                    let x = o.plain.add(b * BLOCK + 4 * j);
                    macro_rules! columns {
                        ($($i:literal)*) => {$(
                            let mut weights = [V::splat(0.0); G];
                            for g in 0..G {
                                weights[g] = V::byte::<$i>(words[g]);
                            }
                            column(weights, x.add($i), o.columns, &mut part);
                        )*};
                    }
                    columns!(0 1 2 3);
                }
                // Bytes come times 2^24; undoing it is exact.
                add_bytes::<V, G, T>(o, b, 1.0 / 16_777_216.0, &part, &mut totals);
            }
            totals
        }
    }
}

/// Adds the sums of one block of bytes, times its scale and `unit`, a power of two.
#[inline(always)]
unsafe fn add_bytes<V: Lanes, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    unit: f32,
    part: &[[V; T]; G],
    totals: &mut [[V; T]; G],
) {
    for g in 0..G {
        // SAFETY: each panel holds the scales of its blocks.
        unsafe {
            let scale = V::load_half(o.scales.add(block * o.step + g * 2 * PANEL_ROWS)).mul(V::splat(unit));
            for t in 0..T {
                totals[g][t] = part[g][t].fma(scale, totals[g][t]);
            }
        }
    }
}

/// Bytes with eight-bit activations.
pub(super) struct RoundedBytes;

impl Family for RoundedBytes {
    const WIDENS: bool = false;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        // SAFETY: as for `Bytes`, with 32 rounded activations per block.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / BLOCK {
                let mut sums = integers::<V, G, T>(o, BLOCK, b, V::BYTE_OFFSET);
                for j in 0..8 {
                    let at = o.weights.add(b * o.step + j * o.groups_apart);
                    let words = words_of::<V, G>(at);
                    for g in 0..G {
                        let weights = V::raised(words[g]);
                        for t in 0..T {
                            let x = o.rounded.add(t * o.columns + b * BLOCK + 4 * j);
                            sums[g][t] = V::dot_bytes(sums[g][t], weights, four_bytes(x));
                        }
                    }
                }
                let numbers = in_steps::<V, G, T>(o, b, &sums);
                add_bytes::<V, G, T>(o, b, 1.0, &numbers, &mut totals);
            }
            totals
        }
    }
}
