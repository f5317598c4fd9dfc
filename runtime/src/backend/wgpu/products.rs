//! Products as dispatches: matrices of one format in one arena together, the rest piece by piece.

use super::encode::{Bound, Dispatch, GroupKey, Piece, Placed, Plan, fold};
use super::pack::CHUNK;
use super::queue::Wgpu;
use super::shader::{Key, kernel};
use crate::backend::contract::Matrix;
use crate::backend::op::{Input, View};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;

/// Rows of activations that a kernel takes at a time.
fn tile(rows: u32, gated: bool) -> u32 {
    match rows {
        1 => 1,
        2 => 2,
        3 | 4 => 4,
        _ if gated => 4,
        _ => 8,
    }
}

/// A matrix with its place.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) matrix: Matrix,
    pub(super) placed: Placed,
}

/// What a product reads and where it goes.
pub(super) struct Multiply<'a> {
    pub(super) input: Input,
    pub(super) rows: u32,
    pub(super) arithmetic: Arithmetic,
    pub(super) add: bool,
    pub(super) gated: bool,
    /// Matrices with their outputs; a gate and its factor have one output.
    pub(super) outs: &'a [(Source, View)],
}

/// An input in eight bits in the scratch.
#[derive(Clone, Copy)]
struct Rounded {
    /// Words it takes.
    words: u64,
    /// Where its scales begin.
    steps: u32,
}

impl Wgpu {
    /// Products: matrices of one format in one arena share a dispatch, others get one for each of their pieces.
    pub(super) fn multiply(&self, multiply: &Multiply<'_>, plan: &mut Plan) {
        let alone = |source: &Source| source.placed.pieces.len() == 1;
        let (first, _) = &multiply.outs[0];
        let alike = |source: &Source| {
            alone(source)
                && source.matrix.format() == first.matrix.format()
                && source.placed.pieces[0].arena == first.placed.pieces[0].arena
        };
        let input = self.rounded(multiply, plan);
        if multiply.outs.iter().all(|(source, _)| alike(source)) {
            let parts: Vec<(Source, Piece, View)> =
                multiply.outs.iter().map(|(source, out)| (source.clone(), source.placed.pieces[0], *out)).collect();
            self.product(multiply, &parts, input, plan);
            return;
        }
        for (source, out) in multiply.outs {
            for piece in &source.placed.pieces {
                self.product(multiply, &[(source.clone(), *piece, *out)], input, plan);
            }
        }
    }

    /// A gated product: one dispatch where both matrices lie alike; else two products and the gate.
    pub(super) fn gated(&self, multiply: &Multiply<'_>, plan: &mut Plan) {
        let [(gate, out), (up, _)] = multiply.outs else { return };
        let same_pieces = gate.matrix.format() == up.matrix.format()
            && gate.placed.pieces.len() == up.placed.pieces.len()
            && gate
                .placed
                .pieces
                .iter()
                .zip(&up.placed.pieces)
                .all(|(a, b)| (a.arena, a.first, a.rows) == (b.arena, b.first, b.rows));
        let input = self.rounded(multiply, plan);
        if same_pieces {
            for (a, b) in gate.placed.pieces.iter().zip(&up.placed.pieces) {
                self.product(multiply, &[(gate.clone(), *a, *out), (up.clone(), *b, *out)], input, plan);
            }
            return;
        }
        // The factor goes to the scratch, the gate to the output, then one is multiplied into the other.
        let words = u64::from(multiply.rows) * u64::from(up.matrix.rows());
        let plain = Multiply { gated: false, outs: &[], ..*multiply };
        for piece in &gate.placed.pieces {
            self.product(&plain, &[(gate.clone(), *piece, *out)], input, plan);
        }
        let at = input.map_or(0, |input| input.words);
        for piece in &up.placed.pieces {
            self.product_to_scratch(&plain, up, *piece, input, at, plan);
        }
        plan.scratch = plan.scratch.max(4 * (at + words));
        let mut bound = Vec::new();
        let x = self.bind(*out, words, &mut bound);
        bound.push(Bound::Scratch(4 * (at + words)));
        let (grid, groups) = self.threads(words);
        let group = GroupKey { kernel: Key::Gate, arena: None, bound };
        plan.dispatches.push(Dispatch { group, params: vec![grid, words as u32, x, at as u32], grid: groups });
    }

    /// Rounds the input to eight bits into the scratch, where that is asked for and the formats have such products.
    fn rounded(&self, multiply: &Multiply<'_>, plan: &mut Plan) -> Option<Rounded> {
        let integer = |format: BlockFormat| {
            kernel(Key::ProductInt8 { format, tile: 1, add: false, gated: false }, self.shape).is_some()
        };
        let all = multiply.outs.iter().all(|(source, _)| integer(source.matrix.format()));
        if multiply.arithmetic != Arithmetic::Int8 || !all {
            return None;
        }
        let columns = multiply.outs[0].0.matrix.columns();
        let chunks = columns / CHUNK as u32;
        let steps = u64::from(multiply.rows) * u64::from(chunks) * 8;
        let words = steps + u64::from(multiply.rows) * u64::from(chunks);
        plan.scratch = plan.scratch.max(4 * words);
        let mut bound = Vec::new();
        let (x, n, epsilon) = self.input(multiply, columns, &mut bound);
        bound.push(Bound::Scratch(4 * words));
        let (grid, [gx, gy]) = fold(multiply.rows.into());
        let kernel = Key::Quantise { norm: multiply.input.norm.is_some() };
        let params = vec![grid, multiply.rows, columns, chunks, x, n, epsilon, steps as u32];
        let group = GroupKey { kernel, arena: None, bound };
        plan.dispatches.push(Dispatch { group, params, grid: [gx, gy, 1] });
        Some(Rounded { words, steps: steps as u32 })
    }

    /// Binds input and norm weight; without a norm, the input stands in for its weight, which is not read.
    fn input(&self, multiply: &Multiply<'_>, columns: u32, bound: &mut Vec<Bound>) -> (u32, u32, u32) {
        let x = self.bind(multiply.input.numbers, u64::from(multiply.rows) * u64::from(columns), bound);
        match multiply.input.norm {
            Some(norm) => (x, self.bind(norm.weight, columns.into(), bound), norm.epsilon.to_bits()),
            None => {
                bound.push(*bound.last().expect("bound above"));
                (x, 0, 0)
            }
        }
    }

    /// One dispatch of up to three pieces that lie in one arena.
    fn product(
        &self,
        multiply: &Multiply<'_>,
        parts: &[(Source, Piece, View)],
        input: Option<Rounded>,
        plan: &mut Plan,
    ) {
        let mut bound = Vec::new();
        let head = self.product_input(multiply, &parts[0].0, input, &mut bound);
        let mut outs = Vec::new();
        let outputs = if multiply.gated { &parts[..1] } else { parts };
        for (source, _, out) in outputs {
            outs.push(self.bind(*out, u64::from(multiply.rows) * u64::from(source.matrix.rows()), &mut bound));
        }
        let last = *bound.last().expect("bound above");
        bound.resize(bound.len() + 3 - outputs.len(), last);
        outs.resize(3, 0);
        let parts: Vec<(&Source, Piece)> = parts.iter().map(|(source, piece, _)| (source, *piece)).collect();
        self.push_product(multiply, &parts, &outs, head, input, bound, plan);
    }

    /// One piece of a matrix into the scratch from word `at` on.
    fn product_to_scratch(
        &self,
        multiply: &Multiply<'_>,
        source: &Source,
        piece: Piece,
        input: Option<Rounded>,
        at: u64,
        plan: &mut Plan,
    ) {
        let mut bound = Vec::new();
        let head = self.product_input(multiply, source, input, &mut bound);
        let words = at + u64::from(multiply.rows) * u64::from(source.matrix.rows());
        bound.extend([Bound::Scratch(4 * words); 3]);
        self.push_product(multiply, &[(source, piece)], &[at as u32, 0, 0], head, input, bound, plan);
    }

    fn product_input(
        &self,
        multiply: &Multiply<'_>,
        source: &Source,
        input: Option<Rounded>,
        bound: &mut Vec<Bound>,
    ) -> (u32, u32, u32) {
        if let Some(rounded) = input {
            bound.push(Bound::Scratch(4 * rounded.words));
            return (0, 0, 0);
        }
        self.input(multiply, source.matrix.columns(), bound)
    }

    #[allow(clippy::too_many_arguments, reason = "one dispatch's parts")]
    fn push_product(
        &self,
        multiply: &Multiply<'_>,
        parts: &[(&Source, Piece)],
        outs: &[u32],
        (x, n, epsilon): (u32, u32, u32),
        input: Option<Rounded>,
        bound: Vec<Bound>,
        plan: &mut Plan,
    ) {
        let (source, piece) = parts[0];
        let (format, columns, layout) = (source.matrix.format(), source.matrix.columns(), source.placed.layout);
        let per_group = self.shape.threads / self.shape.lanes;
        let counted = if multiply.gated { &parts[..1] } else { parts };
        let all: u64 = counted.iter().map(|(_, piece)| piece.rows).sum();
        let groups = all.div_ceil(per_group.into());
        let (grid, [gx, gy]) = fold(groups);
        let tile = tile(multiply.rows, multiply.gated);
        let chunks = columns.div_ceil(CHUNK as u32);
        let (gated, add, norm) = (multiply.gated, multiply.add, multiply.input.norm.is_some());
        let ragged = !columns.is_multiple_of(CHUNK as u32);
        let (kernel, mut params) = match input {
            Some(rounded) => (
                Key::ProductInt8 { format, tile, add, gated },
                vec![
                    per_group,
                    grid,
                    groups as u32,
                    multiply.rows,
                    chunks,
                    layout.row as u32,
                    layout.scales as u32,
                    rounded.steps,
                ],
            ),
            None => (
                Key::Product { format, tile, norm, add, ragged, gated },
                vec![
                    per_group,
                    grid,
                    groups as u32,
                    multiply.rows,
                    columns,
                    chunks,
                    layout.row as u32,
                    layout.scales as u32,
                    x,
                    n,
                    epsilon,
                ],
            ),
        };
        let three = |value: &dyn Fn(usize) -> u64| -> [u32; 3] {
            std::array::from_fn(|i| if i < parts.len() { value(i) as u32 } else { 0 })
        };
        params.extend(three(&|i| parts[i].1.word));
        params.extend(three(&|i| parts[i].1.rows));
        params.extend(three(&|i| u64::from(outs[i]) + parts[i].1.first));
        params.extend(three(&|i| parts[i].0.matrix.rows().into()));
        let group = GroupKey { kernel, arena: Some(piece.arena), bound };
        plan.dispatches.push(Dispatch { group, params, grid: [gx, gy, multiply.rows.div_ceil(tile)] });
    }
}
