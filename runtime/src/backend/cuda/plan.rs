//! From operations to launches.
//!
//! What varies from token to token (positions, tokens, the blocks of sequences) lies in buffers, so that a step's
//! launches stay the same while a sequence grows; only how many segments attention takes changes, every 256 positions.

use super::device::{CudaDevice, Slot};
use super::driver::{Arg, Launch};
use super::kernels::{Module, QUERIES, SEGMENT, TENSOR_ROWS, THREADS, TILE_THREADS, is_quantised, segments};
use crate::backend::contract::Matrix;
use crate::backend::error::DeviceError;
use crate::backend::op::{Cache, Heads, Input, NormBy, Op, Places, Rope, Store, View};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;
use crate::model::geometry::RopePairs;
use Arg::{Float, Long, Pointer, Word};

/// Partial results of attention that are kept at once, in bytes; more rows than fit attend one after another.
const SEGMENTS_BYTES_MAX: u64 = 64 << 20;
/// Rows in one launch of attention: a grid's third dimension ends at 65,535.
const ATTEND_ROWS_MAX: u64 = 32_768;
/// Blocks of a kernel that works number by number.
const ELEMENT_BLOCKS_MAX: u64 = 4096;

/// An operation with what only says how much work there is rounded up, so that steps that differ in nothing else are
/// equal.
pub fn key(op: &Op) -> Op {
    let mut op = op.clone();
    if let Op::Attend { seen_max, .. } = &mut op {
        *seen_max = seen_max.div_ceil(SEGMENT).saturating_mul(SEGMENT);
    }
    op
}

/// Launches of one step.
pub struct Planner<'a> {
    pub device: &'a mut CudaDevice,
    pub launches: Vec<Launch>,
}

impl Planner<'_> {
    /// Adds an operation.
    ///
    /// # Errors
    /// When scratch memory or a module cannot be had.
    pub fn add(&mut self, op: &Op) -> Result<(), DeviceError> {
        match op {
            Op::Lookup { table, indices, rows, out } => {
                let args = vec![
                    self.matrix(*table),
                    Word(table.rows()),
                    Word(table.columns()),
                    self.view(*indices),
                    self.view(*out),
                ];
                self.of(table.format(), "lookup", (*rows, 1, 1), THREADS, args)
            }
            Op::Norm { input, by, rows, width, out } => {
                self.norm(self.view(*input), *by, *rows, *width, self.view(*out))
            }
            Op::Product { input, rows, outs, store, arithmetic } => {
                let outs: Vec<_> = outs.iter().map(|&(matrix, out)| (matrix, self.view(out))).collect();
                self.product(*input, *rows, &outs, *store, *arithmetic)
            }
            Op::Gated { input, rows, gate, up, out, arithmetic } => {
                self.gated(*input, *rows, *gate, *up, self.view(*out), *arithmetic)
            }
            Op::Rotate { numbers, rows, heads, size, places, rope } => {
                let mut args =
                    vec![self.view(*numbers), Word(*heads), Word(*size), self.view(places.rows), self.view(rope.table)];
                args.extend(turn(rope));
                self.common("rotate_heads", (*rows, 1, 1), args)
            }
            Op::Remember { query, key, value, rows, heads, places, rope, cache } => {
                let mut args = vec![
                    self.view(*query),
                    self.view(*key),
                    self.view(*value),
                    Word(heads.query),
                    Word(heads.kv),
                    Word(heads.size),
                    self.view(places.rows),
                    self.view(places.blocks),
                    Word(places.blocks_count),
                    self.view(rope.table),
                ];
                args.extend(turn(rope));
                args.extend([self.view(cache.keys), self.view(cache.values), Word(cache.blocks)]);
                self.common("remember", (*rows, 1, 1), args)
            }
            Op::Attend { query, rows, heads, places, cache, scale, seen_max, out } => {
                self.attend((*query, *out), *rows, *heads, *places, *cache, *scale, *seen_max)
            }
            Op::Gate { gate, up, count } => self.elements("gate_numbers", *gate, *up, *count),
            Op::Add { to, from, count } => self.elements("add_numbers", *to, *from, *count),
            Op::Copy { from, to, count } => self.elements("copy_numbers", *from, *to, *count),
            Op::Argmax { input, rows, width, out } => {
                self.common("argmax_rows", (*rows, 1, 1), vec![self.view(*input), Word(*width), self.view(*out)])
            }
        }
    }

    fn view(&self, view: View) -> Arg {
        Pointer(self.device.address(view))
    }

    fn matrix(&self, matrix: Matrix) -> Arg {
        Pointer(self.device.planes(matrix.id()))
    }

    fn put(
        &mut self,
        module: Module,
        name: &str,
        grid: (u32, u32, u32),
        threads: u32,
        args: Vec<Arg>,
    ) -> Result<(), DeviceError> {
        if grid.0 == 0 || grid.1 == 0 || grid.2 == 0 {
            return Ok(());
        }
        let function = self.device.function(module, name)?;
        self.launches.push(Launch { function, grid, threads, args });
        Ok(())
    }

    fn common(&mut self, name: &str, grid: (u32, u32, u32), args: Vec<Arg>) -> Result<(), DeviceError> {
        self.put(Module::Common, name, grid, THREADS, args)
    }

    fn of(
        &mut self,
        format: BlockFormat,
        name: &str,
        grid: (u32, u32, u32),
        threads: u32,
        args: Vec<Arg>,
    ) -> Result<(), DeviceError> {
        let module = Module::Of(format);
        self.put(module, &format!("{name}_{}", module.name()), grid, threads, args)
    }

    fn elements(&mut self, name: &str, first: View, second: View, count: u64) -> Result<(), DeviceError> {
        let blocks = count.div_ceil(u64::from(THREADS)).min(ELEMENT_BLOCKS_MAX);
        let grid = (u32::try_from(blocks).expect("a few thousand blocks"), 1, 1);
        self.common(name, grid, vec![self.view(first), self.view(second), Long(count)])
    }

    fn norm(&mut self, input: Arg, by: NormBy, rows: u32, width: u32, out: Arg) -> Result<(), DeviceError> {
        let args = vec![input, self.view(by.weight), Float(by.epsilon), Word(width), out];
        self.common("norm_rows", (rows, 1, 1), args)
    }

    /// Products of one input with matrices, one launch for all of one format.
    fn product(
        &mut self,
        input: Input,
        rows: u32,
        outs: &[(Matrix, Arg)],
        store: Store,
        arithmetic: Arithmetic,
    ) -> Result<(), DeviceError> {
        let columns = outs[0].0.columns();
        let is_rounded = |format| arithmetic == Arithmetic::Int8 && is_quantised(format);
        let rounded = if outs.iter().any(|(matrix, _)| is_rounded(matrix.format())) {
            Some(self.rounded(input, rows, columns)?)
        } else {
            None
        };
        let mut plain = None;
        let mut rest = outs.to_vec();
        while let Some(&(first, _)) = rest.first() {
            let format = first.format();
            let (group, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(matrix, _)| matrix.format() == format);
            rest = others;
            let tail = [Word(rows), Word(columns), Word(u32::from(store == Store::Add))];
            if is_rounded(format) {
                let numbers = rounded.expect("rounded when any format asks for it");
                self.rounded_group(format, &group, numbers, rows, &tail)?;
                continue;
            }
            if rows == 1 {
                self.product_of_one(format, &group, input, tail[1..].try_into().expect("columns and how to store"))?;
                continue;
            }
            let (name, row_group, tokens, threads) = match rows {
                2..=4 => ("product_4", 16, 4, THREADS),
                _ => ("product_8", 16, 8, TILE_THREADS),
            };
            let mut args = self.group(&group);
            if rows > 4 {
                // Tiles take no norm with them; it is done once for all matrices.
                if plain.is_none() {
                    plain = Some(self.plain(input, rows, columns)?);
                }
                args.push(plain.expect("made above"));
            } else {
                args.extend([self.view(input.numbers), self.weight(input.norm), Float(epsilon(input.norm))]);
            }
            args.extend(tail);
            self.of(format, name, (groups(&group, row_group), rows.div_ceil(tokens), 1), threads, args)?;
        }
        Ok(())
    }

    /// One row of numbers: as many blocks as the device holds at once, each of which takes groups of rows in turn.
    fn product_of_one(
        &mut self,
        format: BlockFormat,
        group: &[(Matrix, Arg)],
        input: Input,
        tail: [Arg; 2],
    ) -> Result<(), DeviceError> {
        let module = Module::Of(format);
        let name = |kernel: &str| format!("{kernel}_{}", module.name());
        let resident = self.device.function(module, &name("product_1"))?.resident();
        // Two rows a warp share their reading of the numbers; one row a warp where two would leave blocks without work.
        let (kernel, count) = match groups(group, 16) {
            count if count >= resident => ("product_1", count),
            _ => ("product_1_few", groups(group, 8)),
        };
        let resident = self.device.function(module, &name(kernel))?.resident();
        let mut args = self.group(group);
        args.extend([self.view(input.numbers), self.weight(input.norm), Float(epsilon(input.norm)), Word(count)]);
        args.extend(tail);
        self.of(format, kernel, (count.min(resident), 1, 1), THREADS, args)
    }

    /// The input after its norm, in scratch memory where there is one.
    fn plain(&mut self, input: Input, rows: u32, columns: u32) -> Result<Arg, DeviceError> {
        let from = self.view(input.numbers);
        let Some(by) = input.norm else { return Ok(from) };
        let to = Pointer(self.device.scratch(Slot::Normed, 4 * u64::from(rows) * u64::from(columns))?);
        self.norm(from, by, rows, columns, to)?;
        Ok(to)
    }

    /// The input rounded to eight bits: numbers, steps and sums.
    fn rounded(&mut self, input: Input, rows: u32, columns: u32) -> Result<[Arg; 3], DeviceError> {
        let all = u64::from(rows) * u64::from(columns);
        let rounded = Pointer(self.device.scratch(Slot::Rounded, all)?);
        let steps = Pointer(self.device.scratch(Slot::Steps, all / 8)?);
        let totals = Pointer(self.device.scratch(Slot::Totals, all / 4)?);
        let mut args =
            vec![self.view(input.numbers), self.weight(input.norm), Float(epsilon(input.norm)), Word(columns)];
        args.extend([rounded, steps, totals]);
        self.common("round_numbers", (rows, 1, 1), args)?;
        Ok([rounded, steps, totals])
    }

    fn rounded_group(
        &mut self,
        format: BlockFormat,
        group: &[(Matrix, Arg)],
        numbers: [Arg; 3],
        rows: u32,
        tail: &[Arg],
    ) -> Result<(), DeviceError> {
        let (name, row_group, tokens) = match rows {
            1 => ("rounded_1", 16, 1),
            _ if rows >= TENSOR_ROWS && self.device.uses_tensor_cores() => ("rounded_tensor", 128, TENSOR_ROWS),
            _ => ("rounded_4", 16, 4),
        };
        let mut args = self.group(group);
        args.extend(numbers);
        args.extend(tail);
        self.of(format, name, (groups(group, row_group), rows.div_ceil(tokens), 1), THREADS, args)
    }

    /// Three matrices, their rows and where their products go; what is not there has no rows.
    fn group(&self, group: &[(Matrix, Arg)]) -> Vec<Arg> {
        let at = |i: usize| group.get(i);
        let mut args: Vec<Arg> = (0..3).map(|i| at(i).map_or(Pointer(0), |(matrix, _)| self.matrix(*matrix))).collect();
        args.extend((0..3).map(|i| Word(at(i).map_or(0, |(matrix, _)| matrix.rows()))));
        args.extend((0..3).map(|i| at(i).map_or(Pointer(0), |(_, out)| *out)));
        args
    }

    fn weight(&self, norm: Option<NormBy>) -> Arg {
        norm.map_or(Pointer(0), |by| self.view(by.weight))
    }

    fn gated(
        &mut self,
        input: Input,
        rows: u32,
        gate: Matrix,
        up: Matrix,
        out: Arg,
        arithmetic: Arithmetic,
    ) -> Result<(), DeviceError> {
        let format = gate.format();
        let is_rounded = arithmetic == Arithmetic::Int8 && is_quantised(format);
        if rows == 1 && format == up.format() && !is_rounded {
            let args = vec![
                self.matrix(gate),
                self.matrix(up),
                Word(gate.rows()),
                out,
                self.view(input.numbers),
                self.weight(input.norm),
                Float(epsilon(input.norm)),
                Word(gate.rows().div_ceil(8)),
                Word(gate.columns()),
            ];
            let module = Module::Of(format);
            let resident = self.device.function(module, &format!("gated_1_{}", module.name()))?.resident();
            return self.of(format, "gated_1", (gate.rows().div_ceil(8).min(resident), 1, 1), THREADS, args);
        }
        let count = u64::from(rows) * u64::from(gate.rows());
        let other = Pointer(self.device.scratch(Slot::Up, 4 * count)?);
        self.product(input, rows, &[(gate, out), (up, other)], Store::Set, arithmetic)?;
        let blocks = count.div_ceil(u64::from(THREADS)).min(ELEMENT_BLOCKS_MAX);
        let grid = (u32::try_from(blocks).expect("a few thousand blocks"), 1, 1);
        self.common("gate_numbers", grid, vec![out, other, Long(count)])
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one operation")]
    fn attend(
        &mut self,
        (query, out): (View, View),
        rows: u32,
        heads: Heads,
        places: Places,
        cache: Cache,
        scale: f32,
        seen_max: u32,
    ) -> Result<(), DeviceError> {
        let width = u64::from(heads.query) * u64::from(heads.size);
        // No row sees more than there are blocks for.
        let reachable =
            u64::from(seen_max).min(u64::from(places.blocks_count) * u64::from(super::super::CACHE_BLOCK as u32));
        let segments = segments(reachable);
        let of_row = u64::from(segments) * width * 4;
        let together = (SEGMENTS_BYTES_MAX / of_row).clamp(1, ATTEND_ROWS_MAX).min(u64::from(rows));
        let parts = heads.kv * (heads.query / heads.kv).div_ceil(QUERIES);
        let partial = Pointer(self.device.scratch(Slot::Segments, together * of_row)?);
        let shares =
            Pointer(self.device.scratch(Slot::Shares, together * u64::from(segments) * u64::from(heads.query) * 8)?);
        let finished = Pointer(self.device.scratch(Slot::Finished, together * u64::from(parts) * 4)?);
        let mut first = 0;
        while first < u64::from(rows) {
            let now = together.min(u64::from(rows) - first);
            let from = |view: View, bytes: u64| View { buffer: view.buffer, offset: view.offset + first * bytes };
            let args = vec![
                self.view(from(query, width * 4)),
                Word(heads.query),
                Word(heads.kv),
                Word(heads.size),
                self.view(from(places.rows, 8)),
                self.view(places.blocks),
                Word(places.blocks_count),
                self.view(cache.keys),
                self.view(cache.values),
                Word(cache.blocks),
                Float(scale),
                self.view(from(out, width * 4)),
                partial,
                shares,
                finished,
            ];
            let grid = (segments, parts, u32::try_from(now).expect("at most the rows"));
            self.common("attend", grid, args)?;
            first += now;
        }
        Ok(())
    }
}

fn epsilon(norm: Option<NormBy>) -> f32 {
    norm.map_or(0.0, |by| by.epsilon)
}

/// Blocks of threads for the rows of some matrices, each beginning a block of its own.
fn groups(group: &[(Matrix, Arg)], rows_of_block: u32) -> u32 {
    group.iter().map(|(matrix, _)| matrix.rows().div_ceil(rows_of_block)).sum()
}

/// The rotation's numbers.
fn turn(rope: &Rope) -> [Arg; 3] {
    let split = u32::from(rope.pairs == RopePairs::SplitHalves);
    [Word(rope.positions), Word(rope.dimensions), Word(split)]
}
