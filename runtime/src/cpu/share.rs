//! One buffer, many workers: pieces of a buffer that are handed out once each.
//!
//! Workers of a team write different parts of one result. [`Columns`] and [`Pieces`] cut a mutable buffer into numbered
//! parts and give each part to whoever asks first; asking twice is a bug and panics, so no two workers ever hold the
//! same memory. Both live on the stack and allocate nothing.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most parts that a buffer is cut into.
pub(crate) const PARTS_MAX: usize = 64;

/// Marks parts as taken.
struct Claims(AtomicU64);

impl Claims {
    fn new(parts: usize) -> Self {
        assert!(parts <= PARTS_MAX, "{parts} parts of at most {PARTS_MAX}");
        Self(AtomicU64::new(0))
    }

    /// # Panics
    /// When the part was taken before.
    fn take(&self, part: usize) {
        let bit = 1_u64 << part;
        let before = self.0.fetch_or(bit, Ordering::Relaxed);
        assert!(before & bit == 0, "part {part} is taken twice");
    }
}

/// A buffer cut into runs of equal length, the last one possibly shorter.
pub(crate) struct Pieces<'a, T> {
    base: *mut T,
    length: usize,
    piece: usize,
    claims: Claims,
    buffer: PhantomData<&'a mut [T]>,
}

// SAFETY: the buffer is borrowed mutably for as long as this lives, and each piece of it is given out at most once.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    /// Cuts `buffer` into runs of `piece` elements.
    pub(crate) fn new(buffer: &'a mut [T], piece: usize) -> Self {
        Self {
            base: buffer.as_mut_ptr(),
            length: buffer.len(),
            piece,
            claims: Claims::new(buffer.len().div_ceil(piece.max(1))),
            buffer: PhantomData,
        }
    }

    /// Run `part`.
    ///
    /// # Panics
    /// When it was taken before or lies past the end.
    #[allow(clippy::mut_from_ref)] // The claim makes each run's reference unique.
    pub(crate) fn take(&self, part: usize) -> &mut [T] {
        let start = part * self.piece;
        assert!(start < self.length, "part {part} lies past the end");
        self.claims.take(part);
        let length = self.piece.min(self.length - start);
        // SAFETY: `start + length` lies in the buffer; the claim above gives this run to one caller only, and runs of
        // different numbers do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), length) }
    }
}

/// A table of `rows` rows cut into blocks of adjacent columns.
pub(crate) struct Columns<'a> {
    base: *mut f32,
    rows: usize,
    width: usize,
    piece: usize,
    claims: Claims,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: as for `Pieces`; blocks of different numbers share no element.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Cuts a table of rows of `width` numbers into blocks of `piece` columns.
    pub(crate) fn new(table: &'a mut [f32], width: usize, piece: usize) -> Self {
        assert!(table.len().is_multiple_of(width), "a table has whole rows");
        Self {
            base: table.as_mut_ptr(),
            rows: table.len() / width,
            width,
            piece,
            claims: Claims::new(width.div_ceil(piece.max(1))),
            buffer: PhantomData,
        }
    }

    /// Block `part`.
    ///
    /// # Panics
    /// When it was taken before or lies past the end.
    pub(crate) fn take(&self, part: usize) -> ColumnBlock<'_> {
        let start = part * self.piece;
        assert!(start < self.width, "part {part} lies past the end");
        self.claims.take(part);
        ColumnBlock {
            base: self.base,
            rows: self.rows,
            stride: self.width,
            range: start..(start + self.piece).min(self.width),
            buffer: PhantomData,
        }
    }
}

/// Adjacent columns of a table, owned by one worker.
pub(crate) struct ColumnBlock<'a> {
    base: *mut f32,
    rows: usize,
    stride: usize,
    range: Range<usize>,
    buffer: PhantomData<&'a mut [f32]>,
}

impl ColumnBlock<'_> {
    /// The columns, as positions in the table.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The part of row `row` that lies in this block.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row lies in the table, the columns in the row, and this block is their only owner.
        unsafe {
            let start = self.base.add(row * self.stride + self.range.start);
            std::slice::from_raw_parts_mut(start, self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_columns_cover_a_table_once() {
        let mut table = vec![0.0; 3 * 7];
        let columns = Columns::new(&mut table, 7, 3);
        for part in 0..3 {
            let mut block = columns.take(part);
            for row in 0..3 {
                for value in block.row(row) {
                    *value += (part + 1) as f32;
                }
            }
        }
        let row = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0];
        assert_eq!(table, [row, row, row].concat());
    }

    #[test]
    #[should_panic(expected = "taken twice")]
    fn no_part_is_given_twice() {
        let mut buffer = vec![0_u8; 4];
        let pieces = Pieces::new(&mut buffer, 2);
        pieces.take(1);
        pieces.take(1);
    }
}
