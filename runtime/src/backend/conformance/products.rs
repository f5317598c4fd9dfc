//! Operations with matrices: lookup, product, gated product, over all formats and many shapes.

use super::bench::{Bench, Test, each, same, text, within};
use super::oracle::{EPS, Exact, Weights, gated, norm, plain};
use super::{Check, Suite};
use crate::backend::contract::Matrix;
use crate::backend::device::Device;
use crate::backend::error::{DeviceError, Refusal};
use crate::backend::op::{Input, NormBy, Op, Store};
use crate::cpu::Arithmetic;
use crate::model::format::BlockFormat;

pub(super) fn all(suite: &Suite<'_>, device: usize) -> Vec<Check> {
    let tests: [(&'static str, Test); 6] = [
        ("lookup gives rows of every format as they are read, rounded once at most", lookups),
        ("a matrix put in the place of another is seen by what is launched later and by nothing before", refills),
        ("products in single precision are within the bound of sums, for every format and shape", products_f32),
        ("products with rounded activations are within half a step per product", products_int8),
        ("a gated product is silu of one product times the other", gated_products),
        ("the same product twice gives the same bits", repeated),
    ];
    each(suite, device, &tests)
}

/// Rows and columns: no multiples of anything but the block.
fn shapes(suite: &Suite<'_>, format: BlockFormat) -> Vec<(usize, usize)> {
    let mut shapes = match format.values_per_block() {
        1 => vec![(1, 1), (17, 7), (33, 100), (130, 64), (70, 576)],
        32 => vec![(1, 32), (17, 96), (64, 32), (131, 160), (96, 576)],
        block => vec![(17, block), (40, 2 * block), (131, 3 * block)],
    };
    if !suite.thorough {
        shapes = vec![shapes[1], shapes[shapes.len() - 1]];
    }
    shapes
}

fn load(bench: &mut Bench, format: BlockFormat, rows: usize, columns: usize) -> Result<(Matrix, Weights), String> {
    let packed = bench.draw.matrix(format, rows, columns);
    let (r, c) = (u32::try_from(rows).map_err(text)?, u32::try_from(columns).map_err(text)?);
    let matrix = bench.device.load(format, r, c, &packed).map_err(text)?;
    Ok((matrix, Weights::read(format, rows, columns, &packed)))
}

fn lookups(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for format in bench.device.limits().formats.clone() {
        for (rows, columns) in shapes(suite, format) {
            let mut one = || -> Result<(), String> {
                let (matrix, weights) = load(bench, format, rows, columns)?;
                let tokens: Vec<u32> = [0, rows - 1, rows / 2, 0].iter().map(|&row| row as u32).collect();
                let (indices, out) = (bench.words(&tokens)?, bench.room(4 * columns)?);
                bench.launch(&[Op::Lookup { table: matrix, indices: indices.view, rows: 4, out: out.view }])?;
                let minimum =
                    matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K);
                let wanted: Vec<Exact> = tokens.iter().flat_map(|&t| weights.row(t as usize, minimum)).collect();
                within("lookup", &bench.read(out)?, &wanted)?;
                // An index past the table reads something of the table; nothing else is touched.
                bench.device.copy_in(indices.view.buffer, indices.view.offset, &[0xff; 8]).map_err(text)?;
                bench.launch(&[Op::Lookup { table: matrix, indices: indices.view, rows: 4, out: out.view }])?;
                within("lookup beside a wrong index", &bench.read(out)?[2 * columns..], &wanted[2 * columns..])?;
                bench.device.unload(matrix).map_err(text)?;
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{format} {rows}x{columns}: {why}")));
        }
    }
}

/// Matrices put in the place of others: what was launched before sees the old one, what is launched later the new one,
/// with nobody waiting in between.
fn refills(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for format in bench.device.limits().formats.clone() {
        for (rows, columns) in shapes(suite, format) {
            let mut one = || -> Result<(), String> {
                let packed: Vec<Vec<u8>> = (0..3).map(|_| bench.draw.matrix(format, rows, columns)).collect();
                let (r, c) = (u32::try_from(rows).map_err(text)?, u32::try_from(columns).map_err(text)?);
                let matrix = bench.device.load(format, r, c, &packed[0]).map_err(text)?;
                let laid = |device: &Device, bytes: &[u8]| device.laid_out(matrix, bytes).map_err(text);
                let laid = [
                    laid(&bench.device, &packed[0])?,
                    laid(&bench.device, &packed[1])?,
                    laid(&bench.device, &packed[2])?,
                ];
                let tokens: Vec<u32> = [rows - 1, 0, rows / 2].iter().map(|&row| row as u32).collect();
                let indices = bench.words(&tokens)?;
                let outs = (0..6).map(|_| bench.room(3 * columns)).collect::<Result<Vec<_>, _>>()?;
                for (turn, out) in outs.iter().enumerate() {
                    match turn {
                        0 => {}
                        1..3 => bench.device.refill(matrix, &laid[turn]).map_err(text)?,
                        // What it is refilled by may go at once.
                        _ => {
                            let brief = bench.device.laid_out(matrix, &packed[turn % 3]).map_err(text)?;
                            bench.device.refill(matrix, &brief).map_err(text)?;
                        }
                    }
                    let op = Op::Lookup { table: matrix, indices: indices.view, rows: 3, out: out.view };
                    bench.device.launch(&[op]).map_err(text)?;
                }
                let minimum =
                    matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K);
                for (turn, out) in outs.into_iter().enumerate() {
                    let weights = Weights::read(format, rows, columns, &packed[turn % 3]);
                    let wanted: Vec<Exact> = tokens.iter().flat_map(|&t| weights.row(t as usize, minimum)).collect();
                    within(&format!("matrix {turn} of one place"), &bench.read(out)?, &wanted)?;
                }
                let other = bench.device.load(format, r + 1, c, &bench.draw.matrix(format, rows + 1, columns));
                let other = other.map_err(text)?;
                match bench.device.refill(other, &laid[0]) {
                    Err(DeviceError::Refused { refusal: Refusal::Shape { .. }, .. }) => {}
                    answer => return Err(format!("a matrix of another shape was answered with {answer:?}")),
                }
                bench.device.unload(other).map_err(text)?;
                bench.device.unload(matrix).map_err(text)?;
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{format} {rows}x{columns}: {why}")));
        }
    }
}

fn products_f32(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    products(suite, bench, check, Arithmetic::F32);
}

fn products_int8(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    if bench.device.limits().arithmetics.contains(&Arithmetic::Int8) {
        products(suite, bench, check, Arithmetic::Int8);
    } else {
        check.skipped = Some("this device does not offer that arithmetic".to_owned());
    }
}

fn products(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check, arithmetic: Arithmetic) {
    let tokens: &[usize] = if suite.thorough { &[1, 2, 3, 4, 5, 8, 17, 40] } else { &[1, 3, 17] };
    for format in bench.device.limits().formats.clone() {
        for (rows, columns) in shapes(suite, format) {
            for &tokens in tokens {
                // Every combination of store, norm and number of matrices comes up, spread over the shapes.
                let kind = bench.draw.below(12) as usize;
                let (store, normed, count) =
                    (if kind.is_multiple_of(2) { Store::Set } else { Store::Add }, kind / 2 % 2 == 1, 1 + kind / 4);
                let case = product(bench, (format, rows, columns), tokens, store, normed, count, arithmetic);
                let case = case.map_err(|why| {
                    format!(
                        "{format} {rows}x{columns}, {tokens} rows, {store:?}, norm {normed}, {count} matrices: {why}"
                    )
                });
                check.case(case);
            }
        }
    }
}

/// Activations and, where they pass a norm, its weights; and what reaches the matrices, exactly.
fn input(bench: &mut Bench, tokens: usize, columns: usize, normed: bool) -> Result<(Input, Vec<Exact>), String> {
    let numbers = bench.draw.numbers(tokens * columns);
    let operand = bench.numbers(&numbers)?;
    if !normed {
        return Ok((Input { numbers: operand.view, norm: None }, plain(&numbers)));
    }
    let weight = bench.draw.numbers(columns);
    let by = NormBy { weight: bench.numbers(&weight)?.view, epsilon: 1e-5 };
    Ok((Input { numbers: operand.view, norm: Some(by) }, norm(&numbers, &weight, by.epsilon)))
}

#[allow(clippy::too_many_arguments, reason = "one case")]
fn product(
    bench: &mut Bench,
    (format, rows, columns): (BlockFormat, usize, usize),
    tokens: usize,
    store: Store,
    normed: bool,
    count: usize,
    arithmetic: Arithmetic,
) -> Result<(), String> {
    let (input, exact) = input(bench, tokens, columns, normed)?;
    let (mut outs, mut wanted) = (Vec::new(), Vec::new());
    for i in 0..count {
        // Matrices of one product have different numbers of rows.
        let rows = rows + 5 * i;
        let (matrix, weights) = load(bench, format, rows, columns)?;
        let before = bench.draw.numbers(tokens * rows);
        let out = bench.numbers(&before)?;
        let mut sums = weights.product(&exact, arithmetic);
        if store == Store::Add {
            for (sum, &before) in sums.iter_mut().zip(&before) {
                let exact = sum.0 + f64::from(before);
                *sum = (exact, sum.1 + EPS * (exact.abs() + sum.1));
            }
        }
        outs.push((matrix, out.view));
        wanted.push((out, sums));
    }
    let rows = u32::try_from(tokens).map_err(text)?;
    bench.launch(&[Op::Product { input, rows, outs: outs.clone(), store, arithmetic }])?;
    for (i, (out, sums)) in wanted.iter().enumerate() {
        within(&format!("product {i}"), &bench.read(*out)?, sums)?;
    }
    for (matrix, _) in outs {
        bench.device.unload(matrix).map_err(text)?;
    }
    bench.finish()
}

fn gated_products(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let tokens: &[usize] = if suite.thorough { &[1, 2, 5, 19] } else { &[1, 5] };
    for format in bench.device.limits().formats.clone() {
        for (rows, columns) in shapes(suite, format) {
            for (i, &tokens) in tokens.iter().enumerate() {
                let mut one = || -> Result<(), String> {
                    let (input, exact) = input(bench, tokens, columns, i % 2 == 0)?;
                    let (gate, of_gate) = load(bench, format, rows, columns)?;
                    let (up, of_up) = load(bench, format, rows, columns)?;
                    let out = bench.room(tokens * rows)?;
                    let (arithmetic, rows) = (Arithmetic::F32, u32::try_from(tokens).map_err(text)?);
                    bench.launch(&[Op::Gated { input, rows, gate, up, out: out.view, arithmetic }])?;
                    let sums = gated(&of_gate.product(&exact, arithmetic), &of_up.product(&exact, arithmetic));
                    within("gated product", &bench.read(out)?, &sums)?;
                    bench.device.unload(gate).map_err(text)?;
                    bench.device.unload(up).map_err(text)?;
                    bench.finish()
                };
                check.case(one().map_err(|why| format!("{format} {rows}x{columns}, {tokens} rows: {why}")));
            }
        }
    }
}

fn repeated(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for tokens in [1_usize, 4, 33] {
        let mut one = || -> Result<(), String> {
            let (rows, columns) = (200, 512);
            let (matrix, _) = load(bench, BlockFormat::Q4_0, rows, columns)?;
            let (input, _) = input(bench, tokens, columns, true)?;
            let (a, b) = (bench.room(tokens * rows)?, bench.room(tokens * rows)?);
            for out in [a, b] {
                bench.launch(&[Op::Product {
                    input,
                    rows: u32::try_from(tokens).map_err(text)?,
                    outs: vec![(matrix, out.view)],
                    store: Store::Set,
                    arithmetic: Arithmetic::F32,
                }])?;
            }
            let first = bench.read_words(a)?;
            same("the second time", &bench.read_words(b)?, &first)?;
            bench.device.unload(matrix).map_err(text)?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("{tokens} rows: {why}")));
    }
}
