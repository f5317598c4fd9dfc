//! Block formats: how runs of weights are packed into bytes, and the plain reading of each.
//!
//! The layouts are those of ggml, as `ggml-common.h` declares them and `ggml-quants.c` decodes them. Everything here
//! is written to be read, not to be fast: kernels are judged against these few loops.

use std::fmt;
use std::str::FromStr;

use half::f16;

/// How a row of weights is stored.
///
/// A row is a whole number of blocks; a block holds [`values_per_block`](Self::values_per_block) consecutive values in
/// [`bytes_per_block`](Self::bytes_per_block) bytes, little-endian throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockFormat {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single precision number.
    BF16,
    /// 32 signed bytes and one half-precision scale: `d * q`.
    Q8_0,
    /// 32 nibbles and one scale: `d * (q - 8)`.
    Q4_0,
    /// 32 nibbles, scale and minimum: `d * q + m`.
    Q4_1,
    /// 32 five-bit values and one scale: `d * (q - 16)`.
    Q5_0,
    /// 32 five-bit values, scale and minimum: `d * q + m`.
    Q5_1,
    /// 256 nibbles in eight sub-blocks with six-bit scales and minima.
    Q4K,
    /// 256 five-bit values in eight sub-blocks with six-bit scales and minima.
    Q5K,
    /// 256 six-bit values in sixteen sub-blocks with eight-bit scales.
    Q6K,
}

impl BlockFormat {
    /// Every format this program reads, in the order of their ids.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::BF16,
    ];

    /// The number that stands for this format in a GGUF tensor descriptor (`enum ggml_type`).
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::BF16 => 30,
        }
    }

    /// The format with this GGUF id, or `None` when this program cannot read it.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.id() == id)
    }

    /// The name in common use, as in file names: `"Q4_1"`, `"Q6_K"`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Values in one block.
    pub const fn values_per_block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn bytes_per_block(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `values` values; `None` when that is not a whole number of blocks or does not fit in 64 bits.
    pub const fn row_bytes(self, values: u64) -> Option<u64> {
        let block = self.values_per_block() as u64;
        if !values.is_multiple_of(block) {
            return None;
        }
        (values / block).checked_mul(self.bytes_per_block() as u64)
    }

    /// Storage per weight, in bits: 4.5 for `Q4_0`.
    pub fn bits_per_weight(self) -> f64 {
        8.0 * self.bytes_per_block() as f64 / self.values_per_block() as f64
    }

    /// Reads whole blocks into single precision.
    ///
    /// Scales are widened from half precision first; all arithmetic after that is single precision in the order written.
    ///
    /// # Panics
    /// When `values` is no whole number of blocks, or `bytes` is not exactly as long as those blocks.
    pub fn dequantise_row(self, bytes: &[u8], values: &mut [f32]) {
        let (per_block, block_bytes) = (self.values_per_block(), self.bytes_per_block());
        assert!(values.len().is_multiple_of(per_block), "{} values are no whole number of {self} blocks", values.len());
        assert!(
            bytes.len() == values.len() / per_block * block_bytes,
            "{} bytes do not hold {} values as {self}",
            bytes.len(),
            values.len()
        );
        let decode = match self {
            Self::F32 => f32_block,
            Self::F16 => f16_block,
            Self::BF16 => bf16_block,
            Self::Q8_0 => q8_0_block,
            Self::Q4_0 => q4_0_block,
            Self::Q4_1 => q4_1_block,
            Self::Q5_0 => q5_0_block,
            Self::Q5_1 => q5_1_block,
            Self::Q4K => q4k_block,
            Self::Q5K => q5k_block,
            Self::Q6K => q6k_block,
        };
        for (block, out) in bytes.chunks_exact(block_bytes).zip(values.chunks_exact_mut(per_block)) {
            decode(block, out);
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A format name that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown block format {0:?}; known are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16")]
pub struct UnknownFormat(pub String);

impl FromStr for BlockFormat {
    type Err = UnknownFormat;

    /// Reads a name as [`name`](Self::name) writes it, in either case.
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownFormat(text.chars().take(32).collect()))
    }
}

/// The half-precision number at byte `at`, widened.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn f32_block(block: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

fn f16_block(block: &[u8], out: &mut [f32]) {
    out[0] = half_at(block, 0);
}

fn bf16_block(block: &[u8], out: &mut [f32]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes([block[0], block[1]])) << 16);
}

fn q8_0_block(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(byte as i8);
    }
}

/// Element `i` of a block of 32 nibbles: the first 16 are the low halves, the rest the high halves.
fn nibble(nibbles: &[u8], i: usize) -> u8 {
    if i < 16 { nibbles[i] & 15 } else { nibbles[i - 16] >> 4 }
}

fn q4_0_block(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

fn q4_1_block(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// Element `i` of 32 five-bit values: a nibble, and bit `i` of a 32-bit word above it.
fn five_bits(word: &[u8], nibbles: &[u8], i: usize) -> u8 {
    nibble(nibbles, i) | ((word[i / 8] >> (i % 8)) & 1) << 4
}

fn q5_0_block(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * (f32::from(five_bits(&block[2..6], &block[6..], i)) - 16.0);
    }
}

fn q5_1_block(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, value) in out.iter_mut().enumerate() {
        *value = d * f32::from(five_bits(&block[4..8], &block[8..], i)) + m;
    }
}

/// Scale and minimum of sub-block `j` of eight, six bits each, from the twelve bytes that pack all sixteen numbers.
pub fn six_bit_scale_and_minimum(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
        let minimum = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
        (scale, minimum)
    }
}

/// The twelve bytes after `d` and `dmin` of a Q4_K or Q5_K block.
fn packed_scales(block: &[u8]) -> [u8; 12] {
    block[4..16].try_into().expect("a range of twelve bytes has twelve bytes")
}

fn q4k_block(block: &[u8], out: &mut [f32]) {
    let (d, dmin, packed) = (half_at(block, 0), half_at(block, 2), packed_scales(block));
    let quants = &block[16..];
    for (i, value) in out.iter_mut().enumerate() {
        let (sub, within) = (i / 32, i % 32);
        let byte = quants[sub / 2 * 32 + within];
        let q = if sub % 2 == 0 { byte & 15 } else { byte >> 4 };
        let (scale, minimum) = six_bit_scale_and_minimum(&packed, sub);
        *value = d * f32::from(scale) * f32::from(q) - dmin * f32::from(minimum);
    }
}

fn q5k_block(block: &[u8], out: &mut [f32]) {
    let (d, dmin, packed) = (half_at(block, 0), half_at(block, 2), packed_scales(block));
    let (high, quants) = (&block[16..48], &block[48..]);
    for (i, value) in out.iter_mut().enumerate() {
        let (sub, within) = (i / 32, i % 32);
        let byte = quants[sub / 2 * 32 + within];
        let low = if sub % 2 == 0 { byte & 15 } else { byte >> 4 };
        let q = low | ((high[within] >> sub) & 1) << 4;
        let (scale, minimum) = six_bit_scale_and_minimum(&packed, sub);
        *value = d * f32::from(scale) * f32::from(q) - dmin * f32::from(minimum);
    }
}

fn q6k_block(block: &[u8], out: &mut [f32]) {
    let (lows, highs, scales, d) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, value) in out.iter_mut().enumerate() {
        let (part, quarter, within) = (i / 128, i % 128 / 32, i % 32);
        let byte = lows[64 * part + 32 * (quarter % 2) + within];
        let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let high = (highs[32 * part + within] >> (2 * quarter)) & 3;
        let q = i16::from(low | high << 4) - 32;
        *value = d * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}
