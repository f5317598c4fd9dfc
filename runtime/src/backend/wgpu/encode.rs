//! Operations as dispatches: which kernel, bound to what, with which parameters, in how many groups.

use super::pack::{CHUNK, Layout};
use super::pipelines::{Compiled, PARAMS_BYTES};
use super::products::{Multiply, Source};
use super::queue::Wgpu;
use super::shader::Key;
use crate::backend::contract::{BufferId, Matrix};
use crate::backend::error::DeviceError;
use crate::backend::op::{Op, Store, View};
use crate::model::geometry::RopePairs;
use wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindingResource, BufferBinding, BufferSize, BufferUsages,
    CommandEncoderDescriptor, ComputePassDescriptor,
};

/// Weights of several matrices in one buffer, so that matrices used together are one binding.
pub(super) struct Arena {
    pub(super) id: u64,
    pub(super) buffer: wgpu::Buffer,
    pub(super) filled: u64,
    /// Pieces in it that are not released.
    pub(super) live: usize,
}

/// Some rows of a matrix in one arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) arena: u64,
    /// Where it begins, in words.
    pub(super) word: u64,
    /// Its first row.
    pub(super) first: u64,
    pub(super) rows: u64,
}

/// A loaded matrix.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) layout: Layout,
    pub(super) pieces: Vec<Piece>,
}

/// What an operand is bound to: a buffer of the caller's, or the scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    Buffer(BufferId, u64, u64),
    Scratch(u64),
}

/// What a bind group holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub(super) kernel: Key,
    pub(super) arena: Option<u64>,
    pub(super) bound: Vec<Bound>,
}

impl GroupKey {
    pub(super) fn holds(&self, id: BufferId) -> bool {
        self.bound.iter().any(|bound| matches!(bound, Bound::Buffer(buffer, ..) if *buffer == id))
    }
}

/// Bind groups that are kept; a stage needs a few for each operation of its layers.
const GROUPS_MAX: usize = 8192;
/// Groups in the first dimension of a grid; more go into the second.
const GRID: u64 = 32_768;

/// One dispatch.
pub(super) struct Dispatch {
    pub(super) group: GroupKey,
    pub(super) params: Vec<u32>,
    pub(super) grid: [u32; 3],
}

/// Dispatches of a launch, in order.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) dispatches: Vec<Dispatch>,
    /// Bytes that the scratch must have.
    pub(super) scratch: u64,
}

/// Folds a number of groups into two dimensions. The first number is what shaders know as `grid`.
pub(super) fn fold(groups: u64) -> (u32, [u32; 2]) {
    let x = groups.clamp(1, GRID);
    (x as u32, [x as u32, groups.div_ceil(x).max(1) as u32])
}

impl Wgpu {
    /// Encodes operations into one submission.
    pub(super) fn encode(&mut self, ops: &[Op]) -> Result<(), DeviceError> {
        let mut plan = Plan::default();
        for op in ops {
            self.plan(op, &mut plan);
        }
        self.grow(&plan)?;
        let mut bytes = vec![0_u8; plan.dispatches.len() * PARAMS_BYTES as usize];
        for (slot, dispatch) in bytes.chunks_exact_mut(PARAMS_BYTES as usize).zip(&plan.dispatches) {
            for (to, word) in slot.chunks_exact_mut(4).zip(&dispatch.params) {
                to.copy_from_slice(&word.to_le_bytes());
            }
        }
        let params = self.params.clone().expect("grown above");
        // Steps of one shape have the same parameters but for a few: only what changed goes to the device.
        let changed = |i: usize| self.told.get(i) != Some(&bytes[i]);
        if let Some(first) = (0..bytes.len()).find(|&i| changed(i)) {
            let last = (first..bytes.len()).rev().find(|&i| changed(i)).unwrap_or(first);
            let (from, to) = (first / 4 * 4, (last + 1).next_multiple_of(4));
            self.queue.write_buffer(&params, from as u64, &bytes[from..to]);
            self.counters.bytes_in += (to - from) as u64;
            let kept = self.told.len().max(bytes.len());
            self.told.resize(kept, 0);
            self.told[from..to].copy_from_slice(&bytes[from..to]);
        }
        let mut encoder = self.device.create_command_encoder(&CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            for (i, dispatch) in plan.dispatches.iter().enumerate() {
                let compiled = self.pipelines.get(dispatch.group.kernel).expect("planned only where there is one");
                let group = self.group(&dispatch.group, &compiled, &params);
                pass.set_pipeline(&compiled.pipeline);
                pass.set_bind_group(0, &group, &[i as u32 * PARAMS_BYTES as u32]);
                pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], dispatch.grid[2]);
            }
        }
        self.queue.submit([encoder.finish()]);
        self.counters.dispatches += plan.dispatches.len() as u64;
        self.counters.submissions += 1;
        Ok(())
    }

    /// Makes the parameters' buffer and the scratch large enough. What grows is allocated once, not at every launch.
    fn grow(&mut self, plan: &Plan) -> Result<(), DeviceError> {
        let wanted = (plan.dispatches.len() as u64).next_power_of_two().max(64) * PARAMS_BYTES;
        if self.params.as_ref().is_none_or(|buffer| buffer.size() < wanted) {
            let buffer = self.make(wanted, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
            self.params = Some(buffer);
            self.told.clear();
            self.groups.clear();
            self.counters.allocations += 1;
            self.counters.allocated_bytes += wanted;
        }
        if plan.scratch > 0 && self.scratch.as_ref().is_none_or(|buffer| buffer.size() < plan.scratch) {
            let wanted = plan.scratch.next_power_of_two().min(self.limits.operand_bytes_max / 4 * 4).max(plan.scratch);
            let buffer = self.make(wanted, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
            self.scratch = Some(buffer);
            self.groups.clear();
            self.counters.allocations += 1;
            self.counters.allocated_bytes += wanted;
        }
        Ok(())
    }

    fn group(&mut self, key: &GroupKey, compiled: &Compiled, params: &wgpu::Buffer) -> wgpu::BindGroup {
        if let Some(group) = self.groups.get(key) {
            return group.clone();
        }
        let whole = |buffer, offset, size| {
            BindingResource::Buffer(BufferBinding { buffer, offset, size: BufferSize::new(size) })
        };
        let mut resources = vec![whole(params, 0, PARAMS_BYTES)];
        let arena = key.arena.map(|id| {
            let arena = self.arenas.iter().find(|arena| arena.id == id).expect("a loaded matrix has an arena");
            whole(&arena.buffer, 0, arena.buffer.size())
        });
        resources.extend(arena.clone());
        for bound in &key.bound {
            resources.push(match bound {
                Bound::Buffer(id, offset, size) => whole(&self.buffers[id], *offset, *size),
                Bound::Scratch(size) => whole(self.scratch.as_ref().expect("grown before"), 0, *size),
            });
        }
        resources.extend(arena.filter(|_| compiled.halves));
        let entries: Vec<BindGroupEntry<'_>> = resources
            .into_iter()
            .enumerate()
            .map(|(binding, resource)| BindGroupEntry { binding: binding as u32, resource })
            .collect();
        let group = self.device.create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &compiled.layout,
            entries: &entries,
        });
        if self.groups.len() >= GROUPS_MAX {
            self.groups.clear();
        }
        self.groups.insert(key.clone(), group.clone());
        group
    }

    /// Binds an operand of `words` words: an aligned window, and where in it the operand begins.
    pub(super) fn bind(&self, view: View, words: u64, bound: &mut Vec<Bound>) -> u32 {
        let start = view.offset / self.alignment * self.alignment;
        let shift = view.offset - start;
        let end = (view.offset + 4 * words).min(view.buffer.bytes().next_multiple_of(4));
        bound.push(Bound::Buffer(view.buffer.id(), start, end - start));
        (shift / 4) as u32
    }

    fn source(&self, matrix: Matrix) -> Source {
        Source { matrix, placed: self.matrices[&matrix.id()].clone() }
    }

    /// One thread per item.
    pub(super) fn threads(&self, items: u64) -> (u32, [u32; 3]) {
        let (grid, [x, y]) = fold(items.div_ceil(self.shape.threads.into()));
        (grid, [x, y, 1])
    }

    #[allow(clippy::too_many_lines, reason = "one arm per operation")]
    fn plan(&self, op: &Op, plan: &mut Plan) {
        let mut bound = Vec::new();
        let (kernel, params, grid) = match op {
            Op::Lookup { table, indices, rows, out } => {
                self.lookup(*table, *indices, *rows, *out, plan);
                return;
            }
            Op::Product { input, rows, outs, store, arithmetic } => {
                let outs: Vec<(Source, View)> = outs.iter().map(|(matrix, out)| (self.source(*matrix), *out)).collect();
                let add = *store == Store::Add;
                let multiply =
                    Multiply { input: *input, rows: *rows, arithmetic: *arithmetic, add, gated: false, outs: &outs };
                self.multiply(&multiply, plan);
                return;
            }
            Op::Gated { input, rows, gate, up, out, arithmetic } => {
                let outs = [(self.source(*gate), *out), (self.source(*up), *out)];
                let (rows, arithmetic) = (*rows, *arithmetic);
                let multiply = Multiply { input: *input, rows, arithmetic, add: false, gated: true, outs: &outs };
                self.gated(&multiply, plan);
                return;
            }
            Op::Norm { input, by, rows, width, out } => {
                let words = u64::from(*rows) * u64::from(*width);
                let x = self.bind(*input, words, &mut bound);
                let n = self.bind(by.weight, (*width).into(), &mut bound);
                let o = self.bind(*out, words, &mut bound);
                let (grid, [gx, gy]) = fold((*rows).into());
                (Key::Norm, vec![grid, *rows, *width, x, n, by.epsilon.to_bits(), o], [gx, gy, 1])
            }
            Op::Rotate { numbers, rows, heads, size, places, rope } => {
                let words = u64::from(*rows) * u64::from(*heads) * u64::from(*size);
                let x = self.bind(*numbers, words, &mut bound);
                let r = self.bind(places.rows, 2 * u64::from(*rows), &mut bound);
                let t = self.bind(rope.table, u64::from(rope.positions) * u64::from(rope.dimensions), &mut bound);
                let half = rope.dimensions / 2;
                let total = u64::from(*rows) * u64::from(*heads) * u64::from(half);
                let (grid, groups) = self.threads(total);
                let split = rope.pairs == RopePairs::SplitHalves;
                let params = vec![grid, total as u32, *heads, *size, half, rope.positions, x, r, t];
                (Key::Rotate { split }, params, groups)
            }
            Op::Remember { query, key, value, rows, heads, places, rope, cache } => {
                let row = |count: u32| u64::from(*rows) * u64::from(count) * u64::from(heads.size);
                let all =
                    u64::from(cache.blocks) * u64::from(heads.kv * heads.size) * crate::backend::CACHE_BLOCK as u64;
                let q = self.bind(*query, row(heads.query), &mut bound);
                let k = self.bind(*key, row(heads.kv), &mut bound);
                let v = self.bind(*value, row(heads.kv), &mut bound);
                let r = self.bind(places.rows, 2 * u64::from(*rows), &mut bound);
                let b = self.bind(places.blocks, places.blocks_count.into(), &mut bound);
                let t = self.bind(rope.table, u64::from(rope.positions) * u64::from(rope.dimensions), &mut bound);
                let ck = self.bind(cache.keys, all, &mut bound);
                let cv = self.bind(cache.values, all, &mut bound);
                let total = u64::from(*rows) * u64::from(heads.query + heads.kv) * u64::from(heads.size.div_ceil(2));
                let (grid, groups) = self.threads(total);
                let params = vec![
                    grid,
                    total as u32,
                    heads.query,
                    heads.kv,
                    heads.size,
                    rope.dimensions / 2,
                    rope.positions,
                    cache.blocks,
                    places.blocks_count,
                    q,
                    k,
                    v,
                    r,
                    b,
                    t,
                    ck,
                    cv,
                ];
                (Key::Remember { split: rope.pairs == RopePairs::SplitHalves }, params, groups)
            }
            Op::Attend { query, rows, heads, places, cache, scale, out, .. } => {
                let words = u64::from(*rows) * u64::from(heads.query) * u64::from(heads.size);
                let all =
                    u64::from(cache.blocks) * u64::from(heads.kv * heads.size) * crate::backend::CACHE_BLOCK as u64;
                let q = self.bind(*query, words, &mut bound);
                let r = self.bind(places.rows, 2 * u64::from(*rows), &mut bound);
                let b = self.bind(places.blocks, places.blocks_count.into(), &mut bound);
                let ck = self.bind(cache.keys, all, &mut bound);
                let cv = self.bind(cache.values, all, &mut bound);
                let o = self.bind(*out, words, &mut bound);
                let group = heads.query / heads.kv;
                let together = (1..=4).rev().find(|n| group.is_multiple_of(*n)).unwrap_or(1);
                let total = u64::from(*rows) * u64::from(heads.query / together);
                let (grid, [gx, gy]) = fold(total);
                let params = vec![
                    grid,
                    total as u32,
                    heads.query,
                    heads.kv,
                    cache.blocks,
                    places.blocks_count,
                    scale.to_bits(),
                    q,
                    r,
                    b,
                    ck,
                    cv,
                    o,
                ];
                (Key::Attend { size: heads.size, together }, params, [gx, gy, 1])
            }
            Op::Gate { gate: a, up: b, count }
            | Op::Add { to: a, from: b, count }
            | Op::Copy { from: a, to: b, count } => {
                let (x, y) = (self.bind(*a, *count, &mut bound), self.bind(*b, *count, &mut bound));
                let (grid, groups) = self.threads(*count);
                let key = match op {
                    Op::Gate { .. } => Key::Gate,
                    Op::Add { .. } => Key::Add,
                    _ => Key::Copy,
                };
                (key, vec![grid, *count as u32, x, y], groups)
            }
            Op::Argmax { input, rows, width, out } => {
                let x = self.bind(*input, u64::from(*rows) * u64::from(*width), &mut bound);
                let o = self.bind(*out, (*rows).into(), &mut bound);
                let (grid, [gx, gy]) = fold((*rows).into());
                (Key::Argmax, vec![grid, *rows, *width, x, o], [gx, gy, 1])
            }
        };
        let group = GroupKey { kernel, arena: None, bound };
        plan.dispatches.push(Dispatch { group, params, grid });
    }

    /// One dispatch for each piece of the table; each handles the rows it has.
    fn lookup(&self, table: Matrix, indices: View, rows: u32, out: View, plan: &mut Plan) {
        let source = self.source(table);
        let chunks = table.columns().div_ceil(CHUNK as u32);
        for piece in &source.placed.pieces {
            let mut bound = Vec::new();
            let i = self.bind(indices, rows.into(), &mut bound);
            let o = self.bind(out, u64::from(rows) * u64::from(table.columns()), &mut bound);
            let (grid, groups) = self.threads(u64::from(rows) * u64::from(chunks));
            let layout = source.placed.layout;
            let params = vec![
                grid,
                rows,
                table.columns(),
                chunks,
                layout.row as u32,
                layout.scales as u32,
                piece.word as u32,
                piece.first as u32,
                piece.rows as u32,
                table.rows(),
                i,
                o,
            ];
            let kernel = Key::Lookup { format: table.format() };
            let group = GroupKey { kernel, arena: Some(piece.arena), bound };
            plan.dispatches.push(Dispatch { group, params, grid: groups });
        }
    }
}
