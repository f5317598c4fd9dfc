//! One stage: a range of layers on one device, and the forward pass through them.

mod feed_forward;
mod view;

use super::cache::Cache;
use super::pass::Pass;
use super::shelf::{Offload, Offloaded};
use super::weights::{Head, Layer, Weights};
use crate::cpu::attention::{CACHE_BLOCK, Merged, SEGMENT, Share, write};
use crate::cpu::element::{Rotations, norm};
use crate::cpu::input::{Input, Needs};
use crate::cpu::pack::Packed;
use crate::cpu::product::{Store, product};
use crate::cpu::share::{Columns, PARTS_MAX, Pieces};
use crate::cpu::team::Team;
use crate::cpu::{Arithmetic, Isa};
use crate::model::Geometry;
use crate::model::geometry::EMBEDDING;
use crate::model::gguf::Gguf;
use feed_forward::{Choice, Wide};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;
use view::View;

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
    /// Layers whose weights are not held, but brought when their turn comes.
    pub(crate) away: usize,
    /// Where the processor's lie meanwhile; the folder for temporary files where none is named.
    pub(crate) folder: Option<PathBuf>,
}

/// A loaded stage. Whoever calls [`Stage::run`] is the first worker of its team.
pub(crate) struct Stage {
    spec: StageSpec,
    gguf: Gguf,
    geometry: Geometry,
    weights: Weights,
    cache: Cache,
    rotations: Rotations,
    /// Those of layers that see a window, where they are others.
    local_rotations: Option<Rotations>,
    scratch: Scratch,
}

/// Buffers of one pass.
struct Scratch {
    /// Input of the products of hidden width, and of the attention's output.
    narrow: Input,
    /// What feed-forward layers work in.
    wide: Wide,
    /// `[row][number]`: what attention, feed-forward or an expert gives before it joins the residual stream.
    result: Vec<f32>,
    /// `[row][number]`: the norm of every row, for experts.
    normed: Vec<f32>,
    /// `[row][expert]`: what the router says.
    routes: Vec<f32>,
    /// Which expert serves which row.
    chosen: Vec<Choice>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// Attention of single tokens by segment: `[segment of a row][number of a head]`.
    segments: Vec<f32>,
    /// `[segment of a row][head]`.
    shares: Vec<Share>,
    /// Where each single row's segments begin; one more entry at the end.
    segment_starts: Vec<usize>,
}

impl Stage {
    /// Loads the stage's weights, as a team, and makes its cache and buffers.
    ///
    /// # Errors
    /// When the operating system does not give the memory.
    ///
    /// # Panics
    /// When the geometry is not one that [`supported`] accepts.
    pub(crate) fn load(
        gguf: &Gguf,
        geometry: &Geometry,
        spec: StageSpec,
        offload: Option<&Offload>,
        team: &Team,
    ) -> std::io::Result<Self> {
        assert!(supported(geometry).is_ok(), "an unsupported geometry");
        let g = geometry;
        let rows = spec.rows_max;
        let (queries, keys) = (g.heads * g.head_size, g.kv_heads * g.head_size);
        Ok(Self {
            weights: Weights::load(gguf, g, spec.layers.clone(), offload, team)?,
            cache: Cache::new(spec.layers.len(), g.kv_heads, g.head_size, spec.cache_blocks)?,
            rotations: Rotations::new(&g.rope, spec.positions_max),
            local_rotations: g.local_rope.as_ref().map(|rope| Rotations::new(rope, spec.positions_max)),
            scratch: Scratch {
                narrow: Input::new(rows, g.hidden.max(queries)),
                wide: Wide::new(rows, g.feed_forward),
                result: vec![
                    0.0;
                    if g.architecture.norms_results() || g.experts.is_some() { rows * g.hidden } else { 0 }
                ],
                normed: vec![0.0; if g.experts.is_some() { rows * g.hidden } else { 0 }],
                routes: vec![0.0; g.experts.map_or(0, |experts| rows * experts.count)],
                chosen: Vec::new(),
                query: vec![0.0; rows * queries],
                key: vec![0.0; rows * keys],
                value: vec![0.0; rows * keys],
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
    /// # Errors
    /// When a layer that lies in a file could not be read.
    ///
    /// # Panics
    /// When the pass has more rows or positions than the stage was made for.
    pub(crate) fn run(&mut self, team: &Team, pass: &mut Pass) -> std::io::Result<()> {
        assert!(pass.rows() <= self.spec.rows_max, "{} rows of at most {}", pass.rows(), self.spec.rows_max);
        if self.spec.layers.start == 0 {
            self.embed(pass);
        }
        self.scratch.lay_out(pass, &self.geometry);
        for layer in 0..self.weights.layers.len() {
            let brought = match &mut self.weights.shelf {
                Some(shelf) if shelf.has(layer) => Some(shelf.take(layer)?),
                _ => None,
            };
            if let Some(memory) = &brought {
                self.weights.layers[layer].move_to(memory);
            }
            self.layer(team, pass, layer);
            if let (Some(memory), Some(shelf)) = (brought, &self.weights.shelf) {
                self.weights.layers[layer].move_to(shelf.nowhere());
                shelf.give(memory);
            }
        }
        if let Some(head) = &self.weights.head {
            let begin = Instant::now();
            let task = Task { team, how: How::of(&self.spec, &self.geometry) };
            task.head(head, &mut self.scratch.narrow, pass);
            pass.choose(self.geometry.vocabulary);
            pass.head_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// What bringing layers did so far; none where all are held.
    pub(crate) fn offloaded(&self) -> Option<Offloaded> {
        self.weights.shelf.as_ref().map(super::shelf::Shelf::figures)
    }

    /// Looks tokens up in the embedding, in the file itself: only their rows are touched.
    fn embed(&self, pass: &mut Pass) {
        let embedding = self.gguf.tensor(EMBEDDING).expect("a geometry is read from a file with an embedding");
        let width = self.geometry.hidden;
        pass.hidden.resize(pass.tokens.len() * width, 0.0);
        for (&token, row) in pass.tokens.iter().zip(pass.hidden.chunks_exact_mut(width)) {
            let bytes = embedding.row(u64::from(token)).expect("tokens are checked against the vocabulary");
            embedding.format.dequantise_row(bytes, row);
            let scale = self.geometry.embedding_scale();
            if scale != 1.0 {
                row.iter_mut().for_each(|number| *number *= scale);
            }
        }
    }

    fn layer(&mut self, team: &Team, pass: &mut Pass, index: usize) {
        let task = Task { team, how: How::of(&self.spec, &self.geometry) };
        let layer = &self.weights.layers[index];
        let window = self.geometry.window_of(self.spec.layers.start + index);
        let rotations = self.local_rotations.as_ref().filter(|_| window.is_some()).unwrap_or(&self.rotations);
        task.queries_keys_values(layer, &mut self.scratch, pass);
        task.remember(layer, &mut self.cache, index, rotations, &mut self.scratch, pass);
        let sight = Sight { rotations, window };
        task.attend(layer, &self.cache, index, sight, &mut self.scratch, pass);
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

/// What a layer's attention sees.
#[derive(Clone, Copy)]
struct Sight<'a> {
    rotations: &'a Rotations,
    /// Positions that a token sees, itself included; all where absent.
    window: Option<usize>,
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
        let tables = [&mut scratch.query, &mut scratch.key, &mut scratch.value];
        for (table, bias) in tables.into_iter().zip(layer.biases.iter().flatten()) {
            for row in table[..rows * bias.len()].chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
            }
        }
    }

    /// Rotates the new keys and writes keys and values into the cache.
    fn remember(
        &self,
        layer: &Layer,
        cache: &mut Cache,
        index: usize,
        rotations: &Rotations,
        scratch: &mut Scratch,
        pass: &Pass,
    ) {
        let how = self.how;
        let Geometry { head_size: size, kv_heads, .. } = *how.geometry;
        let (isa, width) = (how.isa, kv_heads * size);
        let key_norm = layer.head_norms.as_ref().map(|norms| &norms[1]);
        let (keys, values) = (&scratch.key, &scratch.value);
        let heads_each = kv_heads.div_ceil(PARTS_MAX);
        let head_floats = cache.head_floats();
        let heads = Pieces::new(cache.layer_mut(index), head_floats * heads_each);
        let one = |part: usize| {
            for (i, head) in heads.take(part).chunks_exact_mut(head_floats).enumerate() {
                let column = (part * heads_each + i) * size;
                for of in &pass.parts {
                    for token in 0..of.tokens {
                        let (position, at) = (of.start + token, (of.row + token) * width + column);
                        let mut key = [0.0; HEAD_SIZE_MAX];
                        let key = &mut key[..size];
                        match key_norm {
                            None => key.copy_from_slice(&keys[at..at + size]),
                            Some(weight) => how.norm(&keys[at..at + size], weight, key),
                        }
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
        sight: Sight<'_>,
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
            sight,
            query: &scratch.query,
            query_norm: layer.head_norms.as_ref().map(|norms| norms[0].as_slice()),
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
                    let unseen = view.unseen(pass.parts[row].positions()) / SEGMENT;
                    for segment in starts[row] + unseen..starts[row + 1] {
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
        match &layer.result_norms {
            None => self.products([&layer.attention_output], &scratch.narrow, Store::Add, [&mut pass.hidden]),
            Some([weight, _]) => {
                let result = &mut scratch.result[..pass.rows() * how.geometry.hidden];
                self.products([&layer.attention_output], &scratch.narrow, Store::Set, [&mut *result]);
                self.join(weight, result, &mut pass.hidden);
            }
        }
    }

    /// Adds the norm of every row of `result` to the residual stream.
    fn join(&self, weight: &[f32], result: &mut [f32], hidden: &mut [f32]) {
        let width = weight.len();
        let mut normed = vec![0.0; width];
        for (row, hidden) in result.chunks_exact(width).zip(hidden.chunks_exact_mut(width)) {
            self.how.norm(row, weight, &mut normed);
            hidden.iter_mut().zip(&normed).for_each(|(to, number)| *to += number);
        }
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
