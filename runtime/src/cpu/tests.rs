//! Every kernel of every instruction set against loops a reader can check.

use super::attention::{
    CACHE_BLOCK, Merged, QUERIES_MAX, SEGMENT, SEGMENT_BLOCKS, Segment, Share, block_floats, write,
};
use super::element::{Rotations, gate as gate_by, norm};
use super::input::{Input, Needs};
use super::pack::{Packed, RowMajor};
use super::product::{Store, product};
use super::share::Columns;
use super::team::{Patience, Team};
use super::{Arithmetic, Isa};
use crate::model::format::BlockFormat;
use crate::model::geometry::{Activation, Rope, RopePairs};

/// A small generator (SplitMix64) so that every test sees the same numbers.
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// Random blocks: any bytes, with scales of ordinary size.
fn random_matrix(draw: &mut Draw, format: BlockFormat, rows: usize, columns: usize) -> Vec<u8> {
    let per_block = format.bytes_per_block();
    let blocks = rows * columns / format.values_per_block();
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        match format {
            BlockFormat::F32 => bytes.extend(draw.number().to_le_bytes()),
            BlockFormat::F16 => bytes.extend(half::f16::from_f32(draw.number()).to_le_bytes()),
            BlockFormat::BF16 => bytes.extend(half::bf16::from_f32(draw.number()).to_le_bytes()),
            _ => {
                let mut start = bytes.len();
                bytes.extend((0..per_block).map(|_| draw.bits() as u8));
                if format == BlockFormat::Q6K {
                    start += per_block - 2;
                }
                let scale = half::f16::from_f32(draw.number() * 0.1).to_le_bytes();
                bytes[start..start + 2].copy_from_slice(&scale);
                if matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K) {
                    let minimum = half::f16::from_f32(draw.number()).to_le_bytes();
                    bytes[start + 2..start + 4].copy_from_slice(&minimum);
                }
            }
        }
    }
    bytes
}

fn packed(format: BlockFormat, rows: usize, columns: usize, bytes: &[u8]) -> Packed {
    Packed::all(&[RowMajor { format, rows, columns, bytes }]).expect("a little memory").remove(0)
}

/// `tokens` rows of results, computed in blocks of `piece` rows of the matrix.
fn multiply(isa: Isa, arithmetic: Arithmetic, matrix: &Packed, x: &[f32], piece: usize) -> Vec<f32> {
    let (tokens, columns) = (x.len() / matrix.columns(), matrix.columns());
    let team = Team::new(&[0], Patience::Watch).expect("no thread is needed");
    let mut input = Input::new(tokens, columns);
    let needs = Needs::of(matrix.kind(), arithmetic);
    input.fill(&team, isa, needs, tokens, columns, 1, &|first, rows: &mut [f32]| {
        rows.copy_from_slice(&x[first * columns..][..rows.len()]);
    });
    let mut out = vec![f32::NAN; tokens * matrix.rows()];
    let blocks = Columns::new(&mut out, matrix.rows(), piece);
    for part in 0..matrix.rows().div_ceil(piece) {
        product(isa, arithmetic, matrix, &input, Store::Set, &mut blocks.take(part));
    }
    out
}

const FORMATS: [BlockFormat; 11] = [
    BlockFormat::F32,
    BlockFormat::F16,
    BlockFormat::BF16,
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4_1,
    BlockFormat::Q5_0,
    BlockFormat::Q5_1,
    BlockFormat::Q4K,
    BlockFormat::Q5K,
    BlockFormat::Q6K,
];

/// Columns and rows that are no multiples of anything but the block.
fn odd_shapes(format: BlockFormat) -> Vec<(usize, usize)> {
    match format.values_per_block() {
        1 => vec![(1, 1), (17, 7), (33, 100), (130, 64)],
        32 => vec![(1, 32), (17, 96), (64, 32), (131, 160)],
        block => vec![(17, block), (40, 2 * block)],
    }
}

#[test]
fn products_are_within_the_error_bound_of_exact_sums_on_every_instruction_set() {
    let mut draw = Draw(1);
    for format in FORMATS {
        for (rows, columns) in odd_shapes(format) {
            let bytes = random_matrix(&mut draw, format, rows, columns);
            let matrix = packed(format, rows, columns, &bytes);
            let tokens = 3;
            let x = draw.numbers(tokens * columns);
            let mut weights = vec![0.0; rows * columns];
            format.dequantise_row(&bytes, &mut weights);
            for &isa in Isa::available() {
                let got = multiply(isa, Arithmetic::F32, &matrix, &x, matrix.rows_together());
                for t in 0..tokens {
                    for r in 0..rows {
                        let terms =
                            (0..columns).map(|c| f64::from(weights[r * columns + c]) * f64::from(x[t * columns + c]));
                        let exact: f64 = terms.clone().sum();
                        // Length times one unit times the sum of magnitudes (Higham, Accuracy and Stability of Numerical
                        // Algorithms, section 3.1), with the magnitudes of what is really added.
                        let row = &bytes[r * bytes.len() / rows..][..bytes.len() / rows];
                        let magnitude = magnitude(format, row, &x[t * columns..][..columns])
                            .unwrap_or_else(|| terms.map(f64::abs).sum());
                        let bound = (columns as f64 + 4.0) * f64::from(f32::EPSILON) * magnitude;
                        let error = (f64::from(got[t * rows + r]) - exact).abs();
                        assert!(error <= bound, "{isa:?} {format} {rows}x{columns} [{t}][{r}]: {error} > {bound}");
                    }
                }
            }
        }
    }
}

/// Sum of magnitudes of the products that a nibble or byte kernel adds up: scale times quantised value, and minimum, each
/// times the activation. None for other formats, whose products are those of the weights.
fn magnitude(format: BlockFormat, row: &[u8], x: &[f32]) -> Option<f64> {
    let half = |at: &[u8]| f64::from(half::f16::from_le_bytes([at[0], at[1]]).to_f32()).abs();
    let blocks = row.chunks(format.bytes_per_block()).zip(x.chunks(format.values_per_block()));
    let of_block = |block: &[u8]| match format {
        BlockFormat::Q8_0 => Some(128.0 * half(block)),
        BlockFormat::Q4_0 => Some((15.0 + 8.0) * half(block)),
        BlockFormat::Q4_1 => Some(15.0 * half(block) + half(&block[2..])),
        BlockFormat::Q5_0 => Some((31.0 + 16.0) * half(block)),
        BlockFormat::Q5_1 => Some(31.0 * half(block) + half(&block[2..])),
        // Scales and minima of parts are at most 63; those of six-bit values at most 128.
        BlockFormat::Q4K => Some(63.0 * (15.0 * half(block) + half(&block[2..]))),
        BlockFormat::Q5K => Some(63.0 * (31.0 * half(block) + half(&block[2..]))),
        BlockFormat::Q6K => Some(128.0 * (63.0 + 32.0) * half(&block[208..])),
        _ => None,
    };
    blocks.map(|(block, x)| Some(of_block(block)? * x.iter().map(|x| f64::from(x.abs())).sum::<f64>())).sum()
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut draw = Draw(2);
    for format in FORMATS {
        for (rows, columns) in odd_shapes(format) {
            let bytes = random_matrix(&mut draw, format, rows, columns);
            let matrix = packed(format, rows, columns, &bytes);
            let x = draw.numbers(13 * columns);
            for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
                let plain = multiply(Isa::Portable, arithmetic, &matrix, &x, rows.next_multiple_of(16));
                for &isa in Isa::available() {
                    let fast = multiply(isa, arithmetic, &matrix, &x, rows.next_multiple_of(16));
                    assert_eq!(bits(&plain), bits(&fast), "{isa:?} {arithmetic:?} {format} {rows}x{columns}");
                }
            }
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_whatever_else_is_in_its_batch_and_however_rows_are_cut() {
    let mut draw = Draw(3);
    for format in FORMATS {
        let (rows, columns) = (208, format.values_per_block().max(32) * 2);
        let matrix = packed(format, rows, columns, &random_matrix(&mut draw, format, rows, columns));
        let x = draw.numbers(21 * columns);
        for arithmetic in [Arithmetic::F32, Arithmetic::Int8] {
            let isa = Isa::detect();
            let together = multiply(isa, arithmetic, &matrix, &x, 208);
            for tokens in [1, 2, 3, 4, 5, 7, 8, 9, 16] {
                for piece in [1, 2, 3].map(|n| n * matrix.rows_together()) {
                    let some = multiply(isa, arithmetic, &matrix, &x[..tokens * columns], piece);
                    assert_eq!(
                        bits(&some),
                        bits(&together[..tokens * rows]),
                        "{arithmetic:?} {format} {tokens} {piece}"
                    );
                }
            }
        }
    }
}

#[test]
fn eight_bit_activations_stay_within_half_a_step_per_product() {
    let mut draw = Draw(4);
    use BlockFormat::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for format in [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
        let (rows, columns) = (33, 3 * format.values_per_block());
        let bytes = random_matrix(&mut draw, format, rows, columns);
        let matrix = packed(format, rows, columns, &bytes);
        let x = draw.numbers(columns);
        let mut weights = vec![0.0; rows * columns];
        format.dequantise_row(&bytes, &mut weights);
        let got = multiply(Isa::detect(), Arithmetic::Int8, &matrix, &x, 64);
        for r in 0..rows {
            let (mut exact, mut bound) = (0.0, 1e-4);
            for (block, w) in x.chunks(32).zip(weights[r * columns..].chunks(32)) {
                let step = block.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
                for (x, w) in block.iter().zip(w) {
                    exact += f64::from(x * w);
                    bound += f64::from(0.501 * step * w.abs());
                }
            }
            assert!((f64::from(got[r]) - exact).abs() <= bound, "{format} row {r}: {} for {exact}", got[r]);
        }
    }
}

#[test]
fn added_products_are_the_sum_of_both() {
    let mut draw = Draw(5);
    let bytes = random_matrix(&mut draw, BlockFormat::Q4_1, 48, 64);
    let matrix = packed(BlockFormat::Q4_1, 48, 64, &bytes);
    let x = draw.numbers(64);
    let alone = multiply(Isa::detect(), Arithmetic::F32, &matrix, &x, 48);
    let team = Team::new(&[0], Patience::Watch).expect("no thread is needed");
    let mut input = Input::new(1, 64);
    let needs = Needs::of(matrix.kind(), Arithmetic::F32);
    input.fill(&team, Isa::detect(), needs, 1, 64, 1, &|_, row: &mut [f32]| row.copy_from_slice(&x));
    let before = draw.numbers(48);
    let mut out = before.clone();
    let blocks = Columns::new(&mut out, 48, 48);
    product(Isa::detect(), Arithmetic::F32, &matrix, &input, Store::Add, &mut blocks.take(0));
    let sum: Vec<f32> = before.iter().zip(&alone).map(|(a, b)| a + b).collect();
    assert_eq!(bits(&out), bits(&sum));
}

#[test]
fn no_format_takes_more_memory_than_a_little_above_its_file() {
    let mut draw = Draw(9);
    for format in BlockFormat::ALL {
        let (rows, columns) = (256, 512);
        let bytes = random_matrix(&mut draw, format, rows, columns);
        let packed = packed(format, rows, columns, &bytes);
        let share = packed.bytes().len() as f64 / bytes.len() as f64;
        assert!((1.0..1.03).contains(&share), "{format}: {share}");
    }
}

#[test]
fn norm_and_gate_agree_with_double_precision_and_across_instruction_sets() {
    let mut draw = Draw(6);
    let (x, weight) = (draw.numbers(576), draw.numbers(576));
    let up = draw.numbers(100);
    let gate: Vec<f32> = draw.numbers(100).iter().map(|v| v * 30.0).collect();
    let mut first = None;
    for &isa in Isa::available() {
        let mut out = vec![0.0; 576];
        norm(isa, &x, &weight, 1e-5, &mut out);
        let mean: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 576.0;
        for i in 0..576 {
            let exact = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(weight[i]);
            assert!((f64::from(out[i]) - exact).abs() < 1e-6, "{isa:?}");
        }
        let mut silu = gate.clone();
        gate_by(isa, Activation::Silu, &mut silu, &up);
        for i in 0..100 {
            let g = f64::from(gate[i]);
            let exact = g / (1.0 + (-g).exp()) * f64::from(up[i]);
            assert!((f64::from(silu[i]) - exact).abs() < 1e-5, "{isa:?} {g}");
        }
        let mut gelu = gate.clone();
        gate_by(isa, Activation::Gelu, &mut gelu, &up);
        for i in 0..100 {
            let g = f64::from(gate[i]);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
            let exact = 0.5 * g * (1.0 + inner.tanh()) * f64::from(up[i]);
            assert!((f64::from(gelu[i]) - exact).abs() < 1e-5, "{isa:?} {g}");
        }
        let both = (bits(&out), bits(&silu), bits(&gelu));
        assert_eq!(first.get_or_insert_with(|| both.clone()), &both, "{isa:?}");
    }
}

#[test]
fn rotations_turn_each_pair_by_its_angle() {
    let mut draw = Draw(7);
    for pairs in [RopePairs::Adjacent, RopePairs::SplitHalves] {
        let rope =
            Rope { base: 10_000.0, dimensions: 48, pairs, position_divisor: 1.0, yarn: None, divisors: Vec::new() };
        let rotations = Rotations::new(&rope, 10);
        for &isa in Isa::available() {
            let before = draw.numbers(64);
            let mut head = before.clone();
            rotations.rotate(isa, 9, &mut head);
            for (i, frequency) in rope.frequencies().iter().enumerate() {
                let (a, b) = if pairs == RopePairs::Adjacent { (2 * i, 2 * i + 1) } else { (i, i + 24) };
                let (sine, cosine) = (9.0 * frequency).sin_cos();
                let (x, y) = (f64::from(before[a]), f64::from(before[b]));
                assert!((f64::from(head[a]) - (x * cosine - y * sine)).abs() < 1e-6);
                assert!((f64::from(head[b]) - (x * sine + y * cosine)).abs() < 1e-6);
            }
            assert_eq!(head[48..], before[48..]);
        }
    }
}

/// A cache whose blocks are scattered, with random keys and values; returned with the block table.
fn random_cache(draw: &mut Draw, head_size: usize, positions: usize) -> (Vec<f32>, Vec<u32>, Vec<f32>, Vec<f32>) {
    let blocks = positions.div_ceil(CACHE_BLOCK);
    let table: Vec<u32> = (0..blocks as u32).rev().map(|b| 2 * b + 1).collect();
    let mut cache = vec![7.0; 2 * blocks * block_floats(head_size)];
    let (keys, values) = (draw.numbers(positions * head_size), draw.numbers(positions * head_size));
    for p in 0..positions {
        let block = table[p / CACHE_BLOCK] as usize;
        let range = p * head_size..(p + 1) * head_size;
        write(&mut cache, block, p % CACHE_BLOCK, &keys[range.clone()], &values[range]);
    }
    (cache, table, keys, values)
}

/// Attention of queries that see all positions, by segments.
fn attend(isa: Isa, cache: &[f32], table: &[u32], head_size: usize, queries: &[f32], seen: &[usize]) -> Vec<f32> {
    let segments = seen.iter().max().map_or(0, |n| n.div_ceil(SEGMENT));
    let count = seen.len();
    let mut sums = vec![vec![0.0; segments * head_size]; count];
    let mut shares = vec![Vec::new(); count];
    for s in 0..segments {
        let here: Vec<usize> = seen.iter().map(|n| n.saturating_sub(s * SEGMENT).min(SEGMENT)).collect();
        assert!(here.iter().all(|&n| n > 0), "these tests let all queries see every segment");
        let blocks = &table[s * SEGMENT_BLOCKS..((s + 1) * SEGMENT_BLOCKS).min(table.len())];
        let mut out = vec![0.0; count * head_size];
        let mut share = vec![Share { largest: 0.0, sum: 0.0 }; count];
        let segment = Segment { cache, blocks, head_size, queries, positions: &here, skipped: &vec![0; count] };
        segment.attend(isa, &mut out, &mut share);
        for q in 0..count {
            sums[q][s * head_size..][..head_size].copy_from_slice(&out[q * head_size..][..head_size]);
            shares[q].push(share[q]);
        }
    }
    let mut results = Vec::new();
    for q in 0..count {
        let mut out = vec![0.0; head_size];
        let mut merged = Merged::new();
        for (row, share) in sums[q].chunks(head_size).zip(&shares[q]) {
            merged.add(isa, &mut out, row, *share);
        }
        merged.finish(&mut out);
        results.extend(out);
    }
    results
}

#[test]
fn attention_agrees_with_the_definition_and_across_instruction_sets_and_companions() {
    let mut draw = Draw(8);
    for head_size in [16, 64, 80, 128] {
        for positions in [1, 2, 15, 16, 17, 127, 128, 129, 300] {
            let (cache, table, keys, values) = random_cache(&mut draw, head_size, positions);
            let queries = draw.numbers(QUERIES_MAX * head_size);
            let low = positions.saturating_sub(3).max((positions - 1) / SEGMENT * SEGMENT + 1).min(positions);
            let seen = [positions, low, positions, low];
            let mut first = None;
            for &isa in Isa::available() {
                let together = attend(isa, &cache, &table, head_size, &queries, &seen);
                for count in 1..QUERIES_MAX {
                    let some = attend(isa, &cache, &table, head_size, &queries[..count * head_size], &seen[..count]);
                    assert_eq!(bits(&some), bits(&together[..count * head_size]), "{isa:?} {head_size} {positions}");
                }
                assert_eq!(first.get_or_insert_with(|| bits(&together)), &bits(&together), "{isa:?}");
                for (q, &n) in seen.iter().enumerate() {
                    let exact = definition(&queries[q * head_size..][..head_size], &keys, &values, n);
                    for i in 0..head_size {
                        let error = (f64::from(together[q * head_size + i]) - exact[i]).abs();
                        assert!(error < 1e-5, "{isa:?} {head_size} {positions}: off by {error}");
                    }
                }
            }
        }
    }
}

/// Softmax-weighted mean of the first `seen` values, in double precision.
fn definition(query: &[f32], keys: &[f32], values: &[f32], seen: usize) -> Vec<f64> {
    let size = query.len();
    let score = |p: usize| -> f64 { (0..size).map(|i| f64::from(query[i]) * f64::from(keys[p * size + i])).sum() };
    let weights: Vec<f64> = (0..seen).map(|p| score(p).exp()).collect();
    let sum: f64 = weights.iter().sum();
    (0..size).map(|i| (0..seen).map(|p| weights[p] * f64::from(values[p * size + i])).sum::<f64>() / sum).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|n| n.to_bits()).collect()
}
