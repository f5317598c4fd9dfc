//! The reference device: every operation as its definition, in plain loops with sums in rising order.
//!
//! Written to be read, not to be fast. It is the contract's smallest honest implementation, and what other backends'
//! results are compared with where two devices must agree.

use super::CACHE_BLOCK;
use super::contract::{
    Backend, BufferId, Counters, DeviceInfo, Hardware, HostBytes, Limits, Matrix, MatrixId, MemoryInfo, PeerRoute,
    Platform, Readings,
};
use super::error::DeviceError;
use super::op::{Cache, Heads, Input, NormBy, Op, Places, Rope, Store, View};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use crate::model::geometry::RopePairs;
use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

/// Devices that compute in plain loops on the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct ScalarPlatform {
    /// How many there are.
    pub devices: usize,
    /// Memory of each.
    pub memory_bytes: u64,
}

impl ScalarPlatform {
    fn info(self, index: usize) -> DeviceInfo {
        DeviceInfo {
            backend: "scalar",
            index,
            name: "plain loops".to_owned(),
            interface: "Rust".to_owned(),
            driver: None,
            hardware: Hardware::Processor,
            pci: None,
            uuid: None,
            ids: None,
            memory_bytes: Some(self.memory_bytes),
        }
    }
}

impl Platform for ScalarPlatform {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, DeviceError> {
        Ok((0..self.devices).map(|index| self.info(index)).collect())
    }

    fn open(&self, index: usize) -> Result<Box<dyn Backend>, DeviceError> {
        if index >= self.devices {
            return Err(DeviceError::NoSuchDevice { backend: "scalar", wanted: index, found: self.devices });
        }
        Ok(Box::new(Scalar {
            info: self.info(index),
            limits: Limits {
                buffer_bytes_max: self.memory_bytes,
                operand_bytes_max: self.memory_bytes,
                head_size_max: u32::MAX,
                arithmetics: vec![Arithmetic::F32],
                formats: BlockFormat::ALL.to_vec(),
            },
            memory_bytes: self.memory_bytes,
            buffers: BTreeMap::new(),
            matrices: BTreeMap::new(),
            counters: Counters::default(),
            lost: false,
        }))
    }
}

struct Scalar {
    info: DeviceInfo,
    limits: Limits,
    memory_bytes: u64,
    buffers: BTreeMap<BufferId, Vec<u8>>,
    matrices: BTreeMap<MatrixId, Vec<u8>>,
    counters: Counters,
    lost: bool,
}

impl Scalar {
    fn used(&self) -> u64 {
        let buffers: usize = self.buffers.values().map(Vec::len).sum();
        let matrices: usize = self.matrices.values().map(Vec::len).sum();
        (buffers + matrices) as u64
    }

    fn room(&self, wanted: u64) -> Result<(), DeviceError> {
        let available = self.memory_bytes - self.used();
        if wanted <= available {
            return Ok(());
        }
        Err(DeviceError::OutOfMemory { device: self.info.name.clone(), wanted, available: Some(available) })
    }

    fn alive(&self, during: &'static str) -> Result<(), DeviceError> {
        if self.lost {
            return Err(DeviceError::Lost { device: self.info.name.clone(), during, why: "as asked for".to_owned() });
        }
        Ok(())
    }

    fn words(&self, view: View, count: usize) -> impl Iterator<Item = [u8; 4]> + '_ {
        let bytes = &self.buffers[&view.buffer.id()][view.offset as usize..][..4 * count];
        bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
    }

    fn numbers(&self, view: View, count: usize) -> Vec<f32> {
        self.words(view, count).map(f32::from_le_bytes).collect()
    }

    fn indices(&self, view: View, count: usize) -> Vec<u32> {
        self.words(view, count).map(u32::from_le_bytes).collect()
    }

    fn put(&mut self, view: View, at: usize, numbers: &[f32]) {
        let start = view.offset as usize + 4 * at;
        let bytes = self.buffers.get_mut(&view.buffer.id()).expect("checked to be alive");
        for (to, number) in bytes[start..].chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
    }

    fn put_indices(&mut self, view: View, indices: &[u32]) {
        let numbers: Vec<f32> = indices.iter().map(|&index| f32::from_bits(index)).collect();
        self.put(view, 0, &numbers);
    }

    fn row(&self, matrix: Matrix, row: usize) -> Vec<f32> {
        let packed = &self.matrices[&matrix.id()];
        let length = packed.len() / matrix.rows() as usize;
        let mut values = vec![0.0; matrix.columns() as usize];
        matrix.format().dequantise_row(&packed[row * length..][..length], &mut values);
        values
    }

    /// Input rows, through their norm.
    fn input(&self, input: Input, rows: u32, columns: u32) -> Vec<f32> {
        let numbers = self.numbers(input.numbers, rows as usize * columns as usize);
        match input.norm {
            None => numbers,
            Some(by) => self.normed(&numbers, by, columns as usize),
        }
    }

    fn normed(&self, numbers: &[f32], by: NormBy, width: usize) -> Vec<f32> {
        let weight = self.numbers(by.weight, width);
        let row = |row: &[f32]| {
            let squares = row.iter().fold(0.0_f32, |sum, x| sum + x * x);
            let scale = 1.0 / (squares / width as f32 + by.epsilon).sqrt();
            row.iter().zip(&weight).map(|(x, w)| x * scale * w).collect::<Vec<f32>>()
        };
        numbers.chunks_exact(width).flat_map(row).collect()
    }

    /// `[row][row of the matrix]`.
    fn product(&self, input: &[f32], matrix: Matrix) -> Vec<f32> {
        let (columns, outputs) = (matrix.columns() as usize, matrix.rows() as usize);
        let rows = input.len() / columns;
        let mut out = vec![0.0; rows * outputs];
        for m in 0..outputs {
            let weights = self.row(matrix, m);
            for (r, x) in input.chunks_exact(columns).enumerate() {
                out[r * outputs + m] = weights.iter().zip(x).fold(0.0, |sum, (w, x)| sum + w * x);
            }
        }
        out
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Lookup { table, indices, rows, out } => {
                let width = table.columns() as usize;
                for (r, index) in self.indices(*indices, *rows as usize).into_iter().enumerate() {
                    let row = self.row(*table, (index as usize).min(table.rows() as usize - 1));
                    self.put(*out, r * width, &row);
                }
            }
            Op::Norm { input, by, rows, width, out } => {
                let input = self.numbers(*input, *rows as usize * *width as usize);
                let normed = self.normed(&input, *by, *width as usize);
                self.put(*out, 0, &normed);
            }
            Op::Product { input, rows, outs, store, .. } => {
                let input = self.input(*input, *rows, outs[0].0.columns());
                for (matrix, out) in outs {
                    let mut product = self.product(&input, *matrix);
                    if *store == Store::Add {
                        let before = self.numbers(*out, product.len());
                        product.iter_mut().zip(before).for_each(|(p, b)| *p += b);
                    }
                    self.put(*out, 0, &product);
                }
            }
            Op::Gated { input, rows, gate, up, out, .. } => {
                let input = self.input(*input, *rows, gate.columns());
                let gated = gate_by_silu(&self.product(&input, *gate), &self.product(&input, *up));
                self.put(*out, 0, &gated);
            }
            Op::Rotate { numbers, rows, heads, size, places, rope } => {
                self.rotate(*numbers, (*rows as usize, *heads as usize, *size as usize), *places, *rope);
            }
            Op::Remember { query, key, value, rows, heads, places, rope, cache } => {
                let shape = (*rows as usize, heads.query as usize, heads.size as usize);
                self.rotate(*query, shape, *places, *rope);
                self.remember(*key, *value, shape.0, *heads, *places, *rope, *cache);
            }
            Op::Attend { query, rows, heads, places, cache, scale, out, .. } => {
                let result = self.attend(*query, *rows as usize, *heads, *places, *cache, *scale);
                self.put(*out, 0, &result);
            }
            Op::Gate { gate, up, count } => {
                let gated = gate_by_silu(&self.numbers(*gate, *count as usize), &self.numbers(*up, *count as usize));
                self.put(*gate, 0, &gated);
            }
            Op::Add { to, from, count } => {
                let mut sum = self.numbers(*to, *count as usize);
                sum.iter_mut().zip(self.numbers(*from, *count as usize)).for_each(|(a, b)| *a += b);
                self.put(*to, 0, &sum);
            }
            Op::Copy { from, to, count } => {
                let numbers = self.indices(*from, *count as usize);
                self.put_indices(*to, &numbers);
            }
            Op::Argmax { input, rows, width, out } => {
                let numbers = self.numbers(*input, *rows as usize * *width as usize);
                let best: Vec<u32> = numbers.chunks_exact(*width as usize).map(first_largest).collect();
                self.put_indices(*out, &best);
            }
        }
    }

    /// Position of each row, and where its sequence's blocks begin.
    fn places(&self, places: Places, rows: usize) -> Vec<(usize, usize)> {
        let table = self.indices(places.rows, 2 * rows);
        table.chunks_exact(2).map(|row| ((row[0] as usize).saturating_sub(1), row[1] as usize)).collect()
    }

    fn turned(&self, head: &mut [f32], position: usize, rope: Rope) {
        let dimensions = rope.dimensions as usize;
        let position = position.min(rope.positions as usize - 1);
        let angles = self
            .numbers(View { offset: rope.table.offset + (4 * position * dimensions) as u64, ..rope.table }, dimensions);
        for (pair, angle) in angles.chunks_exact(2).enumerate() {
            let (a, b) = match rope.pairs {
                RopePairs::Adjacent => (2 * pair, 2 * pair + 1),
                RopePairs::SplitHalves => (pair, pair + dimensions / 2),
            };
            let (x, y) = (head[a], head[b]);
            head[a] = x * angle[0] - y * angle[1];
            head[b] = x * angle[1] + y * angle[0];
        }
    }

    fn rotate(&mut self, view: View, (rows, heads, size): (usize, usize, usize), places: Places, rope: Rope) {
        let mut numbers = self.numbers(view, rows * heads * size);
        let places = self.places(places, rows);
        for (row, (position, _)) in numbers.chunks_exact_mut(heads * size).zip(places) {
            for head in row.chunks_exact_mut(size) {
                self.turned(head, position, rope);
            }
        }
        self.put(view, 0, &numbers);
    }

    /// Index of a position's block in the cache, if the tables name one that exists.
    fn block(&self, places: Places, begin: usize, position: usize, cache: Cache) -> Option<usize> {
        let at = begin + position / CACHE_BLOCK;
        let table = self.indices(places.blocks, places.blocks_count as usize);
        table.get(at).map(|&block| block as usize).filter(|&block| block < cache.blocks as usize)
    }

    #[allow(clippy::too_many_arguments, reason = "one operation's operands")]
    fn remember(
        &mut self,
        key: View,
        value: View,
        rows: usize,
        heads: Heads,
        places: Places,
        rope: Rope,
        cache: Cache,
    ) {
        let (kv, size) = (heads.kv as usize, heads.size as usize);
        let (mut keys, values) = (self.numbers(key, rows * kv * size), self.numbers(value, rows * kv * size));
        for (row, (position, begin)) in self.places(places, rows).into_iter().enumerate() {
            let Some(block) = self.block(places, begin, position, cache) else { continue };
            for head in 0..kv {
                let range = (row * kv + head) * size..(row * kv + head + 1) * size;
                self.turned(&mut keys[range.clone()], position, rope);
                let at = ((block * kv + head) * CACHE_BLOCK + position % CACHE_BLOCK) * size;
                self.put(cache.keys, at, &keys[range.clone()]);
                self.put(cache.values, at, &values[range]);
            }
        }
    }

    fn attend(&self, query: View, rows: usize, heads: Heads, places: Places, cache: Cache, scale: f32) -> Vec<f32> {
        let (all, kv, size) = (heads.query as usize, heads.kv as usize, heads.size as usize);
        let queries = self.numbers(query, rows * all * size);
        let count = cache.blocks as usize * kv * CACHE_BLOCK * size;
        let (keys, values) = (self.numbers(cache.keys, count), self.numbers(cache.values, count));
        let mut out = vec![0.0; rows * all * size];
        for (row, (position, begin)) in self.places(places, rows).into_iter().enumerate() {
            for head in 0..all {
                let kv_head = head / (all / kv);
                let at = |seen: usize| {
                    let block = self.block(places, begin, seen, cache)?;
                    Some(((block * kv + kv_head) * CACHE_BLOCK + seen % CACHE_BLOCK) * size)
                };
                let query = &queries[(row * all + head) * size..][..size];
                let score =
                    |at: usize| keys[at..at + size].iter().zip(query).fold(0.0_f32, |sum, (k, q)| sum + k * q) * scale;
                let places: Vec<usize> = (0..=position).map_while(at).collect();
                let scores: Vec<f32> = places.iter().map(|&at| score(at)).collect();
                let largest = scores.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
                let weights: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum = weights.iter().fold(0.0_f32, |sum, w| sum + w);
                let out = &mut out[(row * all + head) * size..][..size];
                for (i, out) in out.iter_mut().enumerate() {
                    let mean = weights.iter().zip(&places).fold(0.0_f32, |mean, (w, at)| mean + w * values[at + i]);
                    *out = mean / sum;
                }
            }
        }
        out
    }
}

fn gate_by_silu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

fn first_largest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, number) in row.iter().enumerate() {
        if *number > row[best] {
            best = i;
        }
    }
    u32::try_from(best).expect("a row's width fits in 32 bits")
}

impl Backend for Scalar {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn allocate(&mut self, id: BufferId, bytes: u64) -> Result<(), DeviceError> {
        self.alive("allocate")?;
        self.room(bytes)?;
        // A pattern, so that nobody comes to rely on zeros.
        self.buffers.insert(id, vec![0xa5; bytes as usize]);
        Ok(())
    }

    fn free(&mut self, id: BufferId) -> Result<(), DeviceError> {
        self.buffers.remove(&id);
        Ok(())
    }

    fn load(&mut self, matrix: Matrix, packed: &[u8]) -> Result<u64, DeviceError> {
        self.alive("load")?;
        self.room(packed.len() as u64)?;
        self.matrices.insert(matrix.id(), packed.to_vec());
        Ok(packed.len() as u64)
    }

    fn laid_out(&self, _: Matrix, packed: &[u8]) -> Box<dyn HostBytes> {
        Box::new(packed.to_vec())
    }

    fn refill(&mut self, id: MatrixId, laid_out: &dyn HostBytes) -> Result<(), DeviceError> {
        self.alive("refill")?;
        self.matrices.insert(id, laid_out.bytes().to_vec());
        Ok(())
    }

    fn unload(&mut self, id: MatrixId) -> Result<(), DeviceError> {
        self.matrices.remove(&id);
        Ok(())
    }

    fn copy_in(&mut self, to: BufferId, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.alive("copy in")?;
        let buffer = self.buffers.get_mut(&to).expect("checked to be alive");
        buffer[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn copy_out(&mut self, from: BufferId, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.alive("copy out")?;
        bytes.copy_from_slice(&self.buffers[&from][offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn copy_within(
        &mut self,
        (from, from_offset): (BufferId, u64),
        (to, to_offset): (BufferId, u64),
        bytes: u64,
    ) -> Result<(), DeviceError> {
        self.alive("copy within")?;
        let piece = self.buffers[&from][from_offset as usize..][..bytes as usize].to_vec();
        self.copy_in(to, to_offset, &piece)
    }

    fn copy_to_peer(
        &mut self,
        (from, from_offset): (BufferId, u64),
        peer: &mut dyn Backend,
        (to, to_offset): (BufferId, u64),
        bytes: u64,
    ) -> Result<Option<PeerRoute>, DeviceError> {
        self.alive("peer copy")?;
        let Some(peer) = peer.as_any().downcast_mut::<Self>() else { return Ok(None) };
        peer.copy_in(to, to_offset, &self.buffers[&from][from_offset as usize..][..bytes as usize])?;
        Ok(Some(PeerRoute::Direct))
    }

    fn launch(&mut self, ops: &[Op]) -> Result<(), DeviceError> {
        self.alive("launch")?;
        self.counters.submissions += 1;
        for op in ops {
            self.counters.dispatches += 1;
            self.run(op);
        }
        Ok(())
    }

    fn synchronise(&mut self) -> Result<(), DeviceError> {
        self.alive("synchronise")
    }

    fn record(&mut self, _: u64) -> Result<(), DeviceError> {
        self.alive("record")
    }

    fn is_done(&mut self, _: u64) -> Result<bool, DeviceError> {
        self.alive("event")?;
        Ok(true)
    }

    fn wait(&mut self, _: u64) -> Result<(), DeviceError> {
        self.alive("event")
    }

    fn elapsed(&mut self, _: u64, _: u64) -> Result<Option<Duration>, DeviceError> {
        Ok(None)
    }

    fn forget(&mut self, _: u64) {}

    fn memory(&mut self) -> Result<MemoryInfo, DeviceError> {
        let used = self.used();
        Ok(MemoryInfo {
            total: Some(self.memory_bytes),
            used: Some(used),
            available: Some(self.memory_bytes - used),
            reserved: None,
        })
    }

    fn readings(&mut self) -> Result<Readings, DeviceError> {
        Ok(Readings::default())
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lose(&mut self) {
        self.lost = true;
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
