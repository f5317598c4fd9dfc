//! A decoder made of a device's operations, one sequence at a time: the self-test of a backend by a whole model.
//!
//! It does what the engine does without the engine's scheduling, so that a card is judged by a model's logits as soon
//! as its backend meets the contract.

use super::{
    Arithmetic, Buffer, CACHE_BLOCK, Cache, Counters, Device, DeviceError, Heads, Input, Matrix, NormBy, Op, Places,
    Rope, Store, View,
};
use crate::model::Geometry;
use crate::model::geometry::{EMBEDDING, OUTPUT, OUTPUT_NORM};
use crate::model::gguf::Gguf;
use std::ops::Range;

struct Layer {
    norms: [Buffer; 2],
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    cache: Cache,
}

struct Buffers {
    tokens: Buffer,
    places: Buffer,
    blocks: Buffer,
    rope: Buffer,
    hidden: Buffer,
    query: Buffer,
    key: Buffer,
    value: Buffer,
    attended: Buffer,
    gated: Buffer,
    logits: Buffer,
}

/// Some layers on one device.
struct Stage {
    device: Device,
    layers: Vec<Layer>,
    /// Where the stage looks tokens up, when it is the first one.
    embedding: Option<Matrix>,
    /// The last norm and the output matrix, when it is the last one.
    head: Option<(Buffer, Matrix)>,
    buffers: Buffers,
    blocks_count: u32,
    positions: u32,
}

/// A model cut into stages, with one sequence in its caches.
pub struct Decoder {
    geometry: Geometry,
    arithmetic: Arithmetic,
    stages: Vec<Stage>,
    seen: usize,
}

fn bytes_of<T: Copy>(values: &[T], to: impl Fn(T) -> [u8; 4]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

impl Stage {
    fn load(
        mut device: Device,
        gguf: &Gguf,
        geometry: &Geometry,
        layers: Range<usize>,
        rows: usize,
        positions: usize,
    ) -> Result<Self, DeviceError> {
        let g = geometry;
        let (queries, keys) = (g.heads * g.head_size, g.kv_heads * g.head_size);
        let blocks_count = positions.div_ceil(CACHE_BLOCK);
        let matrix = |device: &mut Device, name: &str| {
            let tensor = gguf.tensor(name).expect("a geometry is read from a file with all its tensors");
            device.load(tensor.format, tensor.rows() as u32, tensor.row_values() as u32, tensor.bytes)
        };
        let floats = |device: &mut Device, count: usize| device.allocate(4 * count as u64);
        let norm = |device: &mut Device, name: &str| {
            let values = gguf.tensor(name).expect("as above").dequantise();
            let buffer = device.allocate(4 * values.len() as u64)?;
            device.copy_in(buffer, 0, &bytes_of(&values, f32::to_le_bytes))?;
            Ok::<_, DeviceError>(buffer)
        };
        let mut made = Vec::new();
        for layer in layers.clone() {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            made.push(Layer {
                norms: [norm(&mut device, &name("attn_norm"))?, norm(&mut device, &name("ffn_norm"))?],
                query: matrix(&mut device, &name("attn_q"))?,
                key: matrix(&mut device, &name("attn_k"))?,
                value: matrix(&mut device, &name("attn_v"))?,
                output: matrix(&mut device, &name("attn_output"))?,
                gate: matrix(&mut device, &name("ffn_gate"))?,
                up: matrix(&mut device, &name("ffn_up"))?,
                down: matrix(&mut device, &name("ffn_down"))?,
                cache: Cache {
                    keys: floats(&mut device, blocks_count * CACHE_BLOCK * keys)?.into(),
                    values: floats(&mut device, blocks_count * CACHE_BLOCK * keys)?.into(),
                    blocks: blocks_count as u32,
                },
            });
        }
        let embedding = if layers.start == 0 { Some(matrix(&mut device, EMBEDDING)?) } else { None };
        let head = if layers.end == g.layers {
            let name = if g.tied { EMBEDDING } else { OUTPUT };
            Some((norm(&mut device, OUTPUT_NORM)?, matrix(&mut device, name)?))
        } else {
            None
        };
        let buffers = Buffers {
            tokens: floats(&mut device, rows)?,
            places: floats(&mut device, 2 * rows)?,
            blocks: floats(&mut device, blocks_count)?,
            rope: floats(&mut device, positions * g.rope.dimensions)?,
            hidden: floats(&mut device, rows * g.hidden)?,
            query: floats(&mut device, rows * queries)?,
            key: floats(&mut device, rows * keys)?,
            value: floats(&mut device, rows * keys)?,
            attended: floats(&mut device, rows * queries)?,
            gated: floats(&mut device, rows * g.feed_forward)?,
            logits: floats(&mut device, rows * g.vocabulary)?,
        };
        let mut table = Vec::new();
        for position in 0..positions {
            for frequency in g.rope.frequencies() {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                table.extend([cosine as f32, sine as f32]);
            }
        }
        device.copy_in(buffers.rope, 0, &bytes_of(&table, f32::to_le_bytes))?;
        // Blocks lie in the cache in falling order, so that nothing passes by taking positions for places.
        let blocks: Vec<u32> = (0..blocks_count as u32).rev().collect();
        device.copy_in(buffers.blocks, 0, &bytes_of(&blocks, u32::to_le_bytes))?;
        let (blocks_count, positions) = (blocks_count as u32, positions as u32);
        Ok(Self { device, layers: made, embedding, head, buffers, blocks_count, positions })
    }

    /// The operations of one pass of `rows` rows, of which the longest sees `seen_max` positions.
    fn ops(&self, g: &Geometry, arithmetic: Arithmetic, rows: u32, seen_max: u32) -> Vec<Op> {
        let b = &self.buffers;
        let heads = Heads { query: g.heads as u32, kv: g.kv_heads as u32, size: g.head_size as u32 };
        let places = Places { rows: b.places.into(), blocks: b.blocks.into(), blocks_count: self.blocks_count };
        let rope = Rope {
            table: b.rope.into(),
            positions: self.positions,
            dimensions: g.rope.dimensions as u32,
            pairs: g.rope.pairs,
        };
        let through = |buffer: Buffer, weight: Buffer| Input {
            numbers: buffer.into(),
            norm: Some(NormBy { weight: weight.into(), epsilon: g.norm_epsilon }),
        };
        let product = |input, outs: Vec<(Matrix, View)>, store| Op::Product { input, rows, outs, store, arithmetic };
        let mut ops = Vec::with_capacity(2 + 6 * self.layers.len());
        if let Some(table) = self.embedding {
            ops.push(Op::Lookup { table, indices: b.tokens.into(), rows, out: b.hidden.into() });
        }
        for layer in &self.layers {
            let outs = vec![(layer.query, b.query.into()), (layer.key, b.key.into()), (layer.value, b.value.into())];
            ops.push(product(through(b.hidden, layer.norms[0]), outs, Store::Set));
            ops.push(Op::Remember {
                query: b.query.into(),
                key: b.key.into(),
                value: b.value.into(),
                rows,
                heads,
                places,
                rope,
                cache: layer.cache,
            });
            ops.push(Op::Attend {
                query: b.query.into(),
                rows,
                heads,
                places,
                cache: layer.cache,
                scale: 1.0 / (g.head_size as f32).sqrt(),
                seen_max,
                out: b.attended.into(),
            });
            let plain = |buffer: Buffer| Input { numbers: buffer.into(), norm: None };
            ops.push(product(plain(b.attended), vec![(layer.output, b.hidden.into())], Store::Add));
            ops.push(Op::Gated {
                input: through(b.hidden, layer.norms[1]),
                rows,
                gate: layer.gate,
                up: layer.up,
                out: b.gated.into(),
                arithmetic,
            });
            ops.push(product(plain(b.gated), vec![(layer.down, b.hidden.into())], Store::Add));
        }
        if let Some((norm, output)) = self.head {
            ops.push(product(through(b.hidden, norm), vec![(output, b.logits.into())], Store::Set));
        }
        ops
    }
}

/// What one decoded token takes, seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Each operation by its name: the lookup, those of one layer, the output.
    pub operations: Vec<(&'static str, f64)>,
    /// All of them for all layers, as one step.
    pub token: f64,
}

impl Stage {
    /// Median seconds of some runs of a batch.
    fn timed(&mut self, batch: &[Op], samples: u32) -> Result<Option<f64>, DeviceError> {
        // Twice: the second time the backend may start what it has kept.
        self.device.launch(batch)?;
        self.device.launch(batch)?;
        let mut seconds = Vec::new();
        for _ in 0..samples.max(1) {
            let from = self.device.record()?;
            self.device.launch(batch)?;
            let to = self.device.record()?;
            let elapsed = self.device.elapsed(from, to)?;
            self.device.forget(from)?;
            self.device.forget(to)?;
            let Some(elapsed) = elapsed else { return Ok(None) };
            seconds.push(elapsed.as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Some(seconds[seconds.len() / 2]))
    }
}

impl Decoder {
    /// Loads a model with each range of layers on a device of its own, for passes of at most `rows` tokens and a
    /// sequence of at most `positions`.
    ///
    /// # Errors
    /// What a device says.
    ///
    /// # Panics
    /// When the file is no model of the family.
    pub fn load(
        gguf: &Gguf,
        cuts: Vec<(Range<usize>, Device)>,
        arithmetic: Arithmetic,
        rows: usize,
        positions: usize,
    ) -> Result<Self, DeviceError> {
        let geometry = Geometry::from_gguf(gguf).expect("a model of the family");
        let stages = cuts
            .into_iter()
            .map(|(layers, device)| Stage::load(device, gguf, &geometry, layers, rows, positions))
            .collect::<Result<_, _>>()?;
        Ok(Self { geometry, arithmetic, stages, seen: 0 })
    }

    /// Takes tokens in and gives the logits after each.
    ///
    /// # Errors
    /// What a device says, also of more tokens than the decoder was made for.
    ///
    /// # Panics
    /// Without tokens.
    pub fn pass(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, DeviceError> {
        let (rows, g) = (tokens.len(), self.geometry.clone());
        let seen: Vec<u32> = (0..rows).map(|row| (self.seen + row + 1) as u32).collect();
        let places: Vec<u32> = seen.iter().flat_map(|&seen| [seen, 0]).collect();
        for at in 0..self.stages.len() {
            let (before, rest) = self.stages.split_at_mut(at);
            let stage = &mut rest[0];
            stage.device.copy_in(stage.buffers.places, 0, &bytes_of(&places, u32::to_le_bytes))?;
            match before.last_mut() {
                None => stage.device.copy_in(stage.buffers.tokens, 0, &bytes_of(tokens, u32::to_le_bytes))?,
                Some(last) => {
                    let bytes = 4 * (rows * g.hidden) as u64;
                    let (from, to) = ((last.buffers.hidden, 0), (stage.buffers.hidden, 0));
                    last.device.copy_to_peer(from, &mut stage.device, to, bytes)?;
                }
            }
            let ops = stage.ops(&g, self.arithmetic, rows as u32, seen[rows - 1]);
            stage.device.launch(&ops)?;
        }
        self.seen += rows;
        self.logits(rows)
    }

    fn logits(&mut self, rows: usize) -> Result<Vec<Vec<f32>>, DeviceError> {
        let vocabulary = self.geometry.vocabulary;
        let last = self.stages.last_mut().expect("a model has a stage");
        let mut bytes = vec![0; 4 * rows * vocabulary];
        last.device.copy_out(last.buffers.logits, 0, &mut bytes)?;
        let numbers: Vec<f32> =
            bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        Ok(numbers.chunks_exact(vocabulary).map(<[f32]>::to_vec).collect())
    }

    /// What the operations of one decoded token take on the device of a single stage; `None` where the device has no
    /// clock. An operation that every layer has is timed over all layers in turn, so that its weights come from where
    /// they come from in a run and not from a cache. Caches and buffers hold what the last pass left there.
    ///
    /// # Errors
    /// What the device says.
    pub fn timed(&mut self, samples: u32) -> Result<Option<Times>, DeviceError> {
        /// Operations of a layer.
        const OF_LAYER: usize = 6;
        /// How often an operation that is there once is repeated.
        const TIMES: usize = 8;
        let seen = self.seen.max(1) as u32;
        let stage = &mut self.stages[0];
        let ops = stage.ops(&self.geometry, self.arithmetic, 1, seen);
        let first = usize::from(stage.embedding.is_some());
        let layers = stage.layers.len();
        let mut batches: Vec<Vec<Op>> = ops[..first].iter().map(|op| vec![op.clone(); TIMES]).collect();
        for part in 0..OF_LAYER {
            batches.push((0..layers).map(|layer| ops[first + OF_LAYER * layer + part].clone()).collect());
        }
        batches.extend(ops[first + OF_LAYER * layers..].iter().map(|op| vec![op.clone(); TIMES]));
        let mut operations = Vec::new();
        for batch in &batches {
            let Some(seconds) = stage.timed(batch, samples)? else { return Ok(None) };
            operations.push((batch[0].name(), seconds / batch.len() as f64));
        }
        Ok(stage.timed(&ops, samples)?.map(|token| Times { operations, token }))
    }

    /// What each stage's device has done.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.stages.iter().map(|stage| stage.device.counters()).collect()
    }
}
