//! Which operands an operation has, how long they are, and which of them it writes.

use super::CACHE_BLOCK;
use super::contract::{Limits, Matrix};
use super::error::Refusal;
use super::op::{Cache, Heads, Input, Op, Places, Rope, View};
use crate::cpu::Arithmetic;

/// What an operation does with an operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Read and written in place.
    Both,
    /// Read; the result may lie exactly over it.
    ReadSame,
}

/// One operand of an operation.
pub(super) struct Operand {
    pub(super) name: &'static str,
    pub(super) view: View,
    pub(super) bytes: u64,
    pub(super) access: Access,
}

/// All operands of an operation.
pub(super) struct Operands {
    pub(super) views: Vec<Operand>,
    pub(super) matrices: Vec<Matrix>,
}

/// Collects operands; sizes that overflow become the largest number, which no buffer has.
struct Collect {
    op: &'static str,
    views: Vec<Operand>,
}

impl Collect {
    fn add(&mut self, name: &'static str, view: View, counts: &[u64], access: Access) {
        let bytes = counts.iter().fold(4_u64, |all, &count| all.saturating_mul(count));
        self.views.push(Operand { name, view, bytes, access });
    }

    fn need(&self, holds: bool, why: impl FnOnce() -> String) -> Result<(), Refusal> {
        if holds { Ok(()) } else { Err(Refusal::Shape { op: self.op, why: why() }) }
    }

    fn some(&self, counts: &[(&str, u64)]) -> Result<(), Refusal> {
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((what, _)) => Err(Refusal::Shape { op: self.op, why: format!("no {what}") }),
            None => Ok(()),
        }
    }

    fn input(&mut self, input: Input, rows: u32, columns: u32) {
        self.add("input", input.numbers, &[rows.into(), columns.into()], Access::Read);
        if let Some(norm) = input.norm {
            self.add("norm weight", norm.weight, &[columns.into()], Access::Read);
        }
    }

    fn places(&mut self, places: Places, rows: u32, blocks: bool) {
        self.add("places", places.rows, &[rows.into(), 2], Access::Read);
        if blocks {
            self.add("blocks", places.blocks, &[places.blocks_count.into()], Access::Read);
        }
    }

    fn rope(&mut self, rope: Rope, size: u32) -> Result<(), Refusal> {
        self.some(&[("positions in the rotation table", rope.positions.into())])?;
        let Rope { dimensions, .. } = rope;
        self.need(dimensions.is_multiple_of(2) && dimensions <= size, || {
            format!("{dimensions} numbers of a head of {size} are to be rotated; an even number up to {size} can be")
        })?;
        self.add("rotation table", rope.table, &[rope.positions.into(), dimensions.into()], Access::Read);
        Ok(())
    }

    fn heads(&self, heads: Heads) -> Result<(), Refusal> {
        self.some(&[("heads", heads.query.into()), ("kv heads", heads.kv.into()), ("head size", heads.size.into())])?;
        self.need(heads.query.is_multiple_of(heads.kv), || {
            format!("{} query heads do not share {} kv heads evenly", heads.query, heads.kv)
        })
    }

    fn cache(&mut self, cache: Cache, heads: Heads, access: Access) -> Result<(), Refusal> {
        self.some(&[("cache blocks", cache.blocks.into())])?;
        let counts = [cache.blocks.into(), heads.kv.into(), CACHE_BLOCK as u64, heads.size.into()];
        self.add("cached keys", cache.keys, &counts, access);
        self.add("cached values", cache.values, &counts, access);
        Ok(())
    }
}

/// Operands of an operation, or what is wrong with its shape.
pub(super) fn operands(op: &Op) -> Result<Operands, Refusal> {
    let mut c = Collect { op: op.name(), views: Vec::new() };
    let mut matrices = Vec::new();
    match op {
        Op::Lookup { table, indices, rows, out } => {
            c.some(&[("rows", (*rows).into())])?;
            c.add("indices", *indices, &[(*rows).into()], Access::Read);
            c.add("out", *out, &[(*rows).into(), table.columns.into()], Access::Write);
            matrices.push(*table);
        }
        Op::Norm { input, by, rows, width, out } => {
            c.some(&[("rows", (*rows).into()), ("columns", (*width).into())])?;
            c.add("input", *input, &[(*rows).into(), (*width).into()], Access::ReadSame);
            c.add("norm weight", by.weight, &[(*width).into()], Access::Read);
            c.add("out", *out, &[(*rows).into(), (*width).into()], Access::Write);
        }
        Op::Product { input, rows, outs, .. } => {
            c.some(&[("rows", (*rows).into())])?;
            c.need((1..=3).contains(&outs.len()), || format!("{} matrices; one to three are possible", outs.len()))?;
            let columns = outs[0].0.columns;
            let same = outs.iter().all(|(matrix, _)| matrix.columns == columns);
            c.need(same, || "the matrices have different numbers of columns".to_owned())?;
            c.input(*input, *rows, columns);
            for ((matrix, out), name) in outs.iter().zip(["out 1", "out 2", "out 3"]) {
                c.add(name, *out, &[(*rows).into(), matrix.rows.into()], Access::Write);
                matrices.push(*matrix);
            }
        }
        Op::Gated { input, rows, gate, up, out, .. } => {
            c.some(&[("rows", (*rows).into())])?;
            c.need((gate.rows, gate.columns) == (up.rows, up.columns), || {
                format!("the gate is {} x {}, up is {} x {}", gate.rows, gate.columns, up.rows, up.columns)
            })?;
            c.input(*input, *rows, gate.columns);
            c.add("out", *out, &[(*rows).into(), gate.rows.into()], Access::Write);
            matrices.extend([*gate, *up]);
        }
        Op::Rotate { numbers, rows, heads, size, places, rope } => {
            c.some(&[("rows", (*rows).into()), ("heads", (*heads).into()), ("head size", (*size).into())])?;
            c.add("numbers", *numbers, &[(*rows).into(), (*heads).into(), (*size).into()], Access::Both);
            c.places(*places, *rows, false);
            c.rope(*rope, *size)?;
        }
        Op::Remember { query, key, value, rows, heads, places, rope, cache } => {
            c.some(&[("rows", (*rows).into()), ("blocks", places.blocks_count.into())])?;
            c.heads(*heads)?;
            let narrow = [(*rows).into(), heads.kv.into(), heads.size.into()];
            c.add("query", *query, &[(*rows).into(), heads.query.into(), heads.size.into()], Access::Both);
            c.add("key", *key, &narrow, Access::Read);
            c.add("value", *value, &narrow, Access::Read);
            c.places(*places, *rows, true);
            c.rope(*rope, heads.size)?;
            c.cache(*cache, *heads, Access::Write)?;
        }
        Op::Attend { query, rows, heads, places, cache, seen_max, out, .. } => {
            let counts = [("rows", (*rows).into()), ("blocks", places.blocks_count.into())];
            c.some(&counts)?;
            c.heads(*heads)?;
            c.some(&[("positions to see", (*seen_max).into())])?;
            let wide = [(*rows).into(), heads.query.into(), heads.size.into()];
            c.add("query", *query, &wide, Access::Read);
            c.places(*places, *rows, true);
            c.cache(*cache, *heads, Access::Read)?;
            c.add("out", *out, &wide, Access::Write);
        }
        Op::Gate { gate, up, count } => {
            c.some(&[("numbers", *count)])?;
            c.add("gate", *gate, &[*count], Access::Both);
            c.add("up", *up, &[*count], Access::Read);
        }
        Op::Add { to, from, count } => {
            c.some(&[("numbers", *count)])?;
            c.add("to", *to, &[*count], Access::Both);
            c.add("from", *from, &[*count], Access::Read);
        }
        Op::Copy { from, to, count } => {
            c.some(&[("numbers", *count)])?;
            c.add("from", *from, &[*count], Access::Read);
            c.add("to", *to, &[*count], Access::Write);
        }
        Op::Argmax { input, rows, width, out } => {
            c.some(&[("rows", (*rows).into()), ("columns", (*width).into())])?;
            c.add("input", *input, &[(*rows).into(), (*width).into()], Access::Read);
            c.add("out", *out, &[(*rows).into()], Access::Write);
        }
    }
    Ok(Operands { views: c.views, matrices })
}

/// Errors: what of an operation the device cannot do, in words.
pub(super) fn supported(op: &Op, limits: &Limits) -> Result<(), String> {
    let arithmetic = match op {
        Op::Product { arithmetic, .. } | Op::Gated { arithmetic, .. } => *arithmetic,
        _ => Arithmetic::F32,
    };
    if !limits.arithmetics.contains(&arithmetic) {
        return Err(format!("{} arithmetic in {}", arithmetic.name(), op.name()));
    }
    let size = match op {
        Op::Attend { heads, .. } | Op::Remember { heads, .. } => heads.size,
        _ => 0,
    };
    if size > limits.head_size_max {
        return Err(format!("heads of {size} numbers in {}, at most {}", op.name(), limits.head_size_max));
    }
    Ok(())
}

/// Errors: something written lies over another operand.
pub(super) fn overlaps(op: &'static str, operands: &[Operand]) -> Result<(), Refusal> {
    let writes = |operand: &&Operand| matches!(operand.access, Access::Write | Access::Both);
    for (i, written) in operands.iter().enumerate().filter(|(_, operand)| writes(operand)) {
        for (j, other) in operands.iter().enumerate() {
            let (a, b) = (written.view, other.view);
            if i == j || a.buffer != b.buffer {
                continue;
            }
            let apart = a.offset + written.bytes <= b.offset || b.offset + other.bytes <= a.offset;
            let same = other.access == Access::ReadSame && a == b;
            if !apart && !same {
                return Err(Refusal::Overlap { op, written: written.name, read: other.name });
            }
        }
    }
    Ok(())
}
