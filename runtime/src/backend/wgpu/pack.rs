//! Matrices in the layout that the shaders read: rows of 32-bit words, padded to 32 columns.
//!
//! Block formats whose size is no multiple of four bytes are taken apart: first the quants of all blocks of a row, then
//! their half-precision scales, two in a word. No format takes more bytes than in the file but for the padding of a
//! row.

use crate::model::format::BlockFormat;

/// Columns that one step of a kernel takes.
pub(super) const CHUNK: usize = 32;

/// Where the parts of a row are, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Words of a row.
    pub(super) row: usize,
    /// Words of a block's quants.
    pub(super) block: usize,
    /// Where the scales begin; the row's length where they stand in the blocks.
    pub(super) scales: usize,
}

impl Layout {
    /// The layout of rows of `columns` values.
    pub(super) fn of(format: BlockFormat, columns: usize) -> Self {
        let blocks = columns.div_ceil(format.values_per_block());
        let (block, halves) = match format {
            BlockFormat::F32 => return Self::plain(columns.next_multiple_of(CHUNK)),
            BlockFormat::F16 | BlockFormat::BF16 => return Self::plain(columns.next_multiple_of(CHUNK) / 2),
            BlockFormat::Q8_0 => (8, 1),
            BlockFormat::Q4_0 => (4, 1),
            BlockFormat::Q4_1 => (4, 2),
            BlockFormat::Q5_0 => (5, 1),
            BlockFormat::Q5_1 => (5, 2),
            BlockFormat::Q4K => (36, 0),
            BlockFormat::Q5K => (44, 0),
            BlockFormat::Q6K => (52, 1),
        };
        let scales = blocks * block;
        Self { row: scales + (blocks * halves).div_ceil(2), block, scales }
    }

    fn plain(row: usize) -> Self {
        Self { row, block: 0, scales: row }
    }
}

/// Lays rows out: `packed` as in a file, the answer as the shaders read it.
pub(super) fn lay_out(format: BlockFormat, columns: usize, packed: &[u8]) -> Vec<u8> {
    let layout = Layout::of(format, columns);
    let length = format.row_bytes(columns as u64).expect("a matrix has whole rows") as usize;
    let mut out = vec![0; packed.len() / length * layout.row * 4];
    // Parts of a block, in the order in which they go into a row: quants, then what follows them, then halves.
    let (quants, halves): (&[(usize, usize)], std::ops::Range<usize>) = match format {
        BlockFormat::Q8_0 => (&[(2, 34)], 0..2),
        BlockFormat::Q4_0 => (&[(2, 18)], 0..2),
        BlockFormat::Q4_1 => (&[(4, 20)], 0..4),
        BlockFormat::Q5_0 => (&[(6, 22), (2, 6)], 0..2),
        BlockFormat::Q5_1 => (&[(8, 24), (4, 8)], 0..4),
        BlockFormat::Q6K => (&[(0, 208)], 208..210),
        BlockFormat::Q4K => (&[(0, 144)], 0..0),
        BlockFormat::Q5K => (&[(0, 176)], 0..0),
        BlockFormat::F32 | BlockFormat::F16 | BlockFormat::BF16 => {
            for (row, out) in packed.chunks_exact(length).zip(out.chunks_exact_mut(4 * layout.row)) {
                out[..length].copy_from_slice(row);
            }
            return out;
        }
    };
    for (row, out) in packed.chunks_exact(length).zip(out.chunks_exact_mut(4 * layout.row)) {
        for (b, block) in row.chunks_exact(format.bytes_per_block()).enumerate() {
            let mut at = 4 * b * layout.block;
            for &(start, end) in quants {
                out[at..at + end - start].copy_from_slice(&block[start..end]);
                at += end - start;
            }
            let at = 4 * layout.scales + b * halves.len();
            out[at..at + halves.len()].copy_from_slice(&block[halves.clone()]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_format_grows_by_more_than_the_padding_of_a_row() {
        for format in BlockFormat::ALL {
            let columns = 3 * 256;
            let bytes = format.row_bytes(columns as u64).expect("whole blocks") as usize;
            assert!(4 * Layout::of(format, columns).row < bytes + 4, "{format}");
        }
    }

    #[test]
    fn every_byte_of_a_block_is_kept_once() {
        for format in BlockFormat::ALL {
            let columns = 256;
            let length = format.row_bytes(columns as u64).expect("whole blocks") as usize;
            let row: Vec<u8> = (0..length).map(|i| (i % 251) as u8 + 1).collect();
            let mut out = lay_out(format, columns, &row);
            let mut sorted = row.clone();
            sorted.sort_unstable();
            out.retain(|&byte| byte != 0);
            out.sort_unstable();
            assert_eq!(out, sorted, "{format}");
        }
    }
}
