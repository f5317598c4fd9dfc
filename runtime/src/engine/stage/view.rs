//! Attention of a pass over the cache of one layer.

use super::{HEAD_SIZE_MAX, How, Sight};
use crate::cpu::attention::{CACHE_BLOCK, Merged, QUERIES_MAX, SEGMENT, SEGMENT_BLOCKS, Segment, Share};
use crate::cpu::share::{PARTS_MAX, Pieces};
use crate::cpu::team::Team;
use crate::engine::pass::{Part, Pass};
use crate::model::Geometry;
use std::ops::Range;

/// What attention reads in one layer.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) how: How<'a>,
    pub(super) layer: &'a [f32],
    pub(super) head_floats: usize,
    pub(super) sight: Sight<'a>,
    pub(super) query: &'a [f32],
    /// Norm of each head's queries.
    pub(super) query_norm: Option<&'a [f32]>,
    pub(super) pass: &'a Pass,
}

impl View<'_> {
    /// Leading positions that the last of `positions` does not see.
    pub(super) fn unseen(&self, positions: usize) -> usize {
        self.sight.window.map_or(0, |window| positions.saturating_sub(window))
    }

    /// Rotated and scaled queries of `row` at `position`, heads `heads`, into `out`.
    fn queries(&self, row: usize, position: usize, heads: Range<usize>, out: &mut [f32]) {
        let (size, width) = (self.how.geometry.head_size, self.how.geometry.heads * self.how.geometry.head_size);
        let scale = self.how.geometry.attention_scale();
        out.copy_from_slice(&self.query[row * width + heads.start * size..row * width + heads.end * size]);
        for head in out.chunks_exact_mut(size) {
            if let Some(weight) = self.query_norm {
                let mut plain = [0.0; HEAD_SIZE_MAX];
                plain[..size].copy_from_slice(head);
                self.how.norm(&plain[..size], weight, head);
            }
            self.sight.rotations.rotate(self.how.isa, position, head);
            head.iter_mut().for_each(|number| *number *= scale);
        }
    }

    /// One segment of some queries of one key-value head.
    #[allow(clippy::needless_pass_by_value, reason = "the output is written once, by whoever holds it")]
    fn segment(&self, part: &Part, kv_head: usize, segment: usize, queries: &[f32], seen: Seen<'_>, out: Out<'_>) {
        let first = part.blocks + segment * SEGMENT_BLOCKS;
        let last = part.blocks + part.positions().div_ceil(CACHE_BLOCK);
        let most = seen.positions.iter().fold(0, |m, &n| m.max(n));
        let work = Segment {
            cache: &self.layer[kv_head * self.head_floats..][..self.head_floats],
            blocks: &self.pass.blocks[first..last.min(first + most.div_ceil(CACHE_BLOCK))],
            head_size: self.how.geometry.head_size,
            queries,
            positions: seen.positions,
            skipped: seen.skipped,
        };
        work.attend(self.how.isa, out.sums, out.shares);
    }

    /// Rows of a single token: every segment of every key-value head is a piece of work of its own, so that one long
    /// sequence keeps all workers busy.
    pub(super) fn attend_singles(&self, team: &Team, segments: &mut [f32], shares: &mut [Share], starts: &[usize]) {
        let Geometry { heads, kv_heads, head_size: size, .. } = *self.how.geometry;
        let group = heads / kv_heads;
        let units = starts.last().map_or(0, |&all| all * kv_heads);
        if units == 0 {
            return;
        }
        let each = units.div_ceil(PARTS_MAX.min(4 * team.workers()));
        let sums = Pieces::new(&mut segments[..units * group * size], each * group * size);
        let shares = Pieces::new(&mut shares[..units * group], each * group);
        team.run(units.div_ceil(each), &|piece| {
            let (sums, shares) = (sums.take(piece), shares.take(piece));
            let units = sums.chunks_exact_mut(group * size).zip(shares.chunks_exact_mut(group));
            for (i, (sums, shares)) in units.enumerate() {
                let (at, kv_head) = ((piece * each + i) / kv_heads, (piece * each + i) % kv_heads);
                let row = starts.partition_point(|&start| start <= at) - 1;
                let (part, segment) = (&self.pass.parts[row], at - starts[row]);
                let unseen = self.unseen(part.positions());
                if (segment + 1) * SEGMENT <= unseen {
                    continue;
                }
                let seen = (part.positions() - segment * SEGMENT).min(SEGMENT);
                let skipped = [unseen.saturating_sub(segment * SEGMENT); QUERIES_MAX];
                let tiles = sums.chunks_mut(QUERIES_MAX * size).zip(shares.chunks_mut(QUERIES_MAX));
                for (tile, (sums, shares)) in tiles.enumerate() {
                    let head = kv_head * group + tile * QUERIES_MAX;
                    let count = shares.len();
                    let mut queries = [0.0; QUERIES_MAX * HEAD_SIZE_MAX];
                    let queries = &mut queries[..count * size];
                    self.queries(part.row, part.start, head..head + count, queries);
                    let seen = [seen; QUERIES_MAX];
                    let seen = Seen { positions: &seen[..count], skipped: &skipped[..count] };
                    self.segment(part, kv_head, segment, queries, seen, Out { sums, shares });
                }
            }
        });
    }

    /// Rows of prefill chunks: `rows` of the pass, their results into `out`.
    pub(super) fn attend_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let Geometry { heads, kv_heads, head_size: size, .. } = *self.how.geometry;
        let group = heads / kv_heads;
        let mut row = rows.start;
        while row < rows.end {
            let part = self.pass.parts.partition_point(|part| part.row <= row) - 1;
            let part = &self.pass.parts[part];
            let end = rows.end.min(part.row + part.tokens);
            // Queries of this run of rows, rows first, heads of the group second.
            for kv_head in 0..kv_heads {
                let queries = (end - row) * group;
                for first in (0..queries).step_by(QUERIES_MAX) {
                    let tile = first..queries.min(first + QUERIES_MAX);
                    let place = |query: usize| (row + query / group, kv_head * group + query % group);
                    self.attend_tile(part, kv_head, tile, place, |query, result| {
                        let (row, head) = place(query);
                        let at = (row - rows.start) * heads * size + head * size;
                        out[at..at + size].copy_from_slice(result);
                    });
                }
            }
            row = end;
        }
    }

    /// Attention of a few queries of one key-value head over all their segments.
    fn attend_tile(
        &self,
        part: &Part,
        kv_head: usize,
        tile: Range<usize>,
        place: impl Fn(usize) -> (usize, usize),
        mut done: impl FnMut(usize, &[f32]),
    ) {
        let size = self.how.geometry.head_size;
        let count = tile.len();
        let mut queries = [0.0; QUERIES_MAX * HEAD_SIZE_MAX];
        let mut seen = [0; QUERIES_MAX];
        for (i, query) in tile.clone().enumerate() {
            let (row, head) = place(query);
            let position = part.start + row - part.row;
            seen[i] = position + 1;
            self.queries(row, position, head..head + 1, &mut queries[i * size..(i + 1) * size]);
        }
        // Two rows per query: the segments merged so far, and the new one.
        let mut sums = [0.0; 2 * QUERIES_MAX * HEAD_SIZE_MAX];
        let none = Share { largest: 0.0, sum: 0.0 };
        let mut totals = [Merged::new(); QUERIES_MAX];
        let segments = seen[..count].iter().fold(0, |m, &n| m.max(n)).div_ceil(SEGMENT);
        let first = self.unseen(seen[0]) / SEGMENT;
        for segment in first..segments {
            // Queries are in rising order of position: the first ones may not reach this segment yet, and the window of
            // the last ones may begin after it.
            let from = seen[..count].partition_point(|&n| n <= segment * SEGMENT);
            let to = seen[..count].partition_point(|&n| self.unseen(n) < (segment + 1) * SEGMENT);
            if from >= to {
                continue;
            }
            let here: [usize; QUERIES_MAX] =
                std::array::from_fn(|i| seen[i].saturating_sub(segment * SEGMENT).min(SEGMENT));
            let mut shares = [none; QUERIES_MAX];
            let (old, new) = sums.split_at_mut(QUERIES_MAX * HEAD_SIZE_MAX);
            let skipped: [usize; QUERIES_MAX] =
                std::array::from_fn(|i| self.unseen(seen[i]).saturating_sub(segment * SEGMENT).min(SEGMENT));
            let out = Out { sums: &mut new[from * size..to * size], shares: &mut shares[from..to] };
            let seen = Seen { positions: &here[from..to], skipped: &skipped[from..to] };
            self.segment(part, kv_head, segment, &queries[from * size..to * size], seen, out);
            for i in from..to {
                let range = i * size..(i + 1) * size;
                totals[i].add(self.how.isa, &mut old[range.clone()], &new[range], shares[i]);
            }
        }
        for (i, query) in tile.enumerate() {
            let result = &mut sums[i * size..(i + 1) * size];
            totals[i].finish(result);
            done(query, result);
        }
    }
}

/// Where a segment's results go.
struct Out<'a> {
    sums: &'a mut [f32],
    shares: &'a mut [Share],
}

/// Which positions of a segment some queries see.
#[derive(Clone, Copy)]
struct Seen<'a> {
    /// Those up to their own.
    positions: &'a [usize],
    /// Leading ones of those that lie before their window.
    skipped: &'a [usize],
}
