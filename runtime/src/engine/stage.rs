//! One stage: a range of layers on one device, and the forward pass through them.

use super::cache::Cache;
use super::pass::{Part, Pass};
use super::weights::{Head, Layer, Weights};
use crate::cpu::attention::{CACHE_BLOCK, Merged, QUERIES_MAX, SEGMENT, SEGMENT_BLOCKS, Segment, Share, write};
use crate::cpu::element::{Rotations, gate_by_silu, norm};
use crate::cpu::input::{Input, Needs};
use crate::cpu::pack::Packed;
use crate::cpu::product::{Store, product};
use crate::cpu::share::{Columns, PARTS_MAX, Pieces};
use crate::cpu::team::Team;
use crate::cpu::{Arithmetic, Isa};
use crate::model::Geometry;
use crate::model::geometry::EMBEDDING;
use crate::model::gguf::Gguf;
use std::ops::Range;
use std::time::Instant;

/// Largest head that the attention kernels take.
pub(crate) const HEAD_SIZE_MAX: usize = 256;

/// Rows of one prefill chunk that attend together.
const ROWS_TOGETHER: usize = 4;

/// What a stage is made for.
#[derive(Clone, Debug)]
pub(crate) struct StageSpec {
    /// Its layers.
    pub(crate) layers: Range<usize>,
    /// Instructions of its kernels.
    pub(crate) isa: Isa,
    /// Arithmetic of its kernels.
    pub(crate) arithmetic: Arithmetic,
    /// Most rows of a pass.
    pub(crate) rows_max: usize,
    /// Positions of the longest sequence.
    pub(crate) positions_max: usize,
    /// Blocks of its cache, of sixteen positions each.
    pub(crate) cache_blocks: usize,
}

/// A loaded stage. Whoever calls [`Stage::run`] is the first worker of its team.
pub(crate) struct Stage {
    spec: StageSpec,
    gguf: Gguf,
    geometry: Geometry,
    weights: Weights,
    cache: Cache,
    rotations: Rotations,
    scratch: Scratch,
}

/// Buffers of one pass.
struct Scratch {
    /// Input of the products of hidden width, and of the attention's output.
    narrow: Input,
    /// Input of the product of feed-forward width.
    wide: Input,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// Attention of single tokens by segment: `[segment of a row][number of a head]`.
    segments: Vec<f32>,
    /// `[segment of a row][head]`.
    shares: Vec<Share>,
    /// Where each single row's segments begin; one more entry at the end.
    segment_starts: Vec<usize>,
}

impl Stage {
    /// Loads the stage's weights and makes its cache and buffers.
    ///
    /// # Errors
    /// When the operating system does not give the memory.
    ///
    /// # Panics
    /// When the geometry is not one that [`supported`] accepts.
    pub(crate) fn load(gguf: &Gguf, geometry: &Geometry, spec: StageSpec) -> std::io::Result<Self> {
        assert!(supported(geometry).is_ok(), "an unsupported geometry");
        let g = geometry;
        let rows = spec.rows_max;
        let (queries, keys) = (g.heads * g.head_size, g.kv_heads * g.head_size);
        Ok(Self {
            weights: Weights::load(gguf, g, spec.layers.clone())?,
            cache: Cache::new(spec.layers.len(), g.kv_heads, g.head_size, spec.cache_blocks)?,
            rotations: Rotations::new(&g.rope, spec.positions_max),
            scratch: Scratch {
                narrow: Input::new(rows, g.hidden.max(queries)),
                wide: Input::new(rows, g.feed_forward),
                query: vec![0.0; rows * queries],
                key: vec![0.0; rows * keys],
                value: vec![0.0; rows * keys],
                gate: vec![0.0; rows * g.feed_forward],
                up: vec![0.0; rows * g.feed_forward],
                segments: Vec::new(),
                shares: Vec::new(),
                segment_starts: Vec::new(),
            },
            gguf: gguf.clone(),
            geometry: geometry.clone(),
            spec,
        })
    }

    /// Takes a pass through the stage's layers.
    ///
    /// # Panics
    /// When the pass has more rows or positions than the stage was made for.
    pub(crate) fn run(&mut self, team: &Team, pass: &mut Pass) {
        assert!(pass.rows() <= self.spec.rows_max, "{} rows of at most {}", pass.rows(), self.spec.rows_max);
        if self.spec.layers.start == 0 {
            self.embed(pass);
        }
        self.scratch.lay_out(pass, &self.geometry);
        for layer in 0..self.weights.layers.len() {
            self.layer(team, pass, layer);
        }
        if let Some(head) = &self.weights.head {
            let begin = Instant::now();
            let task = Task { team, how: How::of(&self.spec, &self.geometry) };
            task.head(head, &mut self.scratch.narrow, pass);
            pass.choose(self.geometry.vocabulary);
            pass.head_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
    }

    /// Looks tokens up in the embedding, in the file itself: only their rows are touched.
    fn embed(&self, pass: &mut Pass) {
        let embedding = self.gguf.tensor(EMBEDDING).expect("a geometry is read from a file with an embedding");
        let width = self.geometry.hidden;
        pass.hidden.resize(pass.tokens.len() * width, 0.0);
        for (&token, row) in pass.tokens.iter().zip(pass.hidden.chunks_exact_mut(width)) {
            let bytes = embedding.row(u64::from(token)).expect("tokens are checked against the vocabulary");
            embedding.format.dequantise_row(bytes, row);
        }
    }

    fn layer(&mut self, team: &Team, pass: &mut Pass, index: usize) {
        let task = Task { team, how: How::of(&self.spec, &self.geometry) };
        let layer = &self.weights.layers[index];
        task.queries_keys_values(layer, &mut self.scratch, pass);
        task.remember(&mut self.cache, index, &self.rotations, &mut self.scratch, pass);
        task.attend(layer, &self.cache, index, &self.rotations, &mut self.scratch, pass);
        task.feed_forward(layer, &mut self.scratch, pass);
    }
}

/// Why a geometry cannot be run by the processor's kernels, where it cannot.
///
/// # Errors
/// The reason, in words.
pub(crate) fn supported(geometry: &Geometry) -> Result<(), String> {
    let Geometry { hidden, head_size, .. } = *geometry;
    if !head_size.is_multiple_of(16) || head_size > HEAD_SIZE_MAX {
        return Err(format!("heads of {head_size} numbers; a multiple of 16 up to {HEAD_SIZE_MAX} is supported"));
    }
    if !hidden.is_multiple_of(16) {
        return Err(format!("a residual stream of {hidden} numbers; a multiple of 16 is supported"));
    }
    Ok(())
}

impl Scratch {
    /// Sizes the buffers of segments for a pass.
    fn lay_out(&mut self, pass: &Pass, geometry: &Geometry) {
        self.segment_starts.clear();
        let mut next = 0;
        for part in &pass.parts[..pass.singles()] {
            self.segment_starts.push(next);
            next += part.positions().div_ceil(SEGMENT);
        }
        self.segment_starts.push(next);
        let heads = next * geometry.heads;
        if self.shares.len() < heads {
            self.shares.resize(heads, Share { largest: 0.0, sum: 0.0 });
            self.segments.resize(heads * geometry.head_size, 0.0);
        }
    }
}

/// How a stage computes.
#[derive(Clone, Copy)]
struct How<'a> {
    isa: Isa,
    arithmetic: Arithmetic,
    geometry: &'a Geometry,
}

impl<'a> How<'a> {
    fn of(spec: &StageSpec, geometry: &'a Geometry) -> Self {
        Self { isa: spec.isa, arithmetic: spec.arithmetic, geometry }
    }

    fn needs(self, matrices: &[&Packed]) -> Needs {
        let needs = matrices.iter().map(|matrix| Needs::of(matrix.kind(), self.arithmetic));
        needs.fold(Needs::default(), Needs::and)
    }

    /// The norm of one row.
    fn norm(self, row: &[f32], weight: &[f32], out: &mut [f32]) {
        norm(self.isa, row, weight, self.geometry.norm_epsilon, out);
    }
}

/// Who computes, and how.
#[derive(Clone, Copy)]
struct Task<'a> {
    team: &'a Team,
    how: How<'a>,
}

impl Task<'_> {
    /// How many rows of a matrix one part of a job takes: a few parts per worker.
    fn piece(&self, matrix: &Packed) -> usize {
        let together = matrix.rows_together();
        let slabs = matrix.rows().div_ceil(together);
        let workers = self.team.workers();
        if workers == 1 {
            return slabs * together;
        }
        // Where slabs can be shared out evenly in two to four parts per worker, all workers end together.
        let even = (2 * workers..=4 * workers).step_by(workers).find(|parts| slabs.is_multiple_of(*parts));
        slabs.div_ceil(even.unwrap_or(4 * workers).min(PARTS_MAX)) * together
    }

    /// The norm of every row, prepared for products with `matrices`.
    fn normed(&self, hidden: &[f32], weight: &[f32], matrices: &[&Packed], input: &mut Input) {
        let how = self.how;
        let width = how.geometry.hidden;
        let rows = hidden.len() / width;
        input.fill(self.team, how.isa, how.needs(matrices), rows, width, 1, &|first, rows| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                how.norm(&hidden[(first + i) * width..][..width], weight, row);
            }
        });
    }

    /// Multiplies several matrices with one input, all parts of all of them as one job.
    fn products<const N: usize>(&self, matrices: [&Packed; N], input: &Input, store: Store, out: [&mut [f32]; N]) {
        let mut starts = [0; N];
        let mut parts = 0;
        let mut tables: [Option<Columns<'_>>; N] = [const { None }; N];
        for (i, out) in out.into_iter().enumerate() {
            let rows = matrices[i].rows();
            let piece = self.piece(matrices[i]);
            starts[i] = parts;
            parts += rows.div_ceil(piece);
            tables[i] = Some(Columns::new(out, rows, piece));
        }
        let how = self.how;
        self.team.run(parts, &|part| {
            let i = starts.partition_point(|&start| start <= part) - 1;
            let table = tables[i].as_ref().expect("every table is made above");
            product(how.isa, how.arithmetic, matrices[i], input, store, &mut table.take(part - starts[i]));
        });
    }

    fn queries_keys_values(&self, layer: &Layer, scratch: &mut Scratch, pass: &Pass) {
        let matrices = [&layer.query, &layer.key, &layer.value];
        let rows = pass.rows();
        self.normed(&pass.hidden, &layer.attention_norm, &matrices, &mut scratch.narrow);
        let out = [&mut scratch.query, &mut scratch.key, &mut scratch.value];
        let mut widths = matrices.map(Packed::rows).into_iter();
        let out = out.map(|table| &mut table[..rows * widths.next().expect("three matrices")]);
        self.products(matrices, &scratch.narrow, Store::Set, out);
    }

    /// Rotates the new keys and writes keys and values into the cache.
    fn remember(&self, cache: &mut Cache, layer: usize, rotations: &Rotations, scratch: &mut Scratch, pass: &Pass) {
        let Geometry { head_size: size, kv_heads, .. } = *self.how.geometry;
        let (isa, width) = (self.how.isa, kv_heads * size);
        let (keys, values) = (&scratch.key, &scratch.value);
        let heads_each = kv_heads.div_ceil(PARTS_MAX);
        let head_floats = cache.head_floats();
        let heads = Pieces::new(cache.layer_mut(layer), head_floats * heads_each);
        let one = |part: usize| {
            for (i, head) in heads.take(part).chunks_exact_mut(head_floats).enumerate() {
                let column = (part * heads_each + i) * size;
                for of in &pass.parts {
                    for token in 0..of.tokens {
                        let (position, at) = (of.start + token, (of.row + token) * width + column);
                        let mut key = [0.0; HEAD_SIZE_MAX];
                        let key = &mut key[..size];
                        key.copy_from_slice(&keys[at..at + size]);
                        rotations.rotate(isa, position, key);
                        let block = pass.blocks[of.blocks + position / CACHE_BLOCK] as usize;
                        write(head, block, position % CACHE_BLOCK, key, &values[at..at + size]);
                    }
                }
            }
        };
        let parts = kv_heads.div_ceil(heads_each);
        if pass.rows() < 8 {
            (0..parts).for_each(one);
        } else {
            self.team.run(parts, &one);
        }
    }

    /// Attention of every row, its output product, and the sum with the residual stream.
    fn attend(
        &self,
        layer: &Layer,
        cache: &Cache,
        index: usize,
        rotations: &Rotations,
        scratch: &mut Scratch,
        pass: &mut Pass,
    ) {
        let how = self.how;
        let Geometry { head_size: size, heads, .. } = *how.geometry;
        let width = heads * size;
        let view = View {
            how,
            layer: cache.layer(index),
            head_floats: cache.head_floats(),
            rotations,
            query: &scratch.query,
            pass,
        };
        let singles = pass.singles();
        view.attend_singles(self.team, &mut scratch.segments, &mut scratch.shares, &scratch.segment_starts);
        let (segments, shares, starts) = (&scratch.segments, &scratch.shares, &scratch.segment_starts);
        let needs = how.needs(&[&layer.attention_output]);
        // Without prefill rows there is no reason to keep rows together.
        let together = if singles == pass.rows() { 1 } else { ROWS_TOGETHER };
        scratch.narrow.fill(self.team, how.isa, needs, pass.rows(), width, together, &|first, rows| {
            let end = first + rows.len() / width;
            for (row, out) in (first..end.min(singles)).zip(rows.chunks_exact_mut(width)) {
                for (head, out) in out.chunks_exact_mut(size).enumerate() {
                    let mut merged = Merged::new();
                    for segment in starts[row]..starts[row + 1] {
                        let at = segment * heads + head;
                        merged.add(how.isa, out, &segments[at * size..][..size], shares[at]);
                    }
                    merged.finish(out);
                }
            }
            if end > singles {
                let from = first.max(singles);
                view.attend_rows(from..end, &mut rows[(from - first) * width..]);
            }
        });
        self.products([&layer.attention_output], &scratch.narrow, Store::Add, [&mut pass.hidden]);
    }

    fn feed_forward(&self, layer: &Layer, scratch: &mut Scratch, pass: &mut Pass) {
        let how = self.how;
        let width = how.geometry.feed_forward;
        let rows = pass.rows();
        self.normed(&pass.hidden, &layer.feed_forward_norm, &[&layer.gate, &layer.up], &mut scratch.narrow);
        let (gate, up) = (&mut scratch.gate[..rows * width], &mut scratch.up[..rows * width]);
        let piece = self.piece(&layer.gate).max(self.piece(&layer.up));
        let (gates, ups) = (Columns::new(gate, width, piece), Columns::new(up, width, piece));
        let input = &scratch.narrow;
        self.team.run(width.div_ceil(piece), &|part| {
            let (mut gate, mut up) = (gates.take(part), ups.take(part));
            product(how.isa, how.arithmetic, &layer.gate, input, Store::Set, &mut gate);
            product(how.isa, how.arithmetic, &layer.up, input, Store::Set, &mut up);
            for row in 0..rows {
                gate_by_silu(how.isa, gate.row(row), up.row(row));
            }
        });
        let gated = &scratch.gate;
        let needs = how.needs(&[&layer.down]);
        scratch.wide.fill(self.team, how.isa, needs, rows, width, 1, &|first, rows| {
            rows.copy_from_slice(&gated[first * width..][..rows.len()]);
        });
        self.products([&layer.down], &scratch.wide, Store::Add, [&mut pass.hidden]);
    }

    /// Logits of the rows that want them.
    fn head(&self, head: &Head, input: &mut Input, pass: &mut Pass) {
        let how = self.how;
        let (width, vocabulary) = (how.geometry.hidden, how.geometry.vocabulary);
        pass.logits.resize(pass.wanted.len() * vocabulary, 0.0);
        if pass.wanted.is_empty() {
            return;
        }
        let (hidden, wanted) = (&pass.hidden, &pass.wanted);
        let needs = how.needs(&[&head.output]);
        input.fill(self.team, how.isa, needs, wanted.len(), width, 1, &|first, rows| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                how.norm(&hidden[wanted[first + i] * width..][..width], &head.norm, row);
            }
        });
        self.products([&head.output], input, Store::Set, [&mut pass.logits]);
    }
}

/// What attention reads in one layer.
#[derive(Clone, Copy)]
struct View<'a> {
    how: How<'a>,
    layer: &'a [f32],
    head_floats: usize,
    rotations: &'a Rotations,
    query: &'a [f32],
    pass: &'a Pass,
}

impl View<'_> {
    /// Rotated and scaled queries of `row` at `position`, heads `heads`, into `out`.
    fn queries(&self, row: usize, position: usize, heads: Range<usize>, out: &mut [f32]) {
        let (size, width) = (self.how.geometry.head_size, self.how.geometry.heads * self.how.geometry.head_size);
        let scale = 1.0 / (size as f32).sqrt();
        out.copy_from_slice(&self.query[row * width + heads.start * size..row * width + heads.end * size]);
        for head in out.chunks_exact_mut(size) {
            self.rotations.rotate(self.how.isa, position, head);
            head.iter_mut().for_each(|number| *number *= scale);
        }
    }

    /// One segment of some queries of one key-value head.
    #[allow(clippy::needless_pass_by_value, reason = "the output is written once, by whoever holds it")]
    fn segment(&self, part: &Part, kv_head: usize, segment: usize, queries: &[f32], seen: &[usize], out: Out<'_>) {
        let first = part.blocks + segment * SEGMENT_BLOCKS;
        let last = part.blocks + part.positions().div_ceil(CACHE_BLOCK);
        let most = seen.iter().fold(0, |m, &n| m.max(n));
        let work = Segment {
            cache: &self.layer[kv_head * self.head_floats..][..self.head_floats],
            blocks: &self.pass.blocks[first..last.min(first + most.div_ceil(CACHE_BLOCK))],
            head_size: self.how.geometry.head_size,
            queries,
            positions: seen,
        };
        work.attend(self.how.isa, out.sums, out.shares);
    }

    /// Rows of a single token: every segment of every key-value head is a piece of work of its own, so that one long
    /// sequence keeps all workers busy.
    fn attend_singles(&self, team: &Team, segments: &mut [f32], shares: &mut [Share], starts: &[usize]) {
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
                let seen = (part.positions() - segment * SEGMENT).min(SEGMENT);
                let tiles = sums.chunks_mut(QUERIES_MAX * size).zip(shares.chunks_mut(QUERIES_MAX));
                for (tile, (sums, shares)) in tiles.enumerate() {
                    let head = kv_head * group + tile * QUERIES_MAX;
                    let count = shares.len();
                    let mut queries = [0.0; QUERIES_MAX * HEAD_SIZE_MAX];
                    let queries = &mut queries[..count * size];
                    self.queries(part.row, part.start, head..head + count, queries);
                    let seen = [seen; QUERIES_MAX];
                    self.segment(part, kv_head, segment, queries, &seen[..count], Out { sums, shares });
                }
            }
        });
    }

    /// Rows of prefill chunks: `rows` of the pass, their results into `out`.
    fn attend_rows(&self, rows: Range<usize>, out: &mut [f32]) {
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
        for segment in 0..segments {
            // Queries are in rising order of position: those that see this segment are the last ones.
            let from = seen[..count].partition_point(|&n| n <= segment * SEGMENT);
            let here: [usize; QUERIES_MAX] =
                std::array::from_fn(|i| seen[i].saturating_sub(segment * SEGMENT).min(SEGMENT));
            let mut shares = [none; QUERIES_MAX];
            let (old, new) = sums.split_at_mut(QUERIES_MAX * HEAD_SIZE_MAX);
            let out = Out { sums: &mut new[from * size..count * size], shares: &mut shares[from..count] };
            self.segment(part, kv_head, segment, &queries[from * size..count * size], &here[from..count], out);
            for i in from..count {
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
