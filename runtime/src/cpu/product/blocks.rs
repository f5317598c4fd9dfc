//! Products of blocks of 32 columns: nibbles, five bits, and bytes.

use super::super::lanes::Lanes;
use super::super::pack::{BLOCK, PANEL_ROWS};
use super::{AHEAD, Family, Operands, column, words_of, zeros};

/// Adds one block's scaled sums, and its minima times the sums of activations, to the totals.
#[inline(always)]
unsafe fn add_block<V: Lanes, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    part: &[[V; T]; G],
    minima: Minima,
    totals: &mut [[V; T]; G],
) {
    let blocks = o.columns / BLOCK;
    for g in 0..G {
        // SAFETY: each panel holds the scales of its blocks, each token the sums of its blocks.
        unsafe {
            let at = o.scales.add(block * o.step + g * minima.scale_bytes());
            V::prefetch(at.wrapping_add(AHEAD));
            let scale = V::load_half(at);
            let minimum = match minima {
                Minima::None => None,
                Minima::Middle(middle) => Some(scale.mul(V::splat(-middle))),
                Minima::Stored => Some(V::load_half(at.add(2 * PANEL_ROWS))),
            };
            let scale = match minima {
                // Bytes come times 2^24; undoing it here is exact.
                Minima::None => scale.mul(V::splat(1.0 / 16_777_216.0)),
                _ => scale,
            };
            for t in 0..T {
                let mut total = part[g][t].fma(scale, totals[g][t]);
                if let Some(minimum) = minimum {
                    total = minimum.fma(V::splat(*o.sums.add(t * blocks + block)), total);
                }
                totals[g][t] = total;
            }
        }
    }
}

/// Where a block's minima come from.
#[derive(Clone, Copy)]
enum Minima {
    /// There is none.
    None,
    /// Minus so many times the scale.
    Middle(f32),
    /// After the scales.
    Stored,
}

impl Minima {
    /// Bytes of scales and minima of one panel in one block.
    const fn scale_bytes(self) -> usize {
        match self {
            Self::None | Self::Middle(_) => 2 * PANEL_ROWS,
            Self::Stored => 4 * PANEL_ROWS,
        }
    }

    /// Those of nibbles with so many bits above them.
    const fn of_nibbles(stored: bool, high: usize) -> Self {
        match (stored, high) {
            (true, _) => Self::Stored,
            (false, 0) => Self::Middle(8.0),
            (false, _) => Self::Middle(16.0),
        }
    }
}

/// Column `I` of a group, the bits above its nibble put on, times `16^I` but for column 7. `above` holds those bits, `place`
/// tells where: those of column `i` begin at bit `4 i + place`.
#[inline(always)]
pub(super) unsafe fn value<V: Lanes, const HIGH: usize, const I: u32>(
    words: V::Words,
    above: V::Words,
    place: u32,
) -> V {
    // SAFETY: arithmetic on registers only.
    unsafe {
        if HIGH == 0 {
            return V::nibble::<I>(words);
        }
        let mask = if HIGH == 1 { 16 } else { 48 };
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
pub(super) unsafe fn bytes_of<V: Lanes, const HIGH: usize>(
    words: V::Words,
    above: V::Words,
    place: u32,
) -> [V::Words; 2] {
    // SAFETY: arithmetic on registers only.
    unsafe {
        let (even, odd) = (V::low_nibbles(words), V::high_nibbles(words));
        if HIGH == 0 {
            return [even, odd];
        }
        let mask = if HIGH == 1 { 0x0101_0101 } else { 0x0303_0303 };
        let low = V::moved_up(V::masked(V::moved_down(above, place), mask), 4);
        let high = V::moved_up(V::masked(V::moved_down(above, 4 + place), mask), 4);
        [V::either(even, low), V::either(odd, high)]
    }
}

/// Nibbles with single-precision activations; `STORED` minima or those of Q4_0 and Q5_0, `HIGH` bits above the nibbles.
pub(super) struct Nibbles<const STORED: bool, const HIGH: usize>;

impl<const STORED: bool, const HIGH: usize> Family for Nibbles<STORED, HIGH> {
    const WIDENS: bool = true;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        let minima = Minima::of_nibbles(STORED, HIGH);
        // SAFETY: panels hold `4 + HIGH` groups of words per block, tokens 32 activations per block.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / BLOCK {
                let mut part = zeros::<V, G, T>();
                let mut above = [V::splat_words(0); G];
                if HIGH > 0 {
                    above = words_of::<V, G>(o.weights.add(b * o.step + 4 * o.groups_apart));
                }
                for j in 0..4 {
                    let at = o.weights.add(b * o.step + j * o.groups_apart);
                    let words = words_of::<V, G>(at);
                    let x = o.scaled.add(b * BLOCK + 8 * j);
                    macro_rules! columns {
                        ($($i:literal)*) => {$(
                            let mut weights = [V::splat(0.0); G];
                            for g in 0..G {
                                weights[g] = value::<V, HIGH, $i>(words[g], above[g], j as u32);
                            }
                            column(weights, x.add($i), o.columns, &mut part);
                        )*};
                    }
                    columns!(0 1 2 3 4 5 6 7);
                }
                add_block(o, b, &part, minima, &mut totals);
            }
            totals
        }
    }
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
                add_block(o, b, &part, Minima::None, &mut totals);
            }
            totals
        }
    }
}

/// Turns integer sums into numbers: each times the step of its token's block.
#[inline(always)]
pub(super) unsafe fn in_steps<V: Lanes, const G: usize, const T: usize>(
    o: &Operands,
    block: usize,
    part: &[[V::Words; T]; G],
    unit: f32,
) -> [[V; T]; G] {
    let blocks = o.columns / BLOCK;
    // SAFETY: each token holds the scales of its blocks.
    unsafe {
        let mut numbers = zeros::<V, G, T>();
        for t in 0..T {
            let step = V::splat(*o.token_scales.add(t * blocks + block) * unit);
            for g in 0..G {
                numbers[g][t] = V::from_words(part[g][t]).mul(step);
            }
        }
        numbers
    }
}

/// The four bytes at `at` as one word.
#[inline(always)]
pub(super) unsafe fn four_bytes(at: *const u8) -> i32 {
    // SAFETY: the caller promises four readable bytes; the read is unaligned.
    unsafe { at.cast::<i32>().read_unaligned() }
}

/// Nibbles with eight-bit activations.
pub(super) struct RoundedNibbles<const STORED: bool, const HIGH: usize>;

impl<const STORED: bool, const HIGH: usize> Family for RoundedNibbles<STORED, HIGH> {
    const WIDENS: bool = false;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        let minima = Minima::of_nibbles(STORED, HIGH);
        // SAFETY: as for `Nibbles`, with 32 rounded activations per block.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..o.columns / BLOCK {
                let mut part = [[V::splat_words(0); T]; G];
                let mut above = [V::splat_words(0); G];
                if HIGH > 0 {
                    above = words_of::<V, G>(o.weights.add(b * o.step + 4 * o.groups_apart));
                }
                for j in 0..4 {
                    let at = o.weights.add(b * o.step + j * o.groups_apart);
                    let words = words_of::<V, G>(at);
                    for g in 0..G {
                        let [even, odd] = bytes_of::<V, HIGH>(words[g], above[g], j as u32);
                        for t in 0..T {
                            let x = o.interleaved.add(t * o.columns + b * BLOCK + 8 * j);
                            let sum = V::dot_nibbles(part[g][t], even, four_bytes(x));
                            part[g][t] = V::dot_nibbles(sum, odd, four_bytes(x.add(4)));
                        }
                    }
                }
                let part = in_steps(o, b, &part, 1.0);
                add_block(o, b, &part, minima, &mut totals);
            }
            totals
        }
    }
}

/// Bytes with eight-bit activations.
pub(super) struct RoundedBytes;

impl Family for RoundedBytes {
    const WIDENS: bool = false;

    #[inline(always)]
    unsafe fn sums<V: Lanes, const G: usize, const T: usize>(o: &Operands) -> [[V; T]; G] {
        let blocks = o.columns / BLOCK;
        // SAFETY: as for `Bytes`, with 32 rounded activations per block.
        unsafe {
            let mut totals = zeros::<V, G, T>();
            for b in 0..blocks {
                let mut part = [[V::splat_words(0); T]; G];
                for t in 0..T {
                    let sum = *o.rounded_sums.add(t * blocks + b);
                    for row in &mut part {
                        row[t] = V::splat_words(-V::BYTE_OFFSET * sum);
                    }
                }
                for j in 0..8 {
                    let at = o.weights.add(b * o.step + j * o.groups_apart);
                    let words = words_of::<V, G>(at);
                    for g in 0..G {
                        for t in 0..T {
                            let x = o.rounded.add(t * o.columns + b * BLOCK + 4 * j);
                            part[g][t] = V::dot_bytes(part[g][t], words[g], four_bytes(x));
                        }
                    }
                }
                // `add_block` undoes the scale of unrounded bytes; put it on first. Both are exact.
                let part = in_steps(o, b, &part, 16_777_216.0);
                add_block(o, b, &part, Minima::None, &mut totals);
            }
            totals
        }
    }
}
