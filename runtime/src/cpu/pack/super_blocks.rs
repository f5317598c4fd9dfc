//! Rows of Q4_K, Q5_K and Q6_K, and of Q5_0 and Q5_1, whose five bits lie in the same way.
//!
//! For each part of 32 columns stand four groups of nibbles, and after them the bits above: with five bits one word, whose
//! bit `4 i + j` belongs to column `8 j + i`; with six bits two words, the first for groups 0 and 1, whose bits
//! `4 i + 2 j` and the next belong to column `8 j + i`. A shift by a constant so brings them to their place above every
//! nibble of a group at once.
//!
//! After the groups of a super-block stand, for each panel, sixteen half-precision scales; with four and five bits sixteen
//! half-precision scales of minima, then for each part sixteen scales of a byte, then for each part sixteen minima of a
//! byte; with six bits for each half of a part sixteen signed scales of a byte. No number is combined with another, so no
//! weight changes, and a row takes 4.625, 5.625 and 6.5625 bits per weight.

use super::{PANEL_ROWS, RowPlace, SUPER_BLOCK, put};
use crate::model::format::{BlockFormat, six_bit_scale_and_minimum};

/// The values of a block before scaling.
fn quants(format: BlockFormat, block: &[u8]) -> [u8; SUPER_BLOCK] {
    std::array::from_fn(|i| {
        let (part, within) = (i / 32, i % 32);
        let nibble = |byte: u8, high: bool| if high { byte >> 4 } else { byte & 15 };
        match format {
            BlockFormat::Q4K => nibble(block[16 + part / 2 * 32 + within], part % 2 == 1),
            BlockFormat::Q5K => {
                let low = nibble(block[48 + part / 2 * 32 + within], part % 2 == 1);
                low | ((block[16 + within] >> part) & 1) << 4
            }
            _ => {
                let (half, quarter) = (part / 4, part % 4);
                let low = nibble(block[64 * half + 32 * (quarter % 2) + within], quarter >= 2);
                low | ((block[128 + 32 * half + within] >> (2 * quarter)) & 3) << 4
            }
        }
    })
}

/// Puts 32 values into the groups from `first` on.
fn put_part(memory: &mut [u8], place: RowPlace, block: usize, first: usize, quants: &[u8]) {
    let high = place.kind.high_bits();
    let mut above = [0_u32; 2];
    for (j, eight) in quants.chunks_exact(8).enumerate() {
        let mut word = 0_u32;
        for (i, &q) in eight.iter().enumerate() {
            word |= u32::from(q & 15) << (4 * i);
            if high == 1 {
                above[0] |= u32::from(q >> 4) << (4 * i + j);
            } else {
                above[j / 2] |= u32::from(q >> 4) << (4 * i + 2 * (j % 2));
            }
        }
        put(memory, place.weights(block, first + j, 4), word.to_le_bytes());
    }
    for (h, word) in above.into_iter().take(high).enumerate() {
        put(memory, place.weights(block, first + 4 + h, 4), word.to_le_bytes());
    }
}

/// Packs one row of Q5_0 or Q5_1: bit `i` of a word is the fifth of element `i`, whose nibble is the low one of byte `i` or
/// the high one of byte `i - 16`.
pub(super) fn pack_five_bits(row: &[u8], place: RowPlace, memory: &mut [u8]) {
    let header = place.kind.scale_bytes() / PANEL_ROWS;
    for (b, block) in row.chunks_exact(header + 20).enumerate() {
        put(memory, place.scales(b), [block[0], block[1]]);
        if header == 4 {
            put(memory, place.scales(b) + 2 * PANEL_ROWS, [block[2], block[3]]);
        }
        let (bits, nibbles) = block[header..].split_at(4);
        let quants: [u8; 32] = std::array::from_fn(|i| {
            let nibble = if i < 16 { nibbles[i] & 15 } else { nibbles[i - 16] >> 4 };
            nibble | ((bits[i / 8] >> (i % 8)) & 1) << 4
        });
        put_part(memory, place, b, 0, &quants);
    }
}

/// Packs one row.
pub(super) fn pack(format: BlockFormat, row: &[u8], place: RowPlace, memory: &mut [u8]) {
    let high = place.kind.high_bits();
    for (b, block) in row.chunks_exact(format.bytes_per_block()).enumerate() {
        let quants = quants(format, block);
        for (part, quants) in quants.chunks_exact(32).enumerate() {
            put_part(memory, place, b, part * (4 + high), quants);
        }
        let halves = place.scales(b);
        let byte = |number: usize| halves - place.lane + (if high == 2 { 2 } else { 4 } + number) * PANEL_ROWS;
        if high == 2 {
            put(memory, halves, [block[208], block[209]]);
            for (number, &scale) in block[192..208].iter().enumerate() {
                put(memory, byte(number), [scale]);
            }
        } else {
            put(memory, halves, [block[0], block[1]]);
            put(memory, halves + 2 * PANEL_ROWS, [block[2], block[3]]);
            let packed: [u8; 12] = block[4..16].try_into().expect("a range of twelve bytes has twelve bytes");
            for part in 0..8 {
                let (scale, minimum) = six_bit_scale_and_minimum(&packed, part);
                put(memory, byte(part), [scale]);
                put(memory, byte(8 + part), [minimum]);
            }
        }
    }
}
