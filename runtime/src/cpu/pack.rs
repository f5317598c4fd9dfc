//! Weights as a device holds them: sixteen rows side by side, so that one register holds one column of sixteen rows.
//!
//! A *panel* is sixteen rows of a matrix, padded with zero rows at the end. With one row per lane a dot product needs no
//! sum across lanes: each output element is a plain chain over the columns in rising order, whatever the instruction
//! set, the number of tokens or the number of threads. Packing is done once, when a stage is loaded; it moves bits and
//! computes nothing, so no weight changes.
//!
//! A few panels that are multiplied together form a *slab* and are interleaved group by group, so that a product reads
//! memory as one rising stream: processors fetch a long stream ahead at several times the rate of many short ones.
//!
//! Layout of a slab of `n` panels, all little-endian. Weights come in *groups*, one or more columns of the sixteen rows of
//! a panel:
//!
//! * single or half precision: one column, sixteen values;
//! * nibbles (Q4_0, Q4_1, Q5_0, Q5_1): eight columns, sixteen 32-bit words, nibble `i` of a word being column `i`;
//! * bytes (Q8_0): four columns, sixteen words, byte `i` of a word being column `i`;
//! * super-blocks (Q4_K, Q5_K, Q6_K): nibbles. After each four groups of these and of Q5_0 and Q5_1 stand the bits above
//!   the nibbles, see [`super_blocks`].
//!
//! For each group in rising order of columns stand the `n` panels' groups. With quantised weights, after the groups of
//! each block of 32 columns stand, for each panel, sixteen half-precision scales, and with Q4_1 and Q5_1 sixteen minima after
//! them. Super-blocks are blocks of 256 columns with scales of their own.

mod super_blocks;

use crate::model::format::BlockFormat;
use memmap2::MmapMut;
use std::ops::Range;
use std::sync::Arc;

/// Rows in a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// Columns in a quantised block.
pub(super) const BLOCK: usize = 32;
/// Columns in a super-block.
pub(super) const SUPER_BLOCK: usize = 256;
/// Most panels in a slab.
pub(super) const SLAB_PANELS: usize = 4;
/// Slabs begin at multiples of this many bytes.
const ALIGNMENT: usize = 64;

/// How a panel stores its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PanelKind {
    /// Single precision, from F32 and from every format without a packing of its own, dequantised.
    Single,
    /// IEEE half precision.
    Half,
    /// The upper half of single precision.
    Brain,
    /// 32 nibbles and a scale.
    Nibbles,
    /// 32 nibbles, a scale and a minimum.
    NibblesWithMinimum,
    /// 32 values of five bits and a scale.
    FiveBits,
    /// 32 values of five bits, a scale and a minimum.
    FiveBitsWithMinimum,
    /// 32 signed bytes and a scale.
    Bytes,
    /// 256 nibbles in eight parts with scales and minima of their own.
    Fours,
    /// The same with five bits each.
    Fives,
    /// 256 values of six bits in sixteen parts with signed scales.
    Sixes,
}

impl PanelKind {
    /// The packing of a block format.
    pub(crate) fn of(format: BlockFormat) -> Self {
        match format {
            BlockFormat::F16 => Self::Half,
            BlockFormat::BF16 => Self::Brain,
            BlockFormat::Q4_0 => Self::Nibbles,
            BlockFormat::Q4_1 => Self::NibblesWithMinimum,
            BlockFormat::Q5_0 => Self::FiveBits,
            BlockFormat::Q5_1 => Self::FiveBitsWithMinimum,
            BlockFormat::Q8_0 => Self::Bytes,
            BlockFormat::Q4K => Self::Fours,
            BlockFormat::Q5K => Self::Fives,
            BlockFormat::Q6K => Self::Sixes,
            BlockFormat::F32 => Self::Single,
        }
    }

    /// Whether the columns come in blocks with scales.
    pub(super) fn is_blocked(self) -> bool {
        !matches!(self, Self::Single | Self::Half | Self::Brain)
    }

    /// Bits above the nibbles.
    pub(super) fn high_bits(self) -> usize {
        match self {
            Self::FiveBits | Self::FiveBitsWithMinimum | Self::Fives => 1,
            Self::Sixes => 2,
            _ => 0,
        }
    }

    /// Columns of a block.
    fn block_columns(self) -> usize {
        if matches!(self, Self::Fours | Self::Fives | Self::Sixes) { SUPER_BLOCK } else { BLOCK }
    }

    /// Columns in a group.
    pub(super) fn group_columns(self) -> usize {
        match self {
            Self::Single | Self::Half | Self::Brain => 1,
            Self::Bytes => 4,
            _ => 8,
        }
    }

    /// Bytes of a group of one panel.
    pub(super) fn group_bytes(self) -> usize {
        match self {
            Self::Half | Self::Brain => 2 * PANEL_ROWS,
            _ => 4 * PANEL_ROWS,
        }
    }

    /// Bytes of scales and minima of one panel in one block.
    pub(super) fn scale_bytes(self) -> usize {
        match self {
            Self::Single | Self::Half | Self::Brain => 0,
            Self::Nibbles | Self::FiveBits | Self::Bytes => 2 * PANEL_ROWS,
            Self::NibblesWithMinimum | Self::FiveBitsWithMinimum => 4 * PANEL_ROWS,
            // Two halves and sixteen bytes, or one half and sixteen bytes, for each row.
            Self::Fours | Self::Fives => (4 + 16) * PANEL_ROWS,
            Self::Sixes => (2 + 16) * PANEL_ROWS,
        }
    }
}

impl PanelKind {
    /// Bytes of the groups of one block, or of one group where there are no blocks, of `panels` panels.
    pub(super) fn groups_bytes(self, panels: usize) -> usize {
        let high = self.high_bits() * (self.block_columns() / BLOCK);
        let groups = if self.is_blocked() { self.block_columns() / self.group_columns() + high } else { 1 };
        groups * panels * self.group_bytes()
    }

    /// Bytes from one block of `panels` panels to the next, or from one group to the next where there are no blocks.
    pub(super) fn step_bytes(self, panels: usize) -> usize {
        let bytes = self.groups_bytes(panels) + panels * self.scale_bytes();
        // Groups of words begin at cache lines, so that no load straddles two.
        if self.is_blocked() { bytes.next_multiple_of(ALIGNMENT) } else { bytes }
    }
}

/// How a matrix is cut into slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slabs {
    kind: PanelKind,
    panels: usize,
    columns: usize,
    /// Panels in each slab; the last one may have fewer.
    pub(super) each: usize,
}

/// One slab's place in a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slab {
    /// Where it begins.
    pub(super) start: usize,
    /// Number of its panels.
    pub(super) panels: usize,
}

impl Slabs {
    fn of(kind: PanelKind, rows: usize, columns: usize) -> Self {
        let panels = rows.div_ceil(PANEL_ROWS);
        // An even number of slabs can be shared out evenly between two workers, and usually between more.
        let even = |each: &usize| panels.is_multiple_of(2 * *each);
        let each = [SLAB_PANELS, SLAB_PANELS - 1].into_iter().find(even).unwrap_or(SLAB_PANELS);
        Self { kind, panels, columns, each }
    }

    /// Bytes of a slab of `panels` panels.
    fn bytes_of(self, panels: usize) -> usize {
        let step = if self.kind.is_blocked() { self.kind.block_columns() } else { self.kind.group_columns() };
        (self.columns / step * self.kind.step_bytes(panels)).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of all slabs.
    fn bytes(self) -> usize {
        let whole = self.panels / self.each;
        whole * self.bytes_of(self.each) + self.bytes_of(self.panels % self.each)
    }

    /// One slab.
    pub(super) fn slab(self, index: usize) -> Slab {
        let panels = self.each.min(self.panels - index * self.each);
        Slab { start: index * self.bytes_of(self.each), panels }
    }
}

/// A matrix in a file: `rows` rows of `columns` weights in a block format, one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowMajor<'a> {
    /// How a row is stored.
    pub format: BlockFormat,
    /// Outputs.
    pub rows: usize,
    /// Inputs: a whole number of blocks.
    pub columns: usize,
    /// All rows.
    pub bytes: &'a [u8],
}

impl<'a> RowMajor<'a> {
    /// The bytes of one row.
    fn row(&self, row: usize) -> &'a [u8] {
        let length = self.bytes.len() / self.rows;
        &self.bytes[row * length..(row + 1) * length]
    }

    /// Bytes that the matrix takes when packed.
    pub(crate) fn packed_bytes(&self) -> usize {
        Slabs::of(PanelKind::of(self.format), self.rows, self.columns).bytes()
    }
}

/// A packed matrix. Cloning shares the memory.
#[derive(Clone)]
pub(crate) struct Packed {
    kind: PanelKind,
    rows: usize,
    columns: usize,
    memory: Arc<MmapMut>,
    range: Range<usize>,
}

impl Packed {
    /// Packs matrices into one piece of fresh memory.
    ///
    /// # Errors
    /// When the operating system does not give that much memory.
    #[cfg(test)]
    pub(crate) fn all(matrices: &[RowMajor<'_>]) -> std::io::Result<Vec<Self>> {
        // One piece, so that the system can back it with large pages.
        let mut memory = super::memory::zeroed(Self::bytes_of(matrices))?;
        Self::write(matrices, &mut memory);
        Ok(Self::placed(matrices, &Arc::new(memory)))
    }

    /// Bytes that matrices take side by side.
    pub(crate) fn bytes_of(matrices: &[RowMajor<'_>]) -> usize {
        matrices.iter().map(RowMajor::packed_bytes).sum()
    }

    /// Packs matrices side by side into memory that holds zeros.
    ///
    /// # Panics
    /// When the memory is too small.
    pub(crate) fn write(matrices: &[RowMajor<'_>], memory: &mut [u8]) {
        let mut rest = memory;
        for matrix in matrices {
            let (own, others) = rest.split_at_mut(matrix.packed_bytes());
            pack(matrix, own);
            rest = others;
        }
    }

    /// The matrices that [`Self::write`] has put into `memory`, or will.
    pub(crate) fn placed(matrices: &[RowMajor<'_>], memory: &Arc<MmapMut>) -> Vec<Self> {
        let mut start = 0;
        let place = |matrix: &RowMajor<'_>| {
            let range = start..start + matrix.packed_bytes();
            start = range.end;
            Self {
                kind: PanelKind::of(matrix.format),
                rows: matrix.rows,
                columns: matrix.columns,
                memory: Arc::clone(memory),
                range,
            }
        };
        matrices.iter().map(place).collect()
    }

    /// Says where the matrix is from now on: at its old place in other memory.
    pub(crate) fn move_to(&mut self, memory: &Arc<MmapMut>) {
        self.memory = Arc::clone(memory);
    }

    /// How its panels are stored.
    pub(crate) fn kind(&self) -> PanelKind {
        self.kind
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Rows that are multiplied together: a product over part of the rows begins at a multiple of this.
    pub(crate) fn rows_together(&self) -> usize {
        self.slabs().each * PANEL_ROWS
    }

    /// How it is cut into slabs.
    pub(super) fn slabs(&self) -> Slabs {
        Slabs::of(self.kind, self.rows, self.columns)
    }

    /// Whether both hold the same bytes.
    #[cfg(test)]
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }

    /// All slabs.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }
}

/// Packs one matrix into zeroed memory of its exact size.
fn pack(matrix: &RowMajor<'_>, memory: &mut [u8]) {
    assert!(
        matrix.format.row_bytes(matrix.columns as u64).map(|b| b * matrix.rows as u64)
            == Some(matrix.bytes.len() as u64),
        "{} bytes do not hold {} rows of {} values as {}",
        matrix.bytes.len(),
        matrix.rows,
        matrix.columns,
        matrix.format
    );
    let kind = PanelKind::of(matrix.format);
    let slabs = Slabs::of(kind, matrix.rows, matrix.columns);
    let mut row_values = Vec::new();
    for row in 0..matrix.rows {
        let (panel, lane) = (row / PANEL_ROWS, row % PANEL_ROWS);
        let slab = slabs.slab(panel / slabs.each);
        let place = RowPlace { kind, slab, panel: panel % slabs.each, lane };
        let row = matrix.row(row);
        match kind {
            PanelKind::Single => {
                row_values.resize(matrix.columns, 0.0);
                matrix.format.dequantise_row(row, &mut row_values);
                for (column, value) in row_values.iter().enumerate() {
                    put(memory, place.weights(column, 0, 4), value.to_le_bytes());
                }
            }
            PanelKind::Half | PanelKind::Brain => {
                for (column, value) in row.chunks_exact(2).enumerate() {
                    put(memory, place.weights(column, 0, 2), [value[0], value[1]]);
                }
            }
            PanelKind::Nibbles | PanelKind::NibblesWithMinimum => pack_nibbles(row, place, memory),
            PanelKind::FiveBits | PanelKind::FiveBitsWithMinimum => {
                super_blocks::pack_five_bits(row, place, memory);
            }
            PanelKind::Fours | PanelKind::Fives | PanelKind::Sixes => {
                super_blocks::pack(matrix.format, row, place, memory);
            }
            PanelKind::Bytes => {
                for (b, block) in row.chunks_exact(34).enumerate() {
                    put(memory, place.scales(b), [block[0], block[1]]);
                    for (j, word) in block[2..].chunks_exact(4).enumerate() {
                        put(memory, place.weights(b, j, 4), [word[0], word[1], word[2], word[3]]);
                    }
                }
            }
        }
    }
}

/// Where one row goes.
#[derive(Clone, Copy)]
struct RowPlace {
    kind: PanelKind,
    slab: Slab,
    panel: usize,
    lane: usize,
}

impl RowPlace {
    /// Where the row's `bytes` bytes of group `group` of block `step` are; without blocks every group is a step.
    fn weights(self, step: usize, group: usize, bytes: usize) -> usize {
        let panel = (group * self.slab.panels + self.panel) * self.kind.group_bytes();
        self.slab.start + step * self.kind.step_bytes(self.slab.panels) + panel + self.lane * bytes
    }

    /// Where the row's scale of a block is; its minimum follows 32 bytes later.
    fn scales(self, block: usize) -> usize {
        let panels = self.slab.panels;
        let groups = block * self.kind.step_bytes(panels) + self.kind.groups_bytes(panels);
        self.slab.start + groups + self.panel * self.kind.scale_bytes() + 2 * self.lane
    }
}

/// Stores a few bytes.
fn put<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    to[at..at + N].copy_from_slice(&bytes);
}

/// One row of Q4_0 or Q4_1: element `i` of a block is the low nibble of byte `i`, element `16 + i` its high nibble.
fn pack_nibbles(row: &[u8], place: RowPlace, memory: &mut [u8]) {
    let header = place.kind.scale_bytes() / PANEL_ROWS;
    for (b, block) in row.chunks_exact(header + 16).enumerate() {
        put(memory, place.scales(b), [block[0], block[1]]);
        if header == 4 {
            put(memory, place.scales(b) + 2 * PANEL_ROWS, [block[2], block[3]]);
        }
        for half in 0..2 {
            let bytes: [u8; 8] =
                block[header + 8 * half..][..8].try_into().expect("a range of eight bytes has eight bytes");
            let bytes = u64::from_le_bytes(bytes);
            for (j, nibbles) in [(half, bytes), (2 + half, bytes >> 4)] {
                put(memory, place.weights(b, j, 4), every_second_nibble(nibbles).to_le_bytes());
            }
        }
    }
}

/// The low nibbles of eight bytes, side by side.
fn every_second_nibble(bytes: u64) -> u32 {
    let mut x = bytes & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    ((x | x >> 16) & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_stand_side_by_side_in_their_order() {
        assert_eq!(every_second_nibble(0xf8_f7_f6_f5_f4_f3_f2_f1), 0x8765_4321);
    }

    #[test]
    fn rows_past_the_last_are_zero() {
        let bytes: Vec<u8> = (1..=17 * 4).flat_map(|v| (v as f32).to_le_bytes()).collect();
        let matrix = RowMajor { format: BlockFormat::F32, rows: 17, columns: 4, bytes: &bytes };
        let packed = Packed::all(&[matrix]).expect("a little memory").remove(0);
        let all: Vec<f32> =
            packed.bytes().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        // Two panels in one slab: column by column, sixteen rows of the first and sixteen of the second.
        let second: Vec<f32> = all.chunks_exact(32).flat_map(|column| &column[16..]).copied().collect();
        let rows_of_column = |c: usize| &second[c * 16..(c + 1) * 16];
        for column in 0..4 {
            assert!((rows_of_column(column)[0] - (65 + column) as f32).abs() < f32::EPSILON);
            assert!(rows_of_column(column)[1..].iter().all(|&v| v == 0.0));
        }
    }
}
