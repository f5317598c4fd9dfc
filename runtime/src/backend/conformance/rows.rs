//! Operations on rows: norm, rotation, cache, attention, gate, sum, copy, largest.

use super::bench::{Bench, Operand, Test, each, same, text, within};
use super::oracle::{EPS, Exact, Past, Turn, attend, gated, norm, plain};
use super::{Check, Suite};
use crate::backend::CACHE_BLOCK;
use crate::backend::op::{Cache, Heads, NormBy, Op, Places, Rope};
use crate::model::geometry::RopePairs;

pub(super) fn all(suite: &Suite<'_>, device: usize) -> Vec<Check> {
    let tests: [(&'static str, Test); 8] = [
        ("norms are within their bound", norms),
        ("rotations turn each pair by its angle and leave the rest", rotations),
        ("keys and values reach their place in the cache, and no other place changes", remembered),
        ("attention is the softmax of scores over the positions that a row sees", attention),
        ("tables that name places which do not exist touch nothing outside the operands", wrong_tables),
        ("the gate is silu of one number times the other", gates),
        ("sums and copies are exact to rounding, at any length", sums),
        ("the largest number of a row is found, the first of equals", largest),
    ];
    each(suite, device, &tests)
}

fn norms(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let widths: &[usize] = if suite.thorough { &[1, 16, 64, 100, 576, 2048, 8192] } else { &[100, 576] };
    for &width in widths {
        for (rows, in_place) in [(1, false), (5, true), (33, false)] {
            let mut one = || -> Result<(), String> {
                let (x, weight) = (bench.draw.numbers(rows * width), bench.draw.numbers(width));
                let (input, w) = (bench.numbers(&x)?, bench.numbers(&weight)?);
                let out = if in_place { input } else { bench.room(rows * width)? };
                bench.launch(&[Op::Norm {
                    input: input.view,
                    by: NormBy { weight: w.view, epsilon: 1e-5 },
                    rows: rows as u32,
                    width: width as u32,
                    out: out.view,
                }])?;
                within("norm", &bench.read(out)?, &norm(&x, &weight, 1e-5))?;
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{rows} rows of {width}: {why}")));
        }
    }
}

/// A rotation table of a few positions, as both sides know it.
fn turn(bench: &mut Bench, positions: usize, dimensions: usize, pairs: RopePairs) -> Result<(Turn, Rope), String> {
    let mut table = Vec::new();
    for _ in 0..positions * dimensions / 2 {
        let (sine, cosine) = (f64::from(bench.draw.number()) * std::f64::consts::PI).sin_cos();
        table.extend([cosine as f32, sine as f32]);
    }
    let operand = bench.numbers(&table)?;
    let (positions, dimensions_narrow) = (positions as u32, dimensions as u32);
    let rope = Rope { table: operand.view, positions, dimensions: dimensions_narrow, pairs };
    Ok((Turn { table, dimensions, pairs }, rope))
}

fn rotations(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for (size, dimensions) in [(16, 16), (64, 64), (64, 48), (128, 32), (80, 80)] {
        for pairs in [RopePairs::Adjacent, RopePairs::SplitHalves] {
            let mut one = || -> Result<(), String> {
                let (turn, rope) = turn(bench, 9, dimensions, pairs)?;
                let (rows, heads) = (5, 3);
                let x = bench.draw.numbers(rows * heads * size);
                let positions: Vec<usize> = (0..rows).map(|_| bench.draw.below(9) as usize).collect();
                let table: Vec<u32> = positions.iter().flat_map(|&p| [p as u32 + 1, 0]).collect();
                let (numbers, table, blocks) = (bench.numbers(&x)?, bench.words(&table)?, bench.words(&[0])?);
                let places = Places { rows: table.view, blocks: blocks.view, blocks_count: 1 };
                bench.launch(&[Op::Rotate {
                    numbers: numbers.view,
                    rows: rows as u32,
                    heads: heads as u32,
                    size: size as u32,
                    places,
                    rope,
                }])?;
                let rows = x.chunks_exact(heads * size).zip(positions);
                let exact: Vec<Exact> = rows.flat_map(|(row, position)| turn.rotate(row, size, position)).collect();
                within("rotated", &bench.read(numbers)?, &exact)?;
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{dimensions} of {size}, {pairs:?}: {why}")));
        }
    }
}

const HEADS: [Heads; 5] = [
    Heads { query: 1, kv: 1, size: 16 },
    Heads { query: 9, kv: 3, size: 64 },
    Heads { query: 8, kv: 1, size: 32 },
    Heads { query: 4, kv: 4, size: 80 },
    Heads { query: 4, kv: 2, size: 128 },
];

/// A cache with its block numbers shuffled among the sequences of a batch.
struct Scene {
    cache: Cache,
    keys: Operand,
    values: Operand,
    places: Places,
    /// For each sequence, its blocks.
    blocks: Vec<Vec<usize>>,
    /// For each row, its sequence and its position.
    rows: Vec<(usize, usize)>,
}

impl Scene {
    /// A batch in which sequence `s` has rows at the last `rows[s].1` of its `rows[s].0` positions.
    fn new(bench: &mut Bench, heads: Heads, sequences: &[(usize, usize)]) -> Result<Self, String> {
        let needed: Vec<usize> = sequences.iter().map(|(positions, _)| positions.div_ceil(CACHE_BLOCK)).collect();
        let total: usize = needed.iter().sum::<usize>() + 2;
        let mut order: Vec<usize> = (0..total).collect();
        for i in (1..total).rev() {
            order.swap(i, bench.draw.below(i as u64 + 1) as usize);
        }
        let mut free = order.into_iter();
        let blocks: Vec<Vec<usize>> = needed.iter().map(|&n| free.by_ref().take(n).collect()).collect();
        let (mut table, mut rows, mut begin) = (Vec::new(), Vec::new(), 0);
        for (sequence, &(positions, count)) in sequences.iter().enumerate() {
            for position in positions - count..positions {
                table.extend([position as u32 + 1, begin]);
                rows.push((sequence, position));
            }
            begin += blocks[sequence].len() as u32;
        }
        let listed: Vec<u32> = blocks.iter().flatten().map(|&block| block as u32).collect();
        let numbers = total * heads.kv as usize * CACHE_BLOCK * heads.size as usize;
        let (keys, values) = (bench.room(numbers)?, bench.room(numbers)?);
        let (table, listed_at) = (bench.words(&table)?, bench.words(&listed)?);
        Ok(Self {
            cache: Cache { keys: keys.view, values: values.view, blocks: total as u32 },
            keys,
            values,
            places: Places { rows: table.view, blocks: listed_at.view, blocks_count: listed.len() as u32 },
            blocks,
            rows,
        })
    }

    /// Where a head's numbers of one position begin in either table.
    fn at(&self, heads: Heads, sequence: usize, position: usize, head: usize) -> usize {
        let block = self.blocks[sequence][position / CACHE_BLOCK];
        let row = (block * heads.kv as usize + head) * CACHE_BLOCK + position % CACHE_BLOCK;
        row * heads.size as usize
    }
}

fn remembered(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for heads in HEADS {
        for sequences in [vec![(1, 1)], vec![(40, 1), (17, 1), (5, 1)], vec![(33, 20), (16, 16)]] {
            let mut one = || -> Result<(), String> {
                let scene = Scene::new(bench, heads, &sequences)?;
                let (size, kv) = (heads.size as usize, heads.kv as usize);
                let (turn, rope) = turn(bench, 40, size, RopePairs::Adjacent)?;
                let rows = scene.rows.len();
                let q = bench.draw.numbers(rows * heads.query as usize * size);
                let (k, v) = (bench.draw.numbers(rows * kv * size), bench.draw.numbers(rows * kv * size));
                let (query, key, value) = (bench.numbers(&q)?, bench.numbers(&k)?, bench.numbers(&v)?);
                let mut keys: Vec<Option<Exact>> = vec![None; bench.read_words(scene.keys)?.len()];
                let mut values = bench.read_words(scene.values)?;
                let untouched = bench.read_words(scene.keys)?;
                bench.launch(&[Op::Remember {
                    query: query.view,
                    key: key.view,
                    value: value.view,
                    rows: rows as u32,
                    heads,
                    places: scene.places,
                    rope,
                    cache: scene.cache,
                }])?;
                let mut rotated = Vec::new();
                for (row, &(sequence, position)) in scene.rows.iter().enumerate() {
                    let width = heads.query as usize * size;
                    rotated.extend(turn.rotate(&q[row * width..][..width], size, position));
                    for head in 0..kv {
                        let (from, to) = ((row * kv + head) * size, scene.at(heads, sequence, position, head));
                        for (i, exact) in turn.rotate(&k[from..from + size], size, position).into_iter().enumerate() {
                            keys[to + i] = Some(exact);
                            values[to + i] = v[from + i].to_bits();
                        }
                    }
                }
                within("queries", &bench.read(query)?, &rotated)?;
                same("keys as given", &bench.read_words(key)?, &k.iter().map(|x| x.to_bits()).collect::<Vec<_>>())?;
                same("cached values", &bench.read_words(scene.values)?, &values)?;
                for (i, (got, wanted)) in bench.read_words(scene.keys)?.into_iter().zip(keys).enumerate() {
                    match wanted {
                        Some(exact) => within("cached key", &[f32::from_bits(got)], &[exact])?,
                        None => same("untouched key", &[got], &untouched[i..=i])?,
                    }
                }
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{heads:?}, {sequences:?}: {why}")));
        }
        if !suite.thorough {
            break;
        }
    }
}

fn attention(suite: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let mut batches =
        vec![vec![(1, 1)], vec![(16, 1), (17, 1)], vec![(300, 1), (129, 1), (3, 3)], vec![(70, 40), (20, 20)]];
    // Long enough that a backend which splits sequences splits them in another way than short ones.
    batches.push(vec![(2100, 1), (40, 1)]);
    if suite.thorough {
        batches.extend([vec![(128, 1)], vec![(1100, 1)], vec![(257, 2), (1, 1)], vec![(4200, 2)], vec![(8300, 1)]]);
    }
    let heads = if suite.thorough { &HEADS[..] } else { &HEADS[1..2] };
    for &heads in heads {
        for batch in &batches {
            let mut one = || -> Result<(), String> {
                let scene = Scene::new(bench, heads, batch)?;
                let (size, kv) = (heads.size as usize, heads.kv as usize);
                let width = heads.query as usize * size;
                let mut pasts = Vec::new();
                for (sequence, &(positions, _)) in batch.iter().enumerate() {
                    let past = Past {
                        keys: bench.draw.numbers(positions * kv * size),
                        values: bench.draw.numbers(positions * kv * size),
                    };
                    for position in 0..positions {
                        for head in 0..kv {
                            let from = (position * kv + head) * size;
                            let to = 4 * scene.at(heads, sequence, position, head) as u64;
                            for (table, numbers) in [(scene.keys, &past.keys), (scene.values, &past.values)] {
                                let bytes: Vec<u8> =
                                    numbers[from..from + size].iter().flat_map(|x| x.to_le_bytes()).collect();
                                bench
                                    .device
                                    .copy_in(table.view.buffer, table.view.offset + to, &bytes)
                                    .map_err(text)?;
                            }
                        }
                    }
                    pasts.push(past);
                }
                let rows = scene.rows.len();
                let q = bench.draw.numbers(rows * width);
                let (query, out) = (bench.numbers(&q)?, bench.room(rows * width)?);
                let scale = 1.0 / (size as f32).sqrt();
                bench.launch(&[Op::Attend {
                    query: query.view,
                    rows: rows as u32,
                    heads,
                    places: scene.places,
                    cache: scene.cache,
                    scale,
                    seen_max: batch.iter().map(|(positions, _)| *positions as u32).max().unwrap_or(1),
                    out: out.view,
                }])?;
                let exact: Vec<Exact> = scene
                    .rows
                    .iter()
                    .zip(q.chunks_exact(width))
                    .flat_map(|(&(sequence, position), q)| attend(q, &pasts[sequence], heads, scale, position + 1))
                    .collect();
                within("attention", &bench.read(out)?, &exact)?;
                bench.finish()
            };
            check.case(one().map_err(|why| format!("{heads:?}, {batch:?}: {why}")));
        }
    }
}

/// Positions, beginnings and blocks far outside: results mean nothing, but the guards around every operand stay.
fn wrong_tables(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    let heads = Heads { query: 4, kv: 2, size: 32 };
    for wrong in [[u32::MAX, 0], [1, u32::MAX], [0, 0], [500, 3], [0x7fff_ffff, 0x7fff_ffff]] {
        let mut one = || -> Result<(), String> {
            let scene = Scene::new(bench, heads, &[(20, 1)])?;
            let (_, rope) = turn(bench, 8, 32, RopePairs::SplitHalves)?;
            let bytes: Vec<u8> = wrong.iter().flat_map(|word| word.to_le_bytes()).collect();
            bench.device.copy_in(scene.places.rows.buffer, scene.places.rows.offset, &bytes).map_err(text)?;
            let blocks = scene.places.blocks;
            bench.device.copy_in(blocks.buffer, blocks.offset, &[0xf0; 8]).map_err(text)?;
            let (query, key) = (bench.numbers(&[0.5; 128])?, bench.numbers(&[0.25; 64])?);
            let (value, out) = (bench.numbers(&[0.25; 64])?, bench.room(128)?);
            bench.launch(&[
                Op::Remember {
                    query: query.view,
                    key: key.view,
                    value: value.view,
                    rows: 1,
                    heads,
                    places: scene.places,
                    rope,
                    cache: scene.cache,
                },
                Op::Attend {
                    query: query.view,
                    rows: 1,
                    heads,
                    places: scene.places,
                    cache: scene.cache,
                    scale: 0.25,
                    seen_max: 20,
                    out: out.view,
                },
            ])?;
            bench.device.synchronise().map_err(text)?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("{wrong:?}: {why}")));
    }
}

fn gates(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for count in [1_usize, 63, 1000, 70_001] {
        let mut one = || -> Result<(), String> {
            let mut g = bench.draw.numbers(count);
            g.iter_mut().for_each(|x| *x *= 30.0);
            let u = bench.draw.numbers(count);
            let (gate, up) = (bench.numbers(&g)?, bench.numbers(&u)?);
            bench.launch(&[Op::Gate { gate: gate.view, up: up.view, count: count as u64 }])?;
            within("gate", &bench.read(gate)?, &gated(&plain(&g), &plain(&u)))?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("{count} numbers: {why}")));
    }
}

fn sums(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for count in [1_usize, 2, 255, 257, 70_001, 300_000] {
        let mut one = || -> Result<(), String> {
            let (a, b) = (bench.draw.numbers(count), bench.draw.numbers(count));
            let (to, from, copy) = (bench.numbers(&a)?, bench.numbers(&b)?, bench.room(count)?);
            bench.launch(&[
                Op::Copy { from: to.view, to: copy.view, count: count as u64 },
                Op::Add { to: to.view, from: from.view, count: count as u64 },
            ])?;
            let bits: Vec<u32> = a.iter().map(|x| x.to_bits()).collect();
            same("copy", &bench.read_words(copy)?, &bits)?;
            let sum = |(&a, &b): (&f32, &f32)| {
                let exact = f64::from(a) + f64::from(b);
                (exact, EPS * exact.abs() + 1.2e-38)
            };
            let exact: Vec<Exact> = a.iter().zip(&b).map(sum).collect();
            within("sum", &bench.read(to)?, &exact)?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("{count} numbers: {why}")));
    }
}

fn largest(_: &Suite<'_>, bench: &mut Bench, check: &mut Check) {
    for (rows, width) in [(1, 1), (3, 7), (2, 1000), (5, 49_152), (1, 70_001)] {
        let mut one = || -> Result<(), String> {
            // Few different numbers, so that many are equal; all below zero in the last row.
            let mut x: Vec<f32> = (0..rows * width).map(|_| (bench.draw.below(50) as f32) / 8.0 - 3.0).collect();
            x[(rows - 1) * width..].iter_mut().for_each(|v| *v -= 100.0);
            let (input, out) = (bench.numbers(&x)?, bench.room(rows)?);
            bench.launch(&[Op::Argmax { input: input.view, rows: rows as u32, width: width as u32, out: out.view }])?;
            let wanted: Vec<u32> = x
                .chunks_exact(width)
                .map(|row| {
                    let most = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
                    row.iter().position(|&v| v >= most).unwrap_or(0) as u32
                })
                .collect();
            same("largest", &bench.read_words(out)?, &wanted)?;
            bench.finish()
        };
        check.case(one().map_err(|why| format!("{rows} rows of {width}: {why}")));
    }
}
