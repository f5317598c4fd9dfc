//! How the shaders read weights: WGSL that turns 32 columns of a row into eight vectors `w0` to `w7`.
//!
//! `row` is the word at which the row begins in the arena `A`, `c` the number of the 32 columns. Written once for every
//! format, used by products and lookups.

use super::pack::Layout;
use crate::model::format::BlockFormat;
use std::fmt::Write as _;

/// The half-precision scale of block `b`, from the scales behind the row's quants.
const SCALE: &str = "let sw = unpack2x16float(A[row + P.scales + (b >> 1u)]);
    let d = select(sw.x, sw.y, (b & 1u) == 1u);
";

/// Scale and minimum of block `b`, both in one word.
const SCALE_AND_MINIMUM: &str = "let sw = unpack2x16float(A[row + P.scales + b]);
    let d = sw.x;
    let m = sw.y;
";

/// The fifth bits of four values, in their place, as a vector.
fn fifth_bits(k: usize) -> String {
    let bits: Vec<String> = (0..4).map(|i| format!("((h >> {}u) & 1u) << 4u", 4 * k + i)).collect();
    format!("vec4<u32>({})", bits.join(", "))
}

/// WGSL that declares `w0` to `w7`.
pub(super) fn weights(format: BlockFormat) -> String {
    let layout = Layout::of(format, 256);
    let mut code = String::new();
    let blocks_of_32 = |code: &mut String| {
        let _ = write!(code, "    let b = c;\n    let q = row + b * {}u;\n    ", layout.block);
    };
    match format {
        BlockFormat::F32 => {
            for k in 0..8 {
                let words: Vec<String> =
                    (0..4).map(|i| format!("bitcast<f32>(A[row + c * 32u + {}u])", 4 * k + i)).collect();
                let _ = writeln!(code, "    let w{k} = vec4<f32>({});", words.join(", "));
            }
        }
        BlockFormat::F16 => {
            for k in 0..8 {
                let word = |i: usize| format!("unpack2x16float(A[row + c * 16u + {}u])", 2 * k + i);
                let _ = writeln!(code, "    let w{k} = vec4<f32>({}, {});", word(0), word(1));
            }
        }
        BlockFormat::BF16 => {
            for k in 0..8 {
                let word = |i: usize| format!("A[row + c * 16u + {}u]", 2 * k + i);
                let _ = writeln!(
                    code,
                    "    let w{k} = bitcast<vec4<f32>>(vec4<u32>({0} << 16u, {0} & 0xffff0000u, {1} << 16u, {1} & \
                     0xffff0000u));",
                    word(0),
                    word(1)
                );
            }
        }
        BlockFormat::Q8_0 => {
            blocks_of_32(&mut code);
            code += SCALE;
            for k in 0..8 {
                let _ = writeln!(code, "    let w{k} = d * vec4<f32>(unpack4xI8(A[q + {k}u]));");
            }
        }
        BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 => {
            blocks_of_32(&mut code);
            let minimum = matches!(format, BlockFormat::Q4_1 | BlockFormat::Q5_1);
            let fifth = matches!(format, BlockFormat::Q5_0 | BlockFormat::Q5_1);
            code += if minimum { SCALE_AND_MINIMUM } else { SCALE };
            if fifth {
                code += "    let h = A[q + 4u];\n";
            }
            for k in 0..8 {
                let nibbles = format!("unpack4xU8((A[q + {}u] >> {}u) & 0x0f0f0f0fu)", k % 4, k / 4 * 4);
                let quants = if fifth { format!("({nibbles} | {})", fifth_bits(k)) } else { nibbles };
                let value = match format {
                    BlockFormat::Q4_0 => format!("d * (vec4<f32>({quants}) - 8.0)"),
                    BlockFormat::Q5_0 => format!("d * (vec4<f32>({quants}) - 16.0)"),
                    _ => format!("d * vec4<f32>({quants}) + m"),
                };
                let _ = writeln!(code, "    let w{k} = {value};");
            }
        }
        BlockFormat::Q4K | BlockFormat::Q5K => {
            let _ = writeln!(code, "    let sub = c & 7u;\n    let q = row + (c >> 3u) * {}u;", layout.block);
            code += SIX_BITS;
            let (quants, fifth) = if format == BlockFormat::Q4K { (4, false) } else { (12, true) };
            code += "    let shift = (sub & 1u) * 4u;\n";
            let _ = writeln!(code, "    let n = q + {quants}u + (sub >> 1u) * 8u;");
            for k in 0..8 {
                let low = format!("unpack4xU8((A[n + {k}u] >> shift) & 0x0f0f0f0fu)");
                let value = if fifth {
                    format!("({low} | (unpack4xU8((A[q + {}u] >> sub) & 0x01010101u) << vec4<u32>(4u)))", 4 + k)
                } else {
                    low
                };
                let _ = writeln!(code, "    let w{k} = d * vec4<f32>({value}) - m;");
            }
        }
        BlockFormat::Q6K => {
            let _ = writeln!(code, "    let sub = c & 7u;\n    let b = c >> 3u;\n    let q = row + b * 52u;");
            code += "    ";
            code += SCALE;
            code += "    let half = sub >> 2u;\n    let quarter = sub & 3u;\n    let low = q + 16u * half + 8u * \
                     (quarter & 1u);\n    let high = q + 32u + 8u * half;\n    let shift = 4u * (quarter >> 1u);\n    \
                     let scales4 = unpack4xI8(A[q + 48u + (sub >> 1u)]);\n    let first = d * f32(select(scales4.x, \
                     scales4.z, (sub & 1u) == 1u));\n    let second = d * f32(select(scales4.y, scales4.w, (sub & 1u) \
                     == 1u));\n";
            for k in 0..8 {
                let scale = if k < 4 { "first" } else { "second" };
                let _ = writeln!(
                    code,
                    "    let w{k} = {scale} * (vec4<f32>(unpack4xU8((A[low + {k}u] >> shift) & 0x0f0f0f0fu) | \
                     (unpack4xU8((A[high + {k}u] >> (2u * quarter)) & 0x03030303u) << vec4<u32>(4u))) - 32.0);"
                );
            }
        }
    }
    code
}

/// Scale times `d` and minimum times `dmin` of sub-block `sub`, from the twelve packed bytes after them.
const SIX_BITS: &str = "    let dm = unpack2x16float(A[q]);
    let j = sub & 3u;
    let first4 = (A[q + 1u] >> (8u * j)) & 255u;
    let second4 = (A[q + 2u] >> (8u * j)) & 255u;
    let third4 = (A[q + 3u] >> (8u * j)) & 255u;
    let scale = select((third4 & 15u) | ((first4 >> 6u) << 4u), first4 & 63u, sub < 4u);
    let minimum = select((third4 >> 4u) | ((second4 >> 6u) << 4u), second4 & 63u, sub < 4u);
    let d = dm.x * f32(scale);
    let m = dm.y * f32(minimum);
";

/// WGSL that declares `i0` to `i7`, the quants of block `c` as packed signed bytes, `d`, and `m`, the minimum in units
/// of one activation; for formats that have an integer form.
pub(super) fn integers(format: BlockFormat) -> Option<String> {
    let layout = Layout::of(format, 256);
    let mut code = format!("    let b = c;\n    let q = row + b * {}u;\n    ", layout.block);
    match format {
        BlockFormat::Q8_0 => {
            code += SCALE;
            code += "    let m = 0.0;\n";
            for k in 0..8 {
                let _ = writeln!(code, "    let i{k} = A[q + {k}u];");
            }
        }
        BlockFormat::Q4_0 | BlockFormat::Q4_1 => {
            if format == BlockFormat::Q4_0 {
                code += SCALE;
                code += "    let m = -8.0 * d;\n";
            } else {
                code += SCALE_AND_MINIMUM;
            }
            for k in 0..8 {
                let _ = writeln!(code, "    let i{k} = (A[q + {}u] >> {}u) & 0x0f0f0f0fu;", k % 4, k / 4 * 4);
            }
        }
        _ => return None,
    }
    Some(code)
}
