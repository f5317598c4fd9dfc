//! One stage on a device behind the contract: the same forward pass as [`super::stage`], as a list of operations.
//!
//! Everything that a step needs is allocated when the stage is loaded. A step sends one small table to the device
//! (tokens, places, blocks), launches one batch of operations, and reads back what the next stage or the choice of
//! tokens needs: the residual stream, the logits, or only the largest one of each row.

use super::brought::{Brought, Matrices, PARTS};
use super::pass::Pass;
use super::shelf::Offloaded;
use super::stage::StageSpec;
use crate::backend::{
    Arithmetic, Buffer, CACHE_BLOCK, Cache, Device, DeviceError, Event, Heads, Input, Matrix, NormBy, Op, Places, Rope,
    Store, View,
};
use crate::model::Geometry;
use crate::model::geometry::{EMBEDDING, OUTPUT, OUTPUT_NORM};
use crate::model::gguf::Gguf;
use isotherm_core::offload;
use std::ops::Range;
use std::time::Instant;

/// Most rows whose logits are computed at a time.
const HEAD_ROWS: usize = 32;

/// One layer on the device.
struct Layer {
    attention_norm: Buffer,
    feed_forward_norm: Buffer,
    /// Its matrices; none where they are brought.
    held: Option<Matrices>,
    keys: Buffer,
    values: Buffer,
}

/// The end of the model on the device.
struct Head {
    norm: Buffer,
    output: Matrix,
    logits: Buffer,
    largest: Buffer,
    rows_max: usize,
}

/// Buffers of one step.
struct Scratch {
    /// Tokens, places of rows, blocks: all that a step is told, in one piece.
    told: Buffer,
    blocks_max: usize,
    hidden: Buffer,
    query: Buffer,
    key: Buffer,
    value: Buffer,
    attended: Buffer,
    gated: Buffer,
    rotations: Buffer,
}

/// A stage on a device.
pub(crate) struct DeviceStage {
    device: Device,
    spec: StageSpec,
    geometry: Geometry,
    embedding: Option<Matrix>,
    layers: Vec<Layer>,
    /// Layers that are brought.
    brought: Option<Brought>,
    head: Option<Head>,
    scratch: Scratch,
    /// Bytes on their way to the device.
    words: Vec<u8>,
    /// Bytes that came from it.
    read: Vec<u8>,
}

/// What a stage holds on its device.
struct Parts {
    embedding: Option<Matrix>,
    layers: Vec<Layer>,
    brought: Option<Brought>,
    head: Option<Head>,
    scratch: Scratch,
}

impl Parts {
    fn on(self, device: Device, geometry: &Geometry, spec: StageSpec) -> DeviceStage {
        let Self { embedding, layers, brought, head, scratch } = self;
        let (geometry, words, read) = (geometry.clone(), Vec::new(), Vec::new());
        DeviceStage { device, spec, geometry, embedding, layers, brought, head, scratch, words, read }
    }
}

/// What the operations of a step need to know of its pass.
#[derive(Clone, Copy)]
struct Told {
    rows: usize,
    blocks: usize,
    seen_max: u32,
}

/// Loads weights of a file into a device.
pub(super) struct Loader<'a> {
    pub(super) device: &'a mut Device,
    pub(super) gguf: &'a Gguf,
}

impl Loader<'_> {
    /// The matrices of a layer of the model.
    pub(super) fn matrices(&mut self, layer: usize) -> Result<Matrices, DeviceError> {
        let of = |part: &str| self.matrix(&format!("blk.{layer}.{part}.weight"));
        let [query, key, value, attention_output, gate, up, down] = PARTS.map(of);
        Ok(Matrices {
            query: query?,
            key: key?,
            value: value?,
            attention_output: attention_output?,
            gate: gate?,
            up: up?,
            down: down?,
        })
    }

    fn matrix(&mut self, name: &str) -> Result<Matrix, DeviceError> {
        let tensor = self.gguf.tensor(name).expect("a geometry is read from a file with all its tensors");
        let narrow = |count: u64| u32::try_from(count).expect("a geometry's counts fit in 32 bits");
        self.device.load(tensor.format, narrow(tensor.rows()), narrow(tensor.row_values()), tensor.bytes)
    }

    fn numbers(&mut self, numbers: &[f32]) -> Result<Buffer, DeviceError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let buffer = self.device.allocate(bytes.len() as u64)?;
        self.device.copy_in(buffer, 0, &bytes)?;
        Ok(buffer)
    }

    fn norm(&mut self, name: &str) -> Result<Buffer, DeviceError> {
        let tensor = self.gguf.tensor(name).expect("a geometry is read from a file with all its tensors");
        self.numbers(&tensor.dequantise())
    }

    fn room(&mut self, numbers: usize) -> Result<Buffer, DeviceError> {
        self.device.allocate(4 * numbers as u64)
    }
}

impl DeviceStage {
    /// Loads the stage's weights and makes its cache and buffers.
    ///
    /// # Errors
    /// When the device has not the memory, or does not take a format or a size.
    pub(crate) fn load(
        mut device: Device,
        gguf: &Gguf,
        geometry: &Geometry,
        spec: StageSpec,
    ) -> Result<Self, DeviceError> {
        let ends = (spec.layers.start == 0, spec.layers.end == geometry.layers);
        Self::load_parts(&mut device, gguf, geometry, &spec, ends).map(|parts| parts.on(device, geometry, spec))
    }

    /// The same without embedding and head, whatever the layers are.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_layers(
        mut device: Device,
        gguf: &Gguf,
        geometry: &Geometry,
        spec: StageSpec,
    ) -> Result<Self, DeviceError> {
        let ends = (false, false);
        Self::load_parts(&mut device, gguf, geometry, &spec, ends).map(|parts| parts.on(device, geometry, spec))
    }

    fn load_parts(
        device: &mut Device,
        gguf: &Gguf,
        geometry: &Geometry,
        spec: &StageSpec,
        (first, last): (bool, bool),
    ) -> Result<Parts, DeviceError> {
        let g = geometry;
        if let Some(what) = g.beyond_llama() {
            return Err(DeviceError::NotSupported { device: device.label(), what: format!("models with {what}") });
        }
        let rows = spec.rows_max;
        let (queries, keys) = (g.heads * g.head_size, g.kv_heads * g.head_size);
        let logits_bytes_max = device.limits().operand_bytes_max;
        let mut loader = Loader { device: &mut *device, gguf };
        let embedding = if first { Some(loader.matrix(EMBEDDING)?) } else { None };
        let away = offload::spread(spec.layers.len(), spec.away);
        let mut brought =
            if away.is_empty() { None } else { Some(Brought::load(&mut loader, &away, spec.layers.start)?) };
        let mut layers = Vec::new();
        let mut held_bytes = 0;
        for layer in spec.layers.clone() {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let numbers = spec.cache_blocks * CACHE_BLOCK * keys;
            let before = loader.device.live().bytes;
            let is_away = away.contains(&(layer - spec.layers.start));
            let held = if is_away { None } else { Some(loader.matrices(layer)?) };
            held_bytes += loader.device.live().bytes - before;
            layers.push(Layer {
                attention_norm: loader.norm(&name("attn_norm"))?,
                feed_forward_norm: loader.norm(&name("ffn_norm"))?,
                held,
                keys: loader.room(numbers)?,
                values: loader.room(numbers)?,
            });
        }
        if let Some(brought) = &mut brought {
            brought.figures.held_bytes += held_bytes;
        }
        let head = if last {
            let output = match (embedding, g.tied) {
                (Some(embedding), true) => embedding,
                (None, true) => loader.matrix(EMBEDDING)?,
                (_, false) => loader.matrix(OUTPUT)?,
            };
            let fit = usize::try_from(logits_bytes_max / (4 * g.vocabulary as u64)).unwrap_or(HEAD_ROWS);
            let rows_max = rows.min(HEAD_ROWS).min(fit).max(1);
            Some(Head {
                norm: loader.norm(OUTPUT_NORM)?,
                output,
                logits: loader.room(rows_max * g.vocabulary)?,
                largest: loader.room(rows_max)?,
                rows_max,
            })
        } else {
            None
        };
        let mut rotations = Vec::with_capacity(spec.positions_max * g.rope.dimensions);
        let frequencies = g.rope.frequencies();
        for position in 0..spec.positions_max {
            for frequency in &frequencies {
                let (sine, cosine) = (position as f64 * frequency).sin_cos();
                rotations.extend([cosine as f32, sine as f32]);
            }
        }
        // Sequences may share blocks of the cache, so that there can be more entries than blocks, but never more than
        // each row could name.
        let blocks_max = rows * spec.positions_max.div_ceil(CACHE_BLOCK);
        let scratch = Scratch {
            told: loader.room(3 * rows + blocks_max)?,
            blocks_max,
            hidden: loader.room(rows * g.hidden)?,
            query: loader.room(rows * queries)?,
            key: loader.room(rows * keys)?,
            value: loader.room(rows * keys)?,
            attended: loader.room(rows * queries)?,
            gated: loader.room(rows * g.feed_forward)?,
            rotations: loader.numbers(&rotations)?,
        };
        device.synchronise()?;
        Ok(Parts { embedding, layers, brought, head, scratch })
    }

    /// The operations of a pass through the layers, one by one, after the device was told what they are about.
    ///
    /// # Errors
    /// What the device says.
    pub(crate) fn steps(&mut self, pass: &Pass) -> Result<Vec<Op>, DeviceError> {
        let (mut ops, seen_max) = self.tell(pass)?;
        let told = Told { rows: pass.rows(), blocks: pass.blocks.len(), seen_max };
        self.layers_of(&mut ops, 0..self.layers.len(), told, None);
        Ok(ops)
    }

    /// Every buffer that an operation of the layers writes, in an order that is the same on every device.
    pub(crate) fn buffers(&self) -> Vec<Buffer> {
        let s = &self.scratch;
        let caches = self.layers.iter().flat_map(|layer| [layer.keys, layer.values]);
        [s.hidden, s.query, s.key, s.value, s.attended, s.gated].into_iter().chain(caches).collect()
    }

    /// The device, to be asked directly.
    pub(crate) fn device_mut(&mut self) -> &mut Device {
        &mut self.device
    }

    /// The device, for its counters.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Takes a pass through the stage's layers.
    ///
    /// # Errors
    /// What the device says; the pass is then of no use.
    ///
    /// # Panics
    /// When the pass has more rows or positions than the stage was made for.
    pub(crate) fn run(&mut self, pass: &mut Pass) -> Result<(), DeviceError> {
        let rows = pass.rows();
        assert!(rows <= self.spec.rows_max, "{rows} rows of at most {}", self.spec.rows_max);
        let (ops, seen_max) = self.tell(pass)?;
        let mut ops = ops;
        let told = Told { rows, blocks: pass.blocks.len(), seen_max };
        let mut from = 0;
        if let Some(mut brought) = self.brought.take() {
            let launched = self.launch_brought(&mut brought, &mut ops, told);
            self.brought = Some(brought);
            from = launched?;
        }
        self.layers_of(&mut ops, from..self.layers.len(), told, None);
        match self.head.is_some() {
            true if pass.apart => {
                self.device.launch(&ops)?;
                // Where the device has no clock, the host's has to do: then the head begins when the layers are done.
                self.device.synchronise()?;
                let begun = Instant::now();
                let from = self.device.record()?;
                let to = self.finish(Vec::new(), pass)?;
                let spent = begun.elapsed();
                if let Some(to) = to {
                    let head = self.device.elapsed(from, to)?.unwrap_or(spent);
                    self.device.forget(to)?;
                    pass.head_ns = u64::try_from(head.as_nanos()).unwrap_or(u64::MAX);
                }
                self.device.forget(from)
            }
            true => self.finish(ops, pass).map(|_| ()),
            false => {
                self.device.launch(&ops)?;
                let bytes = 4 * rows * self.geometry.hidden;
                self.read.resize(bytes, 0);
                self.device.copy_out(self.scratch.hidden, 0, &mut self.read[..bytes])?;
                pass.hidden.clear();
                pass.hidden.extend(numbers(&self.read[..bytes]));
                Ok(())
            }
        }
    }

    /// Sends what the step is about: tokens or the residual stream, places and blocks. Gives the first operations, and
    /// how many positions the furthest row sees.
    fn tell(&mut self, pass: &Pass) -> Result<(Vec<Op>, u32), DeviceError> {
        let narrow = |count: usize| u32::try_from(count).expect("positions and blocks fit in 32 bits");
        let rows = pass.rows();
        assert!(pass.blocks.len() <= self.scratch.blocks_max, "{} blocks in a pass", pass.blocks.len());
        let mut seen_max = 1;
        self.words.clear();
        let mut put = |word: u32| self.words.extend(word.to_le_bytes());
        pass.tokens.iter().for_each(|&token| put(token));
        for part in &pass.parts {
            for token in 0..part.tokens {
                let seen = narrow(part.start + token + 1);
                seen_max = seen_max.max(seen);
                put(seen);
                put(narrow(part.blocks));
            }
        }
        pass.blocks.iter().for_each(|&block| put(block));
        self.device.copy_in(self.scratch.told, 0, &self.words)?;
        let mut ops = Vec::with_capacity(6 * self.layers.len() + 3);
        match self.embedding {
            Some(table) => ops.push(Op::Lookup {
                table,
                indices: self.scratch.told.into(),
                rows: narrow(rows),
                out: self.scratch.hidden.into(),
            }),
            None => {
                self.words.clear();
                self.words.extend(pass.hidden.iter().flat_map(|number| number.to_le_bytes()));
                self.device.copy_in(self.scratch.hidden, 0, &self.words)?;
            }
        }
        Ok((ops, seen_max))
    }

    /// Launches everything up to the last layer that is brought, and the held ones after it; gives the number of layers.
    fn launch_brought(&mut self, brought: &mut Brought, ops: &mut Vec<Op>, told: Told) -> Result<usize, DeviceError> {
        if !brought.is_whole() {
            return Err(DeviceError::Driver {
                device: self.device.label(),
                during: "bringing layers",
                why: "the pass before failed halfway; load the stage anew".to_owned(),
            });
        }
        let mut from = 0;
        while let Some((layer, matrices)) = brought.next_from(from, &mut self.device)? {
            self.layers_of(ops, from..layer + 1, told, Some(matrices));
            self.device.launch(ops)?;
            ops.clear();
            brought.launched(&mut self.device)?;
            from = layer + 1;
        }
        self.layers_of(ops, from..self.layers.len(), told, None);
        self.device.launch(ops)?;
        ops.clear();
        brought.refill(&mut self.device)?;
        Ok(self.layers.len())
    }

    /// What bringing layers did; none where all are held.
    pub(crate) fn offloaded(&self) -> Option<Offloaded> {
        self.brought.as_ref().map(|brought| Offloaded { layers: self.layers.len(), ..brought.figures })
    }

    /// Six operations for each of some layers, of which the last may be one that was brought.
    fn layers_of(&self, ops: &mut Vec<Op>, layers: Range<usize>, told: Told, brought: Option<Matrices>) {
        let Told { rows, blocks, seen_max } = told;
        let (g, s) = (&self.geometry, &self.scratch);
        let narrow = |count: usize| u32::try_from(count).expect("a geometry's counts fit in 32 bits");
        let heads = Heads { query: narrow(g.heads), kv: narrow(g.kv_heads), size: narrow(g.head_size) };
        let places = Places {
            rows: View::at(s.told, rows as u64),
            blocks: View::at(s.told, 3 * rows as u64),
            // What is listed, rounded up: operations that are the same step after step can be kept. No row names a
            // block past those that are listed, so what stands there is never looked at.
            blocks_count: narrow(blocks.next_power_of_two().clamp(1, s.blocks_max)),
        };
        let rope = Rope {
            table: s.rotations.into(),
            positions: narrow(self.spec.positions_max),
            dimensions: narrow(g.rope.dimensions),
            pairs: g.rope.pairs,
        };
        let (rows, arithmetic) = (narrow(rows), self.arithmetic());
        let hidden = |weight: Buffer| Input {
            numbers: s.hidden.into(),
            norm: Some(NormBy { weight: weight.into(), epsilon: g.norm_epsilon }),
        };
        let plain = |numbers: Buffer| Input { numbers: numbers.into(), norm: None };
        for layer in &self.layers[layers] {
            let Matrices { query, key, value, attention_output, gate, up, down } =
                layer.held.or(brought).expect("only the last of these layers is brought");
            let cache =
                Cache { keys: layer.keys.into(), values: layer.values.into(), blocks: narrow(self.spec.cache_blocks) };
            ops.push(Op::Product {
                input: hidden(layer.attention_norm),
                rows,
                outs: vec![(query, s.query.into()), (key, s.key.into()), (value, s.value.into())],
                store: Store::Set,
                arithmetic,
            });
            ops.push(Op::Remember {
                query: s.query.into(),
                key: s.key.into(),
                value: s.value.into(),
                rows,
                heads,
                places,
                rope,
                cache,
            });
            ops.push(Op::Attend {
                query: s.query.into(),
                rows,
                heads,
                places,
                cache,
                scale: 1.0 / (g.head_size as f32).sqrt(),
                seen_max,
                out: s.attended.into(),
            });
            ops.push(Op::Product {
                input: plain(s.attended),
                rows,
                outs: vec![(attention_output, s.hidden.into())],
                store: Store::Add,
                arithmetic,
            });
            ops.push(Op::Gated {
                input: hidden(layer.feed_forward_norm),
                rows,
                gate,
                up,
                out: s.gated.into(),
                arithmetic,
            });
            ops.push(Op::Product {
                input: plain(s.gated),
                rows,
                outs: vec![(down, s.hidden.into())],
                store: Store::Add,
                arithmetic,
            });
        }
    }

    fn arithmetic(&self) -> Arithmetic {
        self.spec.arithmetic
    }

    /// Launches the layers with the head behind them, and takes logits or tokens back. Where the pass wants the head
    /// apart, gives a mark behind the last operation.
    fn finish(&mut self, mut ops: Vec<Op>, pass: &mut Pass) -> Result<Option<Event>, DeviceError> {
        let Some(head) = &self.head else { return Ok(None) };
        let mut end: Option<Event> = None;
        let (vocabulary, width) = (self.geometry.vocabulary, self.geometry.hidden);
        let largest_only = pass.wants_only_largest();
        let narrow = |count: usize| u32::try_from(count).expect("a geometry's counts fit in 32 bits");
        pass.logits.clear();
        let mut tokens = Vec::new();
        // Runs of adjacent rows, each at most as long as the logits have room.
        let mut at = 0;
        while at < pass.wanted.len() {
            let first = pass.wanted[at];
            let mut count = 1;
            while count < head.rows_max && pass.wanted.get(at + count) == Some(&(first + count)) {
                count += 1;
            }
            ops.push(Op::Product {
                input: Input {
                    numbers: View::at(self.scratch.hidden, (first * width) as u64),
                    norm: Some(NormBy { weight: head.norm.into(), epsilon: self.geometry.norm_epsilon }),
                },
                rows: narrow(count),
                outs: vec![(head.output, head.logits.into())],
                store: Store::Set,
                arithmetic: self.spec.arithmetic,
            });
            let (from, bytes) = if largest_only {
                ops.push(Op::Argmax {
                    input: head.logits.into(),
                    rows: narrow(count),
                    width: narrow(vocabulary),
                    out: head.largest.into(),
                });
                (head.largest, 4 * count)
            } else {
                (head.logits, 4 * count * vocabulary)
            };
            self.device.launch(&ops)?;
            ops.clear();
            if pass.apart {
                let before = end.replace(self.device.record()?);
                before.map_or(Ok(()), |before| self.device.forget(before))?;
            }
            self.read.resize(self.read.len().max(bytes), 0);
            self.device.copy_out(from, 0, &mut self.read[..bytes])?;
            if largest_only {
                tokens.extend(numbers(&self.read[..bytes]).map(f32::to_bits));
            } else {
                pass.logits.extend(numbers(&self.read[..bytes]));
            }
            at += count;
        }
        self.device.launch(&ops)?;
        if largest_only {
            pass.take_chosen(&tokens);
        } else {
            pass.choose(vocabulary);
        }
        Ok(end)
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}
