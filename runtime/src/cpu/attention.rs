//! Attention over a cache kept in blocks of sixteen positions.
//!
//! For one layer and one key-value head, a block holds the keys of sixteen positions, transposed (`[number][position]`), so
//! that one register holds one number of sixteen keys; and their values (`[position][number]`). The keys of all blocks
//! stand together, then the values of all blocks: memory is read in two long rising streams.
//!
//! The arithmetic is defined by the query alone. Positions `0..n` are cut into segments of [`SEGMENT`]; within a segment
//! scores are chains over the numbers of the head, weights are `exp(score - largest)`, the weighted sum is a chain over
//! positions; segments are merged in rising order. Which queries share a call, and which worker computes which segment,
//! changes nothing.

use super::element::exp;
use super::isa::{self, Isa, Kernel};
use super::lanes::{Lanes, tree_sum};

pub(crate) use super::CACHE_BLOCK;
/// Positions in a segment.
pub(crate) const SEGMENT: usize = 128;
/// Blocks in a segment.
pub(crate) const SEGMENT_BLOCKS: usize = SEGMENT / CACHE_BLOCK;
/// Most queries that one call serves.
pub(crate) const QUERIES_MAX: usize = 4;

/// Numbers that one block takes for a head of `head_size`, keys and values together.
pub(crate) const fn block_floats(head_size: usize) -> usize {
    2 * CACHE_BLOCK * head_size
}

/// Writes key and value of one position into the cache of one layer and one head. `within` is its place in `block`.
pub(crate) fn write(cache: &mut [f32], block: usize, within: usize, key: &[f32], value: &[f32]) {
    let size = key.len();
    let (keys, values) = cache.split_at_mut(cache.len() / 2);
    let keys = &mut keys[block * CACHE_BLOCK * size..][..CACHE_BLOCK * size];
    for (to, &number) in keys.iter_mut().skip(within).step_by(CACHE_BLOCK).zip(key) {
        *to = number;
    }
    values[(block * CACHE_BLOCK + within) * size..][..size].copy_from_slice(value);
}

/// What one segment contributes to one query.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    /// The largest score.
    pub largest: f32,
    /// Sum of the weights.
    pub sum: f32,
}

/// Attention of some queries over one segment.
pub(crate) struct Segment<'a> {
    /// All blocks of one layer and one key-value head.
    pub cache: &'a [f32],
    /// The segment's blocks, at most [`SEGMENT_BLOCKS`], as indices into `cache`.
    pub blocks: &'a [u32],
    /// Numbers in a head, a multiple of 16.
    pub head_size: usize,
    /// Rotated and scaled queries, one after another, at most [`QUERIES_MAX`].
    pub queries: &'a [f32],
    /// Positions of the segment that each query sees, up to its own.
    pub positions: &'a [usize],
    /// Leading ones of those that it does not see, because its window begins later.
    pub skipped: &'a [usize],
}

impl Segment<'_> {
    /// Computes the weighted sums of values into `sums`, one row per query, and the shares.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub(crate) fn attend(&self, isa: Isa, sums: &mut [f32], shares: &mut [Share]) {
        let queries = self.positions.len();
        assert!(
            self.head_size.is_multiple_of(16)
                && self.blocks.len() <= SEGMENT_BLOCKS
                && self.queries.len() == queries * self.head_size
                && sums.len() == self.queries.len()
                && self.skipped.len() == queries
                && shares.len() == queries,
            "{queries} queries of {} numbers over {} blocks into {} and {}",
            self.queries.len(),
            self.blocks.len(),
            sums.len(),
            shares.len()
        );
        let floats = block_floats(self.head_size);
        for (&n, &skipped) in self.positions.iter().zip(self.skipped) {
            assert!(
                n > skipped && n <= self.blocks.len() * CACHE_BLOCK,
                "a query sees {n} positions of {} blocks",
                self.blocks.len()
            );
        }
        for &block in self.blocks {
            assert!((block as usize + 1) * floats <= self.cache.len(), "block {block} lies past the cache");
        }
        // SAFETY: `isa` comes from `Isa::available`; everything the kernel reads or writes is checked above.
        unsafe {
            match queries {
                1 => isa::call(isa, Attend::<1>(self, sums, shares)),
                2 => isa::call(isa, Attend::<2>(self, sums, shares)),
                3 => isa::call(isa, Attend::<3>(self, sums, shares)),
                4 => isa::call(isa, Attend::<4>(self, sums, shares)),
                _ => unreachable!("{queries} queries; at most {QUERIES_MAX}"),
            }
        }
    }
}

struct Attend<'a, const Q: usize>(&'a Segment<'a>, &'a mut [f32], &'a mut [Share]);

impl<const Q: usize> Kernel for Attend<'_, Q> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self(segment, sums, shares) = self;
        let mut weights = [[0.0_f32; SEGMENT]; Q];
        // SAFETY: `Segment::attend` checked that blocks lie in the cache and that there are `Q` queries.
        unsafe {
            for at in 0..segment.blocks.len() {
                scores::<V, Q>(segment, at, &mut weights);
            }
            for q in 0..Q {
                shares[q] = soften::<V>(&mut weights[q], segment.skipped[q], segment.positions[q]);
            }
            let mut number = 0;
            while number + 64 <= segment.head_size {
                weighted::<V, Q, 4>(segment, number, &weights, sums);
                number += 64;
            }
            while number < segment.head_size {
                weighted::<V, Q, 1>(segment, number, &weights, sums);
                number += 16;
            }
        }
    }
}

/// Scores of the segment's block number `at`.
#[inline(always)]
unsafe fn scores<V: Lanes, const Q: usize>(segment: &Segment<'_>, at: usize, weights: &mut [[f32; SEGMENT]; Q]) {
    let block = segment.blocks[at] as usize * CACHE_BLOCK * segment.head_size;
    // The block after this one, or after the last one the values of the first, are asked for meanwhile.
    let ahead = match segment.blocks.get(at + 1) {
        Some(&next) => next as usize * CACHE_BLOCK * segment.head_size,
        None => segment.cache.len() / 2 + segment.blocks[0] as usize * CACHE_BLOCK * segment.head_size,
    };
    // SAFETY: as for `Attend`.
    unsafe {
        let keys = segment.cache.as_ptr().add(block);
        let ahead = segment.cache.as_ptr().add(ahead);
        let mut sums = [V::splat(0.0); Q];
        for number in 0..segment.head_size {
            V::prefetch(ahead.add(number * CACHE_BLOCK).cast());
            let column = V::load(keys.add(number * CACHE_BLOCK));
            for (q, sum) in sums.iter_mut().enumerate() {
                let query = *segment.queries.as_ptr().add(q * segment.head_size + number);
                *sum = column.fma(V::splat(query), *sum);
            }
        }
        for (sum, weights) in sums.into_iter().zip(weights) {
            sum.store(weights.as_mut_ptr().add(at * CACHE_BLOCK));
        }
    }
}

/// Turns the scores from `skipped` to `positions` into weights and the rest into zeros.
#[inline(always)]
unsafe fn soften<V: Lanes>(scores: &mut [f32; SEGMENT], skipped: usize, positions: usize) -> Share {
    scores[..skipped].fill(f32::NEG_INFINITY);
    scores[positions..].fill(f32::NEG_INFINITY);
    let used = positions.next_multiple_of(16);
    // SAFETY: `used` is at most `SEGMENT`.
    unsafe {
        let mut lanes = V::splat(f32::NEG_INFINITY);
        for i in (0..used).step_by(16) {
            lanes = lanes.max(V::load(scores.as_ptr().add(i)));
        }
        let mut out = [0.0; 16];
        lanes.store(out.as_mut_ptr());
        let largest = out.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
        for i in (0..used).step_by(16) {
            let at = scores.as_mut_ptr().add(i);
            exp(V::load(at).sub(V::splat(largest))).store(at);
        }
        // `exp` stops at a small positive number; a position that is not seen weighs nothing at all.
        scores[..skipped].fill(0.0);
        scores[positions..].fill(0.0);
        let mut lanes = V::splat(0.0);
        for i in (0..used).step_by(16) {
            lanes = lanes.add(V::load(scores.as_ptr().add(i)));
        }
        lanes.store(out.as_mut_ptr());
        Share { largest, sum: tree_sum(out) }
    }
}

/// Weighted sums of the values' numbers `number .. number + 16 * N`.
#[inline(always)]
unsafe fn weighted<V: Lanes, const Q: usize, const N: usize>(
    segment: &Segment<'_>,
    number: usize,
    weights: &[[f32; SEGMENT]; Q],
    out: &mut [f32],
) {
    let head_size = segment.head_size;
    let seen = segment.positions.iter().fold(0, |m, &n| m.max(n));
    // SAFETY: as for `Attend`; `number + 16 * N` is at most the head's size.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; Q];
        for (b, &block) in segment.blocks.iter().enumerate() {
            let start = b * CACHE_BLOCK;
            let of_block = |block: u32| segment.cache.len() / 2 + block as usize * CACHE_BLOCK * head_size + number;
            let values = segment.cache.as_ptr().add(of_block(block));
            let ahead = segment.cache.as_ptr().add(of_block(*segment.blocks.get(b + 1).unwrap_or(&block)));
            for position in start..seen.min(start + CACHE_BLOCK) {
                let mut row = [V::splat(0.0); N];
                for n in 0..N {
                    let at = (position - start) * head_size + 16 * n;
                    V::prefetch(ahead.add(at).cast());
                    row[n] = V::load(values.add(at));
                }
                for q in 0..Q {
                    let weight = V::splat(weights[q][position]);
                    for n in 0..N {
                        sums[q][n] = row[n].fma(weight, sums[q][n]);
                    }
                }
            }
        }
        for q in 0..Q {
            for n in 0..N {
                sums[q][n].store(out.as_mut_ptr().add(q * head_size + number + 16 * n));
            }
        }
    }
}

/// The segments of one query, merged so far. Segments are added in rising order.
#[derive(Clone, Copy)]
pub(crate) struct Merged(Option<Share>);

impl Merged {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Adds a segment with weighted sums `row` to the merged sums `total`.
    ///
    /// # Panics
    /// When lengths differ or are no multiple of 16.
    pub(crate) fn add(&mut self, isa: Isa, total: &mut [f32], row: &[f32], share: Share) {
        assert!(
            total.len() == row.len() && row.len().is_multiple_of(16),
            "{} numbers merged with {}",
            total.len(),
            row.len()
        );
        self.0 = Some(match self.0 {
            None => {
                total.copy_from_slice(row);
                share
            }
            // SAFETY: `isa` comes from `Isa::available`; lengths are checked above.
            Some(before) => unsafe { isa::call(isa, Merge { total, row, before, share }) },
        });
    }

    /// Turns the merged sums into the attention's result.
    ///
    /// # Panics
    /// When nothing was added.
    pub(crate) fn finish(self, total: &mut [f32]) {
        let share = self.0.expect("a query sees at least one position");
        total.iter_mut().for_each(|number| *number /= share.sum);
    }
}

struct Merge<'a> {
    total: &'a mut [f32],
    row: &'a [f32],
    before: Share,
    share: Share,
}

impl Kernel for Merge<'_> {
    type Output = Share;

    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> Share {
        let (before, share) = (self.before, self.share);
        let largest = if share.largest > before.largest { share.largest } else { before.largest };
        let mut lanes = [0.0; 16];
        lanes[0] = before.largest - largest;
        lanes[1] = share.largest - largest;
        // SAFETY: both rows are of one length, a multiple of 16.
        unsafe {
            exp(V::load(lanes.as_ptr())).store(lanes.as_mut_ptr());
            let [old, new, ..] = lanes;
            for i in (0..self.total.len()).step_by(16) {
                let at = self.total.as_mut_ptr().add(i);
                let kept = V::load(at).mul(V::splat(old));
                V::load(self.row.as_ptr().add(i)).fma(V::splat(new), kept).store(at);
            }
            Share { largest, sum: before.sum * old + share.sum * new }
        }
    }
}
